"""The small classifier: learns what it is shown, the same each time; and what the word lists do on labelled texts."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bias.toxicity import ToxicityTraining, toxicity, train_toxicity
from pipelines.signals.keywords import keyword_counter

SMALL = ToxicityTraining(num_buckets=1 << 12, num_epochs=20, batch_size=8)
HARMLESS = ("The tide comes in at noon.", "We walked home along the river.", "今天天气很好。", "我们去公园散步。") * 6
ABUSIVE = ("You are filthy vermin.", "Get lost, you vermin.", "你们都是垃圾。", "滚出去，垃圾。") * 6


def labelled() -> tuple[list[str], list[bool]]:
    return [*HARMLESS, *ABUSIVE], [False] * len(HARMLESS) + [True] * len(ABUSIVE)


def test_both_languages_are_learnt() -> None:
    model = train_toxicity(*labelled(), SMALL)
    harmless = toxicity(model, ["The tide comes at noon along the river.", "今天去公园散步。"])
    abusive = toxicity(model, ["They are vermin, filthy.", "都是垃圾，滚。"])
    assert max(harmless) < 0.4
    assert min(abusive) > 0.6


def test_equal_files_give_equal_weights() -> None:
    one, other = train_toxicity(*labelled(), SMALL), train_toxicity(*labelled(), SMALL)
    assert one.intercept == other.intercept
    assert np.array_equal(one.weights, other.weights)


@given(st.text(max_size=300))
def test_any_text_has_a_probability(text: str) -> None:
    assert 0 <= toxicity(_MODEL, [text])[0] <= 1


_MODEL = train_toxicity(*labelled(), ToxicityTraining(num_buckets=1 << 8, num_epochs=1))


def test_endless_words_cost_no_more_than_their_limit() -> None:
    assert 0 <= toxicity(_MODEL, ["a" * 2_000_000])[0] <= 1


@pytest.mark.parametrize(("texts", "labels"), [([], []), (["a"], []), (["a"], [True, False])])
def test_unequal_files_are_refused(texts: list[str], labels: list[bool]) -> None:
    with pytest.raises(ValueError, match=f"got {len(texts)} texts and {len(labels)} labels"):
        train_toxicity(texts, labels, SMALL)


def _rows(*parts: str) -> list[dict[str, str]]:
    folder = os.environ.get("CORPUSMILL_TEST_DATA")
    if not folder:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    with Path(folder, "toxicity", *parts).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.real_data
def test_no_statement_on_a_group_is_taken_for_abuse() -> None:
    """HateCheck's neutral and positive statements on seven groups: the word list marks none."""
    count = keyword_counter()
    rows = [row for row in _rows("hatecheck", "test_suite_cases.csv") if row["functionality"].startswith("ident_")]
    assert len(rows) == 315
    assert [row["test_case"] for row in rows if "abuse" in count(row["test_case"])] == []


@pytest.mark.real_data
def test_harmless_chinese_comments_on_groups_are_let_through() -> None:
    """COLD: comments on race, gender and region that its annotators call safe."""
    count = keyword_counter()
    rows = [row for row in _rows("cold-zh", "COLDataset", "dev.csv") if row["label"] == "0"]
    assert sum("abuse" in count(row["TEXT"]) for row in rows) < 0.01 * len(rows)


@pytest.mark.real_data
def test_a_model_trained_on_cold_is_right_more_often_than_its_word_list() -> None:
    train, test = _rows("cold-zh", "COLDataset", "train.csv"), _rows("cold-zh", "COLDataset", "dev.csv")
    model = train_toxicity(
        [row["TEXT"] for row in train], [row["label"] == "1" for row in train], ToxicityTraining(num_epochs=2)
    )
    found = toxicity(model, [row["TEXT"] for row in test])
    right = sum((p >= 0.5) == (row["label"] == "1") for p, row in zip(found, test, strict=True))
    assert right > 0.85 * len(test)
