"""What reporting costs the thread that trains: `python tests/benchmarks/bench_journal.py [--steps 300] [--rounds 5]`.

First the time of one line of the journal. Then the time of a step, a few hundred small operations of torch on one thread
as a GPT makes them, each step reported: to nobody, to a journal, and to a journal whose tracker is dead (nobody listens),
silent (nobody answers), or a real MLflow server on loopback. The kinds take turns, so that a noisy machine is noisy to all
of them; given is the median over all steps, and its ratio to the first. Ends with one JSON line.
"""

import argparse
import contextlib
import json
import logging
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "flows"))

from mlflow_server import free_port, serve_mlflow  # noqa: E402

from flows.tracker import shipper  # noqa: E402
from flows.tracker.shipper import Pace  # noqa: E402
from flows.tracker.training_run import Ending, TrainingRun  # noqa: E402
from llm.journal import Journal  # noqa: E402
from llm.reports import Report, StepReport, StepSeconds  # noqa: E402

_NUM_LINES = 20_000
_NUM_OPERATIONS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corpusmill-journal-")))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server = stack.enter_context(serve_mlflow(folder / "mlflow"))
        trackers = {
            "nobody": None,
            "journal": None,
            "dead": f"http://127.0.0.1:{free_port()}",
            "silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "living": server.url,
        }
        found: dict[str, Any] = line_seconds(folder)
        wall: dict[str, list[float]] = {kind: [] for kind in trackers}
        cpu: dict[str, list[float]] = {kind: [] for kind in trackers}
        for idx in range(arguments.rounds):
            for kind, uri in trackers.items():
                run_steps(folder / f"{kind}-{idx}", kind, uri, arguments.steps, wall[kind], cpu[kind])
    for kind in trackers:
        found[kind] = {
            "step_ms": round(statistics.median(wall[kind]) * 1e3, 3),
            "mean_step_ms": round(statistics.fmean(wall[kind]) * 1e3, 3),
            "cpu_ms": round(statistics.fmean(cpu[kind]) * 1e3, 3),
            "ratio": round(statistics.median(wall[kind]) / statistics.median(wall["nobody"]), 4),
            "mean_ratio": round(statistics.fmean(wall[kind]) / statistics.fmean(wall["nobody"]), 4),
        }
        sys.stderr.write(f"{kind:8} {found[kind]}\n")
    sys.stdout.write(f"{json.dumps(found)}\n")


def line_seconds(folder: Path) -> dict[str, Any]:
    """CPU time of the calling thread for a line, and how the calls are spread on the clock."""
    reports = [report(step) for step in range(_NUM_LINES)]
    seconds = []
    with Journal(folder / "lines") as written:
        began = time.thread_time()
        for each in reports:
            start = time.perf_counter()
            written.write(each)
            seconds.append(time.perf_counter() - start)
        cpu = (time.thread_time() - began) / _NUM_LINES
    seconds.sort()
    found = {
        "cpu_us": round(cpu * 1e6, 1),
        "median_us": round(seconds[_NUM_LINES // 2] * 1e6, 1),
        "p99_us": round(seconds[_NUM_LINES * 99 // 100] * 1e6, 1),
        "max_us": round(seconds[-1] * 1e6, 1),
    }
    sys.stderr.write(f"a line   {found}\n")
    return {"line": found}


def run_steps(folder: Path, kind: str, uri: str | None, num_steps: int, wall: list[float], cpu: list[float]) -> None:
    """Train for so many steps, reporting each; what came before the first and after the last is not counted."""
    with contextlib.ExitStack() as stack:
        on_report: Callable[[Report], None] = lambda _: None  # noqa: E731
        shipping = None
        if kind != "nobody":
            on_report = stack.enter_context(Journal(folder)).write
        if uri is not None:
            shipper.PACE = Pace(silence=10.0 if kind == "living" else 0.1)
            shipping = shipper.Shipper(training_run(folder, uri))
        weights = [torch.randn(128, 128) / 12 for _ in range(_NUM_OPERATIONS)]
        for step in range(num_steps):
            began, began_cpu = time.perf_counter(), time.thread_time()
            train_step(weights)
            on_report(report(step))
            wall.append(time.perf_counter() - began)
            cpu.append(time.thread_time() - began_cpu)
        if shipping is not None:
            shipping.end(Ending(status="FINISHED"))


def training_run(folder: Path, uri: str) -> TrainingRun:
    """The run of a training of which nothing but the journal is real."""
    return TrainingRun(
        workspace=str(folder),
        folder=str(folder),
        tracking_uri=uri,
        recipe="bench",
        flow_run_id=None,
        key="k" * 64,
        corpus_run_id=None,
        dataset_digest="d" * 64,
        dataset_source="nowhere",
        model={},
        training={},
    )


def train_step(weights: list[torch.Tensor]) -> None:
    hidden = torch.ones(64, 128)
    for weight in weights:
        hidden = torch.tanh(hidden @ weight)


def report(step: int) -> StepReport:
    seconds = StepSeconds(
        data=0.001, forward=0.1, backward=0.2, optimizer=0.01, log=0.001, checkpoint=0.0, whole=0.3123
    )
    return StepReport(
        step=step,
        num_tokens=step * 524_288,
        loss=3.123456789 + step * 1e-9,
        learning_rate=6e-4,
        grad_norm=0.5123412,
        tokens_per_second=1_234_567.8,
        mfu=0.41,
        seconds=seconds,
        val_loss=None,
        batch_digest=f"{step:016x}",
    )


if __name__ == "__main__":
    os.environ["DO_NOT_TRACK"] = "1"
    main()
