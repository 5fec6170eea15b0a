"""What a server sends, a config forbids or a limit allows bounds the crawl, and never stops it for good."""

import signal
import time
from dataclasses import replace

import pytest
from aiohttp import web

from pipelines.crawl import cdxj, crawl, crawler, engine, lookup
from pipelines.crawl.frontier import Frontier
from pipelines.sources.warc import read_pages

NAMESPACE = "xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'"


def anchors(*paths: str) -> str:
    return "".join(f"<a href='{path}'>x</a>" for path in paths)


def site_of(serve, num_pages: int):
    """A page that links to all others."""
    pages = [f"/{i}" for i in range(num_pages - 1)]
    return serve({"/": anchors(*pages), **dict.fromkeys(pages, "x")})


def raw(body: str = "x", *, line: bytes = b"HTTP/1.1 200 OK", header: bytes = b"", kind: bytes = b"text/html") -> bytes:
    """A page as it goes over the wire; `header` is one or more lines more."""
    head = line + b"\r\nContent-Type: " + kind + b"\r\nConnection: close\r\n" + header
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body.encode()


LONG_HEAD = b"".join(b"Set-Cookie: " + b"a" * 6000 + b"\r\n" for _ in range(9))


# -- hosts


@pytest.mark.parametrize("files", [{}, {"/robots.txt": "User-agent: *\nAllow: /"}])
def test_more_hosts_than_memory_are_all_crawled(serve, config_for, tmp_path, monkeypatch, files) -> None:
    monkeypatch.setattr(engine, "_MAX_HOSTS", 3)
    sites = [serve({"/": "x", **files}) for _ in range(10)]
    result = crawl(config_for(*sites), tmp_path)
    assert (result.outcomes, result.complete) == ({"fetched": 10}, True)
    assert [site.counts for site in sites] == [{"/robots.txt": 1, "/": 1}] * 10


# -- hostile heads


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        pytest.param(raw(line=b"HTTP/1.1 200 \xff\xfe\xe9"), "fetched", id="bytes in the reason"),
        pytest.param(raw(header=b"X-A: \xff\xe9\r\n"), "fetched", id="bytes in a header"),
        pytest.param(raw(header=b"X-!#$%&'*+.^`|~: a\r\n"), "fetched", id="every sign that a name may have"),
        pytest.param(raw(header=b'ETag: "\xe9\xff"\r\n'), "fetched", id="bytes in the ETag"),
        pytest.param(raw(header=b'ETag: "' + b"a" * 7000 + b'"\r\n'), "fetched", id="a long ETag"),
        pytest.param(raw(header=b"Last-Modified: \xff garbage\r\n"), "fetched", id="bytes in Last-Modified"),
        pytest.param(raw(kind=b"text/html; charset=\xff\x80"), "fetched", id="bytes in the charset"),
        pytest.param(raw(header=b'ETag: "a\x01\x0bb"\r\n'), None, id="control characters in the ETag"),
        pytest.param(raw(header=LONG_HEAD), None, id="more than 32 KiB"),
        pytest.param(raw(header=b"".join(b"X-%d: a\r\n" % i for i in range(3000))), None, id="3000 headers"),
        pytest.param(
            raw(line=b"HTTP/1.1 301 M", header=b"Location: http://\xff[::/\r\n"), "redirected", id="no URL in Location"
        ),
    ],
)
def test_a_hostile_head_harms_neither_the_files_nor_the_next_visit(
    serve_raw, config_for, read_records, tmp_path, later, answer, outcome
) -> None:
    site = serve_raw({"/": raw(anchors("/bad", "/good")), "/bad": answer, "/good": raw()})
    config = config_for(seeds=(site.url("/"),), recrawl_after_hours=24, max_attempts=1)
    crawl(config, tmp_path)
    later(25)
    result = crawl(config, tmp_path)
    found = lookup(tmp_path, site.url("/bad")).outcome
    assert found is not None
    assert outcome in (found, None)
    assert lookup(tmp_path, site.url("/good")).outcome == lookup(tmp_path, site.url("/")).outcome == "fetched"
    assert [path for path, _ in site.requests].count("/good") == 2

    rows = [row for path in result.warc_paths for batch in read_pages(path) for row in batch.to_pylist()]
    assert {site.url("/"), site.url("/good")} <= {row["url"] for row in rows}
    assert {row["problem"] for row in rows} == {None}
    assert len(read_records(result.warc_paths)) >= 4
    for path in result.warc_paths:
        index = cdxj.path_of(path).read_bytes()
        assert index.count(b"\n") >= 2
        cdxj.rebuild(path)
        assert cdxj.path_of(path).read_bytes() == index


def test_a_long_head_and_a_kill_do_not_close_the_folder_for_good(serve_raw, config_for, start_crawl, tmp_path) -> None:
    site = serve_raw({"/": raw(anchors("/bad")), "/bad": raw(header=LONG_HEAD)})
    config = config_for(seeds=(site.url("/"),), max_attempts=1)
    assert start_crawl(config, tmp_path, die_at=("writer", "close", "before", 1)).wait(30) == -signal.SIGKILL
    for _ in range(2):
        result = crawl(config, tmp_path)
        assert (result.complete, lookup(tmp_path, site.url("/")).outcome) == (True, "fetched")
    urls = [row["url"] for path in result.warc_paths for batch in read_pages(path) for row in batch.to_pylist()]
    assert urls.count(site.url("/")) == 1


def test_an_etag_that_cannot_be_sent_back_does_not_freeze_a_page(serve_raw, config_for, tmp_path, later) -> None:
    site = serve_raw({"/": raw("one", header=b'ETag: "a\x7fb"\r\n')})
    config = config_for(seeds=(site.url("/"),), recrawl_after_hours=24)
    crawl(config, tmp_path)
    later(25)
    crawl(config, tmp_path)
    site.answers["/"] = raw("two")
    later(50)
    assert crawl(config, tmp_path).outcomes == {"fetched": 1}
    visits = [head for path, head in site.requests if path == "/"]
    assert len(visits) == 3
    assert not any(b"If-None-Match" in head for head in visits)


# -- sitemaps


def test_sitemaps_without_end_are_read_to_a_number(serve, config_for, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(crawler, "_MIN_MAPS_PER_HOST", 8)

    async def more(request: web.Request) -> web.Response:
        names = "".join(f"<sitemap><loc>{site.url(f'{request.path[:-4]}-{i}.xml')}</loc></sitemap>" for i in range(5))
        return web.Response(text=f"<sitemapindex {NAMESPACE}>{names}</sitemapindex>", content_type="text/xml")

    site = serve({"/": "x"})
    site.answers["/robots.txt"] = f"Sitemap: {site.url('/s.xml')}"
    names = ["/s.xml", *(f"/s-{i}.xml" for i in range(5)), *(f"/s-{i}-{j}.xml" for i in range(5) for j in range(5))]
    site.answers |= dict.fromkeys(names, more)
    result = crawl(config_for(site, max_pages=10), tmp_path)
    assert result.outcomes == {"fetched": 1, "read_for_links": 8}
    assert sum(path.endswith(".xml") for path, _ in site.requests) == 8


def test_sitemap_lines_send_us_to_no_host_that_is_not_ours(serve, config_for, tmp_path) -> None:
    victims = [serve({"/map.xml": f"<urlset {NAMESPACE}/>"}) for _ in range(5)]
    site = serve({"/": "x", "/map.xml": f"<urlset {NAMESPACE}/>"})
    named = [each.url("/map.xml") for each in (*victims, site)]
    site.answers["/robots.txt"] = "\n".join(f"Sitemap: {url}" for url in named)
    assert crawl(config_for(site), tmp_path).outcomes == {"fetched": 1, "read_for_links": 1}
    assert [len(victim.requests) for victim in victims] == [0] * 5


def test_a_sitemap_line_of_another_host_takes_neither_a_page_nor_a_seed(serve, config_for, tmp_path) -> None:
    victim = serve({"/": anchors("/a"), "/a": "x", "/robots.txt": "User-agent: *\nCrawl-delay: 0.12"})
    other = serve({"/": "x"})
    other.answers["/robots.txt"] = f"Sitemap: {victim.url('/')}\nSitemap: {victim.url('/a')}"
    crawl(config_for(victim, other), tmp_path)
    robots_at = next(at for path, at in other.requests if path == "/robots.txt")
    assert robots_at < min(at for path, at in victim.requests if path != "/robots.txt"), "the lines came first"
    for path in ("/", "/a"):
        row = lookup(tmp_path, victim.url(path))
        assert (row.kind, row.outcome) == ("page", "fetched"), path


# -- limits and what the config says later


def test_what_is_excluded_later_is_asked_for_no_more(serve, config_for, tmp_path, later) -> None:
    site = serve({"/": anchors("/p", "/q"), "/p": "x", "/q": "x", "/robots.txt": "User-agent: *\nDisallow: /p"})
    config = config_for(site, recrawl_after_hours=24)
    assert crawl(config, tmp_path).outcomes == {"fetched": 2, "robots_disallowed": 1}
    site.answers["/robots.txt"] = "User-agent: *\nAllow: /"
    later(25)
    crawl(replace(config, exclude=("/p", "/q")), tmp_path)
    assert (site.counts["/"], site.counts["/p"], site.counts["/q"]) == (2, 0, 1)


def test_recrawl_switched_off_holds_for_what_waited_already(serve, config_for, tmp_path, later) -> None:
    site = site_of(serve, 5)
    config = config_for(site, recrawl_after_hours=24)
    crawl(config, tmp_path)
    later(25)
    with Frontier(tmp_path) as frontier:  # as a call leaves it that is killed when it begins
        frontier.requeue(time.time(), 24 * 3600.0)
        assert frontier.num_queued() == 5
    result = crawl(replace(config, recrawl_after_hours=None), tmp_path)
    assert (result.num_fetched, result.outcomes, result.complete) == (0, {"fetched": 5}, True)


def test_max_pages_holds_over_visits_and_new_seeds(serve, config_for, read_records, tmp_path, later) -> None:
    small, large = site_of(serve, 10), site_of(serve, 31)
    config = config_for(small, max_pages=10, recrawl_after_hours=24)
    assert crawl(config, tmp_path).num_pages == 10
    config = replace(config, seeds=(*config.seeds, large.url("/")))
    for hours in (25, 40):
        later(hours)
        result = crawl(config, tmp_path)
        assert result.num_unchanged == 10
        urls = {url for kind, url, fields, _ in read_records(result.warc_paths) if kind == "response"}
        assert urls == {small.url(path) for path in small.answers}
    assert not set(large.counts) - {"/robots.txt"}
