"""A page that crashes, hangs or swells a worker is one row with a problem; everything else comes out as without it."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import corpora
import psutil
import pyarrow as pa
import pytest
from corpora import Page, config, content, source, write_file
from hypothesis import given
from hypothesis import strategies as st
from poisonous_stages import (
    BUDGET,
    POISONED_EXTRACT,
    POISONED_STAGE,
    POISONS,
    ROW,
    PoisonConfig,
)

import pipelines.corpus
from pipelines.errors import StageError
from pipelines.executor import BesideExecutor, open_executor
from pipelines.explain import stories
from pipelines.guard import CRASHED, TIMED_OUT, marked
from pipelines.isolation import MAX_MARKED, Case, Death, OpenRow, Run, Search
from pipelines.materialize import materialize, works_of
from pipelines.report import funnel
from pipelines.store import Store
from pipelines.work import Unit, run_work

PROBLEMS = {
    "abort": CRASHED,
    "leave": CRASHED,
    "swell": CRASHED,
    "fail": CRASHED,
    "spin": TIMED_OUT,
    "backtrack": TIMED_OUT,
    "wait": TIMED_OUT,
}


def rows(*texts):
    ids = [f"doc{idx}" for idx in range(len(texts))]
    return pa.RecordBatch.from_pydict({"doc_id": ids, "text": list(texts), "problem": [None] * len(texts)}, schema=ROW)


def put(store, *batches):
    shard = store.write(ROW, [rows(*texts) for texts in batches])
    return Unit(shard.digest, (shard,))


def run(store, units, executor, poison=None, on_progress=lambda _progress: None):
    return materialize(store, POISONED_STAGE, poison or PoisonConfig(), units, executor, on_progress).manifest


def read(store, manifest):
    return [row for entry in manifest.entries for batch in store.read(entry.shard) for row in batch.to_pylist()]


def bytes_of(store, manifest):
    return [store.shard_path(entry.shard.digest).read_bytes() for entry in manifest.entries]


def expected(store, units, problems, poison=None):
    """The bytes of a build in which the given rows came in with the given problems, and nothing was poisonous."""
    poison = replace(poison or PoisonConfig(), is_harmless=True)
    (work,) = works_of(POISONED_STAGE, poison, units)
    record = run_work(store, replace(work, marks=problems), lambda _: None)
    return store.shard_path(record.shards[0].digest).read_bytes()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_every_poison_is_tested():
    assert PROBLEMS.keys() == POISONS.keys()


@pytest.mark.parametrize("poison", PROBLEMS)
def test_a_poisonous_row_is_an_outcome_and_the_others_are_as_they_were(store, poison):
    unit = put(store, ["one", "two"], ["three", poison, "五"])
    with open_executor(1) as pool:
        manifest = run(store, [unit], pool)
    assert [row["problem"] for row in read(store, manifest)] == [None, None, None, PROBLEMS[poison], None]
    assert bytes_of(store, manifest) == [expected(store, [unit], {3: PROBLEMS[poison]})]


@pytest.mark.parametrize(
    "batches",
    [
        [["abort"]],
        [["abort", "one", "two"]],
        [["one", "two", "abort"]],
        [["abort", "one"], ["fail"], ["two", "leave"]],
        [["one"], ["fail", "fail", "leave"], ["two"]],
    ],
    ids=["only", "first", "last", "several", "neighbours"],
)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_wherever_they_stand_and_however_many(store, batches, num_workers):
    texts = [text for batch in batches for text in batch]
    problems = {row: PROBLEMS[text] for row, text in enumerate(texts) if text in PROBLEMS}
    units = [put(store, *batches), put(store, ["another", "shard"])]
    with open_executor(num_workers) as executor:
        manifest = run(store, units, executor)
    assert [row["problem"] for row in read(store, manifest)][: len(texts)] == [
        problems.get(row) for row in range(len(texts))
    ]
    assert bytes_of(store, manifest)[0] == expected(store, units[:1], problems)


def test_a_fresh_build_comes_to_the_same_and_a_second_run_computes_nothing(tmp_path):
    contents = []
    for name in ("first", "fresh"):
        store = Store(tmp_path / name)
        units = [put(store, ["one", "abort"]), put(store, ["spin"])]
        with open_executor(2) as pool:
            manifest = run(store, units, pool)
            again = materialize(store, POISONED_STAGE, PoisonConfig(), units, pool, lambda _: None)
        assert (again.num_computed, again.manifest) == (0, manifest)
        contents.append((manifest, bytes_of(store, manifest)))
    assert contents[0] == contents[1]


def test_a_worker_killed_from_outside_costs_no_page(store, tmp_path):
    unit = put(store, ["one", "two"])
    poison = PoisonConfig(die_once_in=str(tmp_path))
    with open_executor(1) as pool:
        manifest = run(store, [unit], pool, poison)
    assert [row["problem"] for row in read(store, manifest)] == [None, None]
    assert bytes_of(store, manifest) == [expected(store, [unit], {}, poison)]


def test_many_slow_rows_in_one_batch_are_not_too_slow(store):
    slow = PoisonConfig(slow_seconds=BUDGET.seconds / 4)
    unit = put(store, ["slow"] * 8)
    with open_executor(1) as pool:
        manifest = run(store, [unit], pool, slow)
    assert [row["problem"] for row in read(store, manifest)] == [None] * 8


def test_more_poison_than_chance_puts_into_a_shard_fails_it_and_names_the_pages(store):
    units = [put(store, ["fine"] + ["fail"] * (MAX_MARKED + 1)), put(store, ["fine"])]
    with (
        open_executor(1) as pool,
        pytest.raises(StageError, match=r"got 33 pages .*row 1 \(page_crashed\), row 2 .*and 25 more"),
    ):
        run(store, units, pool)
    assert store.find("poisoned", works_of(POISONED_STAGE, PoisonConfig(), units[1:])[0].key) is not None


def test_where_no_page_survives_it_is_not_the_pages(store):
    with open_executor(1) as pool, pytest.raises(StageError, match=r"got 5 pages .*wanted some that one survives"):
        run(store, [put(store, ["fail"] * 5)], pool)


def test_what_is_wrong_with_the_machine_is_no_pages_fault(store):
    with open_executor(1) as pool, pytest.raises(StageError, match="ImportError: no module"):
        run(store, [put(store, ["fine", "break_installation"])], pool)


def test_progress_counts_each_row_once(store):
    seen = []
    with open_executor(1) as pool:
        run(store, [put(store, ["one", "two"], ["abort", "three"])], pool, on_progress=seen.append)
    assert seen[-1].num_rows == 4


def build(pipe, store, unit):
    with open_executor(1) as pool:
        run(store, [unit], pool, on_progress=lambda progress: pipe.send(progress.num_rows))


def test_no_worker_outlives_a_killed_parent_not_even_one_that_lets_no_thread_run(store):
    unit = put(store, ["one"], ["backtrack"])
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=build, args=(theirs, store, unit))
    process.start()
    while ours.recv() != 1:
        pass
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.join()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]
    with open_executor(1) as pool:
        assert bytes_of(store, run(store, [unit], pool)) == [expected(store, [unit], {1: TIMED_OUT})]


def test_an_executor_without_workers_starts_a_process_only_for_what_has_a_budget(store, tmp_path):
    with open_executor(0) as executor:
        assert isinstance(executor, BesideExecutor)
        unguarded = replace(POISONED_STAGE, budget=None)
        materialize(store, unguarded, PoisonConfig(), [put(store, ["one"])], executor, lambda _: None)
        assert not executor._pool._workers
        run(store, [put(store, ["abort"])], executor)
        assert executor._pool._workers


def test_a_damaged_input_is_no_pages_fault(store):
    unit = put(store, ["one"])
    store.shard_path(unit.name).unlink()
    with open_executor(1) as pool, pytest.raises(StageError, match="got a damaged or missing shard"):
        run(store, [unit], pool)


# the memory of a process


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")  # noqa: PTH110
def test_memory_is_bounded_only_within_the_block():
    """In a process of its own: this one may hold freed memory, which costs a row nothing."""
    code = textwrap.dedent(
        """
        import pytest
        from pipelines.guard import bounded_memory
        from pipelines.stage import RowBudget
        with bounded_memory(RowBudget(seconds=1, memory_bytes=64 << 20)), pytest.raises(MemoryError):
            bytearray(128 << 20)
        assert len(bytearray(128 << 20)) == 128 << 20
        with bounded_memory(None):
            assert len(bytearray(128 << 20)) == 128 << 20
        """
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# the order of steps


def case():
    (work,) = works_of(POISONED_STAGE, PoisonConfig(), [Unit("unit", ())])
    return Case(work)


def crash(row=None, *, problem=CRASHED, num_rows=0):
    return Death(
        problem=problem,
        message="it died twice",
        row=None if row is None else OpenRow(row, f"row {row}"),
        num_rows=num_rows,
    )


def test_a_search_starts_where_the_run_was_and_blames_a_row_that_kills_twice():
    found = case()
    search = found.after_death(Run(found.work), crash(num_rows=7))
    assert search == Search(found.work, 7)
    again = found.after_death(search, crash(9))
    assert again == Search(found.work, 9)
    on = found.after_death(again, crash(9))
    assert (on.first_row, on.work.marks) == (10, {9: CRASHED})
    last = found.after_search()
    assert last == Run(on.work, is_patient=True)


def test_deaths_at_different_rows_blame_none():
    found = case()
    search = found.after_death(Run(found.work), crash())
    for row in (3, 8):
        search = found.after_death(search, crash(row))
        assert isinstance(search, Search)
    assert found.after_death(search, crash(12)) == "it died twice"
    assert not found.marks


def test_a_death_that_no_row_explains_is_forgiven_once():
    found = case()
    found.after_death(Run(found.work), crash())
    rerun = found.after_search()
    assert rerun == Run(found.work, is_patient=True)
    found.after_death(rerun, crash())
    assert found.after_search() == "it died twice"


def test_a_reader_that_dies_is_no_rows_fault():
    found = case()
    search = found.after_death(Run(found.work), crash())
    assert found.after_death(search, crash()) == search
    assert found.after_death(search, crash()) == "it died twice"


@given(st.lists(st.sampled_from(["no row", "end", *range(4)]), max_size=400))
def test_however_workers_die_it_comes_to_an_end(events):
    found = case()
    task = found.after_death(Run(found.work), crash())
    for num_steps, event in enumerate(events):
        assert num_steps < 40
        if isinstance(task, str):
            break
        if isinstance(task, Run):
            task = found.after_death(task, crash())
        elif event == "end":
            task = found.after_search()
        elif event == "no row":
            task = found.after_death(task, crash())
        else:
            task = found.after_death(task, crash(max(event, task.first_row)))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.dictionaries(st.integers(0, 12), st.just(CRASHED)))
def test_marks_go_by_the_place_in_the_whole_whatever_the_batches(sizes, marks):
    batches = list(marked([rows(*"x" * size) for size in sizes], marks))
    problems = [problem for batch in batches for problem in batch.column("problem").to_pylist()]
    assert problems == [marks.get(row) for row in range(sum(sizes))]
    assert all(batch.schema == ROW for batch in batches)


# whole builds


def poison(page_text, name):
    return corpora._http(page_text).replace(b"<main>", f"<main><p>poison: {name}</p>".encode())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_build_with_poisonous_pages_tells_of_them(tmp_path, monkeypatch, num_workers):
    """WARC and text rows; English and Chinese; first, in the middle and last."""
    poisons = {0: "backtrack", 3: "abort", 6: "fail"}
    pages = [Page(text=number, url=number, day=number) for number in range(7)]
    http = corpora._http

    def poisoned(page):
        body = http(page)
        name = poisons.get(page.text)
        return body.replace(b"<main>", f"<main><!-- poison: {name} -->".encode()) if name else body

    monkeypatch.setattr(corpora, "_http", poisoned)
    paths = [write_file(tmp_path / "a.warc.gz", pages), write_file(tmp_path / "b.jsonl", [Page(text=9, url=30)])]
    sources = [source(path) for path in paths]
    harmless_store, store = Store(tmp_path / "harmless"), Store(tmp_path / "store")
    harmless = corpora.run(harmless_store, sources, config())
    monkeypatch.setattr(pipelines.corpus, "EXTRACT", POISONED_EXTRACT)
    with open_executor(num_workers) as executor:
        results = corpora.run(store, sources, config(), executor)
        again = corpora.run(store, sources, config(), executor)
    assert content(store, again) == content(store, results)
    assert not any(result.num_computed for result in again.values())

    done = {name: result.manifest for name, result in results.items()}
    outcome = {name: PROBLEMS[poison] for name, poison in poisons.items()}
    before, after = (
        {row["doc_id"]: row for row in read(*each)}
        for each in ((harmless_store, harmless["extract"].manifest), (store, done["extract"]))
    )
    assert before.keys() == after.keys()
    for doc_id, row in after.items():
        number = int(row["url"].rpartition("/")[2])
        assert row["problem"] == outcome.get(number)
        assert row == before[doc_id] or number in outcome
    counted = funnel(done)
    assert counted.dropped[CRASHED] == 2
    assert counted.dropped[TIMED_OUT] == 1
    assert counted.num_in == counted.num_kept + sum(counted.dropped.values()) == 8
    for number, problem in outcome.items():
        url = corpora._url(pages[number])
        (story,) = stories(store, done, config().policy, url)
        assert story["document"]["problem"] == story["outcome"]["reason"] == problem
        assert story["tokens"] is None
