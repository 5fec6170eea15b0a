"""The WARC reader: what it yields, and that damage costs only what is damaged."""

import gzip
import json
import os
import zlib
from datetime import UTC, datetime
from pathlib import Path

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from warc_files import http, packings, page, read, record

from pipelines.errors import ConfigError, InputError
from pipelines.schemas import PAGE
from pipelines.sources.pages import MAX_BATCH_BYTES, MAX_BATCH_ROWS, Page, batches
from pipelines.sources.warc import UNREAD, WITHDRAWALS, WarcOptions, read_pages

NUM_PAGES = 6


@pytest.fixture(params=["warc", "warc.gz", "warc.zst", "warc.lz4"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[bytes]]:
    """Where to write a file, and the packed records of six pages."""
    pack = packings(tmp_path)[request.param]
    return tmp_path / f"crawl.{request.param}", [pack(page(number)) for number in range(NUM_PAGES)]


def numbers(rows: list[dict]) -> list[int]:
    return [int(row["url"].rpartition("/")[2]) for row in rows if row["problem"] is None]


def problems(rows: list[dict]) -> list[str]:
    return [row["problem"] for row in rows if row["problem"] is not None]


def offset_of(members: list[bytes], index: int) -> int:
    return sum(map(len, members[:index]))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_every_packing_gives_the_same_pages_at_their_offsets(packed):
    path, members = packed
    rows = read(write(path, b"".join(members)))
    assert numbers(rows) == list(range(NUM_PAGES))
    assert problems(rows) == []
    assert [row["record_offset"] for row in rows] == [offset_of(members, index) for index in range(NUM_PAGES)]
    assert rows[3]["payload"].decode().startswith("<p>第3页")


def test_batches_have_the_page_schema_and_are_bounded(tmp_path):
    path = write(tmp_path / "many.warc", b"".join(record(http(b"<p>x")) for _ in range(2 * MAX_BATCH_ROWS + 1)))
    sizes = [batch.num_rows for batch in read_pages(path) if batch.schema.equals(PAGE)]
    assert sizes == [MAX_BATCH_ROWS, MAX_BATCH_ROWS, 1]


@given(st.lists(st.integers(0, 3 << 20), max_size=12))
@settings(max_examples=20, deadline=None)
def test_no_batch_exceeds_its_bytes(sizes):
    made = list(batches(Page(None, None, 200, None, (), bytes(size), n) for n, size in enumerate(sizes)))
    assert [row for batch in made for row in batch.column("record_offset").to_pylist()] == list(range(len(sizes)))
    assert all(batch.num_rows == 1 or batch.get_total_buffer_size() < MAX_BATCH_BYTES + 4096 for batch in made)


def test_what_is_a_page(tmp_path):
    data = b"".join(
        (
            record(b"software: test", kind="warcinfo", content_type="application/warc-fields"),
            record(b"GET / HTTP/1.1\r\n\r\n", kind="request", content_type="application/http;msgtype=request"),
            record(http(b"ok"), url="http://site.example/ok"),
            record(http(b"gone", "404 Not Found"), url="http://site.example/gone"),
            record(http(b"moved", "302 Found"), url="http://site.example/moved"),
            record(http(b""), kind="revisit", url="http://site.example/again"),
            record(b"<p>r", kind="resource", content_type="text/html", url="http://site.example/resource"),
            record(b"\x89PNG", kind="resource", content_type="image/png", url="http://site.example/image"),
            record("正文".encode(), kind="conversion", content_type="text/plain", url="http://site.example/wet"),
            record(b"1.2.3.4", content_type="text/dns", url="dns:site.example"),
            record(b"{}", kind="metadata", content_type="application/json"),
        )
    )
    rows = read(write(tmp_path / "kinds.warc", data))
    assert [(row["url"].rpartition("/")[2], row["status"], row["payload"].decode()) for row in rows] == [
        ("ok", 200, "ok"),
        ("gone", 404, "gone"),
        ("resource", 200, "<p>r"),
        ("wet", 200, "正文"),
    ]
    assert rows[0]["fetched_at"] == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert rows[3]["content_type"] == "text/plain; charset=utf-8"


def test_only_headers_that_carry_rights_are_kept(tmp_path):
    response = http(
        b"x",
        headers={
            "X-Robots-Tag": "noai",
            "x-robots-tag": "otherbot: none",
            "TDM-Reservation": "1",
            "Content-Usage": "train-ai=n",
            "Content-Signal": "ai-train=no",
            "Content-Language": "zh",
            "Link": '<https://l.example/by>; rel="license"',
            "link": "</style.css>; rel=preload",
            "Set-Cookie": "secret=1",
        },
    )
    (row,) = read(write(tmp_path / "rights.warc", record(response)))
    assert row["headers"] == [
        "x-robots-tag: noai",
        "x-robots-tag: otherbot: none",
        "tdm-reservation: 1",
        "content-usage: train-ai=n",
        "content-signal: ai-train=no",
        "content-language: zh",
        'link: <https://l.example/by>; rel="license"',
    ]
    assert row["content_type"] == "text/html; charset=utf-8"


SITE = ["robots.txt ai-agents: GPTBot, CCBot", "tdmrep.json: 1 /a: b", "unread: ai.txt answered 503"]


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (json.dumps(SITE), SITE),
        (json.dumps(["RSL :  prohibits ai-train\n (https://a.example/\ud800) "]),
         ["rsl: prohibits ai-train (https://a.example/?)"]),
        (json.dumps(SITE[:1] * 40), [SITE[0], UNREAD]),
        (json.dumps([f"ai.txt: Disallow: {n}" for n in range(33)]),
         [*(f"ai.txt: Disallow: {n}" for n in range(32)), UNREAD]),
        (json.dumps([SITE[0], "rsl: permits ai-train " + "x" * 2000]), [SITE[0], UNREAD]),
        (json.dumps(["content-signal: ai-train=yes", "license", ""]), [UNREAD]),  # no source of ours
        ("[]", []),
        ("", [UNREAD]),
        ("no json", [UNREAD]),
        (json.dumps(SITE)[:-9], [UNREAD]),
        ('{"rsl": "permits"}', [UNREAD]),
        ('["rsl: permits ai-train", 7]', [UNREAD]),
        ("[" * 9000, [UNREAD]),
        ("9" * 9000, [UNREAD]),
        ('["rsl: x"]\r\nCorpusmill-Directives: ["ai.txt: Disallow: /"]', ["rsl: x", "ai.txt: Disallow: /"]),
        ('["rsl: x"]\r\nCORPUSMILL-DIRECTIVES: x', [UNREAD]),
    ],
)  # fmt: skip
def test_directives_of_the_site_come_with_the_record(tmp_path, field, found):
    fields = {"Corpusmill-Directives": field}
    data = record(http(b"x", headers={"X-Robots-Tag": "noai"}), fields=fields) + record(b"no http", fields=fields)
    page, broken = read(write(tmp_path / "site.warc", data))
    assert page["headers"] == ["x-robots-tag: noai", *found]
    assert (broken["headers"], broken["problem"]) == (found, "bad_http")


def test_a_field_longer_than_a_header_may_be_costs_its_record_only(tmp_path):
    data = record(http(b"x"), fields={"Corpusmill-Directives": json.dumps(["rsl: " + "x" * 40_000])}) + page(1)
    rows = read(write(tmp_path / "long.warc", data))
    assert (numbers(rows), problems(rows)) == ([1], ["warc_corrupt"])


def withdrawal(url: str, outcome: str, body: bytes = b"outcome: x\r\n", **fields: str) -> bytes:
    return record(
        body,
        kind="metadata",
        content_type="application/warc-fields",
        url=url,
        fields={"Corpusmill-Outcome": outcome, "Corpusmill-Directives": json.dumps(SITE), **fields},
    )


def test_what_was_withdrawn_is_a_row_and_what_speaks_for_the_site_is_none(packed):
    path, members = packed
    pack = packings(path.parent)[path.name.removeprefix("crawl.")]
    reservation = {"Corpusmill-Role": "reservation"}
    data = (
        record(http(b"User-agent: *"), url="http://site.example/robots.txt"),
        record(http(b"gone", "404 Not Found"), url="https://other.example:8443/robots.txt?x"),
        record(http(b"[]"), url="http://site.example/.well-known/tdmrep.json", fields=reservation),
        *(withdrawal(f"http://site.example/{outcome}", outcome) for outcome in sorted(WITHDRAWALS)),
        withdrawal("http://site.example/failed", "http_503"),
        withdrawal("http://site.example/long", "reserved", b"x" * 9000),
        record(b"", kind="revisit", url="http://site.example/1", fields={"WARC-Refers-To": "<urn:uuid:1>"}),
        record(http(b"", "304 Not Modified"), kind="revisit", url="http://site.example/2"),
        record(http(b"a page"), url="http://site.example/a/robots.txt"),
        record(http(b"a page"), url="http://[bad/robots.txt"),
    )
    rows = read(write(path, members[0] + b"".join(map(pack, data)) + members[1]))
    assert [(row["url"].rpartition("example/")[2], row["status"], row["problem"]) for row in rows] == [
        ("0", 200, None),
        ("reserved", 0, "reserved"),
        ("robots_disallowed", 0, "robots_disallowed"),
        ("long", 0, "reserved"),
        ("a/robots.txt", 200, None),
        ("http://[bad/robots.txt", 200, None),
        ("1", 200, None),
    ]
    gone = rows[1]
    assert (gone["headers"], gone["payload"], gone["content_type"]) == (SITE, b"outcome: x\r\n", None)
    assert gone["fetched_at"] == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert len(rows[3]["payload"]) == 4096


BODY = "<p>正文 body</p>".encode() * 40
RAW_DEFLATE = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    ("headers", "sent", "expected", "problem"),
    [
        ({"Content-Encoding": "gzip"}, gzip.compress(BODY, mtime=0), BODY, None),
        ({"Content-Encoding": "gzip"}, BODY, BODY, None),  # the archive decoded it and kept the header
        ({"Content-Encoding": "gzip"}, gzip.compress(BODY, mtime=0)[:-20], b"", "bad_encoding"),
        (
            {"Content-Encoding": "gzip"},
            gzip.compress(BODY[:99], mtime=0) + gzip.compress(BODY[99:], mtime=0),
            BODY,
            None,
        ),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"", mtime=0) * 100, b"", "bad_encoding"),
        ({"Content-Encoding": "deflate"}, zlib.compress(BODY), BODY, None),
        ({"Content-Encoding": "deflate"}, RAW_DEFLATE.compress(BODY) + RAW_DEFLATE.flush(), BODY, None),
        ({"Content-Encoding": "br"}, brotli.compress(BODY), BODY, None),
        ({"Content-Encoding": "zstd"}, zstandard.compress(BODY), BODY, None),
        ({"Content-Encoding": "deflate, gzip"}, gzip.compress(zlib.compress(BODY), mtime=0), BODY, None),
        ({"Content-Encoding": "UTF-8"}, BODY, BODY, None),
        ({"Content-Encoding": "br"}, bytes(range(256)), b"", "bad_encoding"),
        ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n3;x=y\r\n wo\r\n0\r\n\r\n", b"hello wo", None),
        ({"Transfer-Encoding": "chunked"}, BODY, BODY, None),
        ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\nff\r\ncut", b"", "bad_encoding"),
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(20_000), mtime=0), b"", "too_large"),  # a bomb
        ({"Content-Encoding": "br"}, brotli.compress(bytes(20_000)), b"", "too_large"),
        ({}, b"x" * 20_000, b"", "too_large"),
    ],
)
def test_codings_are_undone_by_what_the_bytes_say(tmp_path, headers, sent, expected, problem):
    data = record(http(sent, headers=headers)) + page(7)
    rows = read(write(tmp_path / "coded.warc", data), WarcOptions(max_page_bytes=10_000))
    assert (rows[0]["payload"], rows[0]["problem"]) == (expected, problem)
    assert numbers(rows[1:]) == [7]  # whatever happens to one page, the next is read


@pytest.mark.parametrize(
    "response", [b"no http at all", b"HTTP/1.1 abc\r\n\r\nx", b"HTTP/1.1 200 OK\r\nA" + b"x" * 99_999]
)
def test_broken_http_is_a_row(tmp_path, response):
    rows = read(write(tmp_path / "bad.warc", record(response) + page(1)))
    assert problems(rows) == ["bad_http"]
    assert numbers(rows) == [1]


def test_odd_urls_and_dates_reach_arrow(tmp_path):
    odd = (
        record(http(b"x"), url="<http://a.example/b c>", date="2024")
        + record(http(b"x"), url="QQ").replace(b"QQ", b"\xff\xfe")
        + record(http(b"x"), url="")
    )
    rows = read(write(tmp_path / "odd.warc", odd))
    assert next((row["url"], row["fetched_at"]) for row in rows) == ("http://a.example/b c", None)
    assert [row["url"] for row in rows][1:] == ["\N{REPLACEMENT CHARACTER}" * 2, None]


@pytest.mark.parametrize("cut", [5, 60, 500, -30])
def test_a_truncated_file_keeps_what_stands_before(packed, cut):
    path, members = packed
    data = b"".join(members[:3]) + members[3][:cut]
    rows = read(write(path, data))
    assert numbers(rows) == [0, 1, 2]
    assert problems(rows) == ["warc_truncated"]
    assert rows[-1]["record_offset"] == offset_of(members, 3)
    assert data[rows[-1]["record_offset"] :].startswith(rows[-1]["payload"])


def test_reading_goes_on_after_a_corrupt_record(packed):
    path, members = packed
    broken = bytearray(members[2])
    if path.suffix == ".warc":
        broken = bytearray(members[2].replace(b"Content-Length", b"Content-Lenght", 1))
    elif path.suffix == ".lz4":  # the writers leave out lz4's checksums
        broken[:4] = bytes(4)
    else:
        broken[700:720] = bytes(20)
    rows = read(write(path, b"".join((*members[:2], bytes(broken), *members[3:]))))
    assert set(numbers(rows)) >= {0, 1, 3, 4, 5}
    assert problems(rows) == ["warc_corrupt"]


def test_reading_goes_on_after_garbage_between_records(packed):
    path, members = packed
    rows = read(write(path, b"".join((*members[:2], b"GARBAGE\r\n" * 30, *members[2:]))))
    assert numbers(rows) == list(range(NUM_PAGES))
    assert problems(rows) == ["warc_corrupt"]


def test_reading_goes_on_after_a_broken_start(packed):
    path, members = packed
    rows = read(write(path, b"\xff" * 50 + b"\r\n" + b"".join(members)))
    assert numbers(rows) == list(range(NUM_PAGES))
    assert problems(rows) == ["warc_corrupt"]


@pytest.mark.parametrize("shift", [-500, 500])
def test_a_wrong_content_length_loses_no_other_page(tmp_path, shift):
    records = [page(number) for number in range(NUM_PAGES)]
    head, _, body = records[2].partition(b"\r\n\r\n")
    length = len(body) - 4
    records[2] = head.replace(str(length).encode(), str(length + shift).encode()) + b"\r\n\r\n" + body
    rows = read(write(tmp_path / "length.warc", b"".join(records)))
    assert numbers(rows) == list(range(NUM_PAGES))
    assert problems(rows) == ["warc_corrupt"]


def test_all_records_in_one_gzip_member(tmp_path):
    data = gzip.compress(b"".join(page(number) for number in range(NUM_PAGES)), mtime=0)
    assert numbers(read(write(tmp_path / "one.warc.gz", data))) == list(range(NUM_PAGES))
    cut = read(write(tmp_path / "cut.warc.gz", data[: len(data) // 2]))
    assert numbers(cut) == [0, 1]
    assert problems(cut) == ["warc_truncated"]


def test_two_damages_bear_different_evidence(tmp_path):
    first = read(write(tmp_path / "a.warc", page(0) + page(1)[:400]))
    second = read(write(tmp_path / "b.warc", page(0) + page(2)[:400]))
    assert first[-1]["payload"] != second[-1]["payload"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"<html>hello</html>" * 99, "no WARC record"),
        (gzip.compress(b"<html>hello</html>" * 99, mtime=0), "no WARC record"),
        (b"\x1f\x8b\x08" + bytes(range(256)) * 9, "no WARC record"),
        (b"filedesc://x.arc 127.0.0.1 20140301000000 text/plain 1\n", "ARC file"),
        (gzip.compress(b"filedesc://x.arc 127.0.0.1 20140301000000 text/plain 1\n", mtime=0), "ARC file"),
    ],
    ids=["html", "packed html", "broken gzip", "arc", "packed arc"],  # data holds the time of packing
)
def test_what_is_no_warc_is_refused(tmp_path, data, sentence):
    with pytest.raises(InputError, match=sentence) as raised:
        read(write(tmp_path / "x.warc.gz", data))
    assert "x.warc.gz" in str(raised.value)


def test_a_gz_that_is_not_gzip_is_read_as_what_it_is(tmp_path):
    assert numbers(read(write(tmp_path / "plain.warc.gz", page(0) + page(1)))) == [0, 1]


@pytest.mark.parametrize(
    ("packing", "name"), [("warc.zst", "a.warc.gz"), ("warc.gz", "a.warc"), ("warc.lz4", "a.html")]
)
def test_the_packing_is_told_from_the_bytes(tmp_path, packing, name):
    pack = packings(tmp_path)[packing]
    assert numbers(read(write(tmp_path / name, b"".join(pack(page(number)) for number in range(3))))) == [0, 1, 2]


@pytest.mark.parametrize("content", [b"<html><body>no archive</body></html>" * 99, b"\x00" * 5000, b"{}\n" * 2000])
@pytest.mark.parametrize("suffix", ["warc", "warc.gz", "warc.zst"])
def test_what_only_bears_the_name_of_a_warc_is_refused(tmp_path, suffix, content):
    with pytest.raises(InputError, match="no WARC record"):
        read(write(tmp_path / f"page.{suffix}", packings(tmp_path)[suffix](content)))


def test_concatenated_files_are_read_as_one(tmp_path):
    """With a warcinfo record in the middle, WET after WARC, and between the two the end of a file that was cut."""
    info = record(b"software: test", kind="warcinfo", content_type="application/warc-fields")
    wet = record("正文".encode(), kind="conversion", content_type="text/plain", url="http://site.example/9")
    parts = [
        gzip.compress(info, mtime=0),
        gzip.compress(page(0), mtime=0),
        gzip.compress(page(1), mtime=0)[:-40],
        gzip.compress(info, mtime=0),
    ]
    rows = read(
        write(
            tmp_path / "joined.warc.gz",
            b"".join([*parts, gzip.compress(page(2), mtime=0), gzip.compress(wet, mtime=0)]),
        )
    )
    assert set(numbers(rows)) >= {0, 2, 9}
    assert problems(rows) == ["warc_corrupt"]
    plain = read(write(tmp_path / "joined.warc", info + page(0) + page(1)[:-40] + info + page(2) + wet))
    assert set(numbers(plain)) >= {0, 2, 9}


def test_a_truncated_wet_file_keeps_what_stands_before(packed):
    path, _ = packed
    pack = packings(path.parent)[path.name.removeprefix("crawl.")]
    text = "".join(str(n * 7919 % 1_000_003) for n in range(900)).encode()
    wet = [
        pack(record(text, kind="conversion", content_type="text/plain", url=f"http://site.example/{number}"))
        for number in range(3)
    ]
    for cut in (30, len(wet[2]) // 2):
        rows = read(write(path, b"".join(wet)[: len(wet[0]) + len(wet[1]) + cut]))
        assert (numbers(rows), problems(rows)) == ([0, 1], ["warc_truncated"])


def test_a_file_a_writer_never_filled(tmp_path):
    assert problems(read(write(tmp_path / "empty.warc", b""))) == ["warc_truncated"]
    assert problems(read(write(tmp_path / "head.warc", b"WARC/1."))) == ["warc_truncated"]
    assert read(write(tmp_path / "none.warc.gz", gzip.compress(b"", mtime=0))) == []


def test_options_are_checked():
    with pytest.raises(ConfigError, match="max_page_bytes 0"):
        WarcOptions(max_page_bytes=0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_ends_in_rows_and_never_in_an_exception(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    suffix = data.draw(st.sampled_from(["warc", "warc.gz", "warc.zst"]))
    content = bytearray(b"".join(map(packings(folder)[suffix], (page(0, 400), page(1, 400), page(2, 400)))))
    whole = {row["url"]: row["payload"] for row in read(write(folder / "whole", bytes(content)))}
    position = data.draw(st.integers(40, len(content) - 1))
    content[position : position + 4] = data.draw(st.binary(min_size=0, max_size=12))
    rows = read(write(folder / "broken", bytes(content)))
    intact = [row["url"] for row in rows if row["problem"] is None and whole.get(row["url"]) == row["payload"]]
    assert len(intact) >= 2  # one damage costs one page at most


REAL = {
    "cc-whirlwind/whirlwind.warc": (1, {}),
    "cc-whirlwind/whirlwind.warc.gz": (1, {}),
    "cc-whirlwind/whirlwind.warc.wet": (1, {}),
    "cc-whirlwind/whirlwind.warc.wet.gz": (1, {}),
    "cc-whirlwind/whirlwind.warc.wat.gz": (0, {}),
    "dolma/tests/data/warc/sample-0000.warc.gz": (22, {}),
    "dolma/tests/data/warc/sample-0001.warc.gz": (15, {}),
    "jwarc/test-resources/org/netpreserve/jwarc/cc.warc.gz": (1, {}),
    "jwarc/test-resources/org/netpreserve/jwarc/gzip_extra_sl.warc.gz": (0, {}),
    "resiliparse/tests/data/block-sized-records.warc": (0, {}),
    "resiliparse/tests/data/block-sized-records.warc.lz4": (0, {}),
    "resiliparse/tests/data/clipped.warc.gz": (0, {"warc_truncated": 1}),
    "resiliparse/tests/data/clueweb-quirk.warc.gz": (29, {}),
    "resiliparse/tests/data/warcfile.warc": (16, {}),
    "resiliparse/tests/data/warcfile.warc.gz": (16, {}),
    "resiliparse/tests/data/warcfile.warc.lz4": (16, {}),
    "warcio/test/data/example-bad-non-chunked.warc.gz": (1, {}),
    "warcio/test/data/example-bad.warc.gz.bad": (1, {}),
    "warcio/test/data/example-digest.warc": (0, {}),
    "warcio/test/data/example-iana.org-chunked.warc": (1, {}),
    "warcio/test/data/example-resource.warc.gz": (1, {}),
    "warcio/test/data/example-space-in-target-uri.warc.gz": (0, {}),
    "warcio/test/data/example-trunc.warc": (0, {"bad_encoding": 1, "warc_corrupt": 1}),
    "warcio/test/data/example-wget-bad-target-uri.warc.gz": (1, {}),
    "warcio/test/data/example-wrong-chunks.warc.gz": (1, {}),
    "warcio/test/data/example.warc": (1, {}),
    "warcio/test/data/example.warc.gz": (1, {}),
    "warcio/test/data/post-test.warc.gz": (3, {}),
}


@pytest.fixture
def warc_folder() -> Path:
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    return Path(os.environ["CORPUSMILL_TEST_DATA"]) / "warc"


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_files(warc_folder, name):
    rows = read(warc_folder / name)
    found = problems(rows)
    assert (len(rows) - len(found), {problem: found.count(problem) for problem in found}) == REAL[name]
    assert all(row["payload"] for row in rows if row["problem"] is None)


@pytest.mark.real_data
def test_the_same_pages_in_every_packing(warc_folder):
    folder = warc_folder / "resiliparse/tests/data"
    plain, packed_gz, packed_lz4 = (
        [(row["url"], row["payload"]) for row in read(folder / f"warcfile.warc{suffix}")]
        for suffix in ("", ".gz", ".lz4")
    )
    assert plain == packed_gz == packed_lz4


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["bad.arc", "example.arc", "example.arc.gz", "example-space-in-url.arc"])
def test_real_arc_files_are_refused(warc_folder, name):
    with pytest.raises(InputError, match="ARC file"):
        read(warc_folder / "warcio/test/data" / name)
