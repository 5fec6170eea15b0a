"""HTML bytes to the URLs a page links to."""

import re
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urljoin

from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree

from pipelines.crawl.config import MAX_URL_NUM_CHARS
from pipelines.crawl.screen import canonical_url, origin_of

MAX_LINKS = 1000
"""Links followed from one page."""

_DETECTED_NUM_BYTES = 8192
# Most links are such paths, which nothing needs to be done to: no dot segment, no empty one, nothing to encode.
_PLAIN_PATH = re.compile(r"/?(?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*/)*(?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)?")
_WHITESPACE = str.maketrans("", "", "\t\n\r")


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """What a page links to."""

    urls: tuple[str, ...]
    """Canonical and distinct, in page order."""
    num_dropped: int
    """Links not followed: nofollow, not http, malformed, too long, or past the thousandth."""


NONE = Links(urls=(), num_dropped=0)


def extract_links(body: bytes, url: str, content_type: str | None, robots_tags: str, product_token: str) -> Links:
    """The links (`a[href]`) of an HTML page fetched from a canonical URL.

    `robots_tags` is the X-Robots-Tag header. A page or link marked nofollow is obeyed.
    """
    tree = HTMLTree.parse_from_bytes(body, _charset(body, content_type))
    document: Any = tree.document
    # values(): iterating a live node list costs the square of its length.
    anchors: list[Any] = [
        anchor for anchor in document.get_elements_by_tag_name("a").values() if anchor.getattr("href") is not None
    ]
    if not anchors:
        return NONE
    if _is_nofollow(robots_tags, product_token) or _has_nofollow_meta(document, product_token):
        return Links(urls=(), num_dropped=len(anchors))
    base = _base(document, url)
    urls: dict[str, None] = {}
    num_dropped = 0
    seen: set[str] = set()
    for anchor in anchors:
        if "nofollow" in (anchor.getattr("rel") or "").lower().split():
            num_dropped += 1
            continue
        href = anchor.getattr("href")
        if href in seen:
            continue
        seen.add(href)
        target = _resolve(href, base)
        if target is None or (len(urls) >= MAX_LINKS and target not in urls):
            num_dropped += 1
        else:
            urls[target] = None
    urls.pop(url, None)
    return Links(urls=tuple(urls), num_dropped=num_dropped)


def resolve_redirect(location: str, url: str) -> str | None:
    """The canonical target of a Location header."""
    return _resolve(location, url)


def _resolve(href: str, base: str) -> str | None:
    """The canonical form of a reference on a page whose canonical base is given."""
    href = href.strip().translate(_WHITESPACE)
    if len(href) > MAX_URL_NUM_CHARS:
        return None
    path = href.partition("#")[0]
    if path and _PLAIN_PATH.fullmatch(path):
        folder = origin_of(base) if path[0] == "/" else base[: base.partition("?")[0].rindex("/") + 1]
        return folder + path if len(folder) + len(path) <= MAX_URL_NUM_CHARS else None
    try:
        return canonical_url(urljoin(base, href))
    except ValueError:
        return None


def _base(document: Any, url: str) -> str:
    for element in document.get_elements_by_tag_name("base").values():
        href = element.getattr("href")
        if href is not None:
            return _resolve(href, url) or url
    return url


def _charset(body: bytes, content_type: str | None) -> str:
    if content_type and "charset" in content_type.lower():
        message = Message()
        message["Content-Type"] = content_type
        charset = message.get_content_charset()
        if charset:
            return charset
    return detect_encoding(body, max_len=_DETECTED_NUM_BYTES, from_html_meta=True) or "utf-8"


def _has_nofollow_meta(document: Any, product_token: str) -> bool:
    names = {"robots", product_token.lower()}
    return any(
        (element.getattr("name") or "").strip().lower() in names and _has_nofollow(element.getattr("content") or "")
        for element in document.get_elements_by_tag_name("meta").values()
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
