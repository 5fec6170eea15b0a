"""A process worker in a container, or under systemd: asked to end, it lets its flow runs write down where they stand first.

    python -m flows.deployed.worker POOL [OPTIONS OF `prefect worker start`]

Prefect's own worker kills its runs as soon as it is asked. This process starts it as a child and is asked in its place: the
worker is halted, its runs get SIGTERM and time for a checkpoint, and only then is the worker ended, without asking. As the first
process of a container it takes leave of orphans, too.
"""

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence

from flows.settings import prefect_authorization, read_settings
from flows.up.api import PrefectApi
from flows.up.handover import hand_on
from flows.up.lost_runs import watch
from flows.up.processes import MARK, POOL, end_flow_runs, kill, marked
from pipelines.errors import CorpusmillError

RUN_GRACE_SECONDS = 100.0
"""For flow runs to end. `stop_grace_period` and `terminationGracePeriodSeconds` are 120 s, after which all of it is killed."""
_POLL_SECONDS = 0.5


def main(arguments: Sequence[str]) -> int:
    """Run the worker of a pool until it ends or this process is asked to; gives its exit code, 0 where it was asked."""
    if not arguments:
        sys.stderr.write("got no pool, wanted one: python -m flows.deployed.worker POOL, such as cpu or gpu.\n")
        return 2
    mark = f"worker-{uuid.uuid4().hex}"  # not the workspace's: other workers may share that, on this machine or another
    asked = threading.Event()
    num_asked = 0

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal num_asked
        num_asked += 1
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    pool, *options = arguments
    worker = subprocess.Popen(  # noqa: S603 - our own command, no shell
        [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", pool, *options],
        env=os.environ | {MARK: mark, POOL: pool},
        start_new_session=True,  # a Ctrl-C in a terminal is for this process
    )
    watching = threading.Thread(target=_watch, args=(asked,), name="lost runs", daemon=True)
    watching.start()
    code = None
    while code is None and not asked.wait(_POLL_SECONDS):
        code = _reap(worker.pid)
    ended = end_flow_runs(mark, RUN_GRACE_SECONDS, lambda: num_asked > 1)
    kill([process.pid for process in marked(mark)])
    if code is None:
        worker.wait()
        code = 0
    _tell(ended)
    return code if code >= 0 else 128 - code


def _reap(pid: int) -> int | None:
    """Take leave of children that have ended; gives the exit code of this one once it has."""
    code = None
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == pid:
                code = os.waitstatus_to_exitcode(found[1])
    except ChildProcessError:
        pass
    return code


def _server() -> PrefectApi:
    return PrefectApi(url=read_settings().prefect_api_url or "", auth=prefect_authorization())


def _watch(asked: threading.Event) -> None:
    """Let runs go on that lost their process, any worker's: see flows/up/lost_runs.py."""
    try:
        api = _server()
    except CorpusmillError:
        return  # the worker itself says what is missing
    watch(api, lambda sentence: sys.stderr.write(f"{sentence}\n"), asked, is_alone=False)


def _tell(ended: Sequence[str]) -> None:
    """Tell the server of runs whose worker can no longer do it, so that another worker takes them up at once."""
    if not ended:
        return
    try:
        later = hand_on(_server(), set(ended)).later
    except CorpusmillError as error:  # heartbeats that are missing tell it, too, only later
        sys.stderr.write(f"{error}\n")
    else:
        sys.stderr.write(f"{len(ended)} runs were asked to end; {len(later)} go on with the next worker.\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
