"""The flows that are deployed: refresh, train, evaluate, takedown, maintenance.

Each is one of the pipeline's flows in working clothes: it runs on a worker that nobody watches, waits its turn at the
workspace, ends when its time is over, and says what somebody should look at. Their parameters are a form in Prefect's
UI, which refuses what they do not take.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from flows import pipeline
from flows.recipe import Recipe, load_recipe
from flows.settings import Settings, read_settings
from flows.time_limit import time_limit
from flows.waiting import writing_in_turn
from flows.workspace import Workspace
from pipelines.store import Store

Summary = dict[str, Any]

MAX_TAKE_UPS = 5
"""Times that a run is begun before it counts as one that crashes whatever it runs on."""

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
        description="While another run writes the workspace this one waits, in the state Waiting; then it fails.",
    ),
]
MaxHours = Annotated[
    float,
    Field(
        title="Time limit (hours)",
        gt=0,
        description="Then the run is stopped as by a person, and fails; what was finished is kept.",
    ),
]
MinFreeGib = Annotated[
    float, Field(title="Least free disk (GiB)", ge=0, description="Less of it in the workspace raises an alert.")
]
_WAIT = 720.0
_FREE = 5.0


def _run_name() -> str:
    recipe = flow_run.parameters.get("recipe")
    return f"{flow_run.flow_name} {Path(recipe).stem if recipe else 'demo'}"


@flow(name="refresh", flow_run_name=_run_name, persist_result=False)
def refresh(
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    workers: NumWorkers = None,
    min_free_gib: MinFreeGib = _FREE,
    wait_minutes: WaitMinutes = _WAIT,
    max_hours: MaxHours = 24.0,
) -> Summary:
    """Crawl what is due, rebuild what changed."""
    with _operation(recipe, workspace, wait_minutes, max_hours) as (settings, _place, _wanted, _store):
        folder = str(settings.workspace)
        parts = [pipeline.crawl(recipe, folder), pipeline.build_corpus(recipe, folder, workers)]
    return parts[0] | parts[1] | {"stages": [*parts[0]["stages"], *parts[1]["stages"]]}


@flow(name="train", flow_run_name=_run_name, persist_result=False)
def train(
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    launcher: Literal["inside", "torchrun"] = "inside",
    wait_minutes: WaitMinutes = _WAIT,
    max_hours: MaxHours = 24.0 * 14,
) -> Summary:
    """Train on the newest build, or go on where an earlier run stopped."""
    with _operation(recipe, workspace, wait_minutes, max_hours) as (settings, _place, _wanted, _store):
        return pipeline.train.fn(recipe, str(settings.workspace))


@flow(name="evaluate", flow_run_name=_run_name, persist_result=False)
def evaluate(
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    wait_minutes: WaitMinutes = _WAIT,
    max_hours: MaxHours = 24.0,
) -> Summary:
    """Measure the newest model."""
    with _operation(recipe, workspace, wait_minutes, max_hours) as (settings, _place, _wanted, _store):
        return pipeline.evaluate.fn(recipe, str(settings.workspace))


@flow(name="takedown", flow_run_name=_run_name, persist_result=False)
def takedown(
    scope: Literal["url", "domain", "doc_id"],
    value: str,
    reason: str,
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    workers: NumWorkers = None,
    wait_minutes: WaitMinutes = _WAIT,
    max_hours: MaxHours = 24.0,
) -> Summary:
    """Take pages out, rebuild, and give the certificate."""
    raise NotImplementedError


@flow(name="maintenance", flow_run_name=_run_name, persist_result=False)
def maintenance(
    recipe: RecipeFile = None,
    workspace: WorkspaceFolder = None,
    wait_minutes: WaitMinutes = _WAIT,
    max_hours: MaxHours = 24.0,
) -> Summary:
    """Back up, verify, remove what nothing needs, close stale MLflow runs."""
    raise NotImplementedError


@contextmanager
def _operation(
    recipe: str | None, workspace: str | None, wait_minutes: float, max_hours: float
) -> Iterator[tuple[Settings, Workspace, Recipe, Store]]:
    """A run's turn at its workspace, for no longer than it may take."""
    wanted = load_recipe(Path(recipe) if recipe else None)
    settings = read_settings(Path(workspace) if workspace else None)
    place = Workspace.of(settings)
    with time_limit(max_hours * 3600), writing_in_turn(place, wait_minutes * 60) as store:
        yield settings, place, wanted, store
