"""Peak memory of a build worker on one WARC file, small and large: `python tests/benchmarks/bench_memory.py [FOLDER]`.

FOLDER holds what `infra/fetch_debian_docs.sh FOLDER` unpacked. Its English pages are repeated up to the wanted number,
each time with another word strewn in, so that no five words in a row are those of another copy. The whole build runs
over the one file with the default configuration and one worker. The figures are the kernel's high-water marks of
resident memory, memory-mapped shards included (Linux only). Ends with one JSON line; exits 1 where a worker is over
the bar, or grows with the file beyond what the sample of text takes.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from bench_build import default_config, sources_in
from page_files import english_pages, write_warc

from pipelines.corpus import corpus_nodes, run_node
from pipelines.executor import open_executor
from pipelines.materialize import StageResult
from pipelines.sample import SampleConfig
from pipelines.store import Store

BAR_WORKER_BYTES = 3 << 29
MAX_GROWTH_BYTES = 2 * SampleConfig().max_sample_bytes
"""By how much the peak of the largest file may exceed that of the smallest: the text that the sample stage holds at
most, whatever the size of the corpus. The worker keeps that room for the stages after it."""

_TEXT = re.compile(rb">[^<>]{20,}")
_FOUR_WORDS = re.compile(rb"((?:\S+\s+){4})")
_LETTERS = bytes(range(ord("a"), ord("k")))


def repeated(pages: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """The pages, then copies of them without end, no two of them near-duplicates."""
    yield from pages
    copy = 1
    while True:
        word = b"x" + str(copy).encode().translate(bytes.maketrans(b"0123456789", _LETTERS))
        for url, body in pages:
            yield f"{url}?copy={copy}", _TEXT.sub(lambda text: _FOUR_WORDS.sub(rb"\1" + word + b" ", text[0]), body)  # noqa: B023
        copy += 1


def peak_bytes(pid: int) -> int:
    """Most memory a process ever had in RAM since its mark was last reset."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def bench(warcs: Path, store: Store) -> dict[str, Any]:
    """Peak memory of the worker in each stage, and of this process over all."""
    config, sources = default_config(), sources_in(warcs)
    results: dict[str, StageResult] = {}
    worker_peaks: dict[str, int] = {}
    parent = psutil.Process()
    reset_peak(parent.pid)
    with open_executor(1) as executor:
        for node in corpus_nodes(config):
            done = {name: result.manifest for name, result in results.items()}
            for child in parent.children():
                reset_peak(child.pid)
            results[node.name] = run_node(node, config, sources, done, store, executor, lambda _: None)
            worker_peaks[node.name] = max(peak_bytes(child.pid) for child in parent.children())
    return {
        "pages": results["extract"].manifest.num_rows,
        "kept": results["dedup"].manifest.counts()["keep"],
        "worker_bytes_by_stage": worker_peaks,
        "worker_bytes": max(worker_peaks.values()),
        "parent_bytes": peak_bytes(parent.pid),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("pages"))
    parser.add_argument("--num-pages", type=int, nargs="+", default=[1000, 10_000])
    options = parser.parse_args()
    sizes = sorted(options.num_pages)
    runs = []
    for num_pages in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            pages = english_pages(options.folder, min(sizes))
            write_warc(Path(scratch, "pages.warc.gz"), islice(repeated(pages), num_pages))
            del pages
            runs.append(bench(Path(scratch), Store(Path(scratch, "store"))))
    print(f"{'peak MiB':12}" + "".join(f"{run['pages']:>8} pages" for run in runs))
    rows = {stage: [run["worker_bytes_by_stage"][stage] for run in runs] for stage in runs[0]["worker_bytes_by_stage"]}
    rows |= {"worker": [run["worker_bytes"] for run in runs], "parent": [run["parent_bytes"] for run in runs]}
    for name, peaks in rows.items():
        print(f"{name:12}" + "".join(f"{peak / 2**20:14.0f}" for peak in peaks))
    peak, growth = max(rows["worker"]), rows["worker"][-1] - rows["worker"][0]
    bars = {"bar_worker_bytes": BAR_WORKER_BYTES, "bar_growth_bytes": MAX_GROWTH_BYTES}
    print(json.dumps({"runs": runs, "growth_bytes": growth, **bars}))
    if peak > BAR_WORKER_BYTES or growth > MAX_GROWTH_BYTES:
        sys.exit(
            f"got a worker of {peak >> 20} MiB that grew by {growth >> 20} MiB, wanted at most "
            f"{BAR_WORKER_BYTES >> 20} and {MAX_GROWTH_BYTES >> 20}."
        )


if __name__ == "__main__":
    main()
