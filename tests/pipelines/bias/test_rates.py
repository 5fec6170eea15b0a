"""Rates compared: published worked examples, and what must hold for any counts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bias.rates import (
    adjusted,
    mantel_haenszel_p,
    mantel_haenszel_ratio,
    num_informative,
    risk_ratio,
    two_proportion_p,
)

BENJAMINI_HOCHBERG_1995 = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
]  # fmt: skip
# Admissions to Berkeley's six largest departments, 1973 (Bickel et al. 1975; R's UCBAdmissions): admitted and applied.
MEN, MEN_IN_ALL = [512, 353, 120, 138, 53, 22], [825, 560, 325, 417, 191, 373]
WOMEN, WOMEN_IN_ALL = [89, 17, 202, 131, 94, 24], [108, 25, 593, 375, 393, 341]


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_the_ratio_of_the_physicians_health_study() -> None:
    """Agresti, Categorical Data Analysis: heart attacks on placebo and aspirin, 1.82 (1.43 to 2.31), chi-squared 25.0."""
    found = risk_ratio(189, 11034, 104, 11037)
    assert found is not None
    assert [round(each, 2) for each in (found.value, found.low, found.high)] == [1.82, 1.43, 2.31]
    assert two_proportion_p(189, 11034, 104, 11037) == pytest.approx(math.erfc(math.sqrt(25.01 / 2)), rel=1e-2)


def test_the_matched_ratio_of_the_diabetes_programme() -> None:
    """Rothman, Greenland and Lash, Modern Epidemiology: deaths in the UGDP by age, risk ratio 1.33 (0.80 to 2.2)."""
    found = mantel_haenszel_ratio(ints(8, 22), ints(106, 98), ints(5, 16), ints(120, 85))
    assert found is not None
    assert [round(each, 2) for each in (found.value, found.low, found.high)] == [1.33, 0.80, 2.20]


def test_what_looks_like_a_disparity_is_the_department() -> None:
    """R, mantelhaen.test(UCBAdmissions, correct = FALSE): chi-squared 1.5246, p 0.2169; all together, men had 1.47 times
    the rate."""
    strata = [ints(*each) for each in (MEN, MEN_IN_ALL, WOMEN, WOMEN_IN_ALL)]
    crude, matched = risk_ratio(*(int(each.sum()) for each in strata)), mantel_haenszel_ratio(*strata)
    assert crude is not None
    assert matched is not None
    assert crude.low > 1.25 > matched.high
    assert mantel_haenszel_p(*strata) == pytest.approx(0.2169, abs=5e-5)
    assert two_proportion_p(*(int(each.sum()) for each in strata)) < 1e-12


def test_four_of_fifteen_hypotheses_count() -> None:
    """The example of Benjamini and Hochberg 1995, section 4.1: Bonferroni takes three, they take four."""
    assert sum(q <= 0.05 for q in adjusted(BENJAMINI_HOCHBERG_1995)) == 4
    assert sum(p <= 0.05 / 15 for p in BENJAMINI_HOCHBERG_1995) == 3


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [((0, 0, 1, 5), None), ((1, 5, 0, 0), None), ((0, 5, 0, 5), None), ((5, 5, 5, 5), 1.0), ((0, 10, 0, 10), None)],
)
def test_a_side_without_documents_or_events_has_no_ratio(
    counts: tuple[int, int, int, int], wanted: float | None
) -> None:
    found = risk_ratio(*counts)
    assert (found.value if found else None) == wanted
    assert two_proportion_p(*counts) in (1.0, two_proportion_p(*counts))


def test_an_empty_cell_still_has_a_finite_ratio() -> None:
    found = risk_ratio(10, 100, 0, 1000)
    assert found is not None
    assert 50 < found.value < 500
    assert found.low > 1.25
    none_of_one = risk_ratio(0, 1, 1, 142)
    assert none_of_one is not None
    assert none_of_one.value < 1


def test_strata_with_one_side_only_say_nothing() -> None:
    alone = [ints(3, 90), ints(10, 100), ints(6, 0), ints(20, 0)]
    one = [each[:1] for each in alone]
    assert mantel_haenszel_ratio(*alone) == mantel_haenszel_ratio(*one)
    assert mantel_haenszel_p(*alone) == mantel_haenszel_p(*one)
    assert num_informative(alone[1], alone[3]) == 10


cells = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)).map(
    lambda each: (each[0], each[0] + each[1], each[2], each[2] + each[3])
)


@given(cells)
def test_a_ratio_is_on_the_side_of_the_rates(cell: tuple[int, int, int, int]) -> None:
    events, total, base_events, base_total = cell
    found = risk_ratio(*cell)
    if found is not None:
        difference = events * base_total - base_events * total
        assert (found.value > 1 + 1e-9) == (difference > 0)
        assert (found.value < 1 - 1e-9) == (difference < 0)
        assert found.low <= found.value <= found.high


@given(cells)
def test_one_stratum_is_the_crude_ratio(cell: tuple[int, int, int, int]) -> None:
    crude, matched = risk_ratio(*cell), mantel_haenszel_ratio(*(ints(each) for each in cell))
    if matched is not None:
        assert crude is not None
        assert matched.value == pytest.approx(crude.value)
        assert (matched.low, matched.high) == (pytest.approx(crude.low), pytest.approx(crude.high)) or cell[0] == cell[
            1
        ]


@given(st.lists(cells, max_size=6))
def test_swapping_the_sides_inverts_the_ratio_and_keeps_p(strata: list[tuple[int, int, int, int]]) -> None:
    a, n, b, m = (ints(*(stratum[idx] for stratum in strata)) for idx in range(4))
    there, back = mantel_haenszel_ratio(a, n, b, m), mantel_haenszel_ratio(b, m, a, n)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert there.value * back.value == pytest.approx(1)
        assert there.low <= there.value <= there.high
    assert mantel_haenszel_p(a, n, b, m) == pytest.approx(mantel_haenszel_p(b, m, a, n))
    assert 0 <= mantel_haenszel_p(a, n, b, m) <= 1


@given(st.lists(st.floats(0, 1), max_size=30))
def test_adjusted_p_values_keep_their_order_and_never_fall(p_values: list[float]) -> None:
    found = adjusted(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, found, strict=True))
    ranked = sorted(range(len(found)), key=lambda idx: p_values[idx])
    assert [found[idx] for idx in ranked] == sorted(found)
