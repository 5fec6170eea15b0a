"""What a page says of its licence and its use: elements, scripts and the Link header, as directives `source: value`.

Licences come from rel=license (HTML Living Standard, section 4.6.7; RFC 8288 for the header), `cc:license`, microdata
and JSON-LD (schema.org `license`, `usageInfo`), Dublin Core metas. Documents of RSL 1.0 (https://rslstandard.org) are
linked or stand in the page; a linked one is named, not fetched: that is the crawler's work.

All of it is written by strangers: every count, depth and size is bounded, and what cannot be read is left out, but for
an RSL document, which counts against the page.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from pipelines.extract.normalize import one_line
from pipelines.rights.rsl import rsl_directives
from pipelines.schemas import SITE_SOURCES

_HEADER_DIRECTIVES = frozenset(("x-robots-tag", "tdm-reservation", "tdm-policy", "content-usage", "content-signal"))
_META_DIRECTIVES = frozenset(("robots", "corpusmill", "tdm-reservation", "tdm-policy"))
_META_LICENSES = frozenset(("dcterms.license", "dcterms.rights", "dc.rights"))
META_NAMES = _META_DIRECTIVES | _META_LICENSES
"""Names of `meta` elements, in lower case, that are read here."""
_LINKS = frozenset(("link", "a", "area"))
_RELATIONS = frozenset(("license", "cc:license"))
_RSL_TYPE = "application/rsl+xml"
_MEDIA = re.compile(r"\b(?:(?:Image|Video|Audio|Media)Object|3DModel|Photograph|Painting|MusicRecording)\b")
"""schema.org types whose licence is that of a picture or a recording, and not of the text around it."""

_MAX_LICENSES = 10
_MAX_ITEMS = 50
_MAX_SCRIPTS = 32
_MAX_RSL_DOCUMENTS = 8
_MAX_JSON_CHARS = 256 << 10
_MAX_JSON_NODES = 5000
_MAX_JSON_DEPTH = 64
_MAX_VALUE_CHARS = 2000
_MAX_LINK_CHARS = 8000

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_PARAMETER = re.compile(r";\s*(rel|type)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;,]*))", re.IGNORECASE)
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)

_CC_NAMES = (
    (re.compile(r"creative commons|知识共享(?:许可(?:协议)?)?|創用\s?cc"), " cc "),
    (re.compile(r"attribution|署名|姓名標示"), " by "),
    (re.compile(r"non-?\s?commercial|非商业性(?:使用)?|非商業性"), " nc "),
    (re.compile(r"share-?\s?alike|相同方式(?:共享|分享)"), " sa "),
    (re.compile(r"no-?\s?deriv(?:ative)?s?|禁止演绎|禁止改作"), " nd "),
)
_CC_ZERO = re.compile(r"(?<![a-z0-9])(?:cc[ -]?(?:0|zero)|creative commons zero)(?![a-z0-9])")
_CC_WORDS = re.compile(
    r"(?<![a-z0-9])cc[\s:-]{0,9}by(?![a-z])((?:[\s-]{1,9}(?:nc|sa|nd)(?![a-z])){0,2})"
    r"(?:[\s:,(v.-]|version|licen[cs]e|international|unported|国际|许可(?:协议)?|授權){0,9}?([1-4]\.[05])(?!\d)"
)
_CC_KINDS = frozenset(("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd"))
_MAX_WORDS_CHARS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class RightsFound:
    """What one part of a page, its headers or its elements, says."""

    directives: tuple[str, ...] = ()
    """`source: value`, as it stands."""
    licenses: tuple[str, ...] = ()
    """URLs, absolute, distinct."""
    rsl_links: tuple[str, ...] = ()
    """URLs of RSL documents, distinct."""


def combined(headers: RightsFound, page: RightsFound) -> tuple[list[str], str | None]:
    """All directives of a page, and the URL of its licence: the first of those in the page, else in the headers.

    An RSL document is no licence, also where another element calls it one.
    """
    rsl_links = list(dict.fromkeys((*headers.rsl_links, *page.rsl_links)))[:_MAX_LICENSES]
    licenses = [url for url in dict.fromkeys((*page.licenses, *headers.licenses)) if url not in rsl_links]
    stated = licenses
    if len(licenses) > _MAX_LICENSES:  # what is left out may be less open than the rest
        stated = [*licenses[: _MAX_LICENSES - 1], f"and {len(licenses) - _MAX_LICENSES + 1} others"]
    directives = [
        *headers.directives,
        *page.directives,
        *(f"rsl link: {url}" for url in rsl_links),
        *(f"license: {url}" for url in stated),
    ]
    return directives, next(iter(licenses), None)


def header_rights(headers: Sequence[tuple[str, str]], url: str | None) -> RightsFound:
    """What the kept headers of a page say, as (name, value): HTTP headers, and directives of the site's files."""
    linked = [link for name, value in headers if name == "link" for link in _header_links(value[:_MAX_LINK_CHARS], url)]
    return RightsFound(
        directives=tuple(f"{name}: {value}" for name, value in headers if name in _HEADER_DIRECTIVES | SITE_SOURCES),
        licenses=_distinct(target for target, is_rsl in linked if not is_rsl),
        rsl_links=_distinct(target for target, is_rsl in linked if is_rsl),
    )


def page_rights(elements: Sequence[Any], url: str | None) -> RightsFound:
    """What the elements and the scripts of a parsed page say; `elements` are those that html.py finds worth reading."""
    directives: list[str] = []
    linked: dict[str | None, None] = {}  # a link to a licence goes before what JSON-LD or a meta element names
    named: list[str | None] = []
    rsl_links: list[str | None] = []
    scripts: list[str] = []
    items: list[Any] = []
    inline_rsl: list[str] = []
    for element in elements:
        tag = element.tag
        if tag == "meta" and element.hasattr("name"):
            name = element.getattr("name").strip().lower()
            if name in _META_DIRECTIVES:
                directives.append(f"meta {name}: {one_line(element.getattr('content') or '', _MAX_VALUE_CHARS)}")
            elif name in _META_LICENSES:
                named.append(_license(url, element.getattr("content") or ""))
        elif tag == "script" and element.hasattr("type"):
            (inline_rsl if _is_rsl(element.getattr("type")) else scripts).append(element.text)
        elif (
            element.hasattr("rel")
            and tag in _LINKS
            and not _RELATIONS.isdisjoint((element.getattr("rel") or "").lower().split())
        ):
            href = element.getattr("href") or ""
            if _is_rsl(element.getattr("type")):
                rsl_links.append(_absolute(url, href) or one_line(href, _MAX_VALUE_CHARS))
            elif len(linked) < _MAX_ITEMS:
                linked[_absolute(url, href)] = None
        elif "license" in (element.getattr("itemprop") or "").lower().split():
            items.append(element)
    linked.update((_item_license(item, url), None) for item in items[:_MAX_ITEMS])
    for text in scripts[:_MAX_SCRIPTS]:
        linked.update((_license(url, value), None) for value in _json_licenses(text))
    return RightsFound(
        directives=(*directives, *_rsl(inline_rsl, url)),
        licenses=_distinct((*linked, *named)),
        rsl_links=_distinct(rsl_links),
    )


def _rsl(documents: Sequence[str], url: str | None) -> Iterator[str]:
    for document in documents[:_MAX_RSL_DOCUMENTS]:
        yield from rsl_directives(document, url or "", url or "")
    if len(documents) > _MAX_RSL_DOCUMENTS:
        yield f"unread: more than {_MAX_RSL_DOCUMENTS} RSL documents in the page"


def _item_license(element: Any, url: str | None) -> str | None:
    """The licence that a microdata property names, unless it is that of a picture or a recording."""
    parent = element.parent_element  # none of the root, whose parent is the document
    scope = parent.closest("[itemscope]") if parent is not None else None
    if scope is not None and _MEDIA.search((scope.getattr("itemtype") or "")[:_MAX_VALUE_CHARS]):
        return None
    href = element.getattr("href")
    return _absolute(url, href) if href else _license(url, element.getattr("content") or "")


def _json_licenses(text: str) -> Iterator[str]:
    """Values of `license` and `usageInfo` in a JSON-LD document, the outer ones first; nothing where it is no JSON."""
    if len(text) > _MAX_JSON_CHARS or not ("icense" in text or "usageInfo" in text) or _is_too_deep(text):
        return
    try:
        pending = deque[Any]([[json.loads(text, strict=False)]])
    except ValueError:
        return
    for _ in range(_MAX_JSON_NODES):
        if not pending:
            return
        node = pending.popleft()
        if isinstance(node, dict):
            if _MEDIA.search(str(node.get("@type"))[:_MAX_VALUE_CHARS]):
                continue
            for key, value in node.items():
                if re.split(r"[:/]", key)[-1] in ("license", "usageInfo"):
                    yield from _json_urls(value)
            node = list(node.values())
        pending.extend(child for child in node if isinstance(child, dict | list))


def _json_urls(value: Any) -> Iterator[str]:
    for item in value[:_MAX_LICENSES] if isinstance(value, list) else [value]:
        named = item.get("@id") or item.get("url") if isinstance(item, dict) else item
        if isinstance(named, str):
            yield named.encode(errors="replace").decode()  # JSON can hold half a surrogate pair


def _is_too_deep(text: str) -> bool:
    """Whether brackets are nested too deeply: `json` raises at a depth that depends on who called it."""
    if text.count("{") + text.count("[") <= _MAX_JSON_DEPTH:
        return False
    depth = 0
    for token in _JSON_TOKEN.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth > _MAX_JSON_DEPTH:
            return True
    return False


def _header_links(value: str, url: str | None) -> Iterator[tuple[str | None, bool]]:
    """Targets of the licence links in a Link header, and whether each is an RSL document."""
    for link in _LINK.finditer(value):
        parameters: dict[str, str] = {}
        for found in _PARAMETER.finditer(link[2]):
            parameters.setdefault(
                found[1].lower(), found[2] or found[3] or found[4] or ""
            )  # RFC 8288: the first counts
        if not _RELATIONS.isdisjoint(parameters.get("rel", "").lower().split()):
            yield _absolute(url, link[1]), _is_rsl(parameters.get("type"))


def _is_rsl(media_type: str | None) -> bool:
    return (media_type or "").partition(";")[0].strip().lower() == _RSL_TYPE


def _license(url: str | None, value: str) -> str | None:
    """The licence that a value names by its URL, or in words if it is one of Creative Commons."""
    value = value.strip()
    if value[:8].lower().startswith(("http://", "https://", "/")):
        return _absolute(url, value)
    return creative_commons_url(value)


def creative_commons_url(words: str) -> str | None:
    """URL of the Creative Commons licence that English or Chinese words name with its version, else None."""
    words = words[:_MAX_WORDS_CHARS].lower()
    if _CC_ZERO.search(words):
        return "https://creativecommons.org/publicdomain/zero/1.0/"
    for pattern, name in _CC_NAMES:
        words = pattern.sub(name, words)
    found = _CC_WORDS.search(" ".join(words.split()))
    if found is None:
        return None
    parts = set(re.split(r"[\s-]+", found[1].strip(" -"))) - {""}
    kind = "-".join(["by", *(part for part in ("nc", "sa", "nd") if part in parts)])
    return f"https://creativecommons.org/licenses/{kind}/{found[2]}/" if kind in _CC_KINDS else None


def _distinct(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))


def _absolute(url: str | None, href: str) -> str | None:
    try:
        target = one_line(urljoin(url or "", href.strip()), _MAX_VALUE_CHARS)
    except ValueError:
        return None
    return target if target.lower().startswith(("http://", "https://")) else None
