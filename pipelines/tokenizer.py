"""The tokenizer: a bounded sample of the kept text, and byte-level BPE trained on it, or one that is given."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import models, pre_tokenizers

from pipelines.bpe import END_OF_TEXT, byte_level, train_bpe
from pipelines.encoding import Encoder
from pipelines.errors import ConfigError, EmptyCorpusError, SchemaError
from pipelines.pii import find_all, redact
from pipelines.schemas import DOCUMENT, OUTCOME, SAMPLE, TOKENIZER, entities_of, select
from pipelines.stage import Kind, Stage

_NUM_BYTE_TOKENS = 256
_MAX_VOCAB_SIZE = 1 << 16  # token shards hold 16-bit ids
_BATCH_NUM_ROWS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """How much text the tokenizer is trained on."""

    max_sample_bytes: int = 64 << 20
    """Most UTF-8 bytes of text in the sample, before redaction; training on 64 MiB takes about 30 s."""
    redact: tuple[str, ...] | None = None
    """Kinds of personal data replaced by placeholders, as in the tokenize stage; None is off."""

    def __post_init__(self) -> None:
        if self.max_sample_bytes < 1:
            raise ConfigError(f"got max_sample_bytes {self.max_sample_bytes}, wanted at least 1: 67108864 is usual.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """What is trained on the sample."""

    vocab_size: int = 32_768
    """Most tokens, the 256 bytes and the end-of-text token included; fewer where the sample yields no more."""
    min_frequency: int = 2
    """Least occurrences in the sample of a pair that is merged into a token."""

    def __post_init__(self) -> None:
        if not _NUM_BYTE_TOKENS < self.vocab_size <= _MAX_VOCAB_SIZE:
            raise ConfigError(
                f"got vocab_size {self.vocab_size}, wanted {_NUM_BYTE_TOKENS + 1} to {_MAX_VOCAB_SIZE}: the bytes and "
                "the end-of-text token at least, 16-bit ids at most."
            )
        if self.min_frequency < 1:
            raise ConfigError(f"got min_frequency {self.min_frequency}, wanted at least 1: 2 is usual.")


@dataclass(frozen=True, slots=True, order=True)
class _Candidate:
    """A document that may be in the sample; sorts first seen first."""

    fetched_at: int  # microseconds since the epoch; 0 where unknown
    doc_id: str
    text: str
    num_bytes: int
    entities: list[dict[str, Any]] | None = field(default=None, compare=False)


def sample_documents(batches: Iterable[pa.RecordBatch], config: SampleConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT + OUTCOME -> SAMPLE, the first bytes of the kept training text, by (fetched_at, doc_id).

    The budget is the largest power of two that the kept training text fills, at most `max_sample_bytes`. So newer
    documents change nothing until the text has doubled: a growing corpus trains its tokenizer once a doubling, never
    again once the budget is full, and what was encoded stays valid meanwhile. Taking a sampled document out, or adding
    one older than the newest of them (no fetch time counts as the oldest), does change the sample.

    The last document is cut to the budget, which counts bytes before redaction. Holds at most twice
    `max_sample_bytes` of text, and a batch. Raises SchemaError where a document has no outcome.
    """
    held: list[_Candidate] = []
    held_bytes = total_bytes = 0
    last: _Candidate | None = None  # once the buffer was full, nothing after this one can be in the sample
    for batch in batches:
        rows = batch.filter(_is_for_training(batch))
        lengths = pc.binary_length(rows.column("text"))
        total_bytes += pc.sum(lengths).as_py() or 0
        times = rows.column("fetched_at").cast(pa.int64()).fill_null(0).to_pylist()
        for row, (fetched_at, doc_id, num_bytes, entities) in enumerate(
            zip(times, rows.column("doc_id").to_pylist(), lengths.to_pylist(), entities_of(rows), strict=True)
        ):
            if num_bytes and (last is None or (fetched_at, doc_id) <= (last.fetched_at, last.doc_id)):
                held.append(_Candidate(fetched_at, doc_id, rows.column("text")[row].as_py(), num_bytes, entities))
                held_bytes += num_bytes
            if held_bytes > 2 * config.max_sample_bytes:
                held = _first_seen(held, config.max_sample_bytes)
                held_bytes = sum(candidate.num_bytes for candidate in held)
                last = held[-1]
    if total_bytes:
        budget = min(1 << (total_bytes.bit_length() - 1), config.max_sample_bytes)
        yield from _sample(_first_seen(held, budget), budget, config)


def train_tokenizer(batches: Iterable[pa.RecordBatch], config: TokenizerConfig) -> Iterator[pa.RecordBatch]:
    """SAMPLE -> TOKENIZER, one row: byte-level BPE with every byte and the end-of-text token in its vocabulary.

    Raises EmptyCorpusError where the sample is empty.
    """
    texts = (text for batch in batches for text in batch.column("text").to_pylist() if text)
    first = next(texts, None)
    if first is None:
        raise EmptyCorpusError(
            "got no kept training text to train a tokenizer on, wanted some: loosen the policy or add sources."
        )
    yield tokenizer_row(train_bpe(chain([first], texts), config.vocab_size, config.min_frequency))


def tokenizer_row(tokenizer_json: str) -> pa.RecordBatch:
    """A tokenizer.json as the one row of a TOKENIZER shard."""
    return pa.RecordBatch.from_pydict({"tokenizer_json": [tokenizer_json]}, schema=TOKENIZER)


def given_tokenizer(path: Path) -> str:
    """The tokenizer.json at a path, checked: byte-level BPE with an end-of-text token. Raises ConfigError."""
    try:
        tokenizer_json = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"got tokenizer {path} that cannot be read ({error}), wanted a tokenizer.json: check the path."
        ) from error
    encoder = Encoder.load(tokenizer_json)
    model = json.loads(tokenizer_json)["model"]
    if model.get("type") != "BPE" or not model["vocab"].keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
        raise ConfigError(
            f"got tokenizer {path} of type {model.get('type')}, wanted byte-level BPE with all 256 bytes in its "
            "vocabulary: choose another, or let one be trained."
        )
    if encoder.vocab_size > _MAX_VOCAB_SIZE:
        raise ConfigError(
            f"got tokenizer {path} of {encoder.vocab_size} tokens, wanted at most {_MAX_VOCAB_SIZE}, the 16-bit ids "
            "of token shards: choose a smaller one."
        )
    return tokenizer_json


def gpt2_tokenizer(folder: Path) -> str:
    """A tokenizer.json of GPT-2's published encoder.json and vocab.bpe, ids as published. Raises ConfigError."""
    try:
        vocab = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")
        merges = [(left, right) for left, right in (line.split(" ") for line in lines[1:] if line)]  # after "#version"
        tokenizer = byte_level(models.BPE(vocab=vocab, merges=merges))
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise ConfigError(
            f"got {folder} that cannot be read as GPT-2's tokenizer ({error}), wanted its encoder.json and vocab.bpe: "
            "fetch both again."
        ) from error
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer.to_str()


def _is_for_training(batch: pa.RecordBatch) -> pa.BooleanArray:
    """True for each row that is kept for training; a missing decision is an error, never a yes."""
    decisions = batch.column("decision")
    if not pc.all(pc.is_in(decisions, pa.array(["keep", "drop"])), min_count=0).as_py():
        raise SchemaError(
            f"got decisions {decisions.unique().to_pylist()}, wanted keep or drop for each document: run dedup on "
            "them again."
        )
    return pc.and_(pc.equal(decisions, "keep"), pc.equal(batch.column("split"), "train"))


def _first_seen(candidates: list[_Candidate], budget: int) -> list[_Candidate]:
    """The first candidates that fill the budget; the last of them may overflow it."""
    candidates = sorted(candidates)
    num_bytes = 0
    for position, candidate in enumerate(candidates):
        num_bytes += candidate.num_bytes
        if num_bytes >= budget:
            return candidates[: position + 1]
    return candidates


def _sample(candidates: list[_Candidate], budget: int, config: SampleConfig) -> Iterator[pa.RecordBatch]:
    kinds = None if config.redact is None else frozenset(config.redact)
    left = budget
    rows: list[dict[str, str]] = []
    for candidate in candidates:
        text = candidate.text
        if kinds is not None:
            text = redact(text, find_all(text, None, kinds, candidate.entities))
        if candidate.num_bytes > left:
            text = text.encode()[:left].decode(errors="ignore")
        left -= candidate.num_bytes
        rows.append({"doc_id": candidate.doc_id, "text": text})
    for start in range(0, len(rows), _BATCH_NUM_ROWS):
        yield pa.RecordBatch.from_pylist(rows[start : start + _BATCH_NUM_ROWS], schema=SAMPLE)


SAMPLE_STAGE = Stage(
    name="sample",
    version=3,
    kind=Kind.GLOBAL,
    inputs=(select(DOCUMENT, "doc_id", "fetched_at", "text"), select(OUTCOME, "doc_id", "decision", "split")),
    output=SAMPLE,
    transform=sample_documents,
    libraries=("llvmlite", "numba", "numpy", "phonenumbers", "tldextract"),
)

TOKENIZER_STAGE = Stage(
    name="tokenizer",
    version=1,
    kind=Kind.GLOBAL,
    inputs=(SAMPLE,),
    output=TOKENIZER,
    transform=train_tokenizer,
    libraries=("llvmlite", "numba", "numpy", "tokenizers"),
)
