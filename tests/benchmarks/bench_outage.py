"""A tracker that is killed during training: `python tests/benchmarks/bench_outage.py [--seconds 60]`.

Steps of a few milliseconds are made and reported while a real MLflow server on loopback lives, is killed (SIGKILL), is gone for so
many seconds, and comes back. Given are the longest that a step waited for its report, beside the longest step of a run
without a tracker on the same machine, and what the server holds at the end beside the journal. Exits 1 above 50 ms, or where
a row is missing or there twice. Ends with one JSON line.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from bench_journal import report, train_step, training_run

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "flows"))

from mlflow_server import MlflowServer, serve_mlflow  # noqa: E402

from flows.tracker.shipper import Shipper  # noqa: E402
from flows.tracker.training_run import Ending, known_run_id  # noqa: E402
from llm.journal import JOURNAL, STEP, Journal, read  # noqa: E402

BAR_SECONDS = 0.05
_BEFORE_SECONDS = 10.0
_AFTER_SECONDS = 30.0
"""After the server is back: the shipper tries again within the wait that it has grown to."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="that the server is gone")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="corpusmill-outage-") as name:
        folder = Path(name)
        whole = _BEFORE_SECONDS + options.seconds + _AFTER_SECONDS
        alone = train(folder / "alone", None, whole / 4)
        with serve_mlflow(folder / "mlflow") as server:
            outage = threading.Thread(target=kill, args=(server, options.seconds))
            outage.start()
            found = train(folder / "tracked", server.url, whole)
            outage.join()
            found |= held(server, folder / "tracked")
    found |= {"gone_seconds": options.seconds, "without_tracker": alone}
    delay_ms = found["longest_steps_ms"][0] - alone["longest_steps_ms"][0]
    is_in_time = max(delay_ms, found["longest_report_ms"]) <= 1e3 * BAR_SECONDS
    holds = is_in_time and not found["missing"] and not found["twice"]
    sys.stdout.write(f"{json.dumps(found | {'holds': holds})}\n")
    sys.exit(not holds)


def kill(server: MlflowServer, seconds: float) -> None:
    """Kill the server after a while, and start it again."""
    time.sleep(_BEFORE_SECONDS)
    server.kill()
    time.sleep(seconds)
    server.start()


def train(folder: Path, uri: str | None, seconds: float) -> dict[str, Any]:
    """Make and report steps for so long."""
    reported, stepped = [], []
    with Journal(folder) as journal:
        shipper = None if uri is None else Shipper(training_run(folder, uri))
        weights = [torch.randn(128, 128) / 12 for _ in range(600)]
        end, step = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            began = time.perf_counter()
            train_step(weights)
            before = time.perf_counter()
            journal.write(report(step))
            after = time.perf_counter()
            reported.append(after - before)
            stepped.append(after - began)
            step += 1
    problem = None if shipper is None else shipper.end(Ending(status="FINISHED"))
    if uri is not None and problem is not None:  # the training is over, and the next command ships what is left
        Shipper(training_run(folder, uri)).end(Ending(status="FINISHED"))
    stepped.sort()
    return {
        "steps": step,
        "longest_report_ms": round(1e3 * max(reported), 2),
        "longest_steps_ms": [round(1e3 * each, 1) for each in stepped[:-6:-1]],
        "median_step_ms": round(1e3 * stepped[len(stepped) // 2], 2),
        "problem": problem,
    }


def held(server: MlflowServer, folder: Path) -> dict[str, Any]:
    """What the run has of the journal."""
    wanted = [entry.facts["step"] for entry in read(folder / JOURNAL) if entry.kind == STEP]
    steps = [step for step, _, _ in server.history(known_run_id(folder) or "", "train/loss")]
    return {
        "journal_rows": len(wanted),
        "missing": len(set(wanted) - set(steps)),
        "twice": len(steps) - len(set(steps)),
    }


if __name__ == "__main__":
    os.environ["DO_NOT_TRACK"] = "1"
    main()
