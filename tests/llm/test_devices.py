"""The device that is computed on is the current one, and its peak is known by its whole name or not at all."""

from pathlib import Path

import pytest
import torch

import llm.distributed
from llm.config import RunConfig
from llm.devices import can_compile, peak_flops
from llm.distributed import joined


@pytest.mark.parametrize("name", ["cuda:1", "cpu"])
def test_a_process_alone_computes_on_the_current_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not, events are recorded on another device's stream, and say nothing of the work."""
    current: list[torch.device] = []
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(llm.distributed, "choose_device", lambda *_: torch.device(name))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    with joined(RunConfig(device=name)) as world:
        assert world.device == torch.device(name)
        assert current == [torch.device(name)] * (name != "cpu")


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A40", 150),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("AMD Instinct MI300X", 1307),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA RTX A400", None),
        ("NVIDIA A100X", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA L400", None),
        ("Some GPU", None),
    ],
)
def test_the_peak_is_that_of_the_whole_name(name: str, tera: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: name)
    peak = peak_flops(torch.device("cuda:0"), precision="bf16")
    assert peak == (None if tera is None else tera * 1e12)


def test_a_gpu_needs_a_c_compiler_to_compile_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert not can_compile(torch.device("cuda:0"))
    assert can_compile(torch.device("cpu"))
    compiler = tmp_path / "own-cc"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", "own-cc")
    assert can_compile(torch.device("cuda:0"))
