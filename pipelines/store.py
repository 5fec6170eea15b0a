"""The store: immutable shards named by their digest, and the records that say what made them.

    objects/ab/<digest>          a shard: one Arrow IPC stream
    records/<stage>/ab/<key>     what a stage wrote under a key: shards, counts, the fields of the key
    refs/<recipe>/<stage>        the manifest of the newest build of a recipe
    lent/ab/<digest>             a file of the host that builds, for the workers of a cluster, while they need it
    quarantine/                  what was found damaged
    tmp/                         what is being written

All this lies in a local folder, or under a prefix of a bucket (`storage`). A shard is written aside and checked, then published
whole or not at all; the record comes last. So a killed run leaves whole shards or nothing. Shards are Arrow IPC *streams*,
because `datasets` memory-maps those; Arrow reads them without a copy as well.

In a folder, publishing seals a shard: a fixed modification time, no write permission. One whose time or size is not as sealed
is hashed again before it counts as present: an edit by hand is found at once, while a check of a thousand untouched
shards costs a thousand stat calls, or one listing of a bucket. `read` has every byte hashed, once by each opened store
while nothing hints at a change.
"""

import contextlib
import errno
import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipelines.digest import canonical_json, digest_bytes, digest_file, digest_value
from pipelines.errors import ConfigError, FullDiskError, IntegrityError, SchemaError, StorageError
from pipelines.storage import Storage
from pipelines.storage.copies import Copies
from pipelines.storage.folder import Folder

_NUM_RECORDS_AT_ONCE = 1000
# No thread of Arrow's has a part in reading or writing: to hand over a column of a thousand rows takes as long as the work.

Compression = Literal["zstd", "lz4"]
"""Of a shard's buffers, each by itself, as Arrow's format has it."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One immutable file of records, named by its content."""

    digest: str
    num_bytes: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A shard that lies in the store, whole or not, whether a record names it or none does."""

    digest: str
    num_bytes: int
    changed_at: float
    """When it was put there, in seconds since 1970 UTC, by the clock of what holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a stage wrote under a key. Holds nothing that differs between two honest runs."""

    stage: str
    key: str
    key_fields: Mapping[str, Any]
    shards: tuple[Shard, ...]
    counts: tuple[Mapping[str, int], ...]
    """For each shard, what its stage counted in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One shard of a manifest: which input unit it stems from, under which key it was made."""

    unit: str
    key: str
    shard: Shard
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The output of a stage: its shards in the order of their units."""

    stage: str
    entries: tuple[Entry, ...]

    @property
    def digest(self) -> str:
        """Digest of the content: equal for equal shards, whatever their files were called."""
        return digest_value([self.stage, sorted(entry.shard.digest for entry in self.entries)])

    @property
    def num_rows(self) -> int:
        return sum(entry.shard.num_rows for entry in self.entries)

    @property
    def num_bytes(self) -> int:
        return sum(entry.shard.num_bytes for entry in self.entries)

    def by_unit(self) -> dict[str, Entry]:
        return {entry.unit: entry for entry in self.entries}

    def counts(self) -> dict[str, int]:
        """Sum of what was counted in every shard, reused ones included."""
        total: dict[str, int] = {}
        for entry in self.entries:
            for name, count in entry.counts.items():
                total[name] = total.get(name, 0) + count
        return dict(sorted(total.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a store is: all that another process needs to open it. Credentials are in each one's environment."""

    root: Path
    """A local folder: the store itself, or for a bucket its copies and what is being written."""
    bucket: str | None = None
    """s3://BUCKET/PREFIX, where shards and records lie in object storage."""
    max_copies_num_bytes: int = 20 << 30
    """Of the copies of a bucket's shards; what a process holds by path, such as token shards in training, comes on top."""


class Store:
    """Shards and records, in a folder or a bucket. Safe for several writers: publishing is idempotent."""

    def __init__(self, place: Path | Place, *, beneath: "Store | None" = None) -> None:
        """Open or create the store; what it lacks is looked up in `beneath`, never written there.

        Raises StorageError where the folder cannot be made. A bucket is not asked before it is used; open it anew for each
        run, since what was once listed is taken to be there.
        """
        self.place = Place(root=place) if isinstance(place, Path) else place
        self.root = self.place.root
        self.beneath = beneath
        self._storage = _storage(self.place)
        with storage_errors(self.root):
            (self.root / "tmp").mkdir(parents=True, exist_ok=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Store, beneath=self.beneath), (self.place,)

    @property
    def url(self) -> str:
        """Where it lies, for people to read."""
        return self._storage.url

    @contextlib.contextmanager
    def exclusive(self, owner: str, lock: Path) -> Iterator[None]:
        """Be its only writer within the block. `lock` is a file that this process has locked.

        Raises StorageError where another machine writes; each write does where another took over meanwhile, since this
        one was not heard of.
        """
        with self._storage.exclusive(owner, lock):
            yield

    # shards

    def shard_path(self, digest: str) -> Path:
        """Where a shard lies, or would lie. Of a bucket's shard: a verified copy, which stays until this process ends."""
        name = object_name(digest)
        if self.beneath is not None and self._storage.stat(name) is None:
            return self.beneath.shard_path(digest)
        with storage_errors(self.root):
            return self._storage.hold(name, digest)

    def write(
        self,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        *,
        compression: Compression | None = "zstd",
        before: Shard | None = None,
    ) -> Shard:
        """Write batches as one shard. Raises SchemaError for a batch that is not as declared, StorageError for the disk.

        `before` was written in the same way, by the same version of Arrow: where it holds these very batches, nothing is
        written, which saves half the time.
        """
        if before is not None:
            batches = iter(batches)
            begun, are_all = self._compared(before, batches)
            if are_all:
                return before
            batches = chain(begun, batches)
        temporary = self.root / "tmp" / f"{uuid.uuid4().hex}.arrow"
        options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
        num_rows = 0
        try:
            with (
                storage_errors(self.root),
                pa.OSFile(str(temporary), "wb") as sink,
                pa.ipc.new_stream(sink, schema, options=options) as writer,
            ):
                for batch in batches:
                    _check(batch, schema)
                    if batch.num_rows:
                        writer.write_batch(_copied(batch))
                        num_rows += batch.num_rows
            with storage_errors(self.root):
                digest, num_bytes = digest_file(temporary), temporary.stat().st_size
                self._storage.publish(temporary, object_name(digest), digest)
            return Shard(digest, num_bytes, num_rows)
        finally:
            temporary.unlink(missing_ok=True)

    def _compared(self, shard: Shard, batches: Iterator[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], bool]:
        """Batches up to the first that is not the shard's, to the byte; and whether the shard holds these and no other."""
        there, begun = self.read(shard), list[pa.RecordBatch]()
        for batch in batches:
            if batch.num_rows:
                begun.append(batch)
                other = _next_if_whole(there)
                if other is None or not _is_equal(_copied(batch), other):
                    return begun, False
        return begun, bool(begun) and _next_if_whole(there) is None

    def has(self, shard: Shard) -> bool:
        """Whether a shard is present and whole, as far as can be told without reading it. What is damaged is moved to quarantine."""
        return shard in self._present([shard], mends=True)

    def check(self, shard: Shard) -> bool:
        """Like `has`, but hashes every byte that is stored."""
        return self._check(shard, mends=True)

    def expect(self, shard: Shard) -> None:
        """Verify a shard by every byte; raises IntegrityError where it is damaged or missing."""
        self._local_path(shard)

    def read(self, shard: Shard, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Verify a shard, then yield its batches; `columns` limits what is decoded.

        Raises IntegrityError where the bytes are not what the digest says; the damaged file is moved
        aside, so that the next run makes it again.
        """
        yield from self.read_chosen(shard, lambda _schema: columns)

    def read_chosen(
        self, shard: Shard, choose: Callable[[pa.Schema], Sequence[str] | None]
    ) -> Iterator[pa.RecordBatch]:
        """Like `read`, with columns that are chosen by the shard's own schema; with none chosen it is verified only."""
        with self._opened(shard) as source:
            schema = pa.ipc.read_schema(source)
            source.seek(0)
            columns = choose(schema)
            included = None if columns is None else [schema.get_field_index(name) for name in columns]
            if included is not None and -1 in included:
                raise SchemaError(
                    f"got columns {schema.names}, wanted {list(columns or ())}: rebuild with this version."
                )
            if included == []:
                return
            options = pa.ipc.IpcReadOptions(included_fields=included, use_threads=False)
            reader = pa.ipc.open_stream(source, options=options)
            for batch in reader:
                yield batch if columns is None else batch.select(list(columns))

    def objects(self) -> Iterator[StoredObject]:
        """Every shard that lies here, in the order of digests."""
        for blob in self._storage.list("objects/"):
            yield StoredObject(blob.name.rpartition("/")[2], blob.num_bytes, blob.changed_at)

    def remove_object(self, digest: str) -> None:
        """Remove a shard, if it is there, and its copy. Only for the holder of the workspace lock."""
        with storage_errors(self.root):
            self._storage.remove(object_name(digest))

    def _opened(self, shard: Shard) -> pa.NativeFile:
        while True:
            with contextlib.suppress(FileNotFoundError):  # a copy that gave way to others meanwhile
                return pa.memory_map(str(self._local_path(shard)))

    def _local_path(self, shard: Shard) -> Path:
        path = self._local(shard, mends=True)
        if path is None:
            raise IntegrityError(
                f"got a damaged or missing shard {shard.digest[:12]}, wanted {shard.num_bytes} bytes with that digest: "
                "run the same command again, it is made anew."
            )
        return path

    def _local(self, shard: Shard, *, mends: bool) -> Path | None:
        """A local file with the verified bytes. What is damaged is moved aside if `mends`."""
        name = object_name(shard.digest)
        with storage_errors(self.root):
            path = self._storage.local(name, shard.digest)
            if path is None and self._check(shard, mends=mends):  # in the store beneath, or made anew meanwhile
                beneath = self.beneath._local(shard, mends=False) if self.beneath is not None else None  # noqa: SLF001
                return beneath or self._storage.local(name, shard.digest)
            if path is not None and mends:
                self._storage.seal(name)
            return path

    def _check(self, shard: Shard, *, mends: bool) -> bool:
        name = object_name(shard.digest)
        with storage_errors(self.root):
            blob = self._storage.stat(name)
            if blob is None:  # never made, or just moved aside by another worker
                return self.beneath is not None and self.beneath._check(shard, mends=False)  # noqa: SLF001
            is_whole = blob.num_bytes == shard.num_bytes and self._storage.digest(name) == shard.digest
            if mends and is_whole:
                self._storage.seal(name)
            elif mends:
                self._storage.set_aside(blob)
            return is_whole

    def _present(self, shards: Sequence[Shard], *, mends: bool) -> set[Shard]:
        """Those that are there and whole, told without reading what nothing hints at being changed."""
        blobs = self._storage.stat_all({object_name(shard.digest) for shard in shards}, "objects/")
        present, rest = set(), []
        for shard in shards:
            blob = blobs.get(object_name(shard.digest))
            if blob is None:
                rest.append(shard)
            elif (blob.is_sealed and blob.num_bytes == shard.num_bytes) or self._check(shard, mends=mends):
                present.add(shard)
        if rest and self.beneath is not None:  # what lies beneath is not ours to move
            present |= self.beneath._present(rest, mends=False)  # noqa: SLF001
        return present

    # files that are lent to other hosts

    def lend(self, path: Path, digest: str) -> None:
        """Put a copy of a file of this host there, for hosts that have only the store. The file stays as it is."""
        with storage_errors(self.root):
            self._storage.lend(path, lent_name(digest))

    def borrow(self, digest: str) -> Path:
        """A verified copy of a lent file, of this process; the path where it would lie if it is missing or another."""
        with storage_errors(self.root):
            return self._storage.hold(lent_name(digest), digest)

    def take_back(self, digest: str) -> None:
        """Remove a lent file, if it is there."""
        with storage_errors(self.root):
            self._storage.remove(lent_name(digest))

    # records

    def find(self, stage: str, key: str) -> Record | None:
        """The record under a key, if it and every shard it names are whole."""
        return self.find_all(stage, [key]).get(key)

    def find_all(self, stage: str, keys: Iterable[str]) -> dict[str, Record]:
        """The records under many keys, by key; without those that `find` would not find."""
        records = self.recorded_all(stage, keys)
        present = self._present([shard for record in records.values() for shard in record.shards], mends=True)
        return {key: record for key, record in records.items() if present.issuperset(record.shards)}

    def recorded(self, stage: str, key: str) -> Record | None:
        """The record under a key, if it is whole, whatever became of its shards."""
        return self.recorded_all(stage, [key]).get(key)

    def recorded_all(self, stage: str, keys: Iterable[str]) -> dict[str, Record]:
        """The records under many keys that `recorded` would find, by key."""
        return self._recorded(stage, list(keys), mends=True)

    def _recorded(self, stage: str, keys: Sequence[str], *, mends: bool) -> dict[str, Record]:
        names = {key: record_name(stage, key) for key in keys}
        found = self._storage.read_all(names.values(), f"records/{stage}/")
        records: dict[str, Record] = {}
        for key, name in names.items():
            if name not in found:
                continue
            record = _record_in(found[name])
            if record is not None and (record.stage, record.key) == (stage, key):  # else a copy of another one
                records[key] = record
            elif mends:
                self._set_record_aside(name, found[name])
        rest = [key for key in keys if key not in records]
        if rest and self.beneath is not None:
            records |= self.beneath._recorded(stage, rest, mends=False)  # noqa: SLF001
        return records

    def forget(self, record: Record) -> None:
        """Move a record aside whose shards are not all there; one whose shards were made anew meanwhile stays."""
        if self.find(record.stage, record.key) is None:
            self._set_record_aside(record_name(record.stage, record.key), _dump_record(record))

    def _set_record_aside(self, name: str, damaged: bytes) -> None:
        with storage_errors(self.root), contextlib.suppress(FileNotFoundError):
            blob = self._storage.stat(name)
            if blob is not None and self._storage.read(name) == damaged:  # nobody replaced it
                self._storage.set_aside(blob)

    def publish(self, record: Record) -> None:
        """Store a record; last of all, once its shards are in place."""
        self._write(record_name(record.stage, record.key), _dump_record(record))

    def records(self) -> Iterator[tuple[str, Record | None]]:
        """Every record with its name, `records/STAGE/ab/KEY`; None for one that cannot be read."""
        names = (blob.name for blob in self._storage.list("records/"))
        while some := list(islice(names, _NUM_RECORDS_AT_ONCE)):
            found = self._storage.read_all(some)
            for name in some:
                if name in found:
                    yield name, _record_in(found[name])

    def stored_records(self) -> Iterator[tuple[str, str, float]]:
        """Stage and key of every record, readable or not, and when it was put there, in seconds since 1970 UTC."""
        for blob in self._storage.list("records/"):
            _, stage, _, key = blob.name.split("/", 3)
            yield stage, key, blob.changed_at

    def remove_record(self, stage: str, key: str) -> None:
        """Forget what a stage wrote under a key, if it is there. Only for the holder of the workspace lock."""
        with storage_errors(self.root):
            self._storage.remove(record_name(stage, key))

    # refs

    def set_ref(self, recipe: str, manifest: Manifest) -> None:
        """Make a manifest the newest of its stage for a recipe."""
        body = {
            "stage": manifest.stage,
            "digest": manifest.digest,
            "entries": [
                {"unit": entry.unit, "key": entry.key, "shard": _shard_json(entry.shard), "counts": dict(entry.counts)}
                for entry in manifest.entries
            ],
        }
        sealed = {**body, "body_digest": _body_digest(body)}
        self._write(f"refs/{recipe}/{manifest.stage}", json.dumps(sealed, indent=1, sort_keys=True).encode())

    def ref(self, recipe: str, stage: str) -> Manifest | None:
        """The newest manifest of a stage for a recipe; None if there is none that can be read."""
        try:
            body = json.loads(self._storage.read(f"refs/{recipe}/{stage}"))
            if body.pop("body_digest") != _body_digest(body) or body["stage"] != stage:
                return None  # damaged, or of a version that did not say
            entries = tuple(
                Entry(unit=item["unit"], key=item["key"], shard=Shard(**item["shard"]), counts=item["counts"])
                for item in body["entries"]
            )
        except FileNotFoundError:
            return self.beneath.ref(recipe, stage) if self.beneath is not None else None
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError):
            return None
        return Manifest(stage, entries)

    def refs(self) -> Iterator[tuple[str, str]]:
        """Recipe and stage of every ref, readable or not."""
        for blob in self._storage.list("refs/"):
            _, recipe, stage = blob.name.split("/", 2)
            yield recipe, stage

    def remove_ref(self, recipe: str, stage: str) -> None:
        """Forget the newest manifest of a stage, if there is one. Only for the holder of the workspace lock."""
        with storage_errors(self.root):
            self._storage.remove(f"refs/{recipe}/{stage}")

    def clear_quarantine(self) -> None:
        """Remove for good what was found damaged. Only for the holder of the workspace lock."""
        with storage_errors(self.root):
            for blob in list(self._storage.list("quarantine/")):
                self._storage.remove(blob.name)

    def clear_temporary(self) -> None:
        """Remove what killed runs left half-written, and copies of what is no longer stored. Only for the holder of the workspace lock."""
        shutil.rmtree(self.root / "tmp", ignore_errors=True)
        (self.root / "tmp").mkdir(parents=True, exist_ok=True)
        with storage_errors(self.root):
            self._storage.tidy()
            for blob in list(self._storage.list("lent/")):
                self._storage.remove(blob.name)

    def _write(self, name: str, body: bytes) -> None:
        with storage_errors(self.root):
            self._storage.write(name, body)


def _storage(place: Place) -> Storage:
    if place.bucket is None:
        return Folder(place.root)
    from pipelines.storage.bucket import Bucket

    return Bucket(place.bucket, Copies(place.root, place.max_copies_num_bytes))


@contextlib.contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turn a failing disk into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            raise FullDiskError(
                f"got a full disk under {place}, wanted room to write: free some space and run again."
            ) from error
        raise StorageError(
            f"got {error} under {place}, wanted a folder that can be written: check it and run again."
        ) from error


def _check(batch: pa.RecordBatch, schema: pa.Schema) -> None:
    if not batch.schema.equals(schema):
        raise SchemaError(
            f"got columns {batch.schema.names}, wanted {schema.names} of the declared types: mend the stage."
        )
    for name, kind, column in zip(schema.names, schema, batch.columns, strict=True):
        if not kind.nullable and column.null_count:
            raise SchemaError(f"got {column.null_count} nulls in {name!r}, wanted none: mend the stage.")


def _next_if_whole(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    with contextlib.suppress(IntegrityError, FileNotFoundError):
        return next(batches, None)
    return None


def _is_equal(a: pa.RecordBatch, b: pa.RecordBatch) -> bool:
    """Whether two batches are written as the same bytes: of equal numbers, -0.0 and 0.0 are not."""
    return a.schema.equals(b.schema) and a.serialize().equals(b.serialize())


def _copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows in memory of their own.

    Arrow writes a slice with up to 63 bytes of its neighbours, and whatever lies beneath a null. A shard cut out of
    a larger batch would change with rows that are not in it.
    """
    return batch.take(pa.array(np.arange(batch.num_rows)))


def object_name(digest: str) -> str:
    """What a shard goes by in a store."""
    return f"objects/{digest[:2]}/{digest}"


def lent_name(digest: str) -> str:
    """What a lent file goes by in a store."""
    return f"lent/{digest[:2]}/{digest}"


def record_name(stage: str, key: str) -> str:
    """What a record goes by in a store."""
    return f"records/{stage}/{key[:2]}/{key}"


def _shard_json(shard: Shard) -> dict[str, Any]:
    return {"digest": shard.digest, "num_bytes": shard.num_bytes, "num_rows": shard.num_rows}


def _body_digest(body: Mapping[str, Any]) -> str:
    return digest_bytes(json.dumps(body, sort_keys=True).encode())


_ENVELOPE = b'{"digest":"%s","record":%s}'
_RECORD_START = len(_ENVELOPE % (bytes(64), b"")) - 1


def _dump_record(record: Record) -> bytes:
    body = {
        "stage": record.stage,
        "key": record.key,
        "key_fields": dict(record.key_fields),
        "shards": [_shard_json(shard) for shard in record.shards],
        "counts": [dict(counts) for counts in record.counts],
    }
    text = canonical_json(body).encode()
    return _ENVELOPE % (digest_bytes(text).encode(), text)


def _record_in(data: bytes) -> Record | None:
    """The record in these bytes; None where a person or a bad disk has changed them."""
    try:
        return _load_record(data)
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError, IntegrityError):
        return None


def _load_record(data: bytes) -> Record:
    text = data[
        _RECORD_START:-1
    ]  # the digest is of these very bytes, so that nothing must be written out again to check it
    if data != _ENVELOPE % (digest_bytes(text).encode(), text):
        raise IntegrityError("got a record that does not match its digest, wanted an untouched one: run again.")
    body = json.loads(text)
    return Record(
        stage=body["stage"],
        key=body["key"],
        key_fields=body["key_fields"],
        shards=tuple(Shard(**item) for item in body["shards"]),
        counts=tuple(body["counts"]),
    )
