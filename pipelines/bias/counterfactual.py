"""One text, one word changed: does the verdict change? Texts of work, illness, protest, news and support, in which the
people spoken of are named by one group after the other, go through the signals and the policy of the recipe.

After the functional tests of HateCheck (Röttger et al. 2021, arXiv:2012.15606) and counterfactual fairness (Garg et al.
2019, arXiv:1809.10610). Texts and names are our own, in English and Chinese: lexicons/templates_*.txt, swaps_*.txt.

Must not: have rules of its own. What is tested is the code and the config that the corpus went through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from pipelines.policy import PolicyConfig, decide
from pipelines.signals.measure import SIGNALS_STAGE, SignalsConfig, measure_signals

NEUTRAL = "neutral"
LANGUAGES = ("en", "zh")
_LEXICONS = Path(__file__).parent / "lexicons"


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """A text with one group named in it, and what became of it."""

    template: str
    """Kind of text: work, health, counter-speech, news, support, history."""
    language: str
    group: str
    """`neutral`: what the others are held against."""
    term: str
    failed_rules: tuple[str, ...]
    """Rules that drop the text. Empty: kept."""
    changed_rules: tuple[str, ...]
    """Rules that judge it otherwise than the text that names no group."""
    decision_changed: bool
    """Kept without the group's name and dropped with it, or the reverse."""
    abuse_per_1000_words: float
    """Hits of the abuse word list."""
    abuse_gap: float
    """The same, above the text that names no group."""


def counterfactuals(signals: SignalsConfig, policy: PolicyConfig) -> list[Swap]:
    """Every template with every name, judged; in the order of the files, English first."""
    cases = [
        (language, kind, group, one, text)
        for language in LANGUAGES
        for kind, template in _templates(language)
        for group, one, several in _names(language)
        for text in [filled(template, one, several)]
    ]
    batch = _documents([text for *_, text in cases])
    measured = pa.Table.from_batches(measure_signals([batch], signals)).combine_chunks().to_batches()[0]
    # The texts are ours: what else the policy asks of a document's place and contents is no question here.
    decided = pa.Table.from_batches(decide([measured], replace(policy, evaluation=None)))
    failed = [tuple(rules) for rules in decided["failed_rules"].to_pylist()]
    densities = [_abuse(row) for row in measured.select(["keyword_counts", "num_words"]).to_pylist()]
    plain = {
        (language, kind): (set(rules), density)
        for (language, kind, group, *_), rules, density in zip(cases, failed, densities, strict=True)
        if group == NEUTRAL
    }
    found = []
    for (language, kind, group, one, _), rules, density in zip(cases, failed, densities, strict=True):
        rules_before, density_before = plain[language, kind]
        found.append(
            Swap(
                template=kind,
                language=language,
                group=group,
                term=one,
                failed_rules=rules,
                changed_rules=tuple(sorted(rules_before ^ set(rules))),
                decision_changed=bool(rules) != bool(rules_before),
                abuse_per_1000_words=density,
                abuse_gap=density - density_before,
            )
        )
    return found


def by_group(swaps: Sequence[Swap]) -> list[dict[str, Any]]:
    """For each language and group: texts, how many were dropped although harmless, how many a rule judged otherwise for
    the name alone, how many of these changed sides, the rules, and the largest gap in abuse."""
    rows = []
    for language, group in dict.fromkeys((swap.language, swap.group) for swap in swaps if swap.group != NEUTRAL):
        own = [swap for swap in swaps if (swap.language, swap.group) == (language, group)]
        changed = [swap for swap in own if swap.changed_rules]
        rows.append(
            {
                "language": language,
                "group": group,
                "texts": len(own),
                "dropped": sum(bool(swap.failed_rules) for swap in own),
                "changed": len(changed),
                "decisions_changed": sum(swap.decision_changed for swap in own),
                "rules": sorted({rule for swap in changed for rule in swap.changed_rules}),
                "templates": sorted({swap.template for swap in changed}),
                "terms": sorted({swap.term for swap in changed}),
                "max_abuse_gap": round(max(abs(swap.abuse_gap) for swap in own), 3),
            }
        )
    return rows


def filled(template: str, one: str, several: str) -> str:
    """A template with names put in; `{One}` and `{Ones}` begin a sentence."""
    names = {"one": one, "ones": several, "One": one[:1].upper() + one[1:], "Ones": several[:1].upper() + several[1:]}
    return template.format(**names)


def _abuse(row: Mapping[str, Any]) -> float:
    hits = sum(item["count"] for item in row["keyword_counts"] if item["category"] == "abuse")
    return 1000.0 * hits / max(row["num_words"], 1)


def _documents(texts: Sequence[str]) -> pa.RecordBatch:
    """The texts as rows of what the signals stage reads, with nothing else known of them."""
    (schema,) = SIGNALS_STAGE.inputs
    columns = []
    for field in schema:
        if field.name == "text":
            columns.append(pa.array(texts, field.type))
        elif field.nullable:
            columns.append(pa.nulls(len(texts), field.type))
        else:
            columns.append(pa.array([_nothing(field.type)] * len(texts), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _nothing(kind: pa.DataType) -> Any:
    if pt.is_list(kind) or pt.is_large_list(kind):
        return []
    return "" if pt.is_string(kind) or pt.is_large_string(kind) else False if pt.is_boolean(kind) else 0


@cache
def _names(language: str) -> tuple[tuple[str, str, str], ...]:
    """(group, one, several) of each name."""
    names = []
    for line in (_LEXICONS / f"swaps_{language}.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            group, _, forms = line.partition(":")
            one, _, several = forms.partition("|")
            names.append((group.strip(), one.strip(), several.strip()))
    return tuple(names)


@cache
def _templates(language: str) -> tuple[tuple[str, str], ...]:
    """(kind, text) of each template."""
    parts = (_LEXICONS / f"templates_{language}.txt").read_text(encoding="utf-8").split("\n== ")[1:]
    return tuple((kind.strip(), text.strip()) for kind, _, text in (part.partition("\n") for part in parts))
