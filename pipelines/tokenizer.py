"""The tokenizer: byte-level BPE trained on the sample, or one that is given."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
from tokenizers import models, pre_tokenizers

from pipelines.bpe import END_OF_TEXT, byte_level, train_bpe
from pipelines.encoding import Encoder
from pipelines.errors import ConfigError, EmptyCorpusError
from pipelines.schemas import SAMPLE, TOKENIZER
from pipelines.stage import Kind, Stage

_NUM_BYTE_TOKENS = 256
_MAX_VOCAB_SIZE = 1 << 16  # token shards hold 16-bit ids


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


TOKENIZER_STAGE = Stage(
    name="tokenizer",
    version=1,
    kind=Kind.GLOBAL,
    inputs=(SAMPLE,),
    output=TOKENIZER,
    transform=train_tokenizer,
    libraries=("tokenizers", "gigatoken", "llvmlite", "numba", "numpy"),
)
