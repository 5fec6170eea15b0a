"""From the answer to one URL to what the ledger and the archive keep of it. Nothing is asked for here."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.entries import Archived, Kind, Link, Target, Visit
from pipelines.crawl.feeds import read_feed
from pipelines.crawl.fetch import REDIRECT_STATUSES, Failure, Response
from pipelines.crawl.links import NONE, Links, extract_links, resolve_redirect
from pipelines.crawl.outcome import Outcome
from pipelines.crawl.retry import later_seconds
from pipelines.crawl.revisit import header_directives, next_visit
from pipelines.crawl.screen import Screen, origin_of
from pipelines.crawl.sitemaps import Sitemap, read_sitemap
from pipelines.crawl.warc_writer import Earlier, Record, ResponseRecord, new_record_id, payload_digest

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
# An XML declaration, or the root of a sitemap or a feed, which some servers send as HTML.
_XML_HEAD = re.compile(rb"[\s\xef\xbb\xbf]*<(?:\?xml|urlset|sitemapindex|rss|feed|rdf)", re.IGNORECASE)
_GONE_STATUSES = frozenset({404, 410})
_MAX_SITEMAP_NESTING = 3
"""The protocol knows one index above the sitemaps; sites nest more."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a document holds for the frontier."""

    links: tuple[Link, ...] = ()
    """Those that the ledger may not know yet."""
    num_links: int = 0
    """All distinct ones."""
    num_dropped: int = 0
    canonical: str | None = None
    rsl: tuple[str, ...] = ()
    """URLs of RSL documents that the page names."""
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What was decided before the request, and what came of the page's other files."""

    rule: str
    directives: tuple[str, ...]
    """Of the site."""
    rsl_directives: tuple[str, ...] = ()
    """Of RSL documents that the page names."""
    found: Found = field(default_factory=Found)
    asked_seconds: float | None = None
    """Retry-After."""


def classify(answer: Response | Failure, target: Target, *, is_conditional: bool) -> Outcome:
    """What an answer means for its URL. A 304 means something only where conditions were sent."""
    if isinstance(answer, Failure):
        return answer.outcome
    if answer.status in REDIRECT_STATUSES and answer.header("location") is not None:
        where = resolve_redirect(answer.header("location") or "", answer.url)
        return Outcome.REDIRECT_LOOP if where == answer.url else Outcome.REDIRECTED
    if answer.status == 304 and is_conditional:
        return Outcome.FETCHED
    if not 200 <= answer.status < 300:
        return Outcome.HTTP_ERROR
    if target.kind != "page":
        return Outcome.MISTAKEN if _is_page(answer) else Outcome.READ_FOR_LINKS
    return Outcome.NOT_TEXT if answer.body is None else Outcome.FETCHED


def read_links(
    answer: Response, target: Target, config: CrawlConfig, screen: Screen, knows: Callable[[str, int], bool]
) -> Found:
    """The links of a page, a sitemap or a feed, judged. `knows` says which URLs need not be told of again at a depth."""
    body = answer.body or b""
    if target.kind == "sitemap":
        return _of_sitemap(read_sitemap(body, answer.url), target, screen)
    if target.kind == "feed":
        feed = read_feed(body, answer.url, answer.header("content-type"))
        links = tuple(_link(screen, url, target.depth + 1) for url in feed.urls)
        return Found(links, len(links), feed.num_dropped, problem=feed.problem)
    page = _page_links(answer, body, config)
    depth = target.depth + 1
    links = tuple(_link(screen, url, depth) for url in page.urls if not knows(url, depth))
    if config.feeds:
        links += tuple(_link(screen, url, target.depth, "feed") for url in page.feeds)
    if page.canonical:
        links += (_link(screen, page.canonical, target.depth),)
    return Found(links, len(page.urls), page.num_dropped, page.canonical, page.rsl)


def follow_redirect(answer: Response, target: Target, screen: Screen) -> Found:
    """The link that a redirect is."""
    where = resolve_redirect(answer.header("location") or "", target.url)
    if where is None:
        return Found(problem="redirects to what is no http or https URL")
    num_redirects = target.num_redirects + 1
    refusal = screen.judge(where, target.depth, num_redirects)
    is_own = origin_of(where) == origin_of(target.url) or screen.is_in_scope(where)
    if target.kind == "sitemap" and is_own and refusal is not Outcome.TOO_MANY_REDIRECTS:
        refusal = None
    return Found((Link(where, origin_of(where), target.depth, num_redirects, refusal, target.kind),), 1)


def sitemap_links(urls: tuple[str, ...], origin: str, screen: Screen) -> tuple[Link, ...]:
    """The sitemaps that an origin's robots.txt names, there or on another host that is ours."""
    found = ((url, origin_of(url)) for url in urls)
    return tuple(
        Link(url, where, 0, 0, None, "sitemap") for url, where in found if where == origin or screen.is_in_scope(url)
    )


def _is_page(answer: Response) -> bool:
    """Whether what was named as a sitemap or a feed is a page of HTML."""
    media_type = (answer.header("content-type") or "").partition(";")[0].strip().lower()
    return media_type in _HTML_TYPES and not _XML_HEAD.match(answer.body or b"")


def to_visit(
    target: Target, answer: Response | Failure, outcome: Outcome, context: Context, config: CrawlConfig, screen: Screen
) -> tuple[Visit, Record | None]:
    """What the ledger records, and what the archive."""
    status = None if isinstance(answer, Failure) else answer.status
    decided_at = time.time() if isinstance(answer, Failure) else answer.fetched_at.timestamp()
    record, archived, is_changed = _to_archive(target, answer, outcome, context)
    due_at, revisit_seconds = next_visit(
        config, decided_at, outcome, status, target.revisit_seconds, is_changed=is_changed
    )
    later = later_seconds(outcome, status, context.asked_seconds, is_seed=target.url in screen.seeds)
    links = context.found.links
    if outcome is Outcome.MISTAKEN:
        links = (_link(screen, target.url, max(1, target.depth)),)
    visit = Visit(
        target=target,
        outcome=outcome,
        decided_at=decided_at,
        status=status,
        robots_rule=context.rule,
        error=_error(answer, outcome, context),
        retry_at=None if later is None else time.time() + later,
        due_at=None if later is not None else due_at,
        revisit_seconds=revisit_seconds,
        is_changed=bool(is_changed),
        is_revisit=isinstance(record, ResponseRecord) and record.kind != "response",
        canonical=context.found.canonical,
        archived=archived,
        links=links,
        num_links=context.found.num_links,
        num_links_dropped=context.found.num_dropped,
    )
    return visit, record


def _to_archive(
    target: Target, answer: Response | Failure, outcome: Outcome, context: Context
) -> tuple[Record | None, Archived | None, bool | None]:
    """The record, the page that counts in the files from now on, and whether it is another than before (None: there was none)."""
    before = target.archived
    if isinstance(answer, Failure) or target.kind != "page":
        return None, before, None
    if answer.body is None and before is None:
        return None, None, None
    if answer.status == 304 and outcome is Outcome.FETCHED and before is not None:
        record = _record(answer, before.payload_digest, context, "not_modified", before)
        return record, before, False
    digest = payload_digest(answer.body or b"")
    if outcome is not Outcome.FETCHED:
        # A page that is gone, or is no page any more, counts no longer; one that only fails for now still does.
        is_over = outcome is Outcome.NOT_TEXT or answer.status in _GONE_STATUSES
        return _record(answer, digest, context), None if is_over else before, None
    directives = (*context.directives, *context.rsl_directives, *header_directives(answer))
    if before is not None and digest == before.payload_digest and directives == before.directives:
        after = replace(before, etag=answer.header("etag"), last_modified=answer.header("last-modified"))
        return _record(answer, digest, context, "identical", before), after, False
    record = _record(answer, digest, context)
    archived = Archived(
        payload_digest=digest,
        record_id=record.record_id,
        fetched_at=answer.fetched_at.timestamp(),
        num_bytes=len(answer.body or b""),
        etag=answer.header("etag"),
        last_modified=answer.header("last-modified"),
        directives=directives,
    )
    return record, archived, None if before is None else digest != before.payload_digest


def _record(
    answer: Response,
    digest: str,
    context: Context,
    kind: Literal["response", "not_modified", "identical"] = "response",
    before: Archived | None = None,
) -> ResponseRecord:
    return ResponseRecord(
        response=answer,
        record_id=new_record_id(),
        payload_digest=digest,
        kind=kind,
        robots_rule=context.rule,
        directives=(*context.directives, *context.rsl_directives),
        earlier=None if before is None else Earlier(before.record_id, before.fetched_at),
    )


def _error(answer: Response | Failure, outcome: Outcome, context: Context) -> str | None:
    if isinstance(answer, Failure):
        return answer.error
    if outcome is Outcome.NOT_TEXT:
        return f"the body was not downloaded: its type is {answer.header('content-type')!r}"
    return context.found.problem


def _of_sitemap(sitemap: Sitemap, target: Target, screen: Screen) -> Found:
    links = [
        Link(entry.url, origin_of(entry.url), 1, 0, screen.judge(entry.url, 1, 0), "page", entry.modified_at)
        for entry in sitemap.pages
    ]
    nesting = target.depth + 1
    refusal = Outcome.TOO_DEEP if nesting >= _MAX_SITEMAP_NESTING else None
    own = origin_of(target.url)
    found = ((entry, origin_of(entry.url)) for entry in sitemap.sitemaps)
    links += [
        Link(entry.url, origin, nesting, 0, refusal, "sitemap", entry.modified_at)
        for entry, origin in found
        if origin == own or screen.is_in_scope(entry.url)
    ]
    return Found(tuple(links), len(links), sitemap.num_dropped, problem=sitemap.problem)


def _page_links(answer: Response, body: bytes, config: CrawlConfig) -> Links:
    content_type = answer.header("content-type")
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type not in _HTML_TYPES and (media_type or not body.lstrip().startswith(b"<")):
        return NONE
    return extract_links(
        body,
        answer.url,
        content_type,
        answer.header("x-robots-tag") or "",
        answer.header("link") or "",
        config.user_agent,
    )


def _link(screen: Screen, url: str, depth: int, kind: Kind = "page") -> Link:
    return Link(url, origin_of(url), depth, 0, screen.judge(url, depth, 0), kind)
