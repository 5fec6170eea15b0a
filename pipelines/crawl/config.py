"""What to crawl, and how politely."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, get_args
from urllib.parse import urlsplit

from pipelines.crawl.address import AllowedAddresses
from pipelines.crawl.patterns import check_patterns
from pipelines.digest import EXECUTION_ONLY
from pipelines.errors import ConfigError
from pipelines.rights.agents import AI_TRAINING_AGENTS

Scope = Literal["host", "domain", "prefix", "regex"]

MAX_URL_NUM_CHARS = 2083
"""Longer URLs are not followed (the sitemap protocol's limit; Scrapy's URLLENGTH_LIMIT)."""

_PRODUCT_TOKEN = re.compile(r"[A-Za-z_-]+")
_FOREIGN_TOKEN = re.compile(r"[A-Za-z0-9_-]+")  # others use digits, which RFC 9309 does not allow

_MINIMUM: dict[str, float] = {
    "max_pages": 1,
    "max_depth": 0,
    "max_pages_per_host": 1,
    "max_bytes_per_host": 1,
    "max_page_bytes": 1,
    "delay_seconds": 0,
    "delay_factor": 0,
    "max_delay_seconds": 0,
    "concurrency": 1,
    "concurrency_per_host": 1,
    "timeout_seconds": 0.01,
    "min_bytes_per_second": 0,
    "max_redirects": 0,
    "max_attempts": 1,
    "warc_max_bytes": 1,
    "warc_max_records": 1,
    "recrawl_after_hours": 0,
    "min_recrawl_hours": 0,
    "max_recrawl_hours": 0,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CrawlConfig:
    """One crawl. A host here is what robots.txt governs: scheme, name and port."""

    seeds: tuple[str, ...]
    """URLs to start from, http or https. They need not match `include` or `max_depth`."""
    scope: Scope = "host"
    """Which links are ours: a seed's host name and port ("www." and the scheme do not count), its registrable
    domain, its URL up to the last slash, or (`regex`) whatever an `include` pattern is found in, on any host."""
    include: tuple[str, ...] = ()
    """Regular expressions; where given, a link is followed only if one is found in its URL."""
    exclude: tuple[str, ...] = ()
    """Regular expressions; a URL in which one is found is not followed."""
    max_pages: int = 10_000
    """Pages (2xx with text) in all, over every call on the folder."""
    max_depth: int | None = None
    """Links away from a seed; a redirect is no step."""
    max_pages_per_host: int | None = None
    """Pages of each host in all."""
    max_bytes_per_host: int | None = None
    """Decoded bytes of the pages of each host in all; the page that passes it is the last."""
    sitemaps: bool = True
    """Whether the sitemaps that robots.txt names are read."""
    feeds: bool = True
    """Whether the RSS and Atom feeds that pages name are read."""
    fetch_reserved: bool = False
    """Whether a page is fetched although a file of its site (robots.txt, tdmrep.json, ai.txt, RSL) reserves it from
    training. It is never kept by a recipe with `compliance` on."""
    ai_agents: tuple[str, ...] = AI_TRAINING_AGENTS
    """Product tokens of crawlers that collect training data; which of them robots.txt shuts out is noted for each page."""
    max_page_bytes: int = 8 << 20
    """Decoded bytes of a body; what is longer is cut, and its record says so."""
    delay_seconds: float = field(default=1.0, metadata=EXECUTION_ONLY)
    """Pause between requests to a host; Crawl-delay in robots.txt raises it."""
    delay_factor: float = field(default=2.0, metadata=EXECUTION_ONLY)
    """The pause is at least so many times what the host took to answer of late. 0: latency counts for nothing."""
    max_delay_seconds: float = 60.0
    """A host whose Crawl-delay is longer is skipped; a Retry-After that is longer is left to a later call."""
    concurrency: int = field(default=16, metadata=EXECUTION_ONLY)
    """Hosts asked at once."""
    concurrency_per_host: int = field(default=1, metadata=EXECUTION_ONLY)
    """Requests at once to one host."""
    timeout_seconds: float = field(default=30.0, metadata=EXECUTION_ONLY)
    """From the start of a request to the end of its body."""
    min_bytes_per_second: int = field(default=200, metadata=EXECUTION_ONLY)
    """A body that has come slower than this once a third of `timeout_seconds` is over is given up."""
    max_redirects: int = 5
    """Redirects followed one after another from a link."""
    max_attempts: int = field(default=3, metadata=EXECUTION_ONLY)
    """Requests for one URL in one call, where the failure may pass."""
    user_agent: str = "corpusmill"
    """Product token: the name in the User-Agent header, and the one looked for in robots.txt."""
    contact: str | None = None
    """Where a site's owner reaches the operator: a URL or an e-mail address, sent in the User-Agent header."""
    allow_addresses: tuple[str, ...] = ()
    """Addresses that may be reached although not public: "host:port", an address, or a CIDR block."""
    warc_max_bytes: int = 256 << 20
    """A WARC file that has reached this size is closed, and a new one begun."""
    warc_max_records: int | None = None
    """Responses in a WARC file."""
    recrawl_after_hours: float | None = None
    """A page is asked for again so long after its first fetch; then sooner where it had changed, later where not.
    None: never. Reservations of sites are looked up again by each call in any case, once a day at most."""
    min_recrawl_hours: float = 12.0
    """A page that changes at each visit is asked for no more often; a shorter `recrawl_after_hours` goes before."""
    max_recrawl_hours: float = 90 * 24.0
    """A page that never changes is asked for no more seldom (Nutch: 90 days), as is one that was gone."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant. Raises ConfigError naming the field."""
        _check_seeds(self.seeds)
        if self.scope not in get_args(Scope):
            raise ConfigError(f"scope: got {self.scope!r}, wanted one of {', '.join(get_args(Scope))}: choose one.")
        for name in ("include", "exclude"):
            _check_patterns(name, getattr(self, name))
        if self.scope == "regex" and not self.include:
            raise ConfigError("include: got none for scope 'regex', wanted at least one pattern: say what is ours.")
        for each in fields(self):
            _check_minimum(each.name, getattr(self, each.name))
        for agent in self.ai_agents:
            if not _FOREIGN_TOKEN.fullmatch(agent):
                raise ConfigError(f"ai_agents: got {agent!r}, wanted a product token (GPTBot, CCBot): correct it.")
        if not _PRODUCT_TOKEN.fullmatch(self.user_agent):
            raise ConfigError(
                f"user_agent: got {self.user_agent!r}, wanted only letters, '_' and '-' (RFC 9309): correct it."
            )
        if self.contact is not None and not (self.contact.isascii() and self.contact.isprintable()):
            raise ConfigError(
                f"contact: got {self.contact!r}, wanted printable ASCII: give a URL or an e-mail address."
            )
        AllowedAddresses.parse(self.allow_addresses)

    @property
    def user_agent_header(self) -> str:
        """The User-Agent header that is sent."""
        return f"{self.user_agent} (+{self.contact})" if self.contact else self.user_agent


def _check_seeds(seeds: Sequence[str]) -> None:
    if isinstance(seeds, str) or not seeds:
        raise ConfigError(f"seeds: got {seeds!r}, wanted at least one URL in a list: name where the crawl starts.")
    for seed in seeds:
        try:
            parts = urlsplit(seed)
            is_web = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_web = False
        if not is_web or len(seed) > MAX_URL_NUM_CHARS:
            raise ConfigError(f"seeds: got {seed[:200]!r}, wanted an http or https URL: correct it.")
        if "@" in parts.netloc:
            raise ConfigError(f"seeds: got a URL with a user name at {parts.hostname!r}, wanted none: leave it out.")


def _check_patterns(name: str, patterns: Sequence[str]) -> None:
    if isinstance(patterns, str):
        raise ConfigError(f"{name}: got the text {patterns!r}, wanted a list of regular expressions: put it in a list.")
    check_patterns(name, patterns)


def _check_minimum(name: str, value: object) -> None:
    if name not in _MINIMUM or value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not _MINIMUM[name] <= value < float("inf"):
        raise ConfigError(f"{name}: got {value!r}, wanted a number of at least {_MINIMUM[name]:g}: correct it.")
