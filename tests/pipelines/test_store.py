"""The store: what is written is found whole, what is damaged is never used."""

import errno
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from pipelines.errors import FullDiskError, IntegrityError, SchemaError, StorageError, may_pass
from pipelines.storage import folder
from pipelines.store import Entry, Manifest, Record, Shard, Store

SCHEMA = pa.schema([pa.field("doc_id", pa.string(), nullable=False), pa.field("value", pa.int64())])


def batch(*names: str | None) -> pa.RecordBatch:
    values = range(len(names))
    return pa.RecordBatch.from_arrays([pa.array(names, pa.string()), pa.array(values, pa.int64())], schema=SCHEMA)


def record_of(shard: Shard, key: str = "ab" * 32) -> Record:
    return Record(stage="toy", key=key, key_fields={"version": 1}, shards=(shard,), counts=({"rows": 2},))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_what_is_written_is_read(store, compression):
    shard = store.write(SCHEMA, [batch("a", "b"), batch(), batch("c")], compression=compression)
    assert shard.num_rows == 3
    assert pa.Table.from_batches(store.read(shard)).column("doc_id").to_pylist() == ["a", "b", "c"]
    assert [names.schema.names for names in store.read(shard, ["value"])] == [["value"], ["value"]]


def test_columns_come_in_the_order_asked_for(store):
    shard = store.write(SCHEMA, [batch("a")])
    assert next(store.read(shard, ["value", "doc_id"])).schema.names == ["value", "doc_id"]


def test_equal_content_is_one_shard(store):
    first, second = (store.write(SCHEMA, [batch("a", "b")]) for _ in range(2))
    assert first == second
    assert len(list((store.root / "objects").glob("*/*"))) == 1


def test_an_empty_shard_has_a_schema(store):
    shard = store.write(SCHEMA, [])
    assert shard.num_rows == 0
    assert list(store.read(shard)) == []


def test_a_null_in_a_required_column_is_refused_and_leaves_nothing(store):
    with pytest.raises(SchemaError, match="1 nulls in 'doc_id'"):
        store.write(SCHEMA, [batch("a", None)])
    assert list((store.root / "tmp").iterdir()) == []


def test_another_schema_is_refused(store):
    other = pa.record_batch({"doc_id": ["a"]})
    with pytest.raises(SchemaError, match="got columns"):
        store.write(SCHEMA, [other])


def damage_by_edit(path):
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damage_by_cutting(path):
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize("damage", [damage_by_edit, damage_by_cutting, lambda path: path.unlink()])
def test_damage_is_found_and_made_anew(store, damage):
    shard = store.write(SCHEMA, [batch("a", "b")])
    store.publish(record_of(shard))
    assert store.find("toy", "ab" * 32) is not None
    damage(store.shard_path(shard.digest))
    assert store.find("toy", "ab" * 32) is None
    with pytest.raises(IntegrityError, match="run the same command again"):
        list(store.read(shard))
    assert store.write(SCHEMA, [batch("a", "b")]) == shard
    assert store.find("toy", "ab" * 32) is not None
    store.clear_quarantine()
    assert not list(store.root.glob("quarantine/*"))


def test_a_flipped_byte_under_an_old_time_is_found_by_reading(store):
    """A rotting disk changes no time; the reader hashes every byte."""
    shard = store.write(SCHEMA, [batch("a", "b")])
    path = store.shard_path(shard.digest)
    times = path.stat()
    damage_by_edit(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.has(shard)  # a stat cannot see it
    assert not store.check(shard)


def hashes_of(monkeypatch):
    """The names that are hashed from now on."""
    hashed = []
    digest = folder.digest_file
    monkeypatch.setattr(folder, "digest_file", lambda path: hashed.append(path.name) or digest(path))
    return hashed


def test_a_shard_at_rest_is_hashed_once(store, monkeypatch):
    shard = store.write(SCHEMA, [batch("a", "b")])
    hashed = hashes_of(monkeypatch)
    list(store.read(shard))
    list(store.read(shard))
    assert hashed == [shard.digest] * 2  # a moment old: the next write could leave the same times
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    list(store.read(shard))
    list(store.read(shard))
    store.expect(shard)
    assert hashed == [shard.digest] * 3
    assert store.check(shard)
    assert hashed == [shard.digest] * 4
    list(Store(store.root).read(shard))
    assert hashed == [shard.digest] * 5


def test_a_shard_that_changed_since_it_was_hashed_is_hashed_again(store, monkeypatch):
    """Also where size and modification time are put back: the kernel's own time of a change tells."""
    shard = store.write(SCHEMA, [batch("a", "b")])
    path = store.shard_path(shard.digest)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    list(store.read(shard))
    before = path.stat()
    damage_by_edit(path)
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of a file system ticks
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.chmod(before.st_mode)
    assert store.has(shard)
    with pytest.raises(IntegrityError):
        list(store.read(shard))


@pytest.mark.parametrize(
    ("values", "is_same"),
    [
        ([[1.0, 0.0], [None]], True),
        ([[1.0, 0.0], [], [None]], True),
        ([[1.0, -0.0], [None]], False),  # equal numbers, other bytes
        ([[1.0, 0.0, None]], False),
        ([[1.0, 0.0]], False),
        ([[1.0, 0.0], [None], [2.0]], False),
        ([], False),
    ],
)
def test_what_is_written_again_as_it_was_is_not_written(tmp_path, monkeypatch, values, is_same):
    schema = pa.schema([pa.field("value", pa.float64())])
    rows = [pa.record_batch([pa.array(each, pa.float64())], schema=schema) for each in values]
    store, fresh = Store(tmp_path / "store"), Store(tmp_path / "fresh")
    first = [pa.record_batch([pa.array(each, pa.float64())], schema=schema) for each in ([1.0, 0.0], [None])]
    before = store.write(schema, first)
    synced = []
    monkeypatch.setattr(folder, "fsync", synced.append)
    assert store.write(schema, iter(rows), before=before) == fresh.write(schema, rows)
    assert (not any(store.root in path.parents for path in synced)) == is_same


def test_a_shard_that_rotted_is_not_taken_for_what_is_written(store):
    before = store.write(SCHEMA, [batch("a", "b")])
    damage_by_edit(store.shard_path(before.digest))
    assert store.write(SCHEMA, [batch("a", "b")], before=before) == before
    assert list(store.read(before))
    assert list(store.root.glob("quarantine/*"))


def test_a_touched_but_whole_shard_stays(store):
    shard = store.write(SCHEMA, [batch("a")])
    path = store.shard_path(shard.digest)
    path.chmod(0o644)
    path.touch()
    assert store.has(shard)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest": "00", "record": {}}'])
def test_a_damaged_record_is_a_miss(store, text):
    store.publish(record_of(store.write(SCHEMA, [batch("a")])))
    path = next((store.root / "records").glob("*/*/*"))
    path.write_text(text)
    assert store.find("toy", "ab" * 32) is None


def test_an_edited_record_is_a_miss(store):
    store.publish(record_of(store.write(SCHEMA, [batch("a")])))
    path = next((store.root / "records").glob("*/*/*"))
    body = json.loads(path.read_text())
    body["record"]["counts"] = [{"rows": 3}]
    path.write_text(json.dumps(body))
    assert store.find("toy", "ab" * 32) is None


def test_a_full_disk_says_what_to_do(store, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(FullDiskError, match="free some space and run again") as caught:
        store.write(SCHEMA, [batch("a")])
    assert not may_pass(caught.value)
    assert list((store.root / "tmp").iterdir()) == []
    assert not (store.root / "objects").exists() or not list((store.root / "objects").glob("*/*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_says_what_to_do(store, monkeypatch):
    """/dev/full refuses every write with ENOSPC, as a full disk does."""
    monkeypatch.setattr("pipelines.store.uuid.uuid4", lambda: SimpleNamespace(hex="full"))
    (store.root / "tmp" / "full.arrow").symlink_to("/dev/full")
    many = batch(*(str(idx) for idx in range(100_000)))
    with pytest.raises(StorageError, match="full disk"):
        store.write(SCHEMA, [many], compression=None)


def test_a_manifest_keeps_its_digest_when_units_are_renamed(store):
    shards = [store.write(SCHEMA, [batch(name)]) for name in "ab"]
    one = Manifest("toy", tuple(Entry(unit=name, key="k", shard=s) for name, s in zip("xy", shards, strict=True)))
    two = Manifest("toy", tuple(Entry(unit=name, key="k", shard=s) for name, s in zip("qp", shards[::-1], strict=True)))
    assert one.digest == two.digest
    store.set_ref("recipe", one)
    assert store.ref("recipe", "toy") == one
    assert store.ref("recipe", "other") is None


def test_a_scratch_store_reads_what_lies_beneath_and_writes_nothing_there(store, tmp_path):
    shard = store.write(SCHEMA, [batch("a")])
    store.publish(record_of(shard))
    before = sorted(str(path) for path in store.root.rglob("*"))
    scratch = Store(tmp_path / "scratch", beneath=store)
    assert scratch.find("toy", "ab" * 32) == record_of(shard)
    assert len(list(scratch.read(shard))) == 1
    scratch.publish(record_of(scratch.write(SCHEMA, [batch("z")]), key="cd" * 32))
    assert sorted(str(path) for path in store.root.rglob("*")) == before


def test_what_lies_in_the_store_is_told_and_removed(store):
    shards = [store.write(SCHEMA, [batch(name)]) for name in "ab"]
    for shard in shards:
        store.publish(record_of(shard, key=shard.digest))
    store.set_ref("recipe", Manifest("toy", ()))
    assert [(each.digest, each.num_bytes) for each in store.objects()] == sorted(
        (shard.digest, shard.num_bytes) for shard in shards
    )
    assert all(abs(each.changed_at - time.time()) < 60 for each in store.objects())
    assert {record.shards[0] for _, record in store.records()} == set(shards)
    assert list(store.refs()) == [("recipe", "toy")]
    for _ in range(2):
        store.remove_object(shards[0].digest)
        store.remove_record("toy", shards[0].digest)
    assert [each.digest for each in store.objects()] == [shards[1].digest]
    assert [name.rpartition("/")[2] for name, _ in store.records()] == [shards[1].digest]
    assert not store.has(shards[0])
