"""Where a run happens: read once from the environment; none of it enters a stage key."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from flows.up.addresses import Addresses, living
from pipelines.errors import ConfigError
from pipelines.log_lines import LEVELS, LogStyle, style_of
from pipelines.redaction import Redactor

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]", "::1")
"""What a server may listen on that nobody else reaches."""

TaskRunner = Literal["pool", "ray"]
"""Who runs the shards of a stage: processes of this machine, or a Ray cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Places and sizes of one run."""

    workspace: Path
    num_workers: int
    """Processes for CPU-bound stages; 0 runs them in this one."""
    prefect_api_url: str | None
    """A Prefect server that is up already; None starts one on loopback for the run."""
    mlflow_tracking_uri: str | None
    """None keeps the runs in the workspace."""
    services: Addresses | None = None
    """Those of the `corpusmill up` that runs in the workspace, whether or not they are the servers above."""
    bucket: str | None = None
    """s3://BUCKET/PREFIX, where shards and records are kept; None keeps them in the workspace."""
    max_copies_num_bytes: int = 20 << 30
    """Of the copies of the bucket's shards in the workspace."""
    is_workspace_named: bool = True
    """False where it is the default, below the working directory."""
    task_runner: TaskRunner = "pool"
    ray_address: str | None = None
    """HOST:PORT of a Ray cluster that is up, of which this host is a node; None starts one on loopback for the run."""
    ray_num_workers: int | None = None
    """Shards that are worked on at once on Ray; None: as many as the cluster has CPUs."""
    alert_block: str | None = None
    """TYPE/NAME of the block on the Prefect server that alerts leave by, where a command names none."""


def read_settings(
    workspace: Path | None = None, num_workers: int | None = None, task_runner: TaskRunner | None = None
) -> Settings:
    """Settings from the environment, then from the services that `corpusmill up` runs; what is given here goes first.

    CORPUSMILL_WORKSPACE, CORPUSMILL_WORKERS, CORPUSMILL_STORE, CORPUSMILL_STORE_CACHE_GIB, CORPUSMILL_TASK_RUNNER,
    CORPUSMILL_RAY_ADDRESS, CORPUSMILL_ALERT_BLOCK, PREFECT_API_URL and MLFLOW_TRACKING_URI are read. Raises ConfigError.
    """
    cache_gib = os.environ.get("CORPUSMILL_STORE_CACHE_GIB", "20")
    if not cache_gib.isdecimal():
        raise ConfigError(f"CORPUSMILL_STORE_CACHE_GIB: got {cache_gib!r}, wanted a whole number of GiB: correct it.")
    workers = os.environ.get("CORPUSMILL_WORKERS", str(num_cores())) if num_workers is None else str(num_workers)
    if not workers.isdecimal():
        raise ConfigError(f"CORPUSMILL_WORKERS: got {workers!r}, wanted a whole number of at least 0: correct it.")
    folder = (workspace or Path(os.environ.get("CORPUSMILL_WORKSPACE", "workspace"))).absolute()
    services = living(folder)
    runner = _task_runner(task_runner)
    ray_address = os.environ.get("CORPUSMILL_RAY_ADDRESS") or None
    if runner == "ray":
        _check_ray(ray_address, int(workers))
    is_cluster_asked = ray_address is not None and num_workers is None and "CORPUSMILL_WORKERS" not in os.environ
    return Settings(
        workspace=folder,
        num_workers=int(workers),
        prefect_api_url=os.environ.get("PREFECT_API_URL") or (services.prefect_api if services else None),
        mlflow_tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or (services.mlflow if services else None),
        services=services,
        bucket=os.environ.get("CORPUSMILL_STORE") or None,
        max_copies_num_bytes=int(cache_gib) << 30,
        is_workspace_named=workspace is not None or "CORPUSMILL_WORKSPACE" in os.environ,
        task_runner=runner,
        ray_address=ray_address,
        ray_num_workers=None if is_cluster_asked else int(workers),
        alert_block=os.environ.get("CORPUSMILL_ALERT_BLOCK") or None,
    )


def _task_runner(given: TaskRunner | None) -> TaskRunner:
    said = given or os.environ.get("CORPUSMILL_TASK_RUNNER") or "pool"
    for known in get_args(TaskRunner):
        if said == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(
        f"CORPUSMILL_TASK_RUNNER: got {said!r}, wanted {' or '.join(get_args(TaskRunner))}: correct it, or pass --task-runner."
    )


def _check_ray(address: str | None, num_workers: int) -> None:
    missing = [name for name in ("ray", "prefect_ray") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"CORPUSMILL_TASK_RUNNER: got ray without the package {missing[0]}, wanted both of Ray's: "
            "install corpusmill[ray], or leave the setting at pool."
        )
    if num_workers == 0:
        raise ConfigError("CORPUSMILL_WORKERS: got 0 with the task runner ray, wanted at least 1: correct one of them.")
    if address is not None and (address.count(":") != 1 or not address.rpartition(":")[2].isdecimal()):
        raise ConfigError(
            f"CORPUSMILL_RAY_ADDRESS: got {address!r}, wanted HOST:PORT as `ray start` prints it, on a node of the cluster: "
            "correct it; Ray's client protocol (ray://) cannot tell how far a shard is."
        )


def log_style() -> LogStyle:
    """How this process logs: CORPUSMILL_LOG_FORMAT is `text` (the default) or `json`, CORPUSMILL_LOG_LEVEL a level's name.

    Raises ConfigError for other values.
    """
    given = os.environ.get("CORPUSMILL_LOG_FORMAT", "text")
    if given.lower() not in ("text", "json"):
        raise ConfigError(f"CORPUSMILL_LOG_FORMAT: got {given!r}, wanted text or json: correct it.")
    level = os.environ.get("CORPUSMILL_LOG_LEVEL")
    if level and level.upper() not in LEVELS:
        raise ConfigError(f"CORPUSMILL_LOG_LEVEL: got {level!r}, wanted one of {', '.join(LEVELS)}: correct it.")
    return style_of(os.environ)


def redactor() -> Redactor:
    """What hides the secrets of this process's environment, and all that looks like one."""
    return Redactor.of(os.environ)


def prefect_authorization(more: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """user:password for the Prefect API, as Prefect's own client reads it; `more` counts where the environment has none."""
    return os.environ.get("PREFECT_API_AUTH_STRING") or more.get("PREFECT_API_AUTH_STRING")


def tracker_authorization(more: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """user:password for the MLflow server, likewise."""
    known = {**more, **os.environ}
    user = known.get("MLFLOW_TRACKING_USERNAME")
    return f"{user}:{known.get('MLFLOW_TRACKING_PASSWORD', '')}" if user else None


def certificate_files() -> list[Path]:
    """Authorities that sign the servers' certificates beside the system's, as Prefect's and MLflow's clients are told of them."""
    names = ("PREFECT_API_SSL_CERT_FILE", "MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE")
    named = (Path(os.environ[name]) for name in names if os.environ.get(name))
    return [path for path in named if path.is_file()]


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
