"""Training that goes on from a model: an exported one, a training's, by content and never by path."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import SMALL, article_records, write_demo, write_recipe, write_warc

from flows import takedown
from flows.model.start import check_shape, check_tokenizer
from flows.recipe import load_recipe, parse_recipe
from flows.workspace import Workspace
from llm.config import modern_nano, nano
from pipelines.errors import ConfigError

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

HEAD = "name: a\nsources: [{kind: warc, paths: [x]}]\n"


def going_on(recipe: Path, model: Path, **training: object) -> Path:
    """The demo's recipe, to go on from a model."""
    return write_demo(
        recipe,
        tokenizer={"kind": "file", "path": str(model / "tokenizer.json")},
        model={"preset": "from_start"},
        training={"max_steps": 2, "warmup_steps": 1, "start_from": str(model), "eval_every_steps": None},
        evaluation=SMALL["evaluation"],
    )


def test_training_goes_on_from_an_exported_model_and_keeps_its_key_where_the_folder_moves(
    main: Any, demo_copy: Any, pipeline: Any, tmp_path: Path
) -> None:
    place, before = demo_copy.workspace, demo_copy.summary["training"]
    model = tmp_path / "model"
    assert main("export-model", demo_copy.recipe, "--workspace", place, "--out", model).code == 0
    recipe = going_on(tmp_path / "on.yaml", model)
    after = pipeline(recipe, place, "evaluate")["training"]
    assert after["first_val_loss"] == pytest.approx(before["final_val_loss"], abs=1e-6)
    assert after["start_from"] == before["parameters_digest"]
    assert after["folder"] != before["folder"]

    moved = shutil.move(model, tmp_path / "elsewhere")
    plan = main("plan", going_on(recipe, Path(moved)), "--workspace", place, "--json").summary
    assert [stage["compute"] for stage in plan["stages"] if stage["name"] in ("train", "evaluate")] == [0, 0]
    from_training = going_on(tmp_path / "same.yaml", place / "models" / before["folder"])
    plan = main("plan", from_training, "--workspace", place, "--json").summary
    assert [stage["compute"] for stage in plan["stages"] if stage["name"] == "train"] == [0], "the same weights"

    (Path(moved) / "config.json").unlink()
    assert "training.start_from: got" in main("plan", recipe, "--workspace", place).err
    wanted = demo_copy.summary["evaluation"]["samples"][0]["prompt"]
    assert main("generate", wanted, "--max-tokens", 3, "--workspace", place).code == 0, (
        "what is trained needs it no more"
    )
    kept = json.loads((place / "store" / "refs" / "demo" / "tokenize").read_bytes())
    assert kept, "the corpus is there"


def test_a_take_down_names_models_that_began_with_the_weights_of_one_that_saw_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def training(folder: str, shard: str, digest: str, **more: str) -> dict[str, Any]:
        return {"folder": folder, "token_shards": [shard], "parameters_digest": digest, **more}

    trainings = [
        training("grandchild", "other", "3", start_from="2"),
        training("child", "other", "2", start_from="1"),
        training("saw", "shard", "1"),
        training("apart", "other", "4"),
    ]
    monkeypatch.setattr(takedown, "known_trainings", lambda _: trainings)
    found = takedown._models_of(Workspace(tmp_path), [{"token_shard": "shard", "split": "train"}])
    assert {model["folder"]: model["saw"] for model in found} == {
        "saw": ["train"],
        "child": ["start_from"],
        "grandchild": ["start_from"],
    }
    measured = takedown._models_of(Workspace(tmp_path), [{"token_shard": "shard", "split": "test"}])
    assert [model["folder"] for model in measured] == ["saw"], "no weight comes from what was only measured on"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            "training: {start_from: m}",
            r"tokenizer.kind: got train with training.start_from, wanted the tokenizer of that",
        ),
        ("training: {start_from: 3}", r"training.start_from: got 3"),
        ("model: {preset: from_start}", r"got preset from_start, wanted training.start_from too"),
        ("model: {preset: huge}", r"got preset 'huge', wanted one of nano"),
    ],
)
def test_bad_recipes_are_refused_before_anything_is_read(sections: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_recipe(HEAD + sections, tmp_path)


def test_a_folder_without_a_model_is_refused_before_anything_is_built(main: Any, tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", article_records()[:1])
    tokenizer = {"kind": "file", "path": "tokenizer.json"}
    recipe = write_recipe(
        tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, tokenizer=tokenizer, training={"start_from": "m"}
    )
    done = main("run", recipe, "--workspace", tmp_path / "w")
    assert done.code == 2
    assert "training.start_from: got" in done.err
    assert not (tmp_path / "w").exists()
    load_recipe(recipe)  # commands that only look still can


def test_a_shape_that_does_not_fit_names_what_to_set() -> None:
    check_shape(nano(dropout=0.2), nano())
    check_shape(modern_nano(block_size=64), modern_nano())  # rotary positions have no weights
    with pytest.raises(ConfigError, match=r"got block_size 64, wanted 128 .* set preset to from_start"):
        check_shape(nano(block_size=64), nano())
    with pytest.raises(ConfigError, match=r"got vocab_size 300, wanted 2048"):
        check_shape(nano(vocab_size=300), nano())


def test_another_tokenizer_is_refused_and_another_spelling_is_not(tmp_path: Path) -> None:
    spec: dict[str, Any] = {"model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}, "added_tokens": []}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    check_tokenizer(json.dumps({**spec, "model": {**spec["model"], "merges": [["a", "b"]]}}, indent=2), tmp_path)
    for model in ({"vocab": {"a": 0, "b": 1, "ab": 3}}, {"merges": []}):
        with pytest.raises(ConfigError, match=r"tokenizer: got another vocabulary .* set tokenizer.kind to file"):
            check_tokenizer(json.dumps({**spec, "model": {**spec["model"], **model}}), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"without a tokenizer.json"):
        check_tokenizer(json.dumps(spec), tmp_path)
