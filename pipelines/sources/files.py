"""Paths, globs, directories and listings of a recipe to the files they mean."""

import glob
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from pipelines.errors import InputError

_GLOB_CHARACTERS = frozenset("*?[")

WARC_SUFFIXES = tuple(f".warc{kind}{packing}" for kind in ("", ".wet") for packing in ("", ".gz", ".zst", ".lz4"))
TEXT_SUFFIXES = tuple(
    f".{kind}{packing}"
    for kind in ("jsonl", "ndjson", "json", "parquet", "arrow", "txt")
    for packing in ("", ".gz", ".zst")
)
LISTING_SUFFIXES = (".paths", ".paths.gz")
REMOTE_SCHEMES = ("http", "https", "s3")

MAX_LISTING_BYTES = 64 << 20
_MAX_LISTING_LINES = 1_000_000
_MAX_LINE_BYTES = 4096
_GZIP_MAGIC = b"\x1f\x8b"


def is_remote(path: str) -> bool:
    """Whether a path of a recipe is a URL."""
    return "://" in path


def is_listing(path: str) -> bool:
    """Whether a path or URL names a list of files, as Common Crawl publishes them: `warc.paths.gz`."""
    return (urlsplit(path).path if is_remote(path) else path).lower().endswith(LISTING_SUFFIXES)


def listed_urls(listing: Path, base_url: str | None, max_files: int | None = None) -> list[str]:
    """The first `max_files` files of a listing, one a line, plain or gzip, as URLs in its order, each once.

    A line is a URL, or a path below `base_url`; never a local file. Raises InputError naming the line that is neither,
    and for a listing that is damaged, holds no line or holds more than a million.
    """
    found: dict[str, None] = {}
    try:
        with listing.open("rb") as file:
            for number, line in enumerate(_listing_lines(file)):
                if number >= _MAX_LISTING_LINES:
                    raise InputError(f"got more than {_MAX_LISTING_LINES:,} lines in {listing}, wanted fewer: cut it.")
                found[_listed_url(line, number, listing, base_url)] = None
                if len(found) == max_files:
                    break
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"got the listing {listing}, which is damaged ({error}), wanted a whole one: replace it."
        ) from error
    if not found:
        raise InputError(f"got the listing {listing} without a line, wanted one file on each: replace it.")
    return list(found)


def _listing_lines(file: BinaryIO) -> Iterator[bytes]:
    is_packed = file.read(2) == _GZIP_MAGIC
    file.seek(0)
    stream = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if is_packed else file
    while line := stream.readline(_MAX_LINE_BYTES + 1):
        if line.strip():
            yield line


def _listed_url(line: bytes, number: int, listing: Path, base_url: str | None) -> str:
    text = line.decode("utf-8", "replace").strip()
    known = ", ".join(REMOTE_SCHEMES)
    if len(line) > _MAX_LINE_BYTES or not text.isprintable():
        raise InputError(
            f"got {text[:80]!r} as file {number + 1} of {listing}, wanted a path or an {known} URL: correct it."
        )
    if not is_remote(text):
        if base_url is None:
            raise InputError(
                f"got {text[:80]!r} as file {number + 1} of {listing}, wanted to know where it lies: set base_url,"
                " for Common Crawl https://data.commoncrawl.org/."
            )
        return f"{base_url.rstrip('/')}/{text.lstrip('/')}"
    if not text.startswith(tuple(f"{scheme}://" for scheme in REMOTE_SCHEMES)):
        raise InputError(
            f"got {text[:80]!r} as file {number + 1} of {listing}, wanted a path or an {known} URL: correct it."
        )
    return text


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
