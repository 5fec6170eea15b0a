"""Text from a model, one token at a time. Ids in, ids out: a tokenizer is the caller's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm.model import GPT, KeyValueCache
from pipelines.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen, and how many."""

    max_tokens: int = 60
    temperature: float = 1.0
    """0 takes the likeliest token each time; above 0 the draw depends on the seed alone."""
    top_k: int | None = None
    """Draw from the k likeliest tokens; None: from all."""
    top_p: float | None = None
    """Draw from the fewest likeliest tokens that together have this probability (nucleus, arXiv:1904.09751); None: from all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise ConfigError(f"got max_tokens {self.max_tokens}; wanted at least 0: correct it.")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(
                f"got temperature {self.temperature}; wanted a number of at least 0: 0 takes the likeliest token."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"got top_k {self.top_k}; wanted at least 1: leave it out for off.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"got top_p {self.top_p}; wanted above 0 and at most 1: leave it out for off.")


def generate(
    model: GPT,
    prompt_ids: Sequence[int],
    sampling: Sampling,
    *,
    eot_token: int | None = None,
    document_masks: bool = False,
) -> Iterator[int]:
    """The ids that follow a prompt, each as soon as it is chosen; ends after eot_token where the model writes it.

    The model reads the last block_size tokens; where they overflow it goes on with the newer half of them. Trained with
    `document_masks` it reads of the prompt only the document that is begun. Raises ConfigError for an empty prompt or an
    id that the model does not have.
    """
    _check(prompt_ids, model.config.vocab_size)
    model.eval()
    context = list(prompt_ids)
    if document_masks and eot_token in context[:-1]:  # the end of a document sees that document, what follows does not
        context = context[len(context) - 1 - context[-2::-1].index(eot_token) :]
    return _generated(model, context[-model.config.block_size :], sampling, eot_token)


def _generated(model: GPT, context: list[int], sampling: Sampling, eot_token: int | None) -> Iterator[int]:
    block_size, device = model.config.block_size, model.wte.weight.device
    generator = torch.Generator().manual_seed(sampling.seed)  # on the CPU, so that every device draws alike
    unread, cache = context, KeyValueCache()
    for _ in range(sampling.max_tokens):
        if cache.num_tokens + len(unread) > block_size:
            context = context[-max(1, block_size // 2) :]
            unread, cache = context, KeyValueCache()
        with torch.inference_mode():  # entered anew for each token: the caller's code runs between them
            states = model.states(torch.tensor([unread], device=device), cache=cache)  # (1, T, C)
            token = choose(model.logits(states[0, -1]), sampling, generator)
        yield token
        if token == eot_token:
            return
        context.append(token)
        unread = [token]


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One id of logits (V,), drawn as `sampling` says."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    scores = logits.double().cpu() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scores.numel():
        scores[scores < scores.topk(sampling.top_k).values[-1]] = -torch.inf
    probabilities = torch.softmax(scores, dim=0)
    if sampling.top_p is not None and sampling.top_p < 1:
        probabilities = _nucleus(probabilities, sampling.top_p)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero but for the fewest likeliest that together have at least top_p: (V,) -> (V,), not normalised."""
    ordered, order = probabilities.sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered  # of those that are likelier
    return torch.zeros_like(probabilities).index_copy(0, order, torch.where(before < top_p, ordered, 0.0))


def _check(prompt_ids: Sequence[int], vocab_size: int) -> None:
    if not prompt_ids:
        raise ConfigError("got an empty prompt; wanted at least one token: begin with the end-of-text token.")
    outside = [token for token in prompt_ids if not 0 <= token < vocab_size]
    if outside:
        raise ConfigError(
            f"got token id {outside[0]} in the prompt; wanted ids below the model's vocab_size of {vocab_size}: "
            "encode with the tokenizer that the model was trained with."
        )
