"""The ledger: order, depth, what a changed config reopens, what a lost file reopens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.crawl import CrawlConfig, Outcome
from pipelines.crawl.frontier import FILE_NAME, Frontier, Link, Target, Visit, read_row
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
    frontier.configure(repr(config), [(SEED, ORIGIN)], Screen(config))


def targets(frontier: Frontier) -> list[Target]:
    return [
        target
        for origin in frontier.waiting_origins(count_pages=False)
        for target in frontier.next_targets(origin.id, 100, ())
    ]


def visit(target: Target, *links: Link, outcome: Outcome = Outcome.FETCHED, **changes: object) -> Visit:
    return Visit(target=target, outcome=outcome, decided_at=1000.0, status=200, links=links, **changes)


def link(path: str, depth: int, num_redirects: int = 0, refusal: Outcome | None = None) -> Link:
    return Link(ORIGIN + path, ORIGIN, depth, num_redirects, refusal)


def commit(frontier: Frontier, *visits: Visit) -> set[int]:
    return frontier.commit(visits, {}, None, 0, {})


def test_nearest_to_a_seed_comes_first_and_a_shorter_way_counts(frontier: Frontier, tmp_path: Path) -> None:
    (seed,) = targets(frontier)
    commit(frontier, visit(seed, link("/far", 5), link("/near", 1), link("/deep", 9, 0, Outcome.TOO_DEEP)))
    assert [target.url for target in targets(frontier)] == [f"{ORIGIN}/near", f"{ORIGIN}/far"]
    (near, _) = targets(frontier)
    commit(frontier, visit(near, link("/far", 2), link("/deep", 2), link("/", 2)))
    assert [(target.url, target.depth) for target in targets(frontier)] == [(f"{ORIGIN}/far", 2), (f"{ORIGIN}/deep", 2)]
    row = read_row(tmp_path, f"{ORIGIN}/far")
    assert row is not None
    assert row.parent == near.url
    assert frontier.num_pages() == 2


def test_held_targets_are_not_given_twice(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    commit(frontier, visit(seed, *(link(f"/{i}", 1) for i in range(5))))
    (origin,) = frontier.waiting_origins(count_pages=True)
    assert origin.num_pages == 1
    first = frontier.next_targets(origin.id, 2, ())
    second = frontier.next_targets(origin.id, 100, {target.id for target in first})
    assert len(first) == 2
    assert len({target.id for target in first + second}) == 5


def test_a_changed_config_reopens_what_followed_from_it(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    commit(
        frontier,
        visit(seed, link("/deep", 7, 0, Outcome.TOO_DEEP), link("/plain", 1), link("/x", 1, 0, Outcome.EXCLUDED)),
    )
    configure(frontier, max_depth=3, exclude=("plain",))
    assert frontier.outcomes() == {"fetched": 1, "too_deep": 1, "excluded": 1}
    assert [target.url for target in targets(frontier)] == [f"{ORIGIN}/x"]
    configure(frontier)
    assert {target.url for target in targets(frontier)} == {ORIGIN + path for path in ("/deep", "/plain", "/x")}


def test_retry_and_recrawl_queue_by_time(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    commit(frontier, visit(seed, outcome=Outcome.TIMEOUT, retry_at=5000.0))
    frontier.requeue(4999.0, None)
    assert targets(frontier) == []
    frontier.requeue(5000.0, None)
    assert targets(frontier) == [seed]
    commit(frontier, visit(seed))
    frontier.requeue(1000.0 + 3599, 3600)
    assert targets(frontier) == []
    frontier.requeue(1000.0 + 3600, 3600)
    assert targets(frontier) == [seed]
    assert frontier.num_pages() == 0


def test_a_lost_tail_is_queued_again(frontier: Frontier) -> None:
    (seed,) = targets(frontier)
    commit(frontier, visit(seed, *(link(f"/{i}", 1) for i in range(3))))
    file = frontier.add_file("crawl-000001.warc.gz")
    waiting = targets(frontier)
    offsets = {target.id: 100 * (i + 1) for i, target in enumerate(waiting)}
    frontier.commit([visit(target) for target in waiting], offsets, file, 400, {})
    assert frontier.num_archived_pages() == 3
    (file,) = frontier.open_files()
    assert file.num_bytes == 400
    frontier.lose_tail(file, 200)
    assert targets(frontier) == waiting[1:]
    assert frontier.num_archived_pages() == 1


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
