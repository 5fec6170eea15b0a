"""The ledger of a crawl: every URL it knows, what became of it, and what is next. SQLite in WAL mode.

A URL waits (`is_queued`) until one transaction records its outcome, its place in a WARC file and its
links. That transaction runs after the record is on disk, so a process killed at any moment leaves a
ledger that is never ahead of the files, and WARC files that are ahead by a tail which `warc_files`
tells apart. Who is being asked at this moment is kept in memory only: a lock on the folder lets one
process at a time crawl it, so a lease needs no more than to end with the process.
"""

import fcntl
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from pipelines.crawl.outcome import RECONSIDERED, Outcome
from pipelines.errors import IntegrityError, StorageError

FILE_NAME = "frontier.sqlite"
_LOCK_NAME = "lock"
_SCHEMA_VERSION = 1
_CONFIG_KEY = "config_digest"
_NUM_ROWS_AT_ONCE = 10_000

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
    depth INTEGER NOT NULL,           -- links away from a seed
    num_redirects INTEGER NOT NULL,   -- hops since the link that led here
    parent_id INTEGER REFERENCES urls,
    is_queued INTEGER NOT NULL,
    outcome TEXT,                     -- of the last visit; null: never visited
    decided_at REAL,                  -- seconds since 1970; null: never visited
    retry_at REAL,                    -- a later call tries again from then on
    status INTEGER,                   -- these four: of the last answer that was archived
    fetched_at REAL,
    warc_file_id INTEGER REFERENCES warc_files,
    warc_offset INTEGER,
    robots_rule TEXT,
    error TEXT,
    num_links INTEGER,
    num_links_dropped INTEGER
);
CREATE INDEX urls_queued ON urls (origin_id, depth, id) WHERE is_queued;
CREATE INDEX urls_retry ON urls (retry_at) WHERE retry_at IS NOT NULL;
CREATE INDEX urls_pages ON urls (origin_id) WHERE outcome = 'fetched' AND NOT is_queued;
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


class Judge(Protocol):
    """Decides about a URL from the config alone."""

    def judge(self, url: str, depth: int, num_redirects: int) -> Outcome | None:
        """Why a URL is not fetched; None where it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerRow:
    """What is known of one URL."""

    url: str
    outcome: str | None
    """None where it was never visited."""
    is_queued: bool
    """Whether it waits to be fetched, for the first time or again."""
    status: int | None
    """HTTP status of the last answer."""
    fetched_at: datetime | None
    """UTC, of the last answer."""
    depth: int
    parent: str | None
    """The page that linked or redirected here first; None for a seed."""
    warc_file: str | None
    warc_offset: int | None
    """Where the last answer's record begins in the WARC file."""
    robots_rule: str | None
    """The rule of robots.txt that allowed or forbade the URL."""
    error: str | None
    num_links: int | None
    """Distinct links that were followed or screened."""
    num_links_dropped: int | None
    """Links not followed: nofollow, not http, malformed, too long, too many."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that is next."""

    id: int
    url: str
    depth: int
    num_redirects: int


@dataclass(frozen=True, slots=True)
class Link:
    """A URL that a visit found."""

    url: str
    origin: str
    depth: int
    num_redirects: int
    refusal: Outcome | None
    """Why it is not fetched; None where it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """What became of a target."""

    target: Target
    outcome: Outcome
    decided_at: float
    """Seconds since 1970; where there was an answer, when it was asked for."""
    status: int | None = None
    robots_rule: str | None = None
    error: str | None = None
    retry_at: float | None = None
    """Seconds since 1970; a call after that tries again."""
    links: tuple[Link, ...] = ()
    num_links_dropped: int = 0


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A WARC file that no crawl has closed."""

    id: int
    name: str
    num_bytes: int
    """The bytes that the ledger vouches for."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port, and what is known of its robots.txt."""

    id: int
    origin: str
    robots_text: str | None
    robots_status: int | None
    robots_failure: Outcome | None
    robots_error: str | None
    robots_expires_at: float | None
    last_request_at: float | None
    num_pages: int


class Frontier:
    """The ledger, held by one process. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Open or create the ledger of a folder. Raises StorageError where another process crawls it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            self._db = _connect(folder / FILE_NAME)
        except BaseException:
            self._lock.close()
            raise
        self._origin_ids: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Nothing more to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database, then let others in."""
        self._db.close()
        self._lock.close()

    # -- what a call starts from

    def is_configured(self, config_digest: str) -> bool:
        """Whether the last call had this config."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (_CONFIG_KEY,)).fetchone()
        return row is not None and row[0] == config_digest

    def configure(self, config_digest: str, seeds: Iterable[tuple[str, str]], judge: Judge) -> None:
        """Add seeds (canonical URL, origin), and judge again what followed from the config or waits."""
        with self._transaction():
            self._add_links([Link(url, origin, 0, 0, judge.judge(url, 0, 0)) for url, origin in seeds], parent_id=None)
            last_id = 0
            while rows := self._db.execute(
                "SELECT id, url, depth, num_redirects, is_queued, outcome FROM urls WHERE id > ?"
                " AND (is_queued OR outcome IN (SELECT value FROM json_each(?))) ORDER BY id LIMIT ?",
                (last_id, json.dumps(sorted(RECONSIDERED)), _NUM_ROWS_AT_ONCE),
            ).fetchall():
                last_id = rows[-1][0]
                self._judge_again(rows, judge)
            self._db.execute("UPDATE origins SET robots_expires_at = NULL WHERE robots_failure = 'address_refused'")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_CONFIG_KEY, config_digest))

    def _judge_again(self, rows: Iterable[tuple[int, str, int, int, int, str | None]], judge: Judge) -> None:
        changes: list[tuple[bool, Outcome | None, int]] = []
        for id_, url, depth, num_redirects, is_queued, outcome in rows:
            refusal = judge.judge(url, depth, num_redirects)
            if (refusal is None) != bool(is_queued) or (refusal is not None and refusal != outcome):
                changes.append((refusal is None, refusal, id_))
        self._db.executemany("UPDATE urls SET is_queued = ?, outcome = ? WHERE id = ?", changes)

    def requeue(self, now: float, recrawl_after_seconds: float | None) -> None:
        """Queue what may be tried again by now, and what was last asked for too long ago."""
        with self._transaction():
            self._db.execute("UPDATE urls SET is_queued = 1, retry_at = NULL WHERE retry_at <= ?", (now,))
            self._db.execute("UPDATE origins SET robots_expires_at = NULL WHERE robots_failure = 'dns_error'")
            if recrawl_after_seconds is not None:
                self._db.execute(
                    "UPDATE urls SET is_queued = 1, retry_at = NULL WHERE NOT is_queued AND decided_at <= ?",
                    (now - recrawl_after_seconds,),
                )

    def has_work(self, max_pages: int, max_pages_per_host: int | None) -> bool:
        """Whether anything waits that these limits let through."""
        if self.num_pages() >= max_pages:
            return False
        return any(
            max_pages_per_host is None or origin.num_pages < max_pages_per_host
            for origin in self.waiting_origins(count_pages=max_pages_per_host is not None)
        )

    # -- what is next

    def waiting_origins(self, *, count_pages: bool) -> Iterator[Origin]:
        """Origins with a URL that waits."""
        ids = self._db.execute("SELECT DISTINCT origin_id FROM urls WHERE is_queued").fetchall()
        for (id_,) in ids:
            yield self.origin(id_, count_pages=count_pages)

    def origin(self, id_: int, *, count_pages: bool) -> Origin:
        """One origin. Its pages are counted only on request, because that reads all its rows."""
        row = self._db.execute(
            "SELECT id, origin, robots_text, robots_status, robots_failure, robots_error, robots_expires_at,"
            " last_request_at FROM origins WHERE id = ?",
            (id_,),
        ).fetchone()
        num_pages = 0
        if count_pages:
            num_pages = self._db.execute(
                "SELECT COUNT(*) FROM urls WHERE outcome = 'fetched' AND NOT is_queued AND origin_id = ?", (id_,)
            ).fetchone()[0]
        failure = Outcome(row[4]) if row[4] else None
        return Origin(row[0], row[1], row[2], row[3], failure, row[5], row[6], row[7], num_pages)

    def next_targets(self, origin_id: int, limit: int, held: Collection[int]) -> list[Target]:
        """Up to `limit` waiting URLs of an origin, nearest to a seed first, without those that are held."""
        rows = self._db.execute(
            "SELECT id, url, depth, num_redirects FROM urls WHERE is_queued AND origin_id = ?"
            " ORDER BY depth, id LIMIT ?",
            (origin_id, limit + len(held)),
        )
        return [Target(*row) for row in rows if row[0] not in held][:limit]

    # -- what happened

    def commit(
        self,
        visits: Sequence[Visit],
        offsets: Mapping[int, int],
        file: OpenFile | None,
        num_bytes: int,
        requested_at: Mapping[int, float],
    ) -> set[int]:
        """Record visits and their links. Returns the ids of origins that something was queued for.

        `offsets` maps a target's id to its record in `file`, which has `num_bytes` on disk by now, and
        `requested_at` an origin's id to when it was last asked for anything (seconds since 1970).
        """
        queued: set[int] = set()
        with self._transaction():
            for visit in visits:
                self._record(visit, offsets.get(visit.target.id), file)
                queued |= self._add_links(visit.links, parent_id=visit.target.id)
            if file is not None:
                num_pages = sum(v.outcome is Outcome.FETCHED and v.target.id in offsets for v in visits)
                self._db.execute(
                    "UPDATE warc_files SET num_bytes = ?, num_pages = num_pages + ? WHERE id = ?",
                    (num_bytes, num_pages, file.id),
                )
            self._db.executemany(
                "UPDATE origins SET last_request_at = ? WHERE id = ?", [(at, id_) for id_, at in requested_at.items()]
            )
        return queued

    def put_robots(
        self,
        origin_id: int,
        text: str | None,
        status: int | None,
        failure: Outcome | None,
        error: str | None,
        at: float,
    ) -> None:
        """Keep what asking for a robots.txt gave, until `at` (seconds since 1970)."""
        with self._transaction():
            self._db.execute(
                "UPDATE origins SET robots_text = ?, robots_status = ?, robots_failure = ?, robots_error = ?,"
                " robots_expires_at = ? WHERE id = ?",
                (text, status, failure, error, at, origin_id),
            )

    def refuse_origin(
        self, origin_id: int, outcome: Outcome, error: str | None, now: float, retry_at: float | None
    ) -> int:
        """Give every waiting URL of an origin one outcome; returns how many there were.

        A seed that does not resolve is tried by each call: a person asked for it by name.
        """
        with self._transaction():
            return self._db.execute(
                "UPDATE urls SET is_queued = 0, outcome = ?1, error = ?2, decided_at = ?3,"
                " retry_at = CASE WHEN parent_id IS NULL AND ?1 = 'dns_error' THEN ?3 ELSE ?4 END"
                " WHERE is_queued AND origin_id = ?5",
                (outcome, error, now, retry_at, origin_id),
            ).rowcount

    # -- WARC files

    def add_file(self, name: str) -> OpenFile:
        """Announce a WARC file before anything is written to it."""
        with self._transaction():
            id_ = _scalar(
                self._db,
                "INSERT INTO warc_files (name, num_bytes, num_pages, is_closed) VALUES (?, 0, 0, 0) RETURNING id",
                name,
            )
        return OpenFile(id_, name, 0)

    def file_names(self) -> list[str]:
        """Every WARC file that the ledger knows."""
        return [name for (name,) in self._db.execute("SELECT name FROM warc_files ORDER BY name")]

    def open_files(self) -> list[OpenFile]:
        """WARC files that were not closed."""
        rows = self._db.execute("SELECT id, name, num_bytes FROM warc_files WHERE NOT is_closed ORDER BY id")
        return [OpenFile(*row) for row in rows.fetchall()]

    def sync(self) -> None:
        """Bring the ledger to disk, so that a WARC file may become immutable."""
        self._db.execute("PRAGMA wal_checkpoint(FULL)")

    def close_file(self, file: OpenFile) -> None:
        """Record that a WARC file has its final name."""
        with self._transaction():
            self._db.execute("UPDATE warc_files SET is_closed = 1 WHERE id = ?", (file.id,))

    def lose_tail(self, file: OpenFile, num_bytes: int) -> None:
        """Queue again what lay in a file from `num_bytes` on and is not there any more."""
        with self._transaction():
            num_pages = _scalar(
                self._db,
                "SELECT COUNT(*) FROM urls WHERE warc_file_id = ? AND warc_offset >= ? AND outcome = 'fetched'",
                file.id,
                num_bytes,
            )
            self._db.execute(
                "UPDATE urls SET is_queued = 1, outcome = NULL, decided_at = NULL, status = NULL, fetched_at = NULL,"
                " warc_file_id = NULL, warc_offset = NULL WHERE warc_file_id = ? AND warc_offset >= ?",
                (file.id, num_bytes),
            )
            self._db.execute(
                "UPDATE warc_files SET num_bytes = ?, num_pages = num_pages - ? WHERE id = ?",
                (num_bytes, num_pages, file.id),
            )

    def forget_file(self, file: OpenFile) -> None:
        """Drop a WARC file in which nothing was kept."""
        with self._transaction():
            self._db.execute("DELETE FROM warc_files WHERE id = ?", (file.id,))

    # -- counts

    def num_pages(self) -> int:
        """URLs whose last visit gave a page, and that do not wait to be visited again."""
        return _scalar(self._db, "SELECT COUNT(*) FROM urls WHERE outcome = 'fetched' AND NOT is_queued")

    def num_archived_pages(self) -> int:
        """Pages in WARC files, each fetch of a page counted."""
        return _scalar(self._db, "SELECT COALESCE(SUM(num_pages), 0) FROM warc_files")

    def num_queued(self) -> int:
        """URLs that wait."""
        return _scalar(self._db, "SELECT COUNT(*) FROM urls WHERE is_queued")

    def num_hosts(self) -> int:
        """Origins that were asked for anything."""
        return _scalar(self._db, "SELECT COUNT(*) FROM origins WHERE last_request_at IS NOT NULL")

    def outcomes(self) -> dict[str, int]:
        """How many URLs have each outcome; those that wait have none."""
        return _outcomes(self._db)

    # -- inside

    def _record(self, visit: Visit, offset: int | None, file: OpenFile | None) -> None:
        is_archived = offset is not None and file is not None
        self._db.execute(
            "UPDATE urls SET is_queued = 0, outcome = ?, decided_at = ?, retry_at = ?, robots_rule = ?, error = ?,"
            " num_links = ?, num_links_dropped = ?, status = COALESCE(?, status),"
            " fetched_at = COALESCE(?, fetched_at), warc_file_id = COALESCE(?, warc_file_id),"
            " warc_offset = COALESCE(?, warc_offset) WHERE id = ?",
            (
                visit.outcome,
                visit.decided_at,
                visit.retry_at,
                visit.robots_rule,
                visit.error,
                len(visit.links),
                visit.num_links_dropped,
                visit.status,
                visit.decided_at if visit.status is not None else None,
                file.id if is_archived and file else None,
                offset,
                visit.target.id,
            ),
        )

    def _add_links(self, links: Sequence[Link], parent_id: int | None) -> set[int]:
        """Insert URLs that are new, and correct the depth of those that now turn out to be nearer."""
        rows = [
            (
                link.url,
                self._origin_id(link.origin),
                link.depth,
                link.num_redirects,
                parent_id,
                link.refusal is None,
                link.refusal,
            )
            for link in links
        ]
        self._db.executemany(
            "INSERT INTO urls (url, origin_id, depth, num_redirects, parent_id, is_queued, outcome)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (url) DO UPDATE SET depth = excluded.depth,"
            " num_redirects = excluded.num_redirects, parent_id = excluded.parent_id, is_queued = excluded.is_queued,"
            " outcome = excluded.outcome WHERE decided_at IS NULL AND (excluded.depth < depth"
            " OR (outcome = 'too_many_redirects' AND excluded.num_redirects < num_redirects))",
            rows,
        )
        return {row[1] for row in rows if row[5]}

    def _origin_id(self, origin: str) -> int:
        known = self._origin_ids.get(origin)
        if known is None:
            self._db.execute("INSERT OR IGNORE INTO origins (origin) VALUES (?)", (origin,))
            known = _scalar(self._db, "SELECT id FROM origins WHERE origin = ?", origin)
            self._origin_ids[origin] = known
        return known

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # SQLite rolls back by itself where the disk is full
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def read_row(folder: Path, url: str) -> LedgerRow | None:
    """The row of a canonical URL, read beside a running crawl; None where the crawl never met it."""
    with _reader(folder) as db:
        if db is None:
            return None
        row = db.execute(
            "SELECT u.url, u.outcome, u.is_queued, u.status, u.fetched_at, u.depth, p.url, f.name, u.warc_offset,"
            " u.robots_rule, u.error, u.num_links, u.num_links_dropped"
            " FROM urls u LEFT JOIN urls p ON p.id = u.parent_id LEFT JOIN warc_files f ON f.id = u.warc_file_id"
            " WHERE u.url = ?",
            (url,),
        ).fetchone()
    if row is None:
        return None
    return LedgerRow(
        url=row[0],
        outcome=row[1],
        is_queued=bool(row[2]),
        status=row[3],
        fetched_at=None if row[4] is None else datetime.fromtimestamp(row[4], UTC),
        depth=row[5],
        parent=row[6],
        warc_file=row[7],
        warc_offset=row[8],
        robots_rule=row[9],
        error=row[10],
        num_links=row[11],
        num_links_dropped=row[12],
    )


def read_counts(folder: Path) -> dict[str, Any]:
    """Counts of a ledger, read beside a running crawl."""
    with _reader(folder) as db:
        if db is None:
            return {"num_urls": 0, "num_queued": 0, "num_pages": 0, "num_hosts": 0, "outcomes": {}}
        return {
            "num_urls": _scalar(db, "SELECT COUNT(*) FROM urls"),
            "num_queued": _scalar(db, "SELECT COUNT(*) FROM urls WHERE is_queued"),
            "num_pages": _scalar(db, "SELECT COALESCE(SUM(num_pages), 0) FROM warc_files"),
            "num_hosts": _scalar(db, "SELECT COUNT(*) FROM origins WHERE last_request_at IS NOT NULL"),
            "outcomes": _outcomes(db),
        }


def _outcomes(db: sqlite3.Connection) -> dict[str, int]:
    rows = db.execute("SELECT outcome, COUNT(*) FROM urls WHERE NOT is_queued GROUP BY outcome ORDER BY outcome")
    return dict(rows.fetchall())


def _scalar(db: sqlite3.Connection, query: str, *values: object) -> int:
    value: int = db.execute(query, values).fetchone()[0]
    return value


def _lock(folder: Path) -> BinaryIO:
    lock = (folder / _LOCK_NAME).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise StorageError(
            f"got a folder that another process is crawling ({folder}), wanted it free: wait for that crawl to end."
        ) from error
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A commit survives a kill; after a power cut the WARC files are cut back to the ledger. See sync().
        db.execute("PRAGMA synchronous = NORMAL")
        version = _scalar(db, "PRAGMA user_version")
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        _check_version(version or _SCHEMA_VERSION, path)
    except sqlite3.DatabaseError as error:
        db.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise IntegrityError(f"got {error} from {path}, wanted a crawl ledger: move it away to begin anew.") from error
    except BaseException:
        db.close()
        raise
    return db


def _check_version(version: int, path: Path) -> None:
    if version != _SCHEMA_VERSION:
        raise IntegrityError(
            f"got a crawl ledger of version {version} ({path}), wanted {_SCHEMA_VERSION}: crawl into another folder."
        )


@contextmanager
def _reader(folder: Path) -> Iterator[sqlite3.Connection | None]:
    path = folder / FILE_NAME
    if not path.exists():
        yield None
        return
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        yield db
    finally:
        db.close()
