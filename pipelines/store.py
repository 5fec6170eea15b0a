"""The store: immutable shards named by their digest, and the records that say what made them.

    objects/ab/<digest>          a shard: one Arrow IPC stream
    records/<stage>/ab/<key>     what a stage wrote under a key: shards, counts, the fields of the key
    refs/<recipe>/<stage>        the manifest of the newest build of a recipe
    quarantine/                  what was found damaged
    tmp/                         what is being written

A shard is written aside, checked, fsynced, sealed and renamed; the record comes last. So a killed
run leaves whole shards or nothing. Shards are Arrow IPC *streams*, because `datasets` memory-maps
those; Arrow reads them without a copy as well.

Sealing sets a fixed modification time and removes write permission. A shard whose time or size is
not as sealed is hashed again before it counts as present: an edit by hand is found at once, while
a check of a thousand untouched shards costs a thousand stat calls. `read` hashes every byte.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.digest import canonical_json, digest_bytes, digest_file, digest_value
from pipelines.errors import ConfigError, IntegrityError, SchemaError, StorageError

_SEALED_AT_NS = 1_000_000_000 * 1_000_000_000
"""The modification time of every sealed shard (2001-09-09); no fresh edit can have it by accident."""
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, ConfigError, IntegrityError)
"""What reading a record raises that a person or a bad disk has changed."""


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


class Store:
    """A folder of shards and records. Safe for several writers: publishing is idempotent."""

    def __init__(self, root: Path, *, beneath: "Store | None" = None) -> None:
        """Open or create the store at `root`; what it lacks is looked up in `beneath`, never written there."""
        self.root = root
        self.beneath = beneath
        with storage_errors(root):
            (root / "tmp").mkdir(parents=True, exist_ok=True)

    # shards

    def shard_path(self, digest: str) -> Path:
        """Where a shard lies, or would lie."""
        return self._locate(f"objects/{digest[:2]}/{digest}")

    def _locate(self, place: str) -> Path:
        """Where a file lies: here, or in the store beneath if only that has it."""
        path = self.root / place
        if self.beneath is not None and not path.exists():
            beneath = self.beneath._locate(place)  # noqa: SLF001
            return beneath if beneath.exists() else path
        return path

    def write(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, compressed: bool = True) -> Shard:
        """Write batches as one shard. Raises SchemaError for a batch that is not as declared, StorageError for the disk."""
        temporary = self.root / "tmp" / f"{uuid.uuid4().hex}.arrow"
        options = pa.ipc.IpcWriteOptions(compression="zstd" if compressed else None)
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
            return self._publish(temporary, num_rows)
        finally:
            temporary.unlink(missing_ok=True)

    def _publish(self, temporary: Path, num_rows: int) -> Shard:
        with storage_errors(self.root):
            _fsync(temporary)
            digest = digest_file(temporary)
            path = self.root / "objects" / digest[:2] / digest
            path.parent.mkdir(parents=True, exist_ok=True)
            num_bytes = temporary.stat().st_size
            temporary.chmod(0o444)
            os.utime(temporary, ns=(_SEALED_AT_NS, _SEALED_AT_NS))
            temporary.replace(path)
            _fsync(path.parent)
        return Shard(digest, num_bytes, num_rows)

    def has(self, shard: Shard) -> bool:
        """Whether a shard is present and whole. What is damaged is moved to quarantine."""
        path = self.shard_path(shard.digest)
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        if status.st_size == shard.num_bytes and status.st_mtime_ns == _SEALED_AT_NS:
            return True
        return self.check(shard)

    def check(self, shard: Shard) -> bool:
        """Like `has`, but hashes every byte."""
        path = self.shard_path(shard.digest)
        try:
            is_whole = path.stat().st_size == shard.num_bytes and digest_file(path) == shard.digest
        except FileNotFoundError:  # never made, or just moved aside by another worker
            return False
        if not is_whole:
            self._quarantine(path)
        elif path.is_relative_to(self.root):
            with contextlib.suppress(OSError):
                os.utime(path, ns=(_SEALED_AT_NS, _SEALED_AT_NS))
        return is_whole

    def expect(self, shard: Shard) -> None:
        """Verify a shard by every byte; raises IntegrityError where it is damaged or missing."""
        if not self.check(shard):
            raise IntegrityError(
                f"got a damaged or missing shard {shard.digest[:12]}, wanted {shard.num_bytes} bytes with that digest: "
                "run the same command again, it is made anew."
            )

    def read(self, shard: Shard, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Verify a shard, then yield its batches; `columns` limits what is decoded.

        Raises IntegrityError where the bytes are not what the digest says; the damaged file is moved
        aside, so that the next run makes it again.
        """
        self.expect(shard)
        with pa.memory_map(str(self.shard_path(shard.digest))) as source:
            schema = pa.ipc.read_schema(source)
            source.seek(0)
            included = None if columns is None else [schema.get_field_index(name) for name in columns]
            if included is not None and -1 in included:
                raise SchemaError(
                    f"got columns {schema.names}, wanted {list(columns or ())}: rebuild with this version."
                )
            reader = pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(included_fields=included))
            for batch in reader:
                yield batch if columns is None else batch.select(list(columns))

    def _quarantine(self, path: Path) -> None:
        if not path.is_relative_to(self.root):
            return  # what lies beneath is not ours to move
        with contextlib.suppress(FileNotFoundError), storage_errors(self.root):
            folder = self.root / "quarantine"
            folder.mkdir(exist_ok=True)
            path.replace(folder / path.name)

    def objects(self) -> Iterator[StoredObject]:
        """Every shard that lies here, in the order of digests."""
        for path in sorted((self.root / "objects").glob("*/*")):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                yield StoredObject(path.name, status.st_size, status.st_ctime)  # sealing fixed the other time

    def remove_object(self, digest: str) -> None:
        """Remove a shard, if it is there. Only for the holder of the workspace lock."""
        self._remove(self.root / "objects" / digest[:2] / digest)

    # records

    def find(self, stage: str, key: str) -> Record | None:
        """The record under a key, if it and every shard it names are whole."""
        record = self.recorded(stage, key)
        return record if record is not None and all(self.has(shard) for shard in record.shards) else None

    def recorded(self, stage: str, key: str) -> Record | None:
        """The record under a key, if it is whole, whatever became of its shards."""
        path = self._locate(_record_place(stage, key))
        try:
            record = _load_record(path.read_bytes())
        except FileNotFoundError:
            return None
        except _UNREADABLE:
            self._quarantine(path)
            return None
        if (record.stage, record.key) != (stage, key):  # a copy of another record
            self._quarantine(path)
            return None
        return record

    def publish(self, record: Record) -> None:
        """Store a record; last of all, once its shards are in place."""
        self._write_json(self.root / _record_place(record.stage, record.key), _dump_record(record))

    def records(self) -> Iterator[tuple[str, Record | None]]:
        """Every record with its name, `records/STAGE/ab/KEY`; None for one that cannot be read."""
        for path in sorted((self.root / "records").glob("*/*/*")):
            name = path.relative_to(self.root).as_posix()
            try:
                yield name, _load_record(path.read_bytes())
            except _UNREADABLE:
                yield name, None

    def remove_record(self, stage: str, key: str) -> None:
        """Forget what a stage wrote under a key, if it is there. Only for the holder of the workspace lock."""
        self._remove(self.root / _record_place(stage, key))

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
        self._write_json(
            self.root / "refs" / recipe / manifest.stage, json.dumps(body, indent=1, sort_keys=True).encode()
        )

    def ref(self, recipe: str, stage: str) -> Manifest | None:
        """The newest manifest of a stage for a recipe; None if there is none that can be read."""
        try:
            body = json.loads(self._locate(f"refs/{recipe}/{stage}").read_bytes())
            entries = tuple(
                Entry(unit=item["unit"], key=item["key"], shard=Shard(**item["shard"]), counts=item["counts"])
                for item in body["entries"]
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return Manifest(stage, entries)

    def refs(self) -> Iterator[tuple[str, str]]:
        """Recipe and stage of every ref, readable or not."""
        for path in sorted((self.root / "refs").glob("*/*")):
            yield path.parent.name, path.name

    def clear_temporary(self) -> None:
        """Remove what killed runs left half-written. Only for the holder of the workspace lock."""
        shutil.rmtree(self.root / "tmp", ignore_errors=True)
        (self.root / "tmp").mkdir(parents=True, exist_ok=True)

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError), storage_errors(self.root):
            path.unlink()
            _fsync(path.parent)

    def _write_json(self, path: Path, body: bytes) -> None:
        temporary = self.root / "tmp" / uuid.uuid4().hex
        try:
            with storage_errors(self.root):
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(body)
                _fsync(temporary)
                temporary.replace(path)
                _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turn a failing disk into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            raise StorageError(
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


def _copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows in memory of their own.

    Arrow writes a slice with up to 63 bytes of its neighbours, and whatever lies beneath a null. A shard cut out of
    a larger batch would change with rows that are not in it.
    """
    return batch.take(pa.array(range(batch.num_rows), pa.int64()))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _record_place(stage: str, key: str) -> str:
    return f"records/{stage}/{key[:2]}/{key}"


def _shard_json(shard: Shard) -> dict[str, Any]:
    return {"digest": shard.digest, "num_bytes": shard.num_bytes, "num_rows": shard.num_rows}


def _dump_record(record: Record) -> bytes:
    body = {
        "stage": record.stage,
        "key": record.key,
        "key_fields": dict(record.key_fields),
        "shards": [_shard_json(shard) for shard in record.shards],
        "counts": [dict(counts) for counts in record.counts],
    }
    text = canonical_json(body)
    return json.dumps({"digest": digest_bytes(text.encode()), "record": json.loads(text)}, sort_keys=True).encode()


def _load_record(data: bytes) -> Record:
    envelope = json.loads(data)
    body = envelope["record"]
    if hashlib.sha256(canonical_json(body).encode()).hexdigest() != envelope["digest"]:
        raise IntegrityError("got a record that does not match its digest, wanted an untouched one: run again.")
    return Record(
        stage=body["stage"],
        key=body["key"],
        key_fields=body["key_fields"],
        shards=tuple(Shard(**item) for item in body["shards"]),
        counts=tuple(body["counts"]),
    )
