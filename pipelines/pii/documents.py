"""Passports, travel permits and number plates: no check digit, so the text must say what they are."""

import re

from pipelines.pii.classes import PASSPORT, PERMIT, PLATE
from pipelines.pii.runs import Scan

# Between the word and the number: marks of any kind, and words that say no more than "number".
_FILLER = r"(?:[^\w<>]|_|\b(?i:numbers?|num|no|id|is|was)\b|号码|号|號碼|號|编号|編號|码|碼|为|為|是){0,12}?"
_MIN_PASSPORT_DIGITS = 6
_PASSPORT = re.compile(
    r"(?:护照|護照|[Pp]assport|PASSPORT)" + _FILLER + r"(?<![0-9A-Za-z])"
    r"((?=(?:[A-Z]{0,2}[0-9]){6})[A-Z0-9]{8,9})(?![0-9A-Za-z]|[.-][0-9])",
)


def find_passports(at: Scan) -> list[tuple[int, int]]:
    """Spans of passport numbers: eight or nine letters and digits after the word (ICAO 9303 allows nine)."""
    if at.num_digits < _MIN_PASSPORT_DIGITS or not (at.has_han or at.may_hold(PASSPORT)):
        return []
    return [match.span(1) for match in _PASSPORT.finditer(at.text)]


_PERMIT = re.compile(
    r"(?:通行证|通行證|回乡证|回鄉證|台胞证|台胞證|臺胞證|港澳证|港澳證|[Tt]ravel [Pp]ermit|[Hh]ome [Rr]eturn [Pp]ermit)"
    + _FILLER
    + r"(?<![0-9A-Za-z])([HM][0-9]{8}(?:[0-9]{2})?|[CWTL][0-9A-Z][0-9]{7}|[0-9]{8}(?:[0-9]{2})?)(?![0-9A-Za-z])"
)
_PERMIT_WORDS = ("证", "證", "ravel permit", "ravel Permit", "eturn permit", "eturn Permit")


def find_travel_permits(at: Scan) -> list[tuple[int, int]]:
    """Spans of the numbers of permits to travel between the mainland and Hong Kong, Macao or Taiwan, after the word."""
    if not at.digits or not (at.has_han or at.may_hold(PERMIT)) or not any(word in at.text for word in _PERMIT_WORDS):
        return []
    return [match.span(1) for match in _PERMIT.finditer(at.text)]


# GA 36-2018: province, office, five characters (six of electric cars), perhaps the sign of a special use. No I, no O.
_CHINESE_PLATE = re.compile(
    r"[A-HJ-NP-Z](?<=[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼滬遼魯蘇贛陝閩貴粵寧瓊雲].)"
    r"[ ·•.-]?(?=[A-Z]{0,2}[0-9]{2}|[0-9][A-Z]{0,2}[0-9])"
    r"[A-HJ-NP-Z0-9]{4}(?:[A-HJ-NP-Z0-9]{1,2}|[挂学警港澳])(?![0-9A-Za-z])"
)
_CHINESE_VEHICLE = re.compile("[车車牌驾駕]")
_CHINESE_VEHICLE_WORDS = ("车", "車", "牌", "驾", "駕")
_CHINESE_BEFORE_NUM_CHARS = 24
_CHINESE_AFTER_NUM_CHARS = 12
_ENGLISH_PLATE = re.compile(
    r"(?:[Ll]icen[sc]e|[Nn]umber|[Rr]egistration|[Vv]ehicle) [Pp]lates?"
    + _FILLER
    + r"(?<![0-9A-Za-z])((?=[A-Z -]{0,4}[0-9])(?=[0-9 -]{0,4}[A-Z])[A-Z0-9]{1,4}[ -]?[A-Z0-9]{2,4})(?![0-9A-Za-z])"
)


_ENGLISH_PLATE_WORDS = tuple(
    f"{word} {plate}" for word in ("icense", "icence", "umber", "egistration", "ehicle") for plate in ("plate", "Plate")
)


def find_plates(at: Scan) -> list[tuple[int, int]]:
    """Spans of vehicle number plates: the Chinese form where a word for vehicles stands near, others after 'plate'."""
    text, spans = at.text, list[tuple[int, int]]()
    if at.has_han and any(word in text for word in _CHINESE_VEHICLE_WORDS):
        spans += [
            (match.start() - 1, match.end()) for match in _CHINESE_PLATE.finditer(text) if _is_of_vehicle(match, text)
        ]
    if at.may_hold(PLATE) and any(word in text for word in _ENGLISH_PLATE_WORDS):
        spans += [match.span(1) for match in _ENGLISH_PLATE.finditer(text)]
    return sorted(spans)


def _is_of_vehicle(match: re.Match[str], text: str) -> bool:
    start, end = match.span()
    near = text[max(0, start - _CHINESE_BEFORE_NUM_CHARS) : end + _CHINESE_AFTER_NUM_CHARS]
    return _CHINESE_VEHICLE.search(near) is not None
