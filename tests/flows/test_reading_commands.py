"""`corpusmill inspect` and `corpusmill nearest`, on the finished demo."""

from pathlib import Path
from typing import Any

import pytest
from flow_inputs import article_records, write_recipe, write_warc

from flows.pipeline import training_job
from flows.recipe import load_recipe
from flows.workspace import Workspace
from llm.data import TokenData
from pipelines.corpus import tokenizer_json
from pipelines.encoding import Encoder


def passages(demo: Any, num_tokens: int = 24) -> dict[str, tuple[str, str]]:
    """By language a passage of a document that was trained on, and its doc_id."""
    recipe, place = load_recipe(demo.recipe), Workspace(demo.workspace)
    store = place.open_store()
    dataset = training_job(recipe, place, store).dataset
    encoder = Encoder.load(tokenizer_json(dataset.tokenizer))
    found: dict[str, tuple[str, str]] = {}
    for each in TokenData.open(dataset.verified_paths(store), "train", digest=dataset.digest).documents():
        text = encoder.decode(each.tokens[8 : 8 + num_tokens].tolist())
        if "\N{REPLACEMENT CHARACTER}" not in text:
            is_chinese = sum("\u4e00" <= char <= "\u9fff" for char in text) > 5
            found.setdefault("zh" if is_chinese else "en", (text.strip(), each.doc_id))
    return found


def test_a_quotation_is_led_to_its_page(main: Any, demo: Any) -> None:
    for text, doc_id in passages(demo).values():
        done = main("nearest", text, "--workspace", demo.workspace, "--json").summary
        first = done["nearest"][0]
        named = {each["doc_id"] for each in done["nearest"] if each["num_tokens"] == first["num_tokens"]}
        assert doc_id in named
        assert first["url"].startswith(("http://harbour.test/", "http://shanshui.test/"))
        assert first["shared"].strip() in text
        assert first["num_tokens"] >= 12
        told = main("nearest", text, "--workspace", demo.workspace, "--num", 1)
        assert (told.code, told.err, told.out.count("\n")) == (0, "", 1)
        assert first["url"] in told.out


def test_what_nobody_wrote_is_nowhere(main: Any, demo: Any) -> None:
    done = main("nearest", "Qwx zzyj vvk qqp 鑫龘 xkcd.", "--workspace", demo.workspace)
    assert done.out == "  no training document shares 8 tokens in a row with it\n"


def test_what_the_model_writes_is_looked_for(main: Any, demo: Any) -> None:
    call = ("nearest", "The harbour", "--generate", "--max-tokens", 20, "--min-tokens", 1, "--workspace")
    done = main(*call, demo.workspace, "--json").summary
    assert done["is_generated"]
    assert done == main(*call, demo.workspace, "--json").summary
    assert done["nearest"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_of_a_text(main: Any, demo: Any, tmp_path: Path, language: str) -> None:
    text, doc_id = passages(demo)[language]
    done = main(
        "inspect", text, "--recipe", demo.recipe, "--workspace", demo.workspace, "--out", tmp_path / "out", "--json"
    ).summary
    page = Path(done["path"]).read_text(encoding="utf-8")
    assert Path(done["path"]) == tmp_path / "out" / "inspection.html"
    assert done["is_training_known"]
    assert done["bits_per_byte"] == pytest.approx(done["bits"] / len(text.encode()))
    assert doc_id in page
    assert page.count("<svg") == 16  # four layers of four heads
    assert f'href="{done["nearest"][0]["url"]}"' in page


def test_of_a_model_from_elsewhere_only_the_page_can_be_had(main: Any, demo: Any, tmp_path: Path) -> None:
    model = tmp_path / "model"
    assert main("export-model", demo.recipe, "--workspace", demo.workspace, "--out", model, "--json").code == 0
    found = main("inspect", "The harbour.", "--model", model, "--workspace", demo.workspace, "--out", tmp_path / "o")
    assert found.code == 0
    assert "what it was trained on is not known here" in found.out
    refused = main("nearest", "The harbour.", "--model", model, "--workspace", demo.workspace)
    assert refused.code == 1
    assert "does not know what it was trained on" in refused.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("nearest", ""), "got an empty text"),
        (("inspect", ""), "got an empty text"),
        (("inspect", "x", "--model", "gone"), "gone"),
        (("nearest", "x", "--model", "a", "--recipe", "b"), "--model, --recipe: got both"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(main: Any, demo: Any, command: tuple[str, ...], said: str) -> None:
    done = main(*command, "--workspace", demo.workspace)
    assert done.code in (1, 2)
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_page_is_noted_for_take_downs(main: Any, pipeline: Any, tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", article_records()[:12])
    pipeline(write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}), tmp_path / "w", "train")
    done = main("inspect", "The harbour.", "--workspace", tmp_path / "w", "--out", tmp_path / "o", "--json").summary
    assert done["path"] in (tmp_path / "w" / "outputs.jsonl").read_text(encoding="utf-8")
