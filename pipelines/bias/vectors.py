"""Word vectors of the corpus itself, and contrasts between sets of them (WEAT).

Vectors: positive PMI of a symmetric window with the context distribution smoothed by 0.75, cut to its leading
dimensions by an SVD, word and context vector added, so that words that stand together are near each other, too (Levy,
Goldberg and Dagan 2015, TACL 3:211). Contrast: effect size and permutation test of Caliskan,
Bryson and Narayanan 2017 (Science 356:183). Everything is seeded, so equal texts give equal figures.

Must not: hold more than the vocabulary squared. Words beyond it are skipped.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.bias.wordlists import TermFinder, units, word_sets
from pipelines.signals.keywords import normalise

Floats = npt.NDArray[np.float64]
Vectors = Mapping[str, Floats]

CONTRASTS = (
    ("female", "male", "family", "career"),
    ("female", "male", "arts", "science"),
    ("older", "younger", "unpleasant", "pleasant"),
    ("muslim", "christian", "unpleasant", "pleasant"),
)
"""X, Y, A, B: is X to A as Y is to B? After WEAT 6, 8, 10 and the religion tests."""
_SMOOTHING = 0.75
_OVERSAMPLING = 10
_NUM_POWER_ITERATIONS = 4
_PIECE_NUM_TOKENS = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorsConfig:
    """How vectors are made and tested."""

    max_words: int = 2000
    """Vocabulary: the words of the contrasts, then the most frequent. Memory is 16 bytes for each pair."""
    min_count: int = 5
    """A word seen less often has no vector."""
    window: int = 5
    """Tokens on either side."""
    num_dimensions: int = 50
    num_permutations: int = 10_000
    """Of the test; where fewer exist, all."""
    seed: int = 20170414
    """Of the projection and of the permutations."""


def train_vectors(texts: Sequence[str], language: str, config: VectorsConfig) -> dict[str, Floats]:
    """Unit vectors (num_dimensions,) of the frequent words of texts in one language; a word without company has none."""
    terms = sorted({word for words in word_sets("targets", language).values() for word in words})
    finder = TermFinder(terms)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokens(text, finder))
    listed = [term for term in terms if counts[term] >= config.min_count]
    others = sorted((word for word in counts if word not in set(terms)), key=lambda word: (-counts[word], word))
    frequent = [word for word in others if counts[word] >= config.min_count]
    words = [*listed, *frequent[: max(0, config.max_words - len(listed))]]
    if len(words) < 2:
        return {}
    numbers = {word: idx for idx, word in enumerate(words)}
    pairs = np.zeros((len(words), len(words)))
    for piece in _pieces(texts, finder, numbers):
        for distance in range(1, config.window + 1):
            left, right = piece[:-distance], piece[distance:]
            known = (left >= 0) & (right >= 0)
            np.add.at(pairs, (left[known], right[known]), 1.0)
    vectors = _reduced(_ppmi(pairs + pairs.T), config)
    return {word: vectors[idx] for word, idx in numbers.items() if vectors[idx].any()}


def tokens(text: str, finder: TermFinder) -> list[str]:
    """Words of a text in order: listed terms whole, other Chinese text by character."""
    text = normalise(text)
    found: list[str] = []
    place = 0
    for number, start, end in finder.find(text):
        found += units(text[place:start])[0]
        found.append(finder.terms[number])
        place = end
    return found + units(text[place:])[0]


def weat(vectors: Vectors, sets: Mapping[str, Sequence[str]], config: VectorsConfig) -> list[dict[str, Any]]:
    """The contrasts of CONTRASTS on these vectors: effect size d, one-sided p, and how many words each set had.

    d is None where a set has fewer than three words with a vector: there is nothing to say then.
    """
    rows = []
    for names in CONTRASTS:
        matrices = [np.array([vectors[word] for word in sets[name] if word in vectors]) for name in names]
        sizes = [len(matrix) for matrix in matrices]
        d, p = contrast(*matrices, config=config) if min(sizes) >= 3 else (None, None)
        rows.append(
            {
                "contrast": f"{names[0]} : {names[1]} :: {names[2]} : {names[3]}",
                "words": sizes,
                "effect_size": None if d is None else round(d, 2),
                "p": None if p is None else round(p, 4),
            }
        )
    return rows


def contrast(x: Floats, y: Floats, a: Floats, b: Floats, *, config: VectorsConfig) -> tuple[float, float]:
    """Effect size d, -2 to 2, and one-sided p: how much closer X is to A than to B, compared with Y.

    Rows are unit vectors. p is over all ways to deal X and Y into two such sets, or over a seeded sample of them with
    the dealt one counted in (so that it is never 0).
    """
    both = np.concatenate((x, y))
    lean = (both @ a.T).mean(axis=1) - (both @ b.T).mean(axis=1)
    spread = float(lean.std(ddof=1))
    size = len(x)
    gap = float(lean[:size].mean() - lean[size:].mean())
    if spread == 0:
        return 0.0, 1.0
    if comb(len(both), size) <= config.num_permutations:
        sums = np.array([lean[list(chosen)].sum() for chosen in itertools.combinations(range(len(both)), size)])
        extra = 0
    else:
        rng = np.random.default_rng(config.seed)
        order = np.argsort(rng.random((config.num_permutations, len(both))), axis=1)
        sums = lean[order[:, :size]].sum(axis=1)
        extra = 1
    reached = int((sums >= lean[:size].sum() - 1e-12).sum())
    return gap / spread, (reached + extra) / (len(sums) + extra)


def _pieces(texts: Sequence[str], finder: TermFinder, numbers: Mapping[str, int]) -> Iterator[npt.NDArray[np.int64]]:
    """Word numbers of each text, -1 for words without one, in pieces of bounded length."""
    for text in texts:
        ids = [numbers.get(word, -1) for word in tokens(text, finder)]
        for start in range(0, len(ids), _PIECE_NUM_TOKENS):
            yield np.array(ids[start : start + _PIECE_NUM_TOKENS], dtype=np.int64)


def _ppmi(pairs: Floats) -> Floats:
    total = pairs.sum()
    words = pairs.sum(axis=1)
    contexts = words**_SMOOTHING
    contexts /= max(contexts.sum(), 1.0)
    expected = np.outer(words, contexts)
    ratio = np.divide(pairs, expected, out=np.zeros_like(pairs), where=(expected > 0) & (total > 0))
    return np.log(np.maximum(ratio, 1.0))


def _reduced(matrix: Floats, config: VectorsConfig) -> Floats:
    """Rows of unit length in the leading dimensions, found by a seeded projection (Halko, Martinsson and Tropp 2011)."""
    num_dimensions = min(config.num_dimensions, len(matrix))
    rng = np.random.default_rng(config.seed)
    basis = rng.standard_normal((len(matrix), min(num_dimensions + _OVERSAMPLING, len(matrix))))
    for _ in range(_NUM_POWER_ITERATIONS):
        basis = np.linalg.qr(matrix @ (matrix.T @ basis))[0]
    left, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    vectors = (basis @ left + right.T)[:, :num_dimensions] * np.sqrt(values[:num_dimensions])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)
