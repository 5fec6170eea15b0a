"""The two lowest rungs by hand."""

import math

import numpy as np
import pytest

from llm.evaluation.ladder.frequencies import smoothed_frequencies, uniform_losses, unigram_losses

DOCUMENTS = [np.array(tokens, dtype=np.uint16) for tokens in ([1, 1, 3], [], [0])]


def test_a_uniform_model_takes_ln_v_a_token() -> None:
    assert uniform_losses(DOCUMENTS, 4) == pytest.approx([3 * math.log(4), 0, math.log(4)])


def test_unigrams_have_seen_each_token_once_more() -> None:
    counts = np.array([0, 5, 1, 2])
    assert smoothed_frequencies(counts) == pytest.approx([1 / 12, 6 / 12, 2 / 12, 3 / 12])
    assert unigram_losses(counts, DOCUMENTS) == pytest.approx([math.log(2 * 2 * 4), 0, math.log(12)])
