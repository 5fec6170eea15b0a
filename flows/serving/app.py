"""The server: one model, one text at a time, as many waiting as it is told.

It listens on loopback unless it has a token, answers only to the host names it is given (so that a page elsewhere cannot
reach it under a name of its own), and keeps no text.
"""

import hmac
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from flows.model.generation import Continuation, Writer
from flows.serving import completions
from flows.serving.completions import RefusedError
from flows.settings import LOCAL_HOSTS

_MAX_BODY_BYTES = 4 << 20
_MAX_WAITING = 16
_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def make_app(writer: Writer, name: str, *, token: str | None = None, hosts: tuple[str, ...] = LOCAL_HOSTS) -> FastAPI:
    """The server of a model under a name. With a token every request but that for the page needs it (Authorization: Bearer)."""
    app = FastAPI(title="corpusmill", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    desk = _Desk(writer)

    @app.exception_handler(RefusedError)
    async def refuse(_request: Request, error: RefusedError) -> JSONResponse:
        return JSONResponse(completions.error_body(str(error), error.param, error.status), error.status)

    @app.exception_handler(404)
    async def miss(request: Request, _error: Exception) -> JSONResponse:
        message = f"got {request.url.path}, wanted /v1/completions: a base model goes on from a text and does not chat."
        return JSONResponse(completions.error_body(message, None, 404), 404)

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        _check_token(request, token)
        return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "corpusmill"}]}

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        _check_token(request, token)
        asked = completions.read_request(await _json_body(request), name)
        desk.enter()
        if asked.stream:
            return StreamingResponse(
                _events(desk, asked), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        return JSONResponse(await run_in_threadpool(_whole, desk, asked))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/")
    async def page() -> Response:
        return _file("index.html")

    @app.get("/page/{file}")
    async def part(file: str) -> Response:
        return _file(file)

    return app


class _Desk:
    """Lets one request at a time to the model."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._model = threading.Lock()
        self._places = threading.Semaphore(_MAX_WAITING)

    def enter(self) -> None:
        """Take a place in the row. Raises RefusedError where it is full."""
        if not self._places.acquire(blocking=False):
            raise RefusedError("got more requests than can wait, wanted fewer: try again in a moment.", status=503)

    def work(self, asked: completions.Request, on_text: Any) -> Iterator[tuple[int, str, Continuation]]:
        """Write every text of a request that has a place, and leave."""
        try:
            with self._model:
                for index, prompt, sampling in completions.texts_of(asked):
                    written = self.writer.go_on(
                        prompt, sampling, stop=asked.stops, on_text=lambda text, index=index: on_text(index, text)
                    )
                    yield index, prompt, written
        finally:
            self._places.release()

    def num_tokens(self, prompt: str) -> int:
        """Of a prompt."""
        return len(self.writer.encoder.encode_batch([prompt])[0])


def _whole(desk: _Desk, asked: completions.Request) -> dict[str, Any]:
    choices, num_written = [], 0
    for index, prompt, written in desk.work(asked, lambda _index, _text: None):
        text = prompt + written.text if asked.echo else written.text
        choices.append(completions.choice(index, text, completions.finish_reason(written)))
        num_written += written.num_tokens
    num_read = sum(map(desk.num_tokens, asked.prompts))
    return completions.envelope(asked) | {"choices": choices, "usage": completions.usage(num_read, num_written)}


class _GoneError(Exception):
    """Nobody reads any more."""


def _events(desk: _Desk, asked: completions.Request) -> Iterator[str]:
    """Server-sent events: a piece each, the usage if it is asked for, and `[DONE]`."""
    head = completions.envelope(asked)
    pieces: queue.Queue[dict[str, Any] | None] = queue.Queue()
    is_gone = threading.Event()

    def send(index: int, text: str) -> None:
        if is_gone.is_set():
            raise _GoneError
        pieces.put(head | {"choices": [completions.choice(index, text, None)]})

    def work() -> None:
        num_written = 0
        try:
            if asked.echo:
                for index, prompt, _ in completions.texts_of(asked):
                    send(index, prompt)
            for index, _, written in desk.work(asked, send):
                num_written += written.num_tokens
                pieces.put(head | {"choices": [completions.choice(index, "", completions.finish_reason(written))]})
            if asked.stream_options is not None and asked.stream_options.include_usage:
                num_read = sum(map(desk.num_tokens, asked.prompts))
                pieces.put(head | {"choices": [], "usage": completions.usage(num_read, num_written)})
        except _GoneError:
            pass
        except Exception as error:  # noqa: BLE001 - the answer has begun: the error is its last event
            pieces.put(completions.error_body(f"{type(error).__name__}: {error}", None, 500))
        finally:
            pieces.put(None)

    threading.Thread(target=work, name="writing", daemon=True).start()
    try:
        while (piece := pieces.get()) is not None:
            yield f"data: {json.dumps(piece, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        is_gone.set()


async def _json_body(request: Request) -> Any:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY_BYTES:
            raise RefusedError(f"got more than {_MAX_BODY_BYTES:,} bytes, wanted fewer: cut the prompt.", status=413)
    try:
        return json.loads(body)
    except ValueError as error:
        raise RefusedError("got a body that is no JSON, wanted an object with model and prompt.") from error


def _check_token(request: Request, token: str | None) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
        raise RefusedError(
            "got no token or another one, wanted that of this server: Authorization: Bearer TOKEN.", status=401
        )


def _file(name: str) -> Response:
    path = _PAGE / name
    if path.parent != _PAGE or not path.is_file():
        raise RefusedError(f"got no page {name!r}, wanted / or /v1/...", status=404)
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers=headers)
