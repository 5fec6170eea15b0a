"""The services by their commands and environments: nothing secret on a command line, nothing sent to anybody.

Each server gets what is its own; workers and commands get addresses and what they log in with, and never the database.
"""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from flows.up.credentials import Credentials
from flows.up.options import LOOPBACK, Options
from flows.up.postgres import without_password
from flows.up.processes import MARK, POOL
from flows.workspace import Workspace

POOLS = ("cpu", "gpu")
_QUERY_SECONDS = "3"
"""Between two looks of a worker for due runs; Prefect's 10 are long for a person who waits."""
_OURS = (
    "PREFECT_API_",
    "PREFECT_SERVER_DATABASE_",
    "PREFECT_SERVER_API_",
    "MLFLOW_TRACKING_",
    "MLFLOW_BACKEND_",
    "MLFLOW_AUTH_",
)
"""Beginnings of variables that would lead the services elsewhere, or show them another server's secrets."""
_PRIVATE_HOSTS = ("10.*", "192.168.*", *(f"172.{second}.*" for second in range(16, 32)), "[[]f[cd]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A process that is kept running."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    health_url: str | None = None
    """What answers with 200 once it is up; None where nothing does."""


def prefect_server(options: Options, place: Workspace, credentials: Credentials | None) -> Service:
    """Prefect's server with its services, on the database of the workspace or on Postgres."""
    port = str(options.prefect_port)
    environment = _common(place) | {
        "PREFECT_SERVER_API_HOST": options.host,
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_UI_API_URL": "/api",  # of the page's own origin, whatever name a browser has for it
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": options.url(options.prefect_port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    environment.setdefault("PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED", "events,flow_runs")
    if options.postgres is not None:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = options.postgres.prefect_url
    if credentials is not None:
        environment |= credentials.prefect_server
    command = _child("prefect", "server", "start", "--host", options.host, "--port", port)
    health_url = f"{options.url(options.prefect_port)}/api/health"
    return Service(name="prefect-server", command=command, environment=environment, health_url=health_url)


def mlflow_server(options: Options, place: Workspace, credentials: Credentials | None) -> Service:
    """MLflow's server, on the runs that the workspace has, or on Postgres."""
    port = str(options.mlflow_port)
    environment = _common(place) | {
        "MLFLOW_BACKEND_STORE_URI": place.mlflow_uri if options.postgres is None else options.postgres.mlflow_url,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(_mlflow_hosts(options)),
    }
    command = _child("mlflow", "server", "--host", options.host, "--port", port, "--workers", "1")
    command += ("--artifacts-destination", options.artifacts or str(place.mlflow_artifacts))
    if options.artifacts is None and not options.is_beyond_loopback:
        # As runs without this server do, so that either finds what the other recorded.
        command += ("--default-artifact-root", place.mlflow_artifacts.absolute().as_uri())
    if credentials is not None:
        command += ("--app-name", "basic-auth")
        environment |= credentials.mlflow_server
    health_url = f"{options.url(options.mlflow_port)}/health"
    return Service(name="mlflow-server", command=command, environment=environment, health_url=health_url)


def worker(pool: str, place: Workspace, client: dict[str, str]) -> Service:
    """A worker of a process pool. One of a GPU takes one run at a time."""
    name = f"{pool} on {socket.gethostname()}"
    command = _child("prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", name)
    command += ("--install-policy", "never")
    if pool == "gpu":
        command += ("--limit", "1")
    environment = _common(place) | client | {POOL: pool}
    environment.setdefault("PREFECT_WORKER_QUERY_SECONDS", _QUERY_SECONDS)
    return Service(name=f"worker-{pool}", command=command, environment=environment)


def metrics_exporter(options: Options, place: Workspace, client: dict[str, str]) -> Service:
    """What Prometheus asks. It stays on loopback: it asks nobody for a password."""
    command: tuple[str, ...] = (sys.executable, "-m", "flows.cli", "metrics", "--workspace", str(place.root))
    command += ("--serve", f"{LOOPBACK}:{options.metrics_port}")
    return Service(name="metrics", command=command, environment=_common(place) | client)


def deploy_command(options: Options, place: Workspace) -> tuple[str, ...]:
    """What registers the deployments, pools and automations."""
    command: tuple[str, ...] = (sys.executable, "-m", "flows.cli", "deploy")
    command += (str(options.recipe.absolute()),) if options.recipe is not None else ()
    command += ("--workspace", str(place.root))
    command += ("--cron", options.cron) if options.cron is not None else ()
    command += ("--timezone", options.timezone) if options.timezone is not None else ()
    command += ("--alert-block", options.alert_block) if options.alert_block is not None else ()
    return command


def client_environment(options: Options, credentials: Credentials | None) -> dict[str, str]:
    """What whoever asks the servers needs: where they are, and who is asking."""
    environment = {
        "PREFECT_API_URL": f"{options.url(options.prefect_port)}/api",
        "MLFLOW_TRACKING_URI": options.url(options.mlflow_port),
        "PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK,
    }
    return environment if credentials is None else environment | credentials.client


def command_environment(place: Workspace, client: dict[str, str]) -> dict[str, str]:
    """Of a command of ours that belongs to the services."""
    return _common(place) | client


def _common(place: Workspace) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return without_password(inherited) | {
        MARK: str(place.root),
        "CORPUSMILL_WORKSPACE": str(place.root),
        "PREFECT_HOME": str(place.prefect_home),
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
    }


def _mlflow_hosts(options: Options) -> list[str]:
    """Names that a browser may have for MLflow's server; it refuses others, against pages that rebind their name."""
    names = ["localhost", LOOPBACK, "[::1]", options.host]
    if options.is_beyond_loopback:
        names += [socket.gethostname()]
    hosts = [form for name in dict.fromkeys(names) for form in (name, f"{name}:{options.mlflow_port}")]
    if options.is_beyond_loopback:
        hosts += [f"{socket.gethostname()}.*", *_PRIVATE_HOSTS]
    more = os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS")
    return [*hosts, *more.split(",")] if more else hosts


def _child(*command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "flows.up.child", *command)
