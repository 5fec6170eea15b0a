"""What a robots.txt says about a URL (RFC 9309), and which of its lines says so.

Protego matches the patterns. The groups are chosen here: a group is ours only when its product token
equals ours, so `User-agent: corpus` says nothing about corpusmill, and what is handed to Protego is
one group of our rules alone. That also keeps its cost in bounds, as does the size cap.
"""

import codecs
import re
from functools import lru_cache

from protego import Protego

MAX_NUM_BYTES = 500 * 1024
"""What is read of a robots.txt (RFC 9309, 2.5 asks for at least 500 KiB)."""

NO_RULE = "no rule matches"

_LINE = re.compile(r"\r\n|\r|\n")
_FIELDS = {
    "allow": "Allow",
    **dict.fromkeys(("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"), "Disallow"),
    **dict.fromkeys(("crawl-delay", "crawl delay"), "Crawl-delay"),
    **dict.fromkeys(("user-agent", "useragent", "user agent"), "User-agent"),
}
"""The fields that matter, with the misspellings that Google and Protego forgive."""


class Robots:
    """The rules of one robots.txt for one product token."""

    def __init__(self, text: str, product_token: str) -> None:
        """Read a robots.txt; what it does not say is allowed."""
        rules = _rules_for(text, product_token.lower())
        self._parser = _parser(rules)
        self._patterns = {
            field: sorted((value for name, value in rules if name == field and value), key=len, reverse=True)
            for field in ("Allow", "Disallow")
        }
        self._parser_of = lru_cache(maxsize=1024)(lambda pattern: _parser([("Disallow", pattern)]))

    @property
    def crawl_delay(self) -> float | None:
        """Seconds between requests that the site asks for."""
        delay: float | None = self._parser.crawl_delay("*")
        return delay

    def judge(self, url: str) -> tuple[bool, str]:
        """Whether a URL may be fetched, and the rule that says so: the longest that matches."""
        is_allowed: bool = self._parser.can_fetch(url, "*")
        field = "Allow" if is_allowed else "Disallow"
        for pattern in self._patterns[field]:
            if not self._parser_of(pattern).can_fetch(url, "*"):
                return is_allowed, f"{field}: {pattern}"
        return is_allowed, NO_RULE


def decode(body: bytes, *, is_cut: bool = False) -> str:
    """The text of a robots.txt. A line that was cut in the middle would forbid more than it says, so it goes."""
    if is_cut:
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return body.decode("utf-16", "replace")
    return body.decode("utf-8-sig", "replace")


def _parser(rules: list[tuple[str, str]]) -> Protego:
    return Protego.parse("\n".join(["User-agent: *", *(f"{field}: {value}" for field, value in rules)]))


def _rules_for(text: str, product_token: str) -> list[tuple[str, str]]:
    """The rules of every group that names the token, merged; else those of every group for `*`."""
    groups: dict[str, list[tuple[str, str]]] = {}
    current: list[list[tuple[str, str]]] = []
    is_head = False
    for line in _LINE.split(text):
        field, value = _split(line.partition("#")[0].strip())
        if field == "User-agent":
            if not is_head:
                current, is_head = [], True
            if value:
                current.append(groups.setdefault(_product_token(value), []))
        elif field:
            is_head = False
            for group in {id(group): group for group in current}.values():
                group.append((field, value))
    return groups.get(product_token, groups.get("*", []))


def _split(line: str) -> tuple[str, str]:
    """A line to its field and value; the field is empty where the line is not one that matters."""
    for separator in (":", None):
        words = line.split(separator, 1)
        field = _FIELDS.get(words[0].strip().lower()) if words else None
        if field:
            return field, words[1].strip() if len(words) > 1 else ""
    return "", ""


def _product_token(value: str) -> str:
    """`CorpusMill/1.0 (x)` and `corpusmill*` to `corpusmill`."""
    return re.split(r"[/\s]", value, maxsplit=1)[0].lower().rstrip("*") or "*"
