"""When to ask again."""

from datetime import UTC, datetime

import pytest

from pipelines.crawl import Outcome
from pipelines.crawl.retry import later_seconds, may_pass, pause_seconds, retry_after_seconds

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("Mon, 23 Nov 2026 12:01:30 GMT", 90),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        ("Mon, 23 Nov 2026 12:00:10 -0000", 10),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("９", None),
        ("9" * 400, 9999999999),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


def test_pauses_double_and_are_no_shorter_than_the_delay() -> None:
    assert [pause_seconds(n, 0.0) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert [pause_seconds(n, 3.0) for n in (1, 2)] == [3.0, 6.0]


@pytest.mark.parametrize(
    ("outcome", "status", "passes"),
    [
        (Outcome.HTTP_ERROR, 503, True),
        (Outcome.HTTP_ERROR, 429, True),
        (Outcome.HTTP_ERROR, 404, False),
        (Outcome.TIMEOUT, None, True),
        (Outcome.BAD_ENCODING, None, False),
        (Outcome.ADDRESS_REFUSED, None, False),
        (Outcome.FETCHED, 200, False),
    ],
)
def test_may_pass(outcome: Outcome, status: int | None, *, passes: bool) -> None:
    assert may_pass(outcome, status) is passes


def test_later() -> None:
    assert later_seconds(Outcome.HTTP_ERROR, 503, None, is_seed=True) == 3600
    assert later_seconds(Outcome.HTTP_ERROR, 429, 7200, is_seed=False) == 7200
    assert later_seconds(Outcome.HTTP_ERROR, 429, 1e9, is_seed=False) == 86400
    assert later_seconds(Outcome.HTTP_ERROR, 404, None, is_seed=True) is None
    assert later_seconds(Outcome.TIMEOUT, None, None, is_seed=False) == 3600
    assert later_seconds(Outcome.TIMEOUT, None, None, is_seed=True) == 0
    assert later_seconds(Outcome.BAD_ENCODING, None, None, is_seed=True) is None
