"""kill -9 at any moment: nothing is lost, nothing is doubled."""

import os
import random
import signal
import threading
from dataclasses import replace

import pytest
from aiohttp import web

from pipelines.crawl import crawl, lookup, status
from pipelines.crawl.cdxj import path_of
from pipelines.crawl.recovery import last_whole_member_end
from pipelines.sources.warc import read_pages

NUM_PAGES = 120


def tree(num_pages: int) -> dict[str, str]:
    """Every page links to its children, to its neighbours and home."""
    pages = {}
    for i in range(num_pages):
        linked = {0, i + 1, i - 1, 3 * i + 1, 3 * i + 2, 3 * i + 3} & set(range(num_pages))
        links = "".join(f"<a href='/p{each}'>x</a>" for each in sorted(linked))
        pages[f"/p{i}"] = f"<title>第{i}页</title><p>{'text ' * 200}{links}"
    return pages


@pytest.mark.parametrize("steps", [(1, 17, 40), (30, 2, 55)])
def test_kill(serve, config_for, start_crawl, read_warc, tmp_path, steps) -> None:
    site = serve(tree(NUM_PAGES))
    config = config_for(seeds=(site.url("/p0"),), concurrency_per_host=4, warc_max_records=25)
    for step in steps:
        # The server says when: so many requests into this process's life.
        stop_at = len(site.requests) + step
        is_time = threading.Event()
        site.on_request = lambda count, stop_at=stop_at, is_time=is_time: is_time.set() if count >= stop_at else None
        process = start_crawl(config, tmp_path)
        assert is_time.wait(30)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    site.on_request = lambda count: None
    closed_before = {path: path.read_bytes() for path in (tmp_path / "warc").glob("*.warc.gz")}

    result = crawl(config, tmp_path)
    assert (result.outcomes, result.complete, result.num_pages) == ({"fetched": NUM_PAGES}, True, NUM_PAGES)
    assert not list((tmp_path / "warc").glob("*.open"))
    assert all(path.read_bytes() == content for path, content in closed_before.items())
    records = read_warc(result.warc_paths)
    assert sorted(record.url for record in records) == sorted(site.url(path) for path in site.answers)
    for record in records:
        row = lookup(tmp_path, record.url)
        assert (row.warc_file, row.warc_offset) == (record.file, record.offset)
        assert record.body == site.answers[record.url.removeprefix(site.origin)].encode()
    assert result.num_fetched < NUM_PAGES, "what was finished is not asked for again"
    assert crawl(config, tmp_path).num_fetched == 0


@pytest.mark.parametrize(
    ("place", "name", "when", "count"),
    [
        ("frontier", "add_file", "after", 2),
        ("writer", "append", "after", 3),
        ("os", "fsync", "before", 3),
        ("frontier", "commit", "after", 6),
        ("writer", "close", "before", 1),
        ("writer", "close", "after", 2),
    ],
)
def test_kill_between_two_steps(serve, config_for, start_crawl, read_warc, tmp_path, place, name, when, count) -> None:
    site = serve(tree(30))
    config = config_for(seeds=(site.url("/p0"),), concurrency_per_host=4, warc_max_records=7)
    assert start_crawl(config, tmp_path, die_at=(place, name, when, count)).wait(30) == -signal.SIGKILL
    assert status(tmp_path)["num_pages"] < 30, "the ledger can be read as it was left"
    closed_before = {path: path.read_bytes() for path in (tmp_path / "warc").glob("*.warc.gz")}
    result = crawl(config_for(seeds=(site.url("/p0"),)), tmp_path)
    assert (result.outcomes, result.num_pages) == ({"fetched": 30}, 30)
    assert all(path.read_bytes() == content for path, content in closed_before.items())
    assert not list((tmp_path / "warc").glob("*.open"))
    records = read_warc(result.warc_paths)
    assert sorted(record.url for record in records) == sorted(site.url(path) for path in site.answers)
    for record in records:
        row = lookup(tmp_path, record.url)
        assert (row.warc_file, row.warc_offset) == (record.file, record.offset)


@pytest.mark.slow
def test_fifty_kills_at_random_moments(serve, config_for, start_crawl, read_records, tmp_path) -> None:
    """Nothing lost, nothing twice in the corpus, and every file readable to its last whole record after each kill."""
    chance = random.Random(20261123)
    site = serve(tree(900))
    sitemap = "".join(f"<url><loc>{site.url(f'/p{i}')}</loc></url>" for i in range(0, 900, 7))
    site.answers["/map.xml"] = f"<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>{sitemap}</urlset>"
    site.answers["/robots.txt"] = f"User-agent: *\nDisallow: /p13$\nSitemap: {site.url('/map.xml')}"
    site.answers["/p7"] = web.Response(status=301, headers={"Location": "/p8"})
    config = config_for(seeds=(site.url("/p0"),), concurrency_per_host=4, warc_max_records=40)
    told = config
    num_killed = 0
    while num_killed < 50:
        stop_at = len(site.requests) + chance.randrange(1, 30)
        is_time = threading.Event()
        site.on_request = lambda count, stop_at=stop_at, is_time=is_time: is_time.set() if count >= stop_at else None
        by_itself = chance.random() < 0.5
        # Ends the process at that much CPU time, as SIGKILL would.
        timer = f"signal.setitimer(signal.ITIMER_PROF, {chance.uniform(0.3, 0.7)})"
        process = start_crawl(told, tmp_path, first=timer if by_itself else "")
        while process.poll() is None and not is_time.wait(0.01):
            pass
        if process.poll() is None and not by_itself:
            process.send_signal(signal.SIGKILL)
        assert process.wait(60) in (0, -signal.SIGKILL, -signal.SIGPROF)
        num_killed += process.returncode != 0
        for path in (tmp_path / "warc").glob("*.warc.gz*"):
            data = path.read_bytes()[: last_whole_member_end(path)]
            (tmp_path / "whole.warc.gz").write_bytes(data)
            if data:
                read_records((tmp_path / "whole.warc.gz",))
        if process.returncode == 0:
            # It came to its end: the pages are due again, and more kills fall into visits of known pages.
            told = replace(config, recrawl_after_hours=0)
    site.on_request = lambda count: None
    result = crawl(config, tmp_path)
    assert result.complete
    assert result.outcomes == {"fetched": 898, "redirected": 1, "robots_disallowed": 1, "read_for_links": 1}
    urls = [row["url"] for path in result.warc_paths for batch in read_pages(path) for row in batch.to_pylist()]
    reachable = {site.url(f"/p{i}") for i in range(900)} - {site.url("/p7"), site.url("/p13")}
    assert set(urls) == reachable, "none lost"
    assert len(urls) == len(reachable), "none twice: a visit of a page that did not change is a revisit record"
    for path in result.warc_paths:
        assert path_of(path).read_text().count("\n") > 0
