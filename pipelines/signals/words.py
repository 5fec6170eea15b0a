"""What a word is, and where each stands.

In a text whose script puts spaces between words, words are the tokens of spaCy's English tokenizer, because published
thresholds were set on these: marks are words of their own, "don't" is "do" and "n't", "U.S." and "e.g." are one word,
an address is one (the rules: https://spacy.io/usage/linguistic-features#how-tokenizer-works). White space is no word.

In a text of scripts without such spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan) a character is a word. A
dictionary would say where words end, but is slow, and its versions and mistakes would move every measure. Thresholds
for such texts must be set for characters, and `unspaced` says when. In these texts

- a run of letters, marks and digits of other scripts is a word (Unicode general categories L, M, N and what joins them);
- a full stop, comma, apostrophe or underscore between two such characters belongs to the word ("3.14", "example.com"),
  as in Unicode Standard Annex 29, rules WB6, WB7, WB11 and WB12;
- every other run of punctuation or symbols is one word, a mark.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.kept import kept_arrays
from pipelines.signals.bits import BASE, HAS_GAP, MAX_SPECIAL_NUM_CHARS, NUM_FILTER_CODES, NUM_SPECIAL_PARTS
from pipelines.signals.characters import class_table, currencies_and_units
from pipelines.signals.contractions import special_cases
from pipelines.signals.loops import kernels

Codes = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.uint8]

MAX_NUM_CHARS = 1 << 20
"""Far above the 100,000 words that Gopher's longest document has."""

_UNSPACED_LANGUAGES = frozenset(("zh", "yue", "wuu", "ja", "th", "lo", "km", "my", "bo", "dz"))


class Scratch:
    """Arrays that the compiled loops write to, kept from text to text: at most about 100 bytes a character of a text."""

    __slots__ = ("_arrays", "_spare")

    def __init__(self) -> None:
        self._arrays: dict[str, tuple[npt.NDArray[Any], int]] = {}
        self._spare: Scratch | None = None

    def spare(self) -> "Scratch":
        """Another one, for a second text while the first is in use."""
        if self._spare is None:
            self._spare = Scratch()
        return self._spare

    def array(self, name: str, size: int, kind: type[np.generic]) -> tuple[npt.NDArray[Any], int]:
        """An array of at least `size` numbers, of no particular values, and its address."""
        found = self._arrays.get(name)
        if found is None or not size <= found[0].size <= max(4 * size, _MAX_KEPT_SIZE):
            array = np.empty(1 << max(size - 1, _MIN_SIZE - 1).bit_length(), kind)
            found = self._arrays[name] = (array, array.ctypes.data)
        return found

    def powers(self, size: int) -> int:
        """Address of the first `size` powers of `bits.BASE`, modulo 2^64."""
        before = self._arrays.get("powers")
        array, address = self.array("powers", size, np.uint64)
        if before is None or before[0] is not array:
            array[0] = 1
            array[1:] = np.multiply.accumulate(np.full(array.size - 1, BASE, dtype=np.uint64))
        return address


_MIN_SIZE = 1 << 13
_MAX_KEPT_SIZE = 1 << 18
"""Longer arrays are given back when a text a quarter as long comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words of a text in order, as arrays of equal length W, and its characters.

    The arrays are those of a `Scratch`, and hold until it is used for another text.
    """

    codes: bytes
    """Code points of the text, each a uint32 (UTF-32)."""
    classes: Codes
    """Bits of each character: see `characters.class_table`."""
    starts: Ints
    """Index of each word's first character."""
    ends: Ints
    """One more than the index of its last."""
    hashes: Hashes
    """Equal words have equal hashes; distinct ones do not, but for a chance of about W^2 / 2^65."""
    flags: Flags
    """Bits of each word: `bits.IS_MARK` and those below it."""
    unspaced: bool
    """Characters are words: there are more of unspaced scripts than other words, or the language is written in one."""
    scratch: Scratch
    """Whose arrays these are; in front of an array's name, `at_` is its address."""
    at_classes: int
    at_sums: int
    """Sums of the polynomial hash up to each character, and the powers of its base."""
    at_powers: int
    at_starts: int
    at_ends: int
    at_hashes: int
    at_flags: int

    @property
    def num_words(self) -> int:
        """W: marks included."""
        return self.starts.size

    @property
    def num_chars(self) -> int:
        """Characters of the text."""
        return self.classes.size


def split_words(
    text: str, language: str | None = None, *, scratch: Scratch | None = None, unspaced: bool | None = None
) -> Words:
    """Split a text of at most MAX_NUM_CHARS characters into its words.

    `language` is an ISO 639 code: a page in Chinese is cut by characters also where most of it is numbers and code.
    `unspaced` says by which definition, without a look at text or language.
    """
    size = len(text)
    if size > MAX_NUM_CHARS:
        raise ValueError(f"got a text of {size} characters, wanted at most {MAX_NUM_CHARS}: cut it first.")
    code, rules = kernels(), _rules()
    scratch = scratch or Scratch()
    codes = text.encode("utf-32-le", "surrogatepass")
    classes, at_classes = scratch.array("classes", size, np.uint32)
    starts, at_starts = scratch.array("starts", size, np.int64)
    ends, at_ends = scratch.array("ends", size, np.int64)
    hashes, at_hashes = scratch.array("hashes", size, np.uint64)
    flags, at_flags = scratch.array("flags", size, np.uint8)
    if unspaced is None:
        unspaced = not text.isascii() and (
            language in _UNSPACED_LANGUAGES or bool(code.is_unspaced(codes, size, rules.table.at))
        )
    _, at_sums = scratch.array("sums", size + 1, np.uint64)
    at_powers = scratch.powers(size + 1)
    if unspaced:
        num_words = code.split_unspaced(
            *(codes, size, rules.table.at, at_classes, at_sums, at_starts, at_ends, at_hashes, at_flags)
        )
    else:
        _, at_cuts = scratch.array("cuts", size + 1, np.int64)
        num_words = code.split_spaced(
            *(codes, size, *rules.spaced, at_powers),
            *(at_classes, at_sums, at_starts, at_ends, at_hashes, at_flags, at_cuts),
        )
    return Words(
        codes=codes,
        classes=classes[:size],
        starts=starts[:num_words],
        ends=ends[:num_words],
        hashes=hashes[:num_words],
        flags=flags[:num_words],
        unspaced=unspaced,
        scratch=scratch,
        at_classes=at_classes,
        at_sums=at_sums,
        at_powers=at_powers,
        at_starts=at_starts,
        at_ends=at_ends,
        at_hashes=at_hashes,
        at_flags=at_flags,
    )


def hash_words(words: Iterable[str]) -> Hashes:
    """The hashes `split_words` gives to these words."""
    return np.array([_hash(word) for word in words], np.uint64)


@dataclass(frozen=True, slots=True)
class Table:
    """An array that the compiled loops read, and where it is."""

    array: npt.NDArray[Any]
    at: int

    @property
    def last(self) -> int:
        """Its size less 1."""
        return self.array.size - 1


def table_of(array: npt.NDArray[Any]) -> Table:
    """An array with its address."""
    return Table(array, array.ctypes.data)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the compiled loops read of characters and special cases."""

    table: Table
    tables: tuple[Table, ...]
    spaced: tuple[int, ...]
    """Arguments of `split_spaced` from the table of characters to that of patterns."""


@functools.cache
def _rules() -> _Rules:
    modules = ("words", "characters", "contractions", "bits", "kernels", "loops")
    arrays = kept_arrays("words", _made_rules, modules=[f"pipelines.signals.{module}" for module in modules])
    tables = tuple(table_of(arrays[name]) for name in _RULES)
    return _Rules(tables[0], tables, _arguments(*tables))


_RULES = ("characters", "filters", "specials", "lengths", "units", "pairs", "patterns")


def _made_rules() -> dict[str, npt.NDArray[Any]]:
    """In 60 ms."""
    table, cases = table_of(class_table()), special_cases()
    keys = [_hash(case) for case in cases]
    specials = table_of(_hash_table(keys))
    lengths = np.zeros((specials.array.size, NUM_SPECIAL_PARTS), np.int64)
    filters = np.zeros((MAX_SPECIAL_NUM_CHARS, NUM_FILTER_CODES), np.uint32)
    for case in cases:
        filters[len(case) - 1, ord(case[0]) & (NUM_FILTER_CODES - 1)] |= np.uint32(1 << (ord(case[-1]) & 31))
    slots = {key: slot for slot, key in enumerate(specials.array.tolist())}
    for key, parts in zip(keys, cases.values(), strict=True):
        lengths[slots[key], : len(parts)] = parts
    units = table_of(_hash_table(map(_hash, currencies_and_units())))
    patterns = [one for one in _cut_without_cases(" ".join(cases), table, units) if len(one) > 1]
    return {
        "characters": table.array,
        "filters": filters,
        "specials": specials.array,
        "lengths": lengths,
        "units": units.array,
        "pairs": _hash_table(_joined(one[:2]) for one in patterns),
        "patterns": _hash_table(map(_joined, patterns)),
    }


def _arguments(
    table: Table, filters: Table, specials: Table, lengths: Table, units: Table, pairs: Table, patterns: Table
) -> tuple[int, ...]:
    return (
        *(table.at, filters.at, specials.at, specials.last, lengths.at, units.at, units.last),
        *(pairs.at, pairs.last, patterns.at, patterns.last),
    )


def _cut_without_cases(text: str, table: Table, units: Table) -> list[list[int]]:
    """Hashes of the tokens of each stretch between spaces, where nothing is a special case."""
    size, scratch = len(text), Scratch()
    nothing = [table_of(np.zeros(2, np.uint64)) for _ in range(4)]
    no_filters = table_of(np.zeros(MAX_SPECIAL_NUM_CHARS * NUM_FILTER_CODES, np.uint32))
    arguments = _arguments(table, no_filters, nothing[0], nothing[1], units, nothing[2], nothing[3])
    kinds: tuple[type[np.generic], ...] = (np.uint32, np.uint64, np.int64, np.int64, np.uint64, np.uint8, np.int64)
    arrays = [scratch.array(str(idx), size + 1, kind) for idx, kind in enumerate(kinds)]
    num = kernels().split_spaced(
        *(text.encode("utf-32-le"), size, *arguments, scratch.powers(size + 1)), *(address for _, address in arrays)
    )
    hashes, flags = arrays[4][0][:num].tolist(), arrays[5][0][:num]
    bounds = [0, *np.flatnonzero(flags & HAS_GAP).tolist(), num]
    return [hashes[start:end] for start, end in itertools.pairwise(bounds)]


_MASK = (1 << 64) - 1


def _hash(word: str) -> int:
    """The hash of a word, as the compiled loops have it."""
    value = 0
    for char in word:
        value = (value * BASE + ord(char) + 1) & _MASK
    return _mixed(value)


def _joined(hashes: Sequence[int]) -> int:
    """The hash of words in a row."""
    value = 0
    for one in hashes:
        value = (value * BASE + one) & _MASK
    return _mixed(value)


def _mixed(value: int) -> int:
    """The finaliser of SplitMix64."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _hash_table(keys: Iterable[int]) -> Hashes:
    """An open-addressing table: its size a power of two, at most a quarter of it taken."""
    distinct = sorted(set(keys))
    size = 1 << (4 * len(distinct)).bit_length()
    slots = [0] * size
    for key in distinct:
        slot = key & (size - 1)
        while slots[slot]:
            slot = (slot + 1) & (size - 1)
        slots[slot] = key
    return np.array(slots, np.uint64)
