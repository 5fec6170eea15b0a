"""The two signals that dedup compares: a digest of the normalised text, and its MinHash signature.

MinHash: Broder, "On the resemblance and containment of documents" (1997). 112 permutations over 5-grams of tokens, as in
FineWeb (arXiv:2406.17557, datatrove). Ours differ in four ways:

- A token is a word where a script puts spaces between words, and a single character where it does
  not (Han, kana, Thai, Lao, Burmese, Khmer, Tibetan, ...). So a Chinese page is compared by its
  character 5-grams, and a page that mixes scripts needs no language to be known.
- Traditional Chinese characters are folded to simplified ones.
- A text of fewer than five tokens is one shingle, so two short texts match only if they are equal.
- A permutation is `a * x + b` modulo 2**32 of a 32-bit shingle hash x, with a odd: a true permutation
  in one SIMD multiplication. x is well mixed, and tests hold the estimate to its binomial error.

The text is normalised, hashed and signed in one compiled pass (`kernels.fold_and_sign`) by a table that says what each
character becomes. Where characters may join with their neighbours (Indic scripts, single jamo, marks in a row) a table
cannot say, and the text is normalised by the interpreter first: the same result at six times the cost.
"""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from pipelines.kept import Array, kept_arrays
from pipelines.schemas import MINHASH_NUM_PERMUTATIONS
from pipelines.signals.bits import (
    FOLDED_CHARACTER,
    FOLDED_DIGIT,
    FOLDED_NONE,
    FOLDED_SEVERAL,
    FOLDED_UNSAFE,
    NUM_FOLDED_CODES,
    SHINGLE_BUFFER,
    SHINGLE_NUM_TOKENS,
)
from pipelines.signals.loops import kernels
from pipelines.signals.variants import VARIANTS, simplified_characters
from pipelines.signals.words import Scratch, Table, table_of

Signature = npt.NDArray[np.uint32]

PERMUTATION_SEED = 0x636F7270  # "corp"; another seed is another signature: raise the version of the signals stage

_MARGIN_NUM_BYTES = 128  # above what one character becomes at most

# Vowel signs and other marks are part of a word, which Python's \w leaves out.
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0711\u0730-\u074a"
    "\u0900-\u0963\u0966-\u0df3\u1a17-\u1a1b\u1b00-\u1b44\u3099\u309a"
)
# Scripts written without spaces between words: Thai, Lao, Tibetan, Myanmar, Khmer, Tai Le to Tai Tham, kana, bopomofo,
# Han, Tangut, Khitan.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u0f00\u0f18\u0f19\u0f35\u0f37\u0f39\u0f3e-\u0f84\u0f86-\u0fbc"
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\u1780-\u17b3\u17b6-\u17d3\u1950-\u1974\u1980-\u19c9\u1a20-\u1a7c"
    "\u3005-\u3007\u3031-\u3035\u3041-\u309f\u30a1-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9fe\uaa60-\uaa7f\uf900-\ufaff\U00016fe0-\U00018cff\U0001aff0-\U0001b16f\U00020000-\U000323af"
)
_PUNCTUATION = re.compile(rf"[^\w{_MARKS}{_UNSPACED}]+")
UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
_DIACRITICS = re.compile("[\u0300-\u036f]+")
_DIGITS = re.compile(r"\d")


def normalize(text: str) -> str:
    """Fold what does not make two texts different: form, case, diacritics, variants, digits, punctuation, white space.

    NFKC and case folding; combining diacritics (U+0300 to U+036F) taken off, while the vowel signs of
    other scripts stay; traditional Chinese characters to simplified; every digit becomes 0; a run of anything but letters, digits, marks and "_" becomes one space.
    """
    return _DIGITS.sub("0", _fold(text))


def text_digest(text: str) -> bytes:
    """Digest of the normalised text, digits kept: 16 bytes. Equal for texts that are exact duplicates.

    A text that normalises to nothing ("!!!", an emoji) is digested as it stands, so that such texts do not collapse.
    """
    return text_digest_and_minhash(text)[0]


def minhash(text: str) -> Signature | None:
    """MinHash signature of a text: uint32[112], or None where the text normalises to nothing."""
    return text_digest_and_minhash(text)[1]


def text_digest_and_minhash(text: str, scratch: Scratch | None = None) -> tuple[bytes, Signature | None]:
    """Both at once: they share the normalisation."""
    scratch = scratch or Scratch()
    folded = _normalised(text, scratch)
    if not len(folded):
        return _digest(text.encode("utf-8", "surrogatepass")), None
    minima, _ = scratch.array("minima", MINHASH_NUM_PERMUTATIONS, np.uint32)
    return _digest(folded.data), minima[:MINHASH_NUM_PERMUTATIONS].copy()


def word_shingles(text: str) -> npt.NDArray[np.uint64]:
    """The distinct shingles that a signature is made of, but with their digits, as sorted 64-bit hashes; at least one."""
    folded = _normalised(text, Scratch()).tobytes().decode("utf-8", "surrogatepass")
    codes = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), np.uint32)
    found, tokens = np.empty(len(codes) + 1, np.uint64), np.empty(SHINGLE_NUM_TOKENS, np.uint64)
    num = kernels().shingle_hashes(
        *(codes.ctypes.data, len(codes), _tables().plain.at, tokens.ctypes.data, found.ctypes.data)
    )
    return np.unique(found[:num])


def _digest(folded: bytes | memoryview) -> bytes:
    return hashlib.blake2b(folded, digest_size=16).digest()


def _normalised(text: str, scratch: Scratch) -> npt.NDArray[np.uint8]:
    """The normalised text, digits kept, in UTF-8; its signature is in `scratch`."""
    tables = _tables()
    length, folded = _folded_and_signed(text, tables.folding, scratch, is_folded=False)
    if length < 0:
        length, folded = _folded_and_signed(_fold(text), tables.plain, scratch, is_folded=True)
    return folded[:length]


def _folded_and_signed(
    text: str, table: Table, scratch: Scratch, *, is_folded: bool
) -> tuple[int, npt.NDArray[np.uint8]]:
    tables, size = _tables(), len(text)
    folded, at_folded = scratch.array("folded", 4 * size + _MARGIN_NUM_BYTES, np.uint8)
    _, at_tokens = scratch.array("tokens", SHINGLE_NUM_TOKENS, np.uint64)
    _, at_shingles = scratch.array("shingles", SHINGLE_BUFFER, np.uint32)
    _, at_minima = scratch.array("minima", MINHASH_NUM_PERMUTATIONS, np.uint32)
    length = kernels().fold_and_sign(
        *(text.encode("utf-32-le", "surrogatepass"), size, table.at, tables.several.at, int(is_folded)),
        *(at_folded, folded.size - _MARGIN_NUM_BYTES, at_tokens, at_shingles),
        *(tables.multipliers.at, tables.offsets.at, at_minima, MINHASH_NUM_PERMUTATIONS),
    )
    return length, folded


def _fold(text: str) -> str:
    """`normalize` but for the digits, which stay."""
    return _PUNCTUATION.sub(" ", _composed(_decomposed(text))).strip()


def _decomposed(text: str) -> str:
    return _DIACRITICS.sub("", unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(simplified_characters())


@dataclass(frozen=True, slots=True)
class _Tables:
    """What the compiled pass reads: see `bits.FOLDED_CODE` and those below it."""

    folding: Table
    """What each code point becomes."""
    plain: Table
    """The same of code points that are folded already."""
    several: Table
    multipliers: Table
    offsets: Table


@functools.cache
def _tables() -> _Tables:
    modules = ("minhash", "variants", "bits", "words", "characters", "contractions")
    arrays = kept_arrays(
        "minhash",
        _made,
        modules=("pipelines.schemas", *(f"pipelines.signals.{module}" for module in modules)),
        files=(VARIANTS,),
        libraries=("xxhash",),
    )
    return _Tables(*(table_of(arrays[name]) for name in _Tables.__slots__))


def _made() -> dict[str, Array]:
    """In 60 ms."""
    plain = _plain_table()
    folding, several = plain.copy(), [0]
    codes = list(_codes_to_ask())
    chars = "\n".join(map(chr, codes))  # a line feed joins with nothing
    decomposed = _decomposed(chars)
    seconds = _seconds_of_compositions()
    for code, apart, together in zip(codes, decomposed.split("\n"), _composed(decomposed).split("\n"), strict=True):
        if apart and (apart[0] in seconds or unicodedata.combining(apart[0])):
            folding[code] = FOLDED_UNSAFE
        elif len(together) == 1:
            folding[code] = plain[ord(together)]
        elif not together:
            folding[code] = FOLDED_NONE
        else:
            folding[code] = FOLDED_SEVERAL | len(several)
            several += [len(together), *(int(plain[ord(char)]) for char in together)]
    folding[ord("\n")] = 0
    folding[ord("A") : ord("Z") + 1] = plain[ord("a") : ord("z") + 1]
    multipliers, offsets = _permutations()
    return {
        "folding": folding,
        "plain": plain,
        "several": np.array(several, np.uint32),
        "multipliers": multipliers,
        "offsets": offsets,
    }


def _plain_table() -> npt.NDArray[np.uint32]:
    table = np.arange(NUM_FOLDED_CODES, dtype=np.uint32)
    chars = "".join(map(chr, range(NUM_FOLDED_CODES)))
    for match in UNSPACED_RUN.finditer(chars):
        table[match.start() : match.end()] |= np.uint32(FOLDED_CHARACTER)
    for match in _DIGITS.finditer(chars):
        table[match.start()] |= np.uint32(FOLDED_DIGIT)
    for match in _PUNCTUATION.finditer(chars):
        table[match.start() : match.end()] = 0
    for variant, char in simplified_characters().items():
        table[variant] = table[ord(char)] if ord(char) < NUM_FOLDED_CODES else ord(char) | FOLDED_CHARACTER
    return table


def _codes_to_ask() -> Iterator[int]:
    """Code points that normalisation may change: neither a unified ideograph nor a Hangul syllable is one."""
    for start, end in ((0x80, 0x3400), (0xA000, 0xAC00), (0xD7A4, 0x20000), (0x2F800, NUM_FOLDED_CODES)):
        yield from range(start, end)


def _seconds_of_compositions() -> set[str]:
    """Characters that may become one with what stands before them."""
    jamo = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}  # by rule, not by table
    pairs = (unicodedata.decomposition(chr(code)).split() for code in _codes_to_ask())
    return jamo | {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}


def _permutations() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """The hash family: 112 odd multipliers and 112 offsets, drawn from the bytes of xxh3 over a counter."""
    counters = (i.to_bytes(4, "little") for i in range(MINHASH_NUM_PERMUTATIONS))
    draws = np.array([xxhash.xxh3_64_intdigest(counter, seed=PERMUTATION_SEED) for counter in counters], np.uint64)
    return (draws >> np.uint64(32)).astype(np.uint32) | np.uint32(1), draws.astype(np.uint32)
