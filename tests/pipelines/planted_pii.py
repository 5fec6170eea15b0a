"""Sentences with personal data planted from a seed, English and Chinese, and sentences with what only looks like it.

Values are made by the standards' own rules, written here a second time and not taken from the detectors. Neighbours are
spaces, punctuation, Chinese characters, brackets, line ends; Chinese sentences have full-width digits now and then.
"""

import hashlib
import random
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_USCC = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_FULL_WIDTH = str.maketrans(string.digits, "０１２３４５６７８９")
_MAY_BE_FULL_WIDTH = {"phone", "card", "cn_id"}

SENTENCES = {
    "en": {
        "email": ("Write to {} for details.", "Contact: {}", "({})", "mail {}, please", "<{}>"),
        "ip": ("The request came from {} at noon.", "ping {}", "address: {}, blocked", "ssh root@{} fails"),
        "card": ("My card {} was lost.", "Pay with {}.", "credit card number: {}", "{} expires in May"),
        "iban": ("Transfer it to {} today.", "IBAN: {}", "account {}."),
        "ssn": ("His SSN is {}.", "social security number {}", "{} is on the form"),
        "phone": ("Call {} after six.", "Phone: {}", "({} or by mail)", "reach us at {}."),
        "cn_id": ("ID card {} was copied.", "number {}."),
        "passport": ("passport number {}", "Passport No. {}, valid", "holder of passport {}."),
        "plate": ("license plate {} was seen", "number plate: {}."),
        "crypto": ("Send it to {}.", "wallet: {}", "donate {} thanks"),
        "api_key": ("export API_KEY={}", 'key = "{}"', "token: {}", "curl -H 'Authorization: Bearer {}'"),
        "private_key": ("{}", "the file is\n{}\nkeep it"),
    },
    "zh": {
        "email": ("邮箱{}，欢迎来信", "请发邮件到{}咨询", "联系方式：{}。", "（{}）", "邮箱是{}吗"),
        "ip": ("服务器IP是{}。", "登录地址{}异常", "来自{}的请求", "地址：{}，端口"),
        "card": ("卡号{}。", "信用卡{}已挂失", "请汇款至银行卡：{}，谢谢", "银联{}元"),
        "iban": ("汇入{}账户", "国际账号：{}。"),
        "ssn": ("社会安全号{}。", "社安号：{}，请保密"),
        "phone": ("请电{}联系", "手机{}，微信同号", "电话：{}", "拨打{}即可", "联系人张三{}。"),
        "cn_id": ("身份证{}。", "身份证号码：{}，姓名", "证件号{}已核验", "公民{}前来办理"),
        "passport": ("护照{}。", "护照号码：{}，有效", "持护照{}入境"),
        "travel_permit": ("通行证号码{}。", "港澳通行证：{}", "台胞证{}已过期"),
        "plate": ("车牌{}违章", "一辆{}的轿车", "牌照号{}。"),
        "crypto": ("钱包地址{}。", "请转到{}谢谢", "地址：{}"),
        "api_key": ("密钥{}已泄露", "令牌：{}。", "token={}"),
        "private_key": ("私钥如下：\n{}\n请勿外传",),
    },
}

NEAR_MISSES = {
    "en": (
        "Order number {order} has shipped.", "tracking number {fedex}", "Tracking: {ups}.", "parcel {usps} is late",
        "ISBN {isbn}", "ISBN-13: {isbn_hyphens}", "It costs ${price}.", "a total of {big} bytes", "version {version} is out",
        "Chrome/{version}", "on {date} at {time}", "timestamp {milliseconds}", "sha1 {sha1}", "commit {sha1_short}",
        "md5: {md5}", "uuid {uuid}", "card {wrong_card} was refused", "id {wrong_cn_id}", "IBAN {wrong_iban}",
        "from {private_ip} only", "section {section} says", "call the function {count} times", "rows {range}",
        "see https://site.org/p/{order}/view", "SKU {sku}", "π is 3.14159265358979", "model X{count}-{count}",
        "bots@example.com", "user@localhost", "icon@2x.png", "pip install foo@1.2.3", "{years} was hard",
        "key AKIAIOSFODNN7EXAMPLE", "sk-xxxxxxxxxxxxxxxxxxxxxxxx", "0x{zeros}", "EAN {ean}", "{coordinates}",
    ),
    "zh": (
        "订单号{order}已发货", "快递单号{fedex}", "运单{usps}。", "书号{isbn}", "售价{price}元", "共{big}字节", "版本{version}发布",
        "{chinese_date}开会", "日期{date}，{time}", "时间戳{milliseconds}", "哈希值{sha1}。", "校验和{md5}", "卡号{wrong_card}有误",
        "身份证{wrong_cn_id}无效", "内网地址{private_ip}。", "第{section}节", "共有{big}人参加", "编号{sku}", "圆周率3.14159265358979",
        "发票{order}。", "条形码{ean}", "第{count}期", "京A股{count}点", "阅读量{count}次", "用户user@localhost登录", "邮编{postcode}",
        "{years}年间", "坐标{coordinates}", "型号A{count}车", "提交{sha1_short}", "QQ群{zeros}",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A text and what is planted in it."""

    text: str
    language: str
    kind: str | None
    """Of the one value in the text; None where there is none, only a near miss."""
    start: int
    end: int
    """text[start:end] is the value."""


def planted(seed: int, num_a_kind: int) -> list[Planted]:
    """So many texts for each kind and language, and for each near miss a quarter as many."""
    rng = random.Random(seed)
    rows = []
    for language, sentences in SENTENCES.items():
        for kind, frames in sentences.items():
            for _ in range(num_a_kind):
                value = VALUES[kind](rng, language)
                if language == "zh" and kind in _MAY_BE_FULL_WIDTH and rng.random() < 0.2:
                    value = value.translate(_FULL_WIDTH)
                before, after = rng.choice(frames).split("{}")
                lead = rng.choice(("", "", "\n", "Hello. " if language == "en" else "您好，"))
                start = len(lead) + len(before)
                rows.append(
                    Planted(
                        text=lead + before + value + after,
                        language=language,
                        kind=kind,
                        start=start,
                        end=start + len(value),
                    )
                )
        rows += [
            Planted(text=frame.format_map(_near_misses(rng)), language=language, kind=None, start=0, end=0)
            for frame in NEAR_MISSES[language]
            for _ in range((num_a_kind + 3) // 4)
        ]
    return rows


def _digits(rng: random.Random, num_digits: int) -> str:
    return "".join(rng.choices(string.digits, k=num_digits))


def _chars(rng: random.Random, alphabet: str, num_chars: int) -> str:
    return "".join(rng.choices(alphabet, k=num_chars))


def _email(rng: random.Random, language: str) -> str:
    names = (
        ("zhangsan", "li.wei", "wangfang88", "13800001234")
        if language == "zh"
        else ("jane.doe", "bob+x", "a_smith", "k9")
    )
    hosts = (
        "qq.com",
        "163.com",
        "sina.com.cn",
        "gmail.com",
        "uni-bonn.de",
        "mail.hillside.co.uk",
        "acme.io",
        "x.museum",
    )
    return f"{rng.choice(names)}{rng.randrange(100)}@{rng.choice(hosts)}"


def _ip(rng: random.Random, _language: str) -> str:
    if rng.random() < 0.3:
        return f"2400:3200:{rng.randrange(1, 0xFFFF):x}::{rng.randrange(1, 0xFFFF):x}"
    return f"{rng.choice((8, 36, 52, 82, 114, 185, 203))}.{rng.randrange(120, 250)}.{rng.randrange(1, 250)}.{rng.randrange(1, 250)}"


def _with_luhn(body: str) -> str:
    total = 0
    for place, char in enumerate(reversed(body)):
        value = int(char) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def _card(rng: random.Random, _language: str) -> str:
    lead, length = rng.choice(
        (
            ("4", 16),
            ("51", 16),
            ("2221", 16),
            ("34", 15),
            ("37", 15),
            ("6222", 19),
            ("6217", 16),
            ("6011", 16),
            ("3528", 16),
        )
    )
    number = _with_luhn(lead + _digits(rng, length - 1 - len(lead)))
    if length == 16 and rng.random() < 0.5:
        return rng.choice((" ", "-")).join(number[i : i + 4] for i in range(0, 16, 4))
    return number


def _iban(rng: random.Random, _language: str) -> str:
    country, body = rng.choice(
        (
            ("DE", _digits(rng, 18)),
            ("GB", _chars(rng, string.ascii_uppercase, 4) + _digits(rng, 14)),
            ("FR", _digits(rng, 23)),
            ("NL", _chars(rng, string.ascii_uppercase, 4) + _digits(rng, 10)),
            ("NO", _digits(rng, 11)),
            ("MT", _chars(rng, string.ascii_uppercase, 4) + _digits(rng, 5) + _chars(rng, string.ascii_uppercase + string.digits, 18)),
        )
    )  # fmt: skip
    check = 98 - int("".join(str(int(char, 36)) for char in body + country + "00")) % 97
    number = f"{country}{check:02}{body}"
    return " ".join(number[i : i + 4] for i in range(0, len(number), 4)) if rng.random() < 0.5 else number


def _ssn(rng: random.Random, _language: str) -> str:
    area = rng.choice([number for number in range(1, 900) if number != 666])
    return f"{area:03}-{rng.randrange(1, 100):02}-{rng.randrange(1, 10000):04}"


def _phone(rng: random.Random, language: str) -> str:
    if language == "zh":
        mobile = rng.choice(("138", "139", "150", "186", "177", "199")) + _digits(rng, 8)
        return rng.choice(
            (mobile, f"{mobile[:3]}-{mobile[3:7]}-{mobile[7:]}", f"{mobile[:3]} {mobile[3:7]} {mobile[7:]}", f"+86 {mobile}", f"010-6{_digits(rng, 7)}", f"（0755）8{_digits(rng, 7)}")
        )  # fmt: skip
    area, line = rng.choice(("212", "415", "617", "312")), f"{rng.randrange(200, 999)}-{_digits(rng, 4)}"
    return rng.choice((f"({area}) {line}", f"{area}-{line}", f"+1 {area} {line}", f"+44 20 7946 0{_digits(rng, 3)}", f"{area}.{line.replace('-', '.')}"))  # fmt: skip


def _cn_id(rng: random.Random, _language: str) -> str:
    place = rng.choice(("110105", "310104", "440524", "510107", "330106", "650102"))
    body = f"{place}{rng.randrange(1940, 2015)}{rng.randrange(1, 13):02}{rng.randrange(1, 29):02}{_digits(rng, 3)}"
    remainder = sum(pow(2, 17 - place, 11) * int(char) for place, char in enumerate(body)) % 11
    check = (12 - remainder) % 11
    return body + ("X" if check == 10 else str(check))


def _passport(rng: random.Random, _language: str) -> str:
    return rng.choice((f"E{_digits(rng, 8)}", f"G{_digits(rng, 8)}", f"EA{_digits(rng, 7)}", _digits(rng, 9)))


def _permit(rng: random.Random, _language: str) -> str:
    return rng.choice(
        (f"H{_digits(rng, 8)}", f"M{_digits(rng, 10)}", f"C{_digits(rng, 8)}", f"CA{_digits(rng, 7)}", _digits(rng, 8))
    )


def _plate(rng: random.Random, language: str) -> str:
    if language == "en":
        return rng.choice(
            (f"{_chars(rng, 'ABCDEFGH', 3)} {_digits(rng, 4)}", f"AB{_digits(rng, 2)} {_chars(rng, 'XYZ', 3)}")
        )
    lead = rng.choice("京沪粤苏浙川鄂") + rng.choice("ABCDEFGH")
    return rng.choice(
        (f"{lead}{_digits(rng, 5)}", f"{lead}·{_chars(rng, 'ABC', 1)}{_digits(rng, 4)}", f"{lead}D{_digits(rng, 5)}")
    )


def _crypto(rng: random.Random, _language: str) -> str:
    if rng.random() < 0.3:
        return "0x" + _chars(rng, "0123456789abcdef", 40)
    payload = rng.choice((b"\x00", b"\x05", b"\x41")) + rng.randbytes(20)
    data = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def _api_key(rng: random.Random, _language: str) -> str:
    mixed = string.ascii_letters + string.digits
    return rng.choice(
        (
            "AKIA" + _chars(rng, string.ascii_uppercase + "234567", 16),
            "ghp_" + _chars(rng, mixed, 36),
            "sk-ant-api03-" + _chars(rng, mixed + "_-", 80) + "AA",
            "sk-proj-" + _chars(rng, mixed, 48),
            "xoxb-" + _digits(rng, 12) + "-" + _digits(rng, 12) + "-" + _chars(rng, mixed, 24),
            "AIza" + _chars(rng, mixed, 35),
            "glpat-" + _chars(rng, mixed, 20),
            "LTAI5t" + _chars(rng, mixed, 18),
            "eyJhbGciOiJIUzI1NiJ9.eyJ" + _chars(rng, mixed, 40) + "." + _chars(rng, mixed, 43),
        )
    )


def _private_key(rng: random.Random, _language: str) -> str:
    name = rng.choice(("RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY"))
    lines = [_chars(rng, string.ascii_letters + string.digits + "+/", 64) for _ in range(rng.randint(2, 12))]
    return "\n".join((f"-----BEGIN {name}-----", *lines, f"-----END {name}-----"))


VALUES: dict[str, Callable[[random.Random, str], str]] = {
    "email": _email,
    "ip": _ip,
    "card": _card,
    "iban": _iban,
    "ssn": _ssn,
    "phone": _phone,
    "cn_id": _cn_id,
    "passport": _passport,
    "travel_permit": _permit,
    "plate": _plate,
    "crypto": _crypto,
    "api_key": _api_key,
    "private_key": _private_key,
}


def _other_last(value: str, rng: random.Random) -> str:
    """The value with a wrong check digit."""
    return value[:-1] + rng.choice([digit for digit in string.digits if digit != value[-1]])


def _near_misses(rng: random.Random) -> dict[str, object]:
    isbn = "978" + _digits(rng, 9)
    isbn += str(-sum(int(char) * (3 if place % 2 else 1) for place, char in enumerate(isbn)) % 10)
    sha1 = hashlib.sha1(rng.randbytes(8), usedforsecurity=False).hexdigest()
    year, month, day = rng.randrange(1990, 2030), rng.randrange(1, 13), rng.randrange(1, 29)
    big = rng.randrange(10**6, 10**12)
    return {
        "order": f"{year}{month:02}{day:02}{_digits(rng, rng.choice((6, 8, 10)))}",
        "fedex": _digits(rng, 12),
        "ups": "1Z" + _chars(rng, string.ascii_uppercase + string.digits, 16),
        "usps": "94" + _digits(rng, 20),
        "isbn": isbn,
        "isbn_hyphens": f"{isbn[:3]}-{isbn[3]}-{isbn[4:7]}-{isbn[7:12]}-{isbn[12]}",
        "price": f"{rng.randrange(1000, 9999999):,}.{_digits(rng, 2)}",
        "big": rng.choice((f"{big}", f"{big:,}")),
        "version": ".".join(str(rng.randrange(40)) for _ in range(4)),
        "date": rng.choice((f"{year}-{month:02}-{day:02}", f"{year}/{month}/{day}", f"{day:02}.{month:02}.{year}", f"{year}{month:02}{day:02}")),
        "chinese_date": f"{year}年{month}月{day}日",
        "time": f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}",
        "milliseconds": rng.randrange(1_500_000_000_000, 1_800_000_000_000),
        "sha1": sha1,
        "sha1_short": sha1[:8],
        "md5": sha1[:32],
        "uuid": uuid.UUID(bytes=rng.randbytes(16), version=4),
        "wrong_card": _other_last(_with_luhn("4" + _digits(rng, 14)), rng),
        "wrong_cn_id": _other_last(_cn_id(rng, ""), rng),
        "wrong_iban": "GB00ABCD" + _digits(rng, 14),
        "private_ip": rng.choice(("10.", "192.168.", "172.16.")) + f"{rng.randrange(256)}.{rng.randrange(256)}",
        "section": f"{rng.randrange(1, 20)}.{rng.randrange(1, 20)}.{rng.randrange(1, 20)}.{rng.randrange(1, 20)}",
        "count": rng.randrange(10**4, 10**6),
        "range": f"{rng.randrange(1000, 5000)}-{rng.randrange(5000, 9999)}",
        "sku": _chars(rng, string.ascii_uppercase, 3) + "-" + _digits(rng, 8),
        "zeros": "0" * 40,
        "ean": "4" + _digits(rng, 12),
        "coordinates": f"{rng.uniform(-90, 90):.6f}, {rng.uniform(-180, 180):.6f}",
        "postcode": _digits(rng, 6),
        "years": f"{year}-{year + rng.randrange(1, 9)}",
    }  # fmt: skip
