"""What a training tells the callable that it is given: a `StepReport` an update, a `TrainEvent` where something happened.

Both are plain values: they go to a journal, a tracker or a terminal, and the loop knows none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

EventKind = Literal["started", "resumed", "step_skipped", "rolled_back", "checkpoint_written", "checkpoint_passed_over"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSeconds:
    """Where the time of one update went, on this process's clock or, for work on a GPU, on the GPU's."""

    data: float
    """Waiting for the batch; it is made ready beside the step before."""
    forward: float
    backward: float
    optimizer: float
    """Clipping, the guard and the update; with several processes also the exchange of gradients that no backward hid."""
    log: float
    """Reading measurements and handing on the reports before."""
    checkpoint: float
    """Copying what a checkpoint holds; writing goes on beside the steps after."""
    whole: float
    """From the start of this update to the start of the next, validation not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What happened up to the end of one update. The report of step 0 comes before the first."""

    step: int
    """Updates done."""
    num_tokens: int
    """Tokens trained on so far, repeats included."""
    loss: float | None
    """Mean training loss of this update's tokens, nats; None at step 0, like the figures below but val_loss."""
    learning_rate: float | None
    grad_norm: float | None
    """Norm of the whole gradient before clipping."""
    tokens_per_second: float | None
    """Of this update, over all processes; validation is not counted."""
    mfu: float | None
    """Share of the peak of the devices that was used; None where the peak of the device is unknown."""
    seconds: StepSeconds | None
    val_loss: float | None
    """Nats a token over the validation windows after this update; None where none was due."""
    batch_digest: str | None
    """Names the windows that this update saw, over all processes: 16 hex characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainEvent:
    """Something that a person wants to find again."""

    kind: EventKind
    step: int
    """Updates done when it happened."""
    message: str
    """One sentence."""
    facts: Mapping[str, Any]
    """Values of JSON; of a skipped or rolled back step the `windows` and `doc_ids` of its batch."""


Report = StepReport | TrainEvent
OnReport = Callable[[Report], None]
