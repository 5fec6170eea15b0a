"""A host is left in peace between two requests, whatever they are for and whoever makes them."""

import asyncio
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from aiohttp import web

from pipelines.crawl import crawl, engine, lookup

NONE_OF_ITS_OWN = {"/.well-known/tdmrep.json": web.Response(status=404), "/ai.txt": web.Response(status=404)}
"""Answers that let requests for the files of a site count."""


def anchors(*paths: str) -> str:
    return "".join(f"<a href='{path}'>x</a>" for path in paths)


def rsl_link(url: str) -> str:
    return f"<link rel='license' type='application/rsl+xml' href='{url}'>"


def busy(seconds: int, status: int = 429) -> web.Response:
    return web.Response(status=status, text="later", headers={"Retry-After": str(seconds), "Content-Type": "text/html"})


def once(first: web.Response, then: str):
    """Give one answer, and from then on another."""
    left = [first]

    async def answer(request: web.Request) -> web.Response:
        if not left:
            return web.Response(text=then, content_type="text/html")
        return left.pop()

    return answer


def crowded_gaps(*sites, seconds: float) -> list[tuple[float, str, str]]:
    """Pairs of requests to one site that were nearer than so many seconds."""
    return [gap for site in sites for gap in site.gaps if gap[0] < seconds]


# -- Retry-After


def test_a_short_retry_after_holds_for_the_whole_host_whatever_it_comes_with(serve, config_for, tmp_path) -> None:
    root = anchors("/a", "/b")
    carriers = {
        "429": ("/a", once(busy(1), "x")),
        "503": ("/a", once(busy(1, 503), "x")),
        "a page": ("/a", busy(1, 200)),
        "a redirect": ("/a", web.Response(status=301, headers={"Location": "/b", "Retry-After": "1"})),
        "robots.txt": ("/robots.txt", once(busy(1), "")),
    }
    sites = {name: serve({"/": root, "/a": "x", "/b": "x"} | dict([carrier])) for name, carrier in carriers.items()}
    result = crawl(config_for(*sites.values()), tmp_path)
    assert result.outcomes == {"fetched": 14, "redirected": 1}
    for name, site in sites.items():
        after = [seconds for seconds, before, _ in site.gaps if before == carriers[name][0]]
        assert after[0] >= 1, name


def test_a_long_retry_after_ends_the_host_for_this_call(serve, config_for, tmp_path, later) -> None:
    pages = [f"/{i}" for i in range(8)]
    site = serve({"/": anchors(*pages), **dict.fromkeys(pages, busy(3 * 3600))})
    config = config_for(site, max_delay_seconds=0.1)
    crawl(config, tmp_path)
    assert sum(site.counts[page] for page in pages) == 1
    site.answers |= dict.fromkeys(pages, "x")
    num_requests = len(site.requests)
    for _ in range(2):
        crawl(config, tmp_path)
        assert len(site.requests) == num_requests
        later(1.4)
    later(0.3)
    assert crawl(config, tmp_path).outcomes == {"fetched": 9}


def test_a_long_retry_after_of_a_page_that_came_is_cut_to_the_longest_pause(serve, config_for, tmp_path) -> None:
    site = serve({"/": busy(3 * 3600, 200), "/b": "x"})
    config = config_for(seeds=(site.url("/"), site.url("/b")), max_delay_seconds=0.3)
    assert crawl(config, tmp_path).outcomes == {"fetched": 2}
    assert [page for page, _ in site.requests] == ["/robots.txt", "/", "/b"]
    assert site.gaps[-1][0] >= 0.3


def test_a_long_retry_after_of_robots_txt_is_left_to_a_later_call(serve, config_for, tmp_path, later) -> None:
    site = serve({"/robots.txt": busy(3 * 3600), "/": "x"})
    config = config_for(site, max_delay_seconds=0.1)
    for hours in (0, 1.5, 1.4):
        later(hours)
        assert crawl(config, tmp_path).outcomes == {"robots_unreachable": 1}
        assert site.counts == {"/robots.txt": 1}
    site.answers["/robots.txt"] = ""
    later(0.2)
    assert crawl(config, tmp_path).outcomes == {"fetched": 1}


def test_a_retry_after_holds_over_a_restart(serve, config_for, tmp_path) -> None:
    site = serve({"/": busy(1), "/b": "x"})
    config = config_for(site, max_attempts=1)
    crawl(config, tmp_path)
    crawl(replace(config, seeds=(*config.seeds, site.url("/b"))), tmp_path)
    assert [page for page, _ in site.requests] == ["/robots.txt", "/", "/b"]
    assert site.gaps[-1][0] >= 1


def test_a_retry_after_holds_over_a_kill(serve, config_for, start_crawl, tmp_path, later) -> None:
    site = serve({"/": anchors("/a", "/b"), "/a": once(busy(50), "x"), "/b": "x"})
    config = config_for(site, max_attempts=1)
    is_asked = threading.Event()
    site.on_request = lambda _: is_asked.set() if site.counts["/a"] else None
    process = start_crawl(config, tmp_path)
    assert is_asked.wait(20)
    ends_at = time.monotonic() + 20
    while lookup(tmp_path, site.url("/a")).outcome is None:  # until the ledger has it
        assert time.monotonic() < ends_at
        threading.Event().wait(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL, "it waited to ask for /b"
    asked = [page for page, _ in site.requests]
    assert asked == ["/robots.txt", "/", "/a"]

    impatient = replace(config, max_delay_seconds=1)
    crawl(impatient, tmp_path)
    assert [page for page, _ in site.requests] == asked
    assert "of rest" in lookup(tmp_path, site.url("/b")).error
    later(2)
    assert crawl(impatient, tmp_path).outcomes == {"fetched": 3}


# -- Crawl-delay


def test_a_crawl_delay_holds_over_a_kill_while_a_page_is_under_way(serve, config_for, start_crawl, tmp_path) -> None:
    is_asked, is_killed = threading.Event(), threading.Event()

    async def answer(request: web.Request) -> web.Response:
        is_asked.set()
        while not is_killed.is_set():
            await asyncio.sleep(0.01)
        return web.Response(text="x", content_type="text/html")

    rules = "User-agent: *\nCrawl-delay: 0.6\nDisallow: /ai.txt\nDisallow: /.well-known/"
    site = serve(NONE_OF_ITS_OWN | {"/robots.txt": rules, "/": answer})
    config = config_for(site)
    process = start_crawl(config, tmp_path)
    assert is_asked.wait(20)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    killed_at = time.monotonic()
    is_killed.set()
    assert crawl(config, tmp_path).outcomes == {"fetched": 1}
    assert [page for page, _ in site.requests] == ["/robots.txt", "/", "/"]
    assert not crowded_gaps(site, seconds=0.6)
    assert site.requests[-1][1] - killed_at >= 0.6, "it may have been answered until it was killed"


# -- RSL documents


def test_rsl_documents_of_the_page_s_own_host_obey_its_pause_and_its_robots_txt(serve, config_for, tmp_path) -> None:
    links = rsl_link("/forbidden.xml") + rsl_link("/one.xml") + rsl_link("/two.xml")
    files = {"/forbidden.xml": "<rsl/>", "/one.xml": "<rsl/>", "/two.xml": "<rsl/>"}
    robots = {"/robots.txt": "User-agent: *\nDisallow: /forbidden.xml"}
    site = serve(NONE_OF_ITS_OWN | files | robots | {"/": links + anchors("/a"), "/a": links})
    assert crawl(config_for(site, delay_seconds=0.15), tmp_path).outcomes == {"fetched": 2}
    assert site.counts["/forbidden.xml"] == 0
    assert site.counts["/one.xml"] == site.counts["/two.xml"] == 1
    assert not crowded_gaps(site, seconds=0.15)
    for path in ("/", "/a"):
        directives = lookup(tmp_path, site.url(path)).directives
        assert any("forbidden.xml is forbidden by robots.txt" in each for each in directives), directives


def test_rsl_documents_of_another_host_obey_its_robots_txt_and_are_few(serve, config_for, tmp_path) -> None:
    names = [f"/{i}.xml" for i in range(12)]
    closed = serve({"/robots.txt": "User-agent: *\nDisallow: /", **dict.fromkeys(names, "<rsl/>")})
    open_ = serve({"/robots.txt": "User-agent: *\nAllow: /", **dict.fromkeys(names, "<rsl/>")})
    for other, is_closed in ((closed, True), (open_, False)):
        links = [rsl_link(other.url(name)) for name in names]
        site = serve({"/": "".join(links[:6]) + anchors("/a"), "/a": "".join(links[6:])})
        assert crawl(config_for(site), tmp_path).outcomes["fetched"] >= 2
        num_asked = sum(other.counts[name] for name in names)
        assert num_asked == (0 if is_closed else 5)
        directives = lookup(tmp_path, site.url("/a")).directives
        assert any("too many on other hosts" in each for each in directives), directives


def test_rsl_documents_of_another_host_are_paced(serve, config_for, tmp_path) -> None:
    names = [f"/{i}.xml" for i in range(3)]
    other = serve({"/robots.txt": "User-agent: *\nAllow: /", **dict.fromkeys(names, "<rsl/>")})
    site = serve({"/": "".join(rsl_link(other.url(name)) for name in names)})
    crawl(config_for(site, delay_seconds=0.15), tmp_path)
    assert sum(other.counts[name] for name in names) == 3
    assert not crowded_gaps(other, seconds=0.15)


# -- more hosts than are held in memory


@pytest.mark.parametrize("resting_seconds", [5.0, 0.0])
def test_a_mesh_of_more_hosts_than_memory_keeps_every_pause(
    serve, config_for, tmp_path, monkeypatch, resting_seconds
) -> None:
    """Hosts are dropped from memory and taken from the ledger again while others name more of their pages."""
    monkeypatch.setattr(engine, "_MAX_HOSTS", 2)
    monkeypatch.setattr(engine, "_RESTING_SECONDS", resting_seconds)
    taken: list[int] = []
    host = engine.Host
    monkeypatch.setattr(engine, "Host", lambda id_, *rest: taken.append(id_) or host(id_, *rest))
    sites = [serve(dict(NONE_OF_ITS_OWN)) for _ in range(4)]
    for i, site in enumerate(sites):
        if i % 2:
            site.answers["/robots.txt"] = "User-agent: *\nAllow: /"
        site.answers["/"] = anchors(*(other.url(f"/{i}") for other in sites))
        site.answers |= {f"/{j}": anchors(sites[0].url(f"/{i}-{j}")) for j in range(4)}
    sites[0].answers |= {f"/{i}-{j}": "x" for i in range(4) for j in range(4)}
    result = crawl(config_for(*sites, delay_seconds=0.04), tmp_path)
    assert (result.outcomes, result.complete) == ({"fetched": 4 + 16 + 16}, True)
    assert len(taken) > len(set(taken)) == 4, "a host was held twice, one time after the other"
    assert not crowded_gaps(*sites, seconds=0.04)
    assert {count for site in sites for count in site.counts.values()} == {1}


def test_hosts_that_wait_for_the_last_page_keep_their_pauses(serve, config_for, tmp_path, monkeypatch) -> None:
    """As long as the last page that the config allows is under way, the others wait; where it fails, they go on."""
    monkeypatch.setattr(engine, "_MAX_HOSTS", 2)

    async def fail(request: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response(status=404)

    pages = [f"/{i}" for i in range(4)]
    answers = {"/": anchors(*pages), **dict.fromkeys(pages, fail)}
    sites = [serve(NONE_OF_ITS_OWN | answers) for _ in range(4)]
    result = crawl(config_for(*sites, max_pages=5, delay_seconds=0.04), tmp_path)
    assert (result.outcomes, result.complete) == ({"fetched": 4, "http_error": 16}, True)
    assert not crowded_gaps(*sites, seconds=0.04)
    assert {count for site in sites for count in site.counts.values()} == {1}
