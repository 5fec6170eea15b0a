"""Lists that a recipe names by URL: fetched into the workspace, checked, and fetched anew once they are too old.

A build reads the file that lies there, and its key has that file's digest: a list that changed on its server changes
nothing before it is fetched, and then `plan` says so. A list that cannot be had, is empty or is not in its format stops
the run, and the one before it stays.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.recipe import Recipe, RemoteList
from flows.workspace import Workspace
from pipelines.blocklists import BlockList, BlockListKind, load_block_lists
from pipelines.errors import ConfigError, InputError
from pipelines.signals.keyword_library import read_terms
from pipelines.sources.remote import RemoteFile, fetch_file, held_file, remote_path
from pipelines.sources.remote_streams import RemoteAccess
from pipelines.stage import Resource
from pipelines.store import storage_errors

_MAX_LIST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class HeldList:
    """A list that lies in the workspace."""

    field: str
    """Of the recipe: `compliance.blocked_domains` and the like."""
    file: RemoteFile


def lists_to_fetch(recipe: Recipe, workspace: Workspace, now: datetime | None = None) -> list[RemoteList]:
    """Lists that are not there, or are older than the recipe allows."""
    return [
        each
        for each in recipe.remote_lists()
        if (held := held_file(each.url, workspace.remote_folder)) is None or _is_old(held, recipe, now)
    ]


def fetch_lists(recipe: Recipe, workspace: Workspace, wanted: Sequence[RemoteList]) -> list[RemoteFile]:
    """Fetch lists, check them, and put them in place of older ones.

    Raises FetchError where a server or the network fails, InputError for what is no list; what was there stays.
    """
    return [_fetch(each, recipe, workspace.remote_folder) for each in wanted]


def held_lists(recipe: Recipe, workspace: Workspace) -> list[HeldList]:
    """The lists that lie in the workspace, in the recipe's order."""
    found = ((each.field, held_file(each.url, workspace.remote_folder)) for each in recipe.remote_lists())
    return [HeldList(field, held) for field, held in found if held is not None]


def _is_old(held: RemoteFile, recipe: Recipe, now: datetime | None) -> bool:
    if recipe.max_list_age_hours is None or held.fetched_at is None:
        return False
    age = (now or datetime.now(UTC)) - datetime.fromisoformat(held.fetched_at)
    return age.total_seconds() >= 3600 * recipe.max_list_age_hours


def _fetch(wanted: RemoteList, recipe: Recipe, folder: Path) -> RemoteFile:
    fresh = folder / "fresh"
    path = remote_path(wanted.url, fresh)
    path.unlink(missing_ok=True)  # whole, but never put in place
    access = RemoteAccess(allow_addresses=recipe.list_addresses)
    file = fetch_file(wanted.url, fresh, access, max_bytes=_MAX_LIST_BYTES)
    try:
        num_entries = _num_entries(wanted, path, file)
    except ConfigError as error:
        path.unlink()
        raise InputError(f"{wanted.field}: from {wanted.url}: {error}") from error
    if not num_entries:
        path.unlink()
        raise InputError(
            f"{wanted.field}: got a list without an entry from {wanted.url}, wanted at least one: correct the URL."
        )
    with storage_errors(folder):
        for name in (path.name, f"{path.name}.json"):
            os.replace(fresh / name, folder / name)  # noqa: PTH105  one call for both
    return file


def _num_entries(wanted: RemoteList, path: Path, file: RemoteFile) -> int:
    """How many entries a list has. Raises ConfigError, with the line, for what is not in its format."""
    if wanted.kind is None:
        return len(read_terms(path))
    listed = BlockList(name="fetched", kind=BlockListKind(wanted.kind), file=Resource(file.digest or "", str(path)))
    index = load_block_lists((listed,))
    return len(index.domains) + len(index.urls)
