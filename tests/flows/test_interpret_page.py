"""The page of a text: what it shows is what was measured, and nothing in it runs."""

import hashlib
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from flows.model.interpret_page import render_page, text_facts, write_page
from llm.config import ModelConfig
from llm.evaluation.nearest import Stretch
from llm.model import GPT

EOT = 256
ENGLISH = "The ferry leaves the harbour at seven."
CHINESE = "清晨，渡船从老码头开出去。"
HOSTILE = (
    "<script>window.broken=1</script>",
    '" onmouseover="window.broken=1',
    "{{style}} {{surprise}}",
    "\u202egnp.exe\x00\x1b[31m",
    "</title></style></p></table><h1>mine</h1>",
)


def encode(text: str) -> Sequence[int]:
    return list(text.encode("utf-8", "surrogatepass"))


def decode(ids: Sequence[int]) -> str:
    return bytes(token for token in ids if token < EOT).decode("utf-8", "replace")


@pytest.fixture(scope="module")
def model() -> GPT:
    model = GPT(ModelConfig(vocab_size=257, block_size=96, n_layer=2, n_head=2, n_embd=16), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    return model.eval()


class Elements(HTMLParser):
    """Elements and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.mark.parametrize(("text", "language"), [(ENGLISH, "en"), (CHINESE, "zh")])
def test_what_is_shown_is_what_was_measured(model: GPT, text: str, language: str) -> None:
    nearest = [
        Stretch(doc_id="d" * 32, num_tokens=9, start=0, document_start=4, url="https://example.org/渡船?a=1&b=2")
    ]
    facts = text_facts(model, text, encode, decode, EOT, language=language, nearest=nearest)
    page = render_page("a model", facts)
    shown = re.search(r'<p class="text" lang="\w+">(.*?)</p>', page, re.DOTALL)
    assert re.sub(r"<[^>]*>", "", shown[1]) == text
    bits = [float(each) for each in re.findall(r'title="([\d.]+) bits"', page)]
    assert sum(bits) == pytest.approx(sum(facts.bits), abs=0.01 * len(bits))
    elements = Elements(page)
    assert len(elements.all("svg")) == 4
    shown_rows = page.count("<th>layer ")
    assert shown_rows == 2
    assert elements.all("a") == [
        {"href": "https://example.org/渡船?a=1&amp;b=2".replace("&amp;", "&"), "rel": "noreferrer nofollow"}
    ]
    assert page == render_page("a model", facts)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_a_stranger_wrote_becomes_markup(model: GPT, text: str) -> None:
    nearest = [
        Stretch(doc_id=text, num_tokens=3, start=0, document_start=0, url=url) for url in (f"javascript:{text}", text)
    ]
    facts = text_facts(model, f"{text} end", encode, decode, EOT, language=text, nearest=nearest)
    page = render_page(text, facts)
    plain = render_page("plain", text_facts(model, "plain text", encode, decode, EOT))
    allowed = {tag for tag, _ in Elements(plain).found} | {"table", "code"}
    elements = Elements(page)
    assert {tag for tag, _ in elements.found} <= allowed
    assert not elements.all("script")
    assert not elements.all("a")
    for _, attributes in elements.found:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert "\x00" not in page
    assert "\u202e" not in page


def test_the_page_lets_nothing_in(model: GPT) -> None:
    page = render_page("m", text_facts(model, ENGLISH, encode, decode, EOT))
    elements = Elements(page)
    policy = next(each["content"] for each in elements.all("meta") if each.get("http-equiv"))
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "default-src 'none'" in policy
    assert b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert not re.search(r"url\(|@import|https?:", style)
    assert not any(name in ("src", "srcset") for _, attributes in elements.found for name in attributes)


def test_a_long_text_and_an_empty_one(model: GPT, tmp_path: Path) -> None:
    facts = text_facts(model, ENGLISH * 10, encode, decode, EOT)
    assert len(facts.bits) == 10 * len(ENGLISH)
    path = write_page(tmp_path / "pages" / "long.html", "m", facts)
    page = path.read_text(encoding="utf-8")
    assert "the first 64 tokens of 380" in page
    assert len(page.encode()) < 600_000
    assert [each.name for each in path.parent.iterdir()] == ["long.html"]
    assert "0 tokens" in render_page("m", text_facts(model, "", encode, decode, EOT))


@pytest.mark.browser
def test_a_browser_shows_it(model: GPT, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    path = write_page(tmp_path / "page.html", "m", text_facts(model, CHINESE, encode, decode, EOT, language="zh"))
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    assert 'aria-label="Attention of head 2"' in done.stdout
    assert "Refused to" not in done.stderr
