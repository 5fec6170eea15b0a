"""Sitemaps: pages, further sitemaps, and files that are neither or worse."""

import gzip
import time
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.sitemaps import MAX_NUM_BYTES, MAX_PAGES, MAX_SITEMAPS, SitemapEntry, read_sitemap

URL = "http://site.example/sitemap.xml"
HEAD = '<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
ONE = HEAD + "<url><loc>http://site.example/a</loc></url></urlset>"
A_SITE = SitemapEntry("http://site.example/a", None)
BOMB = "<!DOCTYPE l [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12)) + "]>"


def pages_of(body: str | bytes) -> list[str]:
    return [page.url for page in read_sitemap(body if isinstance(body, bytes) else body.encode(), URL).pages]


@pytest.mark.parametrize(
    "body",
    [
        ONE.encode(),
        gzip.compress(ONE.encode(), mtime=0),
        gzip.compress(gzip.compress(ONE.encode(), mtime=0), mtime=0),
        gzip.compress(ONE[:50].encode(), mtime=0) + gzip.compress(ONE[50:].encode(), mtime=0),
        gzip.compress(ONE.encode(), mtime=0) + b"\0" * 512,
        b"\xef\xbb\xbf \n" + ONE.removeprefix('<?xml version="1.0" encoding="UTF-8"?>').encode(),
        ONE.replace("UTF-8", "UTF-16").encode("utf-16"),
        ONE.replace("www.sitemaps.org/schemas/sitemap/0.9", "www.google.com/schemas/sitemap/0.84").encode(),
        b"<urlset><url><loc>\n <![CDATA[http://site.example/a]]> </loc></url><url><loc>/a#b</loc></url></urlset>",
        b"http://site.example/a\r\n\r\nhttp://site.example/a",
        b"\xef\xbb\xbfhttp://site.example/a?utm_source=map",
        b"<rss><channel><item><link>http://site.example/a</link></item></channel></rss>",
        b"<feed xmlns='http://www.w3.org/2005/Atom'><entry><link href='/a'/></entry></feed>",
    ],
)
def test_spellings_of_one_sitemap(body: bytes) -> None:
    sitemap = read_sitemap(body, URL)
    assert (sitemap.pages, sitemap.sitemaps, sitemap.num_dropped, sitemap.problem) == ((A_SITE,), (), 0, None)


def test_what_is_kept_of_entries() -> None:
    sitemap = read_sitemap(
        (
            HEAD + "<url><loc>https://other.example/x?b=1&amp;a=2</loc><image:image xmlns:image='urn:i'>"
            "<image:loc>http://site.example/i.png</image:loc></image:image></url>"
            "<url><loc>ftp://site.example/</loc></url><url/><url><loc>http://user@site.example/</loc></url>"
            "<sitemap><loc>/more.xml.gz</loc><lastmod>2024-05</lastmod></sitemap></urlset>"
        ).encode(),
        URL,
    )
    assert [page.url for page in sitemap.pages] == ["https://other.example/x?a=2&b=1"]
    assert sitemap.sitemaps == (
        SitemapEntry("http://site.example/more.xml.gz", datetime(2024, 5, 1, tzinfo=UTC).timestamp()),
    )
    assert (sitemap.num_dropped, sitemap.problem) == (3, None)


@pytest.mark.parametrize(
    ("lastmod", "moment"),
    [
        ("2024", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-05", datetime(2024, 5, 1, tzinfo=UTC)),
        (" 2024-05-06 ", datetime(2024, 5, 6, tzinfo=UTC)),
        ("2024-05-06T07:08Z", datetime(2024, 5, 6, 7, 8, tzinfo=UTC)),
        ("2024-05-06T07:08:09+08:00", datetime(2024, 5, 5, 23, 8, 9, tzinfo=UTC)),
        ("2024-05-06T07:08:09.123456-0530", datetime(2024, 5, 6, 12, 38, 9, tzinfo=UTC)),
        ("2024-05-06 07:08:09", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("2024-02-30", None),
        ("0000-01-01", None),
        ("0001-01-01T00:00+14:00", None),
        ("9999-12-31", None),
        ("2024-05-06T25:00Z", None),
        ("06/05/2024", None),
        ("２０２４", None),
        ("", None),
    ],
)
def test_lastmod(lastmod: str, moment: datetime | None) -> None:
    body = ONE.replace("</loc>", f"</loc><lastmod>{lastmod}</lastmod>").encode()
    assert read_sitemap(body, URL).pages[0].modified_at == (moment and moment.timestamp())


@pytest.mark.parametrize(
    ("body", "pages", "problem"),
    [
        (ONE[:-9] + "<url><loc>http://cut.exa", ["http://site.example/a"], "broken XML"),
        (ONE[:-9] + "<url>&nbsp;</wrong>", ["http://site.example/a"], "broken XML"),
        (gzip.compress(ONE.encode(), 0, mtime=0)[:-12], ["http://site.example/a"], "gzip without its end"),
        (gzip.compress(ONE.encode(), mtime=0)[:30] + b"damage" * 9, [], "damaged gzip"),
        (b"\x1f\x8b", [], "gzip without its end"),
        ("", [], "no sitemap"),
        ("<html><body><a href=/x>404</a></body></html>", [], "no sitemap"),
        ("<!doctype html><meta charset=utf-8>", [], "no sitemap"),
        ("Not found", [], "no sitemap"),
        ("{}", [], "no sitemap"),
        ("<a>" * 100_000, [], "no sitemap"),
        ("<urlset>" + "<url>" * 100_000, [], "broken XML"),
        (HEAD + "<url><loc>" + "x" * (11 << 20), [], "broken XML"),
        (BOMB + "<urlset><url><loc>http://site.example/&a11;</loc></url></urlset>", [], "broken XML"),
        (HEAD + "<x/>" * 1_000_001, [], "more than 1000000 elements"),
    ],
)
def test_what_is_broken_says_so(body: str | bytes, pages: list[str], problem: str) -> None:
    sitemap = read_sitemap(body if isinstance(body, bytes) else body.encode(), URL)
    assert [page.url for page in sitemap.pages] == pages
    assert sitemap.problem is not None
    assert sitemap.problem.startswith(problem)


def test_no_file_is_read_into_a_sitemap(tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cr3t")
    for subset in (f"<!ENTITY f SYSTEM '{secret.as_uri()}'>", f"<!ENTITY % f SYSTEM '{secret.as_uri()}'> %f;"):
        body = f"<!DOCTYPE l [{subset}]><urlset><url><loc>http://site.example/&f;</loc></url></urlset>"
        assert "s3cr3t" not in str(read_sitemap(body.encode(), URL))


def test_a_gzip_bomb_is_cut() -> None:
    compressor = zlib.compressobj(1, wbits=31)
    line = b"http://site.example/a\n" * 50_000
    body = b"".join(compressor.compress(line) for _ in range(60)) + compressor.flush()
    for bomb in (body, gzip.compress(body, mtime=0)):
        sitemap = read_sitemap(bomb, URL)
        assert sitemap.pages == (A_SITE,)
        assert sitemap.problem == f"longer than {MAX_NUM_BYTES} bytes"


def test_limits_of_the_protocol() -> None:
    pages = "".join(f"<url><loc>http://site.example/{i}</loc></url>" for i in range(MAX_PAGES + 3))
    sitemaps = "".join(f"<sitemap><loc>http://site.example/{i}</loc></sitemap>" for i in range(MAX_SITEMAPS + 4))
    sitemap = read_sitemap(f"{HEAD}{pages}{sitemaps}</urlset>".encode(), URL)
    assert (len(sitemap.pages), len(sitemap.sitemaps), sitemap.num_dropped) == (MAX_PAGES, MAX_SITEMAPS, 7)


@pytest.mark.parametrize("path", ["news/a-{}.html", "新闻/{}.html?b=2&amp;a=1", "%E4%B8%AD/{}?p=%E4"])
def test_a_full_sitemap_is_read_in_time(path: str) -> None:
    body = HEAD + "".join(
        f"<url><loc>http://site.example/{path.format(i)}</loc><lastmod>2024-05-06T07:08:09+00:00</lastmod>"
        "<changefreq>daily</changefreq><priority>0.5</priority></url>"
        for i in range(MAX_PAGES)
    )
    start = time.process_time()
    assert len(pages_of(body + "</urlset>")) == MAX_PAGES
    assert time.process_time() - start < 10  # half a second for most; the bound is for a busy machine


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_survived(body: bytes, is_gzip: bool) -> None:
    read_sitemap(gzip.compress(body, mtime=0) if is_gzip else HEAD.encode() + body, URL)
