"""Two models on the same items: what is better, what is worse, and what is noise."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from llm.evaluation.statistics import Difference, Figure, difference, distance_difference
from llm.evaluation.suite import Suite, SuiteResult

Verdict = Literal["better", "worse", "noise", "incomparable"]

_ITEMS_MAY_DIFFER = ("dataset_digest", "noise_floor")
"""Of two suites whose shared items are compared all the same: two corpora hold out the same documents as far as both have them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteDifference:
    """One suite of two models: ours less theirs."""

    name: str
    metric: str
    language: str | None
    ours: Figure | None
    theirs: Figure | None
    """Each on all of its own items; None where it was not measured."""
    difference: Difference | None
    """On the items that both have, of distances from the target where the suite has one; None where there are none, or they
    were scored in other ways."""
    verdict: Verdict
    reason: str
    """Why it is incomparable; empty where it is not."""


def compare(ours: Sequence[SuiteResult], theirs: Sequence[SuiteResult]) -> list[SuiteDifference]:
    """Every suite that one of them has, in our order and then theirs."""
    mine, other = ({each.suite.name: each for each in results} for results in (ours, theirs))
    return [_compared(name, mine.get(name), other.get(name)) for name in {**mine, **other}]


def _compared(name: str, ours: SuiteResult | None, theirs: SuiteResult | None) -> SuiteDifference:
    suite = (ours or theirs).suite  # type: ignore[union-attr] # one of them is there
    figures = [each.figure if each is not None and each.skipped is None else None for each in (ours, theirs)]
    found = SuiteDifference(
        name=name,
        metric=suite.metric,
        language=suite.language,
        ours=figures[0],
        theirs=figures[1],
        difference=None,
        verdict="incomparable",
        reason=_obstacle(ours, theirs),
    )
    if found.reason or ours is None or theirs is None:
        return found
    mine, other = ({item["id"]: item for item in each.items} for each in (ours, theirs))
    both = [key for key in mine if key in other]
    shared = [key for key in both if _weight(mine[key]) == _weight(other[key])]
    if not shared:
        apart = "items weigh otherwise in each (see the two intervals)" if both else "they have no item in common"
        return replace(found, reason=apart)
    our_scores, their_scores = ([items[key]["score"] for key in shared] for items in (mine, other))
    weights, floor = [_weight(mine[key]) for key in shared], suite.noise_floor
    if suite.target is None:
        gap = difference(our_scores, their_scores, weights=weights, noise_floor=floor)
        is_better = (gap.value > 0) == suite.higher_is_better
    else:
        gap = distance_difference(our_scores, their_scores, suite.target, weights=weights, noise_floor=floor)
        is_better = gap.value < 0
    verdict: Verdict = "noise" if not gap.is_real else "better" if is_better else "worse"
    return replace(found, difference=gap, verdict=verdict)


def _obstacle(ours: SuiteResult | None, theirs: SuiteResult | None) -> str:
    for who, each in (("the first", ours), ("the second", theirs)):
        if each is None:
            return f"{who} was not measured on it"
        if each.skipped is not None:
            return f"{who} skipped it: {each.skipped}"
    mine, other = (asdict(each.suite) for each in (ours, theirs) if each is not None)
    changed = [name for name in mine if name not in _ITEMS_MAY_DIFFER and mine[name] != other[name]]
    return f"they were scored with another {' and '.join(changed)}" if changed else ""


def _weight(item: Mapping[str, Any]) -> float:
    return float(item.get("weight", 1.0))


# Records


def to_json(result: SuiteResult) -> dict[str, Any]:
    """A result as JSON values: what `from_json` reads."""
    return {
        "suite": asdict(result.suite),
        "figures": {name: _finite(asdict(figure)) for name, figure in result.figures.items()},
        "items": [dict(item) for item in result.items],
        "skipped": result.skipped,
    }


def from_json(value: Mapping[str, Any]) -> SuiteResult:
    """A result from its JSON values. Raises TypeError or KeyError for others."""
    return SuiteResult(
        suite=Suite(**value["suite"]),
        figures={
            name: Figure(**{**figure, "value": float("nan") if figure["value"] is None else figure["value"]})
            for name, figure in value["figures"].items()
        },
        items=tuple(value["items"]),
        skipped=value["skipped"],
    )


def _finite(figure: dict[str, Any]) -> dict[str, Any]:
    return {name: value if value is None or np.isfinite(value) else None for name, value in figure.items()}


def verdict_lines(found: Sequence[SuiteDifference]) -> Iterator[str]:
    """Sentences on the whole: on which suites the first is better or worse, and of how many that cannot be said."""
    counts = {verdict: [each.name for each in found if each.verdict == verdict] for verdict in ("better", "worse")}
    num_noise = sum(each.verdict == "noise" for each in found)
    if num_noise and not any(counts.values()):
        yield f"No difference above noise on {num_noise} suites."
        num_noise = 0
    for verdict, names in counts.items():
        if names:
            yield f"The first is {verdict} on {', '.join(names)}."
    if num_noise:
        yield f"On {num_noise} more they differ by noise alone."
    apart = [each for each in found if each.verdict == "incomparable"]
    for reason in dict.fromkeys(each.reason for each in apart):
        yield f"Not compared, since {reason}: {', '.join(each.name for each in apart if each.reason == reason)}."
