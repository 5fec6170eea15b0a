"""Values and bytes to digests that are equal in every process, on every machine.

A value without a stable identity (a function, an open file, a NaN) is refused instead of being
hashed by its representation. Digests are SHA-256 (FIPS 180-4), written as 64 hex characters.
"""

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError

EXECUTION_ONLY = {"identity": False}
"""`field(metadata=EXECUTION_ONLY)` keeps a field (a path, a worker count) out of every key."""


def canonical(value: Any) -> Any:
    """Reduce a value to plain JSON types with one form for each meaning.

    Dataclasses carry their class name, so that two configs with equal fields differ. Raises
    ConfigError for a value that has no stable identity.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, enum.Enum):
        return canonical(value.value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"got {value!r} in a config; a key needs finite numbers: use null for 'off'.")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: canonical(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.metadata.get("identity", True)
        }
        return {"__class__": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ConfigError(f"got a mapping with keys {list(value)!r}, wanted text keys: use texts.")
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((canonical(item) for item in value), key=canonical_json)
    raise ConfigError(f"got {type(value).__name__} in a config, wanted what has a stable identity: use plain values.")


def canonical_json(value: Any) -> str:
    """One JSON text for each value: sorted keys, no spaces, UTF-8."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_value(value: Any) -> str:
    """Digest of a plain value or config: 64 hex characters."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_bytes(data: bytes | memoryview) -> str:
    """Digest of bytes: 64 hex characters."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Digest of a file's bytes, read once in chunks: 64 hex characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def document_id(url: str | None, payload: bytes) -> str:
    """Name of a document: 32 hex characters from its URL and the bytes that were fetched.

    Neither a file name nor a position enters, so a page keeps its name wherever it is stored and
    whatever extractor reads it.
    """
    blake2b = hashlib.blake2b(digest_size=16)
    blake2b.update((url or "").encode("utf-8", "surrogatepass"))
    blake2b.update(b"\0")
    blake2b.update(payload)
    return blake2b.hexdigest()
