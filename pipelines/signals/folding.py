"""One form for the many spellings of a word: what a search for listed words looks at instead of the text.

NFKC and lower case (UAX #15), traditional Chinese to simplified, nothing invisible, no dots between Chinese
characters, look-alike letters of other alphabets inside Latin words. Every character goes through one table, so that
a megabyte costs milliseconds; only characters that combine with their neighbours are looked at one by one.

Must not: be shown or stored as the text. It is for matching both sides alike.
"""

import ctypes
import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.kept import Array, kept_arrays
from pipelines.signals.bits import (
    FOLDED_LOOK_ALIKE,
    FOLDED_NONE,
    FOLDED_SEVERAL,
    FOLDED_UNSAFE,
    NUM_FOLDED_CODES,
)
from pipelines.signals.loops import kernels
from pipelines.signals.words import Table, table_of

Ints = npt.NDArray[np.int64]
CodePoints = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]

VARIANTS = Path(__file__).parent / "lexicons" / "variants" / "simplified.txt"
_NUM_TABLE = NUM_FOLDED_CODES  # planes 0 to 2; above them lie few characters, and none that is folded to another
_MAX_CLUSTER_CHARS = 32
"""A character and the marks on it that are normalised together; text that is safe to stream has 30 marks (UAX #15)."""
_MAX_DOTS = 3
"""Dots between two Chinese characters that are left out."""
_DOTS = " \t.·・•*_~+|/\\^-"  # after NFKC. Not the comma: it parts clauses, and 太傻，逼得 is no insult
_INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\ufe00-\ufe0f\u2800"
"""What shows nothing, beside the format characters (category Cf)."""
_HAN_RANGES = ((0x3005, 0x3006), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x323B0))

_LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁһӏԛԝгпкмтвнαοενικρτυχωϲ",
    "aeopcyxijsdhlqwrnkmtbhaoevikptuxwc",
)
"""Cyrillic and Greek small letters to the Latin ones they are taken for; only where a word mixes them with Latin."""
_MIXED_WORD = re.compile(r"[a-z\u0370-\u03ff\u0400-\u052f]+")
_LOOK_ALIKE = re.compile(f"[{''.join(map(chr, _LOOK_ALIKES))}]")
_LATIN = re.compile("[a-z]")


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded text, and where each of its characters stood."""

    text: str
    starts: Ints | None
    """(chars,) index of each character in the text that was folded; None: the same."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the original that a stretch of the folded text stands for; `end` above `start`."""
        if self.starts is None:
            return start, end
        return int(self.starts[start]), int(self.starts[end - 1]) + 1


def fold(text: str) -> Folded:
    """Fold a text. It is the same for all spellings that a reader takes for one word; see the module's docstring."""
    if text.isascii():
        return Folded(text.lower(), None)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    table = _table()
    known = np.minimum(codes, _NUM_TABLE - 1)
    folded, widths = table.folded[known], table.widths[known].astype(np.int64)
    starts: Ints = np.arange(len(codes))
    beyond = codes >= _NUM_TABLE
    if beyond.any():
        folded[beyond], widths[beyond] = codes[beyond], np.where(_is_tag(codes[beyond]), 0, 1)
    expansions = _clusters(text, table.joins[known], widths) | {
        idx: table.expansions[int(codes[idx])]
        for idx in np.flatnonzero(table.expands[known] & ~beyond).tolist()
        if widths[idx] > 1
    }
    for idx, expansion in expansions.items():
        widths[idx] = len(expansion)
    if not (widths == 1).all():
        starts = np.repeat(starts, widths)
        placed = np.cumsum(widths) - widths
        folded = np.repeat(folded, widths)
        for idx, expansion in expansions.items():
            place = int(placed[idx])
            folded[place : place + len(expansion)] = [ord(char) for char in expansion]
    kept = _without_dots(folded)
    if kept is not None:
        folded, starts = folded[kept], starts[kept]
    result = folded.tobytes().decode("utf-32-le", "surrogatepass")
    if table.look_alikes[np.minimum(folded, _NUM_TABLE - 1)].any():
        result = _without_look_alikes(result)
    return Folded(result, starts)


def fold_to_text(text: str) -> str:
    """The text of `fold`, without a note of where its characters stood: several times as fast."""
    if text.isascii():
        return text.lower()
    tables, size = _compiled_tables(), len(text)
    out = np.empty(size + _ROOM_NUM_CHARS, np.uint32)
    address = out.ctypes.data
    codes = text.encode("utf-32-le", "surrogatepass")
    found = kernels().fold_text(codes, size, tables.folding.at, tables.several.at, address, size)
    if found < 0:
        return fold(text).text
    num = kernels().without_dots(address, found // 2, tables.dots.at, _MAX_DOTS)
    result: str = _text_of()(4, address, num)
    return _without_look_alikes(result) if found % 2 else result


@functools.cache
def _text_of() -> Callable[[int, int, int], str]:
    """The interpreter's own way to a text from code points of so many bytes: five times as fast as decoding UTF-32."""
    make = ctypes.pythonapi.PyUnicode_FromKindAndData
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_int, ctypes.c_void_p, ctypes.c_ssize_t)
    return make


_ROOM_NUM_CHARS = 64
"""Above what one character becomes at most."""


@dataclass(frozen=True, slots=True)
class _CompiledTables:
    """`_Table` as the compiled loops read it: `bits.FOLDED_CODE` and those below it."""

    folding: Table
    several: Table
    dots: Table
    """1 for a dot, 2 for a Chinese character."""


@functools.cache
def _compiled_tables() -> _CompiledTables:
    arrays = _arrays()
    return _CompiledTables(table_of(arrays["folding"]), table_of(arrays["several"]), table_of(arrays["dots"]))


def _for_loops(table: "_Table") -> dict[str, Array]:
    folding, several = table.folded.copy(), [0]
    beyond = folding >= _NUM_TABLE
    folding[table.look_alikes[np.where(beyond, 0, folding)]] |= np.uint32(FOLDED_LOOK_ALIKE)
    for code, expansion in table.expansions.items():
        folding[code] = FOLDED_SEVERAL | len(several)
        parts = [ord(char) | (FOLDED_LOOK_ALIKE if table.look_alikes[ord(char)] else 0) for char in expansion]
        several += [len(parts), *parts]
    folding[table.widths == 0] = FOLDED_NONE
    folding[table.joins | beyond] = FOLDED_UNSAFE
    every = np.arange(_NUM_TABLE, dtype=np.uint32)
    dots = _is_han(every).astype(np.uint8) * np.uint8(2)
    dots[[ord(char) for char in _DOTS]] = 1
    return {"folding": folding, "several": np.array(several, np.uint32), "dots": dots}


@dataclass(frozen=True, slots=True)
class _Table:
    """What becomes of each code point below _NUM_TABLE."""

    folded: CodePoints
    widths: npt.NDArray[np.uint8]  # characters it becomes: 0 invisible, 1 most, or the length of its expansion
    expands: Flags  # it becomes several
    joins: Flags  # it may combine with what stands before it
    look_alikes: Flags
    expansions: dict[int, str]


@functools.cache
def _table() -> _Table:
    arrays = _arrays()
    texts = iter(arrays["expansion_chars"].tobytes().decode("utf-32-le"))
    codes, lengths = arrays["expansion_codes"].tolist(), arrays["expansion_lengths"].tolist()
    expansions = {code: "".join(islice(texts, length)) for code, length in zip(codes, lengths, strict=True)}
    return _Table(expansions=expansions, **{name: arrays[name] for name in _ARRAYS})


_ARRAYS = ("folded", "widths", "expands", "joins", "look_alikes")


@functools.cache
def _arrays() -> Mapping[str, Array]:
    modules = ("folding", "bits", "words", "characters", "contractions")
    return kept_arrays(
        "folding", _made, modules=[f"pipelines.signals.{module}" for module in modules], files=(VARIANTS,)
    )


def _made() -> dict[str, Array]:
    table = _made_table()
    expansions = {
        "expansion_codes": np.array(list(table.expansions), np.uint32),
        "expansion_lengths": np.array(list(map(len, table.expansions.values())), np.int64),
        "expansion_chars": np.frombuffer("".join(table.expansions.values()).encode("utf-32-le"), np.uint32),
    }
    return {name: getattr(table, name) for name in _ARRAYS} | expansions | _for_loops(table)


def _made_table() -> _Table:
    """From the interpreter's own Unicode data and the table of variants: about 0.1 s."""
    folded = np.arange(_NUM_TABLE, dtype=np.uint32)
    widths = np.ones(_NUM_TABLE, np.uint8)
    joins = np.zeros(_NUM_TABLE, np.bool_)
    expansions: dict[int, str] = {}
    simplified = simplified_characters()
    folded[list(simplified)] = [ord(char) for char in simplified.values()]
    for code in _codes_to_ask():
        char = chr(code)
        category = unicodedata.category(char)
        if category in ("Cn", "Co", "Cs"):
            continue
        if unicodedata.combining(char):
            joins[code] = True
        parts = unicodedata.decomposition(char).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            joins[int(parts[1], 16)] = True
        result = _folded_cluster(char)
        if not result:
            widths[code] = 0
        elif len(result) == 1:
            folded[code] = ord(result)
        else:
            expansions[code], widths[code] = result, len(result)
        compatible = unicodedata.normalize("NFKC", char)
        joins[code] |= bool(unicodedata.combining(compatible[0]))
    folded[ord("A") : ord("Z") + 1] += 32
    joins[0x1161:0x1176] = joins[0x11A8:0x11C3] = True  # jamo compose by rule, not by table
    look_alikes = np.zeros(_NUM_TABLE, np.bool_)
    look_alikes[list(_LOOK_ALIKES)] = True
    expands = np.zeros(_NUM_TABLE, np.bool_)
    expands[list(expansions)] = True
    return _Table(folded, widths, expands, joins, look_alikes, expansions)


def _codes_to_ask() -> Iterator[int]:
    """Code points that NFKC or lower case may change: neither a unified ideograph nor a Hangul syllable is one."""
    unchanged = ((0x3400, 0xA000), (0xAC00, 0xD7A4), (0x20000, 0x2F800))
    start = 0x80
    for first, end in unchanged:
        yield from range(start, first)
        start = end
    yield from range(start, _NUM_TABLE)


def _folded_cluster(chars: str) -> str:
    """Characters that are normalised together: NFKC, lower case, simplified, nothing invisible."""
    plain = unicodedata.normalize("NFKC", chars).lower().translate(simplified_characters())
    return "".join(char for char in plain if not _is_invisible(char))


@functools.cache
def simplified_characters() -> dict[int, str]:
    """Code point to the character it folds to, traditional to simplified; the final sigma is the other one."""
    pairs = {ord("ς"): "σ"}
    for line in VARIANTS.read_text(encoding="utf-8").splitlines():
        for group in () if line.startswith("#") else line.split():
            pairs |= {ord(char): group[0] for char in group[1:]}
    return pairs


_INVISIBLE_PATTERN = re.compile(f"[{_INVISIBLE}]")


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) == "Cf" or _INVISIBLE_PATTERN.match(char) is not None


def _is_tag(codes: CodePoints) -> Flags:
    """Tags and the variation selectors of plane 14."""
    flags: Flags = (codes >= 0xE0000) & (codes < 0xE0200)
    return flags


def _clusters(text: str, joins: Flags, widths: Ints) -> dict[int, str]:
    """What characters with marks on them become, by the index of the first; the marks' own widths are set to 0."""
    marks = np.flatnonzero(joins)
    if not len(marks):
        return {}
    expansions: dict[int, str] = {}
    edges = np.flatnonzero(np.diff(marks) > 1) + 1
    firsts, lasts = marks[np.concatenate(([0], edges))], marks[np.concatenate((edges - 1, [len(marks) - 1]))]
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        start = max(first - 1, 0)
        widths[start : last + 1] = 0
        for part in range(start, last + 1, _MAX_CLUSTER_CHARS):
            expansions[part] = _folded_cluster(text[part : min(part + _MAX_CLUSTER_CHARS, last + 1)])
    return expansions


def _without_dots(codes: CodePoints) -> Flags | None:
    """Which characters stay when up to _MAX_DOTS dots between two Chinese characters go; None: all."""
    is_dot = np.zeros(0x3100, np.bool_)
    is_dot[[ord(char) for char in _DOTS]] = True
    dots = np.flatnonzero(is_dot[np.minimum(codes, 0x30FF)] & (codes < 0x30FF))
    if not len(dots):
        return None
    edges = np.flatnonzero(np.diff(dots) > 1) + 1
    firsts, lasts = dots[np.concatenate(([0], edges))], dots[np.concatenate((edges - 1, [len(dots) - 1]))]
    inside = (firsts > 0) & (lasts < len(codes) - 1) & (lasts - firsts < _MAX_DOTS)
    firsts, lasts = firsts[inside], lasts[inside]
    between = _is_han(codes[firsts - 1]) & _is_han(codes[lasts + 1])
    if not between.any():
        return None
    change = np.zeros(len(codes) + 1, np.int8)
    change[firsts[between]] += 1
    change[lasts[between] + 1] -= 1
    stays: Flags = np.cumsum(change[:-1]) == 0
    return stays


def _is_han(codes: CodePoints) -> Flags:
    flags = np.zeros(len(codes), np.bool_)
    for first, end in _HAN_RANGES:
        flags |= (codes >= first) & (codes < end)
    return flags


def _without_look_alikes(text: str) -> str:
    """Only words with such a letter are looked at: there are few."""
    pieces: list[str] = []
    end = 0
    for match in _LOOK_ALIKE.finditer(text):
        start = match.start()
        if start < end:
            continue
        while start > end and _MIXED_WORD.match(text[start - 1]):
            start -= 1
        word = _MIXED_WORD.match(text, start)
        if word is not None:
            pieces += (text[end:start], _latin_word(word))
            end = word.end()
    return "".join((*pieces, text[end:]))


def _latin_word(match: re.Match[str]) -> str:
    word = match[0]
    return word.translate(_LOOK_ALIKES) if _LATIN.search(word) else word
