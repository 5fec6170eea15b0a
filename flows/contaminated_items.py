"""Which items of a suite stand in the training text, and what the model scores on these and on the others.

The search is that of the decontamination stage (pipelines/contamination.py): an item is dirty where the training text holds
13 of its words in a row, 20 of its characters where the script has no spaces, or a short passage whole. A recipe that drops
what holds its suites leaves nothing to find; this is for suites that were named later, and for the proof.

Items too short to be told from chance are neither clean nor dirty: they are counted as untold.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm.evaluation.statistics import NUM_DRAWS, Figure, mean_figure, ratio_figure
from llm.evaluation.suite import SuiteResult
from pipelines.contamination import ContaminationIndex, build_index, document_frequencies, find
from pipelines.errors import ConfigError
from pipelines.suites import Item

MAX_DOCUMENTS = 5
"""Named of an item."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contaminated:
    """What was found of the items of a suite."""

    documents: Mapping[str, tuple[str, ...]]
    """By item_id of the dirty ones: doc_ids of training documents that hold it, at most MAX_DOCUMENTS."""
    untold: frozenset[str]
    """item_ids that are too short to be looked for, or are nothing but what many items share."""


def find_items(
    items: Sequence[Item], texts: Iterable[tuple[str, str]], progress: Callable[[int], None] = lambda _: None
) -> Contaminated:
    """Look for items in (doc_id, text) of the training split, read once; `progress` is told how many were read.

    Of items that share a passage, each is found.
    """
    index = build_index(items)
    held: list[tuple[str, NDArray[np.int64], frozenset[str]]] = []
    for number, (doc_id, text) in enumerate(texts, 1):
        if matches := find(text, index, max_matches=len(items)):
            owners = frozenset(match.item_id for match in matches)
            held.append((doc_id, _ngrams([text], index), owners))
        progress(number)
    documents, untold = {}, set()
    for item in items:
        own = _ngrams(item.passages, index)
        # The index gives an n-gram, or a short passage, to the first item that has it; here it is everyone's.
        owners = frozenset(match.item_id for text in item.passages for match in find(text, index, len(items)))
        if not own.size and not owners:
            untold.add(item.item_id)
            continue
        holders = [
            doc_id
            for doc_id, ngrams, found in held
            if (np.isin(own, ngrams).any() if own.size else owners & found) or item.item_id in found
        ]
        if holders:
            documents[item.item_id] = tuple(holders[:MAX_DOCUMENTS])
    return Contaminated(documents=documents, untold=frozenset(untold))


def clean_and_dirty(result: SuiteResult, found: Contaminated) -> SuiteResult:
    """The result with figures of clean and of dirty items apart, and each item marked.

    `<metric>/clean` and `<metric>/dirty` are means of the items' scores, by `weight` where they have one; `dirty_less_clean` is their difference, which is
    none where its interval holds 0. `contaminated` of an item is true, false, or None where it is untold. Raises
    ConfigError where the items are not those that were looked for.
    """
    names = {str(item["id"]) for item in result.items}
    if strangers := sorted((set(found.documents) | found.untold) - names):
        raise ConfigError(
            f"got the item {strangers[0]!r}, which the suite {result.suite.name} has not, wanted items of the same suite: "
            "look for its own."
        )
    items: list[dict[str, Any]] = []
    for item in result.items:
        name = str(item["id"])
        documents = list(found.documents.get(name, ()))
        items.append({**item, "contaminated": None if name in found.untold else bool(documents), "held_by": documents})
    groups = {
        kind: [item for item in items if item["contaminated"] is wanted]
        for kind, wanted in (("clean", False), ("dirty", True), ("untold", None))
    }
    figures = dict(result.figures)
    for kind, group in groups.items():
        if group:
            figures[f"{result.suite.metric}/{kind}"] = ratio_figure(*_scores_and_weights(group))
    if groups["clean"] and groups["dirty"]:
        figures["dirty_less_clean"] = _difference(groups["dirty"], groups["clean"])
    share = np.array([item["contaminated"] is True for item in items], np.float64)
    figures["share_dirty"] = mean_figure(share)
    return replace(result, figures=figures, items=items)


def _ngrams(texts: Iterable[str], index: ContaminationIndex) -> NDArray[np.int64]:
    """Which n-grams of the index stand in the texts."""
    return np.flatnonzero(document_frequencies(texts, index))


def _scores_and_weights(items: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(num_items,) each: totals, and what they are totals over."""
    scores, weights = ([item.get(name, 1.0) for item in items] for name in ("score", "weight"))
    return np.array(scores, np.float64), np.array(weights, np.float64)


def _difference(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> Figure:
    """Of the means of two groups of items, each drawn anew by itself."""
    generator, means, drawn = np.random.default_rng(0), [], []
    for group in (ours, theirs):
        scores, weights = _scores_and_weights(group)
        counts = generator.multinomial(len(group), np.full(len(group), 1 / len(group)), NUM_DRAWS)
        means.append(float(scores.sum() / weights.sum()))
        drawn.append(counts @ scores / (counts @ weights))
    low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
    is_told = min(len(ours), len(theirs)) > 1
    return Figure(
        value=means[0] - means[1],
        low=float(low) if is_told else None,
        high=float(high) if is_told else None,
        num_items=len(ours) + len(theirs),
    )
