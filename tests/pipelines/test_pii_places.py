"""What the compiled loop says of a text is what regular expressions say of it, slowly."""

import re

from hypothesis import given
from hypothesis import strategies as st

from pipelines.pii import _ASCII_TWINS
from pipelines.pii.addresses import _IPV4, _quads
from pipelines.pii.classes import MIN_RUN_NUM_CHARS, WORDS
from pipelines.pii.runs import Scan, scan

PIECES = (
    *(
        "1",
        "12",
        "123",
        "1234567",
        "0" * 19,
        ".",
        "..",
        ":",
        "::",
        ":ab",
        "-",
        "·",
        "(",
        ") ",
        "/",
        "\n",
        "\t",
        " ",
        "_",
    ),
    *("GB82", "gb82", "a", "Ab1", "passport", "PassPort", "perMIT", " plate", "Plate", "ecret", "AccountKey", "="),
    *(
        "护照",
        "é",
        "\x00",
        "\ud800",
        "𠀀",
        "\u00a0",
        "ａ",
        "１",
        "…",
        "x" * 19,
        "fe80",
        "2001:db8",
        "1.2.3.4",
        "İ",
        "ſ",
    ),
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)


def slowly(text: str) -> Scan:
    digits = re.finditer(r"[0-9](?:[ ()./·\n-]{0,3}[0-9]){6,}+", text)
    runs = re.finditer(f"[0-9A-Za-z_-]{{{MIN_RUN_NUM_CHARS},}}", text)
    flags = (
        re.search(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]", text),
        re.search(r":[0-9A-Fa-f]{0,4}:", text),
        re.search("[\u3400-\u9fff]", text),
        re.search("[\u00a0\u2007\u2009\u202f\u3000\u2010-\u2013\uff08-\uff5a]", text),
        *(re.search(re.escape(word), text, re.IGNORECASE | re.ASCII) for word in WORDS),
    )
    return Scan(
        text=text,
        language=None,
        num_digits=len(re.findall("[0-9]", text)),
        digits=tuple(match.span() for match in digits),
        runs=tuple(match.span() for match in runs),
        ibans=tuple(match.start() for match in re.finditer("(?<![0-9A-Za-z_])(?=[A-Za-z_]{2}[0-9]{2})", text)),
        flags=sum(1 << bit for bit, found in enumerate(flags) if found),
    )


@given(texts | st.text(alphabet="0123 ·.-()x\n", max_size=60) | st.text(alphabet="1a:.x_", max_size=60))
def test_the_loop_finds_what_patterns_find(text: str) -> None:
    assert scan(text, None) == slowly(text)


def test_every_twin_of_an_ascii_character_is_seen() -> None:
    assert all(scan(f"a{char}b", None).has_wide for char in _ASCII_TWINS)


@given(st.integers(0, 400))
def test_there_is_room_for_all_that_a_text_can_hold(num: int) -> None:
    for dense in ("1234567 x ", "12345670  x", "a" * 20 + " ", "ab12 ", "ab12,cd34"):
        text = dense * num
        assert scan(text, None) == slowly(text)


@given(st.text(alphabet="0123.8 vIP-/", max_size=60) | st.text(alphabet="12.I", max_size=60))
def test_dotted_quads_are_those_of_their_pattern(text: str) -> None:
    assert [match.span() for match in _quads(text)] == [match.span() for match in _IPV4.finditer(text)]
