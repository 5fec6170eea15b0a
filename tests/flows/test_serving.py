"""The server with OpenAI's own client, and what it refuses; the writer behind it."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
import uvicorn

from flows.model.generation import Writer
from flows.serving import serve as serving
from flows.serving.app import make_app
from llm.config import ModelConfig
from llm.model import GPT
from llm.sample import Sampling
from pipelines.bpe import train_bpe
from pipelines.encoding import Encoder
from pipelines.errors import ConfigError

TEXTS = ["The mill turns, and turns again. ", "水车转动，磨坊里磨出了白面。🙂"] * 30
NAME = "small"


@pytest.fixture(scope="module")
def writer() -> Writer:
    encoder = Encoder.load(train_bpe(TEXTS, 300, 2))
    model = GPT(ModelConfig(vocab_size=encoder.vocab_size, block_size=64, n_layer=1, n_head=2, n_embd=16), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.3)
    return Writer(model.eval(), encoder)


@contextlib.contextmanager
def running(writer: Writer, **options: Any) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        app = make_app(writer, NAME, **options)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def url(writer: Writer) -> Iterator[str]:
    with running(writer) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_the_client_finds_the_model_and_gets_what_the_writer_writes(client: openai.OpenAI, writer: Writer) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    got = client.completions.create(model=NAME, prompt="The mill", max_tokens=12, temperature=0.7, seed=5, top_p=0.9)
    wanted = writer.go_on("The mill", Sampling(max_tokens=12, temperature=0.7, top_p=0.9, seed=5))
    assert got.choices[0].text == wanted.text
    assert got.choices[0].finish_reason == ("stop" if wanted.finish_reason == "end_of_text" else wanted.finish_reason)
    assert got.usage is not None
    assert got.usage.completion_tokens == wanted.num_tokens
    assert got.usage.prompt_tokens == len(writer.encoder.encode_batch(["The mill"])[0])


@pytest.mark.parametrize("prompt", ["The mill", "水车"])
def test_a_stream_is_the_same_text_in_whole_characters(client: openai.OpenAI, prompt: str) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": prompt, "max_tokens": 40, "seed": 3}
    whole = client.completions.create(**asked)
    pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    texts = [choice.text for piece in pieces for choice in piece.choices]
    assert "".join(texts) == whole.choices[0].text
    assert len(texts) > 3
    assert pieces[-1].usage == whole.usage
    assert pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_several_prompts_and_texts_are_told_apart_and_drawn_apart(client: openai.OpenAI) -> None:
    got = client.completions.create(model=NAME, prompt=["The", "水"], n=2, max_tokens=10, seed=1, echo=True)
    assert [choice.index for choice in got.choices] == [0, 1, 2, 3]
    assert [choice.text[0] for choice in got.choices] == ["T", "T", "水", "水"]
    assert got.choices[0].text != got.choices[1].text
    first, second = (client.completions.create(model=NAME, prompt="The", max_tokens=20).choices[0].text for _ in "12")
    assert first != second, "without a seed no two requests are the same"


def test_a_text_ends_before_its_stop(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": "The mill", "max_tokens": 40, "temperature": 0}
    whole = client.completions.create(**asked).choices[0].text
    stop = whole[5:7]
    got = client.completions.create(**asked, stop=[stop]).choices[0]
    assert (got.text, got.finish_reason) == (whole[: whole.index(stop)], "stop")


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "other"}, 404, "wanted 'small'"),
        ({"logprobs": 3}, 400, "logprobs: got a value"),
        ({"max_tokens": 10**9}, 400, "max_tokens"),
        ({"temperature": -1}, 400, "temperature"),
        ({"n": 17}, 400, "n: "),
        ({"prompt": []}, 400, "empty list"),
        ({"prompt": ["a"] * 9, "n": 2}, 400, "more than 16 texts"),
        ({"stop": [""]}, 400, "stop"),
        ({"stop": ["a"] * 5}, 400, "stop"),
        ({"messages": []}, 400, "messages"),
    ],
)
def test_what_it_does_not_have_is_refused_by_name(url: str, change: dict[str, Any], status: int, words: str) -> None:
    answer = httpx.post(f"{url}/v1/completions", json={"model": NAME, "prompt": "The", **change})
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_no_json_too_much_of_it_and_another_host_name_are_refused(url: str) -> None:
    path = f"{url}/v1/completions"
    assert httpx.post(path, content=b"{").status_code == 400
    assert httpx.post(path, content=b"[]").status_code == 400
    assert httpx.post(path, content=b" " * (5 << 20)).status_code == 413
    assert httpx.get(f"{url}/v1/models", headers={"Host": "evil.example"}).status_code == 400
    assert httpx.get(f"{url}/page/..%2fapp.py").status_code == 404
    chat = httpx.post(f"{url}/v1/chat/completions", json={})
    assert (chat.status_code, chat.json()["error"]["message"].split(":")[0]) == (
        404,
        "got /v1/chat/completions, wanted /v1/completions",
    )


def test_with_a_token_only_those_who_have_it_are_answered(writer: Writer) -> None:
    with running(writer, token="0123456789abcdef") as url:
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.post(f"{url}/v1/completions", json={"model": NAME}).status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200
        assert httpx.get(url).status_code == 200, "the page asks for it"


def test_a_reader_that_goes_away_frees_the_model(url: str, client: openai.OpenAI) -> None:
    body = {"model": NAME, "prompt": "The", "max_tokens": 4000, "stream": True}
    for _ in range(20):  # more than may wait
        with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
            assert json.loads(next(answer.iter_lines()).removeprefix("data: "))["object"] == "text_completion"
    assert client.completions.create(model=NAME, prompt="The", max_tokens=2).choices


def test_the_page_brings_a_policy_and_its_parts(url: str) -> None:
    page = httpx.get(url)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for part in ("page.css", "page.js"):
        assert f"/page/{part}" in page.text
        assert httpx.get(f"{url}/page/{part}").status_code == 200


@pytest.mark.parametrize(("host", "token", "words"), [("0.0.0.0", None, "no token"), ("127.0.0.1", "short", "16")])
def test_it_listens_beyond_loopback_only_with_a_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, token: str | None, words: str
) -> None:
    if token is None:
        monkeypatch.delenv(serving.TOKEN, raising=False)
    else:
        monkeypatch.setenv(serving.TOKEN, token)
    with pytest.raises(ConfigError, match=words):
        serving.serve(tmp_path, "last", host=host, port=0, tell=print)
