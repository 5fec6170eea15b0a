"""Canonical URLs and scope."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl import CrawlConfig, Outcome
from pipelines.crawl.screen import Screen, canonical_url, origin_of


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTP://Example.COM:80/a/../b#top", "http://example.com/b"),
        ("https://example.com:443", "https://example.com/"),
        ("http://example.com:8080/?b=2&a=1", "http://example.com:8080/?a=1&b=2"),
        ("http://例え.中国/路径?q=中文", "http://xn--r8jz45g.xn--fiqs8s/%E8%B7%AF%E5%BE%84?q=%E4%B8%AD%E6%96%87"),
        ("http://example.com/a b", "http://example.com/a%20b"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("ftp://example.com/", None),
        ("mailto:a@example.com", None),
        ("javascript:void(0)", None),
        ("file:///etc/passwd", None),
        ("data:text/html,x", None),
        ("http://user:secret@example.com/", None),
        ("http:///nohost", None),
        ("http://example.com:99999/", None),
        ("http://example.com/" + "a" * 2083, None),
        ("", None),
        ("http://example.com/a?utm_source=x&id=7&gclid=y&fbclid=z", "http://example.com/a?id=7"),
        (
            "http://example.com/a?UTM_Medium=x&msclkid=1&mc_cid=1&mc_eid=1&igshid=1&yclid=1&_ga=1",
            "http://example.com/a",
        ),
        ("http://example.com/a?PHPSESSID=abc&p=1", "http://example.com/a?p=1"),
        ("http://example.com/?osCsid=1&zenid=2&CFID=3&CFTOKEN=4&ASPSESSIONIDQQ=5&jsessionid=6", "http://example.com/"),
        ("http://example.com/a;jsessionid=0A1B.node2?x=1", "http://example.com/a?x=1"),
        ("http://example.com/a;JSESSIONID=0A1B/b;v=2", "http://example.com/a/b;v=2"),
        ("http://example.com/a/..;jsessionid=1/b", "http://example.com/b"),
        ("http://example.com/t?t=5&sid=d41d8cd98f00b204e9800998ecf8427e", "http://example.com/t?t=5"),
        ("http://example.com/t?sid=12", "http://example.com/t?sid=12"),
        ("http://example.com/t?sid=20241105123456789", "http://example.com/t?sid=20241105123456789"),
        ("http://example.com/t?sid=internationalisation", "http://example.com/t?sid=internationalisation"),
        ("http://example.com/t?ref=home&source=a&session=3", "http://example.com/t?ref=home&session=3&source=a"),
    ],
)
def test_canonical_url(url: str, canonical: str | None) -> None:
    assert canonical_url(url) == canonical


@given(st.text(max_size=40), st.text(max_size=20))
def test_canonical_url_is_a_fixed_point(path: str, query: str) -> None:
    once = canonical_url(f"http://example.com/{path}?{query}")
    if once is not None:
        assert canonical_url(once) == once
        assert once.isascii()
        assert origin_of(once) == "http://example.com"


@given(
    st.lists(
        st.sampled_from(
            [*"ab0_~-./?&=:;+ ", "中", "%E4", "%e4", "%41", "%2F", "utm_a=", ";jsessionid=1", "sid=", "..", "//"]
        ),
        max_size=12,
    ).map("".join)
)
def test_a_plain_url_is_spelt_as_any_other(rest: str) -> None:
    # A blank before a URL means nothing, but keeps it from the short way.
    plain = canonical_url(f"http://example.com/{rest}")
    assert plain == canonical_url(f" http://example.com/{rest}")
    assert plain is None or canonical_url(plain) == plain


A = "http://docs.example.co.uk/guide/start.html"


@pytest.mark.parametrize(
    ("changes", "url", "outcome"),
    [
        ({}, "http://docs.example.co.uk/other", None),
        ({}, "https://www.docs.example.co.uk/other", None),
        ({}, "http://docs.example.co.uk:8080/", Outcome.OUT_OF_SCOPE),
        ({}, "http://blog.example.co.uk/", Outcome.OUT_OF_SCOPE),
        ({"scope": "domain"}, "https://blog.example.co.uk/", None),
        ({"scope": "domain"}, "http://other.co.uk/", Outcome.OUT_OF_SCOPE),
        ({"scope": "domain", "seeds": ("http://a.demo.example/",)}, "http://b.demo.example/", None),
        ({"scope": "domain", "seeds": ("http://localhost:1/",)}, "http://localhost:2/", None),
        ({"scope": "domain", "seeds": ("http://a.test/",)}, "http://b.test/", Outcome.OUT_OF_SCOPE),
        ({"scope": "prefix"}, "https://docs.example.co.uk/guide/b/c", None),
        ({"scope": "prefix"}, "http://docs.example.co.uk/guidebook", Outcome.OUT_OF_SCOPE),
        ({"include": (r"/guide/",)}, "http://docs.example.co.uk/guide/x", None),
        ({"include": (r"/guide/",)}, "http://docs.example.co.uk/blog/x", Outcome.EXCLUDED),
        ({"include": (r"/blog/",)}, A, None),
        ({"exclude": (r"\?",)}, "http://docs.example.co.uk/x?y=1", Outcome.EXCLUDED),
        ({"exclude": (r"guide",)}, A, Outcome.EXCLUDED),
        ({}, "http://docs.example.co.uk/" + "/".join("abcdefghijklmnopqrst"), None),
        ({}, "http://docs.example.co.uk/" + "/".join("abcdefghijklmnopqrstu"), Outcome.URL_TRAP),
        ({"scope": "regex", "include": (r"/news/",)}, "http://elsewhere.example/news/1", None),
        ({"scope": "regex", "include": (r"/news/",)}, "http://docs.example.co.uk/blog/1", Outcome.OUT_OF_SCOPE),
        (
            {"scope": "regex", "include": (r"/news/",), "exclude": (r"\.pdf",)},
            "http://x.example/news/1.pdf",
            Outcome.EXCLUDED,
        ),
        ({"scope": "regex", "include": (r"/news/",)}, A, None),
    ],
)
def test_scope(changes: dict[str, object], url: str, outcome: Outcome | None) -> None:
    screen = Screen(CrawlConfig(**{"seeds": (A,), **changes}))
    assert screen.judge(url, 1, 0) == outcome


def test_depth_and_redirects() -> None:
    screen = Screen(CrawlConfig(seeds=(A,), max_depth=2, max_redirects=1))
    url = "http://docs.example.co.uk/x"
    assert screen.judge(url, 2, 1) is None
    assert screen.judge(url, 3, 0) is Outcome.TOO_DEEP
    assert screen.judge(url, 2, 2) is Outcome.TOO_MANY_REDIRECTS
    assert screen.judge(A, 9, 9) is None


def test_domain_of_an_address_is_the_address() -> None:
    screen = Screen(CrawlConfig(seeds=("http://127.0.0.1:8000/",), scope="domain"))
    assert screen.judge("http://127.0.0.1:9000/", 1, 0) is None
    assert screen.judge("http://127.0.0.2:8000/", 1, 0) is Outcome.OUT_OF_SCOPE


@pytest.mark.parametrize(
    "rest",
    [
        "/viewtopic.php?f=2&t=1234&start=40",
        "/forum.php?mod=viewthread&tid=1234&extra=page%3D1&page=2",
        "/thread-1234-2-1.html",
        "/2024/05/",
        "/2024/01/01",
        "/2024/01/01/01/",
        "/2001/01/01/01/title/",
        "/page/12/",
        "/?paged=3",
        "/category/news/page/3/",
        "/a/20241105/1.html",
        "/%E6%96%B0%E9%97%BB/%E4%B8%AD%E5%9B%BD/%E6%96%B0%E9%97%BB/1.html",
        "/project/docs/project/latest/project",
        "/foo/foo/foo",
        "/a/a/b/b/c/c/",
        "/tags?tag=a&tag=b&tag=c",
        "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/",
        "/?" + "&".join(f"a{i}=1" for i in range(8)),
        # Without an end, but alike an archive: bounded by depth and by the budgets of the host, not by its looks.
        "/calendar?month=13&year=2931",
    ],
)
def test_pages_of_sites_are_no_traps(rest: str) -> None:
    assert Screen(CrawlConfig(seeds=(A,))).judge("http://docs.example.co.uk" + rest, 1, 0) is None


@pytest.mark.parametrize(
    "rest",
    [
        "/foo/foo/foo/",
        "/x/a/a/a/boo.html",
        "/a/b/a/b/a/b/",
        "/en/a/b/c/a/b/c/a/b/c/x",
        "/a/1/a/1/a/1/",
        "/a/x/a/y/a/z/a",
        "/1/1/1/1/",
        "/" + "/".join("abcdefghijklmnopqrstu"),
        "/a" + "/" * 21 + "b",
        "/?" + "&".join(f"a{i}=1" for i in range(9)),
        "/?tag=a&tag=b&tag=c&tag=d",
    ],
)
def test_traps_are_refused(rest: str) -> None:
    assert Screen(CrawlConfig(seeds=(A,))).judge("http://docs.example.co.uk" + rest, 1, 0) is Outcome.URL_TRAP
