"""kill -9 at any moment, in any stage: what is finished stays, nothing half-written counts, the next run ends the same."""

import contextlib
import errno
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow as pa
import pytest
from corpora import Page, computed, config, content, run, source, write_file
from toy_stages import NUMBER, TOTAL_STAGE, ToyConfig, numbers

import pipelines.storage.folder
from pipelines.digest import digest_file
from pipelines.errors import StageError
from pipelines.executor import PoolExecutor, open_executor
from pipelines.materialize import Progress, materialize
from pipelines.stage import Stage
from pipelines.store import Store
from pipelines.work import Unit

PARTS = {
    "a.warc.gz": [Page(text=text, url=text, day=text) for text in range(5)],
    "b.jsonl": [Page(text=2, url=2, day=9), Page(text=7, url=7, day=9), Page(text=1, url=11, day=9)],
    "c.warc.gz": [Page(text=8, url=0, day=20), Page(text=9, url=9, day=20, fate="opt_out"), Page(text=6, url=6)],
}
NUM_WORKS = {
    "extract": 3,
    "signals": 3,
    "toxicity": 3,
    "policy": 3,
    "sources": 1,
    "bands": 3,
    "index": 1,
    "near": 1,
    "lines": 3,
    "dedup": 1,
    "sample": 1,
    "tokenizer": 1,
    "tokenize": 3,
}
LATE_WRITERS = ("sources", "index", "near", "dedup", "sample", "tokenizer")
"""Stages that read all before they write."""
DEADLINE_SECONDS = 30

Event = tuple[str, int, int]
"""Stage, shards done, rows read in this run."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return [source(write_file(folder / name, pages)) for name, pages in PARTS.items()]


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    """What an uninterrupted build leaves."""
    store = Store(tmp_path_factory.mktemp("whole"))
    results = run(store, sources, config())
    assert computed(results) == NUM_WORKS
    return content(store, results)


@pytest.fixture(scope="module")
def context():
    """Processes forked from one that has imported all that a build needs."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["pipelines.corpus", "pandas", "awkward"])  # pyarrow and gigatoken import these late
    return forking


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@contextlib.contextmanager
def child(context, target: Callable[..., None], *args: object) -> Iterator[tuple[multiprocessing.Process, Connection]]:
    """A process that runs `target` with a pipe to here; none is left behind."""
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args))
    process.start()
    theirs.close()
    with ours:
        try:
            yield process, ours
        finally:
            process.kill()
            process.join(DEADLINE_SECONDS)


def build_in_lockstep(pipe: Connection, store: Store, sources: list) -> None:
    """Build, telling of each step and going on when told to."""

    def tell(progress: Progress) -> None:
        pipe.send((progress.stage, progress.num_done, progress.num_rows))
        pipe.recv()

    run(store, sources, config(), on_progress=tell)


def build_until(pipe: Connection, store: Store, sources: list, step: int) -> None:
    """Build, and die right before or after the call of that number among those that make a file last."""
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object) -> object:
            count()
            value = call(*args)
            count()
            return value

        return wrapped

    pipelines.storage.folder.fsync = dying(pipelines.storage.folder.fsync)
    Path.replace = dying(Path.replace)
    build_telling(pipe, store, sources)


def build_telling(pipe: Connection, store: Store, sources: list) -> None:
    """Build, telling of each step and waiting for nobody."""
    run(store, sources, config(), on_progress=lambda progress: pipe.send(progress.stage))


class Finished:
    """What a killed run has finished; it must neither be lost nor made again."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.inodes = self._inodes()
        for name, record in store.records():
            assert record is not None, f"{name} is half-written"
            assert all(store.check(shard) for shard in record.shards)
        for path in store.root.glob("objects/*/*"):
            assert digest_file(path) == path.name

    def _inodes(self) -> dict[Path, int]:
        return {path: path.stat().st_ino for path in self.store.root.glob("records/*/*/*")}

    def check_end(self, sources: list, whole: dict) -> None:
        """Build to the end, in this process: equal to the uninterrupted build, by computing only what was missing."""
        results = run(self.store, sources, config())
        num_finished = {stage: sum(path.parts[-3] == stage for path in self.inodes) for stage in NUM_WORKS}
        assert computed(results) == {stage: number - num_finished[stage] for stage, number in NUM_WORKS.items()}
        assert content(self.store, results) == whole
        assert self.inodes.items() <= self._inodes().items()
        self.store.clear_temporary()
        assert not list((self.store.root / "tmp").iterdir())
        assert not (self.store.root / "quarantine").exists()


WHEN: dict[str, Callable[[Event], bool]] = {
    "within a shard": lambda event: event[2] > 0,
    "after a shard": lambda event: event[1] > 0 and event[2] > 0,
}


def test_a_kill_at_each_place_of_each_stage(context, store, sources, whole):
    """One store, killed again and again, each time a little further on."""
    for stage in NUM_WORKS:
        for when, is_time in WHEN.items():
            before = Finished(store)
            with child(context, build_in_lockstep, store, sources) as (process, pipe):
                while not ((event := pipe.recv())[0] == stage and is_time(event)):
                    pipe.send(None)
                assert process.is_alive(), f"{stage}, {when}"
                process.kill()
            assert before.inodes.items() <= Finished(store).inodes.items()
            if when == "within a shard" and stage not in LATE_WRITERS:
                assert list((store.root / "tmp").iterdir()), (
                    "a half-written shard was there to be taken for a whole one"
                )
    assert {path.parts[-3] for path in Finished(store).inodes} == set(NUM_WORKS)
    Finished(store).check_end(sources, whole)


def test_a_kill_around_any_step_that_makes_a_file_last(context, store, sources, whole):
    rng = random.Random(1)
    num_kills = 0
    while num_kills < 10:
        with child(context, build_until, store, sources, rng.randrange(1, 50)) as (process, _):
            process.join(DEADLINE_SECONDS)
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
        num_kills += 1
        Finished(store)
    assert num_kills > 3
    Finished(store).check_end(sources, whole)


def test_a_kill_at_no_chosen_moment(context, store, sources, whole):
    rng = random.Random(3)
    for _ in range(4):
        with child(context, build_telling, store, sources) as (process, pipe), contextlib.suppress(EOFError):
            for _ in range(rng.randrange(8, 25)):
                pipe.recv()
            process.kill()  # it did not wait for us
        Finished(store)
    Finished(store).check_end(sources, whole)


# the pool


def workers_of(pool: PoolExecutor, *, busy: bool) -> list:
    return [worker for worker in pool._workers if (worker.task is not None) == busy]


@pytest.mark.parametrize("is_idle", [False, True])
def test_a_killed_worker_costs_its_shard_a_second_try(store, sources, whole, is_idle, caplog):
    killed = []

    def kill(progress: Progress) -> None:
        if (
            progress.stage in ("signals", "tokenize")  # those that are cheap run in this process
            and progress.stage not in killed
            and is_idle == (not progress.num_rows)
        ):
            for worker in workers_of(pool, busy=not is_idle)[:1]:
                worker.process.kill()
                worker.process.wait()
                killed.append(progress.stage)

    with open_executor(2) as pool:
        results = run(store, sources, config(), pool, on_progress=kill)
    assert killed == ["signals", "tokenize"]
    assert computed(results) == NUM_WORKS
    assert content(store, results) == whole
    assert ("trying once more" in caplog.text) <= (not is_idle), "the death of an idle worker is no shard's fault"


def hang(batches: Iterable[pa.RecordBatch], _config: ToyConfig) -> Iterator[pa.RecordBatch]:
    """NUMBER -> NUMBER: reads all, then never ends."""
    for _ in batches:
        pass
    signal.pause()
    yield numbers()


HANG_STAGE = Stage(name="hang", version=1, inputs=(NUMBER,), output=NUMBER, transform=hang)


def put(store: Store, *values: int) -> Unit:
    shard = store.write(NUMBER, [numbers(*values)])
    return Unit(shard.digest, (shard,))


def hang_in_pool(pipe: Connection, store: Store) -> None:
    units = [put(store, value) for value in range(2)]
    with open_executor(2) as pool:
        materialize(store, HANG_STAGE, ToyConfig(), units, pool, lambda progress: pipe.send(progress.num_rows))


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_workers_end_with_a_killed_parent_in_the_middle_of_a_shard(context, store):
    with child(context, hang_in_pool, store) as (process, pipe):
        while pipe.recv() < 2:
            pass
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.kill()
        process.join(DEADLINE_SECONDS)
        try:
            end = time.monotonic() + DEADLINE_SECONDS
            while not all(map(is_gone, workers)) and time.monotonic() < end:
                psutil.wait_procs(workers, timeout=0.05)
            assert all(map(is_gone, workers))
        finally:
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()


def test_workers_that_cannot_start_are_reported_and_not_started_for_ever(store, monkeypatch):
    monkeypatch.setattr("pipelines.worker._START", "raise SystemExit(3)")
    shard = put(store, 1).inputs[0]
    units = [Unit(f"{number:064}", (shard,)) for number in range(10_000)]  # more than a pipe holds unread
    with open_executor(1) as pool, pytest.raises(StageError, match="the worker process died twice on it"):
        materialize(store, TOTAL_STAGE, ToyConfig(), units, pool, lambda _: None)


# a full disk


@pytest.mark.parametrize(
    ("stage", "num_left"),
    [("extract", 5), ("signals", 5), ("policy", 1), ("dedup", 7), ("sample", 1), ("tokenizer", 3), ("tokenize", 9)],
)
def test_a_full_disk_in_a_stage_stops_it_and_the_next_run_goes_on(store, sources, whole, stage, num_left, monkeypatch):
    sync, room = pipelines.storage.folder.fsync, [num_left]

    def full(path: Path) -> None:  # each shard and each record is synced twice, with its folder
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 1
        sync(path)

    def fill(progress: Progress) -> None:
        if progress.stage == stage and progress.num_rows == 0:
            monkeypatch.setattr(pipelines.storage.folder, "fsync", full)

    with pytest.raises(StageError, match=rf"shards of stage '{stage}' failed .*got a full disk .* free some space"):
        run(store, sources, config(), on_progress=fill)
    assert not list((store.root / "tmp").iterdir())
    monkeypatch.setattr(pipelines.storage.folder, "fsync", sync)
    Finished(store).check_end(sources, whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("stage", ["extract", "tokenize"])
def test_a_device_that_is_really_full(store, sources, whole, stage, monkeypatch):
    """The first shard of the stage is written to /dev/full; the other shards are finished all the same."""

    def fill(progress: Progress) -> None:
        if progress.stage == stage and progress.num_rows == 0 and progress.num_done == 0:
            (store.root / "tmp" / "same.arrow").symlink_to("/dev/full")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.store.uuid.uuid4", lambda: SimpleNamespace(hex="same"))
        with pytest.raises(StageError, match=f"1 of 3 shards of stage '{stage}' failed .*got a full disk"):
            run(store, sources, config(), on_progress=fill)
    Finished(store).check_end(sources, whole)
