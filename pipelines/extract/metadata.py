"""Title, author, date and site of a page, and what kind of page it says it is, from elements and scripts in one walk.

Sources: Open Graph (https://ogp.me), schema.org as JSON-LD and microdata, Dublin Core, HTML `time`. JSON-LD is searched
for the few members that matter and never parsed: depth and size of strangers' JSON are no concern then.
"""

import datetime as dt
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.extract.normalize import one_line

MAX_ELEMENTS = 400
_MAX_SCRIPT_CHARS = 256 << 10
_MAX_VALUE_CHARS = 300

_STRING = r'"((?:[^"\\]|\\.){1,300}+)"'
_LD_TYPE = re.compile(r'"@type"\s*:\s*\[?\s*"(\w{1,60})"')
_LD_DATE = re.compile(r'"datePublished"\s*:\s*"([^"]{8,40})"')
_LD_HEADLINE = re.compile(rf'"headline"\s*:\s*{_STRING}')
_LD_AUTHOR = re.compile(
    rf'"author"\s*:\s*[\[{{\s]{{0,20}}(?:"@(?:type|id)"\s*:\s*"[^"]{{0,200}}"\s*,\s*){{0,2}}"name"\s*:\s*{_STRING}'
)
_DATE = re.compile(r"((?:19|20)\d\d)\s?[-/.年]\s?(\d{1,2})\s?[-/.月]\s?(\d{1,2})(?!\d)")

_TYPE, _PUBLISHED, _GENERATOR = "og:type", "article:published_time", "generator"
_TITLES = ("og:title", "twitter:title")
_AUTHORS = ("author", "article:author", "dc.creator", "dcterms.creator", "byl", "parsely-author", "sailthru.author")
_DATES = (
    *(_PUBLISHED, "datepublished", "og:article:published_time", "date", "pubdate", "publishdate"),
    *("dc.date", "dcterms.date", "dc.date.issued", "dcterms.created", "parsely-pub-date", "sailthru.date", "ptime"),
)
_SITES = ("og:site_name", "application-name")
META_NAMES = frozenset((*_TITLES, *_AUTHORS, *_DATES, *_SITES, _TYPE, _PUBLISHED, _GENERATOR))
"""Names of `meta` elements, in lower case, that are read here."""

_ARTICLE_TYPE = re.compile(r"(?:\w*Article|BlogPosting|Report|Review)$")
_FORUM_TYPE = re.compile(r"DiscussionForumPosting|QAPage|Question|SocialMediaPosting")
_FORUM_GENERATOR = re.compile(
    r"phpbb|discourse|vbulletin|xenforo|smf|simple machines|discuz|phpwind|mybb|flarum|nodebb|vanilla|invision|bbpress",
    re.IGNORECASE,
)
_MIN_FORUM_POSTS = 2
_DOCS_GENERATOR = re.compile(
    r"sphinx|docbook|docutils|mkdocs|docusaurus|doxygen|javadoc|rustdoc|gitbook|mdbook|asciidoc|texinfo|makeinfo|latex2html"
    r"|vuepress|vitepress|publican|yelp|epydoc|libreoffice|openoffice",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """What a page says of itself."""

    kind: str
    """article, forum, docs, or page where nothing tells."""
    titles: tuple[str, ...] = ()
    """Of the work: Open Graph, the headline in JSON-LD, the first `h1`."""
    author: str | None = None
    published_at: str | None = None
    """ISO 8601 date."""
    site_name: str | None = None
    has_type: bool = False
    """Open Graph says of what type the page is, as publishing systems let it."""


def page_metadata(elements: Sequence[Any], *, num_posts: int) -> Metadata:
    """What the elements of a parsed page say of it; at most 400 of those that html.py finds worth reading are read.

    `num_posts` counts elements that forum software names as posts.
    """
    named: dict[str, str] = {}
    headings: list[str] = []
    times: list[str] = []
    types: set[str] = set()
    scripts: list[str] = []
    for element in elements[:MAX_ELEMENTS]:
        tag = element.tag
        if tag == "meta":
            name = element.getattr("property") or element.getattr("name") or element.getattr("itemprop")
            value = element.getattr("content")
            if name and value:
                named.setdefault(name.strip().lower()[:60], value[: 4 * _MAX_VALUE_CHARS])
        elif tag == "script":
            scripts.append(element.text[:_MAX_SCRIPT_CHARS])
        elif tag == "h1":
            if len(headings) < 2:
                headings.append(element.text[: 4 * _MAX_VALUE_CHARS])
        elif tag == "time":
            times.append((element.getattr("datetime") or "")[:80])
        if element.hasattr("itemtype"):
            types.add(element.getattr("itemtype").rpartition("/")[2][:60])
    found = "\n".join(scripts)
    types.update(_LD_TYPE.findall(found))
    dates = [named[name] for name in _DATES if name in named]
    dates += _LD_DATE.findall(found)[:1] + times[:1]
    titles = [named[name] for name in _TITLES if name in named]
    titles += [*_unquoted(_LD_HEADLINE.findall(found)[:1]), *headings]
    authors = [named[name] for name in _AUTHORS if name in named and "://" not in named[name]]
    authors += _unquoted(_LD_AUTHOR.findall(found)[:1])
    return Metadata(
        kind=_kind(named, types, num_posts),
        titles=tuple(filter(None, (one_line(title, _MAX_VALUE_CHARS) for title in dict.fromkeys(titles)))),
        author=_first_line(authors),
        published_at=next(filter(None, map(iso_date, dates)), None),
        site_name=_first_line(named[name] for name in _SITES if name in named),
        has_type=_TYPE in named,
    )


def iso_date(text: str) -> str | None:
    """The first date of a text that puts the year first, as YYYY-MM-DD, or None."""
    found = _DATE.search(text)
    if found is None:
        return None
    try:
        return dt.date(*map(int, found.groups())).isoformat()
    except ValueError:
        return None


def _kind(named: dict[str, str], types: set[str], num_posts: int) -> str:
    generator = named.get(_GENERATOR, "")
    if _FORUM_GENERATOR.search(generator) or any(map(_FORUM_TYPE.match, sorted(types))):
        return "forum"
    if _DOCS_GENERATOR.search(generator):
        return "docs"
    if num_posts >= _MIN_FORUM_POSTS:
        return "forum"
    if named.get(_TYPE, "").strip().lower() in ("article", "news", "blog", "post"):
        return "article"
    if _PUBLISHED in named or any(map(_ARTICLE_TYPE.match, sorted(types))):
        return "article"
    return "page"


def _unquoted(values: Iterable[str]) -> list[str]:
    read = []
    for value in values:
        try:
            read.append(str(json.loads(f'"{value}"', strict=False)))
        except ValueError:
            continue
    return read


def _first_line(values: Iterable[str]) -> str | None:
    return next(filter(None, (one_line(value, _MAX_VALUE_CHARS) for value in values)), None)
