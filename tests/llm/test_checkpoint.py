"""Checkpoints are whole or not there, and the newest whole one is found."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llm import checkpoint
from llm.checkpoint import Keep, Snapshot, Writer
from llm.config import ModelConfig, TrainConfig
from llm.model import GPT
from llm.optim import Optimizers, optimizers
from pipelines.errors import IntegrityError, StorageError, TerminalError

TRAINING = TrainConfig(max_steps=9, optimizer="muon")
CONFIG = ModelConfig(vocab_size=20, block_size=4, n_layer=1, n_head=1, n_embd=8)


@pytest.fixture
def model() -> GPT:
    return GPT(CONFIG, seed=1)


@pytest.fixture
def optimizer(model: GPT) -> Optimizers:
    optimizer = optimizers(model, TRAINING)
    update(model, optimizer)
    return optimizer


def update(model: GPT, optimizer: Optimizers) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    model(ids[:, :-1], ids[:, 1:]).backward()
    optimizer.step(torch.zeros(()))


@pytest.fixture
def save(model: GPT, optimizer: Optimizers, tmp_path: Path) -> Callable[..., Path]:
    def save(step: int, keep_last: int = 9, keep_best: int = 0, val_loss: float | None = None) -> Path:
        shape = {"vocab_size": 20, "block_size": 4, "n_layer": 1, "n_head": 1, "n_embd": 8}
        state = {"model_config": shape, "val_loss": val_loss}
        snapshot = Snapshot.of(model, optimizer, {"guard.seen": torch.ones(2)}, state, step=step)
        return checkpoint.write(tmp_path, snapshot, Keep(last=keep_last, best=keep_best))

    return save


def test_what_is_saved_is_what_is_restored(model: GPT, optimizer: Optimizers, save) -> None:
    saved = save(1)
    assert checkpoint.read_state(saved)["step"] == 1
    other = GPT(CONFIG, seed=2)
    other_optimizer = optimizers(other, TRAINING)
    assert checkpoint.digest_parameters(other) != checkpoint.digest_parameters(model)
    loop = checkpoint.restore(saved, other, other_optimizer)
    assert loop["guard.seen"].tolist() == [1.0, 1.0]
    for one, same in zip(optimizer.state(), other_optimizer.state(), strict=True):
        assert one[0] == same[0]
        assert torch.equal(one[1], same[1]), one[0]
    for _ in range(3):  # the moments count from here on
        update(model, optimizer)
        update(other, other_optimizer)
    assert checkpoint.digest_parameters(other) == checkpoint.digest_parameters(model)


def test_load_model(model: GPT, save) -> None:
    loaded = checkpoint.load_model(save(1))
    assert checkpoint.digest_parameters(loaded) == checkpoint.digest_parameters(model)
    assert not loaded.training


def test_digest_sees_one_bit(model: GPT) -> None:
    before = checkpoint.digest_parameters(model)
    with torch.no_grad():
        model.ln_f.bias[0] = -0.0
    assert checkpoint.digest_parameters(model) != before


def test_only_the_newest_are_kept(save, tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save(step, keep_last=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]


def test_the_best_are_kept_beside_the_newest(save, tmp_path: Path) -> None:
    """Of equals the newest; one without a validation loss is never the best."""
    for step, val_loss in enumerate((3.0, 1.5, 1.5, 2.0, None, 4.0), start=1):
        save(step, keep_last=1, keep_best=1, val_loss=val_loss)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000006"]
    assert checkpoint.best(tmp_path) == tmp_path / "step-00000003"


def test_writing_beside_what_goes_on(model: GPT, optimizer: Optimizers, tmp_path: Path) -> None:
    """A checkpoint holds what was there when it was asked for, and errors come out of the next call."""
    writer = Writer(tmp_path, Keep(last=5, best=0))
    state = {"model_config": {"vocab_size": 20, "block_size": 4, "n_layer": 1, "n_head": 1, "n_embd": 8}}
    before = checkpoint.digest_parameters(model)
    writer.write(Snapshot.of(model, optimizer, {}, state, step=1))
    update(model, optimizer)
    assert checkpoint.digest_parameters(checkpoint.load_model(writer.wait())) == before
    assert writer.wait() is None
    with torch.no_grad():
        model.wpe.weight[0, 0] = torch.inf
    writer.write(Snapshot.of(model, optimizer, {}, state, step=2))
    with pytest.raises(TerminalError, match="not finite"):
        writer.wait()
    writer.close()
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000001"]


def flip_a_byte(folder: Path) -> None:
    path = folder / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def forget_a_file(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["model/model.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit flipped": flip_a_byte,
    "optimizer cut short": lambda folder: (folder / "optimizer" / "optimizer.safetensors").write_bytes(b""),
    "state edited": lambda folder: (folder / "state.json").write_text("{}"),
    "model gone": lambda folder: (folder / "model" / "model.safetensors").unlink(),
    "manifest gone": lambda folder: (folder / "manifest.json").unlink(),
    "manifest cut short": lambda folder: (folder / "manifest.json").write_text('{"fil'),
    "manifest of another shape": lambda folder: (folder / "manifest.json").write_text('{"files": []}'),
    "manifest without a file": forget_a_file,
    "folder emptied": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_passed_over(damage, save, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older, newer = save(1), save(2)
    assert checkpoint.newest_valid(tmp_path) == newer
    damage(newer)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest_valid(tmp_path) == older
    assert "step-00000002" in caplog.text  # it is said
    with pytest.raises(IntegrityError, match="step-00000002"):
        checkpoint.load_model(newer)
    damage(older)
    assert checkpoint.newest_valid(tmp_path) is None
    save(2)  # takes the place of the damaged one
    assert checkpoint.newest_valid(tmp_path) == newer


def test_no_checkpoint_of_weights_that_are_not_finite(model: GPT, save, tmp_path: Path) -> None:
    older = save(1)
    with torch.no_grad():
        model.wpe.weight[0, 0] = torch.nan
    with pytest.raises(TerminalError, match=r"got a weight of wpe.weight that is not finite at step 2"):
        save(2)
    assert list(tmp_path.iterdir()) == [older]


def test_a_full_disk_keeps_what_was_there(save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = save(1)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StorageError, match=r"No space left on device.*free the disk and run again"):
            save(2, keep_last=1)
    assert checkpoint.newest_valid(tmp_path) == older
    assert checkpoint.newest_valid(tmp_path) != save(2)  # the half-written one is in nobody's way
