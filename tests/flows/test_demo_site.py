"""The sample site: reachable, truthful about what is planted in it, and served on loopback only."""

import http.client
import ipaddress
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import phonenumbers
import pytest

from flows.demo import server, site
from pipelines.errors import ConfigError

PAGES = site.load_pages()
BY_URL = {page.url: page for page in PAGES}
ENGLISH = [page for page in PAGES if page.host == "harbour.test"]
CHINESE = [page for page in PAGES if page.host == "shanshui.test"]
_LINK = re.compile(r'<a [^>]*?href="([^"#]*)"')


def _charset(body: bytes) -> str:
    found = re.search(rb'<meta charset="([^"]+)"', body)
    return found.group(1).decode() if found else "utf-8"


def _links(url: str, body: bytes) -> set[str]:
    return {urljoin(url, link) for link in _LINK.findall(body.decode(_charset(body)))} - {url}


def _reached(*, without: frozenset[str] = frozenset()) -> set[str]:
    """Every address of the two hosts that a crawler finds from the front pages."""
    responses = site.render_site()
    found = {f"http://{host}/" for host in site.hosts()}
    waiting = sorted(found)
    while waiting:
        url = waiting.pop()
        response = responses.get(url)
        if response is None or url in without or not response.headers.get("Content-Type", "").startswith("text/html"):
            continue
        new = {to for to in _links(url, response.body) if urlsplit(to).hostname in site.hosts()} - found
        found |= new
        waiting += sorted(new)
    return found


def _shingles(text: str, language: str) -> set[tuple[str, ...]]:
    units = re.findall(r"\w", text) if language == "zh" else re.findall(r"\w+", text.lower())
    return set(zip(*(units[start:] for start in range(5)), strict=False))


def _planted(label: str) -> list[tuple[site.SitePage, str]]:
    return [
        (page, value)
        for page in PAGES
        for name, _, value in (planted.partition(":") for planted in sorted(page.plant))
        if name == label
    ]


# Links


def test_every_address_is_linked_and_every_link_is_in_the_ground_truth() -> None:
    robots = {f"http://{host}/robots.txt" for host in site.hosts()}
    assert _reached() == set(site.ground_truth()) - robots


def test_sections_lead_to_every_public_page_without_the_page_that_lists_all() -> None:
    site_maps = frozenset(page.url for page in PAGES if "boilerplate_only" in page.plant)
    public = {page.url for page in PAGES if page.kind != "private"}
    assert public <= _reached(without=site_maps)


def test_private_pages_are_linked_but_disallowed() -> None:
    robots = {host: site.render_site()[f"http://{host}/robots.txt"].body.decode() for host in site.hosts()}
    private = [page for page, _ in _planted("robots_disallowed")]
    assert Counter(page.host for page in private)["harbour.test"] == 2
    for page in private:
        assert page.kind == "private"
        assert page.path.startswith("/private/")
        assert "User-agent: *\nDisallow: /private/\n" in robots[page.host]
        assert page.url in _reached()


def test_some_section_has_a_second_page() -> None:
    assert "http://harbour.test/sections/science/page-2.html" in site.render_site()


def test_one_redirect_leads_to_a_page_and_one_link_leads_nowhere() -> None:
    responses = site.render_site()
    for url, labels in site.ground_truth().items():
        redirect = next((label for label in labels if label.startswith("redirect:")), None)
        if redirect:
            assert responses[url].status == 301
            assert urljoin(url, responses[url].headers["Location"]) in responses
        assert (url not in responses) == (labels == {"missing"})


# Ground truth


def test_english_has_the_planted_cases_that_were_asked_for() -> None:
    counted = Counter(label.partition(":")[0] for page in ENGLISH for label in page.plant)
    expected = {
        "near_duplicate_of": 3, "exact_duplicate_of": 1, "optout_meta": 2, "optout_header": 2, "optout_tdm": 2,
        "robots_disallowed": 2, "abuse": 1, "spam": 2, "language": 1, "lorem": 1, "too_short": 1, "special_token": 1,
        "boilerplate_only": 1,
    }  # fmt: skip
    assert {label: counted[label] for label in expected} == expected
    assert sum(any(label.startswith("pii:") for label in page.plant) for page in ENGLISH) == 2
    assert sum(not page.plant and page.kind == "article" for page in ENGLISH) >= 45


@pytest.mark.parametrize(("page", "of"), _planted("near_duplicate_of"), ids=lambda value: getattr(value, "path", None))
def test_near_duplicates_are_near_and_not_equal(page: site.SitePage, of: str) -> None:
    original = BY_URL[f"http://{page.host}{of}"]
    here, there = (_shingles(each.body, each.language) for each in (page, original))
    similarity = len(here & there) / len(here | there)
    assert 0.8 <= similarity < 1
    assert page.body != original.body


@pytest.mark.parametrize(("page", "of"), _planted("exact_duplicate_of"), ids=lambda value: getattr(value, "path", None))
def test_exact_duplicates_are_equal(page: site.SitePage, of: str) -> None:
    original = BY_URL[f"http://{page.host}{of}"]
    assert (page.title, page.author, page.date, page.body) == (
        original.title,
        original.author,
        original.date,
        original.body,
    )


def test_pages_without_a_label_are_not_alike() -> None:
    clean = [page for page in PAGES if not page.plant]
    shingles = {page.url: _shingles(page.body, page.language) for page in clean}
    for index, page in enumerate(clean):
        for other in clean[index + 1 :]:
            here, there = shingles[page.url], shingles[other.url]
            assert len(here & there) < 0.1 * min(len(here), len(there)), (page.url, other.url)


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(digits))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0


def _resident_id(value: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(value, weights, strict=False))
    return "10X98765432"[total % 11] == value[-1].upper()


def _found_pii(page: site.SitePage) -> dict[str, int]:
    text = page.body
    cards = [
        card
        for card in re.findall(r"(?<!\d)\d{4}(?:[ -]?\d{4}){3}(?:[ -]?\d{1,3})?(?!\d)", text)
        if _luhn(re.sub(r"\D", "", card))
    ]
    ids = [each for each in re.findall(r"(?<!\d)\d{17}[\dXx](?!\w)", text) if _resident_id(each)]
    ips = [
        each
        for each in re.findall(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)", text)
        if ipaddress.ip_address(each).is_global
    ]
    for each in cards + ids + ips:
        text = text.replace(each, " ")
    region = "CN" if page.language == "zh" else "GB"
    return {
        "email": len(re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", text, re.ASCII)),
        "phone": len(list(phonenumbers.PhoneNumberMatcher(text, region))),
        "card": len(cards),
        "cn_id": len(ids),
        "ip": len(ips),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.url)
def test_personal_data_is_what_the_labels_say(page: site.SitePage) -> None:
    planted = {"email": 0, "phone": 0, "card": 0, "cn_id": 0, "ip": 0}
    for label in page.plant:
        if label.startswith("pii:"):
            kind, _, count = label.removeprefix("pii:").partition("=")
            planted[kind] = int(count or 1)
    assert _found_pii(page) == planted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.url)
def test_marks_in_the_text_and_in_the_answer_are_what_the_labels_say(page: site.SitePage) -> None:
    response = site.render(page, PAGES)
    html = response.body.decode(page.charset)
    assert ("<|endoftext|>" in page.body) == ("special_token" in page.plant)
    assert ("&lt;|endoftext|&gt;" in html) >= ("special_token" in page.plant)
    assert ("lorem ipsum" in page.body.lower()) == ("lorem" in page.plant)
    assert ('<meta name="robots" content="noai' in html) == ("optout_meta" in page.plant)
    assert ('<meta name="tdm-reservation" content="1">' in html) == ("optout_tdm" in page.plant)
    assert (response.headers.get("X-Robots-Tag") == "noai") == ("optout_header" in page.plant)
    assert (page.kind == "optout") == any(label.startswith("optout") for label in page.plant)
    assert page.kind not in {"spam", "abuse"} or page.kind in page.plant


@pytest.mark.parametrize("page", [page for page in PAGES if page.kind == "article"], ids=lambda page: page.url)
def test_articles_are_long_enough_to_keep_and_too_short_ones_are_not(page: site.SitePage) -> None:
    num_units = len(page.body) if page.language == "zh" else len(page.body.split())
    if "too_short" in page.plant:
        assert num_units < 30
    else:
        assert num_units > 100


def test_english_articles_amount_to_a_small_corpus() -> None:
    clean = [page for page in ENGLISH if not page.plant]
    assert sum(len(page.body.encode()) for page in clean) > 90_000
    assert all("{" not in page.body for page in clean)  # C4 drops a page for one curly bracket


def test_forum_threads_keep_every_post_with_its_author() -> None:
    page = BY_URL["http://harbour.test/letters/leaking-shed.html"]
    html = site.render(page, PAGES).body.decode()
    assert html.count('<section class="post">') == 8
    assert "<b>oldcoppernail</b> <time>2024-02-21</time>" in html


# Rendering


def test_answers_are_the_same_in_a_process_with_another_hash_seed() -> None:
    program = (
        "import hashlib, flows.demo.site as s; r = s.render_site();"
        "print(hashlib.sha256(repr([(u, r[u].status, dict(r[u].headers), r[u].body) for u in r]).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(site.__file__).parents[2],
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_pages_in_an_old_encoding_say_so_in_their_head_only() -> None:
    old = [page for page in CHINESE if page.charset != "utf-8"]
    assert len(old) >= 2
    for page in old:
        response = site.render(page, PAGES)
        assert response.headers["Content-Type"] == "text/html"
        assert f'<meta charset="{page.charset}">'.encode() in response.body
        assert page.title in response.body.decode(page.charset)


MARKDOWN = [
    ("one\ntwo", "en", "<p>one two</p>"),
    ("一行\n二行", "zh", "<p>一行二行</p>"),
    ("## Head\n\ntext", "en", "<h2>Head</h2>\n<p>text</p>"),
    ("## Head\ntext", "en", "<h2>Head</h2>\n<p>text</p>"),
    ("- a\n- b < c", "en", "<ul>\n<li>a</li>\n<li>b &lt; c</li>\n</ul>"),
    ("a\n\n```\nx = 1\n\n## y\n```\n\nb", "en", "<p>a</p>\n<pre><code>x = 1\n\n## y</code></pre>\n<p>b</p>"),
    ("", "en", ""),
]


@pytest.mark.parametrize(("body", "language", "expected"), MARKDOWN)
def test_light_markdown(body: str, language: str, expected: str) -> None:
    assert site._markdown(body, language) == expected


HEADERS = [
    ("title: T\nsection: S\nkind: poem\nurl: /a", "got kind 'poem'"),
    ("title: T\nsection: S\nkind: article\nurl: a", "starts with a slash"),
    ("title: T\nsection: S\nkind: article", "got no url"),
    ("title: T\nsection: S\nkind: article\nurl: /a\nplant: span", "got plant label 'span'"),
    ("title: T\nsection: S\nkind: article\nurl: /private/a", "robots_disallowed"),
    ("title: T\ncolour: red", "got 'colour: red'"),
    ("title: T\nsection: S\nkind: article\nurl: /a\ncharset: ebcdic", "got charset 'ebcdic'"),
]


@pytest.mark.parametrize(("header", "message"), HEADERS)
def test_a_file_that_breaks_the_format_is_refused_by_name(tmp_path: Path, header: str, message: str) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"{header}\n\nbody\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        site._parse_page(file, site._magazines()[0])
    assert "page.md" in str(caught.value)


# Serving


def _get(
    served: server.Served, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(served.address, served.port, timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_server_answers_for_both_hosts_with_the_rendered_bytes() -> None:
    num_threads = threading.active_count()
    with server.serve_sample() as served:
        assert (served.address, served.hosts) == ("127.0.0.1", ("harbour.test", "shanshui.test"))
        for url, expected in site.render_site().items():
            parts = urlsplit(url)
            status, headers, body = _get(served, parts.path, {"Host": f"{parts.hostname}:{served.port}"})
            assert (status, body) == (expected.status, expected.body), url
            assert expected.headers.items() <= headers.items()
    assert threading.active_count() == num_threads
    with pytest.raises(OSError, match="refused"):
        _get(served, "/")


SAMPLE_REQUESTS = [
    ("harbour.test", "/articles/tides.html?utm_source=x", "GET", 200),
    ("HARBOUR.test", "/articles/tides.html", "HEAD", 200),
    ("harbour.test", "/articles/the-lost-supplement.html", "GET", 404),
    ("harbour.test", "/articles/../articles/tides.html", "GET", 404),
    ("harbour.test", "/articles/tides.html", "POST", 405),
    ("127.0.0.1", "/", "GET", 421),
    ("shanshui.test", "/articles/tides.html", "GET", 404),
]


def test_server_refuses_what_it_does_not_have() -> None:
    with server.serve_sample() as served:
        statuses = [_get(served, path, {"Host": host}, method)[0] for host, path, method, _ in SAMPLE_REQUESTS]
    assert statuses == [status for _, _, _, status in SAMPLE_REQUESTS]


def test_an_unchanged_page_is_not_sent_twice() -> None:
    with server.serve_sample() as served:
        host = {"Host": "harbour.test"}
        etag = _get(served, "/articles/tides.html", host)[1]["ETag"]
        assert _get(served, "/articles/tides.html", host | {"If-None-Match": etag})[::2] == (304, b"")
        assert _get(served, "/articles/tides.html", host | {"If-None-Match": '"else"'})[0] == 200
        assert _get(served, "/gazette.html", host)[0] == 301


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pages"
    (root / "sub dir" / "空").mkdir(parents=True)
    (root / "index.html").write_text("front", encoding="utf-8")
    (root / "sub dir" / "index.html").write_text("inner", encoding="utf-8")
    (root / "sub dir" / "a.css").write_text("b { }", encoding="utf-8")
    (root / "文.txt").write_text("文", encoding="utf-8")
    (root / "data.unknown").write_bytes(b"\0")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "out").symlink_to(tmp_path)
    return root


FOLDER_REQUESTS = [
    ("/", 200, "text/html"),
    ("/index.html?x=1", 200, "text/html"),
    ("/sub%20dir/", 200, "text/html"),
    ("/sub%20dir", 301, None),
    ("/sub%20dir/a.css", 200, "text/css"),
    (quote("/文.txt"), 200, "text/plain"),
    ("/data.unknown", 200, "application/octet-stream"),
    ("/missing.html", 404, None),
    (quote("/sub dir/空/"), 404, None),
    ("/../secret.txt", 403, None),
    ("/sub%20dir/../../secret.txt", 403, None),
    ("/%2e%2e/secret.txt", 403, None),
    ("/..%2fsecret.txt", 403, None),
    ("/..%5csecret.txt", 403, None),
    ("//etc/passwd", 404, None),
    ("/link.txt", 403, None),
    ("/out/secret.txt", 403, None),
    ("/a%00b", 403, None),
    ("/" + "x" * 300, 404, None),
]


def test_folder_server_serves_files_and_nothing_outside(folder: Path) -> None:
    with server.serve_folder(folder) as served:
        for path, status, content_type in FOLDER_REQUESTS:
            got, headers, body = _get(served, path, {"Host": "anything.test"})
            assert got == status, path
            assert content_type is None or headers["Content-Type"] == content_type, path
            assert b"secret" not in body, path
        assert _get(served, "/sub%20dir")[1]["Location"] == "/sub%20dir/"
        assert _get(served, "/", method="DELETE")[0] == 405


def test_a_port_in_use_is_one_sentence_that_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"got port {port} .*name another port, or 0"), server.serve_sample(port):
            pass


@pytest.mark.parametrize("port", [-1, 70_000])
def test_an_impossible_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"got port {port} "), server.serve_sample(port):
        pass


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted a folder"), server.serve_folder(tmp_path / "none"):
        pass


def test_the_server_stops_when_the_block_fails_and_its_port_is_free_again() -> None:
    ports: list[int] = []

    def fail(port: int) -> None:
        with server.serve_sample(port) as served:
            ports.append(served.port)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail(0)
    with pytest.raises(RuntimeError, match="inside"):
        fail(ports[0])
    assert ports[0] == ports[1]
