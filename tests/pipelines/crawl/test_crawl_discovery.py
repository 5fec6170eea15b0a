"""Sitemaps, feeds, canonical URLs, forums and archives, on a server."""

import gzip

from aiohttp import web

from pipelines.crawl import crawl, lookup

NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def urlset(*entries: tuple[str, str]) -> str:
    urls = "".join(f"<url><loc>{url}</loc><lastmod>{modified}</lastmod></url>" for url, modified in entries)
    return f'<?xml version="1.0"?><urlset {NAMESPACE}>{urls}</urlset>'


def xml(text: str, kind: str = "application/xml") -> web.Response:
    return web.Response(text=text, content_type=kind)


def test_pages_that_nothing_links_to_are_found(serve, config_for, tmp_path) -> None:
    site = serve({})
    index = f"<sitemapindex {NAMESPACE}><sitemap><loc>{site.url('/more.xml.gz')}</loc></sitemap></sitemapindex>"
    rss = "<rss version='2.0'><channel><item><link>/from-feed</link></item></channel></rss>"
    site.answers |= {
        "/robots.txt": f"Sitemap: {site.url('/index.xml')}\nSitemap: {site.url('/absent.xml')}",
        "/": "<link rel='alternate' type='application/rss+xml' href='/rss'><a href='/linked'>x</a>",
        "/linked": "",
        "/index.xml": xml(index),
        "/more.xml.gz": web.Response(
            body=gzip.compress(
                urlset((site.url("/from-sitemap"), "2024-01-01"), ("http://else.example/", "")).encode()
            ),
            content_type="application/gzip",
        ),
        "/rss": xml(rss, "application/rss+xml"),
        "/from-sitemap": "",
        "/from-feed": "",
    }
    result = crawl(config_for(site), tmp_path)
    assert result.outcomes == {"fetched": 4, "read_for_links": 3, "http_error": 1, "out_of_scope": 1}
    assert result.num_pages == 4
    assert (lookup(tmp_path, site.url("/from-sitemap")).depth, lookup(tmp_path, site.url("/from-feed")).depth) == (1, 1)
    assert lookup(tmp_path, site.url("/from-sitemap")).parent == site.url("/more.xml.gz")
    result = crawl(config_for(site, sitemaps=False, feeds=False), tmp_path / "without")
    assert result.outcomes == {"fetched": 2}


def test_a_sitemap_tells_what_changed(serve, config_for, tmp_path, later) -> None:
    site = serve({})
    site.answers |= {
        "/robots.txt": f"Sitemap: {site.url('/map.xml')}",
        "/": "",
        "/old": "1",
        "/new": "1",
        "/map.xml": xml(urlset((site.url("/old"), "2024-01-01"), (site.url("/new"), "2024-01-01"))),
    }
    config = config_for(site, recrawl_after_hours=24)
    crawl(config, tmp_path)
    later(24 * 30)
    crawl(config, tmp_path)
    later(25)
    site.answers["/new"] = "2"
    import time
    from datetime import UTC, datetime

    changed_at = datetime.fromtimestamp(time.time() - 3600, UTC).isoformat()
    site.answers["/map.xml"] = xml(urlset((site.url("/old"), "2024-01-01"), (site.url("/new"), changed_at)))
    result = crawl(config, tmp_path)
    assert (result.num_changed, result.num_unchanged) == (1, 0), "others are not due, their interval grew to 36 h"


def test_a_canonical_url_is_a_link_and_is_noted(serve, config_for, tmp_path) -> None:
    def canonical(path: str) -> str:
        return f"<link rel='canonical' href='{path}'>"

    site = serve(
        {
            "/": "<a href='/a?ref=1&utm_source=x'>a</a><a href='/loop1'>l</a>",
            "/a?ref=1": canonical("/a"),
            "/a": canonical("/a"),
            "/loop1": canonical("/loop2"),
            "/loop2": canonical("/loop1"),
        }
    )
    assert crawl(config_for(site), tmp_path).outcomes == {"fetched": 5}
    assert lookup(tmp_path, site.url("/a?ref=1")).canonical == site.url("/a")
    assert lookup(tmp_path, site.url("/a")).canonical is None
    assert lookup(tmp_path, site.url("/loop1")).canonical == site.url("/loop2"), "a hint: neither page is lost"


def test_a_forum_and_a_blog_are_crawled_to_their_ends(serve, config_for, tmp_path) -> None:
    answers = {"/": "<a href='/forum/?sid=0123456789abcdef0123456789abcdef'>f</a><a href='/blog/'>b</a>"}
    for page in range(5):
        after = f"<link rel='next' href='/forum/?f=1&start={20 * page + 20}'>" if page < 4 else ""
        key = f"/forum/?f=1&start={20 * page}" if page else "/forum/"
        threads = "".join(f"<a href='/forum/view?t={10 * page + i}&utm_campaign=z'>t</a>" for i in range(3))
        answers[key] = after + threads
        for i in range(3):
            thread = 10 * page + i
            answers[f"/forum/view?t={thread}"] = f"<a href='/forum/view?t={thread}&start=15'>2</a>"
            answers[f"/forum/view?start=15&t={thread}"] = "last page"
    for year in (2023, 2024):
        answers["/blog/"] = "<a href='/blog/2023/'>x</a><a href='/blog/2024/'>x</a>"
        answers[f"/blog/{year}/"] = f"<a href='/blog/{year}/05/'>m</a>"
        answers[f"/blog/{year}/05/"] = f"<a href='/blog/{year}/05/page/2/'>older</a>"
        answers[f"/blog/{year}/05/page/2/"] = f"<a href='/blog/{year}/05/05/第一/'>post</a>"
        answers[f"/blog/{year}/05/05/%E7%AC%AC%E4%B8%80/"] = "post"
    site = serve(answers)
    result = crawl(config_for(site), tmp_path)
    assert result.outcomes == {"fetched": len(answers)}
    assert max(site.counts.values()) == 1
