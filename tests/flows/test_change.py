"""How much of a corpus changed since a training, and whether that is enough to train again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flows.deployed.change import Change, changed, decide
from pipelines.schemas import TOKENS
from pipelines.store import Entry, Manifest, Store


def tokens(store: Store, *shards: Mapping[str, int]) -> Manifest:
    """A manifest of shards, each given as the length of its documents by id."""
    entries = []
    for idx, lengths in enumerate(shards):
        rows = [
            {"doc_id": doc_id, "split": "train", "num_bytes": 1, "tokens": [1] * length}
            for doc_id, length in lengths.items()
        ]
        shard = store.write(TOKENS, [pa.RecordBatch.from_pylist(rows, schema=TOKENS)])
        entries.append(Entry(unit=str(idx), key=str(idx), shard=shard, counts={"tokens": sum(lengths.values())}))
    return Manifest("tokenize", tuple(entries))


def trained(manifest: Manifest, digest: str, *, is_finished: bool = True) -> dict[str, Any]:
    shards = [entry.shard.digest for entry in manifest.entries]
    return {"token_shards": shards, "dataset_digest": digest, "is_finished": is_finished, "folder": "f"}


A = {f"a{idx}": 10 for idx in range(8)}
B = {f"b{idx}": 10 for idx in range(8)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize(
    ("shards", "expected", "share"),
    [
        ([A, B], (16, 0, 0, 160, 0, 0), 0.0),
        ([A, {**B, "new": 40}], (16, 1, 0, 160, 40, 0), 0.25),
        ([A, dict.fromkeys(list(B)[1:], 10)], (16, 0, 1, 160, 0, 10), 1 / 16),
        ([A, {**dict.fromkeys(list(B)[1:], 10), "b0-again": 10}], (16, 1, 1, 160, 10, 10), 1 / 16),
        ([{**A, **B}], (16, 0, 0, 160, 0, 0), 0.0),
        ([A], (16, 0, 8, 160, 0, 80), 0.5),
        ([A, B, {"c": 160}], (16, 1, 0, 160, 160, 0), 1.0),
    ],
)
def test_documents_and_tokens_that_came_and_went(store: Store, shards: Any, expected: Any, share: float) -> None:
    before = tokens(store, A, B)
    found = changed(store, tokens(store, *shards), [entry.shard.digest for entry in before.entries])
    names = ("before", "added", "removed")
    assert found == Change(
        **{
            f"num_{kind}_{name}": expected[3 * row + col]
            for row, kind in enumerate(("documents", "tokens"))
            for col, name in enumerate(names)
        }
    )
    assert found.share == pytest.approx(share)


def test_the_first_model_is_trained_whatever_the_bound(store: Store) -> None:
    found = decide(store, tokens(store, A), "d", [], 1.0)
    assert (found.is_to_train, found.reason) == (True, "no model was trained yet")


@pytest.mark.parametrize(("bound", "is_to_train"), [(0.0, True), (0.25, True), (0.26, False)])
def test_the_bound_is_what_is_enough(store: Store, bound: float, is_to_train: bool) -> None:
    before = tokens(store, A, B)
    found = decide(store, tokens(store, A, {**B, "new": 40}), "now", [trained(before, "then")], bound)
    assert found.is_to_train == is_to_train
    assert (
        f"25.00% of the documents or tokens changed since the last training, the bound is {bound:.2%}" in found.reason
    )
    assert "| tokens | 160 | 40 | 0 |" in found.markdown()
    assert found.facts()["change"]["num_documents_added"] == 1


def test_the_same_corpus_is_not_trained_on_twice_at_a_bound_of_nothing(store: Store) -> None:
    before = tokens(store, A)
    assert not decide(store, before, "same", [trained(before, "same")], 0.0).is_to_train


def test_a_training_of_this_corpus_that_was_not_finished_is_gone_on_with(store: Store) -> None:
    before = tokens(store, A)
    known = [trained(before, "now", is_finished=False), trained(before, "now")]
    assert decide(store, before, "now", known, 1.0).is_to_train
    assert not decide(store, before, "now", [trained(before, "other", is_finished=False), known[1]], 1.0).is_to_train


def test_what_was_taken_down_since_is_a_reason_to_train(store: Store) -> None:
    before = tokens(store, A, B)
    now = tokens(store, A)
    store.remove_object(before.entries[1].shard.digest)
    found = decide(store, now, "now", [trained(before, "then")], 1.0)
    assert found.is_to_train
    assert found.reason == "what the last model was trained on is not in the store any more"
