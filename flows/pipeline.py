"""The Prefect flows: crawl, build_corpus, train, evaluate, and pipeline, which runs them in turn.

A flow is thin. It reads the recipe, holds the workspace, and runs each stage as one Prefect task
that caches nothing and returns a manifest digest: the store decides what must run. Parameters are
plain texts and numbers, so that a deployment's form in Prefect's UI shows them.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.tasks import Task

from flows import console
from flows.inspection import last_build
from flows.jobs import Dataset, JobResult, TrainingJob, evaluate_job, train_job
from flows.recipe import CrawlSource, Recipe, load_recipe
from flows.results import read_result, write_result
from flows.settings import Settings, read_settings
from flows.sources import Collected, collect, known_crawls, run_crawl
from flows.workspace import Workspace, writing
from pipelines.corpus import CorpusConfig, corpus_nodes, run_node, tokenizer_resource
from pipelines.crawl import CrawlProgress, CrawlResult
from pipelines.digest import canonical, digest_value
from pipelines.errors import EmptyCorpusError, TransientError
from pipelines.executor import Executor, open_executor
from pipelines.materialize import Progress, StageResult
from pipelines.report import card_facts, data_card, funnel
from pipelines.store import Manifest, Store

Until = Literal["build", "train", "evaluate"]
Summary = dict[str, Any]

_RETRY_DELAYS_SECONDS = [2.0, 10.0, 60.0]
_ARTIFACT_SECONDS = 5.0


@flow(name="pipeline", flow_run_name="pipeline", persist_result=False, validate_parameters=False)
def pipeline(
    recipe: str | None = None, workspace: str | None = None, workers: int | None = None, until: Until = "evaluate"
) -> Summary:
    """Crawl, build, train and evaluate a recipe, each only as far as something changed."""
    parts = [crawl(recipe, workspace), build_corpus(recipe, workspace, workers)]
    if until in ("train", "evaluate"):
        parts.append(train(recipe, workspace))
    if until == "evaluate":
        parts.append(evaluate(recipe, workspace))
    summary: Summary = {}
    for part in parts:
        stages = [*summary.get("stages", []), *part.get("stages", [])]
        summary |= part | {"stages": stages}
    return summary


@flow(name="crawl", flow_run_name="crawl", persist_result=False, validate_parameters=False)
def crawl(recipe: str | None = None, workspace: str | None = None) -> Summary:
    """Fetch what a recipe's crawl sources still lack."""
    settings, place, wanted = _open(recipe, workspace)
    stages: list[dict[str, Any]] = []
    outcomes: dict[str, dict[str, int]] = {}
    with writing(place), console.progress() as report:
        for source in wanted.sources:
            if not isinstance(source, CrawlSource):
                continue
            before = set(known_crawls(wanted, place)[0][source.name].warc_paths)
            started = time.monotonic()
            result = _crawl_task(source, wanted, place, report)
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
                    "complete": result.complete,
                    "seconds": round(time.monotonic() - started, 3),
                }
            )
    return _head(settings, wanted) | {"stages": stages} | ({"crawl": outcomes} if outcomes else {})


@flow(name="build_corpus", flow_run_name="build_corpus", persist_result=False, validate_parameters=False)
def build_corpus(recipe: str | None = None, workspace: str | None = None, workers: int | None = None) -> Summary:
    """Turn the pages at hand into token shards and a data card."""
    settings, place, wanted = _open(recipe, workspace, workers)
    with writing(place) as store, console.progress() as report, open_executor(settings.num_workers) as executor:
        crawls, _unfinished = known_crawls(wanted, place)
        collected = collect(wanted, place, crawls)
        config = wanted.corpus_config(store)
        results = _run_stages(store, collected, config, executor, report)
        done = {name: result.manifest for name, result in results.items()}
        for manifest in done.values():
            store.set_ref(wanted.name, manifest)
        card = _report_task(wanted, place, store, collected, config, done)
        stages = [_stage_line(name, result) for name, result in results.items()] + [card]
        counted = funnel(done)
        if not counted.num_tokens:
            raise EmptyCorpusError("got no tokens from the kept documents, wanted some: loosen the recipe's rules.")
        create_table_artifact(
            key=_slug(wanted.name, "funnel"),
            table=[{"step": label, "documents": count} for label, count in counted.rows()],
            description=f"Pages in, dropped and kept: {wanted.name}",
        )
        summary = _head(settings, wanted) | {
            "documents": {"in": counted.num_in, "kept": counted.num_kept, "dropped": dict(counted.dropped)},
            "tokens": counted.num_tokens,
            "text_bytes": counted.num_text_bytes,
            "languages": _languages(done),
            "dataset_digest": Dataset.of(done["tokenize"], tokenizer_resource(config, done, store)).digest,
            "stages": stages,
        }
        if any(stage["computed"] for stage in stages):
            _track_corpus(settings, place, wanted, done, summary)
    return summary


@flow(name="train", flow_run_name="train", persist_result=False, validate_parameters=False)
def train(recipe: str | None = None, workspace: str | None = None) -> Summary:
    """Train the model on the newest build, or go on where an earlier run stopped."""
    settings, place, wanted = _open(recipe, workspace)
    with writing(place) as store, console.progress() as report:
        job = training_job(wanted, place, store)
        result = _train_task(settings, place, wanted, store, job, report)
    values = {name: value for name, value in result.values.items() if name != "token_shards"}
    return _head(settings, wanted) | {"training": values, "stages": [_job_line("train", result)]}


@flow(name="evaluate", flow_run_name="evaluate", persist_result=False, validate_parameters=False)
def evaluate(recipe: str | None = None, workspace: str | None = None) -> Summary:
    """Measure the trained model on held-out text, and let it write."""
    settings, place, wanted = _open(recipe, workspace)
    with writing(place) as store, console.progress() as report:
        job = training_job(wanted, place, store)
        report("evaluate", 0, 1, "")
        found: list[JobResult] = []

        def run() -> str:
            found.append(evaluate_job(job, wanted.evaluation, store))
            return job.key

        _as_task("evaluate", run)()
        result = found[-1]
        report("evaluate", 1, 1, f"held-out loss {result.values['loss']:.3f}")
        if not result.is_reused:
            _track_evaluation(settings, place, wanted, job, result)
    return _head(settings, wanted) | {"evaluation": dict(result.values), "stages": [_job_line("evaluate", result)]}


def training_job(recipe: Recipe, workspace: Workspace, store: Store) -> TrainingJob:
    """The training that a recipe asks for on its newest build. Raises ConfigError where there is none."""
    config = recipe.corpus_config(store)
    done = last_build(recipe, store, config)
    return TrainingJob.of(recipe, Dataset.of(done["tokenize"], tokenizer_resource(config, done, store)), workspace)


def _open(recipe: str | None, workspace: str | None, workers: int | None = None) -> tuple[Settings, Workspace, Recipe]:
    settings = read_settings(Path(workspace) if workspace else None, workers)
    return settings, Workspace(settings.workspace), load_recipe(Path(recipe) if recipe else None)


def _head(settings: Settings, recipe: Recipe) -> Summary:
    return {"recipe": recipe.name, "workspace": str(settings.workspace)}


def _is_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only what may pass by itself is tried again."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def _as_task(name: str, run: Callable[[], str]) -> Task[[], str]:
    return task(
        run,
        name=name,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(_RETRY_DELAYS_SECONDS),
        retry_delay_seconds=_RETRY_DELAYS_SECONDS,
        retry_condition_fn=_is_transient,
    )


class _ProgressArtifact:
    """A progress artifact that appears once a stage takes longer than a glance, and is not updated more often."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._id: UUID | None = None
        self._shown_at = time.monotonic()

    def show(self, share: float, note: str) -> None:
        now = time.monotonic()
        if now - self._shown_at < _ARTIFACT_SECONDS and not (self._id is not None and share >= 1):
            return
        self._shown_at = now
        if self._id is None:
            created = create_progress_artifact(progress=100 * share, key=self._key, description=note)
            self._id = created if isinstance(created, UUID) else None
        else:
            update_progress_artifact(self._id, progress=100 * share, description=note)


def _crawl_task(source: CrawlSource, recipe: Recipe, place: Workspace, report: console.Report) -> CrawlResult:
    found: list[CrawlResult] = []
    artifact = _ProgressArtifact(_slug(recipe.name, f"crawl-{source.name}"))
    label = f"crawl {source.name}"

    def show(_name: str, seen: CrawlProgress) -> None:
        total = seen.num_fetched + seen.num_queued
        note = f"{seen.num_pages:,} pages, {seen.num_hosts} hosts, {seen.pages_per_second:,.0f} pages/s, {seen.num_errors} errors"
        report(label, seen.num_fetched, total, note)
        artifact.show(seen.num_fetched / max(total, 1), note)

    def run() -> str:
        found.append(run_crawl(source, recipe, place, show))
        return digest_value(sorted(path.name for path in found[-1].warc_paths))

    _as_task(label, run)()
    result = found[-1]
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(result.outcomes.items()))
    report(label, 1, 1, f"{result.num_fetched:,} fetched now; in all: {outcomes or 'nothing'}")
    return result


def _run_stages(
    store: Store, collected: Collected, config: CorpusConfig, executor: Executor, report: console.Report
) -> dict[str, StageResult]:
    results: dict[str, StageResult] = {}
    for node in corpus_nodes(config):
        done = {name: result.manifest for name, result in results.items()}
        artifact = _ProgressArtifact(_slug("stage", node.name))

        def show(seen: Progress, artifact: _ProgressArtifact = artifact) -> None:
            note = console.rate(seen.num_rows, seen.seconds, "rows") if seen.num_rows else "up to date"
            report(seen.stage, seen.num_done, seen.num_shards, note)
            artifact.show(seen.num_done / max(seen.num_shards, 1), note)

        def run(node: Any = node, done: Mapping[str, Manifest] = done, show: Any = show) -> str:
            results[node.name] = run_node(node, config, collected.files, done, store, executor, show)
            return results[node.name].manifest.digest

        _as_task(node.name, lambda run=run: run())()  # type: ignore[misc]
    return results


def _train_task(
    settings: Settings, place: Workspace, recipe: Recipe, store: Store, job: TrainingJob, report: console.Report
) -> JobResult:
    found: list[JobResult] = []
    artifact = _ProgressArtifact(_slug(recipe.name, "train"))
    if job.finished() is not None:
        _as_task("train", lambda: found.append(train_job(job, recipe, store, lambda _report: None)) or job.key)()
        report("train", 1, 1, "up to date")
        return found[-1]
    from flows.tracking import flatten, open_tracker

    tracker = open_tracker(settings, place, recipe.name, _flow_run_id())
    run_path = job.folder / "mlflow_run_id"
    earlier = run_path.read_text().strip() if run_path.exists() else None
    tags = {
        "corpusmill.dataset_digest": job.dataset.digest,
        "corpusmill.training_key": job.key,
        "corpusmill.corpus_run_id": _corpus_run_id(place, recipe, job.dataset.digest) or "",
        "corpusmill.model_folder": job.folder.name,
    }
    with tracker.run("training", tags, run_id=earlier) as tracked:
        job.folder.mkdir(parents=True, exist_ok=True)
        run_path.write_text(tracked.run_id)
        tracked.log_params(flatten({"model": canonical(job.model), "training": canonical(job.training)}))
        tracked.log_dataset(recipe.name, job.dataset.digest, str(store.root), "training")
        num_steps: int | None = job.training.max_steps

        def on_step(seen: Any) -> None:
            measured = {
                "train/loss": seen.loss,
                "train/learning_rate": seen.learning_rate,
                "train/grad_norm": seen.grad_norm,
                "train/tokens_per_second": seen.tokens_per_second,
                "validation/loss": seen.val_loss,
            }
            tracked.log_metrics({name: value for name, value in measured.items() if value is not None}, seen.step)
            loss = seen.loss if seen.loss is not None else seen.val_loss
            speed = f", {seen.tokens_per_second:,.0f} tokens/s" if seen.tokens_per_second else ""
            note = f"loss {loss:.3f}{speed}" if loss is not None else ""
            report("train", seen.step, num_steps, note)
            if num_steps:
                artifact.show(seen.step / num_steps, note)

        def run() -> str:
            found.append(train_job(job, recipe, store, on_step))
            return job.key

        _as_task("train", run)()
        result = found[-1]
        tracked.log_metrics(
            {f"final/{name}": result.values[name] for name in ("first_val_loss", "final_val_loss", "final_train_loss")},
            result.values["steps"],
        )
        tracked.set_tags({"corpusmill.parameters_digest": result.values["parameters_digest"]})
    report(
        "train",
        result.values["steps"],
        result.values["steps"],
        f"validation loss {result.values['final_val_loss']:.3f}",
    )
    return result


def _report_task(
    recipe: Recipe,
    place: Workspace,
    store: Store,
    collected: Collected,
    config: CorpusConfig,
    done: Mapping[str, Manifest],
) -> dict[str, Any]:
    """Write the data card, if what it states changed; returns its line among the stages."""
    started = time.monotonic()
    folder = place.report_folder(recipe.name)
    facts_in = {"recipe": recipe.name, "stages": {name: manifest.digest for name, manifest in done.items()}}
    key = digest_value(facts_in | {"config": config, "collection": collected.facts(recipe)})
    path = folder / "data_card.json"
    is_reused = read_result(path, key) is not None

    def run() -> str:
        if not is_reused:
            from pipelines.corpus import tokenizer_json
            from pipelines.encoding import Encoder

            encoder = Encoder.load(tokenizer_json(tokenizer_resource(config, done, store)))
            facts = card_facts(
                store,
                done,
                collection=collected.facts(recipe),
                config_json=json.dumps(canonical(config), indent=1, ensure_ascii=False),
                vocab_size=encoder.vocab_size,
            )
            card = folder / "data_card.md"
            folder.mkdir(parents=True, exist_ok=True)
            card.write_text(data_card(recipe.name, facts), encoding="utf-8")
            write_result(path, key, facts, [card])
            create_markdown_artifact(key=_slug(recipe.name, "data-card"), markdown=card.read_text(encoding="utf-8"))
        return key

    _as_task("report", run)()
    computed = 0 if is_reused else 1
    return {
        "name": "report",
        "shards": 1,
        "computed": computed,
        "reused": 1 - computed,
        "seconds": round(time.monotonic() - started, 3),
    }


def _track_corpus(
    settings: Settings, place: Workspace, recipe: Recipe, done: Mapping[str, Manifest], summary: Summary
) -> None:
    """An MLflow run for a corpus: parameters, the funnel as metrics, the dataset, the data card."""
    from flows.tracking import flatten, open_tracker

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
        tracked.log_dataset(recipe.name, summary["dataset_digest"], str(place.store_folder), "corpus")
        folder = place.report_folder(recipe.name)
        tracked.log_files(folder / "data_card.md", folder / "data_card.json")
        write_result(folder / "corpus_run.json", summary["dataset_digest"], {"run_id": tracked.run_id}, [])


def _track_evaluation(
    settings: Settings, place: Workspace, recipe: Recipe, job: TrainingJob, result: JobResult
) -> None:
    """An MLflow run for an evaluation: its figures, and the samples as an artifact."""
    from flows.tracking import open_tracker

    tracker = open_tracker(settings, place, recipe.name, _flow_run_id())
    run_path = job.folder / "mlflow_run_id"
    tags = {
        "corpusmill.dataset_digest": job.dataset.digest,
        "corpusmill.training_key": job.key,
        "corpusmill.training_run_id": run_path.read_text().strip() if run_path.exists() else "",
        "corpusmill.corpus_run_id": _corpus_run_id(place, recipe, job.dataset.digest) or "",
    }
    with tracker.run("evaluation", tags) as tracked:
        figures = {name: value for name, value in result.values.items() if isinstance(value, int | float)}
        tracked.log_metrics({f"evaluation/{name}": value for name, value in figures.items()})
        tracked.log_dataset(recipe.name, job.dataset.digest, str(place.store_folder), "evaluation")
        samples = job.folder / "samples.md"
        lines = [f"## {sample['prompt']!r}\n\n{sample['text']}\n" for sample in result.values["samples"]]
        samples.write_text("# Samples\n\n" + "\n".join(lines), encoding="utf-8")
        tracked.log_files(samples)


def _corpus_run_id(place: Workspace, recipe: Recipe, dataset_digest: str) -> str | None:
    values = read_result(place.report_folder(recipe.name) / "corpus_run.json", dataset_digest)
    return values["run_id"] if values else None


def _flow_run_id() -> str | None:
    return flow_run.root_flow_run_id or flow_run.id


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


def _slug(*parts: str) -> str:
    """A key that Prefect takes for an artifact: lower-case letters, digits and dashes."""
    return "-".join(
        "".join(char if char.isascii() and char.isalnum() else "-" for char in part.lower()) for part in parts
    )
