"""Finding a quoted text in documents without holding the quotation.

Text is folded to what a reader takes for the same: NFKC (full width), letter case, traditional to simplified Chinese,
and nothing but letters and digits, so that line breaks, spaces, hyphens and punctuation do not matter. Of a quotation
its length, a polynomial hash modulo 2**64 and a digest are kept. All windows of a text are compared by the hash at once
(Karp and Rabin 1987), and what matches is confirmed by the digest. A short or common quotation can be guessed from them.
"""

import functools
import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.errors import ConfigError
from pipelines.signals.variants import simplified_characters

Codes = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]

MIN_NUM_CHARS = 20
"""Folded characters of a quotation, at least: fewer stand in too many pages."""
MIN_NUM_HAN = 8
"""Likewise, where all of them are Chinese characters."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_DIGEST_NUM_BYTES = 16
_NUM_CODES = 0x110000
_SEVERAL = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True, slots=True, order=True)
class Quote:
    """What is kept of a quotation."""

    num_chars: int
    """Its length, folded."""
    rolling: str
    """Its polynomial hash modulo 2**64: 16 hex characters."""
    digest: str
    """BLAKE2b of it, folded: 32 hex characters."""


def fold(text: str) -> Codes:
    """The folded text as code points."""
    folded = _table()[_codes(text)]
    if not text.isascii() and folded.size and folded.max() == _SEVERAL:
        folded = _letters()[_codes(_normal(text))]
    return folded[folded != 0]


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _normal(text: str) -> str:
    """NFKC and case folding, of a whole text: twenty times slower than a table."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def quote_of(text: str) -> Quote:
    """What is kept of a quotation. Raises ConfigError where it is too short to name a text."""
    codes = fold(text)
    is_han = all(0x3400 <= code < 0xA000 or code >= 0x20000 for code in codes.tolist())
    least = MIN_NUM_HAN if is_han and len(codes) else MIN_NUM_CHARS
    if len(codes) < least:
        raise ConfigError(
            f"got a quotation of {len(codes)} letters and digits, wanted at least {MIN_NUM_CHARS} "
            f"({MIN_NUM_HAN} Chinese characters): quote more of the text."
        )
    return Quote(len(codes), f"{int(_prefixes(codes)[-1]):016x}", _digest(codes))


def holds_any(text: str, quotes: Sequence[Quote]) -> bool:
    """Whether one of the quotations stands in a text."""
    if not quotes or len(text) * 18 < min(quote.num_chars for quote in quotes):  # NFKC makes 18 of one at most
        return False
    codes = fold(text)
    prefixes = _prefixes(codes)
    return any(_holds(codes, prefixes, quote) for quote in quotes)


def _holds(codes: Codes, prefixes: Hashes, quote: Quote) -> bool:
    num_windows = len(codes) - quote.num_chars + 1
    if num_windows < 1:
        return False
    # A window that starts at i hashes to its own polynomial times _BASE**i.
    windows = prefixes[quote.num_chars :] - prefixes[:num_windows]
    wanted = np.uint64(int(quote.rolling, 16)) * _powers(len(codes))[:num_windows]
    starts = np.flatnonzero(windows == wanted).tolist()
    return any(_digest(codes[start : start + quote.num_chars]) == quote.digest for start in starts)


def _prefixes(codes: Codes) -> Hashes:
    """(chars + 1,) polynomial hash of each beginning."""
    prefixes = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * _powers(len(codes)), out=prefixes[1:])
    return prefixes


def _powers(num: int) -> Hashes:
    return _powers_to(1 << max(num, 1 << 16).bit_length())[:num]


@functools.lru_cache(maxsize=1)
def _powers_to(num: int) -> Hashes:
    powers = np.full(num, _BASE)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


@functools.cache
def _table() -> Codes:
    """What becomes of each code point: 0 for nothing, `_SEVERAL` where that takes its neighbours, or more than one.

    Made once a process, from the interpreter's own Unicode data: about 0.4 s.
    """
    table = _letters().copy()
    joining = _joining()
    for code in _codes_to_ask():
        normal = _normal(chr(code))
        letters = [char for char in normal if char.isalnum()]
        if code in joining or not joining.isdisjoint(map(ord, normal)) or len(letters) > 1:
            table[code] = _SEVERAL
        else:
            table[code] = ord(letters[0]) if letters else 0
    for code, simple in simplified_characters().items():
        table[code] = ord(simple)
    # A character that becomes one that has a simpler form.
    asked = np.fromiter(_codes_to_ask(), np.int64)
    targets = table[asked]
    table[asked] = np.where(targets < _NUM_CODES, table[np.minimum(targets, _NUM_CODES - 1)], targets)
    return table


@functools.cache
def _letters() -> Codes:
    """What becomes of each code point of normal text: a letter or digit itself, or its simplified form; 0 for the others."""
    kept = np.fromiter(map(str.isalnum, map(chr, range(_NUM_CODES))), np.bool_, _NUM_CODES)
    table = np.where(kept, np.arange(_NUM_CODES, dtype=np.uint32), np.uint32(0))
    simplified = simplified_characters()
    table[list(simplified)] = [ord(char) for char in simplified.values()]
    return table


def _joining() -> frozenset[int]:
    """Code points that may become one with what stands before them (UAX #15): marks, and parts of syllables."""
    found = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # jamo compose by rule, not by table
    for code in _codes_to_ask():
        char = chr(code)
        parts = unicodedata.decomposition(char).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(int(parts[1], 16))
        if unicodedata.combining(char):
            found.add(code)
    return frozenset(found)


def _codes_to_ask() -> Iterator[int]:
    """Code points that may become others: no unified ideograph, no Hangul syllable, none above plane 2."""
    for first, end in ((0, 0x3400), (0xA000, 0xAC00), (0xD7A4, 0xD800), (0xE000, 0x20000), (0x2F800, 0x2FA20)):
        yield from range(first, end)


def _digest(codes: Codes) -> str:
    return hashlib.blake2b(codes.astype("<u4").tobytes(), digest_size=_DIGEST_NUM_BYTES, person=b"quote").hexdigest()
