"""Items that stand in training text, and scores with and without them."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.evaluation.contaminated_items import Contaminated, clean_and_dirty, find_items, mark_contaminated
from llm.data import TokenDocument
from llm.evaluation.bias import differs_from
from llm.evaluation.compare import from_json, to_json
from llm.evaluation.statistics import mean_figure
from llm.evaluation.suite import Suite, SuiteResult
from pipelines.errors import ConfigError
from pipelines.suites import Item

LONG = "the ferry from the old harbour leaves at seven in the morning and comes back before the tide has turned"
OTHER = "nobody on the island remembers who planted the three walnut trees that stand behind the school near the well"
ZH = "清晨第一班渡船从老码头开出去的时候，岸边的灯还没有熄，卖豆浆的人已经把炉子烧热了。"
ZH_OTHER = "祠堂后面的三棵核桃树是谁种下的，如今村里再也没有一个人能说得清楚，只有井边的石碑还在。"


def item(name: str, *passages: str) -> Item:
    return Item(suite="s", item_id=name, passages=passages)


def result(scores: dict[str, float]) -> SuiteResult:
    suite = Suite(
        name="s", version=1, protocol="p", metric="accuracy", higher_is_better=True, dataset_digest="d", noise_floor=0
    )
    items = [{"id": name, "score": score} for name, score in scores.items()]
    return SuiteResult(suite=suite, figures={"accuracy": mean_figure(list(scores.values()))}, items=items)


@pytest.mark.parametrize(("dirty", "clean"), [(LONG, OTHER), (ZH, ZH_OTHER)])
def test_a_quotation_makes_an_item_dirty(dirty: str, clean: str) -> None:
    items = [
        item("dirty", f"{dirty} x"),
        item("clean", clean),
        item("short", "yes"),
        item("again", "why", f"x {dirty}"),
    ]
    seen: list[int] = []
    texts = [("a", "Nothing."), ("b", f"Before. {dirty.upper()} After."), ("c", clean[: len(clean) // 4]), ("d", dirty)]
    found = find_items(items, texts, seen.append)
    assert found.documents == {"dirty": ("b", "d"), "again": ("b", "d")}
    assert found.untold == {"short"}
    assert seen == [1, 2, 3, 4]


def test_equal_short_passages_are_everyones() -> None:
    short = "who rang the bell of the chapel at night"
    items = [item("one", short), item("two", short), item("three", "where does the little road behind the mill lead")]
    assert find_items(items, [("a", f"They asked {short} and why.")]).documents == {"one": ("a",), "two": ("a",)}


def test_an_item_that_shares_a_template_is_not_dirty_by_anothers_text() -> None:
    """Items share their first half; the text holds the second half of one of them alone."""
    second = "when the wind is from the north the bell of the chapel can be heard as far as the quarry"
    items = [item("one", f"{LONG} {OTHER}"), item("two", f"{LONG} {second}")]
    assert find_items(items, [("a", OTHER)]).documents == {"one": ("a",)}
    assert find_items(items, [("a", second)]).documents == {"two": ("a",)}
    assert find_items(items, [("a", LONG)]).documents == {"one": ("a",), "two": ("a",)}


def test_figures_of_clean_and_dirty_items_apart() -> None:
    scores = {f"d{n}": 1.0 for n in range(10)} | {f"c{n}": float(n % 5 == 0) for n in range(20)} | {"u": 1.0}
    found = Contaminated(documents={f"d{n}": ("doc",) for n in range(10)}, untold=frozenset({"u"}))
    split = clean_and_dirty(result(scores), found)
    assert split.figures["accuracy/dirty"].value == 1
    assert from_json(json.loads(json.dumps(to_json(split)))).items == tuple(split.items)
    assert split.figures["accuracy/clean"].value == pytest.approx(0.2)
    assert split.figures["accuracy/untold"].num_items == 1
    assert split.figures["dirty_less_clean"].value == pytest.approx(0.8)
    assert differs_from(split.figures["dirty_less_clean"], 0)
    assert split.figures["share_dirty"].value == pytest.approx(10 / 31)
    assert split.figure == result(scores).figure
    assert [each["contaminated"] for each in split.items[:1]] == [True]
    assert split.items[0]["held_by"] == ["doc"]
    assert split.items[-1]["contaminated"] is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_the_parts_make_up_the_whole(rows: list[tuple[float, bool]]) -> None:
    scores = {str(n): score for n, (score, _) in enumerate(rows)}
    found = Contaminated(
        documents={str(n): ("d",) for n, (_, is_dirty) in enumerate(rows) if is_dirty}, untold=frozenset()
    )
    figures = clean_and_dirty(result(scores), found).figures
    parts = [figures[name] for name in ("accuracy/clean", "accuracy/dirty") if name in figures]
    total = sum(each.value * each.num_items for each in parts)
    assert math.isclose(total / len(rows), figures["accuracy"].value, abs_tol=1e-9)


def test_items_that_count_unequally() -> None:
    """Losses of documents with their numbers of tokens."""
    plain = result({"a": 30.0, "b": 10.0, "c": 8.0})
    weighed = replace(plain, items=[{**item, "weight": w} for item, w in zip(plain.items, (10, 10, 2), strict=True)])
    found = Contaminated(documents={"c": ("d",)}, untold=frozenset())
    figures = clean_and_dirty(weighed, found).figures
    assert figures["accuracy/clean"].value == 2
    assert figures["accuracy/dirty"].value == 4
    assert (figures["dirty_less_clean"].value, figures["dirty_less_clean"].low) == (2, None)


def test_items_of_another_suite_are_refused() -> None:
    with pytest.raises(ConfigError, match="which the suite s has not"):
        clean_and_dirty(result({"a": 1.0}), Contaminated(documents={"b": ("d",)}, untold=frozenset()))


class Texts:
    """A training split of bytes as tokens."""

    def __init__(self, *texts: str) -> None:
        self.rows = [
            TokenDocument(doc_id=f"{number:032x}", num_bytes=len(text.encode()), tokens=np.array(list(text.encode())))
            for number, text in enumerate(texts)
        ]

    def documents(self) -> list[TokenDocument]:
        return self.rows

    @staticmethod
    def decode(ids: Sequence[int]) -> str:
        return bytes(ids).decode()


def test_suites_are_marked_in_one_reading() -> None:
    one = result({"a": 1.0, "b": 0.0, "c": 1.0})
    other = replace(result({"x": 0.5, "y": 0.0}), suite=replace(one.suite, name="t", metric="f1"))
    skipped = SuiteResult(suite=replace(one.suite, name="none"), figures={}, skipped="Too large.")
    items = {
        "s": [item("a", LONG), item("b", OTHER), item("c", "yes")],
        "t": [item("x", ZH_OTHER), item("y", LONG)],
        "none": [item("a", LONG)],
    }
    corpus, seen = Texts("Nothing.", f"Before. {LONG} After.", ZH), []
    marked = mark_contaminated(
        [one, other, skipped], items, corpus.documents, corpus.decode, lambda *each: seen.append(each)
    )
    assert [each["contaminated"] for each in marked[0].items] == [True, False, None]
    assert [each["contaminated"] for each in marked[1].items] == [False, True]
    assert marked[1].items[1]["held_by"] == [f"{1:032x}"]
    assert marked[1].figures["f1/dirty"].value == 0
    assert marked[1].figures["share_dirty"].value == 0.5
    assert "share_searched" not in marked[0].figures
    assert marked[2] == skipped
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_large_corpus_is_searched_in_part_and_says_so() -> None:
    corpus = Texts(*(f"{LONG} {number}" for number in range(200)))
    num_bytes = sum(each.num_bytes for each in corpus.rows)
    (marked,) = mark_contaminated(
        [result({"a": 1.0})], {"s": [item("a", LONG)]}, corpus.documents, corpus.decode, max_bytes=num_bytes // 4
    )
    searched = marked.figures["share_searched"]
    assert searched.value == pytest.approx(0.25, abs=0.01)
    assert 30 < searched.num_items < 70
    assert marked.items[0]["contaminated"] is True


def test_many_items_and_documents_take_a_bounded_time() -> None:
    words = [f"w{number}" for number in range(4000)]
    drawn = np.random.default_rng(0)
    texts = [" ".join(drawn.choice(words, 60)) for _ in range(1500)]
    items = [item(str(number), text) for number, text in enumerate(texts)]
    begun = time.process_time()
    found = find_items(items, ((str(number), f"so {text} it is") for number, text in enumerate(texts)))
    assert dict(found.documents) == {str(n): (str(n),) for n in range(1500)}
    assert time.process_time() - begun < 10
