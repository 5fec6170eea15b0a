"""A Postgres server for both: a database each for Prefect and MLflow, made where the role may make them.

A password is never on a command line: it goes to the two servers by their environment, and nowhere else.
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from pipelines.errors import ConfigError, TerminalError

VARIABLE = "CORPUSMILL_POSTGRES"
_PASSWORD = "PGPASSWORD"  # noqa: S105 - the name of libpq's variable
_OPTION = "--postgres"
_SCHEMES = ("postgresql", "postgres")
_SOCKET = "host"
"""In the query: the folder of a Unix socket, as libpq has it."""
_CONNECT_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """The two databases on one server."""

    server: URL = field(repr=False)
    """Where the databases are made from."""
    prefect: str
    mlflow: str
    """Names of the databases."""

    @property
    def shown(self) -> str:
        """For people to read."""
        url = self.server
        return URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()

    @property
    def secrets(self) -> list[str]:
        """What no log may show."""
        password = self.server.password
        return [] if password is None else [str(password), _quoted(str(password))]

    @property
    def prefect_url(self) -> str:
        """What Prefect's server connects to: asyncpg."""
        return self.server.set(drivername="postgresql+asyncpg", database=self.prefect).render_as_string(
            hide_password=False
        )

    @property
    def mlflow_url(self) -> str:
        """What MLflow's server connects to: pg8000, since psycopg is LGPL."""
        url = self.server.set(drivername="postgresql+pg8000", database=self.mlflow, query={})
        folder = self.server.query.get(_SOCKET)
        if folder:
            url = url.set(query={"unix_sock": f"{folder}/.s.PGSQL.{self.server.port or 5432}"}, host="localhost")
        return url.render_as_string(hide_password=False)


def parse(text: str, environment: Mapping[str, str]) -> Postgres:
    """The databases behind an address like `postgresql://USER@HOST:PORT/NAME`. Raises ConfigError.

    A password that is not in it comes from PGPASSWORD.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"{_OPTION}: got an address that cannot be read, wanted postgresql://USER@HOST:PORT/NAME: correct it."
        ) from None
    if url.drivername not in _SCHEMES:
        raise ConfigError(
            f"{_OPTION}: got {url.drivername}://, wanted postgresql://USER@HOST:PORT/NAME: leave the driver out."
        )
    unknown = sorted(set(url.query) - {_SOCKET})
    if unknown:
        raise ConfigError(
            f"{_OPTION}: got {', '.join(unknown)} in the address, wanted no more than host=FOLDER of a Unix socket: "
            "leave it out."
        )
    name = url.database or "corpusmill"
    password = url.password or environment.get(_PASSWORD) or None
    server = url.set(drivername="postgresql", database=url.database or "postgres", password=password)
    return Postgres(server=server, prefect=f"{name}_prefect", mlflow=f"{name}_mlflow")


def take_from_command_line(text: str | None) -> None:
    """Start this command again without an address that holds a password: everybody sees a command line. May not return."""
    if text is None or os.environ.get(VARIABLE) == text:
        return
    try:
        if make_url(text).password is None:
            return
    except (ArgumentError, ValueError):
        return
    os.environ[VARIABLE] = text
    sys.stderr.write(
        f"corpusmill: {_OPTION}: got a password on the command line, where others could see it for a moment: "
        f"export {VARIABLE} or {_PASSWORD} in its place.\n"
    )
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *_without_option(sys.orig_argv[1:])])  # noqa: S606 - this very command


def without_password(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for what has no business with the database."""
    return {name: value for name, value in environment.items() if name not in (VARIABLE, _PASSWORD)}


def make_databases(postgres: Postgres) -> None:
    """Make the databases that are missing. Raises TerminalError where the server does not let us."""
    try:
        asyncio.run(asyncio.wait_for(_make(postgres), _CONNECT_SECONDS * 4))
    except Exception as error:  # noqa: BLE001 - asyncpg's errors share no root with its network's
        wanted = " and ".join(f"CREATE DATABASE {name}" for name in (postgres.prefect, postgres.mlflow))
        told = " ".join((str(error) or type(error).__name__).split())
        for secret in postgres.secrets:
            told = told.replace(secret, "***")
        raise TerminalError(
            f"got {told!r} from {postgres.shown}, wanted two databases there: start the server, or {wanted} as a role that may."
        ) from None


async def _make(postgres: Postgres) -> None:
    import asyncpg  # type: ignore[import-untyped]

    url = postgres.server
    connection = await asyncpg.connect(
        host=url.query.get(_SOCKET) or url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        database=url.database,
        timeout=_CONNECT_SECONDS,
    )
    try:
        for name in (postgres.prefect, postgres.mlflow):
            if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name) is None:
                quoted = name.replace('"', '""')
                await connection.execute(f"CREATE DATABASE \"{quoted}\" ENCODING 'UTF8' TEMPLATE template0")
    finally:
        await connection.close()


def _quoted(password: str) -> str:
    """As it stands in an address."""
    url = URL.create("x", "x", password, "x").render_as_string(hide_password=False)
    return url.removeprefix("x://x:").removesuffix("@x")


def _without_option(arguments: Sequence[str]) -> list[str]:
    kept, is_value = [], False
    for argument in arguments:
        if is_value:
            is_value = False
        elif argument == _OPTION:
            is_value = True
        elif not argument.startswith(f"{_OPTION}="):
            kept.append(argument)
    return kept
