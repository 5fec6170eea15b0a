"""The text reader: every format and packing, and rows that are no text."""

import contextlib
import gzip
import json
import os
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError, InputError
from pipelines.schemas import PAGE
from pipelines.sources import READERS
from pipelines.sources.text import TextOptions, read_rows

ROWS = [
    {"text": "Plain text.", "url": "http://a.example/1", "date": "2024-05-06T07:08:09Z"},
    {"text": "你好，世界", "url": "http://a.example/2", "date": "not a date"},
    {"text": "no url", "url": None, "date": None},
]
TIMES = [datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), None, None]


def read(path: Path, **options) -> list[dict]:
    found = list(read_rows(path, TextOptions(**options)))
    assert all(batch.schema.equals(PAGE) for batch in found)
    return [row for batch in found for row in batch.to_pylist()]


def lines(*rows: object) -> bytes:
    return "".join(
        (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows
    ).encode()


def arrow(path: Path, opener) -> bytes:
    table = pa.Table.from_pylist(ROWS)
    with opener(str(path), table.schema) as writer:
        writer.write_table(table)
    return path.read_bytes()


def parquet(path: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path.read_bytes()


FORMATS = {
    "rows.jsonl": lambda folder: lines(*ROWS),
    "rows.ndjson": lambda folder: lines(*ROWS),
    "rows.json": lambda folder: b"\n" + lines(*ROWS),
    "rows.parquet": lambda folder: parquet(folder / "made"),
    "rows.arrow": lambda folder: arrow(folder / "made", pa.ipc.new_file),
    "stream.arrow": lambda folder: arrow(folder / "made", pa.ipc.new_stream),
}


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_and_packing_gives_the_same_rows(tmp_path, name, suffix, pack):
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(pack(FORMATS[name](tmp_path)))
    rows = read(path)
    assert [row["payload"].decode() for row in rows] == [row["text"] for row in ROWS]
    assert [row["url"] for row in rows] == [row["url"] for row in ROWS]
    assert [row["fetched_at"] for row in rows] == TIMES
    assert [row["record_offset"] for row in rows] == [0, 1, 2]
    assert {(row["status"], row["content_type"], row["problem"]) for row in rows} == {
        (200, "text/plain; charset=utf-8", None)
    }


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_a_plain_text_file_is_one_document(tmp_path, suffix, pack):
    path = tmp_path / f"论语.txt{suffix}"
    path.write_bytes(pack("学而时习之\n不亦说乎\n".encode("gb18030")))
    (row,) = read(path)
    assert row["payload"].decode("gb18030") == "学而时习之\n不亦说乎\n"
    assert (row["content_type"], row["problem"]) == ("text/plain", None)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{not json", "bad_row"),
        ("[1, 2]", "bad_row"),
        ('{"url": "http://a.example/"}', "bad_row"),
        ('{"text": null}', "bad_row"),
        ('{"text": 7}', "bad_row"),
        ("[" * 99_000, "bad_row"),
        ('{"text": "' + "长" * 40_000 + '"}', "too_large"),
        ('{"text": "' + "x" * 99_990 + '"}', "too_large"),
    ],
)
def test_a_row_without_text_is_counted_not_lost(tmp_path, line, problem):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(ROWS[0], line, ROWS[1]))
    rows = read(path, max_page_bytes=100_000 if problem == "bad_row" else 99_995)
    assert [(row["record_offset"], row["problem"]) for row in rows] == [(0, None), (1, problem), (2, None)]
    assert len(rows[1]["payload"]) <= 4096


def test_lone_surrogates_do_not_reach_arrow(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a\\ud800b \\ud83d\\ude00", "url": "http://a.example/\\udfff"}\n')
    (row,) = read(path)
    assert row["payload"].decode() == "a\N{REPLACEMENT CHARACTER}b \N{GRINNING FACE}"


def test_fields_are_chosen(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines({"正文": "内容", "link": "http://a.example/", "fetched_at": "2024-01-02"}))
    (row,) = read(path, text_field="正文", url_field="link")
    assert (row["payload"].decode(), row["url"]) == ("内容", "http://a.example/")
    assert row["fetched_at"] == datetime(2024, 1, 2, tzinfo=UTC)
    (row,) = read(path, text_field="正文", url_field=None)
    assert row["url"] is None


def test_typed_dates_of_a_column(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["x"], "date": [date(2024, 2, 3)]}), path)
    assert read(path)[0]["fetched_at"] == datetime(2024, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "rows.arrow"])
def test_a_wrong_text_field_names_the_nearest(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FORMATS[name](tmp_path))
    with pytest.raises(
        InputError, match=r"fields date, text, url; wanted the text field 'texts': did you mean 'text'\?"
    ):
        read(path, text_field="texts")


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("rows.jsonl", b"<html>\n</html>\n", "no line is a JSON object"),
        ("rows.json", b'[{"text": "x"}]', "no line is a JSON object"),
        ("rows.csv", b"text,url\n", "neither Parquet nor Arrow"),
    ],
)
def test_what_is_not_rows_of_text_is_refused(tmp_path, name, data, sentence):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=sentence):
        read(path)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_a_truncated_packing_keeps_the_rows_before(tmp_path, pack):
    path = tmp_path / "rows.jsonl.gz"
    many = [{"text": f"第{n}行 {n * 7919 % 10_007}", "url": None} for n in range(20_000)]
    data = pack(lines(*many))
    path.write_bytes(data[: len(data) // 2])
    rows = read(path)
    assert len(rows) > 1000
    assert [row["problem"] for row in rows].count("text_corrupt") == 1
    assert rows[-1]["problem"] == "text_corrupt"
    whole = [row["payload"].decode() for row in rows if row["problem"] is None]
    assert whole == [row["text"] for row in many[: len(whole)]]


def test_truncated_columns_are_one_row(tmp_path):
    for name in ("rows.parquet", "rows.arrow", "stream.arrow"):
        path = tmp_path / name
        path.write_bytes(FORMATS[name](tmp_path)[:-40])
        assert "text_corrupt" in {row["problem"] for row in read(path)}


def test_empty_files(tmp_path):
    for name in ("a.jsonl", "a.jsonl.gz"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
        assert read(path) == []


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_concatenated_packings_are_one_file(tmp_path, pack):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(pack(lines(*ROWS)) + pack(b"") + pack(lines(*ROWS)))
    assert [row["payload"].decode() for row in read(path)] == 2 * [row["text"] for row in ROWS]


@pytest.mark.parametrize("wrong", ["rows.jsonl", "rows.parquet", "rows.arrow.gz", "rows.txt", "rows.csv", "rows"])
@pytest.mark.parametrize("right", ["rows.jsonl", "rows.parquet", "rows.arrow", "stream.arrow"])
def test_the_bytes_say_what_a_wrong_name_does_not(tmp_path, right, wrong):
    path = tmp_path / wrong
    path.write_bytes(FORMATS[right](tmp_path))
    rows = read(path)
    if (right, wrong) == ("rows.jsonl", "rows.txt"):  # JSON is text too
        assert len(rows) == 1
    else:
        assert [row["payload"].decode() for row in rows] == [row["text"] for row in ROWS]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.parquet.gz"])
def test_columns_that_were_never_written(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    assert [row["problem"] for row in read(path)] == ["text_corrupt"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_one_row_that_is_not_utf8_costs_itself_only(tmp_path, kind):
    texts = [f"row {number} with some words" for number in range(9)]
    table = pa.table({"text": pa.array(texts).cast(kind)})
    path = tmp_path / "rows.arrow"
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(path.read_bytes().replace(b"row 4 with", b"row 4 \xff\xfeth"))
    assert [row["payload"].decode() for row in read(path)] == [
        text if number != 4 else "row 4 ��th some words" for number, text in enumerate(texts)
    ]


def test_times_that_python_does_not_have(tmp_path):
    times = pa.array([0, 2**62, -(2**62)], pa.timestamp("us"))
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "date": times}), path)
    assert [row["fetched_at"] for row in read(path)] == [datetime(1970, 1, 1, tzinfo=UTC), None, None]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "stream.arrow"])
def test_any_damage_of_columns_ends_in_rows_or_in_input_error(tmp_path_factory, name, data):
    """Arrow believes what a file says of its offsets: without a look at them, some damages end the process."""
    folder = tmp_path_factory.mktemp("damaged")
    damaged = bytearray(FORMATS[name](folder))
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = folder / name
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with contextlib.suppress(InputError):
        read(path)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=20))
def test_any_text_survives_in_order(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows), "utf-8")
    assert [row["payload"].decode() for row in read(path)] == rows


def test_options_are_checked():
    with pytest.raises(ConfigError, match="text_field"):
        TextOptions(text_field="")
    with pytest.raises(ConfigError, match="max_page_bytes"):
        TextOptions(max_page_bytes=0)


def test_readers_by_kind(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(*ROWS))
    assert sum(batch.num_rows for batch in READERS["text"](path, TextOptions())) == 3
    assert set(READERS) == {"warc", "text"}


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "expected"), [("cc_en_head-0091.jsonl.gz", 10), ("cc_en_head-0174.jsonl", 10)])
def test_real_rows(name, expected):
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    path = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "warc/dolma/tests/data/multiple_files" / name
    rows = read(path)
    assert [row["problem"] for row in rows] == [None] * expected
