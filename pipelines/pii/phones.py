"""Telephone numbers, judged by the numbering plans in the phonenumbers library.

The library reads about 4 MB/s, so it only sees short windows that a regular expression has cut
out. It also takes any ten digits for an American number (2147483647 is one), so a number without
a country code must look like a telephone number as well: see `_is_written_as_phone`.
"""

import re

from phonenumbers import (
    Leniency,
    NumberParseException,
    PhoneNumberMatch,
    PhoneNumberMatcher,
    ValidationResult,
    is_possible_number_with_reason,
    parse,
)

from pipelines.pii import words
from pipelines.pii.runs import Spans, matches

# From the first digit of a run of digits: a long run is tried once, not once a digit.
_CANDIDATE = re.compile(r"[0-9](?<![0-9].)(?:[ ()./-]{0,3}[0-9]){6,60}+(?![0-9_%])")
_PART_OF_MORE = re.compile(r"(?:[0-9A-Za-z_./#$€£¥]|[0-9][,:]|[0-9A-Za-z]-)\Z")
_MAX_MISSES = 1024
"""Windows without a number that the library reads in one text (about 0.1 ms each): what has more is a table."""
_MIN_DIGITS = 8
"""Of a number without a country code. Shorter ones, dialled within a town, cannot be told from other numbers."""
_EXTENSION_NUM_CHARS = 12
_CONTEXT_NUM_CHARS = 24
_HAN_NUM_CHARS = 12
_CONTEXT = re.compile(
    r"\b(?:tele)?phones?\b(?!>)|\btel\b|\bcall(?:ing)?\b|\bfax\b|\bmobile\b|\bcell\b|\bwhatsapp\b|\bcontact\b|\bsms\b|\bdial"
    r"|\bhotline|☎|电话|電話|手机|手機|联系|聯繫|致电|拨打|撥打|热线|熱線|传真|傳真|微信|客服|座机|座機|固话|来电|來電",
    re.IGNORECASE,
)
# Nothing but a few small words between: then it is a telephone number of whatever country.
_NAMED = re.compile(
    r"(?:\b(?:(?:tele)?phone|tel|fax|mobile|cell(?:phone)?|whatsapp|sms|landline|telefon|telefono|téléphone|teléfono)\b"
    r"|\b(?:call|text|ring|reach|phone|dial) (?:me|us|him|her|them)\b|☎|电话|電話|手机|手機|传真|傳真|座机|座機|固话)"
    r"(?:[\s:：.()*-]|\b(?:numbers?|no|at|on|is|are|my|me|now|to|or|home|work|office)\b|号码|號碼|号|號|为|為|是){0,8}$",
    re.IGNORECASE,
)
_NAMED_NUMBER = re.compile(
    r"[+(]{0,2}[0-9](?:[ ()./-]{0,2}[0-9]){6,14}(?:[ ,]{0,2}(?:x|ext\.?|转|轉) ?[0-9]{1,6})?(?![0-9])"
)
# Of a country code, with the trunk prefix in brackets or without. New ranges are in use before the library knows them.
_INTERNATIONAL = re.compile(
    r"\(?\+[1-9][0-9]{0,2}\)?(?:[ .-]?\([0-9]{1,4}\))?(?:[ ./-]?[0-9]){6,13}+(?: ?(?:x|ext\.? ?|转|轉)[0-9]{1,6})?(?![0-9A-Za-z_])"
)
# North America (47 CFR 52): area and exchange start with 2 to 9. The library knows no area code younger than itself.
_NORTH_AMERICAN = re.compile(
    r"(?:\+?1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}([.-]))[2-9][0-9]{2}(?(1)\1|[.-])[0-9]{4}"
    r"(?: ?(?:x|ext\.? ?)[0-9]{1,6})?(?![0-9A-Za-z_]|[.-][0-9])"
)
# A Chinese switchboard and the extension behind it, which the library takes for digits too many.
_CHINESE_EXTENSION = re.compile(
    r"\(?0(?:10|2[0-9]|[3-9][0-9]{2})\)?[ -]?[1-9][0-9]{6,7}(?: ?[转轉] ?|-)[0-9]{1,5}(?![0-9A-Za-z_-])"
)
_NORTH_AMERICAN_LANGUAGES = (None, "en", "es", "fr")
_DATE = re.compile(r"(?:1[89]|20)[0-9]{2}([-/.])[01]?[0-9]\1[0-3]?[0-9](?![0-9])")
_YEARS = re.compile(r"(?:1[89]|20)[0-9]{2} ?[/-] ?(?:1[89]|20)[0-9]{2}(?![0-9])")
_HAN = re.compile("[\u3400-\u9fff]")
# Where no country is known from the language, the script says one.
_SCRIPTS = (
    (re.compile("[\u3040-\u30ff]"), "JP"),
    (re.compile("[\uac00-\ud7af]"), "KR"),
    (re.compile("[\u0400-\u04ff]"), "RU"),
)
_CHINESE_MOBILE = re.compile(r"(?:(?:00)?86)?1[3-9][0-9]{9}")
_UNIT_AFTER = re.compile(r"\s?(?:字节|位元|比特|[KMGT]?i?B\b|bytes?\b|bits?\b|[元个個次人份条條米年])", re.IGNORECASE)
_DECIMAL_OR_QUAD = re.compile(r"[0-9]+\.[0-9]+(?:[ -].*)?|(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:[ /-].*)?")
_STRONG_SEPARATOR = re.compile(r"[(.-]")
_LIKE_PHONE = re.compile(r"[+(.-]|(?<![0-9])0|(?<![0-9])1[3-9]")

_REGIONS = {
    "en": ("US", "GB"),
    "zh": ("CN",),
    "yue": ("CN", "HK"),
    "wuu": ("CN",),
    "ar": ("EG",),
    "cs": ("CZ",),
    "da": ("DK",),
    "de": ("DE",),
    "es": ("ES",),
    "fi": ("FI",),
    "fr": ("FR",),
    "hi": ("IN",),
    "id": ("ID",),
    "it": ("IT",),
    "ja": ("JP",),
    "ko": ("KR",),
    "nl": ("NL",),
    "no": ("NO",),
    "pl": ("PL",),
    "pt": ("BR",),
    "ru": ("RU",),
    "sv": ("SE",),
    "tr": ("TR",),
    "uk": ("UA",),
    "vi": ("VN",),
}


def find_phones(text: str, clusters: Spans, language: str | None) -> list[tuple[int, int]]:
    """Spans of telephone numbers.

    Numbers with a country code are found anywhere; others in the notation of the language's countries, and Chinese
    ones wherever Chinese characters stand near. Where the text says that a telephone number follows, any will do.
    """
    spans: list[tuple[int, int]] = []
    num_misses = 0
    for candidate in matches(_CANDIDATE, text, clusters):
        start, end = candidate.span()
        if date := _DATE.match(candidate[0]):
            start += date.end()
        else:
            signs = text[max(0, start - 2) : start]
            start -= len(signs) - len(signs.rstrip("+(" if ")" in candidate[0] else "+"))
        if spans and start < spans[-1][1]:  # the extension of the one before, or its neighbour: the next round has it
            continue
        number = text[start:end]
        num_digits = sum(map(number.count, "0123456789"))
        before = text[max(0, start - _CONTEXT_NUM_CHARS) : start]
        line_before = before.rpartition("\n")[2]
        is_named = bool(_NAMED.search(before)) and not date
        has_context = is_named or bool(_CONTEXT.search(line_before))
        is_long_enough = "+" in number or is_named or num_digits >= _MIN_DIGITS
        if not is_long_enough or not _is_worth_a_look(number, before, has_context=has_context):
            continue
        if not has_context and _YEARS.fullmatch(number):
            continue
        near_han = bool(_HAN.search(text, max(0, start - _HAN_NUM_CHARS), end + _HAN_NUM_CHARS))
        window = text[start : end + _EXTENSION_NUM_CHARS]
        found = _by_form(window, language, is_named=is_named, near_han=near_han)
        if not found and num_misses < _MAX_MISSES:
            nearby = text[max(0, start - _HAN_NUM_CHARS) : end + _HAN_NUM_CHARS]
            found = [
                (match.start, match.end)
                for match in _matches(window, _regions(language, nearby, near_han=near_han))
                if match.start < end - start
                and _is_written_as_phone(
                    match, window, is_chinese=near_han or language == "zh", has_context=has_context
                )
            ]
        num_misses += not found
        spans += [(start + left, start + right) for left, right in found]
    return spans


def _by_form(window: str, language: str | None, *, is_named: bool, near_han: bool) -> list[tuple[int, int]]:
    """The number at the start of a window, where its form or the words before it are enough."""
    match = _INTERNATIONAL.match(window)
    if match and _is_possible(match[0]):
        return [match.span()]
    match = _CHINESE_EXTENSION.match(window) if near_han else None
    if match:
        return [match.span()]
    match = _NORTH_AMERICAN.match(window) if language in _NORTH_AMERICAN_LANGUAGES or is_named else None
    if match is None and is_named and not _DATE.match(window) and not _YEARS.match(window):
        match = _NAMED_NUMBER.match(window)
        if match and _UNIT_AFTER.match(window, match.end()):
            match = None
    return [match.span()] if match else []


def _is_possible(number: str) -> bool:
    """Has it a country code, and as many digits as numbers of that country?"""
    try:
        parsed = parse(number.replace("(0)", ""))
    except NumberParseException:
        return False
    return is_possible_number_with_reason(parsed) == ValidationResult.IS_POSSIBLE


def _is_worth_a_look(number: str, before: str, *, has_context: bool) -> bool:
    """Not if it is part of a longer token or another kind of number, or has nothing of a telephone number."""
    if _PART_OF_MORE.search(before) or (words.is_other_number(before) and not has_context):
        return False
    return has_context or bool(_LIKE_PHONE.search(number) and not _DECIMAL_OR_QUAD.fullmatch(number))


def _regions(language: str | None, nearby: str, *, near_han: bool) -> tuple[str | None, ...]:
    """Countries whose notation to read; None reads numbers with a country code only."""
    regions: tuple[str | None, ...] = _REGIONS.get(language or "en", ())
    if near_han and "CN" not in regions and language not in {"ja", "ko"}:
        regions = (*regions, "CN")
    if language is None:
        regions = (*regions, *(region for script, region in _SCRIPTS if script.search(nearby)))
    return regions or (None,)


# What the library can take for a number of these countries when it is written without a country code: ten digits that
# do not begin with 0 or 1; a 0, or the 00 before a country code, and more. Looking for that costs a hundredth of asking.
_NATIONAL = {
    "US": re.compile(r"(?<![0-9])[2-9](?:[ ()./-]{0,3}[0-9]){9}(?![0-9])|1[ ()./-]{0,3}[2-9](?:[ ()./-]{0,3}[0-9]){9}"),
    "GB": re.compile(r"(?<![0-9])0(?:[ ()./-]{0,3}[0-9]){7}"),
}


def _can_match(window: str, region: str | None) -> bool:
    pattern = _NATIONAL.get(region or "")
    return pattern is None or "+" in window or pattern.search(window) is not None


def _matches(window: str, regions: tuple[str | None, ...]) -> list[PhoneNumberMatch]:
    """The library's matches in a window, the first region's where two overlap."""
    taken: list[PhoneNumberMatch] = []
    for region in regions:
        if not _can_match(window, region):
            continue
        for match in PhoneNumberMatcher(window, region, leniency=Leniency.STRICT_GROUPING):
            if all(match.end <= other.start or other.end <= match.start for other in taken):
                taken.append(match)
    return sorted(taken, key=lambda match: match.start)


def _is_written_as_phone(match: PhoneNumberMatch, window: str, *, is_chinese: bool, has_context: bool) -> bool:
    """A country code, a word such as 'Tel', a Chinese mobile number in Chinese text, or the usual separators."""
    raw = match.raw_string
    if raw.startswith(("+", "(+")):
        return True
    if _DATE.match(raw):
        return False
    if has_context:
        return True
    if is_chinese and _CHINESE_MOBILE.fullmatch(re.sub("[^0-9]", "", raw)):
        return not _UNIT_AFTER.match(window, match.end)
    return bool(_STRONG_SEPARATOR.search(raw)) or (raw.startswith("0") and " " in raw)
