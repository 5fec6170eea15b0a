"""A Ray cluster for the length of a run: one on loopback that ends with it, or one that is up already.

prefect-ray's task runner starts or joins it, so whatever else a flow submits goes there too. Ray reads its environment
when it is imported, so this is where it is imported first.

A cluster of our own listens on loopback alone, has no dashboard, sends no statistics, and asks for a token that nobody else
has, since whoever reaches a Ray port may run code. Its files lie in a folder that goes with it; one that a killed run left
is removed by the next. Ray's processes end with the thread that started them, even where that is killed: so start it from
the main thread.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.errors import TransientError

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning on GPUs that no shard needs
}
_OWN_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # named for two systems, it keeps a node of any to loopback
    "AUTOSCALER_METRIC_PORT": "0",  # any free port in place of a fixed one
    "DASHBOARD_METRIC_PORT": "0",
}
"""For a cluster of our own."""
_OBJECT_STORE_BYTES = 100 << 20
"""Shared memory of a cluster of our own. Shards go through files or a bucket; Ray carries keys and counts."""
_FOLDER_PREFIX = "corpusmill-ray-"


@contextmanager
def ray_cluster(address: str | None, num_cpus: int) -> Iterator[None]:
    """Be the driver of a Ray cluster within the block. `num_cpus` is the size of one that is started here.

    Raises TransientError where it does not come up, or does not answer.
    """
    for name, value in (_ENVIRONMENT | (_OWN_ENVIRONMENT if address is None else {})).items():
        os.environ.setdefault(name, value)
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as starting:
        arguments: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            starting.enter_context(_our_import_path())
            if not os.environ.get("RAY_AUTH_TOKEN_PATH"):
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            arguments |= {
                "num_cpus": num_cpus,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": str(stack.enter_context(_own_folder())),
            }
        from ray.exceptions import RayError  # before prefect-ray, which would import it lazily, and with that twice

        # isort: split
        from prefect_ray import RayTaskRunner

        runner: RayTaskRunner[Any] = RayTaskRunner(address=address or "local", init_kwargs=arguments)
        try:
            with starting, _our_signals():
                stack.enter_context(runner)
        except (OSError, RuntimeError, RayError) as error:
            brief = " ".join(str(error).split())[:300]
            raise TransientError(
                f"got no Ray cluster ({brief}), wanted one at {address or 'loopback'}: "
                "check CORPUSMILL_RAY_ADDRESS and that this host is a node of it, or set the task runner to pool."
            ) from error
        yield


@contextmanager
def _our_import_path() -> Iterator[None]:
    """Processes that are started in the block import from where this one does."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _our_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself as it starts; whoever wanted to know of it, the command or Prefect, still does."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder for Ray's sockets and logs. Its name is short: a socket's path has 107 characters at most."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_FOLDER_PREFIX}*"):
        _remove_if_left(left)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=root))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
