"""The token stream and its order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm.data import TokenData
from llm.order import Segment, order, samples_of_step, windows_of_samples
from pipelines.errors import EmptyCorpusError, InputError, IntegrityError, SchemaError
from pipelines.schemas import SAMPLE, tokens_schema

WriteShard = Callable[..., Path]

unhurried = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def positions(num_windows: int) -> np.ndarray:
    return np.arange(num_windows, dtype=np.int64)


@unhurried
@given(num_windows=st.integers(1, 3000), seed=st.integers(0, 2**40), epoch=st.integers(0, 99))
def test_every_window_once_an_epoch(num_windows: int, seed: int, epoch: int) -> None:
    found = order(positions(num_windows), num_windows=num_windows, seed=seed, epoch=epoch)
    assert sorted(found.tolist()) == list(range(num_windows))


@unhurried
@given(num_windows=st.integers(1, 10**12), seed=st.integers(0, 9), cut=st.integers(1, 40))
def test_a_position_is_found_alone_as_among_others(num_windows: int, seed: int, cut: int) -> None:
    wanted = positions(min(num_windows, 40))
    whole = order(wanted, num_windows=num_windows, seed=seed, epoch=1)
    parts = [order(part, num_windows=num_windows, seed=seed, epoch=1) for part in np.split(wanted, [cut])]
    assert whole.tolist() == np.concatenate(parts).tolist()
    assert len(set(whole.tolist())) == wanted.size
    assert 0 <= whole.min() <= whole.max() < num_windows


def test_the_order_is_fixed_for_ever() -> None:
    """A changed permutation would silently change every resumed training: raise TRAINING_VERSION with it."""
    assert order(positions(10), num_windows=10, seed=1, epoch=0).tolist() == [1, 9, 5, 8, 2, 7, 4, 0, 3, 6]


def test_order_looks_random() -> None:
    """Neighbours do not stay neighbours, and seeds and epochs differ."""
    num_windows = 5000
    first = order(positions(num_windows), num_windows=num_windows, seed=0, epoch=0)
    for other in ({"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}):
        again = order(positions(num_windows), num_windows=num_windows, **other)
        assert (first == again).sum() < 10
        assert abs(np.corrcoef(first, again)[0, 1]) < 0.06
    assert abs(np.corrcoef(first, positions(num_windows))[0, 1]) < 0.06
    assert (np.abs(np.diff(first)) == 1).sum() < 10


lengths = st.lists(st.tuples(st.sampled_from(["train", "validation"]), st.integers(0, 9)), min_size=1, max_size=20)


@unhurried
@given(shape=lengths, rows_per_batch=st.integers(1, 8), cut=st.integers(0, 20), block_size=st.integers(1, 5))
def test_windows_are_the_stream_cut(
    write_shard: WriteShard, shape: list[tuple[str, int]], rows_per_batch: int, cut: int, block_size: int
) -> None:
    """However the rows are spread over batches and shards, and whatever lies between them."""
    counter = iter(range(1000))
    rows = [(split, [next(counter) for _ in range(length)], length) for split, length in shape]
    wanted = [token for split, tokens, _ in rows if split == "train" for token in tokens]
    paths = [
        write_shard(part, name=f"{idx}.arrow", rows_per_batch=rows_per_batch)
        for idx, part in enumerate([rows[:cut], rows[cut:]])
    ]
    if not wanted:
        with pytest.raises(EmptyCorpusError):
            TokenData.open(paths, "train", digest="d")
        return
    data = TokenData.open(paths, "train", digest="d")
    assert data.num_tokens == len(wanted)
    assert [token for document in data.documents() for token in document.tokens.tolist()] == wanted
    assert data.counts(1000).tolist() == np.bincount(wanted, minlength=1000).tolist()
    if len(wanted) <= block_size:
        with pytest.raises(EmptyCorpusError):
            data.num_windows(block_size)
        return
    num_windows = data.num_windows(block_size)
    windows = data.windows(np.arange(num_windows), block_size)
    assert windows.tolist() == [wanted[i * block_size : (i + 1) * block_size + 1] for i in range(num_windows)]
    assert 0 <= len(wanted) - 1 - num_windows * block_size < block_size  # less than a window is left over


def batch(data: TokenData, step: int, *, seed: int, num_sequences: int, block_size: int):
    plan = [Segment(first_step=0, first_sample=0, num_sequences=num_sequences)]
    windows = windows_of_samples(samples_of_step(step, plan), seed=seed, num_windows=data.num_windows(block_size))
    return data.windows(windows, block_size)


@unhurried
@given(num_sequences=st.integers(1, 20), seed=st.integers(0, 5))
def test_batch_size_does_not_change_what_is_seen(
    corpus: tuple[TokenData, TokenData], num_sequences: int, seed: int
) -> None:
    """Samples follow one sequence, cut into steps of any size, over the ends of epochs."""
    data, num_samples = corpus[0], 80
    assert data.num_windows(32) < num_samples  # more than an epoch
    one_by_one = [
        batch(data, step, seed=seed, num_sequences=1, block_size=32)[0].tolist() for step in range(num_samples)
    ]
    steps = range(num_samples // num_sequences)
    batches = [batch(data, step, seed=seed, num_sequences=num_sequences, block_size=32) for step in steps]
    assert np.concatenate(batches).tolist() == one_by_one[: len(steps) * num_sequences]


def test_tokens_are_read_without_a_copy(write_shard: WriteShard) -> None:
    path = write_shard([("train", range(30_000), 1)] * 40)
    before = pa.total_allocated_bytes()
    data = TokenData.open([path], "train", digest="d")
    documents = list(data.documents())
    assert pa.total_allocated_bytes() - before < 10_000  # the tokens are 2.4 MB
    assert not documents[0].tokens.flags.owndata
    assert not documents[0].tokens.flags.writeable


def test_wide_ids_are_read(write_shard: WriteShard) -> None:
    path = write_shard([("train", [70_000, 1, 2], 3)], schema=tokens_schema(100_000))
    assert TokenData.open([path], "train", digest="d").windows(np.array([0]), 2).tolist() == [[70_000, 1, 2]]


def test_an_empty_split_says_what_to_do(write_shard: WriteShard) -> None:
    path = write_shard([("train", [1, 2], 2)])
    with pytest.raises(
        EmptyCorpusError, match=r"got no tokens for the split 'validation' in 1 shards; .*: add sources"
    ):
        TokenData.open([path], "validation", digest="d")
    with pytest.raises(
        EmptyCorpusError, match=r"got 2 tokens in the split 'train'; wanted at least 5 .*: add documents"
    ):
        TokenData.open([path], "train", digest="d").num_windows(4)


def test_damaged_shards_are_refused(write_shard: WriteShard, tmp_path: Path) -> None:
    path = write_shard([("train", range(1000), 1)])
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match="wanted an Arrow stream: run `corpusmill verify`"):
            TokenData.open([path], "train", digest="d")
    with pytest.raises(InputError, match=r"got no file at .*: build the corpus first"):
        TokenData.open([tmp_path / "absent.arrow"], "train", digest="d")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SAMPLE):
        pass
    with pytest.raises(SchemaError, match="wanted TOKENS"):
        TokenData.open([path], "train", digest="d")
