"""What taking one page out of a corpus costs: `python tests/benchmarks/bench_takedown.py [FOLDER] [--num-pages 20000]`.

FOLDER holds what `infra/fetch_debian_docs.sh FOLDER` unpacked; its pages are repeated under other URLs, each copy with a
paragraph of its own, until there are enough. CPU time of the first build, of a build that changes nothing, and of a
take-down: noting what goes, the build, the proof and the certificate. The bar is 2 % of the first build, both counted
beyond the build that changes nothing. Ends with one JSON line; exits 1 above the bar.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_build import PAGES_PER_FILE, cpu_seconds, default_config, sources_in
from page_files import english_pages, write_warc

from pipelines.corpus import CorpusConfig, build, corpus_nodes, last_manifests
from pipelines.executor import open_executor
from pipelines.store import Manifest, Store
from pipelines.takedown.certificate import (
    part_of_recipe,
    prove,
    read_before,
    remember,
    wanted_of,
    write_certificate,
)
from pipelines.takedown.ledger import add_request, takedown_of
from pipelines.work import SourceFile

BAR = 0.02
BAR_SECONDS = 30
RECIPE = "bench"


def written(folder: Path, pages: Sequence[tuple[str, bytes]], num_pages: int) -> list[str]:
    """WARC files of so many pages; returns their URLs."""
    urls: list[str] = []
    for start in range(0, num_pages, PAGES_PER_FILE):
        part = []
        for number in range(start, min(start + PAGES_PER_FILE, num_pages)):
            copy, idx = divmod(number, len(pages))
            url, body = pages[idx]
            more = f"<p>Copy {copy} of this page has a paragraph {number} of its own, {number * copy} words long.</p>"
            part.append((f"{url}?copy={copy}", body.replace(b"</body>", more.encode() + b"</body>") if copy else body))
        write_warc(folder / f"{start:06d}.warc.gz", part)
        urls += [url for url, _ in part]
    return urls


def built(store: Store, sources: Sequence[SourceFile], config: CorpusConfig) -> dict[str, Manifest]:
    last = last_manifests(store, RECIPE, corpus_nodes(config))
    with open_executor(2) as executor:
        results = build(store, sources, config, executor, lambda _: None, last)
    for result in results.values():
        store.set_ref(RECIPE, result.manifest)
    return {name: result.manifest for name, result in results.items()}


def measured(figures: dict[str, Any], name: str, call: Callable[[], Any]) -> Any:
    cpu, clock = cpu_seconds(), time.monotonic()
    result = call()
    figures[name] = {
        "cpu_seconds": round(cpu_seconds() - cpu, 2),
        "seconds": round(time.monotonic() - clock, 2),
    }
    print(f"{name:<28}{figures[name]['cpu_seconds']:>10.2f} CPU s{figures[name]['seconds']:>10.2f} s")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("pages"))
    parser.add_argument("--num-pages", type=int, default=20_000)
    parser.add_argument("--text", action="store_true", help="Take down a quotation in place of the URL.")
    options = parser.parse_args()
    figures: dict[str, Any] = {"pages": options.num_pages, "bar": BAR}
    with tempfile.TemporaryDirectory() as scratch:
        warcs, place = Path(scratch, "warc"), Path(scratch, "workspace")
        warcs.mkdir()
        urls = written(warcs, english_pages(options.folder, options.num_pages), options.num_pages)
        sources, config, store = sources_in(warcs), default_config(), Store(place / "store")
        measured(figures, "first build", lambda: built(store, sources, config))
        measured(figures, "build without a change", lambda: built(store, sources, config))
        scope, value = ("text", "The Python Standard Library describes") if options.text else ("url", urls[7])
        request = add_request(place / "takedowns.jsonl", scope, value, by="bench", reason="bench")  # type: ignore[arg-type]
        takedown = takedown_of([request])
        folder = place / "takedowns"
        measured(figures, "noting what goes", lambda: remember(folder, store, RECIPE, [request]))
        under = replace(config, extract=replace(config.extract, takedown=takedown))
        done = measured(figures, "build under the take-down", lambda: built(store, sources, under))
        before = read_before(folder, RECIPE)
        wanted = wanted_of(before, [request], takedown)
        search, _ = measured(figures, "proof", lambda: prove(store, RECIPE, done, place / "reports", wanted))
        shared = {
            "search": search,
            "other_recipes": [],
            "outputs": [],
            "artifacts": [],
            "models": [],
            "mlflow_runs": [],
        }

        def certify() -> None:
            part = part_of_recipe(store, request, before, done, source_file=lambda _unit: None, shared=shared)
            write_certificate(folder, request, RECIPE, part)

        measured(figures, "certificate", certify)
    steps = ("noting what goes", "build under the take-down", "proof", "certificate")
    idle = figures["build without a change"]["cpu_seconds"]
    cpu = sum(figures[step]["cpu_seconds"] for step in steps) - idle
    figures["documents"] = len(before["requests"][request.id]["documents"])
    figures["searched"] = search
    figures["share"] = round(cpu / (figures["first build"]["cpu_seconds"] - idle), 4)
    figures["seconds"] = round(sum(figures[step]["seconds"] for step in steps), 2)
    print(json.dumps(figures))
    if figures["share"] > BAR or figures["seconds"] > BAR_SECONDS:
        sys.exit(
            f"got {figures['share']:.1%} of the first build's CPU and {figures['seconds']} s, wanted at most {BAR:.0%} "
            f"and {BAR_SECONDS} s."
        )


if __name__ == "__main__":
    main()
