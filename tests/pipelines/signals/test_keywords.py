"""Word lists: what counts as a hit, and what must never be one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.digest import digest_file
from pipelines.errors import ConfigError
from pipelines.signals.keywords import builtin_lexicons, identity_counter, keyword_counter, term_counter
from pipelines.stage import Resource

COUNT = keyword_counter()
IDENTITY = identity_counter()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You are an idiot, a complete IDIOT.", {"abuse": 2}),
        ("ｉｄｉｏｔ and id\u200biot", {"abuse": 2}),
        ("You fucking idiot", {"abuse": 1}),  # the longer term, once
        ("你就是个王八蛋，脑残！", {"abuse": 2}),
        ("專業代開發票，代 开·发*票，澳门赌场", {"spam": 3}),
        ("Best online casino! Buy viagra.", {"spam": 2}),
        ("约炮裸聊 porn videos", {"adult": 3}),
        ("傻\u200b逼，傻-逼", {"abuse": 2}),
        # Latin terms are whole words
        ("idiotic class assassin Scunthorpe cialisx", {}),
        # neutral Chinese text that contains risky characters
        ("习惯、性别、成人高考、开发票、固体废物、杂种优势、过去死亡、妈妈的手机、孩子他妈妈", {}),
        # naming a group, and answering abuse, is not abuse
        ("I am a proud gay man and I work as a nurse. Muslims and Jews live here. Black women vote.", {}),
        ("残疾人、同性恋者和维吾尔族同胞都应受到尊重，请不要歧视。", {}),
        ("Nobody should ever be insulted for being disabled; racism is wrong.", {}),
        ("", {}),
    ],
)
def test_keyword_hits(text: str, expected: dict[str, int]) -> None:
    assert COUNT(text) == expected


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("Two women spoke.", "gender"),
        ("一位女性工程师", "gender"),
        ("African-American voters", "ethnicity"),
        ("维吾尔族的音乐", "ethnicity"),
        ("a Muslim neighbour", "religion"),
        ("佛教徒", "religion"),
        ("gay rights", "orientation"),
        ("同性恋者", "orientation"),
        ("a wheelchair user", "disability"),
        ("残疾人", "disability"),
        ("the elderly", "age"),
        ("老年人", "age"),
        ("Nigerians abroad", "nationality"),
        ("日本人", "nationality"),
    ],
)
def test_identity_hits(text: str, group: str) -> None:
    assert IDENTITY(text) == {group: 1}


def test_no_identity_term_is_abuse() -> None:
    for resource in builtin_lexicons():
        if "identity" in resource.path:
            assert "abuse" not in COUNT(Path(resource.path).read_text(encoding="utf-8"))


def test_extra_lists_name_their_category(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# category: politics\n# a comment\nForbidden  Words # why\n违禁词\nidiot\n", encoding="utf-8")
    counter = keyword_counter((Resource(digest_file(path), str(path)),))
    assert counter("forbidden words, 违-禁-词") == {"politics": 2}
    assert counter("idiot") == {"abuse": 1, "politics": 1}


@pytest.mark.parametrize("content", [b"term\n", b"", b"# category:\nterm\n", b"# category: x\n\xff\xfe"])
def test_bad_extra_lists_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"got word list .*mine\.txt"):
        keyword_counter((Resource("0" * 64, str(path)),))
    with pytest.raises(ConfigError, match="cannot be read"):
        keyword_counter((Resource("0" * 64, str(tmp_path / "absent.txt")),))


def test_builtin_lists_are_identified_by_content() -> None:
    resources = builtin_lexicons()
    assert {Path(r.path).stem for r in resources} >= {"abuse", "adult", "spam", "gender", "nationality"}
    assert all(resource.digest == digest_file(Path(resource.path)) for resource in resources)


@given(st.text(alphabet=st.sampled_from("idot 傻逼王八蛋.-\n\u200bＩ"), max_size=40))
def test_counts_are_positive_and_ordered(text: str) -> None:
    counts = COUNT(text)
    assert list(counts) == sorted(counts)
    assert all(count > 0 for count in counts.values())


@pytest.mark.parametrize("text", ["", "A woman said damn.", "女人 ＦＲＥＥ 色·情 Muslim", "плохо"])
def test_both_counters_at_once_find_what_each_finds(text):
    assert term_counter()(text) == (COUNT(text), IDENTITY(text))
