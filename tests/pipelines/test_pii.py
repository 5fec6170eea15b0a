"""Personal data: what must be found, what must not, and that nothing is left after redaction."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_pii import Planted, planted

from pipelines.errors import ConfigError
from pipelines.pii import DEFAULT_KINDS, KINDS, Finding, find, redact

PRESIDIO = "pii/presidio-research/data/synth_dataset_v2.json"

# (text, language, text after redaction)
FOUND = [
    # e-mail
    ("write to jane.doe+news@mail.hillside.co.uk, please.", "en", "write to <EMAIL>, please."),
    ("邮箱zhangsan@qq.com，谢谢", "zh", "邮箱<EMAIL>，谢谢"),
    ("邮箱zhang.san@qq.com。", "zh", "邮箱<EMAIL>。"),
    ("邮箱：ｗａｎｇ＠１６３．ｃｏｍ", "zh", "邮箱：<EMAIL>"),
    ("<a@b.org> 'o'brien@site.ie' mailto:x_y@z.io;", None, "<<EMAIL>> '<EMAIL>' mailto:<EMAIL>;"),
    ("13812345678@163.com", "zh", "<EMAIL>"),
    ("https://joe:secret@host.com/x", None, "https://joe:<EMAIL>/x"),
    ("alice@corp.com-based team", "en", "<EMAIL>-based team"),
    ("user@xn--fiqs8s.xn--fiqz9s", None, "<EMAIL>"),
    ("Send it to jane@site.org.Then wait; li [at] uni-bonn (dot) de", "en", "Send it to <EMAIL>.Then wait; <EMAIL>"),
    # IP
    ("IP是8.8.8.8。", "zh", "IP是<IP>。"),
    ("from 82.50.72.202:1024, via http://36.106.174.11/x", "en", "from <IP>:1024, via http://<IP>/x"),
    ("blocked 93.184.216.34-93.184.216.39 today", "en", "blocked <IP>-<IP> today"),
    ("登录地址114.114.114.115，设备", "zh", "登录地址<IP>，设备"),
    ("host 2001:4860:4860::8888: down; [2606:4700:4700::1111]:443", "en", "host <IP>: down; [<IP>]:443"),
    ("地址：2400:3200::1。", "zh", "地址：<IP>。"),
    ("ask 1.1.1.1 first", "en", "ask <IP> first"),
    ("地址3f10:4041:c617:e898:c11:40d2:c669:2eb4。7e40:4041:c617:e898:c11:40d2:c669:2eb4", "zh", "地址<IP>。<IP>"),
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
    ("call me at 467 3395, text us: 28-64-66-98", "en", "call me at <PHONE>, text us: <PHONE>"),
    ("on 898-666-3621 x0135; (415) 555-0132", None, "on <PHONE>; <PHONE>"),
    ("传真：0755–86013388，来电請撥0912-345-678", "zh", "传真：<PHONE>，来电請撥0912-345-678"),
    ("Tel. 030 901820 / 030 901821 / 030 901822 / 030 901823", "de", "Tel. <PHONE> / <PHONE> / <PHONE> / <PHONE>"),
    ("+46 (0)8 503 54 00 +41 41 761 97 25", "sv", "<PHONE> <PHONE>"),
    # card
    ("card number 3590730093437731 and Maestro 676222165679", "en", "card number <CARD> and Maestro <CARD>"),
    ("卡号：4111 1111\n1111 1111，尾号", "zh", "卡号：<CARD>，尾号"),
    ("银行卡4111·1111·1111·1111。", "zh", "银行卡<CARD>。"),
    ("卡号4111111111111111。", "zh", "卡号<CARD>。"),
    ("pay with 4111 1111 1111 1111 or 3782-822463-10005", "en", "pay with <CARD> or <CARD>"),
    ("银联6222021234567890128元", "zh", "银联<CARD>元"),
    ("5555555555554444, 6011111111111117", "en", "<CARD>, <CARD>"),
    # Chinese resident ID
    ("身份证11010519491231002X。", "zh", "身份证<CN_ID>。"),
    ("身份证号１１０１０５１９４９１２３１００２ｘ", "zh", "身份证号<CN_ID>"),
    ("ID 440524188001010014 ok", "en", "ID <CN_ID> ok"),
    ("公民110105 19491231 002X和旧身份证：110105491231002", "zh", "公民<CN_ID>和旧身份证：<CN_ID>"),
    # IBAN, with the examples of the ISO 13616 registry
    ("to GB29 NWBK 6016 1331 9268 19 or de89370400440532013000.", "en", "to <IBAN> or <IBAN>."),
    ("汇入NO9386011117947账户，或MT84 MALT 0110 0001 2345 MTLC AST0 01S。", "zh", "汇入<IBAN>账户，或<IBAN>。"),
    ("IBAN FR14 2004 1010\n0505 0001 3M02 606 thanks", "en", "IBAN <IBAN> thanks"),
    # US social security number
    ("SSN 460-89-9847, social security number: 514 69 0360", "en", "SSN <SSN>, social security number: <SSN>"),
    ("社会安全号460899847。", "zh", "社会安全号<SSN>。"),
    # passport, permits, plates: where the text names them
    ("Passport No. EA1234567; passport 676164763", "en", "Passport No. <PASSPORT>; passport <PASSPORT>"),
    ("护照E12345678，護照號碼：Ｇ１２３４５６７８", "zh", "护照<PASSPORT>，護照號碼：<PASSPORT>"),
    ("回乡证H12345678，台胞证：12345678，港澳通行证号码为CA1234567", "zh",
     "回乡证<TRAVEL_PERMIT>，台胞证：<TRAVEL_PERMIT>，港澳通行证号码为<TRAVEL_PERMIT>"),
    ("Home Return Permit H1234567801", "en", "Home Return Permit <TRAVEL_PERMIT>"),
    ("一辆京A12345的轿车，车牌粤B·D12345和沪C1234挂", "zh", "一辆<PLATE>的轿车，车牌<PLATE>和<PLATE>"),
    ("license plate ABC 1234, number plate: AB12 CDE", "en", "license plate <PLATE>, number plate: <PLATE>"),
    # wallets, with the examples of BIP 13, BIP 173 and BIP 350
    ("地址1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa谢谢", "zh", "地址<CRYPTO>谢谢"),
    ("3P14159f73E4gFr7JterCCQh9QjiTjiZrG, BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "en", "<CRYPTO>, <CRYPTO>"),
    ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0.", "en", "<CRYPTO>."),
    ("0x52908400098527886E0F7030069857D2E4169EE7", "en", "<CRYPTO>"),
    # keys
    ("密钥AKIA2E0A8F3B244C9986，令牌ghp_" + "a1B2c3D4e5F6" * 3 + "。", "zh", "密钥AKIA2E0A8F3B244C9986，令牌<API_KEY>。"),
    ("密钥AKIAQ3EGRIY7KXMT5NBV已泄露", "zh", "密钥<API_KEY>已泄露"),
    ('aws_secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzT9qLmN0pQ"', "en", 'aws_secret_access_key = "<API_KEY>"'),
    ("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", "en", "<API_KEY>"),
    ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n" + "aB3/" * 16 + "\n-----END RSA PRIVATE KEY-----。", "zh",
     "<PRIVATE_KEY>。"),
    ("-----BEGIN PRIVATE KEY-----\n" + "aB3/" * 16 + "\nthe rest is lost", "en", "<PRIVATE_KEY>\nthe rest is lost"),
]  # fmt: skip

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
    (" ".join(f"<{kind.upper()}>" for kind in KINDS), "en"),
    ("jane.doe@example.com, li@mail.example.org, bob@example.co.uk, x@host.test, foo@corp.invalid", "en"),
    ("icon@3x.zip, user@host.notatld, see (at) home, [at] last", "en"),
    ("order 4111111111111111, 订单号4111111111111111, invoice no. 460-89-9847, EAN 4006381333931, 4006381333931", "en"),
    ("000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000 1-123-45-6789 460899847", "en"),
    ("GB29 NWBK 6016 1331 9268 18, GB29NWBK601613319268190, ZZ29NWBK60161331926819, Gb29nwbk60161331926819", "en"),
    ("E12345678 H12345678 12345678 京A12345 京A股12345 ABC 1234 passport control 2024 护照有效期20300101前", "zh"),
    ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5 0x" + "0" * 40, "en"),
    ("AKIAIOSFODNN7EXAMPLE AKIAXXXXXXXXXXXXXXXX sk-your-secret-key-goes-here-please ghp_" + "x" * 36, "en"),
    ("secret_key = os.environ['SECRET_KEY'], api_secret: changeme, sk-learn-contrib-lightning-project", "en"),
    ("-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY----- -----BEGIN CERTIFICATE-----", "en"),
    ("phone 2019-2020, call me in 2023-10-15, fax: 1234567 bytes, 手机2023年10月15日", "en"),
]


@pytest.mark.parametrize(("text", "language", "expected"), FOUND)
def test_finds(text: str, language: str | None, expected: str) -> None:
    assert redact(text, find(text, language)) == expected


@pytest.mark.parametrize(("text", "language"), CLEAN)
def test_leaves_alone(text: str, language: str) -> None:
    assert [text[f.start : f.end] for f in find(text, language)] == []


@pytest.mark.parametrize(
    ("kind", "text", "redacted"),
    [
        ("uscc", "统一社会信用代码91330106MA2CE3B45A。91110000802100433B，91110000802100433C", None),
        ("mac", "网卡52:54:00:12:34:56断开, 00-1A-2B-3C-4D-5E", "网卡<MAC>断开, <MAC>"),
        (
            "imei",
            "IMEI: 490154203237518, 串号490154203237518；订单 490154203237518",
            "IMEI: <IMEI>, 串号<IMEI>；订单 490154203237518",
        ),
    ],
)
def test_organisations_and_devices_are_found_on_request(kind: str, text: str, redacted: str | None) -> None:
    assert kind not in DEFAULT_KINDS
    assert kind not in {finding.kind for finding in find(text, "zh")}
    if redacted is None:
        redacted = text.replace("91110000802100433B", "<USCC>")
    assert redact(text, find(text, "zh", frozenset({kind}))) == redacted


def test_kinds_choose_what_is_looked_for() -> None:
    text = "a@b.org 82.8.4.4"
    assert [f.kind for f in find(text)] == ["email", "ip"]
    assert find(text, kinds=frozenset({"ip"})) == [Finding("ip", 8, 16)]
    with pytest.raises(ConfigError, match="wanted some of"):
        find(text, kinds=frozenset({"names"}))


def test_no_kinds_find_nothing() -> None:
    assert find("a@b.org", kinds=frozenset()) == []


def test_a_value_is_the_same_placeholder_everywhere() -> None:
    one, other = "jane@site.org", "bob@site.org"
    text = f"{one} {other} {one}"
    assert redact(text, find(text)) == "<EMAIL> <EMAIL> <EMAIL>"


@pytest.mark.parametrize("row", planted(seed=5, num_a_kind=12), ids=lambda row: f"{row.language}-{row.kind}")
def test_planted_values_are_covered_and_near_misses_left(row: Planted) -> None:
    findings = find(row.text, row.language)
    assert findings == ([Finding(row.kind, row.start, row.end)] if row.kind else [])


@pytest.mark.parametrize("unit", ["1", "１", "@", "-", "a@a.", "1-", "12-34-56 ", "GB29 1234567 ", "a1B2", "2001:", "(",
    "-----BEGIN PRIVATE KEY-----", "手机号码", "护照号码：", "1.2.3.", "4111 1111 ", "@" + "a-" * 30])  # fmt: skip
def test_hostile_repetition_takes_linear_time(unit: str) -> None:
    def seconds(num_chars: int) -> float:
        text = (unit * (num_chars // len(unit) + 1))[:num_chars]
        started = time.process_time()
        find(text, "zh")
        return time.process_time() - started

    seconds(1000)
    assert seconds(80_000) < 10 * max(seconds(20_000), 0.02)


def test_values_stay_out_of_reprs_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    for row in planted(seed=6, num_a_kind=2):
        said = repr(find(row.text, row.language)) + caplog.text
        assert row.kind is None or row.text[row.start : row.end] not in said


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
    """Made-up numbers: many phones are of other countries and in their notation."""
    folder = os.environ.get("CORPUSMILL_TEST_DATA")
    if folder is None:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    rows = json.loads((Path(folder) / PRESIDIO).read_text())
    least = {
        "EMAIL_ADDRESS": 0.98,
        "IP_ADDRESS": 0.98,
        "CREDIT_CARD": 0.98,
        "IBAN_CODE": 0.98,
        "US_SSN": 0.98,
        "PHONE_NUMBER": 0.5,
    }
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
