"""`corpusmill crawl`, `report --eu-summary`, commands that only look, and the lock over a whole pipeline."""

import contextvars
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import OFF, article_records, article_site, serve, write_recipe, write_warc

from flows.watching import console
from flows.workspace import Workspace, writing
from pipelines.crawl import CrawlConfig, CrawlProgress
from pipelines.crawl.frontier import Frontier
from pipelines.crawl.ledger import FILE_NAME
from pipelines.crawl.screen import Screen
from pipelines.errors import StorageError

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

SEED = "https://a.example/"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "r.yaml", {"kind": "crawl", "name": "web", "seeds": [SEED]})


def begun(tmp_path: Path) -> Path:
    """The crawl folder of a workspace in which something ran."""
    (tmp_path / "w" / "store").mkdir(parents=True)
    folder = tmp_path / "w" / "crawl" / "small-web"
    folder.mkdir(parents=True)
    return folder


# crawl status


def test_crawl_explains_itself(main: Any) -> None:
    for name in ("run", "status"):
        done = main("crawl", name, "--help")
        assert done.code == 0
        assert "--workspace" in done.out
    assert {"run", "status"} <= set(main("crawl", "--help").out.split())


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_recipe_without_a_crawl_is_told(main: Any, tmp_path: Path, command: str) -> None:
    other = write_recipe(tmp_path / "other.yaml", {"kind": "warc", "paths": ["a.warc.gz"]})
    done = main("crawl", command, other, "--workspace", tmp_path / "w")
    assert (done.code, done.out) == (2, "")
    assert "got no crawl in recipe 'small'" in done.err
    assert not (tmp_path / "w").exists()


def test_status_before_the_first_crawl(main: Any, recipe: Path, tmp_path: Path) -> None:
    done = main("crawl", "status", recipe, "--workspace", tmp_path / "w")
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert "no workspace" in done.out
    assert not (tmp_path / "w").exists()
    begun(tmp_path)
    assert main("crawl", "status", recipe, "--workspace", tmp_path / "w").out == "source web: not begun\n"


def test_status_beside_a_running_crawl(main: Any, recipe: Path, tmp_path: Path) -> None:
    with Frontier(begun(tmp_path)) as frontier:
        frontier.configure("c", "corpusmill", [(SEED, SEED[:-1])], Screen(CrawlConfig(seeds=(SEED,))))
        frontier.lease(frontier.waiting_origins(0, 1)[0], 1, 0.0, 9e9)
        found = main("crawl", "status", recipe, "--workspace", tmp_path / "w", "--json").summary["crawls"][0]
        assert (found["totals"]["urls"], found["totals"]["queued"], found["now"]["leased"]) == (1, 1, 1)
        lines = main("crawl", "status", recipe, "--workspace", tmp_path / "w").out
    assert "1 URLs wait, 1 are being fetched" in lines


def test_status_of_an_older_ledger_is_its_sentence(main: Any, recipe: Path, tmp_path: Path) -> None:
    db = sqlite3.connect(begun(tmp_path) / FILE_NAME)
    db.executescript("CREATE TABLE urls (id); PRAGMA user_version = 1;")
    db.close()
    done = main("crawl", "status", recipe, "--workspace", tmp_path / "w")
    assert done.code == 1
    assert "ledger of version 1" in done.out
    found = main("crawl", "status", recipe, "--workspace", tmp_path / "w", "--json")
    assert "run the crawl once" in found.json["crawls"][0]["problem"]


def test_the_line_of_progress_names_the_three_commonest_errors() -> None:
    seen = CrawlProgress(
        num_fetched=20,
        num_pages=1234,
        num_queued=890,
        num_bytes=5,
        num_hosts=7,
        pages_per_second=5.61,
        errors={"dns_error": 3, "timeout": 9, "tls_error": 1, "disconnected": 2},
    )
    assert console.crawl_note(seen) == (
        "1,234 pages, 5.6/s, 7 hosts, 890 waiting, 15 errors: timeout 9, dns_error 3, disconnected 2"
    )


# Who looks makes nothing


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("plan r.yaml", 0, "there is no workspace"),
        ("crawl status r.yaml", 0, "there is no workspace"),
        ("explain x --recipe r.yaml", 2, "got no workspace"),
        ("export r.yaml", 2, "got no workspace"),
        ("report r.yaml", 2, "got no data card"),
        ("report r.yaml --eu-summary", 2, "got no workspace"),
        ("generate x", 2, "got no trained model"),
        ("verify", 2, "wanted a workspace"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_who_looks_makes_nothing(
    main: Any, recipe: Path, tmp_path: Path, command: str, code: int, words: str, exists: bool
) -> None:
    place = tmp_path / "w"
    if exists:
        place.mkdir()  # a folder, but no workspace
    done = main(*command.split(), "--workspace", place)
    assert done.code == code
    assert words in done.out + done.err
    assert place.exists() == exists
    assert not exists or not list(place.iterdir())


def test_sme_alone_is_bad_usage(main: Any) -> None:
    done = main("report", "--sme")
    assert done.code == 2
    assert "--eu-summary" in done.err


# One run at a time


def refused(place: Workspace) -> bool:
    """Whether another run would be refused now: one that does not know of ours."""

    def attempt() -> bool:
        try:
            with writing(place):
                return False
        except StorageError:
            return True

    return contextvars.Context().run(attempt)


def test_a_run_holds_its_workspace_until_its_outermost_block_ends(tmp_path: Path) -> None:
    place, other = Workspace(tmp_path / "w"), Workspace(tmp_path / "other")
    with writing(place) as store:
        with writing(Workspace(tmp_path / "w")) as again, writing(other):
            assert again is store
            assert refused(other)
        assert refused(place)
        assert not refused(other)
    assert not refused(place)


def test_a_pipeline_holds_its_workspace_between_its_flows(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_warc(tmp_path / "a.warc.gz", article_records()[:1])
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]})
    seen: list[bool] = []

    def build_corpus(*_: object) -> dict[str, Any]:
        seen.append(refused(Workspace(tmp_path / "w")))
        return {}

    monkeypatch.setattr("flows.pipeline.build_corpus", build_corpus)
    pipeline(recipe, tmp_path / "w", "build")
    assert seen == [True]
    assert not refused(Workspace(tmp_path / "w"))


# A whole crawl


def test_a_crawl_leaves_its_report_in_every_place(
    pipeline: Any, prefect_url: str, main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = article_site(5) | {"/robots.txt": ("text/plain", b"User-agent: *\nDisallow: /4\n")}
    with serve(answers) as site:
        recipe = write_recipe(
            tmp_path / "r.yaml", site.source(name="web", contact="bots@example.com"), **{**OFF, "compliance": {}}
        )
        monkeypatch.setenv("PREFECT_API_URL", prefect_url)
        crawled = main("crawl", "run", recipe, "--workspace", tmp_path / "w", "--json").summary
        assert [stage["name"] for stage in crawled["stages"]] == ["crawl"]
        assert crawled["crawl"]["web"]["fetched"] == 4
        folder = tmp_path / "w" / "reports" / "small"
        assert crawled["stages"][0]["report"] == str(folder / "crawl-web.md")
        facts = json.loads((folder / "crawl-web.json").read_text())
        assert facts["robots"]["rules"] == [{"rule": "Disallow: /4", "urls": 1, "hosts": 1}]
        assert site.url()[:-1] in (folder / "crawl-web.md").read_text()
        pipeline(recipe, tmp_path / "w", "build")
        again = pipeline(recipe, tmp_path / "w", "build")
    assert {stage["name"]: stage["computed"] for stage in again["stages"]}["report"] == 0
    status = main("crawl", "status", recipe, "--workspace", tmp_path / "w")
    assert "fetched 4, robots_disallowed 1" in status.out
    card = main("report", recipe, "--workspace", tmp_path / "w").out
    assert "## Crawl of source web" in card
    assert "Disallow: /4" in card
    found = main("report", recipe, "--workspace", tmp_path / "w", "--eu-summary", "--json").summary
    (crawler,) = found["data_sources"]["crawled"]["crawlers"]
    assert (crawler["contact"], crawler["documents_kept"]) == ("bots@example.com", 4)
    assert [each["domain"] for each in found["data_sources"]["crawled"]["domains"]["listed"]] == ["127.0.0.1"]
    assert found["data_processing"]["rights_reservations"]["urls_taken_out"]["robots_disallowed"] == 1
    markdown = main("report", recipe, "--workspace", tmp_path / "w", "--eu-summary", "--sme").out
    assert "corpusmill (+bots@example.com)" in markdown
    assert "top 5%" in markdown
    import httpx

    artifacts = httpx.post(f"{prefect_url}/artifacts/filter", json={}).raise_for_status().json()
    assert {"small-crawl-report-web", "small-data-card"} <= {each["key"] for each in artifacts}
