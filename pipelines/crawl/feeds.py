"""RSS, RDF, Atom and JSON feeds: bytes to the pages they list."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lxml import etree

from pipelines.crawl.config import MAX_URL_NUM_CHARS
from pipelines.crawl.links import resolve_redirect

MAX_ENTRIES = 1_000
"""Entries taken from one feed."""
MAX_NUM_BYTES = 2 << 20
"""Bytes read of one feed."""

# What feedparser needs to find the link of an entry: RSS and RDF, Atom, FeedBurner.
_KEPT = frozenset({"rss", "rdf", "feed", "channel", "item", "entry", "link", "guid", "id", "origlink"})
_ENTRIES = frozenset({"item", "entry"})
_ROOTS = frozenset({"rss", "rdf", "feed"})
_KEPT_ATTRIBUTES = frozenset(
    {"href", "rel", "type", "isPermaLink", "{http://www.w3.org/XML/1998/namespace}base"}
    | {f"{{http://www.w3.org/1999/02/22-rdf-syntax-ns#}}{name}" for name in ("about", "resource")}
)
_MAX_ELEMENTS = 200_000
_MAX_KEPT = 10 * MAX_ENTRIES
# An ampersand that begins no entity of XML itself; what is in a CDATA section stays, up to its end or that of the feed.
_AMPERSAND = re.compile(
    rb"<!\[CDATA\[.*?(?:\]\]>|\Z)|&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)", re.DOTALL
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """What a feed lists."""

    urls: tuple[str, ...]
    """Canonical and distinct, in the order of the feed."""
    num_dropped: int
    """Entries without a link that can be followed, or past the thousandth."""
    problem: str | None
    """Why the feed was not read to its end, or is none; what could be read is kept."""


def read_feed(body: bytes, url: str, content_type: str | None) -> Feed:
    """Read a feed found at a URL. Raises nothing.

    Relative links are taken from `xml:base`, else from the site that an RSS channel links to (RSS names no base, and
    feeds are served from elsewhere), else from `url`.
    """
    problem = None
    if len(body) > MAX_NUM_BYTES:
        body = body[:MAX_NUM_BYTES]
        problem = f"longer than {MAX_NUM_BYTES} bytes"
    is_json = "json" in (content_type or "").lower() or body[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    links, num_more, fault = _json_links(body) if is_json else _xml_links(body, url)
    targets = [resolve_redirect(link, url) if link else None for link in links]
    urls = tuple(dict.fromkeys(target for target in targets if target))
    return Feed(urls=urls, num_dropped=targets.count(None) + num_more, problem=problem or fault)


_Found = tuple[list[str | None], int, str | None]  # link of each entry, number of further entries, problem


def _json_links(body: bytes) -> _Found:
    """JSON Feed 1.1."""
    try:
        feed = json.loads(body)
    except (ValueError, RecursionError):
        return [], 0, "broken JSON"
    items = feed.get("items") if isinstance(feed, dict) else None
    if not isinstance(items, list):
        return [], 0, "no feed: JSON without items"
    links = [item.get("url") if isinstance(item, dict) else None for item in items[:MAX_ENTRIES]]
    return [link if isinstance(link, str) else None for link in links], len(items) - len(links), None


def _xml_links(body: bytes, url: str) -> _Found:
    reader, problem = _read(body, is_lenient=False)
    if problem == _BROKEN:
        is_ascii = b"\0" not in body[:64]
        reader, _ = _read(_AMPERSAND.sub(_escaped, body) if is_ascii else body, is_lenient=True)
    root = reader.tree()
    if root is None:
        return [], 0, "no feed: neither RSS nor Atom nor JSON"
    import feedparser

    try:
        # As a stream: feedparser opens what it takes for a URL or a file name.
        parsed: Any = feedparser.parse(
            io.BytesIO(etree.tostring(root, encoding="utf-8", xml_declaration=True)),
            response_headers={"content-type": "application/xml; charset=utf-8", "content-location": _home(root, url)},
            sanitize_html=False,
            resolve_relative_uris=False,
        )
    except Exception:  # noqa: BLE001 - made for any feed, but nothing that a site serves may end the crawl
        return [], 0, "no feed: feedparser cannot read it"
    links = [entry.get("feedburner_origlink") or entry.get("link") for entry in parsed.entries]
    return links, reader.num_more_entries, problem


def _home(root: Any, url: str) -> str:
    """The link of an RSS channel, else the URL of the feed."""
    for channel in root:
        if _name(channel.tag) == "channel":
            for element in channel:
                if _name(element.tag) == "link" and element.text:
                    return resolve_redirect(element.text, url) or url
    return url


_BROKEN = "broken XML"


def _read(body: bytes, *, is_lenient: bool) -> tuple["_Reader", str | None]:
    reader = _Reader()
    # Entities stay unresolved, and nothing but the body is read.
    parser = etree.XMLParser(
        target=reader, recover=is_lenient, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        etree.fromstring(body, parser)
    except etree.XMLSyntaxError:
        return reader, _BROKEN
    except _TooMuchError:
        return reader, "too many elements"
    return reader, None


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"&amp;" if match[0] == b"&" else match[0]


class _TooMuchError(Exception):
    pass


class _Reader:
    """Builds the feed anew, as the parser meets it, from nothing but what leads to links.

    feedparser takes seconds for a megabyte of text, and reads what is broken with a second parser of its own: it gets
    neither.
    """

    def __init__(self) -> None:
        self.num_more_entries = 0
        self._builder = etree.TreeBuilder()
        self._open: list[str] = []
        self._num_skipped = 0
        self._num_entries = 0
        self._num_elements = 0
        self._num_kept = 0
        self._is_begun = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._num_elements += 1
        if self._num_elements > _MAX_ELEMENTS:
            raise _TooMuchError
        name = _name(tag)
        is_kept = (
            name in _KEPT and not self._num_skipped and bool(self._open or (name in _ROOTS and not self._is_begun))
        )
        if is_kept and name in _ENTRIES:
            self._num_entries += 1
            if self._num_entries > MAX_ENTRIES:
                self.num_more_entries += 1
                is_kept = False
        if not is_kept:
            self._num_skipped += 1
            return
        self._num_kept += 1
        if self._num_kept > _MAX_KEPT:
            raise _TooMuchError
        self._is_begun = True
        self._open.append(tag)
        self._builder.start(
            tag,
            {key: attributes[key] for key in _KEPT_ATTRIBUTES if 0 < len(attributes.get(key, "")) <= MAX_URL_NUM_CHARS},
        )

    def data(self, text: str) -> None:
        if self._open and not self._num_skipped:
            self._builder.data(text)

    def end(self, tag: str) -> None:  # noqa: ARG002 - the parser's interface
        if self._num_skipped:
            self._num_skipped -= 1
        elif self._open:
            self._builder.end(self._open.pop())

    def close(self) -> None:
        pass

    def tree(self) -> Any:
        """The root; what a break left open is closed. None: no feed."""
        while self._open:
            self._builder.end(self._open.pop())
        return self._builder.close() if self._is_begun else None


def _name(tag: str) -> str:
    return tag.rpartition("}")[2].lower()
