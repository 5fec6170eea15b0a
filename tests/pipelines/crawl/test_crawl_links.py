"""HTML to links."""

import time
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.links import MAX_LINKS, Links, extract_links, resolve_redirect
from pipelines.crawl.screen import canonical_url

PAGE = "http://site.example/docs/page.html"


def links_of(html: str | bytes, content_type: str = "text/html", robots_tags: str = "") -> list[str]:
    body = html if isinstance(html, bytes) else html.encode()
    return [
        url.removeprefix("http://site.example")
        for url in extract_links(body, PAGE, content_type, robots_tags, "", "corpusmill").urls
    ]


@pytest.mark.parametrize(
    ("html", "links"),
    [
        ("<a href=/a>a</a><a href=b>b</a><a href='../c?y=1&x=2#f'>c</a>", ["/a", "/docs/b", "/c?x=2&y=1"]),
        ("<a href=/a>1</a><a href=/a#x>2</a><a href=/a>3</a>", ["/a"]),
        ("<a name=x>no</a><a href=''>self</a><a href=#top>self</a>", []),
        ("<base href=/other/><a href=b>b</a>", ["/other/b"]),
        ("<a href='mailto:a@b'>m</a><a href='javascript:x()'>j</a><a href='ftp://x/'>f</a>", []),
        ("<a href='  /sp\nace '>x</a>", ["/space"]),
        ("<a href=/yes>x</a><a rel='external NoFollow' href=/no>y</a>", ["/yes"]),
        ("<a rel=nofollow href=/x>y</a><a href=/x>x</a>", ["/x"]),
        ("<meta name=ROBOTS content='noindex, NOFOLLOW'><a href=/x>x</a>", []),
        ("<meta name=corpusmill content=none><a href=/x>x</a>", []),
        ("<meta name=otherbot content=nofollow><a href=/x>x</a>", ["/x"]),
        ("<meta name=robots content=noindex><a href=/x>x</a>", ["/x"]),
        ("<a href='/中文/页'>x</a>", ["/%E4%B8%AD%E6%96%87/%E9%A1%B5"]),
        ("<a href='http://[bad/'>x</a><a href=/ok>y</a>", ["/ok"]),
        ("<a href='/nul\0l'>x", ["/nul%EF%BF%BDl"]),
        ("<div>" * 5000 + "<a href=/deep>x", ["/deep"]),
        ("<div>" * 40_000 + "<a href=/deeper>x", ["/deeper"]),
        ("<map><area href=/area><area></map><a href>x</a><A HREF=/upper>y</A>", ["/area", "/upper"]),
        ("<link rel='Next' href=p2><link rel=prev href=/p0><link rel=stylesheet href=s.css>", ["/docs/p2", "/p0"]),
        ("<meta http-equiv=Refresh content='0; URL=/new'>", ["/new"]),
        ("""<meta http-equiv=refresh content="5;url='/a b' x">""", ["/a%20b"]),
        ("<meta http-equiv=refresh content='0, /comma'>", ["/comma"]),
        ("<meta http-equiv=refresh content=300><meta http-equiv=refresh content='url=/x'>", []),
        ("<a href='/t?b=2&amp;a=1&amp;utm_source=x'>x</a>", ["/t?a=1&b=2"]),
        ("<a href='http://site.example:80/abs'>x</a><a href='//site.example/rel'>y</a>", ["/abs", "/rel"]),
        ("<!-- <a href=/c> --><script>'<a href=/s>'</script><textarea><a href=/t></textarea>", []),
        ("", []),
        ("\0", []),
    ],
)
def test_links(html: str, links: list[str]) -> None:
    assert links_of(html) == links


@pytest.mark.parametrize(
    ("tags", "is_followed"),
    [
        ("noindex", True),
        ("nofollow", False),
        ("noindex, none", False),
        ("corpusmill: nofollow", False),
        ("otherbot: nofollow", True),
    ],
)
def test_x_robots_tag(tags: str, *, is_followed: bool) -> None:
    assert links_of("<a href=/x>x</a>", robots_tags=tags) == (["/x"] if is_followed else [])


@pytest.mark.parametrize(
    ("encoding", "content_type"),
    [
        ("gb18030", "text/html; charset=gb18030"),
        ("big5", 'text/html; charset="big5"'),
        ("utf-16", "text/html; charset=utf-16"),
    ],
)
def test_the_charset_of_the_header_is_used(encoding: str, content_type: str) -> None:
    assert links_of("<a href='/中文'>x</a>".encode(encoding), content_type) == ["/%E4%B8%AD%E6%96%87"]


@pytest.mark.parametrize("content_type", ["text/html", "text/html; charset=nonsense", "text/html; charset="])
def test_a_missing_or_wrong_charset_is_survived(content_type: str) -> None:
    assert links_of("<a href='/plain'>文</a>", content_type) == ["/plain"]


def test_links_beyond_the_cap_are_counted() -> None:
    html = "".join(f"<a href=/p{i}>x</a>" for i in range(MAX_LINKS + 7)).encode()
    links = extract_links(html, PAGE, "text/html", "", "", "corpusmill")
    assert (len(links.urls), links.num_dropped) == (MAX_LINKS, 7)


def of(html: str, link_header: str = "", robots_tags: str = "") -> Links:
    return extract_links(html.encode(), PAGE, "text/html", robots_tags, link_header, "corpusmill")


@pytest.mark.parametrize(
    ("html", "header", "canonical"),
    [
        ("<link rel=canonical href=/real>", "", "http://site.example/real"),
        ("<base href=/b/><link rel='x CANONICAL' href='real#f'>", "", "http://site.example/b/real"),
        ("<link rel=canonical href=/a><link rel=canonical href='/a#again'>", "", "http://site.example/a"),
        ("<link rel=canonical href=/a><link rel=canonical href=/b>", "", None),
        ("<link rel=canonical href=page.html>", "", None),
        ("<link rel=canonical href='javascript:x'>", "", None),
        ("<link rel=canonical href='http://[bad/'><link rel=canonical href=/a>", "", None),
        ("<link rel=canonical>", "", None),
        ("<base href=/b/>", "<real>; rel=canonical", "http://site.example/docs/real"),
        ("", '</x>; rel=next, <http://other.example/r>; title="a, <b>;c"; REL="canonical x"', "http://other.example/r"),
        ("<link rel=canonical href=/a>", "</b>; rel=canonical", None),
        ("", '</b>; rel=canonical; anchor="#part"', None),
        ("", "</b; rel=canonical", None),
        ("", "<" * 100_000, None),
        ("", '<a>;x="' * 20_000, None),
        ("", "<a>" + "; x" * 20_000 + " ;" * 20_000, None),
        ("<meta name=robots content=nofollow><link rel=canonical href=/a>", "", "http://site.example/a"),
    ],
)
def test_canonical(html: str, header: str, canonical: str | None) -> None:
    assert of(html, header).canonical == canonical


FEEDS = "".join(f"<link rel=alternate type='application/{kind}+xml' href=/{kind}>" for kind in ("rss", "atom"))


@pytest.mark.parametrize(
    ("html", "feeds"),
    [
        (FEEDS, ["/rss", "/atom"]),
        ("<link rel='ALTERNATE home' type='Application/Feed+JSON; charset=utf-8' href=/j>", ["/j"]),
        ("<link rel=alternate type=application/json href=/api><link rel=alternate hreflang=de href=/de>", []),
        ("<meta name=robots content=nofollow>" + FEEDS, []),
        (
            "".join(f"<link rel=alternate type=application/rss+xml href=/{i // 2}>" for i in range(20)),
            [f"/{i}" for i in range(5)],
        ),
    ],
)
def test_feeds(html: str, feeds: list[str]) -> None:
    assert [feed.removeprefix("http://site.example") for feed in of(html).feeds] == feeds


def test_rsl() -> None:
    html = "<link rel=license type=application/rsl+xml href=/a.xml><link rel=license href=/cc>"
    html += "<meta name=robots content=none>"
    header = '</b.xml>; rel="license"; type="application/rsl+xml", </cc>; rel=license'
    assert of(html, header).rsl == ("http://site.example/a.xml", "http://site.example/b.xml")
    many = "".join(f"<link rel=license type=application/rsl+xml href=/{i}>" for i in range(9))
    assert len(of(many).rsl) == 3


@pytest.mark.parametrize(
    "html",
    [
        "<a " + "".join(f"x{i}=1 " for i in range(300_000)) + "href=/x>",
        "<span>" * 200_000 + "</div>" * 200_000,
        "<b>" * 200_000 + "</xyz>" * 200_000,
        "<b><i><font>x</p></b>" * 50_000,
        "<a><table><a>" * 80_000,
        "<" * 2_000_000,
        "<!--" * 500_000,
        "&" * 2_000_000,
        "<a href='" * 200_000,
        "<meta http-equiv=refresh content='" + " " * 1_000_000 + "'>",
    ],
)
def test_hostile_html_takes_no_longer_than_its_size(html: str) -> None:
    start = time.process_time()
    of(html)
    assert time.process_time() - start < 5  # a tenth of that; the trees of two parsers took a minute to hours


def test_a_large_page_is_read_to_its_end() -> None:
    html = "<html><body>" + "<div><p>中文 <b>x</b></p></div>" * 30_000 + "<a href=/中文>end</a>"
    assert of(html).urls == ("http://site.example/%E4%B8%AD%E6%96%87",)


@given(
    st.text(alphabet="abC019_~-./?#%&=: \\中", max_size=30),
    st.sampled_from(
        [PAGE, "http://site.example/", "http://site.example/a/b/?q=/x/y", "http://site.example:81/%E4%B8%AD/x"]
    ),
)
def test_the_short_way_equals_the_long_way(href: str, base: str) -> None:
    try:
        expected = canonical_url(urljoin(base, href.strip()))
    except ValueError:
        expected = None
    assert resolve_redirect(href, base) == expected
