"""Prefect tasks over stages and jobs: thin, caching nothing, retried only for what may pass by itself.

Each returns a digest or a key to Prefect and hands its result to the caller beside that: what a stage made is in
the store, and Prefect's result store holds none of it.
"""

import contextvars
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from prefect import task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from flows import takedown
from flows.evaluation.measure import evaluate_job
from flows.evaluation.safety import CorpusFacts
from flows.jobs import JobResult, TrainingJob, train_job
from flows.lists import fetch_lists, held_lists, lists_to_fetch
from flows.recipe import CrawlSource, Recipe
from flows.results import read_result, write_result
from flows.settings import Settings, redactor
from flows.sources import Collected, collect, run_crawl
from flows.watching import console
from flows.watching.run_state import Recorder, recorder
from flows.workspace import Workspace
from llm.reports import OnReport, Report, StepReport, TrainEvent
from pipelines.bias.disparity import AuditConfig
from pipelines.bias.report import BIAS_REPORT_VERSION, DisparityError, bias_facts, broken_bounds
from pipelines.corpus import (
    CorpusConfig,
    Node,
    corpus_nodes,
    last_manifests,
    run_node,
    tokenizer_json,
    tokenizer_resource,
)
from pipelines.crawl import CrawlProgress, CrawlResult, status
from pipelines.crawl.report import crawl_report, crawl_report_markdown
from pipelines.digest import canonical, digest_value
from pipelines.encoding import Encoder
from pipelines.errors import may_pass
from pipelines.executor import Executor
from pipelines.log_lines import telling
from pipelines.materialize import Progress, StageResult
from pipelines.report import Funnel, card_facts, data_card
from pipelines.sources.remote import RemoteFile
from pipelines.store import Manifest, Store, storage_errors
from pipelines.takedown.ledger import Request

if TYPE_CHECKING:
    from llm.torchrun import Torchrun

_logger = logging.getLogger(__name__)

_RETRY_DELAYS_SECONDS = [2.0, 10.0, 60.0]
_ARTIFACT_SECONDS = 5.0
_LAST_ARTIFACT_SECONDS = 2.0
"""That the last one is waited for, so that it is not cut off by the end of the process."""
_DRAW_SECONDS = 0.2

Result = TypeVar("Result")


def run_as_task(name: str, run: Callable[[], tuple[str, Result]]) -> Result:
    """Run a call as one Prefect task; it returns what Prefect may keep, and the result."""
    found: list[Result] = []

    def keep() -> str:
        with telling(stage=name):
            try:
                reference, result = run()
            except Exception as error:
                safe = redactor().error(error)  # Prefect keeps what it says
                if safe is error:
                    raise
                raise safe from None
        found.append(result)
        return reference

    as_task = task(
        name=name,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(_RETRY_DELAYS_SECONDS),
        retry_delay_seconds=_RETRY_DELAYS_SECONDS,
        retry_condition_fn=_is_transient,
    )
    as_task(keep)()
    return found[-1]


def _is_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only what may pass by itself is tried again."""
    return may_pass(state.result(raise_on_failure=False))


class ProgressArtifact:
    """A progress artifact that appears once a stage takes longer than a glance, and is not updated more often.

    It is sent from a thread of its own: a server that is slow or gone costs the work neither time nor an error.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._id: UUID | None = None
        self._shown_at = time.monotonic()
        self._sending: threading.Thread | None = None

    def show(self, share: float, note: str) -> None:
        now = time.monotonic()
        if now - self._shown_at < _ARTIFACT_SECONDS and not (self._id is not None and share >= 1):
            return
        if self._sending is not None and self._sending.is_alive():
            return  # what it sends is old news by then, and the next one is not far
        self._shown_at = now
        run = contextvars.copy_context().run  # by which Prefect knows whose artifact it is
        self._sending = threading.Thread(target=run, args=(self._send, share, note), name="progress", daemon=True)
        self._sending.start()
        if share >= 1:
            self._sending.join(_LAST_ARTIFACT_SECONDS)

    def _send(self, share: float, note: str) -> None:
        note = redactor().text(note)
        try:
            if self._id is None:
                created = create_progress_artifact(progress=100 * share, key=self._key, description=note)
                self._id = created if isinstance(created, UUID) else None
            else:
                update_progress_artifact(self._id, progress=100 * share, description=note)
        except Exception as error:  # noqa: BLE001 - whatever a server does, the work goes on
            _logger.warning("got %s from Prefect for the progress of %s; the work goes on.", error, self._key)


def crawl_source(source: CrawlSource, recipe: Recipe, place: Workspace, report: console.Report) -> CrawlResult:
    """Crawl one source until nothing is left that its limits allow."""
    artifact = ProgressArtifact(slug(recipe.name, f"crawl-{source.name}"))
    label = f"crawl {source.name}"
    record, labels = recorder(), {"recipe": recipe.name, "source": source.name}
    num_before = 0 if record is None else status(place.crawl_folder(f"{recipe.name}-{source.name}"))["num_pages"]

    def show(_name: str, seen: CrawlProgress) -> None:
        if record is not None:
            _record_crawl(record, seen, num_before, labels)
        total = seen.num_fetched + seen.num_queued
        note = console.crawl_note(seen)
        report(label, seen.num_fetched, total, note)
        artifact.show(seen.num_fetched / max(total, 1), note)

    def run() -> tuple[str, CrawlResult]:
        result = run_crawl(source, recipe, place, show)
        report_crawl(source, recipe, place)
        return digest_value(sorted(path.name for path in result.warc_paths)), result

    result = run_as_task(label, run)
    if record is not None:
        record.reach("corpusmill_crawl_pages_total", result.num_pages - num_before, **labels)
        record.reach("corpusmill_crawl_requests_total", result.num_fetched, **labels)
        record.set("corpusmill_crawl_queued_urls", 0 if result.complete else None, **labels)
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(result.outcomes.items()))
    report(label, 1, 1, f"{result.num_fetched:,} fetched now; in all: {outcomes or 'nothing'}")
    return result


def _record_crawl(record: Recorder, seen: CrawlProgress, num_before: int, labels: Mapping[str, str]) -> None:
    record.reach("corpusmill_crawl_requests_total", seen.num_fetched, **labels)
    record.reach("corpusmill_crawl_received_bytes_total", seen.num_bytes, **labels)
    record.reach("corpusmill_crawl_pages_total", seen.num_pages - num_before, **labels)
    record.set("corpusmill_crawl_queued_urls", seen.num_queued, **labels)
    record.set("corpusmill_crawl_pages_per_second", seen.pages_per_second, **labels)
    for kind, count in seen.errors.items():
        record.reach("corpusmill_crawl_errors_total", count, kind=kind, **labels)


def collect_sources(
    recipe: Recipe,
    place: Workspace,
    crawls: Mapping[str, CrawlResult],
    unfinished: Sequence[str],
    report: console.Report,
) -> Collected:
    """The source files of a recipe, after its crawls. Fetching what is not there yet is a task: the network may fail for now."""
    if not set(unfinished) - set(crawls):
        return collect(recipe, place, crawls, report=report)

    def run() -> tuple[str, Collected]:
        found = collect(recipe, place, crawls, report=report)
        return digest_value([file.digest for file in found.files]), found

    return run_as_task("collect", run)


def fetch_needed_lists(recipe: Recipe, place: Workspace, report: console.Report) -> None:
    """Fetch the recipe's lists that are not there, or too old, as a task: the network may fail for now."""
    wanted = lists_to_fetch(recipe, place)
    if not wanted:
        return

    def run() -> tuple[str, list[RemoteFile]]:
        found = fetch_lists(recipe, place, wanted)
        return digest_value([file.digest for file in found]), found

    fetched = run_as_task("lists", run)
    report("lists", len(fetched), len(wanted), f"{sum(file.num_bytes or 0 for file in fetched) / 1e6:,.1f} MB")


def report_crawl(source: CrawlSource, recipe: Recipe, place: Workspace) -> Path:
    """Write what became of a source's crawl, and show it in Prefect's UI if it is not what was written last."""
    facts = crawl_report(place.crawl_folder(f"{recipe.name}-{source.name}"))
    path = crawl_report_path(source, recipe, place)
    facts = redactor().value(facts)
    markdown = crawl_report_markdown(source.name, facts)
    is_new = not path.exists() or path.read_text(encoding="utf-8") != markdown
    _write_text(path.with_suffix(".json"), json.dumps(facts, indent=1, ensure_ascii=False))
    if is_new:
        _write_text(path, markdown)
        show_markdown(slug(recipe.name, "crawl-report", source.name), markdown)
    return path


def crawl_report_path(source: CrawlSource, recipe: Recipe, place: Workspace) -> Path:
    """Where the report of a source's crawl lies; as JSON beside it."""
    return place.report_folder(recipe.name) / f"crawl-{source.name}.md"


def show_markdown(key: str, markdown: str) -> None:
    """Markdown in Prefect's UI, without a secret that it may quote."""
    create_markdown_artifact(key=key, markdown=redactor().text(markdown))


def _write_text(path: Path, text: str) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid4().hex}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def _crawls(recipe: Recipe, place: Workspace) -> list[dict[str, Any]]:
    """The report of each crawl source, without what depends on the time of asking."""
    reports = []
    for source in recipe.sources:
        if isinstance(source, CrawlSource):
            facts = crawl_report(place.crawl_folder(f"{recipe.name}-{source.name}"))
            reports.append({"source": source.name, **{name: part for name, part in facts.items() if name != "now"}})
    return reports


def run_stages(
    recipe: str, store: Store, collected: Collected, config: CorpusConfig, executor: Executor, report: console.Report
) -> dict[str, StageResult]:
    """Every stage of the corpus, each as one task. What the recipe's last build left saves work."""
    results: dict[str, StageResult] = {}
    nodes = corpus_nodes(config)
    last = last_manifests(store, recipe, nodes)
    for node in nodes:
        done = {name: result.manifest for name, result in results.items()}
        results[node.name] = _run_stage(recipe, node, store, collected, config, done, last, executor, report)
    return results


def _run_stage(
    recipe: str,
    node: Node,
    store: Store,
    collected: Collected,
    config: CorpusConfig,
    done: Mapping[str, Manifest],
    last: Mapping[str, Manifest],
    executor: Executor,
    report: console.Report,
) -> StageResult:
    artifact = ProgressArtifact(slug("stage", node.name))
    record, labels = recorder(), {"recipe": recipe, "stage": node.name}

    def show(seen: Progress) -> None:
        if record is not None:
            record.reach("corpusmill_stage_documents_total", seen.num_rows, **labels)
            rate = seen.num_rows / max(seen.seconds, 1e-9)
            record.set("corpusmill_stage_documents_per_second", rate, **labels)
        note = console.rate(seen.num_rows, seen.seconds, "rows") if seen.num_rows else ""
        if not note and seen.num_done == seen.num_shards:
            note = "up to date"
        report(seen.stage, seen.num_done, seen.num_shards, note)
        artifact.show(seen.num_done / max(seen.num_shards, 1), note)

    def run() -> tuple[str, StageResult]:
        result = run_node(node, config, collected.files, done, store, executor, show, last)
        return result.manifest.digest, result

    result = run_as_task(node.name, run)
    if record is not None:
        for name, count in (("computed", result.num_computed), ("reused", result.num_reused)):
            record.add("corpusmill_stage_shards_total", count, result=name, **labels)
        record.add("corpusmill_stage_seconds_total", result.seconds, **labels)
        record.set("corpusmill_stage_documents_per_second", 0.0, **labels)
    return result


def train_model(
    job: TrainingJob, recipe: Recipe, store: Store, report: console.Report, torchrun: "Torchrun | None" = None
) -> JobResult:
    """Train to the end, or go on where an earlier run stopped."""
    # What torchrun's processes say is in the log already.
    show = _training_progress(job, recipe, report if torchrun is None else lambda *_: None)

    def run() -> tuple[str, JobResult]:
        return job.key, train_job(job, recipe, store, show, torchrun)

    result = run_as_task("train", run)
    steps = result.values["steps"]
    note = "up to date" if result.is_reused else f"validation loss {result.values['final_val_loss']:.3f}"
    report("train", steps, steps, note)
    return result


def _training_progress(job: TrainingJob, recipe: Recipe, report: console.Report) -> OnReport:
    """Shows how far a training is. Reports may come in groups, and more often than anyone can read: few are drawn."""
    num_steps = job.training.max_steps
    artifact = ProgressArtifact(slug(recipe.name, "train"))
    shown_at = -math.inf
    val_loss: float | None = None
    measured = _training_record(recorder(), recipe.name)

    def show(seen: Report) -> None:
        nonlocal shown_at, val_loss
        measured(seen)
        if not isinstance(seen, StepReport):
            if seen.kind in ("step_skipped", "rolled_back"):
                _logger.warning("train: step %d: %s", seen.step, seen.message)
            return
        val_loss = val_loss if seen.val_loss is None else seen.val_loss
        now = time.monotonic()
        if now - shown_at < _DRAW_SECONDS and seen.step != num_steps:
            return
        shown_at = now
        note = console.training_note(seen, val_loss)
        report("train", seen.step, num_steps, note)
        if num_steps:
            artifact.show(seen.step / num_steps, note)

    return show


def _training_record(record: Recorder | None, recipe: str) -> OnReport:
    """Tells monitors of a training. An update that is done again after a rollback counts again."""
    num_tokens, num_in_update = 0, 0

    def tell(seen: Report) -> None:
        nonlocal num_tokens, num_in_update
        if record is None:
            return
        if isinstance(seen, TrainEvent):
            record.add("corpusmill_training_events_total", 1, recipe=recipe, kind=seen.kind)
            return
        if seen.loss is not None:
            grown = seen.num_tokens - num_tokens
            num_in_update = grown if 0 < grown < seen.num_tokens or seen.step <= 1 else num_in_update
            record.add("corpusmill_training_steps_total", 1, recipe=recipe)
            record.add("corpusmill_training_tokens_total", num_in_update, recipe=recipe)
        num_tokens = seen.num_tokens
        record.set("corpusmill_training_loss_nats", seen.loss, recipe=recipe)
        record.set("corpusmill_training_validation_loss_nats", seen.val_loss, recipe=recipe)
        record.set("corpusmill_training_tokens_per_second", seen.tokens_per_second, recipe=recipe)

    return tell


def evaluate_model(
    job: TrainingJob,
    recipe: Recipe,
    store: Store,
    facts: CorpusFacts,
    report: console.Report,
) -> JobResult:
    """Measure a trained model."""

    def run() -> tuple[str, JobResult]:
        return job.key, evaluate_job(job, recipe.evaluation_plan(), store, facts, show)

    def show(part: str, done: int, total: int) -> None:
        report("evaluate", done, total + 1, part)

    show("held-out text", 0, 1)
    result = run_as_task("evaluate", run)
    for flag in result.values["flags"]:
        _logger.warning("evaluate: %s", flag)
    report("evaluate", 1, 1, f"held-out loss {result.values['loss']:.3f}")
    return result


def write_report(
    recipe: Recipe,
    place: Workspace,
    store: Store,
    collected: Collected,
    config: CorpusConfig,
    done: Mapping[str, Manifest],
    audit: AuditConfig | None,
) -> JobResult:
    """Write the data card, if what it states changed; `audit` bounds what filters may do to groups, None audits nothing.

    Raises DisparityError, after the card is written, where the bound is broken and the recipe wants that to fail.
    """
    started = time.monotonic()
    folder = place.report_folder(recipe.name)
    collection = collected.facts(recipe) | {
        f"list {each.file.url}": f"{each.field}, fetched {each.file.fetched_at}, sha256 {each.file.digest}"
        for each in held_lists(recipe, place)
    }
    collection = redactor().value(collection)
    manifests = {name: manifest.digest for name, manifest in done.items()}
    crawls = _crawls(recipe, place)
    key = digest_value(
        {
            "recipe": recipe.name,
            "stages": manifests,
            "config": config,
            "collection": collection,
            "crawls": crawls,
            "bias": [BIAS_REPORT_VERSION, audit],
        }
    )
    path = folder / "data_card.json"
    known = read_result(path, key)

    def run() -> tuple[str, dict[str, Any]]:
        if known is not None:
            return key, known
        vocab_size = Encoder.load(tokenizer_json(tokenizer_resource(config, done, store))).vocab_size
        facts = card_facts(
            store,
            done,
            collection=collection,
            config_json=json.dumps(canonical(config), indent=1, ensure_ascii=False),
            vocab_size=vocab_size,
            crawls=crawls,
            bias=None if audit is None else bias_facts(store, done, config, audit),
        )
        card = folder / "data_card.md"
        folder.mkdir(parents=True, exist_ok=True)
        card.write_text(data_card(recipe.name, facts), encoding="utf-8")
        write_result(path, key, facts, [card])
        show_markdown(slug(recipe.name, "data-card"), card.read_text(encoding="utf-8"))
        return key, facts

    facts = run_as_task("report", run)
    if audit is not None and audit.on_disparity == "fail" and (broken := broken_bounds(facts["bias"])):
        raise DisparityError(
            f"got {len(broken)} breaches of the bounds of bias (max_disparity_ratio {audit.max_disparity_ratio:g}; "
            f"first: {broken[0]}), "
            f"wanted none: see {folder / 'data_card.md'}, then change the rule or the bound."
        )
    return JobResult(values=facts, is_reused=known is not None, seconds=time.monotonic() - started)


def certify_takedowns(
    settings: Settings,
    place: Workspace,
    store: Store,
    recipe: Recipe,
    config: CorpusConfig,
    done: Mapping[str, Manifest],
    requests: Sequence[Request],
    collected: Collected,
) -> list[dict[str, Any]]:
    """Write the certificates of take-downs that took effect with this build, and show them in Prefect's UI."""
    if not requests:
        return []
    files = {item.unit: item.path for item in collected.files}

    def run() -> tuple[str, list[dict[str, Any]]]:
        found = takedown.certify(settings, place, store, recipe, config, done, requests, files.get)
        for each in found:
            markdown = Path(each["certificate"]).with_suffix(".md").read_text(encoding="utf-8")
            show_markdown(slug("takedown", each["id"], recipe.name), markdown)
        return digest_value([each["id"] for each in found]), found

    return run_as_task("takedown", run)


def show_funnel(recipe: Recipe, counted: Funnel) -> None:
    """The funnel as a table in Prefect's UI."""
    create_table_artifact(
        key=slug(recipe.name, "funnel"),
        table=[{"step": label, "documents": count} for label, count in counted.rows()],
        description=f"Pages in, dropped and kept: {recipe.name}",
    )


def slug(*parts: str) -> str:
    """A key that Prefect takes for an artifact: lower-case letters, digits and dashes."""
    return "-".join(
        "".join(char if char.isascii() and char.isalnum() else "-" for char in part.lower()) for part in parts
    )
