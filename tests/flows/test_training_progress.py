"""What a person sees of a training: few lines of many reports, the newest figures, and what went wrong at once."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from flows import tasks
from flows.watching import console
from llm.reports import StepReport, TrainEvent


def step_report(step: int, **changes: Any) -> StepReport:
    fields: dict[str, Any] = {
        "num_tokens": 128 * step,
        "loss": 3.25,
        "learning_rate": 1e-3,
        "grad_norm": 0.5,
        "tokens_per_second": 1234.5,
        "mfu": 0.412,
        "seconds": None,
        "val_loss": None,
        "batch_digest": "0123456789abcdef",
    }
    return StepReport(step=step, **{**fields, **changes})


def test_a_server_that_fails_or_hangs_costs_the_work_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of the work neither waits nor sees the error, and one that hangs is not joined by others."""
    begun, release = [], threading.Event()

    def create(**asked: Any) -> None:
        begun.append(asked["progress"])
        assert release.wait(60)
        raise ConnectionError("gone")

    monkeypatch.setattr(tasks, "create_progress_artifact", create)
    monkeypatch.setattr(tasks, "_ARTIFACT_SECONDS", 0.0)
    artifact = tasks.ProgressArtifact("k")
    for part in (0.1, 0.2, 0.3):
        artifact.show(part, "")
    release.set()
    assert artifact._sending is not None
    artifact._sending.join(60)
    assert begun == [10.0]
    artifact.show(1.0, "")
    assert begun == [10.0, 100.0]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int | None, str]]:
    clock = [0.0]
    monkeypatch.setattr(tasks, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(tasks, "ProgressArtifact", lambda _key: SimpleNamespace(show=lambda _share, _note: None))
    job: Any = SimpleNamespace(training=SimpleNamespace(max_steps=1000))
    drawn: list[tuple[int, int | None, str]] = []
    show = tasks._training_progress(
        job, SimpleNamespace(name="r"), lambda _name, done, total, note: drawn.append((done, total, note))
    )  # type: ignore[arg-type]
    show(step_report(0, loss=None, val_loss=6.5, tokens_per_second=None, mfu=None))
    for group in range(10):  # a hundred reports at once, every second
        clock[0] += 1.0
        for step in range(100 * group + 1, 100 * group + 101):
            show(step_report(step, val_loss=5.0 - group / 10 if step % 100 == 0 else None))
        show(TrainEvent(kind="step_skipped", step=100 * group + 100, message="The norm was 40.", facts={}))
        show(TrainEvent(kind="checkpoint_written", step=100 * group + 100, message="Written.", facts={}))
    return drawn


def test_reports_that_come_in_groups_are_drawn_once_a_group_and_the_last_always(
    shown: list[tuple[int, int | None, str]], caplog: pytest.LogCaptureFixture
) -> None:
    assert [done for done, _, _ in shown] == [0, *range(1, 1000, 100), 1000]
    assert shown[0] == (0, 1000, "validation 6.500")
    assert shown[-1] == (1000, 1000, "loss 3.250, validation 4.100, 1,234 tokens/s, MFU 41 %")


def test_what_went_wrong_is_said_at_once(
    shown: list[tuple[int, int | None, str]], caplog: pytest.LogCaptureFixture
) -> None:
    said = [record.getMessage() for record in caplog.get_records("setup")]
    assert said == [f"train: step {step}: The norm was 40." for step in range(100, 1001, 100)]


def test_a_note_leaves_out_what_is_not_known() -> None:
    assert console.training_note(step_report(1, mfu=None), None) == "loss 3.250, 1,234 tokens/s"


def test_on_a_worker_progress_goes_to_the_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """From where Prefect takes it: its UI shows how far a stage is."""
    caplog.set_level("INFO", "flows.watching.console")
    with console.progress() as report:
        report("extract", 1, 2, "5 rows")
    assert (caplog.messages, capsys.readouterr().err) == (["extract: 1/2 5 rows"], "")
