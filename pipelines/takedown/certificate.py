"""The certificate of a take-down: what it took out of each recipe's build, and the proof that nothing is left.

Two files for each request, `ID.json` and `ID.md`. What a build is about to lose is written down before it begins
(`before/RECIPE.json`), so that a run that was killed half-way loses no evidence.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipelines.digest import digest_value
from pipelines.errors import IntegrityError
from pipelines.markdown import plain, table
from pipelines.store import Manifest, Store, storage_errors
from pipelines.takedown.chain import sync_folder
from pipelines.takedown.documents import Takedown
from pipelines.takedown.ledger import Request
from pipelines.takedown.proof import Searched, Wanted, search_files, search_shards
from pipelines.takedown.trace import Facts, outcomes_of, trace

_URL_SCOPES = ("url", "domain")


def certificate_path(folder: Path, request_id: str) -> Path:
    """Where the certificate of a request lies; as Markdown beside it."""
    return folder / f"{request_id}.json"


def read_certificate(folder: Path, request_id: str) -> Facts | None:
    """A certificate; None where there is none yet. Raises IntegrityError for one that was changed."""
    path = certificate_path(folder, request_id)
    try:
        body: Facts = json.loads(path.read_bytes())
        digest = body.pop("digest")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        body, digest = {}, None
    if digest != digest_value(body):
        raise IntegrityError(f"got a certificate that was changed ({path}), wanted it as it was written: put it back.")
    return body


def certificates(folder: Path) -> Iterator[Facts]:
    """Every certificate. Raises IntegrityError for one that was changed."""
    for path in sorted(folder.glob("*.json")):
        found = read_certificate(folder, path.stem)
        if found is not None:
            yield found


def uncertified(folder: Path, requests: Sequence[Request], recipe: str) -> list[Request]:
    """The requests in force that no build of a recipe has certified.

    Raises IntegrityError where there is a certificate of a request that the ledger does not know: it lost lines.
    """
    known = {request.id for request in requests}
    lost = [path.stem for path in sorted(folder.glob("*.json")) if path.stem not in known]
    if lost:
        raise IntegrityError(
            f"got a certificate of take-down {lost[0]} that the ledger does not know, wanted the whole ledger, since "
            "nothing may be built against less: put back a copy of it."
        )
    active = [request for request in requests if request.is_active]
    return [each for each in active if recipe not in (read_certificate(folder, each.id) or {"recipes": {}})["recipes"]]


def remember(folder: Path, store: Store, recipe: str, requests: Sequence[Request]) -> None:
    """Write down what requests will take out of a recipe's newest build, before the next one begins.

    What an earlier run wrote down, and did not live to certify, stays as it is.
    """
    path = folder / "before" / f"{recipe}.json"
    known: Facts = _read_json(path) or {"manifests": {}, "shards": {}, "requests": {}}
    new = [request for request in requests if request.id not in known["requests"]]
    if not new:
        return
    done = _newest(store).get(recipe, {})
    for stage, manifest in done.items():
        known["manifests"].setdefault(stage, manifest.digest)
        known["shards"].setdefault(stage, {}).update(
            {entry.shard.digest: entry.shard.num_bytes for entry in manifest.entries}
        )
    known["requests"] |= trace(store, done, new)
    _write_text(path, json.dumps(known, indent=1, ensure_ascii=False))


def wanted_of(before: Facts, requests: Sequence[Request], takedown: Takedown) -> Wanted:
    """What must not be found after the build."""
    scopes = {request.id: request.scope for request in requests}
    documents = [
        (scopes[request_id], item)
        for request_id, found in before["requests"].items()
        if request_id in scopes
        for item in found["documents"]
    ]
    return Wanted(
        doc_ids=frozenset(item["doc_id"] for _, item in documents),
        urls=frozenset(item["url"] for scope, item in documents if scope in _URL_SCOPES and item["url"]),
        text_digests=frozenset(bytes.fromhex(each) for _, item in documents for each in item["text_digests"]),
        takedown=takedown,
    )


def read_before(folder: Path, recipe: str) -> Facts:
    """What `remember` wrote down."""
    return _read_json(folder / "before" / f"{recipe}.json") or {"manifests": {}, "shards": {}, "requests": {}}


def pending(folder: Path) -> Iterator[Facts]:
    """What `remember` wrote down and no build has certified, a recipe each."""
    for path in sorted((folder / "before").glob("*.json")):
        found = _read_json(path)
        if found is not None:
            yield found


def forget(folder: Path, recipe: str) -> None:
    """Remove what `remember` wrote down, once it is certified."""
    (folder / "before" / f"{recipe}.json").unlink(missing_ok=True)


def prove(
    store: Store, recipe: str, done: Mapping[str, Manifest], reports: Path, wanted: Wanted
) -> tuple[Facts, list[Facts]]:
    """Search all that a recipe's build left, and what other recipes' builds still hold.

    Returns where was looked, and the hits in builds of other recipes. Raises IntegrityError, naming the first, for a hit
    in this one's shards or reports.
    """
    own = Searched()
    search_shards(store, done, wanted, own)
    search_files((path for path in sorted((reports / recipe).rglob("*")) if path.is_file()), wanted, own)
    if own.hits:
        raise IntegrityError(
            f"got {len(own.hits)} places where what was taken down is still held (first: {own.hits[0]}), wanted none: "
            "do not use this build; report it."
        )
    elsewhere: list[Facts] = []
    for name, manifests in _newest(store).items():
        if name != recipe:
            other = Searched()
            search_shards(store, manifests, wanted, other)
            search_files((path for path in sorted((reports / name).rglob("*")) if path.is_file()), wanted, other)
            if other.hits:
                elsewhere.append({"recipe": name, "hits": len(other.hits)})
    return own.facts(), elsewhere


def part_of_recipe(
    store: Store,
    request: Request,
    before: Facts,
    done: Mapping[str, Manifest],
    *,
    source_file: Callable[[str], str | None],
    shared: Facts,
) -> Facts:
    """What a certificate says of one recipe's build. `shared` is what all requests of this build have in common."""
    found = before["requests"][request.id]
    documents = [item | {"source_file": source_file(item["unit"])} for item in found["documents"]]
    suppressed = {item["doc_id"]: item for item in found["suppressed"]}
    outcomes = outcomes_of(store, done["dedup"], sorted(suppressed)) if "dedup" in done else {}
    back = [doc_id for doc_id, outcome in outcomes.items() if outcome["decision"] == "keep"]
    urls = _urls_of(store, done["extract"], back) if back else {}
    live = {entry.shard.digest for manifest in done.values() for entry in manifest.entries}
    return {
        "certified_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "documents": documents,
        "manifests": {
            stage: {"before": before["manifests"].get(stage), "after": manifest.digest}
            for stage, manifest in done.items()
        },
        "reinstated": [
            {"doc_id": doc_id, "url": urls.get(doc_id), "was": suppressed[doc_id]["reason"]} for doc_id in sorted(back)
        ],
        "still_dropped": [
            {"doc_id": doc_id, "reason": outcomes.get(doc_id, {"reason": "not in this build"})["reason"]}
            for doc_id in sorted(set(suppressed) - set(back))
        ],
        "token_shards": sorted({item["token_shard"] for item in documents if "token_shard" in item}),
        "obsolete_shards": [
            {"stage": stage, "digest": digest, "num_bytes": num_bytes}
            for stage, shards in before["shards"].items()
            for digest, num_bytes in sorted(shards.items())
            if digest not in live
        ],
        "erased_at": None,
        "unreadable_before": found["unreadable"],
        **shared,
    }


def write_certificate(folder: Path, request: Request, recipe: str, part: Facts) -> Path:
    """Write or extend a request's certificate, and its Markdown."""
    known = read_certificate(folder, request.id) or {"recipes": {}}
    body = {"takedown": _described(request), "recipes": known["recipes"] | {recipe: part}}
    return _write_certificate(folder, body)


def mark_erased(folder: Path, is_there: Callable[[str], bool]) -> list[str]:
    """Note in every certificate which obsolete shards are gone by now; returns the ids of those that it completes."""
    completed = []
    for body in certificates(folder):
        is_changed = False
        for part in body["recipes"].values():
            if part["erased_at"] is None and not any(is_there(each["digest"]) for each in part["obsolete_shards"]):
                part["erased_at"] = datetime.now(UTC).isoformat(timespec="seconds")
                is_changed = True
        if is_changed:
            _write_certificate(folder, body)
            if all(part["erased_at"] for part in body["recipes"].values()):
                completed.append(body["takedown"]["id"])
    return completed


def certificate_markdown(body: Facts) -> str:
    """A certificate for a person to read."""
    request = body["takedown"]
    what = f"{request['scope']} {request['value']}" if request["value"] else "a quoted text, not kept here"
    lines = [
        f"# Take-down {request['id']}",
        "",
        f"- what: {plain(what)}",
        f"- asked for by {plain(request['by'])} at {request['added_at']}: {plain(request['reason'])}",
    ]
    for recipe, part in body["recipes"].items():
        search = part["search"]
        lines += [
            "",
            f"## Recipe {recipe}",
            "",
            f"Certified at {part['certified_at']} (UTC). {len(part['documents'])} documents were taken out.",
            "",
            *table(
                ("document", "URL", "row", "was", "source file", "record at byte"),
                (
                    (
                        item["doc_id"],
                        item["url"] or "",
                        item["row"],
                        item.get("reason") or item.get("decision", ""),
                        item["source_file"] or item["unit"],
                        "" if item["record_offset"] is None else item["record_offset"],
                    )
                    for item in part["documents"]
                ),
            ),
            (
                f"Searched afterwards: {search['shards']:,} shards with {search['rows']:,} rows and {search['files']:,} "
                f"report files, {search['bytes']:,} bytes, every shard verified: {search['hits']} hits. "
                f"{search['shards_without_names']} of the shards have no column that names documents (vocabularies, models)."
            ),
            "",
            f"- back in the corpus, since they were duplicates of these: {_listed(part['reinstated'], 'url', 'doc_id')}",
            f"- models that were trained on them: {_listed(part['models'], 'folder')}",
            f"- MLflow runs tagged: {', '.join(part['mlflow_runs']) or 'none'}",
            f"- exports and pages written before: {_outputs(part['outputs'])}",
            f"- other recipes that still hold them, to be built: {_listed(part['other_recipes'], 'recipe')}",
            f"- artifacts of earlier runs in MLflow that show them: {', '.join(map(plain, part['artifacts'])) or 'none'}",
            f"- old shards: {len(part['obsolete_shards'])}, {_erased(part)}",
            (
                "- the source files above are yours, and still hold the pages as they were fetched; of what was crawled the "
                "crawl's ledger keeps the URL, so as not to fetch it again"
            ),
            "",
            *table(
                ("stage", "manifest before", "manifest after"),
                ((stage, each["before"] or "none", each["after"]) for stage, each in part["manifests"].items()),
            ),
        ]
    return "\n".join(lines) + "\n"


def _listed(items: Sequence[Facts], *names: str) -> str:
    shown = (next((str(item[name]) for name in names if item.get(name)), "") for item in items)
    return ", ".join(map(plain, shown)) or "none"


def _outputs(items: Sequence[Facts]) -> str:
    return ", ".join(f"{plain(item['path'])} ({item['state']})" for item in items) or "none hold them"


def _erased(part: Facts) -> str:
    return f"erased at {part['erased_at']}" if part["erased_at"] else "still in the store until `corpusmill gc`"


def _described(request: Request) -> Facts:
    names = ("id", "added_at", "by", "reason", "scope", "value")
    return {name: getattr(request, name) for name in names} | (
        {"quoted_chars": request.quote.num_chars} if request.quote is not None else {}
    )


def _newest(store: Store) -> dict[str, dict[str, Manifest]]:
    """The manifests of every recipe's newest build that can be read."""
    found: dict[str, dict[str, Manifest]] = {}
    for recipe, stage in store.refs():
        manifest = store.ref(recipe, stage)
        if manifest is not None:
            found.setdefault(recipe, {})[stage] = manifest
    return found


def _urls_of(store: Store, documents: Manifest, doc_ids: Sequence[str]) -> dict[str, str | None]:
    wanted = frozenset(doc_ids)
    return {
        doc_id: url
        for entry in documents.entries
        for batch in store.read(entry.shard, ("doc_id", "url"))
        for doc_id, url in zip(batch.column("doc_id").to_pylist(), batch.column("url").to_pylist(), strict=True)
        if doc_id in wanted
    }


def _write_certificate(folder: Path, body: Facts) -> Path:
    path = certificate_path(folder, body["takedown"]["id"])
    _write_text(path.with_suffix(".md"), certificate_markdown(body))
    _write_text(path, json.dumps(body | {"digest": digest_value(body)}, indent=1, ensure_ascii=False))
    return path


def _read_json(path: Path) -> Facts | None:
    try:
        found: Facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise IntegrityError(f"got {path}, which is damaged, wanted it as it was written: remove it.") from error
    return found


def _write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, on the disk when this returns: it is evidence."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
