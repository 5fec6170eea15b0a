"""When to ask again."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipelines.crawl.outcome import TRANSIENT, Outcome

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
BUSY_STATUSES = frozenset({429, 503})
"""These speak for the whole host, not for one URL."""

_RETRIED_OUTCOMES = frozenset({Outcome.CONNECT_ERROR, Outcome.TIMEOUT, Outcome.DISCONNECTED})
_LATER_SECONDS = 3600.0
_MOST_LATER_SECONDS = 24 * 3600.0
_FIRST_PAUSE_SECONDS = 0.5


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """A Retry-After header, in seconds or as an HTTP date (RFC 9110, 10.2.3), as seconds from now.

    None where it was not sent or makes no sense; a date that has passed is zero.
    """
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def may_pass(outcome: Outcome, status: int | None) -> bool:
    """Whether asking at once again may give something else."""
    return outcome in _RETRIED_OUTCOMES or (outcome is Outcome.HTTP_ERROR and status in RETRIED_STATUSES)


def pause_seconds(num_attempts: int, delay_seconds: float) -> float:
    """The pause before the next attempt: it doubles with each."""
    return float(max(delay_seconds, _FIRST_PAUSE_SECONDS) * 2 ** (num_attempts - 1))


def later_seconds(outcome: Outcome, status: int | None, asked_seconds: float | None, *, is_seed: bool) -> float | None:
    """How long after a final failure another call may try again; None where it need not.

    A seed that could not be reached is tried by each call: a person asked for it by name.
    """
    if outcome is Outcome.HTTP_ERROR and status in RETRIED_STATUSES:
        return min(max(_LATER_SECONDS, asked_seconds or 0.0), _MOST_LATER_SECONDS)
    if outcome in TRANSIENT:
        return 0.0 if is_seed else _LATER_SECONDS
    return None
