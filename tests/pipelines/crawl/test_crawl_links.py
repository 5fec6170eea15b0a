"""HTML to links."""

from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.links import MAX_LINKS, extract_links, resolve_redirect
from pipelines.crawl.screen import canonical_url

PAGE = "http://site.example/docs/page.html"


def links_of(html: str | bytes, content_type: str = "text/html", robots_tags: str = "") -> list[str]:
    body = html if isinstance(html, bytes) else html.encode()
    return [
        url.removeprefix("http://site.example")
        for url in extract_links(body, PAGE, content_type, robots_tags, "corpusmill").urls
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
        ("", []),
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
    links = extract_links(html, PAGE, "text/html", "", "corpusmill")
    assert (len(links.urls), links.num_dropped) == (MAX_LINKS, 7)


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
