"""Results of jobs on disk: values under a key, with the digest of every file they rest on.

A result counts only if it belongs to the key asked for and neither it nor its files were touched.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.digest import digest_file, digest_value
from pipelines.store import storage_errors


def write_result(path: Path, key: str, values: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Write a result whole or not at all; `files` lie in its folder or below. Raises StorageError for the disk."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        digests = {str(item.relative_to(path.parent)): digest_file(item) for item in files}
        body = {"key": key, "values": dict(values), "files": digests}
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        text = json.dumps(body | {"digest": digest_value(body)}, indent=1, ensure_ascii=False)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def read_result(path: Path, key: str) -> dict[str, Any] | None:
    """The values under a path, or None where they are another key's, damaged or missing."""
    try:
        body = json.loads(path.read_bytes())
        digest = body.pop("digest")
        if body["key"] != key or digest != digest_value(body):
            return None
        if any(digest_file(path.parent / name) != wanted for name, wanted in body["files"].items()):
            return None
        values: dict[str, Any] = body["values"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return values


def damaged_files(path: Path) -> tuple[int, list[Path]]:
    """Of a result: how many files it rests on, and which of those and of itself are damaged or missing."""
    try:
        body = json.loads(path.read_bytes())
        digest = body.pop("digest")
        files: dict[str, str] = body["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0, [path]
    if digest != digest_value(body):
        return 0, [path]
    found = [(path.parent / name, wanted) for name, wanted in files.items()]
    return len(files), [each for each, wanted in found if not each.is_file() or digest_file(each) != wanted]
