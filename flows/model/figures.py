"""The curves of a training, the ladder, the funnel and the signals of a corpus as PNG images, for places that show no page.

Drawn with matplotlib's Agg canvas on figures of our own: nothing global is set, no window is opened. The same facts give
the same bytes with the same matplotlib. Its font has no Chinese: what it cannot draw is spelled out as U+4E2D.
"""

import math
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flows.model.facts import PARTS, ModelFacts, Progress, Rung
from flows.model.page.scales import Binned, binned, bins
from pipelines.store import storage_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_POINTS = 1_000
_DPI = 120
_SIZE_INCHES = (8.0, 4.2)
_ROW_INCHES = 0.32
_MAX_BARS = 40
_MAX_HISTOGRAMS = 60
_MIN_TICK_GAP = 0.25
"""Between two counts written at a histogram, as a part of its half height."""
_SHEET, _SHEET_COLUMNS = 12, 3
_HISTOGRAM_INCHES = (4.2, 2.3)
_MAX_LABEL_CHARS = 60
_KEPT, _DROPPED, _VALIDATION, _OTHER, _BAD = "#1f6f9f", "#b4531a", "#b4531a", "#7a4fa3", "#b3261e"
_PART_COLOURS = ("#1f6f9f", "#b4531a", "#3f7d3a", "#7a4fa3", "#a8862a", "#4a7f86", "#8a8f94")
_EVENTS: Mapping[str, tuple[str, str, Literal[":", "--", "-."]]] = {
    "step_skipped": ("update skipped", _BAD, ":"),
    "rolled_back": ("rolled back", _OTHER, "--"),
    "resumed": ("resumed", "#3f7d3a", "-."),
}
_CURVES = (
    ("learning_rate", "Learning rate", "learning rate"),
    ("grad_norm", "Gradient norm, before clipping", "norm"),
    ("tokens_per_second", "Throughput", "tokens a second"),
    ("mfu", "Model FLOPs utilisation", "share of the peak"),
)


def write_figures(folder: Path, facts: ModelFacts) -> list[Path]:
    """Write what there is of loss, learning_rate, grad_norm, tokens_per_second, mfu, time_by_part, ladder and funnel.

    Each is NAME.png in the folder. Raises StorageError for the disk.
    """
    figures: dict[str, Figure] = {}
    progress = facts.progress
    if progress is not None and progress.curves.steps.size:
        figures["loss"] = _loss(facts, progress)
        for name, title, unit in _CURVES:
            if np.isfinite(progress.curves.figures[name]).any():
                figures[name] = _curve(progress, name, title, unit)
        if np.isfinite(progress.curves.figures["seconds/whole"]).any():
            figures["time_by_part"] = _time_by_part(progress)
    rungs = [rung for rung in facts.rungs if math.isfinite(rung.bits_per_byte.value)]
    if len(rungs) > 1:
        figures["ladder"] = _ladder(rungs)
    if facts.corpus is not None:
        figures["funnel"] = funnel_figure(facts.corpus["funnel"])
    return [_write(folder / f"{name}.png", figure) for name, figure in figures.items()]


def write_signal_figures(folder: Path, review: Mapping[str, Any], *, max_panels: int = _MAX_HISTOGRAMS) -> list[Path]:
    """Write histograms of the signals that rules compare with thresholds: `review` is what `review_facts` returns.

    Twelve to a sheet, signals-NUMBER.png in the folder; rules that most documents fail come first. Raises StorageError for
    the disk.
    """
    rules = sorted(review["rules"], key=lambda rule: -rule["num_failed"])
    panels = [(rule, panel) for rule in rules for panel in rule["panels"]]
    return [
        _write(folder / f"signals-{start // _SHEET + 1}.png", _sheet(panels[start : start + _SHEET]))
        for start in range(0, min(len(panels), max_panels), _SHEET)
    ]


def write_corpus_figures(folder: Path, review: Mapping[str, Any], card: Mapping[str, Any] | None) -> list[Path]:
    """Write the funnel of a data card and the first sheet of signals: of those that most documents fail.

    Raises StorageError for the disk.
    """
    written = write_signal_figures(folder, review, max_panels=_SHEET)
    if card is not None:
        written.append(_write(folder / "funnel.png", funnel_figure(card["funnel"])))
    return written


def funnel_figure(rows: Sequence[Sequence[Any]]) -> "Figure":
    """Documents in, dropped by reason and kept, as bars: `rows` are those of `Funnel`."""
    shown = [(str(label), int(count)) for label, count in rows]
    if len(shown) > _MAX_BARS:
        rest = shown[_MAX_BARS - 2 : -1]
        others = (f"dropped: {len(rest):,} other reasons", sum(count for _, count in rest))
        shown = [*shown[: _MAX_BARS - 2], others, shown[-1]]
    figure, axes = _bar_figure(len(shown), "Documents by outcome", "documents")
    colours = [_DROPPED if label.startswith("dropped") else _KEPT for label, _ in shown]
    drawn = axes.barh(range(len(shown)), [count for _, count in shown], color=colours)
    axes.bar_label(drawn, labels=[f"{count:,}" for _, count in shown], padding=3, fontsize=8)
    _label_bars(axes, [label for label, _ in shown])
    return figure


def legible(text: str) -> str:
    """A text of what the font can draw; the rest by its code points, and what is long cut."""
    drawable = _drawable()
    short = text if len(text) <= _MAX_LABEL_CHARS else f"{text[: _MAX_LABEL_CHARS - 3]}..."
    return "".join(char if ord(char) in drawable and char.isprintable() else f"U+{ord(char):04X} " for char in short)


@cache
def _drawable() -> frozenset[int]:
    """Code points of matplotlib's own font, which lies in its package: the same on every machine."""
    import matplotlib as mpl
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"))
    return frozenset(font.get_charmap())


def _loss(facts: ModelFacts, progress: Progress) -> "Figure":
    curves = progress.curves
    figure, axes = _figure("Loss", "step", "nats a token")
    _draw_curve(axes, progress, "loss", "training")
    values = curves.figures["val_loss"]
    at = np.flatnonzero(np.isfinite(values))
    if at.size:
        at = at[np.unique(np.linspace(0, at.size - 1, min(at.size, _MAX_POINTS)).astype(np.int64))]
        style = {
            "color": _VALIDATION,
            "markersize": 3,
            "linewidth": 1,
            "clip_on": False,
        }  # the last is at the axis' end
        axes.plot(curves.steps[at], values[at], "o-", label="validation", **style)
    if facts.evaluation is not None and facts.evaluation.get("loss") is not None:
        at_end = [facts.num_steps or 0], [float(facts.evaluation["loss"])]
        axes.plot(*at_end, "D", color=_OTHER, markersize=7, clip_on=False, label="evaluation (held-out text)")
    bad = curves.steps[np.isinf(curves.figures["loss"])]
    if bad.size:
        low = axes.get_ylim()[0]
        shown = bad[np.unique(np.linspace(0, bad.size - 1, min(bad.size, _MAX_POINTS)).astype(np.int64))]
        axes.plot(shown, np.full(shown.size, low), "x", color=_BAD, clip_on=False, label="not finite")
    _draw_events(axes, progress)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _curve(progress: Progress, name: str, title: str, unit: str) -> "Figure":
    figure, axes = _figure(title, "step", unit)
    _draw_curve(axes, progress, name, title)
    if name in ("learning_rate", "tokens_per_second", "mfu"):
        axes.set_ylim(bottom=0)
    _draw_events(axes, progress)
    if name == "mfu":
        axes.yaxis.set_major_formatter(lambda value, _at: f"{value * 100:.3g} %")
    if any(event.kind in _EVENTS for event in progress.events):
        axes.legend(fontsize=8, frameon=False)
    return figure


def _draw_curve(axes: "Axes", progress: Progress, name: str, label: str) -> None:
    steps, values = progress.curves.steps, progress.curves.figures[name]
    into = bins(steps.size, _MAX_POINTS)
    drawn: Binned = binned(values, into)
    middle = (steps[into.starts] + steps[into.ends - 1]) / 2
    if into.starts.size < steps.size:
        axes.fill_between(middle, drawn.lows, drawn.highs, color=_KEPT, alpha=0.22, linewidth=0)
    axes.plot(middle, drawn.means, color=_KEPT, linewidth=1.2, label=label)
    axes.set_xlim(*_ends(steps))


def _draw_events(axes: "Axes", progress: Progress) -> None:
    bottom, top = axes.get_ylim()
    for kind, (label, colour, dashes) in _EVENTS.items():
        at = sorted({event.step for event in progress.events if event.kind == kind})
        if at:
            shown = np.unique(np.round(np.array(at, dtype=np.float64), 0))[:_MAX_POINTS]
            axes.vlines(
                shown, bottom, top, colors=colour, linestyles=dashes, linewidth=0.9, label=f"{label} ({len(at):,})"
            )
    axes.set_ylim(bottom, top)


def _time_by_part(progress: Progress) -> "Figure":
    figures = progress.curves.figures
    steps = progress.curves.steps
    into = bins(steps.size, _MAX_POINTS // 5)
    whole = np.add.reduceat(np.nan_to_num(figures["seconds/whole"], posinf=0.0), into.starts)
    parts = [np.add.reduceat(np.nan_to_num(figures[f"seconds/{part}"], posinf=0.0), into.starts) for part in PARTS]
    total = np.maximum(whole, sum(parts))
    below = np.where(total > 0, total, np.nan)
    shares = [part / below for part in parts] + [(total - sum(parts)) / below]
    figure, axes = _figure("Time by part", "step", "share of a step")
    names = [*PARTS, "other"]
    middle = (steps[into.starts] + steps[into.ends - 1]) / 2
    there = np.isfinite(below)
    axes.stackplot(middle[there], [share[there] for share in shares], labels=names, colors=_PART_COLOURS)
    axes.set_ylim(0, 1)
    axes.set_xlim(*_ends(middle[there]))
    axes.yaxis.set_major_formatter(lambda value, _at: f"{value * 100:.0f} %")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _ladder(rungs: Sequence[Rung]) -> "Figure":
    figure, axes = _bar_figure(len(rungs), "Ladder on the held-out text", "bits per byte (fewer is better)")
    for idx, rung in enumerate(rungs):
        found = rung.bits_per_byte
        errors = None
        if found.low is not None and found.high is not None:
            errors = [[max(0.0, found.value - found.low)], [max(0.0, found.high - found.value)]]
        colour = _DROPPED if rung.beats_below is False else _KEPT
        drawn = axes.barh([idx], [found.value], xerr=errors, color=colour, ecolor="#1d2329", capsize=3)
        flag = f"  does not beat {legible(rungs[idx - 1].name)}" if rung.beats_below is False else ""
        axes.bar_label(drawn, labels=[f"{found.value:.4g}{flag}"], padding=6, fontsize=8)
    _label_bars(axes, [rung.name for rung in rungs])
    axes.set_xlim(right=axes.get_xlim()[1] * 1.25)
    return figure


def _sheet(panels: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> "Figure":
    """Histograms side by side. Margins are given: to find them by drawing takes longer than the drawing."""
    from matplotlib.figure import Figure

    num_rows = math.ceil(len(panels) / _SHEET_COLUMNS)
    height = _HISTOGRAM_INCHES[1] * num_rows
    figure = Figure(figsize=(_HISTOGRAM_INCHES[0] * _SHEET_COLUMNS, height), dpi=_DPI, facecolor="white")
    figure.subplots_adjust(left=0.06, right=0.98, top=1 - 0.55 / height, bottom=0.55 / height, hspace=0.85, wspace=0.22)
    for idx, (rule, panel) in enumerate(panels):
        _histogram(figure.add_subplot(num_rows, _SHEET_COLUMNS, idx + 1), rule, panel)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=len(labels), fontsize=8, frameon=False)
    return figure


def _histogram(axes: "Axes", rule: Mapping[str, Any], panel: Mapping[str, Any]) -> None:
    """Kept documents upwards, dropped ones downwards; the scale is that of square roots, so that single ones are seen."""
    grid = [float(value) for value in panel["grid"]]
    sign = {"at_least": "≥", "at_most": "≤"}.get(rule["comparison"], "")
    languages = ", ".join(panel["languages"])
    title = legible(f"{rule['name']} {sign} {panel['threshold']:g} ({languages})")
    _name(axes, title, legible(rule["signal"]), "documents", size=8)
    edges = np.arange(len(grid) + 2) - 0.5
    for counts, colour, side, label in ((panel["kept"], _KEPT, 1, "kept"), (panel["dropped"], _DROPPED, -1, "dropped")):
        axes.stairs(side * np.sqrt(np.array(counts, dtype=np.float64)), edges, fill=True, color=colour, label=label)
    axes.axvline(int(panel["threshold_idx"]) + 0.5, color="#1d2329", linewidth=1.2, label="threshold")
    axes.axhline(0, color="#5b6670", linewidth=0.8)
    every = max(1, math.ceil(len(grid) / 6))
    axes.set_xticks([idx + 0.5 for idx in range(0, len(grid), every)], [f"{value:g}" for value in grid[::every]])
    ticks = _count_ticks(max((*panel["kept"], *panel["dropped"], 1)))
    axes.set_yticks(
        [side * math.sqrt(tick) for side in (-1, 1) for tick in ticks], [f"{tick:,}" for tick in (*ticks, *ticks)]
    )


def _count_ticks(most: int) -> list[int]:
    """Round counts that stand apart on a scale of square roots, the largest first."""
    found: list[int] = []
    for exponent in range(len(str(most)), -1, -1):
        for tick in (5 * 10**exponent, 2 * 10**exponent, 10**exponent):
            gap = math.sqrt(found[-1]) - math.sqrt(tick) if found else math.inf
            if tick <= most and min(gap, math.sqrt(tick)) > _MIN_TICK_GAP * math.sqrt(most):
                found.append(tick)
    return found


def _figure(title: str, x_label: str, y_label: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    _name(axes, title, x_label, y_label, size=11)
    return figure, axes


def _name(axes: "Axes", title: str, x_label: str, y_label: str, *, size: int) -> None:
    for text in (
        axes.set_title(title, fontsize=size, loc="left"),
        axes.set_xlabel(x_label, fontsize=size - 1),
        axes.set_ylabel(y_label, fontsize=size - 1),
    ):
        text.set_parse_math(False)  # a $ in a name is a $
    axes.tick_params(labelsize=size - 2)
    axes.xaxis.set_major_formatter(lambda value, _at: f"{value:,.0f}")
    axes.grid(visible=True, color="#d9dee3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _bar_figure(num_bars: int, title: str, x_label: str) -> "tuple[Figure, Axes]":
    figure, axes = _figure(title, x_label, "")
    figure.set_size_inches(_SIZE_INCHES[0], 1.2 + _ROW_INCHES * max(2, num_bars))
    axes.grid(visible=False, axis="y")
    return figure, axes


def _label_bars(axes: "Axes", labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [legible(label) for label in labels], fontsize=8, parse_math=False)
    axes.invert_yaxis()


def _ends(steps: Any) -> tuple[float, float]:
    """An axis from the first to the last step; of one step, something around it."""
    first, last = (float(steps[0]), float(steps[-1])) if steps.size else (0.0, 1.0)
    return (first, last) if last > first else (first - 0.5, first + 0.5)


def _write(path: Path, figure: "Figure") -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{uuid.uuid4().hex}"
        try:
            figure.savefig(
                temporary, format="png", metadata={"Software": None}
            )  # whose version is no fact of the model
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path
