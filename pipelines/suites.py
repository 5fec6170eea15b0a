"""The files of evaluation suites, and the items in them: what a model will be measured on.

    .jsonl .ndjson    each row an item
    .json             each mapping with an `id`, and each mapping in a list, an item (SQuAD's form among others)
    .csv .tsv         each row an item; the first line names the columns
    .parquet          each row an item
    any other name    each line that is not blank an item

each but .parquet plain or gzip (RFC 1952). Every text in a row is a passage, however deep it lies, and so is a question together with
its right answer as the usual rows tell it. A file that holds nothing to look for is an error: whoever named it means to
be protected by it.

Must not: search a text.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ConfigError, InputError
from pipelines.stage import Resource

SUITE_SUFFIXES = (
    *(f".{kind}{packing}" for kind in ("jsonl", "ndjson", "json", "csv", "tsv", "txt") for packing in ("", ".gz")),
    ".parquet",
)
"""Names that are taken from a folder."""
_ROWS = (".jsonl", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}
_MAX_CELL_NUM_CHARS = 1 << 24
_MAX_ID_NUM_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One file of a suite. Its name enters the key, because it stands in the output; its path does not."""

    name: str
    file: Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question, context or text of an evaluation suite."""

    suite: str
    item_id: str
    passages: tuple[str, ...]
    """Texts that are looked for one by one: no n-gram reaches from one into the next."""


def suite_names(paths: Iterable[Path], base: Path) -> list[str]:
    """Names of suites by their paths: folder and file below `base`, without the ending. Raises ConfigError for equal ones."""
    names = []
    for path in paths:
        below = path.relative_to(base) if path.is_relative_to(base) else path
        folder = [part for part in below.parts[:-1] if part not in ("/", "..", ".")][-1:]
        names.append("/".join([*folder, _stem(path)]))
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise ConfigError(
            f"evaluation.suites: got two suites named {twice[0]!r}, wanted one name each: rename a file or its folder."
        )
    return names


def read_items(path: Path, suite: str | None = None) -> Iterator[Item]:
    """The items of a suite's file. `suite` is the file's name without its ending by default.

    An item's name is its `id` where it has one, else its line number from 1, or in a JSON document its place ("data.3").
    Raises InputError for a file that cannot be read or is not what its name says.
    """
    name, suffix = suite or _stem(path), _suffix(path)
    try:
        for item_id, passages in _of_parquet(path) if suffix == ".parquet" else _of_text(path, suffix):
            yield Item(suite=name, item_id=item_id, passages=tuple(dict.fromkeys(passages)))
    except (OSError, pa.ArrowException, EOFError, ValueError, RecursionError, csv.Error, zlib.error) as error:
        kind = {
            ".json": "JSON",
            ".parquet": "Parquet",
            **dict.fromkeys(_ROWS, "JSONL"),
            **dict.fromkeys(_TABLES, "CSV with a header"),
        }
        raise InputError(
            f"got evaluation suite {path} that cannot be read ({error}), wanted {kind.get(suffix, 'text')}"
            f"{'' if suffix == '.parquet' else ' in UTF-8'}: mend or remove it."
        ) from error


def _stem(path: Path) -> str:
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    return name.partition(".")[0] or name


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _opened(path: Path) -> TextIO:
    raw = path.open("rb")
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    stream = gzip.GzipFile(fileobj=raw) if is_gzip else raw
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


# Items: (name, passages)


def _of_text(path: Path, suffix: str) -> Iterator[tuple[str, list[str]]]:
    with _opened(path) as lines:
        if suffix in _ROWS:
            yield from _of_rows(lines)
        elif suffix in _TABLES:
            yield from _of_table(lines, _TABLES[suffix])
        elif suffix == ".json":
            yield from _of_document(json.load(lines))
        else:
            yield from ((str(number), [line]) for number, line in enumerate(lines, 1) if line.strip())


def _of_parquet(path: Path) -> Iterator[tuple[str, list[str]]]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield _own_id(row) or str(number), list(passages_of(row))


def _of_rows(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            yield _own_id(row) or str(number), list(passages_of(row))


def _of_table(lines: TextIO, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(_MAX_CELL_NUM_CHARS)
    # `strict` refuses a quote that is not closed: it would swallow the items behind it.
    rows = csv.DictReader(lines, delimiter=delimiter, strict=True)
    for number, row in enumerate(rows, 2):
        cells = {name or f"column {idx}": cell for idx, (name, cell) in enumerate(row.items())}
        yield _own_id(cells) or str(number), list(passages_of(cells))


def _of_document(document: Any) -> Iterator[tuple[str, list[str]]]:
    """Items of a JSON document in its order: a text belongs to the innermost mapping around it that is one."""
    items: dict[str, list[str]] = {}

    def collect(value: Any, item: str, place: str, *, has_id: bool) -> None:
        if isinstance(value, str):
            items.setdefault(item, []).append(value)
        elif isinstance(value, Mapping):
            own_id = _own_id(value)
            item, has_id = own_id or item, has_id or own_id is not None
            items.setdefault(item, []).extend(_answered(value))
            for name in sorted(value):
                if name != "id":
                    collect(value[name], item, _joined(place, name), has_id=has_id)
        elif isinstance(value, list):
            for idx, each in enumerate(value):
                at = _joined(place, str(idx))
                collect(each, at if isinstance(each, Mapping) and not has_id else item, at, has_id=has_id)

    collect(document, "1", "", has_id=False)
    yield from ((item_id, passages) for item_id, passages in items.items() if passages)


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _own_id(row: Any) -> str | None:
    own_id = row.get("id") if isinstance(row, Mapping) else None
    return (
        str(own_id)[:_MAX_ID_NUM_CHARS]
        if isinstance(own_id, str | int) and not isinstance(own_id, bool) and own_id != ""
        else None
    )


def passages_of(row: Any) -> Iterator[str]:
    """The texts of a row that are looked for: a question with its right answer where it tells that, and every text in it."""
    if isinstance(row, Mapping):
        yield from _answered(row)
    yield from _texts(row)


def _answered(row: Mapping[str, Any]) -> Iterator[str]:
    """A question together with its right answer, where the row says which that is."""
    gold = row.get("gold")
    question = next((row[name] for name in ("context", "query", "question") if name in row), None)
    answer = row.get("continuation", row.get("answer"))
    if isinstance(gold, int):
        for name, place in (("context_options", 0), ("choices", 1)):
            options = row.get(name)
            if isinstance(options, list | tuple) and -1 < gold < len(options):
                question, answer = (options[gold], answer) if place == 0 else (question, options[gold])
    if isinstance(question, str) and isinstance(answer, str):
        yield f"{question} {answer}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name in sorted(value):
            if name != "id":
                yield from _texts(value[name])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
