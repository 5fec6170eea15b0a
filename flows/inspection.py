"""The commands that look and do not run: plan, explain, trace, lineage, export, sample, report, crawl status, verify, doctor.

None of them needs Prefect or MLflow, and none makes a workspace where there is none.
"""

import importlib.metadata
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from flows import lineage, takedown
from flows.evaluation.safety import CorpusFacts
from flows.jobs import Dataset, TrainingJob, known_trainings
from flows.recipe import CrawlSource, Recipe, load_recipe
from flows.review import write_page
from flows.settings import num_cores, read_settings
from flows.sources import collect, known_crawls
from flows.workspace import Workspace, writing
from pipelines.corpus import CorpusConfig, corpus_nodes, read_aligned, tokenizer_resource, toxicity_config
from pipelines.crawl import lookup
from pipelines.crawl.report import crawl_report
from pipelines.digest import digest_file
from pipelines.errors import ConfigError, CorpusmillError, InputError, StorageError, TransientError
from pipelines.eu_summary import CrawledSource, ListedSource, eu_summary, eu_summary_markdown
from pipelines.explain import stories
from pipelines.export import export_documents
from pipelines.lineage import Known, pages, stream, token_counts, write_lineage
from pipelines.lineage import lineage as build_lineage
from pipelines.plan import plan_corpus
from pipelines.public_suffixes import registrable_domain
from pipelines.review import review_facts
from pipelines.review_sample import ReviewItem, draw, read_sheet, score, write_sheet
from pipelines.signals.keyword_library import GB45654, read_schema, read_terms
from pipelines.signals.library_report import library_report, name_files
from pipelines.stage import Resource
from pipelines.store import Manifest, Store
from pipelines.takedown.outputs import register_output
from pipelines.trained_text import trained_text

_MIN_FREE_BYTES = 2 << 30
_COPY_FIELDS = ("doc_id", "decision", "split", "duplicate_of")
_REVIEWED_NUM_CHARS = 2000
"""Of a document, in a reviewer's sheet."""


def plan(recipe_path: Path | None, workspace_path: Path | None) -> dict[str, Any]:
    """What a run would compute, stage by stage."""
    recipe, wanted = load_recipe(recipe_path), _workspace(workspace_path)
    with _to_look_at(wanted) as place:
        store = place.open_store()
        crawls, unfinished = known_crawls(recipe, place)
        collected = collect(recipe, place, crawls, may_fetch=False)
        config = recipe.corpus_config(store)
        stages = [asdict(stage) for stage in plan_corpus(store, recipe.name, collected.files, config)]
        is_settled = not unfinished and not any(stage["compute"] for stage in stages)
        stages += _planned_jobs(recipe, place, store, config, is_settled=is_settled)
    return {
        "recipe": recipe.name,
        "workspace": str(wanted.root),
        "is_begun": _is_begun(wanted),
        "sources_to_fetch": unfinished,
        "source_files": len(collected.files),
        "stages": stages,
    }


def _planned_jobs(
    recipe: Recipe, place: Workspace, store: Store, config: CorpusConfig, *, is_settled: bool
) -> list[dict[str, Any]]:
    """Report, train and evaluate: finished, or to be run."""
    if not is_settled:
        reasons: dict[str, int] = {"the corpus will change": 1}
        return [_job_plan(name, 1, reasons) for name in ("report", "train", "evaluate")]
    done = last_build(recipe, store, config)
    job = TrainingJob.of(recipe, Dataset.of(done, tokenizer_resource(config, done, store)), place)
    if job.finished() is None:
        why = "goes on from a checkpoint" if job.is_begun() else "not trained yet"
        return [
            _job_plan("report", 0, {}),
            _job_plan("train", 1, {why: 1}),
            _job_plan("evaluate", 1, {"no model yet": 1}),
        ]
    evaluated = job.evaluated(recipe.evaluation_plan()) is not None
    return [
        _job_plan("report", 0, {}),
        _job_plan("train", 0, {}),
        _job_plan("evaluate", 0 if evaluated else 1, {} if evaluated else {"not measured yet": 1}),
    ]


def _job_plan(name: str, compute: int, reasons: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": name,
        "shards": 1,
        "compute": compute,
        "reuse": 1 - compute,
        "at_most": compute,
        "reasons": dict(reasons),
    }


def last_build(recipe: Recipe, store: Store, config: CorpusConfig) -> dict[str, Manifest]:
    """The manifests of a recipe's newest build, by stage. Raises ConfigError where there is none."""
    done = {node.name: store.ref(recipe.name, node.name) for node in corpus_nodes(config)}
    found = {name: manifest for name, manifest in done.items() if manifest is not None}
    if len(found) < len(done):
        raise ConfigError(
            f"got no finished build of recipe {recipe.name!r} in {store.root.parent}, wanted one: "
            "run `corpusmill build` first."
        )
    return found


def explain(url_or_doc_id: str, recipe_path: Path | None, workspace_path: Path | None) -> dict[str, Any]:
    """Everything known about a page. Raises InputError where neither a build, a crawl nor a take-down knows it."""
    recipe, place, store, config, done = _built(recipe_path, workspace_path)
    found = list(stories(store, done, config.policy, url_or_doc_id))
    urls = {story["url"] for story in found if story["url"]} or {url_or_doc_id}
    fetches = _fetches(recipe, place, urls)
    named = takedown.naming(place, url_or_doc_id)
    trainings = [] if found else lineage.trainings_with(place, store, url_or_doc_id)
    if not found and not fetches and not named and not trainings:
        raise InputError(
            f"got {url_or_doc_id!r}, which no build or crawl of recipe {recipe.name!r} knows, wanted a URL as it was "
            "fetched or a document id: see `corpusmill export --dropped` for all of them."
        )
    sources = lineage.source_files(recipe, place)
    for story in found:
        lineage.add_lineage(story, place, store, done, sources)
    return {
        "query": url_or_doc_id,
        "recipe": recipe.name,
        "takedowns": named,
        "fetches": fetches,
        "documents": found,
        "trainings": trainings,
    }


def _fetches(recipe: Recipe, place: Workspace, urls: set[str]) -> list[dict[str, Any]]:
    rows = []
    for source in recipe.sources:
        if isinstance(source, CrawlSource):
            folder = place.crawl_folder(f"{recipe.name}-{source.name}")
            rows += [
                {"source": source.name, **asdict(row)}
                for url in sorted(urls)
                if (row := lookup(folder, url)) is not None
            ]
    return rows


def trace(
    recipe_path: Path | None,
    workspace_path: Path | None,
    *,
    step: int | None,
    offset: int | None,
    split: str | None,
    shard: str | None,
    model: str | None,
) -> dict[str, Any]:
    """The pages behind a training step, or behind a token of a stream or of a shard.

    Raises ConfigError for options that do not fit, InputError for what was never there and for shards that are gone.
    """
    if (step is None) == (offset is None):
        raise ConfigError("--step, --offset: got both or neither, wanted one: a training step, or a token's offset.")
    if split is not None and (shard is not None or step is not None):
        raise ConfigError("--split: got it beside --shard or --step, wanted it with --offset alone: leave it out.")
    if shard is not None and (model is not None or step is not None):
        raise ConfigError("--shard: got it beside --model or --step, wanted it with --offset alone: leave those out.")
    recipe, place = load_recipe(recipe_path), _workspace(workspace_path)
    found: dict[str, Any] = {"recipe": recipe.name, "model": None}
    if step is not None or model is not None:
        _refuse_file(place)
        facts = _traced_training(place, model, recipe.name if recipe_path is not None else None)
        store = place.open_store()
        training = lineage.open_training(place, store, facts)
        found |= {"recipe": training.recipe, "model": training.model}
        done = {name: ref for name in ("extract", "dedup") if (ref := store.ref(training.recipe, name)) is not None}
        if step is not None:
            found |= {"step": step, "split": lineage.TRAIN, "pages": lineage.trace_step(training, step, store)}
        else:
            digests = [stretch.digest for stretch in training.stretches]
            found |= _traced_offset(store, digests, split, offset or 0, dict(facts["num_train_tokens"]))
    else:
        _recipe, _place, store, _config, done = _built(recipe_path, workspace_path)
        tokens = done["tokenize"]
        digests = [entry.shard.digest for entry in tokens.entries]
        if shard is not None:
            known = [*digests, *(name for facts in known_trainings(place) for name in facts["token_shards"])]
            digest = lineage.full_digest(known, shard)
            found |= {"shard": digest, "offset": offset, "pages": lineage.trace_shard(store, digest, offset or 0)}
        else:
            counts = token_counts(tokens, split or lineage.TRAIN)
            found |= _traced_offset(store, digests, split, offset or 0, counts)
    sources = lineage.source_files(recipe, place) if recipe.name == found["recipe"] else {}
    lineage.add_pages(found["pages"], store, done, sources)
    return found


def _traced_offset(
    store: Store, digests: Sequence[str], split: str | None, offset: int, counts: Mapping[str, int]
) -> dict[str, Any]:
    wanted = split or lineage.TRAIN
    stretches = stream(store, digests, wanted, counts)
    return {"offset": offset, "split": wanted, "pages": lineage.trace_offset(store, stretches, wanted, offset)}


def _traced_training(place: Workspace, model: str | None, recipe: str | None) -> dict[str, Any]:
    """The named training, by the beginning of its folder's name too; or the newest, of a recipe if one is given."""
    known = known_trainings(place)
    fit = [
        facts
        for facts in known
        if (facts["folder"].startswith(model) if model is not None else recipe in (None, facts["recipe"]))
    ]
    if model is None and not fit:
        raise ConfigError(f"got no training in {place.root}, wanted one: run `corpusmill train` first.")
    if model is not None and len(fit) != 1:
        names = ", ".join(facts["folder"] for facts in known) or "none"
        raise ConfigError(
            f"--model: got {model!r}, which fits {len(fit)} of the trainings in {place.root} ({names}), wanted one of them: "
            "name its folder."
        )
    return fit[-1]


def write_lineage_table(recipe_path: Path | None, workspace_path: Path | None, out: Path) -> dict[str, Any]:
    """Write the lineage of every page of the newest build as one Parquet file, and note where. Raises ConfigError."""
    if out.suffix != ".parquet":
        raise ConfigError(f"--out: got {out}, wanted the name of a Parquet file: let it end in .parquet.")
    recipe, place, store, config, done = _built(recipe_path, workspace_path)
    known = Known(
        policy=config.policy,
        source_files={unit: source.path for unit, source in lineage.source_files(recipe, place).items()},
        seen=lineage.everything_seen(place, store),
    )
    num_rows = write_lineage(out, build_lineage(store, done, known))
    register_output(place.output_ledger, "export", out, recipe=recipe.name)
    return {"path": str(out), "rows": num_rows, "models": list(known.seen)}


def export(
    recipe_path: Path | None,
    workspace_path: Path | None,
    out: Path,
    file_format: Literal["jsonl", "parquet"],
    *,
    with_dropped: bool,
) -> dict[str, Any]:
    """Write the documents of the newest build, and note where: a take-down reaches the file too."""
    recipe, place, store, config, done = _built(recipe_path, workspace_path)
    path, num_rows = export_documents(
        store, done, out, file_format=file_format, with_dropped=with_dropped, redact=config.redact
    )
    register_output(place.output_ledger, "export", path, recipe=recipe.name)
    return {"path": str(path), "rows": num_rows, "format": file_format}


def sample(
    recipe_path: Path | None, workspace_path: Path | None, out: Path, *, num_per_rule: int, seed: int
) -> dict[str, Any]:
    """Write the review page of the newest build: samples of what each rule drops and keeps, and its thresholds."""
    recipe, place, store, config, done = _built(recipe_path, workspace_path)
    facts = review_facts(store, done, config, num_per_rule=num_per_rule, seed=seed)
    path = write_page(out, recipe.name, facts)
    register_output(place.output_ledger, "review page", path, recipe=recipe.name)
    sampled = sum(len(rule["dropped"]) + len(rule["kept"]) for rule in facts["rules"])
    rules = [{name: rule[name] for name in ("name", "group", "num_failed", "num_alone")} for rule in facts["rules"]]
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "seed": seed,
        "per_rule": num_per_rule,
        "documents": facts["documents"],
        "sampled": sampled,
        "rules": rules,
    }


def review_sample(
    recipe_path: Path | None, workspace_path: Path | None, out: Path, *, num_items: int, seed: int
) -> dict[str, Any]:
    """Draw kept documents of the newest build, and write a sheet for each of two reviewers."""
    recipe, place, store, config, done = _built(recipe_path, workspace_path)
    items = _drawn(store, done, draw(_kept(store, done), num_items, seed), config.redact)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"reviewer-{number}.csv" for number in (1, 2)]
    for path in paths:
        write_sheet(path, items)
        register_output(place.output_ledger, "review sheet", path, recipe=recipe.name)
    return {"paths": [str(path) for path in paths], "items": len(items), "seed": seed}


def _kept(store: Store, done: Mapping[str, Manifest]) -> Iterator[str]:
    for _unit, batch in read_aligned(store, (done["dedup"], ("doc_id", "decision"))):
        yield from batch.filter(pc.equal(batch.column("decision"), "keep")).column("doc_id").to_pylist()


def _drawn(
    store: Store, done: Mapping[str, Manifest], doc_ids: list[str], redact: tuple[str, ...] | None
) -> list[ReviewItem]:
    """The drawn documents in their order, personal data redacted as it is for training."""
    found: dict[str, ReviewItem] = {}
    wanted = pa.array(doc_ids, pa.string())
    parts: list[tuple[Manifest, tuple[str, ...]]] = [
        (done["extract"], ("doc_id", "url", "text")),
        (done["signals"], ("doc_id", "language", "pii")),
        (done["dedup"], ("doc_id", "decision", "cut_lines")),
    ]
    kinds = None if redact is None else frozenset(redact)
    if "entities" in done:
        parts.append((done["entities"], ("doc_id", "entities")))
    for _unit, batch in read_aligned(store, *parts):
        for row in batch.filter(pc.is_in(batch.column("doc_id"), wanted)).to_pylist():
            if row["decision"] == "keep":
                beginning = trained_text(row["text"], kinds, row)[:_REVIEWED_NUM_CHARS]
                found[row["doc_id"]] = ReviewItem(doc_id=row["doc_id"], url=row["url"], text=beginning)
    return [found[doc_id] for doc_id in doc_ids]


def review_score(first: Path, second: Path, *, min_pass_rate: float) -> dict[str, Any]:
    """What two filled sheets say together."""
    return asdict(score(read_sheet(first), read_sheet(second), min_pass_rate))


def keyword_coverage(
    paths: Sequence[Path], workspace_path: Path | None, *, schema_path: Path | None, max_age_days: int
) -> dict[str, Any]:
    """How far keyword libraries, or those of a recipe, cover a schema. Raises ConfigError for what is neither."""
    recipes = [path for path in paths if path.suffix.lower() in (".yaml", ".yml")]
    if recipes and len(paths) > 1:
        raise ConfigError(
            f"got {recipes[0]} beside other files, wanted one recipe or keyword libraries: name one of both."
        )
    files = name_files(list(dict.fromkeys(paths)))
    if recipes:
        recipe, place = load_recipe(recipes[0]), _workspace(workspace_path)
        files = dict(recipe.lexicon_files(place.remote_folder))
        if not files:
            raise ConfigError(
                f"compliance.lexicons: got none in {recipes[0]}, wanted at least one: add one, or name files here."
            )
    schema = read_schema(schema_path)
    found = library_report(
        {name: read_terms(path) for name, path in files.items()},
        schema,
        today=datetime.now(UTC).date(),
        max_age_days=max_age_days,
    )
    digests = {name: digest_file(path) for name, path in files.items()}
    return {"schema": schema_path.name if schema_path else GB45654, "digests": digests, **found}


def report(recipe_path: Path | None, workspace_path: Path | None) -> dict[str, Any]:
    """The data card of the newest build."""
    recipe, place = load_recipe(recipe_path), _workspace(workspace_path)
    folder = place.report_folder(recipe.name)
    try:
        facts = json.loads((folder / "data_card.json").read_bytes())["values"]
        return {
            "path": str(folder / "data_card.md"),
            "markdown": (folder / "data_card.md").read_text("utf-8"),
            "facts": facts,
        }
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"got no data card of recipe {recipe.name!r} in {place.root}, wanted one: run `corpusmill build` first."
        ) from error


def public_summary(recipe_path: Path | None, workspace_path: Path | None, *, is_sme: bool) -> dict[str, Any]:
    """The EU AI Act's public summary of the newest build: `markdown` and the same as `facts`."""
    recipe, place, store, config, done = _built(recipe_path, workspace_path)
    facts = summary_facts(recipe, place, store, config, done, is_sme=is_sme)
    return {"markdown": eu_summary_markdown(facts), "facts": facts}


def summary_facts(
    recipe: Recipe,
    place: Workspace,
    store: Store,
    config: CorpusConfig,
    done: Mapping[str, Manifest],
    *,
    is_sme: bool,
) -> dict[str, Any]:
    """What the public summary of a build says."""
    crawled, listed = [], []
    for source in recipe.sources:
        if isinstance(source, CrawlSource):
            crawled.append(
                CrawledSource(
                    name=source.name,
                    config=source.config,
                    report=crawl_report(place.crawl_folder(f"{recipe.name}-{source.name}")),
                    is_served_locally=source.serve is not None,
                )
            )
        else:
            dataset = getattr(source, "dataset", None)
            places = (dataset,) if dataset else tuple(getattr(source, "paths", ()))
            listed.append(ListedSource(name=source.name, kind=source.kind, places=places))
    return eu_summary(
        store,
        done,
        name=recipe.name,
        crawled=crawled,
        listed=listed,
        source_of_unit=_sources_of_units(recipe, place),
        obeys_reservations=config.policy.compliance is not None,
        is_sme=is_sme,
    )


def _sources_of_units(recipe: Recipe, place: Workspace) -> dict[str, str]:
    """The source of each source file that is there now, by its unit."""
    crawls, _unfinished = known_crawls(recipe, place)
    units: dict[str, str] = {}
    for source in recipe.sources:
        alone = replace(recipe, sources=(source,))
        units |= {item.unit: source.name for item in collect(alone, place, crawls, may_fetch=False).files}
    return units


def crawl_status(recipe_path: Path | None, workspace_path: Path | None) -> dict[str, Any]:
    """How each crawl of a recipe stands, read beside a running one. A ledger that cannot be read has a `problem`.

    Raises ConfigError where the recipe crawls nothing.
    """
    recipe, place = load_recipe(recipe_path), _workspace(workspace_path)
    _refuse_file(place)
    require_crawl(recipe)
    crawls: list[dict[str, Any]] = []
    for source in recipe.sources:
        if isinstance(source, CrawlSource):
            try:
                facts = crawl_report(place.crawl_folder(f"{recipe.name}-{source.name}"))
            except CorpusmillError as error:
                facts = {"problem": str(error)}
            crawls.append({"source": source.name, "max_pages": source.config.max_pages, **facts})
    return {"recipe": recipe.name, "workspace": str(place.root), "is_begun": _is_begun(place), "crawls": crawls}


def require_crawl(recipe: Recipe) -> None:
    """Raises ConfigError for a recipe that crawls nothing."""
    if not any(isinstance(source, CrawlSource) for source in recipe.sources):
        raise ConfigError(
            f"sources: got no crawl in recipe {recipe.name!r}, wanted a source of kind crawl: add one with seeds."
        )


def opened_workspace(workspace_path: Path | None) -> Workspace:
    """The workspace, in which something was run. Raises ConfigError where nothing was."""
    place = _workspace(workspace_path)
    if not _is_begun(place):
        raise ConfigError(f"got {place.root}, wanted a workspace: run something first, or pass --workspace.")
    return place


def doctor(workspace_path: Path | None) -> dict[str, Any]:
    """Whether this machine and environment can run: each check with what was found and what to do."""
    place = _workspace(workspace_path)
    checks = [
        _check_python(),
        *_check_versions(),
        _check_workspace(place),
        *_check_permissions(place),
        *_check_bucket(place),
        _check_disk(place),
        _check_loopback(),
        *_check_runs(place, workspace_path),
    ]
    device, _, _ = _torch_device()
    facts = {"cores": num_cores(), "device": device, "workspace": str(place.root)}
    return {"facts": facts, "checks": checks}


def _check_python() -> dict[str, Any]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return {"name": "python", "ok": sys.version_info >= (3, 11), "found": found, "wanted": "3.11 or newer"}


def _check_versions() -> list[dict[str, Any]]:
    checks = []
    for requirement in importlib.metadata.requires("corpusmill") or []:
        if "==" not in requirement or ";" in requirement:
            continue
        name, wanted = requirement.split("==")
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        checks.append(
            {"name": name, "ok": found == wanted, "found": found, "wanted": f"{wanted}: make run installs it"}
        )
    return checks


def _check_workspace(place: Workspace) -> dict[str, Any]:
    probe = place.root / ".doctor"
    try:
        place.make()
        probe.write_text("")
        probe.unlink()
        found, is_ok = "writable", True
    except (OSError, StorageError) as error:
        found, is_ok = str(error), False
    return {"name": "workspace", "ok": is_ok, "found": found, "wanted": f"{place.root} writable: check its owner"}


def _check_permissions(place: Workspace) -> list[dict[str, Any]]:
    """That nobody but its owner, and a group that was let in, can put something into the workspace, or read its secrets."""
    if not place.root.is_dir():
        return []
    inside = (path for path in sorted(place.root.iterdir()) if not path.is_symlink())
    open_to_all = [path for path in (place.root, *inside) if _mode(path) & 0o002]
    secret = [path for path in sorted((place.root / "auth").glob("*")) if _mode(path) & 0o077]
    found = [f"{path} is writable by all" for path in open_to_all] + [
        f"{path} is readable by others" for path in secret
    ]
    return [
        {
            "name": "permissions",
            "ok": not found,
            "found": "; ".join(found) or "closed to others",
            "wanted": f"chmod -R o-w {place.root}; chmod 600 what lies in its folder auth",
        }
    ]


def _mode(path: Path) -> int:
    """Who may do what with a file; nobody anything where a run has just removed it."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0


def _check_bucket(place: Workspace) -> list[dict[str, Any]]:
    if place.bucket is None:
        return []
    try:
        with tempfile.TemporaryDirectory(prefix="corpusmill-look-") as folder:
            next(replace(place, root=Path(folder)).open_store().refs(), None)
        found, is_ok = "answers", True
    except CorpusmillError as error:
        found, is_ok = str(error), False
    return [{"name": "store", "ok": is_ok, "found": found, "wanted": f"{place.bucket} readable: see AWS_ENDPOINT_URL"}]


def _check_runs(place: Workspace, workspace_path: Path | None) -> list[dict[str, Any]]:
    """Closes runs that are left open in MLflow, unless somebody is at work."""
    if not place.store_place.root.is_dir():
        return []
    from flows.tracker.runs import end_left_runs

    wanted = "a tracker that answers: start it, or mend MLFLOW_TRACKING_URI"
    try:
        with writing(place):
            closed = end_left_runs(read_settings(workspace_path), place)
        found = f"closed {', '.join(closed)}" if closed else "none is left open"
    except StorageError:
        found = "a run is going on: not looked at"
    except TransientError as error:
        return [{"name": "runs", "ok": False, "found": str(error), "wanted": wanted}]
    return [{"name": "runs", "ok": True, "found": found, "wanted": wanted}]


def _check_disk(place: Workspace) -> dict[str, Any]:
    folder = next(path for path in (place.root, *place.root.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    return {"name": "disk", "ok": free >= _MIN_FREE_BYTES, "found": f"{free >> 30} GiB free", "wanted": "2 GiB or more"}


def _check_loopback() -> dict[str, Any]:
    import socket

    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        found, is_ok = "can listen", True
    except OSError as error:
        found, is_ok = str(error), False
    return {"name": "loopback", "ok": is_ok, "found": found, "wanted": "127.0.0.1 usable for the Prefect server"}


def _torch_device() -> tuple[str, int, str]:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0), torch.cuda.device_count(), str(torch.version.cuda)
    return "cpu", 0, ""


def _workspace(path: Path | None) -> Workspace:
    return Workspace.of(read_settings(path))


def _built(
    recipe_path: Path | None, workspace_path: Path | None
) -> tuple[Recipe, Workspace, Store, CorpusConfig, dict[str, Manifest]]:
    recipe, place = load_recipe(recipe_path), _workspace(workspace_path)
    _refuse_file(place)
    if not _is_begun(place):
        raise ConfigError(
            f"got no workspace at {place.root}, wanted a finished build of recipe {recipe.name!r} in it: "
            "run `corpusmill build` first, or pass --workspace."
        )
    store = place.open_store()
    config = recipe.corpus_config(store)
    return recipe, place, store, config, last_build(recipe, store, config)


def urls_of(recipe: Recipe, store: Store, doc_ids: Sequence[str]) -> dict[str, str]:
    """Where documents come from, by doc_id, as far as the recipe's newest build has them."""
    done = last_build(recipe, store, recipe.corpus_config(store))
    found = pages(store, done, doc_ids) if {"extract", "dedup"} <= done.keys() else {}
    return {doc_id: page["url"] for doc_id, page in found.items()}


def groups_of(recipe: Recipe, store: Store, doc_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """What documents of the newest build are, by doc_id: language, domain, and the year that the page states or was fetched in."""
    done = last_build(recipe, store, recipe.corpus_config(store))
    wanted = pa.array(doc_ids, pa.string())
    found: dict[str, dict[str, str]] = {}
    parts = (
        (done["extract"], ("doc_id", "url", "published_at", "fetched_at")),
        (done["signals"], ("doc_id", "language")),
        (done["dedup"], ("doc_id", "decision")),
    )
    for _unit, batch in read_aligned(store, *parts):
        for row in batch.filter(pc.is_in(batch.column("doc_id"), wanted)).to_pylist():
            if row["decision"] != "keep":
                continue
            host = urlsplit(row["url"]).hostname or ""
            year = (row["published_at"] or "")[:4] or (str(row["fetched_at"].year) if row["fetched_at"] else "")
            told = {"language": row["language"], "domain": registrable_domain(host, below_platforms=True), "year": year}
            found[row["doc_id"]] = {kind: value for kind, value in told.items() if value}
    return found


def corpus_facts(recipe: Recipe, store: Store) -> CorpusFacts:
    """What a recipe's newest build tells an evaluation of its documents."""

    def built() -> dict[str, Manifest]:
        return last_build(recipe, store, recipe.corpus_config(store))

    def copies() -> dict[str, str]:
        from flows.evaluation.memorisation import copy_groups

        return copy_groups(batch for _unit, batch in read_aligned(store, (built()["dedup"], _COPY_FIELDS)))

    def toxicity_model() -> Resource | None:
        config, done = recipe.corpus_config(store), built()
        return toxicity_config(config, done, store).model

    return CorpusFacts(
        groups_of=partial(groups_of, recipe, store),
        urls_of=partial(urls_of, recipe, store),
        copies=copies,
        toxicity_model=toxicity_model,
    )


def open_training(recipe_path: Path | None, workspace_path: Path | None) -> tuple[TrainingJob, Recipe, Store]:
    """The training of a recipe's newest build, its recipe and its store. Raises ConfigError where nothing is built."""
    recipe, place, store, config, done = _built(recipe_path, workspace_path)
    dataset = Dataset.of(done, tokenizer_resource(config, done, store))
    return TrainingJob.of(recipe, dataset, place), recipe, store


def _is_begun(place: Workspace) -> bool:
    """Whether a run was ever begun there, or anywhere with the same bucket."""
    return place.bucket is not None or place.store_place.root.is_dir()


@contextmanager
def _to_look_at(place: Workspace) -> Iterator[Workspace]:
    """The workspace, or an empty one in passing where there is none: who looks makes nothing."""
    _refuse_file(place)
    if place.store_place.root.is_dir():
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="corpusmill-look-") as folder:
        yield replace(place, root=Path(folder))


def _refuse_file(place: Workspace) -> None:
    """Raises StorageError where no folder can be, since a file is in the way."""
    nearest = next(path for path in (place.root, *place.root.parents) if path.exists())
    if not nearest.is_dir():
        raise StorageError(
            f"got a file in place of a folder ({nearest}), wanted a workspace: pass another --workspace."
        )
