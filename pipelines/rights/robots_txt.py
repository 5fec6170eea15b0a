"""The grammar of robots.txt (RFC 9309, 2.2), with the fields that reservations add to it.

A group is a crawler's only when its product token equals the crawler's, in any letter case: `User-agent: corpus` says
nothing about corpusmill. Groups that match are merged. Lines of other fields are passed over and end no group.
"""

import codecs
import re
from collections.abc import Iterable

from pipelines.rights.patterns import PatternIndex

NO_RULE = "no rule matches"

_LINE = re.compile(r"\r\n|\r|\n")
_FIELDS = {
    "allow": "Allow",
    **dict.fromkeys(("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"), "Disallow"),
    **dict.fromkeys(("crawl-delay", "crawl delay"), "Crawl-delay"),
    **dict.fromkeys(("user-agent", "useragent", "user agent"), "User-agent"),
    **dict.fromkeys(("sitemap", "sitemaps", "site-map"), "Sitemap"),
    "content-signal": "Content-Signal",
    "content-usage": "Content-Usage",
    "license": "License",
}
"""The fields that matter, with the misspellings that Google and Protego forgive."""

_RULES = frozenset({"Allow", "Disallow", "Crawl-delay", "Content-Signal", "Content-Usage"})
"""What stands in a group and ends its User-agent lines: RFC 9309's rules, those that AIPREF and Content Signals add to
them, and Crawl-delay, which sites mean as one. Sitemap and License lines may stand anywhere."""


def decode(body: bytes, *, is_cut: bool = False) -> str:
    """The text of a robots.txt. A line that was cut in the middle would forbid more than it says, so it goes."""
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = body.decode("utf-16", "replace")
    elif b"\0" in body[:2]:  # UTF-16 without its mark
        text = body.decode("utf-16-be" if body[:1] == b"\0" else "utf-16-le", "replace")
    else:
        text = body.decode("utf-8-sig", "replace")
    return text[: max(text.rfind("\n"), text.rfind("\r")) + 1] if is_cut else text


class RobotsTxt:
    """One robots.txt: its groups, and what stands outside of them."""

    def __init__(self) -> None:
        """An empty file."""
        self._groups: list[list[tuple[str, str]]] = []
        # A file may name a thousand crawlers above a thousand rules: the rules are kept once, under a number.
        self._numbers: dict[str, list[int]] = {}
        self._ungrouped: list[tuple[str, str]] = []
        self._sitemaps: dict[str, None] = {}
        self._licenses: dict[str, None] = {}

    @classmethod
    def parse(cls, text: str) -> "RobotsTxt":
        """Read a file of any content, in time linear in its length.

        A License line belongs to the group that it stands in (RSL 1.0); before the first group, or after a blank line,
        to everybody.
        """
        robots = cls()
        is_head = is_apart = False
        for line in _LINE.split(text.removeprefix("\ufeff")):
            field, value = _split(line.partition("#")[0].strip())
            if not field:
                is_apart = is_apart or not line.strip()
                continue
            if field == "Sitemap":
                if value:
                    robots._sitemaps[value] = None
                continue
            if field == "License" and (is_apart or not robots._groups):
                if value:
                    robots._licenses[value] = None
                continue
            is_apart = False
            if field == "User-agent":
                if not is_head:
                    robots._groups.append([])
                    is_head = True
                robots._name_group(value)
            else:
                robots._add(field, value)
                is_head = is_head and field not in _RULES
        return robots

    def records_for(self, product_token: str) -> list[tuple[str, str]]:
        """Field and value of every line in the groups that name the token, else in those for `*`, in their order.

        Fields are spelled as above, whatever the file's letters (`Disallow`); values as written, and may be empty.
        """
        token = product_token.lower()
        numbers = self._numbers.get(token, self._numbers.get("*", []))
        return [record for number in numbers for record in self._groups[number]]

    @property
    def ungrouped_records(self) -> list[tuple[str, str]]:
        """Field and value of the rules before the first User-agent line, which in a robots.txt mean nothing."""
        return self._ungrouped

    @property
    def sitemaps(self) -> tuple[str, ...]:
        """Values of the Sitemap lines, as written, each once."""
        return tuple(self._sitemaps)

    def licenses_for(self, product_token: str) -> tuple[str, ...]:
        """Values of the License lines that concern a crawler, as written, each once: its groups' first."""
        own = [value for field, value in self.records_for(product_token) if field == "License" and value]
        return tuple(dict.fromkeys((*own, *self._licenses)))

    def _name_group(self, value: str) -> None:
        if value:
            numbers = self._numbers.setdefault(_product_token(value), [])
            number = len(self._groups) - 1
            if numbers[-1:] != [number]:
                numbers.append(number)

    def _add(self, field: str, value: str) -> None:
        (self._groups[-1] if self._groups else self._ungrouped).append((field, value))


class AccessRules:
    """The Allow and Disallow lines of one crawler: the longest that matches decides, Allow on a tie."""

    def __init__(self, records: Iterable[tuple[str, str]]) -> None:
        """Index the rules among a crawler's records."""
        self._index = PatternIndex(
            (value, (field, value)) for field, value in records if field in {"Allow", "Disallow"} and value
        )

    def judge(self, path: str) -> tuple[bool, str]:
        """Whether a path (`patterns.path_of`) may be fetched, and the rule that says so, as it is written."""
        rules = self._index.longest(path)
        if not rules or path.partition("?")[0] == "/robots.txt":
            return True, NO_RULE
        field, value = min(rules)  # Allow before Disallow
        return field == "Allow", f"{field}: {value}"


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
