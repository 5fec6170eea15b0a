"""A small classifier of abusive text, trained in the pipeline from a given file: logistic regression on hashed n-grams.

Characters for Chinese, words and characters for Latin scripts (the baseline of Wulczyn, Thain and Dixon 2017,
arXiv:1610.08914), hashed into a fixed table (Weinberger et al. 2009, arXiv:0902.2206), fitted with AdaGrad (Duchi et
al. 2011). Rows in a fixed order, so equal files give equal weights.

Must not: be the only judge of a document. It learns the names of groups from data in which they are mostly attacked.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.bias.wordlists import units
from pipelines.signals.keywords import normalise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToxicityTraining:
    """How the classifier is made."""

    num_buckets: int = 1 << 18
    """Size of the table of weights; 8 bytes each."""
    max_ngram: int = 3
    """Words, or Han characters, in the longest n-gram."""
    num_epochs: int = 4
    batch_size: int = 256
    """Texts."""
    learning_rate: float = 0.1
    l2: float = 1e-5
    """Weight decay of the weights touched by a batch."""
    seed: int = 5
    """Of the order in which texts are seen."""
    max_chars: int = 20_000
    """Characters read of a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToxicityModel:
    """Weights of a trained classifier."""

    weights: Floats
    """(num_buckets,)."""
    intercept: float
    training: ToxicityTraining


def train_toxicity(texts: Sequence[str], labels: Sequence[bool], training: ToxicityTraining) -> ToxicityModel:
    """Fit to texts and whether each is abusive. Raises ValueError where the two differ in number or nothing is given."""
    if len(texts) != len(labels) or not texts:
        raise ValueError(f"got {len(texts)} texts and {len(labels)} labels, wanted as many of each: check the file.")
    features = [_features(text, training) for text in texts]
    wanted = np.array(labels, dtype=np.float64)
    weights, squares = np.zeros(training.num_buckets), np.full(training.num_buckets, 1e-8)
    intercept, intercept_square = 0.0, 1e-8
    rng = np.random.default_rng(training.seed)
    for _ in range(training.num_epochs):
        order = rng.permutation(len(texts))
        for start in range(0, len(order), training.batch_size):
            chosen = order[start : start + training.batch_size]
            rows, columns, values = _joined([features[idx] for idx in chosen])
            error = _sigmoid(_sums(rows, columns, values, len(chosen), weights) + intercept) - wanted[chosen]
            touched, inverse = np.unique(columns, return_inverse=True)
            slope = np.bincount(inverse, weights=error[rows] * values) / len(chosen) + training.l2 * weights[touched]
            squares[touched] += slope**2
            weights[touched] -= training.learning_rate * slope / np.sqrt(squares[touched])
            lean = float(error.mean())
            intercept_square += lean**2
            intercept -= training.learning_rate * lean / intercept_square**0.5
    return ToxicityModel(weights=weights, intercept=intercept, training=training)


def toxicity(model: ToxicityModel, texts: Sequence[str]) -> list[float]:
    """Probability that each text is abusive, 0 to 1; of a text without words, what the training texts were on the whole."""
    found = []
    for text in texts:
        columns, values = _features(text, model.training)
        found.append(float(_sigmoid(np.array(model.weights[columns] @ values + model.intercept))))
    return found


def _features(text: str, training: ToxicityTraining) -> tuple[Ints, Floats]:
    """Buckets of the n-grams of a text, each once, with values that make a vector of unit length."""
    words, _ = units(normalise(text[: training.max_chars]))
    grams = {" ".join(words[at : at + n]) for n in range(1, training.max_ngram + 1) for at in range(len(words) - n + 1)}
    grams |= {
        f"#{edged[at : at + n]}"
        for word in set(words)
        if len(word) > 1
        for edged in (f"<{word[:64]}>",)
        for n in (3, 4)
        for at in range(len(edged) - n + 1)
    }
    buckets = sorted({zlib.crc32(gram.encode("utf-8", "surrogatepass")) % training.num_buckets for gram in grams})
    return np.array(buckets, dtype=np.int64), np.full(len(buckets), max(len(buckets), 1) ** -0.5)


def _joined(features: Sequence[tuple[Ints, Floats]]) -> tuple[Ints, Ints, Floats]:
    rows = np.repeat(np.arange(len(features)), [len(columns) for columns, _ in features])
    return rows, np.concatenate([each for each, _ in features]), np.concatenate([each for _, each in features])


def _sums(rows: Ints, columns: Ints, values: Floats, num_rows: int, weights: Floats) -> Floats:
    return np.bincount(rows, weights=weights[columns] * values, minlength=num_rows).astype(np.float64)


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))
