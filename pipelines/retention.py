"""What of a store may go: what no live recipe reaches, once it is old enough or was taken down.

A shard is reached from the newest build of a recipe, from a training that is to be reproducible, or from the config of a
stage that such a build ran (a given tokenizer). What is not reached is kept for a while, so that going back to an
earlier threshold costs nothing; but not what a take-down made obsolete, nor what still holds a document that was taken
down. Only for the holder of the workspace lock.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import IntegrityError, SchemaError
from pipelines.store import Record, Shard, Store

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """What must stay, beside the newest build of every recipe, and what must go."""

    kept: frozenset[str] = frozenset()
    """Digests of shards that are needed: of trainings."""
    condemned: frozenset[str] = frozenset()
    """Digests of shards that go whatever their age, unless a recipe still reaches them."""
    doc_ids: frozenset[str] = frozenset()
    """Documents that were taken down: a shard that is not reached and names one goes whatever its age."""


@dataclass(slots=True, kw_only=True)
class Sweep:
    """What `sweep` removed, or would, and what it left."""

    objects: list[str] = field(default_factory=list)
    """Digests of the shards."""
    num_bytes: int = 0
    """Of those shards."""
    num_taken_down: int = 0
    """Of those shards, went for a take-down."""
    num_records: int = 0
    num_reached: int = 0
    """Shards that stay since something reaches them."""
    num_young: int = 0
    """Shards that nothing reaches and that stay since they are young."""
    held: list[str] = field(default_factory=list)
    """Condemned shards that stay since a recipe still reaches them: it was not built since the take-down."""


def sweep(store: Store, roots: Roots, *, now: float, keep_days: float, is_dry: bool) -> Sweep:
    """Remove what may go; `is_dry` only says what. Raises IntegrityError, and removes nothing, for a damaged manifest."""
    live, keys = _reached(store)
    cannot_go = live | (roots.kept - roots.condemned)
    oldest = now - keep_days * _SECONDS_A_DAY
    done = Sweep(held=sorted(live & roots.condemned))
    for each in list(store.objects()):
        if each.digest in cannot_go:
            done.num_reached += 1
            continue
        is_taken_down = each.digest in roots.condemned or _names(store, each.digest, each.num_bytes, roots.doc_ids)
        if each.changed_at > oldest and not is_taken_down:
            done.num_young += 1
            continue
        done.objects.append(each.digest)
        done.num_bytes += each.num_bytes
        done.num_taken_down += is_taken_down
    gone = frozenset(done.objects)
    records = [
        place for place in store.stored_records() if place[:2] not in keys and _may_go(store, place, gone, oldest)
    ]
    done.num_records = len(records)
    if not is_dry:
        for (
            stage,
            key,
            _,
        ) in records:  # records first: a kill leaves shards that nothing names, and the next sweep finds
            store.remove_record(stage, key)
        for digest in done.objects:
            store.remove_object(digest)
        store.clear_quarantine()  # what is damaged is of no use, and whether it holds a document cannot be told
    return done


def _reached(store: Store) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    """Digests of the shards that the newest builds reach, and the records that made them."""
    digests: set[str] = set()
    keys: set[tuple[str, str]] = set()
    for recipe, stage in store.refs():
        manifest = store.ref(recipe, stage)
        if manifest is None:
            raise IntegrityError(
                f"got a damaged manifest of stage {stage!r} of recipe {recipe!r}, wanted a whole one, since it says what "
                f"must stay: build that recipe again, it is made anew; or remove refs/{recipe} in {store.url}."
            )
        digests |= {entry.shard.digest for entry in manifest.entries}
        keys |= {(stage, entry.key) for entry in manifest.entries}
    for stage in sorted({stage for stage, _ in keys}):
        for record in store.recorded_all(stage, [key for of, key in keys if of == stage]).values():
            digests |= _digests_in(record.key_fields)
            digests |= {shard.digest for shard in record.shards}
    return frozenset(digests), frozenset(keys)


def _digests_in(value: Any) -> set[str]:
    """Every digest in a record's key: inputs, and the resources that its config names."""
    if isinstance(value, str):
        return {value} if _DIGEST.fullmatch(value) else set()
    if isinstance(value, Mapping):
        return {digest for item in value.values() for digest in _digests_in(item)}
    if isinstance(value, list | tuple):
        return {digest for item in value for digest in _digests_in(item)}
    return set()


def _may_go(store: Store, place: tuple[str, str, float], gone: Collection[str], oldest: float) -> bool:
    """Whether a record is old, or names a shard that goes."""
    stage, key, changed_at = place
    if changed_at <= oldest:
        return True
    record: Record | None = store.recorded(stage, key)
    return record is None or any(shard.digest in gone for shard in record.shards)


def _names(store: Store, digest: str, num_bytes: int, doc_ids: frozenset[str]) -> bool:
    """Whether a shard names one of the documents."""
    if not doc_ids:
        return False
    shard = Shard(digest, num_bytes, 0)
    wanted = pa.array(sorted(doc_ids), pa.string())
    try:
        batches = store.read_chosen(shard, lambda schema: ["doc_id"] if "doc_id" in schema.names else [])
        return any(pc.any(pc.is_in(batch.column("doc_id"), wanted)).as_py() for batch in batches)
    except (IntegrityError, SchemaError, pa.ArrowInvalid):
        return True  # damaged, and so of no use to anybody
