"""What services say, in files of a bounded size, without secrets.

A thread a service reads its output as it comes, so that no service ever waits for a disk.
"""

import logging
import logging.handlers
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_MAX_NUM_BYTES = 8 << 20
_NUM_KEPT = 3
"""Older files beside the one that is written: 32 MiB a service in all."""
_TAIL_NUM_BYTES = 8192
_MAX_LINE_BYTES = 64 << 10


def follow(output: IO[bytes], path: Path, secrets: Sequence[str]) -> threading.Thread:
    """Write an output to a log file to its end, secrets as three stars."""
    thread = threading.Thread(target=_write, args=(output, path, secrets), name=f"log {path.stem}", daemon=True)
    thread.start()
    return thread


def log_file(path: Path) -> logging.handlers.RotatingFileHandler:
    """A file that begins anew when it is large."""
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=_MAX_NUM_BYTES, backupCount=_NUM_KEPT, encoding="utf-8", errors="replace"
    )
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def tail(path: Path, num_lines: int) -> list[str]:
    """The last lines of a log that say something."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_NUM_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip()][-num_lines:]


def _write(output: IO[bytes], path: Path, secrets: Sequence[str]) -> None:
    handler = log_file(path)
    hidden = [secret for secret in secrets if secret]
    with output:
        while line := output.readline(_MAX_LINE_BYTES):
            text = line.decode("utf-8", "replace").rstrip("\n")
            for secret in hidden:
                text = text.replace(secret, "***")
            handler.handle(logging.makeLogRecord({"msg": text}))
    handler.close()
