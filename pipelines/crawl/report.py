"""What became of a crawl, for a person: hosts, outcomes, robots and rights decisions, what is next.

Counted by the ledger's own database beside a running crawl; only the first few entries of each list
ever reach memory, however many URLs and hosts the ledger has.
"""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.crawl.ledger import reader
from pipelines.crawl.outcome import QUIET, SCREENED, Outcome
from pipelines.errors import IntegrityError, StorageError
from pipelines.markdown import plain, table

NUM_TOP = 10
_MIN_NUM_REQUESTS = 3
"""The mean of fewer says nothing about a host."""
_MINUTE_SECONDS = 60.0
_MAX_NUM_SOURCES = 50

_NO_FAILURE = QUIET | SCREENED

Facts = dict[str, Any]


def crawl_report(folder: Path, *, num_top: int = NUM_TOP, now: float | None = None) -> Facts:
    """Everything about the crawl in a folder, as plain values; times are ISO 8601, UTC.

    Keys: `is_begun`, `totals`, `now`, `outcomes`, `errors`, `status_codes`, `hosts`, `robots`, `rights`, `revisits`,
    `period`. Lists have at most `num_top` entries. Only what is under `now` depends on the time of the call, `now` in
    seconds since 1970. Raises IntegrityError for a ledger that is damaged or of another version, StorageError where it
    cannot be read now.
    """
    at = time.time() if now is None else now
    try:
        with reader(folder) as db:
            if db is None:
                return _nothing()
            db.execute("BEGIN")  # one state for all queries, whatever a running crawl commits meanwhile
            return _report(db, num_top, at)
    except sqlite3.OperationalError as error:
        raise StorageError(f"got '{error}' from the crawl ledger in {folder}, wanted to read it: try again.") from error
    except sqlite3.DatabaseError as error:
        raise IntegrityError(
            f"got '{error}' from the crawl ledger in {folder}, wanted a whole one: move it away to begin anew."
        ) from error


def _report(db: sqlite3.Connection, num_top: int, now: float) -> Facts:
    urls = _urls(db, now)
    origins = _row(
        db,
        "SELECT COUNT(*) known, COUNT(last_request_at) asked, COALESCE(SUM(num_requests), 0) requests,"
        " COALESCE(SUM(num_failed), 0) failed, COALESCE(SUM(num_bytes), 0) bytes,"
        " COALESCE(SUM(response_seconds), 0) seconds, MAX(last_request_at) last_at,"
        " COUNT(robots_text) with_robots, COUNT(robots_failure) refused,"
        " COALESCE(SUM(robots_expires_at IS NOT NULL AND robots_failure IS NULL AND robots_text IS NULL), 0) without"
        " FROM origins",
    )
    outcomes = dict(
        db.execute(
            "SELECT outcome, COUNT(*) FROM urls WHERE NOT is_queued AND outcome IS NOT NULL"
            " GROUP BY outcome ORDER BY outcome"
        ).fetchall()
    )
    num_queued = _number(db, "SELECT COUNT(*) FROM urls WHERE is_queued")
    return {
        "is_begun": True,
        "totals": {
            "urls": urls["num_urls"],
            "queued": num_queued,
            "pages": urls["pages"],
            "page_bytes": urls["page_bytes"],
            "page_versions": _number(db, "SELECT COALESCE(SUM(num_pages), 0) FROM warc_files"),
            "hosts": origins["asked"],
            "hosts_known": origins["known"],
            "requests": origins["requests"],
            "failed": origins["failed"],
            "bytes": origins["bytes"],
            "mean_seconds": _mean(origins["seconds"], origins["requests"]),
        },
        "now": {
            "at": _time(now),
            "leased": _number(db, "SELECT COUNT(*) FROM urls WHERE leased_until > ?", now),
            "due": _number(db, "SELECT COUNT(*) FROM urls WHERE due_at <= ? AND NOT is_queued", now),
            "retries_due": _number(db, "SELECT COUNT(*) FROM urls WHERE retry_at <= ? AND NOT is_queued", now),
            "visits_per_second": round(urls["visits_in_a_minute"] / _MINUTE_SECONDS, 3),
        },
        "outcomes": outcomes,
        "errors": errors_of(outcomes),
        "status_codes": {
            str(status): count
            for status, count in db.execute(
                "SELECT status, COUNT(*) FROM urls WHERE status IS NOT NULL GROUP BY status ORDER BY status"
            )
        },
        "hosts": {
            "largest": _hosts(db, "num_bytes > 0 ORDER BY num_bytes DESC, id LIMIT ?", num_top),
            "slowest": _hosts(
                db,
                f"num_requests >= {_MIN_NUM_REQUESTS} ORDER BY response_seconds / num_requests DESC, id LIMIT ?",
                num_top,
            ),
            "failing": _hosts(db, "num_failed > 0 ORDER BY num_failed DESC, id LIMIT ?", num_top),
            "refused": _hosts(db, "robots_failure IS NOT NULL ORDER BY num_requests DESC, id LIMIT ?", num_top),
        },
        "robots": {
            "hosts_with": origins["with_robots"],
            "hosts_without": origins["without"],
            "hosts_refused": origins["refused"],
            "failures": dict(
                db.execute(
                    "SELECT robots_failure, COUNT(*) FROM origins WHERE robots_failure IS NOT NULL"
                    " GROUP BY robots_failure ORDER BY robots_failure"
                ).fetchall()
            ),
            "urls_disallowed": outcomes.get(Outcome.ROBOTS_DISALLOWED, 0),
            "rules": [
                {"rule": rule or "", "urls": num_urls, "hosts": num_hosts}
                for rule, num_urls, num_hosts in db.execute(
                    "SELECT robots_rule, COUNT(*) urls, COUNT(DISTINCT origin_id) FROM urls"
                    " WHERE outcome = 'robots_disallowed' AND NOT is_queued GROUP BY robots_rule"
                    " ORDER BY urls DESC, robots_rule LIMIT ?",
                    (num_top,),
                )
            ],
        },
        "rights": _rights(db, num_top) | {"urls_withdrawn": urls["withdrawn"]},
        "revisits": {
            "visits": urls["visits"],
            "urls_revisited": urls["revisited"],
            "changes": urls["changes"],
            "next_due_at": _time(
                _row(db, "SELECT MIN(due_at) at FROM urls WHERE due_at IS NOT NULL AND NOT is_queued")["at"]
            ),
            "next_retry_at": _time(
                _row(db, "SELECT MIN(retry_at) at FROM urls WHERE retry_at IS NOT NULL AND NOT is_queued")["at"]
            ),
        },
        "period": {"first": _time(urls["first_at"]), "last": _time(origins["last_at"] or urls["last_at"])},
    }


def errors_of(outcomes: Mapping[str, int]) -> dict[str, int]:
    """The outcomes that are failures, the most frequent first."""
    failures = [(name, count) for name, count in outcomes.items() if name not in _NO_FAILURE and count]
    return dict(sorted(failures, key=lambda item: (-item[1], item[0])))


def _nothing() -> Facts:
    """The report of a crawl that was never begun."""
    none: list[Facts] = []
    totals = (
        "urls", "queued", "pages", "page_bytes", "page_versions", "hosts", "hosts_known", "requests", "failed", "bytes",
    )  # fmt: skip
    return {
        "is_begun": False,
        "totals": dict.fromkeys(totals, 0) | {"mean_seconds": None},
        "now": {"at": None, "leased": 0, "due": 0, "retries_due": 0, "visits_per_second": 0.0},
        "outcomes": {},
        "errors": {},
        "status_codes": {},
        "hosts": dict.fromkeys(("largest", "slowest", "failing", "refused"), none),
        "robots": {
            "hosts_with": 0,
            "hosts_without": 0,
            "hosts_refused": 0,
            "failures": {},
            "urls_disallowed": 0,
            "rules": none,
        },
        "rights": {
            "urls_reserved": 0,
            "hosts_reserving": 0,
            "reserving": none,
            "directives": {},
            "lines": none,
            "urls_withdrawn": 0,
        },
        "revisits": {"visits": 0, "urls_revisited": 0, "changes": 0, "next_due_at": None, "next_retry_at": None},
        "period": {"first": None, "last": None},
    }


def _urls(db: sqlite3.Connection, now: float) -> Facts:
    """What one pass over all URLs can count; no list of outcomes enters that an index knows."""
    return _row(
        db,
        "SELECT COUNT(*) num_urls, COUNT(payload_digest) pages,"
        " COALESCE(SUM(CASE WHEN payload_digest IS NOT NULL THEN num_bytes END), 0) page_bytes,"
        " COALESCE(SUM(num_visits), 0) visits, COALESCE(SUM(num_visits > 1), 0) revisited,"
        " COALESCE(SUM(num_changes), 0) changes,"
        " COALESCE(SUM(outcome IN ('robots_disallowed', 'reserved') AND fetched_at IS NOT NULL"
        " AND status BETWEEN 200 AND 299), 0) withdrawn,"
        " COALESCE(SUM(decided_at > ?), 0) visits_in_a_minute, MAX(decided_at) last_at,"
        " MIN(MIN(decided_at, COALESCE(fetched_at, decided_at))) first_at FROM urls",
        now - _MINUTE_SECONDS,
    )


_HOST = (
    "SELECT id, origin, num_requests, num_failed, num_bytes, response_seconds, robots_status, robots_failure,"
    " robots_error, last_request_at FROM origins WHERE"
)


def _hosts(db: sqlite3.Connection, which: str, num_top: int) -> list[Facts]:
    rows = db.execute(f"{_HOST} {which}", (num_top,)).fetchall()
    return [
        {
            "host": row[1],
            "pages": _number(
                db,
                "SELECT COUNT(*) FROM urls WHERE origin_id = ? AND outcome = 'fetched' AND NOT is_queued",
                row[0],
            ),
            "bytes": row[4],
            "requests": row[2],
            "failed": row[3],
            "mean_seconds": _mean(row[5], row[2]),
            "robots_status": row[6],
            "robots_failure": row[7],
            "robots_error": row[8],
            "last_request_at": _time(row[9]),
        }
        for row in rows
    ]


def _rights(db: sqlite3.Connection, num_top: int) -> Facts:
    reserving = db.execute(
        "SELECT o.origin, COUNT(*) urls FROM urls u JOIN origins o ON o.id = u.origin_id"
        " WHERE u.outcome = 'reserved' AND NOT u.is_queued GROUP BY u.origin_id ORDER BY urls DESC, o.origin"
    ).fetchmany(num_top)
    counted = _row(
        db,
        "SELECT COUNT(*) urls, COUNT(DISTINCT origin_id) hosts FROM urls WHERE outcome = 'reserved' AND NOT is_queued",
    )
    # Most URLs of a host have the same lines, so these are counted before they are taken apart.
    lines = (
        "WITH sets AS (SELECT directives, COUNT(*) urls FROM urls"
        " WHERE directives IS NOT NULL AND NOT is_queued GROUP BY directives),"
        " lines AS (SELECT each.value line, SUM(sets.urls) urls FROM sets, json_each(sets.directives) each GROUP BY 1)"
    )
    sources = db.execute(
        f"{lines} SELECT substr(line, 1, instr(line, ':') - 1) source, SUM(urls) FROM lines"  # noqa: S608
        " GROUP BY source ORDER BY 2 DESC, source LIMIT ?",
        (_MAX_NUM_SOURCES,),
    ).fetchall()
    top = db.execute(f"{lines} SELECT line, urls FROM lines ORDER BY urls DESC, line LIMIT ?", (num_top,)).fetchall()  # noqa: S608
    return {
        "urls_reserved": counted["urls"],
        "hosts_reserving": counted["hosts"],
        "reserving": [{"host": host, "urls": num_urls} for host, num_urls in reserving],
        "directives": dict(sources),
        "lines": [{"directive": line, "urls": num_urls} for line, num_urls in top],
    }


def crawl_report_markdown(name: str, facts: Mapping[str, Any]) -> str:
    """The whole report of a source's crawl as Markdown. Text of strangers in it is only text."""
    return "\n".join([f"# Crawl: {plain(name)}", "", *_body(facts, "##", is_brief=False)])


def crawl_section(name: str, facts: Mapping[str, Any]) -> list[str]:
    """What a data card says of a source's crawl: the report without what is next, as lines of Markdown."""
    return [f"## Crawl of source {plain(name)}", "", *_body(facts, "###", is_brief=True)]


def _body(facts: Mapping[str, Any], level: str, *, is_brief: bool) -> list[str]:
    if not facts["is_begun"]:
        return ["Nothing was crawled yet.", ""]
    totals, robots, rights, revisits = (facts[part] for part in ("totals", "robots", "rights", "revisits"))
    lines = [
        f"- period: {facts['period']['first'] or 'unknown'} to {facts['period']['last'] or 'unknown'} (UTC)",
        f"- hosts asked: {totals['hosts']:,} of {totals['hosts_known']:,} known",
        f"- URLs known: {totals['urls']:,}; waiting: {totals['queued']:,}",
        f"- pages in the files: {totals['pages']:,} ({totals['page_bytes']:,} bytes), {totals['page_versions']:,} versions",
        f"- requests: {totals['requests']:,}, failed: {totals['failed']:,}, bytes received: {totals['bytes']:,}",
        f"- visits: {revisits['visits']:,}, of which brought a change: {revisits['changes']:,}",
        f"- URLs visited more than once: {revisits['urls_revisited']:,}",
    ]
    if not is_brief:
        lines += [
            f"- next visit due: {revisits['next_due_at'] or 'none'}, next retry: {revisits['next_retry_at'] or 'none'} (UTC)"
        ]
    lines += ["", f"{level} Outcomes", "", *table(("outcome", "URLs"), facts["outcomes"].items())]
    if not is_brief:
        lines += [f"{level} Answers", "", *table(("status", "URLs"), facts["status_codes"].items())]
    lines += [
        f"{level} Decisions of robots.txt",
        "",
        f"- hosts with one: {robots['hosts_with']:,}, without one: {robots['hosts_without']:,}",
        f"- hosts not crawled, since theirs could not be read or asks too much: {robots['hosts_refused']:,}",
        f"- URLs disallowed: {robots['urls_disallowed']:,}",
        "",
        *table(("rule", "URLs", "hosts"), ((each["rule"], each["urls"], each["hosts"]) for each in robots["rules"])),
        f"{level} Decisions on rights",
        "",
        f"- URLs reserved and not fetched, or withdrawn: {rights['urls_reserved']:,}, on {rights['hosts_reserving']:,} hosts",
        f"- pages withdrawn after they were fetched: {rights['urls_withdrawn']:,}",
        "",
        *table(("source of directives", "URLs"), rights["directives"].items()),
    ]
    if not is_brief:
        lines += [
            *table(("directive", "URLs"), ((each["directive"], each["urls"]) for each in rights["lines"])),
            *table(("host that reserves", "URLs"), ((each["host"], each["urls"]) for each in rights["reserving"])),
        ]
    hosts = facts["hosts"]
    lines += [f"{level} Largest hosts", "", *_host_table(hosts["largest"])]
    lines += [f"{level} Slowest hosts", "", *_host_table(hosts["slowest"])]
    lines += [f"{level} Hosts that failed most", "", *_host_table(hosts["failing"])]
    lines += [
        f"{level} Hosts that were not crawled",
        "",
        *table(
            ("host", "why", "robots.txt", "error"),
            (
                (each["host"], each["robots_failure"], each["robots_status"] or "no answer", each["robots_error"])
                for each in hosts["refused"]
            ),
        ),
    ]
    return lines


def _host_table(hosts: Sequence[Mapping[str, Any]]) -> list[str]:
    return table(
        ("host", "pages", "bytes", "requests", "failed", "mean seconds"),
        (
            (
                *(each[name] for name in ("host", "pages", "bytes", "requests", "failed")),
                "unknown" if each["mean_seconds"] is None else f"{each['mean_seconds']:.3f}",
            )
            for each in hosts
        ),
    )


def _row(db: sqlite3.Connection, query: str, *values: object) -> Facts:
    cursor = db.execute(query, values)
    names = [column[0] for column in cursor.description]
    return dict(zip(names, cursor.fetchone(), strict=True))


def _number(db: sqlite3.Connection, query: str, *values: object) -> int:
    value: int = db.execute(query, values).fetchone()[0]
    return value


def _mean(total: float, count: int) -> float | None:
    return round(total / count, 4) if count else None


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
