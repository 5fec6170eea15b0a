"""The plan against what the build after it really computes, stage by stage."""

import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from corpora import Page, computed, config, run, source, write_file
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipelines.corpus import CorpusConfig
from pipelines.dedup import DedupConfig
from pipelines.errors import EmptyCorpusError, StageError
from pipelines.extract import ExtractConfig
from pipelines.materialize import StageResult
from pipelines.plan import StagePlan, plan_corpus
from pipelines.store import Store
from pipelines.work import SourceFile

PARTS = [
    [Page(text=text, url=text, day=text) for text in range(6)],
    [Page(text=2, url=2, day=9), Page(text=7, url=7, day=9), Page(text=1, url=11, day=9)],
    [Page(text=8, url=8, day=10), Page(text=9, url=9, day=10, fate="opt_out"), Page(text=10, url=10, day=10)],
]
LATER = [Page(text=12, url=30, day=40), Page(text=3, url=32, day=40)]
MAPS = ("extract", "signals", "toxicity", "policy", "bands", "lines", "tokenize")
STAGES = (
    "extract",
    "signals",
    "toxicity",
    "policy",
    "sources",
    "bands",
    "index",
    "near",
    "lines",
    "dedup",
    "sample",
    "tokenizer",
    "tokenize",
)


class Corpus:
    """A store, three source files, and the last build of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        self.sources = [self.file(f"{number}.warc.gz", pages) for number, pages in enumerate(PARTS)]

    def file(self, name: str, pages: Sequence[Page]) -> SourceFile:
        return source(write_file(self.folder / name, pages))

    def build(self, wanted: CorpusConfig) -> dict[str, StageResult]:
        results = run(self.store, self.sources, wanted)
        for result in results.values():
            self.store.set_ref("recipe", result.manifest)
        return results

    def plan(self, wanted: CorpusConfig) -> dict[str, StagePlan]:
        """The plan, and that it left the store as it was, down to the times of its files."""
        before = listing(self.store)
        plans = plan_corpus(self.store, "recipe", self.sources, wanted)
        assert listing(self.store) == before
        return {plan.name: plan for plan in plans}

    def check(self, wanted: CorpusConfig) -> tuple[dict[str, StagePlan], dict[str, int]]:
        """Plan and build; the plan must hold."""
        plans = self.plan(wanted)
        real = computed(self.build(wanted))
        assert list(plans) == list(real)
        check_bounds(plans, real)
        return plans, real


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path)


@pytest.fixture
def built(corpus):
    corpus.build(config())
    return corpus


def listing(store: Store) -> dict[str, tuple[int, int, int]]:
    found = {str(path): path.stat() for path in store.root.rglob("*")}
    return {path: (status.st_size, status.st_mtime_ns, status.st_ino) for path, status in found.items()}


def check_bounds(plans: Mapping[str, StagePlan], real: Mapping[str, int]) -> None:
    for name, num_computed in real.items():
        plan = plans[name]
        assert plan.compute <= num_computed <= plan.at_most, f"{name}: {plan} but {num_computed}"
        assert plan.compute + plan.reuse == plan.shards
        assert sum(plan.reasons.values()) == plan.at_most


def exact(plans: Mapping[str, StagePlan]) -> dict[str, int]:
    """What the plan says exactly."""
    return {name: plan.compute for name, plan in plans.items() if plan.compute == plan.at_most}


def reasons(plans: Mapping[str, StagePlan]) -> dict[str, dict[str, int]]:
    return {name: dict(plan.reasons) for name, plan in plans.items() if plan.reasons}


def test_an_empty_store(corpus):
    plans, real = corpus.check(config())
    assert exact(plans) == real == {**dict.fromkeys(STAGES, 1), **dict.fromkeys(MAPS, 3)}
    assert reasons(plans)["extract"] == {"new input": 3}


def test_nothing_changed(built):
    plans, real = built.check(config())
    assert exact(plans) == real == dict.fromkeys(STAGES, 0)
    assert reasons(plans) == {}


def test_a_changed_threshold_is_exact(built):
    plans, real = built.check(config(min_words=130))
    assert exact(plans) == {
        **exact(plans),
        "extract": 0,
        "signals": 0,
        "toxicity": 0,
        "policy": 3,
        "dedup": 1,
        "sample": 1,
    }
    assert real["policy"] == 3
    (reason,) = plans["policy"].reasons
    assert reason.startswith("config changed: quality.per_language.en.min_words 30 -> 130")
    assert plans["dedup"].reasons == {"inputs changed": 1}


def test_a_threshold_that_changes_no_verdict_stops_there(built):
    plans, real = built.check(config(min_words=31))
    assert exact(plans) == real == {**dict.fromkeys(STAGES, 0), "policy": 3}


def test_a_new_file_with_later_pages(built):
    built.sources.append(built.file("later.warc.gz", LATER))
    plans, real = built.check(config())
    assert exact(plans) == {
        "extract": 1,
        "signals": 1,
        "toxicity": 1,
        "policy": 1,
        "sources": 1,
        "bands": 1,
        "index": 1,
        "near": 1,
        "lines": 1,
        "dedup": 1,
        "sample": 1,
    }
    assert (plans["tokenize"].compute, plans["tokenize"].at_most) == (1, 4)
    assert real == {**dict.fromkeys(STAGES, 1), "tokenizer": 0}, "the sample is the first-seen text, so it stays"
    assert plans["signals"].reasons == {"its input will be computed": 1}
    assert plans["tokenize"].reasons == {"its input will be computed": 1, "the tokenizer may change": 3}


def test_a_file_less_is_exact(built):
    del built.sources[0]
    plans, real = built.check(config())
    expected = {
        "extract": 0,
        "signals": 0,
        "toxicity": 0,
        "policy": 0,
        "sources": 1,
        "bands": 0,
        "index": 1,
        "near": 1,
        "lines": 0,
        "dedup": 1,
        "sample": 1,
        "tokenizer": 1,
    }
    assert exact(plans) == real == {**expected, "tokenize": 2}, "the sample lost its first pages"


def test_a_file_that_comes_back_is_known(built):
    gone = built.sources.pop()
    built.build(config())
    built.sources.append(gone)
    plans, real = built.check(config())
    assert exact(plans) == real == dict.fromkeys(STAGES, 0)


def test_a_changed_vocabulary(built):
    plans, real = built.check(config(vocab_size=320))
    assert exact(plans) == real == {**dict.fromkeys(STAGES[:-2], 0), "tokenizer": 1, "tokenize": 3}
    assert plans["tokenizer"].reasons == {"config changed: vocab_size 300 -> 320": 1}
    (reason,) = plans["tokenize"].reasons
    assert reason.startswith("config changed: tokenizer.digest ")
    assert len(reason) < 90


def test_a_vocabulary_larger_than_the_text_yields_changes_no_token(corpus):
    corpus.build(config(vocab_size=20_000))
    plans, real = corpus.check(config(vocab_size=20_001))
    assert (plans["tokenize"].compute, real["tokenize"], plans["tokenize"].at_most) == (0, 0, 0)


def test_personal_data_left_in(built):
    plans, real = built.check(config(redact=None))
    assert exact(plans) == real == {**dict.fromkeys(STAGES[:-3], 0), "sample": 1, "tokenizer": 1, "tokenize": 3}
    assert plans["sample"].reasons == {"config changed: redact ['email'] -> None": 1}


def test_a_changed_extraction_may_change_all_or_nothing(built):
    plans, real = built.check(config(extract=ExtractConfig(min_main_chars=199)))
    assert real == {**dict.fromkeys(STAGES, 0), "extract": 3}
    assert {name: plan.at_most for name, plan in plans.items()} == {
        **dict.fromkeys(STAGES, 1),
        **dict.fromkeys(MAPS, 3),
    }
    assert plans["extract"].reasons == {"config changed: min_main_chars 200 -> 199": 3}
    assert plans["signals"].reasons == {"its input may change": 3}


# Where no source is refused, a shard of the sources stage is the policy's own.
@pytest.mark.parametrize(
    ("kind", "stage"),
    [(kind, stage) for kind in ("shard", "record") for stage in STAGES if (kind, stage) != ("shard", "sources")],
)
def test_what_is_damaged_is_made_again_and_no_more(built, stage, kind):
    results = built.build(config())
    entry = results[stage].manifest.entries[0]
    path = built.store.shard_path(entry.shard.digest)
    if kind == "record":
        path = built.store.root / "records" / stage / entry.key[:2] / entry.key
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-3])
    plans, real = built.check(config())
    assert exact(plans) == real == {**dict.fromkeys(STAGES, 0), stage: 1}
    assert plans[stage].reasons == {"its shard is missing or damaged": 1}


def test_a_damaged_shard_that_others_need(built):
    """Policy cannot be tried on a shard that is gone, so what follows stays open."""
    entry = built.build(config())["signals"].manifest.entries[0]
    built.store.shard_path(entry.shard.digest).unlink()
    plans, _ = built.check(config(min_words=130))
    assert exact(plans) == {"extract": 0, "signals": 1, "toxicity": 0, "policy": 3, "bands": 0, "index": 0, "lines": 0}


def test_a_touched_store_stays_touched(built):
    """Planning reads only: it neither seals a shard anew nor moves one aside (the listing is compared in `plan`)."""
    for path in built.store.root.glob("objects/*/*"):
        path.chmod(0o644)
        path.touch()
    assert exact(built.plan(config())) == dict.fromkeys(STAGES, 0)


def test_no_sources(built):
    built.sources = []
    plans = built.plan(config())
    assert (plans["extract"].shards, plans["dedup"].compute, plans["tokenize"].shards) == (0, 1, 0)
    with pytest.raises(EmptyCorpusError, match="got no page from any source"):
        built.build(config())


def test_nothing_would_be_kept(built):
    plans = built.plan(config(min_words=10_000))
    assert (plans["policy"].compute, plans["dedup"].compute) == (3, 1)


def test_a_killed_first_build_is_known_shard_by_shard(corpus):
    def stop(progress):
        if progress.stage == "signals" and progress.num_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(corpus.store, corpus.sources, config(), on_progress=stop)
    plans, real = corpus.check(config())
    assert {name: exact(plans)[name] for name in ("extract", "signals", "policy")} == {
        "extract": 0,
        "signals": 1,
        "policy": 3,
    }
    assert real["signals"] == 1


SETTINGS = {
    "min_words": (30, 31, 140, 180),
    "vocab_size": (257, 300),
    "redact": (("email",), None),
    "dedup": (DedupConfig(validation_ratio=0.2), DedupConfig(near=False), DedupConfig(superseded=False)),
}


@given(seeds=st.lists(st.integers(0, 1 << 20), min_size=4, max_size=4))
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_plan_holds_whatever_is_changed(tmp_path, monkeypatch, seeds):
    """A few changes at once, from build to build of one store: a build computes what must be, and never more than may be."""
    monkeypatch.setattr("pipelines.storage.folder.fsync", lambda _path: None)
    shutil.rmtree(tmp_path, ignore_errors=True)
    corpus = Corpus(tmp_path)
    wanted = {name: values[0] for name, values in SETTINGS.items()}
    corpus.build(config(**wanted))
    for seed in seeds:
        rng = random.Random(seed)
        for _ in range(rng.randrange(1, 4)):
            change(corpus, wanted, rng)
        plans = corpus.plan(config(**wanted))
        try:
            real = computed(corpus.build(config(**wanted)))
        except (EmptyCorpusError, StageError):
            continue
        check_bounds(plans, real)


def change(corpus: Corpus, wanted: dict[str, object], rng: random.Random) -> None:
    """One change of the sources, of the config or of the store."""
    match rng.randrange(5):
        case 0:
            pages = [Page(text=rng.randrange(12), url=rng.randrange(9), day=rng.randrange(40)) for _ in range(4)]
            corpus.sources.append(corpus.file(f"new{rng.random()}.{rng.choice(('warc.gz', 'jsonl'))}", pages))
        case 1 if len(corpus.sources) > 1:
            del corpus.sources[rng.randrange(len(corpus.sources))]
        case 2 | 3:
            name = rng.choice(sorted(SETTINGS))
            wanted[name] = rng.choice(SETTINGS[name])
        case _:
            paths = sorted(corpus.store.root.glob(rng.choice(("objects/*/*", "records/*/*/*"))))
            path = rng.choice(paths)
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1])
