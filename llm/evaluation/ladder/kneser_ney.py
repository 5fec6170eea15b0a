"""The n-gram rung: interpolated, modified Kneser-Ney (Chen and Goodman 1999) over token ids.

The model is `pipelines.ngram`, which scores documents for the perplexity signal; here its costs are not rounded. It is
a distribution over the whole vocabulary after any context, and its discounts fall back to 0.5, 1 and 1.5 where the
counts of counts of an order cannot give them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm.evaluation.ladder.documents import Tokens, ended_stream
from pipelines.errors import ConfigError
from pipelines.ngram import COSTS_PER_BIT, MAX_ORDER, NgramConfig, NgramModel, train


@dataclass(frozen=True, kw_only=True, slots=True)
class KneserNeyConfig:
    """How long, and from how much."""

    order: int = 5
    """Tokens of the longest n-grams. A corpus need not be large for 5: of 50,000 tokens, too, each longer order gains."""
    max_tokens: int = 10_000_000
    """Of training, which take up to 2.3 GB of memory; more are sampled by document."""

    def __post_init__(self) -> None:
        if not 1 <= self.order <= MAX_ORDER:
            raise ConfigError(f"got kneser_ney.order {self.order}, wanted 1 to {MAX_ORDER}: 5 is usual.")
        if self.max_tokens < 1:
            raise ConfigError(f"got kneser_ney.max_tokens {self.max_tokens}, wanted at least 1: correct it.")


def train_kneser_ney(
    documents: Sequence[Tokens], *, vocab_size: int, eot_token: int, config: KneserNeyConfig
) -> NgramModel:
    """A model of token documents.

    At order 5 training takes about 80 bytes of memory a token (bytes as tokens) to 230 (a vocabulary of 8,192), and 6 to
    70 are kept: nearly linear, as is the time, since most of it sorts. 10 million tokens take 6 to 12 s of one core.
    """
    stream, _, _ = ended_stream(documents, eot_token)
    return train(stream, vocab_size, eot_token, NgramConfig(order=config.order), exact=True)


def kneser_ney_losses(model: NgramModel, documents: Sequence[Tokens]) -> NDArray[np.float64]:
    """(num_documents,) nats."""
    stream, owners, is_token = ended_stream(documents, model.boundary)
    nats = model.costs(stream) * (math.log(2) / COSTS_PER_BIT) * is_token
    return np.bincount(owners, weights=nats, minlength=len(documents)).astype(np.float64)


def num_kneser_ney_parameters(model: NgramModel) -> int:
    """A probability for each n-gram, and a back-off weight for each that is a context."""
    return model.num_ngrams + sum(level.costs.size for level in model.levels[:-1])
