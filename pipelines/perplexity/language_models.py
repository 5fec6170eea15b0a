"""REFERENCE -> one row for each language and fold: pieces of words, and an n-gram model over them.

The unit is the byte-level BPE piece, learnt from the reference of each language. It is one unit for words with spaces
and without, has nothing unknown (a byte is a piece), and gives bits per byte beside perplexity.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.bpe import train_bpe
from pipelines.encoding import Encoder, TokenIds
from pipelines.errors import ConfigError
from pipelines.ngram import NgramConfig, train
from pipelines.schemas import LANGUAGE_MODEL, REFERENCE
from pipelines.stage import Kind, Stage

_MAX_PIECES_NUM_BYTES = 4 << 20
"""Text that the pieces are learnt from: more changes them little, and takes 2 s a megabyte of Chinese."""
_MIN_FREQUENCY = 2
_MAX_VOCAB_SIZE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageModelsConfig:
    """The shape of every language's models."""

    order: int = 5
    """Pieces of the longest n-grams (as cc_net)."""
    min_count: int = 2
    """n-grams of three pieces and more that occur less often are left out; 1 keeps all: three times the size."""
    vocab_size: int = 8192
    """Most pieces of a language, the 256 bytes and the end of a text included."""
    min_bytes: int = 256 << 10
    """UTF-8 bytes of reference below which a language gets no model, of each fold: what is learnt from less is chance
    (ours)."""

    def __post_init__(self) -> None:
        NgramConfig(order=self.order, min_count=self.min_count)
        if not 256 < self.vocab_size <= _MAX_VOCAB_SIZE:
            raise ConfigError(
                f"got vocab_size {self.vocab_size}, wanted 257 to {_MAX_VOCAB_SIZE}, the bytes and an end: 8192 is usual."
            )
        if self.min_bytes < 1:
            raise ConfigError(f"got min_bytes {self.min_bytes}, wanted at least 1: 262144 is usual.")


def train_language_models(batches: Iterable[pa.RecordBatch], config: LanguageModelsConfig) -> Iterator[pa.RecordBatch]:
    """REFERENCE -> LANGUAGE_MODEL, one row for each language and fold, no row for a language with too little text.

    Rows of a language stand together, as the reference stage writes them. Holds the text of one language, and about 120
    bytes for each of its tokens.
    """
    for language, rows in _by_language(batches):
        texts = [text for text, _fold in rows]
        folds = sorted({fold for _text, fold in rows}, key=str)
        sizes = {fold: sum(len(text.encode()) for text, own in rows if own == fold) for fold in folds}
        if min(sizes.values()) < config.min_bytes or (len(folds) == 1 and folds[0] is not None):
            continue
        tokenizer_json = train_bpe(_first(texts, _MAX_PIECES_NUM_BYTES), config.vocab_size, _MIN_FREQUENCY)
        encoder = Encoder.load(tokenizer_json)
        for fold in folds:
            stream = stream_of(encoder, [text for text, own in rows if own == fold])[0]
            shape = NgramConfig(order=config.order, min_count=config.min_count)
            model = train(stream, encoder.vocab_size, encoder.eot_token, shape)
            columns = {
                "language": pa.array([language]),
                "fold": pa.array([fold], pa.int8()),
                "num_bytes": pa.array([sizes[fold]], pa.int64()),
                "tokenizer_json": pa.array([tokenizer_json], pa.large_string()),
                **model.to_columns(),
            }
            yield pa.RecordBatch.from_arrays([columns[name] for name in LANGUAGE_MODEL.names], schema=LANGUAGE_MODEL)


def stream_of(encoder: Encoder, texts: Sequence[str]) -> tuple[TokenIds, list[int]]:
    """The texts as one stream of tokens, each ended by the end-of-text token, and the number of tokens of each."""
    end = np.array([encoder.eot_token], dtype=np.uint32)
    encoded = encoder.encode_batch(texts)
    parts = [part for ids in encoded for part in (ids, end)]
    return (np.concatenate(parts) if parts else np.zeros(0, np.uint32)), [ids.size + 1 for ids in encoded]


def _by_language(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, list[tuple[str, int | None]]]]:
    language, rows = "", list[tuple[str, int | None]]()
    for batch in batches:
        for own, fold, text in zip(
            *(batch.column(name).to_pylist() for name in ("language", "fold", "text")), strict=True
        ):
            if own != language and rows:
                yield language, rows
                rows = []
            language = own
            rows.append((text, fold))
    if rows:
        yield language, rows


def _first(texts: Sequence[str], num_bytes: int) -> Iterator[str]:
    for text in texts:
        if num_bytes <= 0:
            return
        yield text
        num_bytes -= len(text.encode())


LANGUAGE_MODELS_STAGE = Stage(
    name="ngrams",
    version=1,
    kind=Kind.GLOBAL,
    inputs=(REFERENCE,),
    output=LANGUAGE_MODEL,
    transform=train_language_models,
    libraries=("gigatoken", "llvmlite", "numba", "numpy", "tokenizers"),
    compression=None,
)
