"""Files that left the workspace: which were written, where, and whether they still hold what was taken down.

Exports are cleaned in place where they are as they were written. What somebody changed, and pages and sheets for
reviewers, are only told of: they are not ours to change.
"""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.store import storage_errors
from pipelines.takedown.chain import append_line, read_lines
from pipelines.takedown.documents import Takedown, url_test
from pipelines.takedown.proof import Wanted, file_digest, holds
from pipelines.takedown.quotes import holds_any

Kind = Literal["export", "review page", "review sheet", "inspection page"]


def register_output(ledger: Path, kind: Kind, path: Path, *, recipe: str) -> None:
    """Write down that a file was written: its place, its digest, what it is."""
    where = path.resolve()
    append_line(ledger, {"kind": kind, "path": str(where), "sha256": file_digest(where), "recipe": recipe})


def clean_outputs(ledger: Path, wanted: Wanted) -> list[dict[str, Any]]:
    """Take documents out of the exports that are as they were written; what became of every file that held any.

    `state`: `cleaned`, `changed since` (and holds some), `holds` (a page or sheet), `gone` (nothing can be said).
    """
    newest = {line["path"]: line for line in read_lines(ledger)}
    found: list[dict[str, Any]] = []
    for line in newest.values():
        path, facts = Path(line["path"]), {name: line[name] for name in ("kind", "path", "recipe", "sha256")}
        digest = file_digest(path)
        if digest is None:
            found.append(facts | {"state": "gone"})
            continue
        if line["kind"] != "export":
            if holds(path.read_bytes(), wanted):
                found.append(facts | {"state": "holds"})
            continue
        num_rows = _clean(path, wanted, is_dry=digest != line["sha256"])
        if num_rows and digest != line["sha256"]:
            found.append(facts | {"state": "changed since", "rows": num_rows})
        elif num_rows:
            register_output(ledger, "export", path, recipe=line["recipe"])
            found.append(facts | {"state": "cleaned", "rows": num_rows, "sha256_after": file_digest(path)})
    return found


def _clean(path: Path, wanted: Wanted, *, is_dry: bool) -> int:
    """Rewrite an export without the rows that are wanted, whole or not at all; a duplicate of one names it no longer.

    Returns how many rows that changes."""
    is_taken = _row_test(wanted)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    with storage_errors(path):
        try:
            clean = _clean_parquet if path.suffix == ".parquet" else _clean_jsonl
            num_rows = clean(path, temporary, is_taken, wanted.doc_ids)
            if num_rows and not is_dry:
                temporary.replace(path)
        except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowInvalid):
            return 1 if holds(path.read_bytes(), wanted) else 0  # somebody made something else of it
        finally:
            temporary.unlink(missing_ok=True)
    return num_rows


def _row_test(wanted: Wanted) -> Any:
    is_named = url_test(Takedown(urls=wanted.takedown.urls, domains=wanted.takedown.domains))
    quotes = wanted.takedown.quotes

    def is_taken(row: Mapping[str, Any]) -> bool:
        if row["doc_id"] in wanted.doc_ids or (row["url"] is not None and is_named(row["url"])):
            return True
        return bool(quotes) and any(row.get(name) and holds_any(row[name], quotes) for name in ("text", "title"))

    return is_taken


def _clean_jsonl(path: Path, temporary: Path, is_taken: Any, doc_ids: frozenset[str]) -> int:
    num_rows = 0
    with path.open(encoding="utf-8") as lines, temporary.open("w", encoding="utf-8") as kept:
        for line in lines:
            row = json.loads(line)
            is_pointing = row["duplicate_of"] in doc_ids
            num_rows += (is_gone := is_taken(row)) or is_pointing
            rest = json.dumps(row | {"duplicate_of": None}, ensure_ascii=False) + "\n" if is_pointing else line
            kept.write("" if is_gone else rest)
    return num_rows


def _clean_parquet(path: Path, temporary: Path, is_taken: Any, doc_ids: frozenset[str]) -> int:
    num_rows = 0
    with pq.ParquetFile(path) as file, pq.ParquetWriter(temporary, file.schema_arrow, compression="zstd") as kept:
        for batch in file.iter_batches():
            names = [name for name in ("doc_id", "url", "text", "title") if name in batch.schema.names]
            changed = is_out = pa.array([is_taken(row) for row in batch.select(names).to_pylist()], pa.bool_())
            # A table of lineage says, too, what stands for a row in the end: without that one, the row itself.
            clean, nobody = batch, {"duplicate_of": pa.scalar(None, pa.string()), "cluster": batch.column("doc_id")}
            for name in nobody.keys() & set(batch.schema.names):
                place = batch.schema.get_field_index(name)
                pointing = pc.is_in(batch.column(place), pa.array(sorted(doc_ids), pa.string()))
                cleared = pc.if_else(pointing, nobody[name], batch.column(place))
                changed = pc.or_(changed, pointing)
                clean = clean.set_column(place, batch.schema.field(place), cleared)
            num_rows += pc.sum(changed).as_py() or 0
            kept.write_batch(clean.filter(pc.invert(is_out)))
    return num_rows
