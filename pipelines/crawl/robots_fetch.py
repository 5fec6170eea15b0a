"""robots.txt of an origin, as fetched: rules, no restriction, or out of reach."""

import time
from dataclasses import dataclass

from pipelines.crawl.fetch import REDIRECT_STATUSES, Failure, Fetcher, Response
from pipelines.crawl.links import resolve_redirect
from pipelines.crawl.outcome import Outcome
from pipelines.crawl.robots import MAX_NUM_BYTES, decode

_MAX_REDIRECTS = 5
_VALID_SECONDS = 24 * 3600
"""RFC 9309, 2.4: a robots.txt is not used for longer."""
_FAILURE_VALID_SECONDS = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class RobotsAnswer:
    """What asking an origin for its robots.txt gave."""

    text: str | None
    """None where there is no such file, which restricts nothing, and where it was out of reach."""
    status: int | None
    failure: Outcome | None
    """Set where the origin may not be crawled now."""
    error: str | None
    expires_at: float
    """Seconds since 1970."""


async def fetch_robots(fetcher: Fetcher, origin: str) -> RobotsAnswer:
    """Ask an origin for its robots.txt, over up to five redirects, wherever they lead (RFC 9309, 2.3.1)."""
    url = f"{origin}/robots.txt"
    for _ in range(_MAX_REDIRECTS + 1):
        answer = await fetcher.fetch(url, max_num_bytes=MAX_NUM_BYTES, text_only=False)
        if isinstance(answer, Failure):
            is_final = answer.outcome in {Outcome.DNS_ERROR, Outcome.ADDRESS_REFUSED}
            outcome = answer.outcome if is_final else Outcome.ROBOTS_UNREACHABLE
            return _out_of_reach(outcome, f"robots.txt: {answer.outcome}: {answer.error}", None)
        if answer.status not in REDIRECT_STATUSES:
            return _judge(answer)
        target = resolve_redirect(answer.header("location") or "", url)
        if target is None:
            return _out_of_reach(Outcome.ROBOTS_UNREACHABLE, "robots.txt redirects to no URL", answer.status)
        url = target
    return _out_of_reach(Outcome.ROBOTS_UNREACHABLE, "robots.txt redirects too often", None)


def _judge(answer: Response) -> RobotsAnswer:
    if 400 <= answer.status < 500 and answer.status != 429:
        return _answer(text=None, status=answer.status)
    if not 200 <= answer.status < 300:
        return _out_of_reach(Outcome.ROBOTS_UNREACHABLE, f"robots.txt answered {answer.status}", answer.status)
    return _answer(text=decode(answer.body or b"", is_cut=answer.is_cut), status=answer.status)


def _answer(text: str | None, status: int) -> RobotsAnswer:
    return RobotsAnswer(text=text, status=status, failure=None, error=None, expires_at=time.time() + _VALID_SECONDS)


def _out_of_reach(outcome: Outcome, error: str, status: int | None) -> RobotsAnswer:
    return RobotsAnswer(
        text=None, status=status, failure=outcome, error=error, expires_at=time.time() + _FAILURE_VALID_SECONDS
    )
