"""What runs on a Ray worker: shards, one after the other, in a process of its own, and how far they are.

It knows neither Ray nor Prefect, so that a Ray worker imports what its stages need and no more. The shards are worked on
by a pool of one process, as on one machine: a page that crashes, stalls or swells ends that process and not Ray's, and the
page is found and recorded here, where its shard lies, without a word to the driver.
"""

import logging
import os
import queue
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from pathlib import Path

from pipelines.errors import CorpusmillError, may_pass
from pipelines.executor import Failure, PoolExecutor
from pipelines.materialize import expect_same_code
from pipelines.relocation import let_go, relocated
from pipelines.store import Place, Record, Shard, Store
from pipelines.work import Work

CACHE_VARIABLE = "CORPUSMILL_RAY_CACHE"
"""Of a worker's environment: the folder of its copies of a bucket's shards, where it should be another than the driver's."""
_TELL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Done:
    """A piece of work whose record is in the store. Its key fields are known to who asked."""

    key: str
    shards: tuple[Shard, ...]
    counts: tuple[Mapping[str, int], ...]


@dataclass(frozen=True, slots=True)
class Undone:
    """A piece of work that could not be done; it would be the same elsewhere, or passes by itself."""

    key: str
    message: str
    is_transient: bool


Told = int | Done | Undone | logging.LogRecord
"""Numbers of rows, ends of pieces, and warnings for people."""


class ShardWorker:
    """One CPU of a cluster, as long as the run that it works for. Not for several threads."""

    def __init__(self) -> None:
        self._pool = PoolExecutor(1)
        self._stores: dict[Place, Store] = {}
        self._same_code: set[tuple[str, str]] = set()

    def ready(self) -> str:
        """The host's name, once there is a process to work in."""
        return socket.gethostname()

    def run(self, place: Place, works: Sequence[Work]) -> Iterator[list[Told]]:
        """Do pieces of work of one stage; yields what happened, some times a second."""
        told: queue.SimpleQueue[Told | BaseException | None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._run, args=(place, works, told), daemon=True)
        thread.start()
        while (first := told.get()) is not None:
            messages, is_end = _gathered(first, told)
            if messages:
                yield messages
            if is_end:
                break
            thread.join(_TELL_SECONDS)
        thread.join()

    def _run(self, place: Place, works: Sequence[Work], told: "queue.SimpleQueue[Told | BaseException | None]") -> None:
        handler = QueueHandler(told)  # type: ignore[arg-type]
        logging.getLogger("pipelines").addHandler(handler)
        try:
            self._work(place, works, told)
        except BaseException as error:  # noqa: BLE001 - raised where the driver hears of it
            told.put(error)
        finally:
            logging.getLogger("pipelines").removeHandler(handler)
            told.put(None)

    def _work(
        self, place: Place, works: Sequence[Work], told: "queue.SimpleQueue[Told | BaseException | None]"
    ) -> None:
        store = self._stores.setdefault(place, Store(_place_here(place)))
        here: list[Work] = []
        for work in works:
            try:
                self._expect_same_code(work)
                here.append(relocated(store, work, place.root))
            except CorpusmillError as error:
                told.put(Undone(work.key, str(error), may_pass(error)))

        def on_done(work: Work, record: Record) -> None:
            told.put(Done(work.key, record.shards, record.counts))

        for failure in self._pool.run(store, here, on_done, told.put):
            told.put(_undone(failure))
        for work in here:
            let_go(store, work)

    def _expect_same_code(self, work: Work) -> None:
        seen = (work.stage.name, str(work.key_fields.get("code")))
        if seen not in self._same_code:
            expect_same_code(work)
            self._same_code.add(seen)


def _place_here(place: Place) -> Place:
    folder = os.environ.get(CACHE_VARIABLE)
    return place if place.bucket is None or not folder else replace(place, root=Path(folder).absolute())


def _undone(failure: Failure) -> Undone:
    return Undone(failure.work.key, failure.message, failure.is_transient)


def _gathered(
    first: Told | BaseException, told: "queue.SimpleQueue[Told | BaseException | None]"
) -> tuple[list[Told], bool]:
    """All that was told by now, with numbers of rows added up, and whether that is all. Raises what was raised."""
    messages: list[Told] = []
    item: Told | BaseException | None = first
    while item is not None:
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, int) and messages and isinstance(messages[-1], int):
            messages[-1] += item
        else:
            messages.append(item)
        try:
            item = told.get_nowait()
        except queue.Empty:
            return messages, False
    return messages, True
