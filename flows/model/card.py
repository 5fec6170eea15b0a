"""A model card: who may use a model for what, what it was trained on and how good it is, as Markdown.

Headings follow Mitchell et al. 2019 (arXiv:1810.03993). Model hubs read a front matter above it: language, license,
datasets, metrics, model-index; to a person it is pages of keys, so the card comes with it and without. Figures are counted or measured; what only the provider knows says so and is never guessed.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from flows.model.facts import (
    BASELINE,
    DATASET,
    ModelFacts,
    best_baseline,
    flags,
    is_bias,
    is_memorisation,
    meets_target,
    part_seconds,
    verdict,
)
from flows.static_page import write_whole
from llm.evaluation.statistics import Figure
from llm.evaluation.suite import Suite, SuiteResult
from pipelines.markdown import plain, table

BY_PROVIDER = "to be filled in by the provider"
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_HUB_METRICS = {"acc": "accuracy", "acc_calibrated": "accuracy", "rouge_l": "rouge", "chrf": "chrf", "f1": "f1"}


def write_card(path: Path, facts: ModelFacts, *, data_card: str | None = None) -> Path:
    """Write the card for people, whole or not at all. Raises StorageError for the disk."""
    return write_whole(path, model_card(facts, data_card=data_card))


def write_hub_card(path: Path, facts: ModelFacts, *, data_card: str | None = None) -> Path:
    """Write the card for hubs, which look for it as README.md beside the weights. Raises StorageError for the disk."""
    return write_whole(path, hub_card(facts, data_card=data_card))


def hub_card(facts: ModelFacts, *, license_id: str | None = None, data_card: str | None = None) -> str:
    """The card below its front matter."""
    matter = front_matter(facts, license_id=license_id)
    front = yaml.safe_dump(matter, allow_unicode=True, sort_keys=False, width=1_000_000)
    return f"---\n{front}---\n\n{model_card(facts, license_id=license_id, data_card=data_card)}"


def model_card(facts: ModelFacts, *, license_id: str | None = None, data_card: str | None = None) -> str:
    """The card. `license_id` is what the provider licenses the weights under (an identifier such as apache-2.0);
    `data_card` is the file name or address of the data card."""
    lines = [
        *_details(facts, license_id),
        *_intended_use(),
        *_factors(facts),
        *_metrics(facts),
        *_evaluation_data(facts),
        *_training_data(facts, data_card),
        *_analyses(facts),
        *_considerations(facts),
        *_caveats(facts),
        *_compute(facts),
    ]
    return f"# Model card: {plain(facts.recipe)}\n\n" + "\n".join(lines).rstrip() + "\n"


def front_matter(facts: ModelFacts, *, license_id: str | None = None) -> dict[str, Any]:
    """What model hubs read, as plain values; a list that would be empty is left out."""
    found: dict[str, Any] = {
        "language": _languages(facts),
        "license": license_id or "unknown",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gpt2", "corpusmill"],
        "datasets": [_hub_name(facts.recipe)],
        "metrics": sorted({metric["type"] for result in _results(facts) for metric in result["metrics"]}),
        "model-index": [{"name": _one_line(facts.recipe), "results": _results(facts)}] if _results(facts) else [],
    }
    return {name: value for name, value in found.items() if value != []}


def _languages(facts: ModelFacts) -> list[str]:
    counted = facts.corpus["composition"]["languages"] if facts.corpus is not None else {}
    stated = [name for name in counted if _LANGUAGE.fullmatch(name)]
    return stated or sorted({each.suite.language.split("-")[0] for each in facts.suites if each.suite.language})


def _results(facts: ModelFacts) -> list[dict[str, Any]]:
    """The evaluation and each suite, as model-index has them."""
    found = []
    measured = facts.evaluation
    if measured is not None:
        metrics = [
            {"type": name, "name": name, "value": float(measured[name])}
            for name in ("bits_per_byte", "perplexity", "loss")
            if isinstance(measured.get(name), int | float) and math.isfinite(measured[name])
        ]
        dataset = {
            "type": _hub_name(facts.recipe),
            "name": f"Held-out documents of {_one_line(facts.recipe)}",
            "split": str(measured.get("split", "test")),
        }
        digest = facts.identity.get(DATASET)
        dataset |= {"revision": digest} if digest else {}
        found.append({"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics})
    measured_suites = [each for each in facts.suites if each.skipped is None and math.isfinite(each.figure.value)]
    found += [_suite_result(each) for each in measured_suites]
    return [result for result in found if result["metrics"]]


def _suite_result(each: SuiteResult) -> dict[str, Any]:
    suite, figure = each.suite, each.figure
    dataset = {"type": _hub_name(suite.name), "name": suite.name, "split": "test", "revision": suite.dataset_digest}
    metric: dict[str, Any] = {
        "type": _HUB_METRICS.get(suite.metric, suite.metric),
        "name": suite.metric,
        "value": float(figure.value),
        "args": {"protocol": suite.protocol, "num_items": figure.num_items, "low": figure.low, "high": figure.high},
    }
    return {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": [metric]}


def _details(facts: ModelFacts, license_id: str | None) -> list[str]:
    config = facts.config
    shape = (
        f"GPT-2, decoder only: {config['n_layer']} layers, {config['n_head']} heads, width {config['n_embd']:,}, "
        f"context {config['block_size']:,} tokens, vocabulary {config['vocab_size']:,}"
        if config
        else "GPT-2, decoder only"
    )
    rows = [
        ("model type", shape),
        ("parameters", facts.num_parameters),
        ("tokens seen", facts.tokens_seen),
        ("steps", facts.num_steps),
        ("licence of the weights", license_id or BY_PROVIDER),
        ("trained", _period(facts)),
        ("contact", BY_PROVIDER),
        *facts.identity.items(),
    ]
    return ["## Model details", "", *_pairs(rows), *_settings(facts)]


def _settings(facts: ModelFacts) -> list[str]:
    chosen = [(name, value) for name, value in facts.training.items() if name in facts.changed]
    if not chosen:
        return []
    return ["Training settings that differ from the defaults:", "", *table(("setting", "value"), chosen)]


def _intended_use() -> list[str]:
    return [
        "## Intended use",
        "",
        (
            "- **Primary uses**: research on language models and on the corpus that this one was trained on; a baseline "
            "for other models; continuing a text under the eyes of a person."
        ),
        f"- **Primary users**: {BY_PROVIDER}.",
        (
            "- **Out of scope**: decisions about people; advice on health, law or money; facts without a source; anything "
            "that nobody reads before it takes effect. The model continues text, follows no instructions, was not aligned."
        ),
        "",
    ]


def _factors(facts: ModelFacts) -> list[str]:
    languages = ", ".join(_languages(facts)) or "not counted"
    return [
        "## Factors",
        "",
        f"- languages of the training data: {plain(languages)}; other languages are out of scope",
        "- scores are given by language, application and, where it was measured, domain and age of the document",
        "",
    ]


def _metrics(facts: ModelFacts) -> list[str]:
    lines = [
        "## Metrics",
        "",
        "- bits per byte: loss over the UTF-8 bytes of a text, which compares across tokenizers; fewer is better",
        "- intervals are 95 %: bootstrap over items in suites, from the standard error over documents elsewhere",
        "- a suite with a known score of a model without fault (0 of secrets, 0.5 of pairs) is judged by it: better is nearer",
        "- any other counts as better than a baseline where its interval leaves out the baseline, by more than its noise floor",
    ]
    if facts.evaluation is not None and facts.evaluation.get("protocol"):
        lines.append(f"- held-out protocol: {plain(facts.evaluation['protocol'])}")
    return [*lines, ""]


def _evaluation_data(facts: ModelFacts) -> list[str]:
    lines = ["## Evaluation data", ""]
    measured = facts.evaluation
    if measured is not None:
        lines.append(
            f"- held-out split `{plain(measured.get('split', 'test'))}`: {plain(measured.get('num_documents'))} documents, "
            f"{plain(measured.get('num_bytes'))} bytes of text, of the same collection as the training data"
        )
    lines += [
        f"- {plain(each.suite.name)}, version {each.suite.version}: {each.figure.num_items:,} items, "
        f"dataset {each.suite.dataset_digest[:16]}"
        for each in facts.suites
        if each.skipped is None
    ]
    lines += [] if len(lines) > 2 else ["Not evaluated yet."]
    contamination = (facts.corpus or {}).get("contamination")
    if contamination:
        lines.append(
            f"- decontamination: {plain(contamination['contaminated'])} of {plain(contamination['documents'])} training "
            f"documents held an item of a suite, {plain(contamination['dropped'])} were dropped for it"
        )
    else:
        lines.append("- decontamination: the corpus was not searched for items of the suites")
    return [*lines, ""]


def _training_data(facts: ModelFacts, data_card: str | None) -> list[str]:
    lines = ["## Training data", ""]
    if data_card is not None:
        lines += [f"See the data card: {_address(data_card)}.", ""]
    if facts.corpus is None:
        return [*lines, "Its data card was not at hand.", ""]
    made_of = facts.corpus["composition"]
    lines += _pairs([*facts.corpus["identity"].items(), *facts.corpus["collection"].items()])
    lines += table(("step", "documents"), facts.corpus["funnel"])
    lines += table(("language (kept)", "documents"), list(made_of["languages"].items()))
    return lines


def _analyses(facts: ModelFacts) -> list[str]:
    lines = ["## Quantitative analyses", ""]
    held_out = facts.held_out
    if held_out is not None:
        lines += [f"Held-out text: **{_figure(held_out)} bits per byte**, {held_out.num_items:,} documents.", ""]
    if facts.rungs:
        rows = [
            (
                rung.name,
                _figure(rung.bits_per_byte),
                {True: "yes", False: "no", None: "not measured"}[rung.beats_below] if idx else "",
            )
            for idx, rung in enumerate(facts.rungs)
        ]
        lines += table(("ladder", "bits per byte [95 %]", "beats the one below"), rows)
    others = [each for each in facts.suites if not is_bias(each) and not is_memorisation(each)]
    if others:
        lines += _suite_table(others)
    return lines if len(lines) > 2 else [*lines, "Not evaluated yet.", ""]


def _suite_table(suites: Sequence[SuiteResult]) -> list[str]:
    rows = []
    for each in suites:
        suite = each.suite
        named = (suite.name, suite.language or "", f"{suite.metric} ({_better(suite)})")
        if each.skipped is not None:
            rows.append((*named, "skipped", each.skipped, "", ""))
            continue
        baselines = "; ".join(
            f"{name.removeprefix(BASELINE)} {_figure(value)}"
            for name, value in each.figures.items()
            if name.startswith(BASELINE)
        )
        rows.append((*named, _figure(each.figure), baselines, _verdict(each), f"{each.figure.num_items:,}"))
    return table(("suite", "language", "metric (better)", "score [95 %]", "baselines", "verdict", "items"), rows)


def _better(suite: Suite) -> str:
    if suite.target is not None:
        return f"{suite.target:g}"
    return "more" if suite.higher_is_better else "less"


def _considerations(facts: ModelFacts) -> list[str]:
    lines = ["## Ethical considerations", "", "### Bias", ""]
    lines += _measured_or(
        facts, is_bias, "Not measured for this model. What the corpus says of groups of people, it may say again."
    )
    lines += ["### Memorisation and personal data", ""]
    lines += _measured_or(
        facts,
        is_memorisation,
        "Not measured for this model. It may repeat passages of its training data word for word.",
    )
    if facts.corpus is not None:
        found = facts.corpus["composition"]["personal_data_found"]
        lines += [
            "Personal data found in kept pages before redaction:",
            "",
            *table(("kind", "count"), [*found.items()]),
        ]
    lines += ["### Rights and take-downs", ""]
    if facts.corpus is not None:
        made_of = facts.corpus["composition"]
        lines += table(("training rights of kept pages", "documents"), list(made_of["rights"]["kept"].items()))
        lines += table(("licence of kept pages", "documents"), list(made_of["licenses"].items()))
    return [*lines, _takedowns(facts), ""]


def _takedowns(facts: ModelFacts) -> str:
    if facts.takedowns is None:
        return "Whether documents that this model saw were taken down since was not looked up."
    if not facts.takedowns:
        return "No document that this model saw has been taken down since."
    taken = ", ".join(map(plain, facts.takedowns))
    return f"Documents that this model saw were taken down since: {taken}. It should not be used until it is trained again."


def _measured_or(facts: ModelFacts, belongs: Callable[[SuiteResult], bool], otherwise: str) -> list[str]:
    suites = [each for each in facts.suites if belongs(each)]
    return _suite_table(suites) if suites else [otherwise, ""]


def _caveats(facts: ModelFacts) -> list[str]:
    flagged = [f"- {plain(each)}" for each in flags(facts)]
    return [
        "## Caveats and recommendations",
        "",
        *(flagged or ["- Nothing is flagged among what was measured."]),
        "- What it writes can be false, and reads as if it were not. A person should read it before others do.",
        "- Scores of small models on question answering, translation and the like are near chance: see the baselines.",
        "",
    ]


def _compute(facts: ModelFacts) -> list[str]:
    lines = ["## Compute", ""]
    rows: list[tuple[str, Any]] = []
    if facts.flops_per_token is not None and facts.tokens_seen is not None:
        rows.append(("floating-point operations", f"{facts.flops_per_token * facts.tokens_seen:.3g}"))
    if facts.result is not None:
        rows.append(("hours of training", f"{facts.result['seconds'] / 3600:.3g}"))
    if facts.progress is not None:
        seconds = part_seconds(facts.progress.curves)
        whole = sum(seconds.values())
        if whole:
            shares = ", ".join(f"{name} {value / whole * 100:.1f} %" for name, value in seconds.items())
            rows.append(("time by part", shares))
    rows += [("hardware", BY_PROVIDER), ("energy and emissions", BY_PROVIDER)]
    lines += _pairs(rows)
    if facts.command:
        lines += ["To make it again:", "", *_code(facts.command), ""]
    return lines


def _code(text: str) -> list[str]:
    """A fence that the text cannot end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
    return [f"{fence}sh", shown, fence]


def _pairs(rows: Sequence[tuple[str, Any]]) -> list[str]:
    return [*(f"- {plain(label)}: {plain(value)}" for label, value in rows if value is not None), ""]


def _period(facts: ModelFacts) -> str | None:
    if facts.progress is None or facts.progress.first_ms is None or facts.progress.last_ms is None:
        return None
    first, last = (
        datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        for at in (facts.progress.first_ms, facts.progress.last_ms)
    )
    return f"{first} to {last} (UTC)"


def _address(text: str) -> str:
    """A link where it is one without doubt, text otherwise."""
    is_plain = re.fullmatch(r"(https?://)?[A-Za-z0-9_][A-Za-z0-9._/:-]*", text) and ":" not in text.split("//", 1)[-1]
    return f"[{plain(text)}]({text})" if is_plain else plain(text)


def _verdict(each: SuiteResult) -> str:
    if each.suite.target is not None:
        target = f"{each.suite.target:g}, a model without fault"
        return {True: f"no different from {target}", False: f"differs from {target}", None: "too few items"}[
            meets_target(each)
        ]
    found, best = verdict(each), best_baseline(each)
    if best is None:
        return "nothing to compare with"
    return {True: f"better than {best[0]}", False: f"no better than {best[0]}", None: "too few items"}[found]


def _figure(figure: Figure) -> str:
    interval = "" if figure.low is None or figure.high is None else f" ({figure.low:.4g} to {figure.high:.4g})"
    return f"{figure.value:.4g}{interval}"


def _hub_name(name: str) -> str:
    """A name as hubs allow it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:96] or "unnamed"


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split()) or "unnamed"
