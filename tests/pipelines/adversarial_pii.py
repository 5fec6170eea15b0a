"""Personal data in awkward company, and what only looks like it, from a seed: English and Chinese.

Values are made by the standards' rules, as in `planted_pii`, in more of the forms that people write them in. Each is set
into prose and into what web pages are made of: tables, lists, Markdown, JSON, logs, URLs, quotation marks of both
languages, full-width forms, line ends. Hard negatives are other things that consist of digits, dots and letters.
"""

import base64
import hashlib
import random
import string
from collections.abc import Callable

import planted_pii
from planted_pii import Planted

_ALNUM = string.ascii_letters + string.digits
_HEX = "0123456789abcdef"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_WIDE = str.maketrans({char: chr(ord(char) + 0xFEE0) for char in string.digits + string.ascii_letters + "@.-"})

_WIDE_DIGITS = str.maketrans(string.digits, "０１２３４５６７８９")

# Company in which anything may stand. {} is the value, {context} a word that names it.
COMPANY = {
    "en": (
        "{context} {}", "{context}: {}", "{context}:{}", "| Jane | {context} {} | yes |", "- {context}: {}\n- next", "* {context} {};",
        "**{context}** {}", "{context}: `{}`", "{context} ({}) was given", '{{"{context}": "{}"}}', "{context} = '{}',", "{context}\n{}\nThanks",
        "{context} “{}”.", "{context}: {}, and then", "{context}: {}!", "{context}: {}?", "> {context}: {}", "{context}\t{}\tok",
        "{context}: {}. Then we left.", "<td>{context} {}</td>", "{context} — {} — done", "[{context}: {}]", "{context}:\u00a0{}",
    ),
    "zh": (
        "{context}{}", "{context}：{}", "{context}：{}。", "{context}是{}，谢谢", "| 张三 | {context}{} | 是 |", "- {context}：{}\n- 下一项",
        "**{context}**：{}", "（{context}：{}）", "“{context}{}”", "《通知》{context}{}；", "{context}\n{}\n谢谢", "{context}　{}　确认",
        "{context}为{}的用户", "【{context}】{}", "{context}:{}/备注", "他的{context}是{}！", "{context}：{}？", "1、{context}：{}、2、其他",
        "{context}「{}」", '{{"{context}": "{}"}}', "{context}`{}`", "我把{context}{}告诉了他", "{context}：\u3000{}",
    ),
}  # fmt: skip

CONTEXT = {
    "en": {
        "email": ("Email", "write to", "contact", "e-mail", "sent by", "mailto"),
        "ip": ("IP", "client address", "from", "login from", "host", "server", "X-Forwarded-For"),
        "card": ("card", "Visa", "credit card number", "Card No.", "paid with"),
        "iban": ("IBAN", "account", "pay to", "bank account"),
        "ssn": ("SSN", "social security number", "Social Security", "ssn"),
        "phone": ("Phone", "Tel", "call", "mobile", "Fax", "WhatsApp"),
        "cn_id": ("ID card", "resident ID", "ID number", "identity card"),
        "passport": ("passport", "Passport No.", "passport number", "Passport"),
        "plate": ("license plate", "licence plate", "number plate", "registration plate", "vehicle plate"),
        "crypto": ("BTC", "wallet", "donate to", "send to", "address"),
        "api_key": ("key", "token", "API_KEY", "secret", "Authorization"),
        "uscc": ("company code", "registered as", "USCC"),
    },
    "zh": {
        "email": ("邮箱", "电子邮件", "联系", "邮件发到", "E-mail", "来信请寄"),
        "ip": ("IP", "登录IP", "服务器地址", "来源", "客户端"),
        "card": ("卡号", "银行卡", "信用卡", "银行卡号", "汇款到"),
        "iban": ("IBAN", "国际账号", "汇入", "账户"),
        "ssn": ("社会安全号", "社安号", "美国社会安全号码"),
        "phone": ("电话", "手机", "联系电话", "手机号", "热线", "请拨打", "微信同号"),
        "cn_id": ("身份证", "身份证号", "身份证号码", "证件号", "公民身份号码"),
        "passport": ("护照", "护照号", "护照号码", "持护照"),
        "travel_permit": ("通行证号码", "港澳通行证", "台胞证", "回乡证"),
        "plate": ("车牌", "车牌号", "牌照", "车辆", "车牌号码"),
        "crypto": ("钱包地址", "比特币", "转到", "地址"),
        "api_key": ("密钥", "令牌", "token", "API Key"),
        "uscc": ("统一社会信用代码", "税号", "信用代码"),
    },
}

WIDE_KINDS = {"email", "ip", "card", "iban", "cn_id", "phone", "passport", "uscc"}
"""What people write with full-width digits and letters in Chinese text."""
BREAKABLE_KINDS = {"card", "iban"}
"""What may be broken at a line end, where it is in groups."""
_SAYS_NO_CARD = {"paid with", "汇款到"}  # four groups of digits over two lines are a table, unless a card is named


def _digits(rng: random.Random, num: int) -> str:
    return "".join(rng.choices(string.digits, k=num))


def _chars(rng: random.Random, alphabet: str, num: int) -> str:
    return "".join(rng.choices(alphabet, k=num))


def _email(rng: random.Random, language: str) -> str:
    first = rng.choice(
        ("jane", "bob", "maria", "wei.zhang", "o.brien", "li_na", "k", "info", "Zhang.Wei", "no-reply", "x2")
    )
    local = first + rng.choice(("", "", f"{rng.randrange(1000)}", "+news", ".x", "_1", "-b"))
    if language == "zh" and rng.random() < 0.3:
        local = _digits(rng, rng.randint(5, 11))
    host = rng.choice(
        (
            "qq.com", "163.com", "126.com", "gmail.com", "outlook.com", "sina.com.cn", "pku.edu.cn", "gov.cn", "cs.uni-bonn.de", "bbc.co.uk",
            "nic.io", "x.ai", "mail.hillside.museum", "3m.com", "a-b-c.net", "U-Tokyo.AC.JP", "protonmail.ch", "company.中国"[:8] + "cn", "foo.app",
        )
    )  # fmt: skip
    return f"{local}@{host}"


def _public_quad(rng: random.Random) -> str:
    first = rng.choice((1, 5, 8, 23, 36, 45, 58, 61, 81, 101, 114, 139, 151, 178, 185, 202, 211, 218, 221))
    return f"{first}.{rng.randrange(64, 160)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def _ip(rng: random.Random, _language: str) -> str:
    form = rng.randrange(6)
    if form < 4:
        return _public_quad(rng)
    prefix = rng.choice(("2400:3200", "2001:4860:4860", "240e:45c", "2606:4700", "2a03:2880:f12f", "2408:8756"))
    if form == 4:
        return f"{prefix}:{rng.randrange(1, 0xFFFF):x}::{rng.randrange(1, 0xFFFF):x}"
    groups = [*prefix.split(":"), *(f"{rng.randrange(0x100, 0xFFFF):x}" for _ in range(8))][:8]
    text = ":".join(groups)
    return text.upper() if rng.random() < 0.3 else text


def _card(rng: random.Random, _language: str) -> str:
    lead, length = rng.choice(
        (("4", 16), ("53", 16), ("2720", 16), ("37", 15), ("34", 15), ("62", 16), ("6228", 19), ("6212", 18), ("6011", 16),
         ("3569", 16), ("36", 14), ("6304", 16), ("2202", 16), ("9558", 19), ("8171", 16))
    )  # fmt: skip
    number = planted_pii._with_luhn(lead + _digits(rng, length - 1 - len(lead)))
    form = rng.random()
    if form < 0.4:
        return number
    separator = rng.choice((" ", "-"))
    if length in (16, 19):
        return separator.join(number[i : i + 4] for i in range(0, length, 4))
    if length in (14, 15):
        return separator.join((number[:4], number[4:10], number[10:]))
    return number


def _iban(rng: random.Random, _language: str) -> str:
    letters = string.ascii_uppercase
    country, body = rng.choice(
        (
            ("DE", _digits(rng, 18)), ("FR", _digits(rng, 10) + _chars(rng, letters + string.digits, 11) + _digits(rng, 2)),
            ("GB", _chars(rng, letters, 4) + _digits(rng, 14)), ("ES", _digits(rng, 20)), ("IT", _chars(rng, letters, 1) + _digits(rng, 22)),
            ("NL", _chars(rng, letters, 4) + _digits(rng, 10)), ("CH", _digits(rng, 17)), ("SE", _digits(rng, 20)), ("NO", _digits(rng, 11)),
            ("PL", _digits(rng, 24)), ("BE", _digits(rng, 12)), ("SA", _digits(rng, 20)), ("AE", _digits(rng, 19)), ("TR", _digits(rng, 22)),
            ("UA", _digits(rng, 25)), ("IE", _chars(rng, letters, 4) + _digits(rng, 14)), ("DK", _digits(rng, 14)), ("BR", _digits(rng, 23) + "P1"),
        )
    )  # fmt: skip
    check = 98 - int("".join(str(int(char, 36)) for char in body + country + "00")) % 97
    number = f"{country}{check:02}{body}"
    form = rng.random()
    if form < 0.4:
        return number
    grouped = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    return grouped if form < 0.9 else number.lower()


def _ssn(rng: random.Random, _language: str) -> str:
    area = rng.choice([number for number in range(1, 900) if number != 666])
    parts = f"{area:03}", f"{rng.randrange(1, 100):02}", f"{rng.randrange(1, 10000):04}"
    return rng.choice(("-", "-", "-", " ", "")).join(parts)


_AREA = ("205", "212", "303", "415", "503", "617", "702", "808", "917", "646")
_MOBILE = (
    "130",
    "133",
    "135",
    "138",
    "139",
    "145",
    "150",
    "157",
    "159",
    "166",
    "170",
    "173",
    "177",
    "180",
    "186",
    "189",
    "191",
    "198",
    "199",
)


def _phone(rng: random.Random, language: str) -> str:
    if language == "zh":
        mobile = rng.choice(_MOBILE) + _digits(rng, 8)
        groups = (mobile[:3], mobile[3:7], mobile[7:])
        code = rng.choice(("010", "021", "020", "0755", "0571", "028", "0351", "0898"))
        line = rng.choice("2568") + _digits(rng, 6 if code == "0351" else 7)
        return rng.choice(
            (
                mobile, mobile, mobile, " ".join(groups), "-".join(groups), f"+86 {mobile}", f"+86-{mobile}", f"+86{mobile}", f"0086{mobile}", f"(+86){mobile}",
                f"{code}-{line}", f"({code}){line}", f"（{code}）{line}", f"{code} {line}", f"{code}{line}", f"+86 {code[1:]} {line[:4]} {line[4:]}",
                f"{code}-{line}-{_digits(rng, 3)}", f"400-{_digits(rng, 3)}-{_digits(rng, 4)}", f"+852 9{_digits(rng, 3)} {_digits(rng, 4)}", f"+886 9{_digits(rng, 2)} {_digits(rng, 3)} {_digits(rng, 3)}",
            )
        )  # fmt: skip
    area, exchange, line = rng.choice(_AREA), str(rng.randrange(200, 1000)), _digits(rng, 4)
    return rng.choice(
        (
            f"({area}) {exchange}-{line}", f"{area}-{exchange}-{line}", f"{area}.{exchange}.{line}", f"+1 {area} {exchange} {line}", f"+1-{area}-{exchange}-{line}",
            f"1-{area}-{exchange}-{line}", f"+1 ({area}) {exchange}-{line}", f"{area} {exchange} {line}", f"{area}{exchange}{line}", f"({area}){exchange}-{line}",
            f"+44 20 7{_digits(rng, 3)} {line}", f"+44 7{rng.choice('4578')}{_digits(rng, 2)} {_digits(rng, 6)}", f"020 7{_digits(rng, 3)} {line}", f"07{rng.choice('34578')}{_digits(rng, 2)} {_digits(rng, 6)}",
            f"+49 30 {_digits(rng, 7)}", f"+33 6 {_digits(rng, 2)} {_digits(rng, 2)} {_digits(rng, 2)} {_digits(rng, 2)}", f"+61 4{_digits(rng, 2)} {_digits(rng, 3)} {_digits(rng, 3)}",
            f"+91 98{_digits(rng, 3)} {_digits(rng, 5)}", f"+86 138 {_digits(rng, 4)} {_digits(rng, 4)}", f"+1 {area}.{exchange}.{line} ext. {_digits(rng, 3)}",
        )
    )  # fmt: skip


def _cn_id(rng: random.Random, _language: str) -> str:
    place = rng.choice(
        (
            "110101",
            "120103",
            "130203",
            "220102",
            "310115",
            "320106",
            "350203",
            "371002",
            "420111",
            "441302",
            "510105",
            "530102",
            "610113",
            "650104",
            "810000",
        )
    )
    body = f"{place}{rng.randrange(1930, 2024)}{rng.randrange(1, 13):02}{rng.randrange(1, 29):02}{_digits(rng, 3)}"
    check = (12 - sum(pow(2, 17 - at, 11) * int(char) for at, char in enumerate(body)) % 11) % 11
    number = body + (rng.choice("Xx") if check == 10 else str(check))
    return number if rng.random() < 0.85 else f"{number[:6]} {number[6:14]} {number[14:]}"


def _passport(rng: random.Random, language: str) -> str:
    lead = rng.choice("EGDSP")
    chinese = (f"{lead}{_digits(rng, 8)}", f"E{rng.choice('ABCDEFGH')}{_digits(rng, 7)}")
    other = (
        _digits(rng, 9),
        f"A{_digits(rng, 8)}",
        f"{rng.choice('KLMNRTZ')}{_digits(rng, 7)}",
        f"C{_digits(rng, 2)}X{_digits(rng, 2)}T{_digits(rng, 2)}",
        f"{_digits(rng, 2)}AB{_digits(rng, 5)}",
    )
    return rng.choice(chinese if language == "zh" else chinese + other)


def _plate(rng: random.Random, language: str) -> str:
    if language == "en":
        return rng.choice(
            (
                f"{_chars(rng, 'ABCDEFGHJK', 3)} {_digits(rng, 4)}", f"{_chars(rng, 'ABCDEFGHJK', 3)}-{_digits(rng, 4)}", f"AB{_digits(rng, 2)} {_chars(rng, 'CDEFXYZ', 3)}",
                f"{rng.randrange(1, 9)}{_chars(rng, 'ABCDEFG', 3)}{_digits(rng, 3)}",
            )
        )  # fmt: skip
    lead = rng.choice("京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼") + rng.choice("ABCDEFGH")
    letter = rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ")
    return rng.choice(
        (
            f"{lead}{_digits(rng, 5)}", f"{lead}·{_digits(rng, 5)}", f"{lead}{letter}{_digits(rng, 4)}", f"{lead} {_digits(rng, 4)}{letter}", f"{lead}{_digits(rng, 2)}{letter}{_digits(rng, 2)}",
            f"{lead}D{_digits(rng, 5)}", f"{lead}·F{_digits(rng, 5)}", f"{lead}{_digits(rng, 5)}D", f"{lead}{_digits(rng, 4)}挂", f"{lead}{_digits(rng, 4)}学", f"{lead}{letter}{_digits(rng, 3)}{letter}",
        )
    )  # fmt: skip


def _base58check(payload: bytes) -> str:
    data = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = planted_pii._BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def _bech32(rng: random.Random, prefix: str, version: int, num_bytes: int) -> str:
    number = int.from_bytes(rng.randbytes(num_bytes), "big") << (-num_bytes * 8 % 5)
    num_values = -(-num_bytes * 8 // 5)
    values = [version, *((number >> 5 * (num_values - 1 - at)) & 31 for at in range(num_values))]
    constant = 1 if version == 0 else 0x2BC830A3
    generator = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
    checksum = 1
    for value in [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix), *values, 0, 0, 0, 0, 0, 0]:
        top, checksum = checksum >> 25, (checksum & 0x1FFFFFF) << 5 ^ value
        for at in range(5):
            checksum ^= generator[at] if top >> at & 1 else 0
    checksum ^= constant
    return prefix + "1" + "".join(_BECH32[v] for v in [*values, *((checksum >> 5 * (5 - at)) & 31 for at in range(6))])


def _crypto(rng: random.Random, _language: str) -> str:
    form = rng.randrange(6)
    if form == 0:
        return "0x" + "".join(rng.choice((c, c.upper())) for c in _chars(rng, _HEX, 40))
    if form == 1:
        text = _bech32(rng, rng.choice(("bc", "ltc")), 0, rng.choice((20, 32)))
        return text.upper() if rng.random() < 0.2 else text
    if form == 2:
        return _bech32(rng, "bc", 1, 32)
    if form == 3:
        return _base58check(b"\x80" + rng.randbytes(32) + rng.choice((b"", b"\x01")))  # a private key to import
    return _base58check(rng.choice((b"\x00", b"\x05", b"\x30", b"\x1e", b"\x41")) + rng.randbytes(20))


def _api_key(rng: random.Random, _language: str) -> str:
    return rng.choice(
        (
            lambda: rng.choice(("AKIA", "ASIA")) + _chars(rng, string.ascii_uppercase + "234567", 16), lambda: "AIza" + _chars(rng, _ALNUM + "-_", 34) + rng.choice(_ALNUM),
            lambda: rng.choice(("ghp_", "gho_", "ghs_")) + _chars(rng, _ALNUM, 36), lambda: "github_pat_" + _chars(rng, _ALNUM, 22) + "_" + _chars(rng, _ALNUM, 59),
            lambda: "glpat-" + _chars(rng, _ALNUM, 20), lambda: "sk-ant-api03-" + _chars(rng, _ALNUM + "_-", 90) + "AA", lambda: "sk-proj-" + _chars(rng, _ALNUM, 64),
            lambda: "sk-" + _chars(rng, _ALNUM, 48), lambda: rng.choice(("sk_live_", "rk_live_", "sk_test_")) + _chars(rng, _ALNUM, 24), lambda: "hf_" + _chars(rng, _ALNUM, 34),
            lambda: f"xoxb-{_digits(rng, 12)}-{_digits(rng, 13)}-{_chars(rng, _ALNUM, 24)}", lambda: "SG." + _chars(rng, _ALNUM, 22) + "." + _chars(rng, _ALNUM, 43),
            lambda: "npm_" + _chars(rng, _ALNUM, 36), lambda: "LTAI" + _chars(rng, _ALNUM, 20), lambda: "AKID" + _chars(rng, _ALNUM, 32), lambda: "dop_v1_" + _chars(rng, _HEX, 64),
            lambda: "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJ" + _chars(rng, _ALNUM, 60) + "." + _chars(rng, _ALNUM + "_-", 85) + rng.choice(_ALNUM),
            lambda: "ya29." + _chars(rng, _ALNUM + "_-", 60) + rng.choice(_ALNUM), lambda: "shpat_" + _chars(rng, _HEX, 32), lambda: "dckr_pat_" + _chars(rng, _ALNUM, 27),
        )
    )()  # fmt: skip


def _private_key(rng: random.Random, _language: str) -> str:
    name = rng.choice(
        (
            "RSA PRIVATE KEY",
            "PRIVATE KEY",
            "EC PRIVATE KEY",
            "ENCRYPTED PRIVATE KEY",
            "OPENSSH PRIVATE KEY",
            "DSA PRIVATE KEY",
            "PGP PRIVATE KEY BLOCK",
        )
    )
    body = base64.b64encode(rng.randbytes(rng.randint(48, 1200))).decode()
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    head = (
        ["Version: GnuPG v2", ""]
        if "PGP" in name
        else ["Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,0123ABCD", ""]
        if name.startswith("RSA") and rng.random() < 0.3
        else []
    )
    joint = rng.choice(("\n", "\n", "\r\n", "\\n", "\n    "))
    return joint.join((f"-----BEGIN {name}-----", *head, *lines, f"-----END {name}-----"))


def _uscc(rng: random.Random, _language: str) -> str:
    alphabet = planted_pii._USCC
    code = (
        rng.choice(("91", "92", "12", "51", "93"))
        + rng.choice(("110105", "310104", "440300", "330106"))
        + _chars(rng, alphabet, 9)
    )
    return code + alphabet[-sum(alphabet.index(c) * pow(3, at, 31) for at, c in enumerate(code)) % 31]


VALUES: dict[str, Callable[[random.Random, str], str]] = {
    "email": _email, "ip": _ip, "card": _card, "iban": _iban, "ssn": _ssn, "phone": _phone, "cn_id": _cn_id, "passport": _passport,
    "travel_permit": planted_pii._permit, "plate": _plate, "crypto": _crypto, "api_key": _api_key, "uscc": _uscc,
}  # fmt: skip

# Company of its own kind: where the value is a part of something longer.
SPECIAL = {
    "email": ("[write](mailto:{})", "https://site.org/unsubscribe?email={}&id=7", "git config user.email {}", "From: Jane Doe <{}>", "Cc:{};", "@{} ", "mailto:{}?subject=hi", "联系我{}吧"),
    "ip": ("http://{}/index.html", '{} - - [10/Oct/2023:13:55:36 +0000] "GET / HTTP/1.1" 200', "sshd[812]: Failed password from {} port 22", "curl {}", "iptables -A INPUT -s {} -j DROP", "攻击来自{}，已封禁"),
    "crypto": ("https://chain.site.io/address/{}", "bitcoin:{}?amount=1", "`{}`", "捐款：{}（谢谢）"),
    "api_key": ("Authorization: Bearer {}", "https://api.site.io/v1?key={}&q=x", "export TOKEN={}", 'client = Client(api_key="{}")', "令牌{}已失效"),
    "phone": ("[call](tel:{})", "☎ {}", "Tel.: {}"),
    "card": ("尾号前的完整卡号{}，请勿外传", "(card {})", "CARD:{}"),
}  # fmt: skip

PRIVATE_KEY_COMPANY = {
    "en": ("{}", "the key:\n\n{}\n\nkeep it", '{{"key": "{}"}}', "```\n{}\n```", "secret: |\n    {}\nnext: 1"),
    "zh": ("私钥：\n{}\n请保密", "密钥如下{}完", "```\n{}\n```\n以上是私钥"),
}


def adversarial(seed: int, num_a_kind: int) -> list[Planted]:
    """So many texts of each kind and language, and a fifth as many of each hard negative."""
    rng = random.Random(seed)
    rows = []
    for language, contexts in CONTEXT.items():
        for kind, words in contexts.items():
            rows += [_in_company(rng, language, kind, rng.choice(words)) for _ in range(num_a_kind)]
        for _ in range(num_a_kind // 2):
            frame = rng.choice(PRIVATE_KEY_COMPANY[language])
            rows.append(_planted(frame, _private_key(rng, language), language, "private_key"))
        rows += [
            Planted(text=frame.format_map(_negatives(rng)), language=language, kind=None, start=0, end=0)
            for frame in NEGATIVES[language]
            for _ in range(max(1, num_a_kind // 5))
        ]
    return rows


def _in_company(rng: random.Random, language: str, kind: str, word: str) -> Planted:
    value = VALUES[kind](rng, language)
    special = [frame for frame in SPECIAL.get(kind, ()) if frame.isascii() == (language == "en")]
    is_ipv6 = kind == "ip" and ":" in value
    if special and not is_ipv6 and rng.random() < 0.3:
        return _planted(rng.choice(special), value, language, kind)
    frame = rng.choice(COMPANY[language])
    if language == "zh" and kind in WIDE_KINDS and rng.random() < 0.15:
        value = value.translate(_WIDE if kind == "email" or rng.random() < 0.5 else _WIDE_DIGITS)
    elif kind in BREAKABLE_KINDS and " " in value and word not in _SAYS_NO_CARD and rng.random() < 0.15:
        at = rng.choice([at for at, char in enumerate(value) if char == " "])
        value = value[:at] + "\n" + value[at + 1 :]
    if word.isascii() and language == "zh" and word != "IP":
        frame = frame.replace("{context}{}", "{context} {}")  # nobody writes a Latin word and a value as one
    return _planted(frame.replace("{context}", word), value, language, kind)


def _planted(frame: str, value: str, language: str, kind: str) -> Planted:
    before, after = (part.replace("{{", "{").replace("}}", "}") for part in frame.split("{}"))
    at, text = len(before), before + value + after
    return Planted(text=text, language=language, kind=kind, start=at, end=at + len(value))


NEGATIVES = {
    "en": (
        "ISBN {isbn13}", "ISBN-10: {isbn10}", "(ISBN {isbn13_hyphens})", "isbn={isbn13}&x=1", "doi:10.{d4}/{alnum8}.{d7}", "https://doi.org/10.{d4}/s{d5}-{d3}-{d5}-{d1}",
        "Order #{d10}", "order no. {d16}", "Your order 112-{d7}-{d7} has shipped", "Invoice {d8}-{d4}", "tracking number: {d12}", "tracking no {d22}", "ticket {d9}", "Case No. {d2}-{d5}",
        "version {version4}", "v{version4} released", "upgraded to release {version4}", "firmware {version4}", "Windows 10.0.19045.{d4}", "Chrome/{d3}.0.{d4}.{d3} Safari/537.36", "libfoo-{version4}.tar.gz", "foo=={version4}",
        "md5 {md5}", "sha1: {sha1}", "sha256:{sha256}", "commit {sha1}", "{sha1_short} Fix the build", "image@sha256:{sha256}", "ETag: \"{md5}\"", "uuid {uuid}", "/{uuid}/", "urn:uuid:{uuid}",
        "at {unix}", "ts={millis}", "{micros} us", "2023-10-{d2b}T10:30:15.{d6}Z", "20231015{hms}", "[2023-10-{d2b} 10:30:15,{d3}]", "IMG_20231015_{hms}.jpg",
        "color: #{hex6};", "background:#{hex8}", "rgba({d2}, {d2}, {d2}, 0.5)", "data:image/png;base64,{base64}", "integrity=\"sha384-{base64_48}\"", "lat {lat}, lon {lon}", "({lat},{lon})", "N {d2}.{d6} E {d2}.{d6}",
        "costs ${price}", "€ {price_de}", "{price} USD", "USD {d3},{d3},{d3}.00", "x = {d9} + {d9}", "{d5} * {d5} = {d10}", "6.{d8}e-34", "0.{d16}", "pi = 3.14159265358979", "a[{d4}][{d4}] = {d9}",
        "{section4} Installing", "see section {section4} for more", "{section5}", "§ {section4}", "Table {section4}: results", "OID 1.3.6.1.4.1.{d5}.{d2}", "RFC {d4}, section 3.{d1}.{d1}",
        "{groups}", "1 2 3 4 5 6 7 8 9 10 11 12 13", "| {d3} | {d4} | {d5} | {d6} |", "{year}-{year2}, {year}-{year2}", "{year}/{year2}", "from {year} to {year2}", "ISSN {d4}-{d4}", "CAS 7732-18-5, 64-17-5",
        "US patent {d1},{d3},{d3}", "arXiv:23{d2c}.{d5}", "PMID: {d8}", "part number {alnum4}-{d6}", "serial {alnum12}", "EAN {ean}", "UPC {d12}", "0x{hex8}", "0x{hex16}", "0x{hex64}", "addr 0x7ff{hex8}",
        "127.0.0.1:{d4}", "10.{d2}.{d2}.{d2}", "192.168.{d2}.{d2}", "192.0.2.{d2}", "198.51.100.{d2}", "fe80::{hex4}:{hex4}", "2001:db8:{hex4}::1", "::1", "std::vector::size", "10:30:15", "a:b:c:d", "12:34:56:78",
        "@types/node@18.{d2}.{d1}", "root@localhost", "user@host:~/src", "https://medium.com/@user/{hex8}", "lodash@4.17.{d2}", "git@github.com:org/repo.git", "jane@example.com", "bob@corp.invalid", "icon@2x.png", "@media (min-width: {d4}px)", "foo@bar",
        "license key {key25}", "{d3} of {d9} bytes", "{d10} bytes", "population {d3},{d3},{d3}", "1,{d3},{d3},{d3}", "score {d3}-{d3}", "rows {d4}-{d4}", "pages {d3}-{d3}", "{d1}-{d1}-{d1}", "port {d5}", "HTTP 200 {d6}",
        "sk-learn and scikit-learn-contrib", "sk-your-api-key-goes-here-please", "AKIAIOSFODNN7EXAMPLE", "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "key: ${{API_KEY}}", "-----BEGIN CERTIFICATE-----\n{base64_64}\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\n{base64_64}\n-----END PUBLIC KEY-----", "ssh-rsa AAAA{base64_64}", "card {wrong_card} declined", "account {wrong_iban}", "passport control opened in {year}", "the passport of 1920", "license plate readers", "a number plate from {year}",
        "ssn = None", "SSN 000-{d2}-{d4}", "SSN 666-12-{d4}", "fax machines sold {d6}", "call sys_read({d3}, {d8})", "phone sales rose to {d3},{d3},{d3}", "Phone 14 Pro", "1024x768", "{d4}x{d4}", "{d2}/{d2}/{year}", "{d2}.{d2}.{year}", "{year}.{d2}.{d2}",
    ),
    "zh": (
        "书号{isbn13}", "ISBN：{isbn13_hyphens}", "ISBN {isbn13}。", "订单号{d16}已发货", "订单编号：{d18}", "快递单号{d12}", "运单号：{d15}", "流水号{d20}", "发票号码{d8}", "工单{d10}", "编号{d12}", "案号（2023）京01民终{d4}号",
        "版本{version4}", "升级到{version4}版", "V{version4}版本", "固件版本：{version4}", "哈希值{sha1}", "校验和：{md5}", "提交{sha1_short}修复", "SHA256：{sha256}。", "UUID为{uuid}",
        "时间戳{unix}", "时间戳：{millis}", "2023年10月{d2b}日10:30:15", "2023-10-{d2b} 10:30:15", "20231015{hms}", "发布于2023/10/{d2b}", "{year}年至{year2}年", "{year}—{year2}年",
        "颜色#{hex6}", "图片data:image/png;base64,{base64}", "坐标{lat},{lon}", "北纬{d2}.{d6}度", "东经1{d2}.{d4}°", "售价{price}元", "¥{price}", "共{d9}元", "总额{d3},{d3},{d3}.00元", "{d10}字节", "共有{d8}人", "{d11}次",
        "第{section4}节", "见{section4}条", "{section4}　安装", "{section4} 概述", "第{d1}.{d1}.{d1}.{d1}章", "图{section4}", "x={d9}+{d9}", "圆周率3.14159265358979", "0.{d16}", "{d5}×{d5}={d10}",
        "京ICP备{d8}号-1", "京公网安备11010502{d6}号", "国发〔2023〕{d2}号", "GB/T {d5}-2023", "邮编{d6}", "股票代码{d6}", "QQ群号", "条形码{ean}", "专利号ZL2023{d8}.{d1}", "批准文号：国药准字H{d8}", "许可证号：{d12}", "学号{d10}", "学校代码：{d5}",
        "内网地址192.168.{d2}.{d2}", "127.0.0.1:{d4}端口", "网关10.{d2}.{d2}.{d2}。", "用户root@localhost登录", "示例jane@example.com", "图标icon@2x.png", "微博@用户{d4}", "时间10:30:15", "比分{d2}:{d2}", "内存地址0x7ff{hex8}",
        "卡号{wrong_card}有误", "身份证{wrong_cn_id}无效", "账号{wrong_iban}不对", "护照有效期至{year}年", "办理护照需{d2}天", "车牌摇号{year}年", "京A股{d6}点", "沪A{d2}股", "型号A{d5}", "型号：{alnum4}-{d6}", "车型{alnum4}", "手机销量{d8}部", "电话费{d3}.{d2}元", "手机2023年10月{d2b}日",
        "电话会议{year}年{d1}月", "热线开通{d3}天", "第{d8}号", "{groups}", "| {d3} | {d4} | {d5} |", "页码{d3}-{d3}", "分辨率{d4}×{d4}", "点击{d9}次", "ID：{d8}", "房间号{d4}", "密钥是占位符sk-xxxxxxxxxxxxxxxxxxxxxxxx", "公钥ssh-rsa AAAA{base64_64}",
        "统一社会信用代码证", "社会信用体系{year}", "通行证办理{d3}天", "汇率7.{d4}", "经度1{d2}.{d6}，纬度{d2}.{d6}", "下载量1{d3}万", "电压{d3}V", "{d4}年前", "1、{d3}；2、{d3}；3、{d3}",
    ),
}  # fmt: skip


def _negatives(rng: random.Random) -> dict[str, object]:
    base = planted_pii._near_misses(rng)
    isbn13, year = str(base["isbn"]), rng.randrange(1950, 2024)
    isbn9 = _digits(rng, 9)
    check10 = sum((at + 1) * int(char) for at, char in enumerate(isbn9)) % 11
    sha256 = hashlib.sha256(rng.randbytes(8)).hexdigest()
    section = [rng.randrange(1, 15) for _ in range(5)]
    return {
        **{f"d{num}": str(rng.randrange(1, 10)) + _digits(rng, num - 1) for num in (*range(1, 13), 15, 16, 18, 20, 22)},
        "d16": "20231015" + _digits(rng, 8), "d18": "20231015" + _digits(rng, 10),  # most order numbers begin with the day
        "d2b": f"{rng.randrange(1, 29):02}", "d2c": f"{rng.randrange(1, 13):02}", "hms": f"{rng.randrange(24):02}{rng.randrange(60):02}{rng.randrange(60):02}",
        **{f"hex{num}": _chars(rng, _HEX, num) for num in (4, 6, 8, 16, 64)}, **{f"alnum{num}": _chars(rng, string.ascii_uppercase + string.digits, num) for num in (4, 8, 12)},
        "isbn13": isbn13, "isbn10": isbn9 + ("X" if check10 == 10 else str(check10)), "isbn13_hyphens": f"{isbn13[:3]}-{isbn13[3]}-{isbn13[4:7]}-{isbn13[7:12]}-{isbn13[12]}",
        "version4": ".".join(map(str, (rng.randrange(1, 25), rng.randrange(30), rng.randrange(60), rng.randrange(200)))), "md5": base["md5"], "sha1": base["sha1"], "sha1_short": base["sha1_short"], "sha256": sha256, "uuid": base["uuid"],
        "unix": rng.randrange(1_400_000_000, 1_800_000_000), "millis": base["milliseconds"], "micros": rng.randrange(1_500_000_000_000_000, 1_800_000_000_000_000),
        "base64": base64.b64encode(rng.randbytes(180)).decode(), "base64_48": base64.b64encode(rng.randbytes(48)).decode(), "base64_64": base64.b64encode(rng.randbytes(150)).decode().rstrip("="),
        "lat": f"{rng.uniform(-90, 90):.{rng.choice((4, 6, 7))}f}", "lon": f"{rng.uniform(-180, 180):.{rng.choice((4, 6, 7))}f}", "price": base["price"], "price_de": f"{rng.randrange(1, 99)}.{_digits(rng, 3)}.{_digits(rng, 3)},00",
        "section4": ".".join(map(str, section[:4])), "section5": ".".join(map(str, section)), "year": year, "year2": year + rng.randrange(1, 30), "ean": base["ean"],
        "groups": " ".join(_digits(rng, 4) for _ in range(rng.randint(2, 9))),
        "key25": "-".join(_chars(rng, string.ascii_uppercase + string.digits, 5) for _ in range(5)), "wrong_card": base["wrong_card"], "wrong_cn_id": base["wrong_cn_id"], "wrong_iban": base["wrong_iban"],
    }  # fmt: skip
