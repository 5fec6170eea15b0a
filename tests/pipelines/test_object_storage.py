"""A store in a bucket gives what one in a folder gives; every test talks to an S3 server in a process of its own."""

import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import random
import signal
import threading
from collections.abc import Callable

import pyarrow as pa
import pytest
from corpora import Page, computed, config, content, run, source, write_file
from test_store import SCHEMA, batch, record_of

import pipelines.storage.bucket
from llm.data import TokenData
from pipelines.digest import digest_bytes, digest_file
from pipelines.errors import ConfigError, IntegrityError, StorageError, TransientError
from pipelines.executor import open_executor
from pipelines.plan import plan_corpus
from pipelines.storage.copies import Copies
from pipelines.store import Manifest, Place, Store

PARTS = {
    "a.warc.gz": [Page(text=text, url=text, day=text) for text in range(5)],
    "b.jsonl": [Page(text=2, url=2, day=9), Page(text=7, url=7, day=9), Page(text=1, url=11, day=9)],
    "c.warc.gz": [Page(text=8, url=0, day=20), Page(text=9, url=9, day=20, fate="opt_out"), Page(text=6, url=6)],
}
KEY = "ab" * 32
NUM_KILLS = 6


@pytest.fixture
def new_store(bucket, tmp_path):
    """Opens the bucket's store as another machine would, or as `machine` did before."""
    names = iter(range(1000))

    def opened(machine: str | None = None, **options: int) -> Store:
        folder = tmp_path / (machine or f"machine{next(names)}")
        return Store(Place(root=folder, bucket=bucket.url, **options))

    return opened


@pytest.fixture
def few_retries(monkeypatch):
    monkeypatch.setattr(pipelines.storage.bucket, "_RETRIES", {"max_retries": 1})


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return [source(write_file(folder / name, pages)) for name, pages in PARTS.items()]


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    """What a build in a folder leaves: the store, its content and its files."""
    store = Store(tmp_path_factory.mktemp("whole"))
    results = run(store, sources, config())
    for result in results.values():
        store.set_ref("recipe", result.manifest)
    return store, content(store, results)


def files_of(store: Store) -> dict[str, bytes]:
    return {
        path.relative_to(store.root).as_posix(): path.read_bytes() for path in store.root.rglob("*") if path.is_file()
    }


def expect_whole(bucket) -> None:
    """Nothing in the bucket is half-written, and no record names what is not there."""
    stored = bucket.contents("objects")
    assert all(name.endswith(f"/{digest_bytes(data)}") for name, data in stored.items())
    for name, data in bucket.contents("records").items():
        shards = json.loads(data)["record"]["shards"]
        assert all(f"objects/{shard['digest'][:2]}/{shard['digest']}" in stored for shard in shards), name


# shards and records


@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_what_is_written_is_read_here_and_elsewhere(new_store, compression):
    store = new_store("here")
    shard = store.write(SCHEMA, [batch("a", "b"), batch("c")], compression=compression)
    assert store.write(SCHEMA, [batch("a", "b"), batch("c")], compression=compression) == shard
    store.publish(record_of(shard))
    for each in (store, new_store("here"), new_store()):
        assert each.find("toy", KEY) == record_of(shard)
        assert pa.Table.from_batches(each.read(shard)).column("doc_id").to_pylist() == ["a", "b", "c"]
        assert next(each.read(shard, ["value", "doc_id"])).schema.names == ["value", "doc_id"]
        assert [stored.digest for stored in each.objects()] == [shard.digest]
        assert not list((each.root / "tmp").iterdir())


def test_a_manifest_is_found_elsewhere(new_store):
    new_store().set_ref("recipe", Manifest("toy", ()))
    assert new_store().ref("recipe", "toy") == Manifest("toy", ())
    assert new_store().ref("recipe", "other") is None
    assert list(new_store().refs()) == [("recipe", "toy")]


def flip(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": flip,
    "cut": lambda data: data[:-8],
    "emptied": lambda _: b"",
    "lost": lambda _: None,
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_object_is_found_and_made_anew(new_store, bucket, how):
    store = new_store("here")
    shard = store.write(SCHEMA, [batch("a", "b")])
    store.publish(record_of(shard))
    name = f"objects/{shard.digest[:2]}/{shard.digest}"
    damaged = DAMAGES[how](bucket.get(name))
    bucket.remove(name) if damaged is None else bucket.put(name, damaged)
    other = new_store()
    assert (other.find("toy", KEY) is not None) == (how == "flipped")  # a listing cannot see that; whoever reads does
    with pytest.raises(IntegrityError, match="run the same command again"):
        list(other.read(shard))
    assert not other.check(shard)
    assert other.find("toy", KEY) is None
    assert bucket.contents("objects") == {}
    assert bucket.contents("quarantine") == ({} if damaged is None else {f"quarantine/{shard.digest}": damaged})
    assert other.write(SCHEMA, [batch("a", "b")]) == shard
    other.clear_quarantine()
    assert bucket.names("quarantine") == []
    assert new_store().find("toy", KEY) is not None
    assert len(list(new_store().read(shard))) == 1


def test_an_object_that_was_replaced_since_is_not_moved_aside(new_store, bucket):
    store = new_store()
    shard = store.write(SCHEMA, [batch("a")])
    name = f"objects/{shard.digest[:2]}/{shard.digest}"
    data = bucket.get(name)
    bucket.put(name, flip(data))
    seen_damaged = store._storage.stat(name)
    bucket.put(name, data)
    store._storage.set_aside(seen_damaged)
    assert bucket.get(name) == data


@pytest.mark.parametrize("change", [flip, lambda _: b"", lambda _: b"[]", lambda data: data.replace(b"abab", b"acac")])
def test_a_damaged_record_is_a_miss(new_store, bucket, change):
    store = new_store()
    store.publish(record_of(store.write(SCHEMA, [batch("a")])))
    name = f"records/toy/ab/{KEY}"
    bucket.put(name, change(bucket.get(name)))
    assert list(store.records()) == [(name, None)]
    assert store.find("toy", KEY) is None
    assert bucket.names("records") == []
    assert bucket.names("quarantine") == [f"quarantine/{KEY}"]


def test_what_is_removed_is_gone_here_and_its_copies_elsewhere_at_the_next_run(new_store, tmp_path):
    here, there = new_store("here"), new_store("there")
    shard, other = (here.write(SCHEMA, [batch(name)]) for name in "ab")
    here.publish(record_of(shard))
    for store in (here, there):
        assert list(store.read(shard)) + list(store.read(other))
    here.remove_object(shard.digest)
    here.remove_record("toy", KEY)
    assert [each.digest for each in here.objects()] == [other.digest]
    assert list(here.records()) == []
    there.clear_temporary()
    for folder in ("here", "there"):
        assert [path.name for path in (tmp_path / folder / "copies").glob("*/*")] == [other.digest]


# what is kept near


def test_a_damaged_copy_is_fetched_anew(new_store):
    store = new_store()
    shard = store.write(SCHEMA, [batch("a", "b")])
    copy = next((store.root / "copies").glob("*/*"))
    copy.chmod(0o644)
    copy.write_bytes(flip(copy.read_bytes()))
    assert pa.Table.from_batches(store.read(shard)).num_rows == 2
    assert digest_file(copy) == shard.digest


def test_copies_are_bounded_and_what_is_held_stays(new_store):
    bound = 40_000
    store = new_store("here", max_copies_num_bytes=bound)
    shards = [
        store.write(SCHEMA, [batch(*(f"{name} {idx}" for idx in range(200)))], compression=None) for name in range(20)
    ]
    held = store.shard_path(shards[0].digest)
    for shard in shards * 2:
        assert len(list(store.read(shard))) == 1
    sizes = [path.stat().st_size for path in (store.root / "copies").glob("*/*")]
    assert shards[0].num_bytes <= sum(sizes) <= bound + bound // 16 + shards[0].num_bytes
    assert digest_file(held) == shards[0].digest
    store.clear_temporary()
    assert held.exists(), "this process may have it mapped"


def hold(pipe, place: Place, digest: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    pipe.send(Store(place).shard_path(digest))
    signal.pause()


def test_what_a_killed_process_held_is_let_go(new_store, context):
    store = new_store("here")
    shard = store.write(SCHEMA, [batch("a")])
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(theirs, store.place, shard.digest, dict(os.environ)))
    process.start()
    path = ours.recv()
    store.clear_temporary()
    assert digest_file(path) == shard.digest
    process.kill()
    process.join()
    store.clear_temporary()
    assert not path.exists()


def test_copies_of_several_threads_are_whole(tmp_path):
    copies = Copies(tmp_path, 1 << 20)

    def fill(number: int) -> None:
        for each in range(50):
            data = f"{each % 7}".encode() * 1000
            digest = digest_bytes(data)
            part = copies.own_folder() / f"{number}-{each}.part"
            part.write_bytes(data)
            copies.add(part, digest)
            assert copies.find(digest) is not None
            assert digest_file(copies.hold(lambda digest=digest: copies.find(digest), digest)) == digest

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((tmp_path / "copies").glob("*/*"))) == 7


# whole builds


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_build_leaves_the_bytes_that_a_build_in_a_folder_leaves(new_store, bucket, sources, whole, num_workers):
    local, left = whole
    store = new_store()
    with open_executor(num_workers) as executor:
        results = run(store, sources, config(), executor)
    for result in results.values():
        store.set_ref("recipe", result.manifest)
    assert bucket.contents() == files_of(local)
    assert content(store, results) == left
    for again in (store, new_store()):
        assert not any(computed(run(again, sources, config())).values())
        assert not any(plan.compute or plan.at_most for plan in plan_corpus(again, "recipe", sources, config()))
    changed = config(min_words=100)
    planned = {plan.name: plan.compute for plan in plan_corpus(store, "recipe", sources, changed)}
    assert bucket.contents() == files_of(local), "a plan writes nothing"
    assert computed(run(store, sources, changed)) == planned


def test_a_model_trains_on_held_copies(new_store, sources, whole):
    store = new_store(max_copies_num_bytes=0)
    results = run(store, sources, config())
    manifest = results["tokenize"].manifest
    shards = sorted((entry.shard for entry in manifest.entries), key=lambda shard: shard.digest)
    local = TokenData.open([whole[0].shard_path(shard.digest) for shard in shards], "train", digest="x")
    found = TokenData.open([store.shard_path(shard.digest) for shard in shards], "train", digest="x")
    assert [(each.doc_id, each.tokens.tolist()) for each in found.documents()] == [
        (each.doc_id, each.tokens.tolist()) for each in local.documents()
    ]


def test_any_damage_to_a_build_is_mended_by_the_next(new_store, bucket, sources, whole):
    rng = random.Random(2)
    run(new_store(), sources, config())
    for _ in range(3):
        for name in rng.sample(bucket.names("objects") + bucket.names("records"), 8):
            damaged = rng.choice(list(DAMAGES.values()))(bucket.get(name))
            bucket.remove(name) if damaged is None else bucket.put(name, damaged)
        store = new_store()
        for _, record in store.records():  # what `verify` does
            for shard in record.shards if record is not None else ():
                store.check(shard)
        store = new_store()
        assert content(store, run(store, sources, config())) == whole[1]
        expect_whole(bucket)
    assert bucket.contents("objects") == {
        name: data for name, data in files_of(whole[0]).items() if name.startswith("objects")
    }


@pytest.fixture(scope="module")
def context():
    """Processes forked from one that has imported all that a build needs, and has asked no server anything."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["pipelines.corpus", "pandas", "awkward"])
    return forking


def build(place: Place, sources: list, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    store = Store(place)
    store.clear_temporary()
    run(store, sources, config())


def test_a_kill_in_the_middle_of_any_write_loses_nothing_that_was_finished(
    new_store, bucket, proxy, sources, whole, context
):
    rng = random.Random(4)
    store, num_kills = new_store("here"), 0
    for how in ("cut", "unanswered", None) * (NUM_KILLS // 3):
        process = context.Process(target=build, args=(store.place, sources, dict(os.environ)))
        left = [rng.randrange(1, 12)]

        def kill(method: str, _path: str, how=how, process=process, left=left) -> str | None:
            left[0] -= method == "PUT"
            if left[0] == 0:
                process.kill()
                multiprocessing.connection.wait([process.sentinel], 60)  # its exit code is for the thread that joins it
            return how if left[0] == 0 else None

        before = bucket.contents()
        proxy.broken = kill
        process.start()
        process.join(60)
        assert process.exitcode in (-signal.SIGKILL, 0), "killed, or it was done before the kill came"
        num_kills += process.exitcode == -signal.SIGKILL
        expect_whole(bucket)
        assert before.items() <= bucket.contents().items()
    assert num_kills >= NUM_KILLS - 1
    proxy.broken = lambda _method, _path: None
    num_records = len(bucket.names("records"))
    results = run(new_store("here"), sources, config())
    assert content(store, results) == whole[1]
    assert sum(computed(results).values()) == len(bucket.names("records")) - num_records > 0


# a network that fails


@pytest.mark.parametrize("how", ["cut", "unanswered"])
def test_a_write_that_fails_once_is_tried_again(new_store, bucket, proxy, how):
    broken = []

    def once(method: str, path: str) -> str | None:
        if method == "PUT" and path not in broken:
            broken.append(path)
            return how
        return None

    proxy.broken = once
    store = new_store()
    shard = store.write(SCHEMA, [batch("a")])
    store.publish(record_of(shard))
    assert proxy.num_broken == 2
    assert new_store().find("toy", KEY) == record_of(shard)
    expect_whole(bucket)


@pytest.mark.parametrize("kind", ["objects", "records"])
def test_writes_that_fail_half_way_are_transient_and_leave_nothing_half_published(
    new_store, bucket, proxy, sources, whole, few_retries, kind
):
    proxy.broken = lambda method, path: "cut" if method == "PUT" and f"/{kind}/" in path else None
    store = new_store()
    with pytest.raises(TransientError, match="wanted an object store that answers"):
        run(store, sources, config())
    assert proxy.num_broken
    assert bucket.names("records") == []
    assert not list((store.root / "tmp").iterdir())
    expect_whole(bucket)
    proxy.broken = lambda _method, _path: None
    assert content(store, run(store, sources, config())) == whole[1]


def test_reads_that_fail_are_no_damage(new_store, bucket, proxy, few_retries):
    shard = new_store().write(SCHEMA, [batch("a")])
    proxy.broken = lambda method, _path: "unanswered" if method == "GET" else None
    for ask in (
        lambda store: list(store.read(shard)),
        lambda store: store.check(shard),
        lambda store: store.recorded("toy", KEY),
    ):
        with pytest.raises(StorageError):
            ask(new_store())
    assert bucket.names("quarantine") == []


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_large_shard_goes_up_in_parts(new_store, bucket, proxy, monkeypatch, few_retries, is_broken):
    monkeypatch.setattr(pipelines.storage.bucket, "_WHOLE_NUM_BYTES", 1 << 20)
    monkeypatch.setattr(pipelines.storage.bucket, "_PART_NUM_BYTES", 5 << 20)
    if is_broken:
        proxy.broken = lambda method, path: "cut" if "partNumber=2" in path else None
    rows = batch(*(f"{number:064}" for number in range(160_000)))
    store = new_store()
    if is_broken:
        with pytest.raises(StorageError):
            store.write(SCHEMA, [rows], compression=None)
        assert bucket.names() == []
        return
    shard = store.write(SCHEMA, [rows], compression=None)
    assert sum("partNumber=" in path for _, path in proxy.requests) == 3
    assert sum(each.num_rows for each in new_store().read(shard)) == 160_000


# what it costs


def test_many_shards_are_looked_up_by_listing(new_store, bucket, proxy):
    store = new_store()
    keys = [digest_bytes(f"{number}".encode()) for number in range(250)]
    shard = store.write(SCHEMA, [batch("a")])
    data = bucket.get(f"objects/{shard.digest[:2]}/{shard.digest}")
    for number, key in enumerate(keys):
        digest = digest_bytes(data + b"%d" % number)
        bucket.put(f"objects/{digest[:2]}/{digest}", data)
        store.publish(record_of(type(shard)(digest, shard.num_bytes, 1), key=key))
    again = new_store()
    proxy.requests.clear()
    assert len(again.find_all("toy", keys)) == 250
    methods = [method for method, path in proxy.requests if "list-type" not in path]
    assert methods == ["GET"] * 250, "the records; no shard is asked for"
    assert sum("list-type" in path for _, path in proxy.requests) == 6, "three pages of each"
    small = list((again.root / "small").glob("*/*"))
    assert len(small) == 250
    for path in small[:3]:
        path.chmod(0o644)
        path.write_bytes(flip(path.read_bytes()))
    store.publish(record_of(shard, key=keys[0]))
    proxy.requests.clear()
    another = Store(again.place)
    found = another.find_all("toy", keys)
    assert sum("list-type" not in path for _, path in proxy.requests) in (3, 4), "what is new, and damaged copies"
    assert found == store.find_all("toy", keys)
    assert found[keys[0]] == record_of(shard, key=keys[0])
    proxy.requests.clear()
    assert again.find_all("toy", [digest_bytes(key.encode()) for key in keys]) == {}
    assert {"list-type" in path for _, path in proxy.requests} == {True}
    assert len(list(again.records())) == 250


# what is said


@pytest.mark.parametrize(
    "url", ["s3:/x", "gs://bucket/x", "/a/folder", "s3://", "s3://key:secret@bucket/x", "s3://bucket/x?secret=1"]
)
def test_what_is_no_bucket_is_refused_and_not_repeated(tmp_path, url):
    with pytest.raises(ConfigError, match="CORPUSMILL_STORE: got something else than s3://BUCKET/PREFIX") as error:
        Store(Place(root=tmp_path, bucket=url))
    assert "secret" not in str(error.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_a_bucket_that_is_not_there_is_told(bucket, tmp_path):
    store = Store(Place(root=tmp_path, bucket="s3://no-such-bucket/x"))
    for ask in (lambda: store.write(SCHEMA, [batch("a")]), lambda: list(store.objects()), store.clear_temporary):
        with pytest.raises(StorageError, match=r"got no bucket at s3://no-such-bucket/x .*create it"):
            ask()


def test_no_credentials_in_what_is_stored_sent_logged_or_said(
    new_store, bucket, proxy, monkeypatch, few_retries, caplog
):
    caplog.set_level(logging.DEBUG)
    store = new_store()
    shard = store.write(SCHEMA, [batch("a")])
    store.publish(record_of(shard))
    with store.exclusive("someone", store.root / "lock"):
        pass
    proxy.broken = lambda _method, _path: "unanswered"
    with pytest.raises(StorageError) as error:
        new_store().recorded("toy", KEY)
    again = pickle.loads(pickle.dumps(store))
    said = [str(error.value), caplog.text, store.url, repr(store.place), repr(pickle.dumps(store))]
    stored = b"".join(bucket.contents().values()).decode("latin-1")
    for secret in ("test-secret-key", "test-key-id"):
        assert secret not in stored
        assert not any(secret in text for text in said)
    proxy.broken = lambda _method, _path: None
    assert again.find("toy", KEY) == record_of(shard)
