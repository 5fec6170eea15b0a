"""Characters per CPU second of the search for 15,000 listed words: `python tests/benchmarks/bench_keywords.py [TEXT...]`.

12,000 Chinese and 3,000 Latin terms are drawn from a seed and written as a library. Without text files, English and
Chinese texts are generated from a seed; one that is given is repeated to 2 million characters. The texts are searched
in documents of 5,000 characters: with folding (NFKC, simplified, ...), as the signals stage does it, and without.
Ends with one JSON line.
"""

import argparse
import json
import random
import tempfile
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

from bench_signals import generated

from pipelines.digest import digest_file
from pipelines.signals import keywords
from pipelines.signals.folding import fold
from pipelines.stage import Resource

NUM_CHINESE, NUM_LATIN = 12_000, 3_000
NUM_CHARS = 2_000_000
DOCUMENT_NUM_CHARS = 5_000
SEED = 11


def library() -> str:
    rng = random.Random(SEED)
    terms: dict[str, None] = {}
    while len(terms) < NUM_CHINESE:
        terms["".join(chr(0x4E00 + rng.randrange(4000)) for _ in range(rng.randint(2, 6)))] = None
    while len(terms) < NUM_CHINESE + NUM_LATIN:
        word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(4, 12)))
        terms[word if rng.random() < 0.7 else f"{word[:4]} {word[4:]}".strip()] = None
    rows = [f"c{idx % 31}\t{term}\tauto\tgenerated\t2026-01-01" for idx, term in enumerate(terms)]
    return "\n".join(["category\tterm\tmatch\tsource\tadded_on", *rows])


def million_chars_per_second(texts: list[str], work: Callable[[str], object]) -> float:
    """CPU time, the least of three rounds: other work on the machine only ever adds."""
    work(texts[0])
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for text in texts:
            work(text)
        rounds.append(time.process_time() - started)
    return round(sum(map(len, texts)) / min(rounds) / 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", type=Path, help="UTF-8 text files")
    paths: list[Path] = parser.parse_args().texts
    sources = {path.name: path.read_text(encoding="utf-8") for path in paths}
    sources = sources or {language: generated(language) for language in ("en", "zh")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.tsv"
        path.write_text(library(), encoding="utf-8")
        extra = (Resource(digest_file(path), str(path)),)
        started = time.process_time()
        count, count_both = keywords.keyword_counter(extra), keywords.term_counter(extra)
        loading = (time.process_time() - started) / 2
        lists = keywords._compiled((keywords._keyword_terms(extra),))
    results: dict[str, dict[str, float]] = {}
    for name, source in sources.items():
        text = (source * (NUM_CHARS // max(len(source), 1) + 1))[:NUM_CHARS]
        texts = [text[start : start + DOCUMENT_NUM_CHARS] for start in range(0, NUM_CHARS, DOCUMENT_NUM_CHARS)]
        folded = [fold(text).text for text in texts]
        results[name] = {
            "folding and search": million_chars_per_second(texts, count),
            "folding and search, identity words too": million_chars_per_second(texts, count_both),
            "search alone": million_chars_per_second(folded, lambda text: keywords._counted(lists, text)),
            "folding alone": million_chars_per_second(texts, fold),
            "unicodedata NFKC and lower alone": million_chars_per_second(
                texts, lambda text: unicodedata.normalize("NFKC", text).lower()
            ),
        }
        print(f"{name}: {len(lists.terms)} terms, {loading:.2f} s to load, million characters per CPU second")
        for part, value in results[name].items():
            print(f"  {part:42}{value:10.1f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
