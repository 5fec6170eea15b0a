"""Which documents hold the text of evaluation suites, and of which item: a model must not be measured on what it learned.

A text becomes tokens: letters and digits between anything else are one, and each character of a script without spaces
(Han, kana, Thai ...) is one. Case, accents, width, punctuation, apostrophes and zero-width characters do not count, and
traditional characters are their simplified ones. Two kinds of n-grams are looked up, told apart by what stands in the
window itself, so that a Chinese quotation in an English page is found like one in a Chinese page:

    13 tokens, at most half of them characters   GPT-3 (arXiv:2005.14165, appendix C) and marin take 13 words
    20 tokens, more than half of them characters ours: 13 words at about 1.6 characters a word. 13 characters are eight
                                                 words, which idioms, titles and verses share by the thousand

An n-gram needs a letter, and one that stands in many different passages of the suites is a template ("Question: which of
the following ...") and is left out; `document_frequencies` and `without_common` do the same against texts one knows to be
innocent. An item is found where one of its n-grams stands in a document (GPT-3; marin asks for two, which spared no
document of 8,000: manuals, novels, speeches, reviews and Chinese verse hold none by mistake either way). A passage too
short for an n-gram, but of at least 8 words or 12 characters, is found where it stands whole. Shorter ones are not looked
for: they prove nothing.

The index is flat arrays: 8 bytes for the hash and 4 for the item of each n-gram, and 4 to 8 bytes of a bit table that
answers nearly every look-up. It costs memory by the suites, never by the corpus.

Must not: judge. What is found is a signal; the policy drops.
"""

import functools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.schemas import SUITE_INDEX
from pipelines.signals.characters import UNSPACED_RANGES
from pipelines.signals.variants import simplified_characters
from pipelines.suites import Item

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

WORD_NGRAM = 13
CHARACTER_NGRAM = 20
MIN_SHORT_WORDS = 8
MIN_SHORT_CHARACTERS = 12
MAX_PASSAGES = 10
"""In more different passages of the suites than this, an n-gram is a template (marin's drop lists; the number is ours)."""
MAX_MATCHES = 20
"""Items named of one document. A page that holds a whole suite is out with the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An item that stands in a document."""

    suite: str
    item_id: str
    num_ngrams: int
    """Different n-grams of the item in the document; 1 for a short passage that stands whole."""
    share: float
    """Of the n-grams that name the item; 1 for a short passage."""
    start: int
    """text[start:end], in code points, is the first unbroken stretch that matches."""
    end: int

    def label(self) -> str:
        """`suite: item`, as people read it."""
        return f"{self.suite}: {self.item_id}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ContaminationIndex:
    """Sorted n-gram hashes and the item of each. Of items that share an n-gram, the first has it."""

    hashes: Hashes
    """(N,) sorted, distinct."""
    item_idxs: npt.NDArray[np.uint32]
    """(N,) index into `suites` and `item_ids`."""
    short_anchors: Hashes
    """Sorted, distinct: the first 8 words or 12 characters of the short passages. Few texts hold any."""
    short_hashes: Hashes
    """(S,) sorted: the whole of each short passage."""
    short_lengths: npt.NDArray[np.uint32]
    """(S,) its tokens."""
    short_item_idxs: npt.NDArray[np.uint32]
    """(S,) its item."""
    suites: tuple[str, ...]
    item_ids: tuple[str, ...]
    word_ngram: int
    character_ngram: int
    num_features: Ints
    """(items,) n-grams that name this item."""
    bits: npt.NDArray[np.uint8]
    """Bit table over the leading bits of all hashes and anchors: at most one look-up in 16 passes in vain."""

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays; the names come on top."""
        arrays = (self.hashes, self.item_idxs, self.short_anchors, self.short_item_idxs, self.short_lengths)
        return sum(each.nbytes for each in (*arrays, self.short_hashes, self.num_features, self.bits))


def build_index(
    items: Iterable[Item],
    *,
    word_ngram: int = WORD_NGRAM,
    character_ngram: int = CHARACTER_NGRAM,
    max_passages: int = MAX_PASSAGES,
) -> ContaminationIndex:
    """Index the passages of all items, a function of their order and text. Equal passages count as one.

    An n-gram in more than `max_passages` different passages is left out. Raises ValueError for n-grams shorter than the
    short passages that are looked for.
    """
    if word_ngram <= MIN_SHORT_WORDS or character_ngram <= MIN_SHORT_CHARACTERS:
        raise ValueError(
            f"got n-grams of {word_ngram} words and {character_ngram} characters, "
            f"wanted more than {MIN_SHORT_WORDS} and {MIN_SHORT_CHARACTERS}: a shorter quotation proves nothing."
        )
    suites: list[str] = []
    item_ids: list[str] = []
    grams: list[Hashes] = []
    owners: list[npt.NDArray[np.uint32]] = []
    short: dict[tuple[int, int, int], int] = {}
    seen: set[bytes] = set()
    for idx, item in enumerate(items):
        suites.append(item.suite)
        item_ids.append(item.item_id)
        for passage in item.passages:
            tokens = _tokenize(passage)
            key = tokens.hashes.tobytes()
            if key in seen:
                continue
            seen.add(key)
            found = np.unique(np.concatenate([part for part, _, _ in _ngrams(tokens, word_ngram, character_ngram)]))
            if found.size:
                grams.append(found)
                owners.append(np.full(found.size, idx, dtype=np.uint32))
            elif (entry := _short_entry(tokens)) is not None:
                short.setdefault(entry, idx)
    hashes, item_idxs = _merged(grams, owners, max_passages)
    entries = sorted(short.items())
    return _index(
        hashes=hashes,
        item_idxs=item_idxs,
        short_anchors=np.unique(np.array([anchor for (_, _, anchor), _ in entries], dtype=np.uint64)),
        short_lengths=np.array([length for (_, length, _), _ in entries], dtype=np.uint32),
        short_hashes=np.array([whole for (whole, _, _), _ in entries], dtype=np.uint64),
        short_item_idxs=np.array([idx for _, idx in entries], dtype=np.uint32),
        suites=tuple(suites),
        item_ids=tuple(item_ids),
        word_ngram=word_ngram,
        character_ngram=character_ngram,
    )


def find(text: str, index: ContaminationIndex, max_matches: int = MAX_MATCHES) -> list[Match]:
    """The items of which a text holds an n-gram, or a short passage whole; in order of the suites.

    At most `max_matches`. Time and memory grow with the text alone: about 40 bytes a character while it runs.
    """
    tokens = _tokenize(text)
    entries, starts, ends = _hits(tokens, index)
    owners = index.item_idxs[entries].astype(np.int64)
    order = np.lexsort((starts, owners))
    owners, entries, starts, ends = owners[order], entries[order], starts[order], ends[order]
    cuts = np.flatnonzero(owners[1:] != owners[:-1]) + 1
    found: dict[int, Match] = {}
    for part in np.split(np.arange(owners.size), cuts) if owners.size else ():
        idx = int(owners[part[0]])
        num_distinct, num_features = np.unique(entries[part]).size, int(index.num_features[idx])
        run = starts[part][1:] > ends[part][:-1]
        last = int(part[int(run.argmax())]) if run.any() else int(part[-1])
        found[idx] = _match(index, idx, num_distinct, num_features, tokens, int(starts[part[0]]), int(ends[last]))
        if len(found) >= max_matches:
            break
    for idx, start, end in _short_hits(tokens, index):
        if idx not in found and len(found) < max_matches:
            found[idx] = _match(index, idx, 1, 1, tokens, start, end)
    return [found[idx] for idx in sorted(found)]


def entries_of(text: str, index: ContaminationIndex) -> Ints:
    """Which n-grams of an index stand in a text: their places in it, each once and in order."""
    return np.unique(_hits(_tokenize(text), index)[0])


def document_frequencies(texts: Iterable[str], index: ContaminationIndex) -> Ints:
    """In how many of the texts each n-gram of an index stands: (N,)."""
    counts = np.zeros(index.hashes.size, dtype=np.int64)
    for text in texts:
        counts[entries_of(text, index)] += 1
    return counts


def without_common(index: ContaminationIndex, frequencies: Ints, max_documents: int) -> ContaminationIndex:
    """The index without the n-grams that stand in more than `max_documents` texts known to be no contamination.

    Count these on texts of another origin than the corpus: what stands often in the corpus may be a suite often copied.
    """
    stays = frequencies <= max_documents
    return _index(
        hashes=index.hashes[stays],
        item_idxs=index.item_idxs[stays],
        short_anchors=index.short_anchors,
        short_lengths=index.short_lengths,
        short_hashes=index.short_hashes,
        short_item_idxs=index.short_item_idxs,
        suites=index.suites,
        item_ids=index.item_ids,
        word_ngram=index.word_ngram,
        character_ngram=index.character_ngram,
    )


def index_batch(index: ContaminationIndex) -> pa.RecordBatch:
    """An index as one row of SUITE_INDEX, for a store to write as a shard: equal items give equal bytes."""
    columns = []
    for field in SUITE_INDEX:
        value = getattr(index, field.name)
        if pa.types.is_large_list(field.type):
            values = pa.array(value, field.type.value_type)
            columns.append(pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values))
        else:
            columns.append(pa.array([value], field.type))
    return pa.RecordBatch.from_arrays(columns, schema=SUITE_INDEX)


def load_index(path: Path) -> ContaminationIndex:
    """An index from the Arrow stream that holds its `index_batch`; the large arrays stay mapped from the file."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()

    def values(name: str) -> Any:
        return table.column(name).combine_chunks().flatten()

    arrays = {
        name: values(name).to_numpy(zero_copy_only=False)
        for name in ("hashes", "item_idxs", "short_anchors", "short_item_idxs", "short_lengths", "short_hashes")
    }
    return _index(
        **arrays,
        suites=tuple(values("suites").to_pylist()),
        item_ids=tuple(values("item_ids").to_pylist()),
        word_ngram=table.column("word_ngram")[0].as_py(),
        character_ngram=table.column("character_ngram")[0].as_py(),
    )


def _index(**parts: Any) -> ContaminationIndex:
    all_hashes = np.concatenate((parts["hashes"], parts["short_anchors"]))
    return ContaminationIndex(
        **parts,
        num_features=np.bincount(parts["item_idxs"], minlength=len(parts["suites"])).astype(np.int64),
        bits=_bit_table(all_hashes),
    )


# Tokens


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens of a text in order, as arrays of equal length."""

    hashes: Hashes
    is_character: Flags
    has_letter: Flags
    starts: Ints
    """Offset of the first code point in the text."""
    ends: Ints


_CHUNK_NUM_CHARS = 1 << 16
_SEPARATOR, _NOTHING = 0, 1
"""Folded code points that are none: what parts tokens, and what is taken out."""
_TABLE_SIZE = 0x20000
"""Beyond lie Han characters (and what nobody writes), which stand for themselves."""
_BASE = 0x9E3779B97F4A7C15
_NGRAM_BASE = 0xD6E8FEB86659FD93
_WORDS_SALT, _CHARACTERS_SALT = np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344)


def _tokenize(text: str) -> _Tokens:
    """Chunk by chunk, so that the powers of the hash are few. A chunk ends at the last break in it, if it has one."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    parts: list[_Tokens] = []
    start = 0
    while start < codes.size:
        end = min(start + _CHUNK_NUM_CHARS, codes.size)
        folded, origins = _folded(codes[start:end])
        if end < codes.size:
            breaks = np.flatnonzero(folded == _SEPARATOR)
            if breaks.size and (cut := int(origins[breaks[-1]])) > 0:
                end = start + cut
                stays = origins < cut
                folded, origins = folded[stays], origins[stays]
        parts.append(_tokens_of(folded, origins + start))
        start = end
    if len(parts) == 1:
        return parts[0]
    return _Tokens(
        *(
            np.concatenate([getattr(part, name) for part in parts]) if parts else np.zeros(0, dtype=kind)
            for name, kind in (
                ("hashes", np.uint64),
                ("is_character", np.bool_),
                ("has_letter", np.bool_),
                ("starts", np.int64),
                ("ends", np.int64),
            )
        )  # type: ignore[arg-type]
    )


def _folded(codes: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint32], Ints]:
    """Folded code points, those that are taken out left away, and the place each came from."""
    table = _tables().codes
    folded = np.where(codes < _TABLE_SIZE, table.take(codes, mode="clip"), codes)
    origins = np.arange(codes.size)
    several = folded == _SEVERAL
    if several.any():
        counts = np.ones(codes.size, dtype=np.int64)
        folds = {code: _fold(chr(code)) for code in np.unique(codes[several]).tolist()}
        for code, chars in folds.items():
            counts[codes == code] = len(chars)
        firsts = np.cumsum(counts) - counts
        folded, origins = np.repeat(folded, counts), np.repeat(origins, counts)
        for code, chars in folds.items():
            for idx, char in enumerate(chars):
                folded[firsts[codes == code] + idx] = ord(char)
    stays = folded != _NOTHING
    return (folded, origins) if stays.all() else (folded[stays], origins[stays])


def _tokens_of(folded: npt.NDArray[np.uint32], origins: Ints) -> _Tokens:
    tables = _tables()
    visible = folded != _SEPARATOR
    is_character = tables.is_character.take(folded, mode="clip") & visible
    edges = np.ones(folded.size + 1, dtype=np.bool_)
    edges[1:-1] = (visible[1:] != visible[:-1]) | is_character[1:] | is_character[:-1]
    starts = np.flatnonzero(visible & edges[:-1])
    if not starts.size:
        return _Tokens(*(np.zeros(0, dtype=kind) for kind in (np.uint64, bool, bool, np.int64, np.int64)))
    ends = np.flatnonzero(visible & edges[1:])
    powers = _powers()
    hashes = np.add.reduceat(powers[: folded.size] * (folded * visible), starts) * powers[powers.size - 1 - starts]
    has_letter = np.bitwise_or.reduceat(tables.is_letter.take(folded, mode="clip") & visible, starts)
    return _Tokens(_mixed(hashes), is_character[starts], has_letter, origins[starts], origins[ends] + 1)


def _ngrams(tokens: _Tokens, word_ngram: int, character_ngram: int) -> Iterator[tuple[Hashes, Ints, int]]:
    """Hashes of the n-grams that count, the tokens they start at, and n: those of words, then those of characters."""
    for n, salt, of_characters in ((word_ngram, _WORDS_SALT, False), (character_ngram, _CHARACTERS_SALT, True)):
        yield *_windows(tokens, n, salt, of_characters=of_characters), n


def _windows(tokens: _Tokens, n: int, salt: np.uint64, *, of_characters: bool) -> tuple[Hashes, Ints]:
    num_windows = tokens.hashes.size - n + 1
    if num_windows <= 0 or (of_characters and not tokens.is_character.any()):
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    num_characters = _sums(tokens.is_character, n)
    is_right = (2 * num_characters > n) == of_characters
    is_right &= _sums(tokens.has_letter, n) > 0
    starts = np.flatnonzero(is_right)
    if not starts.size:
        return np.zeros(0, dtype=np.uint64), starts
    return _mixed(_rolled(tokens.hashes, n)[starts] ^ salt), starts


def _sums(flags: Flags, n: int) -> Ints:
    total = np.zeros(flags.size + 1, dtype=np.int64)
    np.cumsum(flags, out=total[1:])
    return total[n:] - total[:-n]


def _rolled(hashes: Hashes, n: int) -> Hashes:
    """Polynomial hash of every n in a row: from those of 1, 2, 4, ... in a row, as the binary digits of n say."""
    size = hashes.size - n + 1
    total: Hashes | None = None
    covered, width, doubled = 0, 1, hashes
    while True:
        if n & width:
            part = doubled[covered : covered + size]
            total = part.copy() if total is None else total * _power(width) + part
            covered += width
        if covered == n:
            return total if total is not None else hashes[:0]
        doubled = doubled[:-width] * _power(width) + doubled[width:]
        width *= 2


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_NGRAM_BASE, exponent, 1 << 64))


# Look-ups


def _merged(
    grams: list[Hashes], owners: list[npt.NDArray[np.uint32]], max_passages: int
) -> tuple[Hashes, npt.NDArray[np.uint32]]:
    if not grams:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint32)
    hashes, item_idxs = np.concatenate(grams), np.concatenate(owners)
    # Passages come in order, and so do their items: the first of equal hashes is the first item's.
    distinct, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    stays = counts <= max_passages
    return distinct[stays], item_idxs[first[stays]]


def _bit_table(hashes: Hashes) -> npt.NDArray[np.uint8]:
    num_bits = max(16, (32 * max(hashes.size, 1) - 1).bit_length())
    places = (hashes >> np.uint64(64 - num_bits)).astype(np.int64)
    bits = np.zeros(1 << (num_bits - 3), dtype=np.uint8)
    np.bitwise_or.at(bits, places >> 3, np.left_shift(np.uint8(1), (places & 7).astype(np.uint8)))
    return bits


def _probable(hashes: Hashes, bits: npt.NDArray[np.uint8]) -> Ints:
    """Indices of the hashes whose bit is set."""
    num_bits = bits.size.bit_length() + 2
    places = (hashes >> np.uint64(64 - num_bits)).view(np.int64)
    return np.flatnonzero(bits.take(places >> 3) >> (places & 7).astype(np.uint8) & 1)


def _hits(tokens: _Tokens, index: ContaminationIndex) -> tuple[Ints, Ints, Ints]:
    """Entries of the index that stand in the tokens, and the first token and the one behind the last of each."""
    entries, starts, ends = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for hashes, places, n in _ngrams(tokens, index.word_ngram, index.character_ngram):
        chosen = _probable(hashes, index.bits)
        if chosen.size:
            at, is_hit = _looked_up(index.hashes, hashes[chosen])
            entries.append(at[is_hit])
            starts.append(places[chosen][is_hit])
            ends.append(places[chosen][is_hit] + n)
    return np.concatenate(entries), np.concatenate(starts), np.concatenate(ends)


def _looked_up(table: Hashes, wanted: Hashes) -> tuple[Ints, Flags]:
    """Where each hash would stand in a sorted table, and whether it does."""
    if not table.size:
        return np.zeros(wanted.size, dtype=np.int64), np.zeros(wanted.size, dtype=np.bool_)
    at = np.minimum(np.searchsorted(table, wanted), table.size - 1)
    return at, table[at] == wanted


def _short_entry(tokens: _Tokens) -> tuple[int, int, int] | None:
    """(hash of the whole, tokens, anchor) of a passage that has no n-gram; None where it is too short to tell."""
    size = tokens.hashes.size
    for n, salt, of_characters in _ANCHORS:
        if size >= n:
            anchors, starts = _windows(tokens, n, salt, of_characters=of_characters)
            if starts.size and starts[0] == 0:
                return int(_rolled(tokens.hashes, size)[0]), size, int(anchors[0])
    return None


def _short_hits(tokens: _Tokens, index: ContaminationIndex) -> Iterator[tuple[int, int, int]]:
    """(item, first token, token behind the last) of each short passage that stands whole, by its place."""
    if not index.short_anchors.size:
        return
    for n, salt, of_characters in _ANCHORS:
        anchors, starts = _windows(tokens, n, salt, of_characters=of_characters)
        chosen = _probable(anchors, index.bits)
        places = starts[chosen][_looked_up(index.short_anchors, anchors[chosen])[1]]
        if not places.size:
            continue
        for length in np.unique(index.short_lengths).tolist():
            fitting = places[places + length <= tokens.hashes.size]
            if fitting.size:
                wholes = _rolled(tokens.hashes, length)[fitting]
                at, is_hit = _looked_up(index.short_hashes, wholes)
                is_hit &= index.short_lengths[at] == length
                entries, first = np.unique(at[is_hit], return_index=True)
                for entry, place in zip(entries.tolist(), fitting[is_hit][first].tolist(), strict=True):
                    yield int(index.short_item_idxs[entry]), place, place + length


_ANCHORS = (
    (MIN_SHORT_WORDS, np.uint64(0xA4093822299F31D0), False),
    (MIN_SHORT_CHARACTERS, np.uint64(0x082EFA98EC4E6C89), True),
)


def _match(
    index: ContaminationIndex, idx: int, num_ngrams: int, num_features: int, tokens: _Tokens, start: int, end: int
) -> Match:
    return Match(
        suite=index.suites[idx],
        item_id=index.item_ids[idx],
        num_ngrams=num_ngrams,
        share=num_ngrams / num_features,
        start=int(tokens.starts[start]),
        end=int(tokens.ends[end - 1]),
    )


# Folding

_SEVERAL = 2
"""Stands for a character that folds to several ("ß", "ﬁ"): these are few and looked up one by one."""
_MAX_FOLD = 4
"""Characters that fold to more ("﷽", to 15) stand for themselves."""


@dataclass(frozen=True, slots=True)
class _Tables:
    """By code point: what it folds to, and what the folded one is."""

    codes: npt.NDArray[np.uint32]
    is_character: Flags
    is_letter: Flags


def _fold(char: str) -> str:
    decomposed = unicodedata.normalize("NFKD", char).casefold()
    folded = unicodedata.normalize("NFC", "".join(part for part in decomposed if unicodedata.category(part) != "Mn"))
    return folded.translate(simplified_characters())


def _folded_code(char: str) -> int:
    if char in "'’‘ʼ＇`´":
        return _NOTHING
    category = unicodedata.category(char)
    if category in ("Mn", "Me", "Cf"):
        return _NOTHING
    if category[0] in "ZCPS" and category != "Cn":
        return _SEPARATOR
    folded = _fold(char)
    if not folded:
        return _NOTHING
    if len(folded) == 1:
        return ord(folded) if unicodedata.category(folded)[0] in "LNM" else _SEPARATOR
    return _SEVERAL if len(folded) <= _MAX_FOLD and folded.isalnum() else ord(char)


@functools.cache
def _tables() -> _Tables:
    codes = np.fromiter((_folded_code(chr(code)) for code in range(_TABLE_SIZE)), dtype=np.uint32, count=_TABLE_SIZE)
    is_character = np.zeros(_TABLE_SIZE + 1, dtype=np.bool_)  # the last stands for all beyond: Han
    for start, end in UNSPACED_RANGES:
        is_character[start:end] = True
    is_letter = np.fromiter((chr(code).isalpha() for code in range(_TABLE_SIZE + 1)), dtype=bool, count=_TABLE_SIZE + 1)
    return _Tables(codes, is_character, is_letter)


@functools.cache
def _powers() -> Hashes:
    """As many as a chunk can fold to. All texts use the last, to bring their hashes to one position."""
    return np.multiply.accumulate(np.full(_MAX_FOLD * _CHUNK_NUM_CHARS, _BASE, dtype=np.uint64))


def _mixed(hashes: Hashes) -> Hashes:
    """Spread a polynomial hash over all bits (the finaliser of SplitMix64), so that hashes may be combined again."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def passage_tokens(text: str) -> Sequence[tuple[int, int]]:
    """Where the tokens of a text stand, in code points: what an n-gram is made of, for tests and for reports."""
    tokens = _tokenize(text)
    return list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True))
