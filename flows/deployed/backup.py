"""Copies of what only a copy can bring back, apart from pages and weights: ledgers, certificates, records, journals.

One archive a time, `corpusmill-WORKSPACE-UTC.tar.gz`, unpacked over an empty folder to restore it. SQLite files are
copied by SQLite, so that one that is being written is whole.
"""

import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.workspace import Workspace
from pipelines.digest import digest_value
from pipelines.errors import ConfigError
from pipelines.store import storage_errors

_PATTERNS = (
    *("takedowns.jsonl", "outputs.jsonl", "alerts.jsonl", "digests.json", "takedowns/**/*", "canaries/**/*"),
    *("reports/**/*", "store/records/**/*", "store/refs/**/*"),
    *("models/*/*.json", "models/*/*.jsonl", "models/*/mlflow_run_id", "models/*/evaluations/*.json", "models/*/*.log"),
)
_DATABASES = ("crawl/*/*.sqlite", "mlflow.db")
_ID_NUM_CHARS = 8


def back_up(place: Workspace, folder: Path, num_kept: int) -> dict[str, Any]:
    """Write an archive into a folder, readable by its owner alone, and remove all but the newest ones of this workspace.

    The caller holds the workspace. Raises ConfigError for a folder inside it, StorageError for the disk.
    """
    if folder.absolute().is_relative_to(place.root):
        raise ConfigError(
            f"backup_folder: got {folder}, inside the workspace, wanted one that outlives it: name another."
        )
    stem = f"corpusmill-{place.root.name}-{digest_value(str(place.root))[:_ID_NUM_CHARS]}-"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stem}{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz"
        temporary = path.with_name(f".{path.name}")
        try:
            num_files = _write(place.root, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        old = sorted(folder.glob(f"{stem}*.tar.gz"))[:-num_kept]
        for each in old:
            each.unlink()
    return {"path": str(path), "files": num_files, "bytes": path.stat().st_size, "removed": [str(each) for each in old]}


def _write(root: Path, path: Path) -> int:
    num_files = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file, tempfile.TemporaryDirectory(dir=path.parent, prefix=".copy-") as scratch:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
            for name, source in _files(root, Path(scratch)):
                archive.add(source, arcname=name, recursive=False)
                num_files += 1
        file.flush()
        os.fsync(file.fileno())
    return num_files


def _files(root: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """The name of each file in the workspace, and where to read it."""
    for pattern in _PATTERNS:
        for path in sorted(root.glob(pattern)):
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(root)), path
    for pattern in _DATABASES:
        for path in sorted(root.glob(pattern)):
            copy = scratch / "copy.sqlite"
            copy.unlink(missing_ok=True)
            source, target = sqlite3.connect(f"file:{path}?mode=ro", uri=True), sqlite3.connect(copy)
            try:
                source.backup(target)
            finally:
                source.close()
                target.close()
            yield str(path.relative_to(root)), copy
