"""A small classifier of abusive sentences, trained in the pipeline: logistic regression on hashed n-grams.

Words, pairs, pairs with a gap and parts of words for Latin scripts, characters up to four in a row for Chinese (the
baseline of Wulczyn, Thain and Dixon 2017, arXiv:1610.08914), hashed into a fixed table (Weinberger et al. 2009,
arXiv:0902.2206), fitted with AdaGrad (Duchi et al. 2011). Names of groups are one sign (masking.py), quotations that
somebody is said to have made another, and signs of counter-speech are features of their own (contexts.py).

Rows in a fixed order and a seeded draw, so equal files give equal weights.

Must not: judge a document by itself. It gives the score of a sentence; see toxicity_stage.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from pipelines.bias.contexts import CUES, QUOTE, without_quotations
from pipelines.bias.masking import GROUP, mask
from pipelines.bias.wordlists import LANGUAGES, TermFinder, word_sets
from pipelines.signals.keywords import normalise

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

MAX_NUM_CHARS = 600
"""Characters read of a sentence."""
_LATIN = "0-9a-z\u00c0-\u024f"
_HAN = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"[{GROUP}{QUOTE}]|[{_LATIN}]+(?:['’][{_LATIN}]+)*|[{_HAN}]|[?!]")
_IS_HAN = re.compile(rf"[{_HAN}]")
_CHUNK_NUM_TEXTS = 1024
"""Texts whose features are made at a time: some megabytes."""
_ODD = 0x9E3779B97F4A7C15
_NGRAM_SEEDS = (0, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3)
_GAP_SEED = 0x1D8E4E27C47D124F


@dataclass(frozen=True, kw_only=True, slots=True)
class ToxicityTraining:
    """How the classifier is made."""

    num_buckets: int = 1 << 18
    """Size of the table of weights, a power of two; 4 bytes each."""
    num_updates: int = 800
    """Steps of the fit, whatever the number of texts."""
    batch_size: int = 128
    """Texts in a step."""
    learning_rate: float = 0.1
    l2: float = 1e-5
    """Weight decay of the weights touched by a step."""
    seed: int = 5
    """Of the order in which texts are seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToxicityModel:
    """Weights of a trained classifier."""

    weights: Weights
    """(num_buckets,)."""
    intercept: float


def train_toxicity(texts: Sequence[str], labels: Sequence[bool], training: ToxicityTraining) -> ToxicityModel:
    """Fit to sentences and whether each is abusive; both classes weigh the same, however many texts each has.

    Raises ValueError where the two differ in number or a class has no text.
    """
    if len(texts) != len(labels) or not texts or all(labels) or not any(labels):
        raise ValueError(
            f"got {len(texts)} texts and {len(labels)} labels, {sum(labels)} of them abusive, wanted as many of each and "
            "both kinds: check the file."
        )
    features = _features_of(texts, training.num_buckets)
    wanted = np.array(labels, dtype=np.float64)
    balance = np.where(wanted > 0, 0.5 / wanted.mean(), 0.5 / (1 - wanted.mean()))
    weights, squares = np.zeros(training.num_buckets), np.full(training.num_buckets, 1e-8)
    intercept, intercept_square = 0.0, 1e-8
    rng = np.random.default_rng(training.seed)
    order = rng.permutation(len(texts))
    place = 0
    for _ in range(training.num_updates):
        if place >= len(order):
            order, place = rng.permutation(len(texts)), 0
        chosen = order[place : place + training.batch_size]
        place += training.batch_size
        rows = np.repeat(np.arange(len(chosen)), [len(features[idx]) for idx in chosen])
        columns = np.concatenate([features[idx] for idx in chosen])
        values = np.repeat(
            [max(len(features[idx]), 1) ** -0.5 for idx in chosen], np.bincount(rows, minlength=len(chosen))
        )
        sums = np.bincount(rows, weights=weights[columns] * values, minlength=len(chosen))
        error = (_sigmoid(sums + intercept) - wanted[chosen]) * balance[chosen]
        touched, inverse = np.unique(columns, return_inverse=True)
        slope = np.bincount(inverse, weights=error[rows] * values) / len(chosen) + training.l2 * weights[touched]
        squares[touched] += slope**2
        weights[touched] -= training.learning_rate * slope / np.sqrt(squares[touched])
        lean = float(error.mean())
        intercept_square += lean**2
        intercept -= training.learning_rate * lean / intercept_square**0.5
    return ToxicityModel(weights=weights.astype(np.float32), intercept=float(intercept))


def _features_of(texts: Sequence[str], num_buckets: int) -> list[Ints]:
    """Buckets of each text."""
    found: list[Ints] = []
    for start in range(0, len(texts), _CHUNK_NUM_TEXTS):
        chunk = [seen_by_model(text) for text in texts[start : start + _CHUNK_NUM_TEXTS]]
        rows, columns = _features(chunk, num_buckets)
        order = np.argsort(rows, kind="stable")
        found += np.split(columns[order], np.cumsum(np.bincount(rows, minlength=len(chunk)))[:-1])
    return found


def toxicity(model: ToxicityModel, texts: Sequence[str]) -> list[float]:
    """The score of each sentence, 0 to 1, rounded to four digits; of one without words, that of the intercept."""
    return scores(model, [seen_by_model(text) for text in texts])


def seen_by_model(text: str) -> str:
    """A sentence as the classifier sees it: normalised, without names of groups."""
    return mask(normalise(text[:MAX_NUM_CHARS]))


def scores(model: ToxicityModel, seen: Sequence[str]) -> list[float]:
    """The same for sentences that `seen_by_model` has been over."""
    found: list[float] = []
    for start in range(0, len(seen), _CHUNK_NUM_TEXTS):
        chunk = seen[start : start + _CHUNK_NUM_TEXTS]
        rows, columns = _features(chunk, len(model.weights))
        totals = np.bincount(rows, weights=model.weights[columns], minlength=len(chunk))
        num = np.maximum(np.bincount(rows, minlength=len(chunk)), 1)
        sums: Floats = totals.astype(np.float64) * num**-0.5 + model.intercept
        found += np.round(_sigmoid(sums), 4).tolist()
    return found


def _features(seen: Sequence[str], num_buckets: int) -> tuple[Ints, Ints]:
    """(text, bucket) of each feature, as often as it stands in a text; not in the order of the texts."""
    units = [_UNIT.findall(without_quotations(text[:MAX_NUM_CHARS])) for text in seen]
    words = [_word(unit) for each in units for unit in each]
    hashes = np.array([each for each, _ in words], dtype=np.uint64)
    rows = np.repeat(np.arange(len(seen)), [len(each) for each in units])
    is_han = np.array([_IS_HAN.search(text) is not None for text in seen], dtype=np.bool_)
    parts, places = [hashes], [rows]
    if words:
        pieces = [each for _, each in words]
        parts.append(np.concatenate(pieces))
        places.append(np.repeat(rows, [len(each) for each in pieces]))
    for n in (2, 3, 4):
        grams, whose = _ngrams(hashes, rows, n)
        if n == 4:
            grams, whose = grams[is_han[whose]], whose[is_han[whose]]
        parts.append(grams)
        places.append(whose)
    if len(hashes) > 2:
        near = rows[:-2] == rows[2:]
        parts.append(_mixed(hashes[:-2] * np.uint64(_ODD) + hashes[2:] + np.uint64(_GAP_SEED))[near])
        places.append(rows[2:][near])
    finder, names = _cues()
    for row, text in enumerate(seen):
        cues = {names[number] for number, _, _ in finder.find(text)}
        parts.append(np.array([_word(f"#{name}")[0] for name in sorted(cues)], dtype=np.uint64))
        places.append(np.full(len(cues), row, dtype=np.int64))
    buckets = np.concatenate(parts) & np.uint64(num_buckets - 1)
    return np.concatenate(places), buckets.astype(np.int64)


def _ngrams(hashes: Hashes, rows: Ints, n: int) -> tuple[Hashes, Ints]:
    """Hashes of n units in a row of one text, and whose they are."""
    num = max(len(hashes) - n + 1, 0)
    total = np.full(num, _NGRAM_SEEDS[n], dtype=np.uint64)
    for offset in range(n):
        total = total * np.uint64(_ODD) + hashes[offset : offset + num]
    own = rows[:num] == rows[n - 1 : n - 1 + num]
    return _mixed(total)[own], rows[:num][own]


def _mixed(hashes: Hashes) -> Hashes:
    hashes = (hashes ^ (hashes >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return hashes ^ (hashes >> np.uint64(29))


@cache
def _cues() -> tuple[TermFinder, tuple[str, ...]]:
    """A finder of the words that are signs of counter-speech, and the set of each."""
    listed = {
        word: name for language in LANGUAGES for name in reversed(CUES) for word in word_sets("cues", language)[name]
    }
    return TermFinder(list(listed)), tuple(listed.values())


@lru_cache(maxsize=1 << 15)
def _word(unit: str) -> tuple[int, Hashes]:
    """The hash of a word or character, and of the parts of a longer word."""
    edged = f"<{unit[:32]}>"
    pieces = [edged[at : at + n] for n in (3, 4, 5) for at in range(len(edged) - n + 1)] if len(unit) > 2 else []
    return _hash(unit), np.array([_hash(f"~{piece}") for piece in pieces], dtype=np.uint64)


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def _sigmoid(x: npt.NDArray[np.floating[Any]]) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))), dtype=np.float64)
