"""Exposure and extraction against models whose memory is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.config import ModelConfig
from llm.evaluation.compare import from_json, to_json
from llm.evaluation.memorisation import (
    HELD_OUT,
    Excerpt,
    Probe,
    excerpts,
    exposure_suite,
    exposures,
    extraction,
    fisher,
    holm,
    skew_normal_log2_share,
)
from llm.model import GPT
from pipelines.errors import ConfigError

EOT = 0
CONFIG = ModelConfig(vocab_size=40, block_size=24, n_layer=1, n_head=2, n_embd=32)
WORDS = {word: idx for idx, word in enumerate(("key", *(chr(97 + n) for n in range(16)), *"山水火木金土日月"), 1)}


def encode(text: str) -> list[int]:
    return [WORDS[word] for word in text.split()]


def learnt(texts: list[list[int]], steps: int = 200) -> GPT:
    """A model that knows some sequences by heart."""
    model = GPT(CONFIG, seed=0)
    ids = torch.tensor([[EOT, *text] for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
    return model.eval()


def probe(secret: str, alphabet: str, seed: int, num: int = 199, name: str = "one") -> Probe:
    draw = np.random.default_rng(seed)
    held_out: set[str] = set()
    while len(held_out) < num:
        held_out |= {" ".join(draw.choice(list(alphabet), 4))} - {secret}
    return Probe(
        name=name,
        language="en",
        num_planted=4,
        context="key ",
        secret=secret,
        held_out=tuple(sorted(held_out)),
        log2_space=4 * math.log2(len(alphabet)),
    )


@pytest.mark.parametrize(("secret", "alphabet"), [("a b c d", "abcdefghij"), ("山 水 火 木", "山水火木金土日月")])
def test_what_was_learnt_is_found_and_what_was_not_is_not(secret: str, alphabet: str) -> None:
    model = learnt([encode(f"key {secret}")])
    (found,) = exposures(model, [probe(secret, alphabet, 1)], encode, EOT)
    assert found.rank == 1
    assert found.exposure == pytest.approx(math.log2(200))
    assert found.p_value == pytest.approx(1 / 200)
    assert found.is_found
    assert found.loss < 0.1 < found.median_loss
    assert found.exposure < found.extrapolated <= 4 * math.log2(len(alphabet))
    (other,) = exposures(GPT(CONFIG, seed=3), [probe(secret, alphabet, 1)], encode, EOT)
    assert not other.is_found


def test_p_values_of_secrets_that_nobody_learnt_are_even() -> None:
    """Exactness: of canaries drawn like the held-out ones, a share of t has a p-value of at most t."""
    model, draw = GPT(CONFIG, seed=5), np.random.default_rng(2)
    probes = []
    for number in range(40):
        words = {" ".join(draw.choice(list("abcdefghijklmnop"), 4)) for _ in range(900)}
        secret, *held_out = draw.permutation(sorted(words))[:820].tolist()
        probes.append(replace(probe("a a a a", "ab", 0, 5), name=str(number), secret=secret, held_out=tuple(held_out)))
    found = exposures(model, probes, encode, EOT)
    p_values = np.sort([each.p_value for each in found])
    gap = np.abs(p_values - (np.arange(40) + 0.5) / 40).max()
    assert gap < 1.63 / math.sqrt(40)  # Kolmogorov's, at 1 %
    assert not any(each.is_found for each in found)
    result = exposure_suite(found, dataset_digest="d")
    assert result.figure.value == 0
    assert from_json(json.loads(json.dumps(to_json(result)))).items == tuple(result.items)
    assert result.figures["baseline/unseen_exposure"].value == pytest.approx(math.log2(math.e), abs=0.02)


def test_too_few_held_out_secrets_are_refused() -> None:
    few = [probe("a b c d", "abcdef", 1, num=100, name=str(number)) for number in range(6)]
    with pytest.raises(ConfigError, match="held-out secrets"):
        exposures(GPT(CONFIG), few, encode, EOT)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([]) == []


def test_fisher_by_hand() -> None:
    assert fisher([0.03]) == pytest.approx(0.03)
    product = 0.1 * 0.2
    assert fisher([0.1, 0.2]) == pytest.approx(product * (1 - math.log(product)))


@given(st.floats(-6, 3))
def test_without_skewness_the_share_is_the_normal_one(at: float) -> None:
    values = np.concatenate([np.linspace(-1, 1, 101)])
    values /= values.std()
    wanted = float(torch.special.log_ndtr(torch.tensor(at, dtype=torch.float64))) / math.log(2)
    assert skew_normal_log2_share(values, at) == pytest.approx(wanted, abs=1e-3)


def test_a_skew_normal_sample_gives_its_own_share() -> None:
    draw = np.random.default_rng(0)
    alpha = 3.0
    delta = alpha / math.sqrt(1 + alpha * alpha)
    sample = delta * np.abs(draw.normal(size=200_000)) + math.sqrt(1 - delta**2) * draw.normal(size=200_000)
    for quantile in (0.02, 0.5, 0.9):
        found = 2 ** skew_normal_log2_share(sample, float(np.quantile(sample, quantile)))
        assert found == pytest.approx(quantile, abs=0.01)


def test_extraction_by_copies_and_of_what_was_not_seen() -> None:
    draw = np.random.default_rng(0)
    known, unknown = draw.integers(1, 40, (2, 3, 20)).tolist()
    model = learnt(known, steps=300)
    documents = [(f"k{idx}", ids) for idx, ids in enumerate(known)] + [
        (f"u{idx}", ids) for idx, ids in enumerate(unknown)
    ]
    groups = {"k0": "1", "k1": "2-3", "k2": "2-3"} | {f"u{idx}": HELD_OUT for idx in range(3)}
    taken = excerpts(documents, groups, prefix_tokens=10, continuation_tokens=10, max_per_group=5)
    # A document read from its beginning is known by heart; excerpts of 20 of 20 tokens begin there.
    found = extraction(
        model, [replace(each, ids=(EOT, *each.ids)) for each in taken], prefix_tokens=11, dataset_digest="d"
    )
    assert found.figures["share_extracted"].value == 1
    assert from_json(json.loads(json.dumps(to_json(found)))).items == tuple(found.items)
    assert found.figures["share_extracted/2-3"].num_items == 2
    assert found.figures["baseline/held_out"].value == 0
    assert found.figure.low < 1  # Wilson's interval of 3 of 3


def test_half_a_continuation_counts_its_tokens() -> None:
    ids = [EOT, 5, 6, 7, 8, 9, 10]
    model = learnt([ids[1:]])
    broken = Excerpt(doc_id="d", ids=(*ids[:5], 20, 21), group="1")
    found = extraction(model, [broken], prefix_tokens=3, dataset_digest="d")
    assert found.items[0]["num_equal"] == 2
    assert found.figure.value == 0


@given(st.integers(0, 5), st.integers(1, 3), st.permutations(range(8)))
def test_which_excerpts_are_taken_hangs_on_names_and_seed(seed: int, most: int, order: list[int]) -> None:
    documents = [(f"d{idx}", list(range(30 + idx))) for idx in range(8)]
    groups = {name: "ab"[idx % 2] for idx, (name, _) in enumerate(documents)}
    options = {"prefix_tokens": 4, "continuation_tokens": 3, "max_per_group": most, "seed": seed}
    taken = excerpts(documents, groups, **options)
    assert taken == excerpts([documents[idx] for idx in order], groups, **options)
    assert len(taken) == 2 * most
    assert all(each.ids == tuple(range(each.ids[0], each.ids[0] + 7)) for each in taken)
