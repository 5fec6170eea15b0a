"""The report of a crawl: counts against a ledger made by hand, hostile text in Markdown, ledgers that cannot be read."""

import re
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl import CrawlConfig, Outcome
from pipelines.crawl.entries import Archived, Asked, Link, Site, Visit, Withdrawal
from pipelines.crawl.frontier import Frontier
from pipelines.crawl.ledger import FILE_NAME
from pipelines.crawl.report import crawl_report, crawl_report_markdown, crawl_section
from pipelines.crawl.screen import Screen
from pipelines.errors import IntegrityError
from pipelines.markdown import plain, table

NOW = 2_000_000.0
HOSTILE = "Disallow: /a|b<script>alert(1)</script>![x](http://e.example/)\x1b[31m\u202e`"
A, B = "https://a.example", "https://b.example"


def site(text: str | None, failure: Outcome | None = None) -> Site:
    status = None if failure else 200 if text else 404
    return Site(
        robots_text=text,
        robots_status=status,
        failure=failure,
        error="503" if failure else None,
        files=(),
        digest="d",
        expires_at=NOW,
    )


def page(num_bytes: int, *directives: str) -> Archived:
    return Archived(
        payload_digest="sha1:X",
        record_id="<urn:uuid:1>",
        fetched_at=NOW - 500,
        etag=None,
        last_modified=None,
        num_bytes=num_bytes,
        directives=directives,
    )


def fill(frontier: Frontier) -> None:
    """Two hosts: a page that stays, one withdrawn, one disallowed, one reserved, a timeout and a 404; b is out of reach."""
    config = CrawlConfig(seeds=(f"{A}/",), scope="regex", include=("example",))
    frontier.configure("c", "corpusmill", [(f"{A}/", A), (f"{B}/", B)], Screen(config))
    ids = frontier.waiting_origins(0, 10)
    (seed,) = frontier.lease(ids[0], 10, NOW - 1000, NOW - 900)
    names = ("gone", "slow", "private", "reserved", "later")
    links = tuple(Link(f"{A}/{name}", A, 1, 0, None) for name in names)
    file = frontier.add_file("crawl-000001.warc.gz")
    archived = page(100, "robots.txt content-signal: search=yes", "x-robots-tag: nosnippet")
    frontier.commit(
        [
            Visit(
                target=seed, outcome=Outcome.FETCHED, decided_at=NOW - 1000, status=200, links=links, archived=archived
            )
        ],
        sites=[(ids[0], site("User-agent: *")), (ids[1], site(None, Outcome.ROBOTS_UNREACHABLE))],
        offsets={seed.id: 10},
        file=file,
        num_bytes=50,
        asked={ids[0]: Asked(at=NOW - 900, num_requests=4, num_failed=1, num_bytes=1000, seconds=2.0)},
    )
    frontier.refuse_origin(ids[1], Outcome.ROBOTS_UNREACHABLE, "503", NOW - 800, NOW + 50)
    targets = {each.url.rpartition("/")[2]: each for each in frontier.lease(ids[0], 10, NOW - 800, NOW + 100)}

    def visit(name: str, outcome: Outcome, **facts: object) -> Visit:
        return Visit(target=targets[name], outcome=outcome, decided_at=NOW - 30, **facts)  # type: ignore[arg-type]

    frontier.commit(
        [
            visit("gone", Outcome.HTTP_ERROR, status=404),
            visit("slow", Outcome.TIMEOUT, retry_at=NOW + 10),
            visit("private", Outcome.ROBOTS_DISALLOWED, robots_rule=HOSTILE),
            visit("reserved", Outcome.FETCHED, status=200, archived=page(70), due_at=NOW + 60),
        ],
        offsets={targets["reserved"].id: 60},
        file=file,
        num_bytes=120,
    )
    frontier.commit(
        [],
        withdrawals=[
            Withdrawal(
                url_id=targets["reserved"].id,
                outcome=Outcome.RESERVED,
                decided_at=NOW - 20,
                robots_rule="",
                directives=("tdmrep.json: 1 /*",),
            )
        ],
    )


def test_what_is_counted(tmp_path: Path) -> None:
    with Frontier(tmp_path) as frontier:
        fill(frontier)
        facts = crawl_report(tmp_path, now=NOW)  # beside the process that crawls
    assert facts["is_begun"]
    assert facts["totals"] == {
        "urls": 7, "queued": 1, "pages": 1, "page_bytes": 100, "page_versions": 2, "hosts": 1, "hosts_known": 2,
        "requests": 4, "failed": 1, "bytes": 1000, "mean_seconds": 0.5,
    }  # fmt: skip
    assert facts["outcomes"] == {
        "fetched": 1, "http_error": 1, "reserved": 1, "robots_disallowed": 1, "robots_unreachable": 1, "timeout": 1,
    }  # fmt: skip
    assert facts["errors"] == {"http_error": 1, "robots_unreachable": 1, "timeout": 1}
    assert facts["status_codes"] == {"200": 2, "404": 1}
    assert facts["now"] | {"at": None} == {
        "at": None, "leased": 1, "due": 0, "retries_due": 0, "visits_per_second": round(4 / 60, 3),
    }  # fmt: skip
    assert facts["robots"] == {
        "hosts_with": 1,
        "hosts_without": 0,
        "hosts_refused": 1,
        "failures": {"robots_unreachable": 1},
        "urls_disallowed": 1,
        "rules": [{"rule": HOSTILE, "urls": 1, "hosts": 1}],
    }
    assert facts["rights"] == {
        "urls_reserved": 1,
        "hosts_reserving": 1,
        "reserving": [{"host": A, "urls": 1}],
        "directives": {"robots.txt content-signal": 1, "tdmrep.json": 1, "x-robots-tag": 1},
        "lines": [
            {"directive": "robots.txt content-signal: search=yes", "urls": 1},
            {"directive": "tdmrep.json: 1 /*", "urls": 1},
            {"directive": "x-robots-tag: nosnippet", "urls": 1},
        ],
        "urls_withdrawn": 1,
    }
    assert facts["revisits"]["visits"] == 5
    assert facts["revisits"]["next_retry_at"] == "1970-01-24T03:33:30+00:00"
    assert facts["period"] == {"first": "1970-01-24T03:16:40+00:00", "last": "1970-01-24T03:18:20+00:00"}
    assert [(each["host"], each["pages"]) for each in facts["hosts"]["largest"]] == [(A, 1)]
    assert [each["host"] for each in facts["hosts"]["slowest"]] == [A]
    assert [(each["host"], each["robots_failure"]) for each in facts["hosts"]["refused"]] == [(B, "robots_unreachable")]


def test_only_what_is_under_now_depends_on_the_time_of_asking(tmp_path: Path) -> None:
    with Frontier(tmp_path) as frontier:
        fill(frontier)
    early, late = (crawl_report(tmp_path, now=at) for at in (NOW, NOW + 1e6))
    assert early.pop("now") != late.pop("now")
    assert early == late


def test_lists_stay_short_however_many_hosts_there_are(tmp_path: Path) -> None:
    origins = [f"https://h{idx}.example" for idx in range(40)]
    with Frontier(tmp_path) as frontier:
        config = CrawlConfig(seeds=tuple(f"{each}/" for each in origins))
        frontier.configure("c", "corpusmill", [(f"{each}/", each) for each in origins], Screen(config))
        ids = frontier.waiting_origins(0, 100)
        asked = {
            id_: Asked(at=NOW, num_requests=idx, num_failed=idx, num_bytes=idx, seconds=float(idx**2))
            for idx, id_ in enumerate(ids)
        }
        visits = [
            Visit(
                target=frontier.lease(id_, 1, NOW, NOW)[0],
                outcome=Outcome.ROBOTS_DISALLOWED,
                decided_at=NOW,
                robots_rule=f"Disallow: /{id_}",
            )
            for id_ in ids
        ]
        frontier.commit(visits, sites=[(id_, site(None, Outcome.DNS_ERROR)) for id_ in ids], asked=asked)
    facts = crawl_report(tmp_path, num_top=5)
    assert {name: len(hosts) for name, hosts in facts["hosts"].items()} == dict.fromkeys(facts["hosts"], 5)
    assert [each["host"] for each in facts["hosts"]["slowest"]] == list(reversed(origins[-5:]))
    assert len(facts["robots"]["rules"]) == 5
    assert facts["robots"]["urls_disallowed"] == facts["robots"]["hosts_refused"] == 40


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    with Frontier(tmp_path) as frontier:
        fill(frontier)
    facts = crawl_report(tmp_path)
    for text in (crawl_report_markdown("a <b>", facts), "\n".join(crawl_section("a <b>", facts))):
        assert "<" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "![" not in text.replace("!\\[", "")
        (row,) = [line for line in text.splitlines() if "alert" in line]
        assert len(re.split(r"(?<!\\)\|", row)) == 5, "rule, URLs, hosts: three cells"
        for part in ("Outcomes", "robots_unreachable", "Slowest hosts", "tdmrep.json", B):
            assert part in text


@given(st.text())
def test_no_text_ends_its_cell(text: str) -> None:
    cell = plain(text)
    assert cell.isprintable()
    assert not re.search(r"[<>]", cell)
    assert not re.search(r"(?<!\\)(\\\\)*[|`*\[\]~]", cell)
    assert len(table(("a", "b"), [(text, 1)])) == 4


def test_a_crawl_that_never_began_has_a_report_and_no_folder(tmp_path: Path) -> None:
    facts = crawl_report(tmp_path / "none")
    assert not facts["is_begun"]
    assert "Nothing was crawled yet." in crawl_report_markdown("x", facts)
    assert not (tmp_path / "none").exists()
    with Frontier(tmp_path / "begun"):
        pass
    begun = crawl_report(tmp_path / "begun")
    assert begun | {"now": 0, "is_begun": 0} == facts | {"now": 0, "is_begun": 0}, "the same keys, all nothing"
    assert begun["now"].keys() == facts["now"].keys()


@pytest.mark.parametrize(("content", "reason"), [("version", "version 1"), ("noise", "not a database")])
def test_a_ledger_that_cannot_be_read_says_so(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / FILE_NAME
    if content == "version":
        db = sqlite3.connect(path)
        db.executescript("CREATE TABLE urls (id); PRAGMA user_version = 1;")
        db.close()
    else:
        path.write_bytes(b"no ledger " * 100)
    with pytest.raises(IntegrityError, match=reason):
        crawl_report(tmp_path)
