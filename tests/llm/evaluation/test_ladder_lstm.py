"""The recurrent rung: one state through a document of any length, none from one document to the next."""

import numpy as np
import pytest
import torch

from llm.evaluation.ladder import lstm
from llm.evaluation.ladder.frequencies import smoothed_frequencies, unigram_losses
from llm.evaluation.ladder.lstm import LSTM, LSTMConfig, lstm_losses, train_lstm
from pipelines.errors import ConfigError

EOT, VOCAB = 0, 30
SMALL = LSTMConfig(n_embd=24, max_epochs=8, num_lanes=4, segment_num_tokens=16, dropout=0.0)


def counting(num_documents, seed):
    """Documents that count upwards from a random token: what comes next is known but for the first and the end."""
    rng = np.random.default_rng(seed)
    return [
        np.array([*(1 + (rng.integers(29) + np.arange(rng.integers(5, 60))) % 29), EOT], dtype=np.uint16)
        for _ in range(num_documents)
    ]


def test_a_document_is_read_with_one_state_from_its_first_token_to_its_last(monkeypatch) -> None:
    """By hand: the whole document through torch's LSTM at once."""
    monkeypatch.setattr(lstm, "_SCORING_NUM_TOKENS", 7)
    monkeypatch.setattr(lstm, "_SCORING_NUM_LANES", 3)
    torch.manual_seed(0)
    config = LSTMConfig(n_embd=16, n_layer=2, dropout=0.3)
    model = LSTM(smoothed_frequencies(np.arange(VOCAB)), config).eval()
    rng = np.random.default_rng(1)
    documents = [rng.integers(1, VOCAB, size).astype(np.uint16) for size in (50, 1, 7, 8, 0, 23, 14)]
    expected = []
    for tokens in documents:
        ids = torch.tensor([EOT, *tokens.tolist()])
        with torch.no_grad():
            hidden, _ = (
                model.lstm(model.embedding(ids[None, :-1]) * 4) if tokens.size else (torch.zeros(1, 0, 16), None)
            )
            log_shares = torch.log_softmax((hidden[0] @ model.embedding.weight.T + model.bias).double(), dim=1)
        expected.append(-log_shares.gather(1, ids[1:, None]).sum().item())
    assert lstm_losses(model, documents, eot_token=EOT) == pytest.approx(expected, abs=1e-4)


def test_untrained_it_is_about_the_unigrams() -> None:
    counts = np.random.default_rng(0).integers(0, 1000, VOCAB)
    documents = counting(20, 1)
    torch.manual_seed(0)
    model = LSTM(smoothed_frequencies(counts), LSTMConfig()).eval()
    found = lstm_losses(model, documents, eot_token=EOT).sum()
    assert found == pytest.approx(unigram_losses(counts, documents).sum(), rel=0.05)


def test_it_learns_what_can_be_learnt() -> None:
    documents, held_out, shares = counting(100, 0), counting(20, 1), []
    before = torch.random.get_rng_state()
    model, num_tokens = train_lstm(
        documents, vocab_size=VOCAB, eot_token=EOT, config=SMALL, seed=3, on_progress=shares.append
    )
    assert torch.equal(torch.random.get_rng_state(), before), "nobody else's random numbers move"
    counts = np.bincount(np.concatenate(documents), minlength=VOCAB)
    found = lstm_losses(model, held_out, eot_token=EOT)
    assert found.sum() < 0.35 * unigram_losses(counts, held_out).sum()
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert num_tokens == pytest.approx(8 * sum(tokens.size for tokens in documents), rel=0.01)


def test_it_is_the_same_each_time_and_another_with_another_seed() -> None:
    def losses(seed):
        config = LSTMConfig(n_embd=8, max_epochs=1, num_lanes=4, segment_num_tokens=16, dropout=0.5)
        model, _ = train_lstm(counting(20, 0), vocab_size=VOCAB, eot_token=EOT, config=config, seed=seed)
        return lstm_losses(model, counting(5, 1), eot_token=EOT)

    assert np.array_equal(losses(3), losses(3))
    assert not np.array_equal(losses(3), losses(4))


def test_the_budget_is_kept_within_a_step() -> None:
    config = LSTMConfig(n_embd=8, max_tokens=500, num_lanes=2, segment_num_tokens=16)
    _, num_tokens = train_lstm(counting(60, 0), vocab_size=VOCAB, eot_token=EOT, config=config)
    assert 500 <= num_tokens < 500 + 32


@pytest.mark.parametrize(
    "wrong", [{"n_embd": 0}, {"dropout": 1.0}, {"max_epochs": 0.0}, {"learning_rate": float("nan")}]
)
def test_a_shape_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=f"got lstm.{next(iter(wrong))}"):
        LSTMConfig(**wrong)
