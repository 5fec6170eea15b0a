"""A host while there is something to do: what it allows, how long it is left in peace, what waits."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.entries import Target
from pipelines.crawl.outcome import Outcome
from pipelines.crawl.site import Rules

_MAX_LATENCY_PAUSE_SECONDS = 30.0
"""Slowness alone makes a pause no longer than this (Heritrix: maxDelayMs)."""


@dataclass(slots=True, eq=False)
class Host:
    """Scheme, name and port: what one robots.txt governs."""

    id: int
    origin: str
    ready_at: float
    """Loop time before which it is not asked."""
    num_pages: int
    num_page_bytes: int
    rules: Rules | None = None
    """None where its files are not known, or out of reach."""
    expires_at: float = 0.0
    """When they must be asked for again, in seconds since 1970."""
    digest: str | None = None
    """Of what they say."""
    refusal: tuple[Outcome, str | None] | None = None
    """Why nothing of the host may be fetched now."""
    retry_at: float | None = None
    """Until when, in seconds since 1970; None where that follows from the refusal."""
    is_changed: bool = False
    """Whether its files say something else than before, and its URLs were not judged again."""
    crawl_delay_seconds: float = 0.0
    """What its robots.txt asks for between requests."""
    latency_seconds: float = 0.0
    """Of its answers, of late."""
    queue: deque[Target] = field(default_factory=deque)
    """Leased, and not begun."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by a request that a page under way needs besides its own."""
    num_rsl_elsewhere: int = 0
    """RSL documents on other hosts that its pages named."""
    num_in_flight: int = 0
    num_open: int = 0
    """Results that wait for a commit, and targets that wait for another attempt."""
    is_scheduled: bool = False
    is_evicted: bool = False
    """Whether it was given back to the ledger, to be taken from there again."""
    is_busy: bool = False
    """Whether its files are being read or its URLs judged again: nothing else is begun meanwhile."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it is under way."""
        return not (self.queue or self.num_in_flight or self.num_open or self.is_scheduled)

    def has_budget(self, config: CrawlConfig) -> bool:
        """Whether a page that is not in the files yet may be begun."""
        if config.max_pages_per_host is not None and self.num_pages + self.num_in_flight >= config.max_pages_per_host:
            return False
        return config.max_bytes_per_host is None or self.num_page_bytes < config.max_bytes_per_host

    def pause_seconds(self, config: CrawlConfig) -> float:
        """How long it is left in peace after a request: the most that the config, its robots.txt and its slowness ask for."""
        slowness = min(config.delay_factor * self.latency_seconds, _MAX_LATENCY_PAUSE_SECONDS)
        return max(config.delay_seconds, self.crawl_delay_seconds, slowness)

    def note_latency(self, seconds: float, *, is_good: bool) -> None:
        """Learn how slow it is. An error that comes quickly is no sign of strength (as in Scrapy's AutoThrottle)."""
        learnt = (self.latency_seconds + seconds) / 2 if self.latency_seconds else seconds
        self.latency_seconds = learnt if is_good else max(learnt, self.latency_seconds)
