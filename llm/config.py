"""What is trained, how, and where: three configs that are kept apart.

`ModelConfig` and `TrainConfig` bear the identity of a training job; `RunConfig` (device, threads) does not.
Presets are functions, by name in PRESETS. Sizes: Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners", table 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from pipelines.digest import EXECUTION_ONLY
from pipelines.errors import ConfigError

TRAINING_VERSION = 2
"""Raised by hand when the same configs and data are meant to give other weights."""

Positions = Literal["learned", "rotary"]
Activation = Literal["gelu", "relu_squared"]
OptimizerName = Literal["adamw", "muon"]
Decay = Literal["cosine", "linear", "wsd"]
Precision = Literal["auto", "fp32", "bf16"]
Parallelism = Literal["replicated", "sharded"]

GPT2_VOCAB_SIZE = 50_257
_VOCAB_MULTIPLE = 64
"""Matrix kernels are fastest where a side is a multiple of 64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The shape of a GPT-2. What the published one does not have is off unless a preset's name says otherwise."""

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
    positions: Positions = "learned"
    """Learned embeddings, added once (published), or rotations of queries and keys (RoFormer, arXiv:2104.09864)."""
    activation: Activation = "gelu"
    """Of the MLP: GELU in its tanh form (published), or the square of ReLU (Primer, arXiv:2109.08668)."""
    qk_norm: bool = False
    """Queries and keys divided by their root mean square (arXiv:2010.04245). Published: no."""
    tied_head: bool = True
    """The head is the token embedding (published), or a matrix of its own."""
    zero_init: bool = False
    """The head and what goes back into the residual stream begin at zero (muP, arXiv:2203.03466). Published: no."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            _at_least(name, getattr(self, name), 1)
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"got n_embd {self.n_embd} and n_head {self.n_head}; wanted n_embd divisible by n_head: change one."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"got dropout {self.dropout}; wanted at least 0 and less than 1: use 0 for off.")
        _one_of("positions", self.positions, get_args(Positions))
        _one_of("activation", self.activation, get_args(Activation))
        if self.positions == "rotary" and self.n_embd // self.n_head % 2:
            raise ConfigError(
                f"got heads of {self.n_embd // self.n_head}; wanted an even width: rotary positions need pairs."
            )
        if self.zero_init and self.tied_head:
            raise ConfigError("got zero_init with a tied head; wanted a head of its own: set tied_head to false.")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding inside; those beyond vocab_size are never predicted and are cut on export."""
        return math.ceil(self.vocab_size / _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE

    @property
    def num_parameters(self) -> int:
        """Parameters without the vocabulary padding, position embeddings included."""
        d, bias = self.n_embd, int(self.bias)
        block = 12 * d * d + 2 * d + bias * (9 * d + 2 * d)
        embeddings = self.vocab_size * (1 if self.tied_head else 2) + self._num_positions
        return embeddings * d + self.n_layer * block + d + bias * d

    @property
    def num_matrix_parameters(self) -> int:
        """Parameters that every token is multiplied with: all but what is only looked up."""
        looked_up = self._num_positions + (0 if self.tied_head else self.vocab_size)
        return self.num_parameters - looked_up * self.n_embd

    @property
    def num_body_parameters(self) -> int:
        """Parameters without any embedding and without the head."""
        return (
            self.num_parameters - (self.vocab_size * (1 if self.tied_head else 2) + self._num_positions) * self.n_embd
        )

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of one training token, forward and backward: 6 N + 12 L d T.

        N is num_matrix_parameters (PaLM, arXiv:2204.02311, appendix B). Attention counts as if it were not causal.
        """
        return 6 * self.num_matrix_parameters + 12 * self.n_layer * self.n_embd * self.block_size

    @property
    def _num_positions(self) -> int:
        return self.block_size if self.positions == "learned" else 0


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


def modern(published: ModelConfig) -> ModelConfig:
    """What later work changed, at the same size: it learns faster and is no GPT-2 any more."""
    return replace(
        published,
        bias=False,
        positions="rotary",
        activation="relu_squared",
        qk_norm=True,
        tied_head=False,
        zero_init=True,
    )


def modern_nano(*, vocab_size: int = 2_048, block_size: int = 128, dropout: float = 0.0) -> ModelConfig:
    """nano with the modern options."""
    return modern(nano(vocab_size=vocab_size, block_size=block_size, dropout=dropout))


def modern_124m(*, vocab_size: int = GPT2_VOCAB_SIZE, block_size: int = 1024, dropout: float = 0.0) -> ModelConfig:
    """gpt2_124m with the modern options."""
    return modern(gpt2_124m(vocab_size=vocab_size, block_size=block_size, dropout=dropout))


def modern_350m(*, vocab_size: int = GPT2_VOCAB_SIZE, block_size: int = 1024, dropout: float = 0.0) -> ModelConfig:
    """gpt2_350m with the modern options."""
    return modern(gpt2_350m(vocab_size=vocab_size, block_size=block_size, dropout=dropout))


PRESETS: dict[str, Callable[..., ModelConfig]] = {
    preset.__name__: preset
    for preset in (nano, gpt2_124m, gpt2_350m, gpt2_774m, gpt2_1_5b, modern_nano, modern_124m, modern_350m)
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
    micro_batch_size: int = field(default=16, metadata=EXECUTION_ONLY)
    """Sequences that a device takes at once: as many as fit its memory."""
    tokens_per_step: int = 2_048
    """Tokens of one update, over all micro-batches and devices."""
    start_from: str | None = None
    """Digest of the weights that training begins with, 64 hex characters (`checkpoint.digest_parameters`); None: fresh ones."""
    optimizer: OptimizerName = "adamw"
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest."""
    learning_rate: float = 6e-4
    """At the end of the warm-up."""
    muon_learning_rate: float = 0.02
    """Likewise, of the matrices that Muon updates."""
    decay: Decay = "cosine"
    """How the learning rate falls: along half a cosine, in a line, or only over the last decay_ratio of the steps (WSD)."""
    decay_ratio: float = 0.3
    """Part of the steps over which "wsd" falls."""
    min_learning_rate_ratio: float = 0.1
    """Learning rate of the last step, as a part of learning_rate."""
    warmup_steps: int = 100
    weight_decay: float = 0.1
    """Decoupled (AdamW), on matrices only."""
    beta1: float = 0.9
    beta2: float = 0.95
    muon_momentum: float = 0.95
    grad_clip: float | None = 1.0
    """Largest norm of the whole gradient; None is off."""
    document_masks: bool = False
    """Whether a token sees its own document alone; published: it sees all of its window."""
    spike_sigmas: float | None = 8.0
    """An update whose loss or gradient norm lies that many deviations above those of the window is not made; None is off."""
    spike_window_steps: int = 128
    """Updates that the guard compares with; it is off until half of them are there."""
    max_skipped_steps: int = 5
    """Skipped updates within the window before training goes back to a checkpoint and past the data it stumbled on."""
    max_rollbacks: int = 3
    """Returns to a checkpoint before training gives up."""
    eval_every_steps: int | None = 250
    """Steps between validations; None: only before the first step and after the last."""
    eval_tokens: int | None = None
    """Tokens of each validation, from the start of the validation stream; None: all of them."""
    checkpoint_every_steps: int | None = field(default=250, metadata=EXECUTION_ONLY)
    """Steps between checkpoints; None: only after the last."""
    keep_last: int = field(default=2, metadata=EXECUTION_ONLY)
    """Checkpoints kept. Two, so that a damaged one costs steps and not the run."""
    keep_best: int = field(default=1, metadata=EXECUTION_ONLY)
    """Checkpoints kept beside them: those with the least validation loss."""

    def __post_init__(self) -> None:
        self._check_budget()
        _at_least("seed", self.seed, 0)
        _at_least("warmup_steps", self.warmup_steps, 0)
        for name in ("micro_batch_size", "tokens_per_step", "keep_last", "max_skipped_steps"):
            _at_least(name, getattr(self, name), 1)
        _at_least("spike_window_steps", self.spike_window_steps, 4)
        for name in ("max_rollbacks", "keep_best"):
            _at_least(name, getattr(self, name), 0)
        _one_of("optimizer", self.optimizer, get_args(OptimizerName))
        _one_of("decay", self.decay, get_args(Decay))
        for name in ("eval_every_steps", "eval_tokens", "checkpoint_every_steps"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name, usual in (("learning_rate", 6e-4), ("muon_learning_rate", 0.02)):
            if not getattr(self, name) > 0 or not math.isfinite(getattr(self, name)):
                raise ConfigError(f"got {name} {getattr(self, name)}; wanted a number above 0, such as {usual}.")
        if self.spike_sigmas is not None and not self.spike_sigmas > 0:
            raise ConfigError(f"got spike_sigmas {self.spike_sigmas}; wanted a number above 0: use null for off.")
        if self.grad_clip is not None and not self.grad_clip > 0:
            raise ConfigError(f"got grad_clip {self.grad_clip}; wanted a number above 0: use null for off.")
        if not self.weight_decay >= 0:
            raise ConfigError(f"got weight_decay {self.weight_decay}; wanted at least 0: use 0 for off.")
        if not 0 <= self.min_learning_rate_ratio <= 1:
            raise ConfigError(
                f"got min_learning_rate_ratio {self.min_learning_rate_ratio}; wanted from 0 to 1: correct it."
            )
        if not 0 < self.decay_ratio <= 1:
            raise ConfigError(f"got decay_ratio {self.decay_ratio}; wanted above 0 and at most 1: correct it.")
        for name in ("beta1", "beta2", "muon_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"got {name} {getattr(self, name)}; wanted at least 0 and less than 1: correct it.")

    def _check_budget(self) -> None:
        budgets = {name: getattr(self, name) for name in ("max_steps", "num_epochs", "num_tokens")}
        given = {name: value for name, value in budgets.items() if value is not None}
        if len(given) != 1:
            raise ConfigError(f"got {given or 'no budget'}; wanted exactly one of {', '.join(budgets)}: set one.")
        for name, value in given.items():
            if not value > 0:
                raise ConfigError(f"got {name} {value}; wanted a number above 0: correct it.")

    def sequences_per_step(self, block_size: int, *, num_processes: int = 1) -> int:
        """Windows of one update. Raises ConfigError where they do not make whole micro-batches for each process."""
        unit = self.micro_batch_size * block_size * num_processes
        if self.tokens_per_step % unit:
            near = max(1, round(self.tokens_per_step / unit)) * unit
            among = f" x num_processes = {self.micro_batch_size} x {block_size} x {num_processes}"
            sizes = among if num_processes > 1 else f" = {self.micro_batch_size} x {block_size}"
            raise ConfigError(
                f"got tokens_per_step {self.tokens_per_step}; wanted a multiple of micro_batch_size x block_size{sizes} = "
                f"{unit}: use {near}, or change micro_batch_size."
            )
        return self.tokens_per_step // block_size

    def num_steps(self, *, tokens_per_epoch: int, steps_done: int = 0, tokens_done: int = 0) -> int:
        """Updates in all, for a corpus with that many tokens in its windows, after those that are done."""
        if self.max_steps is not None:
            return self.max_steps
        budget = (
            self.num_tokens if self.num_tokens is not None else math.ceil((self.num_epochs or 0) * tokens_per_epoch)
        )
        return steps_done + max(0, math.ceil((budget - tokens_done) / self.tokens_per_step))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where and how fast it runs. Enters no key and no checkpoint."""

    device: str | None = None
    """A torch device such as "cpu" or "cuda"; None: a GPU where there is one."""
    num_threads: int | None = None
    """CPU threads; None: all cores of the machine that this process may use, shared with the processes beside it."""
    num_processes: int = 1
    """Processes that share the work, on this machine: one for each GPU, or on CPUs."""
    parallelism: Parallelism = "replicated"
    """With several processes: each holds the whole model (DDP), or a part of it (FSDP2)."""
    precision: Precision = "auto"
    """Of matrix products. "auto": bf16 where the device is made for it; on other CPUs bf16 is 25 times slower than fp32."""
    compile: bool | None = None
    """torch.compile; None: on a GPU. On a CPU it pays off after some ten minutes of training."""
    activation_checkpointing: bool = False
    """Compute the blocks again in the backward pass: a third more work, and memory for one block in place of all."""
    exact_reduction: bool | None = None
    """Sum gradients in an order that no number of processes changes, so that the bits do not; None: on CPUs.
    It takes memory for a few more gradients and hides no exchange behind the backward pass."""
    report_every_steps: int | None = None
    """Updates between readings of a device's measurements; None: 1 on a CPU, 10 on a GPU, where each reading waits."""

    def __post_init__(self) -> None:
        for name in ("num_threads", "report_every_steps"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        _at_least("num_processes", self.num_processes, 1)
        _one_of("precision", self.precision, get_args(Precision))
        _one_of("parallelism", self.parallelism, get_args(Parallelism))


def _one_of(name: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ConfigError(f"got {name} {value!r}; wanted one of {', '.join(options)}: correct it.")


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"got {name} {value!r}; wanted a whole number of at least {least}: correct it.")
