"""Files of listed words: what stands in them, what is wrong with them, and which risks they cover.

Two formats, both UTF-8 text in which `#` starts a comment:

- a plain list: `# category: NAME` as the first line, then one term a line;
- a library: a line of the five column names `category term match source added_on`, then a row for each term, parted
  by tabs or, as CSV (RFC 4180), by commas. `match` is `auto` (a Latin term as a word of its own, a Chinese one
  anywhere), `part` (anywhere, inside words too) or `allow` (a phrase inside which hits of the category do not count;
  the category `*` is all of them). `source` says where the term is from, `added_on` (YYYY-MM-DD, or empty) since when.

A schema names the categories that a library should have and how many terms each: `gb45654` is that of GB/T
45654-2025, 31 risks, at least 200 terms for each of A.1, 100 for each of A.2, and 10,000 in all. The project ships the
schema and no such library.

Must not: search a text.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path

from pipelines.errors import ConfigError
from pipelines.signals.folding import fold_to_text

EVERY_CATEGORY = "*"
"""Category of an allowed phrase that pardons hits of every list."""
GB45654 = "gb45654"

_LEXICONS = Path(__file__).parent / "lexicons"
_COLUMNS = ("category", "term", "match", "source", "added_on")
_SCHEMA_COLUMNS = ["category", "min_terms", "name_zh", "name_en"]
_PLAIN_HEADER = re.compile(r"#\s*category:\s*([\w.-]{1,64})\s*")
_CATEGORY = re.compile(r"[\w.-]{1,64}")
_MIN_TOTAL = re.compile(r"#\s*min_total:\s*(\d{1,9})\s*")
_SPACES = re.compile(r"\s+")
_MAX_TERM_CHARS = 200
_MAX_NUM_TERMS = 1_000_000
_MAX_FILE_NUM_BYTES = 256 << 20


class Match(StrEnum):
    """Where a term is a hit."""

    AUTO = "auto"
    """A Latin term as a word of its own, a Chinese one anywhere."""
    PART = "part"
    """Anywhere."""
    ALLOW = "allow"
    """Nowhere: hits inside it do not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One listed term."""

    category: str
    term: str
    """As it is searched for: folded, white space as one space."""
    match: Match = Match.AUTO
    source: str = ""
    """Where it is from."""
    added_on: date | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaCategory:
    """One category that a library should have."""

    category: str
    min_terms: int
    """Terms asked for; 0: none."""
    name_zh: str
    name_en: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LibrarySchema:
    """The categories that a library should have."""

    categories: tuple[SchemaCategory, ...]
    min_total: int
    """Distinct terms asked for, all categories together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryCoverage:
    """How far one category is covered."""

    category: str
    name_zh: str
    name_en: str
    num_terms: int
    """Distinct, without allowed phrases."""
    min_terms: int
    num_missing: int
    newest: date | None
    """Newest `added_on`; None where no term says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """How far a library covers a schema. Counts terms; whether they are good ones a person must say."""

    categories: tuple[CategoryCoverage, ...]
    num_terms: int
    """Distinct terms in the schema's categories."""
    min_total: int
    num_elsewhere: int
    """Distinct terms of categories that the schema does not know; they count for nothing."""
    is_met: bool
    """Whether every category and the total have what is asked for."""


def read_terms(path: Path) -> tuple[Term, ...]:
    """The terms of a list or a library, in the order of the file.

    Raises ConfigError, with the number of the line, for what is not in either format.
    """
    text = _read(path)
    header = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    for delimiter in "\t,":
        if tuple(name.strip() for name in header.split(delimiter)) == _COLUMNS:
            return tuple(_library_terms(path, text, delimiter))
    first = _PLAIN_HEADER.fullmatch(text.partition("\n")[0].rstrip("\r"))
    if first is None:
        raise ConfigError(
            f"got word list {path.name} without a category, wanted '# category: NAME' as its first line, "
            f"or a line of the columns {' '.join(_COLUMNS)}: add one of them."
        )
    return read_plain_terms(path, first[1])


def read_plain_terms(path: Path, category: str, match: Match = Match.AUTO) -> tuple[Term, ...]:
    """The terms of a plain list as those of a category. Raises ConfigError for a line that is no term."""
    terms = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        written = line.partition("#")[0].strip()
        if written:
            terms.append(Term(category=category, term=_folded(written, path, number), match=match))
    return tuple(terms)


def read_schema(path: Path | None = None) -> LibrarySchema:
    """A schema from a file, or that of GB/T 45654-2025. Raises ConfigError, with the number of the line."""
    path = path or _LEXICONS / "schemas" / f"{GB45654}.txt"
    text = _read(path)
    min_total = next((int(found[1]) for line in text.splitlines() if (found := _MIN_TOTAL.fullmatch(line))), 0)
    rows = list(_rows(path, text, "\t"))
    if not rows or rows[0][1] != _SCHEMA_COLUMNS:
        raise ConfigError(
            f"got schema {path.name} without a first line of columns, wanted {' '.join(_SCHEMA_COLUMNS)}: add it."
        )
    categories = []
    for number, row in rows[1:]:
        if len(row) != len(_SCHEMA_COLUMNS) or not _CATEGORY.fullmatch(row[0]) or not row[1].isdecimal():
            raise _wrong(path, number, row, "a category, a number of terms and two names, parted by tabs")
        categories.append(
            SchemaCategory(category=row[0], min_terms=int(row[1][:9]), name_zh=row[2], name_en=row[3]),
        )
    names = Counter(item.category for item in categories)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise ConfigError(f"got schema {path.name} with category {twice[0]} twice, wanted each once: take one out.")
    return LibrarySchema(categories=tuple(categories), min_total=min_total)


def coverage(terms: Iterable[Term], schema: LibrarySchema) -> Coverage:
    """How many distinct terms each category of a schema has, against what it asks for."""
    listed: dict[str, set[str]] = {}
    newest: dict[str, date] = {}
    for term in terms:
        if term.match is not Match.ALLOW:
            listed.setdefault(term.category, set()).add(term.term)
            if term.added_on is not None:
                newest[term.category] = max(newest.get(term.category, term.added_on), term.added_on)
    known = {item.category for item in schema.categories}
    categories = tuple(
        CategoryCoverage(
            category=item.category,
            name_zh=item.name_zh,
            name_en=item.name_en,
            num_terms=(num_terms := len(listed.get(item.category, ()))),
            min_terms=item.min_terms,
            num_missing=max(item.min_terms - num_terms, 0),
            newest=newest.get(item.category),
        )
        for item in schema.categories
    )
    inside = set[str]().union(*(listed[name] for name in sorted(listed) if name in known))
    outside = set[str]().union(*(listed[name] for name in sorted(listed) if name not in known))
    return Coverage(
        categories=categories,
        num_terms=len(inside),
        min_total=schema.min_total,
        num_elsewhere=len(outside - inside),
        is_met=len(inside) >= schema.min_total and not any(item.num_missing for item in categories),
    )


def _library_terms(path: Path, text: str, delimiter: str) -> Iterator[Term]:
    rows = _rows(path, text, delimiter)
    next(rows)  # the names of the columns
    for number, row in rows:
        if len(row) != len(_COLUMNS):
            raise _wrong(path, number, row, f"{len(_COLUMNS)} columns, {' '.join(_COLUMNS)}")
        category, written, match, source, added_on = row
        if match not in tuple(Match):
            raise _wrong(path, number, match, f"match {', '.join(Match)}")
        if not _CATEGORY.fullmatch(category) and not (category == EVERY_CATEGORY and match == Match.ALLOW):
            raise _wrong(path, number, category, "a category of letters, digits, '.', '_' and '-'")
        yield Term(
            category=category,
            term=_folded(written, path, number),
            match=Match(match),
            source=source,
            added_on=_date(added_on, path, number),
        )


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows and their line numbers, without comments and empty lines. A quoted field may hold the delimiter."""
    num_rows = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            row = line.split(delimiter) if delimiter == "\t" else next(csv.reader([line], strict=True))
        except (csv.Error, ValueError) as error:
            raise _wrong(path, number, line, "one row a line, its quotes closed") from error
        num_rows += 1
        if num_rows > _MAX_NUM_TERMS + 1:
            raise ConfigError(f"got word list {path.name} of over {_MAX_NUM_TERMS} terms, wanted no more: split it.")
        yield number, [field.strip() for field in row]


def _folded(written: str, path: Path, number: int) -> str:
    term = _SPACES.sub(" ", fold_to_text(written[: _MAX_TERM_CHARS + 1])).strip()
    if not term or len(written) > _MAX_TERM_CHARS:
        raise _wrong(path, number, written, f"a term of 1 to {_MAX_TERM_CHARS} visible characters")
    return term


def _date(written: str, path: Path, number: int) -> date | None:
    if not written:
        return None
    try:
        if len(written) == len("2026-11-23"):
            return date.fromisoformat(written)
    except ValueError:
        pass
    raise _wrong(path, number, written, "added_on as YYYY-MM-DD, or nothing")


def _wrong(path: Path, number: int, got: object, wanted: str) -> ConfigError:
    shown = repr(got)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return ConfigError(f"got word list {path.name} with {shown} in line {number}, wanted {wanted}: correct the line.")


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE_NUM_BYTES:
            raise ConfigError(
                f"got word list {path.name} above {_MAX_FILE_NUM_BYTES >> 20} MiB, wanted less: split it."
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"got word list {path} that cannot be read ({error}), wanted UTF-8 text: replace it."
        ) from error
