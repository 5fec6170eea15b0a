"""What a site's files reserve: what is not fetched, what is noted, and what a later opt-out takes out again."""

import json

import pytest
from aiohttp import web

from pipelines.crawl import crawl, lookup
from pipelines.crawl.robots import MAX_NUM_BYTES
from pipelines.sources.warc import read_pages

PAGES = {"/": "<a href='/a'>a</a><a href='/b'>b</a>", "/a": "<p>a", "/b": "<p>b"}
LICENSE = (
    '<rsl xmlns="https://rslstandard.org/rsl"><content url="/b"><license><prohibits type="usage">ai-train</prohibits>'
    "</license></content></rsl>"
)


def outcomes_of(folder, site, *paths: str) -> list[str]:
    return [lookup(folder, site.url(path)).outcome for path in paths]


@pytest.mark.parametrize(
    ("files", "reserved", "directive"),
    [
        ({"/robots.txt": "User-agent: *\nContent-Signal: search=yes, ai-train=no"}, "all", "robots.txt content-signal"),
        ({"/robots.txt": "User-agent: *\nContent-Usage: /a train-ai=n"}, "/a", "robots.txt content-usage"),
        ({"/.well-known/tdmrep.json": '[{"location": "/b", "tdm-reservation": 1}]'}, "/b", "tdmrep.json"),
        ({"/ai.txt": "User-Agent: *\nDisallow: /"}, "all", "ai.txt"),
        ({"/.well-known/tdmrep.json": web.Response(status=503)}, "all", "unread"),
        ({"/robots.txt": "License: /license.xml", "/license.xml": LICENSE}, "/b", "rsl"),
        ({"/.well-known/tdmrep.json": "<html><p>a page for every path</html>"}, "none", ""),
        ({"/ai.txt": web.Response(status=302, headers={"Location": "/ai.txt"})}, "all", "unread"),
    ],
)
def test_what_is_reserved_is_not_fetched(serve, config_for, read_records, tmp_path, files, reserved, directive) -> None:
    site = serve(PAGES | files)
    result = crawl(config_for(site), tmp_path)
    wanted = {"all": ["reserved"], "none": ["fetched"] * 3}.get(reserved)
    paths = ["/"] if reserved == "all" else ["/", "/a", "/b"]
    wanted = wanted or ["reserved" if path == reserved else "fetched" for path in paths]
    assert outcomes_of(tmp_path, site, *paths) == wanted
    for path, outcome in zip(paths, wanted, strict=True):
        assert site.counts[path] == (outcome == "fetched")
        if outcome == "reserved":
            assert lookup(tmp_path, site.url(path)).error.startswith(directive)
    if reserved == "none":
        return
    result = crawl(config_for(site, fetch_reserved=True), tmp_path)
    assert set(result.outcomes) == {"fetched"}
    fields = {
        url: fields for kind, url, fields, _ in read_records(result.warc_paths) if "Corpusmill-Role" not in fields
    }
    for path in PAGES:
        noted = json.loads(fields[site.url(path)].get("Corpusmill-Directives", "[]"))
        said = [each for each in noted if each.startswith(directive) and "silent" not in each]
        assert bool(said) == (reserved in ("all", path)), noted
        assert noted == list(lookup(tmp_path, site.url(path)).directives)


def test_files_of_a_site_are_archived_and_each_page_says_which_rule_allowed_it(
    serve, config_for, read_records, tmp_path
) -> None:
    robots = "User-agent: GPTBot\nUser-agent: CCBot\nDisallow: /\n\nUser-agent: *\nAllow: /a\nDisallow: /b\n"
    site = serve(PAGES | {"/robots.txt": robots, "/.well-known/tdmrep.json": "[]"})
    result = crawl(config_for(site), tmp_path)
    records = {
        url.removeprefix(site.origin): (fields, body) for _, url, fields, body in read_records(result.warc_paths)
    }
    assert list(records)[:2] == ["/robots.txt", "/.well-known/tdmrep.json"], "what allows stands before what it allowed"
    assert records["/robots.txt"][1] == robots.encode()
    assert records["/robots.txt"][0]["Corpusmill-Role"] == "reservation"
    assert records["/a"][0]["Corpusmill-Robots-Rule"] == "Allow: /a"
    assert records["/"][0]["Corpusmill-Robots-Rule"] == "no rule matches"
    assert json.loads(records["/"][0]["Corpusmill-Directives"]) == ["robots.txt ai-agents: GPTBot, CCBot"]
    assert "/b" not in records
    urls = [url for batch in read_pages(result.warc_paths[0]) for url in batch.column("url").to_pylist()]
    assert sorted(urls) == [site.url("/"), site.url("/a")], "no page is made of robots.txt"


@pytest.mark.parametrize(
    ("files", "outcome"),
    [
        ({"/robots.txt": "User-agent: *\nDisallow: /a"}, "robots_disallowed"),
        ({"/.well-known/tdmrep.json": '[{"location": "/a", "tdm-reservation": 1}]'}, "reserved"),
    ],
)
def test_a_later_opt_out_takes_a_page_out_and_its_end_brings_it_back(
    serve, config_for, read_records, tmp_path, later, files, outcome
) -> None:
    site = serve(dict(PAGES))
    config = config_for(site)
    assert crawl(config, tmp_path).outcomes == {"fetched": 3}
    site.answers |= files
    asked = len(site.requests)
    assert crawl(config, tmp_path).num_withdrawn == 0
    assert len(site.requests) == asked, "robots.txt is not asked for twice a day"

    later(25)
    result = crawl(config, tmp_path)
    assert (result.num_withdrawn, result.num_fetched) == (1, 0)
    assert result.outcomes == {"fetched": 2, outcome: 1}
    withdrawn = [
        (url, fields, body) for kind, url, fields, body in read_records(result.warc_paths) if kind == "metadata"
    ]
    ((url, fields, body),) = withdrawn
    assert (url, fields["Corpusmill-Outcome"]) == (site.url("/a"), outcome)
    assert f"outcome: {outcome}".encode() in body
    problems = [
        (row["url"], row["problem"])
        for path in result.warc_paths
        for batch in read_pages(path)
        for row in batch.to_pylist()
        if row["problem"]
    ]
    assert problems == [(site.url("/a"), outcome)]
    assert crawl(config, tmp_path).num_withdrawn == 0

    for path in files:
        del site.answers[path]
    later(25)
    result = crawl(config, tmp_path)
    assert (result.num_fetched, result.outcomes) == (1, {"fetched": 3})
    pages = [
        url for kind, url, fields, _ in read_records(result.warc_paths) if kind == "response" and url == site.url("/a")
    ]
    assert len(pages) == 2


@pytest.mark.parametrize("answer", [web.Response(status=503), web.Response(status=429)])
def test_a_robots_txt_out_of_reach_withdraws_nothing(serve, config_for, tmp_path, later, answer) -> None:
    site = serve(dict(PAGES))
    config = config_for(site, recrawl_after_hours=20, max_attempts=1)
    crawl(config, tmp_path)
    site.answers["/robots.txt"] = answer
    later(25)
    result = crawl(config, tmp_path)
    assert (result.num_fetched, result.num_withdrawn, result.outcomes) == (0, 0, {"fetched": 3})
    del site.answers["/robots.txt"]
    later(2)
    assert crawl(config, tmp_path).num_fetched == 3


def test_the_many_pages_of_a_site_that_opts_out_are_withdrawn_over_kills(serve, config_for, tmp_path, later) -> None:
    num_pages = 2500
    links = "".join(f"<a href='/p{i}'>x</a>" for i in range(900))
    answers = {"/": links, "/robots.txt": ""} | {
        f"/p{i}": f"<a href='/p{(i + 900) % num_pages}'>n</a>" for i in range(num_pages)
    }
    site = serve(answers)
    config = config_for(site, concurrency_per_host=8)
    assert crawl(config, tmp_path).outcomes == {"fetched": num_pages + 1}
    site.answers["/robots.txt"] = "User-agent: *\nContent-Signal: ai-train=no"
    later(25)

    def stop(progress) -> None:
        if progress.num_queued == 0 and lookup(tmp_path, site.url("/p3")).outcome == "reserved":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crawl(config, tmp_path, on_progress=stop)
    result = crawl(config, tmp_path)
    assert result.outcomes == {"reserved": num_pages + 1}
    assert crawl(config, tmp_path).num_withdrawn == 0


def test_an_rsl_document_that_a_page_names_is_read(serve, config_for, read_records, tmp_path) -> None:
    link = "<link rel='license' type='application/rsl+xml' href='/l.xml'>"
    lost = "<link rel='license' type='application/rsl+xml' href='/lost.xml'>"
    site = serve({"/": f"{link}<a href='/b'>b</a><a href='/c'>", "/b": f"{link}<p>b", "/c": lost, "/l.xml": LICENSE})
    result = crawl(config_for(site), tmp_path)
    assert result.outcomes == {"fetched": 3}
    assert site.counts["/l.xml"] == 1
    directives = {path: lookup(tmp_path, site.url(path)).directives for path in ("/", "/b", "/c")}
    assert any("prohibits ai-train" in each for each in directives["/b"])
    assert not any("prohibits" in each for each in directives["/"])
    assert any("lost.xml" in each for each in directives["/c"])
    roles = {url: fields.get("Corpusmill-Role") for _, url, fields, _ in read_records(result.warc_paths)}
    assert roles[site.url("/l.xml")] == "reservation"


def test_a_huge_robots_txt_is_read_as_far_as_the_limit(serve, config_for, tmp_path) -> None:
    filler = "Disallow: /some/long/path/that/is/not/ours\n" * (3_500_000 // 43)
    site = serve(
        {"/": PAGES["/"], "/a": "", "/b": "", "/robots.txt": f"User-agent: *\nDisallow: /a\n{filler}Disallow: /b\n"}
    )
    assert len(site.answers["/robots.txt"]) > 6 * MAX_NUM_BYTES
    crawl(config_for(site), tmp_path)
    assert outcomes_of(tmp_path, site, "/", "/a", "/b") == ["fetched", "robots_disallowed", "fetched"]
