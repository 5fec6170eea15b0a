"""Which step saw which tokens, against batches that were really made."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm.data import TokenData
from llm.order import Segment, order, places_in_order
from llm.schedule import Schedule

unhurried = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@unhurried
@given(num_windows=st.integers(1, 10**12), seed=st.integers(0, 2**40), epoch=st.integers(0, 99), data=st.data())
def test_the_inverse_of_the_order(num_windows: int, seed: int, epoch: int, data: st.DataObject) -> None:
    some = np.array(data.draw(st.lists(st.integers(0, num_windows - 1), min_size=1, max_size=40)))
    how = {"num_windows": num_windows, "seed": seed, "epoch": epoch}
    assert places_in_order(order(some, **how), **how).tolist() == some.tolist()
    assert order(places_in_order(some, **how), **how).tolist() == some.tolist()


def plan(num_sequences: int) -> tuple[Segment, ...]:
    return (Segment(first_step=0, first_sample=0, num_sequences=num_sequences),)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], TokenData]:
    """A stream whose token at each offset is the offset."""
    import pyarrow as pa

    from pipelines.schemas import TOKENS

    folder = tmp_path_factory.mktemp("streams")

    def make(num_tokens: int) -> TokenData:
        path = folder / f"{num_tokens}.arrow"
        row = {"doc_id": "d", "split": "train", "num_bytes": 1, "tokens": list(range(num_tokens))}
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, TOKENS) as writer:
            writer.write_batch(pa.RecordBatch.from_pylist([row], schema=TOKENS))
        return TokenData.open([Path(path)], "train", digest="d")

    return make


@unhurried
@given(
    num_tokens=st.integers(2, 300),
    block_size=st.integers(1, 40),
    num_sequences=st.integers(1, 9),
    seed=st.integers(0, 99),
    num_steps=st.integers(0, 30),
    data=st.data(),
)
def test_steps_are_those_whose_batch_held_the_tokens(
    stream: Callable[[int], TokenData],
    num_tokens: int,
    block_size: int,
    num_sequences: int,
    seed: int,
    num_steps: int,
    data: st.DataObject,
) -> None:
    """By brute force, from less than a step to many epochs, the left-over end of the stream included."""
    block_size = min(block_size, num_tokens - 1)
    tokens = stream(num_tokens)
    schedule = Schedule(
        num_tokens=num_tokens, block_size=block_size, plan=plan(num_sequences), seed=seed, num_steps=num_steps
    )
    assert schedule.num_windows == tokens.num_windows(block_size)
    batches = [tokens.windows(schedule.windows(step + 1), block_size) for step in range(num_steps)]
    edges = st.integers(0, num_tokens)
    spans = data.draw(st.lists(st.tuples(edges, edges).map(sorted), min_size=1, max_size=6))
    found = schedule.sightings(*(np.array(side) for side in zip(*spans, strict=True)))
    for idx, (start, end) in enumerate(spans):
        held = [((batch >= start) & (batch < end)).any(axis=1).sum() for batch in batches]
        steps = [number for number, count in enumerate(held, start=1) if count]
        assert schedule.steps(start, end).tolist() == steps
        assert found.num_visits[idx] == sum(held)
        assert (found.first_steps[idx], found.last_steps[idx]) == ((steps[0], steps[-1]) if steps else (0, 0))
    for step, batch in enumerate(batches, start=1):
        assert (schedule.windows(step) * block_size).tolist() == batch[:, 0].tolist()


def test_a_stream_without_a_window_was_never_seen() -> None:
    schedule = Schedule(num_tokens=5, block_size=8, plan=plan(2), seed=0, num_steps=3)
    assert schedule.steps(0, 5).tolist() == []
    assert schedule.sightings(np.array([0]), np.array([5])).num_visits.tolist() == [0]
