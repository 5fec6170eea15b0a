"""Thresholds applied to what was measured: which documents are kept, and why the others are not.

Every rule is one value: a name, the signal it reads, a comparison, a threshold. A document passes
a rule or fails it; it is kept where it fails none. The names are the published ones in snake case.

Sources: Gopher quality and repetition (arXiv:2112.11446, appendix A1), C4 (arXiv:1910.10683),
FineWeb (arXiv:2406.17557), FineWeb-2 (arXiv:2506.20920, its configs/cmn_Hani.yml), MAP-NEO
(arXiv:2405.19327). "Ours" marks a value nobody published.

Must not: measure. Nothing here looks at a text, so a changed threshold costs seconds. So does a changed block list:
lists are asked here, not in the signals stage, since an address is read without the text, and 5 million entries load
in 3 s of CPU time where a million documents take the signals stage half an hour.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.blocklists import BlockList, blocked_by, load_block_lists
from pipelines.errors import ConfigError
from pipelines.pii import DEFAULT_KINDS, ENTITY_KINDS
from pipelines.rights.license_classes import LICENSE_CLASSES, accepted_classes
from pipelines.schemas import CONTAMINATION, DECISION, PERPLEXITY, SIGNALS, TOXICITY, select
from pipelines.stage import Stage
from pipelines.tallies import tally_decisions

MISSING_SIGNAL = "missing_signal"
"""Reason where a quality, language, bias or PII rule found no value: a ratio without a denominator."""


class Comparison(StrEnum):
    """What a value must be, against the threshold, to pass."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    ONE_OF = "one_of"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule of a policy."""

    name: str
    group: str
    """compliance, evaluation, language, quality, bias or pii."""
    signal: str
    """A column of SIGNALS, or a figure made of several: see `_derived`."""
    comparison: Comparison
    threshold: float | tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleResult:
    """What a rule found in one document."""

    name: str
    value: float | str | None
    threshold: float | tuple[str, ...] | None
    passed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ComplianceRules:
    """What the page's own signals and its content allow. A missing value fails every rule of this group."""

    unknown_rights: str = "keep"
    """keep or drop: pages that say nothing about training (opt-out or opt-in)."""
    max_blocked_ai_agents: int | None = 0
    """Crawlers that collect training data (GPTBot, CCBot and the like) which the site's robots.txt may shut out of the
    page (ours): who names them has said what is meant, whatever the name of the one that comes. None: off."""
    allowed_licenses: tuple[str, ...] | None = None
    """SPDX identifiers; a page without one of these is dropped. None: any page, licensed or not."""
    allowed_license_classes: tuple[str, ...] | None = None
    """Of open, nc, nd, all-rights-reserved and unknown: a page of another class is dropped; one whose licence has both
    NC and ND passes where both are allowed. Holds beside `allowed_licenses`. None: any page."""
    max_adult_per_1000_words: float | None = 10.0
    """Hits of the adult word list per 1,000 words (ROOTS, English flagged words: 0.01). None: off."""
    max_abuse_per_1000_words: float | None = 10.0
    """Hits of the abuse word list per 1,000 words (ROOTS, as above). None: off."""
    max_spam_per_1000_words: float | None = 10.0
    """Hits of the spam word list per 1,000 words (ours, by analogy). None: off."""
    max_keywords_per_1000_words: Mapping[str, float] = field(default_factory=dict)
    """Hits per 1,000 words allowed for categories of one's own word lists, {"A.1": 2, "politics": 5}; a name stands for
    the categories below it too (A.1.3). Categories that are not named are counted and judged by nothing."""
    min_keyword_hits: int = 3
    """Fewer hits of a word list than this count as none: one word proves nothing in a short text (ours)."""

    def __post_init__(self) -> None:
        if self.unknown_rights not in ("keep", "drop"):
            raise ConfigError(f"got compliance.unknown_rights {self.unknown_rights!r}, wanted keep or drop.")
        for name in self.allowed_license_classes or ():
            if name not in LICENSE_CLASSES:
                raise ConfigError(
                    f"got compliance.allowed_license_classes {name!r}, wanted some of {', '.join(LICENSE_CLASSES)}."
                )
        if self.allowed_license_classes is not None and not self.allowed_license_classes:
            raise ConfigError("got compliance.allowed_license_classes without one: name a class, or null for any.")
        for name, ceiling in self.max_keywords_per_1000_words.items():
            if not 0 < ceiling < math.inf:
                raise ConfigError(f"got compliance.max_keywords_per_1000_words.{name} {ceiling!r}, wanted above 0.")
        for category in ("adult", "abuse", "spam"):
            _check_threshold(
                f"compliance.max_{category}_per_1000_words", getattr(self, f"max_{category}_per_1000_words")
            )
        _check_threshold("compliance.max_blocked_ai_agents", self.max_blocked_ai_agents)
        _check_threshold("compliance.min_keyword_hits", self.min_keyword_hits)


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageRules:
    """Which languages are wanted."""

    allowed: tuple[str, ...] = ("en", "zh")
    """ISO 639 codes."""
    min_score: float | None = 0.65
    """Confidence of the identifier, 0 to 1 (FineWeb). None: any."""

    def __post_init__(self) -> None:
        if not self.allowed:
            raise ConfigError("got language.allowed without a language: name at least one or switch the group off.")
        _check_threshold("language.min_score", self.min_score, maximum=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityRules:
    """Is it prose worth learning from? The published values for English; None switches a rule off for every language.

    Chinese and its relatives have values of their own (`CHINESE_THRESHOLDS`), because each Han
    character counts as a word there. `per_language` goes before both.
    """

    min_words: float | None = 50
    """Gopher."""
    max_words: float | None = 100_000
    """Gopher."""
    min_mean_word_length: float | None = 3
    """Characters (Gopher)."""
    max_mean_word_length: float | None = 10
    """Characters (Gopher)."""
    max_hash_to_word_ratio: float | None = 0.1
    """Gopher."""
    max_ellipsis_to_word_ratio: float | None = 0.1
    """Gopher."""
    max_bullet_line_ratio: float | None = 0.9
    """Gopher."""
    max_ellipsis_line_ratio: float | None = 0.3
    """Gopher."""
    min_alpha_word_ratio: float | None = 0.8
    """Words with a letter (Gopher)."""
    min_stop_words: float | None = 2
    """Different stop words (Gopher)."""
    max_dup_paragraph_ratio: float | None = 0.3
    """Gopher repetition, as all that follow to `max_dup_10_gram_char_ratio`."""
    max_dup_paragraph_char_ratio: float | None = 0.2
    """Share of characters."""
    max_dup_line_ratio: float | None = 0.3
    """Share of lines."""
    max_dup_line_char_ratio: float | None = 0.2
    """Share of characters."""
    max_top_2_gram_char_ratio: float | None = 0.20
    """Share of characters in the most frequent n-gram of words."""
    max_top_3_gram_char_ratio: float | None = 0.18
    """As above."""
    max_top_4_gram_char_ratio: float | None = 0.16
    """As above."""
    max_dup_5_gram_char_ratio: float | None = 0.15
    """Share of characters in n-grams of words seen before in the document."""
    max_dup_6_gram_char_ratio: float | None = 0.14
    """As above."""
    max_dup_7_gram_char_ratio: float | None = 0.13
    """As above."""
    max_dup_8_gram_char_ratio: float | None = 0.12
    """As above."""
    max_dup_9_gram_char_ratio: float | None = 0.11
    """As above."""
    max_dup_10_gram_char_ratio: float | None = 0.10
    """As above."""
    min_sentences: float | None = 5
    """C4."""
    drop_lorem_ipsum: bool = True
    """C4."""
    drop_curly_bracket: bool = False
    """C4 drops each page with a `{`, to be rid of scripts. Off: extraction removes those, documentation shows code."""
    max_policy_line_ratio: float | None = 0.4
    """Lines of terms of use, cookie notices and the like. C4 removes such lines; the share is NeMo Curator's."""
    min_line_punctuation_ratio: float | None = 0.12
    """Lines that end in terminal punctuation (FineWeb)."""
    max_short_line_ratio: float | None = 0.67
    """Lines of at most 30 characters (FineWeb)."""
    max_dup_char_ratio: float | None = 0.01
    """Characters in repeated lines (FineWeb)."""
    max_newline_to_word_ratio: float | None = 0.3
    """FineWeb."""
    max_perplexity: float | None = None
    """To the n-gram model of the document's language, a piece (cc_net). Needs `perplexity`, and a value of one's own: it
    says as much of the model as of the text."""
    max_bits_per_byte: float | None = None
    """The same surprise a byte of UTF-8 (ours): depends less on how the model cuts words."""
    per_language: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Language code to field to value, where it differs: {"de": {"min_stop_words": null}}. Thresholds only."""

    def __post_init__(self) -> None:
        for name in _THRESHOLD_FIELDS:
            _check_threshold(f"quality.{name}", getattr(self, name))
        for language, overrides in self.per_language.items():
            for name, value in overrides.items():
                if name not in _THRESHOLD_FIELDS:
                    raise ConfigError(
                        f"got quality.per_language.{language}.{name}, wanted the name of a quality threshold."
                    )
                _check_threshold(f"quality.per_language.{language}.{name}", value)

    def perplexity_thresholds(self) -> tuple[str, ...]:
        """The thresholds that are set and ask for a measured perplexity."""
        given = [name for name in PERPLEXITY_FIELDS if getattr(self, name) is not None]
        for language, overrides in self.per_language.items():
            own = (name for name in PERPLEXITY_FIELDS if overrides.get(name) is not None)
            given += [f"per_language.{language}.{name}" for name in own]
        return tuple(given)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierRule:
    """A floor under what a fastText classifier says of a document."""

    name: str
    """The classifier's, as in `classifier_scores`."""
    min_score: float
    """Probability of its label, 0 to 1."""
    languages: tuple[str, ...] | None = None
    """ISO 639 codes of the languages that it is asked about; None: all."""

    def __post_init__(self) -> None:
        _check_threshold(f"quality.classifiers.{self.name}.min_score", self.min_score, maximum=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class BiasRules:
    """A ceiling on abuse that goes with the naming of a group: slurs and insults beside identity terms.

    Hits in a context of counter-speech, news, law, health or self-reference (bias/contexts.py) are none, here and in
    `abuse_density`. The figure is min(abuse hits, identity mentions) per 1,000 words: naming groups alone is 0, and
    so is swearing at nobody in particular. Text that mentions a group is judged by nothing else here.
    """

    max_identity_abuse_per_1000_words: float | None = 5.0
    """Half of what abuse may reach alone (ours)."""
    min_hits: int = 2
    """Fewer pairs of an insult and a group count as none (ours): a quoted insult is not an attack."""
    max_toxicity: float | None = None
    """Score of the classifier, 0 to 1: the mean of the most toxic tenth of a document's sentences. None: off (ours), since
    a score is only as good as the labelled files that the recipe brings."""

    def __post_init__(self) -> None:
        _check_threshold("bias.max_toxicity", self.max_toxicity, maximum=1)
        _check_threshold("bias.max_identity_abuse_per_1000_words", self.max_identity_abuse_per_1000_words)
        _check_threshold("bias.min_hits", self.min_hits)


@dataclass(frozen=True, kw_only=True, slots=True)
class PiiRules:
    """When personal data is too dense to be redacted and the whole document goes."""

    max_findings: float | None = 20
    """Findings of all kinds together, names that a model finds left out (ours; dolma drops above 5). None: redact only."""
    drop: tuple[str, ...] = ()
    """Kinds of which a single finding drops the document, instead of being redacted."""

    def __post_init__(self) -> None:
        _check_threshold("pii.max_findings", self.max_findings)
        known = (*DEFAULT_KINDS, *ENTITY_KINDS)
        if unknown := set(self.drop) - set(known):
            got, wanted = ", ".join(sorted(unknown)), ", ".join(known)
            raise ConfigError(f"pii.drop: got {got}, wanted some of {wanted}: correct it.")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRules:
    """What a document may hold of the suites that the model is measured on. A missing value fails."""

    max_suite_items: int = 0
    """Items of evaluation suites that stand in it (ours: none; one is enough to be answered from memory)."""

    def __post_init__(self) -> None:
        _check_threshold("evaluation.max_suite_items", self.max_suite_items)


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig:
    """The groups of rules, in the order in which they give the reason. None: the group is off."""

    compliance: ComplianceRules | None = field(default_factory=ComplianceRules)
    """Rights, licences, listed words."""
    evaluation: EvaluationRules | None = None
    """Text of evaluation suites; off where none is named."""
    language: LanguageRules | None = field(default_factory=LanguageRules)
    """Wanted languages."""
    quality: QualityRules | None = field(default_factory=QualityRules)
    """Gopher, C4 and FineWeb heuristics."""
    bias: BiasRules | None = field(default_factory=BiasRules)
    """Abuse of groups."""
    pii: PiiRules | None = field(default_factory=PiiRules)
    """Density of personal data."""
    classifiers: tuple[ClassifierRule, ...] = ()
    """Given classifiers that may drop a document; asked where quality is on."""
    block_lists: tuple[BlockList, ...] = ()
    """Addresses that no document may come from; asked where compliance is on."""


def rules_on_text(config: PolicyConfig) -> PolicyConfig:
    """The rules without those on what only a whole build measures, evaluation suites and perplexity."""
    config = replace(config, evaluation=None)
    rules = config.quality
    if rules is None or not rules.perplexity_thresholds():
        return config
    per_language = {
        language: {name: value for name, value in overrides.items() if name not in PERPLEXITY_FIELDS}
        for language, overrides in rules.per_language.items()
    }
    off = replace(rules, max_perplexity=None, max_bits_per_byte=None, per_language=per_language)
    return replace(config, quality=off)


# (rule, field of QualityRules): the field is min_ or max_ and the signal, except where _SIGNALS names another.
_QUALITY_TABLE = (
    ("gopher_short_doc", "min_words"),
    ("gopher_long_doc", "max_words"),
    ("gopher_below_avg_threshold", "min_mean_word_length"),
    ("gopher_above_avg_threshold", "max_mean_word_length"),
    ("gopher_too_many_hashes", "max_hash_to_word_ratio"),
    ("gopher_too_many_ellipsis", "max_ellipsis_to_word_ratio"),
    ("gopher_too_many_bullets", "max_bullet_line_ratio"),
    ("gopher_too_many_end_ellipsis", "max_ellipsis_line_ratio"),
    ("gopher_below_alpha_threshold", "min_alpha_word_ratio"),
    ("gopher_enough_stop_words", "min_stop_words"),
    ("gopher_dup_para_frac", "max_dup_paragraph_ratio"),
    ("gopher_dup_para_char_frac", "max_dup_paragraph_char_ratio"),
    ("gopher_dup_line_frac", "max_dup_line_ratio"),
    ("gopher_dup_line_char_frac", "max_dup_line_char_ratio"),
    *((f"gopher_top_{n}_gram", f"max_top_{n}_gram_char_ratio") for n in (2, 3, 4)),
    *((f"gopher_duplicated_{n}_n_grams", f"max_dup_{n}_gram_char_ratio") for n in (5, 6, 7, 8, 9, 10)),
    ("c4_lorem_ipsum", "drop_lorem_ipsum"),
    ("c4_curly_bracket", "drop_curly_bracket"),
    ("c4_too_few_sentences", "min_sentences"),
    ("c4_policy_lines", "max_policy_line_ratio"),
    ("fineweb_line_punctuation", "min_line_punctuation_ratio"),
    ("fineweb_short_line", "max_short_line_ratio"),
    ("fineweb_char_dup", "max_dup_char_ratio"),
    ("fineweb_list", "max_newline_to_word_ratio"),
    ("high_perplexity", "max_perplexity"),
    ("high_bits_per_byte", "max_bits_per_byte"),
)
PERPLEXITY_FIELDS = ("max_perplexity", "max_bits_per_byte")
"""Thresholds that ask for a measured perplexity."""
_THRESHOLD_FIELDS = frozenset(name for _, name in _QUALITY_TABLE if not name.startswith("drop_"))
_SIGNALS = {
    "words": "num_words",
    "sentences": "num_sentences",
    "stop_words": "num_stop_words",
    "lorem_ipsum": "has_lorem_ipsum",
    "curly_bracket": "has_curly_bracket",
}

CHINESE_THRESHOLDS: Mapping[str, float | None] = {
    "min_words": 80,  # ours: 50 words of about 1.6 characters; ChineseWebText asks for 200, MAP-NEO for 50
    "max_words": 160_000,  # ours: 100,000 words, likewise
    "min_mean_word_length": None,  # a Han character is a word
    "max_mean_word_length": 5,  # FineWeb-2
    "min_alpha_word_ratio": 0.735,  # FineWeb-2
    "max_dup_line_ratio": 0.287,  # FineWeb-2
    # Five Han characters are three words, and names and terms repeat: MAP-NEO up to 7; above, FineWeb-2's
    # values for 5 and 6 words, which 8 and 10 characters are (ours).
    "max_dup_5_gram_char_ratio": 0.60,
    "max_dup_6_gram_char_ratio": 0.60,
    "max_dup_7_gram_char_ratio": 0.60,
    "max_dup_8_gram_char_ratio": 0.198,
    "max_dup_9_gram_char_ratio": 0.198,
    "max_dup_10_gram_char_ratio": 0.182,
    "min_sentences": 2,  # MAP-NEO: more than one
    "min_line_punctuation_ratio": 0.106,  # FineWeb-2
    "max_short_line_ratio": None,  # FineWeb-2 has it off: 30 Han characters are a full sentence
    "max_dup_char_ratio": 0.1,  # FineWeb-2
    "max_newline_to_word_ratio": 0.11,  # FineWeb-2's 0.178 a word, over 1.6
}
"""Where Chinese differs from QualityRules. The top n-gram limits stay: MAP-NEO uses the same for Chinese."""

_CHINESE = ("zh", "yue", "wuu")
_BATCH_NUM_ROWS = 4096
_DENSE_CATEGORIES = ("adult", "abuse", "spam")
_CLASSIFIER = "classifier_scores."
"""A signal with this beginning is the score of the classifier named after it."""


def rules_for(language: str | None, config: PolicyConfig) -> tuple[Rule, ...]:
    """The rules a document in this language is judged by, in order. The first that fails gives the reason."""
    return (
        *_compliance_rules(config),
        *_evaluation_rules(config.evaluation),
        *_language_rules(config.language),
        *_quality_rules(config.quality, language),
        *_classifier_rules(config, language),
        *_bias_rules(config.bias),
        *_pii_rules(config.pii),
    )


def _at_most(name: str, group: str, signal: str, threshold: float | None) -> tuple[Rule, ...]:
    if threshold is None:
        return ()
    return (Rule(name=name, group=group, signal=signal, comparison=Comparison.AT_MOST, threshold=threshold),)


def _one_of(name: str, group: str, signal: str, *values: str) -> Rule:
    return Rule(name=name, group=group, signal=signal, comparison=Comparison.ONE_OF, threshold=values)


def _compliance_rules(policy: PolicyConfig) -> Iterator[Rule]:
    config = policy.compliance
    if config is None:
        return
    if policy.block_lists:
        yield from _at_most("block_listed", "compliance", "num_block_lists", 0)
    yield _one_of("rights_disallow", "compliance", "rights", "allow", "unknown")
    if config.unknown_rights == "drop":
        yield _one_of("rights_unknown", "compliance", "rights", "allow", "disallow")
    yield from _at_most("rights_ai_agents", "compliance", "num_blocked_ai_agents", config.max_blocked_ai_agents)
    if config.allowed_licenses is not None:
        yield _one_of("license_not_allowed", "compliance", "license", *config.allowed_licenses)
    if config.allowed_license_classes is not None:
        accepted = accepted_classes(config.allowed_license_classes)
        yield _one_of("license_class_not_allowed", "compliance", "license_class", *accepted)
    for category in _DENSE_CATEGORIES:
        ceiling: float | None = getattr(config, f"max_{category}_per_1000_words")
        yield from _at_most(f"{category}_density", "compliance", f"{category}_per_1000_words", ceiling)
    if config.max_keywords_per_1000_words:
        yield from _at_most("keyword_density", "compliance", "keyword_excess", 1)


def _evaluation_rules(config: EvaluationRules | None) -> tuple[Rule, ...]:
    return _at_most("contaminated", "evaluation", "num_suite_items", config.max_suite_items if config else None)


def _language_rules(config: LanguageRules | None) -> Iterator[Rule]:
    if config is None:
        return
    yield _one_of("language_not_allowed", "language", "language", *config.allowed)
    if config.min_score is not None:
        yield Rule(
            name="language_score",
            group="language",
            signal="language_score",
            comparison=Comparison.AT_LEAST,
            threshold=config.min_score,
        )


def _quality_rules(config: QualityRules | None, language: str | None) -> Iterator[Rule]:
    if config is None:
        return
    for name, threshold_field in _QUALITY_TABLE:
        threshold = _quality_threshold(config, threshold_field, language)
        side, _, signal = threshold_field.partition("_")
        if threshold is not None:
            yield Rule(
                name=name,
                group="quality",
                signal=_SIGNALS.get(signal, signal),
                comparison=Comparison.AT_LEAST if side == "min" else Comparison.AT_MOST,
                threshold=threshold,
            )


def _classifier_rules(policy: PolicyConfig, language: str | None) -> Iterator[Rule]:
    for each in policy.classifiers if policy.quality is not None else ():
        if each.languages is None or language in each.languages:
            yield Rule(
                name=f"classifier_{each.name}",
                group="quality",
                signal=f"{_CLASSIFIER}{each.name}",
                comparison=Comparison.AT_LEAST,
                threshold=each.min_score,
            )


def _quality_threshold(config: QualityRules, name: str, language: str | None) -> float | None:
    if name.startswith("drop_"):
        return 0 if getattr(config, name) else None
    own = config.per_language.get(language or "", {})
    if name in own:
        return own[name]
    base: float | None = getattr(config, name)
    if base is not None and language in _CHINESE:
        return CHINESE_THRESHOLDS.get(name, base)
    return base


def _bias_rules(config: BiasRules | None) -> tuple[Rule, ...]:
    ceiling = config.max_identity_abuse_per_1000_words if config else None
    return (
        *_at_most("identity_abuse_density", "bias", "identity_abuse_per_1000_words", ceiling),
        *_at_most("toxicity", "bias", "toxicity", config.max_toxicity if config else None),
    )


def _pii_rules(config: PiiRules | None) -> tuple[Rule, ...]:
    most = config.max_findings if config else None
    return (
        *_at_most("pii_dropped_kind", "pii", "num_pii_dropped_kinds", 0 if config and config.drop else None),
        *_at_most("pii_findings", "pii", "num_pii_findings", most),
    )


def decide(batches: Iterable[pa.RecordBatch], config: PolicyConfig) -> Iterator[pa.RecordBatch]:
    """SIGNALS + TOXICITY (+ CONTAMINATION, PERPLEXITY) -> DECISION, one row for each row, in order.

    A document with a problem is dropped with the problem as its reason, whatever the config: it has
    no text, and none of the other figures means anything.
    """
    for batch in (_with_blocked_by(signals, config) for signals in _joined(batches)):
        parts: list[pa.RecordBatch] = []
        row_idxs: list[npt.NDArray[np.int64]] = []
        for rules, rows in _rows_by_rules(batch, config).items():
            idxs = np.array(rows, dtype=np.int64)
            part = batch.take(pa.array(idxs))
            parts.append(_dropped_for_problem(part) if rules is None else _decided(part, rules, config))
            row_idxs.append(idxs)
        if parts:
            order = np.argsort(np.concatenate(row_idxs), kind="stable")
            yield pa.Table.from_batches(parts, DECISION).take(pa.array(order)).combine_chunks().to_batches()[0]


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at least `_BATCH_NUM_ROWS`, but for the last: each costs as much as a thousand rows."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= _BATCH_NUM_ROWS:
            yield pa.concat_batches(held)
            held = []
    if held:
        yield pa.concat_batches(held)


def evaluate(row: Mapping[str, Any], config: PolicyConfig) -> list[RuleResult]:
    """What each rule found in one row of SIGNALS, TOXICITY and what else was measured, in rule order; the same code as `decide`."""
    if row["problem"] is not None:
        return [RuleResult(name=row["problem"], value=None, threshold=None, passed=False)]
    stated = pa.RecordBatch.from_pylist([dict(row)], schema=POLICY_ROW)
    batch = _with_blocked_by(stated, config)
    rules = rules_for(row["language"], config)
    values, failed = _apply(batch, rules, config)
    return [
        RuleResult(
            name=rule.name,
            value=_shown(batch, rule, float(values[idx, 0])),
            threshold=rule.threshold,
            passed=not failed[idx, 0],
        )
        for idx, rule in enumerate(rules)
    ]


_INPUT = select(
    SIGNALS,
    "doc_id",
    "url",
    "problem",
    "language",
    "language_score",
    *dict.fromkeys(
        _SIGNALS.get(signal, signal)
        for signal in (name.partition("_")[2] for _, name in _QUALITY_TABLE if name not in PERPLEXITY_FIELDS)
    ),
    "rights",
    "num_blocked_ai_agents",
    "license",
    "license_class",
    "keyword_counts",
    "identity_counts",
    "pii_counts",
    "classifier_scores",
)
_PERPLEXITY_INPUT = select(PERPLEXITY, "doc_id", "perplexity", "bits_per_byte")
_ROW = pa.schema([*_INPUT, *(field for field in _PERPLEXITY_INPUT if field.name != "doc_id")])

_TOXICITY_INPUT = select(TOXICITY, "doc_id", "abuse_in_context", "toxicity")
POLICY_INPUT = pa.schema([*_INPUT, *(field for field in _TOXICITY_INPUT if field.name != "doc_id")])
"""A row that the rules judge: what is read of SIGNALS and of TOXICITY, side by side."""

POLICY = Stage(
    name="policy",
    version=5,
    inputs=(_INPUT, _TOXICITY_INPUT),
    output=DECISION,
    transform=decide,
    libraries=("llvmlite", "numba", "numpy"),
    tally=tally_decisions,
    compression="lz4",
)

_PERPLEXITY_INPUT = select(PERPLEXITY, "doc_id", "perplexity", "bits_per_byte")
POLICY_ROW = pa.schema(
    [
        *POLICY_INPUT,
        *(pa.field(field.name, field.type) for field in (*CONTAMINATION, *_PERPLEXITY_INPUT) if field.name != "doc_id"),
    ]
)
"""The same with what is measured only where a recipe asks for it; null where it was not."""


def policy_reading(*, suites: bool, perplexity: bool) -> Stage:
    """The stage as it reads what was measured: CONTAMINATION where evaluation suites are named, PERPLEXITY where wanted."""
    optional = (*((CONTAMINATION,) if suites else ()), *((_PERPLEXITY_INPUT,) if perplexity else ()))
    return replace(POLICY, inputs=(*POLICY.inputs, *optional))


CONTENT_RULES = (
    "block_listed",
    "adult_density",
    "abuse_density",
    "spam_density",
    "keyword_density",
    "identity_abuse_density",
    "toxicity",
)
"""Rules that find content itself to be non-compliant; a page that opts out, or has no licence, is not."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def _rows_by_rules(batch: pa.RecordBatch, config: PolicyConfig) -> dict[tuple[Rule, ...] | None, list[int]]:
    """Row numbers by the rules that judge them; None: rows with a problem."""
    rows_of: dict[str | None, list[int]] = {}
    broken: list[int] = []
    languages, problems = batch["language"].to_pylist(), batch["problem"].to_pylist()
    for row, (language, problem) in enumerate(zip(languages, problems, strict=True)):
        if problem is None:
            rows_of.setdefault(language, []).append(row)
        else:
            broken.append(row)
    rows: dict[tuple[Rule, ...] | None, list[int]] = {None: broken} if broken else {}
    for language, idxs in rows_of.items():
        rows.setdefault(rules_for(language, config), []).extend(idxs)
    return rows


def measured(batch: pa.RecordBatch, rules: tuple[Rule, ...], config: PolicyConfig) -> tuple[Floats, Flags]:
    """What rules find in rows of SIGNALS: values (NaN: none, or not a number) and failures, both (rules, rows)."""
    return _apply(_with_blocked_by(batch, config), rules, config)


def _with_blocked_by(batch: pa.RecordBatch, config: PolicyConfig) -> pa.RecordBatch:
    """The batch and, for each row, the block list entry that its URL is under, if any."""
    found: list[str | None] = [None] * batch.num_rows
    if config.compliance is not None and config.block_lists:
        found = blocked_by(load_block_lists(config.block_lists), batch["url"].to_pylist())
    return batch.append_column(pa.field("blocked_by", pa.string()), pa.array(found, pa.string()))


def _dropped_for_problem(batch: pa.RecordBatch) -> pa.RecordBatch:
    offsets = pa.array(np.arange(batch.num_rows + 1, dtype=np.int32))
    nothing = pa.nulls(batch.num_rows, pa.float64())
    columns = {
        "doc_id": batch["doc_id"],
        "decision": pa.array(["drop"] * batch.num_rows),
        "reason": batch["problem"],
        "value": nothing,
        "threshold": nothing,
        "failed_rules": pa.ListArray.from_arrays(offsets, batch["problem"]),
        "blocked_by": batch["blocked_by"],
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=DECISION)


def _decided(batch: pa.RecordBatch, rules: tuple[Rule, ...], config: PolicyConfig) -> pa.RecordBatch:
    values, failed = _apply(batch, rules, config)
    # The same reason for every rule that had nothing to measure, named once.
    is_numeric = np.array([not isinstance(rule.threshold, tuple) for rule in rules], dtype=bool)
    fails_closed = np.array([rule.group in ("compliance", "evaluation") for rule in rules], dtype=bool)
    missing = failed & np.isnan(values) & (is_numeric & ~fails_closed)[:, None]
    first_missing = missing & (np.cumsum(missing, axis=0) == 1)
    reported = (failed & ~missing) | first_missing

    names = pa.array([*(rule.name for rule in rules), MISSING_SIGNAL])
    codes = np.where(first_missing, len(rules), np.arange(len(rules))[:, None]).T[reported.T]
    num_failed = reported.sum(axis=0)
    offsets = np.concatenate(([0], np.cumsum(num_failed))).astype(np.int32)
    is_dropped = num_failed > 0

    first = reported.argmax(axis=0) if rules else np.zeros(batch.num_rows, dtype=np.int64)
    columns = np.arange(batch.num_rows)
    value = values[first, columns] if rules else np.full(batch.num_rows, np.nan)
    limits = np.array([math.nan if isinstance(r.threshold, tuple) else r.threshold for r in rules] or [math.nan])
    first_name = np.full(batch.num_rows, -1, dtype=np.int64)
    first_name[is_dropped] = codes[offsets[:-1][is_dropped]]
    arrays = [
        batch["doc_id"],
        pa.array(np.where(is_dropped, "drop", "keep")),
        names.take(pa.array(first_name, mask=~is_dropped)),
        _floats(value, is_dropped),
        _floats(limits[first], is_dropped),
        pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(codes))),
        batch["blocked_by"],
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=DECISION)


def _floats(values: Floats, is_dropped: Flags) -> pa.Array:
    return pa.array(values, mask=~is_dropped | np.isnan(values))


def _apply(batch: pa.RecordBatch, rules: tuple[Rule, ...], config: PolicyConfig) -> tuple[Floats, Flags]:
    """Values (NaN: none, or not a number) and failures, both (num_rules, num_rows). No value fails any rule."""
    values = np.full((len(rules), batch.num_rows), np.nan)
    failed = np.ones((len(rules), batch.num_rows), dtype=bool)
    derived = _derived(batch, config)
    for idx, rule in enumerate(rules):
        if isinstance(rule.threshold, tuple):
            accepted = pa.array(rule.threshold, pa.string())
            passed = pc.is_in(batch[rule.signal], value_set=accepted).to_numpy(zero_copy_only=False)
        else:
            values[idx], limit = _numbers(batch, derived, rule.signal, rule.threshold)
            passed = values[idx] >= limit if rule.comparison is Comparison.AT_LEAST else values[idx] <= limit
        failed[idx] = ~passed
    return values, failed


def _numbers(
    batch: pa.RecordBatch, derived: Mapping[str, Floats], signal: str, threshold: float
) -> tuple[Floats, float]:
    """A numeric signal, and the threshold in the signal's own precision: a stored 0.3 is not above 0.3."""
    if signal in derived:
        return derived[signal], threshold
    if signal.startswith(_CLASSIFIER):
        return _scores(batch["classifier_scores"], signal.removeprefix(_CLASSIFIER)), float(np.float32(threshold))
    column = batch[signal]
    limit = float(np.float32(threshold)) if is_single_precision(signal) else threshold
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False), limit


def is_single_precision(signal: str) -> bool:
    """Whether a signal is stored as a 32-bit float, so that thresholds for it are rounded to one."""
    return signal.startswith(_CLASSIFIER) or any(
        signal in schema.names and schema.field(signal).type == pa.float32()
        for schema in (SIGNALS, TOXICITY, PERPLEXITY)
    )


def _scores(scores: pa.ListArray, name: str) -> Floats:
    """What the named classifier gave each row; NaN where it was not asked."""
    flat = pc.list_flatten(scores)
    chosen = pc.equal(pc.struct_field(flat, [0]), name).to_numpy(zero_copy_only=False)
    found = np.full(len(scores), np.nan)
    found[pc.list_parent_indices(scores).to_numpy(zero_copy_only=False)[chosen]] = pc.struct_field(flat, [1]).to_numpy(
        zero_copy_only=False
    )[chosen]
    return found


def _derived(batch: pa.RecordBatch, config: PolicyConfig) -> dict[str, Floats]:
    """Figures made of several signals: word-list densities and the number of PII findings."""
    per_1000 = 1000.0 / np.maximum(batch["num_words"].to_numpy(zero_copy_only=False), 1)
    names = [_total(batch["pii_counts"], kind) for kind in ENTITY_KINDS]  # any newspaper is full of them
    figures = {"num_pii_findings": _total(batch["pii_counts"]) - np.sum(names, axis=0)}
    if config.pii is not None and config.pii.drop:
        counts = [_total(batch["pii_counts"], kind) for kind in config.pii.drop]
        figures["num_pii_dropped_kinds"] = np.sum(counts, axis=0)
    if config.compliance is not None:
        figures["num_block_lists"] = batch["blocked_by"].is_valid().to_numpy(zero_copy_only=False).astype(np.float64)
        figures["keyword_excess"] = _keyword_excess(batch["keyword_counts"], config.compliance) * per_1000
        for category in _DENSE_CATEGORIES:
            hits = _abuse(batch) if category == "abuse" else _total(batch["keyword_counts"], category)
            figures[f"{category}_per_1000_words"] = (
                np.where(hits < config.compliance.min_keyword_hits, 0, hits) * per_1000
            )
    if config.evaluation is not None:
        figures["num_suite_items"] = _num_suite_items(batch)
    if config.bias is not None:
        pairs = np.minimum(_abuse(batch), _total(batch["identity_counts"]))
        figures["identity_abuse_per_1000_words"] = np.where(pairs < config.bias.min_hits, 0, pairs) * per_1000
    return figures


def _num_suite_items(batch: pa.RecordBatch) -> Floats:
    """NaN where nobody looked: that fails, too."""
    if "contaminated_by" not in batch.schema.names:
        return np.full(batch.num_rows, np.nan)
    counts: Floats = pc.list_value_length(batch["contaminated_by"]).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return counts


def _abuse(batch: pa.RecordBatch) -> Floats:
    """Hits of the abuse list that stand in no context which makes them harmless; NaN where either was not counted."""
    return _total(batch["keyword_counts"], "abuse") - _total(batch["abuse_in_context"])


def _keyword_excess(counts: pa.ListArray, config: ComplianceRules) -> Floats:
    """The most that the hits of any named category are of what it allows a word, in thousandths; NaN without a list."""
    excess = np.zeros(len(counts))
    for name, ceiling in sorted(config.max_keywords_per_1000_words.items()):
        hits = _total(counts, name, below=True)
        excess = np.maximum(excess, np.where(hits < config.min_keyword_hits, 0, hits) / ceiling)
    return excess


def _total(counts: pa.ListArray, label: str | None = None, *, below: bool = False) -> Floats:
    """Sum of the counts in each row's list, of one label (and those `below` it) or of all; NaN where there is no list."""
    rows = pc.list_parent_indices(counts).to_numpy(zero_copy_only=False)
    flat = pc.list_flatten(counts)
    weights = pc.struct_field(flat, [1]).to_numpy(zero_copy_only=False).astype(np.float64)
    if label is not None:
        labels = pc.struct_field(flat, [0])
        chosen = pc.equal(labels, label)
        if below:
            chosen = pc.or_(chosen, pc.starts_with(labels, f"{label}."))
        weights = weights * chosen.to_numpy(zero_copy_only=False)
    totals = np.bincount(rows, weights=weights, minlength=len(counts)).astype(np.float64)
    totals[counts.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return totals


def _shown(batch: pa.RecordBatch, rule: Rule, value: float) -> float | str | None:
    if rule.signal == "num_suite_items" and value > 0:
        first = batch["contaminated_by"][0][0].as_py()
        more = f" and {value - 1:.0f} more" if value > 1 else ""
        return f"{first['suite']}: {first['item']}{more}"
    if isinstance(rule.threshold, tuple) or rule.signal == "num_block_lists":
        column = rule.signal if isinstance(rule.threshold, tuple) else "blocked_by"
        text: str | None = batch[column][0].as_py()
        return text
    return None if math.isnan(value) else value


def _check_threshold(name: str, value: float | None, maximum: float = math.inf) -> None:
    if value is None:
        return
    if not math.isfinite(value) or not 0 <= value <= maximum:
        wanted = "0 or more" if math.isinf(maximum) else f"0 to {maximum:g}"
        raise ConfigError(f"got {name} {value!r}, wanted {wanted}, or null to switch the rule off.")
