"""Checkpoints are whole or not there, and the newest whole one is found."""

import errno
import itertools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm import checkpoint
from llm.checkpoint import Keep, Snapshot, Writer
from llm.config import ModelConfig, TrainConfig
from llm.distributed import World
from llm.model import GPT
from llm.optim import Optimizers, optimizers
from pipelines.errors import FullDiskError, IntegrityError, StorageError, TerminalError

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
        with pytest.raises(FullDiskError, match=r"No space left on device.*free the disk and run again"):
            save(2, keep_last=1)
    assert list(tmp_path.iterdir()) == [older]  # what was written takes no room, and cannot pass for synced
    assert checkpoint.newest_valid(tmp_path) != save(2)


def test_another_trouble_with_the_disk_is_no_full_one(save, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        save(2)
    assert not isinstance(caught.value, FullDiskError)


@pytest.mark.filterwarnings("ignore:.*assuming.*single process")
def test_what_fails_in_torchs_own_checkpoint_is_told_in_a_sentence(
    model: GPT, optimizer: Optimizers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exception is no Exception: it would pass by everybody who catches errors, as Ctrl-C does."""
    state = {"model_config": {}, "val_loss": None}
    keep, alone = Keep(last=9, best=0), World(0, 1, torch.device("cpu"))

    def write_sharded(step: int) -> Path:
        return checkpoint.write_sharded(
            tmp_path, model, optimizer, {"guard.seen": torch.ones(2)}, state, step=step, keep=keep, world=alone
        )

    def failing(number: int) -> Callable[..., None]:
        def fail(*_args: object) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    saved = write_sharded(1)
    for number, kind in ((errno.ENOSPC, FullDiskError), (errno.EIO, StorageError)):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", failing(number))
            with pytest.raises(StorageError, match=r"while writing step-00000002; wanted room .*whole\.$") as caught:
                write_sharded(2)
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
    assert checkpoint.newest_valid(tmp_path) == saved
    checkpoint.tidy(tmp_path)
    assert list(tmp_path.iterdir()) == [saved]

    [file] = (saved / "model").iterdir()
    shutil.copy(file, file.with_name("another.safetensors"))  # two files, as two processes leave them
    file.write_bytes(b"no tensors")
    with pytest.raises(IntegrityError, match=r"^got .* from .*model; wanted the tensors .* remove that step"):
        checkpoint.restore(saved, model, optimizer)


# What a kill leaves


class Killed(BaseException):
    """Nothing that runs after it would run after SIGKILL."""


CHANGES = ("fsync", "rename", "unlink", "rmdir", "mkdir")


def is_killed_in(call: Callable[[], object], number: int) -> bool:
    """End a call before its change of that number to the disk; whether it came that far."""
    numbers = itertools.count()

    def or_die(change: Callable[..., Any]) -> Callable[..., Any]:
        def change_or_die(*args: Any, **options: Any) -> Any:
            if next(numbers) == number:
                raise Killed
            return change(*args, **options)

        return change_or_die

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, or_die(getattr(os, name)))
        try:
            call()
        except Killed:
            return True
    return False


def tidied(folder: Path) -> set[str]:
    """Tidy, killed at one place after the other of what is left to do; the names that are there after it."""
    for number in itertools.count():
        if not is_killed_in(lambda: checkpoint.tidy(folder), number):
            return {path.name for path in folder.iterdir()}
    raise AssertionError


@pytest.mark.parametrize("damage", [None, flip_a_byte], ids=["whole", "damaged"])
def test_a_kill_at_any_place_leaves_the_step_as_it_was_or_as_it_becomes(
    damage: Callable[[Path], None] | None, model: GPT, save, tmp_path: Path
) -> None:
    """Writing a step again, which is there whole or damaged."""
    save(1)
    kept, is_new = {"step-00000001", "step-00000002"}, set()
    for number in itertools.count():
        shutil.rmtree(tmp_path / "step-00000002", ignore_errors=True)
        with torch.no_grad():
            model.wpe.weight[0, 0] = 1.0
        old, again = checkpoint.digest_parameters(model), save(2)
        if damage is not None:
            damage(again)
        with torch.no_grad():
            model.wpe.weight[0, 0] = 2.0
        new = checkpoint.digest_parameters(model)
        is_killed = is_killed_in(lambda: save(2), number)
        names = tidied(tmp_path)
        newest = checkpoint.newest_valid(tmp_path)
        if newest == again:
            assert names == kept, number
            found = checkpoint.digest_parameters(checkpoint.load_model(again))
            assert found in ({old, new} if damage is None else {new}), number
            is_new.add(found == new)
        else:
            assert damage is not None, number
            assert newest == tmp_path / "step-00000001", number
            is_new.add(False)
        if not is_killed:
            break
    assert is_new == {True, False}  # either was seen
    assert number > 20


@settings(deadline=None, max_examples=40)
@given(
    strides=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    losses=st.lists(st.none() | st.integers(1, 9), min_size=40, max_size=40),
    last=st.integers(1, 3),
    best=st.integers(0, 2),
    window=st.integers(0, 60),
)
def test_there_is_always_one_to_go_back_to(
    strides: list[int], losses: list[int | None], last: int, best: int, window: int
) -> None:
    """One that is older than the window, not much older, and few of them in all."""
    keep = Keep(last=last, best=best, window_steps=window)
    with tempfile.TemporaryDirectory() as name:
        folder, steps = Path(name), list(itertools.accumulate(strides))
        for at, step in enumerate(steps):
            made = folder / f"step-{step:08d}"
            made.mkdir()
            (made / "state.json").write_text(json.dumps({"val_loss": losses[at]}))
            (made / "manifest.json").write_text(
                json.dumps({"files": {"state.json": {"num_bytes": (made / "state.json").stat().st_size}}})
            )
            for old in checkpoint._superfluous(folder, keep, made):
                shutil.rmtree(old)
            kept = sorted(checkpoint.step_of(path) for path in folder.iterdir())
            assert set(steps[max(0, at + 1 - last) : at + 1]) <= set(kept)
            assert len(kept) <= last + best + 2
            if step - window >= steps[0]:
                assert step - max(each for each in kept if each <= step - window) < 2 * window + 2 * max(strides)
            known = [(loss, -each) for loss, each in zip(losses, steps[: at + 1], strict=False) if loss is not None]
            assert {-each for _, each in sorted(known)[:best]} <= set(kept)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_keeps_no_place(damage, save, tmp_path: Path) -> None:
    """Training goes on from an older one, and its next checkpoint is older than the damaged one, too."""
    save(4, keep_last=2, val_loss=3.0)
    damage(save(8, keep_last=2, val_loss=1.0))
    newest = checkpoint.newest_valid(tmp_path)
    assert newest is not None
    checkpoint.set_aside_after(tmp_path, checkpoint.step_of(newest))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-step-00000008", "step-00000004"]
    for step, names in (
        (5, ["damaged-step-00000008", "step-00000005"]),
        (7, ["damaged-step-00000008", "step-00000005", "step-00000007"]),
        (9, ["step-00000005", "step-00000009"]),
    ):
        save(step, keep_last=1, keep_best=1, val_loss=2.0 + step % 5)
        assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert checkpoint.best(tmp_path) == tmp_path / "step-00000005"


def test_what_was_just_written_stays(save, tmp_path: Path) -> None:
    """Whatever lies there: a newer one, whole or torn."""
    save(20)
    torn = tmp_path / "step-00000030"
    torn.mkdir()
    assert save(10, keep_last=1).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000020"]
