"""Kills over whole builds: `python tests/benchmarks/bench_kills.py [--kills 200] [--seed 0]`.

A small corpus is built by a process group with a pool of two workers; the group, or one worker, is killed with SIGKILL at
random moments, again and again, and between two runs files are damaged. Each build that comes to its end must be equal, byte
for byte, to an undisturbed one; what was finished must be there and never be made again; the check of the store must find the
damage that was done and none other. First over builds in an empty store, then over three changes on top of a finished one.
Ends with one JSON line; exits 1 where a promise was broken.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "pipelines"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of each kind: over whole builds, and over changes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["full", "changes"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="corpusmill-kills-") as name:
        folder = Path(name)
        caches = folder / "caches"
        os.environ["NUMBA_CACHE_DIR"] = str(caches)
        from killing import Killer, states, undisturbed

        import pipelines

        caches.mkdir()
        for path in (Path(pipelines.__file__).parent / "__pycache__").iterdir():
            if path.suffix in (".o", ".arrays"):
                shutil.copy(path, caches)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pipelines.corpus", "pandas", "awkward"])
        trip = states(folder / "sources")
        ends = undisturbed(folder, trip)
        found: dict[str, Any] = {}
        is_whole = True
        for kind in ("full", "changes"):
            if arguments.only not in (None, kind):
                continue
            started = time.monotonic()
            (folder / kind).mkdir()
            killer = Killer(context, folder / kind, caches, arguments.seed)
            problem = None
            try:
                if kind == "full":
                    killer.travel(trip[:1], ends[:1], arguments.kills)
                else:
                    killer.travel(trip, ends, arguments.kills, only_changes=True)
            except AssertionError as error:
                problem, is_whole = str(error), False
            log = killer.log
            found[kind] = {
                "kills": log.num_kills,
                "of_one_worker": log.num_worker_kills,
                "rounds": log.num_rounds,
                "builds_completed_equal": log.num_completions,
                "stages_hit": dict(log.stages.most_common()),
                "damages": dict(log.damages.most_common()),
                "damages_found_by_check": log.num_found,
                "runs_that_refused_rot": log.num_refusals,
                "median_seconds_of_a_completed_round": round(statistics.median(log.seconds), 2)
                if log.seconds
                else None,
                "wall_seconds": round(time.monotonic() - started, 1),
                "problem": problem,
            }
            print(f"{kind}: " + json.dumps(found[kind], indent=1), file=sys.stderr)
    print(json.dumps(found))
    return 0 if is_whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
