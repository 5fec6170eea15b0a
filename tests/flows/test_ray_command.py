"""The command on Ray: a cluster of its own, and one that is up and shares no folder with it. Minutes in all."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import COMMAND, Outcome, environment
from flow_inputs import article_records, write_recipe, write_warc
from object_storage import TestBucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]
_DEADLINE_SECONDS = 120


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    records = article_records()
    for place in range(8):
        write_warc(tmp_path / "sources" / f"{place}.warc.gz", records[place::8])
    return write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["sources/*.warc.gz"]})


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def corpus_of(done: Outcome) -> tuple[Any, ...]:
    summary = done.summary
    return summary["dataset_digest"], summary["tokens"], summary["documents"]


def ray_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("corpusmill-ray-*"))


def test_a_cluster_of_ones_own_leaves_the_bytes_of_the_pool_and_nothing_else(
    corpusmill: Callable[..., Outcome], recipe: Path, tmp_path: Path
) -> None:
    before = ray_folders()
    pool = corpusmill("build", recipe, "--workspace", tmp_path / "pool", "--workers", 2, "--json")
    ray = corpusmill("build", recipe, "--workspace", tmp_path / "ray", "--workers", 2, "--task-runner", "ray", "--json")
    assert corpus_of(ray) == corpus_of(pool)
    assert _objects(tmp_path / "ray") == _objects(tmp_path / "pool")
    assert "Token authentication" not in ray.err
    assert ray_folders() == before
    started = time.monotonic()
    again = corpusmill("build", recipe, "--workspace", tmp_path / "ray", "--task-runner", "ray", "--json")
    assert not any(stage["computed"] for stage in again.summary["stages"])
    assert time.monotonic() - started < _DEADLINE_SECONDS


def _objects(workspace: Path) -> set[str]:
    return {path.name for path in (workspace / "store" / "objects").glob("*/*")}


@contextmanager
def ray_node(folder: Path, cache: Path, **variables: str) -> Iterator[str]:
    """A Ray node of two CPUs, in processes of their own; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2"]
    more = ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
    ray = Path(sys.executable).with_name("ray")
    root = str(Path(__file__).parents[2])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [ray, *arguments, *more],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment(PYTHONPATH=root, CORPUSMILL_RAY_CACHE=str(cache), RAY_AUTH_MODE="disabled", **variables),
        )
    try:
        wait_until(lambda: b"Ray runtime started" in (folder / "log").read_bytes(), "Ray did not start")
        yield f"127.0.0.1:{port}"
    finally:
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        psutil.wait_procs(family[1:], timeout=30)


def test_workers_that_share_no_folder_get_all_through_the_bucket(
    corpusmill: Callable[..., Outcome], recipe: Path, tmp_path: Path, bucket: TestBucket
) -> None:
    pool = corpusmill("build", recipe, "--workspace", tmp_path / "pool", "--workers", 1, "--json")
    with tempfile.TemporaryDirectory(prefix="ray-node-") as folder:
        cache = Path(folder) / "cache"
        with ray_node(Path(folder), cache) as address:
            cluster = {
                "CORPUSMILL_STORE": bucket.url,
                "CORPUSMILL_RAY_ADDRESS": address,
                "CORPUSMILL_TASK_RUNNER": "ray",
                "RAY_AUTH_MODE": "disabled",
            }
            done = corpusmill("build", recipe, "--workspace", tmp_path / "driver", "--json", **cluster)
            assert corpus_of(done) == corpus_of(pool)
            assert {name.rpartition("/")[2] for name in bucket.names("objects")} == _objects(tmp_path / "pool")
            assert not bucket.names("lent")
            copies = {path.name for path in cache.glob("copies/*/*")}
            assert copies & _objects(tmp_path / "pool"), "the worker read shards of others"
            assert len(copies - _objects(tmp_path / "pool")) >= 8, "and files that were lent"
            assert not list(cache.glob("held/*/lent/**/*.warc.gz")), "which it let go"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_a_command_that_is_ended(
    prefect_url: str, recipe: Path, tmp_path: Path, how: signal.Signals
) -> None:
    before = ray_folders()
    arguments = ["build", recipe, "--workspace", tmp_path / "w", "--workers", "2", "--task-runner", "ray"]
    process = subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PREFECT_API_URL=prefect_url),
    )

    def family() -> list[psutil.Process]:
        return psutil.Process(process.pid).children(recursive=True)

    wait_until(lambda: process.poll() is None and _works(family()), "no shard was worked on")
    ours = family()
    process.send_signal(how)
    assert process.wait(60) == (130 if how is signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: not any(map(_lives, ours)), f"these live on: {[each for each in ours if _lives(each)]}")
    if how is signal.SIGTERM:
        assert ray_folders() == before
        assert process.stderr is not None
        assert "got a request to stop; what was finished is kept" in process.stderr.read()
    environment_of_next = environment(PREFECT_API_URL=prefect_url)
    done = subprocess.run([COMMAND, *map(str, arguments)], env=environment_of_next, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert ray_folders() == before, "what a killed run left goes with the next"


def _works(processes: list[psutil.Process]) -> bool:
    return any("pipelines.worker" in " ".join(_command_line(each)) for each in processes)


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
