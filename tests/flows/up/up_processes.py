"""`corpusmill up` as a process, with a stand-in for what registers deployments where a test names one."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.up.processes import MARK

_START_SECONDS = 240.0
_OURS = ("CORPUSMILL_", "PREFECT_", "MLFLOW_", "PG")

STAND_IN = """
import json, os, sys
from pathlib import Path
from flows.up.options import options_of
from flows.up.run import up
from flows.settings import Settings
from flows.workspace import Workspace
from flows.cli import _fail, main
from pipelines.errors import CorpusmillError
given = json.loads(sys.argv[2])
deploy = given.pop("deploy")
try:
    options = options_of(None, ports=(0, 0, 0), postgres=os.environ.get("CORPUSMILL_POSTGRES"), cron=None,
        timezone=None, **{"host": "127.0.0.1", "artifacts": None, "run_now": False, **given})
    up(options, Workspace(Path(sys.argv[1])), as_json=True, deploy=deploy)
except CorpusmillError as error:
    _fail(str(error), 1)
"""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what steers corpusmill, Prefect, MLflow or Postgres."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return clean | {"OMP_NUM_THREADS": "1"} | changes


@dataclass
class Up:
    """An `up` that runs."""

    root: Path
    process: "subprocess.Popen[str]"
    facts: dict[str, Any] = field(default_factory=dict)

    def wait_until_up(self, seconds: float = _START_SECONDS) -> "Up":
        """Wait for the one line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.err()} {self.logs()}"
        self.facts = json.loads(line)
        return self

    def stop(self, number: int = signal.SIGTERM, seconds: float = 90) -> int:
        """Ask it to end, and wait until it has."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def err(self) -> str:
        """What it said."""
        return (self.root.parent / f"{self.root.name}.err").read_text()

    def logs(self) -> str:
        """All that its services said."""
        return "\n".join(
            path.read_text(errors="replace")[-3000:] for path in sorted((self.root / "logs").glob("*.log"))
        )

    def flow_runs(self) -> dict[str, dict[str, Any]]:
        """Flow runs of deployments by their names."""
        request = urllib.request.Request(
            f"{self.facts['prefect_api']}/flow_runs/filter", b'{"limit": 100}', {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return {run["name"]: run for run in json.loads(answer.read()) if run["deployment_id"]}

    def get(self, url: str, auth: str | None = None) -> int:
        """The status of an answer."""
        request = urllib.request.Request(url)
        if auth is not None:
            import base64

            request.add_header("Authorization", f"Basic {base64.b64encode(auth.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@contextmanager
def started(
    root: Path, *, has_deployments: bool = False, variables: dict[str, str] | None = None, **options: Any
) -> Iterator[Up]:
    """An `up` on a workspace, ended with the block, however that ends. Without deployments a stand-in registers nothing."""
    given = json.dumps({"deploy": None if has_deployments else [sys.executable, "-c", ""], **options})
    with (root.parent / f"{root.name}.err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", STAND_IN, str(root), given],
            stdout=subprocess.PIPE,
            stderr=err,
            env=environment(**(variables or {})),
            text=True,
        )
    found = Up(root, process)
    try:
        yield found
    finally:
        try:
            found.stop()
        finally:
            process.kill()
            for pid in belonging(root):
                os.kill(pid, signal.SIGKILL)


def belonging(root: Path) -> dict[int, str]:
    """The command lines of living processes that carry a workspace's mark, read without the code under test."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={root}" in (folder / "environ").read_bytes().decode(errors="replace").split("\0"):
                found[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:
            continue
    return {pid: command for pid, command in found.items() if command}


def command_lines() -> str:
    """Those of all processes, as `ps` shows them to everybody."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)
