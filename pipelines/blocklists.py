"""Lists of domains and URLs that no document may come from, given as files by the operator.

Domain lists: one domain a line, also as the lines of a hosts file (`0.0.0.0 host`). An entry stands for the domain and
all below it, so a page matches by its host, by its registrable domain and by every domain between. URL lists: one URL a
line, with or without its scheme. An entry stands for that address and all below it: `example.com/a` for
`example.com/a`, `/a/b` and `/a?c`, not for `/ab`. Letter case, ports, `www.` (URLs), percent-encoding and the ASCII
form of a name do not matter. `#` starts a comment; gzip (RFC 1952) is read as it is.

Memory holds a sorted hash of each entry, 10 bytes, and no text: the entry is known from the page that matches it.
Two of ten million entries and a page's domain share their 64 bits by chance once in 10**12 pages.

Must not: decide. The policy has the rule.
"""

import functools
import gzip
import posixpath
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import xxhash

from pipelines.errors import ConfigError
from pipelines.hosts import ascii_host
from pipelines.stage import Resource

Hashes = npt.NDArray[np.uint64]
ListIdxs = npt.NDArray[np.uint16]

_CHUNK_NUM_BYTES = 1 << 20
_MAX_LINE_NUM_BYTES = 16 << 10
_MAX_NUM_ENTRIES = 100_000_000
_MAX_URL_CHARS = 16 << 10
_MAX_DEPTH = 256
_LISTED = rb"(?:[a-z0-9_-]{1,63}\.){1,40}[a-z0-9-]{1,63}"
_SINK = rb"(?:0\.0\.0\.0|127\.0\.0\.1|::1?)"
_PLAIN_LINES = re.compile(rb"^(?:" + _SINK + rb"[ \t]{1,9})?(" + _LISTED + rb")\r?\n", re.MULTILINE)
_SINK_LINE = re.compile(_SINK.decode() + r"\s+(\S.*)")
_DOMAIN = re.compile(_LISTED.decode())
_OWN_NAMES = frozenset(
    ("localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0")  # noqa: S104, RUF005
    + tuple(f"ip6-{name}" for name in ("localhost", "loopback", "localnet", "mcastprefix", "allnodes", "allrouters"))
    + ("ip6-allhosts",)
)
"""What a hosts file says of its own machine."""
_OWN_ADDRESSES = ("fe00::", "ff00::", "ff02::", "fe80::", "255.255.255.255")
_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]{0,19}:)?//", re.IGNORECASE)
_SLASHES = re.compile(r"/{2,}")
_BOUNDARY = re.compile(r"[/?&]")


class BlockListKind(StrEnum):
    """What the lines of a list are."""

    DOMAINS = "domains"
    URLS = "urls"


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockList:
    """One list. Its name enters the key, because it stands in the output; its path does not."""

    name: str
    kind: BlockListKind
    file: Resource


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """Lists, ready to be asked."""

    names: tuple[str, ...]
    domains: Hashes  # sorted, distinct
    domain_lists: ListIdxs  # the first list that has each
    urls: Hashes
    url_lists: ListIdxs
    max_depth: int
    """Boundaries in the URL entry that has most: deeper prefixes of a page need not be asked for."""


@functools.lru_cache(maxsize=1)  # the shards of a stage share one index, and loading takes longer than a shard
def load_block_lists(lists: tuple[BlockList, ...]) -> BlockIndex:
    """Read lists. Raises ConfigError, with the number of the line, for a line that is no entry of its kind."""
    hashes: dict[BlockListKind, list[Hashes]] = {kind: [] for kind in BlockListKind}
    idxs: dict[BlockListKind, list[ListIdxs]] = {kind: [] for kind in BlockListKind}
    max_depth = num_entries = 0
    for number, block_list in enumerate(lists):
        path = Path(block_list.file.path)
        for chunk, depth in _entries(path, block_list.kind):
            max_depth = max(max_depth, depth)
            num_entries += len(chunk)
            if num_entries > _MAX_NUM_ENTRIES:
                raise ConfigError(
                    f"got block lists of over {_MAX_NUM_ENTRIES} entries, wanted no more: leave some lists out."
                )
            hashes[block_list.kind].append(chunk)
            idxs[block_list.kind].append(np.full(len(chunk), number, np.uint16))
    domains, domain_lists = _sorted(hashes[BlockListKind.DOMAINS], idxs[BlockListKind.DOMAINS])
    urls, url_lists = _sorted(hashes[BlockListKind.URLS], idxs[BlockListKind.URLS])
    return BlockIndex(
        tuple(item.name for item in lists), domains, domain_lists, urls, url_lists, min(max_depth, _MAX_DEPTH)
    )


def blocked_by(index: BlockIndex, urls: Sequence[str | None]) -> list[str | None]:
    """For each URL `list: entry`, the most general entry that blocks it, domains first; None where none does.

    A document without a URL is on no list.
    """
    found: list[str | None] = [None] * len(urls)
    split = [_split(url[:_MAX_URL_CHARS]) if url else ("", "") for url in urls]
    # URLs first, so that a domain that blocks the same page overwrites what they found.
    for hashes, lists, entries in (
        (index.urls, index.url_lists, (_prefixes(host, rest, index.max_depth) for host, rest in split)),
        (index.domains, index.domain_lists, (_domains(host) for host, _ in split)),
    ):
        if len(hashes):
            _match(index.names, hashes, lists, entries, found)
    return found


def list_names(paths: Iterable[str]) -> list[str]:
    """Names of lists by their paths in a recipe: folder and file, without the ending. Raises ConfigError for equal ones."""
    names = []
    for path in paths:
        parts = Path(path).parts[-2:]
        name = "/".join(part for part in parts if part not in ("/", "..", "."))
        names.append(re.sub(r"(?:\.(?:txt|csv|hosts|list))?(?:\.gz)?$", "", name) or name)
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise ConfigError(f"got two block lists named {twice[0]!r}, wanted one name each: rename a file or its folder.")
    return names


def _match(
    names: Sequence[str],
    hashes: Hashes,
    lists: ListIdxs,
    entries: Iterable[list[str]],
    found: list[str | None],
) -> None:
    """Fill in `found` where one of the entries that would block a row is listed; the first of a row stays."""
    candidates: list[str] = []
    rows: list[int] = []
    for row, of_row in enumerate(entries):
        candidates += of_row
        rows += [row] * len(of_row)
    if not candidates:
        return
    asked = _hashes([candidate.encode("utf-8", "surrogatepass") for candidate in candidates])
    places = np.minimum(np.searchsorted(hashes, asked), len(hashes) - 1)
    for idx in np.flatnonzero(hashes[places] == asked)[::-1].tolist():
        found[rows[idx]] = f"{names[lists[places[idx]]]}: {candidates[idx]}"


def _domains(host: str) -> list[str]:
    """A host and the domains it lies in, the shortest first, down to two labels; a bare name or an IPv6 address alone."""
    labels = host.split(".")
    if len(labels) < 2:
        return [host] if host else []
    return [".".join(labels[start:]) for start in range(len(labels) - 2, -1, -1)][:_MAX_DEPTH]


def _prefixes(host: str, rest: str, max_depth: int) -> list[str]:
    """The URL entries that would block a page, the shortest first."""
    if not host:
        return []
    host = host.removeprefix("www.")
    prefixes = [host]
    for boundary, _ in zip(_BOUNDARY.finditer(rest, 1), range(max_depth), strict=False):
        prefixes.append(host + rest[: boundary.start()])
    if rest:
        prefixes.append(host + rest)
    return prefixes


def _split(url: str) -> tuple[str, str]:
    """Host, and path with query in one spelling ('' for the root)."""
    url = _SCHEME.sub("", url.strip(), count=1) if _SCHEME.match(url.strip()) else url.strip()
    end = next((idx for idx, char in enumerate(url) if char in "/?#\\"), len(url))
    authority, rest = url[:end].rpartition("@")[2], url[end:].partition("#")[0].replace("\\", "/")
    host = authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]
    path, mark, query = rest.partition("?")
    path = _SLASHES.sub("/", unquote(path, errors="surrogateescape").lower())
    if "/." in path:
        path = posixpath.normpath(path)
    return ascii_host(host), (path.rstrip("/") + mark + unquote(query, errors="surrogateescape").lower()).rstrip("?")


def _entries(path: Path, kind: BlockListKind) -> Iterator[tuple[Hashes, int]]:
    """Hashes of the entries of a file, a chunk at a time, and the depth of the deepest."""
    line_number = 1
    for chunk in _chunks(path):
        num_lines = chunk.count(b"\n")
        if kind is BlockListKind.DOMAINS:
            lowered = chunk.lower()
            plain = _PLAIN_LINES.findall(lowered)
            if len(plain) == num_lines and b"0.0.0.0\n" not in lowered and b"localhost" not in lowered:
                yield _hashes(plain), 0
                line_number += num_lines
                continue
        parse = _domain_entries if kind is BlockListKind.DOMAINS else _url_entries
        entries = list(_parsed(path, chunk, line_number, parse))
        depth = max((len(_BOUNDARY.findall(entry)) for entry in entries), default=0)
        yield _hashes([entry.encode("utf-8", "surrogatepass") for entry in entries]), depth
        line_number += num_lines


def _parsed(path: Path, chunk: bytes, line_number: int, parse: Callable[[str], list[str] | None]) -> Iterator[str]:
    for number, line in enumerate(chunk.split(b"\n"), line_number):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise _wrong(path, number, line, "UTF-8") from error
        if text and not text.startswith("#"):
            entries = parse(re.split(r"\s#", text, maxsplit=1)[0].strip())
            if entries is None:
                raise _wrong(path, number, text, "one domain" if parse is _domain_entries else "one URL")
            yield from entries


def _domain_entries(line: str) -> list[str] | None:
    sink = _SINK_LINE.fullmatch(line)
    if line.startswith(_OWN_ADDRESSES):
        return []
    hosts = sink[1].split() if sink else [line]
    entries = [ascii_host(host) for host in hosts if not sink or host.lower() not in _OWN_NAMES]
    return entries if all(_DOMAIN.fullmatch(entry) and len(entry) <= 253 for entry in entries) else None


def _url_entries(line: str) -> list[str] | None:
    host, rest = _split(line.removesuffix("*"))
    is_good = (_DOMAIN.fullmatch(host) or ":" in host) and not any(char.isspace() for char in line)
    return [host.removeprefix("www.") + rest] if is_good and len(line) <= _MAX_URL_CHARS else None


def _chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file in chunks of whole lines, each ended by a line feed."""
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            rest = b""
            stream: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file) if is_gzip else file
            while block := stream.read(_CHUNK_NUM_BYTES):
                lines, feed, rest = (rest + block).rpartition(b"\n")
                if len(rest) > _MAX_LINE_NUM_BYTES:
                    raise ConfigError(
                        f"got block list {path.name} with a line above 16 KiB, wanted one entry a line: correct it."
                    )
                if feed:
                    yield lines + feed
            if rest:
                yield rest + b"\n"
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(
            f"got block list {path.name} that cannot be read ({error}), wanted a text file or gzip: replace it."
        ) from error


def _hashes(entries: list[bytes]) -> Hashes:
    return np.fromiter(map(xxhash.xxh3_64_intdigest, entries), np.uint64, len(entries))


def _sorted(hashes: list[Hashes], lists: list[ListIdxs]) -> tuple[Hashes, ListIdxs]:
    """All hashes in order, each once, and the first list that has each."""
    joined = np.concatenate([np.empty(0, np.uint64), *hashes])
    idxs = np.concatenate([np.empty(0, np.uint16), *lists])
    hashes.clear()
    lists.clear()
    order = np.argsort(joined, kind="stable")
    joined, idxs = joined[order], idxs[order]
    first = np.ones(len(joined), np.bool_)
    first[1:] = joined[1:] != joined[:-1]
    return joined[first], idxs[first]


def _wrong(path: Path, number: int, got: object, wanted: str) -> ConfigError:
    shown = repr(got)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return ConfigError(f"got block list {path.name} with {shown} in line {number}, wanted {wanted}: correct the line.")
