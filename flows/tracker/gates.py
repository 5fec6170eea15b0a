"""What a model has to pass before it is registered: gates in a recipe, and those that always stand."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from llm.evaluation.compare import SuiteDifference
    from llm.evaluation.suite import SuiteResult

_NAME_CHARS = frozenset("-_.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A bound on a figure of a suite. A suite that was skipped or is missing does not pass."""

    suite: str
    metric: str | None = None
    """None: the suite's own."""
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if self.at_most is None and self.at_least is None:
            raise ConfigError(f"got a gate on {self.suite} without a bound, wanted at_most or at_least: set one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySection:
    """Where finished models are registered, and what they have to pass."""

    name: str
    """Of the registered model in MLflow."""
    gates: tuple[Gate, ...] = ()
    not_worse_than_champion: tuple[str, ...] = ("held_out",)
    """Suites on which a model that is worse than the champion, beyond noise, does not become champion."""

    def __post_init__(self) -> None:
        if not self.name or not all(char.isalnum() or char in _NAME_CHARS for char in self.name):
            raise ConfigError(f"got name {self.name!r}, wanted letters, digits, '-', '_' and '.': name the model.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Whether a gate was passed, and on what."""

    gate: str
    is_passed: bool
    got: str


def check_gates(
    section: RegistrySection, suites: "Sequence[SuiteResult]", *, export: Mapping[str, Any], takedowns: Sequence[str]
) -> list[GateResult]:
    """Every gate. `export` is what comparing the exported folder found, `takedowns` the requests whose pages the model saw."""
    differing = export.get("max_logit_difference")
    loaded_by = export.get("loaded_by")
    always = [
        GateResult(
            gate="the export computes what the checkpoint does",
            is_passed=differing is not None,
            got="not compared" if differing is None else f"logits differ by {differing:.1e}, loaded by {loaded_by}",
        ),
        GateResult(
            gate="no page that it was trained on is taken down",
            is_passed=not takedowns,
            got=", ".join(takedowns) if takedowns else "none is",
        ),
    ]
    by_name = {each.suite.name: each for each in suites}
    return [*always, *(_checked(gate, by_name.get(gate.suite)) for gate in section.gates)]


def check_champion(section: RegistrySection, differences: "Sequence[SuiteDifference]") -> list[GateResult]:
    """That a model is not worse than the champion, beyond noise. A suite that both do not have does not pass."""
    by_name = {each.name: each for each in differences}
    found = []
    for name in section.not_worse_than_champion:
        each = by_name.get(name)
        passes = each is not None and each.verdict in ("better", "noise")
        got = "neither has it" if each is None else each.reason or each.verdict
        if each is not None and each.difference is not None:
            got += f" by {each.difference.value:+.4f}"
        found.append(GateResult(gate=f"{name}: not worse than the champion", is_passed=passes, got=got))
    return found


def judged(told: Mapping[str, Any]) -> str:
    """What became of a model that was judged: a sentence."""
    if told["passed"]:
        return f"All {len(told['gates'])} gates of {told['name']} are passed."
    failed = [gate["gate"] for gate in told["gates"] if not gate["is_passed"]]
    return f"{len(failed)} of {len(told['gates'])} gates of {told['name']} are not passed: {'; '.join(failed)}."


def registration_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal: the verdict, and each gate that is not passed with what was got."""
    yield f"Registry: {judged(told)}"
    yield from (f"  not passed: {gate['gate']}, got {gate['got']}" for gate in told["gates"] if not gate["is_passed"])
    yield (
        f"  version {told['version']} of {told['name']}; `corpusmill promote {told['name']}` makes the challenger champion"
        if told["passed"]
        else "  nothing is registered; the evaluation's run in MLflow has gates.md"
    )


def _checked(gate: Gate, result: "SuiteResult | None") -> GateResult:
    bounds = [f"{sign} {bound:g}" for sign, bound in (("<=", gate.at_most), (">=", gate.at_least)) if bound is not None]
    metric = gate.metric or (result.suite.metric if result is not None else "")
    name = f"{gate.suite} {metric}".strip() + f" {' and '.join(bounds)}"
    if result is None or result.skipped is not None:
        return GateResult(gate=name, is_passed=False, got=f"skipped: {result.skipped}" if result else "no such suite")
    figure = result.figures.get(metric)
    if figure is None or math.isnan(figure.value):
        return GateResult(gate=name, is_passed=False, got=f"no figure: it has {', '.join(sorted(result.figures))}")
    is_low = gate.at_most is None or figure.value <= gate.at_most
    is_high = gate.at_least is None or figure.value >= gate.at_least
    return GateResult(gate=name, is_passed=is_low and is_high, got=f"{figure.value:.4f}")
