"""Extraction against trafilatura in one run: `python tests/benchmarks/bench_extract.py FOLDER [--rounds N]`.

FOLDER holds the pages of scrapinghub/article-extraction-benchmark: `ground-truth.json` and `html/*.html.gz`. The score
is that benchmark's: precision and recall of each page over multisets of 4-grams of `\\w+` tokens, averaged over the
pages that have any, and the F1 of the two averages. Pages are reported in two halves by the hash of their file names, of which the first
was for development. Extractors take turns, so that other work on the machine strikes both; times are CPU
times, the least of the rounds. Ends with one JSON line.
"""

import argparse
import gzip
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trafilatura
import trafilatura.meta

from pipelines.extract.html import extract_html

NUM_TOKENS = 4


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """Each run of 4 tokens, or of all where there are fewer; nothing of an empty text."""
    tokens = re.findall(r"\w+", text)
    runs = [tuple(tokens[start : start + NUM_TOKENS]) for start in range(max(1, len(tokens) - NUM_TOKENS + 1))]
    return Counter(filter(None, runs))


def scores(texts: Mapping[str, str], gold: Mapping[str, str], names: Sequence[str]) -> dict[str, float]:
    """F1, precision and recall of the pages `names`."""
    precisions, recalls = [], []
    for name in names:
        found, wanted = shingles(texts[name]), shingles(gold[name])
        hits = (found & wanted).total()
        if found:
            precisions.append(hits / found.total())
        if wanted:
            recalls.append(hits / wanted.total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return {"f1": 2 * precision * recall / (precision + recall), "precision": precision, "recall": recall}


def is_development(name: str) -> bool:
    return hashlib.sha256(f"{name}.html.gz".encode()).digest()[0] % 2 == 0


def ours(html: str) -> tuple[str, str]:
    found = extract_html(
        html, None, main_content=True, comments=True, min_main_chars=200, max_nesting=256, max_tags=1 << 19
    )
    return found.text, found.extractor


def theirs(**options: bool) -> Callable[[str], tuple[str, str]]:
    return lambda html: (trafilatura.extract(html, include_comments=False, **options) or "", "trafilatura")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    truth = json.loads((args.folder / "ground-truth.json").read_text("utf-8"))
    paths = sorted((args.folder / "html").glob("*.html.gz"))
    pages = {path.name.removesuffix(".html.gz"): gzip.decompress(path.read_bytes()).decode() for path in paths}
    gold = {name: truth[name]["articleBody"] for name in pages}
    extractors = {
        "ours": ours,
        "trafilatura": theirs(),
        "trafilatura precision": theirs(favor_precision=True),
        "trafilatura fast": theirs(fast=True),
    }
    seconds = {name: float("inf") for name in extractors}
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for extract in extractors.values():
        extract(next(iter(pages.values())))  # imports and first calls are not measured
    for _ in range(args.rounds):
        for name, extract in extractors.items():
            trafilatura.meta.reset_caches()  # pages of a crawl come once: what an earlier round left would flatter
            started = time.process_time()
            found[name] = {page: extract(html) for page, html in pages.items()}
            seconds[name] = min(seconds[name], time.process_time() - started)
    results: dict[str, dict[str, float]] = {}
    for name in extractors:
        texts = {page: text for page, (text, _) in found[name].items()}
        rate = len(pages) / seconds[name]
        results[name] = {"pages_per_cpu_second": rate, **scores(texts, gold, list(pages))}
        print(f"{name:24}{rate:8.1f} pages per CPU second")
        for half, wanted in (("development", True), ("held out", False), ("all", None)):
            chosen = [page for page in pages if wanted is None or is_development(page) == wanted]
            of_half = scores(texts, gold, chosen)
            print(
                f"  {half:12}{len(chosen):4} pages  "
                + "  ".join(f"{key} {value:.4f}" for key, value in of_half.items())
            )
    print("paths of ours:", dict(Counter(path for _, path in found["ours"].values())))
    for name in list(extractors)[1:]:
        results["ours"][f"times {name}"] = (
            results["ours"]["pages_per_cpu_second"] / results[name]["pages_per_cpu_second"]
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
