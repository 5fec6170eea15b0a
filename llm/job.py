"""One training, its sizes resolved: what it must agree with to be gone on from, and the record of its end."""

import dataclasses
import json
import logging
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llm import checkpoint
from llm.config import TRAINING_VERSION, ModelConfig, TrainConfig
from llm.data import TokenData
from llm.order import Plan, Segment, num_samples_taken
from pipelines.digest import canonical, digest_file, digest_value
from pipelines.errors import ConfigError

_logger = logging.getLogger(__name__)

_RESULT = "result.json"
_SHAPING_MODULES = (
    *("batches", "config", "data", "distributed", "dropout", "gradients", "guard", "loss", "model", "optim", "order"),
    *("sharding", "train", "validation"),
)
_MAY_CHANGE = "tokens_per_step"
"""A resume with another batch size goes on with the sample after the last one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a finished training leaves."""

    steps: int
    num_tokens: int
    first_val_loss: float
    """Nats a token before the first update: about ln vocab_size."""
    final_val_loss: float
    final_train_loss: float
    """Of the last update's tokens."""
    seconds: float
    """In the loop, over all the times that it ran; lost steps are not counted."""
    checkpoint: Path
    best_checkpoint: Path
    """Of those that are kept, the one with the least validation loss."""
    parameters_digest: str
    num_skipped_steps: int
    """Updates that the guard held back."""
    num_rollbacks: int
    resumed_from_step: int | None
    """Where the process that ended the training took it up; None where it began it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training, its sizes resolved."""

    data: TokenData
    validation: TokenData
    model_config: ModelConfig
    config: TrainConfig
    folder: Path
    num_windows: int
    num_sequences: int
    """Of one update, over all micro-batches and processes."""
    identity: dict[str, Any]
    """What a checkpoint must agree with to be gone on from."""

    @classmethod
    def of(
        cls,
        data: TokenData,
        validation: TokenData,
        model_config: ModelConfig,
        config: TrainConfig,
        folder: Path,
        *,
        num_processes: int,
    ) -> "Job":
        """Raises ConfigError for sizes that do not go together, EmptyCorpusError for too few tokens."""
        num_windows = data.num_windows(model_config.block_size)
        validation.num_windows(model_config.block_size)  # refuses an empty one before any work
        training = {name: value for name, value in canonical(config).items() if name != _MAY_CHANGE}
        identity = {
            "training_version": TRAINING_VERSION,
            "dataset_digest": data.digest,
            "validation_digest": validation.digest,
            "model": canonical(model_config),
            "training": training,
        }
        return cls(
            data=data,
            validation=validation,
            model_config=model_config,
            config=config,
            folder=folder,
            num_windows=num_windows,
            num_sequences=config.sequences_per_step(model_config.block_size, num_processes=num_processes),
            identity=identity,
        )

    @property
    def first_plan(self) -> tuple[Segment, ...]:
        """The plan of a training that begins."""
        return (Segment(first_step=0, first_sample=0, num_sequences=self.num_sequences),)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint says about the job."""
        return {
            **self.identity,
            "identity_digest": digest_value(self.identity),
            "model_config": dataclasses.asdict(self.model_config),
            "train_config": dataclasses.asdict(self.config),
            "code": _code(),
        }

    def num_steps(self, step: int, plan: Plan) -> int:
        """Updates in all, after so many."""
        return self.config.num_steps(
            tokens_per_epoch=self.num_windows * self.model_config.block_size,
            steps_done=step,
            tokens_done=self.num_tokens(step, plan),
        )

    def num_tokens(self, step: int, plan: Plan) -> int:
        """Tokens trained on after so many updates, repeats included."""
        return num_samples_taken(plan, step) * self.model_config.block_size

    def check(self, newest: Path) -> None:
        """Raise ConfigError where a checkpoint belongs to another training; note where only the code changed."""
        state = checkpoint.read_state(newest)
        if state.get("identity_digest") != digest_value(self.identity):
            there, here = (_flat(side) for side in ({key: state.get(key) for key in self.identity}, self.identity))
            name = next((name for name in here if there.get(name) != here[name]), "config")
            raise ConfigError(
                f"got {name} {here.get(name)!r}; wanted {there.get(name)!r}, which {newest.parent} was begun with: "
                "set it back to go on, or train in another folder to begin anew (start_from takes these weights along)."
            )
        if state.get("code") != _code():
            _logger.warning("the training code or torch changed since %s was written: bits may differ", newest.name)

    def record(self, result: TrainResult) -> None:
        """Write down what a finished training gave."""
        names = {name: getattr(result, name).name for name in ("checkpoint", "best_checkpoint")}
        fields = {**dataclasses.asdict(result), **names, "identity_digest": digest_value(self.identity)}
        record = {"result": fields, "sha256": digest_value(fields)}
        checkpoint.write_file(self.folder / _RESULT, json.dumps(record, indent=1, sort_keys=True))

    def recorded(self, newest: Path) -> TrainResult | None:
        """The result of a finished training; None where there is none, or where it or its checkpoint is damaged."""
        try:
            record = json.loads((self.folder / _RESULT).read_text())
            fields = dict(record["result"])
            whole = record["sha256"] == digest_value(fields)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            whole, fields = False, {}
        if not whole or fields.pop("identity_digest") != digest_value(self.identity):
            _logger.warning("%s is damaged and is written again", self.folder / _RESULT)
            return None
        if fields["checkpoint"] != newest.name:
            return None
        paths = {name: self.folder / fields[name] for name in ("checkpoint", "best_checkpoint")}
        return TrainResult(**{**fields, **paths})


def finished_result(folder: Path) -> TrainResult:
    """What the training that just finished in a folder gave, as it was written down there."""
    fields = dict(json.loads((folder / _RESULT).read_text())["result"])
    del fields["identity_digest"]
    return TrainResult(**{**fields, **{name: folder / fields[name] for name in ("checkpoint", "best_checkpoint")}})


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return flat


def _code() -> dict[str, str]:
    """What computed: a digest of the modules that shape the weights, and the versions below them."""
    here = Path(__file__).parent
    digests = {name: digest_file(here / f"{name}.py") for name in _SHAPING_MODULES}
    return {"digest": digest_value(digests), "torch": str(torch.__version__), "python": platform.python_version()}
