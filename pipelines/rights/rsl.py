"""RSL 1.0 (Really Simple Licensing, rslstandard.org/rsl): what a licence document says of training on one page.

Names count without their namespace, since drafts and copies in the wild use several. Terms of all `content` elements
whose URL pattern matches the page count together, the most restrictive first: nothing that one permits lifts what
another prohibits. `permits` is a closed list: what it does not name is not permitted.
"""

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from pipelines.rights.patterns import Pattern, path_of

MAX_NUM_BYTES = 256 * 1024
MAX_URL_NUM_CHARS = 2083

_TRAINING = frozenset({"all", "ai-all", "ai-train", "train-ai", "train-genai"})
"""Usages that training is part of; the last two are those of drafts."""
_FREE = frozenset({"free", "attribution"})
_SEPARATORS = re.compile(r"[\s,]+")
_ABSOLUTE = re.compile(r"(?:https?:)?//([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORT = re.compile(r":(?:80|443)?$")
_HTML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:!doctype\s+)?html\b", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(r"[a-z][a-z0-9-]{0,39}")


def is_html(text: str) -> bool:
    """Whether a file is a page of HTML: what many sites answer for every path that they do not have."""
    return _HTML.match(text[:4000].removeprefix("\ufeff")) is not None


class RslDocument:
    """One document, parsed."""

    def __init__(self, url: str, terms: list[tuple[str | None, Pattern | None, tuple[str, ...]]]) -> None:
        """`terms`: host (None: any), pattern (None: any path), and lines without their source, of each `content`."""
        self._silent = (f"rsl: silent on ai-train ({url})",)
        self._terms = terms

    @classmethod
    def parse(cls, document: str, url: str) -> "RslDocument":
        """Read a document. Raises ValueError with a phrase (`is not XML`) where it cannot be read."""
        root = _root(document)
        if not any(_name(element) == "rsl" for element in root.iter()):
            raise ValueError("is not an RSL document")
        terms = []
        for content in root.iter():
            if _name(content) == "content":
                host, pattern = _location(_attribute(content, "url") or "")
                terms.append((host, pattern, tuple(f"rsl: {line} ({url})" for line in _lines(content))))
        return cls(url, terms)

    def directives(self, page_url: str) -> tuple[str, ...]:
        """Lines on one page, each once; one that says so where the document says nothing of training on it."""
        path, host = path_of(page_url), _host(page_url)
        found: dict[str, None] = {}
        for term_host, pattern, lines in self._terms:
            if term_host in {None, host} and (pattern is None or pattern.matches(path)):
                found.update(dict.fromkeys(lines))
        return tuple(sorted(found)) or self._silent


def rsl_directives(document: str, document_url: str, page_url: str) -> tuple[str, ...]:
    """Directives of one document on one page; `unread: rsl URL reason` for one that is broken.

    `rsl: prohibits ai-train (URL)`, `permits ai-train`, `payment TYPE` where it is neither free nor for attribution,
    `server HOST` where a token must be asked for, `restricted USER-OR-GEO` where it depends on who or where one is,
    `silent on ai-train` where nothing is said; `missing` where a page of HTML stands in its place.
    """
    if is_html(document):
        return (missing(document_url),)
    try:
        return RslDocument.parse(document, document_url).directives(page_url)
    except ValueError as error:
        return (unread(document_url, str(error)),)


def missing(url: str) -> str:
    """The directive for a document that is named, and is not there: its conditions stay open."""
    return f"rsl: missing ({url})"


def unread(url: str, problem: str) -> str:
    """The directive for a document that could not be read."""
    return f"unread: rsl {url} {problem}"


def _root(document: str) -> Any:
    body = document.removeprefix("\ufeff").strip().encode("utf-8", "replace")
    if len(body) > MAX_NUM_BYTES:
        raise ValueError(f"is longer than {MAX_NUM_BYTES} bytes")
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        # libxml2 replaces entities in attributes whatever it is told; no licence needs one.
        raise ValueError("has a document type")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise ValueError("is not XML") from None
    if root is None:
        raise ValueError("is not XML")
    return root


def _name(element: Any) -> str:
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def _attribute(element: Any, name: str) -> str | None:
    values = (value for key, value in element.attrib.items() if key.rpartition("}")[2].lower() == name)
    return next(values, None)


def _location(url: str) -> tuple[str | None, Pattern | None]:
    """Host and path pattern of `content url`. Without a host it is a path on whichever server names the document."""
    url = url.strip()
    if not url:
        return None, None
    host = None
    if absolute := _ABSOLUTE.match(url):
        host, url = _plain_host(absolute[1]), absolute[2]
        if "*" in host:
            return None, None
    return host, Pattern(url if url.startswith(("/", "*")) else f"/{url}")


def _host(url: str) -> str:
    absolute = _ABSOLUTE.match(url)
    return _plain_host(absolute[1]) if absolute else ""


def _plain_host(authority: str) -> str:
    return _DEFAULT_PORT.sub("", authority.rpartition("@")[2].lower()).removeprefix("www.")


def _lines(content: Any) -> Iterator[str]:
    """Lines of one `content` element on training, without the URL of the document."""
    if _attribute(content, "server") is not None or any(_name(element) == "server" for element in content.iter()):
        yield f"server {_host(_attribute(content, 'server') or '') or 'named'}"
    permitted: set[str] = set()
    is_listed = is_permitted = False
    for license_ in content.iterchildren():
        if _name(license_) != "license":
            continue
        usages, kinds = _usages(license_, "permits")
        banned, banned_kinds = _usages(license_, "prohibits")
        if banned & _TRAINING:
            yield "prohibits ai-train"
        covers = usages is None or bool(usages & _TRAINING)
        if usages is not None:
            is_listed = True
            permitted |= usages
            is_permitted = is_permitted or covers
        if covers:
            yield from _payments(license_)
            yield from (f"restricted {kind}" for kind in sorted(kinds | banned_kinds))
    if is_permitted:
        yield "permits ai-train"
    elif is_listed:
        yield f"prohibits ai-train, permits only {' '.join(sorted(map(_word, permitted))[:8]) or 'nothing'}"


def _usages(license_: Any, name: str) -> tuple[Any, set[str]]:
    """Usages that a licence permits (None: no list) or prohibits, and the other kinds of terms it has (user, geo)."""
    usages: set[str] | None = set() if name == "prohibits" else None
    kinds = set()
    for element in license_.iterchildren():
        if _name(element) == name:
            kind = (_attribute(element, "type") or "usage").strip().lower()
            words = set(_SEPARATORS.split("".join(element.itertext()).strip().lower())) - {""}
            if kind == "usage":
                usages = (usages or set()) | words
            elif words - {"all"}:
                kinds.add(_word(kind))
    return usages, kinds


def _payments(license_: Any) -> Iterator[str]:
    for element in license_.iterchildren():
        if _name(element) == "payment":
            kind = (_attribute(element, "type") or ("unspecified" if len(element) else "free")).strip().lower()
            if kind not in _FREE:
                yield f"payment {_word(kind)}"


def _word(text: str) -> str:
    return text if _WORD.fullmatch(text) else "other"
