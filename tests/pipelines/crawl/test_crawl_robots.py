"""RFC 9309: groups, matching, the rule that decides."""

import pytest

from pipelines.crawl.robots import MAX_NUM_BYTES, NO_RULE, Robots, decode

URL = "http://site.example/private/page.html"


@pytest.mark.parametrize(
    ("text", "url", "is_allowed", "rule"),
    [
        ("", URL, True, NO_RULE),
        ("User-agent: *\nDisallow: /private/", URL, False, "Disallow: /private/"),
        ("User-agent: *\nDisallow: /", URL, False, "Disallow: /"),
        ("User-agent: *\nDisallow:", URL, True, NO_RULE),
        ("User-agent: *\nDisallow: /", "http://site.example/robots.txt", True, NO_RULE),
        # the longest rule wins, and Allow on a tie
        ("User-agent: *\nDisallow: /private\nAllow: /private/page", URL, True, "Allow: /private/page"),
        (
            "User-agent: *\nAllow: /private/page.html\nDisallow: /private/page.html",
            URL,
            True,
            "Allow: /private/page.html",
        ),
        ("User-agent: *\nAllow: /p\nDisallow: /private/", URL, False, "Disallow: /private/"),
        # our group alone counts where there is one; groups with our name are merged
        ("User-agent: *\nDisallow: /\n\nUser-agent: corpusmill\nDisallow: /x", URL, True, NO_RULE),
        ("User-agent: CorpusMill\nDisallow:\n\nUser-agent: *\nDisallow: /", URL, True, NO_RULE),
        (
            "User-agent: corpusmill\nDisallow: /x\nUser-agent: corpusmill\nDisallow: /private",
            URL,
            False,
            "Disallow: /private",
        ),
        ("User-agent: a\nUser-agent: corpusmill\nUser-agent: b\nDisallow: /private", URL, False, "Disallow: /private"),
        ("User-agent: corpusmill/2.0 (x)\nDisallow: /", URL, False, "Disallow: /"),
        # a part of our name is another crawler's, and so is a longer one
        ("User-agent: corpus\nDisallow: /", URL, True, NO_RULE),
        ("User-agent: mill\nDisallow: /", URL, True, NO_RULE),
        ("User-agent: corpusmill-news\nDisallow: /", URL, True, NO_RULE),
        ("User-agent: corpusmill2\nDisallow: /", URL, True, NO_RULE),
        ("User-agent: corpus\nAllow: /\n\nUser-agent: *\nDisallow: /", URL, False, "Disallow: /"),
        # patterns
        ("User-agent: *\nDisallow: /*.html$", URL, False, "Disallow: /*.html$"),
        ("User-agent: *\nDisallow: /*.html$", URL + "?a=1", True, NO_RULE),
        ("User-agent: *\nDisallow: /%70rivate/", URL, False, "Disallow: /%70rivate/"),
        ("User-agent: *\nDisallow: /私/", "http://site.example/%E7%A7%81/%E9%A1%B5", False, "Disallow: /私/"),
        ("User-agent: *\nDisallow: /%e7%a7%81/", "http://site.example/%E7%A7%81/a", False, "Disallow: /%e7%a7%81/"),
        # lines
        ("User-agent: *\rDisallow: /private # why\r", URL, False, "Disallow: /private"),
        ("user-AGENT : *\r\nDISALLOW : /private", URL, False, "Disallow: /private"),
        ("User-agent: corpusmill\nNonsense: 1\nUser-agent: b\nDisallow: /private", URL, False, "Disallow: /private"),
        ("User-agent: corpusmill\nSitemap: http://a/\nDisallow: /private", URL, False, "Disallow: /private"),
        ("Disallow: /\nUser-agent: *\nAllow: /", URL, True, "Allow: /"),
        ("<html><body>User-agent: nothing here</body></html>", URL, True, NO_RULE),
        ("User-agent: *\nDisalow: /private", URL, False, "Disallow: /private"),
    ],
)
def test_judge(text: str, url: str, rule: str, *, is_allowed: bool) -> None:
    assert Robots(text, "corpusmill").judge(url) == (is_allowed, rule)


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("User-agent: *\nCrawl-delay: 2.5", 2.5),
        ("User-agent: *\nCrawl-delay: 9\n\nUser-agent: corpusmill\nDisallow: /x", None),
        ("User-agent: corpus\nCrawl-delay: 9", None),
        ("User-agent: corpusmill\nCrawl-delay: 3", 3.0),
        ("User-agent: *\nCrawl-delay: -1", None),
        ("User-agent: *\nCrawl-delay: nan", None),
        ("User-agent: *\nCrawl-delay: soon", None),
    ],
)
def test_crawl_delay(text: str, delay: float | None) -> None:
    assert Robots(text, "corpusmill").crawl_delay == delay


def test_decode_forgives_marks_and_bad_bytes() -> None:
    text = "User-agent: *\nDisallow: /private"
    for body in (
        text.encode(),
        b"\xef\xbb\xbf" + text.encode(),
        text.encode("utf-16"),
        b"\xff\xfe\n" * 0 + text.encode(),
    ):
        assert Robots(decode(body), "corpusmill").judge(URL)[0] is False
    assert Robots(decode(b"User-agent: *\nDisallow: /\xff\n"), "corpusmill").judge(URL)[0] is True


def test_a_rule_cut_in_the_middle_does_not_forbid_more_than_it_says() -> None:
    body = b"User-agent: *\nDisallow: /private/secret-folder/"
    assert Robots(decode(body[:-15], is_cut=True), "corpusmill").judge(URL) == (True, NO_RULE)
    assert Robots(decode(body[:-15]), "corpusmill").judge(URL)[0] is False


def test_a_huge_file_for_others_costs_little() -> None:
    lines = "".join(f"Disallow: /x{i}/*/y\n" for i in range(25_000))
    text = f"User-agent: other\n{lines}\nUser-agent: corpusmill\nDisallow: /private"
    assert len(text) < MAX_NUM_BYTES + 100_000
    assert Robots(text, "corpusmill").judge(URL) == (False, "Disallow: /private")
