"""RFC 9309: groups, matching, the rule that decides. Every statement of sections 2.2 and 5 that can be tested."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego

from pipelines.crawl.robots import MAX_NUM_BYTES, NO_RULE, Robots, decode

URL = "http://site.example/private/page.html"
DISALLOW_ALL = "User-agent: *\nDisallow: /\n"

CASES = [
    ("", URL, True, NO_RULE),
    ("User-agent: *\nDisallow: /private/", URL, False, "Disallow: /private/"),
    ("User-agent: *\nDisallow: /", URL, False, "Disallow: /"),
    ("User-agent: *\nDisallow:", URL, True, NO_RULE),
    ("User-agent: *\nDisallow: /Private/", URL, True, NO_RULE),  # paths are case-sensitive
    ("User-agent: *\nDisallow: private", URL, True, NO_RULE),  # no path
    # 2.2.2: /robots.txt is implicitly allowed
    (DISALLOW_ALL, "http://site.example/robots.txt", True, NO_RULE),
    (DISALLOW_ALL, "http://site.example/robots.txt?a=1", True, NO_RULE),
    (DISALLOW_ALL, "http://site.example/x/robots.txt", False, "Disallow: /"),
    (DISALLOW_ALL, "http://site.example", False, "Disallow: /"),
    (DISALLOW_ALL, "http://site.example?q=1", False, "Disallow: /"),
    # 2.2.2: the longest rule in octets wins, and Allow on a tie, wherever they stand
    ("User-agent: *\nDisallow: /private\nAllow: /private/page", URL, True, "Allow: /private/page"),
    ("User-agent: *\nAllow: /private/page.html\nDisallow: /private/page.html", URL, True, "Allow: /private/page.html"),
    ("User-agent: *\nDisallow: /private/page.html\nAllow: /private/page.html", URL, True, "Allow: /private/page.html"),
    ("User-agent: *\nAllow: /p\nDisallow: /private/", URL, False, "Disallow: /private/"),
    ("User-agent: *\nAllow: /private/\nDisallow: /*.html", URL, True, "Allow: /private/"),
    ("User-agent: *\nAllow: /priv\nDisallow: /*.html", URL, False, "Disallow: /*.html"),
    # a reserved character is one octet: here Protego 0.7.0 counts "?" as three and allows
    ("User-agent: *\nAllow: /a?b\nDisallow: /a*cd", "http://s.example/a?bcd", False, "Disallow: /a*cd"),
    ("User-agent: *\nAllow: /\nDisallow: /私", "http://s.example/%E7%A7%81", False, "Disallow: /私"),
    # 2.2.1: our groups alone count where there is one; groups with our name are merged
    ("User-agent: *\nDisallow: /\n\nUser-agent: corpusmill\nDisallow: /x", URL, True, NO_RULE),
    ("User-agent: CorpusMill\nDisallow:\n\nUser-agent: *\nDisallow: /", URL, True, NO_RULE),
    ("User-agent: corpusmill\n\nUser-agent: *\nDisallow: /", URL, False, "Disallow: /"),  # a blank line ends no group
    (
        "User-agent: corpusmill\nDisallow: /x\nUser-agent: corpusmill\nDisallow: /private",
        URL,
        False,
        "Disallow: /private",
    ),
    ("User-agent: *\nDisallow: /x\nUser-agent: b\nUser-agent: *\nDisallow: /private", URL, False, "Disallow: /private"),
    ("User-agent: a\nUser-agent: corpusmill\nUser-agent: b\nDisallow: /private", URL, False, "Disallow: /private"),
    ("User-agent: corpusmill/2.0 (x)\nDisallow: /", URL, False, "Disallow: /"),
    ("User-agent: corpusmill # us\nDisallow: / # all", URL, False, "Disallow: /"),
    # a part of our name is another crawler's, and so is a longer one
    ("User-agent: corpus\nDisallow: /", URL, True, NO_RULE),
    ("User-agent: mill\nDisallow: /", URL, True, NO_RULE),
    ("User-agent: corpusmill-news\nDisallow: /", URL, True, NO_RULE),
    ("User-agent: corpusmill2\nDisallow: /", URL, True, NO_RULE),
    ("User-agent: corpus\nAllow: /\n\nUser-agent: *\nDisallow: /", URL, False, "Disallow: /"),
    # 2.2.3: special characters
    ("User-agent: *\nDisallow: /*.html$", URL, False, "Disallow: /*.html$"),
    ("User-agent: *\nDisallow: /*.html$", URL + "?a=1", True, NO_RULE),
    ("User-agent: *\nDisallow: /*.html", URL + "?a=1", False, "Disallow: /*.html"),
    ("User-agent: *\nDisallow: *.html", URL, False, "Disallow: *.html"),
    ("User-agent: *\nDisallow: /$", "http://s.example/", False, "Disallow: /$"),
    ("User-agent: *\nDisallow: /$", "http://s.example/a", True, NO_RULE),
    ("User-agent: *\nDisallow: /a*b*c$", "http://s.example/axbxbxc", False, "Disallow: /a*b*c$"),
    ("User-agent: *\nDisallow: /a*b*c$", "http://s.example/acb", True, NO_RULE),
    ("User-agent: *\nDisallow: /a*a$", "http://s.example/a", True, NO_RULE),  # parts do not overlap
    ("User-agent: *\nDisallow: /a**$", "http://s.example/abc", False, "Disallow: /a**$"),
    ("User-agent: *\nDisallow: /a$b", "http://s.example/a$bc", False, "Disallow: /a$b"),
    ("User-agent: *\nDisallow: /file-%2A.html", "http://s.example/file-*.html", False, "Disallow: /file-%2A.html"),
    ("User-agent: *\nDisallow: /file-%2A.html", "http://s.example/file-x.html", True, NO_RULE),
    ("User-agent: *\nDisallow: /foo-%24", "http://s.example/foo-$/x", False, "Disallow: /foo-%24"),
    ("User-agent: *\nDisallow: /foo-%24", "http://s.example/foo-", True, NO_RULE),
    # 2.2.2: the table of percent-encodings
    (
        "User-agent: *\nDisallow: /foo/bar?baz=quz",
        "http://s.example/foo/bar?baz=quz",
        False,
        "Disallow: /foo/bar?baz=quz",
    ),
    (
        "User-agent: *\nDisallow: /foo/bar?baz=https://foo.bar",
        "http://s.example/foo/bar?baz=https%3A%2F%2Ffoo.bar",
        False,
        "Disallow: /foo/bar?baz=https://foo.bar",
    ),
    (
        "User-agent: *\nDisallow: /foo/bar?*=https%3a%2f%2ffoo.bar",
        "http://s.example/foo/bar?baz=https://foo.bar",
        False,
        "Disallow: /foo/bar?*=https%3a%2f%2ffoo.bar",
    ),
    ("User-agent: *\nDisallow: /foo/bar/ツ", "http://s.example/foo/bar/%E3%83%84", False, "Disallow: /foo/bar/ツ"),
    (
        "User-agent: *\nDisallow: /foo/bar/%E3%83%84",
        "http://s.example/foo/bar/ツ",
        False,
        "Disallow: /foo/bar/%E3%83%84",
    ),
    (
        "User-agent: *\nDisallow: /foo/bar/%62%61%7A",
        "http://s.example/foo/bar/baz",
        False,
        "Disallow: /foo/bar/%62%61%7A",
    ),
    ("User-agent: *\nDisallow: /foo/bar/baz", "http://s.example/foo/bar/%62%61%7a", False, "Disallow: /foo/bar/baz"),
    ("User-agent: *\nDisallow: /%e7%a7%81/", "http://site.example/%E7%A7%81/a", False, "Disallow: /%e7%a7%81/"),
    ("User-agent: *\nDisallow: /a%3cd", "http://s.example/a%3Cd", False, "Disallow: /a%3cd"),
    ("User-agent: *\nDisallow: /a<d", "http://s.example/a%3Cd", False, "Disallow: /a<d"),
    ("User-agent: *\nDisallow: /a%2Fb", "http://s.example/a/b", True, NO_RULE),  # reserved: not the same
    ("User-agent: *\nDisallow: /a?b", "http://s.example/a%3Fb", True, NO_RULE),
    ("User-agent: *\nDisallow: /100%", "http://s.example/100%/a", False, "Disallow: /100%"),
    # 2.2: lines
    ("User-agent: *\rDisallow: /private # why\r", URL, False, "Disallow: /private"),
    ("user-AGENT : *\r\nDISALLOW : /private", URL, False, "Disallow: /private"),
    ("\ufeffUser-agent: *\nDisallow: /x", "http://s.example/x", False, "Disallow: /x"),
    ("# a\n\nUser-agent: *\n\n# b\n\nDisallow: /private", URL, False, "Disallow: /private"),
    ("User-agent: corpusmill\nNonsense: 1\nUser-agent: b\nDisallow: /private", URL, False, "Disallow: /private"),
    ("User-agent: corpusmill\nSitemap: http://a/\nDisallow: /private", URL, False, "Disallow: /private"),
    ("User-agent: corpusmill\nSitemap: http://a/\nUser-agent: b\nDisallow: /p", URL, False, "Disallow: /p"),
    ("User-agent: corpusmill\nLicense: http://a/\nUser-agent: b\nDisallow: /p", URL, False, "Disallow: /p"),
    ("User-agent: *\nCrawl-delay: 1\nUser-agent: b\nDisallow: /", URL, True, NO_RULE),
    ("User-agent: *\nContent-Signal: search=yes\nUser-agent: b\nDisallow: /", URL, True, NO_RULE),
    ("Disallow: /\nUser-agent: *\nAllow: /", URL, True, "Allow: /"),
    ("<html><body>User-agent: nothing here</body></html>", URL, True, NO_RULE),
    ("User-agent: *\nDisalow: /private", URL, False, "Disallow: /private"),
    ("User-agent: *\nDisallow /private", URL, False, "Disallow: /private"),
    # 5.1: the RFC's own example
    (
        "User-Agent: *\nDisallow: *.gif$\nDisallow: /example/\nAllow: /publications/",
        "http://s.example/a/b.gif",
        False,
        "Disallow: *.gif$",
    ),
    (
        "User-Agent: bazbot\nUser-Agent: corpusmill\nDisallow: /example/page.html\n\nUser-Agent: x\n\n",
        URL,
        True,
        NO_RULE,
    ),
    # 5.2: longest match
    (
        "User-agent: *\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif",
        "http://s.example/example/page/disallowed.gif",
        False,
        "Disallow: /example/page/disallowed.gif",
    ),
    # no courtesy beyond the RFC: Protego and Google read /index.html as / too
    ("User-agent: *\nDisallow: /\nAllow: /index.html", "http://s.example/", False, "Disallow: /"),
]


@pytest.mark.parametrize(("text", "url", "is_allowed", "rule"), CASES)
def test_judge(text: str, url: str, rule: str, *, is_allowed: bool) -> None:
    assert Robots(text, "corpusmill").judge(url) == (is_allowed, rule)


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("User-agent: *\nCrawl-delay: 2.5", 2.5),
        ("User-agent: *\nCrawl-delay: 9\n\nUser-agent: corpusmill\nDisallow: /x", None),
        ("User-agent: corpus\nCrawl-delay: 9", None),
        ("User-agent: corpusmill\nCrawl-delay: 3", 3.0),
        ("User-agent: corpusmill\nCrawl-delay: 3\n\nUser-agent: corpusmill\nCrawl-delay: 1", 3.0),
        ("User-agent: *\nCrawl-delay: -1", None),
        ("User-agent: *\nCrawl-delay: nan", None),
        ("User-agent: *\nCrawl-delay: soon", None),
    ],
)
def test_crawl_delay(text: str, delay: float | None) -> None:
    assert Robots(text, "corpusmill").crawl_delay == delay


def test_sitemaps_stand_anywhere() -> None:
    text = "Sitemap: http://a/1\nUser-agent: x\nsite-map:http://a/2\nDisallow: /\nSITEMAPS: http://a/1\nSitemap:"
    assert Robots(text, "corpusmill").sitemaps == ("http://a/1", "http://a/2")


def test_decode_forgives_marks_and_bad_bytes() -> None:
    text = "User-agent: *\nDisallow: /private"
    encodings = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
    for body in (text.encode(encoding) for encoding in encodings):
        assert Robots(decode(body), "corpusmill").judge(URL)[0] is False
    assert Robots(decode(b"User-agent: *\nDisallow: /\xff\n"), "corpusmill").judge(URL)[0] is True


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_rule_cut_in_the_middle_does_not_forbid_more_than_it_says(encoding: str) -> None:
    body = "User-agent: *\nDisallow: /a\nDisallow: /private/secret-folder/".encode(encoding)[:-30]
    assert Robots(decode(body, is_cut=True), "corpusmill").judge(URL) == (True, NO_RULE)
    assert Robots(decode(body, is_cut=True), "corpusmill").judge("http://s.example/a")[0] is False


def _patterns(alphabet: str) -> st.SearchStrategy[str]:
    return st.tuples(st.text(alphabet, max_size=8), st.sampled_from(["", "$"])).map(
        lambda parts: f"/{parts[0]}{parts[1]}"
    )


@given(
    st.lists(st.tuples(st.sampled_from(["Allow", "Disallow"]), _patterns("ab/*")), max_size=8),
    st.text("ab/", max_size=10),
)
def test_agrees_with_protego_where_no_encoding_is_involved(rules: list[tuple[str, str]], path: str) -> None:
    text = "\n".join(["User-agent: *", *(f"{field}: {pattern}" for field, pattern in rules)])
    url = f"http://s.example/{path}"
    assert Robots(text, "corpusmill").judge(url)[0] == Protego.parse(text).can_fetch(url, "corpusmill")


@given(st.text(), st.text())
def test_any_text_and_any_url_are_survived(text: str, url: str) -> None:
    Robots(f"User-agent: *\n{text}\nDisallow: {text}", "corpusmill").judge(url)


@pytest.mark.parametrize(
    "lines",
    [
        [f"Disallow: /x{i}/*/y" for i in range(25_000)],
        [f"Disallow: /{i}" for i in range(35_000)],
        [f"User-agent: a{i}" for i in range(15_000)] + [f"Disallow: /{i}" for i in range(15_000)],  # their product
        [f"Disallow: {'/*a' * 160_000}b"],
        [f"Disallow: /{'*' * 500_000}b$"],
        [f"Disallow: /*{'a' * 1000}*{'a' * 1000}b"] * 200,
        [f"Disallow: *a*a*a*a*b{i}" for i in range(20_000)],
        ["License: /" + "x" * 20] * 15_000,
    ],
)
def test_hostile_files_cost_little(lines: list[str]) -> None:
    text = "User-agent: *\n" + "\n".join(lines) + "\nDisallow: /private"
    assert len(text) < MAX_NUM_BYTES + 100_000
    started = time.process_time()
    robots = Robots(text, "corpusmill")
    assert robots.judge(URL)[0] is False
    for _ in range(10):
        robots.judge("http://s.example/" + "a" * 2000)
    assert time.process_time() - started < 3  # 0.1 s where measured; a product of sizes would be minutes
