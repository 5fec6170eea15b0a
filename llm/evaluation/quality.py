"""What is wrong with texts that a model wrote, whatever they say: they repeat themselves, are all alike, or leave their language."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm.evaluation.overlap import units
from llm.evaluation.statistics import Figure, mean_figure

REPETITION_ORDERS = (1, 2, 3, 4)
DISTINCT_ORDERS = (1, 2, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenText:
    """What a model wrote after a beginning."""

    id: str
    text: str
    """Without the beginning."""
    language: str
    """Of the beginning: what `detect` would say of a text in it."""
    num_tokens: int
    ended: bool
    """With an end-of-text token; otherwise it was cut off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationQuality:
    """Figures over texts. N-grams are of words, or of characters where a writing has no spaces."""

    repetition: dict[int, Figure]
    """By n: the share of a text's n-grams that stood in it before, mean over texts (arXiv:1908.04319)."""
    distinct: dict[int, float]
    """By n: the share of different ones among the n-grams of all texts together (arXiv:1510.03055)."""
    language_kept: Figure
    """Share of texts in the language of their beginning."""
    ended: Figure
    """Share of texts that the model itself ended."""
    num_tokens: Figure
    """Tokens that a text has: those to its end, where it has one."""


def repetition(text: str, order: int) -> float:
    """The share of a text's n-grams that stood in it before: 0 none, near 1 nearly all; 0 where it has no n-gram."""
    found = _ngrams(text, order)
    return 1 - len(set(found)) / len(found) if found else 0.0


def distinct(texts: Sequence[str], order: int) -> float:
    """The share of different ones among all n-grams of texts; 0 where they have none."""
    counts = Counter(ngram for text in texts for ngram in _ngrams(text, order))
    return len(counts) / counts.total() if counts else 0.0


def generation_quality(texts: Sequence[WrittenText], detect: Callable[[str], str | None]) -> GenerationQuality:
    """Measure texts; `detect` names the language of one, None where it cannot tell, which counts as not kept."""
    return GenerationQuality(
        repetition={
            order: mean_figure([repetition(each.text, order) for each in texts]) for order in REPETITION_ORDERS
        },
        distinct={order: distinct([each.text for each in texts], order) for order in DISTINCT_ORDERS},
        language_kept=mean_figure([float(detect(each.text) == each.language) for each in texts]),
        ended=mean_figure([float(each.ended) for each in texts]),
        num_tokens=mean_figure([each.num_tokens for each in texts]),
    )


def _ngrams(text: str, order: int) -> list[tuple[str, ...]]:
    words = units(text)
    return [tuple(words[at : at + order]) for at in range(len(words) - order + 1)]
