"""What is off by default: modern presets, document masks, checkpointing of activations, Muon, compilation, bf16; and lean hosts."""

import dataclasses
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.attention import causal_attention, is_for_blocks
from llm.batches import Batch
from llm.config import PRESETS, ModelConfig, RunConfig, TrainConfig, modern
from llm.distributed import joined
from llm.dropout import Dropout, sample_keys
from llm.gradients import Engine
from llm.model import GPT, KeyValueCache, document_mask
from llm.optim import _orthogonal, optimizers, rate_part
from llm.published import GPT2_TYPE, OWN_TYPE, model_type
from llm.train import train

SMALL = ModelConfig(vocab_size=61, block_size=24, n_layer=2, n_head=2, n_embd=16)
MODERN = modern(SMALL)
EOT = 0


def settled(config: ModelConfig) -> GPT:
    """A model without a zero in it."""
    model = GPT(config, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)), alpha=0.1)
    return model


@pytest.mark.parametrize("config", [SMALL, MODERN], ids=["gpt2", "modern"])
def test_with_document_masks_a_document_is_as_it_is_alone(config: ModelConfig) -> None:
    """In its window, and where rotary positions tell only distances, wherever that window begins."""
    model, draw = settled(config).eval(), torch.Generator().manual_seed(0)
    first, second = (torch.randint(1, 61, (size,), generator=draw) for size in (9, 12))
    first[-1] = second[-1] = EOT
    ids = torch.cat([first, second])[None]
    whole = model.states(ids, mask=document_mask(ids, EOT, as_blocks=False))
    assert (whole[:, :9] - model.states(first[None])).abs().max() < 1e-5
    changed = ids.clone()
    changed[0, :8] = changed[0, :8].flip(0)
    again = model.states(changed, mask=document_mask(changed, EOT, as_blocks=False))
    assert (whole[:, 9:] - again[:, 9:]).abs().max() < 1e-5  # nothing of the first is seen by the second
    assert (model.states(ids)[:, 9:] - model.states(changed)[:, 9:]).abs().max() > 1e-3  # without a mask it is
    if config.positions == "rotary":
        assert (whole[:, 9:] - model.states(second[None])).abs().max() < 1e-4


def test_blocks_of_a_mask_are_the_mask() -> None:
    """What FlexAttention skips by, compared as booleans with the mask that CPUs use."""
    ids = torch.randint(0, 4, (2, 24), generator=torch.Generator().manual_seed(3))
    blocks = document_mask(ids, EOT, as_blocks=True)
    b, q, k = torch.meshgrid(torch.arange(2), torch.arange(24), torch.arange(24), indexing="ij")
    wanted = document_mask(ids, EOT, as_blocks=False)[:, 0]
    assert torch.equal(blocks.mask_mod(b, torch.zeros_like(b), q, k), wanted)


@settings(max_examples=25)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(64, 150), st.sampled_from([4, 16])),
    seed=st.integers(0, 99),
)
def test_attention_in_blocks_is_torchs(sizes: tuple[int, int, int, int], seed: int) -> None:
    """In fp64, which shows every difference but rounding; gradients too."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v, d_y = (torch.randn(sizes, generator=draw, dtype=torch.float64) for _ in range(4))
    found = []
    for attend in (causal_attention, partial(F.scaled_dot_product_attention, is_causal=True)):
        inputs = [each.clone().requires_grad_() for each in (q, k, v)]
        y = attend(*inputs)
        found.append([y.detach(), *torch.autograd.grad(y, inputs, d_y)])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() < 1e-12


def test_attention_in_blocks_is_for_short_windows_in_fp32() -> None:
    assert is_for_blocks(torch.empty(8, 4, 256, 64))
    for shape in ((8, 4, 1024, 64), (8, 4, 32, 64)):
        assert not is_for_blocks(torch.empty(shape))
    assert not is_for_blocks(torch.empty(8, 4, 256, 64, dtype=torch.bfloat16))


def test_queries_and_keys_have_the_type_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU autocast has norms in fp32, and FlexAttention takes no mixture."""
    norm = torch.nn.functional.rms_norm
    monkeypatch.setattr(torch.nn.functional, "rms_norm", lambda y, shape: norm(y.float(), shape))
    model = settled(MODERN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.h[0].attn.heads(torch.randn(2, 24, 16), model.rotation)
    assert {each.dtype for each in found} == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch looks at what it traces
@pytest.mark.parametrize("config", [SMALL, MODERN], ids=["gpt2", "modern"])
def test_one_code_does_for_all_compiled_blocks(config: ModelConfig) -> None:
    """More than eight would be the end of torch's patience: then nothing is compiled."""
    from torch._dynamo import reset
    from torch._dynamo.testing import CompileCounter

    reset()
    counter = CompileCounter()
    model = GPT(dataclasses.replace(config, n_layer=12), seed=1)
    for block in model.h:
        block.compile(backend=counter)
    ids = torch.randint(0, 61, (2, 24))
    with torch.no_grad():
        model(ids, ids, each=True)
    assert counter.frame_count == 1
    model(ids, ids).backward()
    assert counter.frame_count == 2
    reset()


def test_an_attempt_computes_what_a_step_does_and_leaves_nothing(corpus: Any) -> None:
    """With the same masks and dropout, which take memory, and without a word to DDP's hooks."""
    config = dataclasses.replace(SMALL, dropout=0.1)
    training = TrainConfig(max_steps=1, micro_batch_size=2, tokens_per_step=96, document_masks=True)
    with joined(RunConfig(device="cpu")) as world:
        engine = Engine.of(GPT(config), training, RunConfig(device="cpu", num_threads=1), world, eot_token=EOT)
        told: list[Any] = []
        for parameter in engine.model.parameters():
            parameter.register_post_accumulate_grad_hook(told.append)
        seen: list[Any] = []
        engine.model.register_forward_pre_hook(lambda _model, _args, options: seen.append(options), with_kwargs=True)
        batch = Batch(torch.randint(0, 61, (4, 25)), torch.arange(4, dtype=torch.int32), "")
        engine.attempt(batch, 1)
        assert len(seen) == 4
        assert all(options["mask"] is not None and options["dropout"] is not None for options in seen)
        assert not told
        assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_modern_presets_are_of_the_same_shape_and_say_so() -> None:
    for name in ("nano", "124m", "350m"):
        published, changed = PRESETS["nano" if name == "nano" else f"gpt2_{name}"](), PRESETS[f"modern_{name}"]()
        assert (changed.n_layer, changed.n_embd, changed.n_head) == (
            published.n_layer,
            published.n_embd,
            published.n_head,
        )
        assert model_type(published) == GPT2_TYPE
        assert model_type(changed) == OWN_TYPE
    model = GPT(MODERN)
    assert sum(p.numel() for p in model.parameters()) == MODERN.num_parameters + 2 * 3 * 16  # padding of two tables
    ids = torch.randint(1, 61, (2, 24))
    assert model(ids[:, :-1], ids[:, 1:]).item() == pytest.approx(np.log(61), abs=1e-4)  # the head begins at zero


def test_the_modern_cache_gives_the_same_states() -> None:
    model, ids = settled(MODERN).eval(), torch.randint(0, 61, (1, 20))
    cache = KeyValueCache()
    parts = [
        model.states(ids[:, :7], cache=cache),
        *(model.states(ids[:, i : i + 1], cache=cache) for i in range(7, 20)),
    ]
    assert (torch.cat(parts, dim=1) - model.states(ids)).abs().max() < 1e-4


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_blocks_computed_again_give_the_same_gradients(dropout: float) -> None:
    ids = torch.randint(0, 61, (3, 21))
    keys = Dropout(dropout, torch.tensor([5, 6, 7], dtype=torch.int32)) if dropout else None
    gradients = []
    for again in (False, True):
        model = settled(SMALL)
        model.checkpoints_activations = again
        model(ids[:, :-1], ids[:, 1:], dropout=keys).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@settings(deadline=None, max_examples=25)
@given(probability=st.floats(0.02, 0.9), seed=st.integers(0, 2**31), step=st.integers(0, 10**6))
def test_dropout_keeps_its_share_and_its_mean(probability: float, seed: int, step: int) -> None:
    keys = torch.from_numpy(sample_keys(np.arange(8), seed=seed, step=step))
    scales = Dropout(probability, keys).scales(torch.ones(8, 60, 50), salt=3)
    kept = (scales > 0).float().mean(dim=(1, 2))
    assert (kept - (1 - probability)).abs().max() < 6 * (probability * (1 - probability) / 3000) ** 0.5
    assert torch.allclose(scales[scales > 0], torch.tensor(1 / (1 - probability)))
    other = Dropout(probability, keys).scales(torch.ones(8, 60, 50), salt=4)
    agreement = ((scales > 0) == (other > 0)).float().mean().item()
    assert agreement == pytest.approx(probability**2 + (1 - probability) ** 2, abs=0.02)  # independent places


def test_dropout_of_a_sequence_does_not_depend_on_its_neighbours() -> None:
    keys = torch.from_numpy(sample_keys(np.array([4, 9, 2]), seed=1, step=2))
    x = torch.ones(3, 5, 6)
    together = Dropout(0.3, keys)(x, salt=1)
    alone = torch.cat([Dropout(0.3, keys[i : i + 1])(x[i : i + 1], salt=1) for i in range(3)])
    assert torch.equal(together, alone)


@settings(deadline=None, max_examples=20)
@given(rows=st.sampled_from([8, 24, 48]), columns=st.sampled_from([8, 16, 32]), parts=st.sampled_from([1, 2]))
def test_muon_moves_every_direction_alike(rows: int, columns: int, parts: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + columns))
    for part in _orthogonal(matrix, parts).chunk(parts):
        scale = max(1.0, part.size(0) / part.size(1)) ** 0.5
        singular = torch.linalg.svdvals(part) / scale
        assert singular.max() < 1.35
        assert singular[: min(part.shape) // 2].min() > 0.5


def test_a_skipped_update_changes_no_bit_even_of_nan() -> None:
    model = settled(SMALL)
    both = optimizers(model, TrainConfig(max_steps=2, optimizer="muon"))
    for gradient, skips in ((0.1, 0.0), (float("nan"), 1.0)):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        before = [p.detach().clone() for p in model.parameters()], [t.clone() for _, t in both.state()]
        both.step(torch.tensor(skips))
    after = list(model.parameters()), [tensor for _, tensor in both.state()]
    assert all(torch.equal(a, b) for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize(
    ("decay", "parts"), [("linear", [1.0, 0.55, 0.1]), ("cosine", [1.0, 0.55, 0.1]), ("wsd", [1.0, 1.0, 0.1])]
)
def test_schedules_end_where_they_should(decay: Any, parts: list[float]) -> None:
    config = TrainConfig(max_steps=101, warmup_steps=0, decay=decay, decay_ratio=0.2)
    assert [rate_part(step, config, num_steps=101) for step in (0, 50, 100)] == pytest.approx(parts, abs=1e-6)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"activation_checkpointing": True}])
def test_options_of_the_run_train_alike(changes: dict[str, Any], corpus: Any, tmp_path: Path) -> None:
    model = ModelConfig(vocab_size=50, block_size=8, n_layer=2, n_head=2, n_embd=16)
    training = TrainConfig(
        max_steps=10, micro_batch_size=8, tokens_per_step=64, learning_rate=1e-2, warmup_steps=1, document_masks=True
    )
    plain = RunConfig(device="cpu", num_threads=1, precision="fp32")
    results = [
        train(*corpus, model, training, run, tmp_path / str(idx), on_report=lambda _report: None)
        for idx, run in enumerate((plain, dataclasses.replace(plain, **changes)))
    ]
    assert results[1].final_val_loss == pytest.approx(results[0].final_val_loss, abs=0.03)


def test_the_model_runs_where_little_is_installed(write_shard: Any, tmp_path: Path) -> None:
    """torch, numpy, pyarrow and safetensors, and what these need; a worker under it trains to its end."""
    shard = write_shard([("train", [*range(1, 40), 0] * 30, 9), ("validation", [*range(1, 40), 0], 9)])
    code = textwrap.dedent(
        """
        import sys, sysconfig
        sysconfig.get_config_vars()
        import torch, numpy, pyarrow, safetensors
        there = {name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names)
        below_torch = {"filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "setuptools", "sympy", "typing_extensions"}
        allowed = there | below_torch | {"torch", "numpy", "pyarrow", "safetensors", "llm", "pipelines"}

        class Lean:
            def __init__(self, finder):
                self.finder = finder

            def find_spec(self, name, path=None, target=None):
                return self.finder.find_spec(name, path, target) if name.partition(".")[0] in allowed else None

        sys.meta_path[:] = [Lean(finder) for finder in sys.meta_path]
        from pathlib import Path
        from llm.config import RunConfig, TrainConfig, modern_nano
        from llm.worker import WorkerJob, work
        import llm.evaluate, llm.export, llm.journal, llm.launch, llm.proof, llm.published, llm.sample, llm.schedule
        import llm.suggest, llm.torchrun, llm.train, llm.validation, llm.weights
        work(WorkerJob(
            shards=(sys.argv[1],), dataset_digest="d", model=modern_nano(vocab_size=64, block_size=16), folder=sys.argv[2],
            training=TrainConfig(max_steps=2, micro_batch_size=2, tokens_per_step=64, optimizer="muon"),
            run=RunConfig(device="cpu"),
        ))
        """
    )
    command = [sys.executable, "-c", code, str(shard), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_a_compiled_training_is_the_plain_one(
    corpus: Any, model_config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    training = TrainConfig(max_steps=5, micro_batch_size=4, tokens_per_step=64, learning_rate=1e-2, warmup_steps=1)
    results = [
        train(
            *corpus,
            dataclasses.replace(model_config, dropout=dropout),
            training,
            RunConfig(device="cpu", num_threads=1, precision="fp32", compile=compile_),
            tmp_path / f"{compile_}-{dropout}",
            on_report=lambda _report: None,
        )
        for dropout in (0.0, 0.1)
        for compile_ in (False, True)
    ]
    for plain, compiled in (results[:2], results[2:]):
        assert compiled.final_val_loss == pytest.approx(plain.final_val_loss, abs=1e-3)
    kept = tmp_path / "cache" / "corpusmill" / "inductor"
    assert list(kept.glob("fxgraph/**/*")), "what was compiled is not kept for the next process"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
