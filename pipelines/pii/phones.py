"""Telephone numbers, judged by the numbering plans in the phonenumbers library.

The library reads about 4 MB/s, so it only sees short windows that a regular expression has cut
out. It also takes any ten digits for an American number (2147483647 is one), so a number without
a country code must look like a telephone number as well: see `_is_written_as_phone`.
"""

import re

from phonenumbers import Leniency, PhoneNumberMatch, PhoneNumberMatcher

_CANDIDATE = re.compile(r"[0-9](?:[ ()./-]{0,3}[0-9]){6,60}(?![0-9_%])")
_PART_OF_MORE = re.compile(r"(?:[0-9A-Za-z_./#$€£¥]|[0-9][,:]|[0-9A-Za-z]-)$")
_MIN_DIGITS = 8
"""Of a number without a country code. Shorter ones, dialled within a town, cannot be told from other numbers."""
_EXTENSION_NUM_CHARS = 12
_CONTEXT_NUM_CHARS = 24
_HAN_NUM_CHARS = 12
_CONTEXT = re.compile(
    r"\b(?:tele)?phones?\b(?!>)|\btel\b|\bcall(?:ing)?\b|\bfax\b|\bmobile\b|\bcell\b|\bwhatsapp\b|\bcontact\b|\bsms\b|\bdial"
    r"|\bhotline|☎|电话|電話|手机|手機|联系|聯繫|致电|拨打|撥打|热线|熱線|传真|傳真|微信|客服",
    re.IGNORECASE,
)
_OTHER_NUMBER = re.compile(r"(?:isbn|issn|doi|arxiv|pmid|version|ver\.|rfc)[^\n]{0,12}$", re.IGNORECASE)
_DATE = re.compile(r"(?:1[89]|20)[0-9]{2}([-/.])[01]?[0-9]\1[0-3]?[0-9](?![0-9])")
_HAN = re.compile("[\u3400-\u9fff]")
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


def find_phones(text: str, language: str | None) -> list[tuple[int, int]]:
    """Spans of telephone numbers.

    Numbers with a country code are found anywhere; others in the notation of the language's
    countries, and Chinese ones wherever Chinese characters stand near.
    """
    spans: list[tuple[int, int]] = []
    for candidate in _CANDIDATE.finditer(text):
        start, end = candidate.span()
        if date := _DATE.match(candidate[0]):
            start += date.end()
        else:
            signs = text[max(0, start - 2) : start]
            start -= len(signs) - len(signs.rstrip("+("))
        number = text[start:end]
        if "+" not in number and sum(map(number.count, "0123456789")) < _MIN_DIGITS:
            continue
        before = text[max(0, start - _CONTEXT_NUM_CHARS) : start].rpartition("\n")[2]
        has_context = bool(_CONTEXT.search(before))
        if not _is_worth_a_look(number, before, has_context=has_context):
            continue
        near_han = bool(_HAN.search(text, max(0, start - _HAN_NUM_CHARS), end + _HAN_NUM_CHARS))
        window = text[start : end + _EXTENSION_NUM_CHARS]
        spans += [
            (start + match.start, start + match.end)
            for match in _matches(window, _regions(language, near_han=near_han))
            if match.start < end - start
            and _is_written_as_phone(match, window, is_chinese=near_han or language == "zh", has_context=has_context)
        ]
    return spans


def _is_worth_a_look(number: str, before: str, *, has_context: bool) -> bool:
    """Not if it is part of a longer token or another kind of number, or has nothing of a telephone number."""
    if _PART_OF_MORE.search(before) or _OTHER_NUMBER.search(before):
        return False
    return has_context or bool(_LIKE_PHONE.search(number) and not _DECIMAL_OR_QUAD.fullmatch(number))


def _regions(language: str | None, *, near_han: bool) -> tuple[str | None, ...]:
    """Countries whose notation to read; None reads numbers with a country code only."""
    regions: tuple[str | None, ...] = _REGIONS.get(language or "", ())
    if near_han and "CN" not in regions:
        regions = (*regions, "CN")
    return regions or (None,)


def _matches(window: str, regions: tuple[str | None, ...]) -> list[PhoneNumberMatch]:
    """The library's matches in a window, the first region's where two overlap."""
    taken: list[PhoneNumberMatch] = []
    for region in regions:
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
