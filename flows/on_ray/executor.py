"""Shards on a Ray cluster: one executor more, with the interface of those in `pipelines.executor`.

It lies here because Ray is an orchestrator, and nothing below `flows` knows one. Each CPU of the cluster has an actor for
the length of the run (`ray_worker`), and is given shards in batches: what a call through Ray costs (a millisecond or two,
and 200 where it is a Prefect task) is paid once for up to 200 shards. Batches get smaller toward the end of a stage, so that
all are done at about the same time.

A page that kills its process is found where it lies, as on one machine. A whole Ray worker that is lost (its host went, or
ran out of memory) costs the shards that it had not finished: they are given to others one by one, and a shard that three
workers were lost with is reported as failed. Actors end with the driver, however it ends.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flows.on_ray.cluster import ray_cluster
from flows.on_ray.worker import Done, ShardWorker, Told, Undone
from flows.settings import Settings, num_cores
from pipelines.errors import InputError, StorageError, TerminalError, TransientError, may_pass
from pipelines.executor import Executor, Failure, OnDone
from pipelines.relocation import Lender
from pipelines.store import Record, Store
from pipelines.work import OnRows, SourceFile, Work

logger = logging.getLogger(__name__)

MAX_BATCH_WORKS = 200
_MAX_BATCH_SOURCE_BYTES = 1 << 30
"""Of source files in a batch that has several: a worker holds copies of them, and others wait while they are lent."""
_BATCHES_A_WORKER = 4
"""A batch is this part of a worker's share of what is left."""
_MAX_LOSSES = 3
_MAX_FAILED_STARTS = 3
_WAIT_SECONDS = 30.0
"""Without a word from anyone before a person is told that the cluster has no free CPU."""


@dataclass(slots=True)
class _Slot:
    """One actor, and what it is doing."""

    actor: Any
    waiting_for: Any
    """A reference to its start, or the stream of what it tells; None: idle."""
    is_up: bool = False
    batch: dict[str, Work] = field(default_factory=dict)
    """By key, what is not done of it."""
    num_open_rows: int = 0
    """Rows told of the piece that is under way."""


@dataclass(slots=True)
class _Stage:
    """The works of one call of `run`."""

    store: Store
    on_done: OnDone
    on_rows: OnRows
    waiting: deque[Work]
    alone: deque[Work] = field(default_factory=deque)
    """That a worker was lost with: each is given out by itself, so that it is known whether it is to blame."""
    num_losses: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def has_more(self) -> bool:
        return bool(self.waiting or self.alone)

    def next_batch(self, num_workers: int) -> dict[str, Work]:
        """What the next idle worker gets."""
        if self.alone:
            work = self.alone.popleft()
            return {work.key: work}
        share = -(-len(self.waiting) // (num_workers * _BATCHES_A_WORKER))
        batch: dict[str, Work] = {}
        num_bytes = 0
        while self.waiting and len(batch) < min(MAX_BATCH_WORKS, max(1, share)):
            num_bytes += _source_bytes(self.waiting[0])
            if batch and num_bytes > _MAX_BATCH_SOURCE_BYTES:
                break
            work = self.waiting.popleft()
            batch[work.key] = work
        return batch


class RayExecutor:
    """Runs works on actors of the cluster that this process is the driver of. Starts them when there is work."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._slots: list[_Slot] = []
        self._lender = Lender()
        self._num_failed_starts = 0

    def run(self, store: Store, works: Sequence[Work], on_done: OnDone, on_rows: OnRows) -> list[Failure]:
        """Raises TerminalError where no worker can be started, TransientError where the cluster is lost."""
        from ray.exceptions import RayError

        stage = _Stage(store, on_done, on_rows, deque(works))
        try:
            while stage.has_more or any(slot.batch for slot in self._slots):
                self._assign(stage)
                for slot in self._heard():
                    self._hear(slot, stage)
        except RayError as error:
            self.close()
            raise TransientError(
                f"got {_brief(error)} from Ray, wanted a cluster that stays up: see to it and run again; "
                "what was finished is kept."
            ) from error
        except BaseException:
            self.close()  # what is under way is of no use to anyone
            raise
        return stage.failures

    def close(self) -> None:
        """End the actors, and with each the process that it works in."""
        import ray

        for slot in self._slots:
            with contextlib.suppress(Exception):  # a cluster that is gone has no actors
                ray.kill(slot.actor)
        self._slots = []

    def _assign(self, stage: _Stage) -> None:
        num_wanted = min(self._num_workers, len(stage.waiting) + len(stage.alone) + sum(map(_is_busy, self._slots)))
        while len(self._slots) < num_wanted:
            self._slots.append(_start())
        for slot in list(self._slots):
            if slot.waiting_for is None and stage.has_more:
                self._give(slot, stage)

    def _give(self, slot: _Slot, stage: _Stage) -> None:
        slot.num_open_rows = 0
        for key, work in stage.next_batch(self._num_workers).items():
            try:
                self._lender.lend(stage.store, work)
            except (InputError, StorageError) as error:
                stage.failures.append(Failure(work, str(error), may_pass(error)))
            else:
                slot.batch[key] = work
        if not slot.batch:
            return
        from ray.exceptions import RayError

        try:
            run = slot.actor.run.options(num_returns="streaming")
            slot.waiting_for = run.remote(stage.store.place, tuple(slot.batch.values()))
        except RayError as error:  # it was lost while it was idle
            self._lose(slot, stage, _brief(error))

    def _heard(self) -> list[_Slot]:
        """A worker that said something, or is lost; none where everyone is silent for long."""
        import ray

        waited_for = {slot.waiting_for: slot for slot in self._slots if slot.waiting_for is not None}
        if not waited_for:
            return []
        ready, _ = ray.wait(list(waited_for), num_returns=1, timeout=_WAIT_SECONDS, fetch_local=False)
        if not ready:
            _expect_own_node()
            if not any(slot.is_up for slot in self._slots):
                logger.warning("no CPU of the Ray cluster is free for a worker; waiting for one")
        return [waited_for[each] for each in ready]

    def _hear(self, slot: _Slot, stage: _Stage) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            if not slot.is_up:
                host = ray.get(slot.waiting_for)
                logger.debug("a Ray worker is up on %s", host)
                slot.is_up, slot.waiting_for, self._num_failed_starts = True, None, 0
                return
            for told in ray.get(next(slot.waiting_for)):
                self._note(slot, told, stage)
        except StopIteration:
            self._end_batch(slot, stage, "the Ray worker said nothing of it")
        except RayTaskError as error:
            self._end_batch(slot, stage, f"{type(error.cause).__name__} on a Ray worker: {error.cause}")
        except RayError as error:
            self._lose(slot, stage, _brief(error))

    def _note(self, slot: _Slot, told: Told, stage: _Stage) -> None:
        match told:
            case int():
                slot.num_open_rows += told
                stage.on_rows(told)
            case Done(key, shards, counts):
                work = self._taken(slot, key, stage)
                record = Record(
                    stage=work.stage.name, key=key, key_fields=work.key_fields, shards=shards, counts=counts
                )
                stage.on_done(work, record)
            case Undone(key, message, is_transient):
                stage.failures.append(Failure(self._taken(slot, key, stage), message, is_transient))
            case logging.LogRecord():
                logging.getLogger(told.name).handle(told)

    def _taken(self, slot: _Slot, key: str, stage: _Stage) -> Work:
        """A piece that came to an end."""
        work = slot.batch.pop(key)
        slot.num_open_rows = 0
        self._lender.take_back(stage.store, work)
        return work

    def _end_batch(self, slot: _Slot, stage: _Stage, problem: str) -> None:
        """A worker is idle again. What it did not speak of failed."""
        for key in list(slot.batch):
            stage.failures.append(Failure(self._taken(slot, key, stage), problem, is_transient=False))
        slot.waiting_for = None

    def _lose(self, slot: _Slot, stage: _Stage, problem: str) -> None:
        """A worker is gone. What it had not finished is given to others."""
        self._slots.remove(slot)
        if not slot.is_up:
            self._num_failed_starts += 1
            if self._num_failed_starts >= _MAX_FAILED_STARTS:
                # Ray's words for an exception in what we run there; otherwise it is the cluster that fails.
                kind = TerminalError if "creation task" in problem else TransientError
                raise kind(
                    f"got {self._num_failed_starts} Ray workers that could not start ({problem}), wanted them up: "
                    "install this version of corpusmill, with its lock file, on every node of the cluster, and see to its nodes."
                )
            return
        stage.on_rows(-slot.num_open_rows)
        was_alone = len(slot.batch) == 1
        logger.warning("a Ray worker was lost with %d shards under way; they are given to others", len(slot.batch))
        for key, work in slot.batch.items():
            self._lender.take_back(stage.store, work)
            stage.num_losses[key] = stage.num_losses.get(key, 0) + was_alone
            if stage.num_losses[key] >= _MAX_LOSSES:
                text = f"{_MAX_LOSSES} Ray workers were lost with it ({problem})"
                stage.failures.append(Failure(work, text, is_transient=True))
            else:
                stage.alone.append(work)


@contextmanager
def ray_executor(settings: Settings) -> Iterator[Executor]:
    """An executor on the cluster that the settings name, or on one of its own; either is joined when there is work."""
    with contextlib.ExitStack() as stack:
        yield _LateExecutor(settings, stack)


class _LateExecutor:
    """Joins the cluster with the first work that it is given: a run that changes nothing needs none."""

    def __init__(self, settings: Settings, stack: contextlib.ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._executor: RayExecutor | None = None

    def run(self, store: Store, works: Sequence[Work], on_done: OnDone, on_rows: OnRows) -> list[Failure]:
        if self._executor is None:
            self._executor = self._join()
        return self._executor.run(store, works, on_done, on_rows)

    def _join(self) -> RayExecutor:
        wanted = self._settings.ray_num_workers
        self._stack.enter_context(ray_cluster(self._settings.ray_address, wanted or num_cores()))
        import ray

        executor = RayExecutor(wanted or max(1, int(ray.cluster_resources().get("CPU", 1))))
        self._stack.callback(executor.close)
        return executor


def _start() -> _Slot:
    import ray

    actor = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(ShardWorker).remote()
    return _Slot(actor, actor.ready.remote())


def _expect_own_node() -> None:
    """Raise TransientError where the Ray node of this process is gone: nothing that waits would ever be heard of."""
    import ray

    ours = ray.get_runtime_context().get_node_id()
    if not any(node["NodeID"] == ours and node["Alive"] for node in ray.nodes()):
        raise TransientError(
            "got no Ray node on this host any longer, wanted the one that the run joined: see to it and run again; "
            "what was finished is kept."
        )


def _brief(error: Exception) -> str:
    """The first words of an error of Ray's, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _is_busy(slot: _Slot) -> bool:
    return bool(slot.batch)


def _source_bytes(work: Work) -> int:
    return sum(item.num_bytes for unit in work.units for item in unit.inputs if isinstance(item, SourceFile))
