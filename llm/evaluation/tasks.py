"""Items of a task, what a model makes of them, and the figures of a suite: pure functions of model and items.

Items come with their prompts written out, few-shot examples included, so that whoever writes them (flows.evaluation.prompts) says in
one place what the model reads. Baselines that need no model stand beside each score: a figure says little without them.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llm.evaluation import overlap
from llm.evaluation.greedy import write_until
from llm.evaluation.likelihood import Speaker, continuation_likelihoods, text_likelihoods
from llm.evaluation.statistics import Figure, mean_figure, ratio_figure
from llm.evaluation.suite import Suite, SuiteResult
from pipelines.errors import EmptyCorpusError

_UNIFORM_BITS_PER_BYTE = 8.0
_ITEM_NUM_CHARS = 2_000
"""Of a prompt in a reviewer's table: its end, where the question is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceItem:
    """A question with its options, of which one is right: what is likelier after the context."""

    id: str
    contexts: tuple[str, ...]
    """One for each option; equal ones but where the options are the contexts (Winograd schemas, partially evaluated)."""
    continuations: tuple[str, ...]
    """One for each option, with the space that parts it from the context."""
    options: tuple[str, ...]
    """As they are measured for normalisation and shown: without that space."""
    gold: int
    content_free: tuple[str, ...] = ()
    """Contexts that ask about nothing, to calibrate by (arXiv:2102.09690); none: not calibrated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LastWordItem:
    """A passage and the word that ends it (LAMBADA, arXiv:1606.06031)."""

    id: str
    context: str
    target: str
    """With the space that parts it from the context."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextItem:
    """A whole text."""

    id: str
    text: str
    """As the model reads it."""
    num_words: int
    """Of the text as it was published, which a detokenizer may have changed."""
    num_bytes: int
    """Likewise, in UTF-8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WritingItem:
    """Something to write after a prompt, and what was hoped for."""

    id: str
    prompt: str
    delimiter: str
    """What parts the prompt from an answer: a space, or nothing."""
    references: tuple[str, ...]
    source: str
    """What the answer is about: a text to translate or to summarise, or the context of a question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing:
    """How an answer is written and measured."""

    measure: Literal["answer", "translation", "summary"]
    max_tokens: int
    until: tuple[str, ...] = ("\n",)


def multiple_choice(suite: Suite, items: Sequence[ChoiceItem], speaker: Speaker) -> SuiteResult:
    """acc, acc_norm (a character), acc_bytes (a byte), and acc_calibrated where asked; the first three as lm-evaluation-harness.

    Beside them what moves before any of these does: the probability of the right option among the options, and the bits
    that a byte of it takes. The score of an item is that of the suite's metric.
    """
    _wants_items(suite, items)
    found = _likelihoods(speaker, items)
    free = _content_free_likelihoods(speaker, items)
    rows = [_choice_row(item, each, free.get(item.id), suite.metric) for item, each in zip(items, found, strict=True)]
    names = ["acc", "acc_norm", "acc_bytes", "gold_probability", *(["acc_calibrated"] if free else [])]
    figures = {name: mean_figure([row[name] for row in rows]) for name in names}
    golden = [
        (-each[item.gold] / math.log(2), len(item.continuations[item.gold].encode()))
        for item, each in zip(items, found, strict=True)
    ]
    figures["gold_bits_per_byte"] = ratio_figure(*zip(*golden, strict=True))
    golds = Counter(item.gold for item in items)
    figures["baseline/random"] = _constant(float(np.mean([1 / len(item.options) for item in items])), len(items))
    figures["baseline/majority"] = _constant(golds.most_common(1)[0][1] / len(items), len(items))
    return SuiteResult(suite=suite, figures=figures, items=rows)


def _likelihoods(speaker: Speaker, items: Sequence[ChoiceItem]) -> list[NDArray[np.float64]]:
    pairs = [pair for item in items for pair in zip(item.contexts, item.continuations, strict=True)]
    scores = np.array([each.log_likelihood for each in continuation_likelihoods(speaker, pairs)])
    ends = np.cumsum([len(item.options) for item in items])[:-1]
    return list(np.split(scores, ends))


def _content_free_likelihoods(speaker: Speaker, items: Sequence[ChoiceItem]) -> dict[str, NDArray[np.float64]]:
    """Of each item's options after contexts without content: the logarithm of the mean probability."""
    asked = [item for item in items if item.content_free]
    pairs = [(context, word) for item in asked for context in item.content_free for word in item.continuations]
    scores = iter(each.log_likelihood for each in continuation_likelihoods(speaker, pairs))
    found = {}
    for item in asked:
        logs = np.array([[next(scores) for _ in item.continuations] for _ in item.content_free])
        found[item.id] = np.logaddexp.reduce(logs, axis=0) - math.log(len(logs))
    return found


def _choice_row(
    item: ChoiceItem, scores: NDArray[np.float64], free: NDArray[np.float64] | None, metric: str
) -> dict[str, Any]:
    num_chars = np.array([len(option) for option in item.options], np.float64)
    num_bytes = np.array([len(option.encode()) for option in item.options], np.float64)
    shares = np.exp(scores - np.logaddexp.reduce(scores))
    measured = {
        "acc": float(scores.argmax() == item.gold),
        "acc_norm": float((scores / num_chars).argmax() == item.gold),
        "acc_bytes": float((scores / num_bytes).argmax() == item.gold),
        "gold_probability": float(shares[item.gold]),
    }
    if free is not None:
        measured["acc_calibrated"] = float((scores - free).argmax() == item.gold)
    return {
        "id": item.id,
        "score": measured[metric],
        "prompt": item.contexts[item.gold][-_ITEM_NUM_CHARS:],
        "options": list(item.options),
        "gold": item.gold,
        "chosen": int(((scores - free) if free is not None else scores).argmax()),
        "log_likelihoods": scores.tolist(),
        **measured,
    }


def last_word(suite: Suite, items: Sequence[LastWordItem], speaker: Speaker) -> SuiteResult:
    """loss (nats a word, the suite's metric), perplexity (its exponential) and acc, as LAMBADA has it."""
    _wants_items(suite, items)
    found = continuation_likelihoods(speaker, [(item.context, item.target) for item in items])
    rows: list[dict[str, Any]] = [
        {
            "id": item.id,
            "score": -each.log_likelihood,
            "prompt": item.context[-_ITEM_NUM_CHARS:],
            "target": item.target,
            "acc": float(each.is_greedy),
            "num_tokens": each.num_tokens,
        }
        for item, each in zip(items, found, strict=True)
    ]
    loss = mean_figure([row["score"] for row in rows])
    uniform = np.array([each.num_tokens for each in found]) * math.log(speaker.model.config.vocab_size)
    return SuiteResult(
        suite=suite,
        figures={
            "loss": loss,
            "perplexity": _exponential(loss),
            "acc": mean_figure([row["acc"] for row in rows]),
            "baseline/uniform": _constant(float(uniform.mean()), len(items)),
        },
        items=rows,
    )


def perplexity(suite: Suite, items: Sequence[TextItem], speaker: Speaker) -> SuiteResult:
    """bits_per_byte (the suite's metric), byte_perplexity and, of writings with spaces, word_perplexity.

    Items weigh by their bytes.
    """
    _wants_items(suite, items)
    found = text_likelihoods(speaker, [item.text for item in items])
    bits = np.array([-each.log_likelihood / math.log(2) for each in found])
    num_words, num_bytes = (
        np.array(each, np.float64) for each in zip(*((i.num_words, i.num_bytes) for i in items), strict=True)
    )
    nats = bits * math.log(2)
    rows: list[dict[str, Any]] = [
        {
            "id": item.id,
            "score": float(score),
            "weight": item.num_bytes,
            "text": item.text[:_ITEM_NUM_CHARS],
            "bits_per_byte": float(score) / item.num_bytes if item.num_bytes else None,
            "num_tokens": each.num_tokens,
        }
        for item, each, score in zip(items, found, bits, strict=True)
    ]
    return SuiteResult(
        suite=suite,
        figures={
            "bits_per_byte": ratio_figure(bits, num_bytes),
            "byte_perplexity": _exponential(ratio_figure(nats, num_bytes)),
            **(
                {}
                if _is_spaceless(suite.language)
                else {"word_perplexity": _exponential(ratio_figure(nats, num_words))}
            ),
            "baseline/uniform": _constant(_UNIFORM_BITS_PER_BYTE, len(items)),
        },
        items=rows,
    )


def writing(
    suite: Suite, items: Sequence[WritingItem], speaker: Speaker, how: Writing, *, seed: int = 0
) -> SuiteResult:
    """What the model writes against what was hoped for.

    answer: f1, exact_match. translation: chrf (mean of the items), chrf_corpus (of all together, as sacrebleu has it).
    summary: rouge_l. Beside them what moves before these do: the bits that a byte of the first reference takes.
    Baselines: `random` is another item's reference, drawn by the seed; `majority` the commonest one; `copy` the source;
    `lead_1` and `lead_3` its first sentences.
    """
    _wants_items(suite, items)
    found = write_until(speaker, [item.prompt for item in items], until=how.until, max_tokens=how.max_tokens)
    rows: list[dict[str, Any]] = []
    for item, each in zip(items, found, strict=True):
        measured = writing_scores(how.measure, each.text, item.references)
        rows.append(
            {
                "id": item.id,
                "score": measured[suite.metric],
                "prompt": item.prompt[-_ITEM_NUM_CHARS:],
                "written": each.text.strip(),
                "references": list(item.references),
                "num_tokens": each.num_tokens,
                "ended": each.ended,
                **measured,
            }
        )
    figures = {name: mean_figure([row[name] for row in rows]) for name in WRITING_METRICS[how.measure]}
    if how.measure == "translation":
        figures["chrf_corpus"] = corpus_chrf(
            [(each.text, item.references) for item, each in zip(items, found, strict=True)]
        )
    wanted = [item.delimiter + item.references[0] for item in items]
    likely = continuation_likelihoods(speaker, [(item.prompt, text) for item, text in zip(items, wanted, strict=True)])
    figures["reference_bits_per_byte"] = ratio_figure(
        [-each.log_likelihood / math.log(2) for each in likely], [len(text.encode()) for text in wanted]
    )
    figures["ended"] = mean_figure([float(each.ended) for each in found])
    for name, answers in _baselines(how.measure, items, seed).items():
        scores = [
            writing_scores(how.measure, answer, item.references)[suite.metric]
            for answer, item in zip(answers, items, strict=True)
        ]
        figures[f"baseline/{name}"] = mean_figure(scores)
    return SuiteResult(suite=suite, figures=figures, items=rows)


WRITING_METRICS: Mapping[str, tuple[str, ...]] = {
    "answer": ("f1", "exact_match"),
    "translation": ("chrf",),
    "summary": ("rouge_l",),
}


def writing_scores(measure: str, written: str, references: Sequence[str]) -> dict[str, float]:
    """An item's scores by metric."""
    by_metric: dict[str, Callable[[str, Sequence[str]], float]] = {
        "f1": overlap.token_f1,
        "exact_match": overlap.exact_match,
        "chrf": lambda text, wanted: overlap.chrf_counts(text, wanted).score,
        "rouge_l": overlap.rouge_l,
    }
    return {name: by_metric[name](written, references) for name in WRITING_METRICS[measure]}


def corpus_chrf(pairs: Sequence[tuple[str, Sequence[str]]]) -> Figure:
    """chrF2 of texts and their references, counted together; it is no mean of items, and has no interval here."""
    counts = [overlap.chrf_counts(written, references) for written, references in pairs]
    return _constant(sum(counts[1:], counts[0]).score, len(pairs))


def _baselines(measure: str, items: Sequence[WritingItem], seed: int) -> dict[str, list[str]]:
    """What would be written without a model, for each item."""
    found: dict[str, list[str]] = {}
    if len(items) > 1:
        steps = np.random.default_rng(seed).integers(1, len(items), len(items))
        found["random"] = [items[(idx + int(step)) % len(items)].references[0] for idx, step in enumerate(steps)]
    if measure == "answer":
        commonest = Counter(item.references[0] for item in items).most_common(1)[0][0]
        found["majority"] = [commonest] * len(items)
    elif measure == "translation":
        found["copy"] = [item.source for item in items]
    else:
        for num_sentences in (1, 3):
            found[f"lead_{num_sentences}"] = [overlap.leading_sentences(item.source, num_sentences) for item in items]
    return found


def _is_spaceless(language: str | None) -> bool:
    return language is not None and language.partition("-")[0].lower() in ("zh", "ja")


def _constant(value: float, num_items: int) -> Figure:
    """Of what needs no estimate."""
    return Figure(value=value, low=None, high=None, num_items=num_items)


def _exponential(figure: Figure) -> Figure:
    def raised(value: float | None) -> float | None:
        return None if value is None else math.exp(min(value, _MAX_EXPONENT))

    return Figure(
        value=math.exp(min(figure.value, _MAX_EXPONENT)),
        low=raised(figure.low),
        high=raised(figure.high),
        num_items=figure.num_items,
    )


_MAX_EXPONENT = 709.0
"""The largest whole one of a double: a perplexity of a word beyond that is not told apart from another."""


def _wants_items(suite: Suite, items: Sequence[Any]) -> None:
    if not items:
        raise EmptyCorpusError(f"got no item in suite {suite.name}, wanted at least one: add items, or leave it out.")
