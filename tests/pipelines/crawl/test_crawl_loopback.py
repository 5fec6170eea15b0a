"""Whole crawls of servers on loopback."""

import errno
import gzip
import itertools
import os
import re
import socket
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from pipelines.crawl import CrawlConfig, CrawlProgress, crawl, lookup, status
from pipelines.errors import ConfigError, FullDiskError, StorageError


def anchors(*paths: str) -> str:
    return "<!doctype html><title>t</title>" + "".join(f"<a href='{path}'>x</a>" for path in paths)


def respond(code: int, text: str = "", **headers: str) -> web.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(status=code, text=text, headers={"Content-Type": "text/html", **names})


def outcome_of(folder: Path, url: str) -> str | None:
    row = lookup(folder, url)
    return row.outcome if row else None


def test_a_small_site(serve, config_for, read_warc, tmp_path) -> None:
    site = serve(
        {
            "/": anchors(
                "/a", "/b?y=2&x=1", "/c#part", "/中文", "/missing", "http://elsewhere.example/", "mailto:x@y.z"
            ),
            "/a": anchors("/", "/a", "/d"),
            "/b?x=1&y=2": "<p>text</p>",
            "/c": "<p>text</p>",
            "/%E4%B8%AD%E6%96%87": anchors("/a"),
            "/d": web.Response(
                body="纯文本 http://not.a/link".encode(), headers={"Content-Type": "text/plain; charset=utf-8"}
            ),
        }
    )
    seen: list[CrawlProgress] = []
    config = config_for(site, contact="https://op.example/bot")
    result = crawl(config, tmp_path, on_progress=seen.append)

    assert result.outcomes == {"fetched": 6, "http_error": 1, "out_of_scope": 1}
    assert (result.num_pages, result.num_fetched, result.complete) == (6, 7, True)
    assert site.counts == dict.fromkeys(site.answers, 1) | {"/robots.txt": 1, "/missing": 1}
    assert {headers["User-Agent"] for headers in site.headers} == {"corpusmill (+https://op.example/bot)"}
    assert seen[-1].num_pages == 6
    assert (seen[-1].num_queued, seen[-1].num_hosts, seen[-1].errors) == (0, 1, {"http_error": 1})

    assert [path.name for path in result.warc_paths] == ["crawl-000001.warc.gz"]
    records = {record.url: record for record in read_warc(result.warc_paths)}
    assert len(records) == 7
    assert records[site.url("/missing")].status == 404
    page = records[site.url("/%E4%B8%AD%E6%96%87")]
    assert page.body == site.answers["/%E4%B8%AD%E6%96%87"].encode()
    assert page.headers["WARC-IP-Address"] == "127.0.0.1"
    assert page.headers["WARC-Payload-Digest"].startswith("sha1:")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", page.headers["WARC-Date"])
    info = gzip.decompress(result.warc_paths[0].read_bytes())[:2000].decode()
    for words in (
        "WARC/1.1",
        "software: corpusmill",
        "operator: https://op.example/bot",
        "RFC 9309",
        "encodings removed",
    ):
        assert words in info

    row = lookup(tmp_path, site.url("/d#fragment"))
    assert row is not None
    assert (row.outcome, row.status, row.depth, row.parent) == ("fetched", 200, 2, site.url("/a"))
    assert (row.warc_file, row.warc_offset) == ("crawl-000001.warc.gz", records[site.url("/d")].offset)
    assert row.robots_rule == "robots.txt answered 404"
    assert abs(datetime.now(UTC) - row.fetched_at) < timedelta(minutes=1)
    assert lookup(tmp_path, site.url("/never")) is None
    assert status(tmp_path)["num_pages"] == 6


def test_a_second_run_fetches_nothing_and_does_not_load_the_client(serve, config_for, tmp_path) -> None:
    site = serve({"/": anchors("/a"), "/a": ""})
    config = config_for(site)
    first = crawl(config, tmp_path)
    stamps = [(path, path.stat().st_mtime_ns) for path in first.warc_paths]
    before = len(site.requests)
    second = crawl(config, tmp_path)
    assert second == replace(first, num_fetched=0)
    assert len(site.requests) == before
    assert [(path, path.stat().st_mtime_ns) for path in second.warc_paths] == stamps
    code = (
        "import sys; from pathlib import Path; from pipelines.crawl import CrawlConfig, crawl\n"
        f"config = CrawlConfig(seeds={config.seeds!r}, delay_seconds=0, allow_addresses={config.allow_addresses!r})\n"
        f"assert crawl(config, Path({str(tmp_path)!r})).num_fetched == 0\n"
        "heavy = {'aiohttp', 'warcio', 'resiliparse', 'tldextract', 'w3lib', 'protego', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize(
    ("robots", "is_allowed", "rule"),
    [
        ("User-agent: *\nDisallow: /a", False, "Disallow: /a"),
        ("User-agent: *\nDisallow: /a\nAllow: /a$", True, "Allow: /a$"),
        ("User-agent: corpus\nDisallow: /", True, "no rule matches"),
        (respond(404), True, "robots.txt answered 404"),
        (respond(403, "<html>no</html>"), True, "robots.txt answered 403"),
        (respond(200, "<html><p>a soft 404</html>"), True, "no rule matches"),
        (respond(200), True, "no rule matches"),
        (respond(302, Location="/moved-robots"), False, "Disallow: /a"),
        (
            web.Response(body=gzip.compress(b"User-agent: *\nDisallow: /a"), headers={"Content-Encoding": "gzip"}),
            False,
            "Disallow: /a",
        ),
    ],
)
def test_robots_rules(serve, config_for, tmp_path, robots, rule, *, is_allowed) -> None:
    site = serve({"/robots.txt": robots, "/": anchors("/a"), "/a": "", "/moved-robots": "User-agent: *\nDisallow: /a"})
    crawl(config_for(site), tmp_path)
    assert site.counts["/a"] == int(is_allowed)
    row = lookup(tmp_path, site.url("/a"))
    assert (row.outcome, row.robots_rule) == ("fetched" if is_allowed else "robots_disallowed", rule)
    assert site.requests[0][0] == "/robots.txt"


async def _abort(request: web.Request) -> web.StreamResponse:
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    "robots",
    [
        respond(503, Retry_After="0"),
        respond(500),
        respond(429),
        respond(302, Location="/robots.txt"),
        respond(302, Location="file:///etc/hostname"),
        _abort,
        web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
)
def test_robots_out_of_reach_means_no(serve, config_for, tmp_path, robots) -> None:
    site = serve({"/robots.txt": robots, "/": ""})
    config = config_for(site, max_attempts=1)
    result = crawl(config, tmp_path)
    assert (result.outcomes, result.num_pages, result.num_fetched) == ({"robots_unreachable": 1}, 0, 0)
    assert site.counts["/"] == 0
    assert result.warc_paths == ()
    num_requests = len(site.requests)
    assert crawl(config, tmp_path).outcomes == {"robots_unreachable": 1}
    assert len(site.requests) == num_requests, "the failure is remembered for an hour"

    site.answers["/robots.txt"] = ""
    hour_later = time.time() + 3700
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: hour_later)
        assert crawl(config, tmp_path).outcomes == {"fetched": 1}


def test_robots_is_asked_once_a_day_and_for_each_port(serve, config_for, tmp_path) -> None:
    one, two = serve({"/": ""}), serve({"/": ""})
    crawl(config_for(one, two), tmp_path)
    crawl(config_for(one, two, recrawl_after_hours=0), tmp_path)
    assert (one.counts["/robots.txt"], two.counts["/robots.txt"], one.counts["/"]) == (1, 1, 2)
    day_later = time.time() + 25 * 3600
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: day_later)
        crawl(config_for(one, two, recrawl_after_hours=1), tmp_path)
    assert (one.counts["/robots.txt"], one.counts["/"]) == (2, 3)


def test_redirects(serve, config_for, read_warc, tmp_path) -> None:
    site = serve(
        {
            "/robots.txt": "User-agent: *\nDisallow: /forbidden",
            "/": anchors("/once", "/loop-a", "/self", "/far-0", "/to-file", "/to-forbidden", "/out"),
            "/once": respond(301, "moved", Location="target#x"),
            "/target": anchors("/child"),
            "/child": "",
            "/loop-a": respond(302, Location="/loop-b"),
            "/loop-b": respond(302, Location="/loop-a"),
            "/self": respond(302, Location="/self#again"),
            **{f"/far-{i}": respond(307, Location=f"/far-{i + 1}") for i in range(6)},
            "/to-file": respond(302, Location="file:///etc/hostname"),
            "/to-forbidden": respond(302, Location="/forbidden"),
            "/forbidden": "",
            "/out": respond(302, Location="http://elsewhere.example/"),
        }
    )
    result = crawl(config_for(site, max_redirects=3, max_depth=2), tmp_path)
    assert outcome_of(tmp_path, site.url("/once")) == "redirected"
    target = lookup(tmp_path, site.url("/target"))
    assert (target.outcome, target.depth, target.parent) == ("fetched", 1, site.url("/once"))
    assert outcome_of(tmp_path, site.url("/child")) == "fetched"
    assert site.counts["/loop-a"] == site.counts["/loop-b"] == site.counts["/self"] == 1
    assert outcome_of(tmp_path, site.url("/self")) == "redirect_loop"
    assert outcome_of(tmp_path, site.url("/far-3")) == "redirected"
    assert outcome_of(tmp_path, site.url("/far-4")) == "too_many_redirects"
    assert "no http" in lookup(tmp_path, site.url("/to-file")).error
    assert outcome_of(tmp_path, site.url("/forbidden")) == "robots_disallowed"
    assert outcome_of(tmp_path, "http://elsewhere.example/") == "out_of_scope"
    assert site.counts["/forbidden"] == site.counts["/far-4"] == 0
    archived = {record.url: record for record in read_warc(result.warc_paths)}
    assert archived[site.url("/once")].status == 301
    assert archived[site.url("/once")].http_headers["location"] == "target#x"


def test_addresses_that_are_not_public_are_refused(serve, config_for, tmp_path, monkeypatch) -> None:
    site, inner = serve({"/": ""}), serve({"/": ""})
    site.answers["/"] = anchors(inner.url("/"), "/jump")
    site.answers["/jump"] = respond(302, Location=inner.url("/"))
    asked = {
        "inner.example": ["10.0.0.1"],
        "mixed.example": ["93.184.216.34", "127.0.0.1"],
        "nat64.example": ["64:ff9b::a9fe:a9fe"],
    }

    async def resolve(self, host, port=0, family=socket.AF_INET):
        if host not in asked:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            {"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for address in asked[host]
        ]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    numbers = f"http://2130706433:{inner.port}/"
    config = config_for(
        site,
        seeds=(site.url("/"), inner.url("/"), numbers, "http://gone.example/", *(f"http://{name}/" for name in asked)),
        allow_addresses=(f"127.0.0.1:{site.port}",),
    )
    result = crawl(config, tmp_path)
    assert inner.requests == []
    assert outcome_of(tmp_path, site.url("/jump")) == "redirected"
    for url in (inner.url("/"), *(f"http://{name}/" for name in asked)):
        row = lookup(tmp_path, url)
        assert row.outcome == "address_refused", url
        assert "allow_addresses" in row.error
    assert outcome_of(tmp_path, "http://gone.example/") == "dns_error"
    assert outcome_of(tmp_path, numbers) in {"robots_unreachable", "dns_error", "address_refused"}
    assert result.num_pages == 1

    allowed = replace(config, allow_addresses=("127.0.0.1",))
    crawl(allowed, tmp_path)
    assert outcome_of(tmp_path, inner.url("/")) == "fetched", "a changed config looks again"


def test_every_seed_failing_is_an_outcome(config_for, tmp_path, monkeypatch) -> None:
    async def resolve(self, host, port=0, family=socket.AF_INET):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    config = config_for(seeds=("http://gone.example/", "http://没有.example/"))
    for _ in range(2):
        result = crawl(config, tmp_path)
        assert (result.outcomes, result.num_pages, result.warc_paths) == ({"dns_error": 2}, 0, ())


def test_connect_to(serve, config_for, read_warc, tmp_path) -> None:
    site = serve({"/": anchors("/a", "http://other.demo.example/"), "/a": ""})
    other = serve({"/": ""})
    config = config_for(seeds=("http://demo.example/",), scope="domain", allow_addresses=())
    targets = {"demo.example": ("127.0.0.1", site.port), "other.demo.example:80": ("127.0.0.1", other.port)}
    result = crawl(config, tmp_path, connect_to=targets)
    assert result.outcomes == {"fetched": 3}
    assert {headers["Host"] for headers in site.headers} == {"demo.example"}
    assert {record.url for record in read_warc(result.warc_paths)} == {
        "http://demo.example/",
        "http://demo.example/a",
        "http://other.demo.example/",
    }


@pytest.mark.parametrize(
    "targets", [{"a.example": ("10.0.0.1", 80)}, {"10.0.0.1": ("127.0.0.1", 80)}, {"a": ("127.0.0.1", 0)}]
)
def test_connect_to_reaches_loopback_only(config_for, tmp_path, targets) -> None:
    with pytest.raises(ConfigError, match="connect_to"):
        crawl(config_for(), tmp_path, connect_to=targets)


def _failing(*answers):
    """Give one answer after another, and the last one from then on."""
    left = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        following = left.pop(0) if len(left) > 1 else left[0]
        if callable(following):
            return await following(request)
        return web.Response(status=following.status, body=following.body, headers=following.headers)

    return answer


def _at(seconds_from_now: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds_from_now), usegmt=True)


def test_retry_after_is_honoured(serve, config_for, tmp_path) -> None:
    site = serve(
        {
            "/": _failing(respond(503, Retry_After="1"), respond(200, anchors("/date", "/twice"))),
            "/date": _failing(respond(429, Retry_After=_at(-60)), respond(200)),
            "/twice": _failing(respond(503, Retry_After="0"), respond(503, Retry_After="0"), respond(200)),
        }
    )
    result = crawl(config_for(site), tmp_path)
    assert result.outcomes == {"fetched": 3}
    assert result.num_fetched == 7
    first, second = [at for path, at in site.requests if path == "/"]
    assert second - first >= 1.0


def test_attempts_end(serve, config_for, read_warc, tmp_path) -> None:
    site = serve(
        {
            "/": anchors("/busy", "/long", "/fine"),
            "/busy": respond(503, "later", Retry_After="0"),
            "/long": respond(429, "much later", Retry_After="7200"),
            "/fine": "",
        }
    )
    config = config_for(site, max_attempts=2, max_delay_seconds=0.01)
    result = crawl(config, tmp_path)
    assert result.outcomes == {"fetched": 1, "http_error": 3}
    assert (site.counts["/busy"], site.counts["/long"]) == (2, 1)
    assert site.counts["/fine"] == 0, "the host asked for two hours of rest"
    assert sorted(record.status for record in read_warc(result.warc_paths)) == [200, 429, 503]
    assert crawl(config, tmp_path).num_fetched == 0
    for hours, expected in ((1.1, {"/busy": 2, "/long": 1, "/fine": 0}), (2.2, {"/busy": 4, "/long": 2})):
        later = time.time() + hours * 3600
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda at=later: at)
            crawl(config, tmp_path)
        assert {path: site.counts[path] for path in expected} == expected


async def _short(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/html", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"<p>only this")
    request.transport.close()
    return response


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/html"})
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 65536)
    except (ConnectionError, OSError):
        return response


async def _not_http(request: web.Request) -> web.StreamResponse:
    request.transport.write(b"SMTP nonsense\r\n\r\n")
    request.transport.close()
    return web.Response()


def _bare(body: bytes):
    """An answer without a Content-Type."""

    async def answer(request: web.Request) -> web.StreamResponse:
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        request.transport.close()
        return web.Response()

    return answer


async def _silent(request: web.Request) -> web.StreamResponse:
    import asyncio

    await asyncio.Event().wait()
    return web.Response()


def encoded(body: bytes, encoding: str) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": "text/html", "Content-Encoding": encoding})


PLAIN = "<p>内容</p>".encode()
raw = zlib.compressobj(wbits=-15)
RAW_DEFLATE = raw.compress(PLAIN) + raw.flush()


@pytest.mark.parametrize(
    ("answer", "outcome", "num_requests"),
    [
        (encoded(gzip.compress(PLAIN), "gzip"), "fetched", 1),
        (encoded(gzip.compress(PLAIN[:3]) + gzip.compress(PLAIN[3:]) + b"\0\0", "x-gzip"), "fetched", 1),
        (encoded(zlib.compress(PLAIN), "deflate"), "fetched", 1),
        (encoded(RAW_DEFLATE, "deflate"), "fetched", 1),
        (encoded(PLAIN, "identity"), "fetched", 1),
        (encoded(PLAIN, "gzip"), "bad_encoding", 1),
        (encoded(gzip.compress(PLAIN)[:-9], "gzip"), "bad_encoding", 1),
        (encoded(b"\x0b\x02\x80...", "br"), "bad_encoding", 1),
        (_bare(PLAIN), "fetched", 1),
        (_bare(b"\x89PNG\0\0"), "not_text", 1),
        (_short, "disconnected", 2),
        (_abort, "disconnected", 2),
        (_not_http, "bad_response", 1),
        (respond(204), "fetched", 1),
        (respond(200, "<p>x", Content_Type="application/pdf"), "not_text", 1),
        (web.Response(body=b"\x89PNG\0\0", headers={"Content-Type": "image/png"}), "not_text", 1),
        (respond(404, "{}", Content_Type="application/json"), "http_error", 1),
        (respond(304), "http_error", 1),
    ],
)
def test_answers(serve, config_for, read_warc, tmp_path, answer, outcome, num_requests) -> None:
    site = serve({"/": answer})
    result = crawl(config_for(site, max_attempts=2), tmp_path)
    assert outcome_of(tmp_path, site.url("/")) == outcome
    assert site.counts["/"] == num_requests
    records = read_warc(result.warc_paths)
    assert len(records) == int(outcome == "fetched" or (outcome == "http_error" and answer.status == 304))
    if outcome == "fetched" and records[0].status == 200:
        (record,) = records
        assert record.body == PLAIN
        assert record.http_headers["content-length"] == str(len(PLAIN))
        assert "content-encoding" not in record.http_headers


def test_time_is_up_as_a_whole(serve, config_for, tmp_path) -> None:
    site = serve({"/": _silent})
    result = crawl(config_for(site, timeout_seconds=0.3, max_attempts=1), tmp_path)
    assert result.outcomes == {"timeout": 1}


def test_no_tls_where_tls_was_asked_for(serve, config_for, tmp_path) -> None:
    seed = serve({"/": ""}).url("/").replace("http://", "https://")
    assert crawl(config_for(seeds=(seed,), max_attempts=1), tmp_path).outcomes == {"robots_unreachable": 1}
    assert "tls_error" in lookup(tmp_path, seed).error


def test_nobody_listens(config_for, tmp_path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        seed = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        result = crawl(config_for(seeds=(seed,), max_attempts=1), tmp_path)
    assert result.outcomes == {"robots_unreachable": 1}
    assert "connect_error" in lookup(tmp_path, seed).error


@pytest.mark.parametrize(
    "answer",
    [b"<p>" + b"x" * 3000, _endless, encoded(gzip.compress(b"<p>" + b"x" * 30_000_000), "gzip")],
    ids=["long", "endless", "bomb"],
)
def test_a_long_page_is_cut(serve, config_for, read_warc, tmp_path, answer) -> None:
    site = serve({"/": answer})
    result = crawl(config_for(site, max_page_bytes=1000), tmp_path)
    (record,) = read_warc(result.warc_paths)
    assert len(record.body) == 1000
    assert record.headers["WARC-Truncated"] == "length"
    assert record.http_headers["content-length"] == "1000"
    assert outcome_of(tmp_path, site.url("/")) == "fetched"


def test_a_page_of_exactly_the_limit_is_whole(serve, config_for, read_warc, tmp_path) -> None:
    site = serve({"/": b"x" * 1000})
    (record,) = read_warc(crawl(config_for(site, max_page_bytes=1000), tmp_path).warc_paths)
    assert "WARC-Truncated" not in record.headers


def chain(length: int) -> dict[str, str]:
    pages = {f"/{i}": anchors(f"/{i + 1}") for i in range(1, length)}
    return {"/": anchors("/1"), **pages, f"/{length}": ""}


def test_limits_and_going_on(serve, config_for, tmp_path) -> None:
    site = serve(chain(8))
    result = crawl(config_for(site, max_pages=3), tmp_path)
    assert (result.num_pages, result.complete) == (3, False)
    assert crawl(config_for(site, max_pages=3), tmp_path).num_fetched == 0
    result = crawl(config_for(site, max_pages=5), tmp_path)
    assert (result.num_pages, result.num_fetched) == (5, 2)
    result = crawl(config_for(site, max_depth=6), tmp_path)
    assert (result.num_pages, result.outcomes) == (7, {"fetched": 7, "too_deep": 1})
    result = crawl(config_for(site), tmp_path)
    assert (result.num_pages, result.outcomes, result.complete) == (9, {"fetched": 9}, True)
    assert set(site.counts.values()) == {1}


def test_limits_hold_while_many_requests_are_under_way(serve, config_for, tmp_path) -> None:
    pages = [f"/p{i}" for i in range(40)]
    sites = [serve({"/": anchors(*pages), **dict.fromkeys(pages, "x")}) for _ in range(2)]
    result = crawl(config_for(*sites, max_pages_per_host=7, concurrency_per_host=4), tmp_path / "a")
    assert [site.counts.total() for site in sites] == [8, 8]
    assert (result.num_pages, result.complete) == (14, False)
    assert crawl(config_for(*sites, max_pages_per_host=7, concurrency_per_host=4), tmp_path / "a").num_fetched == 0
    assert crawl(config_for(*sites, max_pages=9, concurrency_per_host=4), tmp_path / "b").num_pages == 9


def test_new_seeds_and_a_wider_scope_go_on(serve, config_for, tmp_path) -> None:
    one = serve({"/docs/": anchors("/docs/a", "/blog"), "/docs/a": "", "/blog": anchors("/deep"), "/deep": ""})
    two = serve({"/": ""})
    config = config_for(seeds=(one.url("/docs/"),), scope="prefix")
    assert crawl(config, tmp_path).outcomes == {"fetched": 2, "out_of_scope": 1}
    assert crawl(replace(config, scope="host"), tmp_path).outcomes == {"fetched": 4}
    wider = replace(config, scope="host", seeds=(*config.seeds, two.url("/")))
    assert crawl(wider, tmp_path).num_fetched == 1
    assert set(one.counts.values()) == {1}


def test_delay_between_requests(serve, config_for, tmp_path) -> None:
    one = serve(chain(3))
    two = serve({**chain(2), "/robots.txt": "User-agent: corpusmill\nCrawl-delay: 0.4"})
    crawl(config_for(one, two, delay_seconds=0.2, concurrency_per_host=2), tmp_path)
    for site, delay in ((one, 0.2), (two, 0.4)):
        times = [at for _, at in site.requests]
        assert len(times) >= 4
        assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= delay * 0.95


def test_a_longer_crawl_delay_than_ours_skips_the_host(serve, config_for, tmp_path) -> None:
    site = serve({"/": "", "/robots.txt": "User-agent: *\nCrawl-delay: 61"})
    config = config_for(site)
    assert crawl(config, tmp_path).outcomes == {"crawl_delay_too_long": 1}
    assert "61 s" in lookup(tmp_path, site.url("/")).error
    assert site.counts["/"] == 0


def test_recrawl(serve, config_for, read_warc, tmp_path) -> None:
    site = serve({"/": anchors("/a"), "/a": "old"})
    config = config_for(site, recrawl_after_hours=1)
    crawl(config, tmp_path)
    assert crawl(config, tmp_path).num_fetched == 0
    site.answers["/a"] = "new"
    later = time.time() + 3601
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: later)
        result = crawl(config, tmp_path)
    assert (result.num_fetched, result.num_pages, result.outcomes) == (2, 3, {"fetched": 2})
    assert (result.num_unchanged, result.num_changed) == (1, 1)
    assert [record.body for record in read_warc(result.warc_paths) if record.url.endswith("/a")] == [b"old", b"new"]
    assert lookup(tmp_path, site.url("/a")).warc_file == "crawl-000002.warc.gz"


@pytest.mark.parametrize("limit", [{"warc_max_records": 3}, {"warc_max_bytes": 1}])
def test_warc_files_are_filled_in_turn(serve, config_for, read_warc, tmp_path, limit) -> None:
    pages = [f"/p{i}" for i in range(9)]
    site = serve({"/": anchors(*pages), **dict.fromkeys(pages, "x")})
    result = crawl(config_for(site, **limit), tmp_path)
    records = read_warc(result.warc_paths)
    assert len({record.url for record in records}) == len(records) == 10
    per_file = [sum(record.file == path.name for record in records) for path in result.warc_paths]
    assert per_file == ([3, 3, 3, 1] if "warc_max_records" in limit else [1] * 10)
    for record in records:
        row = lookup(tmp_path, record.url)
        assert (row.warc_file, row.warc_offset) == (record.file, record.offset)


def test_a_ledger_that_was_taken_away_overwrites_no_file(serve, config_for, tmp_path) -> None:
    site = serve({"/": "x"})
    (first,) = crawl(config_for(site), tmp_path).warc_paths
    kept = first.read_bytes()
    (tmp_path / "frontier.sqlite").unlink()
    assert len(crawl(config_for(site), tmp_path).warc_paths) == 2
    assert first.read_bytes() == kept


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(
    serve, config_for, read_warc, tmp_path, monkeypatch
) -> None:
    site = serve(chain(6))
    synced: list[int] = []
    fsync = os.fsync

    def full_at_the_third(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_third)
    with pytest.raises(FullDiskError, match=r"No space left on device.*free space") as caught:
        crawl(config_for(site), tmp_path)
    assert "\n" not in str(caught.value)
    assert status(tmp_path)["num_pages"] == 2
    result = crawl(config_for(site), tmp_path)
    assert result.outcomes == {"fetched": 7}
    urls = [record.url for record in read_warc(result.warc_paths)]
    assert len(urls) == len(set(urls)) == 7


def test_a_folder_that_cannot_be_written(config_for, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        crawl(config_for(), tmp_path / "file" / "crawl")


def test_an_error_of_ours_is_not_swallowed(serve, config_for, tmp_path) -> None:
    site = serve({"/": anchors("/a"), "/a": ""})

    def broken(_: CrawlProgress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crawl(config_for(site), tmp_path, on_progress=broken)
    assert crawl(config_for(site), tmp_path).outcomes == {"fetched": 2}


def test_config_is_checked_before_anything_is_asked(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"^seeds"):
        crawl(CrawlConfig(seeds=("http://a..example:0/",)), tmp_path)
