"""Starts the server in this process, and says where it is."""

import os
from collections.abc import Callable
from pathlib import Path

from flows.model.generation import Writer
from flows.serving.app import make_app
from flows.settings import LOCAL_HOSTS
from pipelines.errors import ConfigError

TOKEN = "CORPUSMILL_SERVE_TOKEN"  # noqa: S105 - the name of a variable
_MIN_TOKEN_CHARS = 16


def serve(folder: Path, which: str, *, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve the model in a folder until stopped. Raises ConfigError where it would listen beyond loopback without a token."""
    token = os.environ.get(TOKEN) or None
    if token is not None and len(token) < _MIN_TOKEN_CHARS:
        raise ConfigError(
            f"{TOKEN}: got {len(token)} characters, wanted at least {_MIN_TOKEN_CHARS}: take a random one."
        )
    if host not in LOCAL_HOSTS and token is None:
        raise ConfigError(
            f"--host: got {host}, which others reach, and no token, wanted one: export {TOKEN}=$(openssl rand -hex 16), "
            "or leave --host out."
        )
    import uvicorn

    writer = Writer.load(folder, which)  # type: ignore[arg-type] # its values are the command's
    hosts = LOCAL_HOSTS if host in LOCAL_HOSTS else ("*",)
    app = make_app(writer, folder.name, token=token, hosts=hosts)
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False))
    listening = server.config.bind_socket()
    where = f"http://{host if ':' not in host else f'[{host}]'}:{listening.getsockname()[1]}"
    tell(f"{folder.name} at {where} (try it there), POST {where}/v1/completions; Ctrl-C stops it")
    server.run(sockets=[listening])
