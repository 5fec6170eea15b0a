"""Incremental equals from-scratch: whatever was changed before, a build leaves what a first build would have left."""

import gzip
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from corpora import SMALL_MODELS, Page, computed, config, content, run, source, text_of, write_file
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from pipelines import schemas
from pipelines.corpus import (
    CorpusConfig,
    corpus_nodes,
    given_tokenizer_resource,
    read_aligned,
    tokenizer_json,
    tokenizer_resource,
    units_of,
)
from pipelines.decontaminate import SuitesConfig
from pipelines.dedup import DedupConfig
from pipelines.digest import digest_bytes, digest_file
from pipelines.errors import EmptyCorpusError, IntegrityError, StageError
from pipelines.executor import Executor, InlineExecutor, open_executor
from pipelines.extract import ExtractConfig
from pipelines.inputs import digest_files
from pipelines.materialize import Progress
from pipelines.perplexity.reference import ReferenceConfig
from pipelines.policy import EvaluationRules
from pipelines.stage import Resource
from pipelines.store import Store
from pipelines.suites import Suite
from pipelines.takedown.documents import Takedown
from pipelines.takedown.names import digest_name, url_form
from pipelines.takedown.quotes import quote_of
from pipelines.work import SourceFile

SEEDS = st.integers(0, 1 << 20)
SUFFIXES = st.sampled_from((".warc.gz", ".jsonl"))
CHANGES = {
    "min_words": (30, 140, 180, 1000),
    "vocab_size": (257, 300, 340),
    "redact": (("email",), None, ("email", "phone")),
    "exact": (True, False),
    "near": (True, False),
    "superseded": (True, False),
    "withdrawn": (True, False),
    "validation_ratio": (0.2, 0.5),
    "split_seed": (0, 1),
    "suite": ((), (3,), (3, 6)),
    "takedown": (
        Takedown(),
        Takedown(urls=(digest_name("url", url_form("http://site2.example/页/2")),)),
        Takedown(domains=(digest_name("domain", "site1.example"),), quotes=(quote_of(text_of(0)[:60]),)),
    ),
    "perplexity": (SMALL_MODELS, None, replace(SMALL_MODELS, reference=ReferenceConfig(max_bytes=1500))),
}
"""The values that each setting takes, the first of them at the start."""
OF_DEDUP = ("exact", "near", "superseded", "withdrawn", "validation_ratio", "split_seed")
START = [
    [Page(text=text, url=text, day=text) for text in range(5)],
    [Page(text=2, url=2, day=9), Page(text=7, url=3, day=9), Page(text=1, url=11), Page(text=4, url=12, variant=1)],
    [Page(text=8, url=0, day=20), Page(text=9, url=1, day=20, fate="opt_out"), Page(text=6, url=6, day=2)],
]


def pages_of(seed: int) -> list[Page]:
    """Up to six pages that repeat, withdraw and renew one another's texts."""
    rng = random.Random(seed)
    fates = ("ok", "ok", "ok", "ok", "ok", "gone", "failed", "opt_out", "shut_out", "reserved")
    return [
        Page(
            text=rng.randrange(10),
            url=rng.randrange(8),
            day=rng.randrange(40),
            variant=rng.random() < 0.2,
            fate=rng.choice(fates),
        )
        for _ in range(rng.randrange(7))
    ]


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes() or b"x")
    data[int(place * len(data))] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: tuple[Callable[[Path, float], object], ...] = (
    flip,
    lambda path, _: path.unlink(),
    lambda path, _: path.touch(),
    lambda path, _: path.write_bytes(b""),
    lambda path, _: path.write_bytes(path.read_bytes() + b"\n"),
    lambda path, place: path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)]),
    lambda path, _: path.write_bytes(min(path.parents[1].glob("*/*")).read_bytes()),
)


class FreshBuilds:
    """What a first build leaves, remembered by what shapes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[object, object] = {}

    def of(self, sources: list[SourceFile], wanted: CorpusConfig) -> object:
        key = (frozenset(item.unit for item in sources), repr(wanted))
        if key not in self.known:
            place = self.folder / str(len(self.known))
            self.known[key] = outcome(Store(place), elsewhere(sources, place), wanted)
            shutil.rmtree(place)
        return self.known[key]


def against_suite(folder: Path, texts: tuple[int, ...], wanted: CorpusConfig) -> CorpusConfig:
    """The same config, against a suite that asks for the texts with these numbers; without one where there are none."""
    if not texts:
        return wanted
    path = folder / f"suite{len(texts)}.jsonl"
    path.write_text("".join(json.dumps({"text": text_of(number)}) + "\n" for number in texts), encoding="utf-8")
    suite = Suite(name="suite", file=Resource(digest_file(path), str(path)))
    policy = replace(wanted.policy, evaluation=EvaluationRules())
    return replace(wanted, suites=SuitesConfig(suites=(suite,)), policy=policy)


def elsewhere(sources: list[SourceFile], place: Path) -> list[SourceFile]:
    """The same files under other names, in another order, each once."""
    copies = {}
    for number, item in enumerate(reversed(sources)):
        path = Path(item.path)
        copies[item.unit] = shutil.copyfile(path, place / f"{number}{''.join(path.suffixes)}")
    return [source(path) for path in copies.values()]


def outcome(store: Store, sources: list[SourceFile], wanted: CorpusConfig, executor: Executor | None = None) -> object:
    """All that a build leaves, or why there is none."""
    try:
        return content(store, run(store, sources, wanted, executor))
    except EmptyCorpusError as error:
        return str(error)
    except StageError as error:
        return str(error)  # every kept document is held out: there is no text to train a tokenizer on


class History(RuleBasedStateMachine):
    """One long-lived store, through changes of inputs, of config and of its own files."""

    def __init__(self, folder: Path, fresh: FreshBuilds, pool: Executor) -> None:
        super().__init__()
        self.folder = folder / f"history{len(list(folder.iterdir()))}"
        self.store = Store(self.folder / "store")
        self.fresh = fresh
        self.pool = pool
        self.executor: Executor = InlineExecutor()
        self.paths: list[Path] = []
        self.num_named = 0
        self.settings: dict[str, Any] = {name: values[0] for name, values in CHANGES.items()}

    @initialize()
    def begin(self) -> None:
        self.paths = [write_file(self.new_path(".warc.gz"), pages) for pages in START]

    def new_path(self, suffix: str) -> Path:
        self.num_named += 1
        folder = self.folder / f"folder{self.num_named % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"file{self.num_named}{suffix}"

    def some(self, choice: int) -> int:
        return choice % len(self.paths)

    @rule(seed=SEEDS, suffix=SUFFIXES)
    def add(self, seed: int, suffix: str) -> None:
        self.paths.append(write_file(self.new_path(suffix), pages_of(seed)))

    @precondition(lambda self: self.paths)
    @rule(seed=SEEDS)
    def change(self, seed: int) -> None:
        write_file(self.paths[self.some(seed)], pages_of(seed))

    @precondition(lambda self: len(self.paths) > 1)
    @rule(choice=SEEDS)
    def remove(self, choice: int) -> None:
        del self.paths[self.some(choice)]

    @precondition(lambda self: self.paths)
    @rule(choice=SEEDS)
    def list_twice(self, choice: int) -> None:
        path = self.paths[self.some(choice)]
        self.paths += [path, Path(shutil.copy(path, self.new_path("".join(path.suffixes))))]

    @precondition(lambda self: self.paths)
    @rule(choice=SEEDS)
    def move(self, choice: int) -> None:
        old = self.paths[self.some(choice)]
        new = self.new_path("".join(old.suffixes))
        old.rename(new)
        self.paths = [new if path == old else path for path in self.paths]

    @precondition(lambda self: self.paths)
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        self.paths = data.draw(st.permutations(self.paths))

    @rule(name=st.sampled_from(sorted(CHANGES)), step=st.integers(0, 2))
    def set(self, name: str, step: int) -> None:
        others = [value for value in CHANGES[name] if value != self.settings[name]]
        self.settings[name] = others[step % len(others)]

    @rule(seed=SEEDS)
    def damage(self, seed: int) -> None:
        rng = random.Random(seed)
        paths = sorted([*self.store.root.glob("objects/*/*"), *self.store.root.glob("records/*/*/*")])
        for path in rng.sample(paths, min(8, len(paths))):
            path.chmod(0o644)
            rng.choice(DAMAGES)(path, rng.random())

    @rule()
    def forget_and_use_the_pool(self) -> None:
        shutil.rmtree(self.store.root / "records", ignore_errors=True)
        self.executor = self.pool

    @invariant()
    def incremental_equals_from_scratch(self) -> None:
        sources = [source(path) for path in self.paths]
        settings = dict(self.settings)
        dedup = DedupConfig(**{name: settings.pop(name) for name in OF_DEDUP})
        extract = ExtractConfig(takedown=settings.pop("takedown"))
        suite = settings.pop("suite")
        wanted = against_suite(self.folder.parent, suite, config(**settings, extract=extract, dedup=dedup))
        left = outcome(self.store, sources, wanted, self.executor)
        self.executor = InlineExecutor()
        assert left == self.fresh.of(sources, wanted)
        if isinstance(left, dict):
            assert not any(computed(run(self.store, sources, wanted)).values())
        assert not list((self.store.root / "tmp").iterdir())

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


def test_any_history_leaves_what_a_first_build_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pipelines.storage.folder.fsync", lambda _path: None
    )  # no power fails here, and it is most of the time
    fresh = FreshBuilds(tmp_path / "fresh")
    histories = tmp_path / "histories"
    histories.mkdir()
    with open_executor(2) as pool:
        run_machine(
            lambda: History(histories, fresh, pool),
            settings=settings(
                max_examples=12,
                stateful_step_count=8,
                deadline=None,
                phases=[Phase.reuse, Phase.generate],  # eight steps read well enough unshrunk
                suppress_health_check=list(HealthCheck),
            ),
        )


# single cases that a random history meets too seldom


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def files(folder: Path, *names: str) -> list[SourceFile]:
    """A source file of each name, each with its own part of the same corpus."""
    return [source(write_file(folder / name, pages)) for name, pages in zip(names, START, strict=False)]


def test_units_do_not_depend_on_order_or_names(store, tmp_path):
    sources = files(tmp_path, "a.warc.gz", "b.jsonl", "c.warc.gz")
    moved = [replace(item, path=f"/elsewhere/{Path(item.path).name}") for item in sources]
    extract = corpus_nodes(config())[0]
    assert len(names := [unit.name for unit in units_of(extract, sources, {})]) == 3
    for listed in ([*moved, sources[0]], sources[::-1]):
        assert [unit.name for unit in units_of(extract, listed, {})] == names


def test_equal_rows_in_two_packings_are_measured_once(store, tmp_path):
    plain = write_file(tmp_path / "rows.jsonl", START[0])
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    seen: list[Progress] = []
    results = run(store, [source(plain), source(packed)], config(), on_progress=seen.append)
    assert computed(results) | {"extract": 2, "signals": 1, "policy": 1} == computed(results)
    assert (results["signals"].num_reused, results["signals"].manifest.num_rows) == (1, 10)
    last = {progress.stage: progress for progress in seen}
    assert all(progress.num_done == progress.num_shards for progress in last.values())


def test_the_same_bytes_as_rows_and_as_one_text_are_two_inputs(tmp_path):
    rows = write_file(tmp_path / "rows.jsonl", START[0])
    text = Path(shutil.copy(rows, tmp_path / "rows.txt"))
    left = [
        outcome(Store(tmp_path / f"store{number}"), sources, config(redact=None))
        for number, sources in enumerate([[source(rows), source(text)], [source(text), source(rows)], [source(rows)]])
    ]
    assert left[0] == left[1]
    assert [len(content["extract"]) for content in left] == [2, 2, 1]


NO_PAGE = "got no page from any source"
NONE_KEPT = "and kept none"


@pytest.mark.parametrize(
    ("names", "reason", "num_documents"),
    [([], NO_PAGE, 0), (["empty.jsonl"], NO_PAGE, 0), (["empty.warc.gz"], NONE_KEPT, 1)],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_comes_in(store, tmp_path, names, reason, num_documents, num_workers):
    sources = [source(write_file(tmp_path / name, [])) for name in names]
    with open_executor(num_workers) as executor:
        for _ in range(2):
            with pytest.raises(EmptyCorpusError, match=reason):
                run(store, sources, config(), executor)
    assert sum(record.counts[0].get("documents", 0) for _, record in store.records() if record.counts) == num_documents


def test_an_empty_file_beside_a_full_one_changes_nothing_but_itself(store, tmp_path):
    full = files(tmp_path, "a.warc.gz", "b.jsonl")
    before = content(store, run(store, full, config()))
    empty = [source(write_file(tmp_path / name, [])) for name in ("empty.jsonl", "empty.warc.gz")]
    after = content(store, run(store, [*full, *empty], config()))
    for stage in before:
        assert {data for _, data in before[stage]} <= {data for _, data in after[stage]}
    added = [entry for entry, _ in after["extract"] if entry not in [entry for entry, _ in before["extract"]]]
    assert sorted(entry.shard.num_rows for entry in added) == [0, 1]


def outcomes(*names: str) -> pa.RecordBatch:
    """Outcomes of documents; of every third one, much is null."""
    rows = [
        {
            "doc_id": name,
            "decision": "drop",
            "reason": None if number % 3 else "duplicate_near",
            "duplicate_of": None if number % 3 else name,
            "similarity": None if number % 3 else number / 100,
            "split": "train",
            "cut_lines": [{"line": number, "first_shown_by": name}] * (number % 3),
        }
        for number, name in enumerate(names)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=schemas.OUTCOME)


@given(num_rows=st.integers(1, 20), start=st.integers(0, 11).map(lambda number: 3 * number), more=st.integers(0, 20))
def test_equal_rows_are_equal_bytes_whatever_they_were_cut_from(num_rows, start, more):
    alone = outcomes(*(f"文{number}" for number in range(num_rows)))
    around = pa.concat_batches([outcomes(*"x" * start), alone, outcomes(*"y" * more)])
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        assert store.write(schemas.OUTCOME, [around.slice(start, num_rows)]) == store.write(schemas.OUTCOME, [alone])


WITHDRAWALS = {"gone": "http_404", "opt_out": "rights_disallow", "shut_out": "rights_ai_agents", "reserved": "reserved"}


OFF = DedupConfig(exact=False, near=False, superseded=False)


@pytest.mark.parametrize(
    ("fate", "dedup"), [("gone", DedupConfig()), ("opt_out", OFF), ("shut_out", OFF), ("reserved", DedupConfig())]
)
def test_an_opt_out_takes_the_page_out_of_the_next_build_until_it_is_lifted(store, tmp_path, monkeypatch, fate, dedup):
    monkeypatch.setattr("pipelines.storage.folder.fsync", lambda _path: None)
    page = START[0][0]

    def reasons(*nights: list[Page]) -> dict[int, str | None]:
        """Reason of each version of the page, by the day it was fetched, after the last of the nights."""
        for number, pages in enumerate(nights):
            sources.append(source(write_file(tmp_path / f"night{len(sources)}-{number}.warc.gz", pages)))
        results = run(store, sources, wanted)
        fresh = Store(tmp_path / f"fresh{len(sources)}")
        assert content(store, results) == content(fresh, run(fresh, sources[::-1], wanted))
        rows = read_aligned(
            store,
            (results["signals"].manifest, ("doc_id", "url", "fetched_at")),
            (results["dedup"].manifest, ("doc_id", "reason")),
        )
        found = [row for _, batch in rows for row in batch.to_pylist()]
        ours = next(row["url"] for row in found if row["fetched_at"].day == 1 and row["url"].endswith(f"/{page.url}"))
        return {row["fetched_at"].day - 1: row["reason"] for row in found if row["url"] == ours}

    sources: list[SourceFile] = []
    wanted = config(dedup=replace(dedup, validation_ratio=0.2))
    assert reasons(START[0], START[1]) == {0: None}
    withdrawn = {0: "withdrawn", 20: WITHDRAWALS[fate]}
    assert reasons([replace(page, day=20, fate=fate)]) == withdrawn
    assert reasons([replace(page, day=22, fate="failed")]) == withdrawn | {22: "http_503"}
    before = "superseded" if dedup.superseded else None
    back = {0: before, 20: WITHDRAWALS[fate], 22: "http_503", 24: None}
    assert reasons([replace(page, text=8, day=24)]) == back


def test_nothing_survives(store, tmp_path):
    sources = files(tmp_path, "a.warc.gz", "b.jsonl")
    with pytest.raises(EmptyCorpusError, match=r"got 9 documents and kept none \(gopher_short_doc 9\), .* loosen"):
        run(store, sources, config(min_words=10_000))
    assert computed(run(store, sources, config()))["signals"] == 0, "what was measured stays"


def test_a_given_tokenizer_is_an_input_by_content(store, tmp_path):
    sources = files(tmp_path, "a.warc.gz", "b.jsonl")
    trained = run(store, sources, config())
    wanted = config(vocab_size=300)
    given = tokenizer_resource(wanted, {name: result.manifest for name, result in trained.items()}, store)
    other = Store(tmp_path / "other")
    same = given_tokenizer_resource(other, tokenizer_json(given))
    assert same.digest == given.digest
    results = run(store, sources, replace(wanted, tokenizer=same))
    assert computed(results) == dict.fromkeys(
        ("extract", "signals", "toxicity", "policy", "sources", "bands", "index", "near", "lines", "dedup", "tokenize"),
        0,
    )
    assert content(store, results)["tokenize"] == content(store, trained)["tokenize"]
    smaller = run(other, sources, config(vocab_size=257))
    resource = tokenizer_resource(wanted, {name: result.manifest for name, result in smaller.items()}, other)
    assert computed(run(store, sources, replace(wanted, tokenizer=resource)))["tokenize"] == 2


@pytest.mark.parametrize(
    "stage", ["extract", "signals", "toxicity", "policy", "bands", "index", "near", "dedup", "sample", "tokenizer"]
)
def test_rot_that_keeps_the_time_is_found_by_who_reads_and_then_mended(store, tmp_path, stage):
    sources = files(tmp_path, "a.warc.gz", "b.jsonl")
    first = run(store, sources, config())
    path = store.shard_path(first[stage].manifest.entries[0].shard.digest)
    sealed_at = path.stat().st_mtime_ns
    path.chmod(0o644)
    flip(path)
    os.utime(path, ns=(sealed_at, sealed_at))
    records = store.root / "records"
    for name in list(first)[list(first).index(stage) + 1 :]:
        shutil.rmtree(records / name)
    with pytest.raises((StageError, IntegrityError), match="run the same command again"):
        run(store, sources, config())
    mended = run(store, sources, config())
    assert mended[stage].num_computed == 1
    assert content(store, mended) == content(store, run(Store(tmp_path / "fresh"), sources, config()))


def test_a_file_that_changes_during_the_run_is_refused(store, tmp_path):
    sources = files(tmp_path, "a.warc.gz", "b.jsonl")
    path = Path(sources[1].path)
    listed = path.read_bytes()
    with pytest.raises(StageError, match=r"1 of 2 shards .*b\.jsonl that changed during the run"):
        run(store, sources, config(), on_progress=lambda _: write_file(path, START[2]))
    path.write_bytes(listed)
    assert computed(run(store, sources, config()))["extract"] == 1
    path.unlink()
    shutil.rmtree(store.root / "records")
    with pytest.raises(StageError, match=r"1 of 2 shards .* No such file or directory for source file"):
        run(store, sources, config())


def test_a_digest_is_remembered_only_for_a_file_at_rest(tmp_path):
    memory, path = tmp_path / "digests.json", tmp_path / "file"
    for data in (b"one", b"two") * 10:  # of one size, and mostly in one tick of the file system's clock
        path.write_bytes(data)
        assert digest_files([path], memory) == {path: digest_bytes(data)}
    assert not memory.exists()
    memory.write_text(json.dumps({str(path.resolve()): 3}))
    assert digest_files([path], memory) == {path: digest_bytes(b"two")}


def test_a_file_at_rest_is_not_read_again(tmp_path, monkeypatch):
    memory, path = tmp_path / "digests.json", tmp_path / "file"
    path.write_bytes(b"one")
    later = time.time_ns() + 3_000_000_000
    monkeypatch.setattr("pipelines.inputs.time.time_ns", lambda: later)
    found = digest_files([path], memory)
    monkeypatch.setattr("pipelines.inputs.digest_file", lambda _path: pytest.fail("read again"))
    assert digest_files([path], memory) == found
