"""What recipes of tests read: WARC files made of the demo's own pages, a site whose requests are counted, small recipes."""

import contextlib
import gzip
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from flows.demo.site import load_pages, render
from flows.recipe import DEMO

SMALL = {
    "dedup": {"validation_ratio": 0.2},
    "tokenizer": {"vocab_size": 400},
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32},
    "training": {
        "max_steps": 6,
        "micro_batch_size": 4,
        "tokens_per_step": 128,
        "warmup_steps": 1,
        "eval_every_steps": 2,
        "eval_tokens": 256,
        "checkpoint_every_steps": 2,
        "num_threads": 1,
        "device": "cpu",
    },
    "evaluation": {"prompts": ["The "], "sample_tokens": 4, "ladder": False, "applications": False, "safety": False},
}
"""Sections with which a recipe takes seconds."""

OFF = dict.fromkeys(("language", "quality", "compliance", "bias", "pii"), "off")
"""Sections with which everything that can be read is kept, duplicates aside."""

SHORT_TRAINING = {"max_steps": 10, "warmup_steps": 2, "eval_every_steps": 5, "checkpoint_every_steps": 5}


def write_recipe(path: Path, *sources: Mapping[str, object], name: str = "small", **sections: object) -> Path:
    """A recipe that takes seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"name": name, "sources": list(sources), **SMALL, **sections}, allow_unicode=True))
    return path


def write_demo(path: Path, **sections: Mapping[str, object]) -> Path:
    """The embedded recipe with a short training, and what else is given laid over its sections."""
    recipe = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    for section, values in {"training": SHORT_TRAINING, **sections}.items():
        recipe[section] = recipe.get(section, {}) | dict(values)
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    return path


def record(
    body: bytes, url: str, *, content_type: str | None = "text/html; charset=utf-8", status: str = "200 OK"
) -> bytes:
    """A WARC record of one fetched page; `content_type` None leaves the header out."""
    head = f"HTTP/1.1 {status}\r\n" + (f"Content-Type: {content_type}\r\n" if content_type else "")
    block = head.encode() + b"\r\n" + body
    fields = (
        "WARC/1.1\r\nWARC-Type: response\r\n"
        f"WARC-Target-URI: {url}\r\nWARC-Date: 2024-01-02T03:04:05Z\r\n"
        f"Content-Type: application/http;msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return fields.encode() + block + b"\r\n\r\n"


def write_warc(path: Path, records: Iterable[bytes]) -> Path:
    """A .warc.gz of records, each in a gzip member of its own, with a fixed time in its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(gzip.compress(each, mtime=0) for each in records))
    return path


def article_records() -> list[bytes]:
    """The demo's clean articles, both languages, as WARC records."""
    pages = [page for page in load_pages() if page.kind == "article" and not page.plant and page.charset == "utf-8"]
    return [record(render(page, load_pages()).body, page.url) for page in pages]


@dataclass
class CountedSite:
    """A site on loopback: path to (content type, body); everything else is a 404."""

    answers: Mapping[str, tuple[str, bytes]]
    port: int = 0
    requests: list[str] = field(default_factory=list)
    on_request: Callable[[str], None] = lambda path: None

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def source(self, **options: object) -> dict[str, object]:
        """The source of a recipe that crawls it."""
        allowed = [f"127.0.0.1:{self.port}"]
        return {"kind": "crawl", "seeds": [self.url()], "allow_addresses": allowed, "delay_seconds": 0, **options}


@contextmanager
def serve(answers: Mapping[str, tuple[str, bytes]]) -> Iterator[CountedSite]:
    """Serve a site for as long as the block lasts."""
    site = CountedSite(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(self.path)
            site.on_request(self.path)
            content_type, body = site.answers.get(self.path, ("text/plain", b"no such page"))
            self.send_response(200 if self.path in site.answers else 404)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # whoever asked was killed
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def article_site(num_pages: int) -> dict[str, tuple[str, bytes]]:
    """Articles of the demo, each linked to the next two, without the magazine around them."""
    pages = [page for page in load_pages() if page.kind == "article" and not page.plant][:num_pages]
    answers = {}
    for idx, page in enumerate(pages):
        links = "".join(f'<a href="/{other}">next</a>' for other in (2 * idx + 1, 2 * idx + 2) if other < len(pages))
        text = "".join(f"<p>{part}</p>" for part in page.body.split("\n\n"))
        html = f"<html><head><title>{page.title}</title></head><body><article>{text}</article><nav>{links}</nav></body></html>"
        answers["/" if idx == 0 else f"/{idx}"] = ("text/html; charset=utf-8", html.encode())
    return answers
