"""Requests and answers in the form of OpenAI's completions interface (POST /v1/completions), as far as a base model has it.

What a request asks for and this server lacks is refused by name, never left out in silence.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.model.generation import Continuation
from llm.sample import Sampling

MAX_COMPLETIONS = 16
"""Texts of one request: prompts times n."""
MAX_TOKENS = 4_096
MAX_PROMPT_CHARS = 200_000
MAX_STOPS = 4
_FINISH_REASONS = {"length": "length", "stop": "stop", "end_of_text": "stop"}


class RefusedError(Exception):
    """A request that is not answered: a sentence, and the parameter that it is about."""

    def __init__(self, message: str, param: str | None = None, *, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class Request(BaseModel):
    """What is read of a request. Any other key is refused, but for those that change nothing (`user`, `metadata`)."""

    model_config = ConfigDict(extra="forbid")
    model: str
    prompt: str | list[str] = "<|endoftext|>"
    max_tokens: int = Field(default=16, ge=0, le=MAX_TOKENS)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    """Not OpenAI's; others have it, too."""
    n: int = Field(default=1, ge=1, le=MAX_COMPLETIONS)
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=0)
    echo: bool = False
    stream: bool = False
    stream_options: _StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None

    @property
    def prompts(self) -> list[str]:
        """At least one."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def stops(self) -> list[str]:
        """Texts to end before."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "logprobs": (None,),
    "suffix": (None, ""),
    "best_of": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
}
"""Keys that clients send with these values, which ask for nothing."""


def read_request(body: Any, model: str) -> Request:
    """A request that can be answered. Raises RefusedError for any other."""
    if not isinstance(body, dict):
        raise RefusedError("got no JSON object, wanted one with model and prompt: send it as the body.")
    for name, values in _WITHOUT_EFFECT.items():
        if name in body and body.pop(name) not in values:
            raise RefusedError(f"{name}: got a value, wanted none: this server does not have it; leave it out.", name)
    try:
        request = Request.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:1])
        raise RefusedError(f"{name}: {first['msg'][:1].lower()}{first['msg'][1:]}: correct it.", name) from error
    if request.model != model:
        raise RefusedError(
            f"got model {request.model!r}, wanted {model!r}: GET /v1/models names it.", "model", status=404
        )
    if not request.prompts:
        raise RefusedError("prompt: got an empty list, wanted at least one text.", "prompt")
    if len(request.prompts) * request.n > MAX_COMPLETIONS:
        raise RefusedError(f"got more than {MAX_COMPLETIONS} texts to write, wanted fewer prompts or a smaller n.", "n")
    if any(len(prompt) > MAX_PROMPT_CHARS for prompt in request.prompts):
        raise RefusedError(f"prompt: got more than {MAX_PROMPT_CHARS:,} characters, wanted fewer: cut it.", "prompt")
    if len(request.stops) > MAX_STOPS or "" in request.stops:
        raise RefusedError(f"stop: wanted at most {MAX_STOPS} texts of at least one character each.", "stop")
    return request


def texts_of(request: Request) -> Iterator[tuple[int, str, Sampling]]:
    """Each text that a request asks for: its index, its prompt, how it is drawn.

    Texts of one request differ by their seed; without one in the request, so do two requests.
    """
    seed = uuid.uuid4().int % (1 << 31) if request.seed is None else request.seed
    for index, prompt in enumerate(prompt for prompt in request.prompts for _ in range(request.n)):
        sampling = Sampling(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=None if request.top_p == 1 else request.top_p,
            seed=seed + index,
        )
        yield index, prompt, sampling


def envelope(request: Request) -> dict[str, Any]:
    """What an answer and each of its pieces have in common."""
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.model,
    }


def choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    """One text of an answer, or a piece of it (finish_reason: None)."""
    return {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": None}


def finish_reason(written: Continuation) -> Literal["length", "stop"]:
    """In OpenAI's words, where the end of the text is a stop, too."""
    return _FINISH_REASONS[written.finish_reason]  # type: ignore[return-value]


def usage(num_prompt_tokens: int, num_written_tokens: int) -> dict[str, int]:
    """Tokens read and written."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_written_tokens,
        "total_tokens": num_prompt_tokens + num_written_tokens,
    }


def error_body(message: str, param: str | None, status: int) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}
