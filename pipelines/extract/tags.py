"""What the compiled loops over a page (kernels.py) and those who call them share: names of tags, marks, kinds of lines."""

import functools
import itertools

import numpy as np
import numpy.typing as npt


def packed(name: str) -> int:
    """A short name as one number: its first seven bytes, and its length."""
    raw = name.encode()
    return int.from_bytes(raw[:7].ljust(7, b"\0"), "little") | min(len(raw), 255) << 56


NAME_A, NAME_P, NAME_PRE, NAME_PLAINTEXT, NAME_ARTICLE_TAG = map(packed, ("a", "p", "pre", "plaintext", "article"))
NAME_CLASS, NAME_ID, NAME_HREF, NAME_REL, NAME_TYPE = map(packed, ("class", "id", "href", "rel", "type"))
NAME_SPAN, NAME_SVG, NAME_MATH, NAME_H1 = map(packed, ("span", "svg", "math", "h1"))
NAME_SCRIPT, NAME_STYLE, NAME_FRAMESET, NAME_META = map(packed, ("script", "style", "frameset", "meta"))
NAME_MAIN, NAME_ROLE = map(packed, ("main", "role"))
NAME_ITEMPROP, NAME_ITEMTYPE, NAME_PROPERTY, NAME_NAME = map(packed, ("itemprop", "itemtype", "property", "name"))
WORD_LICENSE, WORD_LD, WORD_RSL = (int.from_bytes(word, "little") for word in (b"icens", b"ld+json", b"rsl+xml"))

_FORMATTING = ("a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u")
_NESTED = ("div", "article", "ul", "ol", "menu", "dir")
_RAW = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
_BARRIERS = (
    *("applet", "object", "marquee", "template", "td", "th", "caption", "select", "noscript", "svg", "math"),
    *("plaintext", *_RAW),
)
"""Elements in which an end tag may not end what was opened outside them."""
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_CONTAINERS = (
    *("html", "body", "div", "section", "main", "article", "aside", "nav", "header", "footer", "form", "ul", "ol"),
    *("table", "tbody", "tr", "td", "center", "dl", "fieldset", "figure", "blockquote"),
)
"""Elements whose id is worth knowing; that of a heading or a term is where a link leads to."""
_POINTS = ("foreignobject", "desc", "annotation-xml", "mi", "mo", "mn", "ms", "mtext")
"""Elements of SVG and MathML in which HTML may stand, and then end tags of what is around them count for nothing."""
_READ = (
    *("content", "datetime", "hidden", "itemprop", "itemscope", "itemtype", "lang", "name", "property", "rel", "role"),
    *("type", "xml:lang", "encoding"),
)
"""Attributes that somebody asks the tree for; the type of an input and the encoding of an annotation are the parser's."""
NUM_FORMATTING, NUM_BLOCKS, NUM_STACKS = len(_FORMATTING), 2, len(_FORMATTING) + len(_NESTED)
STACK, IS_BARRIER, IS_RAW, IS_HEADING, IS_CONTAINER, IS_POINT = 31, 32, 64, 128, 256, 512
IS_READ, IS_META = 1024, 2048
"""What is known of a name: a number of its stack less than 31, and flags."""
TABLE_SIZE, SLOT_FACTOR, SLOT_SHIFT = 512, 0x9E3779B97F4A7C15, 55

NUM_FOUND = 13
FOUND_NUM_EDITS, FOUND_NUM_NAMES, FOUND_ELEMENTS, FOUND_WORK, FOUND_BLOCK_DEPTH, FOUND_LIST_DEPTH = range(6)
FOUND_ARTICLE, FOUND_ITEMS, FOUND_LICENSE, FOUND_SCRIPTS, FOUND_MAIN, FOUND_UNREAD, FOUND_TANGLED = range(6, NUM_FOUND)
MAX_IDENTICAL = 3
"""Formatting elements with the same attributes that the standard opens anew (the Noah's Ark clause)."""
MAX_BOUND = 1 << 60
MAX_CUTS = 4
"""Runs of attributes that are cut out of one tag."""
EDITS_OF_TAG = 4 + MAX_CUTS
"""Edits for each `<`, at most: a cut or a space before it, two names and a mark behind it, and runs of attributes."""

MARK_LINK, MARK_LINK_END, MARK_HEADING, MARK_PARAGRAPH, MARK_CODE, MARK_CODE_END = 1, 2, 3, 4, 5, 6
MARK_BODY, MARK_BODY_END, MARK_NUMBER_END = 14, 15, 16
NOTHING, SPACE, SPACED_LINK, READ, FIRST_NAME = 0, 32, 33, 34, 64
"""What an edit inserts: a mark, these, or the attributes of a name, by its number from FIRST_NAME."""
FIRST_SPAN = 1 << 32
"""An edit of this and the number of a name takes the tag of a span out, unless the name has attributes; one less has no name."""

BLOCK, STRIDE = 128, 32
"""Bytes that are counted at once, fewer than a byte can count; bytes that are searched at once."""
NUM_LINE_FIELDS = 7
KIND_BLANK, KIND_HEADING, KIND_PARAGRAPH, KIND_ITEM, KIND_ROW, KIND_CODE, KIND_OTHER = range(7)
MAX_CLOSERS = 3
MAX_DIGITS = 7


@functools.cache
def known_names(meta_names: frozenset[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """An open-addressing table of packed names, and what is known of each; `meta_names` are those of `meta` elements."""
    names = np.zeros(TABLE_SIZE, dtype=np.uint64)
    facts = np.full(TABLE_SIZE, STACK, dtype=np.int64)
    flags = (
        *((_BARRIERS, IS_BARRIER), (_RAW, IS_RAW), (_HEADINGS, IS_HEADING)),
        *((_CONTAINERS, IS_CONTAINER), (_POINTS, IS_POINT), (_READ, IS_READ), (meta_names, IS_META)),
    )
    stacks = [*_FORMATTING, *_NESTED]
    for text in sorted({*stacks, *itertools.chain.from_iterable(group for group, _ in flags)}):
        slot = (packed(text) * SLOT_FACTOR & (1 << 64) - 1) >> SLOT_SHIFT
        while names[slot]:
            slot = (slot + 1) % TABLE_SIZE
        names[slot] = packed(text)
        facts[slot] = stacks.index(text) if text in stacks else STACK
        facts[slot] += sum(flag for group, flag in flags if text in group)
    return names, facts
