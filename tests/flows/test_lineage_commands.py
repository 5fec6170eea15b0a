"""Lineage by command, both ways: several trainings, more than an epoch, several micro-batches a step, a recipe that moved on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from flow_inputs import OFF, SMALL, article_records, write_recipe, write_warc

from flows import inspection
from flows.jobs import known_trainings
from flows.lineage import open_training, trace_step
from flows.workspace import Workspace
from llm.data import TokenData

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

ACCUMULATING = SMALL["training"] | {"max_steps": None, "num_epochs": 2.5, "micro_batch_size": 4, "tokens_per_step": 512}


@pytest.fixture
def trained(pipeline: Any, tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """Recipe, workspace, and its models: the first was trained on pages that the recipe has dropped since."""
    write_warc(tmp_path / "a.warc.gz", article_records()[:14])
    write_warc(tmp_path / "b.warc.gz", article_records()[12:20])
    sources = {"kind": "warc", "paths": ["*.warc.gz"]}
    recipe = write_recipe(tmp_path / "r.yaml", sources, **OFF, training=ACCUMULATING)
    first = pipeline(recipe, tmp_path / "w", "train")["training"]
    write_recipe(recipe, sources, **{**OFF, "quality": {"min_words": 330}}, training={**SMALL["training"], "seed": 5})
    second = pipeline(recipe, tmp_path / "w", "train")["training"]
    return recipe, tmp_path / "w", [first["folder"], second["folder"]]


def test_from_steps_to_pages_and_back(main: Any, trained: Any) -> None:
    """Every step of every model, against the batches that training makes."""
    recipe, workspace, models = trained
    place = Workspace(workspace)
    store = place.open_store()
    where = ("--recipe", recipe, "--workspace", workspace)
    held: dict[str, dict[str, set[int]]] = {}
    for facts in known_trainings(place):
        assert facts["num_train_tokens"].keys() == set(facts["token_shards"])
        training = open_training(place, store, facts)
        schedule = training.schedule
        paths = [store.shard_path(digest) for digest in facts["token_shards"]]
        data = TokenData.open(paths, "train", digest="d")
        assert schedule.num_tokens == data.num_tokens
        documents = {document.doc_id: document.tokens for document in data.documents()}
        held[training.model] = {doc_id: set() for doc_id in documents}
        for step in range(1, schedule.num_steps + 1):
            batch = data.windows(schedule.windows(step), schedule.block_size)
            rebuilt: list[list[tuple[int, list[int]]]] = [[] for _ in batch]
            for page in trace_step(training, step, store):
                held[training.model][page["doc_id"]].add(step)
                for part in page["ranges"]:
                    tokens = documents[page["doc_id"]][part["start"] : part["end"]].tolist()
                    rebuilt[part["sequence"]].append((page["stream_start"] + part["start"], tokens))
            joined = [[token for _, tokens in sorted(parts) for token in tokens] for parts in rebuilt]
            assert np.array_equal(np.array(joined), batch)
    first, second = models
    assert max(max(steps, default=0) for steps in held[first].values()) > 2
    assert held[second].keys() < held[first].keys(), "the recipe dropped some"
    for doc_id in held[first]:
        told = inspection.explain(doc_id, recipe, workspace)["documents"][0]
        for training in told["trainings"]:
            assert set(training["steps"]) == held[training["model"]][doc_id]
        assert set(told["models"]) == {model for model in models if held[model].get(doc_id)}
    dropped = sorted(held[first].keys() - held[second].keys())[0]
    text = main("explain", dropped, *where).out
    assert "outcome: drop, because of gopher_short_doc" in text
    assert f"models that saw it: {first}\n  {first}: steps " in text, "it did, whatever the recipe says now"

    step = min(held[first][dropped])
    found = main("trace", "--step", step, "--model", first[:8], *where, "--json").summary
    assert (found["model"], found["step"], found["split"]) == (first, step, "train")
    page = next(page for page in found["pages"] if page["doc_id"] == dropped)
    assert (page["decision"], page["reason"]) == ("drop", "gopher_short_doc")
    assert Path(page["source_file"]).name in ("a.warc.gz", "b.warc.gz")
    assert page["url"] in main("trace", "--step", step, "--model", first, *where).out
    newest = main("trace", "--step", 1, *where, "--json").summary
    assert newest["model"] == second

    out = main("lineage", recipe, "--workspace", workspace, "--out", workspace / "l.parquet", "--json").summary
    rows = pq.read_table(out["path"]).to_pylist()
    assert out["models"] == models
    for row in rows:
        wanted = {model: held[model][row["doc_id"]] for model in models if held[model].get(row["doc_id"])}
        assert {each["model"]: (each["first_step"], each["last_step"]) for each in row["trainings"]} == {
            model: (min(steps), max(steps)) for model, steps in wanted.items()
        }


def test_from_tokens_to_pages(main: Any, demo: Any) -> None:
    where = ("--recipe", demo.recipe, "--workspace", demo.workspace)
    url = "http://harbour.test/articles/tides.html"
    (story,) = main("explain", url, *where, "--json").summary["documents"]
    assert story["record"]["offset"] == story["document"]["record_offset"]
    assert f"tail -c +{story['record']['offset'] + 1} " in main("explain", url, *where).out
    tokens = story["tokens"]
    for offset, inside in ((tokens["stream_start"], 0), (tokens["stream_end"] - 1, tokens["num_tokens"] - 1)):
        found = main("trace", "--offset", offset, "--split", tokens["split"], *where, "--json").summary
        assert [page["url"] for page in found["pages"]] == [url]
        assert found["pages"][0]["ranges"] == [{"sequence": None, "start": inside, "end": inside + 1}]
    shard = ("--shard", tokens["shard"][:12], "--offset", tokens["offset"] + 3)
    text = main("trace", *shard, *where).out
    assert f"{url}  {story['doc_id']}\n    token 3 of the document, row {tokens['row']} of shard" in text
    assert f"record at {story['document']['record_offset']}" in text
    model = demo.summary["training"]["folder"]
    found = main("trace", "--offset", 0, "--model", model, *where, "--json").summary
    assert found["pages"] == main("trace", "--offset", 0, *where, "--json").summary["pages"]


def test_validation_pages_are_in_no_step(main: Any, demo: Any, tmp_path: Path) -> None:
    where = ("--recipe", demo.recipe, "--workspace", demo.workspace)
    done = main("lineage", demo.recipe, "--workspace", demo.workspace, "--out", tmp_path / "l.parquet")
    assert done.out == f"{demo.summary['documents']['in']} pages in {tmp_path / 'l.parquet'}\n"
    rows = pq.read_table(tmp_path / "l.parquet").to_pylist()
    assert any(row["trainings"] for row in rows)
    held_out = [row for row in rows if row["split"] == "validation" and row["decision"] == "keep"]
    assert not any(row["trainings"] for row in rows if row["split"] != "train" or row["decision"] == "drop")
    (story,) = main("explain", held_out[0]["doc_id"], *where, "--json").summary["documents"]
    assert (story["models"], story["trainings"]) == ([], [])
    copy = next(row for row in rows if row["reason"] == "duplicate_near")
    text = main("explain", copy["url"], *where).out
    assert f"cluster of {copy['cluster_size']} pages, {copy['cluster']} stands for them:" in text


def test_what_is_not_finished_and_what_is_gone_is_told(main: Any, demo_copy: Any) -> None:
    where = ("--recipe", demo_copy.recipe, "--workspace", demo_copy.workspace)
    model = demo_copy.summary["training"]["folder"]
    folder = demo_copy.workspace / "models" / model
    digests = json.loads((folder / "dataset.json").read_bytes())["values"]["token_shards"]
    (folder / "training.json").unlink()
    found = main("trace", "--step", 10, *where, "--json").summary
    before = {page["doc_id"] for page in found["pages"] if page["token_shard"] != digests[0]}
    assert len(before) < len(found["pages"]), "the check can fail"

    (demo_copy.workspace / "store" / "objects" / digests[0][:2] / digests[0]).unlink()
    again = main("trace", "--step", 10, *where, "--json").summary
    assert {page["doc_id"] for page in again["pages"]} == {*before, None}, "the others stand where they stood"
    gone = [page for page in again["pages"] if page["doc_id"] is None]
    assert sum(page["num_tokens"] for page in again["pages"]) == sum(page["num_tokens"] for page in found["pages"])
    assert [page["token_shard"] for page in gone] == digests[:1]
    text = main("trace", "--step", 10, *where).out
    assert (
        f"shard {digests[0][:16]}, which is gone: whose its {gone[0]['num_tokens']} tokens were cannot be told" in text
    )
    done = main("trace", "--offset", 0, "--model", model, *where)
    assert (done.code, done.out) == (1, "")
    assert "which is gone, wanted it stored" in done.err


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ("", 2, "--step, --offset: got both or neither"),
        ("--step 1 --offset 1", 2, "--step, --offset: got both or neither"),
        ("--step 1 --split train", 2, "--split: got it beside --shard or --step"),
        ("--offset 1 --shard 0 --model 0", 2, "--shard: got it beside --model or --step"),
        ("--step 1 --model none", 2, "--model: got 'none', which fits 0 of the trainings"),
        ("--step 11", 1, "got step 11, wanted one of the 10 that model"),
        ("--offset 99999999", 1, "got offset 99999999, wanted 0 to "),
        ("--offset 0 --split nothing", 1, "got the split 'nothing', which has no tokens, wanted"),
        ("--offset 0 --shard xyz", 1, "got shard 'xyz', the beginning of 0 digests"),
    ],
)
def test_what_cannot_be_traced_is_refused(main: Any, demo: Any, options: str, code: int, reason: str) -> None:
    done = main("trace", *options.split(), "--recipe", demo.recipe, "--workspace", demo.workspace)
    assert (done.code, done.out) == (code, "")
    assert done.err.splitlines()[-1].startswith(f"corpusmill: {reason}")


def test_where_nothing_was_trained_that_is_said(main: Any, tmp_path: Path) -> None:
    done = main("trace", "--step", 1, "--workspace", tmp_path / "w")
    assert done.code == 2
    assert "got no training in" in done.err
    assert not (tmp_path / "w").exists(), "who looks makes nothing"
