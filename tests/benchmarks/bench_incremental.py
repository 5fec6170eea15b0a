"""What a change costs against a fresh build: `python tests/benchmarks/bench_incremental.py FOLDER [FOLDER ...]`.

The folders hold what `infra/fetch_debian_docs.sh FOLDER [PACKAGE ...]` unpacked. Their pages, mixed, go into WARC files, and
the corpus is built, each time by a process of its own with two workers: fresh; again with nothing changed; with one
threshold changed; with a kept page taken down, its proof and certificate included; with 1 % more pages, fetched a day later. CPU time is that of the process and its workers from start to
end; what a no-op run takes is subtracted from each, the fresh build too. Every end is compared with a fresh build of it.
Last, runs in which nothing changed over 10 and over 1,000 files of two pages each. Ends with one JSON line; exits 1 above
a bar.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from bench_build import cpu_seconds, default_config, sources_in
from page_files import all_pages, write_warc

from pipelines.corpus import CorpusConfig, Manifests, build, corpus_nodes, last_manifests, read_aligned
from pipelines.executor import open_executor
from pipelines.policy import QualityRules
from pipelines.store import Store
from pipelines.takedown.certificate import (
    part_of_recipe,
    prove,
    read_before,
    remember,
    wanted_of,
    write_certificate,
)
from pipelines.takedown.documents import Takedown
from pipelines.takedown.ledger import Request, add_request, takedown_of
from pipelines.takedown.names import digest_name, url_form

BARS = {"add": 0.03, "threshold": 0.05, "takedown": 0.02}
BAR_NO_OP_SECONDS = 2
NO_OP_FILES = (10, 1000)
MAX_NO_OP_PAGE_BYTES = 1 << 15
RECIPE = "bench"


def config_of(step: str, url: str = "") -> CorpusConfig:
    config = default_config()
    if step == "takedown":
        takedown = Takedown(urls=(digest_name("url", url_form(url)),))
        return replace(config, extract=replace(config.extract, takedown=takedown))
    if step != "threshold":
        return config
    quality = replace(config.policy.quality or QualityRules(), min_words=75)
    return replace(config, policy=replace(config.policy, quality=quality))


def run_step(step: str, warcs: Path, store: Path, url: str) -> None:
    """One build in this process; prints its figures."""
    pa.array([0])  # pyarrow loads pandas with its first array; in the command it is loaded in any run
    started, opened = time.monotonic(), Store(store)
    config = config_of(step, url)
    with open_executor(2) as executor:
        last = last_manifests(opened, RECIPE, corpus_nodes(config))
        if step == "takedown":
            request = add_request(store.parent / "takedowns.jsonl", "url", url, by="bench", reason="bench")
            remember(store.parent / "takedowns", opened, RECIPE, [request])
        results = build(opened, sources_in(warcs), config, executor, lambda _: None, last)
        for result in results.values():
            opened.set_ref(RECIPE, result.manifest)
        if step == "takedown":
            certify(opened, request, {name: result.manifest for name, result in results.items()}, store.parent)
        cpu = cpu_seconds()
    print(
        json.dumps(
            {
                "cpu_seconds": cpu,
                "wall_seconds": time.monotonic() - started,
                "digests": {name: result.manifest.digest for name, result in results.items()},
                "computed": {name: result.num_computed for name, result in results.items() if result.num_computed},
                "kept": results["dedup"].manifest.counts()["keep"],
                "rows": results["extract"].manifest.num_rows,
                "stage_seconds": {name: round(result.seconds, 2) for name, result in results.items()},
            }
        )
    )


def certify(store: Store, request: Request, done: Manifests, place: Path) -> None:
    """Prove that nothing of the page is left, and write that down."""
    folder = place / "takedowns"
    before = read_before(folder, RECIPE)
    search, _ = prove(store, RECIPE, done, place / "reports", wanted_of(before, [request], takedown_of([request])))
    nothing: dict[str, Any] = {name: [] for name in ("other_recipes", "outputs", "artifacts", "models", "mlflow_runs")}
    shared = nothing | {"search": search}
    part = part_of_recipe(store, request, before, done, source_file=lambda _unit: None, shared=shared)
    write_certificate(folder, request, RECIPE, part)


def kept_url(store: Store) -> str:
    """The first kept page that has much text."""
    done = {name: store.ref(RECIPE, name) for name in ("signals", "dedup")}
    parts = ((done["signals"], ("doc_id", "url", "num_chars")), (done["dedup"], ("doc_id", "decision")))
    for _unit, batch in read_aligned(store, *parts):
        for row in batch.to_pylist():
            if row["decision"] == "keep" and row["num_chars"] > 2000:
                return str(row["url"])
    raise SystemExit("got a corpus without a kept page of 2,000 characters, wanted one: give other pages.")


def measured(step: str, warcs: Path, store: Path, url: str = "") -> dict[str, Any]:
    """The figures of one build in a process of its own."""
    command = [sys.executable, __file__, "--step", step, "--url", url, str(warcs), str(store)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    seconds = {name: value for name, value in figures["stage_seconds"].items() if value >= 0.1}
    print(
        f"{step}: {figures['cpu_seconds']:.1f} CPU s, {figures['wall_seconds']:.1f} s, computed {figures['computed']}, {seconds}"
    )
    return figures


def no_ops(pages: list[tuple[str, bytes]], scratch: Path) -> dict[str, Any]:
    """CPU and clock seconds of runs without a change, by the number of files."""
    found = {}
    for num_files in NO_OP_FILES:
        warcs = scratch / f"warc-{num_files}"
        warcs.mkdir()
        for number in range(num_files):
            copies = [(f"{url}?file={number}", body) for url, body in (pages[number % 50], pages[50 + number % 49])]
            write_warc(warcs / f"{number:04}.warc.gz", copies)
        store = scratch / f"store-{num_files}"
        measured("files", warcs, store)
        found[str(num_files)] = measured("no-op", warcs, store)
    few, many = (found[str(num_files)] for num_files in NO_OP_FILES)
    more = {name: round(many[name] - few[name], 2) for name in ("cpu_seconds", "wall_seconds")}
    print(f"no-op over {NO_OP_FILES[1]} files beyond one over {NO_OP_FILES[0]}: {more} (bar {BAR_NO_OP_SECONDS} s)")
    return more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("pages")])
    parser.add_argument("--num-pages", type=int, default=20_000)
    parser.add_argument("--pages-per-file", type=int, default=1000)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options.step, *options.folders, options.url)
        return
    num_new = options.num_pages // 100
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        warcs, store = scratch / "warc", scratch / "store"
        warcs.mkdir()
        pages = all_pages(options.folders, options.num_pages + num_new)
        if len(pages) < options.num_pages + num_new:
            print(f"got {len(pages)} pages, wanted {options.num_pages + num_new}: the corpus is smaller")
            num_new = len(pages) // 101
        first = pages[num_new:]
        for start in range(0, len(first), options.pages_per_file):
            write_warc(warcs / f"{start:06d}.warc.gz", first[start : start + options.pages_per_file])
        fresh, no_op = measured("fresh", warcs, store), measured("no-op", warcs, store)
        url = kept_url(Store(store))
        steps: dict[str, dict[str, Any]] = {}
        for step in ("threshold", "takedown", "add"):
            if step == "add":
                write_warc(warcs / "new.warc.gz", pages[:num_new], "2024-01-03T03:04:05Z")
            steps[step] = measured(step, warcs, store, url)
            again = measured(step, warcs, scratch / step / "store", url)
            steps[step]["equals_fresh"] = again["digests"] == steps[step]["digests"]
            if step != "add":
                measured("back", warcs, store)
        whole = fresh["cpu_seconds"] - no_op["cpu_seconds"]
        for step, figures in steps.items():
            figures["share"] = (figures["cpu_seconds"] - no_op["cpu_seconds"]) / whole
            figures["bar"] = BARS[step]
            print(
                f"{step}: {figures['share']:.2%} of a fresh build (bar {BARS[step]:.0%}), {figures['wall_seconds']:.1f} s, "
                f"equals a fresh one: {figures['equals_fresh']}"
            )
        more = no_ops([page for page in pages if len(page[1]) < MAX_NO_OP_PAGE_BYTES][:100], scratch)
    print(json.dumps({"fresh": fresh, "no_op": no_op, "no_op_of_1000_files": more, **steps}))
    is_over = any(figures["share"] > figures["bar"] or not figures["equals_fresh"] for figures in steps.values())
    sys.exit(is_over or more["wall_seconds"] > BAR_NO_OP_SECONDS)


if __name__ == "__main__":
    main()
