"""The second opinion is langdetect's own, of profiles read in one order."""

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
from langdetect.lang_detect_exception import LangDetectException

from pipelines.signals import arbiter

SENTENCES = (
    "Kjære venner, dette er en liten tekst på et skandinavisk språk.",
    "The quick brown fox jumps over the lazy dog and runs away.",
    "今天的天气非常好，我们去公园里散步吧。",
    "오늘은 날씨가 아주 좋네요. 공원에 산책하러 갑시다.",
    "Сегодня очень хорошая погода, пойдём гулять в парк.",
    "Tiếng Việt là ngôn ngữ của người Việt. Xin chào!",
)


@functools.cache
def plain_factory() -> Any:
    names = sorted(path for path in Path(PROFILES_DIRECTORY).iterdir() if not path.name.startswith("."))
    factory = DetectorFactory()
    factory.load_json_profile([name.read_text(encoding="utf-8") for name in names])
    factory.set_seed(arbiter._SEED)
    return factory


def plain_opinion(sample: str) -> dict[str, float]:
    detector = plain_factory().create()
    detector.n_trial = arbiter._NUM_TRIALS
    detector.append(sample)
    try:
        guesses = detector.get_probabilities()
    except LangDetectException:
        return {}
    found: dict[str, float] = {}
    for guess in guesses:
        code = guess.lang.partition("-")[0]
        found[code] = found.get(code, 0.0) + guess.prob
    return found


@given(st.lists(st.sampled_from(SENTENCES) | st.text(max_size=30), max_size=4).map(" ".join))
def test_the_opinion_is_langdetects_own(sample: str) -> None:
    assert arbiter.arbiter_opinion(sample) == plain_opinion(sample)


def test_the_codes_are_those_of_its_profiles() -> None:
    assert arbiter.arbiter_codes() == {name.partition("-")[0] for name in plain_factory().get_lang_list()}
    assert arbiter._arbiter().get_lang_list() == plain_factory().get_lang_list()


def test_the_order_of_the_folder_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = arbiter._made()
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listed(path), reverse=True))
    again = arbiter._made()
    assert all(made[name].tobytes() == again[name].tobytes() for name in made)
    opinion = arbiter.arbiter_opinion(SENTENCES[0])
    assert max(opinion, key=opinion.__getitem__) == "no"
