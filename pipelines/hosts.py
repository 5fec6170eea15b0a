"""The host of a URL, for whoever counts or compares by host. Must not: decide what may be fetched (crawl/address.py)."""

import functools
import re
from collections.abc import Callable
from urllib.parse import urlsplit

_MAX_URL_CHARS = 16 << 10
_MAX_REMEMBERED = 1 << 16
BEFORE_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


def host_finder() -> Callable[[str | None], str]:
    """A function from a URL to its host, in lower case, without the root's dot; "" for none.

    What goes before the path says the host, so an address is taken apart once for each of those.
    """
    known: dict[str, str] = {}

    def host(url: str | None) -> str:
        if not url:
            return ""
        start = BEFORE_PATH.match(url)
        place = start[0] if start is not None else url
        found = known.get(place)
        if found is None:
            if len(known) >= _MAX_REMEMBERED:
                known.clear()
            found = known[place] = _host(url)
        return found

    return host


@functools.lru_cache(maxsize=4096)
def ascii_host(host: str) -> str:
    """A host in lower case, its labels in the form the DNS knows (RFC 3490), without the root's dot."""
    host = host.lower().rstrip(".")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _host(url: str) -> str:
    try:
        return (urlsplit(url[:_MAX_URL_CHARS]).hostname or "").rstrip(".")
    except ValueError:
        return ""
