"""Take-downs around a build, and the commands for them: what will go is noted before it, certified after it.

What a build does to the documents themselves is the extract stage's, by its config.
"""

import getpass
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.jobs import known_trainings
from flows.recipe import Recipe
from flows.settings import Settings, read_settings
from flows.workspace import Workspace, writing
from pipelines.corpus import CorpusConfig
from pipelines.errors import ConfigError, IntegrityError
from pipelines.retention import Roots, sweep
from pipelines.store import Manifest, Store
from pipelines.takedown.certificate import (
    certificate_markdown,
    certificate_path,
    certificates,
    forget,
    mark_erased,
    part_of_recipe,
    pending,
    prove,
    read_before,
    read_certificate,
    remember,
    uncertified,
    wanted_of,
    write_certificate,
)
from pipelines.takedown.chain import read_lines
from pipelines.takedown.ledger import Request, Scope, add_request, lift_request, read_ledger, requests_naming
from pipelines.takedown.outputs import clean_outputs
from pipelines.takedown.proof import Wanted, holds

Facts = dict[str, Any]


# around a build


def new_requests(place: Workspace, store: Store, recipe: Recipe, config: CorpusConfig) -> list[Request]:
    """The take-downs that no build of the recipe has certified; what they will take out is written down.

    Raises IntegrityError where the ledger lost some.
    """
    requests = uncertified(place.takedown_folder, read_ledger(place.takedown_ledger), recipe.name)
    # One that was added since the config was read is the next build's.
    requests = [request for request in requests if config.extract.takedown.covers(request.takedown())]
    if requests:
        remember(place.takedown_folder, store, recipe.name, requests)
    return requests


def certify(
    settings: Settings,
    place: Workspace,
    store: Store,
    recipe: Recipe,
    config: CorpusConfig,
    done: Mapping[str, Manifest],
    requests: Sequence[Request],
    source_file: Callable[[str], str | None],
) -> list[Facts]:
    """Prove that nothing of what was taken down is left, clean the exports, tag the runs, write the certificates.

    Returns what each certificate says in short. Raises IntegrityError where something is left.
    """
    if not requests:
        return []
    from flows.tracker.runs import tag_taken_down

    folder = place.takedown_folder
    before = read_before(folder, recipe.name)
    wanted = wanted_of(before, requests, config.extract.takedown)
    search, other_recipes = prove(store, recipe.name, done, place.root / "reports", wanted)
    outputs = clean_outputs(place.output_ledger, wanted)
    artifacts = _artifacts_holding(place, wanted)
    found: list[Facts] = []
    for request in requests:
        shared = {"search": search, "other_recipes": other_recipes, "outputs": outputs, "artifacts": artifacts}
        part = part_of_recipe(store, request, before, done, source_file=source_file, shared=shared)
        models = _models_of(place, part["documents"])
        part["models"] = [{name: model[name] for name in ("folder", "recipe", "saw")} for model in models]
        part["mlflow_runs"] = tag_taken_down(
            settings,
            place,
            recipe.name,
            [request.id],
            tokens_digest=before["manifests"].get("tokenize") if part["token_shards"] else None,
            training_keys=[model["key"] for model in models],
        )
        path = write_certificate(folder, request, recipe.name, part)
        found.append(
            {
                "id": request.id,
                "documents": len(part["documents"]),
                "reinstated": len(part["reinstated"]),
                "other_recipes": [each["recipe"] for each in other_recipes],
                "certificate": str(path),
            }
        )
    forget(folder, recipe.name)
    return found


def _models_of(place: Workspace, documents: Sequence[Facts]) -> list[Facts]:
    """The trainings, finished or begun, whose data held some of the documents, or that began with the weights of such."""
    splits: dict[str, set[str]] = {}
    for item in documents:
        if "token_shard" in item:
            splits.setdefault(item["token_shard"], set()).add(item["split"])
    trainings = known_trainings(place)
    saw = {
        training["folder"]: {split for shard in training["token_shards"] for split in splits.get(shard, ())}
        for training in trainings
    }
    for training in _from_oldest(trainings):
        parents = [parent["folder"] for parent in trainings if _is_begun_with(training, parent)]
        if any(saw[name] & {"train", "start_from"} for name in parents):
            saw[training["folder"]].add("start_from")
    return [{**training, "saw": sorted(saw[training["folder"]])} for training in trainings if saw[training["folder"]]]


def _from_oldest(trainings: Sequence[Facts]) -> list[Facts]:
    """Each after those whose weights it began with."""
    ordered: list[Facts] = []
    while len(ordered) < len(trainings):
        rest = [training for training in trainings if training not in ordered]
        ready = [one for one in rest if not any(_is_begun_with(one, other) for other in rest if other is not one)]
        ordered += ready or rest
    return ordered


def _is_begun_with(training: Facts, parent: Facts) -> bool:
    digest = training.get("start_from")
    return digest is not None and digest == parent.get("parameters_digest")


def _artifacts_holding(place: Workspace, wanted: Wanted) -> list[str]:
    """Files of earlier runs in the workspace's MLflow that show a document; `gc` removes them."""
    files = (path for path in sorted(place.mlflow_artifacts.rglob("*")) if path.is_file())
    pages = (path for path in files if path.suffix in (".html", ".md", ".json"))
    return [str(path.relative_to(place.root)) for path in pages if holds(path.read_bytes(), wanted)]


# commands


def add(workspace_path: Path | None, scope: Scope, value: str, *, by: str | None, reason: str) -> Facts:
    """Write a take-down into the ledger."""
    place = _place(workspace_path)
    place.make()
    return _described(place, add_request(place.takedown_ledger, scope, value, by=by or user(), reason=reason))


def lift(workspace_path: Path | None, request_id: str, *, by: str | None, reason: str) -> Facts:
    """End a take-down."""
    place = _place(workspace_path)
    return _described(place, lift_request(place.takedown_ledger, request_id, by=by or user(), reason=reason))


def listed(workspace_path: Path | None) -> Facts:
    """Every take-down, and which recipes' builds have certified it."""
    place = _place(workspace_path)
    requests = read_ledger(place.takedown_ledger)
    return {"workspace": str(place.root), "takedowns": [_described(place, request) for request in requests]}


def certificate(workspace_path: Path | None, request_id: str) -> Facts:
    """A certificate, and the same as Markdown. Raises ConfigError where there is none."""
    place = _place(workspace_path)
    body = read_certificate(place.takedown_folder, request_id)
    if body is None:
        raise ConfigError(
            f"got no certificate of take-down {request_id!r}, wanted one: it is written by the next `corpusmill build`; "
            "see `corpusmill takedown list`."
        )
    path = certificate_path(place.takedown_folder, request_id)
    return {"path": str(path), "markdown": certificate_markdown(body), "certificate": body}


def naming(place: Workspace, url_or_doc_id: str) -> list[Facts]:
    """The take-downs that name a page, or that took it out of a build."""
    requests = read_ledger(place.takedown_ledger)
    ids = {request.id for request in requests_naming(requests, url_or_doc_id)}
    for body in certificates(place.takedown_folder):
        documents = (item for part in body["recipes"].values() for item in part["documents"])
        if any(url_or_doc_id in (item["url"], item["doc_id"]) for item in documents):
            ids.add(body["takedown"]["id"])
    return [_described(place, request) for request in requests if request.id in ids]


def damage(place: Workspace) -> list[str]:
    """What is damaged of the ledgers and certificates."""
    found = []
    for read in (
        lambda: read_ledger(place.takedown_ledger),
        lambda: read_lines(place.output_ledger),
        lambda: list(certificates(place.takedown_folder)),
    ):
        try:
            read()
        except IntegrityError as error:
            found.append(str(error))
    return found


def collect_garbage(workspace_path: Path | None, *, keep_days: float, is_dry: bool) -> Facts:
    """Remove what no live recipe reaches; see retention.py. Holds the workspace."""
    place = _place(workspace_path)
    if place.bucket is None and not place.store_place.root.is_dir():
        raise ConfigError(f"got {place.root}, wanted a workspace: run something first, or pass --workspace.")
    with writing(place) as store:
        read_ledger(place.takedown_ledger)  # damaged: nothing may go
        parts = [part for body in certificates(place.takedown_folder) for part in body["recipes"].values()]
        taken_down = {shard for part in parts for shard in part["token_shards"]}
        waiting = list(pending(place.takedown_folder))
        documents = [item for part in parts for item in part["documents"]]
        documents += [item for each in waiting for found in each["requests"].values() for item in found["documents"]]
        obsolete = {each["digest"] for part in parts for each in part["obsolete_shards"]}
        obsolete |= {digest for each in waiting for shards in each["shards"].values() for digest in shards}
        trained = {shard for training in known_trainings(place) for shard in training["token_shards"]}
        roots = Roots(
            kept=frozenset(trained - taken_down),
            condemned=frozenset(obsolete | taken_down),
            doc_ids=frozenset(item["doc_id"] for item in documents),
        )
        done = sweep(store, roots, now=time.time(), keep_days=keep_days, is_dry=is_dry)
        artifacts = sorted({name for part in parts for name in part["artifacts"] if (place.root / name).is_file()})
        completed: list[str] = []
        if not is_dry:
            for name in artifacts:
                (place.root / name).unlink()
            there = {each.digest for each in store.objects()}
            completed = mark_erased(place.takedown_folder, there.__contains__)
    return {
        "workspace": str(place.root),
        "dry_run": is_dry,
        "keep_days": keep_days,
        "shards": len(done.objects),
        "bytes": done.num_bytes,
        "taken_down": done.num_taken_down,
        "records": done.num_records,
        "artifacts": artifacts,
        "kept": {"reached": done.num_reached, "young": done.num_young},
        "still_reached": done.held,
        "erased": completed,
    }


def _described(place: Workspace, request: Request) -> Facts:
    found = read_certificate(place.takedown_folder, request.id)
    names = ("id", "added_at", "by", "reason", "scope", "value", "lifted_at", "lifted_by", "lifted_because")
    return {name: getattr(request, name) for name in names} | {
        "in_force": request.is_active,
        "certified": {name: part["certified_at"] for name, part in found["recipes"].items()} if found else {},
        "ledger": str(place.takedown_ledger),
    }


def user() -> str:
    """Who runs this process. Raises ConfigError where the system does not say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConfigError("--by: got no user name from the system, wanted to know who asks: pass --by.") from error


def _place(workspace_path: Path | None) -> Workspace:
    return Workspace.of(read_settings(workspace_path))
