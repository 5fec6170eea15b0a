"""Training and evaluation as jobs with a key: a finished one is found again and not repeated.

A training job is keyed by its hand-raised version, its configs and the dataset digest. What finished
is written down with the digest of each file, last of all; a job whose files were damaged is run again.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.model.start import check_tokenizer, start_digest
from flows.recipe import EvaluationPlan, Recipe
from flows.results import read_result, write_result
from flows.workspace import Workspace
from llm.config import TRAINING_VERSION, ModelConfig, RunConfig, TrainConfig
from llm.journal import JOURNAL, follower, journal
from llm.reports import OnReport, Report
from pipelines.corpus import tokenizer_json
from pipelines.digest import digest_value
from pipelines.errors import EmptyCorpusError
from pipelines.lineage import token_counts
from pipelines.stage import Resource
from pipelines.store import Manifest, Shard, Store, storage_errors

if TYPE_CHECKING:
    from llm.data import TokenData
    from llm.job import TrainResult
    from llm.torchrun import Torchrun
    from llm.worker import WorkerJob

_TRAINING = "training.json"
_DATASET = "dataset.json"
"""What a training reads, written down before it begins: its lineage outlives the build, and shards that are gone."""
_JOB = "job.json"
"""What a process of its own, here or on another host, takes part in it by: see `llm.worker`."""
_LOG = "train.log"
"""What torchrun and its processes write."""
_EVALUATION_VERSION = 5
"""Raised by hand when the same model and text are meant to give other measurements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The token shards of a build, and the tokenizer that made them."""

    shards: tuple[Shard, ...]
    num_train_tokens: Mapping[str, int]
    """Of each shard, by its digest."""
    digest: str
    tokenizer: Resource
    vocab_size: int
    eot_token: int
    outcomes_digest: str
    """Of what dedup decided: how many copies a document had changes no token, and what is measured by it."""

    @classmethod
    def of(cls, done: Mapping[str, Manifest], tokenizer: Resource) -> "Dataset":
        """The dataset of a build; shards in the order of their digests."""
        from pipelines.encoding import Encoder

        encoder, tokens = Encoder.load(tokenizer_json(tokenizer)), done["tokenize"]
        shards = {entry.shard.digest: entry.shard for entry in tokens.entries}
        return cls(
            shards=tuple(shards[digest] for digest in sorted(shards)),
            num_train_tokens=token_counts(tokens, "train"),
            digest=digest_value([tokens.digest, tokenizer.digest]),
            tokenizer=tokenizer,
            vocab_size=encoder.vocab_size,
            eot_token=encoder.eot_token,
            outcomes_digest=done["dedup"].digest,
        )

    def verified_paths(self, store: Store) -> list[Path]:
        """Where the shards lie on this machine, each hashed first. Raises IntegrityError for a damaged one."""
        for shard in self.shards:
            store.expect(shard)
        return [store.shard_path(shard.digest) for shard in self.shards]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a job gave, and whether it had to run for it."""

    values: Mapping[str, Any]
    is_reused: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One training: its configs, its data, its folder."""

    model: ModelConfig
    training: TrainConfig
    dataset: Dataset
    folder: Path
    key: str
    start_from: Path | None = None
    """Where the weights lie that it begins with; their digest is in `training`."""

    @classmethod
    def of(cls, recipe: Recipe, dataset: Dataset, workspace: Workspace) -> "TrainingJob":
        """The training that a recipe asks for on a dataset. Raises ConfigError for a model to start from that does not fit."""
        model, training = recipe.model_config(dataset.vocab_size), recipe.training
        if recipe.start_from is not None:
            check_tokenizer(tokenizer_json(dataset.tokenizer), recipe.start_from)
            training = replace(training, start_from=start_digest(recipe.start_from))
        key = digest_value(
            {"version": TRAINING_VERSION, "model": model, "training": training, "dataset": dataset.digest}
        )
        return cls(
            model=model,
            training=training,
            dataset=dataset,
            folder=workspace.model_folder(key),
            key=key,
            start_from=recipe.start_from,
        )

    def finished(self) -> dict[str, Any] | None:
        """What the training gave, if it is finished and its files are whole."""
        return read_result(self.folder / _TRAINING, self.key)

    def evaluation_path(self, key: str) -> Path:
        """Where the evaluation under a key is kept."""
        return self.folder / "evaluations" / f"{key[:16]}.json"

    def evaluation_key(self, plan: EvaluationPlan) -> str:
        """Key of an evaluation of the finished training."""
        model = (self.finished() or {}).get("parameters_digest")
        outcomes = {"outcomes": self.dataset.outcomes_digest} if plan.section.safety else {}
        return digest_value(
            {"version": _EVALUATION_VERSION, "model": model, "dataset": self.dataset.digest, "plan": plan} | outcomes
        )

    def evaluated(self, plan: EvaluationPlan) -> dict[str, Any] | None:
        """What the evaluation gave, if it is finished."""
        key = self.evaluation_key(plan)
        return read_result(self.evaluation_path(key), key)

    def is_begun(self) -> bool:
        """Whether an earlier run left a checkpoint to go on from."""
        return any(self.folder.glob("step-*"))


def train_job(
    job: TrainingJob, recipe: Recipe, store: Store, on_report: OnReport, torchrun: "Torchrun | None" = None
) -> JobResult:
    """Train to the end, or go on where an earlier run stopped; a finished training is read back.

    Each report is in the journal of the training before `on_report` is given it. With `torchrun` it runs under that,
    and what its processes write is in `train.log` beside the journal.
    """
    done = job.finished()
    if done is not None:
        return JobResult(values=done, is_reused=True, seconds=0.0)
    from llm.data import TokenData
    from llm.train import TrainingStoppedError, train
    from llm.weights import read_weights

    started = time.monotonic()
    paths = job.dataset.verified_paths(store)
    with storage_errors(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
        write_result(job.folder / _DATASET, job.key, _reads(job, recipe), [])
        worker_job(job, paths, recipe.run).write(job.folder / _JOB)
        if recipe.run.num_processes > 1 or torchrun is not None:
            result = _train_beside(job, recipe.run, on_report, torchrun)
        else:
            with journal(job.folder, stopped_by=(TrainingStoppedError,)) as written:
                result = train(
                    TokenData.open(paths, "train", digest=job.dataset.digest),
                    TokenData.open(paths, "validation", digest=job.dataset.digest),
                    job.model,
                    job.training,
                    recipe.run,
                    job.folder,
                    on_report=lambda seen: _hand_on(seen, written.write, on_report),
                    weights=None if job.start_from is None else read_weights(job.start_from),
                )
        (job.folder / "tokenizer.json").write_text(tokenizer_json(job.dataset.tokenizer), encoding="utf-8")
        values = {name: value for name, value in asdict(result).items() if not isinstance(value, Path)}
        values |= {
            "checkpoint": result.checkpoint.name,
            "best_checkpoint": result.best_checkpoint.name,
            "num_parameters": job.model.num_parameters,
            **{name: value for name, value in _reads(job, recipe).items() if name != "num_train_tokens"},
        }
        files = [path for path in result.checkpoint.rglob("*") if path.is_file()] + [job.folder / "tokenizer.json"]
        write_result(job.folder / _TRAINING, job.key, values, files)
    return JobResult(values=values, is_reused=False, seconds=time.monotonic() - started)


def worker_job(job: TrainingJob, paths: Sequence[Path], run: RunConfig) -> "WorkerJob":
    """What a process of its own needs to take part in a training."""
    from llm.worker import WorkerJob

    return WorkerJob(
        shards=tuple(str(path) for path in paths),
        dataset_digest=job.dataset.digest,
        model=job.model,
        training=job.training,
        run=run,
        folder=str(job.folder.absolute()),
        start_from=None if job.start_from is None else str(job.start_from.absolute()),
    )


def _train_beside(job: TrainingJob, run: RunConfig, on_report: OnReport, torchrun: "Torchrun | None") -> "TrainResult":
    """Train in processes beside this one, which follows their journal. SIGTERM and SIGINT stop them with a checkpoint."""
    from llm.job import finished_result
    from llm.launch import launch
    from llm.stopping import stop_signals
    from llm.torchrun import torchrun as run_torchrun

    follow = follower(job.folder / JOURNAL, on_report)
    if torchrun is not None:
        # Prefect takes a stop for a cancel only where its own handler stands; that raises, which stops torchrun.
        run_torchrun(job.folder / _JOB, run.num_processes, job.folder / _LOG, torchrun, on_poll=follow)
    else:
        with stop_signals() as received:
            launch(
                job.folder / _JOB, run.num_processes, should_stop=lambda: bool(received), on_poll=lambda _pids: follow()
            )
    return finished_result(job.folder)


def _hand_on(report: Report, *to: OnReport) -> None:
    for each in to:
        each(report)


def _reads(job: TrainingJob, recipe: Recipe) -> dict[str, Any]:
    return {
        "folder": job.folder.name,
        "recipe": recipe.name,
        "dataset_digest": job.dataset.digest,
        "token_shards": [shard.digest for shard in job.dataset.shards],
        "num_train_tokens": dict(job.dataset.num_train_tokens),
        **({} if job.training.start_from is None else {"start_from": job.training.start_from}),
    }


def held_out(paths: Sequence[Path], digest: str) -> "TokenData":
    """What no step and no choice of a step has seen: the test split, or validation where that has no document."""
    from llm.data import TokenData

    try:
        return TokenData.open(paths, "test", digest=digest)
    except EmptyCorpusError:
        return TokenData.open(paths, "validation", digest=digest)


def finished_trainings(workspace: Workspace) -> list[dict[str, Any]]:
    """Every finished training in a workspace with its `key`, the newest last."""
    found = []
    for path in (workspace.root / "models").glob(f"*/{_TRAINING}"):
        try:
            body = json.loads(path.read_bytes())
            found.append((path.stat().st_mtime_ns, {**body["values"], "key": body["key"]}))
        except (OSError, ValueError, KeyError):
            continue  # a damaged one is trained again by the next run
    return [values for _, values in sorted(found, key=lambda item: item[0])]


def known_trainings(workspace: Workspace) -> list[dict[str, Any]]:
    """Every training in a workspace that is finished or left a checkpoint: what it reads, and `is_finished`.

    `num_train_tokens` of the shards is empty where an older version trained. Finished ones come last, the newest at the end.
    """
    begun: dict[str, dict[str, Any]] = {}
    for path in sorted((workspace.root / "models").glob(f"*/{_DATASET}")):
        try:
            key = json.loads(path.read_bytes())["key"]
            values = read_result(path, key)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if values is not None and any(path.parent.glob("step-*")):
            begun[path.parent.name] = values | {"key": key, "is_finished": False}
    finished = {values["folder"]: values | {"is_finished": True} for values in finished_trainings(workspace)}
    known = {name: values for name, values in begun.items() if name not in finished}
    for name, values in finished.items():
        known[name] = values | {"num_train_tokens": begun.get(name, {}).get("num_train_tokens", {})}
    return list(known.values())
