"""One flipped byte in each kind of file of a finished workspace: `verify` names it, and the next run mends what it can."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import SMALL, write_demo

from flows.verification import verify

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


def flip(path: Path) -> bytes:
    """Change one byte as bits rot: neither time nor size tells. Returns what was there."""
    before, times = path.read_bytes(), path.stat()
    data = bytearray(before)
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return before


def of_each_stage(folder: Path) -> Iterator[Path]:
    """A file of each stage's records."""
    for stage in sorted(folder.iterdir()):
        yield min(path for path in stage.rglob("*") if path.is_file())


def test_a_flipped_byte_in_each_kind_of_file_is_named_and_mended(demo_copy: Any, main: Any, pipeline: Any) -> None:
    root = demo_copy.workspace
    write_demo(demo_copy.recipe, evaluation=SMALL["evaluation"])
    page = "http://gazette.test/"
    assert main("takedown", "add", page, "--reason", "test", "--workspace", root).code == 0
    first = pipeline(demo_copy.recipe, root)
    whole = verify(root)
    assert (whole["damaged"], whole["irreplaceable"]) == ([], [])

    for pattern in ("crawl/*/warc/*.warc.gz", "takedowns.jsonl", "takedowns/*.json", "models/*/journal.jsonl"):
        path = min(root.glob(pattern))
        before = flip(path)
        found = verify(root)
        assert found["damaged"] == found["irreplaceable"] == [str(path.relative_to(root))]
        path.write_bytes(before)

    store = root / "store"
    records = list(of_each_stage(store / "records"))
    objects = sorted((store / "objects").glob("*/*"))
    refs = [path for path in sorted((store / "refs").rglob("*")) if path.is_file()]
    folder = root / "models" / first["training"]["folder"]
    others = [
        folder / first["training"]["checkpoint"] / "model" / "model.safetensors",
        min(folder.glob("step-*")) / "manifest.json",
        folder / "training.json",
        folder / "dataset.json",
        max((folder / "evaluations").glob("*.json"), key=lambda path: path.stat().st_mtime_ns),  # the demo's own aside
        root / "reports" / "demo" / "data_card.json",
    ]
    assert len(refs) == len({path.name for path in refs}) >= 13
    for path in (*records, *objects, *refs, *others):
        flip(path)
    damaged = verify(root)["damaged"]
    for path in objects:
        assert any(path.name[:16] in name for name in damaged), path
    for path in records:
        assert f"store/{path.relative_to(store)}" in damaged
    for path in refs:
        assert f"manifest of {path.name} of recipe demo" in damaged
    for path in others:
        place = path.relative_to(root)
        assert {str(each) for each in (place, *place.parents)} & {*damaged}, path

    again = pipeline(demo_copy.recipe, root)
    for name in ("dataset_digest", "documents", "tokens"):
        assert again[name] == first[name]
    assert again["training"]["parameters_digest"] == first["training"]["parameters_digest"]
    assert {path for path in objects if not path.exists()} <= _unreached(store, objects)
    assert verify(root)["damaged"] == []


def _unreached(store: Path, objects: list[Path]) -> set[Path]:
    """Shards that no manifest names: of builds before the last one."""
    named = "".join(path.read_text() for path in (store / "refs").rglob("*") if path.is_file())
    return {path for path in objects if path.name not in named}
