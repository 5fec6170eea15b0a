"""Published sets on bias as they lie on disk, what is wrong with a file, and the texts that ship."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from bbq_rows import BBQ

from flows.evaluation.bias_files import (
    LANGUAGES,
    neutral_prompts,
    probe_axes,
    read_bbq,
    read_crows_pairs,
    read_winobias,
)
from pipelines.errors import InputError

HEAD = ",sent_more,sent_less,stereo_antistereo,bias_type,annotations\n"
BBQ_ZH = BBQ | {
    "category": "年龄",
    "context": "叔叔和侄子在渡口等船。",
    "question": "是谁把票弄丢了？",
    "ans0": "叔叔",
    "ans1": "侄子",
    "ans2": "不知道",
}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_crows_pairs_in_both_languages(tmp_path: Path) -> None:
    rows = '0,"He is, they say, lazy.","She is, they say, lazy.",stereo,gender,[]\n1,他很懒。,她很懒。,antistereo,gender,[]\n'
    found = read_crows_pairs(write(tmp_path / "c.csv", HEAD + rows))
    assert [(each.id, each.more, each.categories) for each in found.items] == [
        ("0", "He is, they say, lazy.", ("gender", "stereo")),
        ("1", "他很懒。", ("gender", "antistereo")),
    ]
    assert len(found.digest) == 64


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("0,a,b,stereo,gender,[]\n1,a,,stereo,gender,[]\n", "line 3: got a row without sent_less"),
        ("0,a,b,sideways,gender,[]\n", "line 2: got stereo_antistereo 'sideways'"),
        ('0,"a,b,stereo,gender,[]\n', "cannot be read"),
        ("", "without a row"),
    ],
)
def test_what_is_wrong_with_a_file_of_pairs_is_said_by_line(tmp_path: Path, rows: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_crows_pairs(write(tmp_path / "c.csv", HEAD + rows))


def winobias(folder: Path, pro: str, anti: str) -> Path:
    for side, text in (("pro", pro), ("anti", anti)):
        for kind in ("type1", "type2"):
            for split in ("dev", "test"):
                write(folder / f"{side}_stereotyped_{kind}.txt.{split}", text)
    return folder


def test_winobias_is_read_without_its_marks(tmp_path: Path) -> None:
    pro = "1 The guard told the [the nurse] that [she] had lost [her] key.\n2 [The guard] slept because [he] was tired.\n3 [The guard] left [his] hat.\n"
    anti = "1 The guard told the [the nurse] that [he] had lost [his] key.\n2 [The guard] slept because [she] was tired.\n3 [The guard] left [her] coat.\n"
    found = read_winobias(winobias(tmp_path, pro, anti))
    assert len(found.items) == 8
    assert found.items[0].more == "The guard told the nurse that she had lost her key."
    assert found.items[0].less == "The guard told the nurse that he had lost his key."
    assert found.items[0].categories == ("type1", "dev", "female")
    assert found.items[1].categories == ("type1", "dev", "male")
    assert found.left_out[0] == "pro_stereotyped_type1.txt.dev, line 3: the two sentences differ in more than pronouns"
    assert len(found.left_out) == 4


@pytest.mark.parametrize(
    ("pro", "anti", "said"),
    [
        ("1 [The guard] saw [him].\n", "", "1 sentences in .* and 0"),
        ("1 [The guard] saw [him].\nsomething\n", "1 [The guard] saw [her].\n2 x [y]\n", "line 2: got 'something'"),
        ("2 [The guard] saw [him].\n", "1 [The guard] saw [her].\n", "line 1"),
    ],
)
def test_what_is_wrong_with_winobias_is_said_by_line(tmp_path: Path, pro: str, anti: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_winobias(winobias(tmp_path, pro, anti))
    with pytest.raises(InputError, match="cannot be read"):
        read_winobias(tmp_path / "nowhere")


def bbq(path: Path, *rows: object) -> Path:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def test_bbq_says_which_answer_a_stereotype_gives(tmp_path: Path) -> None:
    woman = {"ans0": ["Ann", "woman"], "ans1": ["Bob", "man"], "ans2": ["", "unknown"]}
    race = {"ans0": ["", "F-White"], "ans1": ["", "unknown"], "ans2": ["", "M-Black"]}
    rows = [
        BBQ,
        BBQ | {"question_polarity": "nonneg"},
        BBQ | {"context_condition": "disambig", "label": 1},
        BBQ | {"answer_info": woman, "additional_metadata": {"stereotyped_groups": ["F"]}},
        BBQ | {"answer_info": race, "additional_metadata": {"stereotyped_groups": ["Black", "African American"]}},
        BBQ | {"additional_metadata": {"stereotyped_groups": ["tall"]}},
        BBQ_ZH,
    ]
    found = read_bbq(bbq(tmp_path / "Age.jsonl", *rows))
    assert [each.biased for each in found.items] == [0, 1, 0, 0, 2, None, 0]
    assert [each.unknown for each in found.items] == [2, 2, 2, 2, 1, 2, 2]
    assert [each.is_ambiguous for each in found.items] == [True, True, False, True, True, True, True]
    assert found.items[-1].answers == ("叔叔", "侄子", "不知道")
    assert found.left_out == ("Age.jsonl, line 6: no telling which answer a stereotype gives",)


@pytest.mark.parametrize(
    "change",
    [
        {"label": 3},
        {"question_polarity": "so-so"},
        {"ans1": ""},
        {"answer_info": {"ans0": ["a", "old"], "ans1": ["b", "nonOld"], "ans2": ["c", "tall"]}},
        {"answer_info": {"ans0": ["a"]}},
        {"additional_metadata": None},
    ],
)
def test_what_is_wrong_with_a_question_is_said_by_line(tmp_path: Path, change) -> None:
    with pytest.raises(InputError, match=r"Age.jsonl, line 2: got a row"):
        read_bbq(bbq(tmp_path / "Age.jsonl", BBQ, BBQ | change))


def test_a_row_that_is_no_json_is_said_by_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1"):
        read_bbq(write(tmp_path / "Age.jsonl", "{\n"))
    with pytest.raises(InputError, match="without a row"):
        read_bbq(write(tmp_path / "Age.jsonl", "\n"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_shipped_probes_and_prompts(language: str) -> None:
    axes = probe_axes(language)
    assert [axis.name for axis in axes] == ["gender", "ethnicity", "religion", "age"]
    for axis in axes:
        texts = [
            axis.sentence(template, group, word)
            for template in axis.templates
            for group in axis.groups
            for pole in axis.poles.values()
            for word in pole
        ]
        assert len(set(texts)) == len(texts), axis.name  # each group and attribute stands in each template
        assert not any("{" in text for text in texts)
        assert len({len(pole) for pole in axis.poles.values()}) == 1
    assert len(set(neutral_prompts(language))) == 16


@pytest.mark.real_data
def test_the_published_sets() -> None:
    folder = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "bias"
    pairs = read_crows_pairs(folder / "crows-pairs" / "data" / "crows_pairs_anonymized.csv")
    assert len(pairs.items) == 1508
    kinds = Counter(each.categories[0] for each in pairs.items)
    assert len(kinds) == 9
    assert kinds["race-color"] == 516
    winobias = read_winobias(folder / "winobias" / "WinoBias" / "wino" / "data")
    assert (len(winobias.items), len(winobias.left_out)) == (1566, 18)
    genders = Counter(each.categories[2] for each in winobias.items)
    assert abs(genders["female"] - genders["male"]) < 20
