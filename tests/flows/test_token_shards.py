"""Token shards are plain Arrow: `datasets` and pyarrow map them without a copy."""

import pyarrow as pa
import pytest

from pipelines import schemas
from pipelines.store import Store


@pytest.fixture
def shard_path(tmp_path):
    rows = [
        {"doc_id": f"{idx:032x}", "split": "train", "num_bytes": 3, "tokens": [idx, 2 * idx, 65_535]}
        for idx in range(100)
    ]
    store = Store(tmp_path / "store")
    shard = store.write(schemas.TOKENS, [pa.RecordBatch.from_pylist(rows, schema=schemas.TOKENS)], compression=None)
    return store.shard_path(shard.digest)


def test_pyarrow_maps_a_shard_without_a_copy(shard_path):
    before = pa.total_allocated_bytes()
    with pa.memory_map(str(shard_path)) as source:
        table = pa.ipc.open_stream(source).read_all()
        tokens = table.column("tokens").chunk(0).values.to_numpy(zero_copy_only=True)
        assert tokens[:4].tolist() == [0, 0, 65_535, 1]
        assert pa.total_allocated_bytes() == before


def test_datasets_opens_a_shard(shard_path, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import Dataset

    dataset = Dataset.from_file(str(shard_path))
    assert dataset.num_rows == 100
    assert dataset[1]["tokens"] == [1, 2, 65_535]
    assert dataset.features["tokens"].feature.dtype == "uint16"
