"""What `corpusmill up` was asked for, checked before anything starts."""

import importlib.util
import ipaddress
import os
import socket
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from flows.recipe import load_recipe
from flows.up.postgres import Postgres, parse
from pipelines.errors import ConfigError

_PREFECT_PORT = 4200
_MLFLOW_PORT = 5000
_METRICS_PORT = 9464
LOOPBACK = "127.0.0.1"
_EVERYWHERE = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - what a user may ask for
_ARTIFACTS = "s3://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What runs, and where it listens."""

    recipe: Path | None
    host: str
    prefect_port: int
    mlflow_port: int
    metrics_port: int
    """Metrics stay on loopback, wherever the servers listen."""
    postgres: Postgres | None = field(default=None, repr=False)
    artifacts: str | None = None
    """s3://BUCKET/PREFIX, where MLflow keeps artifacts; None keeps them in the workspace."""
    run_now: bool = False
    cron: str | None = None
    timezone: str | None = None
    alert_block: str | None = None
    """Prefect block, TYPE/NAME, that alerts leave by."""

    @property
    def is_beyond_loopback(self) -> bool:
        """Whether others reach the servers, so that they must ask for a password."""
        return not is_loopback(self.host)

    @property
    def local_host(self) -> str:
        """As commands on this machine reach the servers."""
        return _EVERYWHERE.get(self.host, self.host)

    def url(self, port: int) -> str:
        """Of a server, for commands on this machine."""
        return f"http://{_bracketed(self.local_host)}:{port}"

    def shown_url(self, port: int) -> str:
        """Of a server, for people, who may sit elsewhere."""
        host = socket.gethostname() if self.host in _EVERYWHERE else self.host
        return f"http://{_bracketed(host)}:{port}"


def options_of(
    recipe: Path | None,
    *,
    host: str,
    ports: tuple[int | None, int | None, int | None],
    postgres: str | None,
    artifacts: str | None,
    run_now: bool,
    cron: str | None,
    timezone: str | None,
    alert_block: str | None = None,
) -> Options:
    """What the command was asked for. Ports are Prefect's, MLflow's and that of metrics. Raises ConfigError."""
    load_recipe(recipe).check_files()
    _check_artifacts(artifacts)
    _check_timezone(timezone)
    databases = None if postgres is None else parse(postgres, os.environ)
    prefect_port = _chosen_port("--prefect-port", host, ports[0], _PREFECT_PORT)
    mlflow_port = _chosen_port("--mlflow-port", host, ports[1], _MLFLOW_PORT, (prefect_port,))
    metrics_port = _chosen_port("--metrics-port", LOOPBACK, ports[2], _METRICS_PORT, (prefect_port, mlflow_port))
    return Options(
        recipe=recipe,
        host=host,
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
        metrics_port=metrics_port,
        postgres=databases,
        artifacts=artifacts,
        run_now=run_now,
        cron=cron,
        timezone=timezone,
        alert_block=alert_block,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of a name nobody knows, but localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _chosen_port(option: str, host: str, wanted: int | None, default: int, taken: tuple[int | None, ...] = ()) -> int:
    """The port that a server gets: what is wanted, 0 any, None the default or any. Raises ConfigError for one in use."""
    if wanted is None:
        return default if default not in taken and _is_free(host, default) else _free_port(host)
    if wanted == 0:
        return _free_port(host)
    if wanted in taken or not _is_free(host, wanted):
        raise ConfigError(
            f"{option}: got port {wanted} of {host}, which is in use or not this machine's, wanted a free one: take another."
        )
    return wanted


def _check_artifacts(artifacts: str | None) -> None:
    """Raise ConfigError for a place that MLflow cannot keep artifacts in."""
    if artifacts is None:
        return
    if not artifacts.startswith(_ARTIFACTS) or not artifacts.removeprefix(_ARTIFACTS).strip("/"):
        raise ConfigError(f"--artifacts: got {artifacts}, wanted s3://BUCKET or s3://BUCKET/PREFIX: correct it.")
    if importlib.util.find_spec("boto3") is None:
        raise ConfigError("--artifacts: got no package boto3, wanted it for S3: pip install 'corpusmill[services]'.")


def _check_timezone(timezone: str | None) -> None:
    """Raise ConfigError for a time zone that nobody knows; the schedule itself is checked where it is made."""
    if timezone is None:
        return
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(timezone)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"--timezone: got {timezone} ({error}), wanted a name like Europe/Berlin: correct it."
        ) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_free(host: str, port: int) -> bool:
    try:
        with closing(_bound(host, port)):
            return True
    except OSError:
        return False


def _free_port(host: str) -> int:
    try:
        with closing(_bound(host, 0)) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ConfigError(f"--host: got {host} ({error}), wanted an address of this machine: correct it.") from error


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    probe = socket.socket(family, kind, protocol)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
    except OSError:
        probe.close()
        raise
    return probe
