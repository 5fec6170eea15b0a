"""One pass over the source of a page before a parser sees it: what it would cost, what it names, and marks for its text.

The scan follows the tokenizer of the HTML Living Standard (section 13.2.5) as far as it must: tags with their attributes,
comments, elements whose content is text. It changes nothing but what is listed here:

- marks, control characters that no page can send through it, say in the extracted text where links, paragraphs,
  headings and preformatted text begin and end (see blocks.py);
- a text node that is a single arrow, dash, shape or character of an icon font becomes a space;
- classes, read here, are left out, and so are spans that have nothing but a class and hold nothing but text and such
  spans: a fifth of what the parser and the walk over its tree cost, for coloured code is made of them;
- what nobody reads is left out, half of a page's bytes: other attributes, but those of formatting elements save `a`,
  which a parser compares; the content of comments, style sheets and scripts, but scripts that hold data or may hold it;
- `meta` elements that somebody reads are given an attribute, so that the others need not be looked at.

Nothing is left out where a parser may be in another state than the scan (`is_tangled`): after CDATA, tags in text or HTML
inside SVG and MathML, after a script within the comment of a script (script data double escaped), after `frameset`.

Counted are bounds of what a hostile page can cost. A parser compares each attribute of a tag with those before it: one
tag with 100,000 attributes (1 MB) takes resiliparse 18 seconds. And it opens each formatting element that was left open
(`<b>`, `<a>`, `<font>` ...) anew in every block that follows, as the standard asks (section 13.2.4.3): 33 kB of 2,000
distinct `<b>` and 2,000 `<p>` become four million elements in a gigabyte.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.extract import metadata, rights
from pipelines.extract.loops import kernels
from pipelines.extract.tags import (
    EDITS_OF_TAG,
    MARK_BODY,
    MARK_BODY_END,
    MARK_NUMBER_END,
    NUM_FOUND,
    NUM_STACKS,
    known_names,
)

Ints = npt.NDArray[np.int64]

BODY, BODY_END, NUMBER_END = map(chr, (MARK_BODY, MARK_BODY_END, MARK_NUMBER_END))
"""Around the number of an element, set by article.py."""

ATTRIBUTES = ("cm-skip", "cm-talk", "cm-trim", "cm-body", "cm-post")
"""Of elements that are no text of a page, that are comments, that are no text of an article, that hold an article's body,
that are posts of a forum: one for each flag of naming.py, all of one length."""

READ_ATTRIBUTE = "cm-read"
"""Of `meta` elements that may have a name that metadata.py or rights.py reads; as long as the others."""
_META_NAMES = metadata.META_NAMES | rights.META_NAMES
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\n\t\r\f")
_MAX_NAMES = 1024
_MAX_NAME_BYTES = 200
_NUM_SEEN = 4 * _MAX_NAMES  # a power of two


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the source of a page says before it is parsed."""

    num_tags: int
    """`<` in the source."""
    num_elements: int
    """An upper bound of the elements that a parser makes."""
    attribute_work: int
    """Sum, over the tags, of the squares of their numbers of attributes."""
    block_depth: int
    """An upper bound of the `div` and `article` inside one another."""
    list_depth: int
    """The same of lists."""
    has_article: bool
    """An `article` element."""
    has_items: bool
    """Microdata."""
    has_license: bool
    """A `rel` that speaks of a licence."""
    has_scripts: bool
    """JSON-LD, or an RSL document."""
    has_main: bool
    """A `main` element, or one with a role."""
    num_unread: int
    """`meta` elements without READ_ATTRIBUTE."""
    is_tangled: bool
    """A parser may see tags that the scan does not, or the other way about: then nothing more is cut."""
    may_hold_tex: bool
    """`-tex` or `/tex`, as in media types of formulas."""
    names: tuple[tuple[str, bool], ...]
    """Distinct `class` attributes and, where True stands with them, `id` attributes of elements that hold others: at most
    1,024 of at most 200 bytes, in order."""
    source: bytes
    """The page in UTF-8."""
    edits: Ints
    """Where the marks go, and how the source goes on: see kernels.py."""


def scan_source(html: str, *, keeps_classes: bool = False) -> Scan:
    """Scan the source of a page. Time is linear in the page; memory is about five times its bytes.

    `keeps_classes`: somebody will ask the tree for a class.
    """
    raw = html.encode("utf-8", "replace")
    counts = np.empty(3, dtype=np.int64)
    kernels().survey(raw, len(raw), counts.ctypes.data)
    num_tags, num_controls, num_tex = counts.tolist()
    if num_controls:
        raw = raw.translate(None, _CONTROLS)
    edits = np.empty((EDITS_OF_TAG * num_tags + 1, 3), dtype=np.int64)
    names = np.empty((_MAX_NAMES, 3), dtype=np.int64)
    found = np.zeros(NUM_FOUND, dtype=np.int64)
    known, facts = known_names(_META_NAMES)
    num_slots = 1 << (2 * num_tags + 2).bit_length()
    rooms = (
        np.full(NUM_STACKS, -1, dtype=np.int64),
        np.empty(2 * num_tags + 2, dtype=np.int64),
        np.empty(num_tags + 1, dtype=np.uint64),
        np.zeros(num_slots, dtype=np.uint64),
        np.zeros(num_slots, dtype=np.int32),
        np.empty(num_tags + 1, dtype=np.int64),
    )
    seen, numbers = np.zeros(_NUM_SEEN, dtype=np.uint64), np.zeros(_NUM_SEEN, dtype=np.int32)
    kernels().scan(
        raw,
        len(raw),
        *(array.ctypes.data for array in (known, facts, edits, names)),
        _MAX_NAMES,
        *(array.ctypes.data for array in (found, *rooms)),
        num_slots - 1,
        int(keeps_classes),
        seen.ctypes.data,
        numbers.ctypes.data,
        _NUM_SEEN - 1,
        _MAX_NAME_BYTES,
    )
    num_edits, num_names, num_elements, work, block_depth, list_depth, *said, num_unread, tangled = found.tolist()
    article, items, rel, scripts, main = map(bool, said)
    return Scan(
        num_tags=num_tags,
        num_elements=max(num_tags, num_elements),
        attribute_work=work,
        block_depth=block_depth,
        list_depth=list_depth,
        has_article=article,
        has_items=items,
        has_license=rel,
        has_scripts=scripts,
        has_main=main,
        num_unread=num_unread,
        is_tangled=bool(tangled),
        may_hold_tex=num_tex > 0,
        names=tuple([(raw[start:end].decode(), kind == 1) for start, end, kind in names[:num_names].tolist()]),
        source=raw,
        edits=edits[:num_edits],
    )


def marked_source(scan: Scan, kinds: Sequence[int]) -> bytes:
    """The page with marks, and with the attributes ATTRIBUTES on elements whose class or id has flags in `kinds`."""
    attributes = "".join(f" {name}" for name in (*ATTRIBUTES, READ_ATTRIBUTE)).encode()
    size = len(scan.source) + len(scan.edits) * max(2, len(attributes))
    out = np.empty(size, dtype=np.uint8)
    num_bytes = kernels().apply_edits(
        scan.source,
        len(scan.source),
        scan.edits.ctypes.data,
        len(scan.edits),
        bytes(kinds) or b"\0",
        attributes,
        len(ATTRIBUTES) + 1,
        len(attributes) // (len(ATTRIBUTES) + 1),
        out.ctypes.data,
    )
    return out[:num_bytes].tobytes()
