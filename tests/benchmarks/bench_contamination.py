"""Documents per CPU second of the search for evaluation items, and the memory of its index:
`python tests/benchmarks/bench_contamination.py [--ngrams N | --suites FILE...] [--texts FILE...]`.

The index holds N n-grams (a million) of generated passages, or the given suites. Each text file is cut into documents of
about 5 kB of UTF-8; without one, English and Chinese texts are generated from a seed. With suites, two more figures: what
is found in the texts as they are (they should hold no item), and the recall of items put into them, by length of the item
and by how it is written. Ends with one JSON line.
"""

import argparse
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from bench_signals import documents_of, generated, microseconds

from pipelines.contamination import ContaminationIndex, build_index, find, passage_tokens
from pipelines.signals.variants import simplified_characters
from pipelines.suites import Item, read_items

SEED = 11
PASSAGE_NUM_WORDS = 112  # a hundred n-grams
NUM_INJECTED = 2000


def items(num_ngrams: int) -> list[Item]:
    rng = random.Random(SEED)
    vocabulary = [f"{chr(97 + rng.randrange(26))}{number:x}" for number in range(20_000)]
    return [
        Item(suite="generated", item_id=str(number), passages=(" ".join(rng.choices(vocabulary, k=PASSAGE_NUM_WORDS)),))
        for number in range(num_ngrams // 100)
    ]


def spellings() -> dict[str, Callable[[str], str]]:
    """How a passage may be written."""
    traditional = {ord(simple): chr(code) for code, simple in sorted(simplified_characters().items(), reverse=True)}
    wide = {code: code + 0xFEE0 for code in range(ord("!"), ord("~") + 1)}
    return {
        "verbatim": str,
        "upper": str.upper,
        "full_width": lambda text: text.translate(wide),
        "traditional": lambda text: text.translate({code: to for code, to in traditional.items() if code >= 0x3400}),
        "without_marks": lambda text: "".join(char if char.isalnum() or char.isspace() else "" for char in text),
    }


def recall(suites: Sequence[Item], index: ContaminationIndex, texts: Sequence[str]) -> dict[str, str]:
    """Of items put into a text, the share found: an item's longest passage stands between two halves of a document."""
    rng = random.Random(SEED)
    found: Counter[tuple[str, str]] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    for item in rng.sample(list(suites), min(NUM_INJECTED, len(suites))):
        passage = max(item.passages, key=len)
        num_tokens = len(passage_tokens(passage))
        is_chinese = sum("\u4e00" <= char <= "\u9fff" for char in passage) > len(passage) / 3
        least, long = (12, 21) if is_chinese else (8, 14)
        size = "too_short" if num_tokens < least else "short" if num_tokens < long else "long"
        around = rng.choice(texts)
        for name, spell in spellings().items():
            text = f"{around[: len(around) // 2]}\n{spell(passage)}\n{around[len(around) // 2 :]}"
            key = (f"{'zh' if is_chinese else 'en'}_{size}", name)
            seen[key] += 1
            found[key] += bool(find(text, index))
    return {f"recall_{group}_{name}": f"{found[group, name]} of {seen[group, name]}" for group, name in sorted(seen)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", nargs="+", type=Path, default=[], help="files of evaluation suites")
    parser.add_argument("--texts", nargs="+", type=Path, default=[], help="UTF-8 text files")
    parser.add_argument("--ngrams", type=int, default=1_000_000)
    given = parser.parse_args()
    paths: list[Path] = given.suites
    passages = [item for path in paths for item in read_items(path, path.stem)] or items(given.ngrams)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    index = build_index(passages)
    results: dict[str, object] = {
        "items": len(passages),
        "ngrams": index.hashes.size,
        "index_bytes": index.num_bytes,
        "build_cpu_seconds": round(time.process_time() - started, 1),
        "build_peak_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10,
    }
    sources = {path.name: path.read_text(encoding="utf-8") for path in given.texts}
    texts: list[str] = []
    for name, text in (sources or {language: generated(language) for language in ("en", "zh")}).items():
        documents = documents_of(text)
        texts += documents
        results[f"{name}_documents_per_cpu_second"] = round(
            1e6 / microseconds(documents, lambda text: find(text, index))
        )
    if paths:
        hits = [match.label() for text in texts for match in find(text, index)]
        results["documents"] = len(texts)
        results["found_as_they_are"] = len(hits)
        results["items_found_as_they_are"] = ", ".join(sorted(set(hits))[:10])
        results |= recall(passages, index, texts)
    for name, value in results.items():
        print(f"{name:40}{value:>16,}" if isinstance(value, int) else f"{name:40}{value:>16}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
