"""One form of text for all that follows: NFC, `\\n` line ends, no control characters, no trailing spaces."""

import functools
import re
import unicodedata

_LINE_ENDS = ("\r\n", "\r", "\x0c", "\u2028", "\u2029")
_REMOVED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufeff\ufffe\uffff]")
_ASCII_REMOVED = bytes(byte for byte in range(128) if byte not in b"\t\n" and (byte < 32 or byte == 127))
_TRAILING = (" \n", "\t\n")
_NO_BREAK_SPACES = ("\xa0", "\u202f")
_END_OF_MARKS = 0x20000  # the planes above hold ideographs and what combines with nothing
_MAX_COMBINING = 30
"""Marks on one character (the Stream-Safe Text Format, UAX 15): `unicodedata` sorts a run of n marks in n squared."""


def normalize(text: str) -> str:
    """`text` in NFC without control characters, trailing spaces, and more than one blank line in a row."""
    text = _plain(text) if text.isascii() else _composed(text)
    if any(ending in text for ending in _TRAILING) or not text.isascii():
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    else:
        text = text.rstrip()
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip("\n")


def _plain(text: str) -> str:
    """ASCII with line feeds at its line ends and without control characters."""
    raw = text.encode("ascii")
    if b"\r" in raw or b"\f" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\f", b"\n")
    return raw.translate(None, _ASCII_REMOVED).decode("ascii")


def _composed(text: str) -> str:
    for line_end in _LINE_ENDS:  # `replace` finds nothing ten times as fast as a pattern does
        text = text.replace(line_end, "\n")
    text = _REMOVED.sub("", text)
    suspected, long_runs = _mark_runs()
    if suspected.search(text):
        text = long_runs.sub(r"\1", text)
    for space in _NO_BREAK_SPACES:
        text = text.replace(space, " ")
    return unicodedata.normalize("NFC", text)


def one_line(text: str, max_num_chars: int) -> str:
    """`text` normalised, on one line, cut at `max_num_chars`."""
    return " ".join(normalize(text[: 4 * max_num_chars]).split())[:max_num_chars]


@functools.cache
def _mark_runs() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What may be a run of combining marks that is too long, quick to search for; and what is one, split in two."""
    marks = "".join(chr(code) for code in range(_END_OF_MARKS) if unicodedata.combining(chr(code)))
    basic = "".join(mark for mark in marks if mark <= "\uffff")
    suspected = re.compile(f"[{basic}\U00010000-\U0010ffff]{{{_MAX_COMBINING + 1}}}")
    return suspected, re.compile(f"([{marks}]{{{_MAX_COMBINING}}})[{marks}]+")
