"""Licences and RSL in headers, elements, JSON-LD and microdata, and the directives of the site, as lines of evidence."""

import json

import pytest
from extract_pages import extract
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.extract.rights import creative_commons_url

BY = "https://creativecommons.org/licenses/by/4.0/"
SITE = [
    "robots.txt content-signal: ai-train=no",
    "robots.txt content-usage: train-ai=n",
    "robots.txt ai-agents: GPTBot, CCBot",
    "tdmrep.json: 1 /a/*",
    "ai.txt: Disallow: *.html",
    "rsl: prohibits ai-train (https://site.example/license.xml)",
    "unread: tdmrep.json answered 503",
]


def directives(html: str, headers: list[str] | None = None, **options) -> list[str]:
    return extract(f"<body><p>text</p>{html}", headers=headers or [], **options)["directives"]


@pytest.mark.parametrize("problem", [None, "robots_disallowed", "reserved", "too_large"])
def test_directives_of_the_site_are_passed_on(problem):
    row = extract("<p>x</p>", headers=["content-language: en", "server: ai.txt", *SITE], problem=problem)
    assert row["directives"] == SITE
    assert row["problem"] == problem
    assert row["text"] == ("" if problem else "x")


def ld(value: object, **attributes: str) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"<script type='application/ld+json'>{text}</script>"


@pytest.mark.parametrize(
    ("html", "found"),
    [
        (f"<link rel=license href={BY}>", [BY]),
        (f"<area rel='license nofollow' href={BY}>", [BY]),
        ("<link rel='cc:license' href=/own>", ["http://site.example/own"]),
        (f"<a rel='nocc:license' href={BY}>", []),
        ("<a rel=license href=mailto:x@y.example>", []),
        (f"<a itemprop='license other' href={BY}>", [BY]),
        (f"<meta itemprop=license content={BY}>", [BY]),
        (f"<html itemprop=license href={BY}>", [BY]),
        (f"<link href={BY} title=a rel=license>", [BY]),
        (f"<a id=a href={BY} class=b itemprop=license onclick='c>d'>e</a>", [BY]),
        ("<meta itemprop=license content='CC BY 4.0'>", [BY]),
        ("<span itemprop=license>all mine</span>", []),
        (f"<div itemscope itemtype=https://schema.org/ImageObject><a itemprop=license href={BY}></a></div>", []),
        (f"<div itemscope itemtype=https://schema.org/Article><a itemprop=license href={BY}></a></div>", [BY]),
        (f"<meta name=dcterms.rights content='{BY}'>", [BY]),
        ("<meta name=DC.rights content='知识共享署名 4.0 国际'>", [BY]),
        ("<meta name=dc.rights content='All rights reserved'>", []),
        (ld({"license": BY}), [BY]),
        (ld({"@type": "Article", "usageInfo": "/terms", "license": {"@type": "CreativeWork", "url": BY}}),
         ["http://site.example/terms", BY]),
        (ld({"@graph": [{"@type": "WebPage"}, {"@type": "Article", "license": [{"@id": BY}, BY, 7, None]}]}), [BY]),
        (ld([{"isPartOf": {"schema:license": "CC-BY-4.0"}}]), [BY]),
        (ld({"image": {"@type": ["ImageObject"], "license": BY}}), []),
        (ld({"license": "MIT"}), []),
        (ld('{"license": "' + BY), []),
        (ld(f'{{"name": "a\nb", "license": "{BY}"}}'), [BY]),  # a raw line end, as many sites write it
        (ld("[" * 5000 + f'{{"license": "{BY}"}}' + "]" * 5000), []),
        (ld("7"), []),
        (ld(json.dumps({"license": BY, "text": "</script><a rel=license href=/x>"})), ["http://site.example/x"]),
        (f"<script type=application/json>{json.dumps({'license': BY})}</script>", []),
        ("".join(f"<a rel=license href=/{n}>{n}</a>" for n in range(30)),
         [*(f"http://site.example/{n}" for n in range(9)), "and 21 others"]),
        (f"<a rel=license href={BY}>x</a>" * 99 + "<a rel=license href=/own>x</a>", [BY, "http://site.example/own"]),
    ],
)  # fmt: skip
def test_licences_of_a_page(html, found):
    row = extract(f"<body><p>text</p>{html}")
    assert row["directives"] == [f"license: {url}" for url in found]
    assert row["license_url"] == (found[0] if found else None)


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (f'<{BY}>; rel="license"', [f"license: {BY}"]),
        (f"</x>; rel=preload, <{BY}>; title=a; REL='nofollow License'", [f"license: {BY}"]),
        ("</own>; rel=license", ["license: http://site.example/own"]),
        ("</license.css>; rel=stylesheet", []),
        (f'<{BY}>; rel="author"; rel="license"', []),  # RFC 8288: the first counts
        ('</license.xml>; rel="license"; type="application/rsl+xml"', ["rsl link: http://site.example/license.xml"]),
        ("</l.xml>;type=application/rsl+xml;rel=license", ["rsl link: http://site.example/l.xml"]),
        (f"<{'x' * 9000}>; rel=license", []),
        ("<" * 4000 + ";rel=" * 3000, []),
    ],
)
def test_links_in_the_header(value, lines):
    for options in ({}, {"status": 404}, {"content_type": "text/plain"}):
        assert extract("<p>x", headers=[f"link: {value}"], **options)["directives"] == lines


def test_an_rsl_document_is_named_once_and_is_no_licence():
    html = (
        "<link rel=license TYPE='Application/RSL+xml; charset=utf-8' href=/license.xml>"
        f"<a rel=license href=/license.xml>licence</a><a rel=license href={BY}>CC</a>"
    )
    row = extract(html, headers=["link: </license.xml>; rel=license; type=application/rsl+xml"])
    assert row["directives"] == ["rsl link: http://site.example/license.xml", f"license: {BY}"]
    assert row["license_url"] == BY
    assert directives("<link rel=license type=application/rsl+xml href='http://[bad'>") == ["rsl link: http://[bad"]


RSL = (
    '<rsl xmlns="https://rslstandard.org/rsl"><content url="{pattern}"><license><prohibits type="usage">ai-train'
    "</prohibits></license></content></rsl>"
)


def test_rsl_in_the_page_is_resolved_for_its_url():
    def inline(pattern: str, count: int = 1) -> list[str]:
        return directives(f"<script type='application/rsl+xml'>{RSL.format(pattern=pattern)}</script>" * count)

    assert inline("/a/*") == ["rsl: prohibits ai-train (http://site.example/a/page)"]
    assert not any("prohibits" in line for line in inline("/b/*"))
    assert any(line.startswith("unread: more than 8") for line in inline("/b/*", 9))
    assert all(line.startswith("unread:") for line in directives("<script type=application/rsl+xml><rsl></script>"))
    assert directives("<script type=application/rsl+xml><rsl></script>")


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("CC0", "publicdomain/zero/1.0"),
        ("CC Zero 1.0, all of it", "publicdomain/zero/1.0"),
        ("CC BY 4.0", "licenses/by/4.0"),
        ("cc-by-nc-sa-3.0", "licenses/by-nc-sa/3.0"),
        ("Licensed under CC BY-NC-ND (v 2.5)", "licenses/by-nc-nd/2.5"),
        ("Creative Commons Attribution-ShareAlike 4.0 International License", "licenses/by-sa/4.0"),
        ("Creative Commons Attribution-NonCommercial-NoDerivs License, version 3.0", "licenses/by-nc-nd/3.0"),
        ("知识共享署名-非商业性使用-相同方式共享 4.0 国际许可协议", "licenses/by-nc-sa/4.0"),
        ("創用CC 姓名標示-禁止改作 3.0", "licenses/by-nd/3.0"),
        ("CC BY", None),  # which version is not said
        ("CC BY-NC-XY 4.0", None),
        ("CC bypass 4.0", None),
        ("CC BY 4.07", None),
        ("account by 4.0", None),
        ("All rights reserved 4.0", None),
        ("CC0815", None),
    ],
)
def test_creative_commons_in_words(words, path):
    assert creative_commons_url(words) == (path and f"https://creativecommons.org/{path}/")


JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from([BY, "/x", "CC0", "https://x.example/\ud800", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["license", "url", "@id", "@type", "@graph", "usageInfo"]), inner, max_size=4)
    ),
)


@settings(max_examples=100, deadline=None)
@given(JSON, st.integers(0, 200))
def test_any_json_ld_is_bounded_and_read_alike(value, cut):
    text = json.dumps(value)
    for html in (ld(text), ld(text[:cut])):
        found = directives(html)
        assert found == directives(html)
        assert len(found) <= 10
        assert all(line.startswith(("license: http", "license: and ")) for line in found)
