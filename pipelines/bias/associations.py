"""Which occupations and adjectives stand beside which people: associations within a window of a sample of the corpus.

PMI (Church and Hanks 1990): how much likelier an occurrence of a word is to have the group in its window than a place
picked at random, in bits. Log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin'
Words", eq. 16 to 22): which words stand beside one set of people rather than another, as a z score that does not blow
up for rare words.

Must not: judge. A corpus on nursing names nurses.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.bias.wordlists import Ints, TermFinder, group_terms, is_han, units, word_sets
from pipelines.signals.keywords import normalise

WINDOW_WORDS = 10
"""On either side of an English term."""
WINDOW_CHARS = 20
"""On either side of a Chinese term: ten words of two characters."""
MAX_NUM_CHARS = 200_000
"""Read of one document."""
_CONTRASTS = (("female", "male"), ("older", "younger"), ("muslim", "christian"))
_PRIOR_WORDS = 500.0
"""Weight of the prior, in occurrences (ours)."""
_MIN_COUNT = 5
"""Of one attribute beside one set of people (ours)."""
_MIN_OCCURRENCES = 20
"""Of attributes beside each side of a contrast, below which nothing is said (ours)."""
_MIN_Z = 1.96
"""Scores nearer to 0 than this are not listed (Monroe et al. draw the same line)."""


@dataclass(slots=True)
class Associations:
    """Running counts for one language. Attributes are words of lists, so memory does not grow with the corpus."""

    language: str
    num_units: int = 0
    """Words and Han characters seen."""
    covered: Counter[str] = field(default_factory=Counter)
    """Units within the window of a mention, by set of people."""
    seen: Counter[str] = field(default_factory=Counter)
    """Occurrences by attribute."""
    beside: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Occurrences of an attribute with a mention in its window, by set of people and attribute."""


def count_associations(texts: Iterable[str], language: str) -> Associations:
    """Count what stands beside whom in texts of one language; each is read up to MAX_NUM_CHARS characters."""
    people = people_of(language)
    attributes = {word for words in word_sets("attributes", language).values() for word in words}
    finder = TermFinder(sorted({*attributes, *(term for terms in people.values() for term in terms)}))
    sets_of: dict[str, list[str]] = {}
    for name, terms in people.items():
        for term in terms:
            sets_of.setdefault(term, []).append(name)
    total = Associations(language=language)
    for text in texts:
        _add(total, normalise(text[:MAX_NUM_CHARS]), finder, sets_of, attributes)
    return total


def people_of(language: str) -> dict[str, tuple[str, ...]]:
    """Sets of people whose company is looked at: the groups of the identity lists, and the sides of each contrast."""
    targets = word_sets("targets", language)
    return {**group_terms(language), **{name: targets[name] for pair in _CONTRASTS for name in pair}}


def pmi(total: Associations, *, min_count: int = _MIN_COUNT) -> list[dict[str, Any]]:
    """Attributes seen `min_count` times or more beside a set of people: bits above chance, the strongest first."""
    rows = []
    for (name, attribute), together in total.beside.items():
        expected = total.seen[attribute] * total.covered[name] / max(total.num_units, 1)
        if together >= min_count and expected > 0:
            rows.append(
                {
                    "language": total.language,
                    "people": name,
                    "attribute": attribute,
                    "together": together,
                    "seen": total.seen[attribute],
                    "pmi_bits": round(math.log2(together / expected), 3),
                }
            )
    return sorted(rows, key=lambda row: (row["people"], -row["pmi_bits"], row["attribute"]))


def log_odds(
    ours: Mapping[str, int], theirs: Mapping[str, int], background: Mapping[str, int], prior: float = _PRIOR_WORDS
) -> dict[str, float]:
    """z score of each word's log-odds between two counts; above 0: rather ours.

    The prior spreads `prior` occurrences as the words of `background` are spread; a word that is not in it is left out.
    """
    total = sum(background.values())
    num_ours, num_theirs = sum(ours.values()), sum(theirs.values())
    found = {}
    for word in sorted(background):
        weight = prior * background[word] / total
        here, there = ours.get(word, 0) + weight, theirs.get(word, 0) + weight
        rest, other_rest = num_ours + prior - here, num_theirs + prior - there
        if weight > 0 and rest > 0 and other_rest > 0:
            delta = math.log(here / rest) - math.log(there / other_rest)
            found[word] = delta / math.sqrt(1 / here + 1 / there)
    return found


def contrasts(total: Associations, *, num_top: int = 8) -> list[dict[str, Any]]:
    """For each pair of sets, the attributes that lean most to either side, with z scores of 1.96 or more
    and five occurrences on that side; nothing where either side has fewer than twenty in all."""
    rows = []
    for one, other in _CONTRASTS:
        ours, theirs = (
            {attribute: count for (name, attribute), count in total.beside.items() if name == side}
            for side in (one, other)
        )
        is_enough = min(sum(ours.values()), sum(theirs.values())) >= _MIN_OCCURRENCES
        scores = log_odds(ours, theirs, total.seen) if is_enough else {}
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        rows.append(
            {
                "language": total.language,
                "one": one,
                "other": other,
                "occurrences": [sum(ours.values()), sum(theirs.values())],
                "toward_one": _leaning(ranked, ours, num_top),
                "toward_other": _leaning([(word, -z) for word, z in ranked[::-1]], theirs, num_top),
            }
        )
    return rows


def _leaning(ranked: Sequence[tuple[str, float]], beside: Mapping[str, int], num_top: int) -> list[list[Any]]:
    return [[word, round(z, 2)] for word, z in ranked if z >= _MIN_Z and beside.get(word, 0) >= _MIN_COUNT][:num_top]


def _add(
    total: Associations, text: str, finder: TermFinder, sets_of: Mapping[str, Sequence[str]], attributes: set[str]
) -> None:
    words, starts = units(text)
    total.num_units += len(words)
    places: dict[str, list[int]] = {}
    half: dict[str, list[int]] = {}
    found: list[tuple[str, int]] = []
    for number, start, end in finder.find(text):
        term = finder.terms[number]
        first = int(np.searchsorted(starts, start, side="right")) - 1
        last = int(np.searchsorted(starts, end, side="left")) - 1
        for name in sets_of.get(term, ()):
            places.setdefault(name, []).extend((first, last))
            half.setdefault(name, []).append(WINDOW_CHARS if is_han(term) else WINDOW_WORDS)
        if term in attributes:
            found.append((term, first))
    total.seen.update(term for term, _ in found)
    where = np.array([first for _, first in found], dtype=np.int64)
    for name, ends in places.items():
        near = _windows(np.array(ends, dtype=np.int64).reshape(-1, 2), np.array(half[name]), len(words))
        total.covered[name] += int(near.sum())
        if where.size:
            total.beside.update((name, found[idx][0]) for idx in np.flatnonzero(near[where]).tolist())


def _windows(spans: Ints, half: Ints, num_units: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which units lie within a window, the mention itself included."""
    edges = np.zeros(num_units + 1, dtype=np.int64)
    np.add.at(edges, np.maximum(spans[:, 0] - half, 0), 1)
    np.add.at(edges, np.minimum(spans[:, 1] + half + 1, num_units), -1)
    return np.cumsum(edges[:-1]) > 0
