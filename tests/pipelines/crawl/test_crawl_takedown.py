"""What is taken down is not asked for: new, queued, due again, named by sitemaps and redirects; nor is its robots.txt."""

from dataclasses import replace

from aiohttp import web

from pipelines.crawl import Outcome, crawl, lookup, status
from pipelines.takedown.documents import Takedown
from pipelines.takedown.names import digest_name, url_form

NOTHING = Takedown()


def of_url(url: str) -> Takedown:
    return Takedown(urls=(digest_name("url", url_form(url)),))


def of_host(host: str) -> Takedown:
    return Takedown(domains=(digest_name("domain", host),))


def asked(site) -> list[str]:
    found = [path for path, _ in site.requests]
    site.requests.clear()
    return sorted(found)


def test_a_url_is_never_asked_for(serve, config_for, tmp_path) -> None:
    sitemap = "<urlset><url><loc>{}</loc></url></urlset>"
    site = serve({"/": "<a href='/a'>a</a><a href='/b'>b</a><a href='/go'>go</a>", "/a": "", "/b": "", "/go": ""})
    site.answers["/go"] = web.Response(status=302, headers={"Location": "/a"})
    site.answers["/robots.txt"] = f"Sitemap: {site.url('/map.xml')}"
    site.answers["/map.xml"] = sitemap.format(site.url("/a"))
    result = crawl(config_for(site), tmp_path, takedown=of_url(site.url("/a#x").replace("http:", "https:")))
    assert asked(site) == ["/", "/b", "/go", "/map.xml", "/robots.txt"]
    assert result.outcomes["taken_down"] == 1
    assert lookup(tmp_path, site.url("/a")).outcome == Outcome.TAKEN_DOWN
    assert result.complete


def test_what_waits_or_was_fetched_is_not_asked_for_again(serve, config_for, tmp_path, later) -> None:
    site = serve({"/": "<a href='/a'>a</a><a href='/b'>b</a>", "/a": "", "/b": ""})
    config = config_for(site, recrawl_after_hours=24, max_pages=1)
    assert not crawl(config, tmp_path).complete
    asked(site)
    more = replace(config, max_pages=9)
    assert crawl(more, tmp_path, takedown=of_url(site.url("/a"))).complete
    assert asked(site) == ["/b"]
    later(25)
    crawl(more, tmp_path, takedown=of_url(site.url("/b")))
    assert "/b" not in (paths := asked(site))
    assert "/a" in paths, "lifted, and so fetched for the first time"
    later(50)
    crawl(more, tmp_path)
    assert "/b" in asked(site), "lifted, and so visited again"


def test_a_host_is_left_alone_whole(serve, config_for, tmp_path, later) -> None:
    site = serve({"/": "<a href='/a'>a</a>", "/a": "", "/robots.txt": "User-agent: *\nDisallow:"})
    config = config_for(site, recrawl_after_hours=24)
    crawl(config, tmp_path)
    assert len(asked(site)) == 3
    down = of_host("127.0.0.1")
    for hours in (0, 25, 1000):
        later(hours)
        for each in (config, replace(config, max_depth=5)):  # another config judges every host again
            result = crawl(each, tmp_path, takedown=down)
            assert (asked(site), result.num_fetched, result.complete) == ([], 0, True)
            assert result.outcomes == {"taken_down": 2}
            assert status(tmp_path)["num_due"] == 0
    crawl(config, tmp_path)
    assert set(asked(site)) == {"/", "/a", "/robots.txt"}


def test_a_host_that_was_never_met_is_not_asked_for_its_robots_txt(serve, config_for, tmp_path) -> None:
    other = serve({"/x": ""})
    site = serve({"/": f"<a href='{other.url('/x')}'>x</a>", "/robots.txt": f"Sitemap: {other.url('/map.xml')}"})
    config = config_for(site, scope="regex", include=(r"^http://",))
    crawl(config, tmp_path, takedown=of_host("127.0.0.1"))
    assert (asked(site), asked(other)) == ([], [])
