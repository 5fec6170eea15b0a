"""The model is GPT-2: logits, loss and gradients against transformers and plain torch."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from largest_tensor import LargestTensor
from transformers import GPT2Config, GPT2LMHeadModel

import llm.loss
from llm.config import PRESETS, ModelConfig
from llm.loss import mean_cross_entropy
from llm.model import GPT, KeyValueCache
from llm.published import load_published, published_fields, published_weights

CONFIG = ModelConfig(vocab_size=101, block_size=32, n_layer=3, n_head=4, n_embd=32)  # 27 rows of padding


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, (2, 33), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def published() -> GPT2LMHeadModel:
    """transformers' model, every weight random and large enough to matter, biases and norms too."""
    config = GPT2Config(vocab_size=101, n_positions=32, n_layer=3, n_head=4, n_embd=32)
    model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model


@pytest.fixture
def ours(published: GPT2LMHeadModel, tmp_path) -> GPT:
    published.save_pretrained(tmp_path)
    return load_published(tmp_path)


def test_logits_equal_transformers(published: GPT2LMHeadModel, ours: GPT, ids: torch.Tensor) -> None:
    with torch.no_grad():
        wanted = published(ids[:, :-1]).logits
        got = ours.logits(ours.states(ids[:, :-1]))
    assert wanted.std() > 1  # not trivially equal
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() < 1e-4


@pytest.fixture(params=["whole", "chunked"])
def chunking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "chunked":
        monkeypatch.setattr(llm.loss, "_CHUNK_NUM_LOGITS_CPU", 7 * CONFIG.padded_vocab_size)
        monkeypatch.setattr(llm.loss, "_CHUNK_NUM_TOKENS_CPU", 7)
    return


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "preset",
    [
        "nano",
        "gpt2_124m",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2_350m", "gpt2_774m", "gpt2_1_5b")),
    ],
)
def test_logits_of_a_preset_equal_transformers(preset: str) -> None:
    """From the same random weights, biases and norms too; the largest takes 13 GB."""
    model = GPT(PRESETS[preset](), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    fields = published_fields(model.config, eot_token=0)
    config = GPT2Config(
        **{name: value for name, value in fields.items() if name not in ("architectures", "model_type")}
    )
    with torch.device("meta"):
        theirs = GPT2LMHeadModel(config).eval()
    weights = dict(published_weights(model))
    theirs.load_state_dict(weights | {"lm_head.weight": weights["transformer.wte.weight"]}, assign=True)
    ids = torch.randint(0, model.config.vocab_size, (1, 48), generator=generator)
    with torch.no_grad():
        wanted, got = theirs(ids).logits, model.logits(model.states(ids))
    assert wanted.std() > 0.1, "not trivially equal"
    assert (got - wanted).abs().max() < 1e-4


@pytest.mark.usefixtures("chunking")
def test_loss_and_gradients_equal_transformers(published: GPT2LMHeadModel, ours: GPT, ids: torch.Tensor) -> None:
    wanted = published(ids[:, :-1], labels=ids[:, :-1], shift_labels=ids[:, 1:].contiguous()).loss
    (2 * wanted).backward()
    got = ours(ids[:, :-1], ids[:, 1:])
    (2 * got).backward()
    assert got.item() == pytest.approx(wanted.item(), abs=1e-5)
    head = published.transformer.wte.weight.grad
    assert (ours.wte.weight.grad[:101] - head).abs().max() < 1e-5
    assert not ours.wte.weight.grad[101:].any()  # the padding learns nothing
    c_attn = published.transformer.h[0].attn.c_attn.weight.grad.T
    assert (ours.h[0].attn.c_attn.weight.grad - c_attn).abs().max() < 1e-5


@pytest.mark.usefixtures("chunking")
def test_a_token_that_is_all_but_impossible_has_its_loss() -> None:
    """Its probability is zero in fp32, its loss and its gradient are not."""
    head = torch.eye(64) * 200.0
    states, targets = torch.eye(64)[:20].clone().requires_grad_(), (torch.arange(20) + torch.arange(20) % 2) % 64
    found = mean_cross_entropy(states, head, targets, 60)
    found.backward()
    theirs = states.detach().clone().requires_grad_()
    wanted = F.cross_entropy((theirs @ head.T)[:, :60], targets)
    wanted.backward()
    assert wanted.item() == pytest.approx(100.0)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert (states.grad - theirs.grad).abs().max() < 1e-5


@pytest.mark.usefixtures("chunking")
def test_token_losses_are_the_losses_one_by_one(ours: GPT, ids: torch.Tensor) -> None:
    losses = ours.token_losses(ids[:, :-1], ids[:, 1:])
    with torch.no_grad():
        logits = ours.logits(ours.states(ids[:, :-1]))
    wanted = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(2, 32)
    assert (losses - wanted).abs().max() < 1e-5
    assert losses.mean().item() == pytest.approx(ours(ids[:, :-1], ids[:, 1:]).item(), abs=1e-5)


def test_logits_of_a_large_vocabulary_are_never_held_whole() -> None:
    config = ModelConfig(vocab_size=50_304, block_size=1024, n_layer=1, n_head=1, n_embd=8)
    model, ids = GPT(config), torch.randint(50_304, (2, 1025))
    with LargestTensor() as largest:
        model(ids[:, :-1], ids[:, 1:]).backward()
        model.token_losses(ids[:, :-1], ids[:, 1:])
    assert largest.num_elements == llm.loss._CHUNK_NUM_TOKENS_CPU * 50_304, "an eighth of a sequence"


def test_no_token_sees_a_later_one(ours: GPT, ids: torch.Tensor) -> None:
    changed = ids[:, :-1].clone()
    changed[:, 20:] = 0
    with torch.no_grad():
        before, after = ours.states(ids[:, :-1]), ours.states(changed)
    assert torch.allclose(before[:, :20], after[:, :20], atol=1e-6)
    assert not torch.allclose(before[:, 20:], after[:, 20:], atol=1e-2)


def test_cache_gives_the_same_states(ours: GPT, ids: torch.Tensor) -> None:
    cache = KeyValueCache()
    with torch.no_grad():
        whole = ours.states(ids[:, :32])
        parts = [
            ours.states(ids[:, :20], cache=cache),
            *(ours.states(ids[:, i : i + 1], cache=cache) for i in range(20, 32)),
        ]
    assert cache.num_tokens == 32
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-4
    with pytest.raises(ValueError, match="one token at a time"):
        ours.states(ids[:, :2], cache=cache)


def test_first_weights_are_the_published_ones() -> None:
    """Deviation 0.02, divided by sqrt(2 n_layer) on the way into the residual stream; zero biases; loss ln V."""
    model = GPT(ModelConfig(vocab_size=512, block_size=64, n_layer=8, n_head=4, n_embd=128), seed=5)
    weights = dict(model.named_parameters())
    assert weights["wte.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert weights["h.3.mlp.c_fc.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert weights["h.3.mlp.c_proj.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert weights["h.3.attn.c_proj.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert not weights["h.3.attn.c_attn.bias"].any()
    assert (weights["h.3.ln_1.weight"] == 1).all()
    ids = torch.arange(65)[None] % 512
    assert model(ids[:, :-1], ids[:, 1:]).item() == pytest.approx(math.log(512), abs=0.1)


def test_first_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = GPT(CONFIG, seed=5)
    torch.manual_seed(2)
    same, other = GPT(CONFIG, seed=5), GPT(CONFIG, seed=6)
    assert torch.equal(one.wte.weight, same.wte.weight)
    assert torch.equal(one.h[2].mlp.c_proj.weight, same.h[2].mlp.c_proj.weight)
    assert not torch.equal(one.wte.weight, other.wte.weight)
