"""Who runs the shards of a run: the pool of this machine, or a Ray cluster."""

from contextlib import AbstractContextManager

from flows.settings import Settings
from pipelines.executor import Executor, open_executor


def executor_of(settings: Settings) -> AbstractContextManager[Executor]:
    """The executor that the settings name; it ends with the block."""
    if settings.task_runner == "pool":
        return open_executor(settings.num_workers)
    from flows.on_ray.executor import ray_executor

    return ray_executor(settings)
