"""All rungs, trained on the same tokens and scored on the same held-out documents, in bits per byte.

uniform, unigram, kneser_ney, hmm, lstm, then the model: the order in which they came, not that of their losses. A rung
that does not beat the one below it, or any below it, is named in a warning. Scored as `llm.evaluate` does it: each document
by itself, its first token predicted from an end-of-text token, each token once, the end-of-text token included.

Must not: know GPT-2. Its losses are given.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from llm.data import TokenData, too_large
from llm.evaluate import PROTOCOL
from llm.evaluation.ladder.documents import Tokens, training_documents
from llm.evaluation.ladder.frequencies import uniform_losses, unigram_losses
from llm.evaluation.ladder.hmm import HMMConfig, hmm_losses, train_hmm
from llm.evaluation.ladder.kneser_ney import (
    KneserNeyConfig,
    kneser_ney_losses,
    num_kneser_ney_parameters,
    train_kneser_ney,
)
from llm.evaluation.ladder.lstm import LSTMConfig, lstm_losses, train_lstm
from llm.evaluation.ladder.rungs import Ladder, Scored, compared
from pipelines.digest import digest_value
from pipelines.errors import ConfigError, EmptyCorpusError, SchemaError

OnProgress = Callable[[str, float], None]
"""Gets the name of a rung and the share of it that is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LadderConfig:
    """The rungs that have a shape. Equal configs give equal losses on one machine."""

    kneser_ney: KneserNeyConfig = field(default_factory=KneserNeyConfig)
    hmm: HMMConfig = field(default_factory=HMMConfig)
    lstm: LSTMConfig = field(default_factory=LSTMConfig)
    seed: int = 0
    num_threads: int = 1
    """Of torch. The matrices are small: on busy cores two threads that wait for each other took five times as long."""

    def __post_init__(self) -> None:
        if self.num_threads < 1:
            raise ConfigError(f"got num_threads {self.num_threads}, wanted at least 1: correct it.")


def climb(
    train_data: TokenData,
    held_out: TokenData,
    *,
    vocab_size: int,
    eot_token: int,
    model: Scored | None = None,
    model_name: str = "gpt2",
    config: LadderConfig | None = None,
    noise_floor: float = 0.0,
    on_progress: OnProgress | None = None,
) -> Ladder:
    """Train and score every rung; `model` is the topmost, with its losses of the held-out documents in stream order.

    `noise_floor`, bits per byte: a difference up to that is none. Raises EmptyCorpusError where the held-out documents
    have no text, SchemaError for token ids beyond `vocab_size` and for losses that are not one a document.
    """
    found = score_rungs(
        train_data, held_out, vocab_size=vocab_size, eot_token=eot_token, config=config, on_progress=on_progress
    )
    return ladder(found, held_out, model=model, model_name=model_name, noise_floor=noise_floor)


def score_rungs(
    train_data: TokenData,
    held_out: TokenData,
    *,
    vocab_size: int,
    eot_token: int,
    config: LadderConfig | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Scored]:
    """Every rung but the topmost, by name, from the lowest up. Raises as `climb` does."""
    documents = [document.tokens for document in held_out.documents()]
    _num_bytes(held_out)
    for tokens in documents:
        if tokens.size and int(tokens.max()) >= vocab_size:
            raise too_large(int(tokens.max()), vocab_size)
    rungs = _scored_rungs(
        train_data, documents, vocab_size, eot_token, config or LadderConfig(), on_progress or _unheard
    )
    return dict(rungs)


def ladder(
    found: Mapping[str, Scored],
    held_out: TokenData,
    *,
    model: Scored | None,
    model_name: str = "gpt2",
    noise_floor: float = 0.0,
) -> Ladder:
    """How rungs and the model, if there is one, stand to each other. Raises as `climb` does."""
    scored, num_bytes = dict(found), _num_bytes(held_out)
    if model is not None:
        if model_name in scored:
            raise ConfigError(f"got the name {model_name!r} of another rung, wanted one of its own, such as 'gpt2'.")
        if model.losses.shape != num_bytes.shape or not np.isfinite(model.losses).all():
            raise SchemaError(
                f"got losses of shape {model.losses.shape} of {model_name}, wanted a finite one for each of "
                f"{num_bytes.size} held-out documents: score the model on the same split."
            )
        scored[model_name] = model
    return Ladder(
        protocol=PROTOCOL,
        split=held_out.split,
        documents=tuple(held_out.documents()),
        rungs=tuple(compared(scored, num_bytes, noise_floor)),
        dataset_digest=digest_value({"corpus": held_out.digest, "split": held_out.split}),
        noise_floor=noise_floor,
    )


def _num_bytes(held_out: TokenData) -> NDArray[np.float64]:
    found = np.array([document.num_bytes for document in held_out.documents()], dtype=np.float64)
    if not found.sum():
        raise EmptyCorpusError(
            f"got no text in {found.size} held-out documents; wanted at least one byte: add documents."
        )
    return found


def _scored_rungs(
    train_data: TokenData,
    documents: Sequence[Tokens],
    vocab_size: int,
    eot_token: int,
    config: LadderConfig,
    report: OnProgress,
) -> Iterator[tuple[str, Scored]]:
    """Each rung but the topmost, from the lowest up."""
    counts = train_data.counts(vocab_size)  # refuses a token that the vocabulary does not have

    def uniform(_: Callable[[float], None]) -> tuple[NDArray[np.float64], int, int]:
        return uniform_losses(documents, vocab_size), 0, 0

    def unigram(_: Callable[[float], None]) -> tuple[NDArray[np.float64], int, int]:
        return unigram_losses(counts, documents), vocab_size, train_data.num_tokens

    def n_grams(_: Callable[[float], None]) -> tuple[NDArray[np.float64], int, int]:
        training = training_documents(train_data, config.kneser_ney.max_tokens)
        found = train_kneser_ney(training, vocab_size=vocab_size, eot_token=eot_token, config=config.kneser_ney)
        losses = kneser_ney_losses(found, documents)
        return losses, num_kneser_ney_parameters(found), _num_tokens(training)

    def hidden_markov(on_share: Callable[[float], None]) -> tuple[NDArray[np.float64], int, int]:
        training = training_documents(train_data, config.hmm.max_tokens)
        found = train_hmm(training, vocab_size=vocab_size, config=config.hmm, seed=config.seed, on_progress=on_share)
        return hmm_losses(found, documents), found.num_parameters, _num_tokens(training)

    def recurrent(on_share: Callable[[float], None]) -> tuple[NDArray[np.float64], int, int]:
        training = training_documents(train_data, config.lstm.max_tokens)
        found, num_tokens = train_lstm(
            training,
            vocab_size=vocab_size,
            eot_token=eot_token,
            config=config.lstm,
            seed=config.seed,
            on_progress=on_share,
        )
        return lstm_losses(found, documents, eot_token=eot_token), found.num_parameters, num_tokens

    rungs = {"uniform": uniform, "unigram": unigram, "kneser_ney": n_grams, "hmm": hidden_markov, "lstm": recurrent}
    for name, train_and_score in rungs.items():
        report(name, 0.0)
        started = time.process_time()
        with _threads(config.num_threads):
            losses, num_parameters, num_tokens = train_and_score(_below_one(report, name))
        yield (
            name,
            Scored(
                losses=losses,
                num_parameters=num_parameters,
                num_training_tokens=num_tokens,
                cpu_seconds=time.process_time() - started,
            ),
        )
        report(name, 1.0)


def _num_tokens(documents: Sequence[Tokens]) -> int:
    return sum(tokens.size for tokens in documents)


def _below_one(report: OnProgress, name: str) -> Callable[[float], None]:
    """Of a rung that still has to score: it is done when that is."""
    return lambda share: report(name, min(share, 0.99))


def _unheard(_name: str, _share: float) -> None:
    return


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
