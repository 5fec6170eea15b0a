"""Which elements of a page are not its text, by their names: CSS selectors for the extraction to skip.

Elements of HTML that say so are skipped wherever they stand. Class names and ids are people's words: the distinct ones of a
page are sifted here once, and what they mark is skipped unless it holds a heading or several paragraphs.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ahocorasick_rs import AhoCorasick, Implementation

_ELEMENTS = (
    *("nav", "aside", "footer:not(blockquote footer)", "button", "dialog", "template", "noscript", "[hidden]"),
    *("[role=navigation]", "[role=banner]:not(:has(h1))", "[role=search]", "[role=contentinfo]", "[role=menu]"),
    *("[role=complementary]", "[role=dialog]", "header:not(:has(h1,h2,p+p))", "form:not(:has(h1,h2,p,article,table))"),
)
_ARTICLE_ELEMENTS = ("figcaption", "form")
_WHOLE_PAGE = (
    *("nav", "header", "footer", "aside", "script", "style", "noscript", "template", "form", "[role=navigation]"),
    *("[hidden]",),
)
"""What is left out of a page that has no main text."""

_WORDS = (
    *("nav", "navigation", "navheader", "navlinks", "topnav", "subnav", "menu", "menubar", "breadcrumb", "breadcrumbs"),
    *("crumb", "crumbs", "sidebar", "sidebars", "footer", "topbar", "toolbar", "pager", "pagination", "paginator"),
    *("paging", "toc", "tableofcontents", "headerlink", "permalink", "searchbox", "searchform", "login", "signin"),
    *("signup", "cookie", "cookies", "consent", "gdpr", "popup", "modal", "share", "sharing", "sharebar", "social"),
    *("addthis", "advert", "adverts", "advertisement", "adsbygoogle", "ad", "ads", "dfp", "sponsor", "sponsored"),
    *("promo", "newsletter", "subscribe", "recommended", "recommend", "related", "tagcloud", "popular", "trending"),
    *("widget", "widgets", "teaser", "teasers", "banner", "banners", "logo", "rating", "qrcode", "rollover"),
    *("tooltip", "popover", "dropdown", "foot", "copyright", "skiplink", "colophon", "masthead", "langswitch"),
)
"""Words that a name of boilerplate holds, whole: between anything but letters, or in CamelCase."""
_WORD_ENDS = ("nav", "navi", "navbar", "menu", "sidebar", "footer", "breadcrumbs", "breadcrumb", "toolbar", "banner")
"""What a longer word of boilerplate ends with: mainmenu, docnav."""
_IDS = frozenset(("header", "top", "bottom", "search", "hidden"))
_CLASSES = frozenset(("hidden", "invisible"))
"""Names that are boilerplate where they stand alone."""
_COMMENTS = ("comments", "comment", "disqus", "commentlist")
_ARTICLE_PARTS = (
    *("share", "social", "related", "recommend", "newsletter", "subscribe", "signup", "sign-up", "promo", "advert"),
    *("sponsor", "byline", "dateline", "timestamp", "breadcrumb", "caption", "credit", "cookie", "consent", "gdpr"),
    *("paywall", "popup", "modal", "carousel", "slideshow", "gallery", "read-more", "readmore", "most-read"),
    *("most-popular", "trending", "disclaimer", "copyright", "tags", "taxonomy", "author-", "sidebar", "toolbar"),
    *("comments", "disqus", "outbrain", "taboola"),
)
"""Parts of class names that are boilerplate within an article, where less is left to chance."""
_EMBEDDED = "embed"
"""What an article embeds, a post of a social network, is part of it."""

_PAGE, _COMMENT, _ARTICLE = 1, 2, 4
_UNQUOTABLE = frozenset('"\\<>\n\r\f')
_MAX_SELECTORS = 100
_NO_BOILERPLATE = (
    ':not(html,body,main,article,[itemprop~="articleBody"],p,h1,h2,blockquote,pre,code,table):not(:has(h1,p+p+p+p))'
)
"""What a name does not make boilerplate: what may hold the body, and what holds a heading or several paragraphs."""


@dataclass(frozen=True, slots=True)
class Skips:
    """Selectors of what is no text of a page."""

    page: tuple[str, ...]
    """Where it is no article, comments left in."""
    comments: tuple[str, ...]
    """What goes with these where comments are not wanted."""
    article: tuple[str, ...]
    """Where it is an article."""
    whole: tuple[str, ...] = _WHOLE_PAGE
    """Where it has no main text."""


def find_skips(classes: Sequence[str], ids: Sequence[str]) -> Skips:
    """Selectors for a page, given its distinct classes and ids."""
    selectors: dict[int, list[str]] = {_PAGE: [], _COMMENT: [], _ARTICLE: []}
    for attribute, names, alone in (("class", classes, _CLASSES), ("id", ids, _IDS)):
        found = _kinds(names)
        for name, kinds in zip(names, found, strict=True):
            kinds |= _PAGE * (name.lower() in alone)  # noqa: PLW2901 - what it is alone is one more kind
            if kinds and _UNQUOTABLE.isdisjoint(name):
                for kind, listed in selectors.items():
                    if kinds & kind and (kind != _ARTICLE or attribute == "class"):
                        listed.append(f'[{attribute}="{name}"]')
    return Skips(
        page=(*_ELEMENTS, *_named(selectors[_PAGE])),
        comments=_named(selectors[_COMMENT]),
        article=(*_ELEMENTS, *_ARTICLE_ELEMENTS, *_named([*selectors[_ARTICLE], *selectors[_PAGE]])),
    )


def _named(selectors: Sequence[str]) -> tuple[str, ...]:
    distinct = list(dict.fromkeys(selectors))[:_MAX_SELECTORS]
    return (f":is({','.join(distinct)}){_NO_BOILERPLATE}",) if distinct else ()


def _kinds(names: Sequence[str]) -> list[int]:
    """What boilerplate each name is: flags."""
    joined = "\n".join(names)
    lowered = joined.lower()
    found = [0] * len(names)
    if len(lowered) != len(joined):  # some letters grow when they are made small: then nothing stands in its place
        joined = lowered
    automaton, patterns = _automaton()
    line, line_start, line_end = 0, 0, len(names[0]) if names else 0
    for pattern, start, end in sorted(
        automaton.find_matches_as_indexes(lowered, overlapping=True), key=lambda match: match[1]
    ):
        while start > line_end:
            line += 1
            line_start = line_end + 1
            line_end = line_start + len(names[line])
        found[line] |= patterns[pattern].kinds(joined, start, end)
        if patterns[pattern].text == _EMBEDDED:
            found[line] |= _NOT_ARTICLE
    return [kinds & ~(_ARTICLE | _PAGE | _NOT_ARTICLE) if kinds & _NOT_ARTICLE else kinds for kinds in found]


_NOT_ARTICLE = 8


@dataclass(frozen=True, slots=True)
class _Pattern:
    text: str
    as_word: int
    """What a name is that holds it as a word."""
    as_end: int
    """What a name is that holds a word which ends with it."""
    as_part: int
    """What a name is that holds it anywhere."""

    def kinds(self, text: str, start: int, end: int) -> int:
        starts = start == 0 or not text[start - 1].isalpha() or (text[start].isupper() and text[start - 1].islower())
        ends = end == len(text) or not text[end].isalpha() or (text[end].isupper() and text[end - 1].islower())
        return self.as_part | (self.as_end * ends) | (self.as_word * (starts and ends))


@functools.cache
def _automaton() -> tuple[AhoCorasick, tuple[_Pattern, ...]]:
    patterns = tuple(_patterns())
    texts = [pattern.text for pattern in patterns]
    return AhoCorasick(texts, implementation=Implementation.DFA), patterns


def _patterns() -> Iterator[_Pattern]:
    for text in sorted({*_WORDS, *_WORD_ENDS, *_COMMENTS, *_ARTICLE_PARTS, _EMBEDDED}):
        yield _Pattern(
            text=text,
            as_word=_PAGE * (text in _WORDS) | _COMMENT * (text in _COMMENTS),
            as_end=_PAGE * (text in _WORD_ENDS),
            as_part=_ARTICLE * (text in _ARTICLE_PARTS),
        )
