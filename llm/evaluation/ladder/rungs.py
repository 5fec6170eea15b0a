"""How the rungs of a ladder stand to each other: paired differences over documents, and a sentence where one does not rise."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm.data import TokenDocument
from llm.evaluation.statistics import Difference, Figure, difference, ratio_figure
from llm.evaluation.suite import Suite, SuiteResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A trained model's losses, and what they took."""

    losses: NDArray[np.float64]
    """(num_documents,) nats, summed over the tokens of each held-out document."""
    num_parameters: int
    num_training_tokens: int
    """Each time that one was trained on counts, but a pass to count n-grams and the iterations of the HMM as one."""
    cpu_seconds: float | None = None
    """Of training and scoring; None where nobody measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One model and how it stands to those below."""

    name: str
    scored: Scored
    bits_per_byte: Figure
    below: str | None
    """None for the lowest rung, like the four that follow."""
    against_below: Difference | None
    """Bits per byte less those of the rung below, over the same documents: below zero is better."""
    best_below: str | None
    """The rung with the fewest bits per byte of those below."""
    against_best: Difference | None
    """Likewise, less those of `best_below`."""

    @property
    def beats_below(self) -> bool | None:
        """Whether it is better than the rung below, beyond noise; None where there is none, or one document cannot tell."""
        return _beats(self.against_below)

    @property
    def beats_all_below(self) -> bool | None:
        """Whether it is better than the best rung below, beyond noise; None as above."""
        return _beats(self.against_best)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """All rungs on the same held-out documents."""

    protocol: str
    split: str
    documents: tuple[TokenDocument, ...]
    rungs: tuple[Rung, ...]
    """From the lowest up."""
    dataset_digest: str
    noise_floor: float

    def __getitem__(self, name: str) -> Rung:
        return next(rung for rung in self.rungs if rung.name == name)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each rung that is not better, beyond noise, than the one below it or the best below it."""
        return tuple(sentence for rung in self.rungs for sentence in _warnings(rung))

    def suite_result(self) -> SuiteResult:
        """The topmost rung's score, the others as baselines; items are documents, scores their bits, weights their bytes."""
        top = self.rungs[-1]
        suite = Suite(
            name="ladder",
            version=1,
            protocol=self.protocol,
            metric="bits_per_byte",
            higher_is_better=False,
            dataset_digest=self.dataset_digest,
            noise_floor=self.noise_floor,
        )
        figures = {"bits_per_byte": top.bits_per_byte} | {
            f"baseline/{rung.name}": rung.bits_per_byte for rung in self.rungs[:-1]
        }
        bits = {rung.name: rung.scored.losses / math.log(2) for rung in self.rungs}
        items = [
            {
                "id": document.doc_id,
                "score": float(bits[top.name][idx]),
                "weight": document.num_bytes,
                "num_tokens": int(document.tokens.size),
                **{f"bits/{name}": float(of_documents[idx]) for name, of_documents in bits.items()},
            }
            for idx, document in enumerate(self.documents)
        ]
        return SuiteResult(suite=suite, figures=figures, items=items)


def compared(scored: Mapping[str, Scored], num_bytes: NDArray[np.float64], noise_floor: float) -> Iterator[Rung]:
    """Each model, from the lowest up, as a rung; (num_documents,) UTF-8 bytes of the held-out documents."""
    bits = {name: each.losses / math.log(2) for name, each in scored.items()}
    names = list(scored)

    def against(name: str, other: str | None) -> Difference | None:
        if other is None:
            return None
        return difference(bits[name], bits[other], weights=num_bytes, noise_floor=noise_floor)

    for idx, name in enumerate(names):
        below = names[idx - 1] if idx else None
        best = min(names[:idx], key=lambda each: float(bits[each].sum()), default=None)
        yield Rung(
            name=name,
            scored=scored[name],
            bits_per_byte=ratio_figure(bits[name], num_bytes),
            below=below,
            against_below=against(name, below),
            best_below=best,
            against_best=against(name, best),
        )


def _beats(against: Difference | None) -> bool | None:
    if against is None or against.low is None:
        return None
    return against.is_real and against.value < 0


def _warnings(rung: Rung) -> Iterator[str]:
    if rung.below is not None and rung.against_below is not None and not rung.beats_below:
        yield _warning(rung.name, rung.below, rung.against_below, "the rung below")
    is_another = rung.best_below != rung.below
    if is_another and rung.best_below is not None and rung.against_best is not None and not rung.beats_all_below:
        yield _warning(rung.name, rung.best_below, rung.against_best, "the best rung below")


def _warning(name: str, other: str, against: Difference, which: str) -> str:
    amount = f"{abs(against.value):.3f} bits per byte {'more' if against.value > 0 else 'fewer'}"
    if against.low is None or against.high is None:
        return f"got {amount} of {name} than of {other}, {which}, on one document, which cannot tell them apart: hold out more."
    return (
        f"got {amount} of {name} than of {other}, {which} (95 %: {against.low:+.3f} to {against.high:+.3f}); "
        "wanted fewer beyond noise: train it longer, on more tokens, or hold out more documents."
    )
