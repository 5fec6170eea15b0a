"""The ledger: order, depth, what a changed config reopens, what a lost file reopens."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.crawl import CrawlConfig, Outcome
from pipelines.crawl.entries import Archived, Asked, Link, Site, Target, Visit, Withdrawal
from pipelines.crawl.frontier import Frontier
from pipelines.crawl.ledger import _SCHEMA, FILE_NAME, read_row
from pipelines.crawl.screen import Screen
from pipelines.errors import IntegrityError, StorageError

ORIGIN = "http://a.example"
SEED = f"{ORIGIN}/"


@pytest.fixture
def frontier(tmp_path: Path) -> Iterator[Frontier]:
    with Frontier(tmp_path) as frontier:
        configure(frontier)
        yield frontier


def configure(frontier: Frontier, **changes: object) -> None:
    config = CrawlConfig(seeds=(SEED,), **changes)
    frontier.configure(repr(config), config.user_agent, [(SEED, ORIGIN)], Screen(config))


def targets(frontier: Frontier, now: float = 0.0) -> list[Target]:
    """What waits; the leases end at once."""
    ids = frontier.waiting_origins(0, 100)
    return [target for id_ in ids for target in frontier.lease(id_, 100, now, now)]


def page(digest: str = "sha1:A", *directives: str) -> Archived:
    return Archived(
        payload_digest=digest,
        record_id="<urn:uuid:1>",
        fetched_at=1000.0,
        etag='"e"',
        last_modified=None,
        num_bytes=7,
        directives=directives,
    )


def visit(target: Target, *links: Link, outcome: Outcome = Outcome.FETCHED, **changes: object) -> Visit:
    changes = {"archived": page() if outcome is Outcome.FETCHED else None, **changes}
    return Visit(target=target, outcome=outcome, decided_at=1000.0, status=200, links=links, **changes)


def link(path: str, depth: int, num_redirects: int = 0, refusal: Outcome | None = None, **changes: object) -> Link:
    return Link(ORIGIN + path, ORIGIN, depth, num_redirects, refusal, **changes)


def site(text: str | None, failure: Outcome | None = None, expires_at: float = 2000.0) -> Site:
    return Site(
        robots_text=text,
        robots_status=200,
        failure=failure,
        error=None,
        files=(("http://a.example/ai.txt", None, None),),
        digest=str(text),
        expires_at=expires_at,
    )


def urls(found: list[Target]) -> list[str]:
    return [target.url.removeprefix(ORIGIN) for target in found]


def test_nearest_to_a_seed_comes_first_and_a_shorter_way_counts(frontier: Frontier, tmp_path: Path) -> None:
    (seed,) = targets(frontier)
    frontier.commit([visit(seed, link("/far", 5), link("/near", 1), link("/deep", 9, 0, Outcome.TOO_DEEP))])
    assert urls(targets(frontier)) == ["/near", "/far"]
    (near, _) = targets(frontier)
    frontier.commit([visit(near, link("/far", 2), link("/deep", 2), link("/", 2))])
    assert [(target.url, target.depth) for target in targets(frontier)] == [(f"{ORIGIN}/far", 2), (f"{ORIGIN}/deep", 2)]
    row = read_row(tmp_path, f"{ORIGIN}/far")
    assert row is not None
    assert row.parent == near.url
    assert frontier.num_pages() == 2


def test_a_lease_holds_until_it_ends(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    frontier.commit([visit(seed, *(link(f"/{i}", 1) for i in range(5)))])
    (id_,) = frontier.waiting_origins(0, 10)
    first = frontier.lease(id_, 2, 100.0, 200.0)
    second = frontier.lease(id_, 100, 100.0, 300.0)
    assert len(first) == 2
    assert len({target.id for target in first + second}) == 5
    assert frontier.lease(id_, 100, 199.0, 400.0) == []
    again = frontier.lease(id_, 100, 200.0, 400.0)
    assert [target.id for target in again] == [target.id for target in first]
    assert frontier.waiting_origins(id_, 10) == []
    assert frontier.origin(id_).num_pages == 1


def test_what_comes_after_its_lease_ended_is_not_recorded_twice(frontier: Frontier, tmp_path: Path) -> None:
    (seed,) = frontier.lease(1, 1, 100.0, 200.0)
    (again,) = frontier.lease(1, 1, 200.0, 300.0)
    file = frontier.add_file("crawl-000001.warc.gz")
    frontier.commit([visit(again, link("/a", 1))], offsets={seed.id: 100}, file=file, num_bytes=200)
    frontier.commit([visit(seed, link("/b", 1))], offsets={seed.id: 200}, file=file, num_bytes=300)
    row = read_row(tmp_path, SEED)
    assert row is not None
    assert (row.warc_offset, row.num_visits) == (100, 1)
    assert urls(targets(frontier)) == ["/a"]
    assert frontier.num_archived_pages() == 1


def test_a_new_process_need_not_wait_for_leases_of_one_that_is_gone(tmp_path: Path) -> None:
    with Frontier(tmp_path) as frontier:
        configure(frontier)
        assert len(frontier.lease(1, 9, 100.0, 1e12)) == 1
        assert frontier.lease(1, 9, 100.0, 1e12) == []
    with Frontier(tmp_path) as frontier:
        frontier.requeue(101.0, None)
        assert len(frontier.lease(1, 9, 101.0, 1e12)) == 1


def test_a_changed_config_reopens_what_followed_from_it(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    links = (link("/deep", 7, 0, Outcome.TOO_DEEP), link("/plain", 1), link("/x", 1, 0, Outcome.EXCLUDED))
    frontier.commit([visit(seed, *links)])
    configure(frontier, max_depth=3, exclude=("plain",))
    assert frontier.outcomes() == {"fetched": 1, "too_deep": 1, "excluded": 1}
    assert urls(targets(frontier)) == ["/x"]
    configure(frontier)
    assert set(urls(targets(frontier))) == {"/deep", "/plain", "/x"}


def test_retry_and_recrawl_queue_by_time(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    frontier.commit([visit(seed, outcome=Outcome.TIMEOUT, retry_at=5000.0)])
    frontier.requeue(4999.0, None)
    assert targets(frontier) == []
    frontier.requeue(5000.0, None)
    assert urls(targets(frontier)) == ["/"]
    frontier.commit([visit(seed)])
    frontier.requeue(1000.0 + 3599, 3600)
    assert targets(frontier) == [], "a page from before there was an interval is due by the new one"
    frontier.requeue(1000.0 + 3600, 3600)
    (target,) = targets(frontier)
    assert target.archived == page()
    assert frontier.num_pages() == 1, "it is still in the files"
    frontier.commit([visit(target, due_at=9000.0, revisit_seconds=8000.0)])
    frontier.requeue(8999.0, 3600)
    assert targets(frontier) == []
    frontier.requeue(9000.0, None)
    assert targets(frontier) == [], "without an interval nothing is due"
    frontier.requeue(9000.0, 3600)
    assert urls(targets(frontier)) == ["/"]


def test_a_sitemap_that_was_met_as_a_page_is_read_as_one(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    frontier.commit([visit(seed, link("/map.xml", 1))])
    (target,) = targets(frontier)
    assert target.kind == "page"
    frontier.commit([visit(target, outcome=Outcome.NOT_TEXT)], found=[link("/map.xml", 0, kind="sitemap")])
    (target,) = targets(frontier)
    assert (target.kind, target.depth) == ("sitemap", 0)
    frontier.commit([visit(target, link("/", 1, modified_at=999.0), outcome=Outcome.READ_FOR_LINKS)])
    assert targets(frontier) == []
    frontier.commit([], found=[link("/", 1, modified_at=1001.0)])
    assert urls(targets(frontier)) == ["/"], "changed after it was fetched"


def test_files_that_say_something_new_are_due_until_their_pages_were_judged(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    frontier.commit([visit(seed)], sites=[(1, site("a"))])
    assert frontier.origin(1).site == site("a")
    assert (frontier.origin(1).is_changed, frontier.num_due_origins(1999.0)) == (False, 0)
    assert frontier.due_origins(2000.0, 0, 10) == [1]
    frontier.commit([], sites=[(1, site(None, Outcome.ROBOTS_UNREACHABLE))])
    assert not frontier.origin(1).is_changed, "out of reach says nothing new"
    frontier.commit([], sites=[(1, site("b"))])
    assert frontier.num_due_origins(0.0) == 1
    (url,) = frontier.judged_urls(1, 0, 10)
    assert (url.url, url.archived) == (SEED, page())
    withdrawal = Withdrawal(
        url_id=url.id, outcome=Outcome.RESERVED, decided_at=1500.0, robots_rule="x", directives=("ai.txt: /",)
    )
    frontier.commit([], withdrawals=[withdrawal], settled=[1])
    assert frontier.num_due_origins(0.0) == 0
    assert frontier.outcomes() == {"reserved": 1}
    (url,) = frontier.judged_urls(1, 0, 10)
    assert (url.outcome, url.archived) == (Outcome.RESERVED, None)
    frontier.queue([url.id])
    assert urls(targets(frontier)) == ["/"]


def test_a_host_out_of_reach_refuses_what_was_never_fetched_only(frontier: Frontier, tmp_path: Path) -> None:
    (seed,) = targets(frontier)
    frontier.commit([visit(seed, link("/new", 1), due_at=1100.0)])
    frontier.requeue(1100.0, 100.0)
    assert urls(targets(frontier)) == ["/", "/new"]
    assert frontier.refuse_origin(1, Outcome.ROBOTS_UNREACHABLE, "503", 1200.0, 4800.0) == 1
    assert frontier.outcomes() == {"fetched": 1, "robots_unreachable": 1}
    frontier.requeue(4800.0, 100.0)
    assert urls(targets(frontier)) == ["/", "/new"]


def test_requests_are_summed_up_for_each_host(frontier: Frontier) -> None:
    for _ in range(2):
        frontier.commit([], asked={1: Asked(5.0, num_requests=2, num_failed=1, num_bytes=10, seconds=0.5)})
    row = frontier._db.execute("SELECT num_requests, num_failed, num_bytes, response_seconds FROM origins").fetchone()
    assert row == (4, 2, 20, 1.0)


def test_a_lost_tail_is_queued_again(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    frontier.commit([visit(seed, *(link(f"/{i}", 1) for i in range(3)))])
    file = frontier.add_file("crawl-000001.warc.gz")
    waiting = targets(frontier)
    offsets = {target.id: 100 * (i + 1) for i, target in enumerate(waiting)}
    frontier.commit([visit(target) for target in waiting], offsets=offsets, file=file, num_bytes=400)
    assert frontier.num_archived_pages() == 3
    (file,) = frontier.open_files()
    assert file.num_bytes == 400
    frontier.lose_tail(file, 200)
    assert targets(frontier) == waiting[1:]
    assert frontier.num_archived_pages() == 1


def test_a_ledger_of_the_first_version_goes_on(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / FILE_NAME)
    db.executescript(
        _SCHEMA
        + "INSERT INTO origins (id, origin, robots_status, robots_expires_at) VALUES (1, 'http://a.example', 404, 9e9);"
        "INSERT INTO warc_files VALUES (1, 'crawl-000001.warc.gz', 400, 1, 1);"
        "INSERT INTO urls VALUES (1, 'http://a.example/', 1, 0, 0, NULL, 0, 'fetched', 1000.0, NULL, 200, 1000.0, 1, 100,"
        " 'no rule matches', NULL, 1, 0);"
        "INSERT INTO urls (id, url, origin_id, depth, num_redirects, is_queued) VALUES (2, 'http://a.example/x', 1, 1, 0, 1);"
        "PRAGMA user_version = 1;"
    )
    db.close()
    with pytest.raises(IntegrityError, match="version 1"):
        read_row(tmp_path, SEED)
    with Frontier(tmp_path) as frontier:
        assert urls(targets(frontier)) == ["/x"]
        assert frontier.due_origins(2000.0, 0, 10) == [1], "its files are read again, for their reservations"
        (url,) = frontier.judged_urls(1, 0, 10)
        assert url.archived is not None
        assert url.archived.payload_digest == ""
    row = read_row(tmp_path, SEED)
    assert row is not None
    assert (row.outcome, row.warc_offset) == ("fetched", 100)


def test_one_process_at_a_time(frontier: Frontier, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="another process"):
        Frontier(tmp_path)


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(IntegrityError, match="crawl ledger"):
        Frontier(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    with Frontier(tmp_path) as frontier:
        frontier._db.execute("PRAGMA user_version = 99")
    with pytest.raises(IntegrityError, match="version 99"):
        Frontier(tmp_path)
    assert read_row(tmp_path / "nowhere", SEED) is None
