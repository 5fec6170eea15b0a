"""The loop: it learns, and no stop, kill or damage changes what it ends with."""

import dataclasses
import json
import math
import random
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import llm.clock
from llm import checkpoint
from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.data import TokenData
from llm.reports import StepReport
from llm.train import TrainingStoppedError, TrainResult, train
from pipelines.errors import ConfigError, EmptyCorpusError, SchemaError

Corpus = tuple[TokenData, TokenData]
Run = Callable[..., TrainResult]


@pytest.fixture
def run(corpus: Corpus, model_config: ModelConfig, train_config: TrainConfig, run_config: RunConfig, tmp_path: Path):
    """Train in a folder by name; the configs' fields can be changed by name."""

    def run(
        folder: str = "run",
        *,
        on_step=lambda _report: None,
        on_event=lambda _event: None,
        stop=lambda: False,
        data=None,
        **changes: Any,
    ):
        model_changes = {name: changes.pop(name) for name in ("dropout", "vocab_size", "block_size") if name in changes}
        return train(
            *(data or corpus),
            dataclasses.replace(model_config, **model_changes),
            dataclasses.replace(train_config, **changes),
            run_config,
            tmp_path / folder,
            on_report=lambda report: (on_step if isinstance(report, StepReport) else on_event)(report),
            should_stop=stop,
        )

    return run


def test_it_learns_and_reports(run: Run, tmp_path: Path) -> None:
    reports: list[StepReport] = []
    result = run(on_step=reports.append, max_steps=60)
    assert [report.step for report in reports] == list(range(61))
    assert [report.num_tokens for report in reports] == [64 * step for step in range(61)]
    assert [r.step for r in reports if r.val_loss is not None] == list(range(0, 61, 5))
    assert reports[0].loss is None
    assert all(math.isfinite(r.loss) and r.grad_norm > 0 and r.tokens_per_second > 0 for r in reports[1:])
    assert reports[2].learning_rate == pytest.approx(1e-2)
    assert result.first_val_loss == reports[0].val_loss == pytest.approx(math.log(50), abs=0.1)
    assert result.final_val_loss == reports[-1].val_loss < 2.5
    assert result.final_train_loss == reports[-1].loss
    assert (result.steps, result.num_tokens, result.resumed_from_step) == (60, 3840, None)
    assert result.checkpoint == tmp_path / "run" / "step-00000060"
    assert checkpoint.digest_parameters(checkpoint.load_model(result.checkpoint)) == result.parameters_digest
    kept = [path.name for path in sorted((tmp_path / "run").glob("step-*"))]
    assert kept == ["step-00000004", "step-00000056", "step-00000060"]  # the first: to go back to past a spike


def test_throughput_is_tokens_over_seconds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(float(tick) for tick in range(1000))
    monkeypatch.setattr(llm.clock.time, "perf_counter", lambda: next(ticks))
    reports: list[StepReport] = []
    run(on_step=reports.append, max_steps=2)
    for report in reports[1:]:  # the clock ticks once a look: two micro-batches are looked at twice each
        assert (report.seconds.data, report.seconds.forward, report.seconds.backward) == (1.0, 2.0, 2.0)
        assert report.seconds.optimizer == 1.0
        assert report.tokens_per_second == 64 / 6
        assert report.mfu is None  # nobody knows the peak of this CPU


def test_same_inputs_same_weights(run: Run) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = run("one")
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random state is left alone
    torch.manual_seed(2)
    assert run("two").parameters_digest == one.parameters_digest
    assert run("three", seed=4).parameters_digest != one.parameters_digest


def test_micro_batches_do_not_change_the_update(run: Run) -> None:
    """Gradients add up and dropout drops the same units: the loss of each step is that of the whole batch, to rounding."""
    losses: dict[int, list[float]] = {}
    for size in (1, 2, 8):
        losses[size] = []
        run(str(size), micro_batch_size=size, dropout=0.3, on_step=lambda r, seen=losses[size]: seen.append(r.loss))
    assert losses[1][1:4] == pytest.approx(losses[8][1:4], abs=1e-4)
    assert losses[2][1:] == pytest.approx(losses[8][1:], abs=2e-3)


def without_times(report: StepReport) -> StepReport:
    return dataclasses.replace(report, tokens_per_second=None, seconds=None)


def stop_after(step: int) -> tuple[Callable[[StepReport], None], Callable[[], bool]]:
    """A reporter and a stop request that ends the run with that step."""
    seen = [0]

    def on_step(report: StepReport) -> None:
        seen[0] = report.step

    return on_step, lambda: seen[0] >= step - 1


def test_stopped_and_resumed_equals_uninterrupted(run: Run, tmp_path: Path) -> None:
    """At several places, in one training, weights and loss alike."""
    whole: list[StepReport] = []
    wanted = run("whole", on_step=whole.append)
    parts: dict[int, StepReport] = {}
    for step in (1, 5, 7, 11):
        on_step, stop = stop_after(step)
        with pytest.raises(TrainingStoppedError, match=f"at step {step} of 12; .*run the same command again"):
            run("parts", on_step=lambda r, note=on_step: (note(r), parts.update({r.step: r})), stop=stop)
        assert checkpoint.newest_valid(tmp_path / "parts") == tmp_path / "parts" / f"step-{step:08d}"
    got = run("parts", on_step=lambda r: parts.update({r.step: r}))
    assert got.resumed_from_step == 11
    assert got.parameters_digest == wanted.parameters_digest
    assert (got.first_val_loss, got.final_val_loss) == (wanted.first_val_loss, wanted.final_val_loss)
    for report in whole:
        assert without_times(parts[report.step]) == without_times(report)


def test_random_crashes_change_nothing(run: Run) -> None:
    """Crashes at random steps lose the steps since the last checkpoint and nothing else."""
    wanted = run("whole").parameters_digest
    draw = random.Random(0)
    for attempt in range(3):
        for _ in range(6):
            crash_at = draw.randrange(13)

            def crash(report: StepReport, crash_at: int = crash_at) -> None:
                if report.step == crash_at:
                    raise RuntimeError("crash")

            try:
                run(f"crash-{attempt}", on_step=crash)
            except RuntimeError:
                continue
        assert run(f"crash-{attempt}").parameters_digest == wanted


def test_a_damaged_checkpoint_costs_steps_only(run: Run, tmp_path: Path) -> None:
    wanted = run("whole").parameters_digest
    on_step, stop = stop_after(9)
    with pytest.raises(TrainingStoppedError):
        run("damaged", on_step=on_step, stop=stop)
    (tmp_path / "damaged/step-00000009/optimizer/optimizer.safetensors").write_bytes(b"not it")
    got = run("damaged")
    assert (got.resumed_from_step, got.parameters_digest) == (8, wanted)


def test_a_finished_training_is_not_done_again(run: Run, tmp_path: Path) -> None:
    reports: list[StepReport] = []
    first = run()
    assert run(on_step=reports.append) == first
    assert reports == []
    record = tmp_path / "run/result.json"
    assert str(tmp_path) not in record.read_text()  # the folder can be moved
    for damage in (
        "{",
        json.dumps({"result": {}, "sha256": ""}),
        record.read_text().replace('"steps": 12', '"steps": 9'),
    ):
        record.write_text(damage)
        assert run(on_step=reports.append).parameters_digest == first.parameters_digest
        assert reports == []
        assert json.loads(record.read_text())["result"]["steps"] == 12  # written again
    flipped = bytearray((first.checkpoint / "model" / "model.safetensors").read_bytes())
    flipped[-1] ^= 1
    (first.checkpoint / "model" / "model.safetensors").write_bytes(flipped)
    again = run(on_step=reports.append)
    assert (again.resumed_from_step, again.parameters_digest) == (8, first.parameters_digest)
    assert [report.step for report in reports] == [9, 10, 11, 12]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rate": 2e-2},
            "got training.learning_rate 0.02; wanted 0.01, .*: set it back to go on, or train in",
        ),
        ({"dropout": 0.0}, "got model.dropout 0.0; wanted 0.1"),
        ({"data": "other"}, "got dataset_digest 'corpus-2'; wanted 'corpus-1'"),
    ],
)
def test_another_job_is_refused(run: Run, corpus: Corpus, changes: dict[str, Any], message: str) -> None:
    run()
    if "data" in changes:
        changes = {"data": (dataclasses.replace(corpus[0], digest="corpus-2"), corpus[1])}
    with pytest.raises(ConfigError, match=message):
        run(**changes)


def test_checkpoint_habits_may_change(run: Run) -> None:
    on_step, stop = stop_after(5)
    with pytest.raises(TrainingStoppedError):
        run(on_step=on_step, stop=stop)
    assert run(checkpoint_every_steps=None, keep_last=1).resumed_from_step == 5


def test_too_few_tokens_and_strange_ids_are_refused(run: Run) -> None:
    with pytest.raises(EmptyCorpusError, match=r"got .* tokens in the split 'validation'; wanted at least 513"):
        run(block_size=512, tokens_per_step=2048)
    with pytest.raises(SchemaError, match="got token id 49; wanted ids below the model's vocab_size of 30"):
        run(vocab_size=30)


def test_an_impossible_device_is_refused(corpus: Corpus, model_config, train_config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got device 'tpu', which torch cannot use here"):
        train(*corpus, model_config, train_config, RunConfig(device="tpu"), tmp_path, on_report=lambda _report: None)


def test_it_runs_outside_the_main_thread(run: Run) -> None:
    """Prefect runs tasks so: there is no signal to listen to, and no need."""
    results: list[TrainResult] = []
    thread = threading.Thread(target=lambda: results.append(run()))
    thread.start()
    thread.join()
    assert results[0].steps == 12
    assert run("main").parameters_digest == results[0].parameters_digest


def test_a_signal_is_passed_on_after_the_checkpoint(run: Run, tmp_path: Path) -> None:
    """Ctrl-C stays Ctrl-C."""

    def interrupt(report: StepReport) -> None:
        if report.step == 5:
            signal.raise_signal(signal.SIGINT)

    # A shell starts background jobs with SIGINT ignored, and Python leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(on_step=interrupt)
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert checkpoint.newest_valid(tmp_path / "run") == tmp_path / "run/step-00000006"


def test_killed_processes_change_nothing(corpus: Corpus, tmp_path: Path) -> None:
    """SIGTERM leaves a checkpoint of the step; SIGKILL in a half-written one costs the steps since the last that was whole."""
    shard, script = str(tmp_path / "0.arrow"), Path(__file__).with_name("run_training.py")

    def process(death: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), shard, str(tmp_path / "killed"), death]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)

    # (how it dies, by which signal, the newest checkpoint it leaves); a checkpoint takes nine syncs, the ninth after it
    # was renamed
    for death, signum, left in [
        ("SIGTERM 2", signal.SIGTERM, "step-00000003"),
        ("SIGKILL-fsync 13", signal.SIGKILL, "step-00000004"),  # it was writing that of step 8
    ]:
        died = process(death)
        assert died.returncode == -signum, died.stderr
        newest = checkpoint.newest_valid(tmp_path / "killed")
        assert newest is not None, death
        assert newest.name == left, death
    wanted = runpy.run_path(str(script))["run_training"](shard, str(tmp_path / "whole"), "none")
    assert (tmp_path / "killed/.writing-step-00000008/manifest.json").exists()  # nothing in it was missing but its name
    assert process("none").stdout == f"8 {wanted.parameters_digest}\n"
    assert not list((tmp_path / "killed").glob(".*"))
