"""What raises an alert: a funnel that moved, a slow crawl, a full disk."""

import json
from pathlib import Path

import pytest

from flows.deployed import events
from flows.deployed.bounds import funnel_moves, low_disk, slow_crawls
from flows.workspace import Workspace

BEFORE = {"in": 100, "kept": 60, "dropped": {"language": 30, "quality": 10}}


@pytest.mark.parametrize(
    ("after", "bound", "moves"),
    [
        ({"in": 200, "kept": 120, "dropped": {"language": 60, "quality": 20}}, 0.0, []),
        (
            {"in": 100, "kept": 40, "dropped": {"language": 35, "quality": 10, "toxicity": 15}},
            0.1,
            [
                "kept moved from 60.0% to 40.0% of the pages",
                "dropped: toxicity moved from 0.0% to 15.0% of the pages",
            ],
        ),
        ({"in": 100, "kept": 40, "dropped": {"language": 50, "quality": 10}}, 0.25, []),
        (
            {"in": 100, "kept": 100, "dropped": {}},
            0.35,
            ["kept moved from 60.0% to 100.0% of the pages"],
        ),
    ],
)
def test_a_share_that_moved_by_more_than_the_bound_is_told(after, bound, moves):
    assert funnel_moves(BEFORE, after, bound) == moves


def test_a_crawl_is_slow_only_where_it_took_its_time():
    stages = [
        {"name": "crawl", "source": "slow", "fetched": 90, "seconds": 90.0, "report": "r.md"},
        {"name": "crawl", "source": "short", "fetched": 0, "seconds": 2.0, "report": "r.md"},
        {"name": "crawl", "source": "quick", "fetched": 900, "seconds": 90.0, "report": "r.md"},
        {"name": "extract", "seconds": 900.0},
    ]
    assert slow_crawls(stages, 100) == [
        "got 60.0 pages a minute from slow, wanted at least 100.0: see r.md",
    ]
    assert slow_crawls(stages, 0) == []


def test_a_disk_with_little_free_is_told(tmp_path: Path):
    assert low_disk(tmp_path, 0) is None
    assert f"GiB free below {tmp_path}, wanted at least 1,000,000.0: run `corpusmill gc`" in str(
        low_disk(tmp_path, 1e6)
    )


def test_alerts_are_kept_with_the_newest_last_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "_NUM_KEPT_ALERTS", 3)
    monkeypatch.setattr(events, "tell", lambda *_: None)
    place = Workspace(tmp_path)
    assert events.read_alerts(place) == []
    for number in range(5):
        events.alert("disk-low", f"sentence {number}", "r", place, {})
    assert [each["message"] for each in events.read_alerts(place)] == ["sentence 2", "sentence 3", "sentence 4"]
    with events.alerts_path(place).open("a") as file:
        file.write('{"torn')
    assert len(events.read_alerts(place)) == 3
    assert json.loads(events.alerts_path(place).read_text().splitlines()[0])["kind"] == "disk-low"
