"""The files that models are measured on, in the formats that they are published in, as cases of a task.

    .jsonl .ndjson    each row a case
    .json             SQuAD's form, a list of rows, or a mapping with one under `data`, `examples` or `items`
    .csv .tsv         each row a case; the first line names the columns
    .parquet          each row a case
    .txt .tokens      perplexity: WikiText's pages, or the whole file; last_word: each line a passage

each but .parquet plain or gzip. What is missing or malformed is an error that names file and line: a suite of which half
was read would be another suite.

Must not: know how a case is asked; that is flows.evaluation.prompts.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from pipelines.errors import ConfigError, InputError

Kind = Literal[
    "multiple_choice",
    "last_word",
    "perplexity",
    "question_answering",
    "translation",
    "summarisation",
    "sentiment",
    "similarity",
]
KINDS: tuple[str, ...] = get_args(Kind)
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".tokens")
WIKITEXT = "wikitext"
"""Text as WikiText writes it."""

_MAX_CELL_NUM_CHARS = 1 << 24
_LETTERS = "ABCDEFGHIJ"
_POSITIVE = frozenset(("1", "positive", "pos", "good", "正面", "积极", "true"))
_NEGATIVE = frozenset(("0", "negative", "neg", "bad", "负面", "消极", "false"))
_SAME = frozenset(("1", "yes", "true", "same", "paraphrase", "equivalent", "是"))
_OTHER = frozenset(("0", "no", "false", "different", "not_paraphrase", "not_equivalent", "否"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of a suite, by the same names whatever file it comes from."""

    id: str
    """Its own, or its place in the file: a line from 1, or a path such as `data.3`."""
    values: Mapping[str, Any]
    """multiple_choice: query, choices, gold, is_question; or contexts, continuation, gold.
    last_word: context, target. perplexity: text. question_answering: context, question, answers.
    translation: source, target. summarisation: text, summary. sentiment: text, gold (1 is positive).
    similarity: first, second, gold (1 is the same)."""


class _RowError(ValueError):
    """A row that is not what its kind wants: `got ..., wanted ...`."""


def read_cases(path: Path, kind: str, *, languages: tuple[str, str] | None = None) -> list[Case]:
    """The cases of a file. `languages` are those of a translation, source and target, where columns are named by them.

    Raises InputError that names file and place for what is missing, malformed or empty.
    """
    cases: list[Case] = []
    for place, row in _rows(path, kind):
        try:
            values = _FROM_ROW[kind](row) if kind != "translation" else _translation(row, languages)
        except _RowError as error:
            raise InputError(f"{path}, {place}: {error}: mend the row, or take it out.") from error
        own_id = row.get("id") if isinstance(row, Mapping) else None
        cases.append(Case(id=str(own_id) if own_id not in (None, "") else place.removeprefix("line "), values=values))
    if not cases:
        raise InputError(f"{path}: got a file without rows, wanted at least one case of {kind}: check the file.")
    names = [case.id for case in cases]
    if len(set(names)) < len(names):  # such as MRPC's, which name sentences: places are unique
        cases = [Case(id=f"{case.id}/{idx}", values=case.values) for idx, case in enumerate(cases)]
    return cases


# Rows: (place, value)


def _rows(path: Path, kind: str) -> Iterator[tuple[str, Any]]:
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: got an unknown kind of file, wanted one of {', '.join(SUFFIXES)}: rename it.")
    try:
        if suffix == ".parquet":
            yield from _of_parquet(path)
            return
        with _opened(path) as lines:
            if suffix in (".jsonl", ".ndjson"):
                yield from _of_lines(path, lines)
            elif suffix in (".csv", ".tsv"):
                yield from _of_table(lines, "," if suffix == ".csv" else "\t")
            elif suffix == ".json":
                yield from _of_document(path, lines.read())
            else:
                yield from _of_text(path, lines.read(), kind)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise InputError(
            f"{path}: got a file that cannot be read ({error}), wanted {suffix} in UTF-8: check it."
        ) from error


def _opened(path: Path) -> TextIO:
    raw = path.open("rb")
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if is_gzip else raw, encoding="utf-8-sig", newline="")


def _of_lines(path: Path, lines: TextIO) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: got no JSON ({error}), wanted one row: mend it.") from error
            yield f"line {number}", row


def _of_table(lines: TextIO, delimiter: str) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(_MAX_CELL_NUM_CHARS)
    rows = csv.DictReader(lines, delimiter=delimiter, strict=delimiter == ",", quoting=_quoting(delimiter))
    for row in rows:
        yield f"line {rows.line_num}", row


def _quoting(delimiter: str) -> Literal[0, 3]:
    """In .tsv files as they are published a quotation mark is a mark."""
    return csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL


def _of_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"line {number}", row
    except pa.ArrowException as error:
        raise InputError(f"{path}: got no Parquet ({error}), wanted a file of rows: check it.") from error


def _of_document(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}: got no JSON ({error.msg}), wanted a document: mend it."
        ) from error
    place, rows = "", document
    if isinstance(document, Mapping):
        place = next((name for name in ("data", "examples", "items") if isinstance(document.get(name), list)), "")
        rows = document.get(place)
    if not isinstance(rows, list):
        raise InputError(f"{path}: got no list of rows, wanted SQuAD's form or a list: see the README.")
    for idx, row in enumerate(rows):
        at = f"{place}.{idx}" if place else str(idx)
        if isinstance(row, Mapping) and isinstance(row.get("paragraphs"), list):
            yield from _of_article(at, row["paragraphs"])
        else:
            yield at, row


def _of_article(place: str, paragraphs: list[Any]) -> Iterator[tuple[str, Any]]:
    for idx, paragraph in enumerate(paragraphs):
        at = f"{place}.paragraphs.{idx}"
        questions = paragraph.get("qas") if isinstance(paragraph, Mapping) else None
        if not isinstance(questions, list):
            yield at, paragraph
            continue
        for number, question in enumerate(questions):
            row = question if isinstance(question, Mapping) else {}
            if row.get("is_impossible") is not True:  # SQuAD 2: there is no answer to compare with
                yield f"{at}.qas.{number}", {"context": paragraph.get("context"), **row}


def _of_text(path: Path, text: str, kind: str) -> Iterator[tuple[str, Any]]:
    if kind == "last_word":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield f"line {number}", {"text": line}
    elif kind == "perplexity":
        from llm.evaluation.wikitext import pages

        found = pages(text)
        for number, page in enumerate(found, 1):
            yield (
                (f"page {number}" if len(found) > 1 else "whole file"),
                {"page": page, "is_whole_file": len(found) == 1},
            )
    else:
        raise InputError(f"{path}: got plain text, wanted rows for kind {kind}: write it as .jsonl, .csv or .tsv.")


# Values of each kind


def _mapping(row: Any) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise _RowError(f"got {_shown(row)}, wanted a mapping")
    return row


def _text(row: Any, *names: str) -> str:
    """The first of the named texts that a row has, and that is not blank."""
    mapping = _mapping(row)
    for name in names:
        value = mapping.get(name)
        if isinstance(value, str) and value.strip():
            return value
    raise _RowError(f"got keys {sorted(map(str, mapping))}, wanted a text under {' or '.join(names)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _multiple_choice(row: Any) -> dict[str, Any]:
    mapping = _mapping(row)
    if isinstance(mapping.get("context_options"), list):
        contexts = _texts(mapping["context_options"], "context_options")
        return {
            "contexts": contexts,
            "continuation": _text(mapping, "continuation"),
            "gold": _gold(mapping, contexts),
        }
    stem = mapping.get("question")
    if isinstance(stem, Mapping):  # ARC as it was published
        mapping = {**mapping, "question": stem.get("stem"), "choices": stem.get("choices")}
    choices, labels = _choices(mapping)
    is_question = "query" not in mapping
    query = _text(mapping, "query", "question", "goal", "ctx", "context")
    return {"query": query, "choices": choices, "gold": _gold(mapping, choices, labels), "is_question": is_question}


def _choices(mapping: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Options, and the labels that they have where they have some."""
    given = mapping.get("choices", mapping.get("endings"))
    if isinstance(given, Mapping):  # {"text": [...], "label": [...]}
        return _texts(given.get("text"), "choices.text"), [str(label) for label in given.get("label") or ()]
    if isinstance(given, list) and given and all(isinstance(each, Mapping) for each in given):
        return _texts([each.get("text") for each in given], "choices"), [str(each.get("label")) for each in given]
    if given is not None:
        return _texts(given, "choices"), []
    for names in (("sol1", "sol2"), ("choice1", "choice2"), ("option1", "option2"), tuple(_LETTERS)):
        found = [mapping[name] for name in names if isinstance(mapping.get(name), str) and mapping[name].strip()]
        if len(found) > 1:
            return found, []
    raise _RowError(f"got keys {sorted(map(str, mapping))}, wanted a list under choices")


def _texts(given: Any, name: str) -> list[str]:
    is_good = isinstance(given, list) and len(given) > 1
    if not is_good or not all(isinstance(each, str) and each.strip() for each in given):
        raise _RowError(f"got {name} {_shown(given)}, wanted a list of at least two texts")
    return list(given)


def _gold(mapping: Mapping[str, Any], choices: list[str], labels: list[str] | None = None) -> int:
    """Place of the right option: from a number from 0, a label, a letter, or its text."""
    name = next((name for name in ("gold", "answerKey", "label", "answer") if mapping.get(name) is not None), "gold")
    given = mapping.get(name)
    if isinstance(given, str) and labels and given in labels:
        return labels.index(given)
    if isinstance(given, str) and given in choices:
        return choices.index(given)
    if isinstance(given, str) and len(given) == 1 and given in _LETTERS[: len(choices)]:
        return _LETTERS.index(given)
    number = int(given) if isinstance(given, str) and given.strip().isdecimal() else given
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(choices):
        return number
    raise _RowError(f"got {name} {_shown(given)}, wanted the place of one of {len(choices)} options, from 0")


def _last_word(row: Any) -> dict[str, Any]:
    mapping = _mapping(row)
    if "continuation" in mapping:
        return {"context": _text(mapping, "context"), "target": _text(mapping, "continuation")}
    context, _, target = _text(mapping, "text").rpartition(" ")
    if not context.strip() or not target:
        raise _RowError("got a text without a space before its last word, wanted context and continuation")
    return {"context": context, "target": target}


def _perplexity(row: Any) -> dict[str, Any]:
    mapping = _mapping(row)
    is_page = isinstance(mapping.get("page"), str) and not mapping.get("is_whole_file")
    text = _text(row, "page", "text")
    from llm.evaluation.wikitext import detokenized, num_words

    return {
        "text": detokenized(text) if is_page else text,
        "num_words": num_words(text),
        "num_bytes": len(text.encode()),
    }


def _question_answering(row: Any) -> dict[str, Any]:
    mapping = _mapping(row)
    given = mapping.get("answers", mapping.get("answer"))
    if isinstance(given, Mapping):  # {"text": [...], "answer_start": [...]}
        given = given.get("text")
    if isinstance(given, str):
        given = [given]
    found = (
        [each.get("text") if isinstance(each, Mapping) else each for each in given] if isinstance(given, list) else []
    )
    if not found or not all(isinstance(each, str) and each.strip() for each in found):
        raise _RowError(f"got answers {_shown(given)}, wanted at least one text")
    context = mapping.get("context") or mapping.get("passage") or ""
    if not isinstance(context, str):
        raise _RowError(f"got context {_shown(context)}, wanted a text")
    return {"context": context, "question": _text(row, "question"), "answers": list(dict.fromkeys(found))}


def _translation(row: Any, languages: tuple[str, str] | None) -> dict[str, Any]:
    mapping = _mapping(row)
    if isinstance(mapping.get("translation"), Mapping):
        mapping = mapping["translation"]
    source, target = languages or ("source", "target")
    return {"source": _text(mapping, "source", source), "target": _text(mapping, "target", target)}


def _summarisation(row: Any) -> dict[str, Any]:
    return {
        "text": _text(row, "text", "article", "document", "content"),
        "summary": _text(row, "summary", "highlights", "abstract"),
    }


def _sentiment(row: Any) -> dict[str, Any]:
    return {"text": _text(row, "text", "sentence", "review"), "gold": _binary(row, _NEGATIVE, _POSITIVE)}


def _similarity(row: Any) -> dict[str, Any]:
    return {
        "first": _text(row, "sentence1", "first", "text1", "question1"),
        "second": _text(row, "sentence2", "second", "text2", "question2"),
        "gold": _binary(row, _OTHER, _SAME),
    }


def _binary(row: Any, zero: frozenset[str], one: frozenset[str]) -> int:
    mapping = _mapping(row)
    name = next(
        (name for name in ("label", "gold", "sentiment", "is_duplicate") if mapping.get(name) is not None), "label"
    )
    given = str(mapping.get(name)).strip().lower()
    if given in one or given in zero:
        return int(given in one)
    raise _RowError(f"got {name} {_shown(mapping.get(name))}, wanted one of {', '.join(sorted(zero | one))}")


_FROM_ROW: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "multiple_choice": _multiple_choice,
    "last_word": _last_word,
    "perplexity": _perplexity,
    "question_answering": _question_answering,
    "summarisation": _summarisation,
    "sentiment": _sentiment,
    "similarity": _similarity,
}


def check_kind(kind: str) -> None:
    """Raise ConfigError for a kind that there is none of."""
    if kind not in KINDS:
        raise ConfigError(f"kind: got {kind!r}, wanted one of {', '.join(KINDS)}: correct it.")
