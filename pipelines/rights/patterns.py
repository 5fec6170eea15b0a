"""Path patterns of robots.txt (RFC 9309, 2.2.2 and 2.2.3), which TDMRep, AIPREF, RSL and ai.txt borrow.

`*` is any run of characters, a `$` at the end is the end of the URL, all else is a prefix. A pattern is matched by
searching for its parts one after the other, never by a regular expression: no pattern can make it backtrack.
"""

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

_REST_OF_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://[^/?#]*)?([^#]*)", re.DOTALL)  # RFC 3986, appendix B
_STARS = re.compile(r"\*+")
_NORMAL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]*").fullmatch
_TO_CHANGE = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_DECODED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~*$")
"""Unreserved characters, and the two that a pattern can only mean literally by encoding them."""

Value = TypeVar("Value")


def path_of(url: str) -> str:
    """Path and query of a URL in the form that patterns are compared with; any text is survived."""
    match = _REST_OF_URL.match(url)
    rest = match[1] if match else url
    return _normalized(rest if rest.startswith("/") else f"/{rest}")


class Pattern:
    """One pattern, compiled."""

    __slots__ = ("_is_anchored", "_last", "_middle", "head", "num_octets")

    def __init__(self, pattern: str) -> None:
        """Compile a pattern as it is written in a file."""
        self._is_anchored = pattern.endswith("$")
        head, *parts = _parts(pattern[:-1] if self._is_anchored else pattern)
        self.head: str = head
        """What stands before the first `*`, normalized: a prefix of every path that matches."""
        self._last = parts.pop() if parts else None
        self._middle = tuple(parts)
        self.num_octets: int = len(head) + len(self._last or "") + sum(map(len, parts)) + pattern.count("*")
        """Octets of the pattern with its percent-encoding normalized: the more, the more specific."""
        self.num_octets += self._is_anchored

    @property
    def prefix(self) -> str | None:
        """The whole pattern, where it is nothing but a prefix."""
        return self.head if self._last is None and not self._is_anchored else None

    @property
    def exact_path(self) -> str | None:
        """The one path that the pattern matches, where it is `/path$`."""
        return self.head if self._last is None and self._is_anchored else None

    def matches(self, path: str) -> bool:
        """Whether the pattern matches a path from `path_of`; each character is looked at a bounded number of times."""
        if not path.startswith(self.head):
            return False
        pos = len(self.head)
        for part in self._middle:
            pos = path.find(part, pos)
            if pos < 0:
                return False
            pos += len(part)
        if self._last is None:
            return not self._is_anchored or pos == len(path)
        if self._is_anchored:
            return len(path) - len(self._last) >= pos and path.endswith(self._last)
        return path.find(self._last, pos) >= 0


class PatternIndex(Generic[Value]):
    """Many patterns, each with values; answers with the values of the longest that match.

    Prefixes cost one look-up for each length that occurs, however many there are. So does what stands before the first
    `*`; of the patterns that begin alike, each is tried, the longest first, some 0.25 microseconds a pattern.
    """

    def __init__(self, rules: Iterable[tuple[str, Value]]) -> None:
        """Index pairs of a pattern and its value; one pattern may have several values."""
        by_text: dict[str, list[Value]] = {}
        for text, value in rules:
            by_text.setdefault(text, []).append(value)
        self._prefixes: dict[str, list[Value]] = {}
        self._exact: dict[str, list[Value]] = {}
        self._wild: dict[str, list[tuple[Pattern, list[Value]]]] = {}
        for text, values in by_text.items():
            pattern = Pattern(text)
            if (prefix := pattern.prefix) is not None:
                self._prefixes.setdefault(prefix, []).extend(values)
            elif (path := pattern.exact_path) is not None:
                self._exact.setdefault(path, []).extend(values)
            else:
                self._wild.setdefault(pattern.head, []).append((pattern, values))
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        self._head_lengths = sorted({len(head) for head in self._wild}, reverse=True)
        for patterns in self._wild.values():
            patterns.sort(key=lambda each: -each[0].num_octets)

    def longest(self, path: str) -> list[Value]:
        """Values of all patterns of the greatest length in octets that match."""
        found: list[Value] = []
        num_octets = -1
        if path in self._exact:
            found, num_octets = [*self._exact[path]], len(path) + 1
        else:
            for length in self._lengths:
                if length <= len(path) and (values := self._prefixes.get(path[:length])):
                    found, num_octets = [*values], length
                    break
        for length in self._head_lengths:
            for pattern, values in self._wild.get(path[:length], ()) if length <= len(path) else ():
                if pattern.num_octets < num_octets:
                    break
                if pattern.matches(path):
                    found = [*found, *values] if pattern.num_octets == num_octets else [*values]
                    num_octets = pattern.num_octets
        return found


def _parts(pattern: str) -> list[str]:
    """Literal parts between the stars, normalized, as parts of a path or, after a `?`, of a query."""
    parts = []
    is_query = False
    for part in _STARS.split(pattern):
        parts.append(_normalized(part, is_query=is_query))
        is_query = is_query or "?" in part
    return parts


def _normalized(text: str, *, is_query: bool = False) -> str:
    """Percent-encoding made comparable (RFC 9309, 2.2.2).

    Unreserved characters are decoded, what may not stand in a URL is encoded, reserved characters stay as they are;
    only in a query are `%3A` and `%2F` one with `:` and `/`, as in the table of the RFC.
    """
    if _NORMAL(text):
        return text
    path, mark, query = ("", "", text) if is_query else text.partition("?")
    path, query = _TO_CHANGE.sub(_changed, path), _TO_CHANGE.sub(_changed, query)
    return path + mark + query.replace("%3A", ":").replace("%2F", "/")


def _changed(match: re.Match[str]) -> str:
    text = match[0]
    if text[0] == "%":
        char = chr(int(text[1:], 16))
        return char if char in _DECODED else text.upper()
    return "".join(f"%{octet:02X}" for octet in text.encode("utf-8", "surrogatepass"))
