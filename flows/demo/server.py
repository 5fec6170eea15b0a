"""Serve the sample site, or a folder of static pages, on 127.0.0.1 for as long as a `with` block lasts.

The server runs in a background thread with its own asyncio loop. It never listens beyond loopback.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from aiohttp import web

from flows.demo.site import hosts, render_site
from pipelines.errors import ConfigError

ADDRESS = "127.0.0.1"
_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_CONTENT_TYPES = {
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".txt": "text/plain",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".xml": "application/xml",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
}
"""By suffix, and the same on every machine; `text/html` carries no charset, since the page itself has to tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Where a server answers."""

    address: str
    """Always loopback."""
    port: int
    hosts: tuple[str, ...]
    """Names it answers to in the Host header; empty where it answers to any."""


@contextmanager
def serve_sample(port: int = 0) -> Iterator[Served]:
    """Serve both sample magazines, told apart by the Host header (its port is ignored); port 0 picks a free one.

    Raises ConfigError where the port cannot be had.
    """
    with _serving(_answer_sample, port) as bound_port:
        yield Served(address=ADDRESS, port=bound_port, hosts=hosts())


@contextmanager
def serve_folder(folder: Path, port: int = 0) -> Iterator[Served]:
    """Serve the files below a folder under any host name; a folder answers with its index.html.

    Nothing outside the folder is served, neither by `..` nor by a symbolic link.
    Raises ConfigError where the folder does not exist or the port cannot be had.
    """
    if not folder.is_dir():
        raise ConfigError(f"got {folder}, wanted a folder of pages: name one that exists.")
    root = folder.resolve()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return _answer_file(request, root)

    with _serving(answer, port) as bound_port:
        yield Served(address=ADDRESS, port=bound_port, hosts=())


async def _answer_sample(request: web.BaseRequest) -> web.StreamResponse:
    if request.method not in {"GET", "HEAD"}:
        return _refusal(405, "only GET and HEAD are answered here")
    host = (request.host or "").partition(":")[0].lower()
    if host not in hosts():
        return _refusal(421, f"got host {host}, wanted one of {', '.join(hosts())}: set the Host header")
    path = quote(unquote(request.raw_path.partition("?")[0]))
    response = render_site().get(f"http://{host}{path}")
    if response is None:
        return _refusal(404, "no such page")
    etag = response.headers.get("ETag")
    if etag and etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers={"ETag": etag})
    return web.Response(status=response.status, headers=response.headers, body=response.body)


def _answer_file(request: web.BaseRequest, root: Path) -> web.StreamResponse:
    if request.method not in {"GET", "HEAD"}:
        return _refusal(405, "only GET and HEAD are answered here")
    path = unquote(request.raw_path.partition("?")[0])
    if ".." in path.split("/") or "\0" in path or "\\" in path:
        return _refusal(403, "the path leaves the folder")
    try:
        file = (root / path.lstrip("/")).resolve()
        if not file.is_relative_to(root):
            return _refusal(403, "the path leaves the folder")
        if file.is_dir():
            if not path.endswith("/"):
                return web.Response(status=301, headers={"Location": quote(f"/{path.lstrip('/')}/")})
            file /= "index.html"
        if not file.resolve().is_relative_to(root) or not file.is_file():
            return _refusal(404, "no such file")
    except OSError:  # a name longer than the file system takes, a loop of links
        return _refusal(404, "no such file")
    content_type = _CONTENT_TYPES.get(file.suffix.lower(), "application/octet-stream")
    return web.FileResponse(file, headers={"Content-Type": content_type})


def _refusal(status: int, reason: str) -> web.Response:
    return web.Response(status=status, text=f"{status}: {reason}.\n")


@contextmanager
def _serving(handler: _Handler, port: int) -> Iterator[int]:
    """Run a server in a thread of its own; yields the port."""
    listener = _listen(port)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(handler, listener, started)), name="sample-site")
    thread.start()
    try:
        loop, stop = started.result()
        try:
            yield listener.getsockname()[1]
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()
        listener.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # A port left by a server that just stopped may be taken again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"got port {port} for the sample server, wanted a free one on {ADDRESS} ({reason}): "
            "name another port, or 0 to have one picked."
        ) from error
    return listener


async def _serve(
    handler: _Handler, listener: socket.socket, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
) -> None:
    """Answer until the event that `started` hands over is set; whoever waits on it gets the error of a failed start."""
    stop = asyncio.Event()
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=1)
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()
    except Exception as error:
        if started.done():
            raise
        started.set_exception(error)
    finally:
        await runner.cleanup()
