"""Measurements against answers worked out by hand."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from llm.config import ModelConfig
from llm.data import TokenData
from llm.evaluate import PROTOCOL, evaluate
from llm.model import GPT
from pipelines.errors import EmptyCorpusError, SchemaError

CONFIG = ModelConfig(vocab_size=20, block_size=8, n_layer=2, n_head=2, n_embd=16)
EOT = 0


@pytest.fixture
def open_rows(write_shard: Callable[..., Path]) -> Callable[..., tuple[TokenData, TokenData]]:
    def open_rows(rows) -> tuple[TokenData, TokenData]:
        path = write_shard(rows)
        return tuple(TokenData.open([path], split, digest="d") for split in ("train", "validation"))

    return open_rows


@pytest.fixture
def model() -> GPT:
    """Random weights, large enough that context matters."""
    model = GPT(CONFIG, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    return model.eval()


def test_a_uniform_model_scores_ln_vocab_size(open_rows) -> None:
    model = GPT(CONFIG)
    with torch.no_grad():
        model.wte.weight.zero_()  # every logit is 0
    rows = [("train", [1, EOT], 1), ("validation", [3, 4, 5, EOT], 6), ("validation", [*[7] * 30, EOT], 29)]
    found, _ = evaluate(model, *open_rows(rows), eot_token=EOT)
    assert found.protocol == PROTOCOL
    assert (found.num_documents, found.num_tokens, found.num_bytes) == (2, 35, 35)
    assert found.loss == pytest.approx(math.log(20), abs=1e-6)
    assert found.perplexity == pytest.approx(20, abs=1e-4)
    assert found.bits_per_byte == pytest.approx(35 * math.log2(20) / 35, abs=1e-6)
    assert found.loss_standard_error == pytest.approx(0, abs=1e-6)  # every document has the same loss


def test_unigram_by_hand(open_rows) -> None:
    """Train: 3 x token 1, 1 x token 2, 2 x end. Add one over 20 ids: (count + 1) / 26."""
    rows = [("train", [1, 1, 2, EOT], 3), ("train", [1, EOT], 1), ("validation", [1, 2, 9, EOT], 12)]
    found = evaluate(GPT(CONFIG), *open_rows(rows), eot_token=EOT)[0]
    nats = -(math.log(4 / 26) + math.log(2 / 26) + math.log(1 / 26) + math.log(3 / 26))
    assert found.unigram_loss == pytest.approx(nats / 4)
    assert found.unigram_bits_per_byte == pytest.approx(nats / math.log(2) / 12)
    assert found.gain == pytest.approx(found.unigram_loss - found.loss)
    assert (found.loss_standard_error, found.gain_standard_error) == (None, None)  # one document


def test_each_token_is_scored_once_in_its_own_document(open_rows, model: GPT) -> None:
    """Token by token, by hand: the context is the end of the document before it and the window's own tokens."""
    generator = np.random.default_rng(0)
    documents = [[*generator.integers(1, 20, length).tolist(), EOT] for length in (1, 6, 7, 8, 11, 12, 30)]
    rows = [("train", [1, EOT], 1), *(("validation", tokens, len(tokens)) for tokens in documents)]
    nats = []
    for tokens in documents:
        read = [EOT, *tokens]
        for i in range(len(tokens)):
            past_first = i - CONFIG.block_size  # >= 0 after the first window
            end = len(tokens) if past_first < 0 else CONFIG.block_size + 4 * (past_first // 4 + 1)
            end = CONFIG.block_size if past_first < 0 else min(end, len(tokens))
            context = read[max(0, end - CONFIG.block_size) : i + 1]
            assert past_first < 0 or len(context) > CONFIG.block_size // 2
            with torch.no_grad():
                logits = model.logits(model.states(torch.tensor([context])))[0, -1]
            nats.append(-torch.log_softmax(logits.double(), 0)[tokens[i]].item())
    train_data, validation_data = open_rows(rows)
    found = evaluate(model, train_data, validation_data, eot_token=EOT)[0]
    assert found.num_tokens == len(nats)
    assert found.loss == pytest.approx(np.mean(nats), abs=1e-5)
    assert evaluate(model, train_data, validation_data, eot_token=EOT, batch_size=3)[0].loss == pytest.approx(
        found.loss
    )


def test_standard_error_is_about_that_of_a_bootstrap(open_rows, model: GPT) -> None:
    generator = np.random.default_rng(1)
    documents = [[*generator.integers(1, 20, generator.integers(2, 40)).tolist(), EOT] for _ in range(60)]
    rows = [("train", [1, EOT], 1), *(("validation", tokens, len(tokens)) for tokens in documents)]
    found = evaluate(model, *open_rows(rows), eot_token=EOT)[0]
    alone = [evaluate(model, *open_rows([rows[0], row]), eot_token=EOT)[0] for row in rows[1:]]
    draws = generator.integers(0, 60, (500, 60))
    nats, sizes = np.array([m.loss * m.num_tokens for m in alone]), np.array([m.num_tokens for m in alone])
    bootstrap = (nats[draws].sum(axis=1) / sizes[draws].sum(axis=1)).std()
    assert found.loss_standard_error == pytest.approx(bootstrap, rel=0.15)
    assert found.bits_per_byte_standard_error > 0


def test_what_cannot_be_measured_is_refused(open_rows) -> None:
    with pytest.raises(EmptyCorpusError, match="got no text in 1 held-out documents"):
        evaluate(GPT(CONFIG), *open_rows([("train", [1, EOT], 1), ("validation", [EOT], 0)]), eot_token=EOT)
    with pytest.raises(SchemaError, match="got token id 25; wanted ids below the model's vocab_size of 20"):
        evaluate(GPT(CONFIG), *open_rows([("train", [1, EOT], 1), ("validation", [25, EOT], 2)]), eot_token=EOT)
