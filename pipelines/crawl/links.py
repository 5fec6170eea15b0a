"""HTML bytes and headers to the URLs a page names: links, its canonical self, feeds, licences."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from urllib.parse import urljoin

from lxml import etree
from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

from pipelines.crawl.config import MAX_URL_NUM_CHARS
from pipelines.crawl.screen import canonical_url, origin_of, plain_path

MAX_LINKS = 1000
"""Links followed from one page."""
MAX_FEEDS = 5
"""Feeds of one page that are read."""
MAX_RSL = 3
"""RSL documents of one page that are read."""

_FEED_TYPES = frozenset({"application/rss+xml", "application/atom+xml", "application/feed+json"})
_RSL_TYPE = "application/rsl+xml"
_RELATIONS = frozenset({"alternate", "canonical", "license"})

_DETECTED_NUM_BYTES = 8192
_WHITESPACE = str.maketrans("", "", "\t\n\r")
# Seconds (possessive, or "30" would be the seconds 3 and the URL 0), then a URL, which may be quoted.
_REFRESH = re.compile(r"\s*+[\d.]++\s*+[;,]?\s*+(?:url\s*+=\s*+)?(.+)", re.IGNORECASE | re.DOTALL)
_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[^\s,;"<>=]+(?:\s*=\s*(?:"[^"]*"|[^\s,;"]*))?)*)')
_PARAMETER = re.compile(r';\s*([^\s,;"<>=]+)(?:\s*=\s*(?:"([^"]*)"|([^\s,;"]*)))?')
_MAX_HEADER_NUM_CHARS = 16_384

_NAMING = frozenset({"base", "link", "meta"})
_LARGE_NUM_BYTES = 1 << 16
_CHUNK_NUM_BYTES = 1 << 11
_MAX_WORK = 1 << 29  # a second; eight megabytes of nothing but short tags come to half of it

_Attributes = Mapping[str, str]
_Anchor = tuple[str, str | None]  # href, rel
_Named = tuple[str | None, frozenset[str], str]  # target, relations, type


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """What a page names. All URLs are canonical and distinct, each kind in page order."""

    urls: tuple[str, ...]
    """`link` next and prev and meta refresh, then `a` and `area`."""
    num_dropped: int
    """Links not followed: nofollow, not http, malformed, too long, or past the thousandth."""
    feeds: tuple[str, ...]
    """RSS, Atom and JSON feeds (`link` alternate); the first five."""
    canonical: str | None
    """What the page calls itself, where that is another URL and only one."""
    rsl: tuple[str, ...]
    """RSL documents (`link` license, or a Link header); the first three."""


NONE = Links(urls=(), num_dropped=0, feeds=(), canonical=None, rsl=())


def extract_links(
    body: bytes, url: str, content_type: str | None, robots_tags: str, link_header: str, product_token: str
) -> Links:
    """What an HTML page fetched from a canonical URL names.

    `robots_tags` is the X-Robots-Tag header, `link_header` the Link header (RFC 8288); several are joined by commas.
    A page or link marked nofollow is obeyed. Of a page that nests without end, what comes first is read.
    """
    page = _page(body, content_type)
    base = _base(page, url)
    named = list(_named(page, base))
    if link_header:
        named += _header_links(link_header, _Base.of(url))
    canonicals = {target for target, rel, _ in named if "canonical" in rel}
    canonical = canonicals.pop() if len(canonicals) == 1 else None
    references = [*_next_pages(page), *page.anchors]
    urls: tuple[str, ...] = ()
    num_dropped = len(references)
    feeds: tuple[str, ...] = ()
    if not (_is_nofollow(robots_tags, product_token) or _has_nofollow_meta(page, product_token)):
        urls, num_dropped = _targets(references, base, url)
        feeds = _first(MAX_FEEDS, (target for target, rel, kind in named if "alternate" in rel and kind in _FEED_TYPES))
    return Links(
        urls=urls,
        num_dropped=num_dropped,
        feeds=feeds,
        canonical=None if canonical == url else canonical,
        rsl=_first(MAX_RSL, (target for target, rel, kind in named if "license" in rel and kind == _RSL_TYPE)),
    )


def resolve_redirect(location: str, url: str) -> str | None:
    """The canonical target of a Location header."""
    return _resolve(location, _Base.of(url))


@dataclass(frozen=True, slots=True)
class _Base:
    """What references are relative to: a canonical URL, its origin, and its folder up to the slash."""

    url: str
    origin: str
    folder: str

    @classmethod
    def of(cls, url: str) -> "_Base":
        return cls(url, origin_of(url), url[: url.partition("?")[0].rindex("/") + 1])


class _Page:
    """Keeps what names a URL, as the parser meets it (lxml's target interface): no tree is built.

    A tree costs the square of the number of attributes of one element, and is cut where it gets deep.
    """

    def __init__(self) -> None:
        self.anchors: list[_Anchor] = []
        self.elements: list[tuple[str, _Attributes]] = []

    def start(self, tag: str, attributes: _Attributes) -> None:
        if tag == "a" or tag == "area":
            href = attributes.get("href")
            if href is not None:
                self.anchors.append((href, attributes.get("rel")))
        elif tag in _NAMING:
            self.elements.append((tag, attributes))

    def close(self) -> None:
        pass


class _Depth:
    """Counts how deep the parser is, besides."""

    def __init__(self, page: _Page) -> None:
        self._page = page
        self.depth = 0

    def start(self, tag: str, attributes: _Attributes) -> None:
        self.depth += 1
        self._page.start(tag, attributes)

    def end(self, tag: str) -> None:  # noqa: ARG002 - the parser's interface
        self.depth -= 1

    def close(self) -> None:
        pass


def _page(body: bytes, content_type: str | None) -> _Page:
    encoding = map_encoding_to_html5(_charset(body, content_type)) or "utf-8"
    if encoding != "utf-8":
        # The parser's own decoders know fewer names, and stop at what they cannot decode.
        body = bytes_to_str(body, encoding).encode("utf-8", "replace")
    page = _Page()
    if len(body) > _LARGE_NUM_BYTES:
        _read_large(body, page)
    elif body:
        etree.HTML(body, _parser(page))
    return page


def _read_large(body: bytes, page: _Page) -> None:
    """Read to the end, or until the parser would take too long.

    An end tag that ends nothing is looked for in all open elements: their product is what is bounded.
    """
    reader = _Depth(page)
    parser = _parser(reader)
    work = 0
    for start in range(0, len(body), _CHUNK_NUM_BYTES):
        chunk = body[start : start + _CHUNK_NUM_BYTES]
        num_ends = chunk.count(b"</")
        work += (reader.depth + chunk.count(b"<") - num_ends) * num_ends
        if work > _MAX_WORK:
            break
        parser.feed(chunk)
    parser.close()


def _parser(target: _Page | _Depth) -> etree.HTMLParser:
    return etree.HTMLParser(encoding="utf-8", target=target, huge_tree=True)


def _next_pages(page: _Page) -> Iterator[_Anchor]:
    """References to follow from elements of the head."""
    for tag, attributes in page.elements:
        if tag == "link" and "href" in attributes and _words(attributes.get("rel", "")) & {"next", "prev"}:
            yield attributes["href"], None
        elif tag == "meta" and attributes.get("http-equiv", "").strip().lower() == "refresh":
            match = _REFRESH.fullmatch(attributes.get("content", "")[: 2 * MAX_URL_NUM_CHARS])
            if match:
                href = match[1].strip()
                yield href[1:].partition(href[0])[0] if href[:1] in {"'", '"'} else href, None


def _targets(references: Iterable[_Anchor], base: _Base, url: str) -> tuple[tuple[str, ...], int]:
    urls: dict[str, None] = {}
    num_dropped = 0
    seen: set[str] = set()
    for href, rel in references:
        if rel is not None and "nofollow" in rel.lower().split():
            num_dropped += 1
            continue
        if href in seen:
            continue
        seen.add(href)
        target = _resolve(href, base)
        if target is None or (len(urls) >= MAX_LINKS and target not in urls):
            num_dropped += 1
        else:
            urls[target] = None
    urls.pop(url, None)
    return tuple(urls), num_dropped


def _named(page: _Page, base: _Base) -> Iterator[_Named]:
    """The targets of `link` elements that are asked after."""
    for tag, attributes in page.elements:
        if tag == "link" and "href" in attributes:
            relations = _words(attributes.get("rel", ""))
            if relations & _RELATIONS:
                yield _resolve(attributes["href"], base), relations, _media_type(attributes.get("type", ""))


def _header_links(header: str, base: _Base) -> Iterator[_Named]:
    """The targets of a Link header; a link with an anchor is about something other than the page."""
    for href, parameters in _LINK.findall(header[:_MAX_HEADER_NUM_CHARS]):
        values: dict[str, str] = {}
        for name, quoted, bare in _PARAMETER.findall(parameters):
            values.setdefault(name.lower(), quoted or bare)
        if "anchor" not in values:
            yield _resolve(href, base), _words(values.get("rel", "")), _media_type(values.get("type", ""))


def _first(num: int, targets: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(target for target in targets if target))[:num]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.lower().split())


def _media_type(text: str) -> str:
    return text.partition(";")[0].strip().lower()


def _resolve(href: str, base: _Base) -> str | None:
    """The canonical form of a reference."""
    path = plain_path(href)
    if not path or path[0] == "?":
        return _resolve_odd(href, base)
    target = (base.origin if path[0] == "/" else base.folder) + path
    return target if len(target) <= MAX_URL_NUM_CHARS else None


def _resolve_odd(href: str, base: _Base) -> str | None:
    href = href.strip().translate(_WHITESPACE)
    if len(href) > MAX_URL_NUM_CHARS:
        return None
    if href.startswith(("http://", "https://")):
        return canonical_url(href)
    try:
        return canonical_url(urljoin(base.url, href))
    except ValueError:
        return None


def _base(page: _Page, url: str) -> _Base:
    for tag, attributes in page.elements:
        if tag == "base" and "href" in attributes:
            return _Base.of(_resolve(attributes["href"], _Base.of(url)) or url)
    return _Base.of(url)


def _charset(body: bytes, content_type: str | None) -> str:
    if content_type and "charset" in content_type.lower():
        message = Message()
        message["Content-Type"] = content_type
        charset = message.get_content_charset()
        if charset:
            return charset
    return detect_encoding(body, max_len=_DETECTED_NUM_BYTES, from_html_meta=True) or "utf-8"


def _has_nofollow_meta(page: _Page, product_token: str) -> bool:
    names = {"robots", product_token.lower()}
    return any(
        attributes.get("name", "").strip().lower() in names and _has_nofollow(attributes.get("content", ""))
        for tag, attributes in page.elements
        if tag == "meta"
    )


def _is_nofollow(robots_tags: str, product_token: str) -> bool:
    """X-Robots-Tag: a directive behind another crawler's name is not for us."""
    for directive in robots_tags.split(","):
        agent, colon, value = directive.partition(":")
        is_ours = colon and agent.strip().lower() == product_token.lower()
        if _has_nofollow(value if is_ours else directive):
            return True
    return False


def _has_nofollow(content: str) -> bool:
    return bool({"nofollow", "none"} & {word.strip().lower() for word in content.split(",")})
