"""PAGE -> DOCUMENT: outcomes, metadata, rights directives, hostile pages."""

import gzip
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from extract_pages import URL, extract
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.digest import document_id
from pipelines.errors import ConfigError
from pipelines.extract import EXTRACT, ExtractConfig, extract_documents
from pipelines.extract.normalize import normalize, one_line
from pipelines.schemas import DOCUMENT, PAGE
from pipelines.sources.pages import Page, batches

PROSE = "Enough words for a main text in English, 以及足够多的中文正文。" * 8


def test_one_row_for_each_row_in_order():
    pages = [Page(f"http://a.example/{n}", None, 200, "text/html", (), f"<p>第{n}页".encode(), n) for n in range(600)]
    found = list(extract_documents(batches(pages), ExtractConfig()))
    rows = [row for batch in found for row in batch.to_pylist()]
    assert [row["record_offset"] for row in rows] == list(range(600))
    assert [row["text"] for row in rows] == [f"第{n}页" for n in range(600)]
    assert all(batch.schema.equals(DOCUMENT) for batch in found)
    assert (EXTRACT.inputs, EXTRACT.output) == ((PAGE,), DOCUMENT)


@pytest.mark.parametrize(
    ("payload", "content_type", "options", "problem"),
    [
        (b"<p>x", "text/html", {"status": 404}, "http_404"),
        (b"<p>x", "text/html", {"status": 503}, "http_503"),
        (b"x" * 2000, "text/plain", {"max_page_bytes": 1999}, "too_large"),
        (b"%PDF-1.7 ...", "application/pdf", {}, "not_text"),
        (b"%PDF-1.7 ...", "text/html", {}, "not_text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "text/html", {}, "not_text"),
        (b"PK\x03\x04" + bytes(99), None, {}, "not_text"),
        (bytes(range(1, 32)) * 9, "text/plain", {}, "not_text"),
        (b'{"a": 1}', "application/json", {}, "not_text"),
        (b"<rss><channel/></rss>", "application/xml", {}, "not_text"),
        (b"body{}", "text/css", {}, "not_text"),
        (b"", "text/html", {}, "empty"),
        (b"<html><body><script>x()</script></body></html>", "text/html", {}, "empty"),
        (b" \n\t \n", "text/plain", {}, "empty"),
        (b"<p>four", "text/html", {"min_text_chars": 5}, "empty"),
        (b"<div>" * 300 + b"x", "text/html", {}, "too_deep"),
        (b"<ul><li>" * 40 + b"x", "text/html", {}, "too_deep"),
        (b"<b>" * 100 + b"x", "text/html", {"max_tags": 99}, "too_many_tags"),
        (b"<p>" + b"".join(b"<b a%d>" % n for n in range(2000)) + b"<p>x" * 2000, "text/html", {}, "too_many_tags"),
        (b"<b " + b" ".join(b"a%d" % n for n in range(40_000)) + b">x", "text/html", {}, "too_many_attributes"),
        (b"\xff\x81\xfe\x82" * 99, "text/html; charset=utf-8", {"problem": None}, "undecodable"),
        (b"", None, {"problem": "warc_truncated"}, "warc_truncated"),
        (b"<p>x", "text/html", {"problem": "bad_row"}, "bad_row"),
    ],
)
def test_problems(payload, content_type, options, problem):
    row = extract(payload, content_type, **options)
    assert (row["problem"], row["text"]) == (problem, "")
    assert row["doc_id"] == document_id(URL, payload)
    assert row["num_page_bytes"] == len(payload)


@pytest.mark.parametrize(
    ("payload", "content_type", "text"),
    [
        ("a < b\nc", "text/plain", "a < b\nc"),
        ("# 标题\n\n    code", "text/markdown; charset=utf-8", "# 标题\n\n    code"),
        ("<p>x</p>", "TEXT/HTML", "x"),
        ("<p>x</p>", "application/xhtml+xml", "x"),
        ("<p>x</p>", None, "x"),
        ("plain 文字", None, "plain 文字"),
        ("<!DOCTYPE html><html><body>x", "application/octet-stream", "x"),
        ("<?xml version='1.0'?><!DOCTYPE html><html><body>x", "application/xml", "x"),
        ("<p>x</p>", "text/plain", "<p>x</p>"),
    ],
)
def test_types(payload, content_type, text):
    assert extract(payload, content_type)["text"] == text


def test_metadata():
    html = (
        "<html lang=zh-CN><head><title> 标题\n  &amp; title\u0000 </title>"
        "<link rel='stylesheet' href=x.css><link rel='license' href='/licence'></head>"
        f"<body><p>{PROSE}</p><a rel='nofollow license' href='https://creativecommons.org/licenses/by/4.0/'>CC</a></body>"
    )
    row = extract(html, headers=["content-language: de", "link: <https://l.example/>; rel=license"])
    assert row["title"] == "标题 & title"
    assert row["declared_language"] == "zh-CN"
    assert row["license_url"] == "http://site.example/licence"
    assert row["directives"] == [
        "license: http://site.example/licence",
        "license: https://creativecommons.org/licenses/by/4.0/",
        "license: https://l.example/",
    ]
    assert row["record_offset"] == 7


@pytest.mark.parametrize(
    ("html", "headers", "license_url"),
    [
        ("<a rel=license href=//cc.example/by>x</a>", [], "http://cc.example/by"),
        ("<a rel=LICENSE href=by>x</a>", [], "http://site.example/a/by"),
        ("<meta name=DCTERMS.license content='https://cc.example/by'>x", [], "https://cc.example/by"),
        ("<meta name=dc.rights content='All rights reserved'>x", [], None),
        ("x", ['link: </x>; rel=preload, <https://cc.example/sa>; rel="license"'], "https://cc.example/sa"),
        ("<a rel=license href='http://[bad'>x</a>", [], None),
        ("<a rel=licensed href=by>x</a>", [], None),
    ],
)
def test_licences(html, headers, license_url):
    assert extract(html, headers=headers)["license_url"] == license_url


def test_directives_bear_their_source():
    html = (
        "<head><meta name=robots content='noindex,  noai'><META NAME=Robots CONTENT=nofollow>"
        "<meta name=corpusmill content=noai><meta name=TDM-Reservation content=1><meta name=viewport content=x>"
        "<meta name=googlebot content=noai>"
        f"<!-- <meta name=robots content=none> --></head><body><p>{PROSE}"
    )
    headers = [
        "x-robots-tag: otherbot: noai",
        "tdm-reservation: 1",
        "tdm-policy: https://p.example/",
        "content-usage: train-ai=n",
        "content-signal: ai-train=no",
        "content-language: en",
    ]
    assert extract(html, headers=headers)["directives"] == [
        "x-robots-tag: otherbot: noai",
        "tdm-reservation: 1",
        "tdm-policy: https://p.example/",
        "content-usage: train-ai=n",
        "content-signal: ai-train=no",
        "meta robots: noindex, noai",
        "meta robots: nofollow",
        "meta corpusmill: noai",
        "meta tdm-reservation: 1",
    ]
    assert extract(html, headers=headers, status=404)["directives"] == [
        header for header in headers if not header.startswith("content-language")
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\r\nb\rc\n", "a\nb\nc"),
        ("a  \n\t\nb", "a\n\nb"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("\n\n  indented\n", "  indented"),
        ("a\x00b\x07c\x1b[0m", "abc[0m"),
        ("e\u0301 が", "é が"),
        ("a\u2028b\x0cc", "a\nb\nc"),
        ("10\xa0000", "10 000"),
        ("\ufeff正文\ufdd0\uffff", "正文"),
    ],
)
def test_text_has_one_form(raw, expected):
    assert normalize(raw) == expected


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_normalizing_twice_changes_nothing(text):
    assert normalize(normalize(text)) == normalize(text)


def test_one_line_is_one_line():
    assert one_line("  a\n b\t c ", 4) == "a b "[:4]


def test_config_is_checked():
    for options in (
        {"min_text_chars": 0},
        {"max_page_bytes": 0},
        {"max_nesting": 3},
        {"max_tags": 0},
        {"min_main_chars": -1},
    ):
        with pytest.raises(ConfigError, match=next(iter(options))):
            ExtractConfig(**options)


MIB = 1 << 20
HOSTILE = {
    "one long line": lambda: "x " * (4 * MIB),
    "nested divs": lambda: "<div>" * 100_000 + "x",
    "nested divs with ends in comments": lambda: "<div><!--</div>-->" * 100_000,
    "nested inline": lambda: "<b><i>" * 100_000 + "x",
    "nested tables": lambda: "<table><tr><td>" * 30_000 + "x",
    "deep and wide": lambda: "<div>" * 250 + "<p>x y z</p>" * 100_000,
    "nested lists": lambda: "<ul><li>x" * 100_000,
    "list openings": lambda: "<ul <li " * 200_000,
    "digits": lambda: "1" * (2 * MIB),
    "spaces": lambda: "a" + " " * (4 * MIB) + "b",
    "angle brackets": lambda: "<" * MIB + ">   " * MIB,
    "comments": lambda: "<!--" * MIB,
    "combining marks": lambda: "<p>é" + "\u0300\u0327" * MIB,
    "astral marks": lambda: "<p>x" + "\U0001d165\U0001d16d" * (MIB // 2),
    "formulas": lambda: "<math" * 200_000 + "</math>" * 200_000 + "application/x-tex",
    "math scripts": lambda: "<script math/tex " + "math/tex " * 200_000,
    "metas": lambda: "<meta name=robots content=noai>" * 20_000,
    "licences": lambda: "<a rel=license href=x>y</a>" * 50_000,
    "licence items": lambda: "<b itemscope itemprop=license>" * 100_000,
    "json-ld": lambda: '<script type=application/ld+json>{"license":' + "[" * 99_999 + "</script>" * 20,
    "json-ld quotes": lambda: '<script type=application/ld+json>{"license":' + "[" * 99 + '"\\' * 99_999,
    "json-ld scripts": lambda: '<script type=application/ld+json>{"license":[{}, "x"]}</script>' * 50_000,
    "rsl": lambda: "<script type=application/rsl+xml><rsl>" + "<content>" * 20_000 + "</script>" * 9,
    "unclosed": lambda: "<p><b><i><a href=x>" * 50_000,
    "lone characters": lambda: "<td>甲" * 200_000,
    "nulls": lambda: "<p>a\x00b" * 200_000,
    "attributes": lambda: "<b " + " ".join(f"a{n}" for n in range(100_000)) + ">x",
    "attributes with ends in their values": lambda: "<b " + " ".join(f"a{n}='>'" for n in range(100_000)) + ">x",
    "formatting left open": lambda: "<p>" + "".join(f"<b a{n}>" for n in range(9000)) + "</p><p>x" * 9000,
    "formatting ended in comments": lambda: "".join(f"<b a{n}><!--</b>-->" for n in range(9000)) + "<p>x</p>" * 9000,
    "articles": lambda: "<article>" * 200 + "<article><p>x y z. </p></article>" * 50_000,
    "bodies": lambda: "<p class=article-body itemprop=articleBody>Some words here. " * 50_000,
    "links": lambda: "<article>" + "<a href=x>y" * 100_000,
    "boilerplate classes": lambda: "<article>" + "".join(f'<i class="share-{n}">x</i>' for n in range(50_000)),
    "entities": lambda: "&amp;&#x10FFFF;&#xD800;" * 100_000,
}
"""Each took minutes, gigabytes or a crash in some part of some extractor."""
MAX_CPU_SECONDS = 20
"""Generous to a loaded machine; what is quadratic takes hours at these sizes."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_end_in_an_outcome(name):
    payload = HOSTILE[name]().encode()
    started = time.process_time()
    row = extract(payload)
    assert time.process_time() - started < MAX_CPU_SECONDS
    assert row["problem"] in (None, "empty", "too_deep", "too_many_tags", "too_many_attributes")
    assert len(row["text"]) <= 16 * len(payload)
    assert "\x00" not in row["text"]


def test_fifty_megabytes_on_one_line_are_one_outcome():
    assert extract(b"x " * (25 << 20))["problem"] == "too_large"
    assert len(extract(b"x " * (25 << 20), max_page_bytes=64 << 20)["text"]) > 49_000_000


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from(["text/html", "text/plain", None, "text/html; charset=gbk", "é; charset=\x00"]),
)
def test_any_bytes_become_one_document(payload, content_type):
    assert extract(payload, content_type) == extract(payload, content_type)


TAGS = [
    "<p>",
    "</p>",
    "<ul>",
    "<li>",
    "</ul>",
    "<ol>",
    "</ol>",
    "<table><tr><td>",
    "</table>",
    "<div>",
    "</div>",
    "<math>",
    "甲",
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from([*TAGS, "</math>", "<annotation encoding='application/x-tex'>x", "<!--", "a", " "]), max_size=60
    )
)
def test_any_tag_soup_becomes_one_document(parts):
    row = extract("<body>" + "".join(parts))
    assert "\ufdd0" not in row["text"]
    assert "\ufdd1" not in row["text"]


def test_rows_do_not_depend_on_their_neighbours():
    pages = [
        Page(URL, None, 200, "text/html", (), f"<title>{n}</title><p>第{n}页 {PROSE}".encode(), n) for n in range(40)
    ]
    together = [row for batch in extract_documents(batches(pages), ExtractConfig()) for row in batch.to_pylist()]
    random.Random(0).shuffle(pages)
    apart = [
        row for page in pages for b in extract_documents(batches([page]), ExtractConfig()) for row in b.to_pylist()
    ]
    assert sorted(apart, key=lambda row: row["record_offset"]) == together


@pytest.fixture
def data_folder() -> Path:
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    return Path(os.environ["CORPUSMILL_TEST_DATA"]) / "extraction"


@pytest.mark.real_data
def test_articles_against_their_gold_text(data_folder):
    """F1 over 4-gram shingles, by the metric of scrapinghub/article-extraction-benchmark."""
    folder = data_folder / "scrapinghub"
    gold = json.loads((folder / "ground-truth.json").read_text("utf-8"))
    precisions, recalls = [], []
    for path in sorted((folder / "html").glob("*.html.gz")):
        text = extract(gzip.decompress(path.read_bytes()))["text"]
        wanted, found = shingles(gold[path.name.removesuffix(".html.gz")]["articleBody"]), shingles(text)
        hits = (wanted & found).total()
        precisions.append(hits / max(1, found.total()))
        recalls.append(hits / max(1, wanted.total()))
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    assert 2 * precision * recall / (precision + recall) >= 0.960
    assert recall > 0.97


def shingles(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[start : start + 4]) for start in range(max(1, len(words) - 3)))


@pytest.mark.parametrize(("num_others", "title"), [(398, "A"), (399, "A"), (400, None)])
def test_no_more_elements_are_read_whoever_reads_them(num_others, title):
    """Elements that the scan leaves out count as if they had been looked at."""
    html = "<meta name=viewport content=x>" * num_others + "<meta property=og:title content=A>" + f"<p>{PROSE}</p>"
    assert extract(html)["title"] == title


@pytest.mark.parametrize("before", ["", "<svg><![CDATA[<b>]]></svg>", "<script><!-- <script></script> --></script>"])
def test_metadata_is_read_whatever_stands_before_it(before):
    """Also where the scan says that a parser may see other tags than it does."""
    html = f"{before}<meta property=og:title content=A><script>var x = '<h1>'</script><p title='<'>{PROSE}</p>"
    found = extract(html)
    assert (found["title"], found["text"]) == ("A", normalize(PROSE).strip())
