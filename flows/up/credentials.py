"""The secrets of servers that listen beyond loopback: made once, kept in a file that only its owner reads.

The file holds one `NAME=value` a line, the variables that Prefect's and MLflow's clients read, so that a shell can take
them in: `set -a; . workspace/auth/secrets.env`.
"""

import os
import secrets
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import ConfigError
from pipelines.store import storage_errors

_FOLDER = "auth"
_FILE = "secrets.env"
_USERS = "mlflow_users.db"
_SETTINGS = "mlflow_auth.ini"
_USER = "corpusmill"
_NUM_BYTES = 32
_MODE = 0o600
PREFECT_CLIENT = "PREFECT_API_AUTH_STRING"
MLFLOW_USER = "MLFLOW_TRACKING_USERNAME"
MLFLOW_PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105 - the name of a variable
_MLFLOW_KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY"
_CLIENT = (PREFECT_CLIENT, MLFLOW_USER, MLFLOW_PASSWORD)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the servers ask for, and where it is kept."""

    path: Path
    values: Mapping[str, str] = field(repr=False)

    @property
    def client(self) -> dict[str, str]:
        """The variables of whoever asks the servers."""
        return {name: self.values[name] for name in _CLIENT}

    @property
    def prefect_server(self) -> dict[str, str]:
        """The variables of Prefect's server."""
        return {"PREFECT_SERVER_API_AUTH_STRING": self.values[PREFECT_CLIENT]}

    @property
    def mlflow_server(self) -> dict[str, str]:
        """The variables of MLflow's server, which makes its first user of them."""
        return {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.path.with_name(_SETTINGS)),
            "MLFLOW_AUTH_ADMIN_USERNAME": self.values[MLFLOW_USER],
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.values[MLFLOW_PASSWORD],
            _MLFLOW_KEY: self.values[_MLFLOW_KEY],
        }

    @property
    def secrets(self) -> list[str]:
        """What no log may show."""
        password = self.values[PREFECT_CLIENT].partition(":")[2]
        return [password, self.values[MLFLOW_PASSWORD], self.values[_MLFLOW_KEY]]


def made(root: Path) -> Credentials:
    """The credentials of a workspace, made where there are none.

    Raises ConfigError for a file that others can read, that is not whole, or that is gone while its users are there.
    """
    folder = root / _FOLDER
    path = folder / _FILE
    with storage_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        if (folder / _USERS).exists():
            raise ConfigError(
                f"{path}: got none beside {_USERS}, whose passwords it held, wanted both: "
                f"bring it back, or remove {_USERS} and make MLflow's users anew."
            )
        token = secrets.token_urlsafe
        values = {
            PREFECT_CLIENT: f"{_USER}:{token(_NUM_BYTES)}",
            MLFLOW_USER: _USER,
            MLFLOW_PASSWORD: token(_NUM_BYTES),
            _MLFLOW_KEY: token(_NUM_BYTES),
        }
        _write(path, "".join(f"{name}={value}\n" for name, value in values.items()))
    found = read(path)
    _write(folder / _SETTINGS, _mlflow_settings(folder))
    return found


def read(path: Path) -> Credentials:
    """The credentials in a file. Raises ConfigError for one that others can read, or that is not whole."""
    try:
        mode = path.stat().st_mode & 0o777
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: got {error}, wanted the secrets of the servers: start `corpusmill up` again."
        ) from error
    if mode & 0o077:
        raise ConfigError(
            f"{path}: got mode {mode:04o}, which others can read, wanted {_MODE:04o}: chmod it, "
            "and remove the folder for new secrets if somebody may have read it."
        )
    values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    missing = [name for name in (*_CLIENT, _MLFLOW_KEY) if not values.get(name)]
    if missing:
        raise ConfigError(f"{path}: got no {', '.join(missing)}, wanted all: remove the folder for new secrets.")
    return Credentials(path, values)


def to_environment(path: Path, environment: MutableMapping[str, str]) -> None:
    """Put what clients need into an environment, where it is not there already. Raises ConfigError."""
    for name, value in read(path).client.items():
        environment.setdefault(name, value)


def _mlflow_settings(folder: Path) -> str:
    """What MLflow's basic-auth app reads. One process checks passwords, so what it remembers of them is never stale."""
    return "\n".join(
        [
            "[mlflow]",
            "default_permission = READ",
            f"database_uri = sqlite:///{folder.absolute() / _USERS}",
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
            "auth_cache_ttl_seconds = 60",
            "",
        ]
    )


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    with storage_errors(path):
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
