"""Text from a model and its tokenizer: a prompt, and how the model goes on from it, piece by piece."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pipelines.encoding import Encoder
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from llm.model import GPT
    from llm.sample import Sampling
    from llm.weights import Which

_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What bytes decode to that are no whole character yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """What a model wrote after a prompt."""

    text: str
    """Without the prompt, and without the stop text that ended it."""
    num_tokens: int
    """That the model chose, an end-of-text token included."""
    seconds: float
    finish_reason: Literal["length", "stop", "end_of_text"]

    @property
    def tokens_per_second(self) -> float:
        """The reading of the prompt included."""
        return self.num_tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Writer:
    """A model with the tokenizer that it was trained with."""

    model: "GPT"
    encoder: Encoder

    @classmethod
    def load(cls, folder: Path, which: "Which" = "last") -> Self:
        """The model in a folder of any kind (see llm.weights), on a GPU where there is one. Raises ConfigError, InputError."""
        from llm.config import RunConfig
        from llm.devices import choose_device
        from llm.weights import model_folder, read_model, tokenizer_file

        tokenizer = tokenizer_file(model_folder(folder, which))
        if tokenizer is None:
            raise ConfigError(f"got {folder} without a tokenizer.json, wanted the model's beside it: put it there.")
        encoder = Encoder.load(tokenizer.read_text(encoding="utf-8"))
        return cls(read_model(folder, which).to(choose_device(RunConfig(), 0)), encoder)

    def go_on(
        self,
        prompt: str,
        sampling: "Sampling",
        *,
        stop: Sequence[str] = (),
        on_text: Callable[[str], None] = lambda _: None,
    ) -> Continuation:
        """Go on from a prompt until one of the stop texts, which is cut off, the end of the text, or max_tokens.

        `on_text` is given each piece as soon as no later token can change it. A character that max_tokens cut through is
        left out.
        """
        if "" in stop:
            raise ConfigError("got an empty stop text, wanted at least one character: leave it out for none.")
        from llm.sample import generate

        began, reason, num_tokens = time.perf_counter(), "length", 0
        prompt_ids = self.encoder.encode_batch([prompt])[0].tolist() or [self.encoder.eot_token]

        def tokens() -> Iterator[int]:
            nonlocal reason, num_tokens
            for token in generate(self.model, prompt_ids, sampling, eot_token=self.encoder.eot_token):
                num_tokens += 1
                if token == self.encoder.eot_token:
                    reason = "end_of_text"
                    return
                yield token

        written, pending = [], ""

        def show(text: str) -> None:
            if text:
                written.append(text)
                on_text(text)

        for piece in _whole_characters(self.encoder, prompt_ids, tokens()):
            pending += piece
            if (end := _first(pending, stop)) is not None:
                reason, pending = "stop", pending[:end]
                break
            num_shown = len(pending) - _num_held_back(pending, stop)
            show(pending[:num_shown])
            pending = pending[num_shown:]
        show(pending)
        return Continuation(
            text="".join(written),
            num_tokens=num_tokens,
            seconds=time.perf_counter() - began,
            finish_reason=reason,  # type: ignore[arg-type]
        )


def _whole_characters(encoder: Encoder, before: Sequence[int], tokens: Iterator[int]) -> Iterator[str]:
    """The text that each token completes; one that ends within a character waits for the next.

    Each is decoded after the one before it, as some decoders drop the space at the beginning of a text.
    """
    ids, num_known = list(before), len(before)
    known = encoder.decode(ids)
    for token in tokens:
        ids.append(token)
        text = encoder.decode(ids)
        if text.endswith(_BROKEN):
            continue
        yield text[len(known) :]
        ids = ids[num_known:]
        num_known, known = len(ids), encoder.decode(ids)


def _first(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of the stop texts begins."""
    return min((at for each in stop if (at := text.find(each)) >= 0), default=None)


def _num_held_back(text: str, stop: Sequence[str]) -> int:
    """Characters at the end that may be the beginning of a stop text."""
    longest = max((len(each) for each in stop), default=1) - 1
    sizes = range(min(longest, len(text)), 0, -1)
    return next((size for size in sizes if any(each.startswith(text[-size:]) for each in stop)), 0)
