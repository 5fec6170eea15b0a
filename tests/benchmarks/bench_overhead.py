"""What Prefect costs a build of 1,000 shards: `python tests/benchmarks/bench_overhead.py [FOLDER]`.

FOLDER holds what `infra/fetch_debian_docs.sh FOLDER` unpacked; a thousand files of a few of its pages each are a recipe's
source. The flow `build_corpus` runs on it with a Prefect server of its own, on SQLite, as the command starts one; then the same
function runs as plain Python, its tasks called and its artifacts left out: the stages, the data card and MLflow's record are
the same. Both in turns, each time in a new workspace. The overhead is the share of the flow's wall time that the plain call
does not take, median over the rounds; the server works on the same cores, so its CPU time is in it. `cpu_overhead` is the same share of
CPU time, the server's counted: on a machine that others load, it says more than the clock. Ends with one JSON line; exits 1
above the bar.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil
import yaml
from page_files import all_pages, write_warc

from flows.control_plane import no_heartbeats, prefect_server
from flows.settings import read_settings
from flows.workspace import Workspace

BAR_SHARE = 0.10
Result = TypeVar("Result")


def write_recipe(folder: Path, pages: list[tuple[str, bytes]], num_shards: int) -> Path:
    """A recipe over so many WARC files, in a new folder."""
    each = max(1, len(pages) // num_shards)
    (folder / "warc").mkdir(parents=True)
    for number in range(num_shards):
        write_warc(folder / "warc" / f"{number:04d}.warc.gz", pages[number * each : (number + 1) * each])
    path = folder / "recipe.yaml"
    sections = {"dedup": {"validation_ratio": 0.05}, "tokenizer": {"vocab_size": 4096}}
    path.write_text(
        yaml.safe_dump({"name": "shards", "sources": [{"kind": "warc", "paths": ["warc/*.warc.gz"]}], **sections})
    )
    return path


def called(_name: str, run: Callable[[], tuple[str, Result]]) -> Result:
    """What `flows.tasks.run_as_task` does, without Prefect."""
    return run()[1]


@contextmanager
def without_prefect() -> Iterator[None]:
    """Tasks are calls and artifacts are not made, within the block."""
    with (
        mock.patch("flows.tasks.run_as_task", called),
        mock.patch("flows.tasks.ProgressArtifact.show"),
        mock.patch("flows.tasks.create_table_artifact"),
        mock.patch("flows.tasks.create_markdown_artifact"),
    ):
        yield


def server_cpu_seconds() -> float:
    """CPU time of the Prefect server."""
    servers = [each for each in psutil.Process().children() if "flows.prefect_process" in each.cmdline()]
    family = [process for each in servers for process in (each, *each.children(recursive=True))]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def build_cpu_seconds() -> float:
    """CPU time of this process and all below it but the server: workers that ended are in its children's."""
    times = psutil.Process().cpu_times()
    living = [sum(each.cpu_times()[:2]) for each in psutil.Process().children(recursive=True)]
    return sum(times[:4]) + sum(living) - server_cpu_seconds()


def measure(warm: Path, recipe: Path, scratch: Path, num_rounds: int, workers: int) -> dict[str, Any]:
    from flows.pipeline import build_corpus

    rounds: list[dict[str, float]] = []
    stages: list[dict[str, Any]] = []
    found: set[str] = set()
    build_corpus(str(warm), str(scratch / "warm workspace"), workers)  # imports, tables, the server's first requests
    for number in range(num_rounds):
        figures = {}
        for kind in ("flow", "plain") if number % 2 == 0 else ("plain", "flow"):
            workspace = str(scratch / f"{kind} {number}")
            cpu, server_cpu, started = build_cpu_seconds(), server_cpu_seconds(), time.monotonic()
            if kind == "flow":
                summary = build_corpus(str(recipe), workspace, workers)
                stages = summary["stages"]
            else:
                with without_prefect():
                    summary = build_corpus.fn(str(recipe), workspace, workers)
            figures[kind] = time.monotonic() - started
            figures[f"{kind}_cpu"] = build_cpu_seconds() - cpu
            figures[f"{kind}_server_cpu"] = server_cpu_seconds() - server_cpu
            found.add(summary["dataset_digest"])
            print(f"round {number}: {kind}: {figures[kind]:.2f} s", flush=True)
        rounds.append(figures)
    return {
        "shards": next(stage["shards"] for stage in stages if stage["name"] == "extract"),
        "stages": len(stages),
        "workers": workers,
        "flow_seconds": [round(each["flow"], 2) for each in rounds],
        "plain_seconds": [round(each["plain"], 2) for each in rounds],
        "server_cpu_seconds": round(statistics.median(each["flow_server_cpu"] for each in rounds), 2),
        "overhead_seconds": round(statistics.median(each["flow"] - each["plain"] for each in rounds), 2),
        "overhead": round(statistics.median(1 - each["plain"] / each["flow"] for each in rounds), 4),
        "cpu_overhead": round(
            statistics.median(1 - each["plain_cpu"] / (each["flow_cpu"] + each["flow_server_cpu"]) for each in rounds),
            4,
        ),
        "is_same_bytes": len(found) == 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("pages"))
    parser.add_argument("--num-shards", type=int, default=1000)
    parser.add_argument("--num-pages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "CORPUSMILL_STORE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as scratch:
        pages = all_pages([options.folder], options.num_pages)
        warm = write_recipe(Path(scratch, "warm"), pages[: len(pages) // 10], 20)
        recipe = write_recipe(Path(scratch, "all"), pages, options.num_shards)
        settings = read_settings(Path(scratch, "server"), options.workers)
        with prefect_server(settings, Workspace.of(settings)) as wait_until_up:
            wait_until_up()
            with no_heartbeats():
                found = {"load": round(load, 2)}
                found |= measure(warm, recipe, Path(scratch), options.rounds, options.workers)
    share = found["overhead"]
    print(
        f"{found['shards']} shards, {found['stages']} stages: Prefect takes {share:.1%} of the build's wall time "
        f"({found['overhead_seconds']} s; {found['server_cpu_seconds']} CPU s of its server), {found['cpu_overhead']:.1%} of its CPU time"
    )
    print(json.dumps(found))
    if not found["is_same_bytes"]:
        sys.exit("got another corpus without Prefect, wanted the same.")
    if share > BAR_SHARE:
        sys.exit(f"got {share:.1%} of the wall time, wanted at most {BAR_SHARE:.0%}.")


if __name__ == "__main__":
    main()
