"""The Prefect flows: crawl, build_corpus, train, evaluate, and pipeline, which runs them in turn.

A flow is thin. It reads the recipe, holds the workspace, and runs each stage as one Prefect task
that caches nothing and returns a manifest digest: the store decides what must run. Parameters are
plain texts and numbers, so that a deployment's form in Prefect's UI shows them.
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow
from prefect.runtime import flow_run

from flows import takedown, tasks
from flows.executors import executor_of
from flows.inspection import corpus_facts, last_build, urls_of
from flows.jobs import Dataset, JobResult, TrainingJob
from flows.recipe import CrawlSource, Recipe, load_recipe
from flows.settings import Settings, TaskRunner, read_settings
from flows.sources import known_crawls
from flows.tracker import runs
from flows.watching import console
from flows.watching.logs import log_from_flow
from flows.watching.run_state import Recorder, recorded
from flows.workspace import Workspace, writing
from pipelines.bias.report import bias_summary
from pipelines.corpus import tokenizer_resource
from pipelines.errors import EmptyCorpusError
from pipelines.materialize import StageResult
from pipelines.report import Funnel, funnel
from pipelines.store import Manifest, Store

if TYPE_CHECKING:
    from llm.torchrun import Torchrun

Until = Literal["build", "train", "evaluate"]
Summary = dict[str, Any]


def _run_name() -> str:
    """What a flow run is called in Prefect's UI: the flow and its recipe."""
    recipe = flow_run.parameters.get("recipe")
    return f"{flow_run.flow_name} {Path(recipe).stem if recipe else 'demo'}"


@flow(name="pipeline", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
def pipeline(
    recipe: str | None = None,
    workspace: str | None = None,
    workers: int | None = None,
    until: Until = "evaluate",
    task_runner: TaskRunner | None = None,
) -> Summary:
    """Crawl, build, train and evaluate a recipe, each only as far as something changed."""
    settings, place, wanted = _open(recipe, workspace, workers, task_runner)
    verb = {"build": "build", "train": "train", "evaluate": "run"}[until]
    with (
        writing(place),  # between two flows, too, nobody else's
        _recorded(place, "pipeline", wanted, recipe, verb),
        runs.execution(settings, place, wanted),
    ):
        with console.progress() as report:
            tasks.fetch_needed_lists(wanted, place, report)  # before a crawl that may take a day
        parts = [crawl(recipe, workspace), build_corpus(recipe, workspace, workers, task_runner)]
        if until in ("train", "evaluate"):
            parts.append(train(recipe, workspace))
        if until == "evaluate":
            parts.append(evaluate(recipe, workspace))
    summary: Summary = {}
    for part in parts:
        stages = [*summary.get("stages", []), *part.get("stages", [])]
        summary |= part | {"stages": stages}
    return summary


@flow(name="crawl", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
def crawl(recipe: str | None = None, workspace: str | None = None) -> Summary:
    """Fetch what a recipe's crawl sources still lack."""
    settings, place, wanted = _open(recipe, workspace)
    stages: list[dict[str, Any]] = []
    outcomes: dict[str, dict[str, int]] = {}
    with writing(place), _recorded(place, "crawl", wanted, recipe), console.progress() as report:
        for source in wanted.sources:
            if not isinstance(source, CrawlSource):
                continue
            before = set(known_crawls(wanted, place)[0][source.name].warc_paths)
            started = time.monotonic()
            result = tasks.crawl_source(source, wanted, place, report)
            outcomes[source.name] = dict(result.outcomes)
            num_new = len(set(result.warc_paths) - before)
            stages.append(
                {
                    "name": "crawl",
                    "source": source.name,
                    "shards": len(result.warc_paths),
                    "computed": num_new,
                    "reused": len(result.warc_paths) - num_new,
                    "fetched": result.num_fetched,
                    "changed": result.num_changed,
                    "unchanged": result.num_unchanged,
                    "withdrawn": result.num_withdrawn,
                    "complete": result.complete,
                    "report": str(tasks.crawl_report_path(source, wanted, place)),
                    "seconds": round(time.monotonic() - started, 3),
                }
            )
    return _head(settings, wanted) | {"stages": stages} | ({"crawl": outcomes} if outcomes else {})


@flow(name="build_corpus", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
def build_corpus(
    recipe: str | None = None,
    workspace: str | None = None,
    workers: int | None = None,
    task_runner: TaskRunner | None = None,
) -> Summary:
    """Turn the pages at hand into token shards and a data card."""
    settings, place, wanted = _open(recipe, workspace, workers, task_runner)
    with (
        writing(place) as store,
        _recorded(place, "build_corpus", wanted, recipe) as record,
        console.progress() as report,
        executor_of(settings) as executor,
    ):
        crawls, unfinished = known_crawls(wanted, place)
        collected = tasks.collect_sources(wanted, place, crawls, unfinished, report)
        tasks.fetch_needed_lists(wanted, place, report)
        config = wanted.corpus_config(store)
        requests = takedown.new_requests(place, store, wanted, config)
        try:
            results = tasks.run_stages(wanted.name, store, collected, config, executor, report)
        except EmptyCorpusError:
            if requests:  # the build before holds what was taken down: it is a build no longer, and gc removes it
                for name in _stages_of(store, wanted):
                    store.remove_ref(wanted.name, name)
            raise
        done = {name: result.manifest for name, result in results.items()}
        for manifest in done.values():
            store.set_ref(wanted.name, manifest)
        for name in _stages_of(store, wanted) - done.keys():
            store.remove_ref(
                wanted.name, name
            )  # of a stage that the recipe has no longer: nothing brings it up to date
        card = tasks.write_report(wanted, place, store, collected, config, done, wanted.audit)
        stages = [_stage_line(name, result) for name, result in results.items()]
        stages.append(_job_line("report", card))
        counted = funnel(done)
        if not counted.num_tokens:
            raise EmptyCorpusError("got no tokens from the kept documents, wanted some: loosen the recipe's rules.")
        tasks.show_funnel(wanted, counted)
        _record_corpus(record, wanted.name, counted, results)
        summary = (
            _head(settings, wanted)
            | {
                "documents": {"in": counted.num_in, "kept": counted.num_kept, "dropped": dict(counted.dropped)},
                "tokens": counted.num_tokens,
                "text_bytes": counted.num_text_bytes,
                "languages": _languages(done),
                "dataset_digest": Dataset.of(done, tokenizer_resource(config, done, store)).digest,
                "stages": stages,
            }
            | ({"bias": bias_summary(card.values["bias"])} if card.values.get("bias") else {})
        )
        # A crawl that found nothing new changes the card's figures on the crawl, and no corpus.
        is_new = any(stage["computed"] for stage in stages if stage["name"] != "report")
        if is_new or not runs.is_corpus_recorded(place, wanted, summary["dataset_digest"]):
            runs.record_corpus(settings, place, wanted, store, config, done, summary)
        certified = tasks.certify_takedowns(settings, place, store, wanted, config, done, requests, collected)
    return summary | ({"takedowns": certified} if certified else {})


@flow(name="train", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
def train(recipe: str | None = None, workspace: str | None = None) -> Summary:
    """Train the model on the newest build, or go on where an earlier run stopped."""
    settings, place, wanted = _open(recipe, workspace)
    return run_training(settings, place, wanted, recipe)


def run_training(
    settings: Settings,
    place: Workspace,
    wanted: Recipe,
    recipe_path: str | None,
    torchrun: "Torchrun | None" = None,
) -> Summary:
    """What the flow `train` does, under torchrun where that is given."""
    with writing(place) as store, _recorded(place, "train", wanted, recipe_path), console.progress() as report:
        job = training_job(wanted, place, store)
        if job.finished() is not None and runs.is_training_recorded(job):
            result = tasks.train_model(job, wanted, store, report)
            runs.end_killed_trainings(settings, place, wanted)
        else:
            with runs.recorded_training(settings, place, wanted, job, partial(urls_of, wanted, store)) as on_end:
                result = tasks.train_model(job, wanted, store, report, torchrun)
                on_end(result)
    values = {name: value for name, value in result.values.items() if name != "token_shards"}
    return _head(settings, wanted) | {"training": values, "stages": [_job_line("train", result)]}


@flow(name="evaluate", flow_run_name=_run_name, persist_result=False, validate_parameters=False)
def evaluate(recipe: str | None = None, workspace: str | None = None) -> Summary:
    """Measure the trained model on held-out text, and let it write."""
    settings, place, wanted = _open(recipe, workspace)
    with writing(place) as store, _recorded(place, "evaluate", wanted, recipe), console.progress() as report:
        job = training_job(wanted, place, store)
        result = tasks.evaluate_model(job, wanted, store, corpus_facts(wanted, store), report)
        if not result.is_reused or not runs.is_evaluation_recorded(job, wanted):
            if not runs.is_training_recorded(job):  # a tracker that was down may be up again
                runs.record_training(settings, place, wanted, job, partial(urls_of, wanted, store))
            runs.record_evaluation(settings, place, wanted, job, result, partial(urls_of, wanted, store))
        registration = None if wanted.registry is None else runs.register_model(settings, place, wanted, job, store)
    summary = _head(settings, wanted) | {"evaluation": dict(result.values), "stages": [_job_line("evaluate", result)]}
    return summary | ({"registration": registration} if registration is not None else {})


def training_job(recipe: Recipe, workspace: Workspace, store: Store) -> TrainingJob:
    """The training that a recipe asks for on its newest build. Raises ConfigError where there is none."""
    config = recipe.corpus_config(store)
    done = last_build(recipe, store, config)
    return TrainingJob.of(recipe, Dataset.of(done, tokenizer_resource(config, done, store)), workspace)


def _open(
    recipe: str | None, workspace: str | None, workers: int | None = None, task_runner: TaskRunner | None = None
) -> tuple[Settings, Workspace, Recipe]:
    log_from_flow()
    settings = read_settings(Path(workspace) if workspace else None, workers, task_runner)
    return settings, Workspace.of(settings), load_recipe(Path(recipe) if recipe else None)


def _recorded(
    place: Workspace, flow: str, recipe: Recipe, path: str | None, verb: str | None = None
) -> AbstractContextManager[Recorder]:
    return recorded(place, flow, recipe.name, recipe_path=path, flow_run_id=flow_run.id, verb=verb)


def _record_corpus(record: Recorder, recipe: str, counted: Funnel, results: Mapping[str, StageResult]) -> None:
    """What the newest build is, for monitors."""
    share = counted.num_kept / max(counted.num_in, 1)
    before = record.get("corpusmill_corpus_kept_ratio", recipe=recipe)
    if before is not None and before != share:
        record.set("corpusmill_corpus_kept_ratio_before", before, recipe=recipe)
    record.set("corpusmill_corpus_kept_ratio", share, recipe=recipe)
    record.set("corpusmill_corpus_documents", counted.num_in, recipe=recipe, outcome="in")
    record.set("corpusmill_corpus_documents", counted.num_kept, recipe=recipe, outcome="kept")
    record.replace("corpusmill_corpus_dropped_documents", counted.dropped, "reason", recipe=recipe)
    record.set("corpusmill_corpus_tokens", counted.num_tokens, recipe=recipe)
    if results["tokenize"].num_computed:
        seconds = sum(result.seconds for result in results.values())
        record.set("corpusmill_build_tokens_per_second", counted.num_tokens / max(seconds, 1e-9), recipe=recipe)


def _head(settings: Settings, recipe: Recipe) -> Summary:
    return {"recipe": recipe.name, "workspace": str(settings.workspace)}


def _stages_of(store: Store, recipe: Recipe) -> set[str]:
    """The stages of which the store has a newest build of a recipe."""
    return {stage for name, stage in store.refs() if name == recipe.name}


def _languages(done: Mapping[str, Manifest]) -> dict[str, int]:
    counts = done["signals"].counts()
    return {name.removeprefix("language:"): count for name, count in counts.items() if name.startswith("language:")}


def _stage_line(name: str, result: StageResult) -> dict[str, Any]:
    return {
        "name": name,
        "shards": result.num_computed + result.num_reused,
        "computed": result.num_computed,
        "reused": result.num_reused,
        "seconds": round(result.seconds, 3),
    }


def _job_line(name: str, result: JobResult) -> dict[str, Any]:
    computed = 0 if result.is_reused else 1
    return {
        "name": name,
        "shards": 1,
        "computed": computed,
        "reused": 1 - computed,
        "seconds": round(result.seconds, 3),
    }
