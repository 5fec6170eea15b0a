"""What the end-to-end tests share: the command, one Prefect server a worker, one finished run of the demo."""

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from flow_inputs import write_demo

from flows import cli

COMMAND = Path(sys.executable).with_name("corpusmill")
OURS = ("CORPUSMILL_", "PREFECT_", "MLFLOW_")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)

    @property
    def summary(self) -> Any:
        """Like `json`, of a command that must have succeeded."""
        assert self.code == 0, self.err
        return self.json


@dataclass(frozen=True)
class Demo:
    """A finished run of the demo, its training shortened."""

    recipe: Path
    workspace: Path
    summary: dict[str, Any]
    err: str


@pytest.fixture(autouse=True)
def own_log_handlers() -> Iterator[None]:
    """What a command in this process set up to log by goes with its test, whose stderr is closed then."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in root.handlers[:]:
        if handler not in before and type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


HOLD = """
import sys
from pathlib import Path
from flows.workspace import Workspace, writing
with writing(Workspace(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the workspace."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what steers corpusmill, Prefect or MLflow."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return clean | {"DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"} | changes


def run_command(*arguments: object, timeout: float = 240, cwd: Path | None = None, **variables: str) -> Outcome:
    """Run `corpusmill` as a process."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment(**variables),
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server for all tests of this process."""
    from flows.control_plane import prefect_server
    from flows.settings import Settings
    from flows.workspace import Workspace

    folder = tmp_path_factory.mktemp("prefect-server")
    settings = Settings(workspace=folder, num_workers=0, prefect_api_url=None, mlflow_tracking_uri=None)
    with (
        mock.patch.dict(os.environ, environment(), clear=True),
        prefect_server(settings, Workspace(folder)) as wait_until_up,
    ):
        wait_until_up()
        yield os.environ["PREFECT_API_URL"]


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Outcome]]:
    """The command in this process, in an empty folder: quick, for what ends before a flow begins."""
    for name in environment().keys() ^ os.environ.keys():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr("sys.argv", ["corpusmill", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def corpusmill(prefect_url: str) -> Callable[..., Outcome]:
    """The command, recording its runs in the tests' server."""

    def call(*arguments: object, **options: Any) -> Outcome:
        return run_command(*arguments, **{"PREFECT_API_URL": prefect_url, **options})

    return call


@pytest.fixture
def pipeline(prefect_url: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """The flow that the command runs, in this process: `pipeline(recipe, workspace, until="evaluate")`."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.pipeline import pipeline as flow

    def call(recipe: Path, workspace: Path, until: str = "evaluate") -> dict[str, Any]:
        return flow(str(recipe), str(workspace), 0, until)  # type: ignore[arg-type]

    with temporary_settings(updates={PREFECT_API_URL: prefect_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield call


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Made once, by the worker of pytest-xdist that needs it first. Nothing may change it: see `demo_copy`.

    The command starts its own Prefect server for it, as it does for a person.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished-demo"
    folder.mkdir(exist_ok=True)
    recipe, result = folder / "demo.yaml", folder / "result.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            write_demo(recipe)
            done = run_command("run", recipe, "--workspace", folder / "workspace", "--json")
            assert done.code == 0, done.err
            result.write_text(json.dumps({"out": done.out, "err": done.err}))
    texts = json.loads(result.read_text())
    return Demo(recipe, folder / "workspace", json.loads(texts["out"]), texts["err"])


@pytest.fixture
def demo_copy(demo: Demo, tmp_path: Path) -> Demo:
    """The finished run in a workspace of one's own: a workspace may be moved."""
    workspace = tmp_path / "workspace"
    shutil.copytree(demo.workspace, workspace, ignore=shutil.ignore_patterns("prefect"))
    recipe = shutil.copy(demo.recipe, tmp_path / "demo.yaml")
    return Demo(Path(recipe), workspace, demo.summary, demo.err)
