"""The loss of continuations after their contexts, ids in: what the measures of bias and memorisation are made of.

A context is read from an end-of-text token. What does not fit the model's block_size is left out on the left; a continuation
that is longer is scored in pieces of half of it, each after as much of what precedes it as fits: unlike `likelihood`, whose
rules are those of published figures, no token is scored after less than half a context.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from llm.evaluation.likelihood import Span, token_scores
from llm.model import GPT
from pipelines.errors import ConfigError

Encode = Callable[[str], Sequence[int]]
"""A text to ids, without an end-of-text token."""
Progress = Callable[[int, int], None]
"""Is told how many are done, of how many."""

_BATCH_SIZE = 32
_NUM_A_PART = 512
"""Pieces between two reports of progress."""


def no_progress(_done: int, _num: int) -> None:
    """Tells nobody."""


def text_losses(
    model: GPT, encode: Encode, eot_token: int, texts: Sequence[str], progress: Progress = no_progress
) -> NDArray[np.float64]:
    """Nats of each text as a whole after an end-of-text token: (num_texts,).

    Raises ConfigError for an empty text.
    """
    pairs = [([eot_token], list(encode(text))) for text in texts]
    return continuation_losses(model, pairs, progress)


def split_pair(encode: Encode, eot_token: int, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The ids of both, read as one text, cut where the first differs from the context alone.

    A token that reaches over the border belongs to the continuation, so nothing of it is given away.
    """
    alone, both = list(encode(context)), list(encode(context + continuation))
    shared = 0
    while shared < min(len(alone), len(both) - 1) and alone[shared] == both[shared]:
        shared += 1
    return [eot_token, *both[:shared]], both[shared:]


def continuation_losses(
    model: GPT, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], progress: Progress = no_progress
) -> NDArray[np.float64]:
    """Nats of each continuation after its context, both as ids and neither empty, summed over its tokens: (num_pairs,).

    Raises ConfigError for an empty one and for an id that the model has not.
    """
    for context, continuation in pairs:
        if not context or not continuation:
            raise ConfigError(
                f"got a context of {len(context)} tokens and a continuation of {len(continuation)}, wanted at least one "
                "of each: mend or leave out the item."
            )
    pieces = [(idx, piece) for idx, pair in enumerate(pairs) for piece in _pieces(*pair, model.config.block_size)]
    pieces.sort(key=lambda each: -len(each[1].ids))  # like lengths together, within a part, too
    found = np.zeros(len(pairs))
    for start in range(0, len(pieces), _NUM_A_PART):
        part = pieces[start : start + _NUM_A_PART]
        for (idx, _), scores in zip(part, token_scores(model, [piece for _, piece in part], _BATCH_SIZE), strict=True):
            found[idx] -= scores.log_likelihoods.sum()
        progress(start + len(part), len(pieces))
    return found


def _pieces(context: Sequence[int], continuation: Sequence[int], block_size: int) -> Iterator[Span]:
    """Spans in which each token of the continuation is scored once."""
    whole = (*context, *continuation)
    step = len(continuation) if len(continuation) <= block_size else max(1, block_size // 2)
    for start in range(len(context), len(whole), step):
        end = min(start + step, len(whole))
        yield Span(whole[max(0, end - block_size - 1) : end], end - start)
