"""`/ai.txt` (Spawning): which types of files may be used to train models, in the manner of robots.txt.

`Disallow: *.html` is about files whose path ends in `.html`, in any letter case; other patterns match as in robots.txt,
the longest wins, Allow on a tie. Whatever is crawled is text: a page whose path has another ending than `.txt`, or none,
is served as HTML and counts as `.html` beside its own ending. Rules before any User-Agent line are for everybody.
"""

import re

from pipelines.rights.patterns import PatternIndex
from pipelines.rights.robots_txt import RobotsTxt

_SUFFIX_PATTERN = re.compile(r"\*\.[\w.+-]+\$?")


class AiTxt:
    """The rules of one ai.txt for one product token."""

    def __init__(self, text: str, product_token: str) -> None:
        """Read a file of any content; what is no rule is passed over."""
        file = RobotsTxt.parse(text)
        records = [*file.records_for(product_token), *file.ungrouped_records]
        rules = [(field, value) for field, value in records if field in {"Allow", "Disallow"} and value]
        self._by_suffix: dict[str, list[tuple[int, str, str]]] = {}
        others: list[tuple[str, tuple[int, str, str]]] = []
        for field, value in rules:
            rule = (-len(value.rstrip("$")), field, value)
            if _SUFFIX_PATTERN.fullmatch(value):
                self._by_suffix.setdefault(value[1:].rstrip("$").lower(), []).append(rule)
            else:
                others.append((value, rule))
        self._others = PatternIndex(others)

    def rule(self, path: str) -> str | None:
        """The rule on a path (`patterns.path_of`): `Disallow: *.html`; None where there is none."""
        name = path.partition("?")[0].rpartition("/")[2].lower()
        suffixes = [name[pos:] for pos, char in enumerate(name[:200]) if char == "."]
        if suffixes[-1:] != [".txt"]:
            suffixes.append(".html")
        found = [rule for suffix in suffixes for rule in self._by_suffix.get(suffix, ())]
        rules = [*found, *self._others.longest(path)]
        if not rules:
            return None
        _, field, value = min(rules)  # the longest, and Allow before Disallow
        return f"{field}: {value}"
