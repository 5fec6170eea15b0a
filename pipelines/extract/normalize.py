"""One form of text for all that follows: NFC, `\\n` line ends, no control characters, no trailing spaces."""

import functools
import re
import sys
import unicodedata

_LINE_ENDS = re.compile("[\r\x0c\u2028\u2029]")
_REMOVED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufeff\ufffe\uffff]")
_NO_BREAK_SPACES = re.compile("[\xa0\u202f]")
_BLANK_LINES = re.compile(r"\n{3,}")
_MAX_COMBINING = 30
"""Marks on one character (the Stream-Safe Text Format, UAX 15): `unicodedata` sorts a run of n marks in n squared."""


def normalize(text: str) -> str:
    """`text` in NFC without control characters, trailing spaces, and more than one blank line in a row."""
    text = _REMOVED.sub("", _LINE_ENDS.sub("\n", text.replace("\r\n", "\n")))
    if not text.isascii():
        suspected, long_runs = _mark_runs()
        if suspected.search(text):
            text = long_runs.sub(r"\1", text)
        text = unicodedata.normalize("NFC", _NO_BREAK_SPACES.sub(" ", text))
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


def one_line(text: str, max_num_chars: int) -> str:
    """`text` normalised, on one line, cut at `max_num_chars`."""
    return " ".join(normalize(text[: 4 * max_num_chars]).split())[:max_num_chars]


@functools.cache
def _mark_runs() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What may be a run of combining marks that is too long, quick to search for; and what is one, split in two."""
    marks = "".join(chr(code) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code)))
    basic = "".join(mark for mark in marks if mark <= "\uffff")
    suspected = re.compile(f"[{basic}\U00010000-\U0010ffff]{{{_MAX_COMBINING + 1}}}")
    return suspected, re.compile(f"([{marks}]{{{_MAX_COMBINING}}})[{marks}]+")
