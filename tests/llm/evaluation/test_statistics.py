"""Intervals cover what they say, pairs are compared as pairs, and noise is called noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.evaluation.statistics import (
    difference,
    distance_difference,
    mean_figure,
    ratio_figure,
    share_figure,
    share_interval,
)


def test_an_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        figure = mean_figure(generator.normal(1.0, 2.0, 60), seed=seed)
        hits += figure.low <= 1.0 <= figure.high  # type: ignore[operator]
    assert 180 <= hits <= 199


def test_many_items_have_the_interval_of_theory_without_being_drawn_one_by_one() -> None:
    figure = mean_figure(np.random.default_rng(0).normal(1.0, 2.0, 300_000))
    half = 1.96 * 2.0 / 300_000**0.5
    assert (figure.low, figure.high) == (
        pytest.approx(figure.value - half, abs=half / 5),
        pytest.approx(figure.value + half, abs=half / 5),
    )


def test_a_ratio_is_of_sums_and_its_interval_of_items() -> None:
    figure = ratio_figure([1.0, 30.0], [1.0, 10.0])
    assert figure.value == pytest.approx(31 / 11)
    assert (figure.low, figure.high) == (1.0, 3.0)
    assert np.isnan(ratio_figure([], []).value)
    assert ratio_figure([2.0], [4.0]).low is None


def test_a_small_difference_of_pairs_is_real_where_items_agree_and_noise_where_they_do_not() -> None:
    base = np.random.default_rng(0).normal(0, 5, 400)
    agreed = difference(base + 0.1, base)
    assert agreed.value == pytest.approx(0.1)
    assert agreed.is_real
    assert not difference(base + 0.1, base, noise_floor=0.2).is_real
    assert not difference(base + 0.1, np.random.default_rng(1).permutation(base)).is_real
    assert difference([4.0, 8.0], [2.0, 4.0], weights=[1.0, 2.0]).value == pytest.approx(2.0)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.integers(0, 3))
def test_an_interval_is_the_same_each_time_and_holds_the_value(scores: list[float], seed: int) -> None:
    figure = mean_figure(scores, seed=seed)
    assert figure == mean_figure(scores, seed=seed)
    assert min(scores) - 1e-9 <= figure.low <= figure.high <= max(scores) + 1e-9


@pytest.mark.parametrize(
    ("hits", "items", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (0, 0, 0.0, 1.0)]
)
def test_wilson_gives_the_known_intervals(hits: int, items: int, low: float, high: float) -> None:
    assert share_interval(hits, items) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_with_a_target_on_one_side_of_all_a_distance_is_a_difference(rows: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*rows, strict=True)
    plain = difference(ours, theirs)
    below = distance_difference(ours, theirs, 0.0)
    above = distance_difference(ours, theirs, 2.0)
    assert below.value == pytest.approx(plain.value, abs=1e-12)
    assert above.value == pytest.approx(-plain.value, abs=1e-12)
    assert (below.low, below.high) == pytest.approx((plain.low, plain.high), abs=1e-9)


def test_one_item_has_no_interval_of_distances() -> None:
    found = distance_difference([1.0], [0.0], 0.5)
    assert (found.value, found.low, found.is_real) == (0.0, None, False)


@pytest.mark.parametrize("items", [1, 3, 12, 1000])
def test_the_interval_of_none_and_of_all_holds_that_share(items: int) -> None:
    assert share_figure(0, items).low == 0
    assert share_figure(items, items).high == 1
