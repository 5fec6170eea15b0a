"""Two stages: toxicity_model trains the classifiers, toxicity reads every document that needs a second look.

Apart from the signals stage, because a changed training file or rule of context must not cost what all other signals
cost. A document is looked into where it holds a word of the abuse list or names a group; all others are passed by, so
that they cost next to nothing. It is judged by its sentences: one quoted insult in a long text is no attack.
"""

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.bias.contexts import context_of
from pipelines.bias.labelled_files import labelled_rows
from pipelines.bias.masking import mask, mentions
from pipelines.bias.seeds import seeds
from pipelines.bias.toxicity import ToxicityModel, ToxicityTraining, scores, train_toxicity
from pipelines.bias.wordlists import LANGUAGES, is_han
from pipelines.errors import ConfigError
from pipelines.schemas import DOCUMENT, SIGNALS, TOXICITY, TOXICITY_MODEL, select
from pipelines.signals.keywords import Hit, keyword_finder, normalise
from pipelines.stage import Kind, Resource, Stage

ABUSE = "abuse"
"""Category of the word lists whose hits are looked at."""
TOXIC_FROM = 0.8
"""Score from which a sentence counts as toxic in `toxic_sentence_ratio` (ours)."""
MAX_NUM_CHARS = 200_000
"""Read of one document."""

_LANGUAGE_CODES: Mapping[str | None, tuple[str, ...]] = {
    "en": LANGUAGES,
    "zh": LANGUAGES,
    "yue": LANGUAGES,
    "wuu": LANGUAGES,
    None: LANGUAGES,  # too short to tell: the script of each sentence tells
}
_MAX_NUM_HITS = 1000
"""Of the abuse list that are looked at in one document; the rest counts as abuse."""
_BEFORE_CHARS, _AFTER_CHARS = 300, 500
_MAX_WINDOW_CHARS = 300
"""Of a sentence and the one after it, so that both can be read together."""
_TOP_SHARE = 0.1
"""Share of the sentences whose mean is a document's score (ours)."""
_END = re.compile(r"[。!?;\n][。!?;\s]*|\.(?=[\s\"”’)])")


@dataclass(frozen=True, kw_only=True, slots=True)
class ToxicityModelConfig:
    """What the classifiers are trained on, beside the sentences of our own."""

    train: Mapping[str, tuple[Resource, ...]] = field(default_factory=dict)
    """Language, en or zh, to labelled files."""
    text_field: str = "text"
    """Field of the files that holds the text."""
    label_field: str = "label"
    """Field of the files that says whether it is abusive."""
    min_seed_share: float = 0.1
    """Share of our own sentences in the training, at least: they are repeated where files are large, so that what is no
    attack on a group is not forgotten (ours)."""
    training: ToxicityTraining = field(default_factory=ToxicityTraining)
    """How they are fitted."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.train) - set(LANGUAGES)):
            raise ConfigError(f"got toxicity.train for {unknown[0]!r}, wanted en or zh: correct it.")
        if not 0 <= self.min_seed_share < 1:
            raise ConfigError(
                f"got toxicity.min_seed_share {self.min_seed_share!r}, wanted 0 to below 1: 0.1 is usual."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ToxicityConfig:
    """What is looked for in a document."""

    keyword_lexicons: tuple[Resource, ...] = ()
    """Word lists beside the built-in ones, as in the signals stage."""
    model: Resource | None = None
    """The shard of classifiers; None: only the contexts of listed words are told."""
    scan: str = "mentions"
    """mentions: sentences that name a group or hold a word of the abuse list are scored. all: every sentence."""

    def __post_init__(self) -> None:
        if self.scan not in ("mentions", "all"):
            raise ConfigError(f"got toxicity.scan {self.scan!r}, wanted mentions or all: correct it.")


def train_models(_batches: Iterable[pa.RecordBatch], config: ToxicityModelConfig) -> Iterator[pa.RecordBatch]:
    """Labelled files -> TOXICITY_MODEL, one row for each language; no input shard is read.

    Raises ConfigError for a file that cannot be read.
    """
    rows = []
    for language in LANGUAGES:
        given = [
            row
            for resource in config.train.get(language, ())
            for row in labelled_rows(Path(resource.path), config.text_field, config.label_field)
        ]
        own = seeds(language)
        wanted = config.min_seed_share * len(given) / (1 - config.min_seed_share)
        repeated = [*own] * max(1, math.ceil(wanted / len(own)))
        texts, labels = zip(*(*repeated, *given), strict=True)
        model = train_toxicity(texts, labels, config.training)
        rows.append(
            {
                "language": language,
                "intercept": model.intercept,
                "weights": model.weights,
                "num_given": len(given),
                "num_given_abusive": sum(label for _, label in given),
            }
        )
    yield pa.RecordBatch.from_pylist(rows, schema=TOXICITY_MODEL)


def measure_toxicity(batches: Iterable[pa.RecordBatch], config: ToxicityConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT + SIGNALS -> TOXICITY, one row for each row, in order.

    The first MAX_NUM_CHARS characters of a text are scored, and the first 1,000 hits of the abuse list looked at. A text
    in a language without a classifier scores 0, with no sentence scored; without a model no row has a score.
    """
    models = None if config.model is None else _models(config.model)
    for batch in batches:
        abuse = _abuse_counts(batch["keyword_counts"])
        contexts: list[Counter[str]] = [Counter() for _ in range(batch.num_rows)]
        terms: dict[int, set[str]] = {}
        for row in np.flatnonzero(abuse).tolist():
            contexts[row], terms[row] = _looked_at(batch["text"][row].as_py(), _finder(config.keyword_lexicons))
        scored = {} if models is None else _scored(batch, terms, models, config)
        yield _columns(batch, contexts, scored, has_model=models is not None)


TOXICITY_MODEL_STAGE = Stage(
    name="toxicity_model",
    version=1,
    kind=Kind.GLOBAL,
    inputs=(),
    output=TOXICITY_MODEL,
    transform=train_models,
    libraries=("ahocorasick_rs", "llvmlite", "numba", "numpy", "xxhash"),
    package_data=("pipelines/bias/lexicons", "pipelines/signals/lexicons"),
)
TOXICITY_STAGE = Stage(
    name="toxicity",
    version=1,
    inputs=(
        select(DOCUMENT, "doc_id", "text"),
        select(SIGNALS, "doc_id", "language", "keyword_counts", "identity_counts"),
    ),
    output=TOXICITY,
    transform=measure_toxicity,
    row_seconds=5e-5,
    is_row_wise=True,
    libraries=("ahocorasick_rs", "llvmlite", "numba", "numpy", "xxhash"),
    package_data=("pipelines/bias/lexicons", "pipelines/signals/lexicons"),
)


@dataclass(frozen=True, slots=True)
class _Scores:
    """What the sentences of a document scored, the others being 0."""

    num_sentences: int
    found: list[float]

    def mean_of_top(self) -> float:
        num = max(1, math.ceil(_TOP_SHARE * self.num_sentences))
        return sum(sorted(self.found, reverse=True)[:num]) / num

    def share_toxic(self) -> float:
        return sum(score >= TOXIC_FROM for score in self.found) / max(self.num_sentences, 1)


def _looked_at(text: str, find: Any) -> tuple[Counter[str], set[str]]:
    """How many hits of the abuse list stand in which context, and the terms that were hit."""
    hits: list[Hit] = [hit for hit in find(text) if hit.category == ABUSE]
    found: Counter[str] = Counter()
    for hit in hits[:_MAX_NUM_HITS]:
        before = normalise(text[max(0, hit.start - _BEFORE_CHARS) : hit.start])
        context = context_of(before, normalise(text[hit.end : hit.end + _AFTER_CHARS]))
        if context is not None:
            found[context] += 1
    return found, {hit.term for hit in hits}


def _scored(
    batch: pa.RecordBatch, terms: Mapping[int, set[str]], models: Mapping[str, ToxicityModel], config: ToxicityConfig
) -> dict[int, _Scores]:
    """Scores of the documents that have something to score, by row: all sentences of the batch in one go."""
    names_group = pc.greater(pc.list_value_length(batch["identity_counts"]), 0).to_numpy(zero_copy_only=False)
    waiting: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    places: list[tuple[int, str, int]] = []
    num_sentences: dict[int, int] = {}
    for row, language in enumerate(batch["language"].to_pylist()):
        wanted = config.scan == "all" or names_group[row] or row in terms
        if not wanted or language not in _LANGUAGE_CODES:
            continue
        text = normalise(batch["text"][row].as_py()[:MAX_NUM_CHARS])
        ends = _sentence_ends(text)
        num_sentences[row] = len(ends)
        for idx in _chosen(text, ends, terms.get(row, set()), config.scan):
            window = _window(text, ends, idx)
            spoken = "zh" if is_han(window) else "en"
            places.append((row, spoken, len(waiting[spoken])))
            waiting[spoken].append(mask(window))
    found = {language: scores(models[language], texts) for language, texts in waiting.items()}
    by_row: dict[int, list[float]] = {row: [] for row in num_sentences}
    for row, language, idx in places:
        by_row[row].append(found[language][idx])
    return {row: _Scores(num_sentences[row], each) for row, each in by_row.items()}


def _sentence_ends(text: str) -> list[int]:
    """Where each sentence of a normalised text ends."""
    ends = [match.end() for match in _END.finditer(text)]
    return ends if ends and not text[ends[-1] :].strip() else [*ends, len(text)]


def _chosen(text: str, ends: Sequence[int], terms: set[str], scan: str) -> Iterable[int]:
    """Sentences to score, by number."""
    if scan == "all":
        return range(len(ends))
    starts = mentions(text)
    for term in sorted(terms):
        starts += [match.start() for match in re.finditer(re.escape(term), text)]
    return sorted({bisect_right(ends, start) for start in starts if start < ends[-1]})


def _window(text: str, ends: Sequence[int], idx: int) -> str:
    """A sentence with the one after it in the same paragraph, where both are short: it may say who is meant, or blame."""
    start, end = ends[idx - 1] if idx else 0, ends[idx]
    tail = text[max(start, end - 8) : end]
    ends_paragraph = "\n" in tail[len(tail.rstrip()) :]
    if idx + 1 < len(ends) and not ends_paragraph and ends[idx + 1] - start <= _MAX_WINDOW_CHARS:
        end = ends[idx + 1]
    return text[start:end]


def _abuse_counts(counts: pa.ListArray) -> npt.NDArray[np.int64]:
    rows = pc.list_parent_indices(counts).to_numpy(zero_copy_only=False)
    flat = pc.list_flatten(counts)
    is_abuse = pc.equal(pc.struct_field(flat, [0]), ABUSE).to_numpy(zero_copy_only=False)
    return np.bincount(rows[is_abuse], minlength=len(counts))


def _columns(
    batch: pa.RecordBatch, contexts: Sequence[Counter[str]], scored: Mapping[int, _Scores], *, has_model: bool
) -> pa.RecordBatch:
    nothing = _Scores(0, [])
    each = [scored.get(row, nothing) for row in range(batch.num_rows)]
    columns: dict[str, Any] = {
        "doc_id": batch["doc_id"],
        "abuse_in_context": [
            [{"context": name, "count": counts[name]} for name in sorted(counts)] for counts in contexts
        ],
        "toxicity": [row.mean_of_top() if has_model else None for row in each],
        "toxicity_max": [max(row.found, default=0.0) if has_model else None for row in each],
        "toxic_sentence_ratio": [row.share_toxic() if has_model else None for row in each],
        "num_scored_sentences": [len(row.found) for row in each],
    }
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, TOXICITY.field(name).type)
        for name, values in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=TOXICITY)


@lru_cache(maxsize=1)
def _models(resource: Resource) -> dict[str, ToxicityModel]:
    """The classifiers of a shard, by language."""
    with pa.memory_map(resource.path) as source:
        table = pa.ipc.open_stream(source).read_all()
    return {
        language: ToxicityModel(weights=np.array(weights.values, dtype=np.float32), intercept=intercept)
        for language, weights, intercept in zip(
            table["language"].to_pylist(), table["weights"], table["intercept"].to_pylist(), strict=True
        )
    }


_finder = lru_cache(maxsize=1)(keyword_finder)
"""Kept from shard to shard, like that of the signals stage."""
