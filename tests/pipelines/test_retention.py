"""What gc removes: never what a live recipe reaches, at once what was taken down, the rest when it is old."""

import time
from dataclasses import replace

import pytest
from corpora import Page, computed, config, content, run, source, write_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.corpus import given_tokenizer_resource, tokenizer_json, tokenizer_resource
from pipelines.errors import IntegrityError
from pipelines.extract import ExtractConfig
from pipelines.retention import Roots, sweep
from pipelines.store import Shard, Store
from pipelines.takedown.documents import Takedown
from pipelines.takedown.names import digest_name, url_form

DAY = 86_400.0
NOTHING = Roots()
FILES = {
    "a": [Page(text=number, url=number, day=number) for number in range(5)],
    "b": [Page(text=2, url=2, day=9), Page(text=7, url=7), Page(text=1, url=11, day=8)],
}
CONFIGS = {
    "plain": {},
    "strict": {"min_words": 60},
    "small": {"vocab_size": 280},
    "taken": {
        "extract": ExtractConfig(takedown=Takedown(urls=(digest_name("url", url_form("http://site1.example/页/1")),)))
    },
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {name: source(write_file(folder / f"{name}.warc.gz", pages)) for name, pages in FILES.items()}


def build(store, recipe, wanted, sources):
    results = run(store, sources, wanted)
    for result in results.values():
        store.set_ref(recipe, result.manifest)
    for name in {stage for of, stage in store.refs() if of == recipe} - results.keys():
        store.remove_ref(recipe, name)
    return results


def digests(results) -> set[str]:
    return {entry.shard.digest for result in results.values() for entry in result.manifest.entries}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]),
        st.sampled_from(sorted(CONFIGS)),
        st.sets(st.sampled_from(sorted(FILES)), min_size=1),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_what_a_live_recipe_reaches_stays(tmp_path_factory, sources, monkeypatch, steps):
    monkeypatch.setattr("pipelines.storage.folder.fsync", lambda _path: None)
    store = Store(tmp_path_factory.mktemp("store"))
    newest = {}
    for recipe, name, files, sweeps in steps:
        wanted, given_files = config(**CONFIGS[name]), [sources[file] for file in sorted(files)]
        newest[recipe] = (wanted, given_files, content(store, build(store, recipe, wanted, given_files)))
        if sweeps:
            sweep(store, NOTHING, now=time.time() + 1, keep_days=0, is_dry=False)
    everything = frozenset(each.digest for each in store.objects())
    sweep(store, Roots(condemned=everything), now=time.time() + 1, keep_days=0, is_dry=False)
    reached = set()
    for wanted, given_files, left in newest.values():
        results = run(store, given_files, wanted)
        assert not any(computed(results).values())
        assert content(store, results) == left
        reached |= digests(results)
    assert {each.digest for each in store.objects()} == reached
    assert not sweep(store, NOTHING, now=time.time() + 9 * DAY, keep_days=0, is_dry=False).objects


def test_the_rest_goes_when_it_is_old_and_what_was_taken_down_at_once(tmp_path, sources):
    store = Store(tmp_path)
    files = [sources["a"]]
    old = digests(build(store, "r", config(), files))
    new = digests(build(store, "r", config(**CONFIGS["taken"]), files))
    gone = old - new
    now = time.time()
    dry = sweep(store, NOTHING, now=now, keep_days=7, is_dry=True)
    assert (dry.objects, dry.num_young, dry.num_reached) == ([], len(gone), len(new))
    some = sorted(gone)[:2]
    swept = sweep(store, Roots(condemned=frozenset([*some, *sorted(new)[:1]])), now=now, keep_days=7, is_dry=False)
    assert (swept.objects, swept.num_taken_down, swept.held) == (some, 2, sorted(new)[:1])
    assert swept.num_records >= 2, "a record of a shard that is gone is worth nothing"
    assert sweep(store, NOTHING, now=now + 8 * DAY, keep_days=7, is_dry=True).objects == sorted(gone - set(some))
    assert {each.digest for each in store.objects()} == old - set(some) | new, "dry"
    assert set(sweep(store, NOTHING, now=now + 8 * DAY, keep_days=7, is_dry=False).objects) == gone - set(some)
    assert digests(build(store, "r", config(), files)) == old


def test_an_old_shard_that_names_a_document_is_found_whatever_made_it(tmp_path, sources):
    store = Store(tmp_path)
    files = [sources["a"]]
    first = build(store, "r", config(min_words=60), files)  # an older build still, of which no certificate tells
    doc_id = next(store.read(first["extract"].manifest.entries[0].shard, ("doc_id",))).column("doc_id")[1].as_py()
    build(store, "r", config(**CONFIGS["taken"]), files)
    swept = sweep(store, Roots(doc_ids=frozenset([doc_id])), now=time.time(), keep_days=7, is_dry=False)
    kinds = {
        name
        for name, result in first.items()
        for entry in result.manifest.entries
        if entry.shard.digest in swept.objects
    }
    assert {"extract", "signals", "policy", "dedup"} <= kinds
    for each in store.objects():
        rows = [row for batch in store.read(Shard(each.digest, each.num_bytes, 0)) for row in batch.to_pylist()]
        assert doc_id not in str(rows)


def test_a_given_tokenizer_and_the_shards_of_a_training_stay(tmp_path, sources):
    store = Store(tmp_path)
    files = [sources["a"]]
    wanted = config()
    trained = build(store, "r", wanted, files)
    text = tokenizer_json(tokenizer_resource(wanted, {name: each.manifest for name, each in trained.items()}, store))
    given = given_tokenizer_resource(store, text)
    build(store, "r", replace(config(min_words=140), tokenizer=given), files)
    tokens = frozenset(entry.shard.digest for entry in trained["tokenize"].manifest.entries)
    sweep(store, Roots(kept=tokens), now=time.time() + 1, keep_days=0, is_dry=False)
    left = {each.digest for each in store.objects()}
    assert given.digest in left
    assert tokens <= left
    sweep(store, Roots(kept=tokens, condemned=tokens), now=time.time() + 1, keep_days=0, is_dry=False)
    assert not tokens & {each.digest for each in store.objects()}


def test_nothing_goes_where_a_manifest_is_damaged(tmp_path, sources):
    store = Store(tmp_path)
    left = digests(build(store, "r", config(), [sources["a"]]))
    (tmp_path / "refs" / "r" / "extract").write_text("{")
    with pytest.raises(IntegrityError, match="build that recipe again"):
        sweep(store, Roots(condemned=frozenset(left)), now=time.time() + 9 * DAY, keep_days=0, is_dry=False)
    assert {each.digest for each in store.objects()} == left


def test_a_check_does_not_make_a_shard_younger(tmp_path, sources):
    store = Store(tmp_path)
    results = build(store, "r", config(), [sources["a"]])
    before = {each.digest: each.changed_at for each in store.objects()}
    assert all(store.check(entry.shard) for result in results.values() for entry in result.manifest.entries)
    assert {each.digest: each.changed_at for each in store.objects()} == before


def test_what_is_in_quarantine_goes(tmp_path):
    store = Store(tmp_path)
    path = tmp_path / "quarantine" / "damaged"
    path.parent.mkdir()
    for is_dry in (True, False):
        path.write_bytes(b"x")
        sweep(store, NOTHING, now=time.time(), keep_days=7, is_dry=is_dry)
        assert path.exists() == is_dry
