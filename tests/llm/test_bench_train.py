"""The benchmark of training counts as it says, and its GPU path runs."""

import sys
from pathlib import Path

import pytest
import torch

from llm.config import ModelConfig, TrainConfig, gpt2_124m, nano
from llm.data import TokenData
from llm.model import GPT

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import bench_train
import peer_gpt2
import training_quality
import training_speed
from training_speed import OURS, PLAIN, PRODUCTS, Setting

TINY = ModelConfig(vocab_size=64, block_size=16, n_layer=1, n_head=2, n_embd=16)


def test_throughput_is_tokens_over_elapsed_seconds() -> None:
    setting = Setting(model=TINY, micro_batch_size=4, updates_a_turn=5)
    assert setting.num_tokens == 4 * 16 * 5
    rates = training_speed.rates(setting, {OURS: [2.0, 4.0, 8.0], PRODUCTS: [0.5]})
    assert rates[OURS]["median"] == 320 / 4
    assert rates[PRODUCTS]["median"] == 2 * (2 * 2048**3) / 0.5


def test_utilisation_is_the_models_operations_over_the_peak() -> None:
    """GPT-2 of 124 M at T = 1,024 has 855 MFLOP a token; 500,000 tokens a second are 43 % of an H100's 989 TFLOP/s."""
    flops = gpt2_124m().flops_per_token
    assert flops == pytest.approx(855e6, rel=0.01)
    assert training_speed.utilisation(500_000, flops, 989e12) == pytest.approx(0.432, abs=0.002)


def test_ratios_are_of_neighbouring_turns() -> None:
    """A load that slows both turns of a round down changes nothing."""
    ratio = training_speed.ratios({OURS: [1.0, 10.0, 1.0], PLAIN: [1.5, 15.0, 1.2]}, PLAIN)
    assert ratio == {"median": 1.5, "least": pytest.approx(1.2), "most": 1.5}


def test_peers_are_the_same_model() -> None:
    """Transformers' from our weights: the same loss. The plain one: as many parameters."""
    model = GPT(TINY, seed=2)
    tokens = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(0))
    update = peer_gpt2.transformers_update(model, torch.device("cpu"), rates=iter([1e-3, 1e-3]))
    assert update(tokens).item() == pytest.approx(model(tokens[:, :-1], tokens[:, 1:]).item(), abs=1e-5)
    assert update(tokens).item() < model(tokens[:, :-1], tokens[:, 1:]).item()  # it has learned of them
    plain = peer_gpt2.PlainGPT(TINY)
    assert sum(p.numel() for p in plain.parameters()) == TINY.num_parameters


def test_ours_and_transformers_learn_alike(corpus: tuple[TokenData, TokenData]) -> None:
    model = ModelConfig(vocab_size=50, block_size=8, n_layer=2, n_head=2, n_embd=16)
    config = TrainConfig(max_steps=8, micro_batch_size=4, tokens_per_step=32, learning_rate=1e-2, warmup_steps=2)
    ours = training_quality.learn(model, config, corpus)
    theirs = training_quality.learn_with_transformers(model, config, corpus)
    assert ours.val_loss == pytest.approx(theirs.val_loss, abs=1e-4)
    assert ours.val_loss < 3.9  # ln 50 = 3.91


def test_defaults_are_measured() -> None:
    """But for the budget and the size of a step, what is measured is what the product does."""
    config = training_quality.configured(nano(), steps=100, optimizer="muon")
    assert config == TrainConfig(
        max_steps=100, warmup_steps=10, tokens_per_step=2048, micro_batch_size=16, optimizer="muon"
    )


@pytest.mark.slow
def test_the_path_of_a_gpu_runs_on_a_cpu() -> None:
    setting = Setting(model=TINY, micro_batch_size=2, updates_a_turn=3)
    rows = list(bench_train.beside_plain_loop(setting, num_rounds=2, peak=1e12, where="here"))
    assert [row.what.split(",")[0] for row in rows] == ["tokens a second", "speed beside plain loop", "MFU"]
    assert 0 < rows[2].values["mfu"] < 1
    unknown = list(bench_train.beside_plain_loop(setting, num_rounds=2, peak=None, where="here"))[2]
    assert (unknown.found, unknown.holds) == ("unknown", None)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = bench_train.gpu(None)
    assert (row.found, row.holds) == ("no GPU here: unmeasured", None)
