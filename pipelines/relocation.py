"""Work that goes to another host: the files that it names by path are lent to it through the store, and found there again.

Shards need nothing: they are in the store, and every host keeps its own copies. But a source file, a word list or a model
lies where the run was started. Its bytes are put beside the shards under the name of their digest, and the worker gives the
work the paths of its own copies, below one folder and otherwise the same, since a model's files know each other by place.

Where the store is a folder, every worker must see that folder, and so sees the other paths too: nothing is lent.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.errors import InputError
from pipelines.stage import Resource
from pipelines.store import Store
from pipelines.work import SourceFile, Unit, Work


@dataclass(slots=True)
class Lender:
    """What this host has lent to others. Not for several threads."""

    _num_uses: dict[str, int] = field(default_factory=dict)
    """By digest: pieces of work under way that need it."""

    def lend(self, store: Store, work: Work) -> None:
        """Put what a piece of work names by path where other hosts find it. Raises InputError, StorageError."""
        if store.place.bucket is None:
            return
        for digest, path in _files_of(store, work).items():
            if not self._num_uses.get(digest):
                with _readable(path):
                    store.lend(Path(path), digest)
            self._num_uses[digest] = self._num_uses.get(digest, 0) + 1

    def take_back(self, store: Store, work: Work) -> None:
        """Remove what no other piece of work under way needs."""
        if store.place.bucket is None:
            return
        for digest in _files_of(store, work):
            self._num_uses[digest] = self._num_uses.get(digest, 0) - 1
            if self._num_uses[digest] == 0:
                store.take_back(digest)


def relocated(store: Store, work: Work, made_in: Path) -> Work:
    """A piece of work with the paths of this host's copies in place of those of the host where it was made.

    `made_in` is the folder of the store there. Raises InputError where a copy cannot be had.
    """
    if store.place.bucket is None:
        return work

    def resource(item: Resource) -> Resource:
        if Path(item.path).is_relative_to(made_in):
            return replace(item, path=str(store.shard_path(item.digest)))
        return replace(item, path=str(_borrowed(store, item.digest, item.path)))

    def unit(each: Unit) -> Unit:
        inputs = tuple(
            replace(item, path=str(_borrowed(store, item.digest, item.path))) if isinstance(item, SourceFile) else item
            for item in each.inputs
        )
        return each if inputs == each.inputs else replace(each, inputs=inputs)

    return replace(work, config=_with_resources(work.config, resource), units=tuple(map(unit, work.units)))


def let_go(store: Store, work: Work) -> None:
    """Remove the copies of a relocated work's source files: they are read once, and may be larger than everything else."""
    if store.place.bucket is None:
        return  # they are the files themselves
    for unit in work.units:
        for item in unit.inputs:
            if isinstance(item, SourceFile):
                Path(item.path).unlink(missing_ok=True)


def _files_of(store: Store, work: Work) -> dict[str, str]:
    """Path by digest of the files that a piece of work names and the store does not hold."""
    found = {item.digest: item.path for unit in work.units for item in unit.inputs if isinstance(item, SourceFile)}

    def note(item: Resource) -> Resource:
        if not Path(item.path).is_relative_to(store.root):
            found[item.digest] = item.path
        return item

    _with_resources(work.config, note)
    return found


def _with_resources(value: Any, change: Callable[[Resource], Resource]) -> Any:
    """A config in which each Resource, however deep, is what `change` makes of it."""
    if isinstance(value, Resource):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_with_resources(item, change) for item in value)
    if isinstance(value, Mapping):
        return {name: _with_resources(item, change) for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        before = {item.name: getattr(value, item.name) for item in dataclasses.fields(value) if item.init}
        after = {name: _with_resources(item, change) for name, item in before.items()}
        return value if after == before else replace(value, **after)
    return value


def _borrowed(store: Store, digest: str, path: str) -> Path:
    """This host's copy of a lent file, below a folder of this process, at the path that it has where it comes from."""
    held = store.borrow(digest)
    if not held.exists():
        raise InputError(
            f"got no file with the digest of {path} from {store.url}, wanted it as the run put it there: "
            "the file changed during the run, or another run removed it; run again."
        )
    target = held.parent / "lent" / Path(path).absolute().relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(held, target)
    held.unlink()  # the copies are bounded, what is held is not: the link is what holds
    return target


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"got {error.strerror or error} for {path}, wanted a file that can be read: check paths."
        ) from error
