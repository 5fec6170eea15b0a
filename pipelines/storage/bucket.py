"""Blobs in a bucket that speaks S3.

An object is written whole or not at all (one PUT, or a multipart upload that is completed last), so a name never shows half of
one. Digests are checked here, on the way in and out: a reader hashes what it got, and keeps it as a local copy.

Endpoint, region and credentials come from the environment of the process that asks (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, ...), so none is ever written, logged or sent to a worker.
"""

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from pipelines.errors import ConfigError, StorageError
from pipelines.storage import Blob
from pipelines.storage.copies import Copies
from pipelines.storage.lease import Lease, holding

T = TypeVar("T")

_OBJECTS = "objects/"
"""What local copies are made of."""
_METADATA_SERVICE = "169.254.169.254"
"""Where a machine in a cloud gets credentials; asked by the library where the environment has none."""
_NUM_AT_ONCE = 32
_FEW = 8
"""So many are asked for one by one rather than listed."""
_PART_NUM_BYTES = 8 << 20
_WHOLE_NUM_BYTES = 32 << 20
"""Larger files go up in parts, since a part is what is held in memory and tried again."""
_RETRIES: Any = {"max_retries": 10, "retry_timeout": timedelta(seconds=60)}
_CLIENT: Any = {
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),
    "timeout": timedelta(hours=1),
}


class Bucket:
    """Blobs as the objects under a prefix of a bucket, with local copies of them. One `Storage`, for one run.

    What `stat_all` listed once is not listed again: open another for the next run.
    """

    def __init__(self, url: str, copies: Copies) -> None:
        """`url` is s3://BUCKET or s3://BUCKET/PREFIX; nothing is asked of it yet. Raises ConfigError."""
        parts = urlsplit(url)
        self._name, self._prefix = parts.netloc, parts.path.strip("/")
        if parts.scheme != "s3" or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                "CORPUSMILL_STORE: got something else than s3://BUCKET/PREFIX, wanted that: correct it; endpoint and "
                "credentials belong in AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        self.url = f"s3://{self._name}/{self._prefix}".rstrip("/")
        self._copies = copies
        self._client: S3Store | None = None
        self._listed: dict[str, dict[str, Blob]] = {}
        self._lease: Lease | None = None

    def publish(self, path: Path, name: str, digest: str) -> None:
        self.lend(path, name)
        self._copies.add(path, digest)

    def lend(self, path: Path, name: str) -> None:
        self._check_lease()
        is_large = path.stat().st_size > _WHOLE_NUM_BYTES
        with self._errors():
            obstore.put(self._open(), name, path, use_multipart=is_large, chunk_size=_PART_NUM_BYTES, max_concurrency=4)

    def write(self, name: str, data: bytes) -> None:
        self._check_lease()
        with self._errors():
            obstore.put(self._open(), name, data, use_multipart=False)

    def read(self, name: str) -> bytes:
        with self._errors(is_missing_ok=True):
            return bytes(obstore.get(self._open(), name).bytes())

    def read_all(self, names: Iterable[str], prefix: str | None = None) -> dict[str, bytes]:
        wanted = list(names)
        versions: dict[str, str] = {}
        if prefix is not None and len(wanted) > _FEW:
            versions = {blob.name: blob.version for blob in self.list(prefix)}
            wanted = [name for name in wanted if name in versions]

        def get(name: str) -> bytes | None:
            is_listed = name in versions
            known = self._copies.read_small(name, versions[name]) if is_listed else None
            if known is None and (found := self.read_version(name)) is not None:
                known, version, _ = found
                if is_listed:
                    self._copies.add_small(name, version, known)
            return known

        return {name: data for name, data in _at_once(get, wanted) if data is not None}

    def stat(self, name: str) -> Blob | None:
        try:
            with self._errors(is_missing_ok=True):
                return _blob(obstore.head(self._open(), name))
        except FileNotFoundError:
            return None

    def stat_all(self, names: Iterable[str], prefix: str) -> dict[str, Blob]:
        wanted = list(names)
        known = self._listed.get(prefix, {})
        if len(wanted) > _FEW and not known:
            known = self._listed[prefix] = {blob.name: blob for blob in self.list(prefix)}
        rest = _at_once(self.stat, [name for name in wanted if name not in known])  # written since by other processes
        known.update((name, blob) for name, blob in rest if blob is not None)
        return {name: known[name] for name in wanted if name in known}

    def list(self, prefix: str) -> Iterator[Blob]:
        with self._errors():
            for chunk in obstore.list(self._open(), prefix, chunk_size=1000):
                yield from map(_blob, chunk)

    def digest(self, name: str) -> str | None:
        try:
            with self._errors(is_missing_ok=True):
                sha256 = hashlib.sha256()
                for chunk in obstore.get(self._open(), name).stream():
                    sha256.update(chunk)
                return sha256.hexdigest()
        except FileNotFoundError:
            return None

    def local(self, name: str, digest: str) -> Path | None:
        return self._copies.find(digest) or self._fetch(name, digest)

    def hold(self, name: str, digest: str) -> Path:
        return self._copies.hold(lambda: self.local(name, digest), digest)

    def seal(self, name: str) -> None:
        """An object is replaced or stays: there is no mark to renew."""

    def set_aside(self, blob: Blob) -> None:
        self._forget(blob.name)
        now = self.stat(blob.name)
        if now is None or now.version != blob.version:
            return
        self._check_lease()
        with self._errors(), contextlib.suppress(FileNotFoundError):
            obstore.copy(self._open(), blob.name, f"quarantine/{Path(blob.name).name}")
            obstore.delete(self._open(), blob.name)

    def remove(self, name: str) -> None:
        self._check_lease()
        self._forget(name)
        if name.startswith(_OBJECTS):
            self._copies.remove(Path(name).name)
        with self._errors(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._open(), name)

    def tidy(self) -> None:
        blobs = self._listed[_OBJECTS] = {blob.name: blob for blob in self.list(_OBJECTS)}
        self._copies.keep_only({Path(name).name for name in blobs})

    @contextlib.contextmanager
    def exclusive(self, owner: str, lock: Path) -> Iterator[None]:
        with holding(self, owner, lock) as lease:
            self._lease = lease
            try:
                yield
            finally:
                self._lease = None

    # what a lease needs

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        """Write an object if it has this version, or is not there (None). Its new version; None where it was not so."""
        mode: Any = "create" if version is None else {"e_tag": version}
        try:
            with self._errors():
                return str(obstore.put(self._open(), name, data, mode=mode, use_multipart=False)["e_tag"])
        except _ConditionFailed:
            return None

    def read_version(self, name: str) -> tuple[bytes, str, float] | None:
        """Bytes, version, and when it was written by the server's clock, in seconds since 1970 UTC; None where missing."""
        try:
            with self._errors(is_missing_ok=True):
                found = obstore.get(self._open(), name)
                return bytes(found.bytes()), str(found.meta["e_tag"]), found.meta["last_modified"].timestamp()
        except FileNotFoundError:
            return None

    # inside

    def _fetch(self, name: str, digest: str) -> Path | None:
        for _ in range(2):  # what was damaged on the way is not damaged there
            temporary = self._copies.own_folder() / f"{uuid.uuid4().hex}.part"
            sha256 = hashlib.sha256()
            try:
                with self._errors(is_missing_ok=True):
                    stream = obstore.get(self._open(), name).stream()
                    with temporary.open("wb") as file:
                        for chunk in stream:
                            sha256.update(chunk)
                            file.write(chunk)
                if sha256.hexdigest() == digest:
                    return self._copies.add(temporary, digest)
            except FileNotFoundError:
                return None
            finally:
                temporary.unlink(missing_ok=True)
        return None

    def _forget(self, name: str) -> None:
        for known in self._listed.values():
            known.pop(name, None)

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _open(self) -> S3Store:
        if self._client is None:
            options: Any = {**_CLIENT}
            if (os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")).startswith("http://"):
                options["allow_http"] = True  # whoever wrote that address meant it
            self._client = S3Store(
                self._name,
                prefix=self._prefix or None,
                disable_bulk_delete=True,  # not every server has it, and one object goes at a time
                client_options=options,
                retry_config=_RETRIES,
            )
        return self._client

    @contextlib.contextmanager
    def _errors(self, *, is_missing_ok: bool = False) -> Iterator[None]:
        """Turn what the library raises into a StorageError that says what to do; a missing object is one unless `is_missing_ok`."""
        try:
            yield
        except (AlreadyExistsError, PreconditionError) as error:
            raise _ConditionFailed from error
        except (FileNotFoundError, BaseError) as error:
            is_missing = isinstance(error, FileNotFoundError)
            if is_missing and is_missing_ok:
                raise
            brief = _brief(error)
            if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _METADATA_SERVICE in brief:
                raise StorageError(
                    f"got no access to {self.url} ({brief}), wanted credentials that may read and write it: "
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
                ) from None
            if is_missing or "404 Not Found" in brief:
                raise StorageError(f"got no bucket at {self.url} ({brief}), wanted one: create it.") from None
            raise StorageError(
                f"got {brief} from {self.url}, wanted an object store that answers: check AWS_ENDPOINT_URL and "
                "run again; what was finished is kept."
            ) from None


class _ConditionFailed(Exception):  # noqa: N818 - never leaves this module
    """An object was not as a write asked for."""


def _blob(meta: Any) -> Blob:
    return Blob(
        name=meta["path"],
        num_bytes=meta["size"],
        changed_at=meta["last_modified"].timestamp(),
        is_sealed=True,  # nobody can write into an object
        version=str(meta["e_tag"]),
    )


def _at_once(call: Callable[[str], T], names: Sequence[str]) -> list[tuple[str, T]]:
    """What a call says of each name: a round trip each, many at a time."""
    if len(names) <= 1:
        return [(name, call(name)) for name in names]
    with ThreadPoolExecutor(min(_NUM_AT_ONCE, len(names))) as pool:
        return list(zip(names, pool.map(call, names), strict=True))


def _brief(error: Exception) -> str:
    """The first words of an error and the server's code for it: what follows is the server's page and the library's inside."""
    words = str(error).partition("\n")[0].partition("<")[0].split()
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return " ".join(words).rstrip(" :")[:300] + (f": {code[1]}" if code else "")
