"""One pass over the source of a page before a parser sees it: what it would cost, what it names, and marks for its text.

The scan follows the tokenizer of the HTML Living Standard (section 13.2.5) as far as it must: tags with their attributes,
comments, elements whose content is text. It changes nothing but what is listed here:

- marks, control characters that no page can send through it, say in the extracted text where links, paragraphs,
  headings and preformatted text begin and end (see blocks.py);
- a text node that is a single arrow, dash, shape or character of an icon font becomes a space.

Counted are bounds of what a hostile page can cost. A parser compares each attribute of a tag with those before it: one
tag with 100,000 attributes (1 MB) takes resiliparse 18 seconds. And it opens each formatting element that was left open
(`<b>`, `<a>`, `<font>` ...) anew in every block that follows, as the standard asks (section 13.2.4.3): 33 kB of 2,000
distinct `<b>` and 2,000 `<p>` become four million elements in a gigabyte.
"""

from dataclasses import dataclass

import numpy as np

LINK, LINK_END, HEADING, PARAGRAPH, CODE, CODE_END = "\x01", "\x02", "\x03", "\x04", "\x05", "\x06"
BODY, BODY_END, NUMBER_END = "\x0e", "\x0f", "\x10"
"""Around the number of an element, set by article.py."""

_WHITE_SPACE = (b"\n", b"\t", b"\r", b"\f")
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\n\t\r\f")
_MAX_NAMES = 4096
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the source of a page says before it is parsed."""

    marked: str
    """The page with marks."""
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
    classes: tuple[str, ...]
    """Distinct `class` attributes, at most 4,096 of at most 200 bytes, in order."""
    ids: tuple[str, ...]
    """Distinct `id` attributes of elements that hold others, likewise."""


def scan_source(html: str) -> Scan:
    """Scan the source of a page. Time is linear in the page, memory about six times its bytes."""
    from pipelines.extract.scan_kernel import NUM_FIELDS, scan

    raw = html.encode("utf-8", "replace")
    source = np.frombuffer(raw, dtype=np.uint8)
    if np.count_nonzero(source < ord(" ")) > sum(map(raw.count, _WHITE_SPACE)):
        raw = raw.translate(None, _CONTROLS)
        source = np.frombuffer(raw, dtype=np.uint8)
    num_tags = int(np.count_nonzero(source == ord("<")))
    marked = np.empty(source.size + 2 * num_tags + 16, dtype=np.uint8)
    names = np.empty((_MAX_NAMES, 3), dtype=np.int64)
    found = np.zeros(NUM_FIELDS, dtype=np.int64)
    scan(source, num_tags, marked, names, found, _MAX_NAME_BYTES)
    size, num_names, num_elements, work, block_depth, list_depth, article, items, rel, scripts = found.tolist()
    spans = names[:num_names].tolist()
    return Scan(
        marked=marked[:size].tobytes().decode(),
        num_tags=num_tags,
        num_elements=max(num_tags, num_elements),
        attribute_work=work,
        block_depth=block_depth,
        list_depth=list_depth,
        has_article=bool(article),
        has_items=bool(items),
        has_license=bool(rel),
        has_scripts=bool(scripts),
        classes=_strings(raw, spans, 0),
        ids=_strings(raw, spans, 1),
    )


def _strings(raw: bytes, spans: list[list[int]], kind: int) -> tuple[str, ...]:
    return tuple([raw[start:end].decode() for start, end, of in spans if of == kind])
