"""How perplexity is spread in a build, so that a person can choose a threshold: values depend on the model, shares do not.

cc_net (arXiv:1911.00359) calls the third of a language with the lowest perplexity its head, then come middle and tail.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipelines.corpus import read_aligned
from pipelines.markdown import table
from pipelines.store import Manifest, Store

QUANTILES = (("p10", 0.1), ("head_ends", 1 / 3), ("median", 0.5), ("middle_ends", 2 / 3), ("p90", 0.9))
_PER_OCTAVE = 64
"""Bins of perplexity in each doubling: a quantile is right within 1 %."""
_PER_BIT = 200
_ADVICE = (
    "What a value means depends on the model, so choose a threshold by the share that it drops: `max_perplexity` at the "
    "end of the head keeps a third of a language."
)

Counts = dict[tuple[str, str, str], Counter[int]]


def perplexity_facts(store: Store, done: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    """For each model, measure and group of documents (all, kept): how many, and QUANTILES. Holds counts of bins only."""
    counts: Counts = defaultdict(Counter)
    parts = (
        (done["perplexity"], ("doc_id", "perplexity", "bits_per_byte", "perplexity_model")),
        (done["dedup"], ("doc_id", "decision")),
    )
    for _unit, batch in read_aligned(store, *parts):
        is_kept = pc.equal(batch.column("decision"), "keep")
        for model in pc.unique(batch.column("perplexity_model").drop_null()).to_pylist():
            own = pc.equal(batch.column("perplexity_model"), model).fill_null(False)  # noqa: FBT003
            for group, chosen in (("all", own), ("kept", pc.and_(own, is_kept))):
                rows = batch.filter(chosen)
                perplexities = rows.column("perplexity").to_numpy(zero_copy_only=False)
                _count(counts[model, group, "perplexity"], np.log2(perplexities) * _PER_OCTAVE)
                bits = rows.column("bits_per_byte").to_numpy(zero_copy_only=False)
                _count(counts[model, group, "bits_per_byte"], bits * _PER_BIT)
    return [
        {"model": model, "documents_of": group, "measure": measure, "documents": found.total()}
        | {name: _value(measure, _quantile(found, share)) for name, share in QUANTILES}
        for (model, group, measure), found in sorted(counts.items())
        if found
    ]


def perplexity_section(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The facts as Markdown."""
    head = ("model", "measure", "documents", "10 %", "head ends, 33 %", "median", "middle ends, 67 %", "90 %")
    rows = [
        (
            each["model"],
            each["measure"],
            f"{each['documents']} {each['documents_of']}",
            *(f"{each[name]:.4g}" for name, _share in QUANTILES),
        )
        for each in facts
    ]
    return [
        "## Perplexity",
        "",
        _ADVICE,
        "",
        *table(head, rows or [("(no language has a model)", *[""] * (len(head) - 1))]),
    ]


def _count(counts: Counter[int], values: npt.NDArray[np.floating[Any]]) -> None:
    bins, numbers = np.unique(np.rint(values).astype(np.int64), return_counts=True)
    counts.update(dict(zip(bins.tolist(), numbers.tolist(), strict=True)))


def _quantile(counts: Counter[int], share: float) -> int:
    """The lowest bin up to which at least that share lies."""
    left = share * counts.total()
    for place in sorted(counts):
        left -= counts[place]
        if left <= 0:
            return place
    return max(counts)


def _value(measure: str, place: int) -> float:
    value = 2.0 ** (place / _PER_OCTAVE) if measure == "perplexity" else place / _PER_BIT
    return float(f"{value:.4g}")
