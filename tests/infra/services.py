"""The services of infra/compose.yaml as processes on this machine: their commands, environment and health checks are the file's.

What a container gives a service is translated: its name in the network, its ports, its folders. Images that are not ours
are stood in for by what Debian packages of the same program, the object store by the tests' S3 server.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployment_files import INFRA, compose
from mlflow_server import free_port

ROOT = INFRA.parent
KEEPER = Path(__file__).with_name("keeper.py")
PORTS = {
    "postgres": (5432,),
    "valkey": (6379,),
    "object-store": (8333, 9327),
    "prefect-server": (4200,),
    "mlflow": (5000,),
    "worker-cpu": (8080,),
    "worker-gpu": (8080,),
    "proxy": (8443, 9180),
    "metrics": (9310,),
    "prometheus": (9090,),
}
"""What each listens on inside its container."""
_START_SECONDS = 240.0
_POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin")


def found(*names: str) -> str | None:
    """The first program of these that this machine has."""
    paths = [str(Path(sys.executable).parent), os.environ["PATH"], *map(str, _postgres_folders()), "/usr/sbin"]
    for name in names:
        if path := shutil.which(name, path=os.pathsep.join(paths)):
            return path
    return None


def _postgres_folders() -> list[Path]:
    return sorted((path for pattern in _POSTGRES_FOLDERS for path in Path("/").glob(pattern[1:])), reverse=True)


def missing() -> list[str]:
    """The programs without which there are no services."""
    wanted = {
        "postgresql": ("initdb",),
        "redis-server or valkey": ("valkey-server", "redis-server"),
        "openssl": ("openssl",),
    }
    return [package for package, names in wanted.items() if found(*names) is None]


@dataclass
class Services:
    """A stack that runs in a folder."""

    folder: Path
    s3_endpoint: str
    variables: Mapping[str, str]
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each took to be well."""

    def __post_init__(self) -> None:
        for name, inner in PORTS.items():
            for port in inner:
                self.ports[name, port] = free_port()
        self.ports["object-store", 8333] = int(self.s3_endpoint.rpartition(":")[2])
        outside = str(self.ports["proxy", 8443])  # of the one port that people see, others are told, too
        self.file = compose(HTTPS_PORT=outside, **self.variables)["services"]
        for each in ("workspace", "logs", "tmp"):
            (self.folder / each).mkdir(parents=True, exist_ok=True)

    def address(self, name: str, port: int) -> str:
        """Where a service answers."""
        return f"127.0.0.1:{self.ports[name, port]}"

    def secret(self, name: str) -> str:
        """The text of a secret."""
        return (self.folder / "secrets" / name).read_text()

    def make_secrets(self) -> None:
        """By the script that makes them for Compose."""
        environment = os.environ | {
            "POSTGRES_ADDRESS": self.address("postgres", 5432),
            "VALKEY_ADDRESS": self.address("valkey", 6379),
            "VALKEY_BIND": "127.0.0.1",
            "VALKEY_PORT": str(self.ports["valkey", 6379]),
            "VALKEY_FOLDER": str(self._made("valkey")),
        }
        subprocess.run(
            [INFRA / "secrets.sh", self.folder / "secrets"], env=environment, check=True, capture_output=True
        )

    def translated(self, name: str, text: str) -> str:
        """A text of a service's, as it is outside a container."""
        for (host, port), outside in self.ports.items():
            text = re.sub(rf"\b{host}:{port}\b", f"127.0.0.1:{outside}", text)
        for port in PORTS.get(name, ()):
            text = re.sub(
                rf"(127\.0\.0\.1|0\.0\.0\.0|localhost):{port}\b", rf"127.0.0.1:{self.ports[name, port]}", text
            )
            text = re.sub(rf"(?<![\d.:]){port}(?!\d)", str(self.ports[name, port]), text)
        text = text.replace("0.0.0.0", "127.0.0.1").replace("listen_addresses=*", "listen_addresses=127.0.0.1")
        places = {
            "/run/secrets": self.folder / "secrets",
            "/opt/corpusmill": ROOT,
            "/workspace": self.folder / "workspace",
            "/recipes": self.folder / "recipes",
            "/etc/caddy": INFRA / "caddy",
            "/tmp": self.folder / "tmp" / name,
        }
        inside = "|".join(map(re.escape, places))
        return re.sub(rf"(?<![\w./-])({inside})(?=/|$|\s)", lambda found: str(places[found[1]]), text)

    def environment(self, name: str) -> dict[str, str]:
        """What a container of the service would have, and nothing of ours."""
        scratch = self._made("tmp", name)
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "*",
        }
        told = {key: self.translated(name, value) for key, value in self.file[name].get("environment", {}).items()}
        return own | told

    def command(self, name: str) -> list[str]:
        """The file's command, behind the image's entrypoint where the image is ours."""
        words = [self.translated(name, str(word)) for word in self.file[name]["command"]]
        return [str(INFRA / "images" / "entrypoint.sh"), *words] if "build" in self.file[name] else words

    def start(self, *names: str) -> None:
        """Start services in the order that the file asks for, each once those that it needs are well."""
        for name in self._in_order(names):
            if name in self.running or name in self.seconds or name == "object-store":
                continue
            began = time.monotonic()
            if name == "postgres":
                self._start_postgres()
            else:
                self._run(name, self.command(name))
            self._wait(name)
            self.seconds[name] = round(time.monotonic() - began, 1)

    def stop(self, *names: str) -> None:
        """Ask services to end, all at once, and wait until nothing of them is left."""
        for name in names:
            stdin = self.running[name].stdin
            assert stdin is not None
            stdin.close()
        for name in names:
            self.running.pop(name).wait(timeout=60)
            self.seconds.pop(name, None)

    def run(self, name: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command as it would run in a service's container."""
        words = [str(INFRA / "images" / "entrypoint.sh"), *(self.translated(name, word) for word in command)]
        return subprocess.run(
            words, env=self.environment(name) | variables, capture_output=True, text=True, timeout=180, check=False
        )

    def log(self, name: str) -> str:
        """What a service said."""
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def is_well(self, name: str) -> bool:
        """Whether the file's health check says so."""
        kind, *words = self.file[name]["healthcheck"]["test"]
        words = [self.translated(name, word) for word in words]
        if kind == "CMD-SHELL":
            words = ["sh", "-c", words[0].replace("valkey-cli", found("valkey-cli", "redis-cli") or "")]
        elif words[0] == "wget":
            words = [sys.executable, str(INFRA / "images" / "healthy.py"), words[-1]]
        else:
            words[0] = found(words[0]) or words[0]
        done = subprocess.run(words, env=self.environment(name), capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    def psql(self, database: str, query: str) -> str:
        """An answer of the database, asked as its superuser."""
        return subprocess.run(
            [*self.as_postgres(), "psql", "--no-psqlrc", "--tuples-only", "--no-align", "--dbname", database, "--command", query],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip

    def run_sql_dump(self, database: str) -> str:
        """All that a database holds, as text."""
        return subprocess.run(
            [*self.as_postgres(), "pg_dump", "--dbname", database], capture_output=True, text=True, check=True
        ).stdout

    def as_postgres(self) -> list[str]:
        """What makes a command one inside the database's container: a trusted socket, its programs, its user."""
        folder = str(Path(found("initdb") or "").resolve().parent)
        settings = [f"PATH={folder}:{os.environ['PATH']}", f"PGHOST={self._postgres_home()}", f"PGPORT={self.ports['postgres', 5432]}", "PGUSER=postgres"]  # fmt: skip
        return ["env", "-C", "/", *settings]

    def _start_postgres(self) -> None:
        """What the image's entrypoint does: make the cluster, run the scripts, start. Postgres refuses to run as root."""
        home, is_root = self._postgres_home(), os.geteuid() == 0
        password = home / "password"
        password.write_text(self.secret("postgres_password"))
        if is_root:
            for path in (home, password):
                shutil.chown(path, "postgres", "postgres")
        environment = self.environment("postgres") | {"HOME": str(home), "TMPDIR": str(home)}
        initdb, data = found("initdb") or "", home / "data"
        is_new = not data.exists()
        if is_new:
            words = self.file["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
            options = [
                "--username=postgres",
                "--auth-local=trust",
                f"--pwfile={password}",
                "--no-sync",
                "--locale=C.UTF-8",
            ]
            who: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if is_root else {}
            subprocess.run(
                [initdb, *options, *words, "-D", data], env=environment, cwd="/", capture_output=True, check=True, **who
            )
        program, *options = self.command("postgres")
        options += [
            "-D",
            str(data),
            "-c",
            f"port={self.ports['postgres', 5432]}",
            "-c",
            f"unix_socket_directories={home}",
        ]
        user = ["--user", "postgres"] if is_root else []
        self._run("postgres", [*user, str(Path(initdb).resolve().with_name(program)), *options], environment)
        if is_new:
            self._wait("postgres")
            script = self.file["postgres"]["volumes"][1].split(":")[0]
            settings = [f"SECRETS_FOLDER={self.folder / 'secrets'}", "POSTGRES_USER=postgres"]
            subprocess.run([*self.as_postgres(), *settings, INFRA / script], capture_output=True, check=True)

    def _postgres_home(self) -> Path:
        """A folder that the database's user can reach: pytest's own are closed to it."""
        if not hasattr(self, "_home"):
            self._home = Path(tempfile.mkdtemp(prefix="corpusmill-postgres-"))
            self._home.chmod(0o755)
        return self._home

    def _run(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        program = {"valkey-server": ("valkey-server", "redis-server"), "caddy": ("caddy",)}.get(command[0])
        words = [found(*program) or command[0], *command[1:]] if program else list(command)
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, KEEPER, *words],
                env=environment or self.environment(name), cwd=self._made("root", name) if name != "postgres" else "/",
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _wait(self, name: str) -> None:
        is_once = self.file[name]["restart"] == "no"
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            code = self.running[name].poll()
            if code is not None:
                assert (is_once, code) == (True, 0), f"{name} ended with {code}: {self.log(name)[-3000:]}"
                self.running.pop(name)
                return
            if not is_once and self.is_well(name):
                return
            time.sleep(0.2)
        raise AssertionError(f"{name} is not well: {self.log(name)[-3000:]}")

    def _in_order(self, names: Sequence[str]) -> list[str]:
        """The services and all that they need, what is needed first."""
        order: list[str] = []
        for name in names:
            needed = self._in_order(list(self.file[name].get("depends_on", {})))
            order += [each for each in [*needed, name] if each not in order]
        return order

    def _made(self, *parts: str) -> Path:
        path = self.folder.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def end(self) -> None:
        """Stop all, in the opposite order of their start."""
        for name in reversed(list(self.running)):
            self.stop(name)
        if hasattr(self, "_home"):
            shutil.rmtree(self._home, ignore_errors=True)


@contextmanager
def services(folder: Path, s3_endpoint: str, **variables: str) -> Iterator[Services]:
    """A stack for the length of the block; nothing of it is started yet but its secrets."""
    stack = Services(folder, s3_endpoint, variables)
    stack.make_secrets()
    try:
        yield stack
    finally:
        stack.end()


def processes_that_mention(folder: Path) -> list[str]:
    """Command lines of processes that have to do with a folder, by their arguments, working folder or open files."""
    left = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            told = path.joinpath("cmdline").read_text().replace("\0", " ")
            if int(path.name) != os.getpid() and (str(folder) in told or str(folder) in str((path / "cwd").readlink())):
                left.append(f"{path.name} {told}")
        except OSError:
            continue
    return left
