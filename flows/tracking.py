"""MLflow, in one module: an experiment a recipe; a run each for corpus, training and evaluation.

Runs carry tags that link them to each other, to the corpus digest and to the Prefect flow run. The
client is used directly: nothing global, nothing patched, nothing autologged.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from flows.settings import Settings
from flows.workspace import Workspace
from pipelines.errors import TransientError

_MAX_DATASET_DIGEST = 32
"""MLflow refuses a digest of more than 36 characters; the whole one is kept in a tag."""
_MAX_PARAMS_A_BATCH = 100
_MAX_BUFFERED_METRICS = 500
_MAX_BUFFER_SECONDS = 5.0


@dataclass(slots=True)
class TrackedRun:
    """One MLflow run that is being written. Metrics are buffered and sent in batches."""

    client: MlflowClient
    run_id: str
    _buffer: list[Metric] = field(default_factory=list)
    _flushed_at: float = field(default_factory=time.monotonic)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log flat parameters; those of an earlier attempt at the same run stay as they are."""
        known = self.client.get_run(self.run_id).data.params
        fresh = [Param(name, str(value)[:6000]) for name, value in params.items() if name not in known]
        for start in range(0, len(fresh), _MAX_PARAMS_A_BATCH):
            self.client.log_batch(self.run_id, params=fresh[start : start + _MAX_PARAMS_A_BATCH])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Buffer metrics; they are sent every few seconds and at the end."""
        now_ms = int(time.time() * 1000)
        self._buffer += [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
        if len(self._buffer) >= _MAX_BUFFERED_METRICS or time.monotonic() - self._flushed_at > _MAX_BUFFER_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        if self._buffer:
            self.client.log_batch(self.run_id, metrics=self._buffer)
        self._buffer = []
        self._flushed_at = time.monotonic()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; values are cut at MLflow's 8,000 characters."""
        self.client.log_batch(self.run_id, tags=[RunTag(name, value[:8000]) for name, value in tags.items()])

    def log_dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Record a dataset, by digest, as an input of the run."""
        dataset = Dataset(name=name, digest=digest[:_MAX_DATASET_DIGEST], source_type="corpusmill", source=source)
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

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str], *, run_id: str | None = None) -> Iterator[TrackedRun]:
        """A run that ends FINISHED, FAILED or KILLED, as the block ends. `run_id` goes on with an earlier one."""
        all_tags = {**self.common_tags, **tags, "corpusmill.kind": name}
        if run_id is not None and self._exists(run_id):
            self.client.set_terminated(run_id, RunStatus.to_string(RunStatus.RUNNING))
        else:
            run_id = self.client.create_run(self.experiment_id, run_name=name, tags=all_tags).info.run_id
        tracked = TrackedRun(self.client, run_id)
        tracked.set_tags(all_tags)
        status = RunStatus.KILLED  # unless it ends otherwise: Ctrl-C and Prefect's signals are no Exceptions
        try:
            yield tracked
            status = RunStatus.FINISHED
        except Exception:
            status = RunStatus.FAILED
            raise
        finally:
            tracked.flush()
            self.client.set_terminated(run_id, RunStatus.to_string(status))

    def _exists(self, run_id: str) -> bool:
        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException:
            return False


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
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = settings.mlflow_tracking_uri or workspace.mlflow_uri
    client = MlflowClient(tracking_uri=uri)
    try:
        experiment = client.get_experiment_by_name(recipe)
    except MlflowException as error:
        raise TransientError(
            f"got {str(error)[:200]!r} from MLflow at {uri}, wanted an answer: mend it and run again, nothing is lost."
        ) from error
    if experiment is not None:
        experiment_id = experiment.experiment_id
    else:
        location = None if settings.mlflow_tracking_uri else workspace.mlflow_artifacts.absolute().as_uri()
        experiment_id = client.create_experiment(recipe, artifact_location=location)
    tags = {"corpusmill.recipe": recipe}
    if flow_run_id is not None:
        tags["prefect.flow_run_id"] = flow_run_id
    return Tracker(client, experiment_id, tags)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config as flat parameters: `model.n_layer`."""
    if isinstance(value, Mapping):
        flat: dict[str, Any] = {}
        for name, item in value.items():
            if name != "__class__":
                flat |= flatten(item, f"{prefix}.{name}" if prefix else str(name))
        return flat
    return {prefix: value}
