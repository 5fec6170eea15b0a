"""The flows that are deployed: refresh, train, evaluate, takedown, maintenance.

Each is one of the pipeline's flows in working clothes: it runs on a worker that nobody watches, waits its turn at the
workspace, ends when its time is over, and says what somebody should look at. Their parameters are a form in Prefect's
UI, which refuses what they do not take.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from flows import pipeline, tasks, verification
from flows import takedown as takedowns
from flows.deployed import backup, bounds, change, events
from flows.deployed.cancelled import ending_when_told
from flows.deployed.time_limit import time_limit
from flows.deployed.turns import end_lost_runs, nothing_to_do, show_waiting
from flows.deployed.waiting import writing_in_turn
from flows.inspection import last_build
from flows.recipe import Recipe, load_recipe
from flows.results import write_result
from flows.settings import Settings, read_settings
from flows.tracker import runs
from flows.watching.logs import log_from_flow
from flows.watching.run_state import recorded
from flows.workspace import Workspace, held_lock
from pipelines.digest import digest_value
from pipelines.errors import ConfigError, IntegrityError
from pipelines.store import Store
from pipelines.takedown.ledger import Scope, read_ledger

_logger = logging.getLogger(__name__)

Summary = dict[str, Any]
Facts = TypeVar("Facts")

RecipeFile = Annotated[
    str | None,
    Field(title="Recipe", description="Path of the recipe (YAML) on the worker's machine; none: the embedded demo."),
]
WorkspaceFolder = Annotated[
    str | None,
    Field(
        title="Workspace",
        description="Folder for everything that is made, on the worker's machine; none: its $CORPUSMILL_WORKSPACE.",
    ),
]
NumWorkers = Annotated[
    int | None,
    Field(title="Workers", ge=0, le=1024, description="Processes for CPU-bound stages; none: one for each core."),
]
WaitMinutes = Annotated[
    float,
    Field(
        title="Wait for the workspace (minutes)",
        ge=0,
        description="While another run writes the workspace this one waits, in the state Waiting; after that it fails.",
    ),
]
MaxHours = Annotated[
    float,
    Field(
        title="Time limit (hours)",
        gt=0,
        description="After that the run is stopped as by a person, and fails; what was finished is kept.",
    ),
]
MinFreeGib = Annotated[
    float, Field(title="Least free disk (GiB)", ge=0, description="Less of it below the workspace raises an alert.")
]
_VERBS = {
    "refresh": "build",
    "takedown": "build",
    "maintenance": "verify",
}
"""Commands that do what a flow does, for a person to repeat."""
_WAIT_MINUTES = 720.0
_FREE_GIB = 5.0
_DAY = 24.0


def _run_name() -> str:
    recipe = flow_run.parameters.get("recipe")
    return f"{flow_run.flow_name} {Path(recipe).stem if recipe else 'demo'}"


@flow(name="refresh", flow_run_name=_run_name, persist_result=False)
def refresh(
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    workers: NumWorkers = None,
    train_share: Annotated[
        float,
        Field(
            title="Train after a change of",
            ge=0,
            le=1,
            description="Share of documents or tokens that changed since the last training, from which to train again.",
        ),
    ] = 0.05,
    max_funnel_move: Annotated[
        float,
        Field(
            title="Largest move of the funnel",
            ge=0,
            le=1,
            description="A share of the pages, kept or dropped for a reason, that moves by more raises an alert.",
        ),
    ] = 0.1,
    min_pages_per_minute: Annotated[
        float,
        Field(title="Least rate of a crawl", ge=0, description="Pages a minute; fewer raise an alert. 0: never."),
    ] = 0.0,
    min_free_gib: MinFreeGib = _FREE_GIB,
    wait_minutes: WaitMinutes = _WAIT_MINUTES,
    max_hours: MaxHours = _DAY,
) -> Summary | State[Any]:
    """Crawl what is due, rebuild what changed, and say whether that is enough to train again."""
    if (ended := nothing_to_do(is_periodic=True)) is not None:
        return ended
    with _operation(recipe, workspace, wait_minutes, max_hours) as (settings, place, wanted, store):
        _watch_disk(wanted, place, min_free_gib)
        folder = str(settings.workspace)
        crawled = pipeline.crawl(recipe, folder)
        for sentence in bounds.slow_crawls(crawled["stages"], min_pages_per_minute):
            events.alert("crawl-slow", sentence, wanted.name, place, {})
        built = pipeline.build_corpus(recipe, folder, workers)
        _watch_funnel(wanted, place, built["documents"], max_funnel_move)
        _watch_disk(wanted, place, min_free_gib)
        decision = _decide(wanted, place, store, built["dataset_digest"], train_share)
    return crawled | built | {"stages": [*crawled["stages"], *built["stages"]], "train": decision.facts()}


@flow(name="train", flow_run_name=_run_name, persist_result=False)
def train(
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    processes: Annotated[
        int | None,
        Field(
            title="Processes",
            ge=1,
            le=64,
            description="That torchrun starts, one for each GPU; none: as the recipe's training.num_processes.",
        ),
    ] = None,
    stop_seconds: Annotated[
        float,
        Field(
            title="Seconds to stop in",
            ge=1,
            le=25,
            description="For a checkpoint when the run is cancelled; then it is killed, and the one before counts.",
        ),
    ] = 10.0,
    min_free_gib: MinFreeGib = _FREE_GIB,
    wait_minutes: WaitMinutes = _WAIT_MINUTES,
    max_hours: MaxHours = 14 * _DAY,
) -> Summary | State[Any]:
    """Train on the newest build, or go on where an earlier run stopped, in the same MLflow run."""
    if (ended := nothing_to_do()) is not None:
        return ended
    from llm.torchrun import Torchrun  # imports torch

    with _operation(recipe, workspace, wait_minutes, max_hours) as (settings, place, wanted, _store):
        _watch_disk(wanted, place, min_free_gib)
        run = wanted.run if processes is None else replace(wanted.run, num_processes=processes)
        lock = held_lock()
        options = Torchrun(
            stop_seconds=stop_seconds,
            hold_open=() if lock is None else (lock,),
            on_line=lambda line: _logger.info("%s", line),
        )
        summary = pipeline.run_training(settings, place, replace(wanted, run=run), recipe, options)
        facts = {name: summary["training"][name] for name in ("folder", "steps", "final_val_loss", "dataset_digest")}
        events.tell(events.TRAINED, wanted.name, place, facts)
    return summary


@flow(name="evaluate", flow_run_name=_run_name, persist_result=False)
def evaluate(
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    min_free_gib: MinFreeGib = _FREE_GIB,
    wait_minutes: WaitMinutes = _WAIT_MINUTES,
    max_hours: MaxHours = _DAY,
) -> Summary | State[Any]:
    """Measure the newest build's model on held-out text and suites, and register it where it passes."""
    if (ended := nothing_to_do()) is not None:
        return ended
    with _operation(recipe, workspace, wait_minutes, max_hours) as (settings, place, wanted, _store):
        _watch_disk(wanted, place, min_free_gib)
        return pipeline.evaluate.fn(recipe, str(settings.workspace))


@flow(name="takedown", flow_run_name=_run_name, persist_result=False)
def takedown(
    scope: Annotated[
        Literal["url", "domain", "doc_id"],
        Field(
            title="What",
            description="A quotation is taken down by `corpusmill takedown add --text` alone: Prefect would keep it.",
        ),
    ],
    value: Annotated[str, Field(title="Which", min_length=1, description="The URL, domain or document id.")],
    reason: Annotated[str, Field(title="Why", min_length=1, description="It stays in the ledger.")],
    by: Annotated[str, Field(title="Who asks", min_length=1, description="It stays in the ledger.")],
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    workers: NumWorkers = None,
    wait_minutes: WaitMinutes = _WAIT_MINUTES,
    max_hours: MaxHours = _DAY,
) -> Summary | State[Any]:
    """Add a take-down to the ledger, rebuild, and give the certificate."""
    if (ended := nothing_to_do()) is not None:
        return ended
    place = Workspace.of(_settings(workspace))
    request_id = _request(place, scope, value, by=by, reason=reason)  # at once: it counts while this run waits
    with _operation(recipe, workspace, wait_minutes, max_hours) as (settings, _place, _wanted, _store):
        built = pipeline.build_corpus(recipe, str(settings.workspace), workers)
    found = takedowns.certificate(settings.workspace, request_id)
    tasks.show_markdown(tasks.slug("takedown", request_id), found["markdown"])
    return built | {"takedown": request_id, "certificate": found["path"]}


@flow(name="maintenance", flow_run_name=_run_name, persist_result=False)
def maintenance(
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    keep_days: Annotated[
        float, Field(title="Keep for (days)", ge=0, description="What nothing needs goes once it is older.")
    ] = 7.0,
    backup_folder: Annotated[
        str | None,
        Field(
            title="Backups",
            description="Folder, on the worker's machine, for copies of ledgers and records; none: no copy is made.",
        ),
    ] = None,
    num_backups: Annotated[int, Field(title="Backups kept", ge=1, description="The newest ones.")] = 14,
    min_free_gib: MinFreeGib = _FREE_GIB,
    wait_minutes: WaitMinutes = _WAIT_MINUTES,
    max_hours: MaxHours = _DAY,
) -> Summary | State[Any]:
    """Read everything again, remove what nothing needs, back up ledgers and records, close runs that were killed."""
    if (ended := nothing_to_do(is_periodic=True)) is not None:
        return ended
    with _operation(recipe, workspace, wait_minutes, max_hours) as (settings, place, wanted, _store):
        found: Summary = {"workspace": str(settings.workspace)}
        found["verified"] = _as_task("verify", lambda: verification.verify(settings.workspace))
        collect = takedowns.collect_garbage
        found["collected"] = _as_task(
            "collect garbage", lambda: collect(settings.workspace, keep_days=keep_days, is_dry=False)
        )
        if backup_folder is not None:  # last, so that no copy has records of what was just removed
            found["backup"] = _as_task("back up", lambda: backup.back_up(place, Path(backup_folder), num_backups))
        _watch_disk(wanted, place, min_free_gib)
        _watch_damage(wanted, place, found["verified"])
        found["closed"] = _as_task("close stale runs", lambda: runs.end_left_runs(settings, place))  # may fail
    return found


@contextmanager
def _operation(
    recipe: str | None, workspace: str | None, wait_minutes: float, max_hours: float
) -> Iterator[tuple[Settings, Workspace, Recipe, Store]]:
    """A run's turn at its workspace, for no longer than it may take, and no longer than anybody wants it."""
    log_from_flow()
    wanted = load_recipe(Path(recipe) if recipe else None)
    settings = _settings(workspace)
    place = Workspace.of(settings)
    with (
        ending_when_told(),
        time_limit(max_hours * 3600),
        show_waiting() as on_wait,
        writing_in_turn(place, wait_minutes * 60, on_wait) as store,
    ):
        on_wait(None)
        for name in end_lost_runs(settings.workspace):
            _logger.warning("%s was left running by a process that is gone: it has crashed.", name)
        runs.end_left_runs_unless_down(settings, place)
        with _recorded(place, wanted, recipe):
            yield settings, place, wanted, store


def _recorded(place: Workspace, wanted: Recipe, recipe: str | None) -> AbstractContextManager[object]:
    """Record the run under the name of its flow; `train` and `evaluate` are recorded by the pipeline's flows of these names."""
    name = flow_run.flow_name
    if name not in _VERBS:
        return nullcontext()
    path = None if name == "maintenance" else recipe  # verify reads the whole workspace
    return recorded(place, name, wanted.name, recipe_path=path, flow_run_id=flow_run.id, verb=_VERBS[name])


def _settings(workspace: str | None) -> Settings:
    """Raises ConfigError where no workspace is named: a worker's own folder is gone after the run."""
    settings = read_settings(Path(workspace) if workspace else None)
    if workspace is None and not settings.is_workspace_named:
        raise ConfigError(
            "workspace: got none, and no $CORPUSMILL_WORKSPACE on the worker, wanted a folder that outlives the run: name one."
        )
    return settings


def _as_task(name: str, run: Callable[[], Facts]) -> Facts:
    def keep() -> tuple[str, Facts]:
        found = run()
        return digest_value(json.loads(json.dumps(found, default=str))), found

    return tasks.run_as_task(name, keep)


def _request(place: Workspace, scope: Scope, value: str, *, by: str, reason: str) -> str:
    """The id of the take-down; one that is in force already is not asked for twice, as by a run that is taken up again."""
    for known in read_ledger(place.takedown_ledger):
        if known.is_active and (known.scope, known.value, known.by, known.reason) == (scope, value, by, reason):
            return known.id
    return str(takedowns.add(place.root, scope, value, by=by, reason=reason)["id"])


def _decide(recipe: Recipe, place: Workspace, store: Store, dataset_digest: str, train_share: float) -> change.Decision:
    """Whether to train again: as an artifact, a file beside the data card, and an event that starts it."""
    config = recipe.corpus_config(store)
    tokens = last_build(recipe, store, config)["tokenize"]
    decision = change.decide(store, tokens, dataset_digest, change.trainings_of(place, recipe.name), train_share)
    write_result(place.report_folder(recipe.name) / "train_decision.json", dataset_digest, decision.facts(), [])
    tasks.show_markdown(tasks.slug(recipe.name, "train-decision"), decision.markdown())
    event = events.CHANGED_ENOUGH if decision.is_to_train else events.CHANGED_LITTLE
    _logger.info("train: %s: %s", "yes" if decision.is_to_train else "no", decision.reason)
    events.tell(event, recipe.name, place, decision.facts())
    job = pipeline.training_job(recipe, place, store)
    if not decision.is_to_train and job.finished() is not None and job.evaluated(recipe.evaluation_plan()) is None:
        events.tell(events.TRAINED, recipe.name, place, {"folder": job.folder.name})  # the first one was lost
    return decision


def _watch_funnel(recipe: Recipe, place: Workspace, documents: bounds.Documents, bound: float) -> None:
    """Compare the funnel with that of the refresh before, and keep it for the next."""
    path = place.report_folder(recipe.name) / "last_funnel.json"
    try:
        before = json.loads(path.read_bytes())["values"]
    except (OSError, ValueError, KeyError):
        before = None  # the first one
    write_result(path, "", documents, [])
    moves = [] if before is None else bounds.funnel_moves(before, documents, bound)
    if moves:
        sentence = f"{moves[0]}{f', and {len(moves) - 1} more' if moves[1:] else ''}: look at the data card"
        events.alert("funnel-moved", sentence, recipe.name, place, {"moves": moves})


def _watch_disk(recipe: Recipe, place: Workspace, min_free_gib: float) -> None:
    if (sentence := bounds.low_disk(place.root, min_free_gib)) is not None:
        events.alert("disk-low", sentence, recipe.name, place, {})


def _watch_damage(recipe: Recipe, place: Workspace, verified: Summary) -> None:
    """Raises IntegrityError for damage that no run mends."""
    if not verified["damaged"]:
        return
    lost = verified["irreplaceable"]
    names = ", ".join((lost or verified["damaged"])[:3])
    sentence = f"got {len(verified['damaged'])} damaged files ({names}, ...): "
    sentence += "put back a copy" if lost else "the next run makes them again"
    events.alert("damage", sentence, recipe.name, place, {"damaged": verified["damaged"]})
    if lost:
        raise IntegrityError(
            f"got damage in {len(lost)} files that no run can make again ({names}), wanted none: put back a copy."
        )
