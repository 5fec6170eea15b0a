"""From a recipe's sources to source files."""

import gzip
import json
from pathlib import Path

import pytest
from flow_inputs import record, serve

from flows.recipe import parse_recipe
from flows.sources import collect, known_crawls
from flows.workspace import Workspace
from pipelines.errors import ConfigError, InputError, IntegrityError


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


RECORDS = [record(f"<p>Page {number}.</p>".encode(), f"http://a.example/{number}") for number in range(5)]
WARC = b"".join(gzip.compress(each, mtime=0) for each in RECORDS)
LISTING = gzip.compress(b"crawl/0.warc.gz\ncrawl/1.warc.gz\ncrawl/2.warc.gz\n")
REMOTE = {f"/crawl/{number}.warc.gz": ("application/gzip", WARC) for number in range(3)} | {
    "/warc.paths.gz": ("application/gzip", LISTING)
}


def remote_source(site, **options):
    return {
        "kind": "warc",
        "name": "cc",
        "paths": [site.url("/warc.paths.gz")],
        "base_url": site.url("/"),
        "allow_addresses": [f"127.0.0.1:{site.port}"],
        **options,
    }


def test_a_listing_is_read_to_its_first_files_and_their_first_records(tmp_path, place):
    seen = []
    with serve(REMOTE) as site:
        recipe = recipe_of(tmp_path, [remote_source(site, max_files=2, max_records=3)])
        assert known_crawls(recipe, place) == ({}, ["cc"])
        assert collect(recipe, place, {}, may_fetch=False).files == ()
        assert not site.requests
        collected = collect(recipe, place, {}, report=lambda *words: seen.append(words))
        assert site.requests == ["/warc.paths.gz", "/crawl/0.warc.gz", "/crawl/1.warc.gz"]
    assert {item.kind for item in collected.files} == {"warc"}
    assert [Path(item.path).name.rpartition("-")[2] for item in collected.files] == ["0.warc.gz", "1.warc.gz"]
    assert all(gzip.decompress(Path(item.path).read_bytes()) == b"".join(RECORDS[:3]) for item in collected.files)
    assert collected.facts(recipe)["remote cc"] == f"2 files, 6 records, of 127.0.0.1:{site.port}"
    assert [words[:3] for words in seen][-1] == ("fetch cc", 2, 2)
    # The server is gone: nothing is asked of it again.
    assert known_crawls(recipe, place) == ({}, [])
    assert collect(recipe, place, {}) == collected
    assert collect(recipe, place, {}, may_fetch=False) == collected


def test_local_files_local_listings_and_remote_files_go_together(tmp_path, place):
    (tmp_path / "a.warc.gz").write_bytes(WARC)
    (tmp_path / "my.paths").write_bytes(b"crawl/1.warc.gz\n")
    with serve(REMOTE) as site:
        paths = [site.url("/crawl/0.warc.gz"), "my.paths", "*.warc.gz", site.url("/crawl/1.warc.gz")]
        recipe = recipe_of(tmp_path, [remote_source(site, paths=paths)])
        assert known_crawls(recipe, place)[1] == ["cc"]
        assert [Path(item.path).name for item in collect(recipe, place, {}, may_fetch=False).files] == ["a.warc.gz"]
        names = [Path(item.path).name.rpartition("-")[2] for item in collect(recipe, place, {}).files]
    assert names == ["a.warc.gz", "0.warc.gz", "1.warc.gz"]
    assert known_crawls(recipe, place)[1] == []


def test_what_is_not_there_is_named(tmp_path, place):
    with serve(REMOTE | {"/empty.paths": ("text/plain", b"\n")}) as site:
        for path, sentence in (("/none.warc.gz", r"none\.warc\.gz"), ("/empty.paths", "without a line")):
            recipe = recipe_of(tmp_path, [remote_source(site, paths=[site.url(path)])])
            with pytest.raises(InputError, match=sentence):
                collect(recipe, place, {})


def test_a_fetched_file_that_was_changed_is_not_taken(tmp_path, place):
    with serve(REMOTE) as site:
        recipe = recipe_of(tmp_path, [remote_source(site, paths=[site.url("/crawl/0.warc.gz")])])
        path = Path(collect(recipe, place, {}).files[0].path)
    path.write_bytes(WARC[:-1] + b"\1")
    with pytest.raises(IntegrityError, match="remove it"):
        collect(recipe, place, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": ["ftp://a/b.warc.gz"]}, "paths: got 'ftp://"),
        ({"paths": ["https:///b"]}, "paths: got"),
        ({"paths": ["https://a:x/b"]}, "paths: got"),
        ({"paths": ["https://me:word@a/b"]}, "user name"),
        ({"base_url": "data"}, "base_url: got 'data'"),
        ({"endpoint_url": "s3://a"}, "endpoint_url: got"),
        ({"max_files": 0}, "max_files: got 0"),
        ({"max_records": 0}, "max_records: got 0"),
        ({"max_records": 5}, "max_records: got a limit"),
        ({"allow_addresses": ["loopback"]}, "allow_addresses: got 'loopback'"),
        ({"max_record": 5}, "did you mean 'max_records'"),
    ],
)
def test_what_is_wrong_with_a_remote_source_is_named(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        recipe_of(tmp_path, [{"kind": "warc", "paths": ["a.warc.gz"], **options}])
    assert "word" not in str(caught.value)
