"""`corpusmill up` from its start to its end."""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.recipe import load_recipe
from flows.up import credentials as auth
from flows.up import screen, services
from flows.up.addresses import Addresses, holding
from flows.up.api import PrefectApi, refuses_strangers
from flows.up.credentials import Credentials
from flows.up.handover import hand_on
from flows.up.logs import log_file
from flows.up.lost_runs import forgotten_runs, watch
from flows.up.options import Options
from flows.up.postgres import make_databases
from flows.up.processes import end_all, end_flow_runs, kill, marked
from flows.up.services import POOLS, Service
from flows.up.supervisor import StoppedError, Supervisor
from flows.workspace import Workspace
from pipelines.errors import CorpusmillError, TerminalError, TransientError
from pipelines.store import storage_errors

_START_SECONDS = 300.0
"""For a server that makes its database on a busy machine."""
_DEPLOY_SECONDS = 300.0
_WORKER_SECONDS = 120.0
_RUN_GRACE_SECONDS = 25.0
_SERVER_GRACE_SECONDS = 10.0
_CHECK_SECONDS = 0.2
_REFRESH = "refresh"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class _Stop:
    """How often somebody asked for the end."""

    asked: threading.Event
    num_asked: int = 0


def up(
    options: Options,
    place: Workspace,
    *,
    as_json: bool,
    deploy: Sequence[str] | None = None,
) -> None:
    """Run everything until somebody asks for the end. Raises TerminalError where something does not come up.

    `deploy` is the command that registers the deployments, in the place of corpusmill's own.
    """
    logs = place.root / "logs"
    with holding(place.root) as announce:
        with storage_errors(logs):
            logs.mkdir(mode=0o700, exist_ok=True)
            place.prefect_home.mkdir(parents=True, exist_ok=True)
        credentials = auth.made(place.root) if options.is_beyond_loopback else None
        tell = _teller(logs / "up.log")
        with _stop_signals() as stop:
            end_all(place.root, 0)  # what an `up` on a machine that crashed cannot have ended
            supervisor = Supervisor(
                logs=logs,
                secrets=[
                    *(credentials.secrets if credentials else ()),
                    *(options.postgres.secrets if options.postgres else ()),
                ],
                tell=tell,
                is_stopping=stop.asked.is_set,
            )
            api = PrefectApi(
                url=f"{options.url(options.prefect_port)}/api",
                auth=None if credentials is None else credentials.values[auth.PREFECT_CLIENT],
            )
            try:
                _start(options, place, credentials, supervisor, api, deploy)
                found = screen.facts(
                    options, place.root, None if credentials is None else credentials.path, os.getpid()
                )
                announce(_addresses(options, credentials))
                _show(found, as_json=as_json)
                watching = threading.Thread(
                    target=watch,
                    args=(api, tell, stop.asked),
                    kwargs={"is_alone": _is_alone(options)},
                    daemon=True,
                )
                watching.start()
                while not stop.asked.wait(_CHECK_SECONDS):
                    supervisor.check()
            except StoppedError:
                pass
            finally:
                announce(None)
                _end(options, place, supervisor, api, stop)


def _start(
    options: Options,
    place: Workspace,
    credentials: Credentials | None,
    supervisor: Supervisor,
    api: PrefectApi,
    deploy: Sequence[str] | None,
) -> None:
    if options.postgres is not None:
        make_databases(options.postgres)
    client = services.client_environment(options, credentials)
    prefect = services.prefect_server(options, place, credentials)
    mlflow = services.mlflow_server(options, place, credentials)
    supervisor.start(prefect)
    supervisor.start(mlflow)
    supervisor.wait_until_up(prefect, _START_SECONDS)
    _go_on_with_left_runs(options, api, supervisor)
    command = tuple(deploy) if deploy is not None else services.deploy_command(options, place)
    environment = services.command_environment(place, client)
    supervisor.run_to_end(Service(name="deploy", command=command, environment=environment), _DEPLOY_SECONDS)
    supervisor.wait_until_up(mlflow, _START_SECONDS)
    if credentials is not None:
        _check_auth(options)
    for pool in POOLS:
        supervisor.start(services.worker(pool, place, client))
    supervisor.start(services.metrics_exporter(options, place, client))
    if options.run_now:
        _run_now(options, api)
    _wait_for_workers(supervisor, api)


def _go_on_with_left_runs(options: Options, api: PrefectApi, supervisor: Supervisor) -> None:
    """Nothing of this workspace runs now. Where others may run things for the same server, its heartbeats tell."""
    if not _is_alone(options):
        return
    lost = forgotten_runs(api, datetime.now(UTC), timedelta(0))
    for sentence in hand_on(api, lost=lost, is_all=True).told("that were broken off go on now"):
        supervisor.tell(sentence)


def _is_alone(options: Options) -> bool:
    """Whether nobody else has workers for this server, so that nothing runs once ours have ended."""
    return not options.is_beyond_loopback and options.postgres is None


def _check_auth(options: Options) -> None:
    """Raise TerminalError unless both servers send strangers away: they listen where strangers are."""
    asked = {
        "Prefect's server": f"{options.url(options.prefect_port)}/api/admin/version",
        "MLflow's server": f"{options.url(options.mlflow_port)}/ajax-api/2.0/mlflow/experiments/get?experiment_id=0",
    }
    for name, url in asked.items():
        if not refuses_strangers(url):
            raise TerminalError(
                f"got an answer other than 401 from {name} for who has no password, wanted that on {options.host}: "
                "read the logs, or leave --host out."
            )


def _run_now(options: Options, api: PrefectApi) -> None:
    recipe = urllib.parse.quote(load_recipe(options.recipe).name, safe="")
    found = api.get(f"/deployments/name/{_REFRESH}/{recipe}")
    api.post(f"/deployments/{found['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})


def _wait_for_workers(supervisor: Supervisor, api: PrefectApi) -> None:
    """Until each pool has a worker that listens. One that takes longer is told, and waited for no more."""
    deadline = time.monotonic() + _WORKER_SECONDS
    host = socket.gethostname()
    for pool in POOLS:
        while not _is_online(api, pool, f"{pool} on {host}", supervisor):
            if supervisor.is_stopping():
                raise StoppedError
            if time.monotonic() > deadline:
                supervisor.tell(f"the worker of pool {pool} does not listen yet; see {supervisor.logs}.")
                break
            supervisor.check()
            time.sleep(_CHECK_SECONDS)


def _is_online(api: PrefectApi, pool: str, name: str, supervisor: Supervisor) -> bool:
    started_ago = time.monotonic() - supervisor.running[f"worker-{pool}"].started_at
    try:
        found = api.post(f"/work_pools/{pool}/workers/filter", {})
    except TransientError:
        return False
    now = datetime.now(UTC)
    beats = [datetime.fromisoformat(each["last_heartbeat_time"]) for each in found if each["name"] == name]
    return any((now - beat).total_seconds() <= started_ago for beat in beats)


def _end(options: Options, place: Workspace, supervisor: Supervisor, api: PrefectApi, stop: _Stop) -> None:
    """Runs first, then workers, then servers, which hear of both. Whatever fails on the way, nothing is left behind."""
    tell = supervisor.tell
    if supervisor.running:
        tell("stopping: runs are asked to end, then workers and servers; once more ends them at once.")
    try:
        ended = set(end_flow_runs(place.root, _RUN_GRACE_SECONDS, lambda: stop.num_asked > 1))
        supervisor.stop([f"worker-{pool}" for pool in POOLS], 0)  # they are halted, and have nothing to write down
        if supervisor.running:
            found = hand_on(api, ended, is_all=_is_alone(options))
            for sentence in found.told("were broken off and go on with the next `corpusmill up`"):
                tell(sentence)
    except CorpusmillError as error:
        tell(str(error))
    finally:
        supervisor.stop(list(supervisor.running), _SERVER_GRACE_SECONDS)
        deadline = time.monotonic() + _SERVER_GRACE_SECONDS
        while (left := marked(place.root)) and time.monotonic() < deadline:
            kill([process.pid for process in left])
            time.sleep(_CHECK_SECONDS)
    tell("stopped.")


def _addresses(options: Options, credentials: Credentials | None) -> Addresses:
    return Addresses(
        prefect_api=f"{options.url(options.prefect_port)}/api",
        prefect_ui=options.url(options.prefect_port),
        mlflow=options.url(options.mlflow_port),
        metrics=f"http://127.0.0.1:{options.metrics_port}/metrics",
        credentials=None if credentials is None else str(credentials.path),
    )


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    sys.stdout.write(f"{json.dumps(found)}\n" if as_json else "\n".join(screen.lines(found)))
    sys.stdout.flush()


def _teller(path: Path) -> Callable[[str], None]:
    """Says a sentence on stderr and in the log of `up` itself."""
    handler = log_file(path)

    def tell(text: str) -> None:
        sys.stderr.write(f"corpusmill up: {text}\n")
        sys.stderr.flush()
        handler.handle(logging.makeLogRecord({"msg": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}"}))

    return tell


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Signals ask for the end; what stood before is back after the block."""
    stop = _Stop(asked=threading.Event())

    def on_signal(_number: int, _frame: object) -> None:
        stop.num_asked += 1
        stop.asked.set()

    wanted = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup's, for one
    before = {number: signal.signal(number, on_signal) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
