"""What is trained, how, and where: three configs that are kept apart.

`ModelConfig` and `TrainConfig` bear the identity of a training job; `RunConfig` (device, threads) does not.
Presets are functions, by name in PRESETS. Sizes: Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners", table 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.digest import EXECUTION_ONLY
from pipelines.errors import ConfigError

TRAINING_VERSION = 1
"""Raised by hand when the same configs and data are meant to give other weights."""

GPT2_VOCAB_SIZE = 50_257
_VOCAB_MULTIPLE = 64
"""Matrix kernels are fastest where a side is a multiple of 64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The shape of a GPT-2."""

    vocab_size: int
    """Token ids, end-of-text included."""
    block_size: int
    """Longest context, in tokens (n_positions)."""
    n_layer: int
    n_head: int
    n_embd: int
    """Width of the residual stream."""
    dropout: float = 0.0
    """Probability, on embeddings, attention weights and both residual branches. Published: 0.1."""
    bias: bool = True
    """Biases in the linear layers and layer norms. Published: yes."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            _at_least(name, getattr(self, name), 1)
        if self.n_embd % self.n_head:
            raise ConfigError(f"got n_embd {self.n_embd} and n_head {self.n_head}; wanted n_embd divisible by n_head.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"got dropout {self.dropout}; wanted at least 0 and less than 1: use 0 for off.")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding inside; those beyond vocab_size are never predicted and are cut on export."""
        return math.ceil(self.vocab_size / _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE

    @property
    def num_parameters(self) -> int:
        """Parameters without the vocabulary padding, position embeddings included."""
        d, bias = self.n_embd, int(self.bias)
        block = 12 * d * d + 2 * d + bias * (9 * d + 2 * d)
        return (self.vocab_size + self.block_size) * d + self.n_layer * block + d + bias * d

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of one training token, forward and backward: 6 N + 12 L d T.

        N counts every parameter but the position embeddings (PaLM, arXiv:2204.02311, appendix B).
        """
        matrices = self.num_parameters - self.block_size * self.n_embd
        return 6 * matrices + 12 * self.n_layer * self.n_embd * self.block_size


def nano(*, vocab_size: int = 2_048, block_size: int = 128, dropout: float = 0.0) -> ModelConfig:
    """About a million parameters: minutes on two CPU cores."""
    return ModelConfig(vocab_size=vocab_size, block_size=block_size, n_layer=4, n_head=4, n_embd=128, dropout=dropout)


def gpt2_124m(*, vocab_size: int = GPT2_VOCAB_SIZE, block_size: int = 1024, dropout: float = 0.0) -> ModelConfig:
    """GPT-2 (small)."""
    return ModelConfig(vocab_size=vocab_size, block_size=block_size, n_layer=12, n_head=12, n_embd=768, dropout=dropout)


def gpt2_350m(*, vocab_size: int = GPT2_VOCAB_SIZE, block_size: int = 1024, dropout: float = 0.0) -> ModelConfig:
    """GPT-2 medium."""
    return ModelConfig(
        vocab_size=vocab_size, block_size=block_size, n_layer=24, n_head=16, n_embd=1024, dropout=dropout
    )


def gpt2_774m(*, vocab_size: int = GPT2_VOCAB_SIZE, block_size: int = 1024, dropout: float = 0.0) -> ModelConfig:
    """GPT-2 large."""
    return ModelConfig(
        vocab_size=vocab_size, block_size=block_size, n_layer=36, n_head=20, n_embd=1280, dropout=dropout
    )


def gpt2_1_5b(*, vocab_size: int = GPT2_VOCAB_SIZE, block_size: int = 1024, dropout: float = 0.0) -> ModelConfig:
    """GPT-2 XL."""
    return ModelConfig(
        vocab_size=vocab_size, block_size=block_size, n_layer=48, n_head=25, n_embd=1600, dropout=dropout
    )


PRESETS: dict[str, Callable[..., ModelConfig]] = {
    preset.__name__: preset for preset in (nano, gpt2_124m, gpt2_350m, gpt2_774m, gpt2_1_5b)
}
"""Each takes vocab_size, block_size and dropout by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a model is trained. Exactly one of max_steps, num_epochs and num_tokens says how long."""

    seed: int = 0
    """Of the first weights, the order of the data and dropout."""
    max_steps: int | None = None
    """Optimiser updates."""
    num_epochs: float | None = None
    """Passes over the training tokens, rounded up to a whole step."""
    num_tokens: int | None = None
    """Tokens seen, repeats included, rounded up to a whole step."""
    micro_batch_size: int = 16
    """Sequences that a device takes at once: as many as fit its memory."""
    tokens_per_step: int = 2_048
    """Tokens of one update, over all micro-batches and devices."""
    learning_rate: float = 6e-4
    """At the end of the warm-up."""
    min_learning_rate_ratio: float = 0.1
    """Learning rate of the last step, as a part of learning_rate."""
    warmup_steps: int = 100
    weight_decay: float = 0.1
    """Decoupled (AdamW), on matrices only."""
    beta1: float = 0.9
    beta2: float = 0.95
    grad_clip: float | None = 1.0
    """Largest norm of the whole gradient; None is off."""
    eval_every_steps: int | None = 250
    """Steps between validations; None: only before the first step and after the last."""
    eval_tokens: int | None = None
    """Tokens of each validation, from the start of the validation stream; None: all of them."""
    checkpoint_every_steps: int | None = field(default=250, metadata=EXECUTION_ONLY)
    """Steps between checkpoints; None: only after the last."""
    keep_last: int = field(default=2, metadata=EXECUTION_ONLY)
    """Checkpoints kept. Two, so that a damaged one costs steps and not the run."""

    def __post_init__(self) -> None:
        self._check_budget()
        _at_least("seed", self.seed, 0)
        _at_least("warmup_steps", self.warmup_steps, 0)
        for name in ("micro_batch_size", "tokens_per_step", "keep_last"):
            _at_least(name, getattr(self, name), 1)
        for name in ("eval_every_steps", "eval_tokens", "checkpoint_every_steps"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        if not self.learning_rate > 0 or not math.isfinite(self.learning_rate):
            raise ConfigError(f"got learning_rate {self.learning_rate}; wanted a number above 0, such as 6e-4.")
        if self.grad_clip is not None and not self.grad_clip > 0:
            raise ConfigError(f"got grad_clip {self.grad_clip}; wanted a number above 0: use null for off.")
        if not self.weight_decay >= 0:
            raise ConfigError(f"got weight_decay {self.weight_decay}; wanted at least 0: use 0 for off.")
        if not 0 <= self.min_learning_rate_ratio <= 1:
            raise ConfigError(f"got min_learning_rate_ratio {self.min_learning_rate_ratio}; wanted from 0 to 1.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"got {name} {getattr(self, name)}; wanted at least 0 and less than 1.")

    def _check_budget(self) -> None:
        budgets = {name: getattr(self, name) for name in ("max_steps", "num_epochs", "num_tokens")}
        given = {name: value for name, value in budgets.items() if value is not None}
        if len(given) != 1:
            raise ConfigError(f"got {given or 'no budget'}; wanted exactly one of {', '.join(budgets)}: set one.")
        for name, value in given.items():
            if not value > 0:
                raise ConfigError(f"got {name} {value}; wanted a number above 0.")

    def sequences_per_step(self, block_size: int) -> int:
        """Windows of one update. Raises ConfigError where they do not make whole micro-batches."""
        unit = self.micro_batch_size * block_size
        if self.tokens_per_step % unit:
            near = max(1, round(self.tokens_per_step / unit)) * unit
            raise ConfigError(
                f"got tokens_per_step {self.tokens_per_step}; wanted a multiple of micro_batch_size x block_size = "
                f"{self.micro_batch_size} x {block_size} = {unit}: use {near}, or change micro_batch_size."
            )
        return self.tokens_per_step // block_size

    def num_steps(self, *, tokens_per_epoch: int) -> int:
        """Updates in all, for a corpus with that many tokens in its windows."""
        if self.max_steps is not None:
            return self.max_steps
        if self.num_tokens is not None:
            return math.ceil(self.num_tokens / self.tokens_per_step)
        return math.ceil((self.num_epochs or 0.0) * tokens_per_epoch / self.tokens_per_step)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where and how fast it runs. Enters no key and no checkpoint."""

    device: str | None = None
    """A torch device such as "cpu" or "cuda"; None: a GPU where there is one."""
    num_threads: int | None = None
    """CPU threads; None: all cores of the machine that this process may use."""
    compile: bool = False
    """torch.compile: pays off after some ten minutes of training."""

    def __post_init__(self) -> None:
        if self.num_threads is not None:
            _at_least("num_threads", self.num_threads, 1)


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"got {name} {value!r}; wanted a whole number of at least {least}.")
