"""datatrove's FineWeb recipe on WARC files, run by `bench_build.py --peer-python` in an environment of its own:

    python3 -m venv peer && peer/bin/pip install "datatrove[io,processing]" spacy orjson lxml_html_clean

The steps are those of its examples/fineweb.py, from WARC to MinHash signatures and tokens, one process after the other.
Left out are the URL filter, which needs block lists, and what dedup does with the signatures; what is kept is passed on
in plain JSON lines, where the example packs and uploads it. No tokenizer is trained: a given one is used, and a given
lid.176 model. Prints one JSON line.

With `--decisions TEXTS.jsonl`, for `bench_agreement.py`: what its quality filters, each with its defaults, decide on
each text, and the value of every rule under the name of our signal. One JSON line a text.

With `--minhash TEXTS.jsonl SCRATCH`, for `bench_dedup.py`: the first three stages of its MinHash deduplication.
"""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.filters.c4_filters import CITATION_REGEX, END_PUNCTUATION, POLICY_SUBSTRINGS
from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
    get_n_grams,
)
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.lid import FT176LID
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_sentences, split_into_words


def cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(warcs: str, scratch: str, lid_model: str, tokenizer: str) -> None:
    start_seconds = cpu_seconds()
    FT176LID.MODEL_URL = lid_model
    kept = f"{scratch}/kept"
    jobs = {
        "filter": [
            WarcReader(warcs, glob_pattern="*.warc.gz"),
            Trafilatura(favour_precision=True, timeout=5),
            LanguageFilter(),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
            JsonlWriter(kept, compression=None),
        ],
        "signatures": [JsonlReader(kept), MinhashDedupSignature(f"{scratch}/signatures", config=MinhashConfig())],
        "tokens": [JsonlReader(kept), DocumentTokenizer(f"{scratch}/tokens", tokenizer, shuffle_documents=False)],
    }
    found = []
    for name, steps in jobs.items():
        cpu_started, started = cpu_seconds(), time.monotonic()
        stats = LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=f"{scratch}/logs/{name}").run()
        documents = {step.name: step["total"].total for step in stats.stats if "total" in step.stats}
        found.append(
            {
                "job": name,
                "cpu_seconds": round(cpu_seconds() - cpu_started, 2),
                "wall_seconds": round(time.monotonic() - started, 2),
                "documents": documents,
            }
        )
    cpu, num_pages = sum(job["cpu_seconds"] for job in found), next(iter(found[0]["documents"].values()))
    result = {
        "version": version("datatrove"),
        "pages": num_pages,
        "kept": next(iter(found[1]["documents"].values())),
        "start_cpu_seconds": round(start_seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(sum(job["wall_seconds"] for job in found), 2),
        "pages_per_cpu_second": round(num_pages / cpu, 1),
        "jobs": found,
    }
    print(json.dumps(result))


def minhash(texts: str, scratch: str) -> None:
    config, (signatures, buckets, removed) = (
        MinhashConfig(),
        (f"{scratch}/{name}" for name in ("sig", "buckets", "ids")),
    )
    stages = {
        "signatures": ([JsonlReader(texts), MinhashDedupSignature(signatures, config=config)], 1),
        "buckets": ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        "cluster": ([MinhashDedupCluster(buckets, removed, config=config)], 1),
    }
    split_into_words("a first text loads the tokenizer", "eng")
    spent = {}
    for name, (steps, tasks) in stages.items():
        started = cpu_seconds()
        LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=f"{scratch}/logs/{name}").run()
        spent[name] = round(cpu_seconds() - started, 2)
    figures = {"datatrove": version("datatrove"), "cpu_seconds": round(sum(spent.values()), 2), "stages": spent}
    print(json.dumps(figures))


def decisions(path: str) -> None:
    filters = {
        "gopher_quality": GopherQualityFilter(),
        "gopher_repetition": GopherRepetitionFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            found = {"id": row["id"], "values": values(row["text"])}
            for name, one in filters.items():
                outcome = one.filter(Document(text=row["text"], id=row["id"]))  # C4's rewrites its document's text
                found[name] = "" if outcome is True else outcome[1]
            print(json.dumps(found))


def values(text: str) -> dict[str, float]:
    """What its rules compare with their thresholds, under the names of our signals."""
    words = split_into_words(text, "eng")
    with_letters = [word for word in words if not PUNCTUATION_SET.issuperset(word)]
    lines = text.splitlines()
    stripped = [line.strip() for line in lines]
    plain = [line for line in text.split("\n") if line.strip()]
    paragraphs, all_lines = (
        GopherRepetitionFilter().paragraph_exp.split(text.strip()),
        [*filter(None, text.split("\n"))],
    )
    found = {
        "num_words": len(with_letters),
        "mean_word_length": float(np.mean([len(word) for word in with_letters])) if with_letters else 0.0,
        "hash_to_word_ratio": text.count("#") / len(words),
        "ellipsis_to_word_ratio": (text.count("...") + text.count("…")) / len(words),
        "bullet_line_ratio": sum(line.startswith(("•", "-")) for line in stripped) / len(lines),
        "ellipsis_line_ratio": sum(line.endswith(("...", "…")) for line in stripped) / len(lines),
        "alpha_word_ratio": sum(any(char.isalpha() for char in word) for word in words) / len(words),
        "num_stop_words": len(set(STOP_WORDS).intersection(words)),
        "dup_paragraph_ratio": find_duplicates(paragraphs)[0] / len(paragraphs),
        "dup_paragraph_char_ratio": find_duplicates(paragraphs)[1] / len(text),
        "dup_line_ratio": find_duplicates(all_lines)[0] / len(all_lines),
        "dup_line_char_ratio": find_duplicates(all_lines)[1] / len(text),
        "line_punctuation_ratio": sum(line.endswith(tuple(TERMINAL_PUNCTUATION)) for line in plain) / len(plain),
        "short_line_ratio": sum(len(line) <= 30 for line in plain) / len(plain),
        "dup_char_ratio": find_duplicates(plain)[1] / len(text.replace("\n", "")),
        "newline_to_word_ratio": text.count("\n") / len(words),
        "num_sentences": _num_sentences(stripped),
    }
    for n in (2, 3, 4):
        grams = get_n_grams(words, n)
        found[f"top_{n}_gram_char_ratio"] = find_top_duplicate(grams) / len(text) if grams else 0.0
    for n in range(5, 11):
        found[f"dup_{n}_gram_char_ratio"] = find_all_duplicate(words, n) / len(text)
    return found


def _num_sentences(lines: list[str]) -> int:
    total = 0
    for line in lines:
        kept, lower = CITATION_REGEX.sub("", line), line.lower()
        if (
            len(line.split()) >= 3
            and max(map(len, line.split())) <= 1000
            and kept.endswith(END_PUNCTUATION)
            and not kept.endswith("...")
            and "javascript" not in lower
            and not any(phrase in lower for phrase in POLICY_SUBSTRINGS)
        ):
            total += len(split_into_sentences(kept, "eng"))
    return total


if __name__ == "__main__":
    modes = {"--decisions": decisions, "--minhash": minhash}
    modes[sys.argv[1]](*sys.argv[2:]) if sys.argv[1] in modes else main(*sys.argv[1:])
