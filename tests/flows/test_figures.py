"""Figures as images: each is drawn where there is something to draw, with letters that the font has."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread
from model_inputs import corpus, event, full_facts, step, write_journal

from flows.model.facts import model_facts
from flows.model.figures import funnel_figure, legible, write_figures, write_signal_figures


def review(num_rules: int, name: str = "short") -> dict:
    """Facts of a review page whose rules compare a number."""
    panel = {
        "threshold": 0.3,
        "threshold_idx": 1,
        "languages": ["en", "zh"],
        "grid": [0.0, 0.3, 0.6],
        "kept": [3, 4_000, 0, 0],
        "dropped": [0, 1, 5, 2],
    }
    rule = {"name": name, "signal": "ratio", "comparison": "at_most", "num_failed": 3, "panels": [panel, panel]}
    other = {"name": "http_404", "signal": None, "comparison": None, "num_failed": 9, "panels": []}
    return {"rules": [other, *([rule] * num_rules)]}


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def test_everything_that_there_is(tmp_path: Path) -> None:
    facts = full_facts(tmp_path / "training", "港口 $x_1$ \x00 <b>")
    paths = write_figures(tmp_path / "a", facts)
    assert names(paths) == [
        "loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu", "time_by_part", "ladder", "funnel",
    ]  # fmt: skip
    again = write_figures(tmp_path / "b", facts)
    for path, same in zip(paths, again, strict=True):
        assert path.read_bytes() == same.read_bytes()  # the same facts, the same bytes
        image = imread(path)
        assert image.shape[1] == 960
        assert image.std() > 0.01  # it is not blank
    assert sorted(each.name for each in (tmp_path / "a").iterdir()) == sorted(path.name for path in paths)


def test_only_what_there_is(tmp_path: Path) -> None:
    assert write_figures(tmp_path / "out", model_facts("x", folder=tmp_path)) == []
    one = model_facts("x", folder=write_journal(tmp_path / "one", [step(0), step(1, mfu=None)]))
    assert names(write_figures(tmp_path / "out", one)) == [
        "loss", "learning_rate", "grad_norm", "tokens_per_second", "time_by_part",
    ]  # fmt: skip


def test_a_loss_that_was_never_finite(tmp_path: Path) -> None:
    reports = [step(number, loss=math.nan, grad_norm=math.inf, val_loss=None) for number in range(1, 5)]
    reports.append(event("step_skipped", 2))
    facts = model_facts("x", folder=write_journal(tmp_path / "training", reports))
    assert "loss" in names(write_figures(tmp_path / "out", facts))


def test_a_funnel_with_many_reasons_stays_small() -> None:
    rows = [["pages in", 10_000], *[[f"dropped: rule {number}", 10] for number in range(200)], ["kept", 8_000]]
    axes = funnel_figure(rows).axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len(labels) == 40
    assert labels[0] == "pages in"
    assert labels[-2:] == ["dropped: 163 other reasons", "kept"]
    assert sum(bar.get_width() for bar in axes.patches[1:]) == 10_000  # nothing is lost


def test_the_signals_stand_on_sheets(tmp_path: Path) -> None:
    assert names(write_signal_figures(tmp_path / "a", review(7))) == ["signals-1", "signals-2"]  # 14 histograms
    assert write_signal_figures(tmp_path / "b", review(0)) == []
    (named,) = write_signal_figures(tmp_path / "c", review(1, "字数_$1$"))
    assert imread(named).shape[1] == 1512


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ≥ 5 – é", "plain ≥ 5 – é"),
        ("汉a", "U+6C49 a"),
        ("\x00\u202e", "U+0000 U+202E "),
        ("x" * 70, "x" * 57 + "..."),
    ],
)
def test_what_the_font_lacks_is_spelled_out(text: str, shown: str) -> None:
    assert legible(text) == shown


def test_the_funnel_alone(tmp_path: Path) -> None:
    facts = replace(model_facts("x"), corpus=corpus("港口"))
    assert names(write_figures(tmp_path, facts)) == ["funnel"]
