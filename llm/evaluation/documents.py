"""Held-out text as a suite: bits per byte over documents, and over groups of them."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from llm.data import TokenDocument
from llm.evaluation.statistics import Figure, ratio_figure
from llm.evaluation.suite import Suite, SuiteResult

HELD_OUT = "held_out"
METRIC = "bits_per_byte"
NOISE_FLOOR = 0.01
"""Bits per byte that another seed of the same small training moves: 0.036 nats a token over three seeds (make bench-train)."""
MAX_ITEMS = 20_000
"""Documents that are kept one by one, for comparisons: those with the smallest names, which are digests."""
_MIN_DOCUMENTS = 2
"""A group with fewer has no interval."""
_MAX_GROUPS = 20
"""Of a kind, those with the most bytes."""


def held_out_suite(documents: Sequence[TokenDocument], losses: ArrayLike, *, protocol: str, split: str) -> SuiteResult:
    """The suite of held-out documents with their losses, nats, (num_documents,)."""
    bits = np.asarray(losses, np.float64) / math.log(2)
    num_bytes = np.array([document.num_bytes for document in documents], np.float64)
    names = "\n".join(sorted(document.doc_id for document in documents))
    suite = Suite(
        name=HELD_OUT,
        version=1,
        protocol=protocol,
        metric=METRIC,
        higher_is_better=False,
        dataset_digest=hashlib.sha256(names.encode()).hexdigest(),
        noise_floor=NOISE_FLOOR,
    )
    order = sorted(range(len(documents)), key=lambda idx: documents[idx].doc_id)
    items = [
        {"id": documents[idx].doc_id, "score": float(bits[idx]), "weight": float(num_bytes[idx]), "split": split}
        for idx in order
    ]
    return SuiteResult(suite=suite, figures={METRIC: ratio_figure(bits, num_bytes)}, items=items)


def by_group(result: SuiteResult, groups: Mapping[str, Mapping[str, str]]) -> SuiteResult:
    """Add figures over groups, as `bits_per_byte/language=zh`; `groups` says of a document what it is, by kind."""
    members: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for item in result.items:
        for kind, value in groups.get(item["id"], {}).items():
            members.setdefault(kind, {}).setdefault(value, []).append(item)
    figures = dict(result.figures)
    for kind, values in members.items():
        large = sorted(values, key=lambda value: (-sum(item["weight"] for item in values[value]), value))
        for value in large[:_MAX_GROUPS]:
            if len(values[value]) >= _MIN_DOCUMENTS:
                figures[f"{METRIC}/{kind}={value}"] = _figure(values[value])
    return replace(result, figures=figures)


def kept(result: SuiteResult) -> SuiteResult:
    """The result with the items that are worth keeping."""
    return replace(result, items=result.items[:MAX_ITEMS])


def _figure(items: Iterable[Mapping[str, Any]]) -> Figure:
    rows = list(items)
    return ratio_figure([row["score"] for row in rows], [row["weight"] for row in rows])
