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
        ({}, "http://docs.example.co.uk/a/a/a/b", None),
        ({}, "http://docs.example.co.uk/a/b/a/a/a/b", Outcome.URL_TRAP),
        ({}, "http://docs.example.co.uk/?" + "&".join(f"a{i}=1" for i in range(8)), None),
        ({}, "http://docs.example.co.uk/?" + "&".join(f"a{i}=1" for i in range(9)), Outcome.URL_TRAP),
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
