"""The ledger's file: its schema, who may write it, and what can be read of it beside a running crawl."""

import fcntl
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import IntegrityError, StorageError

FILE_NAME = "frontier.sqlite"
_LOCK_NAME = "lock"
_SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE origins (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL UNIQUE,      -- scheme://host[:port]
    robots_text TEXT,
    robots_status INTEGER,
    robots_failure TEXT,              -- an outcome; set where the origin may not be crawled until robots_expires_at
    robots_error TEXT,
    robots_expires_at REAL,           -- seconds since 1970; null: never asked
    last_request_at REAL
);
CREATE TABLE urls (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE,         -- canonical
    origin_id INTEGER NOT NULL REFERENCES origins,
    depth INTEGER NOT NULL,           -- links away from a seed; of a sitemap, how deeply it is nested
    num_redirects INTEGER NOT NULL,   -- hops since the link that led here
    parent_id INTEGER REFERENCES urls,
    is_queued INTEGER NOT NULL,
    outcome TEXT,                     -- of the last visit; null: never visited
    decided_at REAL,                  -- seconds since 1970; null: never visited
    retry_at REAL,                    -- a later call tries again from then on
    status INTEGER,                   -- of the last answer
    fetched_at REAL,                  -- these three: of the last answer that was archived
    warc_file_id INTEGER REFERENCES warc_files,
    warc_offset INTEGER,
    robots_rule TEXT,
    error TEXT,
    num_links INTEGER,
    num_links_dropped INTEGER
);
CREATE INDEX urls_queued ON urls (origin_id, depth, id) WHERE is_queued;
CREATE INDEX urls_retry ON urls (retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX urls_outcome ON urls (outcome, is_queued);
CREATE TABLE warc_files (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    num_bytes INTEGER NOT NULL,       -- what the ledger vouches for
    num_pages INTEGER NOT NULL,
    is_closed INTEGER NOT NULL
);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

_TO_VERSION_2 = """
ALTER TABLE origins ADD COLUMN site_files TEXT;           -- JSON [[url, text, problem], ...]: tdmrep.json, ai.txt, RSL
ALTER TABLE origins ADD COLUMN site_digest TEXT;          -- of what robots.txt and these files say
ALTER TABLE origins ADD COLUMN is_changed INTEGER NOT NULL DEFAULT 0;  -- its URLs must be judged again
ALTER TABLE origins ADD COLUMN ready_at REAL;             -- seconds since 1970 before which it asked not to be asked
ALTER TABLE origins ADD COLUMN num_requests INTEGER NOT NULL DEFAULT 0;
ALTER TABLE origins ADD COLUMN num_failed INTEGER NOT NULL DEFAULT 0;  -- requests without an answer, 5xx and 429
ALTER TABLE origins ADD COLUMN num_bytes INTEGER NOT NULL DEFAULT 0;   -- decoded bodies of all answers
ALTER TABLE origins ADD COLUMN response_seconds REAL NOT NULL DEFAULT 0;  -- sum over all requests
ALTER TABLE urls ADD COLUMN kind TEXT NOT NULL DEFAULT 'page';  -- page, sitemap or feed
ALTER TABLE urls ADD COLUMN leased_until REAL;            -- seconds since 1970; null: nobody fetches it
ALTER TABLE urls ADD COLUMN canonical TEXT;               -- the page's rel=canonical, where it is another URL
ALTER TABLE urls ADD COLUMN due_at REAL;                  -- when a page is visited again
ALTER TABLE urls ADD COLUMN revisit_seconds REAL;         -- between visits, as learnt; null: not learnt yet
ALTER TABLE urls ADD COLUMN num_visits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE urls ADD COLUMN num_changes INTEGER NOT NULL DEFAULT 0;  -- visits that brought other bytes
ALTER TABLE urls ADD COLUMN etag TEXT;                    -- this and the rest: of the page that is in the files
ALTER TABLE urls ADD COLUMN last_modified TEXT;
ALTER TABLE urls ADD COLUMN payload_digest TEXT;          -- null: no page of this URL counts in the files
ALTER TABLE urls ADD COLUMN record_id TEXT;
ALTER TABLE urls ADD COLUMN num_bytes INTEGER;
ALTER TABLE urls ADD COLUMN directives TEXT;              -- JSON; what reserved or allowed it
DROP INDEX IF EXISTS urls_pages;
CREATE INDEX urls_pages ON urls (origin_id, num_bytes) WHERE payload_digest IS NOT NULL;
CREATE INDEX urls_revisited ON urls (origin_id, depth, id) WHERE is_queued AND payload_digest IS NOT NULL;
CREATE INDEX urls_maps ON urls (origin_id) WHERE kind != 'page';
CREATE INDEX origins_asked ON origins (id) WHERE last_request_at IS NOT NULL;
CREATE INDEX urls_judged ON urls (origin_id) WHERE outcome IN ('robots_disallowed', 'reserved');
CREATE INDEX urls_due ON urls (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX urls_leased ON urls (leased_until) WHERE leased_until IS NOT NULL;
UPDATE origins SET robots_expires_at = 0, site_digest = '' WHERE robots_expires_at IS NOT NULL;  -- to be asked anew
UPDATE urls SET payload_digest = '' WHERE outcome = 'fetched' AND warc_offset IS NOT NULL;  -- a page, not known closer
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerRow:
    """What is known of one URL."""

    url: str
    kind: str
    """page, sitemap or feed."""
    outcome: str | None
    """None where it was never visited."""
    is_queued: bool
    """Whether it waits to be fetched, for the first time or again."""
    status: int | None
    """HTTP status of the last answer."""
    decided_at: datetime | None
    """UTC, of the last visit."""
    fetched_at: datetime | None
    """UTC, of the last answer that was archived."""
    due_at: datetime | None
    """UTC, of the next visit."""
    num_visits: int
    num_changes: int
    """Visits that brought other bytes than the one before."""
    depth: int
    parent: str | None
    """The page that linked or redirected here first; None for a seed."""
    canonical: str | None
    """What the page calls its canonical URL, where that is another."""
    warc_file: str | None
    warc_offset: int | None
    """Where the last answer's record begins in the WARC file."""
    robots_rule: str | None
    """The rule of robots.txt that allowed or forbade the URL."""
    directives: tuple[str, ...]
    """What the site's files and the answer's headers say of training."""
    error: str | None
    num_links: int | None
    """Distinct links that were followed or screened."""
    num_links_dropped: int | None
    """Links not followed: nofollow, not http, malformed, too long, too many."""


def read_row(folder: Path, url: str) -> LedgerRow | None:
    """The row of a canonical URL, read beside a running crawl; None where the crawl never met it."""
    with reader(folder) as db:
        if db is None:
            return None
        row = db.execute(
            "SELECT u.url, u.kind, u.outcome, u.is_queued, u.status, u.decided_at, u.fetched_at, u.due_at, u.num_visits,"
            " u.num_changes, u.depth, p.url, u.canonical, f.name, u.warc_offset, u.robots_rule, u.directives, u.error,"
            " u.num_links, u.num_links_dropped"
            " FROM urls u LEFT JOIN urls p ON p.id = u.parent_id LEFT JOIN warc_files f ON f.id = u.warc_file_id"
            " WHERE u.url = ?",
            (url,),
        ).fetchone()
    if row is None:
        return None
    return LedgerRow(
        url=row[0],
        kind=row[1],
        outcome=row[2],
        is_queued=bool(row[3]),
        status=row[4],
        decided_at=_time(row[5]),
        fetched_at=_time(row[6]),
        due_at=_time(row[7]),
        num_visits=row[8],
        num_changes=row[9],
        depth=row[10],
        parent=row[11],
        canonical=row[12],
        warc_file=row[13],
        warc_offset=row[14],
        robots_rule=row[15],
        directives=tuple(json.loads(row[16] or "[]")),
        error=row[17],
        num_links=row[18],
        num_links_dropped=row[19],
    )


def read_counts(folder: Path, now: float) -> dict[str, Any]:
    """Counts of a ledger, read beside a running crawl."""
    with reader(folder) as db:
        if db is None:
            return {
                "num_urls": 0,
                "num_queued": 0,
                "num_leased": 0,
                "num_due": 0,
                "num_pages": 0,
                "num_hosts": 0,
                "outcomes": {},
            }
        return {
            "num_urls": scalar(db, "SELECT COUNT(*) FROM urls"),
            "num_queued": scalar(db, "SELECT COUNT(*) FROM urls WHERE is_queued"),
            "num_leased": scalar(db, "SELECT COUNT(*) FROM urls WHERE leased_until > ?", now),
            "num_due": scalar(db, "SELECT COUNT(*) FROM urls WHERE due_at <= ? AND NOT is_queued", now),
            "num_pages": scalar(db, "SELECT COALESCE(SUM(num_pages), 0) FROM warc_files"),
            "num_hosts": scalar(db, "SELECT COUNT(*) FROM origins WHERE last_request_at IS NOT NULL"),
            "outcomes": outcomes(db),
        }


@contextmanager
def reader(folder: Path) -> Iterator[sqlite3.Connection | None]:
    """A connection that only reads the ledger of a folder, beside a running crawl; None where there is none.

    Raises IntegrityError for a ledger of another version.
    """
    path = folder / FILE_NAME
    if not path.exists():
        yield None
        return
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        version = scalar(db, "PRAGMA user_version")
        if version not in (0, _SCHEMA_VERSION):
            raise IntegrityError(
                f"got a crawl ledger of version {version} ({path}), wanted {_SCHEMA_VERSION}: run the crawl once."
            )
        yield db if version else None
    finally:
        db.close()


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def outcomes(db: sqlite3.Connection) -> dict[str, int]:
    """How many URLs have each outcome; those that wait have none."""
    rows = db.execute("SELECT outcome, COUNT(*) FROM urls WHERE NOT is_queued GROUP BY outcome ORDER BY outcome")
    return dict(rows.fetchall())


def scalar(db: sqlite3.Connection, query: str, *values: object) -> int:
    """The one number that a query gives."""
    value: int = db.execute(query, values).fetchone()[0]
    return value


def lock(folder: Path) -> BinaryIO:
    """Hold a folder until the file is closed. Raises StorageError where another process holds it."""
    held = (folder / _LOCK_NAME).open("ab")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held.close()
        raise StorageError(
            f"got a folder that another process is crawling ({folder}), wanted it free: wait for that crawl to end."
        ) from error
    return held


def _refuse_newer(version: int, path: Path) -> None:
    if version > _SCHEMA_VERSION:
        raise IntegrityError(
            f"got a crawl ledger of version {version} ({path}), wanted {_SCHEMA_VERSION}: crawl into another folder."
        )


def connect(path: Path) -> sqlite3.Connection:
    """Open a ledger to write, made or brought to this version. Raises IntegrityError for what is none, or is newer."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A commit survives a kill; after a power cut the WARC files are cut back to the ledger. See sync().
        db.execute("PRAGMA synchronous = NORMAL")
        version = scalar(db, "PRAGMA user_version")
        _refuse_newer(version, path)
        if version < _SCHEMA_VERSION:
            steps = f"{_SCHEMA if version == 0 else ''} {_TO_VERSION_2}"
            db.executescript(f"BEGIN; {steps} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
    except sqlite3.DatabaseError as error:
        db.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise IntegrityError(f"got {error} from {path}, wanted a crawl ledger: move it away to begin anew.") from error
    except BaseException:
        db.close()
        raise
    return db
