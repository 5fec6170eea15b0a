"""Byte-level BPE, trained on texts: Sennrich et al. (arXiv:1508.07909), over bytes and with GPT-2's splitting into words
(Radford et al. 2019).

The result is that of `tokenizers`' trainer, merge by merge, in a tenth of its time (tests compare the two): a changed page
may change the sample, so training stands in the way of every small change. Words are split and counted by gigatoken.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gigatoken.gigatoken_rs import pretokenized_counts
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pipelines.bpe.loops import learn_merges

END_OF_TEXT = "<|endoftext|>"

# The trainer takes time quadratic in the length of a word, and text without spaces is one word until a
# punctuation mark (measured: 33 s for one of 100,000 Han characters, 0.4 s when cut).
_UNBROKEN = re.compile(r"\S{100}")
_SEPARATOR = b"\xff"
"""A byte that no UTF-8 text has."""
_STDERR = 2
_BASE = 0x9E3779B97F4A7C15  # odd

Ints = npt.NDArray[np.int64]


def train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int) -> str:
    """A tokenizer.json with every byte and the end-of-text token in its vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words, frequencies = _counted(texts)
    merges = _merges(words, frequencies, alphabet, vocab_size, min_frequency)
    tokens = [END_OF_TEXT, *alphabet]
    pairs = []
    for left, right, token in merges.tolist():
        if token == len(tokens):
            tokens.append(tokens[left] + tokens[right])
        pairs.append((tokens[left], tokens[right]))
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = byte_level(models.BPE(vocab=vocab, merges=pairs))
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    return tokenizer.to_str()


def byte_level(model: models.Model) -> Tokenizer:
    """A tokenizer of GPT-2's shape around a model."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _counted(texts: Iterable[str]) -> tuple[list[bytes], Ints]:
    """The distinct words, sorted, and how often each occurs."""
    joined = _SEPARATOR.join(piece.encode() for text in texts for piece in _cut(text))
    with _without_stderr():
        counted = sorted(pretokenized_counts(joined, _SEPARATOR))
    return [word for word, _ in counted], np.array([count for _, count in counted], np.int64)


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Nothing is written to the terminal meanwhile: gigatoken's counter tells how long it took, and cannot be asked not to."""
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nowhere)


def _merges(
    words: Sequence[bytes], frequencies: Ints, alphabet: Sequence[str], vocab_size: int, min_frequency: int
) -> Ints:
    """(merges, 3) left, right and resulting token. Token 0 is the end of text, then comes the alphabet."""
    token_of_byte = np.zeros(256, np.uint32)
    for number, char in enumerate(alphabet, 1):
        token_of_byte[_byte_of(char)] = number
    symbols = token_of_byte[np.frombuffer(b"".join(words), np.uint8)]
    sizes = np.array([len(word) for word in words], np.int64)
    starts = np.cumsum(sizes) - sizes
    num_tokens = 1 + len(alphabet)
    hashes, powers = np.zeros(max(vocab_size, num_tokens), np.uint64), np.zeros(max(vocab_size, num_tokens), np.uint64)
    hashes[1:num_tokens], powers[1:num_tokens] = np.arange(1, num_tokens, dtype=np.uint64), np.uint64(_BASE)
    known_mask = (1 << (4 * len(hashes)).bit_length()) - 1
    room, mask = max(1 << 12, 4 * len(symbols)), (1 << max(12, len(symbols).bit_length())) - 1
    while True:
        known, known_ids = np.zeros(known_mask + 1, np.uint64), np.zeros(known_mask + 1, np.int64)
        _put_alphabet(known, known_ids, hashes[:num_tokens], known_mask)
        state: dict[str, npt.NDArray[Any]] = {
            "symbols": symbols.copy(),
            "sizes": sizes.copy(),
            "hashes": hashes.copy(),
            "powers": powers.copy(),
            "pairs": np.zeros(mask + 1, np.uint64),
            "counts": np.zeros(mask + 1, np.int64),
            "heads": np.zeros(mask + 1, np.int64),
            **{name: np.zeros(room, np.int32) for name in ("nexts", "words")},
            "heap_counts": np.zeros(room // 4, np.int64),
            **{name: np.zeros(room // 4, np.uint64) for name in ("heap_pairs", "touched")},
            "merges": np.zeros(3 * max(vocab_size - num_tokens, 1), np.int64),
        }
        at = {name: array.ctypes.data for name, array in state.items()}
        num_merges = learn_merges()(
            *(at["symbols"], starts.ctypes.data, at["sizes"], frequencies.ctypes.data, len(words)),
            *(num_tokens, vocab_size, min_frequency, at["hashes"], at["powers"]),
            *(known.ctypes.data, known_mask, known_ids.ctypes.data),
            *(at["pairs"], at["counts"], at["heads"], mask, at["nexts"], at["words"], room),
            *(at["heap_counts"], at["heap_pairs"], at["touched"], room // 4, at["merges"]),
        )
        if num_merges >= 0:
            return state["merges"][: 3 * num_merges].reshape(-1, 3)
        room, mask = (2 * room, mask) if num_merges == -1 else (room, 2 * mask + 1)


def _put_alphabet(known: npt.NDArray[np.uint64], known_ids: Ints, hashes: npt.NDArray[np.uint64], mask: int) -> None:
    for number, hashed in enumerate(hashes.tolist()[1:], 1):
        place = (hashed ^ (hashed >> 29)) & mask
        while known[place]:
            place = (place + 1) & mask
        known[place], known_ids[place] = hashed, number


def _byte_of(char: str) -> int:
    """The byte that a character of the byte-level alphabet stands for: itself, or the next that is not printable."""
    return _BYTES[char]


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's: printable Latin-1 characters stand for themselves, the other bytes for code points from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_level_alphabet()


def _cut(text: str) -> Iterator[str]:
    """A text in pieces without long unbroken runs, for the trainer alone."""
    start = 0
    for run in _UNBROKEN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]
