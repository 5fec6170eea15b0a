"""What the flows record in MLflow: a run each for corpus, training and evaluation.

The runs name each other, the corpus digest and the Prefect flow run in their tags, so that a reviewer gets from any
of them to the others. MLflow is imported only where there is something to record: a run that changes nothing is no new
run. What was computed and could not be recorded, because of a kill or a tracker that is down, is recorded by the next run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from flows.jobs import JobResult, TrainingJob
from flows.recipe import Recipe
from flows.results import read_result, write_result
from flows.review import write_page
from flows.settings import Settings
from flows.workspace import Workspace
from pipelines.corpus import CorpusConfig
from pipelines.digest import canonical
from pipelines.review import review_facts
from pipelines.store import Manifest, Store

_RUN_ID = "mlflow_run_id"
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
    key = job.evaluation_key(recipe.evaluation)
    return read_result(_evaluation_record(job, key), key) is not None


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
    from flows.tracking import flatten, open_tracker

    folder = place.report_folder(recipe.name)
    facts = review_facts(store, done, config, num_per_rule=_NUM_PER_RULE, seed=0)
    page = write_page(folder / "review", recipe.name, facts, max_bytes=_MAX_PAGE_BYTES)
    tracker = open_tracker(settings, place, recipe.name, _flow_run_id())
    tags = {"corpusmill.dataset_digest": summary["dataset_digest"]}
    tags |= {f"corpusmill.manifest.{name}": manifest.digest for name, manifest in done.items()}
    with tracker.run("corpus", tags) as tracked:
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
        tracked.log_files(folder / "data_card.md", folder / "data_card.json")
        tracked.log_files(page, below="review")
    write_result(folder / "corpus_run.json", summary["dataset_digest"], {"run_id": tracked.run_id}, [])


@contextmanager
def recorded_training(
    settings: Settings, place: Workspace, recipe: Recipe, job: TrainingJob
) -> Iterator[tuple[Callable[[Any], None], Callable[[JobResult], None]]]:
    """A run for a training, gone on with where an earlier one was killed: calls for each step and for the end."""
    from flows.tracking import flatten, open_tracker

    run_path = job.folder / _RUN_ID
    tags = {
        "corpusmill.dataset_digest": job.dataset.digest,
        "corpusmill.training_key": job.key,
        "corpusmill.corpus_run_id": _corpus_run_id(place, recipe, job.dataset.digest) or "",
        "corpusmill.model_folder": job.folder.name,
    }
    tracker = open_tracker(settings, place, recipe.name, _flow_run_id())
    with tracker.run("training", tags, run_id=_training_run_id(job)) as tracked:
        job.folder.mkdir(parents=True, exist_ok=True)
        run_path.write_text(tracked.run_id)
        tracked.log_params(flatten({"model": canonical(job.model), "training": canonical(job.training)}))
        tracked.log_dataset(recipe.name, job.dataset.digest, place.store_url, "training")

        def on_step(seen: Any) -> None:
            measured = {
                "train/loss": seen.loss,
                "train/learning_rate": seen.learning_rate,
                "train/grad_norm": seen.grad_norm,
                "train/tokens_per_second": seen.tokens_per_second,
                "validation/loss": seen.val_loss,
            }
            tracked.log_metrics({name: value for name, value in measured.items() if value is not None}, seen.step)

        def on_end(result: JobResult) -> None:
            names = ("first_val_loss", "final_val_loss", "final_train_loss")
            tracked.log_metrics({f"final/{name}": result.values[name] for name in names}, result.values["steps"])
            tracked.set_tags({"corpusmill.parameters_digest": result.values["parameters_digest"]})

        yield on_step, on_end
    write_result(_training_record(job), job.key, {"run_id": tracked.run_id}, [])


def record_evaluation(
    settings: Settings, place: Workspace, recipe: Recipe, job: TrainingJob, result: JobResult
) -> None:
    """A run for an evaluation: its figures, and the samples as an artifact."""
    from flows.tracking import flatten, open_tracker

    tracker = open_tracker(settings, place, recipe.name, _flow_run_id())
    tags = {
        "corpusmill.dataset_digest": job.dataset.digest,
        "corpusmill.training_key": job.key,
        "corpusmill.training_run_id": _training_run_id(job) or "",
        "corpusmill.corpus_run_id": _corpus_run_id(place, recipe, job.dataset.digest) or "",
    }
    with tracker.run("evaluation", tags) as tracked:
        tracked.log_params(flatten({"evaluation": canonical(recipe.evaluation)}))
        figures = {name: value for name, value in result.values.items() if isinstance(value, int | float)}
        tracked.log_metrics({f"evaluation/{name}": value for name, value in figures.items()})
        tracked.log_dataset(recipe.name, job.dataset.digest, place.store_url, "evaluation")
        samples = job.folder / "samples.md"
        lines = [f"## {sample['prompt']!r}\n\n{sample['text']}\n" for sample in result.values["samples"]]
        samples.write_text("# Samples\n\n" + "\n".join(lines), encoding="utf-8")
        tracked.log_files(samples)
    key = job.evaluation_key(recipe.evaluation)
    write_result(_evaluation_record(job, key), key, {"run_id": tracked.run_id}, [])


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
    from flows.tracking import open_tracker, tag_runs

    wanted = {
        "corpusmill.manifest.tokenize": [tokens_digest] if tokens_digest else [],
        "corpusmill.training_key": list(training_keys),
    }
    if not any(wanted.values()):
        return []
    client = open_tracker(settings, place, recipe, _flow_run_id()).client
    return tag_runs(client, "corpusmill.takedown", request_ids, wanted)


def _training_record(job: TrainingJob) -> Path:
    return job.folder / "training_run.json"


def _evaluation_record(job: TrainingJob, key: str) -> Path:
    return job.evaluation_path(key).with_suffix(".run.json")


def _training_run_id(job: TrainingJob) -> str | None:
    path = job.folder / _RUN_ID
    return path.read_text().strip() if path.exists() else None


def _corpus_run_id(place: Workspace, recipe: Recipe, dataset_digest: str) -> str | None:
    values = read_result(place.report_folder(recipe.name) / "corpus_run.json", dataset_digest)
    return values["run_id"] if values else None


def _flow_run_id() -> str | None:
    return flow_run.root_flow_run_id or flow_run.id
