"""Dictionaries of RFC 9651 (Structured Field Values for HTTP), which AIPREF writes its preferences in."""

import re

_KEY = r"[a-z*][a-z0-9_.*-]*"
_BARE_ITEM = (
    r"(?:-?[0-9]{1,12}\.[0-9]{1,3}|@?-?[0-9]{1,15}|\"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\"\\])*\""
    r"|%\"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*\"|:[A-Za-z0-9+/=]*:|\?[01]"
    r"|[A-Za-z*][!#$%&'*+.^_`|~:/0-9A-Za-z-]*)"
)
_PARAMETERS = rf"(?:;\ *{_KEY}(?:={_BARE_ITEM})?)*"
_ITEM = rf"{_BARE_ITEM}{_PARAMETERS}"
_INNER_LIST = rf"\(\ *(?:{_ITEM}(?:\ +{_ITEM})*)?\ *\){_PARAMETERS}"
_MEMBER = re.compile(rf"({_KEY})(?:=(?:({_BARE_ITEM}){_PARAMETERS}|{_INNER_LIST})|{_PARAMETERS})")
_COMMA = re.compile(r"[ \t]*,[ \t]*")


def parse_dictionary(value: str) -> dict[str, str] | None:
    """An RFC 9651 dictionary: key -> bare item as written ("" for a lone key or an inner list), the last of equal keys.

    None where the value is not one: such a field counts as absent as a whole.
    """
    members: dict[str, str] = {}
    value = value.strip(" ")
    pos = 0
    while pos < len(value):
        member = _MEMBER.match(value, pos)
        if member is None:
            return None
        members[member[1]] = member[2] or ""
        pos = member.end()
        if pos == len(value):
            break
        comma = _COMMA.match(value, pos)
        if comma is None or comma.end() == len(value):
            return None
        pos = comma.end()
    return members
