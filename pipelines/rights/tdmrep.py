"""`/.well-known/tdmrep.json` of the TDM Reservation Protocol (W3C community group, section on the file).

A JSON array of objects; `location` (a pattern as in robots.txt) and `tdm-reservation` (0 or 1) are mandatory. The first
in the sequence whose location matches decides. An object with another value is as good as none: it sets nothing.
"""

import json
import re
from typing import Any

from pipelines.rights.patterns import Pattern

MAX_NUM_CHARS = 500 * 1024
_WEB_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


class TdmRep:
    """The reservations of one file."""

    def __init__(self, rules: list[tuple[Pattern, str]]) -> None:
        """`rules`: pattern, and the evidence `1 /pattern`."""
        self._rules = rules

    @classmethod
    def parse(cls, text: str) -> "TdmRep":
        """Read a file; one that is not about TDMRep at all reserves nothing, as it stands for any missing file.

        Raises ValueError with a phrase (`is not JSON`) where a reservation may be meant that cannot be read.
        """
        if len(text) > MAX_NUM_CHARS:
            raise ValueError(f"is longer than {MAX_NUM_CHARS} characters")
        try:
            entries = json.loads(text.removeprefix("\ufeff"))
        except (ValueError, RecursionError):
            if "tdm-reservation" not in text.lower():
                return cls([])
            raise ValueError("is not JSON") from None
        if isinstance(entries, dict):
            entries = [entries]  # one reservation, its array forgotten
        return cls([rule for entry in entries if (rule := _rule(entry))] if isinstance(entries, list) else [])

    def rule(self, path: str) -> str | None:
        """`1 /pattern` or `0 /pattern` of the first location that matches a path (`patterns.path_of`)."""
        return next((evidence for pattern, evidence in self._rules if pattern.matches(path)), None)


def _rule(entry: Any) -> tuple[Pattern, str] | None:
    if not isinstance(entry, dict):
        return None
    location, value = entry.get("location"), entry.get("tdm-reservation")
    if not isinstance(location, str) or isinstance(value, bool) or value not in (0, 1):
        return None
    location = _WEB_ORIGIN.sub("", location.strip(), count=1)
    if not location.startswith(("/", "*")):
        location = f"/{location}"
    return Pattern(location), f"{int(value)} {location}"
