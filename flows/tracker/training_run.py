"""The MLflow run of a training as plain values, so that any process can open it, go on with it and end it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.settings import Settings
from flows.tracker.shipping import describe, ship
from flows.up.addresses import living
from flows.workspace import Workspace
from llm.journal import ENDED, JOURNAL, End, Journal, is_left, journal_id, last_entry

if TYPE_CHECKING:
    from flows.tracker.tracking import Status, TrackedRun, Tracker

MODEL_ID = "corpusmill.model_id"
"""On a training's run: the logged model of its last checkpoint."""
_RUN_ID = "mlflow_run_id"
_TOLD = "mlflow_told"
"""Holds the run that was told how the training ended."""
_STATUSES: Mapping[str, "Status"] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
    "killed": "KILLED",
}
_JOURNAL_TAG = "corpusmill.journal"
_FINAL_FIGURES = ("first_val_loss", "final_val_loss", "final_train_loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """What a run says of a training before it has a step, and where it is kept. All of it is plain JSON."""

    workspace: str
    folder: str
    """Of the model, where the journal is."""
    tracking_uri: str | None
    """None keeps the run in the workspace."""
    recipe: str
    flow_run_id: str | None
    key: str
    """Of the training."""
    corpus_run_id: str | None
    dataset_digest: str
    dataset_source: str
    model: Mapping[str, Any]
    training: Mapping[str, Any]

    @property
    def place(self) -> Workspace:
        """The workspace."""
        return Workspace(Path(self.workspace))

    @property
    def is_on_a_server(self) -> bool:
        """Whether the tracker may be out of reach; a file is not."""
        return (self.tracking_uri or self.place.mlflow_uri).startswith("http")

    def open(self) -> "TrackedRun":
        """Make the run, or go on with the one of an earlier attempt, and end those of trainings that were killed and left."""
        from flows.tracker.tracking import flatten, open_tracker, unless_down

        folder, place = Path(self.folder), self.place
        settings = Settings(
            workspace=place.root,
            num_workers=0,
            prefect_api_url=None,
            mlflow_tracking_uri=self.tracking_uri,
            services=living(place.root),
        )
        tracker = open_tracker(settings, place, self.recipe, self.flow_run_id)
        tags = {
            "corpusmill.dataset_digest": self.dataset_digest,
            "corpusmill.training_key": self.key,
            "corpusmill.model_folder": folder.name,
            "corpusmill.corpus_run_id": self.corpus_run_id or "",
        }
        named = {_JOURNAL_TAG: name} if (name := journal_id(folder / JOURNAL)) else {}
        same = _JOURNAL_TAG if named else None
        run = tracker.open_run("training", tags | named, of=folder.name, run_id=known_run_id(folder), same=same)
        (folder / _TOLD).unlink(missing_ok=True)
        (folder / _RUN_ID).write_text(run.run_id)
        run.log_params(flatten({"model": self.model, "training": self.training}))
        run.log_dataset(self.recipe, self.dataset_digest, self.dataset_source, "training")
        with unless_down("the end of a training that was killed"):
            end_left_trainings(tracker, place, but=folder)
        return run

    def end(self, run: "TrackedRun", ending: "Ending") -> None:
        """Record the result, if there is one, how the training ended, and what happened in it."""
        if ending.result is not None:
            self._record(run, ending.result)
        run.end(ending.status)  # whatever becomes of the artifact
        (Path(self.folder) / _TOLD).write_text(run.run_id)
        describe(run, Path(self.folder), ending.urls)

    def _record(self, run: "TrackedRun", result: Mapping[str, Any]) -> None:
        from flows.tracker.tracking import Measured, flatten

        folder = Path(self.folder)
        last = last_entry(folder / JOURNAL)
        at_ms = last.at_ms if last is not None else time.time_ns() // 1_000_000  # an older version left no journal
        run.send([Measured(f"final/{name}", result[name], at_ms, result["steps"]) for name in _FINAL_FIGURES])
        run.set_tags({"corpusmill.parameters_digest": result["parameters_digest"]})
        if not run.tag(MODEL_ID, ""):
            tags = {
                "corpusmill.training_key": self.key,
                "corpusmill.dataset_digest": self.dataset_digest,
                "corpusmill.parameters_digest": result["parameters_digest"],
                "corpusmill.checkpoint": str(folder / result["checkpoint"]),
            }
            name = f"{folder.name}-{result['checkpoint']}"
            run.set_tags({MODEL_ID: run.log_model(name, result["steps"], tags, flatten(self.model))})


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a training ended: what its run is told last. Plain JSON, too."""

    status: "Status"
    result: Mapping[str, Any] | None = None
    """Of a training that came to its end."""
    urls: Mapping[str, str] = field(default_factory=dict)
    """Of the documents that its events name, by doc_id."""


def known_run_id(folder: Path) -> str | None:
    """The run of the training in a folder; None as long as there is none."""
    path = folder / _RUN_ID
    return path.read_text().strip() if path.exists() else None


def known_run_ids(place: Workspace) -> set[str]:
    """The runs of all trainings of a workspace."""
    return {path.read_text().strip() for path in (place.root / "models").glob(f"*/{_RUN_ID}")}


def left_trainings(place: Workspace, but: Path | None = None) -> Sequence[Path]:
    """Folders of trainings whose run may be open though they are over: killed, or the tracker did not hear of the end.

    Whoever asks holds the workspace, so nobody trains in them.
    """
    folders = [path.parent for path in sorted((place.root / "models").glob(f"*/{_RUN_ID}"))]
    return [folder for folder in folders if folder != but and (is_left(folder / JOURNAL) or not _is_told(folder))]


def _is_told(folder: Path) -> bool:
    path = folder / _TOLD
    return path.exists() and path.read_text().strip() == known_run_id(folder)


def end_left_trainings(tracker: "Tracker", place: Workspace, but: Path | None = None) -> list[Path]:
    """Give the runs of trainings that are over what their journals have, and end them; gives the folders of these.

    What a finished one comes to is recorded by the next command that trains it.
    """
    from flows.tracker.tracking import TrackedRun

    ended = []
    for folder in left_trainings(place, but):
        run_id = known_run_id(folder)
        if run_id is None or not tracker.has(run_id):
            continue  # another tracker's
        is_killed, last = is_left(folder / JOURNAL), last_entry(folder / JOURNAL)
        if not is_killed and last is not None and last.kind != ENDED:
            continue  # it is written
        if is_killed or tracker.client.get_run(run_id).info.status == "RUNNING":
            run = TrackedRun(tracker.client, run_id)
            ship(run, folder)
            run.end("KILLED" if is_killed or last is None else _STATUSES.get(last.facts.get("how", ""), "KILLED"))
            describe(run, folder)
            ended.append(folder)
        if is_killed:
            mark_end(folder, "killed")
        (folder / _TOLD).write_text(run_id)
    return ended


def mark_end(folder: Path, how: End) -> None:
    """Let the journal say how its training ended, in the place of a process that could not."""
    with Journal(folder) as journal:
        journal.end(how, "noted by another process than the one that trained")
