"""Batch size, learning rate and length of a training, from its token budget.

The rate and the batch are those of the Step Law (Li et al. 2025, arXiv:2503.04715), fitted to AdamW; the budget that a
size deserves is twenty tokens a parameter (Hoffmann et al. 2022, arXiv:2203.15556), as far as four passes over the
corpus go, up to which repeats are worth nearly as much as new text (Muennighoff et al. 2023, arXiv:2305.16264).
"""

from dataclasses import dataclass

from llm.config import PRESETS, ModelConfig, TrainConfig
from pipelines.errors import ConfigError

TOKENS_PER_PARAMETER = 20
MAX_EPOCHS = 4
FITTED_PARAMETERS = (60_000_000, 1_000_000_000)
"""Sizes, without embeddings, that the Step Law was fitted to."""
FITTED_TOKENS = (2_000_000_000, 100_000_000_000)
_WARMUP_STEPS, _WARMUP_PART = 2_000, 20
"""The warm-up of the law's trainings; a twentieth of a shorter one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A training's length and the settings that depend on it."""

    num_tokens: int
    """Trained on, repeats included."""
    num_epochs: float
    max_steps: int
    tokens_per_step: int
    micro_batch_size: int
    learning_rate: float
    warmup_steps: int
    num_flops: float
    """Of the whole training, by `ModelConfig.flops_per_token`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestions:
    """A training as its recipe has it, and two better ones to compare it with."""

    num_parameters: int
    num_body_parameters: int
    """Without embeddings: the size that the Step Law goes by."""
    tokens_per_epoch: int
    as_configured: Plan
    same_budget: Plan
    """The recipe's own number of tokens, in better steps."""
    compute_optimal: Plan
    """The tokens that the model's size deserves, as far as the corpus has them."""
    notes: tuple[str, ...]
    """What to know before one of them is taken: a sentence each."""


def suggest(model: ModelConfig, training: TrainConfig, *, num_windows: int, num_processes: int = 1) -> Suggestions:
    """Suggest for a corpus with so many windows of the model's block_size. Raises ConfigError where it has none."""
    if num_windows < 1:
        raise ConfigError(
            f"got a corpus shorter than one window, wanted {model.block_size + 1} training tokens: "
            "add pages, or take a smaller block_size."
        )
    epoch = num_windows * model.block_size
    num_steps = training.num_steps(tokens_per_epoch=epoch)
    configured = Plan(
        num_tokens=num_steps * training.tokens_per_step,
        num_epochs=num_steps * training.tokens_per_step / epoch,
        max_steps=num_steps,
        tokens_per_step=training.tokens_per_step,
        micro_batch_size=training.micro_batch_size,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps,
        num_flops=float(num_steps * training.tokens_per_step * model.flops_per_token),
    )

    def planned(num_tokens: int) -> Plan:
        return _plan(model, num_tokens, epoch, training.micro_batch_size, num_processes)

    deserved = min(TOKENS_PER_PARAMETER * model.num_parameters, MAX_EPOCHS * epoch)
    return Suggestions(
        num_parameters=model.num_parameters,
        num_body_parameters=model.num_body_parameters,
        tokens_per_epoch=epoch,
        as_configured=configured,
        same_budget=planned(configured.num_tokens),
        compute_optimal=planned(deserved),
        notes=tuple(_notes(model, training, configured, epoch)),
    )


def step_law_learning_rate(num_body_parameters: int, num_tokens: int) -> float:
    """Peak learning rate of AdamW: 1.79 N^-0.713 D^0.307 (arXiv:2503.04715)."""
    return 1.79 * num_body_parameters**-0.713 * num_tokens**0.307


def step_law_tokens_per_step(num_tokens: int) -> float:
    """Tokens of one update: 0.58 D^0.571, whatever the size of the model (arXiv:2503.04715)."""
    return 0.58 * num_tokens**0.571


def _plan(model: ModelConfig, num_tokens: int, epoch: int, micro_batch_size: int, num_processes: int) -> Plan:
    unit = model.block_size * num_processes
    num_sequences = max(1, round(step_law_tokens_per_step(num_tokens) / unit))  # of one process in one step
    micro_batch_size = min(micro_batch_size, num_sequences)
    tokens_per_step = round(num_sequences / micro_batch_size) * micro_batch_size * unit
    max_steps = max(1, round(num_tokens / tokens_per_step))
    num_tokens = max_steps * tokens_per_step
    return Plan(
        num_tokens=num_tokens,
        num_epochs=num_tokens / epoch,
        max_steps=max_steps,
        tokens_per_step=tokens_per_step,
        micro_batch_size=micro_batch_size,
        learning_rate=float(f"{step_law_learning_rate(model.num_body_parameters, num_tokens):.2g}"),
        warmup_steps=min(_WARMUP_STEPS, max_steps // _WARMUP_PART),
        num_flops=float(num_tokens * model.flops_per_token),
    )


def _notes(model: ModelConfig, training: TrainConfig, configured: Plan, epoch: int) -> list[str]:
    notes = []
    ratio = configured.num_tokens / model.num_parameters
    if configured.num_epochs > MAX_EPOCHS:
        notes.append(
            f"The recipe reads its corpus {configured.num_epochs:.1f} times; beyond {MAX_EPOCHS} a repeat teaches less "
            "and less: add pages, or take a smaller budget."
        )
    if ratio < TOKENS_PER_PARAMETER / 2:
        notes.append(
            f"{ratio:.3g} tokens a parameter are few: a smaller model reaches the same loss with less work, or this one "
            f"wants {TOKENS_PER_PARAMETER}."
        )
    most = MAX_EPOCHS * epoch // TOKENS_PER_PARAMETER
    if model.num_parameters > most:
        shape = {"vocab_size": model.vocab_size, "block_size": model.block_size}
        fed = [name for name, preset in PRESETS.items() if preset(**shape).num_parameters <= most]
        named = f"presets {', '.join(fed)}" if fed else "less than the smallest preset"
        notes.append(
            f"{MAX_EPOCHS} passes over this corpus feed a model of up to {most:,} parameters ({named}); "
            f"this one has {model.num_parameters:,}."
        )
    (small, large), (few, many) = FITTED_PARAMETERS, FITTED_TOKENS
    if not small <= model.num_body_parameters <= large or not few <= configured.num_tokens <= many:
        notes.append(
            "The law was fitted to 60 million to 1 billion parameters and 2 to 100 billion tokens; here it is carried "
            "beyond that: try half and twice its learning rate, too."
        )
    if training.optimizer == "muon":
        notes.append(
            "The law is of AdamW: learning_rate is for embeddings, biases and norms; muon_learning_rate stays as it is."
        )
    return notes
