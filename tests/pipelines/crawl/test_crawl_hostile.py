"""A server that means harm: the crawl ends in bounded time and memory, and each URL has its outcome."""

import asyncio
import gzip
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from aiohttp import web

from pipelines.crawl import crawl, lookup, status

MAX_RSS_MIB = 450
MAX_SECONDS = 90
PAGE_BYTES = 1 << 20

CRAWL = r"""
import json
import re
import sys
from pathlib import Path
from pipelines.crawl import CrawlConfig, crawl
config = CrawlConfig(**{key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(sys.argv[1]).items()})
crawl(config, Path(sys.argv[2]))
# Not ru_maxrss, which counts the process that this one was started from.
print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


def zeros(num_bytes: int) -> bytes:
    """So many zeros as gzip, made without holding them."""
    engine = gzip.zlib.compressobj(9, gzip.zlib.DEFLATED, 31)
    parts = [engine.compress(bytes(1 << 20)) for _ in range(num_bytes >> 20)]
    return b"".join([*parts, engine.flush()])


def stream(chunk: bytes, pause_seconds: float):
    """A body that never ends."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        with_end = time.monotonic() + MAX_SECONDS
        while time.monotonic() < with_end and request.transport is not None and not request.transport.is_closing():
            await response.write(chunk)
            await asyncio.sleep(pause_seconds)
        return response

    return answer


@pytest.fixture
def header_drip() -> Iterator[int]:
    """The port of a server that sends one header after the other, for ever."""
    loop = asyncio.new_event_loop()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"GET /robots.txt" in head or b"GET /ai.txt" in head or b"GET /.well-known" in head:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await drip(reader, writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for i in range(1000):
            writer.write(b"X-%d: y\r\n" % i)
            await asyncio.sleep(0.2)

    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await drip(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(quiet, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield server.sockets[0].getsockname()[1]

    async def stop() -> None:
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + '<!ENTITY file SYSTEM "file:///etc/passwd">]>'
)
NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def index(*urls: str) -> str:
    return (
        f"<sitemapindex {NAMESPACE}>"
        + "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls)
        + "</sitemapindex>"
    )


def calendar(num_days: int):
    async def answer(request: web.Request) -> web.Response:
        day = int(request.query["day"])
        links = "".join(f"<a href='/calendar?day={day + step}&s={step}'>x</a>" for step in (1, 7, 30))
        return web.Response(text=f"<p>day {day}{links}", content_type="text/html")

    return answer


def test_a_hostile_site(serve, header_drip, tmp_path) -> None:
    site = serve({})
    url = site.url
    expected = {
        "/bomb": "decompression_bomb",
        "/drip": "too_slow",
        "/endless": "fetched",
        "/to-file": "redirected",
        "/to-cloud": "redirected",
        "/loop1": "redirected",
        "/self": "redirect_loop",
        "/nested/": "fetched",
        "/nested/nested/nested/": "url_trap",
        "/feed.xml": "read_for_links",
        "/bomb.xml.gz": "read_for_links",
        "/cycle1.xml": "read_for_links",
        "/cycle2.xml": "read_for_links",
        "/entities.xml": "read_for_links",
        "/index0.xml": "read_for_links",
        "/index3.xml": "too_deep",
        "/many": "fetched",
    }
    sitemaps = ("/bomb.xml.gz", "/cycle1.xml", "/entities.xml", "/index0.xml")
    pages = (
        "/bomb",
        "/drip",
        "/endless",
        "/to-file",
        "/to-cloud",
        "/loop1",
        "/self",
        "/nested/",
        "/many",
        "/calendar?day=1",
    )
    chain = [f"/hop{i}" for i in range(9)]
    feed = "<link rel='alternate' type='application/rss+xml' href='/feed.xml'>"
    redirects = {
        "/to-file": "file:///etc/passwd",
        "/to-cloud": "http://169.254.169.254/latest/meta-data",
        "/loop1": "/loop2",
        "/loop2": "/loop1",
        "/self": "/self",
        **dict(itertools.pairwise(chain)),
    }
    site.answers |= {path: web.Response(status=302, headers={"Location": to}) for path, to in redirects.items()}
    site.answers |= {f"/index{i}.xml": index(url(f"/index{i + 1}.xml")) for i in range(9)}
    site.answers |= {f"{'/nested' * i}/": "<a href='nested/'>deeper</a>" for i in range(1, 9)}
    site.answers |= {
        "/robots.txt": "".join(f"Sitemap: {url(path)}\n" for path in sitemaps) + "#" * 3_500_000,
        "/": feed + "".join(f"<a href='{path}'>x</a>" for path in (*pages, chain[0])),
        "/bomb": web.Response(body=zeros(600 << 20), headers={"Content-Encoding": "gzip", "Content-Type": "text/html"}),
        "/drip": stream(b"x", 0.05),
        "/endless": stream(b"<p>more" * 8192, 0.001),
        "/bomb.xml.gz": web.Response(body=zeros(600 << 20), headers={"Content-Type": "application/gzip"}),
        "/cycle1.xml": index(url("/cycle1.xml"), url("/cycle2.xml")),
        "/cycle2.xml": index(url("/cycle1.xml")),
        "/entities.xml": f"{ENTITIES}<urlset {NAMESPACE}><url><loc>{url('/')}&j;&file;</loc></url></urlset>",
        "/feed.xml": f"{ENTITIES}<rss version='2.0'><channel><item><link>&j;</link></item></channel></rss>",
        "/many": "".join(f"<a href='/m{i}'>x</a>" for i in range(100_000)),
    }
    answer = site.answer

    async def with_calendar(request: web.Request) -> web.StreamResponse:
        return await calendar(9)(request) if request.path == "/calendar" else await answer(request)

    site.answer = with_calendar
    serve_calendar = serve({})
    serve_calendar.answer = with_calendar
    drip_url = f"http://127.0.0.1:{header_drip}/"
    config = {
        "seeds": [url("/"), drip_url],
        "scope": "regex",
        "include": ["127", "169"],
        "exclude": [r"/m\d"],
        "delay_seconds": 0,
        "delay_factor": 0,
        "timeout_seconds": 6,
        "max_attempts": 1,
        "max_page_bytes": PAGE_BYTES,
        "max_pages_per_host": 60,
        "concurrency_per_host": 4,
        "allow_addresses": ["127.0.0.0/8"],
    }
    site.answers["/calendar?day=1"] = calendar(1)
    began_at = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CRAWL, json.dumps(config), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert time.monotonic() - began_at < MAX_SECONDS
    assert int(done.stdout) / 1024 < MAX_RSS_MIB
    rows = {path: lookup(tmp_path, url(path)) for path in expected}
    found = {path: row.outcome if row else None for path, row in rows.items()}
    assert found == expected
    assert lookup(tmp_path, drip_url).outcome == "timeout"
    assert lookup(tmp_path, "http://169.254.169.254/latest/meta-data").outcome == "address_refused"
    assert lookup(tmp_path, url(chain[-1])) is None, "a chain of redirects ends"
    assert lookup(tmp_path, url("/many")).num_links == 1000
    assert status(tmp_path)["outcomes"]["fetched"] <= 61
    assert not any("passwd" in path for path, _ in site.requests)


def test_a_name_that_changes_its_address_is_judged_again(serve, config_for, tmp_path, monkeypatch) -> None:
    """DNS rebinding: the first answer may be asked, what the name means later may not."""
    import aiohttp

    site = serve({"/": "<a href='/a'>a</a>", "/a": ""})
    addresses = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"]
    asked: list[str] = []

    class Rebinding:
        async def resolve(self, host, port=0, family=0):
            address = addresses[min(len(asked), len(addresses) - 1)]
            asked.append(address)
            return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 0, "flags": 0}]

        async def close(self):
            pass

    monkeypatch.setattr(aiohttp, "ThreadedResolver", Rebinding)
    monkeypatch.setattr("pipelines.crawl.fetch._DNS_TTL_SECONDS", 0)
    monkeypatch.setattr("pipelines.crawl.fetch._KEEP_ALIVE_SECONDS", 0.0001)
    site.answers["/"] = web.Response(
        text="<a href='/a'>a</a>", headers={"Connection": "close", "Content-Type": "text/html"}
    )
    site.answers["/robots.txt"] = web.Response(text="", headers={"Connection": "close"})
    seed = f"http://rebind.example:{site.port}/"
    config = config_for(seeds=(seed,), allow_addresses=("127.0.0.0/8",), max_attempts=1)
    crawl(config, tmp_path)
    assert asked[1:], "the name was looked up again"
    assert {lookup(tmp_path, seed).outcome} <= {"address_refused", "reserved"}
    assert all(path in ("/robots.txt",) for path, _ in site.requests)
