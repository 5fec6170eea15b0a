"""HTML to main text and metadata by resiliparse (parsed once), with the remedies that its defects need.

The remedies rewrite the source before it is parsed, each in one pass that is linear in the page:

- main-content mode drops a text node of one character outside Latin (甲 in a table cell): it is given a mark;
- it takes each `ul` near the body for navigation: one that is not made of links becomes an `ol` whose numbers are
  turned back into bullets;
- MathML, KaTeX and MathJax give a formula twice or not at all: its TeX source is kept, between `$`.

Measured on resiliparse 2.0.1: parsing never recurses, but main-content mode takes time in depth times size, and an
indented list takes space in it. Both are bounded here by counting, never by a clock.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from pipelines.extract.article import article_main_text
from pipelines.extract.limits import has_too_many_attributes, num_elements_bound
from pipelines.extract.metadata import Metadata, page_metadata
from pipelines.extract.normalize import normalize, one_line
from pipelines.extract.rights import RightsFound, page_rights

_MARK = "\ufdd0\ufdd0"  # noncharacters: normalize() removes them, and no page can send one through it
_BULLET_MARK = "\ufdd1\ufdd1"
_LONE_CHARACTER = re.compile(
    # All scripts that take three bytes, but for the private use area (icon fonts), dashes, arrows and shapes.
    "(>\\s*[\u0800-\u1fff\u2070-\u218f\u2460-\u24ff\u2600-\u27bf\u2e80-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd])(?=\\s*<)"
)
_LIST_TAGS = re.compile(
    r"<(?=[/uola])(?:(?P<close>/)?(?P<list>[uo]l)\b(?P<attributes>[^<>]*)|(?P<item>li)\b[^<>]*>(?:\s*<(?:p|div)\b[^<>]*>)*|a\b)",
    re.IGNORECASE,
)
_NAVIGATION = re.compile(r"\b(?:nav|menu|bread-?crumb|toc|pager|pagination|tabs?|share|social)", re.IGNORECASE)
_NUMBERED_BULLET = re.compile(rf"\d{{1,7}}\. {{0,2}}{_BULLET_MARK}")
_EMPTY_BULLETS = re.compile(r"^[ \t]*•[ \t]*$\n?", re.MULTILINE)
_MAX_LINK_ITEM_RATIO = 0.5
_MAX_LISTED_CHARS = 2 << 20
"""Characters of a page above which its lists stay as they are: a million list items would cost a gigabyte."""

_MATH_OPEN = re.compile(r"<math\b", re.IGNORECASE)
_TEX_ANNOTATION = re.compile(r"<annotation\b[^<>]{0,200}?application/x-tex[^<>]{0,200}>([^<]*)", re.IGNORECASE)
_MATH_SCRIPT = re.compile(r"<script\b[^<>]{0,200}?\bmath/tex\b[^<>]{0,200}>([^<]*)</script>", re.IGNORECASE)
_MATH_DISPLAYS = [".katex-html", ".MathJax", ".MathJax_Display", ".MathJax_Preview", ".MathJax_SVG"]

_BLOCKS, _LISTS = "div,article", "ul,ol,menu,dir"  # what costs time, and what costs space, in its depth
_MAX_LIST_NESTING = 32
_MAX_MAIN_WORK = 1 << 28
"""Depth times characters above which the whole text is taken in place of the main text (about 3 s)."""
_NOT_CONTENT = [
    "nav",
    "header",
    "footer",
    "aside",
    "script",
    "style",
    "noscript",
    "template",
    "form",
    "[role=navigation]",
]

_SITE_HEADER = "body>header:not(:has(h1))"

_ARTICLE_SIGNS = (
    *("og:type", "<article", "articleBody", 'Article"', "BlogPosting", "article-body", "article_body", "story-body"),
    *("entry-content", "post-content", "post-body", "article-content", "article_content", "article-text"),
    *("rich_media_content", "TRS_Editor", "artibody"),
)
"""What the source of nearly every article holds one of, and hardly any page of documentation."""

_MAX_TITLE_CHARS = 1000


class TooDeepError(Exception):
    """Elements are nested deeper than the limit."""


class TooManyTagsError(Exception):
    """The parsed tree would take too much memory."""


class TooManyAttributesError(Exception):
    """A tag's attributes would take too long to compare with one another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extracted:
    """What a page of HTML holds."""

    text: str
    title: str | None
    language: str | None
    rights: RightsFound
    author: str | None
    published_at: str | None
    """ISO 8601 date."""
    site_name: str | None
    extractor: str
    """The path that gave the text: article, main, whole, or careful."""


def extract_html(
    html: str,
    url: str | None,
    *,
    main_content: bool,
    comments: bool,
    min_main_chars: int,
    max_nesting: int,
    max_tags: int,
) -> Extracted:
    """Main text (or the whole text), title, language, and what the page says of its rights.

    A main text shorter than `min_main_chars` characters gives way to the whole text, without navigation, header and
    footer, where that is longer. Raises TooDeepError where block elements are nested deeper than `max_nesting`, or
    lists deeper than 32; before anything is parsed, TooManyTagsError where there are more than `max_tags` or their
    unclosed formatting would make as many elements, and TooManyAttributesError where a tag has tens of thousands.
    """
    if html.count("<") > max_tags or num_elements_bound(html, 2 * max_tags) > 2 * max_tags:
        raise TooManyTagsError
    if has_too_many_attributes(html):
        raise TooManyAttributesError
    holds_math = _holds_math(html)
    may_be_article = main_content and any(sign in html for sign in _ARTICLE_SIGNS)
    source = (_with_tex(html) if holds_math else html) if may_be_article else _remedied(html, holds_math=holds_math)
    tree = HTMLTree.parse(source)
    document: Any = tree.document
    if _is_too_deep(document, max_nesting):
        raise TooDeepError
    affordable_depth = _MAX_MAIN_WORK // max(1, len(html))
    if affordable_depth < max_nesting and _is_deeper(document, _BLOCKS, affordable_depth):
        main_content = False
    rights = page_rights(document, url)
    metadata = page_metadata(document)
    title = one_line(tree.title or "", _MAX_TITLE_CHARS) or None
    root = document.query_selector("html")
    language = root.getattr("lang") or root.getattr("xml:lang") if root is not None else None
    skipped = _MATH_DISPLAYS if holds_math else []
    text, extractor = "", ""
    if main_content and may_be_article and metadata.kind in ("article", "page"):
        text, extractor = _article_text(tree, html, metadata, title or "", skipped)
        text = _tidied(text)
        if len(text) < min_main_chars:  # a list of links, or hardly a page: no article
            extractor = ""
    if not extractor:
        if may_be_article:
            tree = HTMLTree.parse(_remedied(source, holds_math=False))
        text, extractor = _general_text(
            tree, main_content=main_content, comments=comments, min_main_chars=min_main_chars, skipped=skipped
        )
    return Extracted(
        text=text,
        title=title or next(iter(metadata.titles), None),
        language=one_line(language or "", 40) or None,
        rights=rights,
        author=metadata.author,
        published_at=metadata.published_at,
        site_name=metadata.site_name,
        extractor=extractor,
    )


def _general_text(
    tree: HTMLTree, *, main_content: bool, comments: bool, min_main_chars: int, skipped: list[str]
) -> tuple[str, str]:
    """Text of a page that is no article, and the path that gave it."""
    text = ""
    if main_content:
        text = _plain_text(tree, main_content=True, comments=comments, skipped=[_SITE_HEADER, *skipped])
    if len(text) < min_main_chars or not main_content:
        whole = _plain_text(tree, main_content=False, comments=comments, skipped=[*_NOT_CONTENT, *skipped])
        if len(whole) > len(text):
            return whole, "whole"
    return text, "main"


def _article_text(tree: HTMLTree, html: str, metadata: Metadata, title: str, skipped: list[str]) -> tuple[str, str]:
    """Text of an article and the path that gave it; two empty strings where the page turns out to be none."""

    def marked_text(fragment: str, skips: Sequence[str]) -> str:
        part = HTMLTree.parse(_remedied(fragment, holds_math=False))
        return _marked_text(part, main_content=True, comments=False, skipped=[*skips, *skipped])

    def whole_text() -> str:
        return _marked_text(tree, main_content=True, comments=False, skipped=[_SITE_HEADER, *skipped])

    titles = (title, *metadata.titles) if metadata.kind == "article" else ()
    return article_main_text(tree.document, html, whole_text, marked_text, titles=titles)


def _plain_text(tree: HTMLTree, *, main_content: bool, comments: bool, skipped: list[str]) -> str:
    return _tidied(_marked_text(tree, main_content=main_content, comments=comments, skipped=skipped))


def _tidied(text: str) -> str:
    text = normalize(text)
    return _EMPTY_BULLETS.sub("", text) if "•" in text else text


def _marked_text(tree: HTMLTree, *, main_content: bool, comments: bool, skipped: list[str]) -> str:
    text: str = extract_plain_text(
        tree,
        preserve_formatting=True,
        main_content=main_content,
        comments=comments,
        post_meta=False,
        alt_texts=False,
        skip_elements=skipped,
    )
    if _BULLET_MARK in text:
        text = _NUMBERED_BULLET.sub("• ", text)
    return text


@functools.cache
def _nested(tags: str, depth: int) -> str:
    """Selector of an element of `tags` with `depth` - 1 others of them around it."""
    return " ".join([f":is({tags})"] * depth)


def _is_too_deep(document: Any, max_nesting: int) -> bool:
    # Each question is a walk over the tree: one on blocks and lists together clears nearly every page.
    if not _is_deeper(document, f"{_BLOCKS},{_LISTS}", min(max_nesting, _MAX_LIST_NESTING)):
        return False
    return _is_deeper(document, _BLOCKS, max_nesting) or _is_deeper(document, _LISTS, _MAX_LIST_NESTING)


def _is_deeper(document: Any, tags: str, depth: int) -> bool:
    """Whether elements of `tags` are nested deeper than `depth` in the parsed tree, where no trick can hide it."""
    return document.query_selector(_nested(tags, depth + 1)) is not None


def _remedied(html: str, *, holds_math: bool) -> str:
    if not html.isascii():
        html = _LONE_CHARACTER.sub(rf"\1{_MARK}", html)
    if holds_math:
        html = _with_tex(html)
    return _with_marked_lists(html) if len(html) <= _MAX_LISTED_CHARS else html


def _holds_math(html: str) -> bool:
    return "application/x-tex" in html or "math/tex" in html


def _with_tex(html: str) -> str:
    """Each formula that carries its TeX source, as `$source$`."""
    parts = html.split("</math>")
    for index, part in enumerate(parts[:-1]):
        opened = list(_MATH_OPEN.finditer(part))
        annotation = _TEX_ANNOTATION.search(part, opened[-1].start()) if opened else None
        if annotation:
            parts[index] = f"{part[: opened[-1].start()]}${annotation[1].strip()}$"
        else:
            parts[index] = part + "</math>"
    return _MATH_SCRIPT.sub(lambda script: f"${script[1].strip()}$", "".join(parts))


@dataclass(slots=True)
class _List:
    """A list whose end has not been reached."""

    opened: re.Match[str]
    item_ends: list[int]
    num_items: int = 0
    num_links: int = 0


def _with_marked_lists(html: str) -> str:
    """Each `ul` whose items are not mostly links, as an `ol` with a mark in each item."""
    edits = sorted(_list_edits(html))
    if not edits:
        return html
    parts: list[str] = []
    position = 0
    for start, end, replacement in edits:
        parts += (html[position:start], replacement)
        position = end
    parts.append(html[position:])
    return "".join(parts)


def _list_edits(html: str) -> Iterator[tuple[int, int, str]]:
    """Replacements as (start, end, text)."""
    stack: list[_List] = []
    for tag in _LIST_TAGS.finditer(html):
        if tag["list"] and not tag["close"]:
            stack.append(_List(tag, []))
        elif not stack:
            continue
        elif tag["item"]:
            stack[-1].item_ends.append(tag.end())
            stack[-1].num_items += 1
        elif not tag["list"]:
            stack[-1].num_links += 1
        elif stack[-1].opened["list"].lower() == tag["list"].lower():
            done = stack.pop()
            if stack:
                stack[-1].num_items += done.num_items
                stack[-1].num_links += done.num_links
            if tag["list"].lower() == "ul" and _is_content(done):
                yield (*done.opened.span("list"), "ol")
                yield (*tag.span("list"), "ol")
                yield from ((end, end, _BULLET_MARK) for end in done.item_ends)


def _is_content(done: _List) -> bool:
    return done.num_links <= _MAX_LINK_ITEM_RATIO * done.num_items and not _NAVIGATION.search(done.opened["attributes"])
