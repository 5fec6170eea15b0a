"""The page of a model: facts as one HTML file that needs no server, no network and no other file.

Samples, URLs and messages were written by strangers: see `flows.static_page`. A page with the same facts has the same bytes.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flows.model.facts import (
    BASELINE,
    PARTS,
    Event,
    ModelFacts,
    Progress,
    application,
    best_baseline,
    flags,
    meets_target,
    part_seconds,
    verdict,
)
from flows.model.page.charts import Points, Series, Steps, bars, curve_chart, share_chart, steps_data
from flows.model.page.scales import Bins, Floats, binned, bins
from flows.static_page import attribute, escaped, filled, lang, policy, style_of, write_whole
from llm.evaluation.statistics import Figure
from llm.evaluation.suite import SuiteResult

MAX_BYTES = 1 << 20
_FOLDER = Path(__file__).parent
_ADDRESS = re.compile(r"https?://[^\s]+|[A-Za-z0-9_][A-Za-z0-9._/-]*")
"""What a link may lead to: a page on the web, or a file beside this one."""
_MAX_URLS = 5
"""Of an event."""
_MAX_RUNG_CHARS = 24
"""Of a rung's name, where the next says whether it beats it."""
_HAN = re.compile(r"[\u3400-\u9fff]")
_KINDS = {
    "step_skipped": "update skipped",
    "rolled_back": "rolled back",
    "resumed": "resumed",
    "checkpoint_passed_over": "checkpoint passed over",
}
_NONE = '<span class="faint">none</span>'


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much a page shows; a smaller page shows less of everything."""

    num_points: int = 600
    """Along a curve: more than there are pixels."""
    num_rows: int = 200
    """Of a table that grows with what happened."""
    num_chars: int = 4_000
    """Of a text."""

    def halved(self) -> "Limits":
        """Half of everything."""
        return Limits(
            num_points=max(10, self.num_points // 2),
            num_rows=max(1, self.num_rows // 2),
            num_chars=max(40, self.num_chars // 2),
        )


_SMALLEST = Limits(num_points=10, num_rows=1, num_chars=40)


def write_page(folder: Path, facts: ModelFacts, *, max_bytes: int = MAX_BYTES) -> Path:
    """Write `index.html` into a folder, whole or not at all. Raises StorageError for the disk.

    Above `max_bytes` it shows fewer points, rows and characters, down to a few.
    """
    limits = Limits()
    page = render_page(facts, limits)
    while len(page.encode()) > max_bytes and limits != _SMALLEST:
        limits = limits.halved()
        page = render_page(facts, limits)
    return write_whole(folder / "index.html", page)


def render_page(facts: ModelFacts, limits: Limits | None = None) -> str:
    """The page of a model."""
    shown = limits or Limits()
    style, script = style_of(_FOLDER / "page.css"), _part("script.html")
    sections = [
        ("training", "How it was trained", _config_section(facts)),
        ("curves", "Curves and events", _curves_section(facts, shown)),
        ("suites", "Suites", _suites_section(facts.suites, shown)),
        ("ladder", "Ladder", _ladder_section(facts)),
        ("samples", "Samples", _samples_section(facts.samples, shown)),
        ("data", "Data", _data_section(facts)),
        ("reproduce", "How to make it again", _reproduce_section(facts)),
    ]
    there = [(name, title, body) for name, title, body in sections if body]
    return filled(
        _part("page.html"),
        {
            "policy": policy(style, script),
            "title": attribute(f"Model of {facts.recipe}"),
            "heading": escaped(f"Model of {facts.recipe}"),
            "style": style,
            "script": script,
            "headline": _which(facts) + _headline(facts, shown),
            "index": "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in there),
            "sections": "\n".join(
                f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, title, body in there
            ),
            "foot": _foot(facts),
        },
    )


@cache
def _part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip()


# The headline


def _which(facts: ModelFacts) -> str:
    """Which of a recipe's models it is: what `corpusmill compare` knows it by, and when it was trained."""
    folder, ended = facts.identity.get("model folder"), None if facts.progress is None else facts.progress.last_ms
    named = f"<code>{escaped(folder)}</code>, " if folder else ""
    when = f"trained {_time(ended)} (UTC)" if ended else ""
    return f'<p class="faint">{(named + when).removesuffix(", ")}</p>' if named or when else ""


def _headline(facts: ModelFacts, shown: Limits) -> str:
    config = facts.config
    shape = (
        f"{config['n_layer']} layers, {config['n_head']} heads, width {config['n_embd']:,}, context {config['block_size']:,}"
        if config
        else ""
    )
    parts = [
        _fact("Parameters", _count(facts.num_parameters), shape),
        _fact("Tokens seen", _count(facts.tokens_seen), _passes(facts)),
        _held_out(facts),
        _ladder_verdict(facts),
    ]
    flagged = flags(facts)
    rows = "".join(f"<li>{escaped(_cut(each, shown))}</li>" for each in flagged)
    listed = (
        f'<ul class="flags" aria-label="Flags">{rows}</ul>'
        if rows
        else '<p class="faint">Nothing is flagged among what was measured.</p>'
    )
    return f'<dl class="headline">{"".join(parts)}</dl>{listed}'


def _fact(label: str, value: str, note: str = "", kind: str = "") -> str:
    small = f"<small>{escaped(note)}</small>" if note else ""
    return f"<div><dt>{label}</dt><dd{f' class={kind}' if kind else ''}>{value}{small}</dd></div>"


def _passes(facts: ModelFacts) -> str:
    steps = "" if facts.num_steps is None else f"{facts.num_steps:,} steps"
    tokens = (facts.corpus or {}).get("identity", {}).get("tokens for training")
    if not tokens or not facts.tokens_seen:
        return steps
    return f"{steps}, {facts.tokens_seen / tokens:,.1f} passes over {tokens:,} tokens"


def _held_out(facts: ModelFacts) -> str:
    figure = facts.held_out
    label = "Held-out bits per byte"
    if figure is None:
        return _fact(label, "not measured", "no evaluation yet")
    interval = _interval(figure)
    note = f"95 % interval {interval}" if interval else "no interval: too few documents"
    return _fact(label, _number(figure.value), f"{note}, {figure.num_items:,} documents")


def _ladder_verdict(facts: ModelFacts) -> str:
    beats, label = facts.beats_ladder, "Beats the ladder"
    best = facts.best_rung
    if best is None:
        return _fact(label, "not measured", "no baseline was scored")
    note = f"the best rung below is {best.name}, {_number(best.bits_per_byte.value)} bits per byte"
    if beats is None:
        return _fact(label, "not known", note)
    return _fact(label, "yes" if beats else "no", note, "good" if beats else "poor")


# How it was trained


def _config_section(facts: ModelFacts) -> str:
    if not facts.config and not facts.training:
        return ""
    tables = "".join(
        f"<div><h3>{title}</h3>{_config_table(values, facts.changed)}</div>"
        for title, values in (("Model", facts.config), ("Training", facts.training))
        if values
    )
    return f'<div class="tables">{tables}</div>'


def _config_table(values: Mapping[str, Any], changed: frozenset[str]) -> str:
    """What someone chose, and behind a click what was left as it is."""
    chosen = {name: value for name, value in values.items() if name in changed}
    usual = {name: value for name, value in values.items() if name not in changed}
    rest = (
        f"<details><summary>{len(usual):,} values as by default</summary>{_table('', _config_rows(usual))}</details>"
        if usual
        else ""
    )
    return (_table("", _config_rows(chosen)) if chosen else "") + rest


def _config_rows(values: Mapping[str, Any]) -> str:
    return "".join(
        f'<tr><td>{escaped(name)}</td><td class="text">{_setting(value)}</td></tr>' for name, value in values.items()
    )


def _setting(value: Any) -> str:
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return escaped(f"{value:g}" if isinstance(value, float) else str(value))


# The curves


def _curves_section(facts: ModelFacts, shown: Limits) -> str:
    progress = facts.progress
    if progress is None or progress.first_ms is None:
        return ""
    return (
        f'<p class="faint">{escaped(_period(progress))}</p>'
        f"{_charts(facts, progress, shown)}{_seconds_table(progress)}{_events_table(progress.events, shown)}"
    )


def _period(progress: Progress) -> str:
    ended = f", {progress.how_ended}" if progress.how_ended else ", not ended"
    return f"From {_time(progress.first_ms)} to {_time(progress.last_ms)} (UTC){ended}."


def _charts(facts: ModelFacts, progress: Progress, shown: Limits) -> str:
    curves = progress.curves
    if not curves.steps.size:
        return '<p class="faint">No step was reported.</p>'
    into = bins(curves.steps.size, shown.num_points)
    steps = Steps.of(curves.steps, curves.figures["num_tokens"], into)
    marks = _marks(progress.events)
    named = {
        name: binned(curves.figures[name], into)
        for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu")
    }
    charts = [
        curve_chart(
            "Loss",
            "nats a token",
            steps,
            series=[Series(name="training", kind="train", values=named["loss"], has_band=True)],
            points=_loss_points(facts, progress, shown),
            marks=marks,
            height=260,
        )
    ]
    for name, title, unit, label, options in (
        ("learning_rate", "Learning rate", "at each step", "learning rate", {"from_zero": True}),
        ("grad_norm", "Gradient norm", "before clipping", "norm", {}),
        ("tokens_per_second", "Throughput", "tokens a second", "tokens a second", {"from_zero": True}),
        (
            "mfu",
            "Model FLOPs utilisation",
            "share of the peak",
            "share of the peak",
            {"from_zero": True, "can_be_log": False, "format_value": "percent"},
        ),
    ):
        values = named[name]
        if np.isfinite(values.means).any():
            line = Series(name=label, kind="train", values=values, has_band=name != "learning_rate")
            charts.append(curve_chart(title, unit, steps, series=[line], marks=marks, **options))
    shares = _shares(progress, into)
    if shares:
        charts.append(share_chart("Time by part", "share of a step", steps, shares))
    size = math.ceil(curves.steps.size / shown.num_points)
    note = (
        f'<p class="faint">Of every {size:,} steps the mean, and around it the least and the largest.</p>'
        if size > 1
        else ""
    )
    return (
        f'<div data-steps="{attribute(steps_data(steps, {_KINDS[kind]: at for kind, at in marks.items()}))}"><div class="controls" hidden>'
        f'<label class="where">Step <input type="range" min="0" max="{into.starts.size - 1}" step="1" '
        f'value="{into.starts.size - 1}"></label>'
        '<label>Smoothing <input type="range" min="0" max="0.99" step="0.01" value="0"></label>'
        '<label><input type="checkbox"> Log scale</label>'
        f"<output>Point at a curve, or move the step with the arrow keys.</output></div>{note}{_mark_legend(marks)}"
        f'<div class="charts">{"".join(charts)}</div></div>'
    )


def _marks(events: Sequence[Event]) -> dict[str, list[int]]:
    found = {kind: [event.step for event in events if event.kind == kind] for kind in _KINDS}
    return {kind: steps for kind, steps in found.items() if steps}


def _mark_legend(marks: Mapping[str, Sequence[int]]) -> str:
    keys = "".join(f'<span class="key mark {kind}">{_KINDS[kind]} ({len(at):,})</span>' for kind, at in marks.items())
    return f'<p class="legend">{keys}</p>' if keys else ""


def _loss_points(facts: ModelFacts, progress: Progress, shown: Limits) -> list[Points]:
    """Validation along the way, and the evaluation at the end."""
    curves = progress.curves
    values = curves.figures["val_loss"]
    at = np.flatnonzero(np.isfinite(values))
    if at.size > shown.num_points:
        at = at[np.unique(np.linspace(0, at.size - 1, shown.num_points).astype(np.int64))]
    points = (
        [Points(name="validation", kind="validation", steps=curves.steps[at], values=values[at])] if at.size else []
    )
    if facts.evaluation is not None and facts.evaluation.get("loss") is not None:
        measured: Floats = np.array([facts.evaluation["loss"]], dtype=np.float64)
        step = np.array([facts.num_steps or 0], dtype=np.int64)
        points.append(
            Points(name="evaluation (held-out text)", kind="held-out", steps=step, values=measured, is_joined=False)
        )
    return points


def _shares(progress: Progress, into: Bins) -> dict[str, Floats]:
    """Of each bin's time by part, `other` last; empty where no time was measured."""
    figures = progress.curves.figures
    whole = _sums(figures["seconds/whole"], into)
    if not (whole > 0).any():
        return {}
    parts = {part: _sums(figures[f"seconds/{part}"], into) for part in PARTS}
    total = np.maximum(whole, sum(parts.values()))
    below = np.where(total > 0, total, np.nan)
    return {part: values / below for part, values in parts.items()} | {
        "other": (total - sum(parts.values())) / below,
    }


def _sums(values: Floats, into: Bins) -> Floats:
    sums: Floats = np.add.reduceat(np.where(np.isfinite(values), values, 0.0), into.starts)
    return sums


def _seconds_table(progress: Progress) -> str:
    seconds = part_seconds(progress.curves)
    whole = sum(seconds.values())
    if not whole:
        return ""
    rows = "".join(
        f'<tr><td>{name}</td><td class="n">{value:,.1f}</td><td class="n">{value / whole * 100:.1f} %</td></tr>'
        for name, value in [*seconds.items(), ("all", whole)]
    )
    head = '<tr><th>Part of the time</th><th class="n">Seconds</th><th class="n">Share</th></tr>'
    return _table(head, rows, "narrow")


def _events_table(events: Sequence[Event], shown: Limits) -> str:
    if not events:
        return '<p class="faint">No update was skipped, nothing was rolled back or resumed.</p>'
    rows = []
    for event in events[-shown.num_rows :]:
        urls = event.urls[: min(_MAX_URLS, shown.num_rows)]
        pages = "".join(f"<div>{escaped(_cut(url, shown))}</div>" for url in urls)
        more = event.num_documents - len(urls)
        beyond = f'<div class="faint">{"and " if pages else ""}{more:,}{" more" if pages else ""} document{"" if more == 1 else "s"}</div>'
        rows.append(
            f'<tr><td class="n" data-label="Step">{event.step:,}</td><td>{_KINDS.get(event.kind, escaped(event.kind))}</td>'
            f'<td>{_time(event.at_ms)}</td><td class="text">{escaped(_cut(event.message, shown))}</td>'
            f'<td class="text">{pages}{beyond if more > 0 else ""}</td></tr>'
        )
    head = '<tr><th class="n">Step</th><th>Event</th><th>When (UTC)</th><th>What it says</th><th>Pages</th></tr>'
    before = len(events) - len(rows)
    note = f'<p class="faint">And {before:,} before them: events.jsonl has all.</p>' if before else ""
    return f"<h3>Events</h3>{_table(head, ''.join(rows), 'long stack')}{note}"


# Suites and ladder


def _suites_section(suites: Sequence[SuiteResult], shown: Limits) -> str:
    if not suites:
        return ""
    groups: dict[str, list[SuiteResult]] = {}
    for each in suites:
        groups.setdefault(application(each), []).append(each)
    rows = []
    for name, members in groups.items():
        rows.append(
            f'<tr class="group"><th colspan="7" scope="rowgroup">{escaped(_cut(name.replace("_", " "), shown))}</th></tr>'
        )
        rows += [_suite_row(each, shown) for each in sorted(members, key=lambda each: each.suite.language or "")]
    head = (
        '<tr><th>Suite</th><th>Verdict</th><th class="n">Score [95 %]</th><th>Metric</th><th>Baselines</th>'
        '<th class="n">Items</th><th>Language</th></tr>'
    )
    return (
        '<p class="faint">Better than its baselines is a suite whose interval leaves out the best of them, by more than '
        "the suite's noise floor. ↑: more is better, ↓: less is. → 0.5: what a model "
        "without fault scores; it is judged by whether the interval holds that.</p>"
        f"{_table(head, ''.join(rows), 'stack')}{_further_figures(suites, shown)}"
    )


def _suite_row(each: SuiteResult, shown: Limits) -> str:
    suite = each.suite
    better, arrow = ("higher is better", "↑") if suite.higher_is_better else ("lower is better", "↓")
    if suite.target is not None:
        better, arrow = "what a model without fault scores", f"→ {suite.target:g}"
    named = f'<td>{escaped(_cut(suite.name, shown))} <span class="faint">v{suite.version}</span></td>'
    metric = f'<td data-label="Metric">{escaped(suite.metric)} <span class="faint" title="{better}">{arrow}</span></td>'
    if each.skipped is not None:
        reason = escaped(_cut(each.skipped, shown))
        return f'<tr class="skipped">{named}<td colspan="6" class="text">skipped: {reason}</td></tr>'
    figure = each.figure
    baselines = "<br>".join(
        f"{escaped(name.removeprefix(BASELINE))} {_figure(value)}"
        for name, value in each.figures.items()
        if name.startswith(BASELINE)
    )
    return (
        f'<tr>{named}<td class="verdict" data-label="Verdict">{_verdict(each)}</td>'
        f'<td class="n" data-label="Score"><strong>{_number(figure.value)}</strong> {_interval(figure)}</td>{metric}'
        f'<td data-label="Baselines">{baselines or _NONE}</td>'
        f'<td class="n" data-label="Items">{figure.num_items:,}</td>'
        f'<td data-label="Language">{escaped(suite.language or "—")}</td></tr>'
    )


def _verdict(each: SuiteResult) -> str:
    if each.suite.target is not None:
        meets, target = meets_target(each), f"{each.suite.target:g}"
        if meets is None:
            return "too few items"
        kind, words = ("good", "no different from") if meets else ("poor", "differs from")
        return f'<span class="{kind}">{words} {target}</span>'
    found, best = verdict(each), best_baseline(each)
    if found is None or best is None:
        return '<span class="faint">nothing to compare with</span>' if best is None else "too few items"
    label = escaped(best[0])
    return (
        f'<span class="good">better than {label}</span>'
        if found
        else f'<span class="poor">no better than {label}</span>'
    )


def _further_figures(suites: Sequence[SuiteResult], shown: Limits) -> str:
    """By language, domain, age and whatever else a suite has beside its own figure."""
    rows = [
        f"<tr><td>{escaped(each.suite.name)}</td><td>{escaped(_cut(name, shown))}</td>"
        f'<td class="n">{_figure(figure)}</td><td class="n">{figure.num_items:,}</td></tr>'
        for each in suites
        for name, figure in each.figures.items()
        if name != each.suite.metric and not name.startswith(BASELINE)
    ]
    if not rows:
        return ""
    head = '<tr><th>Suite</th><th>Figure</th><th class="n">Value [95 %]</th><th class="n">Items</th></tr>'
    listed = _table(head, "".join(rows[: 2 * shown.num_rows]))
    return f"<details><summary>{len(rows):,} further figures of the suites</summary>{listed}</details>"


def _ladder_section(facts: ModelFacts) -> str:
    if not facts.rungs:
        return ""
    rows = []
    for idx, rung in enumerate(facts.rungs):
        figure = rung.bits_per_byte
        below = escaped(facts.rungs[idx - 1].name[:_MAX_RUNG_CHARS]) if idx else ""
        flag = {
            True: f'<span class="good">beats {below}</span>',
            False: f'<span class="poor">does not beat {below}</span>',
            None: "",
        }[rung.beats_below]
        beside = f"<strong>{_number(figure.value)}</strong> {_interval(figure)} {flag}"
        kind = "weak" if rung.beats_below is False else ""
        rows.append((rung.name, figure.value, figure.low, figure.high, beside, kind))
    return (
        '<p class="faint">Bits per byte on the same held-out text, fewer is better, with 95 % intervals. Each was trained on '
        f"the same shards.</p>{bars(rows)}"
    )


# Samples and data


def _samples_section(samples: Sequence[Mapping[str, str]], shown: Limits) -> str:
    return "".join(_sample(each, shown) for each in samples[: shown.num_rows])


def _sample(sample: Mapping[str, str], shown: Limits) -> str:
    prompt, text = str(sample["prompt"]), str(sample["text"])
    going_on = text.removeprefix(prompt)
    named = lang("zh") if _HAN.search(prompt or text) else ""
    return (
        f'<article><blockquote dir="auto"{named}><b>{escaped(_cut(prompt, shown))}</b>'
        f"{escaped(_cut(going_on, shown))}</blockquote></article>"
    )


def _data_section(facts: ModelFacts) -> str:
    corpus = facts.corpus
    if corpus is None:
        return _links(facts.links)
    made_of = corpus["composition"]
    funnel = [(str(label), int(count)) for label, count in corpus["funnel"]]
    rows = [
        (label, float(count), None, None, f"{count:,}", "out" if label.startswith("dropped") else "")
        for label, count in funnel
    ]
    counted = [
        ("Languages", made_of["languages"]),
        ("Training rights (kept)", made_of["rights"]["kept"]),
        ("Licences", made_of["licenses"]),
        ("Hosts", made_of["hosts"]),
        ("Personal data, before redaction", made_of["personal_data_found"]),
    ]
    tables = "".join(f"<div>{_counts(title, counts)}</div>" for title, counts in counted if counts)
    identity = [(label, corpus["identity"][label]) for label in corpus["identity"]]
    return (
        f'<h3>Documents</h3>{bars(rows)}<div class="tables">{tables}</div><h3>Dataset</h3>{_pairs(identity)}'
        f"{_links(facts.links)}"
    )


def _counts(title: str, counts: Mapping[str, int]) -> str:
    rows = "".join(
        f'<tr><td class="text">{escaped(name)}</td><td class="n">{count:,}</td></tr>' for name, count in counts.items()
    )
    return f"<h3>{title}</h3>{_table('', rows)}"


def _links(links: Mapping[str, str]) -> str:
    rows = "".join(f"<li>{_link(label, address)}</li>" for label, address in links.items())
    return f"<h3>Where to look next</h3><ul>{rows}</ul>" if rows else ""


def _link(label: str, address: str) -> str:
    if _ADDRESS.fullmatch(address) and ".." not in address:
        return f'<a href="{attribute(address)}" rel="noopener noreferrer">{escaped(label)}</a>'
    return f"{escaped(label)}: {escaped(address)}"


def _reproduce_section(facts: ModelFacts) -> str:
    command = f"<pre><code>{escaped(facts.command)}</code></pre>" if facts.command else ""
    return command + _pairs(list(facts.identity.items())) if facts.identity or command else ""


def _foot(facts: ModelFacts) -> str:
    digest = facts.identity.get("parameters digest") or facts.identity.get("training key")
    return f"Model <code>{escaped(digest)}</code>." if digest else ""


def _pairs(pairs: Iterable[tuple[str, Any]]) -> str:
    rows = "".join(
        f'<tr><td>{escaped(str(label))}</td><td class="code"><code>{_setting(value)}</code></td></tr>'
        for label, value in pairs
    )
    return _table("", rows)


def _table(head: str, rows: str, kind: str = "") -> str:
    """A table that scrolls where it is wider than the window. `kind` is long, narrow, stack (cells below each other)."""
    named = f"wide {kind}".strip()
    return (
        f'<div class="{named}" tabindex="0"><table>{f"<thead>{head}</thead>" if head else ""}'
        f"<tbody>{rows}</tbody></table></div>"
    )


# Numbers and words


def _count(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"[{_number(figure.low)}, {_number(figure.high)}]"


def _figure(figure: Figure) -> str:
    return f"{_number(figure.value)} {_interval(figure)}".strip()


def _time(at_ms: int | None) -> str:
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _cut(text: str, shown: Limits) -> str:
    return text if len(text) <= shown.num_chars else f"{text[: shown.num_chars]} …"
