"""The entry to the crawl source: crawl a folder on, look a URL up, count.

Everything heavy (the HTTP client, the HTML parser) is imported when there is something to fetch, so
that a crawl with nothing left to do returns at once.
"""

import errno
import ipaddress
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipelines.crawl.address import is_address
from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.frontier import Frontier
from pipelines.crawl.ledger import LedgerRow, read_counts, read_row
from pipelines.crawl.recovery import recover
from pipelines.digest import digest_value
from pipelines.errors import ConfigError, FullDiskError, IntegrityError, StorageError
from pipelines.takedown.documents import Takedown

if TYPE_CHECKING:
    from pipelines.crawl.tally import Counts

WARC_FOLDER_NAME = "warc"

_NOWHERE: Mapping[str, tuple[str, int]] = MappingProxyType({})
_PROGRESS_SECONDS = 0.5
_MIN_MAPS_PER_HOST = 50
_PAGES_PER_MAP = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class CrawlProgress:
    """Where a crawl stands."""

    num_fetched: int
    """Requests for pages in this call, attempts counted; robots.txt is not."""
    num_pages: int
    """Pages in WARC files in all."""
    num_queued: int
    """URLs that wait."""
    num_bytes: int
    """Of bodies in this call, decoded."""
    errors: Mapping[str, int]
    """URLs that failed in this call, by outcome."""
    num_hosts: int
    """Hosts asked so far, in all."""
    pages_per_second: float
    """Pages over the seconds of this call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrawlResult:
    """What a crawl left behind."""

    warc_paths: tuple[Path, ...]
    """Closed files, sorted; none of them changes any more."""
    num_fetched: int
    """Requests for pages in this call, attempts counted; robots.txt is not."""
    num_pages: int
    """Pages in WARC files in all."""
    num_unchanged: int = 0
    """Pages visited again in this call that were what they had been."""
    num_changed: int = 0
    """Pages visited again in this call that were not."""
    num_withdrawn: int = 0
    """Pages that the files of their sites forbid since this call."""
    outcomes: dict[str, int]
    """URLs by what became of them, in all; those that still wait are not among them."""
    complete: bool
    """Whether no URL waits. False where a limit ended the crawl."""


def crawl(
    config: CrawlConfig,
    folder: Path,
    *,
    takedown: Takedown = Takedown(),  # noqa: B008 - frozen
    connect_to: Mapping[str, tuple[str, int]] = _NOWHERE,
    on_progress: Callable[[CrawlProgress], None] | None = None,
) -> CrawlResult:
    """Crawl until nothing is left that the config allows, going on from what the folder holds.

    What `takedown` names is not asked for, whatever the ledger has waiting. `connect_to` maps "host" or "host:port" of a URL to the loopback address and port to connect to
    instead; these are not judged. Raises ConfigError, StorageError (a full disk, a folder that another
    process crawls) and IntegrityError (a damaged ledger); the ledger is consistent after each.
    """
    _check_connect_to(connect_to)
    try:
        return _crawl(config, takedown, folder, connect_to, on_progress)
    except sqlite3.OperationalError as error:
        kind = FullDiskError if error.sqlite_errorcode == sqlite3.SQLITE_FULL else StorageError
        raise kind(
            f"got '{error}' from the crawl ledger in {folder}, wanted to write it: free space and run again."
        ) from error
    except sqlite3.DatabaseError as error:
        raise IntegrityError(
            f"got '{error}' from the crawl ledger in {folder}, wanted a whole one: move it away to begin anew."
        ) from error
    except OSError as error:
        kind = FullDiskError if error.errno == errno.ENOSPC else StorageError
        raise kind(
            f"got '{error.strerror or error}' while writing to {folder}, wanted to write: free space or mend the disk, and run again."
        ) from error


def lookup(folder: Path, url: str) -> LedgerRow | None:
    """What the crawl in a folder knows of a URL, in any spelling; None where it never met it."""
    row = read_row(folder, url)
    if row is None:
        from pipelines.crawl.screen import canonical_url

        canonical = canonical_url(url)
        row = read_row(folder, canonical) if canonical and canonical != url else None
    return row


def status(folder: Path) -> dict[str, Any]:
    """Counts of the crawl in a folder: num_urls, num_queued, num_leased, num_due, num_pages, num_hosts, outcomes."""
    return read_counts(folder, time.time())


def _crawl(
    config: CrawlConfig,
    takedown: Takedown,
    folder: Path,
    connect_to: Mapping[str, tuple[str, int]],
    on_progress: Callable[[CrawlProgress], None] | None,
) -> CrawlResult:
    warc_folder = folder / WARC_FOLDER_NAME
    warc_folder.mkdir(parents=True, exist_ok=True)
    counts: Counts | None = None
    # More sitemaps than pages are wanted for help nobody; a site can name any number.
    max_maps = _MIN_MAPS_PER_HOST + config.max_pages // _PAGES_PER_MAP
    with Frontier(folder, max_maps_per_host=max_maps) as frontier:
        recover(frontier, warc_folder)
        digest = digest_value(config)
        is_new = not frontier.is_configured(digest)
        if is_new:
            _configure(frontier, config, digest, takedown)
        _take_down(frontier, config, takedown, is_new=is_new)
        hours = config.recrawl_after_hours
        now = time.time()
        frontier.requeue(now, None if hours is None else hours * 3600)
        if frontier.has_work(now, config.max_pages, config.max_pages_per_host, config.max_bytes_per_host):
            from pipelines.crawl.engine import run

            counts = run(config, takedown, frontier, warc_folder, connect_to, _reporter(frontier, on_progress))
        return CrawlResult(
            warc_paths=tuple(sorted(warc_folder.glob("*.warc.gz"))),
            num_fetched=counts.num_fetched if counts else 0,
            num_pages=frontier.num_archived_pages(),
            num_unchanged=counts.num_unchanged if counts else 0,
            num_changed=counts.num_changed if counts else 0,
            num_withdrawn=counts.num_withdrawn if counts else 0,
            outcomes=frontier.outcomes(),
            complete=frontier.num_queued() == 0,
        )


def _configure(frontier: Frontier, config: CrawlConfig, digest: str, takedown: Takedown) -> None:
    from pipelines.crawl.screen import Screen, canonical_url, origin_of

    seeds: list[tuple[str, str]] = []
    for seed in config.seeds:
        url = canonical_url(seed)
        if url is None:
            raise ConfigError(f"seeds: got {seed!r}, wanted an http or https URL that can be fetched: correct it.")
        seeds.append((url, origin_of(url)))
    frontier.configure(digest, config.user_agent, seeds, Screen(config, takedown))


def _take_down(frontier: Frontier, config: CrawlConfig, takedown: Takedown, *, is_new: bool) -> None:
    """Tell the ledger what is taken down, where that is news to it, or where a new config may have freed hosts."""
    digest = digest_value(takedown) if takedown else ""
    if (takedown and is_new) or not frontier.is_taken_down_as(digest):
        from pipelines.crawl.screen import Screen

        frontier.take_down(digest, Screen(config, takedown))


def _reporter(frontier: Frontier, on_progress: Callable[[CrawlProgress], None] | None) -> "Callable[[Counts], None]":
    """Turns the engine's counts into progress, not more often than every half second."""
    began_at = time.monotonic()
    num_pages_before = frontier.num_archived_pages()
    due_at = began_at

    def report(counts: "Counts") -> None:
        nonlocal due_at
        now = time.monotonic()
        if on_progress is None or (now < due_at and not counts.is_last):
            return
        due_at = now + _PROGRESS_SECONDS
        num_pages = frontier.num_archived_pages()
        on_progress(
            CrawlProgress(
                num_fetched=counts.num_fetched,
                num_pages=num_pages,
                num_queued=frontier.num_queued(),
                num_bytes=counts.num_bytes,
                errors=counts.errors,
                num_hosts=frontier.num_hosts(),
                pages_per_second=(num_pages - num_pages_before) / max(now - began_at, 1e-9),
            )
        )

    return report


def _check_connect_to(connect_to: Mapping[str, tuple[str, int]]) -> None:
    for name, (address, port) in connect_to.items():
        if not is_address(address) or not ipaddress.ip_address(address).is_loopback or not 0 < port < 1 << 16:
            raise ConfigError(
                f"connect_to: got {address}:{port} for {name!r}, wanted a loopback address and a port: correct it."
            )
        if is_address(name.rpartition(":")[0] or name):
            raise ConfigError(f"connect_to: got the address {name!r}, wanted a host name: map a name instead.")
