"""A training's journal: whole lines, whatever is torn; nothing twice after a resume, nothing lost."""

import json
import math
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm import journal
from llm.journal import JOURNAL, Journal, is_damaged, is_left, last_entry, number, read
from llm.reports import StepReport, StepSeconds, TrainEvent
from pipelines.errors import StorageError

FIGURES = st.floats(allow_nan=True, allow_infinity=True, width=64)


def step_report(step: int, loss: float | None = 3.0, **changes: Any) -> StepReport:
    fields: dict[str, Any] = {
        "num_tokens": 128 * step,
        "loss": loss,
        "learning_rate": 1e-3,
        "grad_norm": 0.5,
        "tokens_per_second": 1e5,
        "mfu": None,
        "seconds": None,
        "val_loss": None,
        "batch_digest": "0123456789abcdef",
    }
    return StepReport(step=step, **{**fields, **changes})


def write(folder: Path, *reports: StepReport | TrainEvent) -> None:
    with Journal(folder) as opened:
        for report in reports:
            opened.write(report)


def losses(folder: Path) -> list[tuple[int, float | None]]:
    return [
        (each.facts["step"], number(each.facts["loss"])) for each in read(folder / JOURNAL) if each.kind == journal.STEP
    ]


def bits(value: float | None) -> bytes | None:
    return None if value is None else b"nan" if math.isnan(value) else struct.pack("<d", value)


@given(st.lists(st.tuples(FIGURES, FIGURES | st.none(), FIGURES | st.none()), min_size=1, max_size=20))
def test_every_figure_comes_back_bit_for_bit(figures: list[tuple[float, float | None, float | None]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = StepSeconds(
            data=figures[0][0], forward=1.0, backward=2.0, optimizer=0.1, log=0.0, checkpoint=0.0, whole=3.1
        )
        write(
            folder,
            *(
                step_report(idx, loss, grad_norm=norm, val_loss=val, seconds=seconds)
                for idx, (loss, norm, val) in enumerate(figures)
            ),
        )
        entries = [entry for entry in read(folder / JOURNAL) if entry.kind == journal.STEP]
        got = [tuple(bits(number(each.facts[key])) for key in ("loss", "grad_norm", "val_loss")) for each in entries]
        assert got == [tuple(bits(value) for value in each) for each in figures]
        assert bits(number(entries[0].facts["seconds"]["data"])) == bits(figures[0][0])
        for line in (folder / JOURNAL).read_text().splitlines():
            json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@given(st.data())
def test_torn_at_any_byte_the_whole_lines_stay_and_the_rest_is_written_again(data: st.DataObject) -> None:
    reports = [step_report(step, 3.0 + step) for step in range(6)]
    event = TrainEvent(kind="step_skipped", step=3, message="é too large", facts={"doc_ids": ["a", "b"], "z": math.inf})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / JOURNAL
        write(folder, *reports[:4], event, *reports[4:])
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(
            whole[:cut] + data.draw(st.sampled_from([b"", b"\0" * 40, b'{"at_ms":1,\n', b"x\n", b"\xff{}"]))
        )
        left = [entry for entry in read(path) if entry.end <= cut]
        assert [entry.end for entry in read(path)] == [entry.end for entry in left], "nothing torn is read"
        write(folder, *reports[:4], event, *reports[4:])
        assert path.read_bytes().startswith(whole[: left[-1].end] if left else b"")
        entries = list(read(path))
        assert [entry.kind for entry in entries] == ["opened", *["step"] * 4, "step_skipped", *["step"] * 2]
        assert losses(folder) == [(step, 3.0 + step) for step in range(6)]
        assert entries[5].facts["facts"] == {"doc_ids": ["a", "b"], "z": "inf"}
        assert sum(len(line) for line in path.read_bytes().splitlines(keepends=True)) == entries[-1].end


@given(st.data())
def test_a_changed_byte_before_the_end_is_damage_and_a_torn_end_is_none(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / JOURNAL
        write(folder, *(step_report(step) for step in range(5)))
        whole = path.read_bytes()
        ends = [entry.end for entry in read(path)]
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
        assert not is_damaged(path)
        place = data.draw(st.integers(0, ends[-3] - 1))
        changed = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
        path.write_bytes(whole[:place] + changed + whole[place + 1 :])
        assert is_damaged(path)
        assert (
            [entry.end for entry in read(path)]
            == [end for start, end in zip([0, *ends], ends, strict=False) if not start <= place < end]
            or changed == b"\n"
            or whole[place] == 10
        )


@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([3.0, -0.0, 0.0, math.nan]), st.booleans()), max_size=30),
)
def test_a_step_done_again_is_written_where_it_differs_from_the_last(told: list[tuple[int, float, bool]]) -> None:
    """However often the process is begun anew in between."""
    wanted: list[tuple[int, bytes | None]] = []
    newest: dict[int, bytes | None] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened = Journal(folder)
        for step, loss, is_begun_anew in told:
            if is_begun_anew:
                opened.close()
                opened = Journal(folder)
            opened.write(step_report(step, loss, tokens_per_second=float(len(wanted))))
            if step not in newest or newest[step] != bits(loss):
                wanted.append((step, bits(loss)))
                newest[step] = bits(loss)
        opened.close()
        assert [(step, bits(loss)) for step, loss in losses(folder)] == wanted


@given(st.lists(st.integers(1, 90_000), min_size=1, max_size=5), st.integers(0, 400_000))
def test_reading_from_any_byte_gives_the_whole_lines_behind_it(sizes: list[int], offset: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(
            folder,
            *(TrainEvent(kind="rolled_back", step=idx, message="x" * size, facts={}) for idx, size in enumerate(sizes)),
        )
        path = folder / JOURNAL
        entries = list(read(path))
        starts = [0, *(entry.end for entry in entries[:-1])]
        assert list(read(path, offset)) == [
            entry for start, entry in zip(starts, entries, strict=True) if start >= offset
        ]
        assert last_entry(path) == entries[-1]


def test_how_a_sitting_ended_is_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL

    class StopError(Exception):
        pass

    def sit(error: BaseException) -> None:
        with journal.journal(tmp_path, stopped_by=(StopError,)) as opened:
            opened.write(step_report(1))
            raise error

    for raised, how in ((ValueError("bad"), "failed"), (StopError(), "stopped"), (KeyboardInterrupt(), "stopped")):
        with pytest.raises(type(raised)):
            sit(raised)
        assert (last_entry(path).kind, last_entry(path).facts["how"]) == ("ended", how)  # type: ignore[union-attr]
        assert not is_left(path)
    with journal.journal(tmp_path) as opened:
        opened.write(step_report(2))
    size = path.stat().st_size
    with journal.journal(tmp_path):
        pass
    assert path.stat().st_size == size, "said once"
    hows = [entry.facts["how"] for entry in read(path) if entry.kind == "ended"]
    assert hows == ["failed", "stopped", "finished"]
    assert losses(tmp_path) == [(1, 3.0), (2, 3.0)]


def _train_until_killed(folder: Path, pipe: Any) -> None:
    opened = Journal(folder)
    for step in range(100):
        opened.write(step_report(step))
    pipe.send("written")
    signal.pause()


def test_a_killed_writer_loses_nothing_and_is_known_to_be_gone(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_train_until_killed, args=(tmp_path, there))
    process.start()
    assert here.recv() == "written"
    path = tmp_path / JOURNAL
    assert not is_left(path), "its writer is at it"
    with pytest.raises(StorageError, match="another process"):
        Journal(tmp_path)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert is_left(path)
    assert len(losses(tmp_path)) == 100
    with Journal(tmp_path) as opened:
        opened.end("killed")
    assert not is_left(path)


def test_there_is_nothing_to_read_where_there_is_no_journal(tmp_path: Path) -> None:
    assert (list(read(tmp_path / JOURNAL)), last_entry(tmp_path / JOURNAL)) == ([], None)
    assert not is_left(tmp_path / JOURNAL)


def test_threads_may_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path) as opened:
        threads = [
            threading.Thread(target=lambda part=part: [opened.write(step_report(10 * idx + part)) for idx in range(50)])
            for part in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(step for step, _ in losses(tmp_path)) == sorted(
        10 * idx + part for idx in range(50) for part in range(4)
    )
    assert list(read(tmp_path / JOURNAL))[-1].end == (tmp_path / JOURNAL).stat().st_size


def test_a_full_disk_tears_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path) as opened:
        opened.write(step_report(1))
        real, left = os.write, [40]

        def nearly_full(descriptor: int, data: bytes) -> int:
            if not left[0]:
                raise OSError(28, "No space left on device")
            taken, left[0] = left[0], 0
            return real(descriptor, data[:taken])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", nearly_full)
            with pytest.raises(StorageError, match="No space left"):
                opened.write(step_report(2))
        opened.write(step_report(2))
    assert [step for step, _ in losses(tmp_path)] == [1, 2]


def test_a_journal_needs_the_standard_library_alone() -> None:
    """It is written where a training runs, also where no more than torch is installed."""
    told = (
        "import sys, llm.journal; print(*{name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", told], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"llm", "pipelines", "__main__"}


def test_a_report_costs_the_training_little(tmp_path: Path) -> None:
    reports = [step_report(step, 3.0 + 1e-9 * step) for step in range(2000)]
    with Journal(tmp_path) as opened:
        began = time.thread_time()
        for report in reports:
            opened.write(report)
        spent = time.thread_time() - began
    assert spent / len(reports) < 300e-6, "20 microseconds where nobody else is at work; bench-journal measures it"
