"""One form of text for all that follows: NFC, `\\n` line ends, no control characters, no trailing spaces."""

import functools
import re
import unicodedata

import numpy as np
import numpy.typing as npt

from pipelines.kept import kept_arrays

_LINE_ENDS = ("\r\n", "\r", "\x0c", "\u2028", "\u2029")
_REMOVED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufeff\ufffe\uffff]")
_ASCII_REMOVED = bytes(byte for byte in range(128) if byte not in b"\t\n" and (byte < 32 or byte == 127))
_TRAILING = (" \n", "\t\n")
_NO_BREAK_SPACES = ("\xa0", "\u202f")
_LINE_END, _UNWANTED, _MARK, _SPACE, _ODD_SPACE = 1, 2, 4, 8, 16
_END_OF_MARKS = 0x20000  # the planes above hold ideographs and what combines with nothing
_MAX_COMBINING = 30
"""Marks on one character (the Stream-Safe Text Format, UAX 15): `unicodedata` sorts a run of n marks in n squared."""


def normalize(text: str) -> str:
    """`text` in NFC without control characters, trailing spaces, and more than one blank line in a row."""
    text, has_odd_space = (_plain(text), False) if text.isascii() else _composed(text)
    if has_odd_space or any(ending in text for ending in _TRAILING):
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


def _composed(text: str) -> tuple[str, bool]:
    """The text in NFC, and whether white space that is neither ASCII nor a no-break space may be left in it."""
    # One look at all characters says which of the steps below have anything to do: for most texts, none.
    codes = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    held = int(np.bitwise_or.reduce(_classes().take(codes)))
    if held & _LINE_END:
        for line_end in _LINE_ENDS:
            text = text.replace(line_end, "\n")
    if held & _UNWANTED:
        text = _REMOVED.sub("", text)
    if held & _MARK:
        text = _long_mark_runs().sub(r"\1", text)
    if held & _SPACE:
        for space in _NO_BREAK_SPACES:
            text = text.replace(space, " ")
    return unicodedata.normalize("NFC", text), bool(held & _ODD_SPACE)


def one_line(text: str, max_num_chars: int) -> str:
    """`text` normalised, on one line, cut at `max_num_chars`."""
    return " ".join(normalize(text[: 4 * max_num_chars]).split())[:max_num_chars]


@functools.cache
def _long_mark_runs() -> re.Pattern[str]:
    """A run of combining marks that is too long, split in two."""
    marks = "".join(chr(code) for code in range(_END_OF_MARKS) if unicodedata.combining(chr(code)))
    return re.compile(f"([{marks}]{{{_MAX_COMBINING}}})[{marks}]+")


@functools.cache
def _classes() -> npt.NDArray[np.uint8]:
    """What each UTF-16 code unit may be; a surrogate stands for a character that may be a mark."""
    made = kept_arrays("normalize", lambda: {"classes": _made_classes()}, modules=("pipelines.extract.normalize",))
    return made["classes"]


def _made_classes() -> npt.NDArray[np.uint8]:
    table = np.zeros(1 << 16, dtype=np.uint8)
    chars = list(map(chr, range(1 << 16)))
    table[[char in _LINE_ENDS for char in chars]] |= _LINE_END
    table[[_REMOVED.match(char) is not None for char in chars]] |= _UNWANTED
    table[[unicodedata.combining(char) != 0 for char in chars]] |= _MARK
    table[0xD800:0xE000] |= _MARK
    table[[char in _NO_BREAK_SPACES for char in chars]] |= _SPACE
    table[[char.isspace() and char not in (" ", "\t", "\n", *_NO_BREAK_SPACES) for char in chars]] |= _ODD_SPACE
    return table
