"""What is known of a model, gathered from what its training, its evaluation and its corpus left: for a page, images, a card.

A part that is not there is absent, and nothing else depends on it: a training that runs has a journal and no evaluation.
"""

import math
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llm.evaluation.statistics import Figure, difference
from llm.evaluation.suite import SuiteResult
from llm.journal import ENDED, JOURNAL, OPENED, STEP, Entry, number, read

if TYPE_CHECKING:
    from flows.jobs import TrainingJob
    from llm.config import ModelConfig, TrainConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PARTS = ("data", "forward", "backward", "optimizer", "log", "checkpoint")
"""Of the time of an update, in the order in which they happen; what is left of it is `other`."""
FIGURES = ("num_tokens", "loss", "val_loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu")
HELD_OUT = "held_out"
BITS_PER_BYTE = "bits_per_byte"
BASELINE = "baseline/"
DATASET = "dataset and tokenizer"
"""Under which the identity has the digest of both; the data card's dataset digest is that of the token shards alone."""
EVENT_KINDS = ("step_skipped", "rolled_back", "resumed", "checkpoint_passed_over")
"""What a reviewer looks at; that a training began and wrote checkpoints is no event here."""
_MAX_URLS = 20
_SUFFIXES = re.compile(r"(_(en|zh)){0,2}(_\d+shot)?$")
_BIAS = re.compile(r"bias|crows|bbq|stereo|toxic|^probes_", re.IGNORECASE)
_MEMORISATION = re.compile(r"memori|canar|exposure|extraction|verbatim|personal_data", re.IGNORECASE)
_Z = 1.959963984540054
"""Standard errors to either side of a 95 % interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """What was measured along a training, each step once, in order."""

    steps: Ints
    """Updates done, (num_steps,)."""
    figures: Mapping[str, Floats]
    """By name (FIGURES, and `seconds/PART` with PARTS and `whole`), (num_steps,) each: NaN where nothing was measured,
    infinite where what was measured is not finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to a training."""

    kind: str
    step: int
    at_ms: int
    """Milliseconds of UTC since 1970."""
    message: str
    num_documents: int
    """Whose tokens it names."""
    urls: tuple[str, ...]
    """Of those that are known, the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A training as its journal tells it."""

    curves: Curves
    events: tuple[Event, ...]
    first_ms: int | None
    last_ms: int | None
    how_ended: str | None
    """finished, failed, stopped or killed; None while it runs, or where it was left."""
    message: str
    """Why it ended, where it says so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """A model of the ladder, from the simplest to the one that was trained."""

    name: str
    bits_per_byte: Figure
    beats_below: bool | None
    """Whether its lead over the rung below is more than noise; None of the lowest, and where that was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """All that a reviewer is shown of a model."""

    recipe: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """Of the model, by name."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained, by name."""
    changed: frozenset[str] = frozenset()
    """Names of both whose values are not the defaults."""
    num_parameters: int | None = None
    flops_per_token: int | None = None
    result: Mapping[str, Any] | None = None
    """What a finished training left: `training.json`."""
    progress: Progress | None = None
    evaluation: Mapping[str, Any] | None = None
    """What `evaluate_job` gave."""
    suites: tuple[SuiteResult, ...] = ()
    rungs: tuple[Rung, ...] = ()
    corpus: Mapping[str, Any] | None = None
    """What the data card states: `card_facts`."""
    takedowns: tuple[str, ...] | None = None
    """Ids of the take-downs of documents that it was trained on; None where nobody looked."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """What names it and what it was made from, in the words of the page: digests, the version of the code."""
    command: str | None = None
    """What makes it again."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Where to look next: a label and an address."""

    @property
    def tokens_seen(self) -> int | None:
        """Repeats included."""
        if self.result is not None:
            return int(self.result["num_tokens"])
        tokens = self.progress.curves.figures["num_tokens"] if self.progress is not None else np.empty(0)
        return int(tokens[-1]) if tokens.size else None

    @property
    def num_steps(self) -> int | None:
        """Updates done."""
        if self.result is not None:
            return int(self.result["steps"])
        return int(self.progress.curves.steps[-1]) if self.progress and self.progress.curves.steps.size else None

    @property
    def samples(self) -> Sequence[Mapping[str, str]]:
        """What it wrote: `prompt`, and `text` that begins with it."""
        return () if self.evaluation is None else self.evaluation.get("samples", ())

    @property
    def held_out(self) -> Figure | None:
        """Bits per byte of the held-out text."""
        for each in self.suites:
            if each.suite.name == HELD_OUT and BITS_PER_BYTE in each.figures:
                return each.figures[BITS_PER_BYTE]
        return _figure_of(self.evaluation, BITS_PER_BYTE)

    @property
    def best_rung(self) -> Rung | None:
        """Of those below the model, the one that is hardest to beat."""
        measured = [rung for rung in self.rungs[:-1] if math.isfinite(rung.bits_per_byte.value)]
        return min(measured, key=lambda rung: rung.bits_per_byte.value, default=None)

    @property
    def beats_ladder(self) -> bool | None:
        """Whether it leads every rung below it by more than noise; None where that was not measured.

        Of a rung further down that is better than the one just below, its interval must leave out that rung's value.
        """
        best = self.best_rung
        if best is None:
            return None
        own = self.rungs[-1]
        if best is self.rungs[-2] or not own.beats_below:
            return own.beats_below
        return own.bits_per_byte.high is not None and own.bits_per_byte.high < best.bits_per_byte.value


def model_facts(
    recipe: str,
    *,
    job: "TrainingJob | None" = None,
    folder: Path | None = None,
    evaluation: Mapping[str, Any] | None = None,
    suites: Sequence[SuiteResult] = (),
    ladder: Sequence[Rung | Mapping[str, Any]] = (),
    corpus: Mapping[str, Any] | None = None,
    urls: Mapping[str, str] | None = None,
    takedowns: Sequence[str] | None = None,
    code_version: str | None = None,
    command: str | None = None,
    links: Mapping[str, str] | None = None,
) -> ModelFacts:
    """Everything that is known of a recipe's model.

    `job` names its configs and its folder (`folder` alone does for the journal); `evaluation` is what `evaluate_job` gave;
    `ladder` has the rungs from below, as `Rung`s or as `name`, `bits_per_byte`, `beats_below`: without it the unigram baseline
    of the evaluation stands below the model; `corpus` is the values of data_card.json; `urls` has the address of a doc_id.
    """
    place = job.folder if job is not None else folder
    result = job.finished() if job is not None else None
    rungs = tuple(each if isinstance(each, Rung) else Rung(**each) for each in ladder) or _evaluated_rungs(evaluation)
    return ModelFacts(
        recipe=recipe,
        **({} if job is None else config_facts(job.model, job.training)),
        result=result,
        progress=None if place is None else read_progress(place / JOURNAL, urls or {}),
        evaluation=evaluation,
        suites=tuple(suites),
        rungs=rungs,
        corpus=corpus,
        takedowns=None if takedowns is None else tuple(takedowns),
        identity=_identity(recipe, job, result, code_version),
        command=command,
        links=dict(links or {}),
    )


def config_facts(model: "ModelConfig", training: "TrainConfig") -> dict[str, Any]:
    """The configs as they are shown, and which of their values someone chose."""
    return {
        "config": asdict(model),
        "training": asdict(training),
        "changed": _changed(model) | _changed(training),
        "num_parameters": model.num_parameters,
        "flops_per_token": model.flops_per_token,
    }


def rungs_of(results: Sequence[SuiteResult], names: Sequence[str] | None = None) -> tuple[Rung, ...]:
    """The rungs of a ladder from what each model scored on the same held-out documents, from below.

    A rung beats the one below where their paired difference over the documents that both have is more than noise.
    """
    measured = [each for each in results if each.skipped is None]
    labels = list(names) if names is not None else [each.suite.name for each in measured]
    rungs = []
    for idx, each in enumerate(measured):
        beats = _beats(each, measured[idx - 1]) if idx else None
        rungs.append(Rung(name=labels[idx], bits_per_byte=each.figures[BITS_PER_BYTE], beats_below=beats))
    return tuple(rungs)


def read_progress(path: Path, urls: Mapping[str, str] | None = None) -> Progress:
    """A journal's curves and events; of a step that was done again, what it gave last. Empty where there is no journal."""
    steps, rows = array("q"), array("d")
    names = (*FIGURES, *(f"seconds/{part}" for part in (*PARTS, "whole")))
    events: list[Event] = []
    first_ms = last_ms = None
    how_ended, message = None, ""
    for entry in read(path):
        first_ms = entry.at_ms if first_ms is None else first_ms
        last_ms = entry.at_ms
        if entry.kind == ENDED:
            how_ended, message = entry.facts.get("how"), str(entry.facts.get("message") or "")
            continue
        how_ended, message = None, ""
        if entry.kind == STEP:
            steps.append(int(entry.facts["step"]))
            rows.extend(_row(entry.facts))
        elif entry.kind in EVENT_KINDS:
            events.append(_event(entry, urls or {}))
    at = np.array(steps, dtype=np.int64)
    last = at.size - 1 - np.unique(at[::-1], return_index=True)[1]  # of each step, its last row
    table = np.array(rows, dtype=np.float64).reshape(at.size, len(names))[last]
    return Progress(
        curves=Curves(steps=at[last], figures={name: table[:, idx] for idx, name in enumerate(names)}),
        events=tuple(events),
        first_ms=first_ms,
        last_ms=last_ms,
        how_ended=how_ended,
        message=message,
    )


def part_seconds(curves: Curves) -> dict[str, float]:
    """Seconds of all updates by part, `other` last; empty where no time was measured."""
    whole = _sum(curves.figures["seconds/whole"])
    if not whole:
        return {}
    parts = {part: _sum(curves.figures[f"seconds/{part}"]) for part in PARTS}
    return parts | {"other": max(0.0, whole - sum(parts.values()))}


def flags(facts: ModelFacts) -> list[str]:
    """What a reviewer should not overlook, a sentence each; empty where nothing is flagged."""
    return [*_progress_flags(facts), *_evaluation_flags(facts), *_data_flags(facts)]


def best_baseline(result: SuiteResult) -> tuple[str, Figure] | None:
    """The baseline that is hardest to beat."""
    found = {
        name.removeprefix(BASELINE): each
        for name, each in result.figures.items()
        if name.startswith(BASELINE) and math.isfinite(each.value)
    }
    if not found:
        return None
    pick = max if result.suite.higher_is_better else min
    name = pick(sorted(found), key=lambda label: found[label].value)
    return name, found[name]


def verdict(result: SuiteResult) -> bool | None:
    """Whether a score is better than every baseline by more than noise; None where that cannot be said, or is not the point.

    The 95 % interval must leave out the best baseline's value, and the lead be above the noise floor.
    """
    best = best_baseline(result)
    if result.skipped is not None or best is None or result.suite.target is not None:
        return None
    own = result.figure
    near = own.low if result.suite.higher_is_better else own.high
    if near is None:
        return None
    sign = 1 if result.suite.higher_is_better else -1
    return sign * (near - best[1].value) > 0 and sign * (own.value - best[1].value) > result.suite.noise_floor


def meets_target(result: SuiteResult) -> bool | None:
    """Whether a score is no different from that of a model without fault; None where the suite knows none, or of few items."""
    target = result.suite.target
    if target is None or result.skipped is not None or result.figure.low is None or result.figure.high is None:
        return None
    return result.figure.low <= target <= result.figure.high


def is_bias(result: SuiteResult) -> bool:
    """Whether a suite is about groups of people, and abuse."""
    return _BIAS.search(result.suite.name) is not None


def is_memorisation(result: SuiteResult) -> bool:
    """Whether a suite is about what comes back out of a model."""
    return _MEMORISATION.search(result.suite.name) is not None


def application(result: SuiteResult) -> str:
    """What a suite is about: its name without the languages and the number of examples that it ends with; of bias and
    memorisation these."""
    if is_bias(result):
        return "bias and toxicity"
    if is_memorisation(result):
        return "memorisation and personal data"
    return _SUFFIXES.sub("", result.suite.name)


def _row(facts: Mapping[str, Any]) -> Iterable[float]:
    for name in FIGURES:
        yield _measured(facts.get(name))
    seconds = facts.get("seconds") or {}
    for part in (*PARTS, "whole"):
        yield _measured(seconds.get(part))


def _measured(value: Any) -> float:
    figure = number(value)
    if figure is None:
        return math.nan
    return figure if math.isfinite(figure) else math.inf


def _event(entry: Entry, urls: Mapping[str, str]) -> Event:
    doc_ids = list((entry.facts.get("facts") or {}).get("doc_ids", ()))
    known = list(dict.fromkeys(urls[doc_id] for doc_id in doc_ids if doc_id in urls))
    return Event(
        kind=entry.kind,
        step=int(entry.facts.get("step", 0)),
        at_ms=entry.at_ms,
        message=str(entry.facts.get("message") or ""),
        num_documents=len(doc_ids),
        urls=tuple(known[:_MAX_URLS]),
    )


def event_doc_ids(path: Path) -> list[str]:
    """The documents that a journal's events name, sorted: what `urls` is asked for."""
    found: set[str] = set()
    for entry in read(path):
        if entry.kind not in (OPENED, STEP, ENDED):
            found.update((entry.facts.get("facts") or {}).get("doc_ids", ()))
    return sorted(found)


def _changed(config: Any) -> frozenset[str]:
    """Names of fields that have no default, or another value."""
    return frozenset(
        each.name for each in fields(config) if each.default is MISSING or getattr(config, each.name) != each.default
    )


def _identity(
    recipe: str, job: "TrainingJob | None", result: Mapping[str, Any] | None, code_version: str | None
) -> dict[str, str]:
    found: dict[str, str | None] = {"recipe": recipe, "code version": code_version}
    if job is not None:
        found |= {
            DATASET: job.dataset.digest,
            "tokenizer digest": job.dataset.tokenizer.digest,
            "training key": job.key,
            "model folder": job.folder.name,
        }
    if result is not None:
        found |= {"checkpoint": result["checkpoint"], "parameters digest": result["parameters_digest"]}
    return {name: value for name, value in found.items() if value}


def _figure_of(evaluation: Mapping[str, Any] | None, name: str) -> Figure | None:
    """A figure of an evaluation, with the interval of its standard error."""
    if evaluation is None or evaluation.get(name) is None:
        return None
    value, error = float(evaluation[name]), evaluation.get(f"{name}_standard_error")
    half = None if error is None else _Z * float(error)
    return Figure(
        value=value,
        low=None if half is None else value - half,
        high=None if half is None else value + half,
        num_items=int(evaluation.get("num_documents", 0)),
    )


def _evaluated_rungs(evaluation: Mapping[str, Any] | None) -> tuple[Rung, ...]:
    """The unigram baseline of an evaluation, and the model above it."""
    below, own = _figure_of(evaluation, "unigram_bits_per_byte"), _figure_of(evaluation, BITS_PER_BYTE)
    gain = _figure_of(evaluation, "gain")
    if below is None or own is None:
        return ()
    beats = None if gain is None or gain.low is None else gain.low > 0
    return (
        Rung(name="unigram", bits_per_byte=below, beats_below=None),
        Rung(name="this model", bits_per_byte=own, beats_below=beats),
    )


def _beats(ours: SuiteResult, below: SuiteResult) -> bool | None:
    mine, other = ({item["id"]: item for item in each.items} for each in (ours, below))
    shared = [key for key in mine if key in other]
    if not shared:
        return None
    gap = difference(
        [mine[key]["score"] for key in shared],
        [other[key]["score"] for key in shared],
        weights=[mine[key].get("weight", 1.0) for key in shared],
        noise_floor=ours.suite.noise_floor,
    )
    return gap.is_real and gap.value < 0


def _sum(values: Floats) -> float:
    return float(values[np.isfinite(values)].sum())


def _progress_flags(facts: ModelFacts) -> list[str]:
    if facts.progress is None:
        return []
    found = []
    progress = facts.progress
    if facts.result is None and progress.how_ended == "finished":
        found.append("The training ended, and its result was not found whole.")
    elif facts.result is None and progress.first_ms is not None:
        why = f": {progress.message}" if progress.message else ""
        found.append(f"The training is not finished ({progress.how_ended or 'it runs, or was left'}{why}).")
    num_bad = int(np.isinf(progress.curves.figures["loss"]).sum())
    if num_bad:
        found.append(f"The loss of {_counted(num_bad, 'step')} is not finite.")
    counts = {kind: sum(event.kind == kind for event in progress.events) for kind in EVENT_KINDS}
    if counts["step_skipped"]:
        found.append(f"{_counted(counts['step_skipped'], 'update')} skipped, because loss or gradient rose too far.")
    if counts["rolled_back"]:
        found.append(f"The training went back to a checkpoint {_counted(counts['rolled_back'], 'time')}.")
    if counts["checkpoint_passed_over"]:
        found.append(f"{_counted(counts['checkpoint_passed_over'], 'damaged checkpoint')} passed over.")
    return found


def _evaluation_flags(facts: ModelFacts) -> list[str]:
    found = ["It was not evaluated."] if facts.evaluation is None and not facts.suites else []
    found += [
        f"{_named(upper.name)} does not beat {below.name} by more than noise."
        for below, upper in zip(facts.rungs, facts.rungs[1:], strict=False)
        if upper.beats_below is False
    ]
    at_chance = [each.suite.name for each in facts.suites if verdict(each) is False]
    if at_chance:
        num_judged = sum(verdict(each) is not None for each in facts.suites)
        found.append(
            f"{len(at_chance):,} of {num_judged:,} suites with a baseline are no better than it: {_listed(at_chance)}."
        )
    faulty = [each.suite.name for each in facts.suites if meets_target(each) is False]
    if faulty:
        num_judged = sum(meets_target(each) is not None for each in facts.suites)
        found.append(
            f"{len(faulty):,} of {num_judged:,} suites on bias, safety and memorisation differ from what a model without "
            f"fault scores: {_listed(faulty)}."
        )
    skipped = [each.suite.name for each in facts.suites if each.skipped is not None]
    if skipped:
        found.append(f"{_counted(len(skipped), 'suite')} skipped: {_listed(skipped)}.")
    if facts.evaluation is not None and facts.evaluation.get("split") not in (None, "test"):
        found.append(f"The held-out text is the {facts.evaluation['split']} split, which chose checkpoints, too.")
    return found


def _data_flags(facts: ModelFacts) -> list[str]:
    found = []
    if facts.takedowns:
        found.append(
            f"It was trained on documents of {_counted(len(facts.takedowns), 'take-down')}: {_listed(facts.takedowns)}."
        )
    if facts.corpus is not None:
        unknown = facts.corpus["composition"]["rights"]["kept"].get("unknown", 0)
        if unknown:
            found.append(f"{_counted(unknown, 'kept document')} with unknown training rights.")
        contaminated = facts.corpus.get("contamination") or {}
        stayed = contaminated.get("contaminated", 0) - contaminated.get("dropped", 0)
        if stayed > 0:
            found.append(f"Up to {_counted(stayed, 'document')} with items of evaluation suites may have stayed.")
    return found


def _named(name: str) -> str:
    return name[:1].upper() + name[1:]


def _counted(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
