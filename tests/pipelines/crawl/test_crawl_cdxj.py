"""The index of WARC files: what another indexer writes of the same file, and what a killed process left out."""

import json
from datetime import UTC, datetime

import pytest
from warcio.indexer import Indexer

from pipelines.crawl import crawl
from pipelines.crawl.cdxj import line, path_of, rebuild, surt


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://www.example.org/", "org,example)/"),
        ("https://example.org:8443/A/b?c=D", "org,example:8443)/a/b?c=d"),
        ("http://127.0.0.1:81/x", "1,0,0,127:81)/x"),
        ("http://xn--fiqs8s.cn/%E4%B8%AD", "cn,xn--fiqs8s)/%e4%b8%ad"),
        ("http://a.b.example.co.uk", "uk,co,example,b,a)/"),
    ],
)
def test_sort_key(url: str, key: str) -> None:
    assert surt(url) == key


def test_a_line_is_what_cdxj_indexer_writes() -> None:
    """Known answer: the key, the names and the values of cdxj-indexer 1.5.0."""
    written = line(
        url="http://example.com/a?b=1",
        at=datetime(2026, 11, 23, 22, 5, 7, 250_000, UTC),
        mime="text/html; charset=utf-8",
        status=200,
        digest="sha1:B6QJ6BNJ3R4B23XXMRKZKHLPGJY2VE4O",
        file_name="crawl-000001.warc.gz",
        offset=429,
        num_bytes=512,
    )
    assert written == (
        'com,example)/a?b=1 20261123220507 {"url": "http://example.com/a?b=1", "mime": "text/html", "status": "200",'
        ' "digest": "sha1:B6QJ6BNJ3R4B23XXMRKZKHLPGJY2VE4O", "length": "512", "offset": "429",'
        ' "filename": "crawl-000001.warc.gz"}'
    )


def test_an_index_says_what_another_library_reads_in_the_file(serve, config_for, tmp_path) -> None:
    site = serve(
        {
            "/": "<a href='/b?x=2&y=1'>b</a><a href='/a'>a</a><a href='/gone'>g</a><a href='/moved'>m</a>",
            "/a": "<p>text",
            "/b?x=2&y=1": "<p>中文",
            "/robots.txt": "User-agent: *\nDisallow: /private",
        }
    )
    result = crawl(config_for(site), tmp_path)
    (path,) = result.warc_paths
    own = path_of(path).read_text()
    lines = own.splitlines()
    assert lines == sorted(lines, key=str.encode)
    assert len(lines) == 6, "robots.txt, three pages and two 404s"
    names = ("warc-target-uri", "warc-payload-digest", "http:status", "offset", "length", "warc-type")
    Indexer(names, [str(path)], str(tmp_path / "index.jsonl")).process_all()
    other = [json.loads(each) for each in (tmp_path / "index.jsonl").read_text().splitlines()]
    wanted = sorted(tuple(each[name] for name in names[:5]) for each in other if each["warc-type"] == "response")
    names = ("url", "digest", "status", "offset", "length")
    assert sorted(tuple(_fields(each)[name] for name in names) for each in lines) == wanted

    path_of(path).unlink()
    rebuild(path)
    assert path_of(path).read_text() == own
    path_of(path).unlink()
    crawl(config_for(site), tmp_path)
    assert path_of(path).read_text() == own, "the next run writes what is missing"


def _fields(line: str) -> dict[str, str]:
    return json.loads(line.split(" ", 2)[2])
