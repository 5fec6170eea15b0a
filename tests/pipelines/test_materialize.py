"""Stages run once, resume where they were killed, and give the same bytes however they are run."""

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_stages import DOUBLE_STAGE, NUMBER, RANK_STAGE, TOTAL_STAGE, ToyConfig, numbers

from pipelines.errors import SchemaError, StageError, TransientError
from pipelines.executor import InlineExecutor, open_executor
from pipelines.materialize import materialize, works_of
from pipelines.store import Store
from pipelines.work import Unit, align

SHARDS = ((1, 2, 3), (4, 5), (6,))


def put(store: Store, *values: int) -> Unit:
    shard = store.write(NUMBER, [numbers(*values)])
    return Unit(shard.digest, (shard,))


def run(store, stage, units, config=None, executor=None, on_progress=lambda _: None):
    return materialize(store, stage, config or ToyConfig(), units, executor or InlineExecutor(), on_progress)


def rows(store, manifest):
    batches = [batch for entry in manifest.entries for batch in store.read(entry.shard)]
    return pa.Table.from_batches(batches).to_pylist() if batches else []


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def units(store):
    return [put(store, *values) for values in SHARDS]


def test_a_second_run_computes_nothing(store, units):
    first, second = run(store, DOUBLE_STAGE, units), run(store, DOUBLE_STAGE, units)
    assert (first.num_computed, first.num_reused) == (3, 0)
    assert (second.num_computed, second.num_reused) == (0, 3)
    assert first.manifest == second.manifest
    assert second.manifest.counts() == {"rows": 6}


def test_one_more_input_computes_one_shard(store, units):
    run(store, DOUBLE_STAGE, units)
    assert run(store, DOUBLE_STAGE, [*units, put(store, 9)]).num_computed == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda stage, config: (replace(stage, version=2), config),
        lambda stage, config: (stage, replace(config, factor=3)),
        lambda stage, config: (replace(stage, libraries=("numpy",)), config),
        lambda stage, config: (replace(stage, package_data=("pipelines/signals",)), config),
    ],
)
def test_what_shapes_the_output_changes_the_key(store, units, change):
    stage, config = change(DOUBLE_STAGE, ToyConfig())
    before = {work.key for work in works_of(DOUBLE_STAGE, ToyConfig(), units)}
    assert before.isdisjoint(work.key for work in works_of(stage, config, units))


def test_a_pool_gives_the_same_bytes(tmp_path):
    manifests = []
    for num_workers in (0, 2):
        store = Store(tmp_path / str(num_workers))
        units = [put(store, *values) for values in SHARDS]
        with open_executor(num_workers) as executor:
            manifests.append(run(store, DOUBLE_STAGE, units, executor=executor).manifest)
    assert manifests[0] == manifests[1]


def test_a_worker_that_dies_once_is_replaced(store, units, tmp_path):
    config = ToyConfig(die_on=4, die_once_in=str(tmp_path))
    with open_executor(2) as executor:
        result = run(store, DOUBLE_STAGE, units, config, executor)
    assert result.num_computed == 3
    assert (tmp_path / "died").exists()


def test_a_poisonous_shard_fails_alone_and_the_rest_is_kept(store, units):
    with open_executor(2) as executor, pytest.raises(StageError, match=r"1 of 3 shards .* died twice"):
        run(store, DOUBLE_STAGE, units, ToyConfig(die_on=4), executor)
    keys = [work.key for work in works_of(DOUBLE_STAGE, ToyConfig(die_on=4), units)]
    assert sum(store.find("double", key) is not None for key in keys) == 2


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(("transient", "error"), [(False, StageError), (True, TransientError)])
def test_a_failing_shard_is_named_and_the_rest_is_kept(store, units, num_workers, transient, error):
    config = ToyConfig(fail_on=6, transient=transient)
    with open_executor(num_workers) as executor, pytest.raises(error, match="got 6, wanted another"):
        run(store, DOUBLE_STAGE, units, config, executor)
    assert sum(store.find("double", work.key) is not None for work in works_of(DOUBLE_STAGE, config, units)) == 2


def test_a_global_aligned_stage_gives_a_shard_for_each_unit(store, units):
    doubled = run(store, DOUBLE_STAGE, units).manifest
    pairs = [Unit(unit.name, (*unit.inputs, doubled.by_unit()[unit.name].shard)) for unit in units]
    ranked = run(store, RANK_STAGE, pairs)
    assert [entry.shard.num_rows for entry in ranked.manifest.entries] == [len(values) for values in SHARDS]
    assert [row["rank"] for row in rows(store, ranked.manifest)] == [0, 1, 2, 3, 4, 5]
    assert ranked.num_computed == 1
    assert run(store, RANK_STAGE, pairs).num_computed == 0


def test_a_global_stage_gives_one_shard(store, units):
    assert rows(store, run(store, TOTAL_STAGE, units).manifest) == [{"total": 21}]


def test_no_input_is_an_empty_manifest(store):
    result = run(store, DOUBLE_STAGE, [])
    assert (result.num_computed, result.manifest.num_rows) == (0, 0)


def test_progress_counts_shards_and_rows(store, units):
    seen = []
    run(store, DOUBLE_STAGE, units, on_progress=seen.append)
    assert (seen[0].num_done, seen[-1].num_done, seen[-1].num_shards, seen[-1].num_rows) == (0, 3, 3, 6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4)), st.lists(st.integers(1, 4)))
def test_align_matches_rows_however_batches_are_cut(left_cuts, right_cuts):
    values = list(range(10))

    def cut(cuts):
        rest = values
        for size in [*cuts, len(values)]:
            part, rest = rest[:size], rest[size:]
            yield numbers(*part)

    merged = [batch for batch in align([cut(left_cuts), cut(right_cuts)]) if batch.num_rows]
    assert [value for batch in merged for value in batch.column("value").to_pylist()] == values


@pytest.mark.parametrize(("left", "right"), [((1, 2), (1, 3)), ((1, 2), (1,)), ((1,), (1, 2))])
def test_align_refuses_other_documents(left, right):
    with pytest.raises(SchemaError):
        list(align([iter([numbers(*left)]), iter([numbers(*right)])]))


def test_an_aligned_stage_that_loses_rows_is_refused(store, units):
    def lose(batches, _config):
        yield from list(batches)[:1]

    stage = replace(RANK_STAGE, name="lose", inputs=(NUMBER,), output=NUMBER, transform=lose)
    with pytest.raises(StageError, match="too few"):
        run(store, stage, units)
