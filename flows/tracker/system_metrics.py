"""How busy the machine is, under MLflow's own names, for the tab that shows them: processor, memory, disk, network, GPUs."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.tracker.tracking import Measured

_PREFIX = "system/"


def sampler(started_at_ms: int) -> "Callable[[], Sequence[Measured]]":
    """A call that gives the figures of now. Steps are seconds since a run began, so that it goes on after a resume."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    from flows.tracker.tracking import Measured

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no GPU, or no library that asks it
        monitors.append(GPUMonitor())

    def sample() -> list[Measured]:
        now_ms = time.time_ns() // 1_000_000
        step = max(0, now_ms - started_at_ms) // 1_000
        found: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return [Measured(f"{_PREFIX}{name}", float(value), now_ms, step) for name, value in found.items()]

    return sample
