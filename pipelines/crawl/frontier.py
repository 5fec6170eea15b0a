"""The ledger of a crawl: every URL it knows, what became of it, and what is next. SQLite in WAL mode.

A URL waits (`is_queued`) until one transaction records its outcome, its place in a WARC file and its
links. That transaction runs after the record is on disk, so a process killed at any moment leaves a
ledger that is never ahead of the files, and WARC files that are ahead by a tail which `warc_files`
tells apart. A URL that waits is fetched under a lease: where its holder dies, or does not come back
before the lease ends, it is leased again, and what comes later is not recorded a second time. A lock
on the folder lets one process at a time crawl it, so a new one need not wait for old leases to end.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from pipelines.crawl import ledger
from pipelines.crawl.entries import (
    Archived,
    Asked,
    JudgedUrl,
    Link,
    OpenFile,
    Origin,
    Site,
    Target,
    Visit,
    Withdrawal,
)
from pipelines.crawl.ledger import scalar
from pipelines.crawl.outcome import JUDGED_BY_SITE, RECONSIDERED, Outcome

_CONFIG_KEY = "config_digest"
_AGENT_KEY = "user_agent"
_RECRAWL_KEY = "recrawl_after_seconds"
_TAKEDOWN_KEY = "takedown_digest"
_NEVER = 9e15
"""When the files of a host that is taken down are read again: seconds since 1970."""
_NUM_ROWS_AT_ONCE = 10_000
_MAX_REMEMBERED = 50_000
"""URLs and origins kept in memory, so that the links that every page repeats never reach the database."""

_ARCHIVED = "payload_digest, record_id, fetched_at, etag, last_modified, num_bytes, directives"


class Judge(Protocol):
    """Decides about a URL from the config alone."""

    def judge(self, url: str, depth: int, num_redirects: int) -> Outcome | None:
        """Why a URL is not fetched; None where it is."""

    def is_taken_down(self, url: str) -> bool:
        """Whether a URL, or an origin, is named by a take-down."""


class Frontier:
    """The ledger, held by one process. Use as a context manager."""

    def __init__(self, folder: Path, *, max_maps_per_host: int = 1000) -> None:
        """Open or create the ledger of a folder. Raises StorageError where another process crawls it.

        Of each host no more than `max_maps_per_host` sitemaps and feeds are taken.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = ledger.lock(folder)
        try:
            self._db = ledger.connect(folder / ledger.FILE_NAME)
        except BaseException:
            self._lock.close()
            raise
        self._max_maps_per_host = max_maps_per_host
        self._origin_ids: dict[str, int] = {}
        self._depths: dict[str, int] = {}

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
        return self._meta(_CONFIG_KEY) == config_digest

    def is_taken_down_as(self, takedown_digest: str) -> bool:
        """Whether the last call knew of the same take-downs; an empty text is none."""
        return (self._meta(_TAKEDOWN_KEY) or "") == takedown_digest

    def configure(self, config_digest: str, user_agent: str, seeds: Iterable[tuple[str, str]], judge: Judge) -> None:
        """Add seeds (canonical URL, origin), and judge again what followed from the config or waits."""
        with self._transaction():
            self._add_links([Link(url, origin, 0, 0, judge.judge(url, 0, 0)) for url, origin in seeds], parent_id=None)
            last_id = 0
            while rows := self._db.execute(
                "SELECT id, url, depth, num_redirects, is_queued, outcome FROM urls WHERE id > ? AND kind = 'page'"
                " AND (is_queued OR outcome IN (SELECT value FROM json_each(?))) ORDER BY id LIMIT ?",
                (last_id, json.dumps(sorted(RECONSIDERED)), _NUM_ROWS_AT_ONCE),
            ).fetchall():
                last_id = rows[-1][0]
                self._judge_again(rows, judge)
            self._db.execute("UPDATE origins SET robots_expires_at = NULL WHERE robots_failure = 'address_refused'")
            # What the files forbid may be a matter of the config too: the product token, fetch_reserved.
            self._db.execute("UPDATE origins SET is_changed = 1 WHERE site_digest IS NOT NULL")
            if self._meta(_AGENT_KEY) != user_agent:
                # Another name may have other rules, and other files to ask for.
                self._db.execute("UPDATE origins SET robots_expires_at = 0 WHERE site_digest IS NOT NULL")
                self._set_meta(_AGENT_KEY, user_agent)
            self._set_meta(_CONFIG_KEY, config_digest)

    def take_down(self, takedown_digest: str, judge: Judge) -> None:
        """Take out of the queue what is taken down since the last call, and put back what no longer is.

        A host that is taken down whole is asked for nothing, its robots.txt neither.
        """
        with self._transaction():
            last_id = 0
            while rows := self._db.execute(
                "SELECT id, url, kind, depth, num_redirects, is_queued, outcome FROM urls WHERE id > ? ORDER BY id LIMIT ?",
                (last_id, _NUM_ROWS_AT_ONCE),
            ).fetchall():
                last_id = rows[-1][0]
                self._take_down(rows, judge)
            origins = self._db.execute("SELECT id, origin, robots_expires_at FROM origins").fetchall()
            for id_, origin, expires_at in origins:
                # An origin is named only where all of its host is: a URL that is taken down has a path.
                is_down = judge.is_taken_down(origin)
                if expires_at is not None and (is_down or expires_at == _NEVER):
                    changes = (_NEVER if is_down else 0, id_)
                    self._db.execute("UPDATE origins SET robots_expires_at = ?, is_changed = 0 WHERE id = ?", changes)
            self._set_meta(_TAKEDOWN_KEY, takedown_digest)

    def _take_down(self, rows: Iterable[tuple[int, str, str, int, int, int, str | None]], judge: Judge) -> None:
        changes: list[tuple[bool, Outcome | None, int]] = []
        for id_, url, kind, depth, num_redirects, is_queued, outcome in rows:
            is_down = judge.is_taken_down(url)
            if is_down and (is_queued or outcome != Outcome.TAKEN_DOWN):
                changes.append((False, Outcome.TAKEN_DOWN, id_))
            elif not is_down and outcome == Outcome.TAKEN_DOWN:
                refusal = judge.judge(url, depth, num_redirects) if kind == "page" else None
                changes.append((refusal is None, refusal, id_))
        self._db.executemany(
            "UPDATE urls SET is_queued = ?, outcome = ?, leased_until = NULL, retry_at = NULL, due_at = NULL WHERE id = ?",
            changes,
        )

    def _judge_again(self, rows: Iterable[tuple[int, str, int, int, int, str | None]], judge: Judge) -> None:
        changes: list[tuple[bool, Outcome | None, int]] = []
        for id_, url, depth, num_redirects, is_queued, outcome in rows:
            refusal = judge.judge(url, depth, num_redirects)
            if (refusal is None) != bool(is_queued) or (refusal is not None and refusal != outcome):
                changes.append((refusal is None, refusal, id_))
        self._db.executemany("UPDATE urls SET is_queued = ?, outcome = ? WHERE id = ?", changes)

    def requeue(self, now: float, recrawl_after_seconds: float | None) -> None:
        """Queue what may be tried again by now and the pages that are due, and end the leases of processes that are gone."""
        with self._transaction():
            # What a killed process was asking for may have been answered: its hosts rest from now on.
            self._db.execute(
                "UPDATE origins SET last_request_at = ?1 WHERE id IN"
                " (SELECT origin_id FROM urls WHERE leased_until > ?1)",
                (now,),
            )
            self._db.execute("UPDATE urls SET leased_until = NULL WHERE leased_until IS NOT NULL")
            self._db.execute("UPDATE urls SET is_queued = 1, retry_at = NULL WHERE retry_at <= ?", (now,))
            self._db.execute("UPDATE origins SET robots_expires_at = NULL WHERE robots_failure = 'dns_error'")
            if self._meta(_RECRAWL_KEY) != str(recrawl_after_seconds):
                # What was learnt started from another interval.
                self._db.execute(
                    "UPDATE urls SET revisit_seconds = NULL, due_at = decided_at + ?"
                    " WHERE decided_at IS NOT NULL AND retry_at IS NULL"
                    " AND (NOT is_queued OR due_at IS NOT NULL) AND outcome NOT IN (SELECT value FROM json_each(?))",
                    (recrawl_after_seconds, json.dumps(sorted(RECONSIDERED | JUDGED_BY_SITE))),
                )
                if recrawl_after_seconds is None:
                    self._db.execute("UPDATE urls SET is_queued = 0 WHERE is_queued AND outcome = 'fetched'")
                self._set_meta(_RECRAWL_KEY, str(recrawl_after_seconds))
            if recrawl_after_seconds is not None:
                self._db.execute("UPDATE urls SET is_queued = 1 WHERE due_at <= ? AND NOT is_queued", (now,))

    def has_work(
        self, now: float, max_pages: int, max_pages_per_host: int | None, max_bytes_per_host: int | None
    ) -> bool:
        """Whether anything waits that these limits let through, or the files of an origin must be read again."""
        if self.num_due_origins(now) or self.waiting_origins(0, 1, only_known=True):
            return True
        if self.num_pages() >= max_pages:
            return False
        last_id = 0
        while ids := self.waiting_origins(last_id, _NUM_ROWS_AT_ONCE):
            last_id = ids[-1]
            if max_pages_per_host is None and max_bytes_per_host is None:
                return True
            if any(_is_within(self.origin(id_), max_pages_per_host, max_bytes_per_host) for id_ in ids):
                return True
        return False

    # -- what is next

    def waiting_origins(self, after_id: int, limit: int, *, only_known: bool = False) -> list[int]:
        """Up to `limit` ids above `after_id` of origins with a URL that waits, in order.

        With `only_known`, those with a page in the files that is to be visited again.
        """
        wanted = "is_queued AND payload_digest IS NOT NULL" if only_known else "is_queued"
        # A loose index scan: one step an origin, however many URLs it has.
        rows = self._db.execute(
            "WITH RECURSIVE waiting (id) AS ("  # noqa: S608
            f" SELECT MIN(origin_id) FROM urls WHERE {wanted} AND origin_id > ?1 UNION ALL"
            f" SELECT (SELECT MIN(origin_id) FROM urls WHERE {wanted} AND origin_id > waiting.id)"
            " FROM waiting WHERE waiting.id IS NOT NULL LIMIT ?2) SELECT id FROM waiting WHERE id IS NOT NULL",
            (after_id, limit),
        )
        return [id_ for (id_,) in rows]

    def due_origins(self, now: float, after_id: int, limit: int) -> list[int]:
        """Ids of origins whose files decide about URLs of ours, and were read too long ago or not judged by."""
        query = f"SELECT id FROM origins WHERE id > ? AND {_IS_DUE} ORDER BY id LIMIT ?"  # noqa: S608
        rows = self._db.execute(query, (after_id, now, limit))
        return [id_ for (id_,) in rows]

    def num_due_origins(self, now: float) -> int:
        """How many `due_origins` there are."""
        return scalar(self._db, f"SELECT COUNT(*) FROM origins WHERE {_IS_DUE}", now)  # noqa: S608

    def origin(self, id_: int) -> Origin:
        """One origin, with its pages counted."""
        row = self._db.execute(
            "SELECT origin, robots_text, robots_status, robots_failure, robots_error, site_files, site_digest,"
            " robots_expires_at, is_changed, last_request_at, ready_at FROM origins WHERE id = ?",
            (id_,),
        ).fetchone()
        num_pages, num_bytes = self._db.execute(
            "SELECT COUNT(*), COALESCE(SUM(num_bytes), 0) FROM urls WHERE payload_digest IS NOT NULL AND origin_id = ?",
            (id_,),
        ).fetchone()
        site = None
        if row[7] is not None:
            site = Site(
                robots_text=row[1],
                robots_status=row[2],
                failure=Outcome(row[3]) if row[3] else None,
                error=row[4],
                files=tuple((url, text, problem) for url, text, problem in json.loads(row[5] or "[]")),
                digest=row[6] or "",
                expires_at=row[7],
            )
        return Origin(id_, row[0], site, bool(row[8]), row[9], row[10], num_pages, num_bytes)

    def lease(self, origin_id: int, limit: int, now: float, until: float, *, only_known: bool = False) -> list[Target]:
        """Lease up to `limit` waiting URLs of an origin that nobody holds, nearest to a seed first.

        With `only_known`, those of which a page is in the files.
        """
        wanted = "AND payload_digest IS NOT NULL" if only_known else ""
        with self._transaction():
            rows = self._db.execute(
                f"SELECT id, url, kind, depth, num_redirects, revisit_seconds, {_ARCHIVED} FROM urls"  # noqa: S608
                f" WHERE is_queued {wanted} AND origin_id = ? AND (leased_until IS NULL OR leased_until <= ?)"
                " ORDER BY depth, id LIMIT ?",
                (origin_id, now, limit),
            ).fetchall()
            self._db.executemany("UPDATE urls SET leased_until = ? WHERE id = ?", [(until, row[0]) for row in rows])
        return [
            Target(id_, url, kind, depth, num_redirects, until, revisit_seconds, _archived(rest))
            for id_, url, kind, depth, num_redirects, revisit_seconds, *rest in rows
        ]

    def release(self, url_ids: Sequence[int]) -> None:
        """End leases of what was not begun."""
        with self._transaction():
            self._db.executemany("UPDATE urls SET leased_until = NULL WHERE id = ?", [(id_,) for id_ in url_ids])

    def judged_urls(self, origin_id: int, after_id: int, limit: int) -> list[JudgedUrl]:
        """URLs with an id above `after_id` that the origin's files decide about: pages, and what they forbade."""
        rows = self._db.execute(
            f"SELECT id, url, outcome, is_queued, {_ARCHIVED} FROM urls WHERE origin_id = ? AND id > ?"  # noqa: S608
            " AND (payload_digest IS NOT NULL OR outcome IN ('robots_disallowed', 'reserved')) ORDER BY id LIMIT ?",
            (origin_id, after_id, limit),
        )
        return [
            JudgedUrl(row[0], row[1], Outcome(row[2] or "fetched"), bool(row[3]), _archived(row[4:])) for row in rows
        ]

    # -- what happened

    def commit(
        self,
        visits: Sequence[Visit],
        *,
        withdrawals: Sequence[Withdrawal] = (),
        sites: Sequence[tuple[int, Site]] = (),
        found: Sequence[Link] = (),
        settled: Sequence[int] = (),
        offsets: Mapping[int, int] | None = None,
        file: OpenFile | None = None,
        num_bytes: int = 0,
        asked: Mapping[int, Asked] | None = None,
    ) -> set[int]:
        """Record what happened. Returns the ids of origins that something was queued for.

        `offsets` maps a URL's id to its record in `file`, which has `num_bytes` on disk by now; `sites` are
        an origin's id and its files as read, and `found` what these name; `settled` are the ids of origins whose
        URLs were judged by these files as they are now; `asked` maps an origin's id to the requests since the last commit.
        """
        offsets = offsets or {}
        queued: set[int] = set()
        num_pages = 0
        with self._transaction():
            for id_, site in sites:
                self._put_site(id_, site)
            for visit in visits:
                offset = offsets.get(visit.target.id)
                if visit.outcome is Outcome.MISTAKEN:
                    self._depths.pop(visit.target.url, None)
                if self._record(visit, offset, file):
                    num_pages += visit.outcome is Outcome.FETCHED and offset is not None and not visit.is_revisit
                    queued |= self._add_links(visit.links, parent_id=visit.target.id)
            # After the visits: a sitemap may just have been taken for a page.
            queued |= self._add_links(found, parent_id=None)
            for withdrawal in withdrawals:
                self._withdraw(withdrawal, offsets.get(withdrawal.url_id), file)
            self._db.executemany("UPDATE origins SET is_changed = 0 WHERE id = ?", [(id_,) for id_ in settled])
            if file is not None:
                self._db.execute(
                    "UPDATE warc_files SET num_bytes = ?, num_pages = num_pages + ? WHERE id = ?",
                    (num_bytes, num_pages, file.id),
                )
            self._db.executemany(
                "UPDATE origins SET last_request_at = MAX(COALESCE(last_request_at, 0), ?),"
                " num_requests = num_requests + ?, num_failed = num_failed + ?, num_bytes = num_bytes + ?,"
                " response_seconds = response_seconds + ?, ready_at = MAX(COALESCE(ready_at, 0), ?) WHERE id = ?",
                [
                    (each.at, each.num_requests, each.num_failed, each.num_bytes, each.seconds, each.ready_at, id_)
                    for id_, each in (asked or {}).items()
                ],
            )
        return queued

    def knows(self, url: str, depth: int) -> bool:
        """Whether a link to a page, not reached by a redirect, was met before at this depth or nearer. A no may be wrong."""
        return self._depths.get(url, depth + 1) <= depth

    def queue(self, url_ids: Sequence[int]) -> None:
        """Let URLs wait again."""
        with self._transaction():
            self._db.executemany("UPDATE urls SET is_queued = 1 WHERE id = ?", [(id_,) for id_ in url_ids])

    def refuse_origin(
        self, origin_id: int, outcome: Outcome, error: str | None, now: float, retry_at: float | None
    ) -> int:
        """Give every waiting URL of an origin one outcome; returns how many there were.

        A seed that does not resolve is tried by each call: a person asked for it by name. A page that waits to be visited
        again stays what it was: that its host is out of reach says nothing about it.
        """
        with self._transaction():
            num_refused = self._db.execute(
                "UPDATE urls SET is_queued = 0, leased_until = NULL, outcome = ?1, error = ?2, decided_at = ?3,"
                " retry_at = CASE WHEN parent_id IS NULL AND ?1 = 'dns_error' THEN ?3 ELSE ?4 END"
                " WHERE is_queued AND payload_digest IS NULL AND origin_id = ?5",
                (outcome, error, now, retry_at, origin_id),
            ).rowcount
            self._db.execute(
                "UPDATE urls SET is_queued = 0, leased_until = NULL, outcome = 'fetched', retry_at = ?"
                " WHERE is_queued AND payload_digest IS NOT NULL AND origin_id = ?",
                (now if retry_at is None else retry_at, origin_id),
            )
        return num_refused

    # -- WARC files

    def add_file(self, name: str) -> OpenFile:
        """Announce a WARC file before anything is written to it."""
        with self._transaction():
            id_ = scalar(
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
            lost = (file.id, num_bytes)
            num_pages = scalar(
                self._db,
                "SELECT COUNT(*) FROM urls WHERE warc_file_id = ? AND warc_offset >= ? AND outcome = 'fetched'",
                *lost,
            )
            # What was withdrawn has an older record, which must be withdrawn again: an empty digest says that there is one.
            self._db.execute(
                "UPDATE urls SET payload_digest = CASE WHEN outcome IN ('robots_disallowed', 'reserved') THEN '' END,"
                " is_queued = 1, outcome = NULL, decided_at = NULL, status = NULL, fetched_at = NULL, etag = NULL,"
                " last_modified = NULL, record_id = NULL, num_bytes = NULL, directives = NULL, due_at = NULL,"
                " warc_file_id = NULL, warc_offset = NULL WHERE warc_file_id = ? AND warc_offset >= ?",
                lost,
            )
            # The bodies of robots.txt may have been there too.
            self._db.execute("UPDATE origins SET robots_expires_at = NULL")
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
        """URLs of which a page in the files counts."""
        return scalar(self._db, "SELECT COUNT(*) FROM urls WHERE payload_digest IS NOT NULL")

    def num_archived_pages(self) -> int:
        """Pages in WARC files, each fetch of a page counted."""
        return scalar(self._db, "SELECT COALESCE(SUM(num_pages), 0) FROM warc_files")

    def num_queued(self) -> int:
        """URLs that wait."""
        return scalar(self._db, "SELECT COUNT(*) FROM urls WHERE is_queued")

    def num_hosts(self) -> int:
        """Origins that were asked for anything."""
        return scalar(self._db, "SELECT COUNT(*) FROM origins WHERE last_request_at IS NOT NULL")

    def outcomes(self) -> dict[str, int]:
        """How many URLs have each outcome; those that wait have none."""
        return ledger.outcomes(self._db)

    # -- inside

    def _put_site(self, id_: int, site: Site) -> None:
        """Keep what an origin's files say. Where they say something new, its URLs must be judged again.

        Files that are out of reach say nothing new: what they said before holds for the pages that are here.
        """
        self._db.execute(
            "UPDATE origins SET robots_text = ?1, robots_status = ?2, robots_failure = ?3, robots_error = ?4,"
            " site_files = ?5, robots_expires_at = ?7,"
            " is_changed = is_changed OR (?3 IS NULL AND site_digest IS NOT NULL AND site_digest != ?6),"
            " site_digest = CASE WHEN ?3 IS NULL THEN ?6 ELSE site_digest END WHERE id = ?8",
            (
                site.robots_text,
                site.robots_status,
                site.failure,
                site.error,
                json.dumps(site.files, ensure_ascii=False),
                site.digest,
                site.expires_at,
                id_,
            ),
        )

    def _record(self, visit: Visit, offset: int | None, file: OpenFile | None) -> bool:
        """Whether it was recorded: a target whose lease ended may have been recorded already."""
        page = visit.archived
        is_archived = offset is not None and file is not None and not visit.is_revisit
        num_recorded = self._db.execute(
            "UPDATE urls SET is_queued = 0, leased_until = NULL, outcome = ?, decided_at = ?, retry_at = ?,"
            " robots_rule = ?, error = ?, num_links = ?, num_links_dropped = ?, status = COALESCE(?, status),"
            " fetched_at = COALESCE(?, fetched_at), warc_file_id = COALESCE(?, warc_file_id),"
            " warc_offset = COALESCE(?, warc_offset), due_at = ?, revisit_seconds = ?, canonical = ?,"
            " num_visits = num_visits + 1, num_changes = num_changes + ?, etag = ?, last_modified = ?,"
            " payload_digest = ?, record_id = ?, num_bytes = ?, directives = ? WHERE id = ? AND is_queued",
            (
                visit.outcome,
                visit.decided_at,
                visit.retry_at,
                visit.robots_rule,
                visit.error,
                visit.num_links,
                visit.num_links_dropped,
                visit.status,
                page.fetched_at if page else visit.decided_at if is_archived else None,
                file.id if is_archived and file else None,
                offset,
                visit.due_at,
                visit.revisit_seconds,
                visit.canonical,
                visit.is_changed,
                page.etag if page else None,
                page.last_modified if page else None,
                page.payload_digest if page else None,
                page.record_id if page else None,
                page.num_bytes if page else None,
                json.dumps(page.directives) if page and page.directives else None,
                visit.target.id,
            ),
        ).rowcount
        return bool(num_recorded)

    def _withdraw(self, withdrawal: Withdrawal, offset: int | None, file: OpenFile | None) -> None:
        self._db.execute(
            "UPDATE urls SET is_queued = 0, leased_until = NULL, outcome = ?, decided_at = ?, robots_rule = ?,"
            " directives = ?, warc_file_id = COALESCE(?, warc_file_id), warc_offset = COALESCE(?, warc_offset),"
            " retry_at = NULL, due_at = NULL, etag = NULL, last_modified = NULL, payload_digest = NULL,"
            " record_id = NULL, num_bytes = NULL WHERE id = ?",
            (
                withdrawal.outcome,
                withdrawal.decided_at,
                withdrawal.robots_rule,
                json.dumps(withdrawal.directives),
                file.id if file else None,
                offset,
                withdrawal.url_id,
            ),
        )

    def _add_links(self, links: Sequence[Link], parent_id: int | None) -> set[int]:
        """Insert URLs that are new, and correct those that now turn out to be nearer, or to be a sitemap or a feed."""
        rows = [
            (
                link.url,
                self._origin_id(link.origin),
                link.depth,
                link.num_redirects,
                parent_id,
                link.refusal is None,
                link.refusal,
                link.kind,
            )
            for link in self._taken(links)
        ]
        self._db.executemany(
            "INSERT INTO urls (url, origin_id, depth, num_redirects, parent_id, is_queued, outcome, kind)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (url) DO UPDATE SET depth = excluded.depth,"
            " num_redirects = excluded.num_redirects, parent_id = excluded.parent_id, is_queued = excluded.is_queued,"
            " outcome = excluded.outcome, kind = excluded.kind"
            " WHERE (decided_at IS NULL AND excluded.kind = kind AND (excluded.depth < depth"
            " OR (outcome = 'too_many_redirects' AND excluded.num_redirects < num_redirects)))"
            # A seed is a page, whatever others call it; what is taken wrongly is told by its content.
            " OR (kind = 'page' AND excluded.kind != 'page' AND (outcome = 'not_text'"
            " OR (decided_at IS NULL AND parent_id IS NOT NULL)))"
            " OR (kind != 'page' AND excluded.kind = 'page' AND outcome = 'mistaken')",
            rows,
        )
        changed = [(link.modified_at, link.url) for link in links if link.modified_at is not None]
        self._db.executemany(
            "UPDATE urls SET is_queued = 1 WHERE payload_digest IS NOT NULL AND decided_at < ?1 AND url = ?2", changed
        )
        self._remember(links)
        return {row[1] for row in rows if row[5]} | {self._origin_id(link.origin) for link in links if link.modified_at}

    def _taken(self, links: Sequence[Link]) -> Iterator[Link]:
        """Links that the ledger may not know, and no more sitemaps and feeds of a host than are allowed."""
        num_maps: dict[str, int] = {}
        for link in links:
            if link.kind == "page":
                if link.num_redirects or not self.knows(link.url, link.depth):
                    yield link
                continue
            if link.origin not in num_maps:
                query = "SELECT COUNT(*) FROM urls WHERE kind != 'page' AND origin_id = ?"
                num_maps[link.origin] = scalar(self._db, query, self._origin_id(link.origin))
            if num_maps[link.origin] < self._max_maps_per_host:
                num_maps[link.origin] += 1
                yield link

    def _remember(self, links: Sequence[Link]) -> None:
        if len(self._depths) > _MAX_REMEMBERED:
            self._depths.clear()
        for link in links:
            if link.kind == "page" and not link.num_redirects and not self.knows(link.url, link.depth):
                self._depths[link.url] = link.depth

    def _origin_id(self, origin: str) -> int:
        known = self._origin_ids.get(origin)
        if known is None:
            self._db.execute("INSERT OR IGNORE INTO origins (origin) VALUES (?)", (origin,))
            known = scalar(self._db, "SELECT id FROM origins WHERE origin = ?", origin)
            if len(self._origin_ids) > _MAX_REMEMBERED:
                self._origin_ids.clear()
            self._origin_ids[origin] = known
        return known

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _set_meta(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            # What is remembered may not have been written.
            self._depths.clear()
            self._origin_ids.clear()
            if self._db.in_transaction:  # SQLite rolls back by itself where the disk is full
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


_IS_DUE = (
    "(is_changed OR (site_digest IS NOT NULL AND COALESCE(robots_expires_at, 0) <= ?)) AND ("
    "EXISTS (SELECT 1 FROM urls WHERE origin_id = origins.id AND payload_digest IS NOT NULL)"
    " OR EXISTS (SELECT 1 FROM urls WHERE origin_id = origins.id AND outcome IN ('robots_disallowed', 'reserved')))"
)


def _is_within(origin: Origin, max_pages: int | None, max_bytes: int | None) -> bool:
    return (max_pages is None or origin.num_pages < max_pages) and (
        max_bytes is None or origin.num_page_bytes < max_bytes
    )


def _archived(row: Sequence[Any]) -> Archived | None:
    payload_digest, record_id, fetched_at, etag, last_modified, num_bytes, directives = row
    if payload_digest is None:
        return None
    return Archived(
        payload_digest=payload_digest,
        record_id=record_id,
        fetched_at=fetched_at or 0.0,
        etag=etag,
        last_modified=last_modified,
        num_bytes=num_bytes or 0,
        directives=tuple(json.loads(directives or "[]")),
    )
