"""The places worth looking at, found once for all detectors: long unbroken runs, and digits close together.

A regular expression that starts with a digit takes 30 microseconds to find none in 5 kB; counting, translating and
searching bytes take three.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Spans = Sequence[tuple[int, int]]

MIN_NUM_CHARS = 20
"""Shorter runs of letters, digits, `_` and `-` hold nothing that is looked for."""

_IN_RUN = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"
_SHAPES = bytes(ord("a") if byte in _IN_RUN else ord(" ") for byte in range(256))
_LONG = b"a" * MIN_NUM_CHARS


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A text and the places in it that are worth looking at, as spans in code points: sorted, disjoint."""

    text: str
    language: str | None
    """ISO 639 code."""
    num_digits: int
    digits: Spans
    """Seven and more digits with at most three separators between each two."""
    runs: Spans
    """At least MIN_NUM_CHARS letters, digits, `_` and `-` without a break: keys, tokens and wallets."""


def scan(text: str, language: str | None) -> Scan:
    """What detectors read of a text."""
    return Scan(
        text=text,
        language=language,
        num_digits=len(text.encode("ascii", "replace").translate(None, _NO_DIGITS)),
        digits=digit_clusters(text),
        runs=list(long_runs(text)),
    )


def long_runs(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the unbroken runs of at least MIN_NUM_CHARS characters, in order."""
    shape = text.encode("ascii", "replace").translate(_SHAPES)
    end = 0
    while (found := shape.find(_LONG, end)) >= 0:
        start = shape.rfind(b" ", end, found) + 1 or end
        end = shape.find(b" ", found)
        if end < 0:
            end = len(shape)
        yield start, end


_NO_DIGITS = bytes(byte for byte in range(256) if chr(byte) not in "0123456789")
_DIGITS = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_SEPARATORS = " ()./·\n-"
_SEPARATOR_BYTES = _SEPARATORS.encode("latin-1")
_SEVEN_DIGITS = b"0000000"
_CLUSTER = re.compile(f"[0-9](?:[{_SEPARATORS}]{{0,3}}[0-9]){{6,}}+")
_MARGIN_NUM_CHARS = 24
"""What a number may have behind its last digit that is close to others, and what a pattern looks ahead."""


def digit_clusters(text: str) -> list[tuple[int, int]]:
    """Spans of seven and more digits with at most three separators between each two."""
    if _SEVEN_DIGITS not in text.encode("latin-1", "replace").translate(_DIGITS, _SEPARATOR_BYTES):
        return []
    return [match.span() for match in _CLUSTER.finditer(text)]


def matches(pattern: re.Pattern[str], text: str, clusters: Spans) -> Iterator[re.Match[str]]:
    """The pattern's matches that start in a cluster; sorted, disjoint."""
    last = 0
    for start, end in clusters:
        for match in pattern.finditer(text, max(start, last), end + _MARGIN_NUM_CHARS):
            if match.start() < end:
                last = match.end()
                yield match
