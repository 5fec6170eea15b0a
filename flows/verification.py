"""`corpusmill verify`: every byte that a workspace answers for is read again.

What the next run makes anew is told apart from what it cannot: pages as they were fetched, the ledger of take-downs,
certificates.
"""

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flows.inspection import opened_workspace
from flows.results import damaged_files
from flows.workspace import Workspace
from llm.checkpoint import verify as verify_checkpoint
from llm.journal import JOURNAL, is_damaged
from pipelines.errors import CorpusmillError
from pipelines.integrity import check_store
from pipelines.takedown.certificate import read_certificate
from pipelines.takedown.chain import read_lines

_GZIP = zlib.MAX_WBITS | 16
_CHUNK_NUM_BYTES = 1 << 20
_RESULTS = (
    "models/*/training.json",
    "models/*/dataset.json",
    "models/*/*_run.json",
    "models/*/evaluations/*.json",
    "reports/*/data_card.json",
)


def verify(workspace_path: Path | None) -> dict[str, Any]:
    """Read everything again. Damaged shards and records are moved aside so that the next run makes them.

    `damaged` names all that is damaged or missing; `irreplaceable` those of them that only a copy can bring back.
    """
    place = opened_workspace(workspace_path)
    check = check_store(place.open_store())
    damaged = [f"store/{said}" if said == name else said for name, said in check.damaged.items()]
    num_model_files = 0
    for pattern in _RESULTS:
        for path in sorted(place.root.glob(pattern)):
            num_files, found = damaged_files(path)
            num_model_files += num_files if pattern.startswith("models/") else 0
            damaged += [_name(place, each) for each in found]
    for manifest in sorted(place.root.glob("models/*/step-*/manifest.json")):
        if _name(place, manifest) not in damaged and _is_refused(verify_checkpoint, manifest.parent):
            damaged.append(_name(place, manifest.parent))
    irreplaceable = [_name(place, path) for path in (*_damaged_crawls(place), *_damaged_takedowns(place))]
    irreplaceable += [_name(place, path) for path in sorted(place.root.glob(f"models/*/{JOURNAL}")) if is_damaged(path)]
    return {
        "shards": check.num_shards,
        "bytes": check.num_bytes,
        "model_files": num_model_files,
        "damaged": list(dict.fromkeys([*damaged, *irreplaceable])),
        "irreplaceable": irreplaceable,
    }


def _damaged_crawls(place: Workspace) -> Iterator[Path]:
    for path in sorted(place.root.glob("crawl/*/warc/*.warc.gz")):
        if not _is_whole_gzip(path):
            yield path
    for path in sorted(place.root.glob("crawl/*/frontier.sqlite")):
        if not _is_whole_database(path):
            yield path


def _damaged_takedowns(place: Workspace) -> Iterator[Path]:
    for path in (place.takedown_ledger, place.output_ledger):
        if _is_refused(read_lines, path):
            yield path
    for path in sorted(place.takedown_folder.glob("*.json")):
        if _is_refused(lambda path: read_certificate(path.parent, path.stem), path):
            yield path


def _is_refused(read: Callable[[Path], object], path: Path) -> bool:
    try:
        read(path)
    except (CorpusmillError, OSError):
        return True
    return False


def _is_whole_gzip(path: Path) -> bool:
    """Whether each member, a record each, ends with the checksum of what it holds."""
    member = zlib.decompressobj(_GZIP)
    is_inside = False
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_NUM_BYTES):
                while chunk:
                    is_inside = True
                    member.decompress(chunk)
                    chunk = member.unused_data
                    if member.eof:
                        member, is_inside = zlib.decompressobj(_GZIP), False
    except (OSError, zlib.error):
        return False
    return not is_inside


def _is_whole_database(path: Path) -> bool:
    """Whether its pages hang together: SQLite keeps no checksum of what stands in them."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return bool(connection.execute("PRAGMA quick_check").fetchall() == [("ok",)])
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)  # a crawl writes it just now
    except sqlite3.DatabaseError:
        return False


def _name(place: Workspace, path: Path) -> str:
    return str(path.relative_to(place.root))
