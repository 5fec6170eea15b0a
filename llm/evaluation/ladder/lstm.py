"""The recurrent rung: a small LSTM language model (Hochreiter and Schmidhuber 1997; Mikolov et al. 2010), head tied to the
embedding (Press and Wolf, arXiv:1608.05859) with a bias that begins at the unigrams.

It is trained as it is scored: a state goes from the first token of a document, which is read after an end-of-text token,
to the last, however many segments that takes, and is forgotten between documents. Gradients stay within a segment.

Shapes: V tokens, C channels, B lanes, T tokens of a segment.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
from torch import Tensor, nn

from llm.evaluation.ladder.documents import Segment, Tokens, lanes
from llm.evaluation.ladder.frequencies import smoothed_frequencies
from llm.loss import mean_cross_entropy, token_cross_entropies
from pipelines.errors import ConfigError

_MAX_NORM = 1.0
_WEIGHT_DECAY = 0.01
_SCORING_NUM_LANES = 32
_SCORING_NUM_TOKENS = 256

State = tuple[Tensor, Tensor]
"""Hidden and cell: (n_layer, B, C) each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LSTMConfig:
    """The shape of the model, and how long it is trained."""

    n_layer: int = 1
    n_embd: int = 128
    dropout: float = 0.2
    max_tokens: int = 1_000_000
    """Trained on, each time that one comes by counted."""
    max_epochs: float = 4.0
    """That the training documents come by, if `max_tokens` lets them."""
    num_lanes: int = 8
    """Documents side by side."""
    segment_num_tokens: int = 64
    """Of each, in one step."""
    learning_rate: float = 7e-3

    def __post_init__(self) -> None:
        for name in ("n_layer", "n_embd", "max_tokens", "num_lanes", "segment_num_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"got lstm.{name} {getattr(self, name)}, wanted at least 1: correct it.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"got lstm.dropout {self.dropout}, wanted from 0 to below 1: 0 turns it off.")
        for name in ("max_epochs", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"got lstm.{name} {getattr(self, name)}, wanted a number above 0: correct it.")


class LSTM(nn.Module):
    """Embedding, LSTM, tied head."""

    def __init__(self, unigram: NDArray[np.float64], config: LSTMConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.embedding = nn.Embedding(unigram.size, config.n_embd)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(config.n_embd))
        self.bias = nn.Parameter(torch.from_numpy(np.log(unigram)).float())
        layer_dropout = config.dropout if config.n_layer > 1 else 0.0
        self.lstm = nn.LSTM(config.n_embd, config.n_embd, config.n_layer, batch_first=True, dropout=layer_dropout)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def states(self, segment: Segment, state: State | None) -> tuple[Tensor, Tensor, State]:
        """(N, C + 1) what the head reads at each token that there is, (N,) what comes next, and the state behind it."""
        device = self.bias.device
        begins = torch.from_numpy(segment.begins).to(device)[None, :, None]
        is_token = torch.from_numpy(segment.is_token).to(device)
        if state is not None:
            state = (state[0].masked_fill(begins, 0.0), state[1].masked_fill(begins, 0.0))
        # A lane that is shorter than its segment has ended its document: its state is forgotten in any case.
        read = F.dropout(self.embedding(torch.from_numpy(segment.inputs).to(device)), self.dropout, self.training)
        hidden, (last_hidden, last_cell) = self.lstm(read * math.sqrt(read.size(2)), state)
        hidden = F.dropout(hidden[is_token], self.dropout, self.training)
        ones = hidden.new_ones(hidden.size(0), 1)  # times the bias, which is a column of the head
        targets = torch.from_numpy(segment.targets).to(device)[is_token]
        return torch.cat([hidden, ones], dim=1), targets, (last_hidden.detach(), last_cell.detach())

    def head(self) -> Tensor:
        """(V, C + 1)"""
        return torch.cat([self.embedding.weight, self.bias[:, None]], dim=1)


def train_lstm(
    documents: Sequence[Tokens],
    *,
    vocab_size: int,
    eot_token: int,
    config: LSTMConfig,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[LSTM, int]:
    """A model of token documents, and how many tokens it was trained on.

    AdamW, the learning rate falling to zero in a straight line; documents in another order each time. `on_progress` gets
    the share of the tokens that are done. Equal for equal seeds and numbers of threads.
    """
    num_tokens = sum(tokens.size for tokens in documents)
    budget = max(1, min(config.max_tokens, math.ceil(config.max_epochs * num_tokens)))
    counts = np.bincount(np.concatenate(documents), minlength=vocab_size)
    order = np.random.default_rng(seed)
    num_done = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LSTM(smoothed_frequencies(counts), config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY)
        while num_done < budget:
            shuffled = [documents[idx] for idx in order.permutation(len(documents))]
            state: State | None = None
            for segment in lanes(
                shuffled, eot_token=eot_token, num_lanes=config.num_lanes, length=config.segment_num_tokens
            ):
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * (1 - num_done / budget)
                states, targets, state = model.states(segment, state)
                optimizer.zero_grad(set_to_none=True)
                mean_cross_entropy(states, model.head(), targets, vocab_size).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), _MAX_NORM)
                optimizer.step()
                num_done += targets.numel()
                if on_progress is not None:
                    on_progress(min(1.0, num_done / budget))
                if num_done >= budget:
                    break
    return model.eval(), num_done


@torch.no_grad()
def lstm_losses(model: LSTM, documents: Sequence[Tokens], *, eot_token: int) -> NDArray[np.float64]:
    """(num_documents,) nats."""
    losses = np.zeros(len(documents))
    head, state = model.head(), None
    for segment in lanes(documents, eot_token=eot_token, num_lanes=_SCORING_NUM_LANES, length=_SCORING_NUM_TOKENS):
        states, targets, state = model.states(segment, state)
        nats = token_cross_entropies(states, head, targets, head.size(0)).double().cpu().numpy()
        np.add.at(losses, np.repeat(segment.documents, segment.lengths), nats)
    return losses
