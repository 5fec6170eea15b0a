"""Two Ray workers against one on the CPU-bound stages: `python tests/benchmarks/bench_ray.py [FOLDER]`.

FOLDER holds what `infra/fetch_debian_docs.sh FOLDER` unpacked. Its pages, each three times, are extracted and measured (the
stages `extract` and `signals`) by one and by two workers, on a Ray cluster on loopback and in the pool of this machine, in turns, each time
into a new store. Workers are up and warm: their start is told beside. Reported is the median over the rounds of the ratio
within a round, since other work on the machine changes from minute to minute.

Two busy cores that share caches or are one core's threads do less than two. The pool says how much less here: `cpu_growth`
is the CPU time of the same work with both cores busy over that with one; two workers cannot be more than 2 / cpu_growth
times one, on Ray or off it. `load` is what else wanted to run, by the kernel's average over the last minute before the
start. Every run must leave the same bytes. Ends with one JSON line; exits 1 below the bar.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench_build import cpu_seconds, default_config, sources_in
from page_files import english_pages, write_warc

from flows.on_ray.cluster import ray_cluster
from flows.on_ray.executor import RayExecutor
from pipelines.corpus import Manifests, corpus_nodes, run_node
from pipelines.executor import Executor, open_executor
from pipelines.store import Store
from pipelines.work import SourceFile

BAR_TIMES = 1.7
STAGES = ("extract", "signals")
PAGES_PER_FILE = 25
Figures = dict[str, dict[str, float]]


def run_stages(store: Store, sources: Sequence[SourceFile], executor: Executor) -> tuple[Figures, Manifests]:
    """Both stages, timed one by one."""
    config, done, figures = default_config(), {}, {}
    for node in corpus_nodes(config):
        if node.name in STAGES:
            cpu, started = cpu_seconds(), time.monotonic()
            result = run_node(node, config, sources, done, store, executor, lambda _: None)
            done[node.name] = result.manifest
            figures[node.name] = {"wall": time.monotonic() - started, "cpu": cpu_seconds() - cpu}
    figures["both"] = {what: sum(figures[name][what] for name in STAGES) for what in ("wall", "cpu")}
    return figures, done


@contextmanager
def executors() -> Iterator[tuple[dict[str, Executor], float]]:
    """One and two workers of each kind, and the seconds that the cluster took to start."""
    with ExitStack() as stack:
        started = time.monotonic()
        stack.enter_context(ray_cluster(None, 3))  # one for the lone worker and two for the pair, which take turns
        seconds = time.monotonic() - started
        found: dict[str, Executor] = {}
        for number in (1, 2):
            found[f"pool {number}"] = stack.enter_context(open_executor(number))
            found[f"ray {number}"] = ray = RayExecutor(number)
            stack.callback(ray.close)
        yield found, seconds


def median_ratio(rounds: Sequence[dict[str, Figures]], what: str, stage: str, over: str, under: str) -> float:
    """Median over the rounds of one run's figure over another's."""
    return round(statistics.median(each[over][stage][what] / each[under][stage][what] for each in rounds), 3)


def measure(warcs: Path, scratch: Path, num_rounds: int) -> dict[str, Any]:
    sources = sources_in(warcs)
    rounds: list[dict[str, Figures]] = []
    digests = set()
    with executors() as (found, start_seconds):
        for name, executor in found.items():
            run_stages(Store(scratch / f"warm {name}"), sources[: 2 * PAGES_PER_FILE // 5], executor)
        for number in range(num_rounds):
            order = list(found) if number % 2 == 0 else list(reversed(found))
            figures = {}
            for name in order:
                figures[name], done = run_stages(Store(scratch / f"{number} {name}"), sources, found[name])
                digests.add(tuple(done[stage].digest for stage in STAGES))
                both = figures[name]["both"]
                print(f"round {number}: {name}: {both['wall']:.2f} s, {both['cpu']:.2f} CPU s", flush=True)
            rounds.append(figures)
    speed_up = {
        kind: {stage: median_ratio(rounds, "wall", stage, f"{kind} 1", f"{kind} 2") for stage in (*STAGES, "both")}
        for kind in ("ray", "pool")
    }
    growth = median_ratio(rounds, "cpu", "both", "pool 2", "pool 1")
    return {
        "rounds": num_rounds,
        "ray_start_seconds": round(start_seconds, 2),
        "times_one_worker": speed_up,
        "cpu_growth": growth,
        "most_two_cores_can": round(2 / growth, 3),
        "ray_over_pool_seconds": {
            str(number): median_ratio(rounds, "wall", "both", f"ray {number}", f"pool {number}") for number in (1, 2)
        },
        "wall_seconds": {name: [round(each[name]["both"]["wall"], 2) for each in rounds] for name in rounds[0]},
        "is_same_bytes": len(digests) == 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("pages"))
    parser.add_argument("--num-pages", type=int, default=2000)
    parser.add_argument(
        "--copies", type=int, default=3, help="each page stands at so many URLs: runs of tens of seconds"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        warcs = Path(scratch, "warc")
        warcs.mkdir()
        once = english_pages(options.folder, options.num_pages)
        pages = [(f"{url}?copy={copy}", body) for copy in range(options.copies) for url, body in once]
        for start in range(0, len(pages), PAGES_PER_FILE):
            write_warc(warcs / f"{start:06d}.warc.gz", pages[start : start + PAGES_PER_FILE])
        print(
            f"{len(pages)} pages in {-(-len(pages) // PAGES_PER_FILE)} files; load {load:.2f} on {os.cpu_count()} cores"
        )
        found = {"pages": len(pages), "load": round(load, 2), **measure(warcs, Path(scratch), options.rounds)}
    ours = found["times_one_worker"]["ray"]["both"]
    print(
        f"two Ray workers: {ours} times one (pool: {found['times_one_worker']['pool']['both']}); the same work takes "
        f"{found['cpu_growth']} times the CPU time with both cores busy, so that at most {found['most_two_cores_can']} can be had"
    )
    print(json.dumps(found))
    if not found["is_same_bytes"]:
        sys.exit("got other bytes from another executor or number of workers, wanted the same.")
    if ours < BAR_TIMES:
        sys.exit(f"got {ours} times one worker, wanted at least {BAR_TIMES}; most that these cores can: see above.")


if __name__ == "__main__":
    main()
