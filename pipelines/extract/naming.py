"""What the names on a page say of its parts: which are not its text, which hold an article's body, which are posts.

Elements of HTML that are not text are skipped wherever they stand. Class names and ids are people's words: the distinct ones
of a page are sifted here in one pass, and what they call boilerplate is skipped unless it holds a heading or several
paragraphs.
"""

import bisect
import functools
import itertools
from collections.abc import Sequence

from ahocorasick_rs import AhoCorasick, Implementation

from pipelines.extract.scan import ATTRIBUTES

_ELEMENTS = (
    *("nav", "aside", "footer:not(blockquote footer)", "button", "dialog", "template", "noscript", "[hidden]"),
    *("[role=navigation]", "[role=banner]:not(:has(h1))", "[role=search]", "[role=contentinfo]", "[role=menu]"),
    *("[role=complementary]", "[role=dialog]", "header:not(:has(h1,h2,p+p))", "form:not(:has(h1,h2,p,article,table))"),
)
_ARTICLE_ELEMENTS = ("figcaption", "form")

_WORDS = (
    *("nav", "navigation", "navheader", "navlinks", "topnav", "subnav", "menu", "menubar", "breadcrumb", "breadcrumbs"),
    *("crumb", "crumbs", "sidebar", "sidebars", "footer", "topbar", "toolbar", "pager", "pagination", "paginator"),
    *("paging", "toc", "tableofcontents", "headerlink", "permalink", "searchbox", "searchform", "login", "signin"),
    *("signup", "cookie", "cookies", "consent", "gdpr", "popup", "modal", "share", "sharing", "sharebar", "social"),
    *("addthis", "advert", "adverts", "advertisement", "adsbygoogle", "ads", "sponsor", "sponsored"),
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
_BODIES = (
    *("article-body", "articlebody", "article_body", "article__body", "story-body", "storybody", "story_body"),
    *("entry-content", "post-content", "post-body", "post_content", "article-content", "article_content"),
    *("articlecontent", "article-text", "articletext", "story-content", "storycontent", "news-content", "news_content"),
    *("newscontent", "newstext"),
    *("rich_media_content", "trs_editor", "article__content", "article-main"),
)
"""Parts of the class names that publishing systems give to the body of an article."""
_BODY_IDS = frozenset(("js_content", "artibody", "article-body"))
_POSTS = ("t_f", "postbody", "topic-post", "message-body", "post-message")
_POST_ID = "postmessage_"
"""Class names, and the beginning of an id, that forum software gives to posts."""

SKIP, TALK, TRIM, BODY, POST = 1, 2, 4, 8, 16
"""Flags of a name, one for each of scan.py's ATTRIBUTES."""
_KEEP = 32
_NO_BOILERPLATE = (
    ':not(html,body,main,article,[itemprop~="articleBody"],p,h1,h2,blockquote,pre,code,table):not(:has(h1,p+p+p+p))'
)
"""What a name does not make boilerplate: what may hold the body, and what holds a heading or several paragraphs."""
_SKIPPED, _TALK, _TRIMMED, _, POSTS = (f"[{attribute}]" for attribute in ATTRIBUTES)
"""The last selects posts."""
BODY_ATTRIBUTE = ATTRIBUTES[3]
"""Of what holds the body of an article."""
PAGE_SKIPS = (*_ELEMENTS, _SKIPPED + _NO_BOILERPLATE)
"""Selectors of what is no text of a page that is no article."""
TALK_SKIPS = (_TALK + _NO_BOILERPLATE,)
"""What goes with these where comments are not wanted."""
ARTICLE_SKIPS = (*_ELEMENTS, *_ARTICLE_ELEMENTS, f":is({_TRIMMED},{_SKIPPED}){_NO_BOILERPLATE}")
"""Selectors of what is no text of an article."""
WHOLE_PAGE_SKIPS = (
    *("nav", "header", "footer", "aside", "script", "style", "noscript", "template", "form", "[role=navigation]"),
    *("[hidden]",),
)
"""What is left out of a page that has no main text."""


def sift_names(names: Sequence[tuple[str, bool]]) -> list[int]:
    """The flags of each name of a page, given as scan.py gives them: the name, and whether it is an id."""
    found = _kinds([name for name, _ in names])
    return [
        kinds & ~(TRIM | BODY | POST) | _id_kinds(name) if is_id else kinds | (SKIP * (name.lower() in _CLASSES))
        for (name, is_id), kinds in zip(names, found, strict=True)
    ]


def _id_kinds(name: str) -> int:
    is_post = name.startswith(_POST_ID)
    return (SKIP * (name.lower() in _IDS)) | (BODY * (name in _BODY_IDS)) | (POST * is_post)


def _kinds(names: Sequence[str]) -> list[int]:
    """What each name is by the words and parts in it: flags."""
    found = [0] * len(names)
    joined = "\n".join(("", *names, ""))  # so that something that is no letter stands around each name
    lowered = joined.lower()
    if len(lowered) != len(joined):  # some letters grow when they are made small: then nothing stands in its place
        names = [name.lower() for name in names]
        joined = lowered = "\n".join(("", *names, ""))
    automaton, meanings = _automaton()
    line_starts = [*itertools.accumulate((len(name) + 1 for name in names), initial=1)]
    for pattern, start, end in automaton.find_matches_as_indexes(lowered, overlapping=True):
        kinds, as_end, as_word = meanings[pattern]
        if as_end or as_word:  # words end where no letter follows, and at the hump of CamelCase
            after = joined[end]
            if not after.isalpha() or (after.isupper() and joined[end - 1].islower()):
                kinds |= as_end
                if as_word:
                    before = joined[start - 1]
                    if not before.isalpha() or (before.islower() and joined[start].isupper()):
                        kinds |= as_word
        if kinds:
            found[bisect.bisect_right(line_starts, start) - 1] |= kinds
    return [kinds & ~(TRIM | SKIP | _KEEP) if kinds & _KEEP else kinds for kinds in found]


@functools.cache
def _automaton() -> tuple[AhoCorasick, tuple[tuple[int, int, int], ...]]:
    """What finds the parts, and what a name is that holds each: anywhere, at the end of a word, as a word."""
    texts = sorted(
        {*_WORDS, *_WORD_ENDS, *_COMMENTS, *_ARTICLE_PARTS, *_BODIES, *_POSTS, _EMBEDDED, _POST_ID, *_BODY_IDS}
    )
    meanings = tuple(
        (
            (TRIM * (text in _ARTICLE_PARTS)) | (BODY * (text in _BODIES)) | (_KEEP * (text == _EMBEDDED)),
            SKIP * (text in _WORD_ENDS),
            (SKIP * (text in _WORDS)) | (TALK * (text in _COMMENTS)) | (POST * (text in _POSTS)),
        )
        for text in texts
    )
    return AhoCorasick(texts, implementation=Implementation.DFA), meanings
