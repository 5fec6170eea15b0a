"""What can become of a URL. Each URL of the ledger that is not waiting has exactly one of these."""

from enum import StrEnum


class Outcome(StrEnum):
    """The last thing that happened to a URL."""

    FETCHED = "fetched"
    """A 2xx answer with text; its record is in a WARC file."""
    REDIRECTED = "redirected"
    """Archived; the target is a URL of its own."""
    REDIRECT_LOOP = "redirect_loop"
    """Redirects to itself; archived."""
    TOO_MANY_REDIRECTS = "too_many_redirects"
    HTTP_ERROR = "http_error"
    """A final 4xx or 5xx; archived where its body is text."""
    NOT_TEXT = "not_text"
    """Neither HTML nor plain text; its body was not downloaded."""
    READ_FOR_LINKS = "read_for_links"
    """A sitemap or a feed; not archived."""
    MISTAKEN = "mistaken"
    """Named as a sitemap or a feed, but a page: fetched again as one, where it is ours."""
    ROBOTS_DISALLOWED = "robots_disallowed"
    ROBOTS_UNREACHABLE = "robots_unreachable"
    """robots.txt answered 5xx, 429 or not at all, which means no (RFC 9309, 2.3.1.4)."""
    RESERVED = "reserved"
    """A file of the site (robots.txt, tdmrep.json, ai.txt, RSL) reserves it from training."""
    CRAWL_DELAY_TOO_LONG = "crawl_delay_too_long"
    DNS_ERROR = "dns_error"
    ADDRESS_REFUSED = "address_refused"
    """The host has an address that is not public and not allowed by the config."""
    CONNECT_ERROR = "connect_error"
    TLS_ERROR = "tls_error"
    TIMEOUT = "timeout"
    TOO_SLOW = "too_slow"
    """The body came slower than min_bytes_per_second."""
    DISCONNECTED = "disconnected"
    """The connection ended before the body did."""
    BAD_ENCODING = "bad_encoding"
    """The body is not what Content-Encoding says."""
    DECOMPRESSION_BOMB = "decompression_bomb"
    """The body swells to more than a hundred times its size, and past a megabyte."""
    BAD_RESPONSE = "bad_response"
    """Not HTTP, or HTTP that cannot be parsed."""
    OUT_OF_SCOPE = "out_of_scope"
    EXCLUDED = "excluded"
    """Matches no include pattern, or an exclude pattern."""
    TOO_DEEP = "too_deep"
    URL_TRAP = "url_trap"
    """Too many path segments, repeated segments or query parameters."""
    TAKEN_DOWN = "taken_down"
    """Named by a take-down: not asked for."""


TRANSIENT = frozenset(
    {
        Outcome.DNS_ERROR,
        Outcome.CONNECT_ERROR,
        Outcome.TIMEOUT,
        Outcome.TOO_SLOW,
        Outcome.DISCONNECTED,
        Outcome.ROBOTS_UNREACHABLE,
    }
)
"""Trying later may give something else. HTTP errors are judged by their status."""

SCREENED = frozenset({Outcome.OUT_OF_SCOPE, Outcome.EXCLUDED, Outcome.TOO_DEEP, Outcome.URL_TRAP, Outcome.TAKEN_DOWN})
"""Decided from the URL alone, without asking anyone."""

JUDGED_BY_SITE = frozenset({Outcome.ROBOTS_DISALLOWED, Outcome.RESERVED})
"""Decided by the files of a site, and again when these change."""

RECONSIDERED = SCREENED | {Outcome.TOO_MANY_REDIRECTS, Outcome.ADDRESS_REFUSED, Outcome.CRAWL_DELAY_TOO_LONG}
"""Follow from the config, so a changed config looks at them again."""

QUIET = (
    frozenset({Outcome.FETCHED, Outcome.READ_FOR_LINKS, Outcome.MISTAKEN, Outcome.REDIRECTED, Outcome.NOT_TEXT})
    | JUDGED_BY_SITE
)
"""Nothing went wrong."""
