"""WikiText's pages, and their text as people write it: the corpus (arXiv:1609.07843) has spaces around marks and in headings.

Perplexities of WikiText are compared after this and divided by the words and bytes of the page before it, as
lm-evaluation-harness does; the rules are those of its task `wikitext`, in its order.
"""

import re
from itertools import pairwise

_TITLE = re.compile(r"^ = (?!=)[^\n]*(?<!=) = ?$", re.MULTILINE)
_LITERAL_FIRST = (
    ("s '", "s'"),
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    *((f" {mark} ", f"{mark} ") for mark in ":;.!?,"),
)
_BRACKETS = tuple(
    (re.compile(rf"{opening}\s*([^{closing}]*?)\s*{closing}"), rf"{left}\1{right}")
    for opening, closing, left, right in (
        (r"\(", r"\)", "(", ")"),
        (r"\[", r"\]", "[", "]"),
        ("{", "}", "{", "}"),
        ('"', '"', '"', '"'),
        ("'", "'", "'", "'"),
    )
)
_LITERAL_LAST = (
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)


def pages(text: str) -> list[str]:
    """A file of WikiText as its pages, each with its title; text before the first title is one, too."""
    starts = [found.start() for found in _TITLE.finditer(text)]
    edges = [0, *starts, len(text)]
    return [page for start, end in pairwise(edges) if (page := text[start:end]).strip()]


def detokenized(page: str) -> str:
    """A page without the corpus's spaces around marks."""
    for old, new in _LITERAL_FIRST:
        page = page.replace(old, new)
    for pattern, new in _BRACKETS:
        page = pattern.sub(new, page)
    for old, new in _LITERAL_LAST:
        page = page.replace(old, new)
    return page


def num_words(page: str) -> int:
    """Pieces between runs of spaces, as the harness counts them: one more where a page begins or ends with a space."""
    return len(re.split(r"\s+", page))
