"""Block lists: what an entry stands for, the formats, and what is no entry, named with its line."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.blocklists import BlockIndex, BlockList, BlockListKind, blocked_by, list_names, load_block_lists
from pipelines.digest import digest_file, digest_value
from pipelines.errors import ConfigError
from pipelines.stage import Resource

DOMAINS, URLS = BlockListKind.DOMAINS, BlockListKind.URLS


def listed(tmp_path: Path, content: str | bytes, kind: BlockListKind, name: str = "mine") -> BlockList:
    path = tmp_path / f"{name}.{kind}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return BlockList(name=name, kind=kind, file=Resource(digest_file(path), str(path)))


def index(tmp_path: Path, domains: str | bytes = "", urls: str | bytes = "") -> BlockIndex:
    return load_block_lists((listed(tmp_path, domains, DOMAINS), listed(tmp_path, urls, URLS)))


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("https://bad.example/", "bad.example"),
        ("https://www.bad.example/a?b", "bad.example"),
        ("http://a.b.BAD.example.:8080/", "bad.example"),
        ("https://user:pw@bad.example/", "bad.example"),
        ("https://notbad.example/", None),
        ("https://bad.example.org/", None),
        ("https://example/bad.example", None),
        ("https://sub.site.co.uk/", "sub.site.co.uk"),
        ("https://site.co.uk/", None),
        ("https://例子.中国/页", "xn--fsqu00a.xn--fiqs8s"),
        ("https://www.xn--fsqu00a.xn--fiqs8s/", "xn--fsqu00a.xn--fiqs8s"),
        ("http://192.0.2.9/x", "192.0.2.9"),
        ("http://9.192.0.2/x", None),
        ("", None),
        (None, None),
        ("http://[::1", None),
        ("https:///", None),
    ],
)
def test_a_domain_stands_for_all_below_it(tmp_path, url, entry):
    lists = index(tmp_path, "# ours\nBad.Example\nsub.site.co.uk # why\n例子.中国\n192.0.2.9\n")
    assert blocked_by(lists, [url]) == [f"mine: {entry}" if entry else None]


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("https://a.example/x", "a.example/x"),
        ("http://www.A.example:80/X/y#z", "a.example/x"),
        ("https://a.example/x?y=1", "a.example/x"),
        ("https://a.example//x/", "a.example/x"),
        ("https://a.example/b/../x/y", "a.example/x"),
        ("https://a.example/%78/y", "a.example/x"),
        ("https://a.example/xy", None),
        ("https://a.example/", None),
        ("https://b.a.example/x", None),
        ("https://c.example/deep/er/page/1/2/3", "c.example/deep/er"),
        ("https://d.example/?id=7", "d.example?id=7"),
        ("https://d.example/?id=7&x=2", "d.example?id=7"),
        ("https://d.example/?id=71", None),
        ("https://e.example/any", "e.example"),
        ("https://f.example/PORN/a", "f.example/porn"),  # datatrove lower-cases its lists, but not the URL
        ("https://f.example/页面/a", None),
        ("https://g.example/%E9%A1%B5/a", "g.example/页"),
    ],
)
def test_a_url_stands_for_all_below_it(tmp_path, url, entry):
    urls = (
        "https://a.example/x\nhttp://c.example/deep/er/*\nd.example/?id=7\ne.example\nf.example/porn/\ng.example/页\n"
    )
    assert blocked_by(index(tmp_path, urls=urls), [url]) == [f"mine: {entry}" if entry else None]


def test_hosts_files_gzip_marks_and_line_ends(tmp_path):
    hosts = (
        "\ufeff# a hosts file\r\n127.0.0.1 localhost\r\n::1 localhost ip6-loopback\r\n255.255.255.255 broadcasthost\r\n"
        "fe80::1%lo0 localhost\r\n0.0.0.0 0.0.0.0\r\n0.0.0.0 ads.example\r\n127.0.0.1\ttwo.example three.example # x\r\n"
        "0.0.0.0 last.example"
    )
    for content in (hosts.encode(), gzip.compress(hosts.encode())):
        lists = index(tmp_path, content)
        urls = [f"http://{name}.example/" for name in ("ads", "two", "three", "last", "four")]
        assert [bool(found) for found in blocked_by(lists, urls)] == [True] * 4 + [False]
        assert blocked_by(lists, ["http://localhost/"]) == [None]
        assert len(lists.domains) == 4


def test_the_most_general_entry_and_the_first_list_are_named(tmp_path):
    one = listed(tmp_path, "a.bad.example\nsame.example\n", DOMAINS, "one")
    two = listed(tmp_path, "bad.example\nsame.example\n", DOMAINS, "two")
    lists = load_block_lists((one, two, listed(tmp_path, "same.example/x\nu.example/x\n", URLS, "three")))
    urls = ["http://a.bad.example/", "http://same.example/x", "http://u.example/x/y"]
    assert blocked_by(lists, urls) == ["two: bad.example", "one: same.example", "three: u.example/x"]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("a.example\n\nb c.example\n", DOMAINS, "'b c.example' in line 3, wanted one domain"),
        ("a.example\ncom\n", DOMAINS, "'com' in line 2"),
        ("a.example/x\n", DOMAINS, "in line 1"),
        ("*.a.example\n", DOMAINS, "in line 1"),
        ("||a.example^\n", DOMAINS, "in line 1"),
        ("a.example\nhttp:///x\n", URLS, "in line 2, wanted one URL"),
        ("a.example/b c\n", URLS, "in line 1"),
        (b"\xff\xfe\n", DOMAINS, "wanted UTF-8"),
        (b"\x1f\x8bgarbage", DOMAINS, "cannot be read"),
        (gzip.compress(b"a.example\n" * 1000)[:40], DOMAINS, "cannot be read"),
        ("a" * 40_000, DOMAINS, "a line above 16 KiB"),
        ("x.example\n" * 300_000 + "bad line\n", DOMAINS, "in line 300001"),
    ],
)
def test_what_is_no_entry_is_named_with_its_line(tmp_path, content, kind, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_block_lists((listed(tmp_path, content, kind),))
    assert str(caught.value).startswith("got block list mine.")


def test_a_list_is_known_by_name_and_content():
    assert list_names(["/lists/adult/domains.gz", "ut1/malware/domains.txt", "mine.txt", "../x.hosts"]) == [
        "adult/domains",
        "malware/domains",
        "mine",
        "x",
    ]
    with pytest.raises(ConfigError, match="two block lists named 'a/x'"):
        list_names(["a/x.txt", "b/a/x.gz"])
    here = BlockList(name="a", kind=DOMAINS, file=Resource("0", "here"))
    there = BlockList(name="a", kind=DOMAINS, file=Resource("0", "there"))
    assert digest_value(here) == digest_value(there)
    assert digest_value(here) != digest_value(BlockList(name="b", kind=DOMAINS, file=here.file))


LABEL = st.text("ab1", min_size=1, max_size=2)
HOST = st.lists(LABEL, min_size=2, max_size=4).map(".".join)


@given(st.lists(HOST, max_size=6), st.lists(HOST, max_size=6))
def test_domains_agree_with_the_plain_definition(tmp_path_factory, entries, hosts):
    lists = index(tmp_path_factory.mktemp("lists"), "".join(f"{entry}\n" for entry in entries))
    expected = [any(host == entry or host.endswith(f".{entry}") for entry in entries) for host in hosts]
    assert [bool(found) for found in blocked_by(lists, [f"https://{host}/p" for host in hosts])] == expected


def test_hostile_urls_cost_no_time(tmp_path):
    lists = index(tmp_path, "bad.example\n", "a.example/x/y/z\n")
    urls = [
        "http://" + "a." * 500_000,
        "http://a.example/" + "x/" * 500_000,
        "%" * 1_000_000,
        "http://a.example/" + "/." * 99_999,
    ]
    assert blocked_by(lists, urls) == [None] * 4
