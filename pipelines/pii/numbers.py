"""Numbers with a check digit: payment cards (ISO/IEC 7812), Chinese resident identity numbers (GB 11643)."""

import datetime as dt
import re

# In both patterns the look-behind comes after the first digit, so that the engine can skip to it quickly.
# Bare, or in the groups printed on cards: 4-4-4-4(-3), American Express 4-6-5, Diners 4-6-4.
_CARD = re.compile(
    r"[0-9](?<![0-9A-Za-z_/].)(?<![0-9][.,:-].)"
    r"(?:[0-9]{12,18}|[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?|[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5})"
    r"(?![0-9A-Za-z_]|[.,:-][0-9])"
)
# First digits and lengths (issuer identification numbers), by network.
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:62|81)\d{14,17}"  # UnionPay
    r"|9558\d{15}"  # ICBC, before UnionPay
    r"|(?:6011|64[4-9]\d|65\d{2})\d{12,15}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12,15}|(?:1800|2131)\d{11}"  # JCB
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{9,15}"  # Maestro
)
_LUHN_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def find_cards(text: str) -> list[tuple[int, int]]:
    """Spans of payment card numbers: 13 to 19 digits, a known issuer, a right check digit."""
    return [match.span() for match in _CARD.finditer(text) if _is_card(re.sub("[ -]", "", match[0]))]


def _is_card(digits: str) -> bool:
    return bool(_ISSUERS.fullmatch(digits)) and _luhn(digits)


def _luhn(digits: str) -> bool:
    total = sum(int(digit) for digit in digits[-1::-2])
    return (total + sum(_LUHN_DOUBLED[int(digit)] for digit in digits[-2::-2])) % 10 == 0


_CHINESE_ID = re.compile(
    r"[1-8](?<![0-9A-Za-z_].)[0-9]{5}"  # province, prefecture, county
    r"((?:18|19|20)[0-9]{2})([01][0-9])([0-3][0-9])"
    r"[0-9]{3}[0-9Xx](?![0-9A-Za-z_])"
)
_PROVINCES = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_CHARS = "10X98765432"


def find_chinese_ids(text: str) -> list[tuple[int, int]]:
    """Spans of 18-character resident identity numbers: a known province, a real date, a right check character."""
    return [match.span() for match in _CHINESE_ID.finditer(text) if _is_chinese_id(match)]


def _is_chinese_id(match: re.Match[str]) -> bool:
    if not _PROVINCES.match(match[0]):
        return False
    try:
        dt.date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, match[0], strict=False))
    return _CHECK_CHARS[total % 11] == match[0][-1].upper()
