"""URLs in one canonical form, and which of them belong to a crawl."""

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

from w3lib.url import canonicalize_url

from pipelines.crawl.address import is_address
from pipelines.crawl.config import MAX_URL_NUM_CHARS, CrawlConfig
from pipelines.crawl.outcome import Outcome

# Traps: calendars, session ids and relative links that nest for ever. 20 segments is Heritrix's limit.
_MAX_SEGMENTS = 20
_MAX_SAME_SEGMENT = 3
_MAX_QUERY_PARAMETERS = 8

_DEFAULT_PORT = {"http": ":80", "https": ":443"}
_URL = re.compile(r"(https?)://([^/?#@]+)(/[^#]*)")


def canonical_url(url: str) -> str | None:
    """One spelling of a URL: lower-case ASCII host, no default port, sorted query, no fragment.

    None for what cannot be fetched: another scheme, no host, a user name, a bad port, or too long.
    """
    if len(url) > MAX_URL_NUM_CHARS:
        return None
    try:
        canonical: str = canonicalize_url(url)
    except ValueError:
        return None
    match = _URL.fullmatch(canonical)
    if not match or len(canonical) > MAX_URL_NUM_CHARS:
        return None
    scheme, host, rest = match.groups()
    host = host.removesuffix(_DEFAULT_PORT[scheme])
    return f"{scheme}://{host}{rest}"


def origin_of(url: str) -> str:
    """Scheme, host and port of a canonical URL: what a robots.txt governs."""
    return url[: url.index("/", 8)]


class Screen:
    """Judges URLs by the config alone."""

    def __init__(self, config: CrawlConfig) -> None:
        """Read scope and patterns from a config."""
        self._config = config
        self._include = [re.compile(pattern) for pattern in config.include]
        self._exclude = [re.compile(pattern) for pattern in config.exclude]
        self._area_of_host = lru_cache(maxsize=4096)(_domain_finder() if config.scope == "domain" else _host)
        self.seeds = frozenset(seed for seed in map(canonical_url, config.seeds) if seed)
        self._areas = {self._area_of_host(origin_of(seed)) for seed in self.seeds}
        self._prefixes = tuple({_without_scheme(seed[: seed.partition("?")[0].rindex("/") + 1]) for seed in self.seeds})

    def judge(self, url: str, depth: int, num_redirects: int) -> Outcome | None:
        """Why a canonical URL is not fetched; None where it is."""
        if any(pattern.search(url) for pattern in self._exclude):
            return Outcome.EXCLUDED
        if url in self.seeds:
            return None
        if not self._is_in_scope(url):
            return Outcome.OUT_OF_SCOPE
        if self._include and not any(pattern.search(url) for pattern in self._include):
            return Outcome.EXCLUDED
        if _is_trap(url):
            return Outcome.URL_TRAP
        if num_redirects > self._config.max_redirects:
            return Outcome.TOO_MANY_REDIRECTS
        if self._config.max_depth is not None and depth > self._config.max_depth:
            return Outcome.TOO_DEEP
        return None

    def _is_in_scope(self, url: str) -> bool:
        if self._config.scope == "prefix":
            return _without_scheme(url).startswith(self._prefixes)
        return self._area_of_host(origin_of(url)) in self._areas


def _is_trap(url: str) -> bool:
    path, _, query = url[len(origin_of(url)) :].partition("?")
    segments = [segment for segment in path.split("/") if segment]
    if len(segments) > _MAX_SEGMENTS or (query and query.count("&") >= _MAX_QUERY_PARAMETERS):
        return True
    return len(segments) > _MAX_SAME_SEGMENT and max(Counter(segments).values()) > _MAX_SAME_SEGMENT


def _without_scheme(url: str) -> str:
    return url.partition("://")[2]


def _host(origin: str) -> str:
    """Name and port; the default ports of http and https are one, and "www." is no other site."""
    return _without_scheme(origin).removeprefix("www.")


def _domain_finder() -> Callable[[str], str]:
    # The public suffix list inside the package: nothing is fetched, nothing is cached on disk.
    from tldextract import TLDExtract

    extract = TLDExtract(suffix_list_urls=(), cache_dir=None)

    def domain(origin: str) -> str:
        host = urlsplit(origin).hostname or origin
        if is_address(host):
            return host
        # A suffix that is not on the list counts as one label, as the list's own default rule has it.
        return extract(origin).top_domain_under_public_suffix or ".".join(host.split(".")[-2:])

    return domain
