"""The review page: facts of a build as one HTML file that needs no server, no network and no other file.

Everything shown was written by strangers: it is escaped, characters that would change how a line reads are spelled out,
and the page's own policy lets no script run but the one whose digest it names. A page with the same facts has the same
bytes.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flows.static_page import attribute, escaped, filled, lang, policy, style_of, write_whole

_FOLDER = Path(__file__).parent
_BAR_WIDTH = 12
_HALF_HEIGHT = 60
_SIGNS = {"at_least": "≥", "at_most": "≤", "one_of": "one of"}


def write_page(folder: Path, name: str, facts: Mapping[str, Any], *, max_bytes: int | None = None) -> Path:
    """Write `index.html` into a folder, whole or not at all. Raises StorageError for the disk.

    Above `max_bytes`, fewer documents are shown of each rule: those that would be for a smaller number.
    """
    path = folder / "index.html"
    page = render_page(name, facts)
    num_per_rule = facts["num_per_rule"]
    while max_bytes is not None and len(page.encode()) > max_bytes and num_per_rule:
        num_per_rule //= 2
        page = render_page(name, _fewer(facts, num_per_rule))
    return write_whole(path, page)


def _fewer(facts: Mapping[str, Any], num_per_rule: int) -> dict[str, Any]:
    """The facts with the first documents of each sample, which is the sample of that size."""
    rules = [
        {**rule, "dropped": rule["dropped"][:num_per_rule], "kept": rule["kept"][:num_per_rule]}
        for rule in facts["rules"]
    ]
    return {**facts, "num_per_rule": num_per_rule, "rules": rules}


def render_page(name: str, facts: Mapping[str, Any]) -> str:
    """The page of a recipe's build; `facts` is what `review_facts` returns."""
    style, script = style_of(_FOLDER / "page.css"), _part("script.html")
    documents = facts["documents"]
    parts = {
        "policy": policy(style, script),
        "title": attribute(f"Review of {name}"),
        "style": style,
        "script": script,
        "head": (
            f"<p><strong>{documents['in']:,}</strong> documents, <strong>{documents['kept']:,}</strong> kept, "
            f"<strong>{documents['dropped']:,}</strong> dropped.</p>"
            '<p class="faint">For each rule: at most '
            f"{facts['num_per_rule']:,} documents that fail it, and as many that are kept, drawn evenly by a hash of the "
            f"seed ({facts['seed']}) and the document's name. Marked is what the rule rests on. Personal data is "
            "masked. Where a rule compares a number, move its threshold to see what the policy would keep, "
            "before duplicates are taken out.</p>"
        ),
        "index": _index(facts["rules"]),
        "rules": "\n".join(_rule(rule) for rule in facts["rules"]),
        "foot": f"Build <code>{escaped(facts['dataset_digest'])}</code>, seed {facts['seed']}.",
    }
    return filled(_part("page.html"), parts)


@cache
def _part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip()


# The rules


def _index(rules: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for rule in rules:
        thresholds = ", ".join(f"{panel['threshold']:g}" for panel in rule["panels"])
        wanted = f"{escaped(rule['signal'])} {_SIGNS[rule['comparison']]} {thresholds}" if thresholds else ""
        if rule["accepted"]:
            wanted = f"{escaped(rule['signal'])}: {_value(rule['accepted'])}"
        num_alone = f"{rule['num_alone']:,}" if rule["signal"] else ""
        rows.append(
            f"<tr{'' if rule['num_failed'] else ' class=none'}>"
            f'<td><a href="#{quote(_anchor(rule))}">{escaped(rule["name"])}</a></td><td>{escaped(rule["group"])}</td>'
            f'<td>{wanted}</td><td class="n">{rule["num_failed"]:,}</td>'
            f'<td class="n">{num_alone}</td></tr>'
        )
    head = '<tr><th>Rule or reason</th><th>Group</th><th>Keeps</th><th class="n">Fail it</th><th class="n">Fail only it</th></tr>'
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _anchor(rule: Mapping[str, Any]) -> str:
    return f"rule-{rule['name']}"


def _rule(rule: Mapping[str, Any]) -> str:
    count = (
        f"{rule['num_failed']:,} fail it, {rule['num_alone']:,} only it"
        if rule["signal"]
        else f"{rule['num_failed']:,} dropped"
    )
    panels = "".join(_panel(rule, panel) for panel in rule["panels"])
    sides = "".join(
        f'<section class="{side}"><h3>{title}</h3>{"".join(_document(each) for each in rule[side]) or empty}</section>'
        for side, title, empty in (
            ("dropped", "Fail this rule" if rule["signal"] else "Dropped", '<p class="faint">None.</p>'),
            ("kept", "Kept" if rule["signal"] else "What stays in its place", '<p class="faint">None.</p>'),
        )
        if rule["signal"] or side == "dropped" or rule["kept"]
    )
    return (
        f'<details class="rule" id="{attribute(_anchor(rule))}"{" open" if rule["num_failed"] else ""}>'
        f'<summary>{escaped(rule["name"])} <span class="faint">{count}</span></summary>'
        f'<div class="panels">{panels}</div><div class="sides">{sides}</div></details>'
    )


def _panel(rule: Mapping[str, Any], panel: Mapping[str, Any]) -> str:
    sign = _SIGNS[rule["comparison"]]
    grid = [f"{value:g}" for value in panel["grid"]]
    now = panel["threshold_idx"]
    more = f" and {panel['num_more_languages']} more" if panel["num_more_languages"] else ""
    data = {
        "grid": grid,
        "keep": panel["would_keep"],
        "now": now,
        "sign": sign,
        "width": _BAR_WIDTH,
    }
    missing = f"<span>{panel['num_missing']:,} without a value</span>" if panel["num_missing"] else ""
    return (
        f'<div class="panel"><h3>{escaped(rule["signal"])} {sign} {panel["threshold"]:g} '
        f'<span class="faint">({escaped(", ".join(panel["languages"]))}{more})</span></h3>'
        f'{_chart(panel, grid, now)}<div class="scale"><span>{grid[0]}</span><span>over {grid[-1]}</span></div>'
        f'<div class="slider"><input type="range" min="0" max="{len(grid) - 1}" value="{now}" step="1" '
        f'aria-label="Threshold of {attribute(rule["name"])}" data-panel="{attribute(json.dumps(data))}">'
        '</div><div class="effect">'
        f"<output>{sign} {grid[now]}: the policy keeps {panel['would_keep'][now]:,}, as the recipe says</output>"
        '<button type="button">Reset</button></div>'
        '<p class="legend"><span class="key keep">kept</span><span class="key drop">dropped, for whatever reason</span>'
        f"<span>heights are square roots; {panel['num_failing_others']:,} more fail other rules as well and stay dropped"
        f"</span>{missing}</p></div>"
    )


def _chart(panel: Mapping[str, Any], grid: Sequence[str], now: int) -> str:
    """Kept documents upwards, dropped ones downwards, in bins as wide as each other; heights are square roots."""
    num_bins = len(grid) + 1
    scale = _HALF_HEIGHT / math.sqrt(max((*panel["kept"], *panel["dropped"], 1)))
    bars = []
    for idx, counts in enumerate(zip(panel["kept"], panel["dropped"], strict=True)):
        label = (
            f"up to {grid[0]}"
            if idx == 0
            else f"over {grid[-1]}"
            if idx == len(grid)
            else f"{grid[idx - 1]} to {grid[idx]}"
        )
        for count, kind in zip(counts, ("keep", "drop"), strict=True):
            if count:
                height = max(1.0, math.sqrt(count) * scale)
                top = _HALF_HEIGHT - height if kind == "keep" else _HALF_HEIGHT
                bars.append(
                    f'<rect class="bar-{kind}" x="{idx * _BAR_WIDTH + 1}" y="{top:.1f}" width="{_BAR_WIDTH - 2}" '
                    f'height="{height:.1f}"><title>{label}: {count:,} {"kept" if kind == "keep" else "dropped"}</title></rect>'
                )
    width, height, at = num_bins * _BAR_WIDTH, 2 * _HALF_HEIGHT, (now + 1) * _BAR_WIDTH
    line = f'x1="{at}" x2="{at}" y1="0" y2="{height}"'
    kept, dropped = sum(panel["kept"]), sum(panel["dropped"])
    return (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="Distribution of {kept:,} kept and {dropped:,} dropped documents">{"".join(bars)}'
        f'<line class="axis" x1="0" x2="{width}" y1="{_HALF_HEIGHT}" y2="{_HALF_HEIGHT}"/>'
        f'<line class="now" {line}/><line class="moved" {line}/></svg>'
    )


# The documents


def _document(row: Mapping[str, Any]) -> str:
    named = lang(row["language"], row["script"])
    about = f"{row['language'] or 'unknown language'}, {row['num_chars']:,} characters, {row['decision']}"
    about = escaped(f"{about} for {row['reason']}" if row["reason"] else about)
    notes = "".join(f"<li>{escaped(note)}</li>" for note in row["notes"])
    parts = [
        f'<article class="{"keep" if row["decision"] == "keep" else "drop"}">',
        f'<h4 dir="auto"{named}>{escaped(row["title"]) if row["title"] else "(no title)"}</h4>',
        f'<p class="meta">{escaped(row["url"]) if row["url"] else "(no URL)"}</p>',
        f'<p class="meta"><code>{escaped(row["doc_id"])}</code> {about}</p>',
        _measured(row),
        f'<ul class="notes">{notes}</ul>' if notes else "",
        *(_excerpt(each, named) for each in row["excerpts"]),
        _all_rules(row["rules"]),
        "</article>",
    ]
    return "".join(parts)


def _measured(row: Mapping[str, Any]) -> str:
    found = []
    if row["value"] is not None or row["threshold"] is not None:
        found.append(f"measured <strong>{_value(row['value'])}</strong>, threshold {_value(row['threshold'])}")
    if row["num_spans"]:
        found.append(f"{row['num_spans']:,} places found")
    if row["failed_rules"]:
        found.append(f'fails <strong class="fails">{_value(row["failed_rules"])}</strong>')
    return f'<p class="measured">{"; ".join(found)}</p>' if found else ""


def _excerpt(excerpt: Mapping[str, Any], named: str) -> str:
    pieces = "".join(
        escaped(text) if mark is None else f"<mark {_mark(mark)}>{escaped(text)}</mark>"
        for text, mark in excerpt["pieces"]
    )
    before, after = "" if excerpt["is_start"] else "… ", "" if excerpt["is_end"] else " …"
    return f'<blockquote dir="auto"{named}>{before}{pieces}{after}</blockquote>'


def _mark(mark: str) -> str:
    return 'class="pii"' if mark == "pii" else f'title="{attribute(mark)}"'


def _all_rules(rules: Iterable[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr{"" if rule["passed"] else " class=fails"}><td>{escaped(rule["rule"])}</td><td class="n">{_value(rule["value"])}</td>'
        f'<td class="n">{_value(rule["threshold"])}</td></tr>'
        for rule in rules
    )
    head = '<tr><th>Rule</th><th class="n">Measured</th><th class="n">Threshold</th></tr>'
    return (
        f'<details class="all"><summary>All rules and signals</summary><div><table>{head}{rows}</table></div></details>'
    )


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, tuple | list):
        return escaped(", ".join(map(str, value[:6])) + (" …" if len(value) > 6 else ""))
    return escaped(str(value))
