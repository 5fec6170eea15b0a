"""From a server to the build: a page that its site opts out is in no later corpus, and comes back with its end."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.demo.server import serve_folder
from flows.recipe import parse_recipe
from pipelines.corpus import corpus_nodes, read_aligned, run_node
from pipelines.crawl import CrawlConfig, crawl
from pipelines.digest import digest_file
from pipelines.executor import open_executor
from pipelines.sources.warc import WarcOptions
from pipelines.store import Store
from pipelines.work import SourceFile

RECIPE = """
name: small
sources: [{kind: warc, paths: [unused]}]
quality: off
language: off
dedup: off
tokenizer: {vocab_size: 300}
"""
HOST = "docs.test"


@pytest.fixture
def pass_hours(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock on by so many hours in all."""
    real = time.time
    return lambda hours: monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)


def kept(folder: Path, warc_paths: tuple[Path, ...]) -> tuple[set[str], dict[str, set[str]]]:
    """Paths of pages that are kept in a build of WARC files, and of those that are dropped, by reason."""
    store = Store(folder)
    config = parse_recipe(RECIPE, folder).corpus_config(store)
    sources = [
        SourceFile(digest=digest_file(path), path=str(path), kind="warc", options=WarcOptions()) for path in warc_paths
    ]
    done = {}
    with open_executor(0) as executor:
        for node in corpus_nodes(config):
            done[node.name] = run_node(node, config, sources, done, store, executor, lambda _: None).manifest
    keep: set[str] = set()
    drop: dict[str, set[str]] = {}
    outcomes = (done["dedup"], ("doc_id", "decision", "reason"))
    for _, batch in read_aligned(store, (done["signals"], ("doc_id", "url")), outcomes):
        for row in batch.to_pylist():
            path = row["url"].partition(HOST)[2]
            (keep if row["decision"] == "keep" else drop.setdefault(row["reason"], set())).add(path)
    return keep, drop


def test_an_opt_out_reaches_the_next_build_and_its_end_the_one_after(tmp_path: Path, pass_hours) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for name in "abc":
        (site / f"{name}.html").write_text(
            f"<title>{name}</title><p>{f'The page {name} has a few words to keep. ' * 9}"
        )
    (site / "index.html").write_text("".join(f"<a href='{name}.html'>{name}</a>" for name in "abc"))
    config = CrawlConfig(seeds=(f"http://{HOST}/index.html",), delay_seconds=0, delay_factor=0)
    pages = {"/index.html", "/a.html", "/b.html", "/c.html"}

    def crawled_and_built(name: str) -> tuple[set[str], dict[str, set[str]]]:
        with serve_folder(site) as server:
            result = crawl(config, tmp_path / "crawl", connect_to={HOST: (server.address, server.port)})
        incremental = kept(tmp_path / "store", result.warc_paths)
        assert incremental == kept(tmp_path / f"fresh-{name}", result.warc_paths)
        return incremental

    assert crawled_and_built("first") == (pages, {})
    (site / "robots.txt").write_text("User-agent: *\nContent-Usage: /b.html train-ai=n\nDisallow: /c.html\n")
    pass_hours(25)
    keep, drop = crawled_and_built("opted-out")
    assert keep == pages - {"/b.html", "/c.html"}
    assert drop == {
        "withdrawn": {"/b.html", "/c.html"},
        "reserved": {"/b.html"},
        "robots_disallowed": {"/c.html"},
    }
    (site / "robots.txt").write_text("User-agent: *\nAllow: /\n")
    pass_hours(50)
    assert crawled_and_built("back")[0] == pages
