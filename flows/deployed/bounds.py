"""What a refresh compares with bounds, so that somebody looks: the funnel, the crawl's rate, the disk."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LEAST_CRAWL_SECONDS = 60.0
"""A shorter crawl says nothing about its rate."""
_GIB = 1 << 30

Documents = Mapping[str, Any]
"""`in`, `kept` and `dropped` by reason, as a build's summary has them."""


def funnel_moves(before: Documents, after: Documents, bound: float) -> list[str]:
    """Which shares of the pages that came in moved by more than a bound between two builds, the largest move first."""
    old, new = _shares(before), _shares(after)
    moves = {name: new.get(name, 0.0) - old.get(name, 0.0) for name in {*old, *new}}
    ordered = sorted(moves.items(), key=lambda move: (-abs(move[1]), move[0]))
    return [
        f"{name} moved from {old.get(name, 0.0):.1%} to {new.get(name, 0.0):.1%} of the pages"
        for name, move in ordered
        if abs(move) > bound
    ]


def _shares(documents: Documents) -> dict[str, float]:
    parts = {"kept": documents["kept"], **{f"dropped: {name}": n for name, n in documents["dropped"].items()}}
    return {name: count / max(documents["in"], 1) for name, count in parts.items()}


def slow_crawls(stages: Sequence[Mapping[str, Any]], min_pages_per_minute: float) -> list[str]:
    """The crawls, of a refresh's stages, that fetched fewer pages a minute than they should; those that were over at once
    had nothing to do."""
    found = []
    for stage in stages:
        if stage["name"] != "crawl" or stage["seconds"] < _LEAST_CRAWL_SECONDS:
            continue
        rate = 60 * stage["fetched"] / stage["seconds"]
        if rate < min_pages_per_minute:
            found.append(
                f"got {rate:,.1f} pages a minute from {stage['source']}, wanted at least {min_pages_per_minute:,.1f}: "
                f"see {stage['report']}"
            )
    return found


def low_disk(folder: Path, min_free_gib: float) -> str | None:
    """What to say of a disk that has less free than it should; None where it has enough."""
    free = shutil.disk_usage(folder).free / _GIB
    if free >= min_free_gib:
        return None
    return (
        f"got {free:,.1f} GiB free below {folder}, wanted at least {min_free_gib:,.1f}: run `corpusmill gc`, or move the "
        "workspace to a larger disk"
    )
