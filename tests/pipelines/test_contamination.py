"""Decontamination: what is found however it is written, what is not, and that nothing hostile takes long."""

import itertools
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contamination import (
    MAX_MATCHES,
    ContaminationIndex,
    build_index,
    document_frequencies,
    find,
    index_batch,
    load_index,
    passage_tokens,
    without_common,
)
from pipelines.schemas import SUITE_INDEX
from pipelines.store import Store
from pipelines.suites import Item, read_items

ENGLISH = (
    "The old harbour master counted forty-two fishing boats before breakfast, and wrote the number, as he did every "
    "morning, into a book that nobody but his granddaughter had ever opened."
)
CHINESE = "港口的老主任每天早晨吃饭以前都要数一遍渔船，然后把数目写进一本除了他孙女以外谁也没有翻开过的旧本子里。"
TRADITIONAL = "港口的老主任每天早晨吃飯以前都要數一遍漁船，然後把數目寫進一本除了他孫女以外誰也沒有翻開過的舊本子裏。"
SHORT = "Why do gulls follow the small trawler home?"
SHORT_CHINESE = "海鸥为什么跟着小渔船回港口？"
FILLER = "Elsewhere the rain went on falling upon roofs and gardens without any sign that it meant to stop soon. " * 4
CHINESE_FILLER = "别处的雨一直下着，落在屋顶和花园里，看不出什么时候会停下来。街上没有行人，只有一只猫。" * 3


def index_of(*passages: str) -> ContaminationIndex:
    return build_index(Item(suite="suite", item_id=str(idx), passages=(each,)) for idx, each in enumerate(passages))


def found(text: str, index: ContaminationIndex) -> list[str]:
    return [match.label() for match in find(text, index)]


@pytest.mark.parametrize(
    ("passage", "written"),
    [
        (ENGLISH, ENGLISH),
        (ENGLISH, ENGLISH.upper()),
        (ENGLISH, ENGLISH.replace(" ", "\n  ").replace(",", " —")),
        (ENGLISH, ENGLISH.replace("breakfast", "break\u00adfast").replace("harbour", "har\u200bbour")),
        (ENGLISH, "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in ENGLISH)),
        (ENGLISH.replace("that", "that’s"), ENGLISH.replace("that", "that's")),
        (ENGLISH.replace("fishing", "ﬁshing"), ENGLISH),
        (ENGLISH.replace("number", "nümber"), ENGLISH.replace("number", "nu\u0308mber")),
        (ENGLISH.replace("boats", "Straße"), ENGLISH.replace("boats", "STRASSE")),
        (CHINESE, CHINESE),
        (CHINESE, CHINESE.replace("，", "").replace("。", "")),
        (CHINESE, "\n".join(CHINESE)),
        (CHINESE, CHINESE.replace("，", "\u200b,")),
        (ENGLISH, " ".join(ENGLISH.split()[:12])),  # 13 words, since "forty-two" is two
        (ENGLISH, " ".join(ENGLISH.split()[4:17])),
        (CHINESE, CHINESE.replace("，", "")[5:25]),
        (CHINESE, TRADITIONAL),
        (TRADITIONAL, CHINESE),
        (SHORT, "so he asked: why do GULLS follow the small trawler, home"),
        (SHORT_CHINESE, "他问道：海鸥为什么跟着小渔船回港口呢"),
    ],
)
def test_it_is_found_however_it_is_written(passage: str, written: str) -> None:
    index = index_of("Nothing of this first item stands in any of the texts that are looked at here.", passage)
    for around in ("", FILLER, CHINESE_FILLER):
        text = f"{around}\n{written}\n{around}"
        (match,) = find(text, index)
        assert match.label() == "suite: 1"
        assert passage_tokens(text[match.start : match.end])
        assert match.start >= len(around)
        assert match.end <= len(around) + len(written) + 1


@pytest.mark.parametrize(
    ("passage", "text"),
    [
        (ENGLISH, " ".join(ENGLISH.split()[:11])),  # too few words in a row: "forty-two" is two
        (ENGLISH, " ".join(word for pair in zip(ENGLISH.split(), FILLER.split(), strict=False) for word in pair)),
        (CHINESE, CHINESE.replace("，", "")[:19]),
        (SHORT, "why do gulls follow the small trawler out"),
        (SHORT_CHINESE, "海鸥为什么跟着小渔船出海"),
        ("make more phone calls", "make more phone calls"),  # proves nothing
        ("港口的老主任", "港口的老主任"),
        (" ".join(map(str, range(40))), " ".join(map(str, range(40)))),  # no letter
        (ENGLISH, ""),
        ("", ENGLISH),
    ],
)
def test_it_is_not_found(passage: str, text: str) -> None:
    assert found(f"{FILLER}{text}\n{CHINESE_FILLER}", index_of(passage)) == []


def test_a_passage_of_one_ngram_is_found_by_it() -> None:
    words = ENGLISH.replace("-", "").split()  # "fortytwo" is one
    assert found(FILLER + " ".join(words[:13]), index_of(" ".join(words[:13]))) == ["suite: 0"]


def test_the_offending_items_are_named_in_order_and_a_template_is_none() -> None:
    template = (
        "Question: which one of the following statements about the sea and its many harbours is the most correct?"
    )
    names = (
        "Anna",
        "Boris",
        "Carla",
        "David",
        "Emma",
        "Frank",
        "Greta",
        "Hans",
        "Inga",
        "Jonas",
        "Karla",
        "Lars",
        "Mia",
    )
    items = [f"{template} {name} {name} {name} {ENGLISH.replace('The old', name)}" for name in names]
    index = build_index(
        Item(suite="t", item_id=name, passages=(each,)) for name, each in zip(names, items, strict=True)
    )
    assert found(template, index) == []
    assert found(f"{items[4]}\n{FILLER}\n{items[1]}", index) == ["t: Boris", "t: Emma"]


def test_equal_passages_are_no_template() -> None:
    items = [Item(suite="qa", item_id=str(idx), passages=(ENGLISH, f"{SHORT} {idx}")) for idx in range(40)]
    assert found(ENGLISH, build_index(items)) == ["qa: 0"]


def test_what_is_common_elsewhere_can_be_left_out() -> None:
    index = index_of(ENGLISH, CHINESE)
    counts = document_frequencies([ENGLISH, FILLER, ENGLISH], index)
    assert set(counts.tolist()) == {0, 2}
    assert found(ENGLISH + CHINESE, without_common(index, counts, 1)) == ["suite: 1"]
    assert found(ENGLISH + CHINESE, without_common(index, counts, 2)) == ["suite: 0", "suite: 1"]


def test_the_index_is_a_shard_with_the_same_answers(tmp_path: Path) -> None:
    index = index_of(ENGLISH, CHINESE, SHORT, SHORT_CHINESE)
    store = Store(tmp_path)
    shard = store.write(SUITE_INDEX, [index_batch(index)], compression=None)
    assert (
        store.write(SUITE_INDEX, [index_batch(index_of(ENGLISH, CHINESE, SHORT, SHORT_CHINESE))], compression=None)
        == shard
    )
    loaded = load_index(store.shard_path(shard.digest))
    text = f"{FILLER}{ENGLISH}{CHINESE_FILLER}{CHINESE}{FILLER}{SHORT}\n{CHINESE_FILLER}{SHORT_CHINESE}"
    assert find(text, loaded) == find(text, index)
    assert found(text, loaded) == ["suite: 0", "suite: 1", "suite: 2", "suite: 3"]


def test_an_empty_index_finds_nothing() -> None:
    assert find(ENGLISH + CHINESE, build_index([])) == []


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_stands_around_it(before: str, after: str) -> None:
    assert "suite: 0" in found(f"{before}\n{ENGLISH}\n{after}", index_of(ENGLISH))
    assert "suite: 0" in found(f"{before}\n{CHINESE}\n{after}", index_of(CHINESE))


@given(st.text(alphabet=st.characters(), max_size=200))
def test_places_are_those_of_the_text(text: str) -> None:
    places = passage_tokens(text)
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(places))


def test_long_texts_are_cut_at_breaks_only() -> None:
    filler = "wandering " * 7000  # more than one chunk
    for shift in range(0, 60, 7):
        assert found(f"{filler[: (1 << 16) - 80 + shift]} {ENGLISH} {filler}", index_of(ENGLISH)) == ["suite: 0"]


@pytest.mark.parametrize(
    "piece",
    ["ß", "ﷺ", "a", "的", "\u0301", "\u200b", "why do gulls follow the small trawler ", f"{ENGLISH} ", "e\u0301 "],
)
def test_hostile_texts_take_no_longer_than_others(piece: str) -> None:
    text = (piece * (2_000_000 // len(piece)))[:2_000_000]
    index = index_of(
        ENGLISH, CHINESE, SHORT, *(f"why do gulls follow the small trawler home {name}" for name in "abcdef")
    )
    started = time.process_time()
    assert len(find(text, index)) <= MAX_MATCHES
    assert time.process_time() - started < 4  # about 0.5 s for two million characters of prose


def test_short_ngrams_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted more than 8 and 12"):
        build_index([], word_ngram=5)


# Real suites and prose


@pytest.fixture(scope="module")
def suites(real_data: Path) -> list[Item]:
    items = [item for path in sorted(real_data.glob("lm-eval/llm-foundry/**/*.jsonl")) for item in read_items(path)]
    for language in ("en", "zh"):
        items += read_items(real_data / f"qa/xquad/xquad.{language}.json", f"xquad-{language}")
    return items


@pytest.fixture(scope="module")
def real_data() -> Path:
    import os

    return Path(os.environ["CORPUSMILL_TEST_DATA"])


def prose(folder: Path) -> tuple[list[str], list[str]]:
    """English and Chinese documents of about 5 kB."""

    def cut(text: str) -> list[str]:
        return [text[start : start + 5000] for start in range(0, len(text), 5000)]

    english = [part for path in sorted(folder.glob("en/jane-austen/*.txt")) for part in cut(path.read_text("utf-8"))]
    for archive in ("inaugural", "state_union", "movie_reviews"):
        with zipfile.ZipFile(folder / f"en/nltk_data/packages/corpora/{archive}.zip") as files:
            for name in sorted(files.namelist()):
                english += cut(files.read(name).decode("latin-1")) if name.endswith(".txt") else []
    chinese = [
        part for path in sorted(folder.glob("zh/chinese-poetry/*.jsonl")) for part in cut(path.read_text("utf-8"))
    ]
    return english, chinese


@pytest.mark.real_data
def test_every_real_item_long_enough_is_found_and_prose_is_clean(real_data: Path, suites: list[Item]) -> None:
    index = build_index(suites)
    english, chinese = prose(real_data)
    hits = [(text, match) for text in (*english, *chinese) for match in find(text, index)]
    # LAMBADA is made of novels, and two of its passages are Jane Austen's: those are no mistakes.
    assert len(hits) <= 4
    assert all(match.suite == "lambada_openai" for _, match in hits)
    rng = np.random.default_rng(5)
    chosen = [suites[idx] for idx in rng.choice(len(suites), 1500, replace=False).tolist()]
    long_enough = missed = 0
    for number, item in enumerate(chosen):
        passage = max(item.passages, key=len)
        tokens = passage_tokens(passage)
        is_chinese = "xquad-zh" in item.suite
        if len(tokens) < (20 if is_chinese else 14):
            continue
        around = (chinese if is_chinese else english)[number % 500]
        long_enough += 1
        missed += not find(f"{around[:2500]}\n{passage}\n{around[2500:]}", index)
    assert long_enough > 900
    assert missed <= 0.01 * long_enough
