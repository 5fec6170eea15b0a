"""A take-down from the command to the certificate, through a build, a model, an export and what is swept after."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from flow_inputs import OFF, article_records, record, serve, write_recipe, write_warc

from flows.tracker.tracking import MlflowClient
from flows.workspace import Workspace
from pipelines.errors import EmptyCorpusError
from pipelines.store import Store

pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore")]

TEXT = "The lighthouse keeper of Saint Anselm counted ships until the winter of the long frost came. "
STORY = "".join(
    f"<p>{TEXT * 3} Chapter {number} tells how the harbour of Anselm froze over.</p>" for number in range(6)
)
FIRST, COPY = "https://tales.example/lighthouse", "https://mirror.example/lighthouse"


def page(url: str, day: str) -> bytes:
    body = f"<html><head><title>Lighthouse</title></head><body><main>{STORY}</main></body></html>".encode()
    return record(body, url).replace(b"2024-01-02T", f"2024-02-{day}T".encode())


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    records = [*article_records(), page(FIRST, "01"), page(COPY, "09")]
    for name, part in (("a", records[::2]), ("b", records[1::2])):
        folder = tmp_path / "pages"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.warc.gz").write_bytes(b"".join(gzip.compress(each, mtime=0) for each in part))
    return write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["pages"]}, **OFF)


def exported(main: Callable[..., Any], recipe: Path, workspace: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    done = main("export", recipe, "--workspace", workspace, "--out", out, *options)
    assert done.code == 0, done.err
    return rows_of(out / "documents.jsonl")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files_with(folder: Path, *needles: str) -> set[str]:
    """Files below a folder that hold one of the texts, compressed shards decoded."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".db", ".gz") and any(_holds(path, needle) for needle in needles):
            found.add(path.relative_to(folder).as_posix())
    return found


def _holds(path: Path, needle: str) -> bool:
    import pyarrow as pa

    if path.parent.parent.name == "objects":
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
        return needle in str(table.drop_columns([n for n in table.column_names if n == "minhash"]).to_pylist())
    return needle.encode() in path.read_bytes()


def test_from_the_command_to_the_certificate_and_back(
    main: Callable[..., Any], pipeline: Callable[..., Any], recipe: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    first = pipeline(recipe, workspace, until="train")
    rows = exported(main, recipe, workspace, tmp_path / "out", "--dropped")
    pages = {row["url"]: row for row in rows}
    old_id = pages[FIRST]["doc_id"]
    assert (pages[FIRST]["decision"], pages[COPY]["duplicate_of"]) == ("keep", old_id)
    main("export", recipe, "--workspace", workspace, "--out", tmp_path / "columns", "--format", "parquet")
    table = tmp_path / "table" / "lineage.parquet"
    main("lineage", recipe, "--workspace", workspace, "--out", table)
    edited = tmp_path / "edited"
    exported(main, recipe, workspace, edited)
    with (edited / "documents.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(pages[FIRST]) + "\n")

    request = main(
        *("takedown", "add", FIRST.replace("https", "http") + "#top", "--reason", "the author's wish", "--by", "Ann"),
        *("--workspace", workspace, "--json"),
    ).summary
    assert not request["certified"]
    assert "not in effect yet" in main("explain", FIRST, "--recipe", recipe, "--workspace", workspace).out
    plan = main("plan", recipe, "--workspace", workspace).out
    assert "taken down" in plan
    assert "tales.example" not in plan

    second = pipeline(recipe, workspace, until="build")
    assert second["documents"]["in"] == first["documents"]["in"]
    assert second["documents"]["kept"] == first["documents"]["kept"], "its copy is back"
    assert second["documents"]["dropped"]["taken_down"] == 1
    (said,) = second["takedowns"]
    assert (said["id"], said["documents"], said["reinstated"]) == (request["id"], 1, 1)

    found = main("takedown", "certificate", request["id"], "--workspace", workspace, "--json").json
    part = found["recipes"]["small"]
    assert found["takedown"]["by"] == "Ann"
    (document,) = part["documents"]
    assert (document["doc_id"], document["url"], document["decision"]) == (old_id, FIRST, "keep")
    assert document["source_file"].endswith(".warc.gz")
    assert document["record_offset"] > 0
    assert [each["url"] for each in part["reinstated"]] == [COPY]
    assert part["search"]["hits"] == 0
    assert part["search"]["shards"] > 8
    assert part["manifests"]["extract"]["before"] != part["manifests"]["extract"]["after"]
    assert [model["folder"] for model in part["models"]] == [first["training"]["folder"]]
    states = {Path(each["path"]).parent.name: each["state"] for each in part["outputs"]}
    assert states == {"out": "cleaned", "columns": "cleaned", "table": "cleaned", "edited": "changed since"}
    assert all(old_id not in str(row) for row in rows_of(tmp_path / "out" / "documents.jsonl"))
    assert old_id not in str(pq.read_table(tmp_path / "columns" / "documents.parquet").to_pylist())
    lineage = {row["url"]: row for row in pq.read_table(table).to_pylist()}
    assert old_id not in str(lineage)
    assert lineage[COPY]["cluster"] == pages[COPY]["doc_id"]
    assert len(rows_of(tmp_path / "out" / "documents.jsonl")) == len(rows) - 1
    markdown = main("takedown", "certificate", request["id"], "--workspace", workspace).out
    assert "0 hits" in markdown
    assert "the author's wish" in markdown

    client = MlflowClient(tracking_uri=Workspace(workspace).mlflow_uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    tagged = {run.data.tags["corpusmill.kind"] for run in runs if "corpusmill.takedown" in run.data.tags}
    assert tagged == {"corpus", "training"}
    assert len(part["mlflow_runs"]) == 2

    told = main("explain", old_id, "--recipe", recipe, "--workspace", workspace, "--json").json
    assert [each["id"] for each in told["takedowns"]] == [request["id"]]
    assert told["documents"] == []
    assert [each["model"] for each in told["trainings"]] == [first["training"]["folder"]], "its shard is still there"

    # a build that changes nothing certifies nothing; the old shards lie there until they are swept
    assert "takedowns" not in pipeline(recipe, workspace, until="build")
    ours = {"takedowns.jsonl", "outputs.jsonl"}
    assert any(name.startswith("store/objects") for name in files_with(workspace, old_id))
    dry = main("gc", "--dry-run", "--workspace", workspace, "--json").json
    swept = main("gc", "--workspace", workspace, "--json").json
    assert (swept["shards"], swept["taken_down"]) == (dry["shards"], dry["taken_down"])
    assert swept["erased"] == [request["id"]]
    left = files_with(workspace, old_id, FIRST) - ours
    assert {name.split("/")[0] for name in left} <= {"takedowns", "prefect", "models"}, left
    assert main("verify", "--workspace", workspace, "--json").json["damaged"] == []
    assert not any(stage["computed"] for stage in pipeline(recipe, workspace, until="build")["stages"])

    # the model's data is gone, and the model is still told of
    assert main("gc", "--workspace", workspace, "--json").json["shards"] == 0

    # lifted, all is as it was
    lifted = main(
        "takedown", "lift", request["id"], "--reason", "an appeal", "--by", "Bob", "--workspace", workspace, "--json"
    ).json
    assert not lifted["in_force"]
    third = pipeline(recipe, workspace, until="build")
    assert third["dataset_digest"] == first["dataset_digest"]
    assert "lifted by Bob" in main("takedown", "list", "--workspace", workspace).out


def test_a_crawl_and_a_build_without_what_was_taken_down_first(
    main: Callable[..., Any], pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    from flow_inputs import article_site

    with serve(article_site(6)) as site:
        recipe = write_recipe(tmp_path / "r.yaml", site.source(name="web"), **OFF)
        workspace = tmp_path / "w"
        done = main("takedown", "add", site.url("/2"), "--reason", "r", "--workspace", workspace)
        assert done.code == 0, done.err
        result = pipeline(recipe, workspace, until="build")
        assert "/2" not in site.requests
        assert result["crawl"]["web"]["taken_down"] == 1
        (said,) = result["takedowns"]
        assert said["documents"] == 0
        assert json.loads(Path(said["certificate"]).read_text())["recipes"]["small"]["search"]["hits"] == 0


def test_a_quotation_in_two_recipes_that_share_a_workspace(
    main: Callable[..., Any], pipeline: Callable[..., Any], recipe: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    other = write_recipe(tmp_path / "other.yaml", {"kind": "warc", "paths": ["pages"]}, name="other", **OFF)
    for each in (recipe, other):
        pipeline(each, workspace, until="build")
    quotation = tmp_path / "quotation.txt"
    quotation.write_text("the HARBOUR of Anselm\nfroze over", encoding="utf-8")
    request = main(
        "takedown", "add", "--text-file", quotation, "--reason", "r", "--workspace", workspace, "--json"
    ).json
    (said,) = pipeline(recipe, workspace, until="build")["takedowns"]
    assert (said["documents"], said["reinstated"], said["other_recipes"]) == (2, 0, ["other"])
    swept = main("gc", "--workspace", workspace, "--json").json
    assert swept["still_reached"], "the other recipe still needs its old shards"
    assert swept["erased"] == []
    (said,) = pipeline(other, workspace, until="build")["takedowns"]
    assert (said["documents"], said["other_recipes"]) == (2, [])
    assert main("gc", "--workspace", workspace, "--json").json["erased"] == [request["id"]]
    left = {name.split("/")[0] for name in files_with(workspace, "froze over")}
    assert left <= {"prefect"}, left


def test_a_corpus_of_which_nothing_is_left_is_no_corpus(
    main: Callable[..., Any], pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    write_warc(tmp_path / "pages" / "a.warc.gz", [page(FIRST, "01")])
    recipe = write_recipe(
        tmp_path / "r.yaml", {"kind": "warc", "paths": ["pages"]}, **OFF | {"dedup": {"validation_ratio": 0.0}}
    )
    workspace = tmp_path / "w"
    pipeline(recipe, workspace, until="build")
    main("takedown", "add", "--domain", "tales.example", "--reason", "r", "--workspace", workspace)
    with pytest.raises(EmptyCorpusError, match="taken_down 1"):
        pipeline(recipe, workspace, until="build")
    assert main("gc", "--workspace", workspace).code == 0
    assert not files_with(workspace / "store", FIRST)


# commands


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reason", "r"], "got 0 of URL"),
        (["https://a.example/", "--domain", "a.example", "--reason", "r"], "got 2 of URL"),
        (["--doc-id", "x", "--reason", "r"], "--doc-id"),
        (["--text", "too short", "--reason", "r"], "quote more of the text"),
        (["--text-file", "missing.txt", "--reason", "r"], "--text-file"),
        (["https://a.example/", "--reason", " "], "--reason"),
    ],
)
def test_bad_usage_is_one_line(main: Callable[..., Any], tmp_path: Path, arguments: list[str], said: str) -> None:
    done = main("takedown", "add", *arguments, "--workspace", tmp_path / "w")
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_what_is_not_there_is_told(main: Callable[..., Any], tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    assert "nothing is taken down" in main("takedown", "list", "--workspace", workspace).out
    assert main("takedown", "certificate", "0" * 12, "--workspace", workspace).code == 2
    assert main("takedown", "lift", "0" * 12, "--reason", "r", "--workspace", workspace).code == 2
    assert main("gc", "--workspace", workspace).code == 2
    assert not workspace.exists()


def test_a_damaged_ledger_stops_whoever_would_build_or_sweep(
    main: Callable[..., Any], recipe: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    main("takedown", "add", FIRST, "--reason", "r", "--workspace", workspace)
    Store(workspace / "store")
    ledger = Workspace(workspace).takedown_ledger
    ledger.write_text(ledger.read_text().replace("tales", "tails"))
    assert main("verify", "--workspace", workspace, "--json").json["damaged"]
    for command in (["plan", recipe], ["gc"], ["takedown", "list"]):
        done = main(*command, "--workspace", workspace)
        assert done.code == 1, command
        assert "put back a copy of the file" in done.err
