"""Documents per CPU second of the signals stage, on 5 kB documents: `python tests/benchmarks/bench_signals.py [TEXT...]`.

The parts are those of the stage; what they leave of it goes into rights, licences and Arrow arrays. Each text file is
cut into documents of about 5 kB of UTF-8 at line ends; without one, English and Chinese texts are generated from a
seed. Ends with one JSON line.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from pipelines import pii
from pipelines.schemas import DOCUMENT
from pipelines.signals.keywords import term_counter
from pipelines.signals.language import identify
from pipelines.signals.measure import SIGNALS_STAGE, SignalsConfig, measure_signals
from pipelines.signals.minhash import text_digest_and_minhash
from pipelines.signals.quality import count_lines, measure_quality
from pipelines.signals.repetition import measure_repetition
from pipelines.signals.words import Scratch, split_words

DOCUMENT_NUM_BYTES = 5000
SEED = 7

ENGLISH = (
    "the of and to in that it was for on with as his they be at one have this from or had by hot word but what some we "
    "can out other were all there when up use your how said an each she which their time if will way about many then "
    "them write would like so these her long make thing see him two has look more day could go come did number sound no "
    "most people over know water than call first who may down side been now find any new work part take get place made"
)
CHINESE = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"


def generated(language: str) -> str:
    rng = random.Random(SEED)
    lines = []
    for _ in range(4000):
        if language == "en":
            words = [*rng.choices(ENGLISH.split(), k=rng.randint(8, 40)), f"w{rng.randrange(3000)}"]
            lines.append(" ".join(words).capitalize() + ".")
        else:
            chars = [*rng.choices(CHINESE, k=rng.randint(20, 80)), chr(0x4E00 + rng.randrange(3000))]
            lines.append("".join(chars[:10]) + "，" + "".join(chars[10:]) + "。")
    return "\n".join(lines)


def documents_of(text: str) -> list[str]:
    documents, lines, num_bytes = [], [], 0
    for line in text.split("\n"):
        lines.append(line)
        num_bytes += len(line.encode()) + 1
        if num_bytes >= DOCUMENT_NUM_BYTES:
            documents.append("\n".join(lines))
            lines, num_bytes = [], 0
    return documents[:500]


def microseconds(texts: list[str], measure: Callable[[str], object]) -> float:
    """CPU time a document: the least of three rounds, since other work on the machine only ever adds."""
    measure(texts[0])
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for text in texts:
            measure(text)
        rounds.append(time.process_time() - started)
    return min(rounds) / len(texts) * 1e6


def bench(texts: list[str]) -> dict[str, float]:
    language = identify(texts[0], 0.65).code
    words = {text: split_words(text, language) for text in texts}
    lines = {text: count_lines(words[text]) for text in texts}
    scratch = Scratch()
    parts: dict[str, Callable[[str], object]] = {
        "language": lambda text: identify(text, 0.65),
        "words": lambda text: split_words(text, language, scratch=scratch),
        "lines": lambda text: count_lines(words[text]),
        "quality": lambda text: measure_quality(text, words[text], language, lines[text]),
        "repetition": lambda text: measure_repetition(words[text], lines[text]),
        "terms": term_counter(()),
        "pii": lambda text: pii.find(text, language),
        "digest_and_minhash": lambda text: text_digest_and_minhash(text, scratch),
    }
    found = {name: microseconds(texts, part) for name, part in parts.items()}
    (schema,) = SIGNALS_STAGE.inputs
    rows = [dict.fromkeys(schema.names) | {"doc_id": "", "directives": [], "text": text} for text in texts]
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    assert set(schema.names) <= set(DOCUMENT.names)
    stage = microseconds([""], lambda _: list(measure_signals([batch], SignalsConfig()))) / len(texts)
    return {name: round(value, 1) for name, value in found.items()} | {
        "stage": round(stage, 1),
        "documents_per_cpu_second": round(1e6 / stage),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", type=Path, help="UTF-8 text files")
    paths: list[Path] = parser.parse_args().texts
    sources = {path.name: path.read_text(encoding="utf-8") for path in paths}
    results = {}
    for name, text in (sources or {language: generated(language) for language in ("en", "zh")}).items():
        texts = documents_of(text)
        results[name] = bench(texts)
        print(f"{name}: {len(texts)} documents of {DOCUMENT_NUM_BYTES} bytes, microseconds of CPU time a document")
        for part, value in results[name].items():
            print(f"  {part:26}{value:10.1f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
