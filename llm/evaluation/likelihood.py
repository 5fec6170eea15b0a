"""How likely a model finds texts: continuations after contexts, and whole texts.

The rules are those of lm-evaluation-harness 0.4 (arXiv:2405.14782), so that figures compare with published ones: a
continuation's tokens are what the whole text has beyond the context's own number of tokens; spaces at the end of a context
belong to the continuation; what does not fit is left out on the left; a whole text is read from an end-of-text token in
windows that do not overlap, each as full as it can be.

Shapes: T tokens of a sequence, V the vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from llm.model import GPT
from pipelines.errors import ConfigError

_MAX_NUM_LOGITS_CPU, _MAX_NUM_LOGITS_GPU = 1 << 22, 1 << 27
"""Held at once: 16 and 512 MiB in fp32, and as much again for their logarithms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaker:
    """A model with the way into its tokens and out of them."""

    model: GPT
    encode: Callable[[str], list[int]]
    """A text to ids, without an end-of-text token."""
    decode: Callable[[Sequence[int]], str]
    """Ids to a text; bytes that are no whole character become U+FFFD."""
    eot_token: int
    batch_size: int = 32
    """Sequences at once: changes nothing but speed, and rounding in the seventh digit."""


@dataclass(frozen=True, slots=True)
class Span:
    """A sequence of which the last `num_scored` tokens count, each predicted from those before it; ids as they are read."""

    ids: tuple[int, ...]
    num_scored: int


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What the model thought of the scored tokens of a span: (num_scored,) each."""

    log_likelihoods: NDArray[np.float64]
    """Nats, at most 0."""
    is_likeliest: NDArray[np.bool_]
    confidences: NDArray[np.float64]
    """Probability of the likeliest token, right or wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Likelihood:
    """Of a continuation after its context."""

    log_likelihood: float
    """Nats, summed over the tokens."""
    num_tokens: int
    is_greedy: bool
    """Whether the model would write it, choosing the likeliest token each time."""


def continuation_likelihoods(speaker: Speaker, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
    """Of each (context, continuation), in their order; an empty context is an end-of-text token."""
    ids = [encoded_pair(context, continuation, speaker.encode, speaker.eot_token) for context, continuation in pairs]
    return token_likelihoods(speaker, ids)


def token_likelihoods(speaker: Speaker, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Likelihood]:
    """Of each continuation after its context, both as ids, neither empty; equal pairs are read once.

    A continuation longer than the context window is read in windows, as a whole text is, the first of them after the
    context's last token.
    """
    block_size = speaker.model.config.block_size
    distinct = {(tuple(context), tuple(continuation)): None for context, continuation in pairs}
    parts = [list(_pair_spans(*pair, block_size)) for pair in distinct]
    scores = iter(token_scores(speaker.model, [span for spans in parts for span in spans], speaker.batch_size))
    found = {}
    for pair, spans in zip(distinct, parts, strict=True):
        read = [next(scores) for _ in spans]
        found[pair] = Likelihood(
            log_likelihood=float(sum(each.log_likelihoods.sum() for each in read)),
            num_tokens=len(pair[1]),
            is_greedy=all(bool(each.is_likeliest.all()) for each in read),
        )
    return [found[tuple(context), tuple(continuation)] for context, continuation in pairs]


def text_likelihoods(speaker: Speaker, texts: Sequence[str]) -> list[Likelihood]:
    """Of each text as a whole; an empty one has the log-likelihood 0."""
    block_size = speaker.model.config.block_size
    parts = [list(rolling_spans(speaker.encode(text), speaker.eot_token, block_size)) for text in texts]
    scores = iter(token_scores(speaker.model, [span for spans in parts for span in spans], speaker.batch_size))
    read = [[next(scores) for _ in spans] for spans in parts]
    return [
        Likelihood(
            log_likelihood=float(sum(each.log_likelihoods.sum() for each in windows)),
            num_tokens=sum(each.log_likelihoods.size for each in windows),
            is_greedy=all(bool(each.is_likeliest.all()) for each in windows),
        )
        for windows in read
    ]


def encoded_pair(
    context: str, continuation: str, encode: Callable[[str], list[int]], eot_token: int
) -> tuple[list[int], list[int]]:
    """Ids of a context and of its continuation. Raises ConfigError where the continuation has none."""
    if not context:
        context_ids, continuation_ids = [eot_token], encode(continuation)
    else:
        kept = context.rstrip()
        continuation, context = context[len(kept) :] + continuation, kept
        if not context:
            context_ids, continuation_ids = [eot_token], encode(continuation)
        else:
            context_ids = encode(context)
            # Where a token reaches over the border there may be nothing beyond it.
            continuation_ids = encode(context + continuation)[len(context_ids) :] or encode(continuation)
    if not continuation_ids:
        raise ConfigError("got an empty continuation, wanted at least one character to score: mend the item.")
    return context_ids, continuation_ids


def rolling_spans(ids: Sequence[int], prefix_token: int, block_size: int) -> Iterator[Span]:
    """Windows in which each token counts once, the first one after `prefix_token`.

    All are block_size long but where the text is shorter: the last one reads again of the text before it what fits.
    """
    whole = (prefix_token, *ids)
    for start in range(0, len(ids), block_size):
        end = min(start + block_size, len(ids))
        yield Span(whole[max(0, end - block_size) : end + 1], end - start)


def _pair_spans(context: tuple[int, ...], continuation: tuple[int, ...], block_size: int) -> Iterator[Span]:
    if len(continuation) > block_size:
        yield from rolling_spans(continuation, context[-1], block_size)
    else:
        yield Span((*context, *continuation)[-(block_size + 1) :], len(continuation))


def token_scores(model: GPT, spans: Sequence[Span], batch_size: int) -> list[TokenScores]:
    """What the model thinks of the scored tokens of spans of 2 to block_size + 1 ids, in their order; in fp32."""
    device, vocab_size = model.wte.weight.device, model.config.vocab_size
    outside = next((token for span in spans for token in span.ids if not 0 <= token < vocab_size), None)
    if outside is not None:
        raise ConfigError(
            f"got token id {outside}, wanted ids below the model's vocab_size of {vocab_size}: encode with the "
            "tokenizer that the model was trained with."
        )
    model.eval()
    # Like lengths together, so that there is little padding. It is on the right, where nothing that counts sees it.
    order = sorted(range(len(spans)), key=lambda idx: (-len(spans[idx].ids), spans[idx].ids))
    found: dict[int, TokenScores] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        ids = np.zeros((len(batch), len(spans[batch[0]].ids) - 1), dtype=np.int64)
        scored = np.zeros(ids.shape, dtype=np.bool_)
        for row, idx in enumerate(batch):
            size = len(spans[idx].ids) - 1
            ids[row, :size] = spans[idx].ids[:-1]
            scored[row, size - spans[idx].num_scored : size] = True
        targets = np.concatenate([spans[idx].ids[len(spans[idx].ids) - spans[idx].num_scored :] for idx in batch])
        with torch.inference_mode():
            states = model.states(torch.from_numpy(ids).to(device))[torch.from_numpy(scored).to(device)]  # (N, C)
            scores = _of_states(model, states, torch.from_numpy(targets.astype(np.int64)).to(device))
        ends = np.cumsum([spans[idx].num_scored for idx in batch])[:-1]
        parts = zip(*(np.split(each, ends) for each in scores), strict=True)
        for idx, part in zip(batch, parts, strict=True):
            found[idx] = TokenScores(*part)
    return [found[idx] for idx in range(len(spans))]


def _of_states(
    model: GPT, states: torch.Tensor, targets: torch.Tensor
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """(N, C), (N,) -> log-likelihoods, whether they are the likeliest, probabilities of the likeliest: (N,) each."""
    max_num_logits = _MAX_NUM_LOGITS_CPU if states.device.type == "cpu" else _MAX_NUM_LOGITS_GPU
    num_rows = max(1, max_num_logits // model.config.vocab_size)
    likelihoods, likeliest, confidences = [], [], []
    for start in range(0, targets.numel(), num_rows):
        rows, wanted = states[start : start + num_rows], targets[start : start + num_rows]
        logs = torch.log_softmax(model.logits(rows).float(), dim=-1)  # (n, V)
        likelihoods.append(logs.gather(1, wanted[:, None])[:, 0])
        top = logs.max(dim=-1)
        likeliest.append(top.indices == wanted)
        confidences.append(top.values.exp())
    return (
        torch.cat(likelihoods).double().cpu().numpy(),
        torch.cat(likeliest).cpu().numpy(),
        torch.cat(confidences).double().cpu().numpy(),
    )
