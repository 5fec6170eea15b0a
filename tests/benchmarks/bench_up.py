"""Seconds from `corpusmill up --run-now` on a new workspace to a finished refresh of the embedded demo, through a worker.

    python tests/benchmarks/bench_up.py [REPEATS]

The bar is three minutes on two cores. The environment is warm (its modules are compiled), the workspace is new.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

_OURS = ("CORPUSMILL_", "PREFECT_", "MLFLOW_")
_MAX_SECONDS = 900.0
_ENDS = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def measure(root: Path) -> dict[str, float | str]:
    """One start, to the end of its first run and its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    command = [sys.executable, "-m", "flows.cli", "up", "--workspace", str(root), "--run-now", "--json"]
    command += ["--prefect-port", "0", "--mlflow-port", "0"]
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "it did not come up"
        up_seconds = time.monotonic() - began
        api = json.loads(line)["prefect_api"]
        state, run_seconds, started = "", 0.0, 0.0
        while state not in _ENDS and time.monotonic() - began < _MAX_SECONDS:
            time.sleep(0.5)
            found = [run for run in _ask(api) if run["deployment_id"] and "refresh" in run["name"]]
            state = found[0]["state_type"] if found else ""
            if state == "RUNNING" and not started:
                started = time.monotonic() - began
            run_seconds = time.monotonic() - began
    finally:
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        process.wait(120)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "servers, deployments and workers up": round(up_seconds, 1),
        "run begun": round(started, 1),
        "run ended": round(run_seconds, 1),
        "state": state,
        "stop": round(time.monotonic() - asked, 1),
        "CPU seconds of all processes": round(used.ru_utime + used.ru_stime, 1),
    }


def _ask(api: str) -> list[dict[str, Any]]:
    body = json.dumps({"limit": 50, "sort": "START_TIME_ASC"}).encode()
    request = urllib.request.Request(f"{api}/flow_runs/filter", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return list(json.loads(answer.read()))


def main() -> None:
    """Print a line a repeat, with the load of the machine before it."""
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"load before": round(load, 1)} | measure(Path(folder) / "workspace")), flush=True)


if __name__ == "__main__":
    main()
