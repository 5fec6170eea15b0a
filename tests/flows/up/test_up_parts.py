"""The parts of `corpusmill up` by themselves, each in moments."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from deadline import wait_for
from up_processes import environment

from flows.up import credentials, postgres
from flows.up.addresses import Addresses, holder, holding, living, without_services
from flows.up.logs import follow, tail
from flows.up.options import is_loopback, options_of
from flows.up.processes import FLOW_RUN, MARK, end_all, end_flow_runs, flow_runs, marked
from flows.up.services import Service, client_environment, deploy_command, mlflow_server, prefect_server, worker
from flows.up.supervisor import Supervisor
from flows.workspace import Workspace, writing
from pipelines.errors import ConfigError, TerminalError

ADDRESSES = Addresses(
    prefect_api="http://127.0.0.1:1/api",
    prefect_ui="http://127.0.0.1:1",
    mlflow="http://127.0.0.1:2",
    metrics=None,
    credentials=None,
)
HOLD = """
import sys
from pathlib import Path
from flows.up.addresses import Addresses, holding
with holding(Path(sys.argv[1])) as announce:
    announce(Addresses(**eval(sys.argv[2])))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that runs a workspace's services."""
    said = repr({name: getattr(ADDRESSES, name) for name in Addresses.__slots__})
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path, said], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_addresses_are_believed_only_while_their_up_lives(tmp_path, other):
    assert living(tmp_path) == ADDRESSES
    with (
        pytest.raises(TerminalError, match=rf"by process {other.pid} on .*Prefect is at http://127.0.0.1:1, MLflow at"),
        holding(tmp_path),
    ):
        pass
    with without_services(tmp_path) as found:
        assert found == ADDRESSES
    other.kill()
    other.wait()
    assert (tmp_path / "up.json").exists(), "a killed one takes nothing back"
    assert living(tmp_path) is None
    with without_services(tmp_path) as found:
        assert found is None
    with holding(tmp_path):
        assert not (tmp_path / "up.json").exists()


def test_a_workspace_without_services_gets_no_file(tmp_path):
    assert holder(tmp_path / "none") is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_a_server_of_its_own_keeps_up_off(tmp_path):
    with without_services(tmp_path) as found, writing(Workspace(tmp_path)):
        assert found is None
        tried = subprocess.run(
            [sys.executable, "-c", HOLD, tmp_path, "{}"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    assert "got a workspace in use by a run with a Prefect server of its own (process " in tried.stderr


MARKED = """
import os, signal, subprocess, sys, time
if len(sys.argv) > 1:
    signal.signal(signal.SIGTERM, lambda *_: (print("saving", flush=True), time.sleep(float(sys.argv[1])), os._exit(0)))
print("up", flush=True)
time.sleep(600)
"""


def spawn(root: Path, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", MARKED, *arguments],
        env=environment(**{MARK: str(root)}, **variables),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_flow_runs_get_time_and_are_ended_before_services(tmp_path):
    run, service, stranger = (
        spawn(tmp_path, "0.3", **{FLOW_RUN: "a-run"}),
        spawn(tmp_path),
        spawn(tmp_path / "elsewhere"),
    )
    try:
        assert {process.pid for process in marked(tmp_path)} == {run.pid, service.pid}
        assert set(flow_runs(marked(tmp_path))) == {"a-run"}
        assert end_flow_runs(tmp_path, 10) == ["a-run"]
        assert run.wait(5) == 0, "it ended by itself, after it saved"
        assert service.poll() is None
        end_all(tmp_path)
        assert service.wait(5) == -signal.SIGTERM
        assert stranger.poll() is None
    finally:
        for process in (run, service, stranger):
            process.kill()
            process.wait()


def test_a_flow_run_that_takes_too_long_is_killed(tmp_path):
    run = spawn(tmp_path, "60", **{FLOW_RUN: "a-run"})
    began = time.monotonic()
    assert end_flow_runs(tmp_path, 0.5) == ["a-run"]
    assert run.wait(5) == -signal.SIGKILL
    assert time.monotonic() - began < 10


def test_logs_are_bounded_and_show_no_secret(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.up.logs._MAX_NUM_BYTES", 10_000)
    read, write = os.pipe()
    path = tmp_path / "a.log"
    thread = follow(os.fdopen(read, "rb"), path, ["hunter2"])
    with os.fdopen(write, "wb") as file:
        for number in range(2_000):
            file.write(f"{number}: the password is hunter2, 100 %s \xff\n".encode("latin-1"))
        file.write(b"the end")
    thread.join(10)
    assert tail(path, 1) == ["the end"]
    assert len(list(tmp_path.iterdir())) == 4
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 41_000
    assert not [each for each in tmp_path.iterdir() if "hunter2" in each.read_text(errors="replace")]
    assert "the password is ***, 100 %s" in path.read_text(errors="replace")


def test_a_service_is_started_again_with_growing_delays_and_stopped_in_bounded_time(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.up.supervisor._FIRST_DELAY_SECONDS", 0.05)
    said: list[str] = []
    supervisor = Supervisor(logs=tmp_path, secrets=[], tell=said.append, is_stopping=lambda: False)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(600)"
    service = Service(name="a", command=(sys.executable, "-c", code), environment=environment())
    supervisor.start(service)

    def begun(number: int) -> bool:
        return tail(tmp_path / "a.log", 9).count("begun") == number

    def is_another(pid: int) -> bool:
        supervisor.check()
        return supervisor.running["a"].process.pid != pid

    for number in (1, 2):
        pid = supervisor.running["a"].process.pid
        wait_for("it began", partial(begun, number), 20)
        os.kill(pid, signal.SIGKILL)
        wait_for("it was started again", partial(is_another, pid), 20)
    wait_for("it began", partial(begun, 3), 20)
    assert "a was killed by SIGKILL after" in said[0]
    assert [line.split("again in ")[1].split(" s")[0] for line in said if "again in" in line] == ["0.1", "0.1"]
    began = time.monotonic()
    supervisor.stop(["a"], 0.3)
    assert time.monotonic() - began < 5
    assert supervisor.running == {}


def test_a_server_that_does_not_come_up_is_told_with_its_last_words(tmp_path):
    supervisor = Supervisor(logs=tmp_path, secrets=[], tell=lambda _: None, is_stopping=lambda: False)
    command = (sys.executable, "-c", "raise SystemExit('no such database')")
    service = Service(name="a", command=command, environment=environment(), health_url="http://127.0.0.1:1/")
    supervisor.start(service)
    with pytest.raises(
        TerminalError, match=r"got a a that ended with exit code 1 \(no such database\), wanted it up: read "
    ):
        supervisor.wait_until_up(service, 20)


def test_credentials_are_made_once_and_only_their_owner_may_read_them(tmp_path):
    made = credentials.made(tmp_path)
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
    assert credentials.made(tmp_path) == made
    assert not [secret for secret in made.secrets if secret in repr(made) or len(secret) < 40]
    target = {"PREFECT_API_AUTH_STRING": "mine:own"}
    credentials.to_environment(made.path, target)
    assert target["PREFECT_API_AUTH_STRING"] == "mine:own", "the environment goes first"
    assert set(target) == {"PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    made.path.chmod(0o640)
    with pytest.raises(ConfigError, match="got mode 0640, which others can read"):
        credentials.made(tmp_path)


def test_credentials_that_are_gone_beside_their_users_are_not_made_anew(tmp_path):
    path = credentials.made(tmp_path).path
    path.with_name("mlflow_users.db").touch()
    path.unlink()
    with pytest.raises(ConfigError, match=r"got none beside mlflow_users.db"):
        credentials.made(tmp_path)


@pytest.mark.parametrize(
    ("given", "prefect", "mlflow"),
    [
        (
            "postgresql://u:p%40w@h:1/d",
            "postgresql+asyncpg://u:p%40w@h:1/d_prefect",
            "postgresql+pg8000://u:p%40w@h:1/d_mlflow",
        ),
        (
            "postgres://u@h",
            "postgresql+asyncpg://u:pg@h/corpusmill_prefect",
            "postgresql+pg8000://u:pg@h/corpusmill_mlflow",
        ),
        (
            "postgresql://u@/d?host=/run/pg",
            "postgresql+asyncpg://u:pg@/d_prefect?host=/run/pg",
            "postgresql+pg8000://u:pg@localhost/d_mlflow?unix_sock=/run/pg/.s.PGSQL.5432",
        ),
    ],
)
def test_each_server_gets_a_database_of_its_own(given, prefect, mlflow):
    found = postgres.parse(given, {"PGPASSWORD": "pg"})
    assert found.prefect_url.replace("%2F", "/") == prefect
    assert found.mlflow_url.replace("%2F", "/") == mlflow
    assert found.shown.startswith("postgresql://u@")
    assert "p@w" not in found.shown + repr(found)
    assert {str(found.server.password)} <= set(found.secrets)
    assert all(secret in found.prefect_url + str(found.server.password) for secret in found.secrets)
    assert "p%40w" not in found.shown + repr(found)


@pytest.mark.parametrize(
    "given",
    ["mysql://u@h/d", "postgresql+psycopg2://u:secret@h/d", "postgresql://u:secret@h/d?sslmode=require", "h:5432"],
)
def test_an_address_that_is_none_is_refused_without_showing_it(given):
    with pytest.raises(ConfigError, match="--postgres: got ") as caught:
        postgres.parse(given, {})
    assert "secret" not in str(caught.value)


def test_a_password_leaves_the_command_line(tmp_path):
    code = (
        "import os, sys; from flows.up.postgres import take_from_command_line;"
        "given = sys.argv[2] if len(sys.argv) > 2 else os.environ.get('CORPUSMILL_POSTGRES');"
        "take_from_command_line(given); print(sys.argv[1:], given, open('/proc/self/cmdline').read().count('hunter2'))"
    )
    script = tmp_path / "c.py"
    script.write_text(code)
    url = "postgresql://u:hunter2@h/d"
    done = subprocess.run(
        [sys.executable, script, "--postgres", url],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.stdout == f"[] {url} 0\n", done.stderr
    assert "got a password on the command line" in done.stderr
    assert "hunter2" not in done.stderr


def options(**changes):
    given = {"host": "127.0.0.1", "postgres": None, "artifacts": None, "run_now": False, "cron": None, "timezone": None}
    return options_of(None, ports=(0, 0, 0), **(given | changes))


def test_only_servers_know_the_database_and_no_command_line_does(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_POSTGRES", "postgresql://u:hunter2@h/d")
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    wanted, place = options(postgres="postgresql://u:hunter2@h/d"), Workspace(tmp_path)
    made = credentials.made(tmp_path)
    client = client_environment(wanted, made)
    servers = [prefect_server(wanted, place, made), mlflow_server(wanted, place, made)]
    workers = [worker(pool, place, client) for pool in ("cpu", "gpu")]
    assert all("hunter2" in str(dict(each.environment)) for each in servers)
    assert not [each.name for each in workers if "hunter2" in str(dict(each.environment))]
    commands = [*(each.command for each in (*servers, *workers)), deploy_command(wanted, place)]
    assert not [
        word for command in commands for word in command for secret in ("hunter2", *made.secrets) if secret in word
    ]
    assert not [each.name for each in (*servers, *workers) if "elsewhere" in str(dict(each.environment))]
    assert "hunter2" not in repr((servers, workers, wanted))
    assert {each.environment["PREFECT_WORKER_WEBSERVER_HOST"] for each in workers} == {"127.0.0.1"}
    assert "PREFECT_API_AUTH_STRING" not in servers[0].environment


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("ws1", False),
    ],
)
def test_what_is_beyond_loopback(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"artifacts": "gs://b"}, "--artifacts: got gs://b, wanted s3://BUCKET"),
        ({"artifacts": "s3://"}, "--artifacts: got s3://, wanted"),
        ({"timezone": "Mars/Olympus"}, "--timezone: got Mars/Olympus"),
        ({"host": "203.0.113.7"}, "--host: got 203.0.113.7"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(changes, said):
    with pytest.raises(ConfigError) as caught:
        options(**changes)
    assert str(caught.value).startswith(said)


def test_a_port_in_use_is_refused():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"--mlflow-port: got port \d+ of 127.0.0.1, which is in use"):
            options_of(
                None,
                host="127.0.0.1",
                ports=(0, taken.getsockname()[1], None),
                postgres=None,
                artifacts=None,
                run_now=False,
                cron=None,
                timezone=None,
            )
