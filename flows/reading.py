"""The commands that look into a model: inspect, how it reads a text, and nearest, which training documents a text stands in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.jobs import known_trainings
from flows.model.commands import chosen_folder
from flows.model.generation import Writer
from flows.settings import read_settings
from flows.workspace import Workspace
from pipelines.errors import ConfigError, InputError
from pipelines.lineage import pages, stream
from pipelines.store import Store
from pipelines.takedown.outputs import register_output

if TYPE_CHECKING:
    from llm.data import TokenData
    from llm.evaluation.nearest import Stretch
    from llm.sample import Sampling
    from llm.weights import Which

_TRAIN = "train"
_MAX_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """The training of a model: what it read, and where that came from."""

    store: Store
    recipe: str
    data: "TokenData"
    num_missing_shards: int

    def urls_of(self, doc_ids: Sequence[str]) -> dict[str, str]:
        done = {name: ref for name in ("extract", "dedup") if (ref := self.store.ref(self.recipe, name)) is not None}
        found = pages(self.store, done, doc_ids) if len(done) == 2 else {}
        return {doc_id: page["url"] for doc_id, page in found.items() if page["url"]}


def inspect_text(
    text: str, recipe_path: Path | None, workspace_path: Path | None, out: Path, *, model: Path | None, which: "Which"
) -> dict[str, Any]:
    """Write the page of a text as a model reads it. Documents are named where the model was trained in the workspace."""
    from flows.model.interpret_page import text_facts, write_page
    from llm.evaluation.nearest import MIN_TOKENS, nearest_documents

    folder, place = chosen_folder(recipe_path, workspace_path, model), Workspace.of(read_settings(workspace_path))
    writer = Writer.load(folder, which)
    ids = _ids(writer, text)
    read = _reading(place, folder)
    (nearest,) = [()] if read is None else nearest_documents(read.data.documents(), [ids], urls_of=read.urls_of)
    facts = text_facts(
        writer.model,
        text,
        lambda given: writer.encoder.encode_batch([given])[0].tolist(),
        lambda given: writer.encoder.decode(list(given)),
        writer.encoder.eot_token,
        nearest=nearest,
    )
    path = write_page(out / "inspection.html", folder.name, facts)
    register_output(place.output_ledger, "inspection page", path, recipe=read.recipe if read is not None else "")
    bits, num_bytes = sum(facts.bits), len(text.encode())
    return {
        "path": str(path),
        "model": folder.name,
        "num_tokens": len(ids),
        "bits": bits,
        "bits_per_byte": bits / num_bytes,
        "is_training_known": read is not None,
        "min_tokens": MIN_TOKENS,
        "nearest": [_told(each, ids, writer) for each in nearest],
    }


def inspection_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    yield found["path"]
    yield f"  {found['num_tokens']:,} tokens, {found['bits_per_byte']:.2f} bits a byte, as {found['model']} reads it"
    yield from _nearest_lines(found)


def nearest_to(
    text: str,
    recipe_path: Path | None,
    workspace_path: Path | None,
    *,
    model: Path | None,
    which: "Which",
    sampling: "Sampling | None",
    min_tokens: int,
    num_nearest: int,
) -> dict[str, Any]:
    """The training documents with the longest stretches of a text, or with `sampling` of what the model writes after it.

    Raises InputError where it is not known what the model was trained on.
    """
    from llm.evaluation.nearest import nearest_documents

    folder, place = chosen_folder(recipe_path, workspace_path, model), Workspace.of(read_settings(workspace_path))
    read = _reading(place, folder)
    if read is None:
        raise InputError(
            f"got {folder}, of which {place.root} does not know what it was trained on, wanted a model that was trained "
            "there: leave --model out, or pass its --workspace."
        )
    writer = Writer.load(folder, which)
    written = text if sampling is None else writer.go_on(text, sampling).text
    ids = _ids(writer, written)
    (nearest,) = nearest_documents(
        read.data.documents(), [ids], min_tokens=min_tokens, num_nearest=num_nearest, urls_of=read.urls_of
    )
    return {
        "text": written,
        "model": folder.name,
        "is_generated": sampling is not None,
        "num_tokens": len(ids),
        "min_tokens": min_tokens,
        "missing_shards": read.num_missing_shards,
        "nearest": [_told(each, ids, writer) for each in nearest],
    }


def nearest_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    if found["is_generated"]:
        yield found["text"]
    yield from _nearest_lines(found)
    if found["missing_shards"]:
        yield f"  {found['missing_shards']} token shards are gone and were not searched"


def _nearest_lines(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["nearest"]:
        known = found.get("is_training_known", True)
        shared = f"no training document shares {found['min_tokens']:,} tokens in a row with it"
        yield f"  {shared}" if known else "  what it was trained on is not known here"
    for each in found["nearest"]:
        shared = " ".join(each["shared"].split())
        shown = shared if len(shared) <= _MAX_SHOWN_CHARS else f"{shared[: _MAX_SHOWN_CHARS - 3]}..."
        yield f"  {each['num_tokens']:>4,} tokens  {each['url'] or each['doc_id']}  {shown}"


def _told(stretch: "Stretch", ids: Sequence[int], writer: Writer) -> dict[str, Any]:
    return {
        "doc_id": stretch.doc_id,
        "url": stretch.url,
        "num_tokens": stretch.num_tokens,
        "start": stretch.start,
        "document_start": stretch.document_start,
        "shared": writer.encoder.decode(list(ids[stretch.start : stretch.start + stretch.num_tokens])),
    }


def _ids(writer: Writer, text: str) -> list[int]:
    ids: list[int] = writer.encoder.encode_batch([text])[0].tolist()
    if not ids:
        raise ConfigError("TEXT: got an empty text, wanted at least a character: write one.")
    return ids


def _reading(place: Workspace, folder: Path) -> _Read | None:
    """What a model's folder was trained on; None where it is not one of the workspace, or all of that is gone."""
    from llm.data import TokenData

    if folder.absolute().parent != (place.root / "models").absolute():
        return None
    facts = next((each for each in known_trainings(place) if each["folder"] == folder.name), None)
    if facts is None:
        return None
    store = place.open_store()
    stretches = list(stream(store, facts["token_shards"], _TRAIN, facts["num_train_tokens"]))
    paths = [store.shard_path(each.digest) for each in stretches if each.is_there]
    if not paths:
        return None
    return _Read(
        store=store,
        recipe=facts["recipe"],
        data=TokenData.open(paths, _TRAIN, digest=facts["dataset_digest"]),
        num_missing_shards=len(stretches) - len(paths),
    )
