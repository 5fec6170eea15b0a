"""A workspace: one folder with everything a recipe's runs leave behind.

store/      shards and records of every stage
cache/      copies of those, where they are kept in a bucket instead (CORPUSMILL_STORE)
crawl/      WARC files and ledger of each crawl source
datasets/   rows fetched from a hub
remote/     files fetched from a web server or an object store, shared by all recipes
canaries/   pages that are planted for measuring, one file for each plan
models/     checkpoints and the journal of their training, one folder for each training key
reports/    data cards and evaluations, one folder for each recipe
takedowns/  certificates of take-downs; takedowns.jsonl who asked for them, outputs.jsonl what was exported
mlflow.db mlartifacts/ prefect/   the trackers' own files
state.json  what runs, how the last runs ended, counters for monitors
lock        held by the one run that may write
up.lock up.json logs/ auth/   who runs the services, where they answer, what they say, what they ask for (`corpusmill up`)
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from flows.settings import Settings
from pipelines.errors import InUseError
from pipelines.storage.lease import owner_name
from pipelines.store import Place, Store, storage_errors


@dataclass(frozen=True, slots=True)
class Workspace:
    """The places in a workspace folder."""

    root: Path
    bucket: str | None = None
    """s3://BUCKET/PREFIX, where the store lies if not in the folder."""
    max_copies_num_bytes: int = 20 << 30

    @classmethod
    def of(cls, settings: Settings) -> "Workspace":
        return cls(settings.workspace, settings.bucket, settings.max_copies_num_bytes)

    def make(self) -> None:
        """Make the folder, for its owner alone, if it is not there. Raises StorageError where that cannot be.

        One that is there is left as it is: who shares a workspace has said so.
        """
        with storage_errors(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def store_place(self) -> Place:
        return Place(
            root=self.root / ("store" if self.bucket is None else "cache"),
            bucket=self.bucket,
            max_copies_num_bytes=self.max_copies_num_bytes,
        )

    @property
    def store_url(self) -> str:
        """Where the store lies, for people to read."""
        return self.bucket or str(self.store_place.root)

    @property
    def digest_memory(self) -> Path:
        return self.root / "digests.json"

    def open_store(self) -> Store:
        """The store, made if missing. Raises StorageError where the folder cannot be written."""
        return Store(self.store_place)

    def crawl_folder(self, name: str) -> Path:
        return self.root / "crawl" / name

    def dataset_folder(self, name: str) -> Path:
        return self.root / "datasets" / name

    @property
    def canaries_folder(self) -> Path:
        return self.root / "canaries"

    @property
    def remote_folder(self) -> Path:
        return self.root / "remote"

    def model_folder(self, key: str) -> Path:
        return self.root / "models" / key[:16]

    def report_folder(self, recipe: str) -> Path:
        return self.root / "reports" / recipe

    @property
    def takedown_ledger(self) -> Path:
        return self.root / "takedowns.jsonl"

    @property
    def takedown_folder(self) -> Path:
        return self.root / "takedowns"

    @property
    def output_ledger(self) -> Path:
        return self.root / "outputs.jsonl"

    @property
    def prefect_home(self) -> Path:
        return self.root / "prefect"

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{self.mlflow_database}"

    @property
    def mlflow_database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"


_MAX_OWNER_BYTES = 500
_OWNER = re.compile(r"process \d+ on \S+ since [-\d]+ [:\d]+ UTC")

_held: ContextVar[tuple[Path, Store, int] | None] = ContextVar("held_workspace", default=None)
"""The workspace that the run in this context writes, so that the flows of a pipeline share one lock, and its descriptor."""


def _owner(lock: BinaryIO) -> str:
    """Who holds the lock: what it wrote into the file is for people only, and it may just be about to."""
    lock.seek(0)
    said = lock.read(_MAX_OWNER_BYTES).decode("utf-8", "replace").strip()
    return said if _OWNER.fullmatch(said) else "another process"


def held_lock() -> int | None:
    """The descriptor of the lock that this context holds. A process that inherits it holds the workspace, too, till it ends."""
    held = _held.get()
    return None if held is None else held[2]


@contextmanager
def writing(workspace: Workspace) -> Iterator[Store]:
    """Hold the workspace's lock and yield its store. The lock ends with the process, however that ends.

    Where the store lies in a bucket, its lease is held as well, so that no other workspace writes it.
    Within a block that holds it already, the same store is yielded and the outer block goes on holding it.
    Raises InUseError where another run holds it, StorageError where the folder cannot be made.
    """
    held = _held.get()
    if held is not None and held[0] == workspace.root:
        yield held[1]
        return
    workspace.make()
    with storage_errors(workspace.root):
        lock = (workspace.root / "lock").open("a+b", buffering=0)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
                f"got a workspace in use by {_owner(lock)} ({workspace.root}), wanted it free: "
                "wait for that run, or pass another --workspace."
            ) from None
        with storage_errors(workspace.root):
            lock.truncate(0)
            lock.write(f"{owner_name(os.getpid())} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        store = workspace.open_store()
        with store.exclusive(owner_name(os.getpid()), workspace.root / "lock"):
            store.clear_temporary()
            token = _held.set((workspace.root, store, lock.fileno()))
            try:
                yield store
            finally:
                _held.reset(token)
