"""The hidden Markov rung against the enumeration of all paths, and the law of expectation-maximisation."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.evaluation.ladder import hmm
from llm.evaluation.ladder.frequencies import smoothed_frequencies
from llm.evaluation.ladder.hmm import (
    HMM,
    HMMConfig,
    hmm_losses,
    improved,
    make_prior,
    piece_batches,
    random_hmm,
    train_hmm,
)
from pipelines.errors import ConfigError

VOCAB = 4
DOCUMENTS = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9), min_size=1, max_size=6)


def arrays(documents):
    return [np.array(tokens, dtype=np.uint16) for tokens in documents]


def drawn(num_states, seed, vocab_size=VOCAB):
    unigram = np.random.default_rng(seed).dirichlet(np.ones(vocab_size))
    return random_hmm(unigram, num_states=num_states, seed=seed)


def path_probabilities(model, tokens, start=0):
    """Of every path of states together with the tokens, from the definition."""
    starts, transitions, emissions = (part.tolist() for part in (model.starts, model.transitions, model.emissions))
    found = {}
    for path in itertools.product(range(len(transitions)), repeat=len(tokens)):
        probability = starts[start][path[0]]
        for before, after in itertools.pairwise(path):
            probability *= transitions[before][after]
        for state, token in zip(path, tokens, strict=True):
            probability *= emissions[token][state]
        found[path] = probability
    return found


@given(documents=DOCUMENTS, num_states=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_loss_is_that_of_all_paths_together(documents, num_states, seed) -> None:
    model = drawn(num_states, seed)
    documents = [tokens[:6] for tokens in documents]
    expected = [-math.log(sum(path_probabilities(model, tokens).values())) for tokens in documents]
    assert hmm_losses(model, arrays(documents)) == pytest.approx(expected, abs=1e-10)
    _, log_likelihood = improved(
        model,
        list(piece_batches(arrays(documents), 100, num_states)),
        make_prior(np.ones(VOCAB), num_states=num_states, pseudo_tokens=0),
    )
    assert log_likelihood == pytest.approx(-sum(expected), abs=1e-10)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_all_sequences_of_a_length_sum_to_one(length) -> None:
    sequences = arrays(itertools.product(range(VOCAB), repeat=length))
    assert abs(np.exp(-hmm_losses(drawn(3, 1), sequences)).sum() - 1) < 1e-12


@given(
    documents=DOCUMENTS,
    num_states=st.integers(1, 4),
    seed=st.integers(0, 99),
    piece=st.integers(1, 10),
    pseudo_tokens=st.sampled_from([0.0, 0.0, 0.1, 3.0]),
)
@settings(max_examples=60, deadline=None)
def test_no_iteration_lowers_the_likelihood(documents, num_states, seed, piece, pseudo_tokens) -> None:
    """With no pseudo-tokens the likelihood itself, else that with the prior."""
    documents = arrays(documents)
    unigram = smoothed_frequencies(np.bincount(np.concatenate(documents), minlength=VOCAB))
    prior = make_prior(unigram, num_states=num_states, pseudo_tokens=pseudo_tokens)
    model, batches = (
        random_hmm(unigram, num_states=num_states, seed=seed),
        list(piece_batches(documents, piece, num_states)),
    )
    values = []
    for _ in range(12):
        density = prior.log_density(model)
        model, log_likelihood = improved(model, batches, prior)
        values.append(log_likelihood + density)
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(values))
    for part, dim in ((model.starts, 1), (model.transitions, 1), (model.emissions, 0)):
        assert torch.allclose(part.sum(dim=dim), torch.ones((), dtype=torch.float64), atol=1e-12)


def test_an_iteration_is_the_one_of_the_definition() -> None:
    """Expected counts by enumeration, of pieces that begin documents and of one that begins within."""
    model, pieces = drawn(2, 3), [([0, 1, 2, 3], 0), ([2, 2], 1), ([3], 0)]
    starts, transitions, emissions = np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((VOCAB, 2))
    for tokens, start in pieces:
        paths = path_probabilities(model, tokens, start)
        for path, probability in paths.items():
            share = probability / sum(paths.values())
            starts[start, path[0]] += share
            for before, after in itertools.pairwise(path):
                transitions[before, after] += share
            for state, token in zip(path, tokens, strict=True):
                emissions[token, state] += share
    prior = make_prior(np.full(VOCAB, 1 / VOCAB), num_states=2, pseudo_tokens=0)
    found, _ = improved(model, list(piece_batches(arrays([[0, 1, 2, 3, 2, 2], [3]]), 4, 2)), prior)
    assert found.starts.numpy() == pytest.approx(starts / starts.sum(axis=1, keepdims=True), abs=1e-12)
    assert found.transitions.numpy() == pytest.approx(transitions / transitions.sum(axis=1, keepdims=True), abs=1e-12)
    assert found.emissions.numpy() == pytest.approx(emissions / emissions.sum(axis=0), abs=1e-12)


def test_documents_longer_than_a_segment_are_filtered_through() -> None:
    model, rng = drawn(3, 5), np.random.default_rng(0)
    long = rng.integers(0, VOCAB, 1000).astype(np.uint16)
    documents = [long, *arrays([[1, 2], [3]]), *(rng.integers(0, VOCAB, 300).astype(np.uint16) for _ in range(80))]
    state, nats = model.starts[0].numpy(), 0.0
    for idx, token in enumerate(long):
        predicted = state if idx == 0 else state @ model.transitions.numpy()
        joint = predicted * model.emissions[int(token)].numpy()
        nats -= math.log(joint.sum())
        state = joint / joint.sum()
    together = hmm_losses(model, documents)
    assert together[0] == pytest.approx(nats, rel=1e-12)
    assert together == pytest.approx([hmm_losses(model, [each])[0] for each in documents], rel=1e-12)


def test_it_finds_the_states_of_a_corpus_that_has_some() -> None:
    """Two states that stay, each with tokens of its own: no unigram comes near their entropy.

    From more than half of all beginnings two states stay at a saddle, so the likeliest of several models is taken.
    """
    truth = HMM(
        torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64),
        torch.tensor([[0.95, 0.05], [0.05, 0.95]], dtype=torch.float64),
        torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.0, 0.5], [0.0, 0.5]], dtype=torch.float64),
    )
    rng = np.random.default_rng(0)
    documents = []
    for _ in range(60):
        is_second = (np.cumsum(rng.random(80) < 0.05) + rng.integers(2)) % 2
        documents.append((2 * is_second + rng.integers(0, 2, 80)).astype(np.uint16))
    train, held_out = documents[:40], documents[40:]
    shares = []
    config = HMMConfig(num_states=2, num_iterations=60, pseudo_tokens=1, piece_num_tokens=50)
    models = [train_hmm(train, vocab_size=5, config=config, seed=seed, on_progress=shares.append) for seed in range(6)]
    model = min(models, key=lambda each: hmm_losses(each, train).sum())
    best, found = hmm_losses(truth, held_out).sum(), hmm_losses(model, held_out).sum()
    assert found == pytest.approx(best, rel=0.02)
    assert best < 0.7 * 20 * 80 * math.log(4)
    assert shares[:60] == pytest.approx([(each + 1) / 60 for each in range(60)])
    assert np.isfinite(hmm_losses(model, arrays([[4, 4, 0]]))).all(), "a token that training never met"
    again = train_hmm(train, vocab_size=5, config=config, seed=3)
    assert torch.equal(again.emissions, models[3].emissions)
    assert not torch.equal(again.emissions, models[4].emissions)


@pytest.mark.parametrize(
    "wrong", [{"num_states": 0}, {"num_iterations": -1}, {"pseudo_tokens": 0.0}, {"piece_num_tokens": 0}]
)
def test_a_shape_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=f"got hmm.{next(iter(wrong))}"):
        HMMConfig(**wrong)


def test_batches_however_small_are_worth_the_same(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, VOCAB, size).astype(np.uint16) for size in rng.integers(1, 40, 30)]
    config = HMMConfig(num_states=3, num_iterations=3, piece_num_tokens=16)
    whole = train_hmm(documents, vocab_size=VOCAB, config=config)
    monkeypatch.setattr(hmm, "_BATCH_NUM_STATES", 100)
    batches = list(piece_batches(documents, 16, 3))
    assert max(batch.tokens.numel() for batch in batches) <= 100 // 3
    assert sum(sum(batch.num_active) for batch in batches) == sum(tokens.size for tokens in documents)
    cut = train_hmm(documents, vocab_size=VOCAB, config=config)
    assert torch.allclose(cut.emissions, whole.emissions, rtol=1e-10)
    assert torch.allclose(cut.transitions, whole.transitions, rtol=1e-10)
