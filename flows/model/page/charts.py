"""Curves along a training as SVG, drawn here so that the page shows them without a script.

A plot is stretched to the width that there is, 1,000 units wide; its axes are drawings of their own, which are not, so that
text stays as large as text. Strokes keep their width, and a dot is a line of no length with round ends.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flows.model.page.scales import Axis, Binned, Bins, Floats, Ints, linear_axis, log_axis, number_text
from flows.static_page import attribute, escaped

WIDTH = 1000
_NUM_X_TICKS = 5
_MARGIN = 6
"""Pixels above and below a plot, so that the outermost numbers of its axis are whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A line of a chart."""

    name: str
    kind: str
    """The class that colours it."""
    values: Binned
    has_band: bool = False
    """Whether the least and the largest of each bin are shown around its mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Measurements at some steps, a dot each, joined by a line."""

    name: str
    kind: str
    steps: Ints
    values: Floats
    is_joined: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """What all charts of a page have in common: their bins, and the axis below."""

    first: Ints
    """First step of each bin, (num_bins,)."""
    last: Ints
    tokens: Floats
    """Trained on by the end of each."""
    axis: Axis

    @classmethod
    def of(cls, steps: Ints, tokens: Floats, into: Bins) -> "Steps":
        """The bins of a training's steps."""
        ends = into.ends - 1
        axis = linear_axis([float(steps[0]), float(steps[-1])] if steps.size else [0.0, 1.0], num_ticks=_NUM_X_TICKS)
        low, high = (float(steps[0]), float(steps[-1])) if steps.size > 1 else (axis.low, axis.high)
        ticks = tuple(tick for tick in axis.ticks if low <= tick <= high)
        return cls(
            first=steps[into.starts],
            last=steps[ends],
            tokens=tokens[ends],
            axis=Axis(low=low, high=high, ticks=ticks, is_log=False),
        )

    @property
    def x(self) -> Floats:
        """The middle of each bin, from 0 to WIDTH."""
        return np.array([self.at(step) for step in (self.first + self.last) / 2])

    def bins_of(self, at: Sequence[int]) -> list[int]:
        """The bin that each step is in, or is nearest to."""
        found: list[int] = np.minimum(np.searchsorted(self.last, np.array(at)), self.last.size - 1).tolist()
        return found

    def at(self, step: float) -> float:
        """Where a step stands, from 0 to WIDTH."""
        return self.axis.place(float(step)) * WIDTH


def steps_data(steps: Steps, marks: Mapping[str, Sequence[int]]) -> str:
    """What the script needs of the bins, as JSON; `marks` has the steps of events by what a reader calls them."""
    tokens = [None if not math.isfinite(each) else int(each) for each in steps.tokens]
    x = [round(float(each), 1) for each in steps.x]
    events = {name: dict(sorted(Counter(steps.bins_of(at)).items())) for name, at in marks.items()}
    return json.dumps(
        {"x": x, "first": steps.first.tolist(), "last": steps.last.tolist(), "tokens": tokens, "events": events}
    )


def curve_chart(
    title: str,
    unit: str,
    steps: Steps,
    *,
    series: Sequence[Series] = (),
    points: Sequence[Points] = (),
    marks: Mapping[str, Sequence[int]],
    height: int = 150,
    from_zero: bool = False,
    can_be_log: bool = True,
    format_value: str = "number",
) -> str:
    """A chart of lines, dots and marks. `marks` has the steps of each kind of event; `format_value` is number or percent."""
    every = [values for each in series for values in _drawn(each)]
    every += [each.values for each in points]
    values = np.concatenate(every) if every else np.empty(0)
    axis, log = linear_axis(values, from_zero=from_zero), log_axis(values) if can_be_log else None
    plot = [_grid(axis, height)]
    plot += [_band(each, steps, axis, height) for each in series if each.has_band]
    for each in series:
        plot.append(f'<path class="line {each.kind}" d="{_line(steps.x, each.values.means, axis, height)}"/>')
        plot.append(f'<path class="smooth {each.kind}" d=""/>')
    plot += [_dots(each, steps, axis, height) for each in points]
    plot += _marks(marks, steps, height)
    bad = [steps.x[idx] for each in series for idx in np.flatnonzero(each.values.num_bad)]
    if bad:
        plot.append(f'<path class="bad" d="{"".join(f"M{x:.1f} {height - 3}h.01" for x in bad)}"/>')
    plot.append(f'<line class="cursor" x1="0" x2="0" y1="0" y2="{height}"/>')
    data = {
        "height": height,
        "format": format_value,
        "linear": _axis_data(axis, format_value),
        "log": None if log is None else _axis_data(log, format_value),
        "series": [_series_data(each) for each in series],
        "points": [
            {
                "name": each.name,
                "joined": each.is_joined,
                "x": [round(steps.at(step), 1) for step in each.steps],
                "steps": each.steps.tolist(),
                "values": [_rounded(value) for value in each.values],
            }
            for each in points
        ],
    }
    num_off = sum(int((_drawn(each)[-1] > axis.high).sum()) for each in series)
    legend = [*((each.kind, each.name) for each in series), *((f"dot {each.kind}", each.name) for each in points)]
    notes = [f"{num_off:,} points reach above the scale: the log scale has all"] if num_off else []
    return _figure(
        title,
        unit,
        f'data-chart="{attribute(json.dumps(data))}"',
        _frame(_y_axis(axis, height, format_value), "".join(plot), steps, height, f"{title}, {unit}, by step"),
        _legend(legend if len(legend) > 1 or bad else [], bad=bool(bad), notes=notes),
    )


def share_chart(title: str, unit: str, steps: Steps, shares: Mapping[str, Floats], *, height: int = 150) -> str:
    """Shares that add up to one, one above the other: a band for each name, (num_bins,) each."""
    axis = Axis(low=0.0, high=1.0, ticks=(0.0, 0.25, 0.5, 0.75, 1.0), is_log=False)
    below = np.zeros(steps.x.size)
    plot = []
    for idx, values in enumerate(shares.values()):
        above = below + values
        plot.append(f'<path class="part part-{idx}" d="{_area(steps.x, below, above, axis, height)}"/>')
        below = above
    plot += [_grid(axis, height), f'<line class="cursor" x1="0" x2="0" y1="0" y2="{height}"/>']
    data = {
        "height": height,
        "format": "percent",
        "series": [{"name": name, "mean": [_rounded(value) for value in values]} for name, values in shares.items()],
    }
    return _figure(
        title,
        unit,
        f'data-shares="{attribute(json.dumps(data))}"',
        _frame(_y_axis(axis, height, "percent"), "".join(plot), steps, height, f"{title}, {unit}, by step"),
        _legend([(f"part-{idx}", name) for idx, name in enumerate(shares)]),
    )


def bars(rows: Iterable[tuple[str, float, float | None, float | None, str, str]]) -> str:
    """Bars from zero, a row each: label, value, the ends of its interval, what is written beside it, the class of the row.

    What is written beside it is HTML.
    """
    listed = list(rows)
    there = (value for _, *values, _, _ in listed for value in values if value is not None and math.isfinite(value))
    most = max(there, default=1.0) or 1.0
    body = []
    for label, value, low, high, beside, kind in listed:
        whisker = ""
        if low is not None and high is not None and math.isfinite(low + high):
            left, right = low / most * WIDTH, high / most * WIDTH
            whisker = f'<path class="whisker" d="M{left:.1f} 8H{right:.1f}M{left:.1f} 4v8M{right:.1f} 4v8"/>'
        body.append(
            f'<tr class="{kind}"><th scope="row">{escaped(label)}</th><td class="bar"><svg viewBox="0 0 {WIDTH} 16" '
            f'preserveAspectRatio="none" aria-hidden="true"><rect width="{(max(0.0, value) if math.isfinite(value) else 0.0) / most * WIDTH:.1f}" height="16"/>'
            f"{whisker}</svg></td><td>{beside}</td></tr>"
        )
    return f'<table class="bars"><tbody>{"".join(body)}</tbody></table>'


def value_text(value: float, format_value: str) -> str:
    """A value on an axis."""
    return f"{value * 100:.4g} %" if format_value == "percent" else number_text(value)


def _figure(title: str, unit: str, data: str, frame: str, legend: str) -> str:
    return (
        f'<figure class="chart" {data}><figcaption>{escaped(title)} <span class="faint">{escaped(unit)}</span></figcaption>'
        f"{frame}{legend}<output></output></figure>"
    )


def _frame(y_axis: str, plot: str, steps: Steps, height: int, label: str) -> str:
    texts = []
    for idx, tick in enumerate(steps.axis.ticks):
        at = steps.at(tick) / WIDTH * 100
        anchor = "start" if at < 4 else "end" if at > 90 else "middle"
        narrow = ' class="inner"' if idx % 2 else ""
        texts.append(f'<text x="{at:.2f}%" y="13" text-anchor="{anchor}"{narrow}>{number_text(tick)}</text>')
    return (
        f'<div class="frame">{y_axis}<svg class="plot" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'preserveAspectRatio="none" role="img" aria-label="{attribute(label)}">{plot}</svg>'
        f'<svg class="x-axis" height="32">{"".join(texts)}<text x="50%" y="28" text-anchor="middle">step</text></svg></div>'
    )


def _y_axis(axis: Axis, height: int, format_value: str) -> str:
    texts = "".join(
        f'<text x="56" y="{_y(tick, axis, height) + _MARGIN + 4:.1f}" text-anchor="end">{value_text(tick, format_value)}</text>'
        for tick in axis.ticks
    )
    return f'<svg class="y-axis" width="60" height="{height + 2 * _MARGIN}" aria-hidden="true">{texts}</svg>'


def _grid(axis: Axis, height: int) -> str:
    lines = "".join(f"M0 {_y(tick, axis, height):.1f}H{WIDTH}" for tick in axis.ticks)
    return f'<path class="grid" d="{lines}"/>'


def _marks(marks: Mapping[str, Sequence[int]], steps: Steps, height: int) -> list[str]:
    """A line for each event; those that would stand on each other are one."""
    found = []
    for kind, at in marks.items():
        places = sorted({round(steps.at(step)) for step in at})
        lines = "".join(f"M{place} 0V{height}" for place in places)
        found.append(f'<path class="mark {kind}" d="{lines}"/>')
    return found


def _line(x: Floats, values: Floats, axis: Axis, height: int) -> str:
    """A line through what is there; a stretch between two gaps of one value is a dot."""
    pieces = []
    is_on = False
    for at, value, following in zip(x, values, np.append(values[1:], np.nan), strict=True):
        if not math.isfinite(value):
            is_on = False
            continue
        y = _y(value, axis, height)
        lone = "h.01" if not is_on and not math.isfinite(following) else ""
        pieces.append(f"{'L' if is_on else 'M'}{at:.1f} {y:.1f}{lone}")
        is_on = True
    return "".join(pieces)


def _band(each: Series, steps: Steps, axis: Axis, height: int) -> str:
    if not _is_spread(each.values):
        return ""
    return f'<path class="band {each.kind}" d="{_area(steps.x, each.values.lows, each.values.highs, axis, height)}"/>'


def _area(x: Floats, lows: Floats, highs: Floats, axis: Axis, height: int) -> str:
    """What lies between two lines, in one piece for each stretch without a gap."""
    is_there = np.isfinite(lows) & np.isfinite(highs)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_there, [False]]).astype(np.int8)))
    pieces = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        there = [f"{x[idx]:.1f} {_y(highs[idx], axis, height):.1f}" for idx in range(start, end)]
        back = [f"{x[idx]:.1f} {_y(lows[idx], axis, height):.1f}" for idx in range(end - 1, start - 1, -1)]
        pieces.append(f"M{'L'.join([*there, *back])}Z")
    return "".join(pieces)


def _dots(each: Points, steps: Steps, axis: Axis, height: int) -> str:
    places = [
        (steps.at(step), _y(value, axis, height))
        for step, value in zip(each.steps, each.values, strict=True)
        if math.isfinite(value)
    ]
    dots = "".join(f"M{x:.1f} {y:.1f}h.01" for x, y in places)
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    joined = f'<path class="line {each.kind}" d="M{line}"/>' if each.is_joined and len(places) > 1 else ""
    return f'<g class="points">{joined}<path class="dots {each.kind}" d="{dots}"/></g>'


def _legend(named: Sequence[tuple[str, str]], *, bad: bool = False, notes: Sequence[str] = ()) -> str:
    items = [f'<span class="key {kind}">{escaped(name)}</span>' for kind, name in named]
    items += ['<span class="key bad">not finite</span>'] if bad else []
    items += [f"<span>{escaped(note)}</span>" for note in notes]
    return f'<p class="legend">{"".join(items)}</p>' if items else ""


def _axis_data(axis: Axis, format_value: str) -> dict[str, object]:
    return {
        "low": axis.low,
        "high": axis.high,
        "ticks": [[tick, value_text(tick, format_value)] for tick in axis.ticks],
    }


def _series_data(each: Series) -> dict[str, object]:
    values = each.values
    found: dict[str, object] = {"name": each.name, "mean": [_rounded(value) for value in values.means]}
    if each.has_band and _is_spread(values):
        found |= {name: [_rounded(value) for value in getattr(values, f"{name}s")] for name in ("low", "high")}
    if values.num_bad.any():
        found["bad"] = values.num_bad.tolist()
    return found


def _drawn(each: Series) -> list[Floats]:
    """What the axis must have room for, the highest last."""
    values = each.values
    return [values.lows, values.means, values.highs] if each.has_band else [values.means]


def _is_spread(values: Binned) -> bool:
    return not np.array_equal(values.lows, values.highs, equal_nan=True)


def _rounded(value: float) -> float | None:
    """To six digits, which no pixel and no reader misses."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _y(value: float, axis: Axis, height: int) -> float:
    return height - axis.place(float(value)) * height
