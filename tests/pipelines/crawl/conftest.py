"""A web server on loopback, in a thread, that writes down what it was asked."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
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


class _Server:
    """One event loop in a thread, for any number of sites."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runners: list[web.ServerRunner] = []

    def __call__(self, answers: dict[str, Answer]) -> Site:
        site = Site(answers)
        asyncio.run_coroutine_threadsafe(self._start(site), self._loop).result(10)
        return site

    async def _start(self, site: Site) -> None:
        runner = web.ServerRunner(web.Server(site.answer), shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        site.port = runner.addresses[0][1]
        self._runners.append(runner)

    def stop(self) -> None:
        async def clean_up() -> None:
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
