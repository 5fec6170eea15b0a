"""Sitemaps (sitemaps.org protocol 0.9): bytes to the pages and the further sitemaps they list."""

import re
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from lxml import etree

from pipelines.crawl.feeds import read_feed
from pipelines.crawl.links import resolve_redirect

MAX_PAGES = 50_000
"""Pages taken from one sitemap: the protocol's limit."""
MAX_SITEMAPS = 1_000
"""Sitemaps taken from one index."""
MAX_NUM_BYTES = 50 << 20
"""Decoded bytes read of one sitemap: the protocol's limit."""

_MAX_ELEMENTS = 1_000_000
_MAX_COMPRESSIONS = 2  # a server that compresses a file which was compressed already
_MAX_LINES = 2 * MAX_PAGES
_MAX_TEXT_NUM_CHARS = 4096
_LINE = re.compile(rb"[^\r\n]+")
_CHUNK_NUM_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"
_ROOTS = frozenset({"urlset", "sitemapindex"})
_FIELDS = frozenset({"loc", "lastmod"})
_FEED_ROOTS = frozenset({"rss", "feed", "rdf"})
_W3C_DATETIME = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,9})?)?\s?(Z|z|[+-]\d\d:?\d\d)?)?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class SitemapEntry:
    """A URL of a sitemap."""

    url: str
    """Canonical."""
    modified_at: float | None
    """`lastmod` as seconds since 1970, UTC; None: not given, malformed or in the future."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sitemap:
    """What a sitemap lists, distinct and in order."""

    pages: tuple[SitemapEntry, ...]
    sitemaps: tuple[SitemapEntry, ...]
    num_dropped: int
    """Entries that are not http, malformed, too long, or past a limit."""
    problem: str | None
    """Why the sitemap was not read to its end, or is none; what came before is kept."""


def read_sitemap(body: bytes, url: str) -> Sitemap:
    """Read an XML sitemap or index, a list of URLs as text, or a feed given as a sitemap; gzip is undone.

    `url` is where it was found. Entries may point to any host: whether a sitemap may speak for it is judged elsewhere.
    """
    body, problem = _decompressed(body)
    reader = _Reader(url)
    if _is_xml(body):
        reader.read_xml(body)
        if reader.root in _FEED_ROOTS:
            feed = read_feed(body, url, None)
            pages = tuple(SitemapEntry(each, None) for each in feed.urls)
            return Sitemap(pages=pages, sitemaps=(), num_dropped=feed.num_dropped, problem=problem or feed.problem)
    else:
        reader.read_text(body)
    return Sitemap(
        pages=tuple(SitemapEntry(*each) for each in reader.pages.items()),
        sitemaps=tuple(SitemapEntry(*each) for each in reader.sitemaps.items()),
        num_dropped=reader.num_dropped,
        problem=problem or reader.problem,
    )


def _decompressed(body: bytes) -> tuple[bytes, str | None]:
    for _ in range(_MAX_COMPRESSIONS):
        if not body.startswith(_GZIP):
            break
        body, problem = _gunzip(body)
        if problem:
            return body, problem
    if len(body) > MAX_NUM_BYTES:
        return body[:MAX_NUM_BYTES], f"longer than {MAX_NUM_BYTES} bytes"
    return body, None


def _gunzip(body: bytes) -> tuple[bytes, str | None]:
    """What decompresses before an error or the limit; of one member or of several."""
    parts: list[bytes] = []
    num_left = MAX_NUM_BYTES
    # What follows the last member is padding.
    while body.startswith(_GZIP):
        decoder = zlib.decompressobj(wbits=31)
        # A byte more than may be, to tell what ends there from what does not; 0 would be no limit at all.
        try:
            for start in range(0, len(body), _CHUNK_NUM_BYTES):
                data = decoder.decompress(body[start : start + _CHUNK_NUM_BYTES], num_left + 1)
                parts.append(data[:num_left])
                if len(data) > num_left:
                    return b"".join(parts), f"longer than {MAX_NUM_BYTES} bytes"
                num_left -= len(data)
                if decoder.eof:
                    break
        except zlib.error:
            return b"".join(parts), "damaged gzip"
        if not decoder.eof:
            return b"".join(parts), "gzip without its end"
        body = decoder.unused_data + body[start + _CHUNK_NUM_BYTES :]
    return b"".join(parts), None


def _is_xml(body: bytes) -> bool:
    return body[:64].removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").startswith((b"<", b"\xff\xfe<", b"\xfe\xff\0<"))


class _TooMuchError(Exception):
    pass


class _Reader:
    """Collects entries, as the parser meets them (lxml's target interface): no tree is built."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._now = time.time()
        self.root: str | None = None
        self.pages: dict[str, float | None] = {}
        self.sitemaps: dict[str, float | None] = {}
        self.num_dropped = 0
        self.problem: str | None = None
        self._depth = 0
        self._num_elements = 0
        self._entry: dict[str, str] | None = None
        self._text: list[str] | None = None

    def read_text(self, body: bytes) -> None:
        for num_lines, line in enumerate(_LINE.finditer(body.removeprefix(b"\xef\xbb\xbf"))):
            if num_lines == _MAX_LINES:
                self.problem = f"more than {_MAX_LINES} lines"
                return
            self._add(self.pages, MAX_PAGES, line[0][:_MAX_TEXT_NUM_CHARS].decode("utf-8", "replace"), None)
        if not self.pages:
            self.problem = "no sitemap: neither XML nor a list of URLs"

    def read_xml(self, body: bytes) -> None:
        # Entities stay unresolved, and nothing but the body is read.
        parser = etree.XMLParser(target=self, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            etree.fromstring(body, parser)
        except etree.XMLSyntaxError as error:
            self.problem = f"broken XML in line {error.lineno}"
        except _TooMuchError:
            self.problem = f"more than {_MAX_ELEMENTS} elements"
        if self.root not in _FEED_ROOTS | _ROOTS:
            self.problem = f"no sitemap: got the root {self.root[:40]!r}" if self.root else "no sitemap: no XML element"

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:  # noqa: ARG002 - the parser's interface
        self._depth += 1
        self._num_elements += 1
        if self._num_elements > _MAX_ELEMENTS:
            raise _TooMuchError
        if self._depth == 1:
            self.root = _name(tag).lower()
        elif self._depth == 2 and self.root in _ROOTS:
            self._entry = {}
        elif self._depth == 3 and self._entry is not None and _name(tag) in _FIELDS:
            self._text = []

    def data(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def end(self, tag: str) -> None:
        if self._text is not None and self._depth == 3 and self._entry is not None:
            self._entry[_name(tag)] = "".join(self._text)[:_MAX_TEXT_NUM_CHARS].strip()
            self._text = None
        elif self._depth == 2 and self._entry is not None:
            self._close_entry(_name(tag), self._entry)
            self._entry = None
        self._depth -= 1

    def close(self) -> None:
        pass

    def _close_entry(self, name: str, entry: dict[str, str]) -> None:
        modified_at = _seconds(entry.get("lastmod", ""), self._now)
        if name == "url":
            self._add(self.pages, MAX_PAGES, entry.get("loc", ""), modified_at)
        elif name == "sitemap":
            self._add(self.sitemaps, MAX_SITEMAPS, entry.get("loc", ""), modified_at)

    def _add(
        self, entries: dict[str, float | None], max_entries: int, location: str, modified_at: float | None
    ) -> None:
        location = location.strip()
        if not location and entries is self.pages and self.root is None:
            return  # an empty line
        target = None
        if len(entries) < max_entries and (self.root or location.startswith(("http://", "https://"))):
            target = resolve_redirect(location, self._url) if location else None
        if target is None:
            self.num_dropped += 1
        else:
            entries.setdefault(target, modified_at)


def _name(tag: str) -> str:
    """Without its namespace: many sitemaps name a wrong one, or none."""
    return tag.rpartition("}")[2]


def _seconds(text: str, now: float) -> float | None:
    """W3C datetime (a profile of ISO 8601): from the year alone to fractions of a second; no zone counts as UTC."""
    match = _W3C_DATETIME.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second, zone = match.groups()
    try:
        moment = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
        seconds = moment.timestamp() - _offset_seconds(zone)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= now else None


def _offset_seconds(zone: str | None) -> int:
    if zone is None or zone in "Zz":
        return 0
    seconds = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
    return -seconds if zone[0] == "-" else seconds
