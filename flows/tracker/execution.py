"""An execution of the pipeline as an MLflow run: the parent of the runs that it makes or goes on with.

`execution.json` in the workspace says which execution is going on. Its run is made with the first run below it, so an
execution that changes nothing is no run. It ends with the execution, or, where that was killed or the tracker was down,
with a later one; and so do the runs below it that nobody ended: whose process was killed, whose tracker died before it was
told, or that were made for an answer that was lost. They are found by the flow run that they name.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.workspace import Workspace
from pipelines.store import storage_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from flows.tracker.tracking import Status, TrackedRun

KIND = "pipeline"
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""
PARENT_TAG = "mlflow.parentRunId"
FLOW_RUN_TAG = "prefect.flow_run_id"
_PARTS = ("corpus", "training", "evaluation")
_HEADLINES = {
    "corpus": ("documents/kept", "tokens"),
    "training": ("final/final_val_loss",),
    "evaluation": ("evaluation/loss", "evaluation/bits_per_byte"),
}
"""Figures of the parts that their parent shows, too."""
_PAGES = {"corpus": "review/index.html", "evaluation": "page/index.html"}
"""Of the parts that have one, for a reviewer to read."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What `execution.json` holds."""

    flow_run_id: str | None = None
    run_id: str | None = None
    """None as long as there is nothing to record."""
    left: Mapping[str, "Status"] = field(default_factory=dict)
    """Runs of earlier executions that the tracker has not been told the end of, and that end."""
    recording: tuple[str, ...] = ()
    """Flow runs that began to record, and of which nobody has looked whether a run is left open."""


def begin(place: Workspace, flow_run_id: str | None) -> None:
    """Say that an execution is going on; the one before, if it did not end, was killed. The caller holds the workspace."""
    known = read(place)
    killed: dict[str, Status] = {} if known.run_id is None else {known.run_id: "KILLED"}
    write(place, Execution(flow_run_id=flow_run_id, left={**known.left, **killed}, recording=known.recording))


def parent_run_id(client: "MlflowClient", experiment_id: str, place: Workspace, tags: Mapping[str, str]) -> str | None:
    """The run of the execution that is going on, made if it is missing; None where the flow run is not its.

    Whatever the flow run, it is noted that it records.
    """
    known, flow_run_id = read(place), tags.get(FLOW_RUN_TAG)
    if flow_run_id is None:
        return None
    if flow_run_id not in known.recording:
        known = replace(known, recording=(*known.recording, flow_run_id))
        write(place, known)  # before anything is made that could be left
    if known.flow_run_id != flow_run_id:
        return None
    if known.run_id is None:
        made = client.create_run(experiment_id, run_name=KIND, tags={**tags, "corpusmill.kind": KIND})
        known = replace(known, run_id=made.info.run_id)
        write(place, known)
    return known.run_id


def is_any_left(place: Workspace) -> bool:
    """Whether runs of executions may be left open. Whoever asks holds the workspace, and is no execution."""
    return read(place) != Execution()


def end(place: Workspace, status: "Status") -> bool:
    """Say how the execution ended. Whether there is a run that the tracker has to be told about."""
    known = read(place)
    left = dict(known.left) if known.run_id is None else {**known.left, known.run_id: status}
    write(place, Execution(left=left, recording=known.recording))
    return bool(left or known.recording)


def end_runs(client: "MlflowClient", place: Workspace, trainings: Collection[str]) -> list[str]:
    """Tell the tracker how executions ended, and end what they left open; gives the ids of these runs.

    `trainings` are the runs of trainings, which end by their journals. Runs that the tracker does not know (any more)
    are of no concern to it.
    """
    known = read(place)
    for run_id, status in known.left.items():
        if _is_running(client, run_id):
            client.set_terminated(run_id, status)
    experiments = [each.experiment_id for each in client.search_experiments()] if known.recording else []
    ended = []
    for flow_run_id in known.recording:
        of_it = f"attributes.status = 'RUNNING' and tags.`{FLOW_RUN_TAG}` = '{flow_run_id}'"
        for run in client.search_runs(experiments, of_it):
            if run.info.run_id not in trainings:
                client.set_terminated(run.info.run_id, "KILLED")
                ended.append(run.info.run_id)
    write(place, replace(known, left={}, recording=()))
    return ended


def _is_running(client: "MlflowClient", run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return bool(info.status == "RUNNING" and info.lifecycle_stage == "active")


def describe(run: "TrackedRun") -> None:
    """Let an execution's run lead to corpus, training and evaluation, also where an earlier execution made them.

    It gets their headline figures, and a description with links.
    """
    lines, figures = ["What this execution of the pipeline ended with:", ""], {}
    parts = _parts(run)
    for part in parts:
        found = run.client.get_run(parts[part])
        shown = {name: found.data.metrics[name] for name in _HEADLINES[part] if name in found.data.metrics}
        figures |= shown
        told = ", ".join(f"{name.split('/')[-1].replace('_', ' ')} {value:,.6g}" for name, value in shown.items())
        link = run_link(found.info.experiment_id, found.info.run_id)
        page = f" ([page]({link}/artifacts/{_PAGES[part]}))" if part in _PAGES else ""
        gates = found.data.tags.get("corpusmill.gates")
        judged = f", [gates]({link}/artifacts/gates.md) {gates}" if gates else ""
        lines.append(f"- [{part}]({link}): {told}{judged}{page}")
    run.log_metrics(figures)
    run.set_tags({f"corpusmill.{part}_run_id": run_id for part, run_id in parts.items()})
    run.set_tags({NOTE: "\n".join(lines)})


def run_link(experiment_id: str, run_id: str) -> str:
    """The address of a run's page within MLflow's UI, whatever server shows it."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def _parts(run: "TrackedRun") -> dict[str, str]:
    """The ids of their runs. The last part below an execution names those that it rests on."""
    experiment_id = run.client.get_run(run.run_id).info.experiment_id
    below = run.client.search_runs([experiment_id], f"tags.`{PARENT_TAG}` = '{run.run_id}'")
    found: dict[str, str] = {}
    for part in reversed(_PARTS):
        here = [each for each in below if each.data.tags.get("corpusmill.kind") == part]
        if here:
            found.setdefault(part, here[0].info.run_id)
            named = {name: here[0].data.tags.get(f"corpusmill.{name}_run_id") for name in _PARTS}
            found = {**{name: run_id for name, run_id in named.items() if run_id}, **found}
    return {part: found[part] for part in _PARTS if part in found}


def read(place: Workspace) -> Execution:
    """What is known of the execution that is going on, and of those before."""
    try:
        values = json.loads(_path(place).read_bytes())
        return Execution(**values | {"recording": tuple(values.get("recording", ()))})
    except (OSError, ValueError, TypeError, AttributeError):
        return Execution()


def write(place: Workspace, execution: Execution) -> None:
    """Note it. Raises StorageError where the folder cannot be written."""
    path = _path(place)
    temporary = path.with_name(f".{path.name}")
    with storage_errors(path):
        if execution == Execution():
            path.unlink(missing_ok=True)
            return
        temporary.write_text(json.dumps(asdict(execution)), encoding="utf-8")
        temporary.replace(path)


def _path(place: Workspace) -> Path:
    return place.root / "execution.json"
