"""A real Postgres server on loopback with a password, from Debian's packages, for the length of a block."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER, PASSWORD = "mill", "pass%word/with:signs@"


def found(name: str) -> Path | None:
    """A program of Postgres's: on the path, or where Debian keeps it."""
    places = [shutil.which(name), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True))]
    return next((Path(place).resolve() for place in places if place), None)


class PostgresServer:
    """A server that a test may kill and start again, on the same port with the same data."""

    def __init__(self, folder: Path, who: dict[str, Any]) -> None:
        self.folder, self._who = folder, who
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        initdb = found("initdb")
        assert initdb is not None
        self._programs = initdb.parent
        secret = folder / "password"
        secret.write_text(PASSWORD)
        options = ["--username", USER, "--pwfile", secret, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync"]
        if who:
            for path in (folder, secret):
                shutil.chown(path, **who)
        command = [initdb, *options, "-D", folder / "data"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **who)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self.folder / "data", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            **self._who,
        )
        ask = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "60"]
        for _ in range(200):
            if subprocess.run(ask, check=False).returncode == 0:
                return
            subprocess.run(["sleep", "0.1"], check=True)
        raise AssertionError("Postgres did not come up")

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it: SIGINT as an operator does, SIGKILL as a machine that fails."""
        if self._process is not None:
            os.killpg(self._process.pid, number)
            self._process.wait()
            self._process = None

    def ask(self, database: str, sql: str) -> list[str]:
        """The rows of a question."""
        command = [
            self._programs / "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            USER,
            "-At",
            "-c",
            sql,
            database,
        ]
        environment = os.environ | {"PGPASSWORD": PASSWORD}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return done.stdout.split("\n")[:-1]


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that runs. It refuses to run as root, so as root it runs as the packages' user."""
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        who = {"user": account.pw_uid, "group": account.pw_gid}
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = PostgresServer(Path(folder), who)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)
