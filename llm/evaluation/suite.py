"""A suite and what a model scored on it: values that are kept, compared and shown, whoever computed them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm.evaluation.statistics import Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """What is measured, on which items, and how. Two scores compare only where all of this is equal."""

    name: str
    """Such as `held_out`, `sentiment_zh`: letters, digits, underscores."""
    version: int
    """Raised by hand when the same items are meant to give other scores."""
    protocol: str
    """How an item is scored, in the words that the docs use for it."""
    metric: str
    """The figure that stands for the suite."""
    higher_is_better: bool
    dataset_digest: str
    """Of its items: 64 hex characters."""
    noise_floor: float
    """A difference up to that is none, however many items there are: what another seed of the same training moves."""
    language: str | None = None
    """BCP 47; None where it has several, or none."""
    target: float | None = None
    """What a model without fault scores, where that is known: 0.5 of pairs, 0 of secrets. A score is then judged by how far
    it is from it, to whichever side, and `higher_is_better` says nothing. None: the more, or the less, the better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteResult:
    """A model's scores on a suite."""

    suite: Suite
    figures: Mapping[str, Figure]
    """By metric, the suite's own among them; baselines as `baseline/random` and the like. Empty where it was skipped."""
    items: Sequence[Mapping[str, Any]] = ()
    """A row an item, JSON values, in the order of the dataset: `id`, `score` (what the metric is the mean of), where items
    count unequally `weight` (the metric is then the sum of the scores over that of the weights), and what a reviewer wants
    to read beside them."""
    skipped: str | None = None
    """Why nothing was measured: one sentence; None where it was."""

    @property
    def figure(self) -> Figure:
        """The suite's own."""
        return self.figures[self.suite.metric]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Of each item: (num_items,)."""
        return np.array([item["score"] for item in self.items], dtype=np.float64)

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """Of each item, (num_items,); None where all count alike."""
        if not any("weight" in item for item in self.items):
            return None
        return np.array([item["weight"] for item in self.items], dtype=np.float64)
