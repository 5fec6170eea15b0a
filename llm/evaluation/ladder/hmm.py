"""The hidden Markov rung: a categorical HMM over token ids, trained by expectation-maximisation (Baum et al. 1970).

Forward-backward in double precision, scaled at each token (Rabiner 1989), over many pieces of documents at once. A
document longer than a piece is trained on as several: those that begin within a document have start probabilities of
their own, which scoring does not use, since there the filter goes through a document of any length.

The estimate is the mode under Dirichlet priors (MAP): each state has seen `pseudo_tokens` more, spread as the unigrams
are, so a token that a state never emitted, or training never met, has a probability in it. What an iteration never
lowers is the likelihood plus the prior's log density; with no pseudo-tokens it is the likelihood.

Shapes: V tokens, K states, B pieces, T tokens of the longest.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm.evaluation.ladder.documents import Tokens, lanes
from llm.evaluation.ladder.frequencies import smoothed_frequencies
from pipelines.errors import ConfigError

_BATCH_NUM_STATES = 1 << 20
"""Tokens times states, of pieces at once: some six arrays of 8 MiB."""
_NUM_LANES = 64
_SEGMENT_NUM_TOKENS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class HMMConfig:
    """The shape of the model, and how long it is trained."""

    num_states: int = 32
    num_iterations: int = 50
    pseudo_tokens: float = 10.0
    """That each state has seen beside the corpus; also how many transitions, spread evenly."""
    piece_num_tokens: int = 128
    """A longer document is cut for training."""
    max_tokens: int = 1_000_000
    """Of training, in each iteration; more are sampled by document."""

    def __post_init__(self) -> None:
        for name in ("num_states", "piece_num_tokens", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"got hmm.{name} {getattr(self, name)}, wanted at least 1: correct it.")
        if self.num_iterations < 0:
            raise ConfigError(f"got hmm.num_iterations {self.num_iterations}, wanted at least 0: correct it.")
        if not self.pseudo_tokens > 0:
            raise ConfigError(
                f"got hmm.pseudo_tokens {self.pseudo_tokens}, wanted more than 0: without, new tokens cost infinity."
            )


@dataclass(frozen=True, slots=True)
class HMM:
    """Probabilities, float64."""

    starts: Tensor
    """(2, K) the state of a document's first token, and of a piece's that begins within one."""
    transitions: Tensor
    """(K, K) from the row's state to the column's."""
    emissions: Tensor
    """(V, K) of each token in each state: columns sum to one."""

    @property
    def num_parameters(self) -> int:
        return self.starts[0].numel() + self.transitions.numel() + self.emissions.numel()


@dataclass(frozen=True, slots=True)
class Prior:
    """What is added to expected counts, broadcast to their shapes."""

    starts: Tensor
    """(1,)"""
    transitions: Tensor
    """(1,)"""
    emissions: Tensor
    """(V, 1)"""

    def log_density(self, model: HMM) -> float:
        """Of the model's probabilities, but for a constant."""
        pairs = (
            (self.starts, model.starts),
            (self.transitions, model.transitions),
            (self.emissions, model.emissions),
        )
        return sum(float(torch.xlogy(added.expand_as(found), found).sum()) for added, found in pairs)


def train_hmm(
    documents: Sequence[Tokens],
    *,
    vocab_size: int,
    config: HMMConfig,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> HMM:
    """A model of token documents. `on_progress` gets the share of the iterations that are done."""
    counts = np.bincount(np.concatenate(documents), minlength=vocab_size)
    unigram = smoothed_frequencies(counts)
    prior = make_prior(unigram, num_states=config.num_states, pseudo_tokens=config.pseudo_tokens)
    model = random_hmm(unigram, num_states=config.num_states, seed=seed)
    batches = list(piece_batches(documents, config.piece_num_tokens, config.num_states))
    for iteration in range(config.num_iterations):
        model, _ = improved(model, batches, prior)
        if on_progress is not None:
            on_progress((iteration + 1) / config.num_iterations)
    return model


def make_prior(unigram: NDArray[np.float64], *, num_states: int, pseudo_tokens: float) -> Prior:
    """As if each state had emitted `pseudo_tokens` by the (V,) unigrams, and been left as often for any state."""
    each = torch.tensor([pseudo_tokens / num_states], dtype=torch.float64)
    return Prior(each, each, torch.from_numpy(pseudo_tokens * unigram)[:, None])


def random_hmm(unigram: NDArray[np.float64], *, num_states: int, seed: int) -> HMM:
    """Unigrams and even transitions, each probability times a random number: no two states alike.

    That of an emission is the square of an exponential draw: nearer to the unigrams, training stays near them for longer.
    """
    generator = np.random.default_rng(seed)
    starts = generator.exponential(size=(2, num_states))
    transitions = generator.exponential(size=(num_states, num_states))
    emissions = unigram[:, None] * np.square(generator.exponential(size=(unigram.size, num_states)))
    return HMM(
        torch.from_numpy(starts / starts.sum(axis=1, keepdims=True)),
        torch.from_numpy(transitions / transitions.sum(axis=1, keepdims=True)),
        torch.from_numpy(emissions / emissions.sum(axis=0)),
    )


@dataclass(frozen=True, slots=True)
class PieceBatch:
    """Pieces of documents, longest first."""

    tokens: Tensor
    """(T, B) ids; 0 where a piece has ended."""
    num_active: tuple[int, ...]
    """(T,) pieces that have a token there: the first so many."""
    is_within: Tensor
    """(B,) 1 where the piece begins within a document, else 0."""


def piece_batches(documents: Sequence[Tokens], piece_num_tokens: int, num_states: int) -> Iterator[PieceBatch]:
    """All tokens, cut into pieces, those of like length together."""
    pieces = [
        (tokens[start : start + piece_num_tokens], start > 0)
        for tokens in documents
        for start in range(0, tokens.size, piece_num_tokens)
    ]
    pieces.sort(key=lambda piece: -piece[0].size)
    while pieces:
        longest = pieces[0][0].size
        num_pieces = max(1, _BATCH_NUM_STATES // (longest * num_states))
        batch, pieces = pieces[:num_pieces], pieces[num_pieces:]
        tokens = np.zeros((longest, len(batch)), dtype=np.int64)
        for column, (piece, _) in enumerate(batch):
            tokens[: piece.size, column] = piece
        lengths = np.array([piece.size for piece, _ in batch])
        num_active = tuple((lengths > time).sum().item() for time in range(longest))
        is_within = torch.tensor([int(within) for _, within in batch])
        yield PieceBatch(torch.from_numpy(tokens), num_active, is_within)


def improved(model: HMM, batches: Sequence[PieceBatch], prior: Prior) -> tuple[HMM, float]:
    """One iteration: the model that is likeliest by what this one expects, and the log-likelihood, nats, of this one."""
    starts, transitions, emissions = (
        torch.zeros_like(part) for part in (model.starts, model.transitions, model.emissions)
    )
    log_likelihood = 0.0
    for batch in batches:
        log_likelihood += _add_expected(model, batch, starts, transitions, emissions)
    return (
        HMM(
            _normalised(starts + prior.starts, model.starts, dim=1),
            _normalised(transitions + prior.transitions, model.transitions, dim=1),
            _normalised(emissions + prior.emissions, model.emissions, dim=0),
        ),
        log_likelihood,
    )


def _add_expected(model: HMM, batch: PieceBatch, starts: Tensor, transitions: Tensor, emissions: Tensor) -> float:
    """Add expected counts of the pieces; gives their log-likelihood."""
    emitted = model.emissions[batch.tokens]  # (T, B, K)
    before = torch.zeros_like(emitted)  # of the states, given the tokens up to this one
    after = torch.zeros_like(emitted)  # times that, it is given all tokens of the piece
    ahead = torch.zeros_like(emitted[1:])
    scales = emitted.new_ones(emitted.shape[:2])
    for time, active in enumerate(batch.num_active):
        predicted = model.starts[batch.is_within] if time == 0 else before[time - 1, :active] @ model.transitions
        joint = predicted * emitted[time, :active]
        scale = joint.sum(dim=1)
        scales[time, :active] = scale
        torch.div(joint, scale[:, None], out=before[time, :active])
    follows = 0
    for time in range(len(batch.num_active) - 1, -1, -1):
        active = batch.num_active[time]
        after[time, follows:active] = 1  # their last token
        if time + 1 < len(batch.num_active):
            torch.mm(ahead[time, :follows], model.transitions.T, out=after[time, :follows])
        if time:
            torch.div(
                after[time, :active] * emitted[time, :active], scales[time, :active, None], out=ahead[time - 1, :active]
            )
        follows = active
    states = before * after
    starts.index_add_(0, batch.is_within, states[0])
    transitions += model.transitions * (before[:-1].flatten(0, 1).T @ ahead.flatten(0, 1))
    emissions.index_add_(0, batch.tokens.flatten(), states.flatten(0, 1))
    return float(scales.log().sum())


def _normalised(counts: Tensor, otherwise: Tensor, *, dim: int) -> Tensor:
    """Counts as shares; of a state that nothing came to, what it was."""
    sums = counts.sum(dim=dim, keepdim=True)
    return torch.where(sums > 0, counts / sums.clamp_min(torch.finfo(sums.dtype).tiny), otherwise)


def hmm_losses(model: HMM, documents: Sequence[Tokens]) -> NDArray[np.float64]:
    """(num_documents,) nats: the filter goes from a document's first token to its last."""
    losses = np.zeros(len(documents))
    states: Tensor | None = None
    for segment in lanes(documents, eot_token=0, num_lanes=_NUM_LANES, length=_SEGMENT_NUM_TOKENS):
        emitted = model.emissions[torch.from_numpy(segment.targets.T.copy())]  # (T, B, K)
        is_token = torch.from_numpy(segment.is_token.T.copy())
        begins = torch.from_numpy(segment.begins)[:, None]
        states = model.starts[0].expand(emitted.shape[1:]) if states is None else states
        scales = emitted.new_ones(emitted.shape[:2])
        for time in range(emitted.size(0)):
            predicted = states @ model.transitions
            if time == 0:
                predicted = torch.where(begins, model.starts[0], predicted)
            joint = predicted * emitted[time]
            scale = joint.sum(dim=1)
            scales[time] = torch.where(is_token[time], scale, 1.0)
            states = joint / scale[:, None]
        nats = -scales.log().sum(dim=0).numpy()
        np.add.at(losses, segment.documents, nats)
    return losses
