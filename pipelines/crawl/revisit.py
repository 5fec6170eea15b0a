"""When a page is visited again, how it is asked for, and whether what came is what was there.

The interval adapts as in Nutch's AdaptiveFetchSchedule: it grows where a page did not change, and shrinks
where it did.
"""

import re
from collections.abc import Mapping

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.entries import Archived
from pipelines.crawl.fetch import Response
from pipelines.crawl.outcome import JUDGED_BY_SITE, RECONSIDERED, Outcome

_VALIDATOR = re.compile(r"[ -~]{1,1024}")
"""What a server sends is not sent back whatever it is."""
_GROWTH = 1.5
_SHRINKAGE = 0.5
_GONE_STATUSES = frozenset({404, 410})
_RIGHTS_HEADERS = frozenset({"x-robots-tag", "tdm-reservation", "content-usage", "content-signal"})
_SITE_SOURCES = ("robots.txt ", "tdmrep.json:", "ai.txt:", "rsl:", "unread:")


def header_directives(response: Response) -> tuple[str, ...]:
    """What the headers of an answer say of training."""
    named = ((name.lower(), value.strip()) for name, value in response.headers)
    return tuple(
        f"{name}: {value}"
        for name, value in named
        if name in _RIGHTS_HEADERS or (name == "link" and "license" in value)
    )


def site_directives(directives: tuple[str, ...]) -> tuple[str, ...]:
    """Those that came from the site's files."""
    return tuple(each for each in directives if each.startswith(_SITE_SOURCES))


def conditional_headers(archived: Archived | None, directives: tuple[str, ...]) -> Mapping[str, str] | None:
    """Headers that ask for a page only if it changed (RFC 9110, 13.1); None where it is wanted in any case.

    It is wanted where the site says something else of it than when it was archived: the new record carries that.
    A page that names RSL documents is read again for them.
    """
    if archived is None or site_directives(archived.directives) != directives:
        return None
    validators = {"If-None-Match": archived.etag, "If-Modified-Since": archived.last_modified}
    return {name: value for name, value in validators.items() if value and _VALIDATOR.fullmatch(value)} or None


def says_more(response: Response, archived: Archived) -> bool:
    """Whether an answer 304 brings directives that the archived page did not have. It may well leave old ones out."""
    return not set(header_directives(response)) <= set(archived.directives)


def next_visit(
    config: CrawlConfig,
    now: float,
    outcome: Outcome,
    status: int | None,
    revisit_seconds: float | None,
    *,
    is_changed: bool | None,
) -> tuple[float | None, float | None]:
    """When to visit again (seconds since 1970), and the interval as learnt. `is_changed` is None for a first visit."""
    if config.recrawl_after_hours is None or outcome in RECONSIDERED | JUDGED_BY_SITE:
        return None, None
    first = config.recrawl_after_hours * 3600
    least = min(first, config.min_recrawl_hours * 3600)
    most = max(first, config.max_recrawl_hours * 3600)
    if outcome is Outcome.HTTP_ERROR and status in _GONE_STATUSES:
        return now + most, None
    if outcome is not Outcome.FETCHED or is_changed is None:
        return now + first, None
    learnt = (first if revisit_seconds is None else revisit_seconds) * (_SHRINKAGE if is_changed else _GROWTH)
    learnt = min(max(learnt, least), most)
    return now + learnt, learnt
