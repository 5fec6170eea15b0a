"""The process of a service that `up` started: a program of Prefect's or MLflow's, for as long as `up` lives.

Standard input is a pipe that nobody writes to. It ends with `up`, however that ends. Then one of the services ends
everything that carries the workspace's mark, so that not even `kill -9` of `up` leaves a process behind.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from flows.up.addresses import wait_for_end
from flows.up.processes import MARK, end_all


def main() -> None:
    """Run `prefect` or `mlflow`, whichever is the first argument, with the others. Must lead a process group."""
    threading.Thread(target=_end_after_up, args=(Path(os.environ[MARK]),), daemon=True).start()
    program = sys.argv.pop(1)
    if program == "prefect":
        from prefect.cli import app

        app()
    else:
        from mlflow.cli import cli

        cli()


def _end_after_up(root: Path) -> None:
    os.read(0, 1)
    _write_to(root / "logs" / "ended.log")
    wait_for_end(root)  # the first of the services that gets here does it for all
    end_all(root)
    os.killpg(0, signal.SIGKILL)


def _write_to(path: Path) -> None:
    """Whoever read the output has gone: a write to it would be an error in the midst of an orderly end."""
    try:
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError:
        log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)


if __name__ == "__main__":
    main()
