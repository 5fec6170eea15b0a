"""A workspace whose store lies in a bucket: the same commands, one writer among all workspaces."""

import contextvars
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import article_records, write_recipe, write_warc
from object_storage import TestBucket

from flows import inspection
from flows.settings import read_settings
from flows.verification import verify
from flows.workspace import Workspace, writing
from pipelines.errors import ConfigError, StorageError
from pipelines.store import Place

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def in_bucket(bucket: TestBucket, monkeypatch: pytest.MonkeyPatch) -> TestBucket:
    monkeypatch.setenv("CORPUSMILL_STORE", bucket.url)
    return bucket


def place(folder: Path) -> Workspace:
    return Workspace.of(read_settings(folder))


def write_as_another_run(workspace: Workspace) -> None:
    def attempt() -> None:
        with writing(workspace):
            pass

    contextvars.Context().run(attempt)


def test_another_workspace_is_refused_until_the_run_ends(in_bucket: TestBucket, tmp_path: Path) -> None:
    with writing(place(tmp_path / "a")) as store:
        with writing(place(tmp_path / "a")) as again:
            assert again is store
        with pytest.raises(StorageError, match=r"in use by process \d+ on .*wait for that run"):
            write_as_another_run(place(tmp_path / "b"))
        with pytest.raises(StorageError, match="in use by process"):
            write_as_another_run(place(tmp_path / "a"))
    write_as_another_run(place(tmp_path / "b"))


def test_a_run_keeps_its_store_in_the_bucket_and_another_workspace_goes_on_with_it(
    pipeline: Any, in_bucket: TestBucket, tmp_path: Path
) -> None:
    write_warc(tmp_path / "a.warc.gz", article_records()[:8])
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["*.warc.gz"]})
    first = pipeline(recipe, tmp_path / "w", "train")
    assert not (tmp_path / "w" / "store").exists()
    planned = inspection.plan(recipe, tmp_path / "other")
    assert not any(stage["compute"] for stage in planned["stages"] if stage["name"] not in ("train", "evaluate"))
    assert not (tmp_path / "other").exists(), "who looks makes nothing"
    found = verify(tmp_path / "w")
    assert (found["shards"], found["damaged"]) == (len(in_bucket.names("objects")), [])
    assert found["model_files"]
    name = in_bucket.names("objects")[3]
    in_bucket.put(name, in_bucket.get(name)[::-1])
    in_bucket.put(in_bucket.names("records/extract")[0], b"{")
    assert len(verify(tmp_path / "w")["damaged"]) == 2
    assert name not in in_bucket.names("objects")
    again = pipeline(recipe, tmp_path / "other", "build")
    assert 1 <= sum(stage["computed"] for stage in again["stages"] if stage["name"] != "report") <= 2
    assert (again["tokens"], again["documents"]) == (first["tokens"], first["documents"])
    assert verify(tmp_path / "w")["damaged"] == []


def test_the_doctor_asks_the_bucket(in_bucket: TestBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> dict[str, Any]:
        return next(each for each in inspection.doctor(tmp_path)["checks"] if each["name"] == "store")

    assert check()["ok"]
    monkeypatch.setenv("CORPUSMILL_STORE", "s3://no-such-bucket")
    assert not check()["ok"]
    assert "create it" in check()["found"]


def test_settings_of_the_store_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place(tmp_path).store_place == Place(root=tmp_path / "store")
    monkeypatch.setenv("CORPUSMILL_STORE", "s3://bucket/prefix")
    monkeypatch.setenv("CORPUSMILL_STORE_CACHE_GIB", "3")
    wanted = Place(root=tmp_path / "cache", bucket="s3://bucket/prefix", max_copies_num_bytes=3 << 30)
    assert place(tmp_path).store_place == wanted
    monkeypatch.setenv("CORPUSMILL_STORE_CACHE_GIB", "many")
    with pytest.raises(ConfigError, match="wanted a whole number of GiB"):
        place(tmp_path)
    monkeypatch.delenv("CORPUSMILL_STORE_CACHE_GIB")
    monkeypatch.setenv("CORPUSMILL_STORE", "gs://bucket")
    with pytest.raises(ConfigError, match="got something else than s3://BUCKET/PREFIX"):
        write_as_another_run(place(tmp_path))
