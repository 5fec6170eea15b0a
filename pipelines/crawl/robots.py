"""What a robots.txt says to this crawler about a URL (RFC 9309), and which of its lines says so."""

import math

from pipelines.rights.patterns import path_of
from pipelines.rights.robots_txt import NO_RULE, AccessRules, RobotsTxt, decode

__all__ = ["MAX_NUM_BYTES", "NO_RULE", "Robots", "decode"]

MAX_NUM_BYTES = 500 * 1024
"""What is read of a robots.txt (RFC 9309, 2.5 asks for at least 500 KiB)."""


class Robots:
    """The rules of one robots.txt for one product token."""

    def __init__(self, text: str, product_token: str) -> None:
        """Read a robots.txt; what it does not say is allowed."""
        robots = RobotsTxt.parse(text)
        records = robots.records_for(product_token)
        self._rules = AccessRules(records)
        self._crawl_delay = max(filter(None, map(_delay_seconds, records)), default=None)
        self._sitemaps = robots.sitemaps

    @property
    def crawl_delay(self) -> float | None:
        """Seconds between requests that the site asks for; of several values the longest."""
        return self._crawl_delay

    @property
    def sitemaps(self) -> tuple[str, ...]:
        """Values of the Sitemap lines, as written, each once."""
        return self._sitemaps

    def judge(self, url: str) -> tuple[bool, str]:
        """Whether a URL may be fetched, and the rule that says so: the longest that matches."""
        return self._rules.judge(path_of(url))


def _delay_seconds(record: tuple[str, str]) -> float | None:
    field, value = record
    try:
        delay = float(value) if field == "Crawl-delay" else -1
    except ValueError:
        return None
    return delay if math.isfinite(delay) and delay >= 0 else None
