"""Documents as the rungs take them: as many for training as a budget allows, and side by side in lanes.

Every rung sees a document as evaluation does: by itself, its first token predicted from an end-of-text token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm.data import TokenData

Tokens = NDArray[Any]
"""(T,) ids of one document, unsigned integers of any width."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The next tokens of several documents, one document a lane. Shapes: B lanes, T tokens of the longest."""

    inputs: NDArray[np.int64]
    """(B, T) what is read; 0 where a lane has fewer tokens."""
    targets: NDArray[np.int64]
    """(B, T) what comes next."""
    lengths: NDArray[np.int64]
    """(B,) tokens of each lane; 0 for a lane that has run out of documents."""
    begins: NDArray[np.bool_]
    """(B,) whether the lane begins a document here: what a model remembers of the one before is to be forgotten."""
    documents: NDArray[np.int64]
    """(B,) which document, its place in the list."""

    @property
    def is_token(self) -> NDArray[np.bool_]:
        """(B, T) False where a lane has fewer tokens."""
        found: NDArray[np.bool_] = np.arange(self.targets.shape[1]) < self.lengths[:, None]
        return found


def training_documents(data: TokenData, max_tokens: int) -> list[Tokens]:
    """Views of whole documents from all over the data, together at most `max_tokens` tokens; all of them where they fit.

    The first `max_tokens` tokens of the first document where no document is as short as that.
    """
    taken, num_taken, num_seen, first = list[Tokens](), 0, 0, None
    for document in data.documents():
        tokens = document.tokens
        if not tokens.size:
            continue
        first = tokens if first is None else first
        num_seen += tokens.size
        if (num_taken + tokens.size) * data.num_tokens <= max_tokens * num_seen or data.num_tokens <= max_tokens:
            taken.append(tokens)
            num_taken += tokens.size
    if not taken and first is not None:
        taken = [first[:max_tokens]]
    return taken


def lanes(documents: Sequence[Tokens], *, eot_token: int, num_lanes: int, length: int) -> Iterator[Segment]:
    """Every token of every document as a target once, in segments of up to `length` tokens.

    A lane goes through its document from segment to segment, then takes the next that nobody has.
    """
    num_lanes = min(num_lanes, len(documents))
    waiting = iter(range(len(documents)))
    current, done = np.full(num_lanes, -1), np.zeros(num_lanes, dtype=np.int64)
    while True:
        begins = np.zeros(num_lanes, dtype=np.bool_)
        lengths = np.zeros(num_lanes, dtype=np.int64)
        for lane in range(num_lanes):
            while current[lane] < 0 or done[lane] >= documents[current[lane]].size:
                following = next(waiting, None)
                if following is None:
                    break
                current[lane], done[lane], begins[lane] = following, 0, True
            if current[lane] >= 0:
                lengths[lane] = min(length, documents[current[lane]].size - done[lane])
        if not lengths.any():
            return
        inputs, targets = np.zeros((2, num_lanes, int(lengths.max())), dtype=np.int64)
        for lane in np.flatnonzero(lengths).tolist():
            tokens, begin, size = documents[current[lane]], int(done[lane]), int(lengths[lane])
            targets[lane, :size] = tokens[begin : begin + size]
            inputs[lane, 0] = tokens[begin - 1] if begin else eot_token
            inputs[lane, 1:size] = targets[lane, : size - 1]
        yield Segment(inputs, targets, lengths, begins, current.copy())
        done += lengths


def ended_stream(
    documents: Sequence[Tokens], eot_token: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.bool_]]:
    """Documents one after the other, each ended by the end-of-text token, which is added where one has none.

    (N,) the tokens, (N,) the place of the document of each, (N,) whether the document has that token.
    """
    end = np.array([eot_token])
    parts, has = list[Tokens](), list[NDArray[np.bool_]]()
    for tokens in documents:
        is_ended = bool(tokens.size) and int(tokens[-1]) == eot_token
        parts.append(tokens if is_ended else np.concatenate([tokens, end]))
        has.append(np.arange(parts[-1].size) < tokens.size)
    if not parts:
        return np.zeros(0, np.uint32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    owners = np.repeat(np.arange(len(parts)), [part.size for part in parts])
    return np.concatenate(parts).astype(np.uint32), owners, np.concatenate(has)
