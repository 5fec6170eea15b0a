"""Small models and token shards for the tests of llm/."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.data import TokenData
from pipelines.schemas import TOKENS

EOT = 0


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Threads that wait for each other make small models slow, the more so beside other tests."""
    torch.set_num_threads(1)


Row = tuple[str, Sequence[int], int]
"""split, tokens, num_bytes"""


@pytest.fixture
def write_shard(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as a token shard of several record batches."""

    def write(rows: Sequence[Row], *, name: str = "0.arrow", rows_per_batch: int = 3, schema: Any = TOKENS) -> Path:
        records = [
            {"doc_id": f"{name}-{idx}", "split": split, "num_bytes": num_bytes, "tokens": list(tokens)}
            for idx, (split, tokens, num_bytes) in enumerate(rows)
        ]
        path = tmp_path / name
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for start in range(0, len(records), rows_per_batch):
                writer.write_batch(pa.RecordBatch.from_pylist(records[start : start + rows_per_batch], schema=schema))
        return path

    return write


@pytest.fixture
def corpus(write_shard: Callable[..., Path]) -> tuple[TokenData, TokenData]:
    """A corpus that can be learned: each document counts upwards from a random token."""
    generator = np.random.default_rng(0)
    rows: list[Row] = []
    for idx in range(60):
        begin, length = generator.integers(1, 40), generator.integers(5, 40)
        tokens = [1 + (begin + step) % 49 for step in range(length)]
        rows.append(("validation" if idx % 5 == 0 else "train", [*tokens, EOT], 2 * int(length)))
    path = write_shard(rows, rows_per_batch=7)
    return tuple(TokenData.open([path], split, digest="corpus-1") for split in ("train", "validation"))  # type: ignore[return-value]


@pytest.fixture
def model_config() -> ModelConfig:
    return ModelConfig(vocab_size=50, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.1)


@pytest.fixture
def train_config() -> TrainConfig:
    return TrainConfig(
        seed=3,
        max_steps=12,
        micro_batch_size=4,
        tokens_per_step=64,
        learning_rate=1e-2,
        warmup_steps=2,
        eval_every_steps=5,
        checkpoint_every_steps=4,
    )


@pytest.fixture
def run_config() -> RunConfig:
    return RunConfig(device="cpu", num_threads=1)
