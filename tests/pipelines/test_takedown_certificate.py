"""What is written down before a build and certified after it, and what counts as proof."""

import json

import pytest
from corpora import Page, config, content, run, source, text_of, write_file

from pipelines.errors import IntegrityError
from pipelines.extract import ExtractConfig
from pipelines.store import Store
from pipelines.takedown.certificate import (
    certificate_path,
    forget,
    mark_erased,
    part_of_recipe,
    prove,
    read_before,
    read_certificate,
    remember,
    uncertified,
    wanted_of,
    write_certificate,
)
from pipelines.takedown.ledger import add_request, lift_request, read_ledger, takedown_of
from pipelines.takedown.proof import Searched, Wanted, holds, search_shards
from pipelines.takedown.trace import trace

ARTICLE, COPY = Page(text=2, url=2, day=1), Page(text=2, url=5, day=9)
PAGES = {
    "a": [Page(text=number, url=number, day=number + 2) for number in (0, 1, 3)],
    "b": [ARTICLE, COPY, Page(text=4, url=2, day=3)],
}
URL = "https://site2.example/页/2"
NOTHING = {
    "search": Searched().facts(),
    "other_recipes": [],
    "outputs": [],
    "artifacts": [],
    "models": [],
    "mlflow_runs": [],
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.storage.folder.fsync", lambda _path: None)
    return Store(tmp_path / "store")


@pytest.fixture
def sources(tmp_path):
    return [source(write_file(tmp_path / f"{name}.warc.gz", pages)) for name, pages in PAGES.items()]


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "takedowns.jsonl"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "takedowns"


def under(requests):
    return config(extract=ExtractConfig(takedown=takedown_of(requests)))


def build(store, sources, wanted, recipe="r"):
    done = {name: result.manifest for name, result in run(store, sources, wanted).items()}
    for manifest in done.values():
        store.set_ref(recipe, manifest)
    return done


def add(ledger, scope, value):
    return add_request(ledger, scope, value, by="Ann", reason="a wish")


def test_what_a_request_will_take_out_and_who_comes_back(store, sources, ledger, folder):
    before = build(store, sources, config())
    by_url, by_text = add(ledger, "url", URL), add(ledger, "text", text_of(2)[:80])
    requests = [by_url, by_text]
    found = trace(store, before, requests)
    versions = {item["fetched_at"][:10]: item for item in found[by_url.id]["documents"]}
    assert {day: item["decision"] for day, item in versions.items()} == {"2024-01-02": "drop", "2024-01-04": "keep"}
    assert "token_shard" in versions["2024-01-04"]
    assert "token_shard" not in versions["2024-01-02"], "superseded"
    quoted = found[by_text.id]["documents"]
    assert {item["url"] for item in quoted} == {URL, "https://site2.example/页/5"}
    assert all(item["record_offset"] is not None for item in quoted)

    remember(folder, store, "r", requests[:1])
    after = build(store, sources, under(requests[:1]))
    wanted = wanted_of(read_before(folder, "r"), requests[:1], takedown_of(requests[:1]))
    search, elsewhere = prove(store, "r", after, folder / "reports", wanted)
    assert (search["hits"], elsewhere) == (0, [])
    assert search["rows"] > 6 * 5
    part = part_of_recipe(
        store, by_url, read_before(folder, "r"), after, source_file=lambda _unit: "b.warc.gz", shared=NOTHING
    )
    with pytest.raises(IntegrityError, match="still held"):
        prove(store, "r", before, folder / "reports", wanted)
    write_certificate(folder, by_url, "r", part)
    forget(folder, "r")
    assert read_certificate(folder, by_url.id)["recipes"]["r"]["documents"] == part["documents"]
    assert [request.id for request in uncertified(folder, requests, "r")] == [by_text.id]
    assert [request.id for request in uncertified(folder, requests, "other")] == [by_url.id, by_text.id]


def test_a_first_seen_document_that_goes_lets_its_copy_back(store, sources, ledger, folder):
    pages = [ARTICLE, COPY, *PAGES["a"]]
    sources = [source(write_file(folder / "one.warc.gz", pages))]
    build(store, sources, config())
    request = add(ledger, "url", URL)
    remember(folder, store, "r", [request])
    after = build(store, sources, under([request]))
    part = part_of_recipe(store, request, read_before(folder, "r"), after, source_file=lambda _: None, shared=NOTHING)
    assert [(each["url"], each["was"]) for each in part["reinstated"]] == [
        ("https://site2.example/页/5", "duplicate_exact")
    ]
    assert part["token_shards"]
    fresh = Store(folder / "fresh")
    assert content(store, run(store, sources, under([request]))) == content(
        fresh, run(fresh, sources, under([request]))
    )


def test_the_index_of_near_duplicates_is_searched_for_the_text(store, sources, ledger, folder):
    before = build(store, sources, config())
    request = add(ledger, "url", "https://site1.example/页/1")
    remember(folder, store, "r", [request])
    wanted = wanted_of(read_before(folder, "r"), [request], takedown_of([request]))
    after = build(store, sources, under([request]))
    assert len(wanted.text_digests) == 2, "of the text as it is, and normalised"
    searched = Searched()
    search_shards(store, before, wanted, searched)
    found = {(hit["stage"], hit["column"]) for hit in searched.hits}
    assert {("extract", "url"), ("signals", "url"), ("tokenize", "doc_id")} <= found
    assert not any(stage in ("bands", "index") for stage, _ in found), "the build before still has a document of it"
    assert prove(store, "r", after, folder / "reports", wanted)[0]["hits"] == 0
    with pytest.raises(IntegrityError, match="'stage': 'index'"):
        prove(store, "r", after | {"index": before["index"]}, folder / "reports", wanted)
    with pytest.raises(IntegrityError, match="'stage': 'bands'"):
        prove(store, "r", after | {"bands": before["bands"]}, folder / "reports", wanted)


def test_a_run_that_was_killed_loses_no_evidence(store, sources, ledger, folder):
    done = build(store, sources, config())
    first = add(ledger, "url", URL)
    remember(folder, store, "r", [first])
    evidence = read_before(folder, "r")["requests"]
    second = add(ledger, "domain", "site1.example")
    half = {name: result.manifest for name, result in run(store, sources, under([first])).items()}
    for name in ("extract", "signals"):  # killed here: the rest is of the build before
        store.set_ref("r", half[name])
    remember(folder, store, "r", [first, second])
    again = read_before(folder, "r")
    assert again["requests"][first.id] == evidence[first.id]
    assert {item["url"] for item in again["requests"][second.id]["documents"]} == {"https://site1.example/页/1"}
    assert again["manifests"]["extract"] == done["extract"].digest


def test_a_damaged_old_shard_is_told_and_stops_nothing(store, sources, ledger):
    done = build(store, sources, config())
    shards = {entry.shard.digest for entry in done["extract"].entries}
    for digest in shards:
        path = store.shard_path(digest)
        path.chmod(0o644)
        path.write_bytes(b"x" * path.stat().st_size)
    request = add(ledger, "url", URL)
    found = trace(store, done, [request])[request.id]
    assert (found["documents"], set(found["unreadable"])) == ([], shards)
    assert trace(store, {}, [request])[request.id]["documents"] == []


def test_the_report_of_a_recipe_is_searched_too(store, sources, ledger, folder, tmp_path):
    request = add(ledger, "url", URL)
    before = build(store, sources, config())
    remember(folder, store, "r", [request])
    wanted = wanted_of(read_before(folder, "r"), [request], takedown_of([request]))
    after = build(store, sources, under([request]))
    report = tmp_path / "reports" / "r" / "review" / "index.html"
    report.parent.mkdir(parents=True)
    report.write_text(f"<a href='{URL}0'>another</a>")
    assert prove(store, "r", after, tmp_path / "reports", wanted)[0]["files"] == 1
    report.write_text(f"<a href='{URL}'>this</a>")
    with pytest.raises(IntegrityError, match=r"index\.html"):
        prove(store, "r", after, tmp_path / "reports", wanted)
    build(store, sources, config(), recipe="other")
    assert before["extract"].digest != after["extract"].digest
    report.unlink()
    elsewhere = {each["recipe"]: each["hits"] for each in prove(store, "r", after, tmp_path / "reports", wanted)[1]}
    assert elsewhere["other"] >= 4


@pytest.mark.parametrize(
    ("data", "is_held"),
    [
        ('{"url": "https://a.example/?x=1&y=2"}', True),
        ("<td>https://a.example/?x=1&amp;y=2</td>", True),
        ("see https://a.example/?x=1&y=2.", True),
        ('"https://a.example/?x=1&amp;y=2&quot;', True),
        ("https://a.example/?x=1&y=2&z=3", False),
        ("https://a.example/?x=1&amp;y=2&amp;z=3", False),
        ("https://a.example/?x=1&y=20", False),
        (f"document {'ab' * 16}", True),
        ("row 7 and 17", False),
    ],
)
def test_a_url_in_a_file_ends_where_it_ends(data, is_held):
    wanted = Wanted(
        doc_ids=frozenset(["ab" * 16]),
        urls=frozenset(["https://a.example/?x=1&y=2", "7"]),
        takedown=takedown_of([]),
    )
    assert holds(data.encode(), wanted) == is_held


def test_a_quotation_is_found_in_html(ledger):
    takedown = add(ledger, "text", "Fish & chips at the old harbour wall").takedown()
    wanted = Wanted(doc_ids=frozenset(), urls=frozenset(), takedown=takedown)
    assert holds(b"<p>Fish &amp; <mark>chips</mark> at the\nold <b>harbour</b> wall</p>", wanted)


def test_a_ledger_that_lost_a_certified_take_down_is_refused(ledger, folder):
    first, second = add(ledger, "url", URL), add(ledger, "url", URL + "0")
    part = {"certified_at": "", "documents": [], "manifests": {}, "reinstated": [], "erased_at": None, **NOTHING}
    part |= {"obsolete_shards": [{"digest": "0" * 64}]}
    write_certificate(folder, second, "r", part)
    ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(IntegrityError, match="put back a copy"):
        uncertified(folder, read_ledger(ledger), "r")
    assert [request.id for request in read_ledger(ledger)] == [first.id]
    assert mark_erased(folder, lambda _digest: True) == []
    assert mark_erased(folder, lambda _digest: False) == [second.id]
    assert read_certificate(folder, second.id)["recipes"]["r"]["erased_at"]
    path = certificate_path(folder, second.id)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"takedown": {}}))
    with pytest.raises(IntegrityError, match="was changed"):
        read_certificate(folder, second.id)


def test_what_was_lifted_needs_no_certificate(ledger, folder):
    request = add(ledger, "url", URL)
    lift_request(ledger, request.id, by="Bob", reason="r")
    assert uncertified(folder, read_ledger(ledger), "r") == []
