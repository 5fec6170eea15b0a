"""The text that is trained on: lines cut, personal data replaced, wherever the two meet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.pii import DEFAULT_KINDS, find, redact
from pipelines.trained_text import trained_text

KINDS = frozenset(DEFAULT_KINDS)


def row(text: str, *cut: int) -> dict:
    spans = [{"kind": each.kind, "start": each.start, "end": each.end} for each in find(text)]
    return {"language": None, "pii": spans, "cut_lines": [{"line": line, "first_shown_by": "a"} for line in cut]}


MAIL = "write to zhang.san@shanshui-mail.cn today"


@pytest.mark.parametrize(
    ("text", "cut", "expected"),
    [
        ("one\ntwo\nthree", (), "one\ntwo\nthree"),
        ("one\ntwo\nthree", (1,), "one\nthree"),
        ("one\ntwo\nthree", (0, 1), "three"),
        ("one\ntwo\nthree", (2,), "one\ntwo"),
        ("one\ntwo\nthree", (0, 1, 2), ""),
        (f"{MAIL}\ntwo\n{MAIL}", (2,), "write to <EMAIL> today\ntwo"),
        (f"{MAIL}\ntwo\n{MAIL}", (0, 1), "write to <EMAIL> today"),
        ("一\n二\n三", (1,), "一\n三"),
    ],
)
def test_lines_go_and_personal_data_is_replaced(text, cut, expected):
    assert trained_text(text, KINDS, row(text, *cut)) == expected
    assert trained_text(text, KINDS - {"imei", "card"}, row(text, *cut)) == expected, "found again"


texts = st.lists(st.sampled_from(["a line", "", MAIL, "call 13912345678 now", "一行", "ip 8.8.8.8"]), max_size=6)


@given(texts, st.sets(st.integers(0, 5)))
def test_cutting_and_replacing_are_the_same_in_any_order(lines, cut):
    text = "\n".join(lines)
    left = "\n".join(line for number, line in enumerate(lines) if number not in cut)
    assert trained_text(text, KINDS, row(text, *cut)) == redact(left, find(left))
    assert trained_text(text, None, row(text, *cut)) == left
    assert trained_text(text, KINDS, row(text)) == redact(text, find(text))
