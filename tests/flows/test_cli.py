"""The command: exit codes, what goes to which stream, and each command's result on a finished run of the demo."""

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import COMMAND, Outcome, environment, run_command
from flow_inputs import article_records, write_recipe, write_warc

from flows import cli
from flows.workspace import Workspace, writing

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

COMMANDS = sorted(
    command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback
)
ARTICLE = "http://harbour.test/articles/tides.html"


def assert_one_sentence(done: Outcome, code: int) -> str:
    """The command failed as it should: no result, no traceback, one line that says why. Returns the line."""
    assert (done.code, done.out) == (code, ""), done.err
    assert "Traceback" not in done.err
    *_before, last = done.err.splitlines()
    assert last.startswith("corpusmill: ")
    assert "got " in last
    assert "wanted " in last
    return last


# Usage


def test_every_command_of_the_contract_is_there() -> None:
    assert {
        "run", "build", "train", "evaluate", "plan", "explain", "trace", "lineage", "export", "export-model", "generate", "report",
        "verify", "doctor",
    } <= set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(main: Any, name: str) -> None:
    done = main(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"corpusmill {name} [OPTIONS]" in done.out.splitlines()[0]
    assert ("--workspace" in done.out) == (name != "review-score"), "that one reads two files alone"


def test_without_a_command_it_says_what_there_is(main: Any) -> None:
    done = main()
    assert all(name in done.out + done.err for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("bake", "No such command 'bake'"),
        ("run --fast", "No such option: --fast"),
        ("run one two", "unexpected extra argument"),
        ("build --workers -1", "'--workers'"),
        ("build --workers many", "'--workers'"),
        ("export --format xml", "'--format'"),
        ("generate", "PROMPT"),
        ("explain", "URL_OR_DOC_ID"),
        ("generate x --max-tokens -1", "'--max-tokens'"),
        ("generate x --temperature -0.1", "'--temperature'"),
        ("generate x --top-k 0", "'--top-k'"),
    ],
)
def test_bad_usage_exits_with_2(main: Any, arguments: str, reason: str) -> None:
    done = main(*arguments.split())
    assert (done.code, done.out) == (2, "")
    assert reason in done.err.splitlines()[-1]


# Bad recipes


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("recipe", "field", "reason"),
    [
        ("name: [", "bad.yaml", "not YAML"),
        ("- a list", "bad.yaml", "wanted a mapping"),
        ("name: a\nsources: []", "sources", "at least one source"),
        ("name: a/b\nsources: [{kind: warc, paths: [x]}]", "name", "'a/b'"),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\nqualty: off", "qualty", "did you mean 'quality'"),
        ("name: a\nsources: [{kind: warc, pathz: [x]}]", "sources.0.pathz", "did you mean 'paths'"),
        ("name: a\nsources: [{kind: zip, paths: [x]}]", "sources.0.kind", "'zip'"),
        ("name: a\nsources: [{kind: crawl, seeds: ['gopher://x/']}]", "seeds", "http or https"),
        ("name: a\nsources: [{kind: crawl, seeds: ['http://x/'], max_pages: 0}]", "max_pages", "at least 1"),
        (
            "name: a\nsources: [{kind: warc, paths: [x]}]\nquality: {min_words: some}",
            "quality.min_words",
            "'some'",
        ),
        (
            "name: a\nsources: [{kind: warc, paths: [x]}]\nquality: {max_dup_line_ratio: -1}",
            "quality.max_dup_line_ratio",
            "0 or more",
        ),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\ndedup: {min_similarity: 2}", "min_similarity", "2"),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\ntraining: {max_steps: -5}", "max_steps", "-5"),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\nmodel: {preset: gpt9}", "preset", "gpt9"),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\nmodel: {n_head: 3}", "n_head", "divisible"),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\ntokenizer: {vocab_size: 3}", "vocab_size", "3"),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\ntokenizer: {kind: file}", "tokenizer.path", "tokenizer.json"),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\npii: {redact: [names]}", "pii.redact", "'names'"),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\nevaluation: {top_k: 0}", "top_k", "0"),
        ("name: a\nsources: [{kind: warc, paths: [x]}]\nevaluation: {temperature: -1}", "temperature", "-1"),
        (
            "name: a\nsources: [{kind: warc, paths: [x]}]\ntraining: {max_steps: 1, tokens_per_step: 100}",
            "tokens_per_step",
            "multiple",
        ),
    ],
)
def test_a_bad_recipe_is_told_in_one_line_before_anything_runs(
    main: Any, tmp_path: Path, command: str, recipe: str, field: str, reason: str
) -> None:
    (tmp_path / "bad.yaml").write_text(recipe)
    done = main(command, "bad.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("corpusmill: bad.yaml")
    assert field in done.err
    assert reason in done.err
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("recipe", ["nowhere.yaml", "."])
def test_a_recipe_that_cannot_be_read_is_bad_usage(main: Any, recipe: str) -> None:
    assert "wanted a YAML file" in assert_one_sentence(main("run", recipe), 2)


def test_a_recipe_of_bytes_that_are_no_text_is_bad_usage(main: Any, tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00name")
    assert "bytes.yaml" in assert_one_sentence(main("plan", "bytes.yaml"), 2)


# Failures


@pytest.mark.parametrize("command", ["plan", "build"])
def test_a_path_that_matches_nothing_fails_in_one_sentence(corpusmill: Any, tmp_path: Path, command: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["none/*.warc.gz"]})
    done = corpusmill(command, recipe, "--workspace", tmp_path / "w", "--json")
    assert "'none/*.warc.gz'" in assert_one_sentence(done, 1)
    assert done.err.count("\n") == 1, "Prefect keeps its own words to itself"


def test_a_server_that_does_not_answer_is_named_at_once(tmp_path: Path) -> None:
    """That of Prefect; a tracker that is down fails no run: see test_shipping."""
    done = run_command("build", "--workspace", tmp_path, PREFECT_API_URL="http://127.0.0.1:9/x", timeout=60)
    assert "PREFECT_API_URL: got no answer from http://127.0.0.1:9/x" in assert_one_sentence(done, 1)


def test_workers_that_are_no_number_are_named(tmp_path: Path) -> None:
    done = run_command("build", "--workspace", tmp_path, CORPUSMILL_WORKERS="many")
    assert "CORPUSMILL_WORKERS" in assert_one_sentence(done, 2)


@pytest.mark.parametrize("command", ["run", "plan", "explain x"])
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_workspace_that_cannot_be_is_named(main: Any, tmp_path: Path, command: str, place: str) -> None:
    (tmp_path / "file").write_text("")
    done = main(*command.split(), "--workspace", tmp_path / place)
    assert str(tmp_path / "file") in assert_one_sentence(done, 1)


def test_two_runs_at_once_do_not_share_a_workspace(corpusmill: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]})
    write_warc(tmp_path / "a.warc.gz", article_records()[:3])
    with writing(Workspace(tmp_path / "w")):
        done = corpusmill("run", recipe, "--workspace", tmp_path / "w", "--json")
        assert f"in use by process {os.getpid()}" in assert_one_sentence(done, 1)
        assert corpusmill("plan", recipe, "--workspace", tmp_path / "w", "--json").code == 0, "looking is allowed"


@pytest.mark.parametrize("command", ["explain x", "export", "export-model", "generate x", "report"])
def test_what_needs_a_run_says_so(main: Any, tmp_path: Path, command: str) -> None:
    assert "run `corpusmill" in assert_one_sentence(main(*command.split(), "--workspace", tmp_path / "w"), 2)


# Where


def test_the_workspace_is_the_option_or_the_variable_or_a_folder_here(
    main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def workspace(*arguments: object) -> str:
        return str(main("plan", *arguments, "--json").summary["workspace"])

    assert workspace() == str(tmp_path / "workspace")
    monkeypatch.setenv("CORPUSMILL_WORKSPACE", str(tmp_path / "variable"))
    assert workspace() == str(tmp_path / "variable")
    assert workspace("--workspace", "option") == str(tmp_path / "option")


# A finished run


def test_a_run_prints_one_json_document_and_words_on_stderr_only(demo: Any) -> None:
    for name in (
        "extract",
        "signals",
        "toxicity",
        "policy",
        "sources",
        "dedup",
        "tokenizer",
        "tokenize",
        "train",
        "evaluate",
    ):
        assert any(line.startswith(f"{name}: ") for line in demo.err.splitlines()), name
    assert "Traceback" not in demo.err


def test_the_summary_has_what_scripts_rely_on(demo: Any) -> None:
    found = demo.summary
    assert {"in", "kept", "dropped"} <= found["documents"].keys()
    assert found["documents"]["in"] == found["documents"]["kept"] + sum(found["documents"]["dropped"].values())
    assert found["tokens"] > 40_000
    assert [stage["name"] for stage in found["stages"]] == [
        "crawl", "extract", "signals", "toxicity", "policy", "sources", "bands", "index", "near", "lines", "dedup",
        "sample", "tokenizer", "tokenize", "report", "train", "evaluate",
    ]  # fmt: skip
    for stage in found["stages"]:
        assert {"name", "shards", "computed", "reused", "seconds"} <= stage.keys()
        assert stage["shards"] == stage["computed"] + stage["reused"]
    assert found["training"]["steps"] == 10
    assert found["training"]["final_val_loss"] < found["training"]["first_val_loss"]
    assert {"loss", "unigram_loss", "bits_per_byte", "samples"} <= found["evaluation"].keys()


def test_the_server_that_a_run_starts_ends_with_it_and_keeps_its_history(demo: Any) -> None:
    assert (demo.workspace / "prefect" / "prefect.db").exists()
    homes = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # another user's, or gone meanwhile
            homes.add(process.environ().get("PREFECT_HOME"))
    assert str(demo.workspace / "prefect") not in homes


def test_plan_of_a_finished_run(main: Any, demo: Any) -> None:
    arguments = ("plan", demo.recipe, "--workspace", demo.workspace)
    plan = main(*arguments, "--json").summary
    assert {stage["compute"] for stage in plan["stages"]} == {0}
    lines = main(*arguments).out.splitlines()
    assert lines[0] == "Plan for demo, 3 source files"
    assert len(lines) == 1 + len(plan["stages"])


def test_plan_of_a_recipe_that_never_ran_names_the_crawl(main: Any) -> None:
    plan = main("plan", "--json").summary
    assert plan["sources_to_fetch"] == ["sample"]
    assert {stage["name"]: stage["compute"] for stage in plan["stages"]}["train"] == 1


def test_explain_tells_the_same_story_by_url_and_by_doc_id(main: Any, demo: Any) -> None:
    where = ("--recipe", demo.recipe, "--workspace", demo.workspace)
    by_url = main("explain", ARTICLE, *where, "--json").summary
    (story,) = by_url["documents"]
    assert story["url"] == ARTICLE
    assert by_url["fetches"][0]["outcome"] == "fetched"
    assert Path(story["source_file"]).name == by_url["fetches"][0]["warc_file"]
    assert story["document"]["record_offset"] == by_url["fetches"][0]["warc_offset"]
    assert story["signals"]["language"] == "en"
    assert all({"rule", "value", "threshold", "passed"} <= rule.keys() for rule in story["rules"])
    assert story["outcome"]["decision"] == "keep"
    assert story["tokens"]["num_tokens"] > 100
    trained = demo.summary["training"]["folder"]
    assert [each["model"] for each in story["trainings"]] == ([trained] if story["tokens"]["split"] == "train" else [])
    assert story["models"] == [each["model"] for each in story["trainings"] if each["num_visits"]]
    by_id = main("explain", story["doc_id"], *where, "--json").summary
    assert by_id["documents"] == by_url["documents"]
    text = main("explain", ARTICLE, *where).out
    assert f"document {story['doc_id']}  {ARTICLE}" in text
    assert "outcome: keep" in text


def test_explain_of_a_page_that_was_never_fetched_has_the_ledger_to_tell(main: Any, demo: Any) -> None:
    url = "http://harbour.test/private/rota.html"
    found = main("explain", url, "--recipe", demo.recipe, "--workspace", demo.workspace, "--json").summary
    assert found["documents"] == []
    assert [row["outcome"] for row in found["fetches"]] == ["robots_disallowed"]


def test_explain_of_an_unknown_page_fails(main: Any, demo: Any) -> None:
    done = main("explain", "http://nowhere.test/", "--recipe", demo.recipe, "--workspace", demo.workspace)
    assert "'http://nowhere.test/'" in assert_one_sentence(done, 1)


def test_export_has_one_row_a_document_in_either_format(main: Any, demo: Any, tmp_path: Path) -> None:
    def export(file_format: str, *options: str) -> Path:
        out = tmp_path / f"{file_format}{len(options)}"
        found = main(
            "export", demo.recipe, "--workspace", demo.workspace, "--out", out, "--format", file_format, *options,
            "--json",
        ).summary  # fmt: skip
        assert list(out.iterdir()) == [Path(found["path"])]
        return Path(found["path"])

    lines = [json.loads(line) for line in export("jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == demo.summary["documents"]["kept"]
    assert {line["decision"] for line in lines} == {"keep"}
    everything = pq.read_table(export("parquet", "--dropped")).to_pylist()
    assert len(everything) == demo.summary["documents"]["in"]
    wanted = {"doc_id", "url", "text", "language", "decision", "reason", "num_words", "rights", "pii_counts"}
    assert wanted <= everything[0].keys() == lines[0].keys()
    kept = {row["doc_id"]: row["text"] for row in everything if row["decision"] == "keep"}
    assert kept == {line["doc_id"]: line["text"] for line in lines}
    assert all((row["reason"] is None) == (row["decision"] == "keep") for row in everything)
    texts = {row["url"]: row["text"] for row in everything}
    assert "<EMAIL>" in texts["http://harbour.test/articles/club-bookings.html"]
    assert not any("@gazette-mail.net" in text for text in texts.values())


def test_verify_finds_an_edited_shard_and_the_next_run_mends_it(main: Any, demo_copy: Any, pipeline: Any) -> None:
    assert main("verify", "--workspace", demo_copy.workspace, "--json").summary["damaged"] == []
    largest = max((demo_copy.workspace / "store" / "objects").glob("*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    sealed_at = largest.stat().st_mtime_ns
    content[len(content) // 2] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(content)
    os.utime(largest, ns=(sealed_at, sealed_at))  # as bits rot: neither time nor size tells
    found = main("verify", "--workspace", demo_copy.workspace, "--json")
    assert found.code == 1
    assert [name for name in found.json["damaged"] if largest.name[:16] in name]
    again = pipeline(demo_copy.recipe, demo_copy.workspace)
    assert again["dataset_digest"] == demo_copy.summary["dataset_digest"]
    assert main("verify", "--workspace", demo_copy.workspace, "--json").summary["damaged"] == []
    assert largest.exists()


def test_verify_finds_a_damaged_checkpoint_and_the_next_run_mends_it(main: Any, demo_copy: Any, pipeline: Any) -> None:
    training = demo_copy.summary["training"]
    weights = (
        demo_copy.workspace / "models" / training["folder"] / training["checkpoint"] / "model" / "model.safetensors"
    )
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x00")
    found = main("verify", "--workspace", demo_copy.workspace)
    assert found.code == 1
    assert weights.name in found.out
    again = pipeline(demo_copy.recipe, demo_copy.workspace)["training"]
    assert again["parameters_digest"] == training["parameters_digest"]
    assert again["resumed_from_step"] == 5, "from the checkpoint before"
    assert main("verify", "--workspace", demo_copy.workspace).code == 0


def test_doctor_of_this_machine(main: Any, tmp_path: Path) -> None:
    done = main("doctor", "--json")
    assert done.code == 0, done.out
    assert {"python", "torch", "prefect", "workspace", "disk", "loopback"} <= {
        each["name"] for each in done.json["checks"]
    }
    (tmp_path / "file").write_text("")
    assert main("doctor", "--workspace", "file").code == 1


def test_generate_goes_on_from_the_prompt(main: Any, demo: Any) -> None:
    def generate(prompt: str, *options: object) -> str:
        done = main("generate", prompt, *options, "--workspace", demo.workspace, "--json")
        return str(done.summary["text"])

    texts = [generate("The harbour", "--max-tokens", 12, "--temperature", 0, "--seed", seed) for seed in (1, 2)]
    assert texts[0] == texts[1]
    assert texts[0].startswith("The harbour")
    assert len(texts[0]) > len("The harbour")
    assert generate("山里的", "--max-tokens", 0) == "山里的"


def test_report_is_the_data_card(main: Any, demo: Any) -> None:
    done = main("report", demo.recipe, "--workspace", demo.workspace)
    assert done.code == 0
    card = (demo.workspace / "reports" / "demo" / "data_card.md").read_text(encoding="utf-8")
    assert done.out == card + "\n"
    assert "rights_disallow" in card


def test_an_exported_model_is_one_that_transformers_loads(main: Any, demo: Any, tmp_path: Path) -> None:
    out = tmp_path / "model"
    done = main("export-model", demo.recipe, "--workspace", demo.workspace, "--out", out, "--json")
    assert done.summary["path"] == str(out)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(out))
    model = AutoModelForCausalLM.from_pretrained(str(out))
    ids = tokenizer("The harbour", return_tensors="pt")["input_ids"]
    ours = main(
        "generate", "The harbour", "--max-tokens", 8, "--temperature", 0, "--workspace", demo.workspace, "--json"
    ).summary["text"]
    theirs = tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0])
    assert theirs == ours
    done = main("export-model", demo.recipe, "--workspace", demo.workspace, "--out", out)
    assert str(out) in assert_one_sentence(done, done.code), "it is not written over"


def test_a_reader_that_goes_away_is_no_error(demo: Any) -> None:
    process = subprocess.Popen(
        [COMMAND, "export", demo.recipe, "--workspace", demo.workspace, "--json", "--out", "/dev/null/x", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.wait(60)


def test_the_recipe_of_a_run_may_use_paths_of_its_own_folder(main: Any, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    write_warc(folder / "a.warc.gz", article_records()[:1])
    (folder / "r.yaml").write_text(yaml.safe_dump({"name": "r", "sources": [{"kind": "warc", "paths": ["a.warc.gz"]}]}))
    assert main("plan", "elsewhere/r.yaml", "--json").summary["source_files"] == 1
