"""The process of a Prefect server that a run started: Prefect's own command, for as long as its starter lives.

Standard input is a pipe that nobody writes to. It ends with the starter, however that ends, so that not
even `kill -9` leaves a server behind.
"""

import os
import signal
import threading
import time

_STOP_SECONDS = 15


def main() -> None:
    """Run `prefect` with this process's arguments. Must lead a process group: the whole group is ended."""
    threading.Thread(target=_end_with_starter, daemon=True).start()
    from prefect.cli import app

    app()


def _end_with_starter() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGINT)
    time.sleep(_STOP_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
