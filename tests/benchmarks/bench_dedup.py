"""Deduplication: `python tests/benchmarks/bench_dedup.py pages FOLDER [--peer-python PYTHON]`, or `... synthetic NUM [NUM ...]`.

`pages`: the texts of the English pages that `infra/fetch_debian_docs.sh FOLDER` unpacked go through our signatures, the
index of bands and the search for near-duplicates, shingles of candidates counted; and, with `--peer-python`, through the
first three stages of datatrove's MinHash deduplication, its defaults. CPU time of each, reading and writing included,
imports and process starts not. Exits 1 below ten times.

`synthetic`: so many made documents of 120 words, a fifth of them near-duplicates and a tenth copies of others, go through
the same stages and the last verdicts, each size in a process of its own, in shards of 10,000. Reports CPU time of each stage
and the kernel's high-water mark of resident memory, and exits 1 above 3 GiB. Ends with one JSON line.
"""

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from page_files import english_pages

from pipelines import schemas
from pipelines.corpus import likeness_configs
from pipelines.dedup import BANDS_STAGE, DEDUP, INDEX_STAGE, NEAR_STAGE, DedupConfig, IndexConfig
from pipelines.extract import ExtractConfig
from pipelines.extract.html import extract_html
from pipelines.signals.minhash import text_digest_and_minhash
from pipelines.signals.words import Scratch
from pipelines.stage import Aids, Resource
from pipelines.store import Shard, Store

BAR_RATIO = 10
BAR_BYTES = 3 << 30
SHARD_NUM_ROWS = 10_000
PEER_SCRIPT = Path(__file__).with_name("peer_datatrove.py")
TEXT = schemas.select(schemas.DOCUMENT, "text")
SIGNED = schemas.select(schemas.SIGNALS, "doc_id", "url", "fetched_at", "num_chars", "text_digest", "minhash")
DECIDED = schemas.select(schemas.DECISION, "doc_id", "decision", "reason")
FIRST_FETCH = datetime(2026, 1, 1, tzinfo=UTC)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def deduplicate(store: Store, texts: Iterator[Sequence[str]]) -> dict[str, Any]:
    """Texts, a shard of them at a time, to verdicts; the CPU seconds of each stage, making the texts left out."""
    of_bands, of_near, of_outcomes = likeness_configs(DedupConfig())
    seconds = dict.fromkeys(("signatures", "bands", "index", "near", "dedup"), 0.0)
    documents: list[Shard] = []
    signed: list[Shard] = []
    segments: list[Shard] = []
    num_rows, scratch = 0, Scratch()
    for part in texts:
        columns = [pa.array(part, pa.large_string())]
        documents.append(store.write(TEXT, pa.Table.from_arrays(columns, schema=TEXT).to_batches(max_chunksize=256)))
        started = cpu_seconds()
        signed.append(store.write(SIGNED, [_signed(part, num_rows, scratch)]))
        num_rows += len(part)
        between = cpu_seconds()
        segments.append(
            store.write(schemas.BANDS, BANDS_STAGE.transform(store.read(signed[-1]), of_bands), compression=None)
        )
        seconds["signatures"] += between - started
        seconds["bands"] += cpu_seconds() - between

    def rows() -> Iterator[pa.RecordBatch]:
        for shard in signed:
            for batch in store.read(shard):
                yield _decided(batch)

    started = cpu_seconds()
    groups = [
        store.write(
            schemas.BANDS,
            INDEX_STAGE.transform(
                (batch for shard in segments[first : first + 64] for batch in store.read(shard)), IndexConfig()
            ),
            compression=None,
        )
        for first in range(0, len(segments), 64)
    ]
    seconds["index"] = cpu_seconds() - started
    started = cpu_seconds()
    index = tuple(_resource(store, group) for group in groups)
    aids = Aids(read=store.read, aside=tuple(documents))
    near = store.write(schemas.NEAR, NEAR_STAGE.transform(rows(), of_near(index), aids))
    seconds["near"] = cpu_seconds() - started
    started = cpu_seconds()
    outcomes = store.write(schemas.OUTCOME, DEDUP.transform(rows(), of_outcomes(_resource(store, near))))
    seconds["dedup"] = cpu_seconds() - started
    reasons = pa.concat_arrays([batch.column("reason") for batch in store.read(outcomes, ("reason",))])
    return {
        "documents": num_rows,
        "cpu_seconds": {name: round(value, 2) for name, value in seconds.items()},
        "compared_pairs": near.num_rows,
        "dropped": {str(each["values"]): each["counts"] for each in reasons.drop_null().value_counts().to_pylist()},
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }


def _signed(texts: Sequence[str], start: int, scratch: Scratch) -> pa.RecordBatch:
    prints = [text_digest_and_minhash(text, scratch) for text in texts]
    minima = pa.array([signature for _, signature in prints], SIGNED.field("minhash").type)
    names = [f"{start + row:032x}" for row in range(len(texts))]
    times = [FIRST_FETCH + timedelta(seconds=start + row) for row in range(len(texts))]
    arrays = [pa.array(names), pa.array([f"https://site.example/{name}" for name in names])]
    digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    arrays += [pa.array(times, schemas.UTC_TIME), pa.array([len(text) for text in texts], pa.int64())]
    arrays += [pa.array([digest for digest, _ in prints], pa.binary(16)), pa.array(digests, pa.binary(16)), minima]
    return pa.RecordBatch.from_arrays(arrays, schema=SIGNED)


def _decided(batch: pa.RecordBatch) -> pa.RecordBatch:
    keep = [pa.array(["keep"] * batch.num_rows), pa.nulls(batch.num_rows, pa.string())]
    return pa.RecordBatch.from_arrays([*batch.columns, *keep], [*batch.schema.names, "decision", "reason"])


def _resource(store: Store, shard: Shard) -> Resource:
    return Resource(shard.digest, str(store.shard_path(shard.digest)))


def synthetic(num_documents: int) -> Iterator[list[str]]:
    """Made documents: of ten, one is a copy of an earlier one and two have six of its words changed."""
    rng = random.Random(0)
    words = [
        f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "e", "io", "u") for c in ("lin", "ter", "nos", "ka", "rd")
    ]
    earlier: list[list[str]] = []
    part: list[str] = []
    for number in range(num_documents):
        kind = number % 10 if earlier else 9
        if kind < 3:
            text = list(rng.choice(earlier))
            for _ in range(0 if kind == 0 else 2):
                text[rng.randrange(len(text))] = rng.choice(words) + "x"
        else:
            text = rng.choices(words, k=120)
            if len(earlier) < 50_000:
                earlier.append(text)
            elif number % 20 == 3:
                earlier[rng.randrange(len(earlier))] = text
        part.append(" ".join(text))
        if len(part) == SHARD_NUM_ROWS or number == num_documents - 1:
            yield part
            part = []


def bench_pages(folder: Path, num_pages: int, peer: Path | None) -> bool:
    config = ExtractConfig()
    names = ("main_content", "comments", "min_main_chars", "max_nesting", "max_tags")
    bounds = {name: getattr(config, name) for name in names}
    pages = english_pages(folder, num_pages)
    texts = [extract_html(body.decode("utf-8", "replace"), url, **bounds).text for url, body in pages]
    texts = [text for text in texts if text.strip()]
    list(deduplicated_once([*texts[:20], *texts[:20]]))  # compiles, imports and makes the tables
    ours = next(deduplicated_once(texts))
    spent = sum(value for name, value in ours["cpu_seconds"].items() if name != "dedup")
    figures = {"ours": ours | {"documents_per_cpu_second": round(len(texts) / spent, 1)}}
    print(f"{len(texts)} texts of {sum(map(len, texts)) / 1e6:.1f} M characters: {spent:.2f} CPU s, {ours}")
    if peer is None:
        print(json.dumps(figures))
        return True
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "texts.jsonl")
        path.write_text("".join(json.dumps({"id": str(row), "text": text}) + "\n" for row, text in enumerate(texts)))
        done = subprocess.run(
            [str(peer), str(PEER_SCRIPT), "--minhash", str(path), scratch],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    theirs = json.loads(done.stdout.splitlines()[-1])
    ratio = theirs["cpu_seconds"] / spent
    print(f"datatrove: {theirs}; ours is {ratio:.1f} times as fast (bar {BAR_RATIO})")
    print(json.dumps(figures | {"peer": theirs, "ratio": round(ratio, 1)}))
    return ratio >= BAR_RATIO


def deduplicated_once(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        yield deduplicate(Store(Path(scratch)), iter([texts]))


def bench_synthetic(sizes: Sequence[int]) -> bool:
    found = []
    for size in sizes:
        started = time.monotonic()
        command = [sys.executable, __file__, "one", str(size)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        figures["wall_seconds"] = round(time.monotonic() - started, 1)
        figures["cpu_microseconds_a_document"] = round(1e6 * sum(figures["cpu_seconds"].values()) / size, 1)
        print(f"{size:,} documents: {figures}")
        found.append(figures)
    print(json.dumps({"sizes": found, "bar_bytes": BAR_BYTES}))
    return all(figures["peak_bytes"] < BAR_BYTES for figures in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("pages", "synthetic", "one"))
    parser.add_argument("values", nargs="+", help="the folder, or numbers of documents")
    parser.add_argument("--num-pages", type=int, default=2000)
    parser.add_argument("--peer-python", type=Path)
    options = parser.parse_args()
    if options.mode == "one":
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(deduplicate(Store(Path(scratch)), synthetic(int(options.values[0])))))
        return
    if options.mode == "pages":
        is_reached = bench_pages(Path(options.values[0]), options.num_pages, options.peer_python)
    else:
        is_reached = bench_synthetic([int(value) for value in options.values])
    sys.exit(not is_reached)


if __name__ == "__main__":
    main()
