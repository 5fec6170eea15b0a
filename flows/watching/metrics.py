"""`corpusmill metrics`: what the workspace's state says, and what the machine says now, as Prometheus reads it.

Runs are short and a scrape may come between two, so nothing is scraped from a run: its state outlives it. `--out` is for the
node exporter's textfile collector, `--serve` for Prometheus itself. Neither needs Prefect, MLflow or a lock.
"""

import contextlib
import importlib.metadata
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.settings import LOCAL_HOSTS, read_settings
from flows.watching.measures import MEASURES
from flows.watching.run_state import State, is_alive, read_state
from flows.watching.takedowns_waiting import waiting
from flows.workspace import Workspace
from pipelines.errors import ConfigError, CorpusmillError
from pipelines.store import storage_errors

_OUTCOMES = ("finished", "failed", "stopped", "killed")
_FLOWS = ("flow", "recipe")


class WorkspaceCollector(Collector):
    """Everything that is told of a workspace; read anew at each scrape."""

    def __init__(self, place: Workspace) -> None:
        self._place = place

    def collect(self) -> Iterator[Metric]:
        """The metrics, with type, help and labels."""
        state, now = read_state(self._place), time.time()
        yield from _series(state)
        yield from _runs(state, now)
        yield from _machine(self._place)


def write_metrics(workspace_path: Path | None, out: Path) -> dict[str, Any]:
    """Write the metrics into a file, whole or not at all. Raises StorageError where it cannot be written."""
    place = Workspace.of(read_settings(workspace_path))
    if not out.parent.is_dir():
        raise ConfigError(
            f"--out: got {out}, wanted a file in a folder that is there: make the folder, or name another."
        )
    with storage_errors(out):
        write_to_textfile(str(out), _registry(place))
        out.chmod(0o644)  # another user's collector reads it
    return {"path": str(out), "workspace": str(place.root)}


def serve_metrics(workspace_path: Path | None, address: str, *, is_exposed: bool, tell: Callable[[str], None]) -> None:
    """Answer scrapes until stopped. Raises ConfigError for an address that others reach, unless `is_exposed`."""
    host, port = _parsed(address)
    if host not in LOCAL_HOSTS and not is_exposed:
        raise ConfigError(
            f"--serve: got {host}, which others reach, wanted a loopback address: add --expose if a firewall or a network "
            "policy lets only Prometheus in, for there is no password."
        )
    place = Workspace.of(read_settings(workspace_path))
    try:
        server, thread = start_http_server(port, host, _registry(place))
    except OSError as error:
        raise ConfigError(f"--serve: got {address} ({error}), wanted an address that is free: name another.") from error
    shown = f"[{host}]" if ":" in host else host
    tell(f"metrics of {place.root} at http://{shown}:{server.server_port}/metrics; Ctrl-C stops it")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    server.shutdown()
    thread.join()


def _registry(place: Workspace) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkspaceCollector(place))
    return registry


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--serve: got {address!r}, wanted HOST:PORT or :PORT: correct it; port 0 takes a free one.")
    return host, int(port)


def _series(state: State) -> Iterator[Metric]:
    for name, measure in MEASURES.items():
        if measure.name == "corpusmill_runs_total":
            continue  # of which each outcome is told, also one that never was
        family = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
        metric = family(name, measure.help, labels=measure.labels)
        for key, value in state["series"].get(name, {}).items():
            metric.add_metric(json.loads(key), value)
        yield metric


def _runs(state: State, now: float) -> Iterator[Metric]:
    alive = is_alive(state, now)
    running = {(each["flow"], each["recipe"]): each for each in state["running"]} if alive else {}
    going = GaugeMetricFamily("corpusmill_run_in_progress", "1 while the flow runs.", labels=_FLOWS)
    since = GaugeMetricFamily(
        "corpusmill_run_started_timestamp_seconds", "When its newest run began, seconds since 1970.", labels=_FLOWS
    )
    success = GaugeMetricFamily(
        "corpusmill_run_last_success_timestamp_seconds", "When it last ended well, seconds since 1970.", labels=_FLOWS
    )
    ended = GaugeMetricFamily(
        "corpusmill_run_last_end_timestamp_seconds", "When it last ended, seconds since 1970.", labels=_FLOWS
    )
    seconds = GaugeMetricFamily("corpusmill_run_last_duration_seconds", "How long its last run took.", labels=_FLOWS)
    failed = GaugeMetricFamily(
        "corpusmill_run_last_failed", "1 where its last run failed or was killed.", labels=_FLOWS
    )
    total = CounterMetricFamily(
        "corpusmill_runs_total", MEASURES["corpusmill_runs_total"].help, labels=(*_FLOWS, "outcome")
    )
    known = {(each["flow"], each["recipe"]): each for each in state["runs"].values()}
    for labels in dict.fromkeys([*known, *running]):
        going.add_metric(labels, 1.0 if labels in running else 0.0)
        since.add_metric(labels, (running.get(labels) or known[labels])["started_at"])
        for outcome in _OUTCOMES:
            key = json.dumps([*labels, outcome], ensure_ascii=False)
            total.add_metric((*labels, outcome), state["series"].get("corpusmill_runs_total", {}).get(key, 0.0))
        last = known.get(labels)
        if last is None:
            continue
        ended.add_metric(labels, last["ended_at"])
        seconds.add_metric(labels, max(0.0, last["ended_at"] - last["started_at"]))
        failed.add_metric(labels, 1.0 if last["outcome"] in ("failed", "killed") else 0.0)
        if last["succeeded_at"]:
            success.add_metric(labels, last["succeeded_at"])
    yield from (going, since, success, ended, seconds, failed, total)
    yield _gauge(
        "corpusmill_state_updated_timestamp_seconds", "When a run last wrote what is told here.", state["updated_at"]
    )


def _machine(place: Workspace) -> Iterator[Metric]:
    folder = next(path for path in (place.root, *place.root.parents) if path.exists())
    disk = shutil.disk_usage(folder)
    yield _gauge("corpusmill_disk_free_bytes", "Free for this user where the workspace lies.", disk.free)
    yield _gauge("corpusmill_disk_size_bytes", "Of the disk where the workspace lies.", disk.total)
    num_waiting: float | None
    try:
        num_waiting = len({each["id"] for each in waiting(place)})
    except CorpusmillError:  # a damaged ledger: `status` tells, and a number would be a lie
        num_waiting = None
    yield _gauge("corpusmill_takedowns_waiting", "Take-downs in force that a build has not certified yet.", num_waiting)
    yield from gpu_metrics()
    info = GaugeMetricFamily("corpusmill_build_info", "1; the version is the label.", labels=("version",))
    info.add_metric((importlib.metadata.version("corpusmill"),), 1.0)
    yield info


def gpu_metrics() -> Iterator[Metric]:
    """How busy the GPUs are, by NVIDIA's library, which MLflow asks as well; nothing where it or a GPU is missing."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - whatever a driver or its absence raises, there is nothing to tell
        return
    usage = GaugeMetricFamily(
        "corpusmill_gpu_utilization_ratio", "Share of the time that it was busy.", labels=("gpu",)
    )
    used = GaugeMetricFamily("corpusmill_gpu_memory_used_bytes", "Of its memory, by all processes.", labels=("gpu",))
    size = GaugeMetricFamily("corpusmill_gpu_memory_size_bytes", "Of its memory.", labels=("gpu",))
    power = GaugeMetricFamily("corpusmill_gpu_power_watts", "What it draws.", labels=("gpu",))
    for number in range(pynvml.nvmlDeviceGetCount()):
        handle, name = pynvml.nvmlDeviceGetHandleByIndex(number), (str(number),)
        with contextlib.suppress(pynvml.NVMLError):
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            used.add_metric(name, float(memory.used))
            size.add_metric(name, float(memory.total))
        with contextlib.suppress(pynvml.NVMLError):
            usage.add_metric(name, pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
        with contextlib.suppress(pynvml.NVMLError):
            power.add_metric(name, pynvml.nvmlDeviceGetPowerUsage(handle) / 1000)
    yield from (usage, used, size, power)


def _gauge(name: str, text: str, value: float | None) -> Metric:
    metric = GaugeMetricFamily(name, text)
    if value is not None:
        metric.add_metric((), float(value))
    return metric
