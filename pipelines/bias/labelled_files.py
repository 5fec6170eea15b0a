"""Labelled sentences from files that a recipe names: JSONL, CSV or TSV with a text and a label in each row."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError

_YES = frozenset(("1", "1.0", "true", "yes"))
_NO = frozenset(("0", "0.0", "false", "no"))
_MAX_FIELD_CHARS = 1 << 20


def labelled_rows(path: Path, text_field: str, label_field: str) -> Iterator[tuple[str, bool]]:
    """(text, whether it is abusive) of each row, in order; rows without text are left out.

    A label is 0 or 1, true or false, yes or no. Raises ConfigError, with the row, where one is something else, a field is
    missing or the file is not what its ending says.
    """
    for number, row in enumerate(_rows(path), start=1):
        missing = [name for name in (text_field, label_field) if not isinstance(row, dict) or row.get(name) is None]
        if missing:
            raise ConfigError(
                f"{path.name}, row {number}: got no field {missing[0]!r}, wanted {text_field!r} and {label_field!r}: "
                "correct the row, or name the fields in bias.toxicity."
            )
        label = str(row[label_field]).strip().lower()
        if label not in _YES | _NO:
            raise ConfigError(
                f"{path.name}, row {number}: got label {label[:40]!r}, wanted 0 or 1, true or false, yes or no: correct it."
            )
        text = str(row[text_field]).strip()
        if text:
            yield text, label in _YES


def _rows(path: Path) -> Iterator[Any]:
    ending = path.suffix.lower()
    if ending not in (".jsonl", ".csv", ".tsv"):
        raise ConfigError(f"got labelled file {path.name}, wanted .jsonl, .csv or .tsv: rename or convert it.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if ending == ".jsonl":
                yield from (json.loads(line) for line in file if line.strip())
            else:
                csv.field_size_limit(_MAX_FIELD_CHARS)
                yield from csv.DictReader(file, delimiter="\t" if ending == ".tsv" else ",")
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"{path.name}: got a file that cannot be read ({error}), wanted UTF-8 {ending[1:]}: correct it."
        ) from error
