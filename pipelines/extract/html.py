"""HTML to main text and metadata by resiliparse, parsed once, of a source that scan.py has marked.

The text is the whole text of the page less what its names say is none (naming.py); of pages that may be articles the
body is looked for (article.py), of others the rows of links above and below are left out. resiliparse's own main-content
mode is not used: it takes four times as long, drops a text node of one character outside Latin (甲 in a table cell) and
each list near the body, and its time grows with depth times size.

MathML, KaTeX and MathJax would give a formula twice or not at all: its TeX source is kept, between `$`.
"""

import codecs
import functools
import re
from dataclasses import dataclass
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from pipelines.extract.article import article_main_text, mark_bodies
from pipelines.extract.blocks import lines_of, page_text
from pipelines.extract.careful import careful_text
from pipelines.extract.limits import TooDeepError, check_source
from pipelines.extract.metadata import MAX_ELEMENTS, Metadata, page_metadata
from pipelines.extract.naming import (
    ARTICLE_SKIPS,
    BODY,
    PAGE_SKIPS,
    POST,
    POSTS,
    TALK_SKIPS,
    WHOLE_PAGE_SKIPS,
    sift_names,
)
from pipelines.extract.normalize import normalize, one_line
from pipelines.extract.rights import RightsFound, page_rights
from pipelines.extract.scan import READ_ATTRIBUTE, Scan, marked_source, scan_source

_ENDING_BULLET = re.compile(r"•[ \t]*(?:\n|$)")  # starts with a letter to look for: found ten times as fast
_EMPTY_BULLETS = re.compile(r"^[ \t]*•[ \t]*$\n?", re.MULTILINE)

_MATH_OPEN = re.compile(r"<math\b", re.IGNORECASE)
_TEX_ANNOTATION = re.compile(r"<annotation\b[^<>]{0,200}?application/x-tex[^<>]{0,200}>([^<]*)", re.IGNORECASE)
_MATH_SCRIPT = re.compile(r"<script\b[^<>]{0,200}?\bmath/tex\b[^<>]{0,200}>([^<]*)</script>", re.IGNORECASE)
_MATH_DISPLAYS = [".katex-html", ".MathJax", ".MathJax_Display", ".MathJax_Preview", ".MathJax_SVG"]

_BLOCKS, _LISTS = "div,article", "ul,ol,menu,dir"  # what costs time, and what costs space, in its depth
_MAX_LIST_NESTING = 32
_MAX_TITLE_CHARS = 1000


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
    scan = scan_source(html)
    # the scan says at no cost that there is none, which these searches take as long for as it for all else
    holds_math = scan.may_hold_tex and ("application/x-tex" in html or "math/tex" in html)
    if holds_math:
        scan = scan_source(_with_tex(html), keeps_classes=True)
    check_source(scan, max_tags=max_tags)
    kinds = sift_names(scan.names)
    tree = _parsed(marked_source(scan, kinds))
    document: Any = tree.document
    if _is_too_deep(document, scan, max_nesting):
        raise TooDeepError
    elements = _telling_elements(document, scan)
    num_posts = len(document.query_selector_all(POSTS)) if any(kind & POST for kind in kinds) else 0
    metadata = page_metadata(elements, num_posts=num_posts)
    title = one_line(tree.title or "", _MAX_TITLE_CHARS) or None
    root = document.document_element
    language = root.getattr("lang") or root.getattr("xml:lang") if root is not None else None
    text, extractor = _text(
        tree,
        scan,
        html,
        metadata,
        title or "",
        are_named=any(kind & BODY for kind in kinds),
        main_content=main_content,
        comments=comments,
        min_main_chars=min_main_chars,
        skipped=_MATH_DISPLAYS if holds_math else [],
    )
    return Extracted(
        text=text,
        title=title or next(iter(metadata.titles), None),
        language=one_line(language or "", 40) or None,
        rights=page_rights(elements, url),
        author=metadata.author,
        published_at=metadata.published_at,
        site_name=metadata.site_name,
        extractor=extractor,
    )


def _text(
    tree: HTMLTree,
    scan: Scan,
    html: str,
    metadata: Metadata,
    title: str,
    *,
    are_named: bool,
    main_content: bool,
    comments: bool,
    min_main_chars: int,
    skipped: list[str],
) -> tuple[str, str]:
    """The text of a page and the path that gave it."""
    text = ""
    is_article = metadata.kind == "article"
    if main_content and (
        is_article or (metadata.kind == "page" and (metadata.has_type or scan.has_article or are_named))
    ):
        bodies = mark_bodies(tree, scan, are_named=are_named)
        titles = (title, *metadata.titles) if is_article else ()
        marked = _marked_text(tree, [*ARTICLE_SKIPS, *skipped])
        text, extractor = article_main_text(marked, bodies, functools.partial(careful_text, html), titles=titles)
        text = _tidied(text)
        if len(text) >= min_main_chars:  # else a list of links, or hardly a page: no article
            return text, extractor
    if main_content:
        unwanted = () if comments else TALK_SKIPS
        text = _tidied(page_text(lines_of(_marked_text(tree, [*PAGE_SKIPS, *unwanted, *skipped]))))
    if len(text) < min_main_chars or not main_content:
        whole = _tidied(_marked_text(tree, [*WHOLE_PAGE_SKIPS, *skipped]))
        if len(whole) > len(text):
            return whole, "whole"
    return text, "main"


def _parsed(source: bytes) -> HTMLTree:
    # bytes need no way through a str; but of these a byte order mark would be left out, which here is text
    return HTMLTree.parse(source.decode()) if source.startswith(codecs.BOM_UTF8) else HTMLTree.parse_from_bytes(source)


def _telling_elements(document: Any, scan: Scan) -> list[Any]:
    """The elements that say something of the page or its rights: one walk over the tree, for each costs as much."""
    selector = "h1,time[datetime]"
    if scan.has_scripts:
        selector += ',script[type^="application/ld+json" i],script[type^="application/rsl+xml" i]'
    if scan.has_items:
        selector += ',[itemtype],[itemprop~="license" i]'
    if scan.has_license:
        selector += ',[rel*="license" i][href]'
    # an element in Python costs as much as the walk past ten, and of thirty `meta` of a page five are read
    if not scan.is_tangled:
        found = document.query_selector_all(
            f"meta[{READ_ATTRIBUTE}],{selector}"
        ).values()  # else evaluated for each element
        if len(found) + scan.num_unread <= MAX_ELEMENTS:
            return found
    return document.query_selector_all(f"meta,{selector}").values()


def _tidied(text: str) -> str:
    text = normalize(text)
    return _EMPTY_BULLETS.sub("", text) if _ENDING_BULLET.search(text) else text


def _marked_text(tree: HTMLTree, skipped: list[str]) -> str:
    text: str = extract_plain_text(
        tree,
        preserve_formatting=True,
        main_content=False,
        comments=True,
        post_meta=False,
        alt_texts=False,
        skip_elements=skipped,
    )
    return text


@functools.cache
def _nested(tags: str, depth: int) -> str:
    """Selector of an element of `tags` with `depth` - 1 others of them around it."""
    return " ".join([f":is({tags})"] * depth)


def _is_too_deep(document: Any, scan: Scan, max_nesting: int) -> bool:
    # The scan's bounds clear nearly every page; the tree, where no trick can hide it, is asked about the others.
    return (scan.block_depth > max_nesting and _is_deeper(document, _BLOCKS, max_nesting)) or (
        scan.list_depth > _MAX_LIST_NESTING and _is_deeper(document, _LISTS, _MAX_LIST_NESTING)
    )


def _is_deeper(document: Any, tags: str, depth: int) -> bool:
    """Whether elements of `tags` are nested deeper than `depth` in the parsed tree."""
    return document.query_selector(_nested(tags, depth + 1)) is not None


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
