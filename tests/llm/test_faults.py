"""What goes wrong in a training: losses that are not finite, spikes, batches that do not fit, data that changed."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm import checkpoint
from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.data import TokenData
from llm.guard import Guard
from llm.model import GPT
from llm.reports import Report, StepReport, TrainEvent
from llm.train import train
from pipelines.errors import ConfigError, TerminalError

Corpus = tuple[TokenData, TokenData]


@dataclasses.dataclass
class Heard:
    """What a training reported."""

    steps: list[StepReport] = dataclasses.field(default_factory=list)
    events: list[TrainEvent] = dataclasses.field(default_factory=list)

    def __call__(self, report: Report) -> None:
        (self.steps if isinstance(report, StepReport) else self.events).append(report)  # type: ignore[arg-type]

    def of(self, kind: str) -> list[TrainEvent]:
        return [event for event in self.events if event.kind == kind]


@pytest.fixture
def run(corpus: Corpus, model_config: ModelConfig, train_config: TrainConfig, run_config: RunConfig, tmp_path: Path):
    def run(folder: str = "run", *, on_report=lambda _report: None, data=None, **changes: Any):
        return train(
            *(data or corpus),
            model_config,
            dataclasses.replace(train_config, **changes),
            run_config,
            tmp_path / folder,
            on_report=on_report,
        )

    return run


def spoil(monkeypatch: pytest.MonkeyPatch, is_spoiled: Callable[[torch.Tensor], bool], factor: float) -> None:
    """Multiply the training loss of micro-batches by a factor."""
    forward = GPT.forward

    def spoiled(self: GPT, ids: torch.Tensor, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        loss = forward(self, ids, targets, **options)
        return loss * factor if not options.get("each") and is_spoiled(ids) else loss

    monkeypatch.setattr(GPT, "forward", spoiled)


def test_an_update_that_is_not_finite_is_not_made(run, monkeypatch: pytest.MonkeyPatch, corpus: Corpus) -> None:
    """It is named with its documents, and the training after it is that without it."""
    heard, calls = Heard(), iter(range(1000))
    spoil(monkeypatch, lambda _ids: next(calls) == 2 * 6, math.nan)  # the seventh step, its first micro-batch
    result = run(on_report=heard)
    [event] = heard.of("step_skipped")
    assert (event.step, result.num_skipped_steps, result.num_rollbacks) == (7, 1, 0)
    assert "not finite" in event.message
    known = {document.doc_id for document in corpus[0].documents()}
    assert set(event.facts["doc_ids"]) <= known
    assert len(event.facts["windows"]) == 8
    assert math.isnan(heard.steps[7].loss)
    assert all(math.isfinite(report.loss) for report in heard.steps[1:] if report.step != 7)
    model = checkpoint.load_model(result.checkpoint)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_spike_is_skipped_and_the_guard_outlives_a_resume(run, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = {"spike_sigmas": 6.0, "spike_window_steps": 8, "max_steps": 30, "checkpoint_every_steps": 9}
    with monkeypatch.context() as patch:
        calls = iter(range(1000))
        spoil(patch, lambda _ids: next(calls) in (2 * 19, 2 * 19 + 1), 40.0)
        heard = Heard()
        whole = run("whole", on_report=heard, **guarded)
        assert [event.step for event in heard.of("step_skipped")] == [20]
    with (
        monkeypatch.context() as patch
    ):  # the same, killed at 19, right before the spike: the guard knows what is usual
        calls = iter(range(1000))
        spoil(patch, lambda _ids: next(calls) in (2 * 19, 2 * 19 + 1), 40.0)

        def die(report: Report) -> None:
            if isinstance(report, StepReport) and report.step == 19:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run("parts", on_report=die, **guarded)
    calls = iter(range(2 * 18, 1000))
    spoil(monkeypatch, lambda _ids: next(calls) in (2 * 19, 2 * 19 + 1), 40.0)
    heard = Heard()
    parts = run("parts", on_report=heard, **guarded)
    assert heard.of("resumed")[0].step == parts.resumed_from_step == 18
    assert [event.step for event in heard.of("step_skipped")] == [20]
    assert parts.parameters_digest == whole.parameters_digest


def test_poisonous_data_is_left_out_after_a_rollback(
    run, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Windows that begin with some tokens break every update that sees them: training goes back and past them."""
    heard = Heard()
    options = {"max_steps": 20, "checkpoint_every_steps": 2, "max_skipped_steps": 2, "spike_window_steps": 8}
    clean = Heard()
    run("clean", on_report=clean, **options)
    bad: set[tuple[int, ...]] = set()
    with monkeypatch.context() as patch:  # the windows of steps 9 to 12
        seen: list[torch.Tensor] = []
        spoil(patch, lambda ids: bool(seen.append(ids.clone())), 1.0)  # every step has its batch in the same memory
        run("look", **options)
        bad = {tuple(ids.flatten().tolist()) for ids in seen[2 * 8 : 2 * 12]}
    spoil(monkeypatch, lambda ids: tuple(ids.flatten().tolist()) in bad, math.nan)
    result = run(on_report=heard, **options)
    assert result.num_rollbacks >= 1
    event = heard.of("rolled_back")[0]
    assert (event.facts["from_step"], event.step) == (11, 8)
    assert (event.facts["first_step"], event.facts["last_step"]) == (9, 11)
    assert event.facts["doc_ids"]
    state = checkpoint.read_state(result.checkpoint)
    assert state["progress"]["plan"][1] == {"first_step": 8, "first_sample": 8 * 11, "num_sequences": 8}
    last = {report.step: report for report in heard.steps}
    assert sorted(last) == list(range(21))
    assert [last[step].loss for step in range(1, 9)] == [clean.steps[step].loss for step in range(1, 9)]
    assert not math.isnan(result.final_train_loss)


def test_a_return_finds_a_checkpoint_however_few_are_kept(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first skipped update lies before the newest checkpoints: what is kept for it is not the very first, either."""
    heard = Heard()
    calls = iter(range(1000))
    bad = {2 * (step - 1) for step in (40, 44, 47)}  # the first of a step's two micro-batches
    spoil(monkeypatch, lambda _ids: next(calls) in bad, math.nan)
    run(
        on_report=heard,
        max_steps=50,
        checkpoint_every_steps=2,
        keep_last=1,
        keep_best=0,
        max_skipped_steps=2,
        spike_window_steps=8,
    )
    [event] = heard.of("rolled_back")
    assert event.facts["from_step"] == 47
    assert 47 - 2 * 8 - 2 * 2 <= event.step <= 39


def test_a_return_without_a_checkpoint_from_before_goes_to_the_oldest(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Somebody removed those: what is left has nothing of the bad updates either, and is no reason to begin anew."""
    heard = Heard()

    def remove(report: Report) -> None:
        heard(report)
        if isinstance(report, StepReport) and report.step == 46:
            for path in (tmp_path / "run").glob("step-*"):
                if checkpoint.step_of(path) < 44:
                    shutil.rmtree(path)

    calls = iter(range(1000))
    bad = {2 * (step - 1) for step in (40, 44, 47)}
    spoil(monkeypatch, lambda _ids: next(calls) in bad, math.nan)
    result = run(
        on_report=remove, max_steps=50, checkpoint_every_steps=2, max_skipped_steps=2, spike_window_steps=8, keep_last=2
    )
    [event] = heard.of("rolled_back")
    assert (event.facts["from_step"], event.step) == (47, 44)
    assert (event.facts["first_step"], event.facts["last_step"]) == (45, 47)
    plan = checkpoint.read_state(result.checkpoint)["progress"]["plan"]
    assert plan[1] == {"first_step": 44, "first_sample": 8 * 47, "num_sequences": 8}


def test_training_goes_on_past_a_damaged_checkpoint_with_older_ones(run, tmp_path: Path) -> None:
    """It keeps no place that those need which are written next."""
    wanted = run("whole")

    def stop(report: Report) -> None:
        if isinstance(report, StepReport) and report.step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_report=stop)
    weights = tmp_path / "run/step-00000008/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    heard = Heard()
    result = run(on_report=heard, keep_last=1, keep_best=0, checkpoint_every_steps=1)
    assert [event.step for event in heard.of("checkpoint_passed_over")] == [8]
    assert [event.step for event in heard.of("checkpoint_written")] == [5, 6, 7, 8, 9, 10, 11, 12]
    assert result.resumed_from_step == 4
    assert result.parameters_digest == wanted.parameters_digest
    names = sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir())
    assert names == ["step-00000004", "step-00000012"]


def test_where_nothing_helps_training_gives_up(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = iter(range(10_000))
    spoil(monkeypatch, lambda _ids: next(calls) >= 2 * 6, math.nan)
    with pytest.raises(
        TerminalError, match=r"got \d+ updates that could not be made and 2 returns .*lower the learning"
    ):
        run(max_skipped_steps=2, max_rollbacks=2, max_steps=40)
    newest = checkpoint.newest_valid(tmp_path / "run")
    assert all(torch.isfinite(p).all() for p in checkpoint.load_model(newest).parameters())


def test_a_training_that_breaks_at_once_begins_anew(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no checkpoint to go back to yet."""
    calls, heard = iter(range(1000)), Heard()
    spoil(monkeypatch, lambda _ids: next(calls) < 2 * 2, math.nan)
    result = run(on_report=heard, max_skipped_steps=1, checkpoint_every_steps=None)
    assert heard.of("rolled_back")[0].step == 0
    assert (result.steps, result.num_rollbacks, result.num_skipped_steps) == (12, 1, 2)


@settings(deadline=None, max_examples=60)
@given(
    losses=st.lists(st.floats(2.0, 2.1), min_size=1, max_size=40),
    spike=st.floats(60.0, 1e6) | st.just(math.nan) | st.just(math.inf),
    size=st.integers(4, 16),
)
def test_the_guard_holds_back_spikes_and_nothing_else(losses: list[float], spike: float, size: int) -> None:
    config = TrainConfig(max_steps=1, spike_sigmas=8.0, spike_window_steps=size)
    guard = Guard.of(config, torch.device("cpu"))

    def judge(loss: float, step: int) -> torch.Tensor:
        guard.set_place(step)
        return guard.judge(torch.tensor(loss), torch.tensor(1.0))

    assert not any(judge(loss, step) for step, loss in enumerate(losses))
    skip = judge(spike, len(losses))
    is_full_enough = 2 * min(len(losses), size) >= size
    assert bool(skip) == (is_full_enough or not math.isfinite(spike))
    before = guard.seen.clone()
    again = Guard.of(config, torch.device("cpu"))
    again.load({name: tensor.clone() for name, tensor in guard.state().items()})
    assert torch.equal(before.nan_to_num(-1), again.seen.nan_to_num(-1))
    assert not judge(losses[-1], len(losses) + 1)


def test_a_batch_that_does_not_fit_names_one_that_does(tmp_path: Path, write_shard) -> None:
    """In a process with little memory: the error gives a size, and with that size the training runs."""
    shard = write_shard([("train", list(range(1, 40)) * 200, 9), ("validation", list(range(1, 40)) * 3, 9)])
    code = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        import torch
        from llm.config import ModelConfig, RunConfig, TrainConfig
        from llm.data import TokenData
        from llm.train import train
        shard, folder, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
        data = [TokenData.open([shard], split, digest="d") for split in ("train", "validation")]
        run = RunConfig(device="cpu", num_threads=1, precision="fp32")
        torch.set_num_threads(1)

        def trained(folder, n_embd, micro_batch_size, num_sequences):
            model = ModelConfig(vocab_size=64, block_size=64, n_layer=4, n_head=2, n_embd=n_embd)
            config = TrainConfig(
                max_steps=2, micro_batch_size=micro_batch_size, tokens_per_step=num_sequences * 64, eval_every_steps=None, eval_tokens=64
            )
            train(*data, model, config, run, folder, on_report=lambda _: None)

        trained(folder / "small", 8, 1, 1)  # what torch loads as it trains is there now: a CUDA build loads much
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (380 << 20), resource.RLIM_INFINITY))
        trained(folder / "large", 256, size, 81)  # 81 sequences take 500 MiB or more, 27 take 300 at most
        """
    )

    def attempt(size: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(shard), str(tmp_path / str(size)), str(size)]
        environment = os.environ | {"MALLOC_ARENA_MAX": "1"}  # each thread's would be 64 MiB of addresses
        root = Path(__file__).parents[2]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=environment)

    done = attempt(81)
    assert "for a micro-batch of 81 sequences; wanted one that fits" in done.stderr, done.stderr[-2000:]
    size = int(done.stderr.split("micro_batch_size to ")[1].split(",")[0])
    assert 81 % size == 0
    assert attempt(size).returncode == 0


def test_a_changed_dataset_is_refused_with_a_way_on(run, corpus: Corpus) -> None:
    run()
    other = dataclasses.replace(corpus[0], digest="corpus-2")
    with pytest.raises(ConfigError, match=r"got dataset_digest 'corpus-2'; wanted 'corpus-1'.*start_from takes these"):
        run(data=(other, corpus[1]))


def test_another_batch_size_goes_on_with_the_next_sample(run, tmp_path: Path) -> None:
    """No sample is seen twice and none is left out."""

    def stop(report: Report) -> None:
        if isinstance(report, StepReport) and report.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_report=stop, num_tokens=64 * 12, max_steps=None)
    result = run(tokens_per_step=32, num_tokens=64 * 12, max_steps=None)
    assert result.resumed_from_step == 4
    assert (result.steps, result.num_tokens) == (4 + 16, 64 * 12)
    plan = checkpoint.read_state(result.checkpoint)["progress"]["plan"]
    assert plan == [
        {"first_step": 0, "first_sample": 0, "num_sequences": 8},
        {"first_step": 4, "first_sample": 32, "num_sequences": 4},
    ]


@pytest.mark.parametrize("size", [1, 2, 8])
def test_another_micro_batch_size_is_the_same_training(run, tmp_path: Path, size: int) -> None:
    """It is what the advice on memory changes: the text of the probe does not change with it."""

    def stop(report: Report) -> None:
        if isinstance(report, StepReport) and report.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_report=stop)
    heard = Heard()
    result = run(micro_batch_size=size, on_report=heard)
    assert result.resumed_from_step == 4
    assert heard.of("resumed")[0].facts["relative_difference"] < 1e-6


def test_a_resume_that_computes_another_loss_is_refused(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(report: Report) -> None:
        if isinstance(report, StepReport) and report.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_report=stop)
    states = GPT.states
    with monkeypatch.context() as patch:
        patch.setattr(GPT, "states", lambda self, *args, **options: states(self, *args, **options) * 1.5)
        with pytest.raises(TerminalError, match=r"got a loss of .* on the probe after the resume at step 4; wanted"):
            run()
    heard = Heard()
    run(on_report=heard)
    facts = heard.of("resumed")[0].facts
    assert facts["relative_difference"] == 0.0
    assert json.dumps(facts)  # plain values


def test_documents_of_windows_are_those_with_a_token_in_them(corpus: Corpus) -> None:
    data = corpus[0]
    starts = np.cumsum([0, *(document.tokens.size for document in data.documents())])
    ids = [document.doc_id for document in data.documents()]
    for windows in ([0], [3, 1], list(range(data.num_windows(8)))):
        wanted = [
            doc_id
            for doc_id, start, end in zip(ids, starts, starts[1:], strict=False)
            if any(start < (window + 1) * 8 + 1 and end > window * 8 for window in windows)
        ]
        assert data.documents_of(np.array(windows), 8) == wanted
