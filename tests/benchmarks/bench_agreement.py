"""How often we decide as datatrove's quality filters do: `python tests/benchmarks/bench_agreement.py PEER_PYTHON FOLDER [TEXT...]`.

PEER_PYTHON is the interpreter of an environment with `datatrove[processing]` and spacy; FOLDER holds what
`infra/fetch_debian_docs.sh FOLDER` unpacked. Each TEXT is a file of documents, plain or .gz: JSON lines with a `text`
(or `text_a`), a JSON object of documents with an `articleBody`, or a folder or file of plain text, cut at blank lines
into documents of about 4,000 characters. The same normalised texts go to both, each filter alone, with datatrove's
defaults; the curly bracket of C4 is judged too, which our default leaves (extraction removes scripts, and documentation
shows code: `quality.drop_curly_bracket`).

Prints for each filter the share of equal decisions, and every difference: document, rule, their value, ours, and the
cause. Ends with one JSON line; exits 1 where a share is below the bar. What was found stands in ARCHITECTURE.md.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from page_files import english_pages

from pipelines.extract import ExtractConfig, extract_documents
from pipelines.extract.normalize import normalize
from pipelines.policy import Comparison, PolicyConfig, QualityRules, Rule, rules_for
from pipelines.schemas import PAGE
from pipelines.signals.quality import count_lines, measure_quality
from pipelines.signals.repetition import measure_repetition
from pipelines.signals.words import MAX_NUM_CHARS, Scratch, Words, split_words

BAR = 0.995
DOCUMENT_NUM_CHARS = 4000
MAX_DOCUMENT_NUM_CHARS = 40_000  # datatrove needs a second for each 100,000
PEER_SCRIPT = Path(__file__).with_name("peer_datatrove.py")
FILTERS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
UNSPACED = "characters are words in a text of a script without spaces between words; they take runs of them for words"
ROUNDING = "values are stored with 24 bits, and lie within that of the threshold"
MISSING = "without a word we have no value and drop, where they have no rule or fail"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One rule on which one decision hangs."""

    filter: str
    document: str
    rule: str
    theirs: float
    """Their value, NaN where they have none."""
    ours: float
    cause: str


def documents(folder: Path, num_pages: int, paths: list[Path]) -> Iterator[tuple[str, str]]:
    pages = [
        dict.fromkeys(PAGE.names)
        | {"url": url, "status": 200, "content_type": "text/html", "headers": [], "payload": body}
        for url, body in english_pages(folder, num_pages)
    ]
    batch = pa.RecordBatch.from_pylist(pages, schema=PAGE)
    for found in extract_documents([batch], ExtractConfig()):
        for row in found.select(["url", "text"]).to_pylist():
            if 0 < len(row["text"]) <= MAX_DOCUMENT_NUM_CHARS:
                yield row["url"], row["text"]
    for path in paths:
        for name, text in texts_of(path):
            if 0 < len(text) <= MAX_DOCUMENT_NUM_CHARS:
                yield name, text


def texts_of(path: Path) -> Iterator[tuple[str, str]]:
    """(name, normalised text) of each document of a file or folder."""
    if path.is_dir():
        for below in sorted(path.rglob("*.txt")):
            yield from texts_of(below)
        return
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    content, name = raw.decode("utf-8", "replace"), path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        for number, line in enumerate(content.splitlines()):
            row = json.loads(line)
            if row.get("lang", "en") == "en":
                yield f"{path.name} {number}", normalize(row.get("text") or row.get("text_a") or "")
    elif name.endswith(".json"):
        for key, row in json.loads(content).items():
            yield f"{path.name} {key[:12]}", normalize(row["articleBody"])
    else:
        paragraphs: list[str] = []
        for paragraph in normalize(content).split("\n\n"):
            paragraphs.append(" ".join(paragraph.split()))
            if sum(map(len, paragraphs)) >= DOCUMENT_NUM_CHARS:
                text = "\n\n".join(paragraphs)
                yield f"{path.name} {text[:20]!r}", text
                paragraphs = []


def filter_of(rule: Rule) -> str:
    if rule.name.startswith(("c4_", "fineweb_")):
        return rule.name.partition("_")[0]
    return "gopher_repetition" if rule.signal.startswith(("dup_", "top_")) else "gopher_quality"


def measured(text: str, words: Words) -> dict[str, Any]:
    lines = count_lines(words)
    return measure_quality(text, words, "en", lines) | measure_repetition(words, lines)


def fails(rule: Rule, value: float | bool | None) -> bool:
    assert not isinstance(rule.threshold, tuple)
    if value is None:
        return True
    limit: float = rule.threshold
    if isinstance(value, float):  # as stored
        value, limit = float(np.float32(value)), float(np.float32(limit))
    return value < limit if rule.comparison is Comparison.AT_LEAST else value > limit


def compare(texts: dict[str, str], theirs: list[dict[str, Any]]) -> tuple[Counter[str], list[Difference]]:
    # C4's share of policy lines is no rule of theirs: they take the lines out
    config = PolicyConfig(compliance=None, language=None, bias=None, pii=None, quality=QualityRules(
        drop_curly_bracket=True, max_policy_line_ratio=None))  # fmt: skip
    rules = {name: [rule for rule in rules_for("en", config) if filter_of(rule) == name] for name in FILTERS}
    num_equal, found, scratch = Counter[str](), list[Difference](), Scratch()
    for row in theirs:
        text = texts[row["id"]][:MAX_NUM_CHARS]
        words = split_words(text, "en", scratch=scratch)
        values = measured(text, words)
        for name in FILTERS:
            failed = [rule for rule in rules[name] if fails(rule, values[rule.signal])]
            if bool(failed) == bool(row[name]):
                num_equal[name] += 1
            else:
                found.append(explain(name, rules[name], failed, row, values, unspaced=words.unspaced))
    return num_equal, found


def explain(
    name: str, rules: list[Rule], failed: list[Rule], row: dict[str, Any], values: dict[str, Any], *, unspaced: bool
) -> Difference:
    """The cause of a difference; the rule is the first of ours that fails, or of theirs by their values."""
    broken = failed or [
        rule for rule in rules if rule.signal in row["values"] and fails(rule, row["values"][rule.signal])
    ]
    signal = broken[0].signal if broken else ""
    ours, their = values.get(signal), row["values"].get(signal)
    if unspaced:
        cause = UNSPACED
    elif ours is None:
        cause = MISSING
    elif their is not None and abs(ours - their) < 1e-6 * max(1.0, abs(their)):
        cause = ROUNDING
    else:
        cause = f"unknown: {signal} differs"
    return Difference(
        filter=name,
        document=row["id"],
        rule=broken[0].name if broken else row[name],
        theirs=float("nan") if their is None else float(their),
        ours=float("nan") if ours is None else float(ours),
        cause=cause,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer_python", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("texts", nargs="*", type=Path)
    parser.add_argument("--num-pages", type=int, default=1500)
    options = parser.parse_args()
    texts = dict(documents(options.folder, options.num_pages, options.texts))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "texts.jsonl")
        path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
        command = [options.peer_python, PEER_SCRIPT, "--decisions", path]
        done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    num_equal, differences = compare(texts, theirs)
    for one in differences:
        print(f"{one.filter} | {one.document} | {one.rule} | {one.theirs:.4g} | {one.ours:.4g} | {one.cause}")
    num_dropped = {name: sum(bool(row[name]) for row in theirs) for name in FILTERS}
    summary = {
        name: {"documents": len(theirs), "dropped": num_dropped[name], "equal": round(num_equal[name] / len(theirs), 5)}
        for name in FILTERS
    }
    for name, figures in summary.items():
        print(f"{name:20}{figures['documents']:8}{figures['dropped']:8}{figures['equal']:11.3%}")
    for (name, cause), number in sorted(Counter((one.filter, one.cause) for one in differences).items()):
        print(f"{number:6}  {name}: {cause}")
    print(json.dumps(summary))
    if min(figures["equal"] for figures in summary.values()) < BAR:
        sys.exit(f"got less than {BAR:.1%} equal, wanted that of each filter: see the table.")


if __name__ == "__main__":
    main()
