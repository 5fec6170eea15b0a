"""Paths, globs and directories of a recipe to the files they mean."""

import glob
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import InputError

_GLOB_CHARACTERS = frozenset("*?[")

WARC_SUFFIXES = tuple(f".warc{kind}{packing}" for kind in ("", ".wet") for packing in ("", ".gz", ".zst", ".lz4"))
TEXT_SUFFIXES = tuple(
    f".{kind}{packing}"
    for kind in ("jsonl", "ndjson", "json", "parquet", "arrow", "txt")
    for packing in ("", ".gz", ".zst")
)


def expand(paths: Sequence[str], base: Path, suffixes: Sequence[str]) -> list[Path]:
    """Each path of `paths` (a file, a glob or a directory, relative to `base`) to files, sorted, each once.

    A directory is searched to its bottom for names with one of `suffixes`; hidden files and folders are left out.
    A file or a glob is taken at its word, whatever its suffix. Raises InputError naming the pattern that matches
    nothing.
    """
    found: set[Path] = set()
    for pattern in paths:
        matched = _matches(pattern, base, tuple(suffixes))
        if not matched:
            raise InputError(
                f"got the path {pattern!r}, which matches no file below {base}; wanted files"
                f" (in a directory: {', '.join(suffixes)}): correct the path or make the files first."
            )
        found.update(matched)
    return sorted(found)


def _matches(pattern: str, base: Path, suffixes: tuple[str, ...]) -> list[Path]:
    path = base / pattern
    if path.is_file():
        return [path]
    if path.is_dir():
        return _below(path, suffixes)
    if not _GLOB_CHARACTERS.intersection(pattern):
        return []
    matched: list[Path] = []
    for name in glob.glob(pattern, root_dir=base, recursive=True):  # noqa: PTH207  Path.glob refuses absolute patterns
        entry = base / name
        matched.extend(_below(entry, suffixes) if entry.is_dir() and "**" not in pattern else [entry])
    return [entry for entry in matched if entry.is_file()]


def _below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [
        entry
        for entry in folder.rglob("*")
        if entry.is_file()
        and entry.name.lower().endswith(suffixes)
        and not any(part.startswith(".") for part in entry.relative_to(folder).parts)
    ]
