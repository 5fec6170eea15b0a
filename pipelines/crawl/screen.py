"""URLs in one canonical form, and which of them belong to a crawl."""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from w3lib.url import canonicalize_url

from pipelines.crawl.config import MAX_URL_NUM_CHARS, CrawlConfig
from pipelines.crawl.outcome import Outcome
from pipelines.crawl.patterns import Patterns
from pipelines.public_suffixes import registrable_domain
from pipelines.takedown.documents import Takedown, url_test

# Traps that a URL shows by itself: relative links that nest for ever, and filters that combine for ever. A calendar
# without an end looks like an archive, page by page: only depth and the budgets of its host bound it.
_MAX_SEGMENTS = 20  # Heritrix: TooManyPathSegments
_MAX_RUN = 2  # Heritrix: PathologicalPath, maxRepetitions
_MAX_SAME_SEGMENT = 3
_MAX_QUERY_PARAMETERS = 8
_MAX_SAME_PARAMETER = 3
_NUM_SLASHES_OF_A_TRAP = 2 + _MAX_RUN + 2  # those of https://, and around one folder more than may run

# Say who came from where, not which page. courlan drops more (ref, source, keyword), which choose the page on some
# sites.
_TRACKING_PARAMETERS = frozenset(
    {"_ga", "_gl", "dclid", "fbclid", "gbraid", "gclid", "gclsrc", "igshid", "mc_cid", "mc_eid", "mkt_tok", "msclkid"}
    | {"twclid", "wbraid", "yclid"}
    | {"cfid", "cftoken", "jsessionid", "oscsid", "phpsessid", "zenid"}
)
_TRACKING_PREFIXES = ("utm_", "aspsessionid")
# Many a forum numbers its sections "sid": only letters and digits, both and many of them, are a session.
_SESSION_ID = re.compile(r"(?=[a-z]*\d)(?=\d*[a-z])[a-z\d]{16,}", re.ASCII | re.IGNORECASE)
_PATH_SESSION = re.compile(r";(?:jsessionid|phpsessid)=[^/;]*", re.IGNORECASE)

_DEFAULT_PORT = {"http": ":80", "https": ":443"}
_URL = re.compile(r"(https?)://([^/?#@]+)(/[^#]*)")
# Most URLs need nothing done to them but a sorted query: no dot segment, nothing to encode or to decode.
_PLAIN_URL = re.compile(r"(https?://[A-Za-z0-9.-]+(?::[0-9]+)?)(?=[/#]|\Z)([^#]*)(?:#.*)?", re.DOTALL)
_PLAIN_CHARS = r"[A-Za-z0-9_.~-]*+(?:%[89A-F][0-9A-F][A-Za-z0-9_.~-]*+)*+"
_PLAIN_PATH = re.compile(
    rf"(/?(?:(?=[^./]){_PLAIN_CHARS}/)*+(?:(?!\.){_PLAIN_CHARS})?)"
    rf"(?:\?((?:[A-Za-z0-9_.~-]+={_PLAIN_CHARS}&)*+[A-Za-z0-9_.~-]+={_PLAIN_CHARS}))?"
)


def canonical_url(url: str) -> str | None:
    """One spelling of a URL: lower-case ASCII host, no default port, sorted query; no fragment, session or tracking.

    None for what cannot be fetched: another scheme, no host, a user name, a bad port, or too long.
    """
    if len(url) > MAX_URL_NUM_CHARS:
        return None
    plain = _PLAIN_URL.fullmatch(url)
    if plain:
        path = plain_path(plain[2] or "/")
        if path is not None:
            origin = _canonical_origin(plain[1])
            return origin + path if origin and len(origin) + len(path) <= MAX_URL_NUM_CHARS else None
    return _canonical_url(url)


def plain_path(path: str) -> str | None:
    """A path, absolute or relative, with its query if any, in canonical form; None where more than a sort is needed."""
    match = _PLAIN_PATH.fullmatch(path)
    if not match:
        return None
    query = match[2]
    return path if query is None else match[1] + _without_noise(sorted(map(_pair, query.split("&"))))


def origin_of(url: str) -> str:
    """Scheme, host and port of a canonical URL: what a robots.txt governs."""
    return url[: url.index("/", 8)]


@lru_cache(maxsize=4096)
def _canonical_origin(origin: str) -> str | None:
    url = _canonical_url(origin + "/")
    return url and url[:-1]


# Menus repeat the same links on every page of a site.
@lru_cache(maxsize=4096)
def _canonical_url(url: str) -> str | None:
    try:
        canonical: str = canonicalize_url(url)
    except ValueError:
        return None
    match = _URL.fullmatch(canonical)
    if not match or len(canonical) > MAX_URL_NUM_CHARS:
        return None
    scheme, host, rest = match.groups()
    path, _, query = rest.partition("?")
    origin = f"{scheme}://{host.removesuffix(_DEFAULT_PORT[scheme])}"
    if ";" in path:
        bare = _PATH_SESSION.sub("", path)
        if bare != path:
            # What is left of "..;jsessionid=1" is a dot segment.
            return _canonical_url(f"{origin}{bare}?{query}")
    return f"{origin}{path}{_without_noise(map(_pair, query.split('&'))) if query else ''}"


def _pair(parameter: str) -> tuple[str, str]:
    name, _, value = parameter.partition("=")
    return name, value


def _without_noise(parameters: Iterable[tuple[str, str]]) -> str:
    """A query without sessions and tracking; with its "?" unless nothing is left."""
    kept = "&".join(f"{name}={value}" for name, value in parameters if not _is_noise(name, value))
    return "?" + kept if kept else ""


def _is_noise(name: str, value: str) -> bool:
    name = name.lower()
    return (
        name in _TRACKING_PARAMETERS
        or name.startswith(_TRACKING_PREFIXES)
        or (name == "sid" and _SESSION_ID.fullmatch(value) is not None)
    )


class Screen:
    """Judges URLs by the config and by what is taken down."""

    def __init__(self, config: CrawlConfig, takedown: Takedown = Takedown()) -> None:  # noqa: B008 - frozen
        """Read scope and patterns from a config."""
        self._config = config
        self._names = url_test(takedown) if takedown else None
        self._include = Patterns(config.include)
        self._exclude = Patterns(config.exclude)
        self._area_of_host = lru_cache(maxsize=4096)(_domain if config.scope == "domain" else _host)
        self.seeds = frozenset(seed for seed in map(canonical_url, config.seeds) if seed)
        self._areas = {self._area_of_host(origin_of(seed)) for seed in self.seeds}
        self._prefixes = tuple({_without_scheme(seed[: seed.partition("?")[0].rindex("/") + 1]) for seed in self.seeds})

    def judge(self, url: str, depth: int, num_redirects: int) -> Outcome | None:
        """Why a canonical URL is not fetched; None where it is."""
        if self.is_taken_down(url):
            return Outcome.TAKEN_DOWN
        if self._exclude.find(url, if_given_up=True):
            return Outcome.EXCLUDED
        if url in self.seeds:
            return None
        if not self.is_in_scope(url):
            return Outcome.OUT_OF_SCOPE
        if self._include and not self._include.find(url, if_given_up=False):
            return Outcome.EXCLUDED
        if _is_trap(url):
            return Outcome.URL_TRAP
        if num_redirects > self._config.max_redirects:
            return Outcome.TOO_MANY_REDIRECTS
        if self._config.max_depth is not None and depth > self._config.max_depth:
            return Outcome.TOO_DEEP
        return None

    def is_taken_down(self, url: str) -> bool:
        """Whether a URL, or an origin, is named by a take-down."""
        return self._names is not None and self._names(url)

    def is_in_scope(self, url: str) -> bool:
        """Whether a canonical URL belongs to the crawl, whatever the patterns and limits say of it."""
        if self._config.scope == "regex":
            return self._include.find(url, if_given_up=False)
        if self._config.scope == "prefix":
            return _without_scheme(url).startswith(self._prefixes)
        return self._area_of_host(origin_of(url)) in self._areas


def _is_trap(url: str) -> bool:
    has_query = "?" in url
    if not has_query and url.count("/") < _NUM_SLASHES_OF_A_TRAP:
        return False
    path, _, query = url[len(origin_of(url)) :].partition("?")
    if path.count("/", 0, -1) > _MAX_SEGMENTS or (query and _combines(query.split("&"))):
        return True
    segments = [segment for segment in path.split("/") if segment]
    if len(segments) - len(set(segments)) < _MAX_RUN:
        return False
    # A last segment is a page, unless a slash makes it a folder, from which links may nest.
    return max(Counter(segments).values()) > _MAX_SAME_SEGMENT or _nests(segments[: None if path[-1] == "/" else -1])


def _combines(parameters: list[str]) -> bool:
    if len(parameters) > _MAX_QUERY_PARAMETERS:
        return True
    if len(parameters) <= _MAX_SAME_PARAMETER:
        return False
    return max(Counter(each.partition("=")[0] for each in parameters).values()) > _MAX_SAME_PARAMETER


def _nests(folders: list[str]) -> bool:
    """Whether folders repeat, one or several together, more than twice in a row: a/a/a/, a/b/a/b/a/b/.

    So Heritrix's PathologicalPath counts. Numbers may: 2001/01/01/01/ is the first post of a day.
    """
    for period in range(1, len(folders) // (_MAX_RUN + 1) + 1):
        run = 0
        for first, folder in enumerate(folders[period:], start=1):
            run = run + 1 if folder == folders[first - 1] else 0
            if run >= _MAX_RUN * period and not all(map(str.isdigit, folders[first : first + period])):
                return True
    return False


def _without_scheme(url: str) -> str:
    return url.partition("://")[2]


def _host(origin: str) -> str:
    """Name and port; the default ports of http and https are one, and "www." is no other site."""
    return _without_scheme(origin).removeprefix("www.")


def _domain(origin: str) -> str:
    return registrable_domain(urlsplit(origin).hostname or origin, below_platforms=False)
