"""Kept documents to token shards: personal data redacted, encoded, an end-of-text token after each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.encoding import Encoder
from pipelines.errors import ConfigError, SchemaError
from pipelines.schemas import DOCUMENT, OUTCOME, SIGNALS, TOKENS, select
from pipelines.stage import Resource, Stage
from pipelines.tallies import tally_tokens
from pipelines.trained_text import READ_OF_OUTCOME, READ_OF_SIGNALS, trained_text

_MAX_VOCAB_SIZE = 1 << 16
_READ = ("text", *READ_OF_SIGNALS, *READ_OF_OUTCOME, "entities")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeConfig:
    """What encodes, and what is redacted before."""

    tokenizer: Resource
    """Arrow IPC stream of schema TOKENIZER with one row; its digest is its identity."""
    redact: tuple[str, ...] | None = None
    """Kinds of personal data replaced by placeholders (pipelines.pii.KINDS and ENTITY_KINDS); None is off."""


def tokenize_documents(batches: Iterable[pa.RecordBatch], config: TokenizeConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT + SIGNALS + OUTCOME -> TOKENS, one row for each kept document, in order.

    A batch without a kept document is left out. `num_bytes` counts the UTF-8 bytes of the redacted text. Raises
    SchemaError where a document has no outcome, ConfigError for a vocabulary over 65,536.
    """
    encoder: Encoder | None = None
    kinds = None if config.redact is None else frozenset(config.redact)
    for batch in batches:
        kept = batch.filter(_is_kept(batch))
        read = [name for name in _READ if name in kept.schema.names]
        if not kept.num_rows:
            continue
        encoder = encoder or _encoder(config.tokenizer)
        texts = [trained_text(row["text"], kinds, row) for row in kept.select(read).to_pylist()]
        yield _tokens(kept, texts, encoder)


def _encoder(tokenizer: Resource) -> Encoder:
    encoder = Encoder.load(_tokenizer_json(tokenizer))
    if encoder.vocab_size > _MAX_VOCAB_SIZE:
        raise ConfigError(
            f"got a tokenizer of {encoder.vocab_size} tokens, wanted at most {_MAX_VOCAB_SIZE}, the 16-bit ids of "
            "token shards: choose a smaller vocabulary."
        )
    return encoder


def _tokenizer_json(tokenizer: Resource) -> str:
    with pa.OSFile(tokenizer.path) as file, pa.ipc.open_stream(file) as stream:
        return stream.read_all().column("tokenizer_json")[0].as_py()


def _is_kept(batch: pa.RecordBatch) -> pa.BooleanArray:
    """True for each row to keep; a missing decision is an error, never a yes."""
    decisions = batch.column("decision")
    if not pc.all(pc.is_in(decisions, pa.array(["keep", "drop"])), min_count=0).as_py():
        raise SchemaError(
            f"got decisions {decisions.unique().to_pylist()}, wanted keep or drop for each document: run dedup on "
            "them again."
        )
    return pc.equal(decisions, "keep")


def _tokens(kept: pa.RecordBatch, texts: list[str], encoder: Encoder) -> pa.RecordBatch:
    eot = np.array([encoder.eot_token], np.uint16)
    documents = [ids for document in encoder.encode_batch(texts) for ids in (document.astype(np.uint16), eot)]
    lengths = np.array([len(ids) for ids in documents]).reshape(-1, 2).sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tokens = pa.ListArray.from_arrays(offsets, np.concatenate(documents), type=TOKENS.field("tokens").type)
    num_bytes = pc.binary_length(pa.array(texts, pa.large_string())).cast(pa.int64())
    return pa.RecordBatch.from_arrays([kept.column("doc_id"), kept.column("split"), num_bytes, tokens], schema=TOKENS)


TOKENIZE = Stage(
    name="tokenize",
    version=4,
    inputs=(
        select(DOCUMENT, "doc_id", "text"),
        select(SIGNALS, "doc_id", *READ_OF_SIGNALS),
        select(OUTCOME, "doc_id", "decision", "split", *READ_OF_OUTCOME),
    ),
    output=TOKENS,
    transform=tokenize_documents,
    row_seconds=3e-4,
    is_row_wise=True,
    libraries=("tokenizers", "gigatoken", "llvmlite", "numba", "numpy", "phonenumbers", "tldextract"),
    compression=None,
    tally=tally_tokens,
)
