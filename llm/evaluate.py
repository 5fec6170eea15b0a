"""Held-out loss and bits per byte, beside a unigram baseline on the same tokens.

Protocol (`PROTOCOL`): each held-out document by itself, each of its tokens scored once, its end-of-text token
included. The first token is predicted from an end-of-text token, as in training. In a document longer than the
context the window moves on by half of it, so that every later token sees at least half a context of its own
document. Bits per byte divide the whole loss, end-of-text included, by the UTF-8 bytes of the text: perplexities
of different tokenizers cannot be compared, bits per byte can.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llm.checkpoint import load_model
from llm.data import TokenData, TokenDocument, too_large
from llm.evaluation.documents import held_out_suite
from llm.evaluation.ladder.frequencies import unigram_losses
from llm.evaluation.suite import SuiteResult
from llm.model import GPT
from pipelines.errors import EmptyCorpusError

__all__ = ["PROTOCOL", "Measurements", "document_losses", "evaluate", "load_model"]

PROTOCOL = "document-stride-half/1"
"""Name of how tokens are scored; another number means another way, and figures that do not compare."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurements:
    """Figures over the held-out documents. Standard errors are over documents; None where there is only one."""

    protocol: str
    split: str
    """Which documents: test, or validation where no document is in test."""
    num_documents: int
    num_tokens: int
    num_bytes: int
    """UTF-8 bytes of the texts."""
    loss: float
    """Nats a token."""
    loss_standard_error: float | None
    perplexity: float
    """Per token: exp(loss)."""
    bits_per_byte: float
    bits_per_byte_standard_error: float | None
    unigram_loss: float
    """Nats a token of a unigram model: add-one smoothed frequencies of the training tokens."""
    unigram_bits_per_byte: float
    gain: float
    """unigram_loss - loss: what the model knows beyond word frequencies, nats a token."""
    gain_standard_error: float | None


def evaluate(
    model: GPT, train_data: TokenData, held_out: TokenData, *, eot_token: int, batch_size: int = 16
) -> tuple[Measurements, SuiteResult]:
    """Score a model and a unigram baseline on the same held-out tokens, in fp32 on the model's device.

    The second value has the documents one by one, for comparisons and groups.
    `batch_size` is sequences at once and changes nothing but speed. Raises EmptyCorpusError where the
    held-out documents have no text, SchemaError for a token id that the model does not have.
    """
    documents = list(held_out.documents())
    num_tokens = np.array([document.tokens.size for document in documents], dtype=np.float64)
    num_bytes = np.array([document.num_bytes for document in documents], dtype=np.float64)
    if not num_bytes.sum():
        raise EmptyCorpusError(
            f"got no text in {len(documents)} held-out documents; wanted at least one byte: add documents."
        )
    losses = document_losses(model, documents, eot_token=eot_token, batch_size=batch_size)
    counts = train_data.counts(model.config.vocab_size)
    unigram = unigram_losses(counts, [document.tokens for document in documents])
    loss, loss_error = _ratio(losses, num_tokens)
    bits, bits_error = _ratio(losses / math.log(2), num_bytes)
    gain, gain_error = _ratio(unigram - losses, num_tokens)
    measured = Measurements(
        protocol=PROTOCOL,
        split=held_out.split,
        num_documents=len(documents),
        num_tokens=int(num_tokens.sum()),
        num_bytes=int(num_bytes.sum()),
        loss=loss,
        loss_standard_error=loss_error,
        perplexity=math.exp(loss),
        bits_per_byte=bits,
        bits_per_byte_standard_error=bits_error,
        unigram_loss=_ratio(unigram, num_tokens)[0],
        unigram_bits_per_byte=_ratio(unigram / math.log(2), num_bytes)[0],
        gain=gain,
        gain_standard_error=gain_error,
    )
    return measured, held_out_suite(documents, losses, protocol=PROTOCOL, split=held_out.split)


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of a document: the model reads `inputs` and only the last `num_scored` targets count."""

    document_idx: int
    inputs: NDArray[Any]
    targets: NDArray[Any]
    num_scored: int


def _windows(tokens: NDArray[Any], document_idx: int, *, eot_token: int, block_size: int) -> Iterator[_Window]:
    """Windows that score each token of a document once."""
    read = np.concatenate([[eot_token], tokens]).astype(np.int64)  # read[i + 1] is predicted from read[: i + 1]
    scored = 0
    while scored < tokens.size:
        end = min(tokens.size, block_size if scored == 0 else scored + max(1, block_size // 2))
        start = max(0, end - block_size)
        yield _Window(document_idx, read[start:end], read[start + 1 : end + 1], end - scored)
        scored = end


def document_losses(
    model: GPT, documents: Sequence[TokenDocument], *, eot_token: int, batch_size: int = 16
) -> NDArray[np.float64]:
    """Loss of each document, nats, summed over its tokens: (num_documents,)."""
    block_size, device = model.config.block_size, model.wte.weight.device
    windows = [
        window
        for idx, document in enumerate(documents)
        for window in _windows(document.tokens, idx, eot_token=eot_token, block_size=block_size)
    ]
    windows.sort(key=lambda window: window.inputs.size)  # like lengths together: little padding
    losses = np.zeros(len(documents))
    model.eval()
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        shape = (len(batch), batch[-1].inputs.size)
        ids, targets = np.zeros((2, *shape), dtype=np.int64)  # padding on the right is not seen by what is scored
        for row, window in enumerate(batch):
            ids[row, : window.inputs.size] = window.inputs
            targets[row, : window.targets.size] = window.targets
        if targets.max() >= model.config.vocab_size:
            raise too_large(int(targets.max()), model.config.vocab_size)
        scores = model.token_losses(torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device))
        for window, row_scores in zip(batch, scores.double().cpu().numpy(), strict=True):
            end = window.targets.size
            losses[window.document_idx] += row_scores[end - window.num_scored : end].sum()
    return losses


def _ratio(amounts: NDArray[np.float64], sizes: NDArray[np.float64]) -> tuple[float, float | None]:
    """Sum of amounts over sum of sizes, and its standard error over documents (linearised ratio estimator)."""
    ratio = float(amounts.sum() / sizes.sum())
    if amounts.size < 2:
        return ratio, None
    variance = np.square(amounts - ratio * sizes).sum() * amounts.size / (amounts.size - 1)
    return ratio, float(math.sqrt(variance) / sizes.sum())
