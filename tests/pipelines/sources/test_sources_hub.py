"""A dataset folder, streamed into immutable files; no network is touched."""

import json
import socket
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigError, InputError
from pipelines.sources import hub
from pipelines.sources.text import TextOptions, read_rows

NUM_ROWS = 11


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a local dataset reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(hub, "ROWS_PER_FILE", 4)
    monkeypatch.setattr(hub, "_ROWS_PER_GROUP", 3)


@pytest.fixture
def dataset(tmp_path) -> str:
    folder = tmp_path / "dataset"
    folder.mkdir()
    rows = [{"text": f"第{n}篇 article", "url": f"http://a.example/{n}", "date": "2024-01-02"} for n in range(NUM_ROWS)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(folder)


def texts(files: list[Path]) -> list[str]:
    return [
        row["payload"].decode()
        for path in files
        for batch in read_rows(path, TextOptions())
        for row in batch.to_pylist()
    ]


def test_rows_become_files_of_a_fixed_size(dataset, tmp_path):
    seen: list[int] = []
    files = hub.fetch_dataset(dataset, tmp_path / "out", on_progress=seen.append)
    assert [pq.read_metadata(path).num_rows for path in files] == [4, 4, 3]
    assert texts(files) == [f"第{n}篇 article" for n in range(NUM_ROWS)]
    assert seen == [4, 8, 11]
    marker = json.loads((tmp_path / "out/finished.json").read_text())
    assert marker == {"files": {path.name: rows for path, rows in zip(files, (4, 4, 3), strict=True)}}
    assert not list((tmp_path / "out").glob("*.partial"))


def test_a_finished_folder_is_not_read_again(dataset, tmp_path, monkeypatch):
    files = hub.fetch_dataset(dataset, tmp_path / "out")
    monkeypatch.setattr(hub, "_rows", None)
    assert hub.fetch_dataset(dataset, tmp_path / "out") == files


def test_a_stopped_run_goes_on_after_the_last_whole_file(dataset, tmp_path):
    def stop(num_rows: int) -> None:
        if num_rows == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.fetch_dataset(dataset, tmp_path / "out", on_progress=stop)
    first = tmp_path / "out/rows-00000.parquet"
    before = first.stat().st_mtime_ns
    seen: list[int] = []
    files = hub.fetch_dataset(dataset, tmp_path / "out", on_progress=seen.append)
    assert seen == [11]
    assert first.stat().st_mtime_ns == before
    assert [path.read_bytes() for path in files] == [
        path.read_bytes() for path in hub.fetch_dataset(dataset, tmp_path / "fresh")
    ]


@pytest.mark.parametrize("left", [b"", b"PAR1", b"PAR1 cut off"])
def test_a_file_that_the_disk_lost_is_made_again(dataset, tmp_path, left):
    whole = [path.read_bytes() for path in hub.fetch_dataset(dataset, tmp_path / "out")]
    (tmp_path / "out/finished.json").unlink()
    (tmp_path / "out/rows-00001.parquet").write_bytes(left)
    assert [path.read_bytes() for path in hub.fetch_dataset(dataset, tmp_path / "out")] == whole


@pytest.mark.parametrize("limit", [1, 4, 5, 100])
def test_max_rows(dataset, tmp_path, limit):
    assert len(texts(hub.fetch_dataset(dataset, tmp_path / "out", max_rows=limit))) == min(limit, NUM_ROWS)


def test_a_folder_serves_one_request(dataset, tmp_path):
    hub.fetch_dataset(dataset, tmp_path / "out")
    with pytest.raises(ConfigError, match="another folder"):
        hub.fetch_dataset(dataset, tmp_path / "out", max_rows=2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"split": "nope"}, "nope"), ({"text_field": "body"}, "fields date, text, url"), ({"max_rows": 0}, "max_rows 0")],
)
def test_what_cannot_be_had(dataset, tmp_path, options, sentence):
    with pytest.raises((InputError, ConfigError), match=sentence):
        hub.fetch_dataset(dataset, tmp_path / "out", **options)


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        hub.fetch_dataset(str(tmp_path / "none"), tmp_path / "out")
