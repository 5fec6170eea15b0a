"""Copies of ledgers and records: whole, private, few, and good to go on from."""

import sqlite3
import stat
import tarfile
from pathlib import Path

import pytest

from flows.deployed import backup
from flows.workspace import Workspace
from pipelines.errors import ConfigError
from pipelines.takedown.ledger import add_request, read_ledger


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path / "w")
    add_request(place.takedown_ledger, "domain", "a.test", by="x", reason="y")
    for name in ("crawl/r-s", "models/ab/step-00000001", "reports/r", "store/objects/ab", "store/refs/r"):
        (place.root / name).mkdir(parents=True)
    (place.root / "models/ab/training.json").write_text("{}")
    (place.root / "models/ab/step-00000001/model.safetensors").write_bytes(b"weights")
    (place.root / "store/objects/ab/cd").write_bytes(b"shard")
    (place.root / "store/refs/r/extract").write_text("{}")
    (place.root / "reports/r/data_card.md").write_text("card")
    return place


def test_a_copy_holds_the_ledgers_and_records_and_restores_them(place: Workspace, tmp_path: Path) -> None:
    """A database in the middle of a writer's transaction is copied as it was before."""
    with sqlite3.connect(place.root / "crawl/r-s/frontier.sqlite") as ledger:
        ledger.execute("PRAGMA journal_mode=WAL")
        ledger.execute("CREATE TABLE urls (url TEXT)")
        ledger.execute("INSERT INTO urls VALUES ('http://a.test/')")
        ledger.commit()
        ledger.execute("INSERT INTO urls VALUES ('http://never.test/')")
        found = backup.back_up(place, tmp_path / "copies", 2)
        ledger.rollback()
    path = Path(found["path"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "restored", filter="data")
    restored = Workspace(tmp_path / "restored")
    assert [request.value for request in read_ledger(restored.takedown_ledger)] == ["a.test"]
    names = {str(each.relative_to(restored.root)) for each in restored.root.rglob("*") if each.is_file()}
    assert names == {
        *("takedowns.jsonl", "crawl/r-s/frontier.sqlite", "models/ab/training.json"),
        *("store/refs/r/extract", "reports/r/data_card.md"),
    }, "neither weights nor shards, which a build or a training makes again"
    assert found["files"] == len(names)
    with sqlite3.connect(restored.root / "crawl/r-s/frontier.sqlite") as ledger:
        assert ledger.execute("SELECT url FROM urls").fetchall() == [("http://a.test/",)]


def test_only_the_newest_copies_of_this_workspace_stay(place: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    first = backup.back_up(place, folder, 2)
    stem = Path(first["path"]).name.rpartition("-")[0]
    for name in (
        f"{stem}-20200101T000000Z.tar.gz",
        f"{stem}-20210101T000000Z.tar.gz",
        "another-20200101T000000Z.tar.gz",
    ):
        (folder / name).write_bytes(b"old")
    found = backup.back_up(place, folder, 2)
    assert len(list(folder.glob(f"{stem}-*.tar.gz"))) == 2
    assert (folder / "another-20200101T000000Z.tar.gz").exists()
    assert Path(found["path"]).exists()
    assert {path.name[-23:-7] for path in folder.glob(f"{stem}-2020*")} == set()


def test_a_folder_inside_the_workspace_is_refused(place: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"backup_folder: got .*, inside the workspace, wanted one that outlives it"):
        backup.back_up(place, place.root / "copies", 2)


def test_a_copy_that_fails_leaves_nothing_half_done(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError("disk full")

    monkeypatch.setattr(backup, "_write", fail)
    with pytest.raises(Exception, match="disk full"):
        backup.back_up(place, tmp_path / "copies", 2)
    assert list((tmp_path / "copies").iterdir()) == []
