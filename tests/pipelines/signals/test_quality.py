"""Gopher, C4 and FineWeb measures: tables of known answers, English and Chinese."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.signals.quality import STOP_WORDS, measure_quality
from pipelines.signals.repetition import measure_repetition
from pipelines.signals.words import hash_words, split_words


def measured(
    text: str, language: str | None = None, *, unspaced: bool | None = None
) -> dict[str, int | float | bool | None]:
    return measure_quality(text, split_words(text, unspaced=unspaced), language)


def check(text: str, name: str, expected: float | None, language: str | None = None) -> None:
    assert measured(text, language)[name] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("The cat sat, didn't it?", "num_words", 6),  # did, n't
        ("The cat sat, didn't it?", "mean_word_length", (3 + 3 + 3 + 3 + 3 + 2) / 6),
        ("我爱你，中国。", "num_words", 5),
        ("我爱你，中国。", "mean_word_length", 1.0),
        ("# a # b", "hash_to_word_ratio", 2 / 4),
        ("wait... what… ok", "ellipsis_to_word_ratio", 2 / 5),
        ("等一下……好", "ellipsis_to_word_ratio", 1 / 5),
        ("等一下。。。好", "ellipsis_to_word_ratio", 1 / 5),
        ("• a\n- b\n* c\nd", "bullet_line_ratio", 2 / 4),
        ("• a\n\n  - b\n* c", "bullet_line_ratio", 2 / 4),  # a blank line is a line
        ("· 甲\n\n● 乙\n  ◆ 丙\n丁", "bullet_line_ratio", 3 / 4),
        ("a...\nb…\nc.\nd", "ellipsis_line_ratio", 2 / 4),
        ("未完……\n还有。。。\n完。", "ellipsis_line_ratio", 2 / 3),
        ("abc 123 x1 !!", "alpha_word_ratio", 2 / 5),
        ("call f(x, y): -> z.w()", "alpha_word_ratio", 4 / 10),  # call f(x , y ) : - > z.w ( )
        ("Hello, world. It's 12.2.1!", "alpha_word_ratio", 4 / 8),
        ("see https://a.example/b?c=1 - now", "alpha_word_ratio", 3 / 4),
        ("共12个，3.5元", "alpha_word_ratio", 3 / 6),
        ("", "mean_word_length", None),
        ("!!!", "mean_word_length", None),
        ("!!!", "alpha_word_ratio", 0.0),
    ],
)
def test_gopher(text: str, name: str, expected: float | None) -> None:
    check(text, name, expected)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("the man of the house, and the dog", "en", 3),
        ("The THE Of", "en", 0),
        ("other bothers", "en", 0),
        ("the man of the house", "de", 0),
        ("the man of the house", None, 0),
        ("这是我的书，不是你的。", "zh", 5),  # 这 是 我 的 不
        ("這是為了你和他的。", "zh", 7),
        ("学而时习之，不亦说乎？", "zh", 3),
        ("佢哋係嘅", "yue", 3),
        ("首页 新闻 财经 体育", "zh", 0),
    ],
)
def test_stop_words(text: str, language: str | None, expected: int) -> None:
    check(text, "num_stop_words", expected, language)


@pytest.mark.parametrize("language", sorted(STOP_WORDS))
def test_each_stop_word_is_one_word_and_listed_once(language: str) -> None:
    words = STOP_WORDS[language]
    assert len(set(words)) == len(hash_words(words)) == len(words)


SENTENCE = "This line is kept."
LINE = "这一行会保留下来。"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{SENTENCE}\n{LINE}", 2),
        ("One is here. Two is there! Is this three? Yes.", 4),
        ("It costs 3.50 e.g. in shops.", 1),  # a small letter behind it: no end
        ("She said “this is it.” Then she left.", 2),
        ("他说：“就是这里。”然后走了！真的吗？是的。", 4),
        ("他愣住了……然后走了。", 2),
        ("他愣住了，什么也说不出……", 1),
        ("No end mark in this line", 0),
        ("这一行没有结束标点", 0),
        ("Two words.", 0),
        ("太短了。", 0),
        ("够五个字。", 0),
        ("刚好五个字。", 1),
        ("This goes on and on...", 0),
        ("This goes on and on…", 0),
        ("内容还没有写完...", 0),
        ('He called it "a quoted ending"', 1),
        ("他把它叫做「引号的结尾」", 1),
        ("It ends inside (like this one.)", 0),  # a bracket is no end where words have spaces
        ("It ends “in curly quotes.”", 0),
        ("它在括号里结束（就像这样。）", 1),
        ("It ends in brackets (like this one)", 0),
        ("This one cites a source.[12]", 1),
        ("This has the word JavaScript in it.", 0),
        ("请启用 JavaScript 才能继续浏览。", 0),
        ("We have a Privacy Policy for you.", 0),
        ("本网站的隐私政策请见这里。", 0),
        ("a" * 1001 + " is one long word.", 0),
        ("长" * 1001 + "，仍然是一行正文。", 1),
        ("", 0),
    ],
)
def test_sentences(text: str, expected: int) -> None:
    check(text, "num_sentences", expected)


@pytest.mark.parametrize(
    ("text", "lorem", "bracket"),
    [
        ("Here Lorem Ipsum is placed.", True, False),
        ("lorem ipsum dolor sit amet", False, False),  # the line ends no sentence
        ("It is set with { in the code.", False, True),
        ("if (x) { return 1; }", False, False),
        ("In javascript we write { like this.", False, False),
        ("在代码中用花括号{表示开始。", False, True),
        (SENTENCE, False, False),
    ],
)
def test_only_surviving_lines_show_placeholder_and_code(text: str, *, lorem: bool, bracket: bool) -> None:
    found = measured(text)
    assert (found["has_lorem_ipsum"], found["has_curly_bracket"]) == (lorem, bracket)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SENTENCE, 0.0),
        (f"{SENTENCE}\nThis site uses cookies.\nTerms of Use", 2 / 3),
        (f"{LINE}\n隐私政策\n版权所有 2024\n京ICP备12345678号", 3 / 4),
        (f"{LINE}\n隱私權政策", 1 / 2),
        ("Read more »", 1.0),
        ("A headline. Continue reading…", 1.0),
        ("You may read more about this topic in the second chapter.", 0.0),
        ("Read more\nPrivacy policy and then some\nText that ends there.", 2 / 3),
        ("阅读全文\n查看更多\n閱讀全文 >", 1.0),
        ("", None),
        ("\n \n", None),
    ],
)
def test_policy_lines(text: str, expected: float | None) -> None:
    check(text, "policy_line_ratio", expected)


LONG = "A line that is certainly longer than thirty characters"


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("a.\nb!\nc?\nd", "line_punctuation_ratio", 3 / 4),
        ("“好的。”\n「走吧！」\n（完。）\n真的吗？】\n标题", "line_punctuation_ratio", 4 / 5),
        ('He said "yes."\n(Done!)\n\nDone.\n', "line_punctuation_ratio", 1 / 3),
        ("Done. \nDone.", "line_punctuation_ratio", 1 / 2),  # lines are not stripped
        ("未完……\n甲；\n乙：\n丙，", "line_punctuation_ratio", 2 / 4),
        ("هل هذا صحيح؟\nयह सही है।", "line_punctuation_ratio", 1.0),
        (f"{LONG}\nshort\n{LONG}", "short_line_ratio", 1 / 3),
        ("a" * 30 + "\n" + "a" * 31, "short_line_ratio", 1 / 2),
        ("字" * 10 + "\n" + "字" * 11, "short_line_ratio", 1 / 2),
        ("abc\nabc\nde", "dup_char_ratio", 3 / 8),
        ("重复\n\n重复\n不同", "dup_char_ratio", 2 / 6),
        ("a b\nc\n\nd !", "newline_to_word_ratio", 3 / 5),
        ("天地\n玄黄", "newline_to_word_ratio", 1 / 4),
        ("", "line_punctuation_ratio", None),
        ("", "newline_to_word_ratio", None),
        ("\n", "dup_char_ratio", None),
    ],
)
def test_fineweb(text: str, name: str, expected: float | None) -> None:
    check(text, name, expected)


@given(st.text(alphabet='ab天地 \n.。…[]1{"”#-,的', max_size=80), st.sampled_from(["en", "zh", None]))
def test_every_measure_is_a_share_or_a_count(text: str, language: str | None) -> None:
    for name, value in measured(text, language).items():
        if value is None:
            assert name.endswith(("ratio", "length"))
        elif name.endswith("line_ratio") or name in {"alpha_word_ratio", "dup_char_ratio", "line_punctuation_ratio"}:
            assert 0 <= value <= 1
        else:
            assert value >= 0


@given(st.lists(st.sampled_from([SENTENCE, LINE, "Read more", "no end", "没有", "uses cookies now.", "[edit] a b c."])))
def test_blank_lines_and_indents_change_no_line_measure_of_unspaced_text(lines: list[str]) -> None:
    plain = measured("\n".join(lines), unspaced=True)
    spaced = measured("\n \n".join(f"\t{line}  " for line in lines), unspaced=True)
    for name in ("num_sentences", "policy_line_ratio", "line_punctuation_ratio", "bullet_line_ratio"):
        assert plain[name] == spaced[name]


DATATROVE = (
    "num_words",
    "mean_word_length",
    "ellipsis_to_word_ratio",
    "bullet_line_ratio",
    "ellipsis_line_ratio",
    "alpha_word_ratio",
    "num_stop_words",
    "line_punctuation_ratio",
    "short_line_ratio",
    "dup_char_ratio",
    "newline_to_word_ratio",
    "num_sentences",
    "dup_line_ratio",
    "dup_paragraph_ratio",
    "top_2_gram_char_ratio",
    "top_4_gram_char_ratio",
    "dup_5_gram_char_ratio",
    "dup_10_gram_char_ratio",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "The cat sat, didn't it? She said \"yes.\" (It was late.)\n- a list of one...\n• another one…\n\n\nThe cat sat, didn't it?\n",
            [
                25.0,
                2.96,
                0.052631578947,
                0.333333333333,
                0.333333333333,
                0.631578947368,
                1.0,
                0.5,
                0.75,
                0.0,
                0.157894736842,
                1.0,
                0.0,
                0.0,
                0.121739130435,
                0.226086956522,
                0.113043478261,
                0.0,
            ],
        ),
        (
            "# Heading\n\nif (x) { return a[0]; }\nSee the privacy policy of this site.\nThe javascript is { here.\nIt cites a source.[12] And another one [3].\nIt ends so [edit] now.[4]",
            [
                29.0,
                4.034482758621,
                0.0,
                0.0,
                0.0,
                0.608695652174,
                2.0,
                0.5,
                0.666666666667,
                0.0,
                0.130434782609,
                3.0,
                0.0,
                0.0,
                0.047904191617,
                0.083832335329,
                0.0,
                0.0,
            ],
        ),
        (
            "One. Two! Three?  Four... five e.g. six.\u2028A line after a separator.\x0bAnd another one here.\r\nThe last of them.",
            [
                20.0,
                3.8,
                0.035714285714,
                0.0,
                0.0,
                0.714285714286,
                1.0,
                0.5,
                0.5,
                0.0,
                0.035714285714,
                7.0,
                0.0,
                0.0,
                0.046728971963,
                0.102803738318,
                0.0,
                0.0,
            ],
        ),
        (
            "    indented line of code\n    indented line of code\n\tindented line of code \nThe prices are US$5.00, 10km. and 3.5GB; call 1-800-555.\nThe end of it is here:\n",
            [
                32.0,
                3.5,
                0.0,
                0.0,
                0.0,
                0.666666666667,
                2.0,
                0.2,
                0.8,
                0.165562913907,
                0.128205128205,
                2.0,
                0.2,
                0.0,
                0.25,
                0.403846153846,
                0.166666666667,
                0.0,
            ],
        ),
        (
            'He said “this is it.” Then he left.\nWait for it...\nShe was there, and he was not.\'\nWhat?! No. Yes !\nWe have "quotes".\n',
            [
                24.0,
                3.166666666667,
                0.025641025641,
                0.0,
                0.2,
                0.615384615385,
                2.0,
                0.8,
                0.6,
                0.0,
                0.128205128205,
                7.0,
                0.0,
                0.0,
                0.059322033898,
                0.118644067797,
                0.0,
                0.0,
            ],
        ),
        (
            "to be or not to be to be or not to be to be or not to be\nto be or not to be to be or not to be to be or not to be",
            [
                36.0,
                2.166666666667,
                0.0,
                0.0,
                0.0,
                1.0,
                2.0,
                0.0,
                0.0,
                0.5,
                0.027777777778,
                0.0,
                0.5,
                0.0,
                0.530973451327,
                0.637168141593,
                0.575221238938,
                0.575221238938,
            ],
        ),
        (
            "中文 in English text。 The rest of it is English, that is 12 words；\nand so on …… and so on.\nLorem Ipsum is placed here.\nlorem ipsum dolor sit amet",
            [
                30.0,
                3.533333333333,
                0.054054054054,
                0.0,
                0.0,
                0.783783783784,
                3.0,
                0.5,
                0.75,
                0.0,
                0.081081081081,
                2.0,
                0.0,
                0.0,
                0.083916083916,
                0.125874125874,
                0.0,
                0.0,
            ],
        ),
    ],
)
def test_spaced_text_is_measured_as_datatrove_does(text: str, expected: list[float]) -> None:
    """What the rules of datatrove 0.10.1 compare with their thresholds."""
    words = split_words(text)
    found = measure_quality(text, words, "en") | measure_repetition(words)
    assert {name: found[name] for name in DATATROVE} == pytest.approx(dict(zip(DATATROVE, expected, strict=True)))
