"""Suites from a recipe to their figures: what is declared, what a model reads, and what is wrong said in one sentence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_export import tokenizer_json

from flows.evaluation.prompts import WRITING_KINDS
from flows.evaluation.suites import (
    SuiteSection,
    declared_suite,
    load_suite,
    measure_held_out_extras,
    measure_suites,
    shipped_suites,
)
from flows.recipe import load_recipe
from llm.config import ModelConfig
from llm.model import GPT
from pipelines.encoding import Encoder
from pipelines.errors import ConfigError, InputError, IntegrityError

HEAD = "name: x\nsources: [{kind: text, paths: [a.jsonl]}]\n"
LONG = "The mill by the river turns all day and all of the night."


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.load(tokenizer_json())


@pytest.fixture
def model() -> GPT:
    return GPT(ModelConfig(vocab_size=700, block_size=64, n_layer=1, n_head=2, n_embd=16), seed=0)


def recipe_file(folder: Path, *suites: dict, **evaluation) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.jsonl").write_text(json.dumps({"text": LONG}) + "\n")
    (folder / "pairs.jsonl").write_text(
        "".join(json.dumps({"text": f"{LONG} {idx}", "label": idx % 2}) + "\n" for idx in range(6))
    )
    path = folder / "recipe.yaml"
    path.write_text(HEAD + "evaluation: " + json.dumps({"suites": list(suites), **evaluation}))
    return path


TEXTS = {"name": "texts", "kind": "perplexity", "path": "texts.jsonl"}
MOODS = {"name": "moods", "kind": "sentiment", "path": "pairs.jsonl", "language": "en"}


def test_a_suite_that_is_measured_is_searched_for_in_documents_too(tmp_path):
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": LONG}) + "\n")
    recipe = load_recipe(recipe_file(tmp_path, TEXTS, {**MOODS, "decontaminate": False}))
    assert recipe.suites == ("texts.jsonl",)
    assert [each.section.name for each in recipe.measured_suites()] == ["texts", "moods"]
    recipe.check_files()
    plain = load_recipe(recipe_file(tmp_path, TEXTS, "other.jsonl"))
    assert plain.suites == ("other.jsonl", "texts.jsonl")
    off = load_recipe(recipe_file(tmp_path, TEXTS, decontaminate=False))
    assert (off.suites, len(off.measured)) == ((), 1)


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ({**TEXTS, "kind": "poetry"}, r"evaluation.suites.0.kind: got 'poetry', wanted 'multiple_choice'"),
        ({**TEXTS, "pth": "x"}, r"evaluation.suites.0.pth: got an unknown key.*did you mean 'path'"),
        ({**TEXTS, "name": "a b"}, r"evaluation.suites.0: name: got 'a b', wanted letters"),
        ({**TEXTS, "num_fewshot": 2}, r"evaluation.suites.0: num_fewshot: got examples for kind perplexity"),
        ({**MOODS, "language": "fr"}, r"language: got 'fr', wanted en or zh for kind sentiment"),
        ({**MOODS, "source_language": "en"}, r"source_language: got 'en' for kind sentiment, wanted none"),
        ({**MOODS, "max_items": 0}, r"max_items: got 0, wanted at least 1"),
        ({**MOODS, "max_tokens": 4}, r"max_tokens: got 4 for kind sentiment, wanted none"),
        ({**MOODS, "examples": "pairs.jsonl"}, r"examples: got a file with num_fewshot 0"),
        ({**MOODS, "skip": " "}, r"skip: got an empty reason"),
        ({**TEXTS, "path": "none.jsonl"}, r"evaluation.suites .texts.: path: got .*none.jsonl, wanted a file"),
        (
            {**TEXTS, "path": "recipe.yaml"},
            r"evaluation.suites .texts.: path: got recipe.yaml, wanted an ending of",
        ),
        ({**TEXTS, "path": "https://a.example/x.jsonl"}, r"evaluation.suites.0.path: got .*fetch it first"),
    ],
)
def test_what_is_wrong_with_a_measured_suite_is_named(tmp_path, suite, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_recipe(recipe_file(tmp_path, suite)).check_files()
    assert "\n" not in str(error.value)


def test_two_suites_have_two_names(tmp_path):
    with pytest.raises(ConfigError, match=r"evaluation.suites.1.name: got 'texts' twice"):
        load_recipe(recipe_file(tmp_path, TEXTS, TEXTS))


def test_a_skipped_suite_says_why_and_its_file_is_not_looked_for(tmp_path, model, encoder):
    recipe = load_recipe(recipe_file(tmp_path, {**TEXTS, "path": "none.jsonl", "skip": "Not ours to give."}))
    recipe.check_files()
    (found,) = measure_suites(model, encoder, recipe.measured_suites())
    assert (found.skipped, found.figures, found.suite.name) == ("Not ours to give.", {}, "texts")


def test_a_file_that_changes_or_goes_after_it_was_declared_is_refused(tmp_path):
    (declared,) = load_recipe(recipe_file(tmp_path, TEXTS)).measured_suites()
    (tmp_path / "texts.jsonl").write_text('{"text": "other"}')
    with pytest.raises(IntegrityError, match="which changed since"):
        load_suite(declared)
    (tmp_path / "texts.jsonl").unlink()
    with pytest.raises(InputError, match="which is gone"):
        load_suite(declared)


def test_a_malformed_row_is_named_by_file_and_line(tmp_path):
    path = recipe_file(tmp_path, MOODS)
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write('{"text": "no label"}\n')
    (declared,) = load_recipe(path).measured_suites()
    with pytest.raises(InputError, match=r"pairs\.jsonl, line 7: got label None"):
        load_suite(declared)


def loaded(folder: Path, **changes):
    recipe_file(folder)
    return load_suite(declared_suite(SuiteSection(**{**MOODS, **changes}), folder))


def test_examples_are_drawn_from_the_other_cases_by_the_seed(tmp_path):
    first, again, other = (loaded(tmp_path, num_fewshot=2, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert [item.contexts for item in first.items] != [item.contexts for item in other.items]
    for idx, item in enumerate(first.items):
        *examples, question = item.contexts[0].split("\n\n")
        assert question == f"Review: {LONG} {idx}\nSentiment:"
        assert len(set(examples)) == 2
        assert not any(f"{LONG} {idx}\n" in example for example in examples)
        assert all(example.endswith((": positive", ": negative")) for example in examples)
    with pytest.raises(ConfigError, match="num_fewshot: got 6 for 5 cases to draw from"):
        loaded(tmp_path, num_fewshot=6)


def test_examples_of_a_file_are_the_same_before_every_case(tmp_path):
    recipe_file(tmp_path)
    (tmp_path / "solved.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": 1}) + "\n" for text in ("Good.", "Very good.", "Fine."))
    )
    items = loaded(tmp_path, num_fewshot=2, examples="solved.jsonl").items
    assert len({item.contexts[0].rpartition("\n\n")[0] for item in items}) == 1
    assert len({item.content_free for item in items}) == 1


def test_a_part_of_the_cases_is_drawn_by_the_seed_in_their_order(tmp_path):
    names = [item.id for item in loaded(tmp_path, max_items=3, seed=4).items]
    assert names == sorted(names)
    assert len(names) == 3
    assert names == [item.id for item in loaded(tmp_path, max_items=3, seed=4).items]
    assert len({tuple(i.id for i in loaded(tmp_path, max_items=3, seed=seed).items) for seed in range(6)}) > 1


def test_the_digest_of_a_suite_is_of_its_cases_and_examples_alone(tmp_path):
    here, there = loaded(tmp_path / "a"), loaded(tmp_path / "b", name="other")
    assert here.suite.dataset_digest == there.suite.dataset_digest
    others = [loaded(tmp_path / "a", max_items=3), loaded(tmp_path / "a", num_fewshot=1)]
    assert len({each.suite.dataset_digest for each in (here, *others)}) == 3
    assert len({each.suite.protocol for each in (here, others[1])}) == 2


def test_prompts_of_the_shipped_suites_are_these():
    """A changed prompt changes every score: raise flows.evaluation.prompts.VERSION with it."""
    firsts = {each.section.name: load_suite(each).items[0] for each in shipped_suites()}
    assert firsts["translation_en_zh"].prompt == "English: The cat is asleep on the chair.\nChinese:"
    assert firsts["translation_zh_en"].prompt == "中文：猫在椅子上睡着了。\n英文："
    assert firsts["question_answering_zh"].prompt == "磨坊在河边，是两兄弟在1820年建的。\n问：磨坊是哪一年建的？\n答："
    assert firsts["question_answering_en"].prompt.endswith("\nQ: When was the mill built?\nA:")
    assert firsts["summarisation_en"].prompt.endswith("\nTL;DR:")
    assert firsts["summarisation_zh"].prompt.endswith("\n摘要：")
    assert firsts["sentiment_zh"].contexts[0] == "评论：汤很热，味道好极了。\n情感："
    assert firsts["sentiment_en"].continuations == (" negative", " positive")
    assert firsts["similarity_zh"].continuations == ("否", "是")
    assert firsts["sentiment_zh_3shot"].contexts[0].count("情感：") == 4
    assert firsts["translation_en_zh_3shot"].prompt.count("Chinese:") == 4


def test_the_five_applications_ship_in_both_languages_with_and_without_examples():
    found = [each.section for each in shipped_suites()]
    applications = {(each.kind, each.language, each.num_fewshot) for each in found}
    kinds = {*WRITING_KINDS, "similarity", "sentiment"}
    assert applications == {(kind, language, num) for kind in kinds for language in ("en", "zh") for num in (0, 3)}
    suites = [load_suite(each) for each in shipped_suites()]
    assert len({each.suite.name for each in suites}) == 20
    assert all(len(each.items) == 20 and each.suite.noise_floor > 0 for each in suites)
    assert all(each.suite.protocol and len(each.suite.dataset_digest) == 64 for each in suites)


def test_every_kind_is_measured_with_progress_and_in_order(tmp_path, model, encoder):
    short = tuple(
        replace(each, section=replace(each.section, max_items=2))
        for each in shipped_suites()
        if each.section.num_fewshot == 0
    )
    declared = (*short, *load_recipe(recipe_file(tmp_path, TEXTS)).measured_suites())
    seen = []
    results = measure_suites(model, encoder, declared, progress=lambda *each: seen.append(each))
    assert [each.suite.name for each in results] == [each.section.name for each in declared]
    assert seen == [*((each.suite.name, idx, 11) for idx, each in enumerate(results)), ("", 11, 11)]
    for each in results:
        assert each.skipped is None
        assert each.figure.value == each.figures[each.suite.metric].value
        weights = each.weights if each.weights is not None else 1.0 + 0 * each.scores
        assert each.scores.sum() / weights.sum() == pytest.approx(each.figure.value)
        assert json.loads(json.dumps(each.items, ensure_ascii=False)) == list(each.items)
        assert any(name.startswith("baseline/") for name in each.figures)


def test_a_model_that_has_no_room_for_an_answer_skips_it_with_the_reason(encoder):
    small = GPT(ModelConfig(vocab_size=700, block_size=24, n_layer=1, n_head=2, n_embd=16), seed=0)
    found = {each.suite.name: each.skipped for each in measure_suites(small, encoder, shipped_suites()[:4])}
    assert found["translation_en_zh"] == "An answer has up to 48 tokens, and the model's context only 24."
    assert found["question_answering_en"] is not None


def test_held_out_extras_know_the_language_of_a_text(tmp_path, model, encoder):
    import pyarrow as pa

    from llm.data import TokenData
    from pipelines.schemas import TOKENS

    texts = [
        "The mill by the river turns all day, and the miller sleeps beside the warm oven until noon.",
        "水车在河边转动，磨坊里磨出了白面，面包师每天清早都来买两袋面粉，然后回到村里烤面包。" * 2,
    ]
    rows = [
        {
            "doc_id": str(idx),
            "split": "validation",
            "num_bytes": len(text.encode()),
            "tokens": [*encoder.encode_batch([text])[0].tolist(), encoder.eot_token],
        }
        for idx, text in enumerate(texts)
    ]
    path = tmp_path / "0.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, TOKENS) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=TOKENS))
    held_out = TokenData.open([path], "validation", digest="corpus")
    found = measure_held_out_extras(model, encoder, held_out, text_num_tokens=4)
    assert [each.suite.name for each in found] == ["calibration", "positions", "generation_quality"]
    assert [row["language"] for row in found[2].items] == ["en", "zh"]
