"""Byte-level BPE, trained on texts: Sennrich et al. (arXiv:1508.07909), over bytes and with GPT-2's splitting into words
(Radford et al. 2019)."""

import re
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"

# The trainer takes time quadratic in the length of a word, and text without spaces is one word until a
# punctuation mark (measured: 33 s for one of 100,000 Han characters, 0.4 s when cut).
_UNBROKEN = re.compile(r"\S{100}")


def train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int) -> str:
    """A tokenizer.json with every byte and the end-of-text token in its vocabulary."""
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((piece for text in texts for piece in _cut(text)), trainer)
    return tokenizer.to_str()


def byte_level(model: models.Model) -> Tokenizer:
    """A tokenizer of GPT-2's shape around a model."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _cut(text: str) -> Iterator[str]:
    """A text in pieces without long unbroken runs, for the trainer alone."""
    start = 0
    for run in _UNBROKEN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]
