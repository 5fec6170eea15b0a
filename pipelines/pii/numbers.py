"""Numbers with a check digit or a strict form.

Payment cards (ISO/IEC 7812), IBAN (ISO 13616), Chinese resident identity numbers (GB 11643) and unified social credit
codes (GB 32100), US social security numbers (20 CFR 422.103), IMEI (3GPP TS 23.003).
"""

import datetime as dt
import re
from collections.abc import Sequence

from pipelines.pii import words
from pipelines.pii.runs import Spans, matches

# In the patterns the look-behind comes after the first digit, so that the engine can skip to it quickly.
# Bare, or in the groups printed on cards: 4-4-4-4(-3), American Express 4-6-5, Diners 4-6-4, perhaps over a line end.
_CARD = re.compile(
    r"[0-9](?<![0-9A-Za-z_/].)(?<![0-9][.,:-].)"
    r"(?:[0-9]{11,18}|[0-9]{3}(?:(?:[ ·-]\n?|\n)[0-9]{4}){3}(?:(?:[ ·-]\n?|\n)[0-9]{3})?"
    r"|[0-9]{3}(?:[ -]\n?|\n)[0-9]{6}(?:[ -]\n?|\n)[0-9]{4,5})"
    r"(?![0-9A-Za-z_]|[.,:-][0-9])"
)
# First digits and lengths (issuer identification numbers), by network.
_ISSUERS = re.compile(
    r"4(?:\d{15}|\d{18})"  # Visa; its numbers of 13 digits are long gone, and goods from Japan and Germany are full of them
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:62|81)\d{14,17}"  # UnionPay
    r"|9558\d{15}"  # ICBC, before UnionPay
    r"|(?:6011|64[4-9]\d|65\d{2})\d{12}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}|(?:1800|2131)\d{11}"  # JCB
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{10,15}"  # Maestro
    r"|220[0-4]\d{12}"  # Mir
)
_LUHN_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def find_cards(text: str, clusters: Spans) -> list[tuple[int, int]]:
    """Spans of payment card numbers among digits close together (`runs.digit_clusters`): 12 to 19 digits with a right check digit.

    A known issuer too, unless the text says that a card follows: issuers are added all the time.
    """
    return [match.span() for match in matches(_CARD, text, clusters) if _is_card(match, text)]


def _is_card(match: re.Match[str], text: str) -> bool:
    digits, separators = re.sub("[^0-9]", "", match[0]), re.sub("[0-9]", "", match[0])
    if len(set(separators) - {"\n"}) > 1 or separators.count("\n") > 1:  # no card is written like that
        return False
    if not luhn(digits) or digits == digits[:4] * (len(digits) // 4):
        return False
    before = words.before(text, match.start())
    if words.is_card_number(before):
        return True
    if "\n" in match[0] or (separators and _is_in_a_row(match, text)):
        return False
    return bool(_ISSUERS.fullmatch(digits)) and not words.is_other_number(before)


_GROUPS_BEFORE = re.compile(r"[0-9]{4}[ -][0-9]{4}[ -]\Z")
_GROUPS_AFTER = re.compile(r"[ -][0-9]{4}[ -][0-9]{4}(?![0-9])")


def _is_in_a_row(match: re.Match[str], text: str) -> bool:
    """Are there two more groups of four digits beside it: a row of numbers, of which some four look like a card?"""
    start = match.start()
    return bool(_GROUPS_BEFORE.search(text[max(0, start - 10) : start]) or _GROUPS_AFTER.match(text, match.end()))


def luhn(digits: str) -> bool:
    """Is the last digit the check digit of the others (ISO/IEC 7812-1, annex B)?"""
    total = sum(int(digit) for digit in digits[-1::-2])
    return (total + sum(_LUHN_DOUBLED[int(digit)] for digit in digits[-2::-2])) % 10 == 0


_CHINESE_ID = re.compile(
    r"[1-8](?<![0-9A-Za-z_].)[0-9]{5}"  # province, prefecture, county
    r"([ -]?)((?:18|19|20)[0-9]{2})([01][0-9])([0-3][0-9])"
    r"\1[0-9]{3}[0-9Xx](?![0-9A-Za-z_])"
)
_OLD_CHINESE_ID = re.compile(
    r"[1-8](?<![0-9A-Za-z_].)[0-9]{5}()([0-9]{2})([01][0-9])([0-3][0-9])[0-9]{3}(?![0-9A-Za-z_])"
)
_PROVINCES = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_CHARS = "10X98765432"


def find_chinese_ids(text: str, clusters: Spans) -> list[tuple[int, int]]:
    """Spans of resident identity numbers: a known province, a real date, a right check character.

    Those of 15 digits (before 1999) have none and are found where the text names them.
    """
    spans = [match.span() for match in matches(_CHINESE_ID, text, clusters) if _is_chinese_id(match)]
    spans += [
        match.span()
        for match in matches(_OLD_CHINESE_ID, text, clusters)
        if _is_place_and_date(match, "19") and words.is_chinese_id(words.before(text, match.start()))
    ]
    return sorted(spans)


def _is_chinese_id(match: re.Match[str]) -> bool:
    number = re.sub("[ -]", "", match[0])
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number, strict=False))
    return _CHECK_CHARS[total % 11] == number[-1].upper() and _is_place_and_date(match, "")


def _is_place_and_date(match: re.Match[str], century: str) -> bool:
    if not _PROVINCES.match(match[0]):
        return False
    try:
        dt.date(int(century + match[2]), int(match[3]), int(match[4]))
    except ValueError:
        return False
    return True


_ORGANISATION_CODE = re.compile(
    r"[0-9](?<=[0-9A-HJ-NP-RTUWXY]{2})(?<![0-9A-Za-z_]..)[0-9]{6}[0-9A-HJ-NPQRTUWXY]{9}[0-9A-HJ-NPQRTUWXY](?![0-9A-Za-z_])"
)
_ORGANISATION_CODE_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def find_organisation_codes(text: str, clusters: Spans) -> list[tuple[int, int]]:
    """Spans of unified social credit codes, 18 characters with a right check character; they name organisations."""
    return [
        (match.start() - 1, match.end())
        for match in matches(_ORGANISATION_CODE, text, clusters)
        if _is_organisation_code(text[match.start() - 1 : match.end()])
        and not (match[0].isdigit() and _is_named_otherwise(words.before(text, match.start() - 1)))
    ]


def _is_named_otherwise(before: str) -> bool:
    return words.is_chinese_id(before) or words.is_card_number(before) or words.is_other_number(before)


def _is_organisation_code(code: str) -> bool:
    values = [_ORGANISATION_CODE_ALPHABET.index(char) for char in code]
    total = sum(value * pow(3, place, 31) for place, value in enumerate(values[:-1]))
    return (31 - total % 31) % 31 == values[-1]


# ISO 13616 registry: number of characters by country.
# fmt: off
_IBAN_NUM_CHARS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}
# fmt: on
_NO_CHECK_DIGITS = {"00", "01", "99"}  # check digits are 98 less a remainder of 97
_IBAN_REST = re.compile(r"[0-9A-Za-z]{11,29}|(?:[ -]\n?|\n)[0-9A-Za-z]{4}(?:[ \n-]{1,2}[0-9A-Za-z]{1,4}){1,7}")


def find_ibans(text: str, starts: Sequence[int]) -> list[tuple[int, int]]:
    """Spans of international bank account numbers: a known country, its length, right check digits.

    Written together or in groups of four, perhaps over a line end. `starts`: where two letters and two digits begin a
    word.
    """
    spans: list[tuple[int, int]] = []
    for start in starts:
        body = start + 4
        num_chars = _IBAN_NUM_CHARS.get(text[start : start + 2].upper())
        rest = _IBAN_REST.match(text, body) if num_chars else None
        if num_chars is None or rest is None or (spans and start < spans[-1][1]):
            continue
        end = _end_of_iban(text, body, rest.end(), num_chars - 4)
        if end is not None and _is_iban(re.sub("[^0-9A-Za-z]", "", text[start:end])):
            spans.append((start, end))
    return spans


def _end_of_iban(text: str, start: int, limit: int, num_chars: int) -> int | None:
    """Where the given number of letters and digits has been seen, if no more follow."""
    for end in range(start, limit):
        num_chars -= text[end].isalnum()
        if not num_chars:
            return None if re.match(r"[0-9A-Za-z_]", text[end + 1 : end + 2]) else end + 1
    return None


def _is_iban(number: str) -> bool:
    if number not in {number.upper(), number.lower()} or number[2:4] in _NO_CHECK_DIGITS:
        return False
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1


_SSN = re.compile(r"[0-9](?<![0-9A-Za-z_./#-].)[0-9]{2}([ -]?)([0-9]{2})\1([0-9]{4})(?![0-9A-Za-z_]|[.,/-][0-9A-Za-z])")


def find_social_security_numbers(text: str, clusters: Spans) -> list[tuple[int, int]]:
    """Spans of US social security numbers: 3-2-4 digits with hyphens, or otherwise written where the text names one."""
    return [match.span() for match in matches(_SSN, text, clusters) if _is_social_security_number(match, text)]


def _is_social_security_number(match: re.Match[str], text: str) -> bool:
    area, group, serial = match[0][:3], match[2], match[3]
    if area in {"000", "666"} or area[0] == "9" or group == "00" or serial == "0000":
        return False
    before = words.before(text, match.start())
    if words.is_social_security_number(before):
        return True
    return match[1] == "-" and not words.is_other_number(before)


_IMEI = re.compile(r"[0-9](?<![0-9A-Za-z_].)[0-9](?:[ -]?[0-9]){13}(?![0-9A-Za-z_])")


def find_imeis(text: str, clusters: Spans) -> list[tuple[int, int]]:
    """Spans of mobile devices' numbers: 15 digits with a right check digit, where the text names one."""
    return [
        match.span()
        for match in matches(_IMEI, text, clusters)
        if words.is_imei(words.before(text, match.start())) and luhn(re.sub("[ -]", "", match[0]))
    ]
