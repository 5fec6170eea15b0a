"""How much of a corpus is not what the last model was trained on, and whether that is enough to train again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flows.workspace import Workspace
from pipelines.errors import IntegrityError, StorageError
from pipelines.store import Manifest, Shard, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Documents and tokens of a corpus beside those of the dataset that was trained on.

    A document that changed is one that went and one that came; its tokens likewise.
    """

    num_documents_before: int
    num_documents_added: int
    num_documents_removed: int
    num_tokens_before: int
    num_tokens_added: int
    num_tokens_removed: int

    @property
    def share(self) -> float:
        """The larger share, of documents or of tokens, that came or went; of those that were trained on."""
        documents = max(self.num_documents_added, self.num_documents_removed) / max(self.num_documents_before, 1)
        tokens = max(self.num_tokens_added, self.num_tokens_removed) / max(self.num_tokens_before, 1)
        return max(documents, tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether to train, and why."""

    is_to_train: bool
    reason: str
    bound: float
    """Share of documents or tokens, from which it is enough."""
    share: float | None
    """What changed of it; None where there is nothing to compare with."""
    change: Change | None
    dataset_digest: str
    """Of the corpus."""
    trained_digest: str | None
    """Of the dataset that the last model was trained on."""

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def markdown(self) -> str:
        """For a person."""
        verdict = "Train" if self.is_to_train else "Do not train"
        lines = [f"**{verdict}**: {self.reason}", "", "| | last trained | added | removed |", "|---|--:|--:|--:|"]
        if self.change is not None:
            facts = asdict(self.change)
            lines += [
                f"| {name} | "
                + " | ".join(f"{facts[f'num_{name}_{part}']:,}" for part in ("before", "added", "removed"))
                + " |"
                for name in ("documents", "tokens")
            ]
        return "\n".join(lines)


def decide(
    store: Store, tokens: Manifest, dataset_digest: str, trainings: Sequence[Mapping[str, Any]], bound: float
) -> Decision:
    """Whether a corpus differs enough from the dataset of its recipe's last training; `trainings` are its own, newest last.

    An unfinished training on this very corpus is gone on with, however little changed.
    """
    finished = [training for training in trainings if training["is_finished"]]
    begun = [one for one in trainings if not one["is_finished"] and one["dataset_digest"] == dataset_digest]
    last = finished[-1] if finished else None
    known: dict[str, Any] = {
        "bound": bound,
        "dataset_digest": dataset_digest,
        "trained_digest": last["dataset_digest"] if last else None,
    }
    if begun:
        reason = f"the training in {begun[-1]['folder']} on this corpus was not finished"
        return Decision(is_to_train=True, reason=reason, share=None, change=None, **known)
    if last is None:
        return Decision(is_to_train=True, reason="no model was trained yet", share=None, change=None, **known)
    change = changed(store, tokens, last["token_shards"])
    if change is None:
        reason = "what the last model was trained on is not in the store any more"
        return Decision(is_to_train=True, reason=reason, share=None, change=None, **known)
    is_enough = dataset_digest != last["dataset_digest"] and change.share >= bound
    reason = f"{change.share:.2%} of the documents or tokens changed since the last training, the bound is {bound:.2%}"
    return Decision(is_to_train=is_enough, reason=reason, share=change.share, change=change, **known)


def changed(store: Store, tokens: Manifest, trained: Iterable[str]) -> Change | None:
    """What came and went since a training read these token shards; None where one of them is gone.

    Only shards that differ are read, and their documents' ids are in memory.
    """
    now, before = {entry.shard.digest: entry for entry in tokens.entries}, set(trained)
    try:
        gone_shards = [_there(store, digest) for digest in sorted(before - now.keys())]
        gone = _documents(store, gone_shards)
    except (IntegrityError, StorageError):
        return None
    fresh = _documents(store, [entry.shard for digest, entry in now.items() if digest not in before])
    kept = [entry for digest, entry in now.items() if digest in before]
    added = fresh.filter(pc.invert(pc.is_in(fresh["doc_id"], gone["doc_id"])))
    removed = gone.filter(pc.invert(pc.is_in(gone["doc_id"], fresh["doc_id"])))
    return Change(
        num_documents_before=gone.num_rows + sum(entry.shard.num_rows for entry in kept),
        num_documents_added=added.num_rows,
        num_documents_removed=removed.num_rows,
        num_tokens_before=_sum(gone) + sum(entry.counts.get("tokens", 0) for entry in kept),
        num_tokens_added=_sum(added),
        num_tokens_removed=_sum(removed),
    )


_SCHEMA = pa.schema([("doc_id", pa.string()), ("num_tokens", pa.int64())])


def _there(store: Store, digest: str) -> Shard:
    """A shard of a training, by its digest alone. Raises IntegrityError where it is gone."""
    path = store.shard_path(digest)
    if not path.is_file():
        raise IntegrityError(f"got no shard {digest} in {store.url}, wanted what a model was trained on: train again.")
    return Shard(digest, path.stat().st_size, 0)


def _documents(store: Store, shards: Iterable[Shard]) -> pa.Table:
    """Ids of documents and how many tokens each has."""
    return pa.Table.from_batches(_batches(store, shards), schema=_SCHEMA)


def _batches(store: Store, shards: Iterable[Shard]) -> Iterator[pa.RecordBatch]:
    for shard in shards:
        for batch in store.read(shard, ("doc_id", "tokens")):
            counts = pc.cast(pc.list_value_length(batch["tokens"]), pa.int64())
            yield pa.RecordBatch.from_arrays([batch["doc_id"], counts], schema=_SCHEMA)


def _sum(table: pa.Table) -> int:
    return int(pc.sum(table["num_tokens"]).as_py() or 0)


def trainings_of(place: Workspace, recipe: str) -> list[dict[str, Any]]:
    """A recipe's trainings, finished or begun, the newest finished one last."""
    from flows.jobs import known_trainings

    return [training for training in known_trainings(place) if training["recipe"] == recipe]
