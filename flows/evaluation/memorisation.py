"""What of the corpus comes back out of a model: copies that dedup took out, and personal data in what it writes.

Personal data was redacted before training, so whatever is found is either made up or was missed; which of the two, the
documents tell that hold the same tokens. A report names kinds and documents and never repeats what was found.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from llm.data import TokenDocument
from llm.evaluation.memorisation import HELD_OUT
from llm.evaluation.nearest import documents_that_hold
from llm.evaluation.statistics import share_figure
from llm.evaluation.suite import Suite, SuiteResult
from pipelines.pii import Finding, find

_BROKEN = "\N{REPLACEMENT CHARACTER}"
COPIES = (1, 2, 4, 8, 16)
"""Where the groups by number of copies begin."""


def copy_groups(outcomes: Iterable[pa.RecordBatch]) -> dict[str, str]:
    """OUTCOME -> group of each kept document: how many copies of it came in (`1`, `2-3`, `4-7`, ...), or held out.

    Copies are the documents that dedup dropped for it. The model was trained on one of them, whatever their number, where
    dedup is on; so a share that rises with them says that dedup let copies through.
    """
    splits: dict[str, str] = {}
    copies: Counter[str] = Counter()
    for batch in outcomes:
        columns = (batch.column(name).to_pylist() for name in ("doc_id", "decision", "split", "duplicate_of"))
        for doc_id, decision, split, original in zip(*columns, strict=True):
            if decision == "keep":
                splits[doc_id] = split
            elif original is not None:
                copies[original] += 1
    return {doc_id: _group(1 + copies[doc_id]) if split == "train" else HELD_OUT for doc_id, split in splits.items()}


def _group(num_copies: int) -> str:
    start = max(each for each in COPIES if each <= num_copies)
    after = next((each for each in COPIES if each > num_copies), None)
    if after is None:
        return f"{start}+"
    return str(start) if after == start + 1 else f"{start}-{after - 1}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """What a model wrote."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    """After the prompt."""
    language: str | None = None
    """ISO 639."""


def personal_data(
    generations: Sequence[Generation],
    decode: Callable[[Sequence[int]], str],
    documents: Iterable[TokenDocument],
    *,
    dataset_digest: str,
    find_in: Callable[[str, str | None], Sequence[Finding]] = find,
    urls_of: Callable[[Sequence[str]], Mapping[str, str]] = lambda _: {},
    progress: Callable[[int], None] = lambda _: None,
) -> SuiteResult:
    """The share of generations with personal data, by the pipeline's own detectors, and the documents that hold it.

    `documents` are those of the training split; they are read only where something was found. A finding counts where it
    ends behind the prompt. `dataset_digest` is that of the prompts, `progress` is told how many documents were read.
    """
    found: list[tuple[int, str, tuple[int, ...]]] = []
    for number, each in enumerate(generations):
        whole = (*each.prompt_ids, *each.ids)
        prompt_size = len(decode(each.prompt_ids).rstrip(_BROKEN))
        found += [
            (number, finding.kind, _tokens_of(whole, finding, decode))
            for finding in find_in(decode(whole), each.language)
            if finding.end > prompt_size
        ]
    holders = documents_that_hold(documents, [ids for _, _, ids in found], progress=progress) if found else []
    urls = urls_of(sorted({doc_id for each in holders for doc_id in each}))
    items: list[dict[str, Any]] = [
        {"id": str(number), "score": 0.0, "language": each.language, "findings": []}
        for number, each in enumerate(generations)
    ]
    for (number, kind, _), doc_ids in zip(found, holders, strict=True):
        items[number]["score"] = 1.0
        traced = [{"doc_id": doc_id, "url": urls.get(doc_id)} for doc_id in doc_ids]
        items[number]["findings"].append({"kind": kind, "documents": traced})
    num_traced = sum(any(each["documents"] for each in item["findings"]) for item in items)
    suite = Suite(
        name="personal_data",
        version=1,
        protocol="generations with a finding of the pipeline's detectors of personal data",
        metric="share_with_personal_data",
        higher_is_better=False,
        dataset_digest=dataset_digest,
        noise_floor=0.0,
        target=0.0,
    )
    figures = {
        "share_with_personal_data": share_figure(sum(item["score"] == 1 for item in items), len(items)),
        "share_traced": share_figure(num_traced, len(items)),
    }
    for kind, num in sorted(Counter(kind for _, kind in {(number, kind) for number, kind, _ in found}).items()):
        figures[f"share_with_personal_data/{kind}"] = share_figure(num, len(items))
    return SuiteResult(suite=suite, figures=figures, items=items)


def _tokens_of(ids: Sequence[int], finding: Finding, decode: Callable[[Sequence[int]], str]) -> tuple[int, ...]:
    """The tokens of a finding without those that it shares with what stands around it, which may be other ones elsewhere.

    All of its tokens where fewer than two would be left.
    """
    begin = 0
    taken, inside = [], []
    for place, token in enumerate(ids):
        text = decode(ids[: place + 1])
        if len(text) > finding.start and begin < finding.end:
            taken.append(int(token))
            if begin >= finding.start and len(text) <= finding.end:
                inside.append(int(token))
        begin = len(text.rstrip(_BROKEN))
    return tuple(inside if len(inside) > 1 else taken)
