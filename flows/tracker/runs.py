"""What the flows record in MLflow: a run each for corpus, training and evaluation.

The runs name each other, the corpus digest and the Prefect flow run in their tags, so that a reviewer gets from any
of them to the others. MLflow is imported only where there is something to record: a run that changes nothing is no new
run. What was computed and could not be recorded, because of a kill or a tracker that is down, is recorded by the next run;
no run fails for it.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from prefect.runtime import flow_run

from flows.evaluation.measure import read_suites, suites_path
from flows.inspection import summary_facts
from flows.jobs import JobResult, TrainingJob
from flows.model.commands import export_checked
from flows.recipe import Recipe
from flows.results import read_result, write_result
from flows.review import write_page
from flows.settings import Settings
from flows.tracker.execution import begin, end, end_runs, is_any_left, read
from flows.tracker.execution import describe as describe_execution
from flows.tracker.gates import check_gates
from flows.tracker.registry import TAKEDOWN, register, tag_versions
from flows.tracker.shipper import Shipper
from flows.tracker.shipping import named_documents
from flows.tracker.training_run import (
    MODEL_ID,
    Ending,
    TrainingRun,
    end_left_trainings,
    known_run_id,
    known_run_ids,
    left_trainings,
    mark_end,
)
from flows.workspace import Workspace
from llm.journal import JOURNAL, End, Journal, is_left
from pipelines.corpus import CorpusConfig
from pipelines.digest import canonical, digest_value
from pipelines.eu_summary import eu_summary_markdown
from pipelines.review import review_facts
from pipelines.store import Manifest, Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from flows.tracker.tracking import Status

_logger = logging.getLogger(__name__)

_ENDS: Mapping[str, End] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed"}
_MAX_ROWS = 500
"""Of a suite's items in its table; the file has all."""
_NOT_IN_A_NAME = re.compile(r"[^\w\-. /:]")
"""What MLflow does not take in the name of a metric."""
UrlsOf = Callable[[Sequence[str]], Mapping[str, str]]
"""doc_ids -> the URLs of those that are known."""
_NUM_PER_RULE = 5
"""Documents on the review page of those that fail a rule, and of those kept; `corpusmill sample` shows more."""
_MAX_PAGE_BYTES = 4 << 20
"""Of a review page that is kept with every run."""


def is_corpus_recorded(place: Workspace, recipe: Recipe, dataset_digest: str) -> bool:
    """Whether a corpus has a run that is finished."""
    return _corpus_run_id(place, recipe, dataset_digest) is not None


def is_training_recorded(job: TrainingJob) -> bool:
    """Whether a training has a run that is finished."""
    return read_result(_training_record(job), job.key) is not None


def is_evaluation_recorded(job: TrainingJob, recipe: Recipe) -> bool:
    """Whether an evaluation has a run that is finished."""
    key = job.evaluation_key(recipe.evaluation_plan())
    return read_result(_evaluation_record(job, key), key) is not None


@contextmanager
def execution(settings: Settings, place: Workspace, recipe: Recipe) -> Iterator[None]:
    """A run for an execution of the pipeline, above those of its parts; none where none of these is written."""
    begin(place, _flow_run_id())
    status: Status = "KILLED"  # unless it ends otherwise: Ctrl-C and Prefect's signals are no Exceptions
    try:
        yield
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        run_id = read(place).run_id
        if end(place, status):
            from flows.tracker.tracking import TrackedRun, open_tracker, unless_down

            with unless_down("the end of the execution"):
                client = open_tracker(settings, place, recipe.name, None).client
                if run_id is not None:
                    describe_execution(TrackedRun(client, run_id))
                end_runs(client, place, known_run_ids(place))


def record_corpus(
    settings: Settings,
    place: Workspace,
    recipe: Recipe,
    store: Store,
    config: CorpusConfig,
    done: Mapping[str, Manifest],
    summary: Mapping[str, Any],
) -> None:
    """A run for a corpus: parameters, the funnel as metrics, the dataset, the data card, the page to review rules by."""
    folder = place.report_folder(recipe.name)
    facts = review_facts(store, done, config, num_per_rule=_NUM_PER_RULE, seed=0)
    page = write_page(folder / "review", recipe.name, facts, max_bytes=_MAX_PAGE_BYTES)
    public = folder / "eu_summary.md"
    public.write_text(
        eu_summary_markdown(summary_facts(recipe, place, store, config, done, is_sme=False)), encoding="utf-8"
    )
    from flows.model.figures import write_corpus_figures
    from flows.model.files import read_card
    from flows.tracker.tracking import flatten, open_tracker, unless_down

    figures = write_corpus_figures(folder / "figures", facts, read_card(folder / "data_card.json"))

    tags = {"corpusmill.dataset_digest": summary["dataset_digest"]}
    tags |= {f"corpusmill.manifest.{name}": manifest.digest for name, manifest in done.items()}
    with unless_down("the record of the corpus"):
        tracker = open_tracker(settings, place, recipe.name, _flow_run_id())
        with tracker.run("corpus", tags, of=summary["dataset_digest"]) as tracked:
            tracked.log_params(flatten({name: value for name, value in recipe.raw.items() if name != "sources"}))
            tracked.log_metrics(
                {
                    "documents/in": summary["documents"]["in"],
                    "documents/kept": summary["documents"]["kept"],
                    "tokens": summary["tokens"],
                    **{f"dropped/{name}": count for name, count in summary["documents"]["dropped"].items()},
                    **{f"shards_computed/{stage['name']}": stage["computed"] for stage in summary["stages"]},
                }
            )
            tracked.log_dataset(recipe.name, summary["dataset_digest"], place.store_url, "corpus")
            tracked.log_files(folder / "data_card.md", folder / "data_card.json", public)
            tracked.log_files(*figures, below="figures")
            tracked.log_files(page, below="review")
        write_result(folder / "corpus_run.json", summary["dataset_digest"], {"run_id": tracked.run_id}, [])


@contextmanager
def recorded_training(
    settings: Settings, place: Workspace, recipe: Recipe, job: TrainingJob, urls_of: UrlsOf
) -> Iterator[Callable[[JobResult], None]]:
    """A run for a training, gone on with where an earlier one was killed. Yields a call for the training's result.

    The run is opened and filled from the journal by a process beside the training, which never waits for it. What the
    tracker did not take when the block ends is said in one sentence, and shipped by the next command that records this
    training.
    """
    if job.finished() is None:
        Journal(job.folder).close()  # so that the run can be named after it
    run = TrainingRun(
        workspace=str(place.root),
        folder=str(job.folder),
        tracking_uri=settings.mlflow_tracking_uri,
        recipe=recipe.name,
        flow_run_id=_flow_run_id(),
        key=job.key,
        corpus_run_id=_corpus_run_id(place, recipe, job.dataset.digest),
        dataset_digest=job.dataset.digest,
        dataset_source=place.store_url,
        model=canonical(job.model),
        training=canonical(job.training),
    )
    ended: list[JobResult] = []
    status: Status = "KILLED"  # unless it ends otherwise: Ctrl-C and Prefect's signals are no Exceptions
    shipper = Shipper(run)
    try:
        yield ended.append
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        if is_left(job.folder / JOURNAL):  # it ended before it began, or in a process that was killed
            mark_end(job.folder, _ENDS[status])
        is_hurried = status == "KILLED"
        doc_ids = [] if is_hurried else named_documents(job.folder)
        ending = Ending(
            status=status,
            result=dict(ended[-1].values) if ended else None,
            urls=dict(urls_of(doc_ids)) if doc_ids else {},
        )
        problem = shipper.end(ending, is_hurried=is_hurried)
        if problem is not None:
            _logger.warning(
                "got %s from the tracker, wanted it to take the record of the training: %s keeps it, "
                "`corpusmill train` with the same recipe ships it.",
                problem,
                job.folder / JOURNAL,
            )
    if problem is None:
        write_result(_training_record(job), job.key, {"run_id": known_run_id(job.folder)}, [])


def record_training(settings: Settings, place: Workspace, recipe: Recipe, job: TrainingJob, urls_of: UrlsOf) -> None:
    """The run of a training that is finished, from what it left."""
    values = job.finished()
    if values is not None:
        with recorded_training(settings, place, recipe, job, urls_of) as on_end:
            on_end(JobResult(values=values, is_reused=True, seconds=0.0))


def end_killed_trainings(settings: Settings, place: Workspace, recipe: Recipe) -> None:
    """Set runs KILLED whose training was killed and left; asks the tracker only where there is one."""
    if left_trainings(place):
        from flows.tracker.tracking import open_tracker, unless_down

        with unless_down("the end of a training that was killed"):
            end_left_trainings(open_tracker(settings, place, recipe.name, _flow_run_id()), place)


def end_left_runs(settings: Settings, place: Workspace) -> list[str]:
    """Close every run of the workspace that says it is running though its process is gone; gives what was closed.

    The caller holds the workspace. Raises TransientError where the tracker does not answer.
    """
    trainings = left_trainings(place)
    if not trainings and not is_any_left(place):
        return []
    from flows.tracker.tracking import Tracker, open_client

    client = open_client(settings, place)
    ended = [f"training {folder.name}" for folder in end_left_trainings(Tracker(client, "", {}), place)]
    end(place, "KILLED")
    left = read(place).left
    others = end_runs(client, place, known_run_ids(place))
    return [*ended, *(f"execution {run_id}" for run_id in left), *(f"run {run_id}" for run_id in others)]


def end_left_runs_unless_down(settings: Settings, place: Workspace) -> None:
    """Close them, or say in one sentence that the tracker does not answer; it is asked only where a run may be left."""
    if left_trainings(place) or is_any_left(place):
        from flows.tracker.tracking import unless_down

        with unless_down("the end of what earlier runs left open"):
            end_left_runs(settings, place)


def record_evaluation(
    settings: Settings,
    place: Workspace,
    recipe: Recipe,
    job: TrainingJob,
    result: JobResult,
    urls_of: UrlsOf,
) -> None:
    """A run for an evaluation: its figures, its suites, and as artifacts the model's page, card and figures, and samples."""
    from flows.model.files import write_model_files
    from flows.tracker.tracking import code_version, flatten, open_tracker, unless_down

    tags = {
        "corpusmill.dataset_digest": job.dataset.digest,
        "corpusmill.training_key": job.key,
        "corpusmill.training_run_id": known_run_id(job.folder) or "",
        "corpusmill.corpus_run_id": _corpus_run_id(place, recipe, job.dataset.digest) or "",
    }
    with unless_down("the record of the evaluation"):
        tracker = open_tracker(settings, place, recipe.name, _flow_run_id())
        suites = read_suites(job, recipe.evaluation_plan())
        files = write_model_files(
            place,
            recipe.name,
            job,
            result.values,
            suites,
            urls_of=urls_of,
            takedowns=_takedowns(tracker.client, job),
            code_version=code_version(),
        )
        with tracker.run("evaluation", tags, of=job.folder.name) as tracked:
            tracked.log_params(flatten({"evaluation": canonical(recipe.evaluation)}))
            figures = {name: value for name, value in result.values.items() if isinstance(value, int | float)}
            model_id = _model_id(tracker.client, job)
            if model_id is not None:
                tracked.log_model_input(model_id)
            tracked.log_metrics({f"evaluation/{name}": value for name, value in figures.items()}, model_id=model_id)
            tracked.log_metrics(_suite_metrics(result.values["suites"]), model_id=model_id)
            tracked.log_files(suites_path(job, recipe.evaluation_plan()), below="suites")
            tracked.log_dataset(recipe.name, job.dataset.digest, place.store_url, "evaluation")
            samples = job.folder / "samples.md"
            lines = [f"## {sample['prompt']!r}\n\n{sample['text']}\n" for sample in result.values["samples"]]
            samples.write_text("# Samples\n\n" + "\n".join(lines), encoding="utf-8")
            tracked.log_files(samples, files.card)
            tracked.log_table("samples", result.values["samples"])
            for each in suites:
                tracked.log_table(each.suite.name, each.items[:_MAX_ROWS])
            tracked.log_files(files.page, below="page")
            tracked.log_files(*files.figures, below="figures")
        key = job.evaluation_key(recipe.evaluation_plan())
        write_result(_evaluation_record(job, key), key, {"run_id": tracked.run_id}, [])


def register_model(
    settings: Settings, place: Workspace, recipe: Recipe, job: TrainingJob, store: Store
) -> dict[str, Any] | None:
    """Judge an evaluated model by the recipe's gates, and register it where it passes; None where the tracker is down.

    What was judged once is read back.
    """
    from flows.model.files import CARD, DATA_CARD
    from flows.tracker.tracking import open_tracker, unless_down

    section, evaluation_key = recipe.registry, job.evaluation_key(recipe.evaluation_plan())
    evaluated = read_result(_evaluation_record(job, evaluation_key), evaluation_key)
    if section is None or evaluated is None:
        return None
    path, key = (
        job.evaluation_path(evaluation_key).with_suffix(".registry.json"),
        digest_value([evaluation_key, section]),
    )
    if (known := read_result(path, key)) is not None:
        return known
    with unless_down("the model into its registry"):
        client = open_tracker(settings, place, recipe.name, _flow_run_id()).client
        takedowns = _takedowns(client, job)
        with TemporaryDirectory(dir=job.folder, prefix=".export-") as scratch:
            folder = Path(scratch, "model")
            checked = export_checked(job, store, folder, which="last")["checked"]
            gates = check_gates(
                section, read_suites(job, recipe.evaluation_plan()), export=checked, takedowns=takedowns
            )
            cards = [place.report_folder(recipe.name) / name for name in (f"model/{CARD}", DATA_CARD)]
            told = register(
                client, section, evaluated["run_id"], folder, gates, [card for card in cards if card.is_file()]
            )
        write_result(path, key, told, [])
        return told
    return None


def _model_id(client: "MlflowClient", job: TrainingJob) -> str | None:
    """The logged model of a training; None where it was recorded before there were any."""
    run_id = known_run_id(job.folder)
    return client.get_run(run_id).data.tags.get(MODEL_ID) if run_id else None


def _takedowns(client: "MlflowClient", job: TrainingJob) -> list[str]:
    """The take-downs of pages that a training saw."""
    run_id = known_run_id(job.folder)
    tags = client.get_run(run_id).data.tags if run_id else {}
    return [request for request in tags.get(TAKEDOWN, "").split(",") if request]


def _suite_metrics(suites: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Every figure of every suite, as `suites/held_out/bits_per_byte`, with its interval as `.../low` and `.../high`."""
    found: dict[str, float] = {}
    for each in suites:
        for name, figure in each["figures"].items():
            metric = _NOT_IN_A_NAME.sub("_", f"suites/{each['suite']['name']}/{name}".replace("=", " "))
            parts = {metric: figure["value"], f"{metric}/low": figure["low"], f"{metric}/high": figure["high"]}
            found |= {part: float(value) for part, value in parts.items() if value is not None}
    return found


def tag_taken_down(
    settings: Settings,
    place: Workspace,
    recipe: str,
    request_ids: Sequence[str],
    *,
    tokens_digest: str | None,
    training_keys: Sequence[str],
) -> list[str]:
    """Tag the runs of a corpus and of trainings, and what evaluated these, with the take-downs of what they held.

    Returns the ids of the runs.
    """
    from flows.tracker.tracking import open_tracker, tag_runs

    wanted = {
        "corpusmill.manifest.tokenize": [tokens_digest] if tokens_digest else [],
        "corpusmill.training_key": list(training_keys),
    }
    if not any(wanted.values()):
        return []
    client = open_tracker(settings, place, recipe, _flow_run_id()).client
    tag_versions(client, request_ids, training_keys)
    return tag_runs(client, TAKEDOWN, request_ids, wanted)


def _training_record(job: TrainingJob) -> Path:
    return job.folder / "training_run.json"


def _evaluation_record(job: TrainingJob, key: str) -> Path:
    return job.evaluation_path(key).with_suffix(".run.json")


def _corpus_run_id(place: Workspace, recipe: Recipe, dataset_digest: str) -> str | None:
    values = read_result(place.report_folder(recipe.name) / "corpus_run.json", dataset_digest)
    return str(values["run_id"]) if values else None


def _flow_run_id() -> str | None:
    return flow_run.root_flow_run_id or flow_run.id
