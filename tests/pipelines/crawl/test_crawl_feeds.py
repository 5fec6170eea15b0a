"""Feeds: RSS, RDF, Atom, JSON, and what is none."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.feeds import MAX_ENTRIES, MAX_NUM_BYTES, read_feed

URL = "http://site.example/blog/feed"
ATOM = "<feed xmlns='http://www.w3.org/2005/Atom' "
RDF = "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns='http://purl.org/rss/1.0/'>"
BURNER = "http://rssnamespace.org/feedburner/ext/1.0"


def urls_of(body: str | bytes, content_type: str | None = None) -> list[str]:
    feed = read_feed(body if isinstance(body, bytes) else body.encode(), URL, content_type)
    return [url.removeprefix("http://site.example") for url in feed.urls]


def rss(items: str, channel: str = "") -> str:
    return f"<?xml version='1.0'?><rss version='2.0'><channel>{channel}{items}</channel></rss>"


@pytest.mark.parametrize(
    ("body", "urls"),
    [
        (
            rss("<item><link>http://site.example/1?utm_source=rss</link></item><item><link>2</link></item>"),
            ["/1", "/blog/2"],
        ),
        (rss("<item><guid>http://site.example/g</guid></item><item><guid isPermaLink='false'>7</guid></item>"), ["/g"]),
        (
            rss("<item><link>p/1</link></item>", "<title>t</title><link>http://home.example/x/</link>"),
            ["http://home.example/x/p/1"],
        ),
        (
            rss(f"<item><link>http://a.example/r</link><o:origLink xmlns:o='{BURNER}'>/o</o:origLink></item>"),
            ["/o"],
        ),
        (
            rss("<item><description>&lt;a href='/no'&gt;</description><link><![CDATA[/c?a=1&b=2]]></link></item>"),
            ["/c?a=1&b=2"],
        ),
        ("<rss version='0.91'><channel><item><link>/old</link></item></channel></rss>", ["/old"]),
        (
            RDF + "<channel rdf:about='/'><link>http://site.example/</link></channel>"
            "<item rdf:about='/x'><link>/1</link></item></rdf:RDF>",
            ["/1"],
        ),
        (
            ATOM + "><link rel='self' href='/feed'/><link href='/'/><entry><link rel='edit' href='/edit'/>"
            "<link href='1'/><id>urn:x:1</id><content type='xhtml'><link href='/no'/></content></entry>"
            "<entry><link rel='alternate' href='/2'/><source><link href='/no'/></source></entry></feed>",
            ["/blog/1", "/2"],
        ),
        (
            ATOM + "xml:base='/x/'><entry xml:base='y/'><link href='1'/></entry><entry><link href='2'/></entry></feed>",
            ["/x/y/1", "/x/2"],
        ),
        (
            '\ufeff {"items":[{"url":"/1","external_url":"http://b/"},{"id":"2"}]}',
            ["/1"],
        ),
        (
            rss("<item><link>/中文</link></item>").replace("1.0'?>", "1.0' encoding='gb18030'?>").encode("gb18030"),
            ["/%E4%B8%AD%E6%96%87"],
        ),
        (rss("<item><link>javascript:x()</link></item><item><link>file:///etc/passwd</link></item>"), []),
    ],
)
def test_feeds(body: str | bytes, urls: list[str]) -> None:
    assert urls_of(body) == urls
    assert read_feed(body if isinstance(body, bytes) else body.encode(), URL, None).problem is None


@pytest.mark.parametrize(
    ("body", "urls"),
    [
        (
            "<rss><channel><item><link>/?a=1&b=2</link><title>a &nbsp; b & c</title></item><item><link>/2</link>",
            ["/?a=1&b=2", "/2"],
        ),
        ("\n<rss><channel><item><link>/1</link></channel><b></rss>", ["/1"]),
        (rss("<item><link>/1</link><title>\x01</title></item>").encode() + b"\xff", ["/1"]),
        ("<rss><channel>" + "<x>" * 100_000 + "<item><link>/deep</link></item>", []),
    ],
)
def test_of_a_broken_feed_is_read_what_can_be(body: str | bytes, urls: list[str]) -> None:
    assert urls_of(body) == urls
    assert read_feed(body if isinstance(body, bytes) else body.encode(), URL, None).problem == "broken XML"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("", None),
        ("/etc/passwd", None),
        ("http://127.0.0.1:1/feed", None),
        ("<html><body><a href=/x>", "text/html"),
        ("<urlset><url><loc>http://site.example/</loc></url></urlset>", None),
        ("[" * 200_000, "application/feed+json"),
        ('{"items":' * 200_000, None),
        ('{"items":' + "9" * 5000 + "}", None),
        ("[]", "application/json"),
        ('{"items":{"url":"/x"}}', None),
    ],
)
def test_no_feed(body: str, content_type: str | None) -> None:
    feed = read_feed(body.encode(), URL, content_type)
    assert feed.urls == ()
    assert feed.problem


def test_limits() -> None:
    feed = read_feed(
        rss("".join(f"<item><link>/{i}</link></item>" for i in range(MAX_ENTRIES + 5))).encode(), URL, None
    )
    assert (len(feed.urls), feed.num_dropped, feed.problem) == (MAX_ENTRIES, 5, None)
    items = ",".join(f'{{"url":"/{i}"}}' for i in range(MAX_ENTRIES + 5))
    feed = read_feed(f'{{"items":[{items}]}}'.encode(), URL, None)
    assert (len(feed.urls), feed.num_dropped) == (MAX_ENTRIES, 5)
    feed = read_feed(rss("<item><link>/1</link></item>" + "x" * MAX_NUM_BYTES).encode(), URL, None)
    assert feed.urls == ("http://site.example/1",)
    assert feed.problem == f"longer than {MAX_NUM_BYTES} bytes"


def test_no_file_is_read_into_a_feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(rss("<item><link>/s3cr3t</link></item>"))
    monkeypatch.chdir(tmp_path)
    assert urls_of("secret") == []
    entity = f"<!DOCTYPE l [<!ENTITY f SYSTEM '{(tmp_path / 'secret').as_uri()}'>]>"
    assert "s3cr3t" not in str(urls_of(entity + "<rss><channel><item><link>/&f;</link></item></channel></rss>"))


N = 1_000_000
BOMB = "<!DOCTYPE l [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12)) + "]>"


@pytest.mark.parametrize(
    "body",
    [
        BOMB + "<rss><channel><item><link>http://site.example/&a11;</link></item></channel></rss>",
        BOMB + ATOM + "><entry><link href='/&a11;'/></entry></feed>",
        f"<!DOCTYPE l [<!ENTITY a '{'A' * 50_000}'>]>" + rss(f"<item><link>{'&a;' * 50_000}</link></item>"),
        "<rss " + "".join(f"a{i}='' " for i in range(N // 12)) + "/>",
        "<rss><channel><item>" + "<link>/a</link>" * (N // 14),
        "<rss><channel>" + "<item><link>/a</link></item>" * (N // 28),
        "<rss>" + "<item>" * (N // 6),
        "<rss>" + "&" * N,
        "<rss>" + "<![CDATA[" * (N // 9),
        "<rss>" + "<!--" * (N // 4),
        "<" * N,
        "<!DOCTYPE " * (N // 10),
        "<rss><channel><item><link>" + "x" * N,
    ],
)
def test_a_hostile_feed_is_read_in_bounded_time(body: str) -> None:
    start = time.process_time()
    assert len(urls_of(body)) <= 1
    assert time.process_time() - start < 5  # a tenth of that


@given(st.binary(max_size=200), st.sampled_from([b"", b"<rss><channel><item><link>", ATOM.encode(), b'{"items":[']))
def test_any_bytes_are_survived(body: bytes, head: bytes) -> None:
    read_feed(head + body, URL, None)
