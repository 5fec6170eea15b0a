"""Documents per CPU second of the search for evaluation items, and the memory of its index:
`python tests/benchmarks/bench_contamination.py [--ngrams N] [TEXT...]`.

The index holds N n-grams (a million) of generated passages. Each text file is cut into documents of about 5 kB of UTF-8;
without one, English and Chinese texts are generated from a seed. Ends with one JSON line.
"""

import argparse
import json
import random
import resource
import time
from pathlib import Path

from bench_signals import documents_of, generated, microseconds

from pipelines.contamination import Item, build_index, find

SEED = 11
PASSAGE_NUM_WORDS = 112  # a hundred n-grams


def items(num_ngrams: int) -> list[Item]:
    rng = random.Random(SEED)
    vocabulary = [f"{chr(97 + rng.randrange(26))}{number:x}" for number in range(20_000)]
    return [
        Item(suite="generated", item_id=str(number), passages=(" ".join(rng.choices(vocabulary, k=PASSAGE_NUM_WORDS)),))
        for number in range(num_ngrams // 100)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", type=Path, help="UTF-8 text files")
    parser.add_argument("--ngrams", type=int, default=1_000_000)
    given = parser.parse_args()
    passages = items(given.ngrams)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    index = build_index(passages)
    results: dict[str, object] = {
        "ngrams": index.hashes.size,
        "index_bytes": index.num_bytes,
        "build_cpu_seconds": round(time.process_time() - started, 1),
        "build_peak_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10,
    }
    paths: list[Path] = given.texts
    sources = {path.name: path.read_text(encoding="utf-8") for path in paths}
    for name, text in (sources or {language: generated(language) for language in ("en", "zh")}).items():
        results[f"{name}_documents_per_cpu_second"] = round(
            1e6 / microseconds(documents_of(text), lambda text: find(text, index))
        )
    for name, value in results.items():
        print(f"{name:40}{value:>16,}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
