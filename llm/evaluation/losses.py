"""The loss of continuations after their contexts, ids in: what the measures of bias and memorisation are made of.

A context is read from an end-of-text token. What does not fit the model's block_size is left out on the left; a continuation
that is longer is scored in pieces of half of it, each after as much of what precedes it as fits.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from llm.model import GPT
from pipelines.errors import ConfigError

Encode = Callable[[str], Sequence[int]]
"""A text to ids, without an end-of-text token."""
Progress = Callable[[int, int], None]
"""Is told how many are done, of how many."""

_MAX_NUM_TOKENS = 1 << 13
"""In a batch, padding included."""


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
    vocab_size, block_size = model.config.vocab_size, model.config.block_size
    for context, continuation in pairs:
        if not context or not continuation:
            raise ConfigError(
                f"got a context of {len(context)} tokens and a continuation of {len(continuation)}, wanted at least one "
                "of each: mend or leave out the item."
            )
        if outside := [token for part in (context, continuation) for token in part if not 0 <= token < vocab_size]:
            raise ConfigError(
                f"got token id {outside[0]}, wanted ids below the model's vocab_size of {vocab_size}: "
                "encode with the tokenizer that the model was trained with."
            )
    model.eval()
    device = model.wte.weight.device
    pieces = [(idx, *piece) for idx, pair in enumerate(pairs) for piece in _pieces(*pair, block_size)]
    found = np.zeros(len(pairs))
    order = sorted(range(len(pieces)), key=lambda place: -len(pieces[place][1]))
    start = 0
    while start < len(order):
        width = len(pieces[order[start]][1])
        batch = [pieces[place] for place in order[start : start + max(1, _MAX_NUM_TOKENS // width)]]
        ids = np.zeros((len(batch), width), np.int64)
        counts = np.zeros((len(batch), width - 1), np.float64)
        for row, (_, whole, num_scored) in enumerate(batch):
            ids[row, : len(whole)] = whole  # padded on the right, where nothing that counts sees it
            counts[row, len(whole) - 1 - num_scored : len(whole) - 1] = 1
        read = torch.from_numpy(ids).to(device)
        losses = model.token_losses(read[:, :-1], read[:, 1:]).double().cpu().numpy()
        np.add.at(found, [idx for idx, _, _ in batch], (losses * counts).sum(axis=1))
        start += len(batch)
        progress(start, len(order))
    return found


def _pieces(context: Sequence[int], continuation: Sequence[int], block_size: int) -> Iterator[tuple[list[int], int]]:
    """(ids, at most block_size and one; how many of the last are scored), so that each token is scored once."""
    whole = [*context, *continuation]
    step = len(continuation) if len(continuation) <= block_size else max(1, block_size // 2)
    for start in range(len(context), len(whole), step):
        end = min(start + step, len(whole))
        yield whole[max(0, end - block_size - 1) : end], end - start
