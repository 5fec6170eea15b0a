"""MLflow, in one module: an experiment a recipe; a run each for corpus, training and evaluation.

Runs carry tags that link them to each other, to the corpus digest and to the Prefect flow run. The
client is used directly: nothing global, nothing patched, nothing autologged.
"""

import functools
import importlib.metadata
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from flows.control_plane import check_answers
from flows.settings import Settings, redactor
from flows.tracker.execution import FLOW_RUN_TAG, PARENT_TAG, parent_run_id
from flows.up.credentials import to_environment
from flows.workspace import Workspace
from pipelines.errors import StorageError, TerminalError, TransientError
from pipelines.fingerprint import code_fingerprint

_logger = logging.getLogger(__name__)

_MAX_DATASET_DIGEST = 32
"""MLflow refuses a digest of more than 36 characters; the whole one is kept in a tag."""
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Else MLflow's UI guesses what kind of experiment it is."""
_NUM_NAMED = 8
"""Characters of a digest or key in a run's name: enough to tell runs apart, and what `corpusmill compare` takes."""
_MAX_PARAMS_A_BATCH = 100
MAX_METRICS_A_BATCH = 1000
_NUM_RETRIES = "2"
"""Of MLflow's own, a matter of seconds: its 7 block for four minutes, and what is not sent now is sent by a later run."""

TRACKER_ERRORS = (TransientError, MlflowException, OSError)
"""What a tracker that is down, slow or refusing raises; requests' errors are OSErrors."""

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class Measured(NamedTuple):
    """One figure, when and after which update it was measured."""

    name: str
    value: float
    at_ms: int
    step: int
    model_id: str | None = None
    """The logged model that it is of."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One MLflow run that is being written."""

    client: MlflowClient
    run_id: str

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log flat parameters; those of an earlier attempt at the same run stay as they are."""
        known = self.client.get_run(self.run_id).data.params
        hide = redactor().text
        fresh = [Param(name, hide(str(value))[:6000]) for name, value in params.items() if name not in known]
        for start in range(0, len(fresh), _MAX_PARAMS_A_BATCH):
            self.client.log_batch(self.run_id, params=fresh[start : start + _MAX_PARAMS_A_BATCH])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, model_id: str | None = None) -> None:
        """Log figures that were measured now, of a logged model if one is named."""
        now_ms = int(time.time() * 1000)
        self.send([Measured(name, float(value), now_ms, step, model_id) for name, value in metrics.items()])

    def send(self, metrics: Sequence["Measured"]) -> None:
        """Log figures in batches. What MLflow has already, it does not take twice.

        An infinite figure is logged as none (NaN): MLflow would draw it as 1.8e308, and everything else as a flat line.
        """
        rows = [
            Metric(
                each.name, each.value if math.isfinite(each.value) else math.nan, each.at_ms, each.step, each.model_id
            )
            for each in metrics
        ]
        for start in range(0, len(rows), MAX_METRICS_A_BATCH):
            self.client.log_batch(self.run_id, metrics=rows[start : start + MAX_METRICS_A_BATCH])

    def log_model(self, name: str, step: int, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        """Name a checkpoint, which stays where it is, as a logged model and an output of the run; gives its id."""
        experiment_id = self.client.get_run(self.run_id).info.experiment_id
        hide = redactor().text
        model = self.client.create_logged_model(
            experiment_id,
            name,
            self.run_id,
            {key: hide(value) for key, value in tags.items()},
            {key: hide(str(value))[:6000] for key, value in params.items()},
        )
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step)])
        return str(model.model_id)

    def log_model_input(self, model_id: str) -> None:
        """Name a logged model as what the run is about."""
        self.client.log_inputs(self.run_id, models=[LoggedModelInput(model_id)])

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows as a table that MLflow shows, `tables/NAME.json`; nothing where there is no row."""
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            data = {column: [_cell(row.get(column)) for row in rows] for column in columns}
            self.client.log_table(self.run_id, data, f"tables/{name}.json")

    def end(self, status: Status) -> None:
        """Say how the run ended."""
        self.client.set_terminated(self.run_id, status)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; values are cut at MLflow's 8,000 characters."""
        hide = redactor().text
        self.client.log_batch(self.run_id, tags=[RunTag(name, hide(value)[:8000]) for name, value in tags.items()])

    @property
    def started_at_ms(self) -> int:
        """When the run began: milliseconds of UTC since 1970."""
        return int(self.client.get_run(self.run_id).info.start_time)

    def tag(self, name: str, default: str) -> str:
        """What a tag says, the default where there is none."""
        return str(self.client.get_run(self.run_id).data.tags.get(name) or default)

    def log_dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Record a dataset, by digest, as an input of the run."""
        shown = redactor().text(source)
        dataset = Dataset(name=name, digest=digest[:_MAX_DATASET_DIGEST], source_type="corpusmill", source=shown)
        tags = [InputTag("mlflow.data.context", context), InputTag("corpusmill.digest", digest)]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def log_files(self, *paths: Path, below: str | None = None) -> None:
        """Copy files into the run's artifacts, or a folder there."""
        for path in paths:
            self.client.log_artifact(self.run_id, str(path), below)


@dataclass(frozen=True, slots=True)
class Tracker:
    """Where the runs of one recipe are kept."""

    client: MlflowClient
    experiment_id: str
    common_tags: Mapping[str, str]
    parent_run_id: str | None = None
    """The run of the execution that is going on."""

    def open_run(
        self, kind: str, tags: Mapping[str, str], *, of: str = "", run_id: str | None = None, same: str | None = None
    ) -> TrackedRun:
        """A run to write into: `run_id` if it is there, else the one with the same value of the tag `same`, else a new one.

        Its name is its kind and the beginning of `of`, the digest or key of what it is of.
        """
        all_tags = {**self.common_tags, **tags, "corpusmill.kind": kind}
        if self.parent_run_id is not None:
            all_tags[PARENT_TAG] = self.parent_run_id
        if run_id is None or not self.has(run_id):
            run_id = None if same is None else self._run_with(same, all_tags[same])
        if run_id is None:
            name = f"{kind} {of[:_NUM_NAMED]}".strip()
            run_id = self.client.create_run(self.experiment_id, run_name=name, tags=all_tags).info.run_id
        else:
            self.client.update_run(run_id, "RUNNING")
        tracked = TrackedRun(self.client, run_id)
        tracked.set_tags(all_tags)
        return tracked

    @contextmanager
    def run(self, kind: str, tags: Mapping[str, str], *, of: str = "") -> Iterator[TrackedRun]:
        """A new run that ends FINISHED, FAILED or KILLED, as the block ends."""
        tracked = self.open_run(kind, tags, of=of)
        status: Status = "KILLED"  # unless it ends otherwise: Ctrl-C and Prefect's signals are no Exceptions
        try:
            yield tracked
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            tracked.end(status)

    def has(self, run_id: str) -> bool:
        """Whether the tracker knows a run, and nobody deleted it."""
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _run_with(self, tag: str, value: str) -> str | None:
        found = self.client.search_runs([self.experiment_id], f"tags.`{tag}` = '{value}'", max_results=1)
        return found[0].info.run_id if found else None


def _cell(value: Any) -> Any:
    """A value that fits a cell: of a list or a mapping its text."""
    return (
        value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value, ensure_ascii=False)
    )


def tag_runs(client: MlflowClient, tag: str, values: Sequence[str], wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """Add values to a tag (a list with commas) of every run, in any experiment, that has one of the wanted tags' values.

    Returns the ids of these runs.
    """
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, Any] = {}
    for name, options in wanted.items():
        for option in options:
            page = None
            while page is None or page:
                runs = client.search_runs(experiments, f"tags.`{name}` = '{option}'", page_token=page)
                found |= {run.info.run_id: run for run in runs}
                page = runs.token or ""
    for run_id, run in found.items():
        known = [value for value in run.data.tags.get(tag, "").split(",") if value]
        client.set_tag(run_id, tag, ",".join(dict.fromkeys([*known, *values])))
    return sorted(found)


def open_tracker(settings: Settings, workspace: Workspace, recipe: str, flow_run_id: str | None) -> Tracker:
    """The tracker of a recipe: MLflow's SQLite backend in the workspace, or the server that is configured.

    Raises TransientError where that does not answer.
    """
    client = open_client(settings, workspace)
    experiment = client.get_experiment_by_name(recipe)
    if experiment is not None:
        experiment_id = experiment.experiment_id
        if experiment.artifact_location.startswith("mlflow-artifacts:") and not settings.mlflow_tracking_uri:
            raise TransientError(
                f"got an experiment {recipe!r} whose artifacts lie behind MLflow's server, wanted that up: "
                "start `corpusmill up` as before and run again to record this, nothing is lost."
            )
    else:
        location = None if settings.mlflow_tracking_uri else workspace.mlflow_artifacts.absolute().as_uri()
        experiment_id = client.create_experiment(recipe, artifact_location=location, tags=_EXPERIMENT_TAGS)
    tags = {"corpusmill.recipe": recipe, "corpusmill.code": code_version()}
    if flow_run_id is not None:
        tags[FLOW_RUN_TAG] = flow_run_id
    return Tracker(client, experiment_id, tags, parent_run_id(client, experiment_id, workspace, tags))


@contextmanager
def unless_down(what: str) -> Iterator[None]:
    """What a tracker does not take now is said in one sentence; the next run records it."""
    try:
        yield
    except StorageError:
        raise
    except TRACKER_ERRORS as error:
        _logger.warning(
            "got %s, wanted the tracker to take %s: nothing is lost, the next run records it.",
            " ".join(str(error).split())[:300] or type(error).__name__,
            what,
        )


def open_client(settings: Settings, workspace: Workspace) -> MlflowClient:
    """A client of MLflow's SQLite backend in the workspace, or of the server that is configured.

    Raises TransientError where that does not answer.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _NUM_RETRIES)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is for the one JSON document
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = settings.mlflow_tracking_uri or workspace.mlflow_uri
    services = settings.services
    if services is not None and uri == services.mlflow and services.credentials is not None:
        to_environment(Path(services.credentials), os.environ)
    try:
        check_answers("MLFLOW_TRACKING_URI", uri)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except TerminalError as error:
        raise TransientError(str(error)) from error
    except MlflowException as error:
        raise TransientError(
            f"got {str(error)[:200]!r} from MLflow at {uri}, wanted an answer: mend it and run again, nothing is lost."
        ) from error
    return client


@functools.cache
def code_version() -> str:
    """The release, and the digest of the code that decides what comes out: stages, training, evaluation."""
    decides = ("pipelines.corpus", "llm.train", "llm.evaluate")
    return f"{importlib.metadata.version('corpusmill')} {code_fingerprint(decides)[:16]}"


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config as flat parameters: `model.n_layer`."""
    if isinstance(value, Mapping):
        flat: dict[str, Any] = {}
        for name, item in value.items():
            if name != "__class__":
                flat |= flatten(item, f"{prefix}.{name}" if prefix else str(name))
        return flat
    return {prefix: value}
