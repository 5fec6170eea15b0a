"""DOCUMENT + SIGNALS -> PERPLEXITY: what each document costs the model of its language."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.encoding import Encoder
from pipelines.ngram import COSTS_PER_BIT, NgramModel
from pipelines.perplexity.language_models import stream_of
from pipelines.perplexity.reference import MAX_NUM_CHARS, folds_of
from pipelines.schemas import DOCUMENT, PERPLEXITY, SIGNALS, select
from pipelines.stage import Resource, Stage

_MAX_BITS_PER_TOKEN = 100.0  # 2^100 is in the range of a 32-bit float
_CHUNK_NUM_CHARS = 1 << 21
"""Text that is encoded at a time: a few hundred documents, or a few of the longest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoresConfig:
    """Whose judgement it is."""

    models: Resource
    """A LANGUAGE_MODEL shard."""


def score_documents(batches: Iterable[pa.RecordBatch], config: ScoresConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT + SIGNALS -> PERPLEXITY, one row for each row, in order; one batch for each batch.

    Perplexity is 2 to the bits of the text and its end, over its pieces and its end; bits per byte are the same bits over
    its UTF-8 bytes. Both are of the first MAX_NUM_CHARS characters, and null where there is no text, its language is not
    known, or has no model.
    """
    models = _load(config.models)
    for batch in batches:
        perplexities = np.full(batch.num_rows, np.nan)
        bits_per_byte = np.full(batch.num_rows, np.nan)
        names: list[str | None] = [None] * batch.num_rows
        for (language, fold), rows in _rows_by_model(batch, models).items():
            encoder, model = models[language, fold]
            for chunk, texts in _chunks(batch.column("text"), rows):
                stream, num_tokens = stream_of(encoder, texts)
                starts = np.cumsum([0, *num_tokens[:-1]], dtype=np.int64)
                bits = np.add.reduceat(model.costs(stream), starts) / COSTS_PER_BIT
                perplexities[chunk] = np.exp2(np.minimum(bits / num_tokens, _MAX_BITS_PER_TOKEN))
                bits_per_byte[chunk] = bits / [len(text.encode()) for text in texts]
            for row in rows:
                names[row] = language
        columns = [
            batch.column("doc_id"),
            _nullable(perplexities),
            _nullable(bits_per_byte),
            pa.array(names, pa.string()),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=PERPLEXITY)


def _rows_by_model(
    batch: pa.RecordBatch, models: dict[tuple[str, int | None], tuple[Encoder, NgramModel]]
) -> dict[tuple[str, int | None], list[int]]:
    """Rows with text in a language that has a model, by a model that has not seen them."""
    rows: dict[tuple[str, int | None], list[int]] = {}
    languages, folds = batch.column("language").to_pylist(), folds_of(batch).to_pylist()
    sizes = pc.binary_length(batch.column("text")).to_pylist()
    for row, (language, fold, num_bytes) in enumerate(zip(languages, folds, sizes, strict=True)):
        if language is None or fold is None or not num_bytes:
            continue
        for key in ((language, 1 - fold), (language, None)):
            if key in models:
                rows.setdefault(key, []).append(row)
                break
    return rows


def _chunks(column: pa.Array, rows: list[int]) -> Iterator[tuple[list[int], list[str]]]:
    chunk, texts, num_chars = list[int](), list[str](), 0
    for row in rows:
        text = column[row].as_py()[:MAX_NUM_CHARS]
        chunk.append(row)
        texts.append(text)
        num_chars += len(text)
        if num_chars >= _CHUNK_NUM_CHARS:
            yield chunk, texts
            chunk, texts, num_chars = [], [], 0
    if chunk:
        yield chunk, texts


def _nullable(values: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=np.isnan(values))


def _load(resource: Resource) -> dict[tuple[str, int | None], tuple[Encoder, NgramModel]]:
    """The models of a shard, by language and the fold they learnt from; their arrays are views of the mapped file.

    Mapped anew for each shard that is judged, which costs nothing: a mapping that was kept would outlive the file, and a
    file that is cut off beneath a mapping ends the process.
    """
    found: dict[tuple[str, int | None], tuple[Encoder, NgramModel]] = {}
    with pa.memory_map(resource.path) as source:
        for batch in pa.ipc.open_stream(source):
            for row in range(batch.num_rows):
                language, fold = batch.column("language")[row].as_py(), batch.column("fold")[row].as_py()
                encoder = _encoder(batch.column("tokenizer_json")[row].as_py())
                found[language, fold] = encoder, NgramModel.from_row(batch, row)
    return found


_encoder = functools.lru_cache(maxsize=8)(Encoder.load)
"""Reading a tokenizer takes as long as judging a hundred documents, so one of each language is kept from shard to shard."""


PERPLEXITY_STAGE = Stage(
    name="perplexity",
    version=1,
    inputs=(select(DOCUMENT, "doc_id", "text"), select(SIGNALS, "doc_id", "language", "text_digest", "minhash")),
    output=PERPLEXITY,
    transform=score_documents,
    row_seconds=1e-3,
    is_row_wise=True,
    libraries=("gigatoken", "llvmlite", "numba", "numpy", "tokenizers"),
)
