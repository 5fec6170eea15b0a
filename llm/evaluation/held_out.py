"""More of a model on held-out documents than their loss: calibration, loss by position, and the quality of what it writes.

Each document by itself, read from an end-of-text token in windows that do not overlap, so that a token's position in its
window is how much of its document the model saw before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from llm.data import TokenData, TokenDocument
from llm.evaluation.calibration import expected_calibration_error
from llm.evaluation.likelihood import Span, Speaker, TokenScores, rolling_spans, token_scores
from llm.evaluation.positions import loss_by_position
from llm.evaluation.quality import WrittenText, generation_quality, repetition
from llm.evaluation.statistics import Figure, ratio_figure
from llm.evaluation.suite import Suite, SuiteResult
from llm.sample import Sampling, generate
from pipelines.digest import digest_value
from pipelines.errors import EmptyCorpusError

_PROMPT_NUM_TOKENS = 12
"""Of a document's beginning, that the model goes on from; at most a quarter of the context."""
_MIN_DETECTED_NUM_CHARS = 40
"""Of a beginning: below it no identifier of languages is sure."""


def held_out_extras(
    speaker: Speaker,
    held_out: TokenData,
    detect: Callable[[str], str | None],
    *,
    max_tokens: int = 50_000,
    num_texts: int = 24,
    text_num_tokens: int = 64,
) -> list[SuiteResult]:
    """Suites `calibration`, `positions` and `generation_quality`.

    `detect` names the language of a text, None where it cannot tell. `max_tokens` held-out tokens are read at most, whole
    documents from the front of the split; `num_texts` of them have their beginnings gone on from. Raises EmptyCorpusError
    where the split has no documents.
    """
    documents = list(_first_documents(held_out, max_tokens))
    if not documents:
        raise EmptyCorpusError(
            f"got no document in the split {held_out.split}, wanted at least one held out: add documents."
        )
    read = _read(speaker, documents)
    return [
        _calibration(held_out, read),
        _positions(held_out, read, speaker.model.config.block_size),
        _quality(speaker, held_out, documents, detect, num_texts, text_num_tokens),
    ]


def _first_documents(held_out: TokenData, max_tokens: int) -> Iterator[TokenDocument]:
    num_tokens = 0
    for document in held_out.documents():
        if num_tokens and num_tokens + document.tokens.size > max_tokens:
            return
        num_tokens += document.tokens.size
        yield document


_Read = list[tuple[str, TokenScores, NDArray[np.int64]]]
"""Of each document its name, the scores of its tokens, and how many tokens each was predicted from."""


def _read(speaker: Speaker, documents: list[TokenDocument]) -> _Read:
    block_size = speaker.model.config.block_size
    parts: list[list[Span]] = [
        list(rolling_spans([int(token) for token in document.tokens], speaker.eot_token, block_size))
        for document in documents
    ]
    scores = iter(token_scores(speaker.model, [span for spans in parts for span in spans], speaker.batch_size))
    found = []
    for document, spans in zip(documents, parts, strict=True):
        read = [next(scores) for _ in spans]
        joined = TokenScores(
            np.concatenate([each.log_likelihoods for each in read]),
            np.concatenate([each.is_likeliest for each in read]),
            np.concatenate([each.confidences for each in read]),
        )
        seen = [np.arange(len(span.ids) - span.num_scored, len(span.ids)) for span in spans]
        found.append((document.doc_id, joined, np.concatenate(seen)))
    return found


def _calibration(held_out: TokenData, read: _Read) -> SuiteResult:
    suite = Suite(
        name="calibration",
        version=1,
        protocol="next-token-bins/1: expected calibration error of the likeliest next token, 15 bins of equal width",
        metric="calibration_error",
        higher_is_better=False,
        dataset_digest=_digest(held_out),
        noise_floor=0.005,
    )
    found = expected_calibration_error(
        [each.confidences for _, each, _ in read], [each.is_likeliest for _, each, _ in read]
    )
    hits = ratio_figure(
        [each.is_likeliest.sum() for _, each, _ in read], [each.is_likeliest.size for _, each, _ in read]
    )
    confidence = ratio_figure(
        [each.confidences.sum() for _, each, _ in read], [each.confidences.size for _, each, _ in read]
    )
    rows = [
        {
            "id": f"{each.low:.3f}-{each.high:.3f}",
            "score": abs((each.confidence or 0.0) - (each.accuracy or 0.0)) * each.num_tokens,
            "weight": each.num_tokens,
            **asdict(each),
        }
        for each in found.bins
    ]
    figures = {"calibration_error": found.error, "accuracy": hits, "confidence": confidence}
    return SuiteResult(suite=suite, figures=figures, items=rows)


def _positions(held_out: TokenData, read: _Read, block_size: int) -> SuiteResult:
    suite = Suite(
        name="positions",
        version=1,
        protocol="disjoint-windows/1: loss by the number of tokens that a token is predicted from",
        metric="loss",
        higher_is_better=False,
        dataset_digest=_digest(held_out),
        noise_floor=0.01,
    )
    losses = [-each.log_likelihoods for _, each, _ in read]
    bins = loss_by_position(losses, [seen for _, _, seen in read], block_size)
    figures = {"loss": ratio_figure([each.sum() for each in losses], [each.size for each in losses])}
    figures |= {f"loss_after_{each.first}": each.loss for each in bins}
    rows = [
        {
            "id": f"{each.first}-{each.last}",
            "score": each.loss.value * each.num_tokens,
            "weight": each.num_tokens,
            "first": each.first,
            "last": each.last,
            "loss": each.loss.value,
            "low": each.loss.low,
            "high": each.loss.high,
        }
        for each in bins
    ]
    return SuiteResult(suite=suite, figures=figures, items=rows)


def _quality(
    speaker: Speaker,
    held_out: TokenData,
    documents: list[TokenDocument],
    detect: Callable[[str], str | None],
    num_texts: int,
    text_num_tokens: int,
) -> SuiteResult:
    suite = Suite(
        name="generation_quality",
        version=1,
        protocol=(
            f"sampled-0.8-top-50/1: {text_num_tokens} tokens after the first {_PROMPT_NUM_TOKENS} of documents, at "
            "temperature 0.8 from the 50 likeliest tokens, seeded by the document's place"
        ),
        metric="repetition_4",
        higher_is_better=False,
        dataset_digest=_digest(held_out),
        noise_floor=0.02,
    )
    texts: list[WrittenText] = []
    beginnings: list[str] = []
    for place, document in enumerate(documents):
        text = speaker.decode([int(token) for token in document.tokens[:-1]])
        language = detect(text) if len(text) >= _MIN_DETECTED_NUM_CHARS else None
        if language is None or document.tokens.size <= _PROMPT_NUM_TOKENS or len(texts) == num_texts:
            continue
        size = min(_PROMPT_NUM_TOKENS, max(1, speaker.model.config.block_size // 4))
        prompt = [int(token) for token in document.tokens[:size]]
        sampling = Sampling(max_tokens=text_num_tokens, temperature=0.8, top_k=50, seed=place)
        ids = [speaker.eot_token, *prompt]
        written = list(generate(speaker.model, ids, sampling, eot_token=speaker.eot_token))
        beginnings.append(speaker.decode(prompt))
        texts.append(
            WrittenText(
                id=document.doc_id,
                text=speaker.decode([token for token in written if token != speaker.eot_token]),
                language=language,
                num_tokens=len(written),
                ended=speaker.eot_token in written,
            )
        )
    if not texts:
        return SuiteResult(
            suite=suite, figures={}, skipped="No held-out document is long enough for its language to be told."
        )
    found = generation_quality(texts, detect)
    figures = {f"repetition_{order}": figure for order, figure in found.repetition.items()}
    figures |= {
        f"distinct_{order}": Figure(value=value, low=None, high=None, num_items=len(texts))
        for order, value in found.distinct.items()
    }
    figures |= {"language_kept": found.language_kept, "ended": found.ended, "num_tokens": found.num_tokens}
    rows = [
        {
            "id": each.id,
            "score": repetition(each.text, 4),
            "beginning": beginning,
            "text": each.text,
            "language": each.language,
            "language_found": detect(each.text),
            "num_tokens": each.num_tokens,
            "ended": each.ended,
        }
        for each, beginning in zip(texts, beginnings, strict=True)
    ]
    return SuiteResult(suite=suite, figures=figures, items=rows)


def _digest(held_out: TokenData) -> str:
    return digest_value({"corpus": held_out.digest, "split": held_out.split})
