"""A web server on loopback, in a thread, that writes down what it was asked."""

import asyncio
import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web
from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from pipelines.crawl import CrawlConfig

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ASKED_OF_EVERY_SITE = ("/.well-known/tdmrep.json", "/ai.txt")
"""Not counted, unless a site has one."""
Answer = str | bytes | web.Response | Handler


@dataclass
class Site:
    """A running server. A path that is not among its answers is a 404."""

    answers: dict[str, Answer]
    requests: list[tuple[str, float]] = field(default_factory=list)
    """Path with query, and when, in order."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    on_request: Callable[[int], None] = lambda num_requests: None
    port: int = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return self.origin + path

    @property
    def counts(self) -> Counter[str]:
        return Counter(path for path, _ in self.requests)

    @property
    def gaps(self) -> list[tuple[float, str, str]]:
        """Seconds from each request to the next, and what the two asked for."""
        pairs = itertools.pairwise(self.requests)
        return [(later - earlier, before, after) for (before, earlier), (after, later) in pairs]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path in ASKED_OF_EVERY_SITE and request.path not in self.answers:
            return web.Response(status=404)
        self.requests.append((request.path_qs, time.monotonic()))
        self.headers.append(dict(request.headers))
        self.on_request(len(self.requests))
        answer = self.answers.get(request.path_qs)
        if answer is None:
            return web.Response(status=404, text="no such page")
        if callable(answer):
            return await answer(request)
        if isinstance(answer, str):
            kind = "text/plain" if request.path == "/robots.txt" else "text/html"
            return web.Response(text=answer, content_type=kind)
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="text/html")
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


@dataclass
class RawSite:
    """A running server that sends bytes as they are, one answer a connection. A path that is not among them is a 404."""

    answers: dict[str, bytes]
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    """Path, and the head of the request, in order."""
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            self.requests.append((path, head))
            not_found = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            writer.write(self.answers.get(path, not_found))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client had enough
        finally:
            writer.close()


class _Server:
    """One event loop in a thread, for any number of sites."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runners: list[web.ServerRunner] = []
        self._raw: list[asyncio.Server] = []

    def __call__(self, answers: dict[str, Answer]) -> Site:
        site = Site(answers)
        asyncio.run_coroutine_threadsafe(self._start(site), self._loop).result(10)
        return site

    def raw(self, answers: dict[str, bytes]) -> RawSite:
        site = RawSite(answers)
        asyncio.run_coroutine_threadsafe(self._start_raw(site), self._loop).result(10)
        return site

    async def _start_raw(self, site: RawSite) -> None:
        server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
        site.port = server.sockets[0].getsockname()[1]
        self._raw.append(server)

    async def _start(self, site: Site) -> None:
        runner = web.ServerRunner(web.Server(site.answer), shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        site.port = runner.addresses[0][1]
        self._runners.append(runner)

    def stop(self) -> None:
        async def clean_up() -> None:
            for server in self._raw:
                server.close()
            await asyncio.gather(*(runner.cleanup() for runner in self._runners))

        asyncio.run_coroutine_threadsafe(clean_up(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, Answer]], Site]]:
    """Start a site from its answers by path."""
    server = _Server()
    yield server
    server.stop()


@pytest.fixture
def serve_raw(serve: _Server) -> Callable[[dict[str, bytes]], RawSite]:
    """Start a site from its answers by path, as they go over the wire."""
    return serve.raw


_CRAWL = """
import json, os, signal, sys, time
from pathlib import Path
from pipelines.crawl import CrawlConfig, crawl
from pipelines.crawl import frontier, warc_writer

config, folder, hours_later, die_at, first = json.loads(sys.argv[1])
exec(first)
if hours_later:
    now = time.time
    time.time = lambda: now() + hours_later * 3600
if die_at:
    place, name, when, left = die_at
    owner = {"frontier": frontier.Frontier, "writer": warc_writer.WarcWriter, "os": os}[place]
    original = getattr(owner, name)

    def dying(*args, **kwargs):
        global left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        value = original(*args, **kwargs)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, name, dying)
config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
crawl(CrawlConfig(**config), Path(folder))
"""


@pytest.fixture
def start_crawl() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Crawl a folder in another process, which may be killed, or kill itself.

    `die_at` is a place ("frontier", "writer", "os"), one of its functions, "before" or "after" it, and at which call of
    it; `hours_later` moves the clock; `first` is code to run before all else.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(
        config: CrawlConfig,
        folder: Path,
        *,
        die_at: tuple[str, str, str, int] | None = None,
        hours_later: float = 0,
        first: str = "",
    ) -> subprocess.Popen[bytes]:
        told = json.dumps([asdict(config), str(folder), hours_later, die_at, first])
        process = subprocess.Popen([sys.executable, "-c", _CRAWL, told])
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)


@pytest.fixture
def config_for() -> Callable[..., CrawlConfig]:
    """A config that may reach loopback and does not wait; seeds are the roots of the sites given."""

    def make(*sites: Site, **changes: object) -> CrawlConfig:
        seeds = tuple(site.url("/") for site in sites) or ("http://127.0.0.1:9/",)
        config = CrawlConfig(seeds=seeds, delay_seconds=0, delay_factor=0, allow_addresses=("127.0.0.0/8",))
        return replace(config, **changes)

    return make


@dataclass
class Record:
    """One response record of a WARC file."""

    url: str
    status: int
    headers: dict[str, str]
    http_headers: dict[str, str]
    body: bytes
    offset: int
    file: str


@pytest.fixture
def later() -> Iterator[Callable[[float], None]]:
    """Move the clock that ledgers and robots.txt go by on by so many hours, from now on."""
    real = time.time
    total = 0.0
    with pytest.MonkeyPatch.context() as patch:

        def move(hours: float) -> None:
            nonlocal total
            total += hours * 3600
            patch.setattr(time, "time", lambda: real() + total)

        yield move


@pytest.fixture
def read_records() -> Callable[[tuple[Path, ...]], list[tuple[str, str, dict[str, str], bytes]]]:
    """Every record but warcinfo: type, URL, WARC fields, body."""

    def read(paths: tuple[Path, ...]) -> list[tuple[str, str, dict[str, str], bytes]]:
        found = []
        for path in paths:
            with path.open("rb") as file:
                for record in WarcioIterator(file, check_digests="raise"):
                    fields = dict(record.rec_headers.headers)
                    if record.rec_type != "warcinfo":
                        url = fields["WARC-Target-URI"]
                        found.append((record.rec_type, url, fields, record.content_stream().read()))
        return found

    return read


@pytest.fixture
def read_warc() -> Callable[[tuple[Path, ...]], list[Record]]:
    """The pages of WARC files, robots.txt and its like left out, read by another library than the one that wrote them, digests checked."""

    def read(paths: tuple[Path, ...]) -> list[Record]:
        records: list[Record] = []
        for path in paths:
            with path.open("rb") as file:
                kinds = []
                for record in ArchiveIterator(file, parse_http=False):
                    kinds.append(record.record_type)
                    assert record.verify_block_digest(), path
                    if record.record_type != WarcRecordType.response:
                        continue
                    record.parse_http()
                    assert record.verify_payload_digest(), path
                    if "Corpusmill-Role" in dict(record.headers.items()):
                        continue
                    records.append(
                        Record(
                            url=record.headers["WARC-Target-URI"],
                            status=record.http_headers.status_code,
                            headers=dict(record.headers.items()),
                            http_headers={name.lower(): value for name, value in record.http_headers.items()},
                            body=record.reader.read(),
                            offset=record.stream_pos,
                            file=path.name,
                        )
                    )
                assert kinds[0] == WarcRecordType.warcinfo
        return records

    return read
