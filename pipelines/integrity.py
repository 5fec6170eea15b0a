"""Whether all that lies in a store is what its name says: every byte is read."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipelines.store import Shard, Store, object_name, record_name


@dataclass(slots=True)
class StoreCheck:
    """What was read, and what of it is damaged or missing."""

    num_shards: int = 0
    num_bytes: int = 0
    """Of those shards."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Name in the store (objects/ab/DIGEST, records/STAGE/ab/KEY, refs/RECIPE/STAGE) to what a person calls it."""
    records_moved: set[str] = field(default_factory=set)
    """Records that were moved aside since they name what is damaged."""


def check_store(store: Store) -> StoreCheck:
    """Read every shard, record and manifest, and ask for what a record or manifest names although it is not there.

    Damaged shards are moved aside with the records that name them, so that the next run makes them; a run writes its
    manifests anew anyway. A lost file that nothing names leaves no trace.
    """
    check, seen = StoreCheck(), _Seen(store)
    for name, record in store.records():
        _, stage, _, key = name.split("/", 3)
        if record is None or (record.stage, record.key) != (stage, key):
            check.damaged[name] = name
            store.recorded(stage, key)  # moves it aside
        elif not seen.are_whole(record.shards, stage, check):
            check.records_moved.add(name)
            store.forget(record)
    for recipe, stage in store.refs():
        manifest = store.ref(recipe, stage)
        if manifest is None:
            check.damaged[f"refs/{recipe}/{stage}"] = f"manifest of {stage} of recipe {recipe}"
            continue
        seen.are_whole([entry.shard for entry in manifest.entries], stage, check)
        keys = {entry.key for entry in manifest.entries}
        lost = {record_name(stage, key) for key in keys - store.recorded_all(stage, keys).keys()}
        check.damaged |= {name: name for name in sorted(lost - check.records_moved)}
    unnamed = [Shard(item.digest, item.num_bytes, 0) for item in store.objects() if item.digest not in seen.whole]
    seen.are_whole(unnamed, "unnamed", check)
    return check


@dataclass(slots=True)
class _Seen:
    """Shards that were read, by digest: whether each is whole."""

    store: Store
    whole: dict[str, bool] = field(default_factory=dict)

    def are_whole(self, shards: Iterable[Shard], stage: str, check: StoreCheck) -> bool:
        """Read those that were not read yet, and note what is damaged."""
        are_whole = True
        for shard in shards:
            if shard.digest not in self.whole:
                self.whole[shard.digest] = self.store.check(shard)
                check.num_shards += 1
                check.num_bytes += shard.num_bytes
                if not self.whole[shard.digest]:
                    check.damaged[object_name(shard.digest)] = f"{stage} shard {shard.digest[:16]}"
            are_whole = are_whole and self.whole[shard.digest]
        return are_whole
