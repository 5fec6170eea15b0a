"""The executor on Ray: a real cluster of several processes on loopback gives what one process gives, whatever dies."""

import ipaddress
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from ray_stages import SHOUT, LoudConfig, put

from flows.on_ray.cluster import ray_cluster
from flows.on_ray.executor import MAX_BATCH_WORKS, RayExecutor, _Stage
from flows.on_ray.worker import ShardWorker, Undone
from flows.settings import read_settings
from pipelines.errors import ConfigError, StageError, TransientError
from pipelines.executor import Executor, InlineExecutor, open_executor
from pipelines.materialize import StageResult, materialize, works_of
from pipelines.store import Store

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
NUM_WORKERS = 2
_DEADLINE_SECONDS = 30


@pytest.fixture(scope="module")
def ray() -> Iterator[RayExecutor]:
    """Two Ray workers on loopback, for all tests of this file."""
    before = signal.getsignal(signal.SIGTERM)
    with ray_cluster(None, NUM_WORKERS):
        assert signal.getsignal(signal.SIGTERM) == before, "Ray took the signal"
        executor = RayExecutor(NUM_WORKERS)
        yield executor
        executor.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def run(store: Store, executor: Executor, *texts: tuple[str, ...], config: LoudConfig | None = None) -> StageResult:
    units = [put(store, f"unit{place}", *each) for place, each in enumerate(texts)]
    return materialize(store, SHOUT, config or LoudConfig(), units, executor, lambda _: None)


def texts_of(store: Store, result: StageResult) -> list[str]:
    return [row["text"] for each in result.manifest.entries for b in store.read(each.shard) for row in b.to_pylist()]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.05)


def test_the_bytes_are_those_of_one_process_and_of_a_pool(ray: RayExecutor, tmp_path: Path) -> None:
    shards = [tuple(f"text {number} of {shard}" for number in range(20)) for shard in range(60)]
    found = []
    with open_executor(2) as pool:
        for name, executor in (("inline", InlineExecutor()), ("pool", pool), ("ray", ray)):
            store = Store(tmp_path / name)
            result = run(store, executor, *shards)
            again = run(store, executor, *shards)
            assert (again.num_computed, again.manifest) == (0, result.manifest)
            records = {
                name: record and (record.key_fields, record.shards, record.counts) for name, record in store.records()
            }
            found.append((result.manifest, records))
    assert found[0] == found[1] == found[2]


def test_rows_are_counted_once(ray: RayExecutor, store: Store) -> None:
    units = [put(store, f"unit{place}", *(["text"] * 7)) for place in range(30)]
    seen: list[tuple[int, int]] = []
    materialize(
        store, SHOUT, LoudConfig(), units, ray, lambda progress: seen.append((progress.num_done, progress.num_rows))
    )
    assert seen[-1] == (30, 30 * 7)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_poisonous_page_is_an_outcome_and_costs_no_ray_worker(
    ray: RayExecutor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards = (("one", "abort", "two"), ("three",))
    with open_executor(1) as pool:
        expected = run(Store(tmp_path / "pool"), pool, *shards)
    caplog.clear()
    before = {slot.actor for slot in ray._slots}
    result = run(Store(tmp_path / "ray"), ray, *shards)
    assert result.manifest == expected.manifest
    assert texts_of(Store(tmp_path / "ray"), result) == ["ONE", "", "TWO", "THREE"]
    assert before <= {slot.actor for slot in ray._slots}
    assert "is recorded with its problem: row 1 (page_crashed)" in caplog.text, "the driver hears of it"


def test_shards_of_a_ray_worker_that_is_killed_are_made_by_others(
    ray: RayExecutor, store: Store, tmp_path: Path
) -> None:
    shards = [(f"a{place}", "b") for place in range(40)]
    shards[3] = ("a3", "lose_worker_once")
    shards[33] = ("a33", "lose_worker_too")
    result = run(store, ray, *shards, config=LoudConfig(marks=str(tmp_path)))
    assert (tmp_path / "lose_worker_once").exists()
    assert texts_of(store, result) == [text.upper() for shard in shards for text in shard]


def test_a_shard_that_every_ray_worker_is_lost_with_is_named_and_the_rest_is_kept(
    ray: RayExecutor, store: Store
) -> None:
    shards = [(f"text{place}",) for place in range(10)]
    with pytest.raises(TransientError, match=r"1 of 11 shards .* 3 Ray workers were lost with it"):
        run(store, ray, *shards, ("lose_worker",))
    assert run(store, ray, *shards).num_computed == 0


@pytest.mark.parametrize(("text", "error"), [("terminal", StageError), ("transient", TransientError)])
def test_an_error_is_told_as_it_is_and_the_rest_is_kept(
    ray: RayExecutor, store: Store, text: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"got {text}, wanted another"):
        run(store, ray, ("one",), ("two",), (text,))
    assert run(store, ray, ("one",), ("two",)).num_computed == 0


def test_the_cluster_is_on_loopback_alone_and_asks_for_a_token(ray: RayExecutor, store: Store) -> None:
    run(store, ray, ("one",))
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr.ip
        for each in ours
        for connection in each.net_connections("inet")
        if connection.status == "LISTEN"
    ]
    assert listening
    assert {each for each in listening if not _is_loopback(each)} == set()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert not any(os.environ["RAY_AUTH_TOKEN"] in word for each in ours for word in each.cmdline())


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def test_no_process_of_a_batch_outlives_its_executor(ray: RayExecutor, store: Store) -> None:
    executor = RayExecutor(1)
    ray.close()  # both CPUs are for the other
    run(store, executor, ("one",))
    workers = [
        each for each in psutil.Process().children(recursive=True) if "pipelines.worker" in " ".join(each.cmdline())
    ]
    assert workers
    executor.close()
    wait_until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in workers))


def test_batches_are_large_at_first_and_small_at_the_end(store: Store) -> None:
    works = works_of(SHOUT, LoudConfig(), [put(store, f"unit{place}", f"text{place}") for place in range(200)])
    stage = _Stage(store, lambda _work, _record: None, lambda _rows: None, deque(works))
    sizes = []
    while stage.has_more:
        sizes.append(len(stage.next_batch(2)))
    assert sum(sizes) == 200
    assert sizes[0] == 25 <= MAX_BATCH_WORKS
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-3:] == [1, 1, 1]
    assert len(sizes) < 40, "what a batch costs is not paid for each shard"


def test_a_worker_with_another_version_makes_nothing(store: Store) -> None:
    (work,) = works_of(SHOUT, LoudConfig(), [put(store, "unit", "text")])
    other = replace(work, key_fields={**work.key_fields, "code": "another"})
    told = [each for messages in ShardWorker().run(store.place, [other]) for each in messages]
    (undone,) = told
    assert isinstance(undone, Undone)
    assert "got code of stage 'shout' on host" in undone.message
    assert "install the same version" in undone.message
    assert store.find("shout", work.key) is None


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CORPUSMILL_TASK_RUNNER": "dask"}, "got 'dask', wanted pool or ray"),
        ({"CORPUSMILL_TASK_RUNNER": "ray", "CORPUSMILL_WORKERS": "0"}, "wanted at least 1"),
        ({"CORPUSMILL_TASK_RUNNER": "ray", "CORPUSMILL_RAY_ADDRESS": "ray://head:10001"}, "wanted HOST:PORT"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        read_settings()


def test_a_cluster_is_taken_whole_unless_workers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CORPUSMILL_WORKERS", raising=False)
    monkeypatch.setenv("CORPUSMILL_RAY_ADDRESS", "head:6379")
    assert read_settings(task_runner="ray").ray_num_workers is None
    assert read_settings(num_workers=7, task_runner="ray").ray_num_workers == 7
    monkeypatch.delenv("CORPUSMILL_RAY_ADDRESS")
    assert read_settings(task_runner="ray").ray_num_workers == read_settings().num_workers
