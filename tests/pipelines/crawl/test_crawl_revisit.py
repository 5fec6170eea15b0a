"""Visits of pages that were fetched before: what is asked, what is written, when the next one is due."""

from dataclasses import replace

import pytest
from aiohttp import web

from pipelines.crawl import CrawlConfig, Outcome, crawl, lookup
from pipelines.crawl.revisit import next_visit
from pipelines.sources.warc import read_pages


def versioned(state: dict[str, str]):
    """A page with an ETag; `state` holds its body, and headers to add."""

    async def answer(request: web.Request) -> web.Response:
        headers = {"ETag": f'"{state["body"]}"', "Content-Type": "text/html"} | {
            key: value for key, value in state.items() if key not in ("body", "on_304")
        }
        if request.headers.get("If-None-Match") == headers["ETag"]:
            extra = {"X-Robots-Tag": state["on_304"]} if "on_304" in state else {}
            return web.Response(status=304, headers={"ETag": headers["ETag"], **extra})
        return web.Response(text=state["body"], headers=headers)

    return answer


def test_a_page_that_did_not_change_becomes_a_revisit_record(serve, config_for, read_records, tmp_path, later) -> None:
    state = {"body": "one"}
    site = serve({"/": "<a href='/etag'>e</a><a href='/plain'>p</a>", "/etag": versioned(state), "/plain": "same"})
    config = config_for(site, recrawl_after_hours=24)
    first = crawl(config, tmp_path)
    later(25)
    second = crawl(config, tmp_path)
    assert (second.num_fetched, second.num_unchanged, second.num_changed) == (3, 3, 0)
    assert second.outcomes == {"fetched": 3}
    assert second.num_pages == first.num_pages, "nothing new is in the files"
    records = read_records(second.warc_paths)
    of_first = {url: fields for kind, url, fields, _ in records if kind == "response"}
    revisits = {url: fields for kind, url, fields, _ in records if kind == "revisit"}
    assert set(revisits) == {site.url("/"), site.url("/etag"), site.url("/plain")}
    profiles = {
        url.removeprefix(site.origin): fields["WARC-Profile"].rpartition("/")[2] for url, fields in revisits.items()
    }
    assert profiles == {
        "/": "identical-payload-digest",
        "/plain": "identical-payload-digest",
        "/etag": "server-not-modified",
    }
    for url, fields in revisits.items():
        assert fields["WARC-Refers-To"] == of_first[url]["WARC-Record-ID"]
        assert fields["WARC-Refers-To-Target-URI"] == url
        assert fields["WARC-Refers-To-Date"] == of_first[url]["WARC-Date"]
        assert fields["WARC-Payload-Digest"] == of_first[url]["WARC-Payload-Digest"]
    rows = [row for path in second.warc_paths for batch in read_pages(path) for row in batch.to_pylist()]
    assert len(rows) == 3, "a revisit is no page"
    row = lookup(tmp_path, site.url("/etag"))
    assert (row.num_visits, row.num_changes, row.warc_file) == (2, 0, "crawl-000001.warc.gz")

    state["body"] = "two"
    later(40)
    third = crawl(config, tmp_path)
    assert (third.num_changed, third.num_unchanged) == (1, 2)
    row = lookup(tmp_path, site.url("/etag"))
    assert (row.num_visits, row.num_changes, row.warc_file) == (3, 1, "crawl-000003.warc.gz")
    assert (row.due_at - row.decided_at).total_seconds() == pytest.approx(18 * 3600, abs=2), "36 h, halved"


def test_what_is_not_due_is_not_asked_for(serve, config_for, tmp_path, later) -> None:
    site = serve({"/": "<a href='/a'>a</a>", "/a": ""})
    config = config_for(site, recrawl_after_hours=24)
    crawl(config, tmp_path)
    later(25)
    assert crawl(config, tmp_path).num_fetched == 2
    later(30)
    assert crawl(config, tmp_path).num_fetched == 0, "the interval grew to 36 h"
    later(7)
    assert crawl(config, tmp_path).num_fetched == 2
    later(1000)
    assert crawl(replace(config, recrawl_after_hours=None), tmp_path).num_fetched == 0


@pytest.mark.parametrize("code", [404, 410])
@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_page_that_is_gone_is_retired(serve, config_for, read_records, tmp_path, later, code, kind) -> None:
    site = serve({"/": "<a href='/a'>a</a>", "/a": "text"})
    config = config_for(site, recrawl_after_hours=24)
    crawl(config, tmp_path)
    site.answers["/a"] = web.Response(status=code, body=b"gone", headers={"Content-Type": kind})
    later(25)
    result = crawl(config, tmp_path)
    assert result.outcomes == {"fetched": 1, "http_error": 1}
    rows = [row for path in result.warc_paths for batch in read_pages(path) for row in batch.to_pylist()]
    assert [row["status"] for row in rows if row["url"] == site.url("/a")] == [200, code]
    row = lookup(tmp_path, site.url("/a"))
    assert (row.due_at - row.decided_at).days == 90
    later(24 * 91)
    site.answers["/a"] = "back"
    assert crawl(config, tmp_path).outcomes == {"fetched": 2}
    assert lookup(tmp_path, site.url("/a")).num_visits == 3


def test_a_failed_visit_leaves_the_page_what_it_was(serve, config_for, read_records, tmp_path, later) -> None:
    site = serve({"/": "<a href='/a'>a</a>", "/a": "text"})
    config = config_for(site, recrawl_after_hours=24, max_attempts=1)
    crawl(config, tmp_path)
    site.answers["/a"] = web.Response(status=500)
    later(25)
    crawl(config, tmp_path)
    assert lookup(tmp_path, site.url("/a")).outcome == "http_error"
    site.answers["/a"] = "text"
    later(2)
    result = crawl(config, tmp_path)
    assert (result.num_fetched, result.num_unchanged) == (1, 1)
    assert [kind for kind, url, _, _ in read_records(result.warc_paths) if url == site.url("/a")][-1] == "revisit"


def test_equal_bytes_with_another_word_on_training_are_a_new_record(
    serve, config_for, read_records, tmp_path, later
) -> None:
    state = {"body": "text"}
    site = serve({"/": versioned(state)})
    config = config_for(site, recrawl_after_hours=24)
    crawl(config, tmp_path)
    state["on_304"] = "noai"  # a server that says so in its 304 as well
    state["X-Robots-Tag"] = "noai"
    later(25)
    result = crawl(config, tmp_path)
    assert site.counts["/"] == 3, "asked for again, without conditions"
    kinds = [(kind, fields.get("WARC-Profile")) for kind, url, fields, _ in read_records(result.warc_paths)]
    assert kinds == [("response", None), ("response", None)]
    assert lookup(tmp_path, site.url("/")).directives == ("X-Robots-Tag: noai".replace("X-Robots-Tag", "x-robots-tag"),)
    site.answers["/robots.txt"] = "User-agent: CCBot\nDisallow: /"
    later(40)
    result = crawl(config, tmp_path)
    assert site.counts["/"] == 4
    assert "robots.txt ai-agents: CCBot" in lookup(tmp_path, site.url("/")).directives
    assert (
        len([1 for kind, url, *_ in read_records(result.warc_paths) if kind == "response" and url == site.url("/")])
        == 3
    )


def test_a_page_that_is_none_any_more_supersedes_what_it_was(serve, config_for, tmp_path, later) -> None:
    site = serve({"/": "text"})
    config = config_for(site, recrawl_after_hours=24)
    crawl(config, tmp_path)
    site.answers["/"] = web.Response(body=b"%PDF-1.7", headers={"Content-Type": "application/pdf"})
    later(25)
    result = crawl(config, tmp_path)
    assert result.outcomes == {"not_text": 1}
    rows = [row for path in result.warc_paths for batch in read_pages(path) for row in batch.to_pylist()]
    assert [(row["status"], row["content_type"], row["payload"]) for row in rows][1:] == [(200, "application/pdf", b"")]


@pytest.mark.parametrize(
    ("hours", "learnt", "is_changed", "wanted"),
    [
        (24, None, None, 24),
        (24, None, False, 36),
        (24, None, True, 12),
        (24, 12, True, 12),
        (24, 2000, False, 2160),
        (1, 1, True, 1),
        (5000, 5000, False, 5000),
        (0, None, False, 0),
    ],
)
def test_intervals(hours, learnt, wanted, *, is_changed) -> None:
    config = CrawlConfig(seeds=("http://a.example/",), recrawl_after_hours=hours)
    seconds = None if learnt is None else learnt * 3600.0
    due_at, _ = next_visit(config, 1e9, Outcome.FETCHED, 200, seconds, is_changed=is_changed)
    assert due_at == 1e9 + wanted * 3600
