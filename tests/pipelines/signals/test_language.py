"""Language and script: named examples, the pooled second opinion, and real sentences where the data is at hand."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.signals import language
from pipelines.signals.language import FASTTEXT, LANGDETECT, Language, identify


@pytest.mark.parametrize(
    ("text", "code", "script"),
    [
        ("The quick brown fox jumps over the lazy dog and runs away.", "en", "Latn"),
        ("今天的天气非常好，我们去公园里散步吧。", "zh", "Hans"),
        ("今天的天氣非常好，我們去公園裡散步吧。", "zh", "Hant"),
        ("學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？", "zh", "Hant"),
        ("佢哋今日去咗公園玩，好開心㗎。", "yue", "Hant"),
        ("一二三", "zh", "Hani"),
        ("今日はとてもいい天気ですね。公園を散歩しましょう。", "ja", "Jpan"),
        ("오늘은 날씨가 아주 좋네요. 공원에 산책하러 갑시다.", "ko", "Kore"),
        ("Сегодня очень хорошая погода, пойдём гулять в парк.", "ru", "Cyrl"),
        ("الطقس جميل جدا اليوم، هيا نتمشى في الحديقة.", "ar", "Arab"),
        ("आज मौसम बहुत अच्छा है, चलो पार्क में टहलने चलते हैं।", "hi", "Deva"),
        ("วันนี้อากาศดีมาก ไปเดินเล่นในสวนกันเถอะ", "th", "Thai"),
        ("Ο καιρός σήμερα είναι πολύ καλός, πάμε μια βόλτα.", "el", "Grek"),
        ("今天我们用 Python 写一个小程序，打印 hello world。", "zh", "Hans"),
        ("The word 中国 means China, and 北京 is the name of its capital city.", "en", "Latn"),
        # lid.176 alone takes these for Japanese and Serbian
        ("代开纳税人纳税期限调整后一年不得变更。", "zh", "Hans"),
        ("但若情况紧急，为抢救病人性命，依医疗法规定，得先为病人手术。", "zh", "Hans"),
    ],
)
def test_named_examples(text: str, code: str, script: str) -> None:
    found = identify(text, 0.65)
    assert (found.code, found.script) == (code, script)


@pytest.mark.parametrize("text", ["", " \n", "12:30, 3.14!", "😀 —— ……", "\x00\x01"])
def test_nothing_to_identify(text: str) -> None:
    assert identify(text, 0.65) == Language()


def test_a_new_line_is_no_end_of_the_text() -> None:
    assert identify("Der Hund läuft schnell\nüber die grüne Wiese.\r\n\nUnd die Katze?", None).code == "de"


def test_the_sample_reaches_the_middle_and_the_end() -> None:
    text = "int main ( ) ; " * 10 + "Dies ist ein langer deutscher Text über das Wetter. " * 100
    assert identify(text, None).code == "de"


def _opinions(monkeypatch: pytest.MonkeyPatch, first: dict[str, float], second: dict[str, float]) -> list[str]:
    asked: list[str] = []

    def answer(sample: str) -> dict[str, float]:
        asked.append(sample)
        return second

    monkeypatch.setattr(language, "_fasttext_opinion", lambda _: first)
    monkeypatch.setattr(language, "arbiter_opinion", answer)
    return asked


TEXT = "some words that are long enough to ask twice"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # agreed: the score rises to the mean
        ({"en": 0.5, "de": 0.2}, {"en": 1.0}, ("en", 0.75, LANGDETECT)),
        # overruled
        ({"en": 0.4, "nl": 0.2}, {"nl": 0.9, "af": 0.1}, ("nl", 0.55, LANGDETECT)),
        # not overruled by a weak second opinion
        ({"en": 0.6}, {"nl": 0.5, "af": 0.4}, ("en", 0.3, LANGDETECT)),
        # a tie goes to the first in the alphabet
        ({"en": 0.5}, {"da": 0.5}, ("da", 0.25, LANGDETECT)),
        # the arbiter has nothing to say
        ({"en": 0.5}, {}, ("en", 0.5, FASTTEXT)),
        # sure enough
        ({"en": 0.65}, {"nl": 1.0}, ("en", 0.65, FASTTEXT)),
        # langdetect does not know Latin, so it could only vote against it
        ({"la": 0.4}, {"it": 1.0}, ("la", 0.4, FASTTEXT)),
    ],
)
def test_pooling(
    monkeypatch: pytest.MonkeyPatch,
    first: dict[str, float],
    second: dict[str, float],
    expected: tuple[str, float, str],
) -> None:
    _opinions(monkeypatch, first, second)
    found = identify(TEXT, 0.65)
    assert (found.code, found.source) == (expected[0], expected[2])
    assert found.score == pytest.approx(expected[1])


def test_the_arbiter_is_asked_only_where_it_can_help(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _opinions(monkeypatch, {"en": 0.3}, {"nl": 1.0})
    assert identify(TEXT, None).code == "en"
    assert identify("too short", 0.65).code == "en"
    assert asked == []
    assert identify(TEXT, 0.65).code == "nl"
    assert asked == [TEXT]


def test_a_script_leaves_only_its_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    _opinions(monkeypatch, {"ja": 0.9, "zh": 0.06, "yue": 0.02}, {})
    found = identify("传统中医治高血压必须辨证论治", 0.65)
    assert (found.code, found.score) == ("zh", pytest.approx(0.75))
    _opinions(monkeypatch, {"sr": 0.9}, {})
    assert identify("传统中医治高血压必须辨证论治", None).score == 0.5


@given(st.text(max_size=700))
def test_any_text_has_a_language_or_none_and_always_the_same(text: str) -> None:
    found = identify(text, None)
    assert found == identify(text, None)
    assert (found.code is None) == (found.score is None) == (found.source is None)
    assert found.score is None or 0 <= found.score <= 1
    assert found.share is None or 0 < found.share <= 1


ENGLISH = "The weather was fine and the children went to the park with the dog of a friend, and to the lake behind it. "
GERMAN = "Das Wetter war schön, und die Kinder gingen mit dem Hund eines Freundes in den Park und an den See dahinter. "
CHINESE = "今天的天气很好，孩子们带着朋友的狗去了公园，后来又到了后面的湖边，谁也不想回家。"
JAPANESE = "今日はとてもいい天気で、子供たちは友達の犬を連れて公園へ行き、それから湖まで歩きました。"
CODE = "if (x_1 != y[0]) { z += 0x1f; } // 12\n"


@pytest.mark.parametrize(
    ("text", "share", "is_mixed"),
    [
        (ENGLISH * 30, 1.0, False),
        (GERMAN * 30, 1.0, False),
        (CHINESE * 60, 1.0, False),
        (f"東京都公園案内図\n{JAPANESE}\n" * 30, 1.0, False),
        (ENGLISH * 100 + GERMAN * 100, 0.5, True),
        ((ENGLISH * 10 + "\n") * 5 + GERMAN * 10, 0.83, False),
        (f"{CHINESE}\n{ENGLISH}\n" * 20, 0.5, True),  # line by line
        (f"{JAPANESE}\n" + f"{CHINESE * 30}\n", 1.0, False),
        (CHINESE * 100 + "\n" + JAPANESE * 100, 0.5, True),
        ("我们用 Python 和 NumPy 写程序，再用 Docker 部署到 Linux 服务器上。\n" * 40, 1.0, False),
        (ENGLISH * 30 + CODE * 30, 1.0, False),
        ("Short.", None, False),
        ("12:30", None, False),
    ],
)
def test_share_of_the_dominant_language(text: str, share: float | None, is_mixed: bool) -> None:
    found = identify(text, None)
    assert found.is_mixed is is_mixed
    if share is None:
        assert found.share in (None, 1.0)
    else:
        assert found.share == pytest.approx(share, abs=0.1)


def test_a_long_text_is_looked_at_in_a_bounded_number_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _opinions(monkeypatch, {"de": 0.9}, {})
    looked: list[str] = []
    monkeypatch.setattr(language, "_fasttext_opinion", lambda sample: looked.append(sample) or {"de": 0.9})
    assert identify(GERMAN * 5000, 0.65).share == 1.0
    assert asked == []
    assert len(looked) <= 33


def test_an_unsure_page_gets_a_second_look_at_its_longest_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = CODE * 40 + ENGLISH.strip() + "\n" + CODE * 40
    asked = _opinions(monkeypatch, {}, {"nl": 1.0})
    monkeypatch.setattr(
        language, "_fasttext_opinion", lambda sample: {"en": 0.9} if "weather was fine" in sample else {"nl": 0.4}
    )
    found = identify(text, 0.65)
    assert (found.code, found.score, found.source) == ("en", 0.9, FASTTEXT)
    assert asked == []


def test_a_long_text_lid_has_no_idea_of_is_not_put_to_the_arbiter(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _opinions(monkeypatch, {"en": 0.2}, {"nl": 1.0})
    assert identify(TEXT * 10, 0.65).code == "en"
    assert asked == []
    assert identify(TEXT, 0.65).code == "nl"


def _sentences(code: str) -> list[str]:
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    folder = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "langid/lingua/language-testdata/sentences"
    return [line for line in (folder / f"{code}.txt").read_text(encoding="utf-8").splitlines() if line.strip()]


@pytest.mark.real_data
@pytest.mark.parametrize("code", ["en", "zh", "ja", "de", "ru", "ar"])
def test_many_sentences_of_one_language_are_no_mixed_document(code: str) -> None:
    sentences = _sentences(code)
    for start in range(0, 400, 40):
        found = identify("\n".join(sentences[start : start + 40]), 0.65)
        assert (found.code, found.is_mixed) == (code, False)


@pytest.mark.real_data
@pytest.mark.parametrize(("one", "other"), [("en", "zh"), ("en", "de"), ("zh", "ja"), ("ru", "en"), ("fr", "es")])
def test_sentences_of_two_languages_are_a_mixed_document(one: str, other: str) -> None:
    first, second = _sentences(one), _sentences(other)
    for start in range(0, 400, 40):
        text = "\n".join(first[start : start + 40] + second[start : start + 40])
        assert identify(text, 0.65).is_mixed


@pytest.mark.real_data
def test_few_sentences_of_200_characters_are_put_to_the_arbiter() -> None:
    codes = (path.stem for path in sorted(_folder_of_sentences().glob("*.txt")))
    texts = [line for code in codes for line in _sentences(code)[::10] if len(line) >= 200]
    sources = [identify(text, 0.65).source for text in texts]
    assert len(texts) > 400
    assert sources.count(LANGDETECT) < 0.1 * len(texts)


def _folder_of_sentences() -> Path:
    _sentences("en")
    return Path(os.environ["CORPUSMILL_TEST_DATA"]) / "langid/lingua/language-testdata/sentences"


@pytest.mark.real_data
def test_not_below_the_model_alone_on_75_languages() -> None:
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    folder = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "langid/lingua/language-testdata/sentences"
    num_sentences = num_alone = num_right = 0
    for path in sorted(folder.glob("*.txt")):
        wanted = {"nb": "no"}.get(path.stem, path.stem)
        lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        rights = [
            (language._best(language._fasttext_opinion(line)) == wanted, identify(line, 0.65).code == wanted)
            for line in itertools.islice(lines, 0, 1000, 10)
        ]
        num_sentences += len(rights)
        num_alone += sum(alone for alone, _ in rights)
        num_right += sum(right for _, right in rights)
        if path.stem in {"en", "zh"}:
            assert sum(right for _, right in rights) >= max(0.98 * len(rights), sum(alone for alone, _ in rights))
    assert num_sentences > 5000
    assert num_right >= num_alone + 0.01 * num_sentences
