"""Work that goes to another host: what it names by path is lent through the bucket, used there, and taken back."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from corpora import Page, config, source, write_file

from pipelines.digest import digest_file
from pipelines.errors import InputError
from pipelines.extract import EXTRACT
from pipelines.materialize import works_of
from pipelines.relocation import Lender, let_go, relocated
from pipelines.stage import Resource, Stage
from pipelines.store import Place, Store
from pipelines.work import Unit, Work, run_work

NAMED = pa.schema([pa.field("doc_id", pa.string(), nullable=False)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Files that know each other by place, however deep."""

    parts: tuple[tuple[str, Resource], ...]
    made: Resource


def names(batches, config):
    """NAMED -> NAMED; its config is what the tests are about."""
    yield from batches


STAGE = Stage(name="named", version=1, inputs=(NAMED,), output=NAMED, transform=names)


@pytest.fixture
def here(bucket, tmp_path):
    return Store(Place(root=tmp_path / "here", bucket=bucket.url))


@pytest.fixture
def there(bucket, tmp_path):
    return Store(Place(root=tmp_path / "there", bucket=bucket.url))


def extraction(tmp_path, name="a.warc.gz") -> Work:
    path = write_file(tmp_path / "sources" / name, [Page(text=text, url=text) for text in range(4)])
    item = source(path)
    (work,) = works_of(EXTRACT, config().extract, [Unit(item.unit, (item,))])
    return work


@pytest.mark.parametrize("name", ["a.warc.gz", "b.jsonl"])
def test_a_source_file_is_read_where_its_path_is_not(here, there, bucket, tmp_path, name):
    work = extraction(tmp_path, name)
    expected = run_work(Store(tmp_path / "local"), work, lambda _: None)
    lender = Lender()
    lender.lend(here, work)
    (tmp_path / "sources" / name).rename(tmp_path / "moved")  # as on a host that never had it
    moved = relocated(there, work, here.root)
    path = Path(moved.units[0].inputs[0].path)
    assert path.is_relative_to(there.root)
    assert path.name == name, "how it is read depends on it"
    assert run_work(there, moved, lambda _: None) == expected
    let_go(there, moved)
    lender.take_back(here, work)
    assert not path.exists()
    assert not bucket.names("lent")


def test_what_two_pieces_need_is_lent_once_and_stays_for_the_second(here, bucket, proxy, tmp_path):
    work = extraction(tmp_path)
    lender = Lender()
    for _ in range(2):
        lender.lend(here, work)
    assert [path for method, path in proxy.requests if method == "PUT" and "lent" in path] == [
        f"/{bucket.name}/some/prefix/{name}" for name in bucket.names("lent")
    ]
    lender.take_back(here, work)
    assert len(bucket.names("lent")) == 1
    lender.take_back(here, work)
    assert not bucket.names("lent")


def test_files_of_a_model_keep_their_places_and_shards_come_from_the_store(here, there, tmp_path):
    for name in ("model/weights.bin", "model/onnx/graph.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    shard = here.write(NAMED, [pa.RecordBatch.from_pylist([{"doc_id": "a"}], schema=NAMED)])
    parts = tuple(
        (name, Resource(digest_file(tmp_path / name), str(tmp_path / name)))
        for name in ("model/weights.bin", "model/onnx/graph.bin")
    )
    made = Resource(shard.digest, str(here.shard_path(shard.digest)))
    (work,) = works_of(STAGE, ModelConfig(parts=parts, made=made), [Unit("unit", (shard,))])
    Lender().lend(here, work)
    found = relocated(there, work, here.root).config
    paths = [Path(part.path) for _, part in found.parts]
    assert [path.read_text() for path in paths] == ["model/weights.bin", "model/onnx/graph.bin"]
    assert paths[1].parents[1] == paths[0].parent
    assert all(path.is_relative_to(there.root) for path in [*paths, Path(found.made.path)])
    assert digest_file(Path(found.made.path)) == shard.digest
    (again,) = works_of(STAGE, found, [Unit("unit", (shard,))])
    assert again.key == work.key, "paths enter no key"


def test_a_file_that_changed_meanwhile_is_refused(here, there, tmp_path):
    work = extraction(tmp_path)
    path = Path(work.units[0].inputs[0].path)
    path.write_bytes(path.read_bytes() + b"\0")
    Lender().lend(here, work)
    with pytest.raises(InputError, match="the file changed during the run"):
        relocated(there, work, here.root)


def test_a_file_that_is_gone_is_named(here, tmp_path):
    work = extraction(tmp_path)
    Path(work.units[0].inputs[0].path).unlink()
    with pytest.raises(InputError, match=r"got .* for .*a\.warc\.gz, wanted a file that can be read"):
        Lender().lend(here, work)


def test_what_a_killed_run_lent_goes_with_the_next(here, bucket, tmp_path):
    Lender().lend(here, extraction(tmp_path))
    assert bucket.names("lent")
    here.clear_temporary()
    assert not bucket.names("lent")


def test_nothing_is_lent_where_the_store_is_a_folder_that_all_see(tmp_path):
    store, work = Store(tmp_path / "store"), extraction(tmp_path)
    Lender().lend(store, work)
    assert relocated(store, work, store.root) is work
    let_go(store, work)
    assert Path(work.units[0].inputs[0].path).exists()
    assert not list((tmp_path / "store").rglob("lent"))
