"""Texts of our own put through the signals, the toxicity stage and the policy of a recipe: what would become of them?

Must not: have rules of its own. What is tried is the code and the config that the corpus went through.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from pipelines.bias.toxicity_stage import ABUSE, TOXICITY_STAGE, ToxicityConfig, measure_toxicity
from pipelines.policy import POLICY_INPUT, PolicyConfig, decide, rules_on_text
from pipelines.signals.measure import SIGNALS_STAGE, SignalsConfig, measure_signals
from pipelines.work import align

NEUTRAL = "neutral"
"""Group of the names that the others are held against."""
LANGUAGES = ("en", "zh")
_LEXICONS = Path(__file__).parent / "lexicons"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a text was measured to be and how it was judged."""

    failed_rules: tuple[str, ...]
    """Rules that drop the text. Empty: kept."""
    num_words: int
    num_abuse: int
    """Hits of the abuse word list in no context that makes them harmless."""
    toxicity: float | None
    """Score of the classifier; None: the recipe has none."""
    toxicity_max: float | None
    """Of its most toxic sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """A name of people that is put into a text."""

    group: str
    one: str
    several: str


def tried(
    texts: Sequence[str],
    signals: SignalsConfig,
    toxicity: ToxicityConfig,
    policy: PolicyConfig,
    *,
    languages: Sequence[str] | None = None,
) -> list[Trial]:
    """Every text as a document of which nothing else is known, in order. `languages`: of each text, where it is known and
    need not be found out, which is dear and doubtful for a single sentence."""
    if not texts:
        return []
    documents = _documents(texts)
    if languages is not None:
        signals = replace(signals, arbiter_threshold=None)
    measured = pa.Table.from_batches(measure_signals([documents], signals)).combine_chunks().to_batches()[0]
    if languages is not None:
        place = measured.schema.get_field_index("language")
        measured = measured.set_column(place, measured.schema.field(place), pa.array(languages, pa.string()))
    (joined,) = align([iter([documents.select(["doc_id", "text"])]), iter([measured])])
    second = next(measure_toxicity([joined], toxicity))
    both = {name: measured[name] for name in measured.schema.names} | {
        name: second[name] for name in second.schema.names
    }
    judged = pa.RecordBatch.from_arrays([both[field.name] for field in POLICY_INPUT], schema=POLICY_INPUT)
    decided = pa.Table.from_batches(decide([judged], rules_on_text(policy)))
    rows = zip(
        decided["failed_rules"].to_pylist(),
        measured["num_words"].to_pylist(),
        measured["keyword_counts"].to_pylist(),
        second["abuse_in_context"].to_pylist(),
        second["toxicity"].to_pylist(),
        second["toxicity_max"].to_pylist(),
        strict=True,
    )
    return [
        Trial(
            failed_rules=tuple(rules),
            num_words=num_words,
            num_abuse=sum(each["count"] for each in keywords if each["category"] == ABUSE)
            - sum(each["count"] for each in contexts),
            toxicity=score,
            toxicity_max=most,
        )
        for rules, num_words, keywords, contexts, score, most in rows
    ]


def names(language: str) -> list[Name]:
    """The names of lexicons/swaps_*.txt, in order."""
    found = []
    for line in (_LEXICONS / f"swaps_{language}.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            group, _, forms = line.partition(":")
            one, _, several = forms.partition("|")
            found.append(Name(group=group.strip(), one=one.strip(), several=several.strip()))
    return found


def filled(template: str, one: str, several: str) -> str:
    """A template with names put in; `{One}` and `{Ones}` begin a sentence."""
    forms = {"one": one, "ones": several, "One": one[:1].upper() + one[1:], "Ones": several[:1].upper() + several[1:]}
    return template.format(**forms)


def _documents(texts: Sequence[str]) -> pa.RecordBatch:
    """The texts as rows of what the stages read, with nothing else known of them."""
    fields = {field.name: field for schema in (SIGNALS_STAGE.inputs[0], TOXICITY_STAGE.inputs[0]) for field in schema}
    columns = []
    for field in fields.values():
        if field.name == "text":
            columns.append(pa.array(texts, field.type))
        elif field.name == "doc_id":
            columns.append(pa.array([str(number) for number in range(len(texts))], field.type))
        elif field.nullable:
            columns.append(pa.nulls(len(texts), field.type))
        else:
            columns.append(pa.array([_nothing(field.type)] * len(texts), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(list(fields.values())))


def _nothing(kind: pa.DataType) -> Any:
    if pt.is_list(kind) or pt.is_large_list(kind):
        return []
    return "" if pt.is_string(kind) or pt.is_large_string(kind) else False if pt.is_boolean(kind) else 0
