"""Which items of a suite stand in the training text, and what the model scores on these and on the others.

The search is that of the decontamination stage (pipelines/contamination.py): an item is dirty where the training text holds
13 of its words in a row, 20 of its characters where the script has no spaces, or a short passage whole. A recipe that drops
what holds its suites leaves nothing to find; this is for suites that were named later, and for the proof.

Items too short to be told from chance are neither clean nor dirty: they are counted as untold.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm.data import TokenDocument
from llm.evaluation.statistics import NUM_DRAWS, Figure, mean_figure, ratio_figure
from llm.evaluation.suite import SuiteResult
from pipelines.contamination import ContaminationIndex, build_index, entries_of, find
from pipelines.digest import digest_value
from pipelines.errors import ConfigError
from pipelines.suites import Item

MAX_DOCUMENTS = 5
"""Named of an item."""
MAX_SEARCHED_BYTES = 64 << 20
"""Of training text: half a minute on a core."""


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
    owned = _owners(items, index)
    documents: dict[str, list[str]] = {}
    for number, (doc_id, text) in enumerate(texts, 1):
        if matches := find(text, index, max_matches=len(items)):
            for idx in sorted(owned.held_by(entries_of(text, index), {match.item_id for match in matches})):
                known = documents.setdefault(items[idx].item_id, [])
                if len(known) < MAX_DOCUMENTS:
                    known.append(doc_id)
        progress(number)
    return Contaminated(
        documents={name: tuple(found) for name, found in documents.items()},
        untold=frozenset(items[idx].item_id for idx in owned.untold),
    )


@dataclass(frozen=True, slots=True)
class _Owners:
    """Whose the n-grams and short passages of an index are: it gives each to the first item that has it; here to all."""

    entries: NDArray[np.int64]
    """Of the index, sorted, with the item that each belongs to beside it: one row for each pair."""
    item_idxs: NDArray[np.int64]
    by_name: Mapping[str, Sequence[int]]
    """By the item that the index names, which are meant."""
    untold: frozenset[int]

    def held_by(self, entries: NDArray[np.int64], names: set[str]) -> set[int]:
        """The items of a text with these n-grams, of which the index names those items."""
        begins, ends = (np.searchsorted(self.entries, entries, side=side) for side in ("left", "right"))
        found = {idx for name in names for idx in self.by_name.get(name, ())}
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            found.update(self.item_idxs[begin:end].tolist())
        return found


def _owners(items: Sequence[Item], index: ContaminationIndex) -> _Owners:
    parts, item_idxs, untold = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], set()
    by_name: dict[str, list[int]] = {}
    for idx, item in enumerate(items):
        own = [entries_of(text, index) for text in item.passages]
        entries = np.unique(np.concatenate([np.zeros(0, np.int64), *own]))
        parts.append(entries)
        item_idxs.append(np.full(entries.size, idx))
        names = {match.item_id for text in item.passages for match in find(text, index, len(items))}
        if not entries.size and not names:
            untold.add(idx)
            continue
        for name in {item.item_id} if entries.size else names | {item.item_id}:
            by_name.setdefault(name, []).append(idx)
    every, owners = np.concatenate(parts), np.concatenate(item_idxs)
    order = np.argsort(every, kind="stable")
    return _Owners(every[order], owners[order], by_name, frozenset(untold))


def mark_contaminated(
    results: Sequence[SuiteResult],
    items: Mapping[str, Sequence[Item]],
    documents: Callable[[], Iterable[TokenDocument]],
    decode: Callable[[Sequence[int]], str],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    max_bytes: int = MAX_SEARCHED_BYTES,
) -> list[SuiteResult]:
    """The results of suites with figures of clean and dirty items apart; `items` by suite, `documents` reads the training split.

    The text is read once for all suites, and of a corpus beyond `max_bytes` a part of that size, drawn by doc_id:
    `share_searched` then says how much. A suite that was skipped or has no items to look for stays as it is.
    """
    wanted = {result.suite.name for result in results if result.skipped is None and items.get(result.suite.name)}
    if not wanted:
        return list(results)
    # Suites with equal texts, asked in other ways, are one to look for.
    names = {item.passages: digest_value(item.passages) for suite in sorted(wanted) for item in items[suite]}
    distinct = [Item(suite="", item_id=name, passages=passages) for passages, name in names.items()]
    sizes = np.array([document.num_bytes for document in documents()], np.int64)
    share, num_searched = min(1.0, max_bytes / max(1, int(sizes.sum()))), 0

    def texts() -> Iterator[tuple[str, str]]:
        for each in documents():
            if share == 1 or int(digest_value(each.doc_id)[:12], 16) < share * 16**12:
                yield each.doc_id, decode(each.tokens.tolist())

    def tell(done: int) -> None:
        nonlocal num_searched
        num_searched = done
        progress(done, max(done, round(share * sizes.size)))

    found = find_items(distinct, texts(), tell)
    marked = []
    for result in results:
        if result.suite.name not in wanted:
            marked.append(result)
            continue
        own = {item.item_id: names[item.passages] for item in items[result.suite.name]}
        split = clean_and_dirty(
            result,
            Contaminated(
                documents={name: found.documents[each] for name, each in own.items() if each in found.documents},
                untold=frozenset(name for name, each in own.items() if each in found.untold),
            ),
        )
        if share < 1:
            part = Figure(value=share, low=None, high=None, num_items=num_searched)
            split = replace(split, figures={**split.figures, "share_searched": part})
        marked.append(split)
    return marked


def clean_and_dirty(result: SuiteResult, found: Contaminated) -> SuiteResult:
    """The result with figures of clean and of dirty items apart, and each item marked.

    `<metric>/clean` and `<metric>/dirty` are means of the items' scores, by `weight` where they have one; `dirty_less_clean`
    is their difference, which is none where its interval holds 0. `contaminated` of an item is true, false, or None where it is untold. Raises
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
