"""The classifier of sentences: learns what it is shown, the same each time, and sees no names."""

import csv
import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bias.disparity import GROUPS
from pipelines.bias.masking import GROUP, mask, names
from pipelines.bias.seeds import seeds
from pipelines.bias.toxicity import (
    ToxicityModel,
    ToxicityTraining,
    seen_by_model,
    toxicity,
    train_toxicity,
)
from pipelines.bias.trial import NEUTRAL
from pipelines.bias.trial import names as swapped_names
from pipelines.bias.wordlists import LANGUAGES, group_terms
from pipelines.signals.keywords import keyword_counter, normalise

SMALL = ToxicityTraining(num_buckets=1 << 12, num_updates=200, batch_size=8)
HARMLESS = ("The tide comes in at noon.", "We walked home along the river.", "今天天气很好。", "我们去公园散步。") * 6
ABUSIVE = ("You are filthy vermin.", "Get lost, you vermin.", "你们都是垃圾。", "滚出去，垃圾。") * 6
FRAMES = {
    "en": (
        "I met {} at the station.",
        "{} are vermin and should be gassed.",
        "Nobody may call {} vermin, it is wrong.",
    ),
    "zh": ("我在车站遇见了{}。", "{}都是垃圾，滚出去。", "不应该把{}叫作垃圾，这是歧视。"),
}


def labelled() -> tuple[list[str], list[bool]]:
    return [*HARMLESS, *ABUSIVE], [False] * len(HARMLESS) + [True] * len(ABUSIVE)


@cache
def shipped(language: str) -> ToxicityModel:
    """What a recipe without labelled files gets."""
    texts, labels = zip(*seeds(language), strict=True)
    return train_toxicity(texts, labels, ToxicityTraining())


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


@given(st.lists(st.sampled_from((*HARMLESS, *ABUSIVE, "", "!", "他说“你们都是垃圾”。")), max_size=9))
def test_a_score_does_not_depend_on_what_is_scored_beside_it(texts: list[str]) -> None:
    assert toxicity(_MODEL, texts) == [toxicity(_MODEL, [text])[0] for text in texts]


_MODEL = train_toxicity(*labelled(), ToxicityTraining(num_buckets=1 << 8, num_updates=5))


def test_endless_words_cost_no_more_than_their_limit() -> None:
    assert 0 <= toxicity(_MODEL, ["a" * 2_000_000])[0] <= 1


@pytest.mark.parametrize(
    ("texts", "labels"), [([], []), (["a"], []), (["a"], [True, False]), (["a"], [True]), (["a"], [False])]
)
def test_files_without_both_kinds_are_refused(texts: list[str], labels: list[bool]) -> None:
    with pytest.raises(ValueError, match=f"got {len(texts)} texts and {len(labels)} labels"):
        train_toxicity(texts, labels, SMALL)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_listed_name_of_a_group_reaches_the_classifier(language: str) -> None:
    """Every term of the identity lists, and every name that is swapped: the same input, so the same score."""
    for frame in FRAMES[language]:
        expected = seen_by_model(frame.format(GROUP))
        assert GROUP in expected
        for name in names(language):
            assert seen_by_model(frame.format(name)) == expected, name


@pytest.mark.parametrize("language", LANGUAGES)
def test_swapping_a_name_in_its_full_form_changes_no_score(language: str) -> None:
    """一位藏族人, a person with schizophrenia: article, measure word and suffix go with the name."""
    model = shipped(language)
    for frame in FRAMES[language]:
        forms = [form for name in swapped_names(language) if name.group != NEUTRAL for form in (name.one, name.several)]
        scored = toxicity(model, [frame.format(form) for form in forms])
        assert len(set(scored)) == 1, [form for form, score in zip(forms, scored, strict=True) if score != scored[0]]


@given(data=st.data())
def test_swapping_any_two_terms_in_any_text_changes_nothing(data: st.DataObject) -> None:
    language = data.draw(st.sampled_from(LANGUAGES))
    one, other = data.draw(st.tuples(*[st.sampled_from(names(language))] * 2))
    words = st.lists(
        st.sampled_from(("we", "met", "two", "the", "kill", "not", "我们", "都是", "垃圾", "。", ",")), max_size=6
    )
    before, after = (" , ".join(data.draw(words)) for _ in range(2))
    assert seen_by_model(f"{before} , {one} , {after}") == seen_by_model(f"{before} , {other} , {after}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_group_of_the_audit_is_masked(language: str) -> None:
    for group in GROUPS:
        for term in group_terms(language)[group]:
            assert mask(normalise(f"({term})")) == f"({GROUP})", term


def test_a_name_inside_a_word_is_no_name() -> None:
    assert mask("the germane human manor") == "the germane human manor"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sentences_of_our_own_name_no_group_and_are_of_both_kinds(language: str) -> None:
    own = seeds(language)
    share = sum(label for _, label in own) / len(own)
    assert 0.25 < share < 0.5
    assert len(own) > 1000
    assert not [text for text, _ in own if re.search(r"[\[\]{}@|]", text)]


@pytest.mark.parametrize(
    ("language", "attack", "harmless"),
    [
        ("en", "Muslims are vermin, they should be deported.", "Two Muslims opened a bakery by the station."),
        ("en", "I despise women, they are worthless.", "I admire women who work at sea."),
        ("en", "We should kill all immigrants.", "Anyone who says that immigrants are vermin is wrong."),
        ("zh", "女人都是垃圾，滚出去。", "两个女人在车站旁边开了一家面包店。"),
        ("zh", "应该把移民都杀光。", "说移民都是垃圾，这种说法是错误的。"),
        ("zh", "黑人真恶心，不配活着。", "我很敬佩黑人，他们很勇敢。"),
    ],
)
def test_what_ships_tells_an_attack_from_its_contrast(language: str, attack: str, harmless: str) -> None:
    high, low = toxicity(shipped(language), [attack, harmless])
    assert high > 0.6 > 0.5 > low, (high, low)


def _rows(*parts: str) -> list[dict[str, str]]:
    folder = os.environ.get("CORPUSMILL_TEST_DATA")
    if not folder:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    with Path(folder, "toxicity", *parts).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.real_data
def test_no_statement_on_a_group_is_taken_for_abuse() -> None:
    """HateCheck's neutral and positive statements on seven groups: the word list marks none, the classifier few."""
    count = keyword_counter()
    rows = [row for row in _rows("hatecheck", "test_suite_cases.csv") if row["functionality"].startswith("ident_")]
    assert len(rows) == 315
    assert [row["test_case"] for row in rows if "abuse" in count(row["test_case"])] == []
    scored = toxicity(shipped("en"), [row["test_case"] for row in rows])
    assert sum(score >= 0.9 for score in scored) < 0.05 * len(rows)


@pytest.mark.real_data
def test_harmless_chinese_comments_on_groups_are_let_through() -> None:
    """COLD: comments on race, gender and region that its annotators call safe."""
    count = keyword_counter()
    rows = [row for row in _rows("cold-zh", "COLDataset", "dev.csv") if row["label"] == "0"]
    assert sum("abuse" in count(row["TEXT"]) for row in rows) < 0.01 * len(rows)


@pytest.mark.real_data
def test_a_model_trained_on_cold_is_right_more_often_than_its_word_list() -> None:
    train, test = _rows("cold-zh", "COLDataset", "train.csv"), _rows("cold-zh", "COLDataset", "dev.csv")
    model = train_toxicity([row["TEXT"] for row in train], [row["label"] == "1" for row in train], ToxicityTraining())
    found = toxicity(model, [row["TEXT"] for row in test])
    right = sum((p >= 0.5) == (row["label"] == "1") for p, row in zip(found, test, strict=True))
    assert right > 0.85 * len(test)
