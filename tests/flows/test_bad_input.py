"""What is wrong with the world, through whole recipes: each fault is a clear error or a recorded outcome, and loses nothing."""

import gzip
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, environment
from flow_inputs import OFF, CountedSite, article_records, article_site, record, serve, write_recipe, write_warc

from pipelines.crawl import lookup, status
from pipelines.errors import EmptyCorpusError, InputError, StageError
from pipelines.export import export_documents
from pipelines.store import Store

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

ARTICLES = article_records()


def outcomes(workspace: Path, out: Path, recipe: str = "small") -> list[dict[str, Any]]:
    """Every document of the newest build, dropped ones too."""
    store = Store(workspace / "store")
    names = ("extract", "signals", "toxicity", "dedup")
    done = {name: manifest for name in names if (manifest := store.ref(recipe, name)) is not None}
    path, _ = export_documents(store, done, out, file_format="jsonl", with_dropped=True, redact=None)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def computed(summary: Mapping[str, Any]) -> dict[str, int]:
    return {stage["name"]: stage["computed"] for stage in summary["stages"]}


# Files


def test_damaged_warc_files_lose_what_is_damaged_and_nothing_else(pipeline: Any, tmp_path: Path) -> None:
    def members(idx: int) -> list[bytes]:
        return [gzip.compress(each, mtime=0) for each in ARTICLES[6 * idx : 6 * idx + 6]]

    whole, cut, flipped = members(0), members(1), members(2)
    broken = bytearray(flipped[3])
    broken[len(broken) // 2] ^= 0xFF
    files = {
        "whole.warc.gz": b"".join(whole),
        "cut.warc.gz": b"".join(cut)[: -len(cut[-1]) // 2],
        "flipped.warc.gz": b"".join([*flipped[:3], bytes(broken), *flipped[4:]]),
        "plain.warc.gz": ARTICLES[20],  # a .gz that is not gzip, and a WARC file all the same
        "empty.warc.gz": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["*.warc.gz"]}, **OFF)
    summary = pipeline(recipe, tmp_path / "w", "build")
    assert summary["documents"] == {
        "in": 6 + 6 + 6 + 1 + 1,
        "kept": 6 + 5 + 5 + 1,
        "dropped": {"warc_corrupt": 1, "warc_truncated": 2},
    }
    assert set(computed(pipeline(recipe, tmp_path / "w", "build")).values()) == {0}


def test_a_file_that_is_no_warc_is_named_and_the_others_are_done(pipeline: Any, tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", ARTICLES[:6])
    (tmp_path / "b.warc.gz").write_bytes(b"neither gzip nor WARC\n" * 99)
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["*.warc.gz"]})
    with pytest.raises(StageError, match=r"1 of 2 shards .*b\.warc\.gz, in which no WARC record begins.*leave it out"):
        pipeline(recipe, tmp_path / "w", "build")
    (tmp_path / "b.warc.gz").unlink()
    assert computed(pipeline(recipe, tmp_path / "w", "build"))["extract"] == 0, "the good file was not read again"


LINE = b"word after word in one line without an end and without a stop, " * (50 * 2**20 // 63 + 1)
PAGES = {
    # url: (content type, body, reason it is dropped for or None, what must be in its text)
    "declared-wrong": ("text/html; charset=utf-8", "<p>山里的竹林，风一过就响。</p>".encode("gb18030") * 9, None, "竹林"),
    "undeclared": ("text/html", "<p>山里的竹林，风一过就响。</p>".encode("gb18030") * 9, None, "竹林"),
    "no-type": (None, "<html><p>Ein Häuschen über dem Fluß</p></html>".encode("latin-1") * 9, None, "Häuschen"),
    "unknown-charset": ("text/html; charset=klingon", "<p>Ein Häuschen</p>".encode() * 9, None, "Häuschen"),
    "one-line": ("text/html; charset=utf-8", b"<p>" + LINE, "too_large", ""),
    "deep": ("text/html; charset=utf-8", b"<div>" * 100_000 + b"bottom" + b"</div>" * 100_000, "too_deep", ""),
    "unclosed": ("text/html; charset=utf-8", b"<div>" * 100_000 + b"bottom", "too_deep", ""),
    "nulls": ("text/html; charset=utf-8", b"<p>a\x00 word\x00s with nul\x00ls between</p>" * 9, None, "words with nulls"),
    "only-nulls": ("text/html; charset=utf-8", b"\x00" * 5000, None, None),
    "binary": ("text/html; charset=utf-8", bytes(range(256)) * 40, None, None),
    "picture": ("text/html; charset=utf-8", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "not_text", ""),
    "nothing": ("text/html; charset=utf-8", b"", "empty", ""),
}  # fmt: skip


def test_strange_pages_have_an_outcome_each(pipeline: Any, tmp_path: Path) -> None:
    records = [
        record(body, f"http://s.example/{name}", content_type=kind) for name, (kind, body, _, _) in PAGES.items()
    ]
    write_warc(tmp_path / "a.warc.gz", records)
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, **OFF, dedup="off")
    pipeline(recipe, tmp_path / "w", "build")
    rows = {row["url"].rpartition("/")[2]: row for row in outcomes(tmp_path / "w", tmp_path / "out")}
    assert rows.keys() == PAGES.keys()
    for name, (_, _, reason, text) in PAGES.items():
        row = rows[name]
        if text is None:  # either is right, garbage as text is not
            assert row["decision"] == "drop", name
        else:
            assert (row["reason"], row["decision"]) == (reason, "drop" if reason else "keep"), name
            assert text in row["text"], name
        assert "\x00" not in row["text"]


def test_rows_of_text_that_are_none_are_counted(pipeline: Any, tmp_path: Path) -> None:
    good = json.dumps({"url": "http://a/", "text": "One sentence after another. " * 9})
    (tmp_path / "a.jsonl").write_text(f'{{"text": 3}}\nnot json\n{{"url": "b"}}\n{good}')
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "text", "paths": ["a.jsonl"]}, **OFF)
    assert pipeline(recipe, tmp_path / "w", "build")["documents"] == {"in": 4, "kept": 1, "dropped": {"bad_row": 3}}


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.jsonl", b'{"body": "x"}\n', StageError, "with the fields body; wanted the text field 'text'"),
        ("a.parquet", b"PAR1 and then nothing", EmptyCorpusError, "text_corrupt 1"),
        ("a.jsonl.gz", b"not gzip at all\n", Exception, "a.jsonl.gz|text_corrupt 1|bad_row 1"),
        ("a.csv", b"a,b\n", Exception, "a.csv"),
        ("b.jsonl", b"", InputError, "'a.*', which matches no file"),
    ],
)
def test_text_files_that_cannot_be_read_are_named(
    pipeline: Any, tmp_path: Path, name: str, content: bytes, error: type[Exception], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "text", "paths": ["a.*"]}, **OFF)
    with pytest.raises(error, match=message) as caught:
        pipeline(recipe, tmp_path / "w", "build")
    assert "\n" not in str(caught.value)


def test_a_corpus_in_which_nothing_survives_says_which_rules_took_it(pipeline: Any, tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", ARTICLES[:6])
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, quality={"min_words": 90_000})
    with pytest.raises(EmptyCorpusError, match=r"got 6 documents and kept none \(gopher_short_doc 6\)"):
        pipeline(recipe, tmp_path / "w")
    write_recipe(recipe, {"kind": "warc", "paths": ["a.warc.gz"]})
    assert computed(pipeline(recipe, tmp_path / "w", "build"))["signals"] == 0, "what was measured is not lost"


def test_a_shard_that_was_edited_is_made_again_and_nothing_else(pipeline: Any, tmp_path: Path) -> None:
    for idx in range(3):
        write_warc(tmp_path / f"{idx}.warc.gz", ARTICLES[6 * idx : 6 * idx + 6])
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["*.warc.gz"]})
    first = pipeline(recipe, tmp_path / "w", "build")
    manifest = Store(tmp_path / "w" / "store").ref("small", "extract")
    assert manifest is not None
    digest = manifest.entries[1].shard.digest
    shard = tmp_path / "w" / "store" / "objects" / digest[:2] / digest
    shard.chmod(0o644)
    with shard.open("ab") as file:
        file.write(b"an edit")
    again = pipeline(recipe, tmp_path / "w", "build")
    assert {name: count for name, count in computed(again).items() if count} == {"extract": 1}
    assert again["dataset_digest"] == first["dataset_digest"]
    assert b"an edit" not in shard.read_bytes()


# Crawls


@pytest.fixture
def no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name server has `.invalid` (RFC 6761); it is not asked, since that may take long."""
    ask = socket.getaddrinfo

    def answer(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.mark.usefixtures("no_name_server")
def test_a_seed_that_does_not_resolve_is_an_outcome_and_then_an_error(pipeline: Any, tmp_path: Path) -> None:
    source = {"kind": "crawl", "name": "c", "seeds": ["http://corpusmill.invalid/"], "max_attempts": 1}
    recipe = write_recipe(tmp_path / "r.yaml", source)
    with pytest.raises(EmptyCorpusError, match="got no page from any source"):
        pipeline(recipe, tmp_path / "w")
    assert status(tmp_path / "w" / "crawl" / "small-c")["outcomes"] == {"dns_error": 1}


@pytest.mark.usefixtures("no_name_server")
def test_a_seed_that_does_not_resolve_takes_nothing_from_one_that_does(pipeline: Any, tmp_path: Path) -> None:
    with serve(article_site(8)) as site:
        source = site.source(name="c", max_attempts=1)
        source["seeds"] = [site.url(), "http://corpusmill.invalid/"]
        summary = pipeline(write_recipe(tmp_path / "r.yaml", source), tmp_path / "w", "build")
    assert summary["crawl"]["c"] == {"dns_error": 1, "fetched": 8}
    assert summary["documents"]["in"] == 8


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({"/robots.txt": ("text/plain", b"User-agent: *\nDisallow: /\n")}, "robots_disallowed"),
        ({}, "http_error"),
        ({"/": ("application/pdf", b"%PDF-1.4")}, "not_text"),
    ],
)
def test_an_empty_crawl_is_an_outcome_and_then_an_error(
    pipeline: Any, tmp_path: Path, answers: dict[str, tuple[str, bytes]], outcome: str
) -> None:
    with serve(answers) as site:
        recipe = write_recipe(tmp_path / "r.yaml", site.source(name="c"))
        with pytest.raises(EmptyCorpusError, match=r"got no page from any source|kept none \(http_404 1\)"):
            pipeline(recipe, tmp_path / "w")
        row = lookup(tmp_path / "w" / "crawl" / "small-c", site.url())
    assert row is not None
    assert row.outcome == outcome
    assert ("/" in site.requests) == (outcome != "robots_disallowed")


def test_an_address_that_is_not_public_is_refused(pipeline: Any, tmp_path: Path) -> None:
    with serve(article_site(2)) as site:
        recipe = write_recipe(tmp_path / "r.yaml", site.source(name="c", allow_addresses=[]))
        with pytest.raises(EmptyCorpusError):
            pipeline(recipe, tmp_path / "w")
        assert site.requests == []
    assert status(tmp_path / "w" / "crawl" / "small-c")["outcomes"] == {"address_refused": 1}


# kill -9


DYING = """
import importlib, os, signal, sys
module, owner, name, left, sent = sys.argv[1:6]
place = importlib.import_module(module)
place = getattr(place, owner) if owner else place
original, left = getattr(place, name), int(left)
def dying(*args, **kwargs):
    global left
    value = original(*args, **kwargs)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), int(sent))
    return value
setattr(place, name, dying)
sys.argv = ["corpusmill", *sys.argv[6:]]
from flows.cli import main
main()
"""
CRAWLING = ("pipelines.crawl.frontier", "Frontier", "commit")
BUILDING = ("pipelines.store", "Store", "publish")
TRAINING = ("llm.checkpoint", "", "write")


@pytest.fixture
def stop(prefect_url: str) -> Callable[..., Outcome]:
    """The command, which a signal reaches after so many calls of a function in it."""

    def call(where: tuple[str, str, str], count: int, *arguments: object, sent: int = signal.SIGKILL) -> Outcome:
        command = [sys.executable, "-c", DYING, *where, str(count), str(int(sent)), *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=200,
            env=environment(PREFECT_API_URL=prefect_url),
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


def mlflow_client(workspace: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")


def mlflow_runs(workspace: Path, kind: str) -> list[Any]:
    client = mlflow_client(workspace)
    ids = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(ids, filter_string=f"tags.`corpusmill.kind` = '{kind}'"))


def crawl_recipe(folder: Path, site: CountedSite) -> Path:
    return write_recipe(folder / "r.yaml", site.source(name="c", warc_max_records=5))


def assert_killed(done: Outcome) -> None:
    assert (done.code, done.out) == (-signal.SIGKILL, ""), done.err


def test_a_run_killed_in_every_part_ends_as_one_that_was_not(
    stop: Any, corpusmill: Any, pipeline: Any, tmp_path: Path
) -> None:
    with serve(article_site(24)) as site:
        recipe = crawl_recipe(tmp_path, site)
        workspace = tmp_path / "w"
        run = ("run", recipe, "--workspace", workspace, "--workers", 0, "--json")

        assert_killed(stop(CRAWLING, 3, *run))
        num_archived = status(workspace / "crawl" / "small-c")["num_pages"]
        assert 0 < num_archived < 24
        site.requests.clear()

        assert_killed(stop(BUILDING, 8, *run))
        assert status(workspace / "crawl" / "small-c")["outcomes"] == {"fetched": 24}
        assert len([path for path in site.requests if path != "/robots.txt"]) == 24 - num_archived
        num_requests = len(site.requests)
        records = {path: path.stat().st_mtime_ns for path in (workspace / "store" / "records").glob("*/*/*")}
        extracted = [
            path for path in records if path.parts[-3] == "extract"
        ]  # in a process beside, where nothing counts
        assert len(extracted) >= 5
        assert len(records) == len(extracted) + 8

        assert_killed(stop(TRAINING, 2, *run))
        assert records == {path: path.stat().st_mtime_ns for path in records}, "finished shards are reused"
        killed = [run.info.run_id for run in mlflow_runs(workspace, "training")]  # none, where the kill was quicker

        done = corpusmill(*run).summary
        assert len(site.requests) == num_requests
        assert {name: count for name, count in computed(done).items() if count} == {"train": 1, "evaluate": 1}
        assert done["training"]["resumed_from_step"] == 4
        (finished,) = mlflow_runs(workspace, "training")
        assert killed in ([], [finished.info.run_id])
        history = mlflow_client(workspace).get_metric_history(finished.info.run_id, "train/loss")
        shipped = [metric.step for metric in history]
        assert sorted(shipped) == [1, 2, 3, 4, 5, 6]
        assert finished.info.status == "FINISHED"

        fresh = tmp_path / "fresh"
        shutil.copytree(workspace / "crawl", fresh / "crawl")
        wanted = pipeline(recipe, fresh)
    assert done["dataset_digest"] == wanted["dataset_digest"]
    assert done["training"]["parameters_digest"] == wanted["training"]["parameters_digest"]
    assert done["evaluation"]["loss"] == wanted["evaluation"]["loss"]
    assert wanted["training"]["resumed_from_step"] is None


def test_a_request_to_stop_is_not_an_error_and_the_next_run_goes_on(stop: Any, pipeline: Any, tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", ARTICLES[:20])
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]})
    stopped = stop(
        TRAINING, 1, "train", recipe, "--workspace", tmp_path / "w", "--workers", 0, "--json", sent=signal.SIGTERM
    )
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err.splitlines()[-1].startswith("corpusmill: got a request to stop")
    assert "Traceback" not in stopped.err
    assert [run.info.status for run in mlflow_runs(tmp_path / "w", "training")] == ["KILLED"]
    again = pipeline(recipe, tmp_path / "w", "train")
    assert again["training"]["resumed_from_step"] in range(2, 6), "the step that the request met, of six"
    assert [run.info.status for run in mlflow_runs(tmp_path / "w", "training")] == ["FINISHED"]


def test_a_killed_run_leaves_no_prefect_server_behind(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from flows.control_plane import prefect_server\n"
        "from flows.settings import read_settings\n"
        "from flows.workspace import Workspace\n"
        "place = Path(sys.argv[1])\n"
        "with prefect_server(read_settings(place), Workspace(place)):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], env=environment(), check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    import psutil

    def servers() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PREFECT_HOME") == str(tmp_path / "prefect"):
                    found.append(process)
            except psutil.Error:  # another user's, or gone meanwhile
                continue
        return found

    _gone, alive = psutil.wait_procs(servers(), timeout=60)
    assert alive == []
    assert servers() == []
    assert (tmp_path / "prefect" / "server.log").exists()
