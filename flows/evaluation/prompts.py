"""What a model reads of a case: the prompts of each kind of task in English and Chinese, with examples before the question.

GPT-2's own way where it had one: TL;DR for summaries, Q and A for questions, pairs of sentences for translation, words to
compare for sentiment (Radford et al. 2019; Brown et al. 2020, arXiv:2005.14165). A prompt ends in a mark, so that no token
reaches over the border to the answer; in Chinese no space parts the two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from flows.evaluation.suite_files import Case
    from llm.evaluation.tasks import ChoiceItem, LastWordItem, TextItem, WritingItem

VERSION = 1
"""Of the prompts: raised when a model is to read something else."""
CHOICE_KINDS = ("multiple_choice", "sentiment", "similarity")
WRITING_KINDS = ("question_answering", "translation", "summarisation")
PROMPTED_KINDS = (*WRITING_KINDS, "sentiment", "similarity")
"""Kinds whose prompts are written in a language that they need."""

_SEPARATOR = "\n\n"
_SPACELESS = ("zh", "ja")


@dataclass(frozen=True, slots=True)
class _Words:
    """Prompts of a language."""

    question: str
    answer: str
    tl_dr: str
    sentiment: str
    sentiment_labels: tuple[str, str]
    """Negative and positive."""
    similarity: str
    similarity_labels: tuple[str, str]
    """Not the same, and the same."""
    choice: str
    content_free: tuple[str, ...]
    """Texts that say nothing (arXiv:2102.09690)."""
    languages: Mapping[str, str]
    """Names of languages in this one."""


_WORDS = {
    "en": _Words(
        question="Q: {}",
        answer="A:",
        tl_dr="TL;DR:",
        sentiment="Review: {}\nSentiment:",
        sentiment_labels=("negative", "positive"),
        similarity="First: {}\nSecond: {}\nDo they mean the same:",
        similarity_labels=("no", "yes"),
        choice="Question: {}\nAnswer:",
        content_free=("N/A", "...", "It is what it is."),
        languages={"en": "English", "zh": "Chinese"},
    ),
    "zh": _Words(
        question="问：{}",
        answer="答：",
        tl_dr="摘要：",
        sentiment="评论：{}\n情感：",
        sentiment_labels=("负面", "正面"),
        similarity="句子一：{}\n句子二：{}\n意思是否相同：",
        similarity_labels=("否", "是"),
        choice="问题：{}\n答案：",
        content_free=("无", "……", "就是这样。"),
        languages={"en": "英文", "zh": "中文"},
    ),
}
LANGUAGES = tuple(_WORDS)


def check_language(kind: str, language: str | None, source_language: str | None) -> None:
    """Raise ConfigError where a kind's prompts are not written in a language."""
    if kind in PROMPTED_KINDS and base_language(language) not in _WORDS:
        raise ConfigError(f"language: got {language!r}, wanted {' or '.join(_WORDS)} for kind {kind}: set it.")
    if kind == "translation" and base_language(source_language) not in _WORDS:
        raise ConfigError(
            f"source_language: got {source_language!r}, wanted {' or '.join(_WORDS)} for kind {kind}: set it."
        )
    if kind != "translation" and source_language is not None:
        raise ConfigError(f"source_language: got {source_language!r} for kind {kind}, wanted none: take it out.")


def base_language(language: str | None) -> str | None:
    """The language of a tag: zh of zh-Hant."""
    return None if language is None else language.partition("-")[0].lower()


def delimiter(language: str | None) -> str:
    """What parts a prompt from its answer."""
    return "" if base_language(language) in _SPACELESS else " "


@dataclass(frozen=True, slots=True)
class Asking:
    """How the cases of a suite are asked."""

    kind: str
    language: str | None
    source_language: str | None
    num_fewshot: int
    seed: int


def drawn_examples(
    cases: Sequence["Case"], pool: Sequence["Case"], how: Asking, *, are_cases: bool
) -> list[list["Case"]]:
    """The solved examples before each case.

    From a pool of their own they are drawn once, by the suite's seed, and are the same before every case; where the pool is
    the suite's cases (`are_cases`) they are drawn for each case from the others, by the seed and the case's place.
    """
    if not how.num_fewshot:
        return [[] for _ in cases]
    if not are_cases:
        examples = _drawn(pool, how, [how.seed])
        return [examples for _ in cases]
    return [
        _drawn([each for each in pool if each.id != case.id], how, [how.seed, idx]) for idx, case in enumerate(cases)
    ]


def _drawn(pool: Sequence["Case"], how: Asking, seed: list[int]) -> list["Case"]:
    if len(pool) < how.num_fewshot:
        raise ConfigError(
            f"num_fewshot: got {how.num_fewshot} for {len(pool)} cases to draw from, wanted as many at least: add some."
        )
    places = np.random.default_rng(seed).choice(len(pool), how.num_fewshot, replace=False)
    return [pool[place] for place in places]


def choice_item(case: "Case", examples: Sequence["Case"], how: Asking) -> "ChoiceItem":
    """A case of one of CHOICE_KINDS."""
    from llm.evaluation.tasks import ChoiceItem

    values, space = case.values, delimiter(how.language)
    before = "".join(f"{_choice_solved(each.values, how)}{_SEPARATOR}" for each in examples)
    if "contexts" in values:
        contexts = tuple(before + context for context in values["contexts"])
        return ChoiceItem(
            id=case.id,
            contexts=contexts,
            continuations=(space + values["continuation"],) * len(contexts),
            options=contexts,
            gold=values["gold"],
        )
    options = _options(values, how)
    context = before + _choice_asked(values, how)
    return ChoiceItem(
        id=case.id,
        contexts=(context,) * len(options),
        continuations=tuple(space + option for option in options),
        options=options,
        gold=values["gold"],
        content_free=tuple(before + each for each in _content_free(how)),
    )


def _choice_asked(values: Mapping[str, Any], how: Asking) -> str:
    words = _WORDS.get(base_language(how.language) or "", _WORDS["en"])
    if how.kind == "sentiment":
        return words.sentiment.format(values["text"].strip())
    if how.kind == "similarity":
        return words.similarity.format(values["first"].strip(), values["second"].strip())
    query = str(values["query"]).rstrip()
    return words.choice.format(query) if values["is_question"] else query


def _options(values: Mapping[str, Any], how: Asking) -> tuple[str, ...]:
    if how.kind == "multiple_choice":
        return tuple(values["choices"])
    words = _WORDS[base_language(how.language) or ""]
    return words.sentiment_labels if how.kind == "sentiment" else words.similarity_labels


def _choice_solved(values: Mapping[str, Any], how: Asking) -> str:
    space = delimiter(how.language)
    if "contexts" in values:
        return str(values["contexts"][values["gold"]] + space + values["continuation"])
    return _choice_asked(values, how) + space + _options(values, how)[values["gold"]]


def _content_free(how: Asking) -> list[str]:
    if how.kind == "multiple_choice":
        return []
    free = _WORDS[base_language(how.language) or ""].content_free
    return [_choice_asked({"text": each, "first": each, "second": each}, how) for each in free]


def last_word_item(case: "Case", examples: Sequence["Case"], how: Asking) -> "LastWordItem":
    """A case of `last_word`."""
    from llm.evaluation.tasks import LastWordItem

    space = delimiter(how.language)
    before = "".join(f"{each.values['context']}{space}{each.values['target']}{_SEPARATOR}" for each in examples)
    return LastWordItem(id=case.id, context=before + case.values["context"], target=space + case.values["target"])


def text_item(case: "Case") -> "TextItem":
    """A case of `perplexity`."""
    from llm.evaluation.tasks import TextItem

    return TextItem(id=case.id, **case.values)


def writing_item(case: "Case", examples: Sequence["Case"], how: Asking) -> "WritingItem":
    """A case of one of WRITING_KINDS."""
    from llm.evaluation.tasks import WritingItem

    space = delimiter(how.language)
    solved = (_writing_asked(each.values, how) + space + _answers(each.values)[0] + _SEPARATOR for each in examples)
    return WritingItem(
        id=case.id,
        prompt="".join(solved) + _writing_asked(case.values, how),
        delimiter=space,
        references=_answers(case.values),
        source=next(str(case.values[name]) for name in ("source", "text", "context") if name in case.values),
    )


def _writing_asked(values: Mapping[str, Any], how: Asking) -> str:
    words = _WORDS[base_language(how.language) or ""]
    if how.kind == "summarisation":
        return f"{values['text'].strip()}\n{words.tl_dr}"
    if how.kind == "question_answering":
        context = f"{values['context'].strip()}\n" if values["context"] else ""
        return f"{context}{words.question.format(values['question'].strip())}\n{words.answer}"
    source = _WORDS[base_language(how.source_language) or ""]
    colon = {"en": ":", "zh": "："}
    here, there = base_language(how.source_language) or "", base_language(how.language) or ""
    # Named in the source's language: a person who asks writes it.
    return (
        f"{source.languages[here]}{colon[here]}{'' if here == 'zh' else ' '}{values['source'].strip()}\n"
        f"{source.languages[there]}{colon[here]}"
    )


def _answers(values: Mapping[str, Any]) -> tuple[str, ...]:
    if "answers" in values:
        return tuple(values["answers"])
    return (str(values.get("target", values.get("summary"))).strip(),)
