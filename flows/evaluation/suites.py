"""Evaluation suites: declared in a recipe or shipped, read from local files, and measured on a model.

    SuiteSection     what a recipe says under evaluation.suites
    DeclaredSuite    the same with its files found and digested: a value that is kept beside the scores
    LoadedSuite      its items with their prompts written out, and the Suite that says what a score means
    SuiteResult      what a model scored (llm.evaluation.suite)

The shipped suites (`shipped_suites`) were written for the project: translation, question answering, summarisation, semantic
similarity and sentiment, each in English and Chinese, each without and with examples. Their files lie here, beside the
prompts, and not in llm/, which takes text from its caller.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.evaluation import prompts
from flows.evaluation.prompts import CHOICE_KINDS, WRITING_KINDS, Asking
from flows.evaluation.suite_files import SUFFIXES, Case, Kind, read_cases
from llm.evaluation.suite import Suite, SuiteResult
from pipelines.digest import digest_file, digest_value
from pipelines.encoding import Encoder
from pipelines.errors import ConfigError, InputError
from pipelines.stage import Resource
from pipelines.suites import Item, passages_of

if TYPE_CHECKING:
    from llm.data import TokenData
    from llm.evaluation.likelihood import Speaker
    from llm.evaluation.tasks import ChoiceItem, LastWordItem, TextItem, Writing, WritingItem
    from llm.model import GPT

SHIPPED = Path(__file__).parent / "applications"
"""The suites written for the project."""
_SHIPPED_VERSION = 1
"""Raised when one of their files is changed."""
_SHIPPED_NUM_FEWSHOT = 3

_MIN_LANGUAGE_PROBABILITY = 0.3
_NAME = re.compile(r"[A-Za-z0-9_]+")
_METRICS = {
    "multiple_choice": "acc",
    "last_word": "loss",
    "perplexity": "bits_per_byte",
    "question_answering": "f1",
    "translation": "chrf",
    "summarisation": "rouge_l",
    "sentiment": "acc_calibrated",
    "similarity": "acc_calibrated",
}
_LOWER_IS_BETTER = ("last_word", "perplexity")
_MEASURES = {"question_answering": "answer", "translation": "translation", "summarisation": "summary"}
_MAX_TOKENS = {"question_answering": 24, "translation": 48, "summarisation": 48}
_NOISE_FLOORS = {
    "multiple_choice": 0.03,
    "last_word": 0.2,
    "perplexity": 0.13,
    "question_answering": 0.01,
    "translation": 0.5,
    "summarisation": 0.015,
    "sentiment": 0.11,
    "similarity": 0.11,
}
"""Twice the standard deviation of three seeds of the demo, of a kind's worst suite among the shipped ones, LAMBADA, PIQA, WinoGrande,
ARC, WikiText and XQuAD. Figures of a larger model move less: a recipe may say how much."""
_PROTOCOLS = {
    "multiple_choice": "options-compared/1: the option whose tokens are likelier after the question",
    "last_word": "last-word/1: the tokens of the word that ends a passage, after the passage",
    "perplexity": "rolling-disjoint/1: each text by itself, from an end-of-text token, in windows that do not overlap",
    "question_answering": "greedy-line/1: the likeliest token each time up to the end of the line, compared as SQuAD does",
    "translation": "greedy-line/1: the likeliest token each time up to the end of the line, chrF2 a sentence",
    "summarisation": "greedy-line/1: the likeliest token each time up to the end of the line, ROUGE-L of units",
    "sentiment": "labels-calibrated/1: the label that is likelier after the text than after texts that say nothing",
    "similarity": "labels-calibrated/1: the label that is likelier after the pair than after pairs that say nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSection:
    """A suite as a recipe declares it."""

    name: str
    """Letters, digits, underscores; one of its own."""
    kind: Kind
    path: str
    """A local file; see flows.evaluation.suite_files for the formats."""
    language: str | None = None
    """BCP 47: of the prompts and the answers. en and zh for kinds that have prompts."""
    source_language: str | None = None
    """translation: of what is translated."""
    num_fewshot: int = 0
    """Solved examples before each question."""
    examples: str | None = None
    """A file of cases that they are drawn from; null: the suite's other cases."""
    max_items: int | None = None
    """Cases taken, drawn by the seed, in the order of the file; null: all."""
    max_tokens: int | None = None
    """Of a written answer; null: 24 for answers, 48 for translations and summaries."""
    seed: int = 0
    """Of what is drawn."""
    version: int = 1
    """Raised by hand when the same cases are meant to give other scores."""
    noise_floor: float | None = None
    """A difference up to that is none; null: what other seeds of the same training moved a small model by."""
    decontaminate: bool = True
    """Whether documents are searched for its texts, as for those of suites that are only named."""
    skip: str | None = None
    """Why it is not measured; the file is then not looked for."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"name: got {self.name!r}, wanted letters, digits and underscores: rename it.")
        prompts.check_language(self.kind, self.language, self.source_language)
        for name, least in (("num_fewshot", 0), ("max_items", 1), ("max_tokens", 1), ("version", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}: got {value}, wanted at least {least}: correct it.")
        if self.max_tokens is not None and self.kind not in WRITING_KINDS:
            raise ConfigError(f"max_tokens: got {self.max_tokens} for kind {self.kind}, wanted none: take it out.")
        if self.kind == "perplexity" and (self.num_fewshot or self.examples):
            raise ConfigError("num_fewshot: got examples for kind perplexity, wanted none: take them out.")
        if self.examples is not None and not self.num_fewshot:
            raise ConfigError("examples: got a file with num_fewshot 0, wanted both: set num_fewshot.")
        if self.noise_floor is not None and not 0 <= self.noise_floor < float("inf"):
            raise ConfigError(f"noise_floor: got {self.noise_floor}, wanted at least 0: correct it.")
        if self.skip is not None and not self.skip.strip():
            raise ConfigError("skip: got an empty reason, wanted a sentence: say why, or take it out.")

    @property
    def searched_files(self) -> tuple[str, ...]:
        """Those whose texts no document may hold."""
        is_searched = self.decontaminate and self.skip is None
        return tuple(path for path in (self.path, self.examples) if path is not None and is_searched)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredSuite:
    """A suite with its files found and digested."""

    section: SuiteSection
    file: Resource | None
    """None where the suite is skipped."""
    examples: Resource | None = None


def declared_suite(section: SuiteSection, base: Path) -> DeclaredSuite:
    """Find and digest a suite's files below `base`. Raises ConfigError for one that is missing or of an unknown kind."""
    if section.skip is not None:
        return DeclaredSuite(section=section, file=None)
    found = []
    for name, path in (("path", section.path), ("examples", section.examples)):
        place = None if path is None else base / path
        if place is not None and not place.is_file():
            raise ConfigError(f"{name}: got {place}, wanted a file: check the path, or give `skip` a reason.")
        if place is not None and Path(place.name.lower().removesuffix(".gz")).suffix not in SUFFIXES:
            raise ConfigError(f"{name}: got {place.name}, wanted an ending of {', '.join(SUFFIXES)}: rename it.")
        found.append(None if place is None else Resource(digest_file(place), str(place)))
    return DeclaredSuite(section=section, file=found[0], examples=found[1])


def shipped_suites() -> tuple[DeclaredSuite, ...]:
    """The suites that were written for the project."""
    sections = [
        SuiteSection(
            name=f"translation_{source}_{target}",
            kind="translation",
            path="translation.jsonl",
            language=target,
            source_language=source,
            version=_SHIPPED_VERSION,
        )
        for source, target in (("en", "zh"), ("zh", "en"))
    ]
    kinds: tuple[Kind, ...] = ("question_answering", "summarisation", "similarity", "sentiment")
    sections += [
        SuiteSection(
            name=f"{kind}_{language}",
            kind=kind,
            path=f"{kind}_{language}.jsonl",
            language=language,
            version=_SHIPPED_VERSION,
        )
        for kind in kinds
        for language in ("en", "zh")
    ]
    with_examples = [
        replace(
            section,
            name=f"{section.name}_{_SHIPPED_NUM_FEWSHOT}shot",
            num_fewshot=_SHIPPED_NUM_FEWSHOT,
            examples=section.path.replace(".jsonl", "_examples.jsonl"),
        )
        for section in sections
    ]
    return tuple(declared_suite(section, SHIPPED) for section in [*sections, *with_examples])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSuite:
    """A suite with its items, ready to be measured."""

    suite: Suite
    kind: str
    delimiter: str
    """What parts a prompt from its answer."""
    items: tuple["ChoiceItem | LastWordItem | TextItem | WritingItem", ...]
    writing: "Writing | None"
    seed: int
    skipped: str | None = None


def load_suite(declared: DeclaredSuite) -> LoadedSuite:
    """Read a suite's files and write its prompts out.

    Raises InputError that names file and line, ConfigError where the cases do not do, and IntegrityError for a file that is
    no longer what was declared.
    """
    section = declared.section
    how = Asking(
        kind=section.kind,
        language=section.language,
        source_language=section.source_language,
        num_fewshot=section.num_fewshot,
        seed=section.seed,
    )
    if declared.file is None:
        return _loaded(section, (), (), how, skipped=section.skip)
    pool = all_cases = _cases(declared.file, section)
    if declared.examples is not None:
        pool = _cases(declared.examples, section)
    cases = _drawn(all_cases, section)
    try:
        chosen = prompts.drawn_examples(cases, pool, how, are_cases=declared.examples is None)
        items = [_item(case, examples, how) for case, examples in zip(cases, chosen, strict=True)]
    except ConfigError as error:
        raise ConfigError(f"evaluation.suites ({section.name}): {error}") from error
    return _loaded(section, cases, items, how, pool=pool)


def search_items(declared: DeclaredSuite) -> list[Item]:
    """The texts of a suite's cases, as they are looked for in documents; none of a suite that is skipped."""
    if declared.file is None:
        return []
    return [
        Item(suite=declared.section.name, item_id=case.id, passages=tuple(passages_of(case.values)))
        for case in _drawn(_cases(declared.file, declared.section), declared.section)
    ]


def _cases(file: Resource, section: SuiteSection) -> list[Case]:
    from pipelines.errors import IntegrityError

    path = Path(file.path)
    if not path.is_file():
        raise InputError(f"got {path}, which is gone, wanted the file of suite {section.name}: put it back.")
    if digest_file(path) != file.digest:
        raise IntegrityError(
            f"got {path}, which changed since suite {section.name} was declared, wanted it as it was: run again."
        )
    languages = (section.source_language, section.language) if section.kind == "translation" else None
    return read_cases(path, section.kind, languages=languages)  # type: ignore[arg-type]


def _drawn(cases: list[Case], section: SuiteSection) -> list[Case]:
    if section.max_items is None or section.max_items >= len(cases):
        return cases
    places = np.random.default_rng(section.seed).choice(len(cases), section.max_items, replace=False)
    return [cases[place] for place in sorted(places.tolist())]


def _item(case: Case, examples: Sequence[Case], how: Asking) -> Any:
    if how.kind in CHOICE_KINDS:
        return prompts.choice_item(case, examples, how)
    if how.kind in WRITING_KINDS:
        return prompts.writing_item(case, examples, how)
    return prompts.text_item(case) if how.kind == "perplexity" else prompts.last_word_item(case, examples, how)


def _loaded(
    section: SuiteSection,
    cases: Sequence[Case],
    items: Sequence[Any],
    how: Asking,
    *,
    pool: Sequence[Case] = (),
    skipped: str | None = None,
) -> LoadedSuite:
    kind = section.kind
    drawn_from = [case.values for case in pool] if section.num_fewshot else []
    max_tokens = section.max_tokens or _MAX_TOKENS.get(kind)
    suite = Suite(
        name=section.name,
        version=section.version,
        protocol="; ".join(
            [
                _PROTOCOLS[kind],
                *([f"at most {max_tokens} tokens"] if max_tokens else []),
                *(
                    []
                    if kind == "perplexity"
                    else [f"prompts/{prompts.VERSION}, {section.num_fewshot} examples, seed {how.seed}"]
                ),
            ]
        ),
        metric=_METRICS[kind],
        higher_is_better=kind not in _LOWER_IS_BETTER,
        dataset_digest=digest_value({"cases": [case.values for case in cases], "examples": drawn_from}),
        noise_floor=_NOISE_FLOORS[kind] if section.noise_floor is None else section.noise_floor,
        language=section.language,
    )
    return LoadedSuite(
        suite=suite,
        kind=kind,
        delimiter=prompts.delimiter(section.language),
        items=tuple(items),
        writing=_writing(kind, max_tokens),
        seed=section.seed,
        skipped=skipped,
    )


def _writing(kind: str, max_tokens: int | None) -> "Writing | None":
    if max_tokens is None:
        return None
    from llm.evaluation.tasks import Writing

    return Writing(measure=_MEASURES[kind], max_tokens=max_tokens)  # type: ignore[arg-type]


def speaker_of(model: "GPT", encoder: Encoder) -> "Speaker":
    """A model with its tokenizer, as suites take it."""
    from llm.evaluation.likelihood import Speaker

    return Speaker(
        model=model,
        encode=lambda text: encoder.encode_batch([text])[0].tolist(),
        decode=lambda ids: encoder.decode(list(ids)) if len(ids) else "",
        eot_token=encoder.eot_token,
    )


def measure_suites(
    model: "GPT",
    encoder: Encoder,
    suites: Sequence[DeclaredSuite],
    *,
    progress: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
) -> list[SuiteResult]:
    """What a model scores on each suite, in their order; `progress` is given a suite's name before it, and once at the end.

    A suite that this model cannot be asked is skipped with the reason, as one that the recipe skips. Raises InputError for a
    file that is malformed, ConfigError where cases do not do.
    """
    speaker = speaker_of(model, encoder)
    loaded = [load_suite(each) for each in suites]
    results = []
    for idx, each in enumerate(loaded):
        progress(each.suite.name, idx, len(loaded))
        results.append(measure_suite(speaker, each))
    progress("", len(loaded), len(loaded))
    return results


def measure_suite(speaker: "Speaker", loaded: LoadedSuite) -> SuiteResult:
    """What a model scores on one suite."""
    from llm.evaluation import tasks

    reason = loaded.skipped or _too_small(speaker, loaded)
    if reason is not None:
        return SuiteResult(suite=loaded.suite, figures={}, skipped=reason)
    suite, items = loaded.suite, loaded.items
    if loaded.writing is not None:
        return tasks.writing(suite, items, speaker, loaded.writing, seed=loaded.seed)  # type: ignore[arg-type]
    if loaded.kind in CHOICE_KINDS:
        return tasks.multiple_choice(suite, items, speaker)  # type: ignore[arg-type]
    if loaded.kind == "last_word":
        return tasks.last_word(suite, items, speaker)  # type: ignore[arg-type]
    return tasks.perplexity(suite, items, speaker)  # type: ignore[arg-type]


def _too_small(speaker: "Speaker", loaded: LoadedSuite) -> str | None:
    """Why a model cannot be asked."""
    block_size = speaker.model.config.block_size
    if loaded.writing is not None and loaded.writing.max_tokens >= block_size:
        return f"An answer has up to {loaded.writing.max_tokens} tokens, and the model's context only {block_size}."
    return None


def measure_held_out_extras(model: "GPT", encoder: Encoder, held_out: "TokenData", **options: Any) -> list[SuiteResult]:
    """Suites `calibration`, `positions` and `generation_quality` on held-out documents; options are those of held_out_extras."""
    from llm.evaluation.held_out import held_out_extras

    return held_out_extras(speaker_of(model, encoder), held_out, _language_of, **options)


def _language_of(text: str) -> str | None:
    """ISO 639 code; None where lid.176 is not at all sure."""
    from pipelines.signals.lid import language_probabilities

    found = language_probabilities(" ".join(text.split()), 1)
    return next((code for code, probability in found.items() if probability >= _MIN_LANGUAGE_PROBABILITY), None)
