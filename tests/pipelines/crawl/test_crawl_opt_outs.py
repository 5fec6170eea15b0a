"""A site that takes its pages back is heard: each page once, whatever else happens at the time."""

import json
import signal
from collections import Counter

import pytest
from aiohttp import web

from pipelines.crawl import crawl, lookup

DISALLOW = "User-agent: *\nDisallow: /"
NO_TRAINING = "User-agent: *\nContent-Signal: ai-train=no\nAllow: /"


def site_of(serve, num_pages: int):
    """A page that links to all others."""
    pages = [f"/{i}" for i in range(num_pages - 1)]
    return serve({"/": "".join(f"<a href='{page}'>x</a>" for page in pages), **dict.fromkeys(pages, "x")})


def withdrawn(records, site) -> Counter[str]:
    """How many metadata records each page has."""
    return Counter(url.removeprefix(site.origin) for kind, url, _, _ in records if kind == "metadata")


def test_an_opt_out_is_written_once_for_pages_that_are_due_as_well(
    serve, config_for, read_records, tmp_path, later
) -> None:
    site = site_of(serve, 9)
    config = config_for(site, recrawl_after_hours=1)
    assert crawl(config, tmp_path).outcomes == {"fetched": 9}
    later(25)
    site.answers["/robots.txt"] = DISALLOW
    result = crawl(config, tmp_path)
    assert (result.num_withdrawn, result.num_fetched) == (9, 0)
    later(25)
    result = crawl(config, tmp_path)
    assert (result.num_withdrawn, result.outcomes) == (0, {"robots_disallowed": 9})
    written = withdrawn(read_records(result.warc_paths), site)
    assert (len(written), set(written.values())) == (9, {1})


@pytest.mark.parametrize("outage", [503, 429])
def test_an_opt_out_after_an_outage_is_heard_by_the_call_that_reads_it(
    serve, config_for, tmp_path, later, outage
) -> None:
    site = serve({"/": "x"})
    config = config_for(site, max_attempts=1)
    crawl(config, tmp_path)
    later(25)
    site.answers["/robots.txt"] = web.Response(status=outage)
    assert crawl(config, tmp_path).outcomes == {"fetched": 1}
    later(2)
    site.answers["/robots.txt"] = DISALLOW
    result = crawl(config, tmp_path)
    assert (result.num_withdrawn, result.outcomes) == (1, {"robots_disallowed": 1})


def test_an_opt_out_reaches_a_page_that_fails_now(serve, config_for, read_records, tmp_path, later) -> None:
    site = serve({"/": "x"})
    config = config_for(site, recrawl_after_hours=720)
    crawl(config, tmp_path)
    later(721)
    site.answers["/"] = web.Response(status=403)
    assert crawl(config, tmp_path).outcomes == {"http_error": 1}
    later(48)
    site.answers["/robots.txt"] = DISALLOW
    result = crawl(config, tmp_path)
    assert (result.num_withdrawn, result.outcomes) == (1, {"robots_disallowed": 1})
    assert withdrawn(read_records(result.warc_paths), site) == {"/": 1}


def test_a_page_under_way_while_the_rules_change_is_withdrawn_in_the_same_call(
    serve, config_for, read_records, tmp_path, later
) -> None:
    num_asked_by_old_rules = []

    async def change_the_rules(request: web.Request) -> web.Response:
        later(25)
        site.answers["/robots.txt"] = "User-agent: *\nDisallow: /slow\nDisallow: /later"
        num_asked_by_old_rules.append(len(site.requests))
        return web.Response(text="slow", content_type="text/html")

    site = serve({"/robots.txt": "", "/": "<a href='/slow'>x</a><a href='/later'>x</a><a href='/free'>x</a>"})
    site.answers |= {"/slow": change_the_rules, "/later": "x", "/free": "x"}
    result = crawl(config_for(site), tmp_path)
    assert result.outcomes == {"fetched": 2, "robots_disallowed": 2}
    assert lookup(tmp_path, site.url("/slow")).outcome == "robots_disallowed"
    asked = [path for path, _ in site.requests]
    assert asked[num_asked_by_old_rules[0] :] == ["/robots.txt", "/free"]
    kinds = [kind for kind, url, _, _ in read_records(result.warc_paths) if url == site.url("/slow")]
    assert kinds == ["response", "metadata"], "its end in the files is that it is withdrawn"


# -- what a 304 may do


def test_a_304_that_was_not_asked_for_keeps_nothing(serve, config_for, read_records, tmp_path, later) -> None:
    site = serve({"/": "x"})
    config = config_for(site, recrawl_after_hours=24)
    crawl(config, tmp_path)
    site.answers["/"] = web.Response(status=304)
    site.answers["/robots.txt"] = "User-agent: GPTBot\nDisallow: /"
    later(25)
    result = crawl(config, tmp_path)
    assert "If-None-Match" not in site.headers[-1]
    assert (result.outcomes, result.num_unchanged) == ({"http_error": 1}, 0)
    last = [(kind, fields) for kind, url, fields, _ in read_records(result.warc_paths) if url == site.url("/")][-1]
    assert last[0] == "response"
    assert json.loads(last[1]["Corpusmill-Directives"]) == ["robots.txt ai-agents: GPTBot"]


def test_a_server_that_answers_304_for_ever_is_asked_once_more(
    serve, config_for, read_records, tmp_path, later
) -> None:
    """Its 304 speaks of training where its page did not: the page is wanted whole, does not come, and is withdrawn."""
    site = serve({"/": web.Response(text="x", headers={"Content-Type": "text/html", "ETag": '"a"'})})
    config = config_for(site, recrawl_after_hours=24)
    crawl(config, tmp_path)
    site.answers["/"] = web.Response(status=304, headers={"ETag": '"a"', "X-Robots-Tag": "noai"})
    later(25)
    result = crawl(config, tmp_path)
    sent = zip(site.requests, site.headers, strict=True)
    assert [headers.get("If-None-Match") for (path, _), headers in sent if path == "/"] == [None, '"a"', None]
    assert result.outcomes == {"reserved": 1}
    kinds = [(kind, fields.get("Corpusmill-Outcome")) for kind, _, fields, _ in read_records(result.warc_paths)]
    assert kinds == [("response", None), ("metadata", "reserved")]


# -- fetch_reserved


@pytest.mark.parametrize("status", [200, 403])
def test_a_reservation_of_pages_that_are_fetched_all_the_same_is_written_although_no_page_may_be_added(
    serve, config_for, read_records, tmp_path, later, status
) -> None:
    site = site_of(serve, 10)
    config = config_for(site, fetch_reserved=True, max_pages=5)
    assert crawl(config, tmp_path).outcomes == {"fetched": 5}
    fetched = {path for path in site.answers if lookup(tmp_path, site.url(path)).outcome == "fetched"}
    site.answers |= {path: web.Response(status=status, text="x") for path in site.answers}
    site.answers["/robots.txt"] = NO_TRAINING
    later(25)
    result = crawl(config, tmp_path)
    assert result.num_withdrawn == 5
    records = read_records(result.warc_paths)
    assert withdrawn(records, site) == dict.fromkeys(fetched, 1)
    told = [json.loads(fields["Corpusmill-Directives"]) for kind, _, fields, _ in records if kind == "metadata"]
    assert all(any("ai-train=no" in each for each in directives) for directives in told), told


def test_a_file_of_rights_behind_a_redirect_loop_reserves_the_site(serve, config_for, tmp_path) -> None:
    path = "/.well-known/tdmrep.json"
    site = serve({"/": "x", path: web.Response(status=302, headers={"Location": path})})
    assert crawl(config_for(site), tmp_path).outcomes == {"reserved": 1}
    assert site.counts["/"] == 0
    assert "redirects too often" in lookup(tmp_path, site.url("/")).error


# -- kills


@pytest.mark.parametrize(
    ("name", "when", "count"),
    [
        ("commit", "after", 1),
        ("commit", "before", 2),
        ("commit", "after", 2),
        ("queue", "after", 1),
        ("sync", "after", 1),
    ],
)
def test_a_kill_in_an_opt_out_loses_and_doubles_nothing_and_its_end_brings_the_pages_back(
    serve, config_for, start_crawl, read_records, tmp_path, later, name, when, count
) -> None:
    site = site_of(serve, 9)
    config = config_for(site)
    crawl(config, tmp_path)
    site.answers["/robots.txt"] = DISALLOW
    process = start_crawl(config, tmp_path, die_at=("frontier", name, when, count), hours_later=25)
    assert process.wait(30) == -signal.SIGKILL
    later(25)
    result = crawl(config, tmp_path)
    assert result.outcomes == {"robots_disallowed": 9}
    written = withdrawn(read_records(result.warc_paths), site)
    assert (len(written), set(written.values())) == (9, {1})

    site.answers["/robots.txt"] = "User-agent: *\nAllow: /"
    later(25)
    result = crawl(config, tmp_path)
    assert (result.outcomes, result.num_fetched) == ({"fetched": 9}, 9)
    last = {url: kind for kind, url, fields, _ in read_records(result.warc_paths) if "Corpusmill-Role" not in fields}
    assert (len(last), set(last.values())) == (9, {"response"})
