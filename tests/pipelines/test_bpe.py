"""The trainer of the tokenizer gives what `tokenizers`' trainer gives, to the byte of its file."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from pipelines.bpe import END_OF_TEXT, _cut, byte_level, train_bpe


def reference(texts: list[str], vocab_size: int, min_frequency: int) -> str:
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


SOME = st.one_of(st.text(), st.text("ab ", max_size=60), st.text("aab的了。 \n'sx1", max_size=60))


@settings(deadline=None)
@given(st.lists(SOME, max_size=6), st.integers(257, 330), st.integers(1, 3))
def test_any_text(texts, vocab_size, min_frequency):
    assert train_bpe(texts, vocab_size, min_frequency) == reference(texts, vocab_size, min_frequency)


ENGLISH = "The ferry's captain told us twice: don't wait for the 12:45, it has never once been on time. "
CHINESE = "渡轮的船长告诉我们两次：不要等十二点四十五分的那一班，它从来没有准时过。"


@pytest.mark.parametrize("vocab_size", [400, 5000])
def test_text_in_two_languages(vocab_size):
    texts = [
        sentence[start:] + sentence[: start * step]
        for sentence in (ENGLISH, CHINESE)
        for start in range(30)
        for step in (1, 2)
    ]
    trained = train_bpe(texts, vocab_size, 1)
    assert trained == reference(texts, vocab_size, 1)
    assert len(json.loads(trained)["model"]["merges"]) > 100


def test_two_pairs_that_make_one_token():
    """abc of ab and c, and of a and bc: one number, two merges."""
    texts = ["abc " * 5 + "ab " * 20 + "xbc " * 20 + "abcabc " * 9 + "bcabc " * 7]
    for vocab_size in range(258, 275):
        assert train_bpe(texts, vocab_size, 1) == reference(texts, vocab_size, 1)
