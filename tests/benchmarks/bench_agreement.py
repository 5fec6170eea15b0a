"""How often we decide as datatrove's quality filters do: `python tests/benchmarks/bench_agreement.py PEER_PYTHON FOLDER [TEXT...]`.

PEER_PYTHON is the interpreter of an environment with `datatrove[processing]` and spacy; FOLDER holds what
`infra/fetch_debian_docs.sh FOLDER` unpacked; each TEXT is a file of English prose, cut at blank lines into documents of
about 4,000 characters. The same normalised texts go to both, each filter alone, with datatrove's defaults.

Prints for each filter the share of equal decisions, as it is and without the differences that are meant, and every
difference: document, rule, their value, ours, and the cause. A cause is found by measuring again as datatrove reads the
rule: where that turns our decision into theirs, it is the reading; what remains are other ends of words and sentences.
Ends with one JSON line; exits 1 where the share without the meant differences is below the bar.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from page_files import english_pages

from pipelines.extract import ExtractConfig, extract_documents
from pipelines.extract.normalize import normalize
from pipelines.policy import Comparison, PolicyConfig, QualityRules, Rule, rules_for
from pipelines.schemas import PAGE
from pipelines.signals.quality import measure_quality
from pipelines.signals.repetition import measure_repetition
from pipelines.signals.words import MAX_NUM_CHARS, split_words

BAR = 0.995
DOCUMENT_NUM_CHARS = 4000
MAX_DOCUMENT_NUM_CHARS = 40_000  # datatrove needs a second for each 100,000
PEER_SCRIPT = Path(__file__).with_name("peer_datatrove.py")
FILTERS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
THEIR_TERMINALS = (".", "?", "!", "。", "！", "？", "．")  # of those an English text has, and the Chinese ones

MEANT = {
    "marks": "they count each punctuation mark as a word without a letter; we take what stands between white space",
    "closers": 'they call a line that ends in a quote or bracket (He said "yes.") unfinished; we look behind it',
    "runs": "they take each mark as a word and join words by spaces; we a run of marks (----, ->, )) as one, as it stands",
    "indent": "they compare lines with their indentation; we without, since indented code repeats all the same",
}
TOKENS = "spaCy ends words elsewhere (each mark its own, don't = do + n't); value near the threshold"
SENTENCES = "spaCy ends a sentence at every full stop, exclamation and question mark; we only before a capital"


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
    meant: bool


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
        paragraphs: list[str] = []
        for paragraph in normalize(path.read_text(encoding="utf-8")).split("\n\n"):
            paragraphs.append(" ".join(paragraph.split()))
            if sum(map(len, paragraphs)) >= DOCUMENT_NUM_CHARS:
                text = "\n\n".join(paragraphs)
                yield f"{path.name} {text[:20]!r}", text
                paragraphs = []


def filter_of(rule: Rule) -> str:
    if rule.name.startswith(("c4_", "fineweb_")):
        return rule.name.partition("_")[0]
    return "gopher_repetition" if rule.signal.startswith(("dup_", "top_")) else "gopher_quality"


def measured(text: str) -> dict[str, Any]:
    words = split_words(text[:MAX_NUM_CHARS])
    return measure_quality(text, words, "en") | measure_repetition(text, words)


def fails(rule: Rule, value: float | bool | None) -> bool:
    assert not isinstance(rule.threshold, tuple)
    if value is None:
        return True
    return value < rule.threshold if rule.comparison is Comparison.AT_LEAST else value > rule.threshold


def read_as_they_do(text: str, values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Our values, with one reading of theirs each."""
    lines = [line for line in text.split("\n") if line.strip()]
    num_chars = len(text) - text.count("\n")
    words = split_words("".join(char if char.isalnum() or char in "'’-_." else f" {char} " for char in text))
    unclosed = "\n".join(line for line in lines if line.rstrip().endswith((".", "?", "!", '"', "'", "]")))
    c4 = ("num_sentences", "has_lorem_ipsum", "has_curly_bracket")
    changed = {
        "marks": {"alpha_word_ratio": words.has_letter.sum() / words.num_words},
        "runs": measure_repetition(text, words),
        "closers": {
            "line_punctuation_ratio": sum(line.endswith(THEIR_TERMINALS) for line in lines) / len(lines),
            **{name: value for name, value in measured(unclosed).items() if name in c4},
        },
        "indent": {
            "short_line_ratio": sum(len(line) <= 30 for line in lines) / len(lines),
            "dup_char_ratio": (sum(map(len, lines)) - sum(map(len, set(lines)))) / num_chars,
        },
    }
    for reading, change in changed.items():
        yield reading, values | change


def compare(texts: dict[str, str], theirs: list[dict[str, Any]]) -> tuple[dict[str, Counter[str]], list[Difference]]:
    # C4's share of policy lines is no rule of theirs: they take the lines out
    config = PolicyConfig(compliance=None, language=None, bias=None, pii=None, quality=QualityRules(
        drop_curly_bracket=True, max_policy_line_ratio=None))  # fmt: skip
    rules = {name: [rule for rule in rules_for("en", config) if filter_of(rule) == name] for name in FILTERS}
    counts = {name: Counter[str]() for name in FILTERS}
    found = []
    for row in theirs:
        text = texts[row["id"]]
        values = measured(text)
        for name in FILTERS:
            failed = [rule for rule in rules[name] if fails(rule, values[rule.signal])]
            if bool(failed) == bool(row[name]):
                counts[name]["equal"] += 1
                continue
            difference = explain(name, rules[name], failed, row, text, values)
            counts[name]["meant" if difference.meant else "other"] += 1
            found.append(difference)
    return counts, found


def explain(
    name: str, rules: list[Rule], failed: list[Rule], row: dict[str, Any], text: str, values: dict[str, Any]
) -> Difference:
    """The cause of a difference; the rule is the first of ours that fails, or of theirs by their values."""
    broken = failed or [
        rule for rule in rules if rule.signal in row["values"] and fails(rule, row["values"][rule.signal])
    ]
    signal = broken[0].signal if broken else ""
    cause, meant = (SENTENCES if name == "c4" else TOKENS), False
    for reading, changed in read_as_they_do(text, values):
        if any(fails(rule, changed[rule.signal]) for rule in rules) == bool(row[name]):
            cause, meant = MEANT[reading], True
            break
    return Difference(
        filter=name,
        document=row["id"],
        rule=broken[0].name if broken else row[name],
        theirs=float(row["values"].get(signal, "nan")),
        ours=float(values[signal]) if signal and values[signal] is not None else float("nan"),
        cause=cause,
        meant=meant,
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
    counts, differences = compare(texts, theirs)
    for one in differences:
        print(f"{one.filter} | {one.document} | {one.rule} | {one.theirs:.4g} | {one.ours:.4g} | {one.cause}")
    summary = {
        name: {
            "documents": count.total(),
            "equal": round(count["equal"] / count.total(), 4),
            "equal_or_meant": round(1 - count["other"] / count.total(), 4),
        }
        for name, count in counts.items()
    }
    for name, figures in summary.items():
        print(f"{name:20}{figures['documents']:8}{figures['equal']:10.2%}{figures['equal_or_meant']:10.2%}")
    for (name, cause), number in sorted(Counter((one.filter, one.cause) for one in differences).items()):
        print(f"{number:6}  {name}: {cause}")
    print(json.dumps(summary))
    if min(figures["equal_or_meant"] for figures in summary.values()) < BAR:
        sys.exit(f"got less than {BAR:.1%} equal or meant, wanted that of each filter: see the table.")


if __name__ == "__main__":
    main()
