"""From a recipe's sources to source files."""

import json

import pytest

from flows.recipe import parse_recipe
from flows.sources import collect, known_crawls
from flows.workspace import Workspace
from pipelines.errors import InputError


def recipe_of(tmp_path, sources):
    return parse_recipe(f"name: r\nsources: {json.dumps(sources)}\n", tmp_path)


@pytest.fixture
def place(tmp_path):
    return Workspace(tmp_path / "workspace")


def test_paths_start_at_the_recipe_and_kinds_are_kept_apart(tmp_path, place):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "b.txt").write_text("y")
    sources = [{"kind": "text", "paths": ["rows"]}, {"kind": "text", "paths": ["*.txt"], "text_field": "body"}]
    collected = collect(recipe_of(tmp_path, sources), place, {})
    assert [(item.kind, item.options.text_field) for item in collected.files] == [("text", "text"), ("text", "body")]
    assert len({item.unit for item in collected.files}) == 2


def test_a_pattern_that_matches_nothing_is_named(tmp_path, place):
    with pytest.raises(InputError, match="none"):
        collect(recipe_of(tmp_path, [{"kind": "warc", "paths": ["none*.gz"]}]), place, {})


def test_a_plan_fetches_no_dataset(tmp_path, place):
    """A local folder stands for a hub name; only a run may copy it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(
        "".join(json.dumps({"text": f"row {i}", "url": None}) + "\n" for i in range(5))
    )
    recipe = recipe_of(tmp_path, [{"kind": "text", "dataset": "data"}])
    assert known_crawls(recipe, place) == ({}, ["text0"])
    assert collect(recipe, place, {}, may_fetch=False).files == ()
    assert not (place.root / "datasets").exists()
    assert len(collect(recipe, place, {}).files) == 1
    assert known_crawls(recipe, place) == ({}, [])
    assert len(collect(recipe, place, {}, may_fetch=False).files) == 1


def test_a_crawl_that_never_ran_is_still_to_be_fetched(tmp_path, place):
    recipe = recipe_of(tmp_path, [{"kind": "crawl", "seeds": ["http://a.invalid/"]}])
    crawls, unfinished = known_crawls(recipe, place)
    assert unfinished == ["crawl0"]
    assert crawls["crawl0"].warc_paths == ()
