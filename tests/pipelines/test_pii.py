"""Personal data: what must be found, what must not, and that nothing is left after redaction."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.pii import KINDS, Finding, find, redact

PRESIDIO = "pii/presidio-research/data/synth_dataset_v2.json"

# (text, language, text after redaction)
FOUND = [
    # e-mail
    ("write to jane.doe+news@mail.example.co.uk, please.", "en", "write to <EMAIL>, please."),
    ("邮箱zhangsan@qq.com，谢谢", "zh", "邮箱<EMAIL>，谢谢"),
    ("邮箱zhang.san@qq.com。", "zh", "邮箱<EMAIL>。"),
    ("邮箱：ｗａｎｇ＠１６３．ｃｏｍ", "zh", "邮箱：<EMAIL>"),
    ("<a@b.org> 'o'brien@site.ie' mailto:x_y@z.io;", None, "<<EMAIL>> '<EMAIL>' mailto:<EMAIL>;"),
    ("13812345678@163.com", "zh", "<EMAIL>"),
    ("https://joe:secret@host.com/x", None, "https://joe:<EMAIL>/x"),
    ("alice@corp.com-based team", "en", "<EMAIL>-based team"),
    ("user@xn--fiqs8s.xn--fiqz9s", None, "<EMAIL>"),
    # IP
    ("IP是8.8.8.8。", "zh", "IP是<IP>。"),
    ("from 82.50.72.202:1024, via http://36.106.174.11/x", "en", "from <IP>:1024, via http://<IP>/x"),
    ("blocked 93.184.216.34-93.184.216.39 today", "en", "blocked <IP>-<IP> today"),
    ("登录地址114.114.114.115，设备", "zh", "登录地址<IP>，设备"),
    ("host 2001:4860:4860::8888: down; [2606:4700:4700::1111]:443", "en", "host <IP>: down; [<IP>]:443"),
    ("地址：2400:3200::1。", "zh", "地址：<IP>。"),
    ("ask 1.1.1.1 first", "en", "ask <IP> first"),
    # phone
    ("call (415) 555-0132 or +44 20 7946 0958", "en", "call <PHONE> or <PHONE>"),
    ("212-555-0100 212-555-0101", "en", "<PHONE> <PHONE>"),
    ("Phone: 2125550100.", "en", "Phone: <PHONE>."),
    ("London 020 7946 0958", "en", "London <PHONE>"),
    ("+8613812345678", None, "<PHONE>"),
    ("请电13812345678联系", None, "请电<PHONE>联系"),
    ("手机１３８１２３４５６７８，电话（010）62551234", "zh", "手机<PHONE>，电话<PHONE>"),
    ("手机:138-1234-5678或138 1234 5678", "zh", "手机:<PHONE>或<PHONE>"),
    ("固话0755-86013388转", "zh", "固话<PHONE>转"),
    ("Tel. 030 901820", "de", "Tel. <PHONE>"),
    # card
    ("卡号4111111111111111。", "zh", "卡号<CARD>。"),
    ("pay with 4111 1111 1111 1111 or 3782-822463-10005", "en", "pay with <CARD> or <CARD>"),
    ("银联6222021234567890128元", "zh", "银联<CARD>元"),
    ("5555555555554444, 6011111111111117", "en", "<CARD>, <CARD>"),
    # Chinese resident ID
    ("身份证11010519491231002X。", "zh", "身份证<CN_ID>。"),
    ("身份证号１１０１０５１９４９１２３１００２ｘ", "zh", "身份证号<CN_ID>"),
    ("ID 440524188001010014 ok", "en", "ID <CN_ID> ok"),
]

CLEAN = [
    ("第1.2.3.4节 参见1.2.3.4 1.2.3.4.5 v1.2.3.4 版本 2.6.32.5", "zh"),
    ("section 4.2.1.3 and zlib 1.2.3.5, Linux 2.6.18.4, Chrome/91.0.44.124, foo-1.2.3.4, pkg==1.2.3.4-r1", "en"),
    ("1.2.3.4 Configuration\n34.1.1.2. Connection status\n8.3.1.2. /etc/hosts", "en"),
    ("127.0.0.1 10.0.0.1 192.168.1.254 255.255.255.0 169.254.0.1 224.0.0.1 0.0.0.0 300.1.2.3", "en"),
    ("::1 fe80::1 2001:db8::1 std::vector dead::beef a[::2] 10:30:15 00:11:22:33:44:55:66:77", "en"),
    ("2023-01-15 10:30, 15.02.2012, 20230115103000, 1700000000, 1700000000123, 1999-2004", "en"),
    ("在2023年10月15日 2023-10-15 20231015，共17179869184 字节，1234567890123人", "zh"),
    ("2147483647 4294967295 18446744073709551615 3.141592653589793 0.4111111111111111 1.7976931348623157e308", "en"),
    ("ISBN 978-7-115-54608-1, ISBN 0-306-40615-2, ISBN 9787115546081, ISSN 2041-1723, doi 10.1000/182", "en"),
    ("UUID 550e8400-e29b-41d4-a716-446655440000, 12345678-1234-5678-1234-567812345678, 0x4111111111111111", "en"),
    ("d41d8cd98f00b204e9800998ecf8427e e4111111111111111 id_4111111111111111 /v/4111111111111111", "en"),
    ("4111111111111112 1234567812345670 11010519491231002A 110105194912310021 110105194902310026", "en"),
    ("lodash@4.17.21 icon@2x.png root@localhost git@github.com:x/y.git @decorator.name x @ y.com a@b", "en"),
    ("range 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15, [256, 512, 1024], 256 512 1024 2048", "en"),
    ("00 00 00 00 00 00 00 ff; 0.142857142857; 351364.18288201344; -12345678; 1,234,567,890", "en"),
    ("<EMAIL> <IP> <PHONE> <CARD> <CN_ID>", "en"),
]


@pytest.mark.parametrize(("text", "language", "expected"), FOUND)
def test_finds(text: str, language: str | None, expected: str) -> None:
    assert redact(text, find(text, language)) == expected


@pytest.mark.parametrize(("text", "language"), CLEAN)
def test_leaves_alone(text: str, language: str) -> None:
    assert [text[f.start : f.end] for f in find(text, language)] == []


def test_kinds_choose_what_is_looked_for() -> None:
    text = "a@b.org 82.8.4.4"
    assert [f.kind for f in find(text)] == ["email", "ip"]
    assert find(text, kinds=frozenset({"ip"})) == [Finding("ip", 8, 16)]
    with pytest.raises(ConfigError, match="wanted some of"):
        find(text, kinds=frozenset({"names"}))


def test_redact_takes_findings_in_any_order() -> None:
    findings = [Finding("ip", 8, 16), Finding("email", 0, 7)]
    assert redact("a@b.org 82.8.4.4", findings) == "<EMAIL> <IP>"


PIECES = st.sampled_from(
    [case[0] for case in FOUND]
    + [
        "@",
        ".",
        " ",
        "-",
        "，",
        "电",
        "1",
        "8.8.8.8",
        "4111111111111111",
        "a@b.com",
        "+1 212 555 0100",
        "\n",
        "(",
        "２",
    ]
)


@given(st.lists(PIECES, max_size=8).map("".join), st.sampled_from(["en", "zh", None]))
def test_sorted_disjoint_and_nothing_left(text: str, language: str | None) -> None:
    findings = find(text, language)
    ends = [0, *(f.end for f in findings)]
    assert all(end <= f.start < f.end <= len(text) and f.kind in KINDS for end, f in zip(ends, findings, strict=False))
    assert find(redact(text, findings), language) == []


@given(st.text(max_size=200))
def test_any_text_is_survived(text: str) -> None:
    assert redact(text, []) == text
    find(text)


@pytest.mark.real_data
def test_recall_on_presidio_research(record_property: Callable[[str, object], None]) -> None:
    """Made-up numbers: many phones are of other countries, one IP address lies in unassigned space."""
    folder = os.environ.get("CORPUSMILL_TEST_DATA")
    if folder is None:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    rows = json.loads((Path(folder) / PRESIDIO).read_text())
    least = {"EMAIL_ADDRESS": 1.0, "IP_ADDRESS": 0.9, "CREDIT_CARD": 0.75, "PHONE_NUMBER": 0.2}
    total, hits, other = dict.fromkeys(least, 0), dict.fromkeys(least, 0), 0
    for row in rows:
        spans = [(s["start_position"], s["end_position"], s["entity_type"]) for s in row["spans"]]
        found = [(f.start, f.end) for f in find(row["full_text"], "en")]
        for start, end, kind in spans:
            if kind in least:
                total[kind] += 1
                hits[kind] += any(s < end and start < e for s, e in found)
        other += sum(not any(s < end and start < e and kind in least for start, end, kind in spans) for s, e in found)
    recall = {kind: hits[kind] / total[kind] for kind in least}
    record_property("recall", recall)
    record_property("findings_elsewhere", other)
    assert all(recall[kind] >= least[kind] for kind in least), recall
    assert other <= 10
