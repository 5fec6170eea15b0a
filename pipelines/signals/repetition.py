"""How much a text repeats itself: the Gopher repetition measures (Rae et al., arXiv:2112.11446, appendix A1).

Lines are what stands between line feeds and is not empty, paragraphs what stands between two or more of them in the
stripped text. Of equal lines the second and every later one is a duplicate. With T the characters of the whole text:

    dup_line_ratio, dup_paragraph_ratio              duplicates / all of them
    dup_line_char_ratio, dup_paragraph_char_ratio    characters of the duplicates / T
    top_n_gram_char_ratio      (n = 2, 3, 4)         characters of the commonest n-gram * its count / T
    dup_n_gram_char_ratio      (n = 5 to 10)         characters of n-grams seen before / T

An n-gram is n words in a row (see words.py), marks included, upper and lower case apart. Of equally common ones the
first in the text is the commonest, also where none occurs twice, so the value is never 0 for a text of n words, and it
can exceed 1 where occurrences overlap. Duplicate n-grams are found by a scan from the left: after one that was seen
before, the scan goes on behind it, else one word further, and only n-grams it stopped at count as seen.

The characters of a top n-gram are its words' and one for each space between them: as datatrove joins words, whether the
text has the space or not ("x," counts three). In unspaced texts that would inflate values by up to (2n - 1) / n, and
has made a published threshold exceed 1, so there only the white space counts that stands where the n-gram first does.
The characters of a duplicate n-gram are its words' alone.
"""

import numpy as np

from pipelines.signals.loops import kernels
from pipelines.signals.quality import LineCounts, count_lines
from pipelines.signals.words import Words

TOP_SIZES = (2, 3, 4)
DUP_SIZES = (5, 6, 7, 8, 9, 10)


def measure_repetition(words: Words, lines: LineCounts | None = None) -> dict[str, float | None]:
    """The repetition fields of SIGNALS for the words of a text; None where there is nothing to divide by.

    `lines` is what `quality.count_lines` found, where that was asked before.
    """
    num_chars = words.num_chars
    if not num_chars:
        return dict.fromkeys(_FIELDS)
    lines = lines or count_lines(words)
    chars = (lines.duplicate_paragraph_chars, lines.duplicate_line_chars, *_n_gram_chars(words))
    paragraph_char_ratio, line_char_ratio, *n_gram_ratios = [count / num_chars for count in chars]
    ratios = (
        lines.duplicate_paragraphs / lines.paragraphs if lines.paragraphs else None,
        paragraph_char_ratio,
        lines.duplicate_lines / lines.lines if lines.lines else None,
        line_char_ratio,
        *n_gram_ratios,
    )
    return dict(zip(_FIELDS, ratios, strict=True))


_FIELDS = (
    "dup_paragraph_ratio",
    "dup_paragraph_char_ratio",
    "dup_line_ratio",
    "dup_line_char_ratio",
    *(f"top_{n}_gram_char_ratio" for n in TOP_SIZES),
    *(f"dup_{n}_gram_char_ratio" for n in DUP_SIZES),
)


def _n_gram_chars(words: Words) -> list[int]:
    """Characters of the top n-grams, then of the duplicate n-grams, in order of n."""
    size, scratch = words.num_words, words.scratch
    room = 1 << (2 * size + 15).bit_length()
    arrays = (
        *(scratch.array("keys", room, np.uint64), scratch.array("counts", room, np.int32)),
        *(scratch.array("slots", size, np.int32), scratch.array("positions", size, np.int32)),
        scratch.array("grams", size, np.uint64),
    )
    chars, at_chars = scratch.array("chars", len(TOP_SIZES) + len(DUP_SIZES), np.int64)
    kernels().n_gram_chars(
        *(words.at_starts, words.at_ends, words.at_hashes, words.at_flags, size, int(not words.unspaced), room - 1),
        *[address for _, address in arrays],
        at_chars,
    )
    found: list[int] = chars[: len(TOP_SIZES) + len(DUP_SIZES)].tolist()
    return found
