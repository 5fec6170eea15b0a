"""Where a run happens: read once from the environment; none of it enters a stage key."""

import os
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ConfigError


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
    bucket: str | None = None
    """s3://BUCKET/PREFIX, where shards and records are kept; None keeps them in the workspace."""
    max_copies_num_bytes: int = 20 << 30
    """Of the copies of the bucket's shards in the workspace."""
    is_workspace_named: bool = True
    """False where it is the default, below the working directory."""


def read_settings(workspace: Path | None = None, num_workers: int | None = None) -> Settings:
    """Settings from the environment; what is given here goes first.

    CORPUSMILL_WORKSPACE, CORPUSMILL_WORKERS, CORPUSMILL_STORE, CORPUSMILL_STORE_CACHE_GIB, PREFECT_API_URL and
    MLFLOW_TRACKING_URI are read. Raises ConfigError.
    """
    cache_gib = os.environ.get("CORPUSMILL_STORE_CACHE_GIB", "20")
    if not cache_gib.isdecimal():
        raise ConfigError(f"CORPUSMILL_STORE_CACHE_GIB: got {cache_gib!r}, wanted a whole number of GiB: correct it.")
    workers = os.environ.get("CORPUSMILL_WORKERS", str(num_cores())) if num_workers is None else str(num_workers)
    if not workers.isdecimal():
        raise ConfigError(f"CORPUSMILL_WORKERS: got {workers!r}, wanted a whole number of at least 0: correct it.")
    return Settings(
        workspace=(workspace or Path(os.environ.get("CORPUSMILL_WORKSPACE", "workspace"))).absolute(),
        num_workers=int(workers),
        prefect_api_url=os.environ.get("PREFECT_API_URL") or None,
        mlflow_tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or None,
        bucket=os.environ.get("CORPUSMILL_STORE") or None,
        max_copies_num_bytes=int(cache_gib) << 30,
        is_workspace_named=workspace is not None or "CORPUSMILL_WORKSPACE" in os.environ,
    )


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
