"""Buckets of an S3 server on loopback, and a proxy before it that breaks requests."""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

_NUMBERS = itertools.count()
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test-key-id",
    "AWS_SECRET_ACCESS_KEY": "test-secret-key",
    "AWS_REGION": "us-east-1",
}


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """A server in a process of its own; its address."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment | ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


@dataclass(frozen=True)
class TestBucket:
    """A bucket that is empty at first, seen as its owner sees it."""

    __test__ = False
    endpoint: str
    name: str

    @classmethod
    def made(cls, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> "TestBucket":
        """A new bucket; this process and its children find it by their environment."""
        for name in list(os.environ):
            if name.lower().endswith("_proxy") or name.startswith("AWS_"):
                monkeypatch.delenv(name)
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        bucket = cls(endpoint, f"bucket-{os.getpid()}-{next(_NUMBERS)}")
        bucket._request("PUT", "")
        return bucket

    @property
    def url(self) -> str:
        return f"s3://{self.name}/some/prefix"

    @property
    def store(self) -> S3Store:
        return S3Store(self.name, prefix="some/prefix", endpoint=self.endpoint, client_options={"allow_http": True})

    def names(self, prefix: str = "") -> list[str]:
        return [item["path"] for chunk in obstore.list(self.store, prefix) for item in chunk]

    def contents(self, prefix: str = "") -> dict[str, bytes]:
        return {name: self.get(name) for name in self.names(prefix)}

    def get(self, name: str) -> bytes:
        return bytes(obstore.get(self.store, name).bytes())

    def put(self, name: str, data: bytes) -> None:
        obstore.put(self.store, name, data)

    def remove(self, name: str) -> None:
        obstore.delete(self.store, name)

    def _request(self, method: str, path: str) -> None:
        host, port = self.endpoint.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"{method} /{self.name}{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head.encode())
            assert b" 200 " in connection.recv(64)


Broken = Callable[[str, str], str | None]
"""Given method and path: `cut` forwards half the request, `unanswered` forwards it whole and hangs up, None lets it be."""


class Proxy:
    """Forwards to a server, one request a connection, and breaks those that `broken` names. Counts them all."""

    def __init__(self, target: str) -> None:
        self._target = target.removeprefix("http://").split(":")
        self.broken: Broken = lambda _method, _path: None
        self.requests: list[tuple[str, str]] = []
        self.num_broken = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(connection,), daemon=True).start()

    def _forward(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as request:
            head = b""
            while (line := request.readline()).strip():
                head += line
            if not head:
                return
            method, path = head.split(b" ", 2)[:2]
            lengths = [line.split(b":")[1] for line in head.splitlines() if line.lower().startswith(b"content-length:")]
            body = request.read(int(lengths[0]) if lengths else 0)
            self.requests.append((method.decode(), path.decode()))
            how = self.broken(method.decode(), path.decode())
            self.num_broken += how is not None
            with socket.create_connection((self._target[0], int(self._target[1]))) as server:
                server.sendall(head + b"\r\n" + (body[: len(body) // 2] if how == "cut" else body))
                if how == "cut":
                    return
                answer: Any = server.makefile("rb")
                while chunk := answer.read1(1 << 16):
                    if how is None:
                        connection.sendall(chunk)
