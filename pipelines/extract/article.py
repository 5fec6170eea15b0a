"""Main text of an article page: the element that holds its body, less boilerplate, less the lines that are none.

The body is taken from the element that the markup names as such (microdata, the class names of publishing systems,
`article`, `main`), provided that it agrees with the main text of the page as a whole: it must hold most of that text's
prose. Where nothing agrees, or the lines kept are few, the page is doubtful and takes the careful path.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.extract.blocks import article_text, marked_source, prose_weight, weight
from pipelines.extract.careful import careful_text

_BODY_CLASSES = (
    *("article-body", "articlebody", "article_body", "article__body", "story-body", "storybody", "story_body"),
    *("entry-content", "post-content", "post-body", "post_content", "article-content", "article_content"),
    *("articlecontent", "article-text", "articletext", "story-content", "news-content", "news_content"),
    *("rich_media_content", "trs_editor", "article__content", "article-main"),
)
_NAMED_BODY = ",".join(f'[class*="{name}" i]' for name in _BODY_CLASSES) + ",#js_content,#artibody,#article-body"
_SURE = 0.7
_BODIES = (('[itemprop~="articleBody"]', _SURE), (_NAMED_BODY, _SURE), ("article", 0.9), ("main,[role=main]", 0.9))
"""Selectors of what holds a body, the surest first, with the share of the page's prose that makes looking on needless."""
_MAX_BODIES = 40
_MIN_BODY_CHARS = 300
_MIN_SURE_PROSE = 1000
"""Weight of prose with which a body that the markup names needs no comparison with the page."""
_MIN_AGREEMENT = 0.7
"""Share of the page's prose that a body must hold to be believed."""
_MIN_PROSE_SHARE = 0.6
"""Share of a page's text that must be prose for a page that does not call itself an article."""
_MAX_DOMINANCE = 0.7
_MIN_KEPT = 0.5

_BOILERPLATE_CLASSES = (
    *("share", "social", "related", "recommend", "newsletter", "subscribe", "signup", "sign-up", "promo", "advert"),
    *("sponsor", "byline", "dateline", "timestamp", "breadcrumb", "caption", "credit", "cookie", "consent", "gdpr"),
    *("paywall", "popup", "modal", "carousel", "slideshow", "gallery", "read-more", "readmore", "most-read"),
    *("most-popular", "trending", "disclaimer", "copyright", "tags", "taxonomy", "author-", "sidebar", "toolbar"),
    *("comments", "disqus", "outbrain", "taboola"),
)
_CLASS = re.compile(r' class="([^"<>\\]{1,200})"')
_MAX_BOILERPLATE_CLASSES = 100
_BOILERPLATE = ("figcaption", "nav", "aside", "footer", "form", "button", "[hidden]", "[role=complementary]")
_NO_BOILERPLATE = ':not(html,body,main,article,[itemprop~="articleBody"],p,h1,h2,blockquote):not(:has(h1,p+p+p+p))'
"""What a class name does not make boilerplate: what may hold the body, and what holds a heading or several paragraphs."""

_EMBEDDED_POST = re.compile(
    r"(<blockquote\b[^<>]{0,300}?)\b(?:twitter-tweet|twitter-video|instagram-media|tiktok-embed)\b"
)

MarkedText = Callable[[str, Sequence[str]], str]
"""Main text, with marks, of a fragment of HTML, less what the selectors match."""


def article_main_text(
    document: Any, html: str, whole_text: Callable[[], str], marked_text: MarkedText, *, titles: Sequence[str]
) -> tuple[str, str]:
    """The text of an article and the path that gave it; two empty strings where the page turns out to be none.

    `whole_text` gives the main text of the page by resiliparse alone, `html` is the page's source for the careful path,
    `titles` what the work is called: empty where the page does not call itself an article.
    """
    best, best_prose = "", 0
    whole: str | None = None
    wanted = 0
    seen = ""
    for agreement, fragment in _bodies(document):
        if fragment == seen:
            continue
        seen = fragment
        text = _text_of(fragment, marked_text)
        prose = prose_weight(text)
        if prose > best_prose:
            best, best_prose = text, prose
        if titles and agreement == _SURE and prose >= _MIN_SURE_PROSE:
            wanted = prose
            break
        if whole is None:
            whole = whole_text()
            wanted = prose_weight(whole)
            if not titles and wanted < _MIN_PROSE_SHARE * weight(whole):
                return "", ""
        if best_prose >= agreement * wanted:
            break
    kept = article_text(best, titles) if best else ""
    if (
        best_prose < _MIN_AGREEMENT * wanted
        or len(kept) < _MIN_KEPT * len(best)
        or prose_weight(kept) < _MIN_KEPT * wanted
    ):
        careful = careful_text(html)
        if prose_weight(careful) >= _MIN_KEPT * prose_weight(kept):
            return careful, "careful"
    return kept or whole or "", "article"


def _text_of(fragment: str, marked_text: MarkedText) -> str:
    if "<blockquote" in fragment:
        fragment = _EMBEDDED_POST.sub(r"\1quote", fragment)
    source = marked_source(fragment)
    return marked_text(f"<body><article><div>{source}</div></article></body>", _boilerplate(fragment))


def _boilerplate(fragment: str) -> list[str]:
    """Selectors of what in a fragment is not text of the article."""
    # The class names that occur are sifted here once: a selector would try each pattern on each element.
    names = [name for name in dict.fromkeys(_CLASS.findall(fragment)) if _is_boilerplate(name)]
    if not names:
        return [*_BOILERPLATE]
    named = ",".join(f'[class="{name}"]' for name in names[:_MAX_BOILERPLATE_CLASSES])
    return [*_BOILERPLATE, f":is({named}){_NO_BOILERPLATE}"]


@functools.lru_cache(maxsize=4096)
def _is_boilerplate(class_names: str) -> bool:
    lowered = class_names.lower()
    return any(part in lowered for part in _BOILERPLATE_CLASSES)


def _bodies(document: Any) -> Iterator[tuple[float, str]]:
    """HTML of what each selector names, after the share that it must hold, the surest first; last the whole body."""
    for selector, agreement in _BODIES:
        found = document.query_selector_all(selector)
        # A slice, for iterating evaluates the selector anew for each element.
        sources = [element.html for element in found[0 : min(len(found), _MAX_BODIES)]]
        sources = _outermost(sources)
        if sources and len(longest := max(sources, key=len)) >= _MIN_BODY_CHARS:
            if len(longest) >= _MAX_DOMINANCE * sum(map(len, sources)):
                yield agreement, longest
            else:  # a body in several parts, or several articles
                yield agreement, "".join(sources)
    body = document.query_selector("body")
    if body is not None:
        yield 0.0, body.html


def _outermost(sources: Sequence[str]) -> list[str]:
    """Elements in document order less those inside another: one inside comes after, and its HTML is part of it."""
    kept: list[str] = []
    end = 0
    for source in sources:
        if end and source in kept[-1]:
            continue
        kept.append(source)
        end += len(source)
    return kept
