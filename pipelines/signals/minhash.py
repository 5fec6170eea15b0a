"""The two signals that dedup compares: a digest of the normalised text, and its MinHash signature.

MinHash: Broder, "On the resemblance and containment of documents" (1997). 112 permutations, for 14
bands of 8 rows, over 5-grams of tokens as in FineWeb (arXiv:2406.17557, datatrove). Ours differ in three ways:

- A token is a word where a script puts spaces between words, and a single character where it does
  not (Han, kana, Thai, Lao, Burmese, Khmer, Tibetan, ...). So a Chinese page is compared by its
  character 5-grams, and a page that mixes scripts needs no language to be known.
- A text of fewer than five tokens is one shingle, so two short texts match only if they are equal.
- A permutation is `a * x + b` modulo 2**32 of a 32-bit shingle hash x, with a odd: a true permutation
  in one SIMD multiplication. x is well mixed, and tests hold the estimate to its binomial error.
"""

import functools
import hashlib
import re
import string
import unicodedata
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xxhash

from pipelines.schemas import MINHASH_NUM_PERMUTATIONS

Hashes = npt.NDArray[np.uint64]
Signature = npt.NDArray[np.uint32]

SHINGLE_NUM_TOKENS = 5
PERMUTATION_SEED = 0x636F7270  # "corp"; another seed is another signature: raise the version of the signals stage

_MAX_NUM_KNOWN_TOKENS = 1 << 16  # a few MB
_MAX_KNOWN_TOKEN_NUM_CHARS = 64
_PIECE_NUM_CHARS = 1 << 20  # bounds the Python tokens of a mega-document
_CHUNK_NUM_SHINGLES = 1 << 10  # 112 x 1,024 x 4 bytes stay in the second-level cache
_ROLL_BASE = 0x9E3779B97F4A7C15  # odd: 2**64 divided by the golden ratio

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
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_DIACRITICS = re.compile("[\u0300-\u036f]+")
_DIGITS = re.compile(r"\d")
_ASCII = "".join(char.lower() if char.isalnum() or char == "_" else " " for char in map(chr, range(128)))
_ASCII_DIGITS = str.maketrans(string.digits, "0" * 10)
# What makes most English pages non-ASCII; each becomes a space on the slow path too.
_TYPOGRAPHY = (
    "\u2019",
    "\u2018",
    "\u201c",
    "\u201d",
    "\u2013",
    "\u2014",
    "\u2026",
    "\u2022",
    "\u00a0",
    "\u2192",
    "\u200b",
    "\u00a9",
    "\u00a7",
    "\u00b6",
)


class TokenHashes(dict[str, int]):
    """64-bit hash of each token, its digits folded to 0; remembers them, for the next text has most of the same words.

    At most 65,536 tokens of at most 64 characters; a text's values do not depend on what was hashed before it.
    """

    def __missing__(self, token: str) -> int:
        found = xxhash.xxh3_64_intdigest(_fold_digits(token).encode("utf-8", "surrogatepass"))
        if len(token) <= _MAX_KNOWN_TOKEN_NUM_CHARS:
            if len(self) >= _MAX_NUM_KNOWN_TOKENS:
                self.clear()
            self[token] = found
        return found


def normalize(text: str) -> str:
    """Fold what does not make two texts different: form, case, diacritics, digits, punctuation, white space.

    NFKC and case folding; combining diacritics (U+0300 to U+036F) taken off, while the vowel signs of
    other scripts stay; every digit becomes 0; a run of anything but letters, digits, marks and "_" becomes one space.
    """
    return _fold_digits(_fold(text))


def text_digest(text: str) -> bytes:
    """Digest of the normalised text, digits kept: 16 bytes. Equal for texts that are exact duplicates.

    A text that normalises to nothing ("!!!", an emoji) is digested as it stands, so that such texts do not collapse.
    """
    return _digest(_fold(text) or text)


def minhash(text: str) -> Signature | None:
    """MinHash signature of a text: uint32[112], or None where the text normalises to nothing."""
    return _signature(_fold(text), TokenHashes())


def text_digest_and_minhash(text: str, token_hashes: TokenHashes | None = None) -> tuple[bytes, Signature | None]:
    """Both at once: they share the normalisation. With `token_hashes` kept from text to text it is faster."""
    folded = _fold(text)
    return _digest(folded or text), _signature(folded, TokenHashes() if token_hashes is None else token_hashes)


def estimate(a: Signature, b: Signature) -> float:
    """Estimated Jaccard similarity of the texts of two signatures: the share of equal minima, 0 to 1.

    Its standard error at similarity s is sqrt(s * (1 - s) / 112): 0.038 at 0.8.
    """
    return float(np.count_nonzero(a == b)) / len(a)


def _fold(text: str) -> str:
    """`normalize` but for the digits, which stay."""
    if not text.isascii():
        for char in _TYPOGRAPHY:
            text = text.replace(char, " ")
    if text.isascii():
        return " ".join(text.translate(_ASCII).split())
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    text = unicodedata.normalize("NFKC", _DIACRITICS.sub("", text))
    return _PUNCTUATION.sub(" ", text).strip()


def _fold_digits(folded: str) -> str:
    return folded.translate(_ASCII_DIGITS) if folded.isascii() else _DIGITS.sub("0", folded)


def _digest(folded: str) -> bytes:
    return hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _signature(folded: str, token_hashes: TokenHashes) -> Signature | None:
    return _permuted_minima(_shingle_hashes(folded, token_hashes)) if folded else None


def _pieces(folded: str) -> Iterator[str]:
    """Cut a folded text at spaces into pieces of bounded length."""
    start = 0
    while len(folded) - start > _PIECE_NUM_CHARS:
        end = folded.rfind(" ", start + 1, start + _PIECE_NUM_CHARS)
        end = end if end > 0 else start + _PIECE_NUM_CHARS
        yield folded[start:end]
        start = end
    yield folded[start:]


def _hashes_of(folded: str, token_hashes: TokenHashes) -> Hashes:
    """64-bit hash of each token, in order."""
    hashes = []
    for piece in _pieces(folded):
        tokens = piece.split() if piece.isascii() else _TOKEN.findall(piece)
        hashes.append(np.fromiter(map(token_hashes.__getitem__, tokens), np.uint64, len(tokens)))
    return np.concatenate(hashes)


def _shingle_hashes(folded: str, token_hashes: TokenHashes) -> npt.NDArray[np.uint32]:
    """32-bit hash of each run of five tokens; a shorter text is one shingle."""
    tokens = _hashes_of(folded, token_hashes)
    width = min(SHINGLE_NUM_TOKENS, len(tokens))
    rolled = np.zeros(len(tokens) - width + 1, np.uint64)
    for k in range(width):
        rolled *= np.uint64(_ROLL_BASE)
        rolled += tokens[k : k + len(rolled)]
    rolled ^= rolled >> np.uint64(32)
    rolled *= np.uint64(0xD6E8FEB86659FD93)  # a 64-bit finaliser: the sum alone leaves the low bits weak
    return (rolled >> np.uint64(32)).astype(np.uint32)


@functools.cache
def _permutations() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """The hash family: 112 odd multipliers and 112 offsets, drawn from the bytes of xxh3 over a counter."""
    counters = (i.to_bytes(4, "little") for i in range(MINHASH_NUM_PERMUTATIONS))
    draws = np.array([xxhash.xxh3_64_intdigest(counter, seed=PERMUTATION_SEED) for counter in counters], np.uint64)
    a = (draws >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    b = (draws & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return a[:, None], b[:, None]


def _permuted_minima(shingles: npt.NDArray[np.uint32]) -> Signature:
    a, b = _permutations()
    minima = np.full(MINHASH_NUM_PERMUTATIONS, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), _CHUNK_NUM_SHINGLES):
        permuted = a * shingles[None, start : start + _CHUNK_NUM_SHINGLES]
        permuted += b
        np.minimum(minima, permuted.min(axis=1), out=minima)
    return minima
