"""All rungs, trained on the same tokens and scored on the same held-out documents, in bits per byte.

uniform, unigram, kneser_ney, hmm, lstm, then the model: the order in which they came, not that of their losses. A rung
that does not beat the one below it, or any below it, is named in a warning. Scored as `llm.evaluate` does it: each document
by itself, its first token predicted from an end-of-text token, each token once, the end-of-text token included.

Must not: know GPT-2. Its losses are given.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from llm.data import TokenData, TokenDocument, too_large
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
from llm.evaluation.statistics import Difference, Figure, difference, ratio_figure
from llm.evaluation.suite import Suite, SuiteResult
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
            raise ConfigError(f"got num_threads {self.num_threads}, wanted at least 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A trained model's losses, and what they took."""

    losses: NDArray[np.float64]
    """(num_documents,) nats, summed over the tokens of each held-out document."""
    num_parameters: int
    num_training_tokens: int
    """Each time that one was trained on counts, but a pass to count n-grams and the iterations of the HMM as one."""
    cpu_seconds: float | None = None
    """Of training and scoring; None where nobody measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One model and how it stands to those below."""

    name: str
    scored: Scored
    bits_per_byte: Figure
    below: str | None
    """None for the lowest rung, like the four that follow."""
    against_below: Difference | None
    """Bits per byte less those of the rung below, over the same documents: below zero is better."""
    best_below: str | None
    """The rung with the fewest bits per byte of those below."""
    against_best: Difference | None
    """Likewise, less those of `best_below`."""

    @property
    def beats_below(self) -> bool | None:
        """Whether it is better than the rung below, beyond noise; None where there is none, or one document cannot tell."""
        return _beats(self.against_below)

    @property
    def beats_all_below(self) -> bool | None:
        """Whether it is better than the best rung below, beyond noise; None as above."""
        return _beats(self.against_best)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """All rungs on the same held-out documents."""

    protocol: str
    split: str
    documents: tuple[TokenDocument, ...]
    rungs: tuple[Rung, ...]
    """From the lowest up."""
    dataset_digest: str
    noise_floor: float

    def __getitem__(self, name: str) -> Rung:
        return next(rung for rung in self.rungs if rung.name == name)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each rung that is not better, beyond noise, than the one below it or the best below it."""
        return tuple(sentence for rung in self.rungs for sentence in _warnings(rung))

    def suite_result(self) -> SuiteResult:
        """The topmost rung's score, the others as baselines; items are documents, scores their bits, weights their bytes."""
        top = self.rungs[-1]
        suite = Suite(
            name="ladder",
            version=1,
            protocol=self.protocol,
            metric="bits_per_byte",
            higher_is_better=False,
            dataset_digest=self.dataset_digest,
            noise_floor=self.noise_floor,
        )
        figures = {"bits_per_byte": top.bits_per_byte} | {
            f"baseline/{rung.name}": rung.bits_per_byte for rung in self.rungs[:-1]
        }
        bits = {rung.name: rung.scored.losses / math.log(2) for rung in self.rungs}
        items = [
            {
                "id": document.doc_id,
                "score": float(bits[top.name][idx]),
                "weight": document.num_bytes,
                "num_tokens": int(document.tokens.size),
                **{f"bits/{name}": float(of_documents[idx]) for name, of_documents in bits.items()},
            }
            for idx, document in enumerate(self.documents)
        ]
        return SuiteResult(suite=suite, figures=figures, items=items)


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
    config, report = config or LadderConfig(), on_progress or _unheard
    documents = tuple(held_out.documents())
    num_bytes = np.array([document.num_bytes for document in documents], dtype=np.float64)
    if not num_bytes.sum():
        raise EmptyCorpusError(
            f"got no text in {len(documents)} held-out documents; wanted at least one byte: add documents."
        )
    for document in documents:
        if document.tokens.size and int(document.tokens.max()) >= vocab_size:
            raise too_large(int(document.tokens.max()), vocab_size)
    scored = dict(
        _scored_rungs(train_data, [document.tokens for document in documents], vocab_size, eot_token, config, report)
    )
    if model is not None:
        if model_name in scored:
            raise ConfigError(f"got the name {model_name!r} of another rung, wanted one of its own, such as 'gpt2'.")
        if model.losses.shape != num_bytes.shape or not np.isfinite(model.losses).all():
            raise SchemaError(
                f"got losses of shape {model.losses.shape} of {model_name}, wanted a finite one for each of "
                f"{len(documents)} held-out documents: score the model on the same split."
            )
        scored[model_name] = model
    return Ladder(
        protocol=PROTOCOL,
        split=held_out.split,
        documents=documents,
        rungs=tuple(_compared(scored, num_bytes, noise_floor)),
        dataset_digest=digest_value({"corpus": held_out.digest, "split": held_out.split}),
        noise_floor=noise_floor,
    )


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


def _compared(scored: dict[str, Scored], num_bytes: NDArray[np.float64], noise_floor: float) -> Iterator[Rung]:
    bits = {name: each.losses / math.log(2) for name, each in scored.items()}
    names = list(scored)

    def against(name: str, other: str | None) -> Difference | None:
        if other is None:
            return None
        return difference(bits[name], bits[other], weights=num_bytes, noise_floor=noise_floor)

    for idx, name in enumerate(names):
        below = names[idx - 1] if idx else None
        best = min(names[:idx], key=lambda each: float(bits[each].sum()), default=None)
        yield Rung(
            name=name,
            scored=scored[name],
            bits_per_byte=ratio_figure(bits[name], num_bytes),
            below=below,
            against_below=against(name, below),
            best_below=best,
            against_best=against(name, best),
        )


def _beats(against: Difference | None) -> bool | None:
    if against is None or against.low is None:
        return None
    return against.is_real and against.value < 0


def _warnings(rung: Rung) -> Iterator[str]:
    if rung.below is not None and rung.against_below is not None and not rung.beats_below:
        yield _warning(rung.name, rung.below, rung.against_below, "the rung below")
    is_another = rung.best_below != rung.below
    if is_another and rung.best_below is not None and rung.against_best is not None and not rung.beats_all_below:
        yield _warning(rung.name, rung.best_below, rung.against_best, "the best rung below")


def _warning(name: str, other: str, against: Difference, which: str) -> str:
    amount = f"{abs(against.value):.3f} bits per byte {'more' if against.value > 0 else 'fewer'}"
    if against.low is None or against.high is None:
        return f"got {amount} of {name} than of {other}, {which}, on one document, which cannot tell them apart: hold out more."
    return (
        f"got {amount} of {name} than of {other}, {which} (95 %: {against.low:+.3f} to {against.high:+.3f}); "
        "wanted fewer beyond noise: train it longer, on more tokens, or hold out more documents."
    )


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
