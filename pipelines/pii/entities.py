"""Names and the like, which a model found elsewhere, beside what the detectors find.

A model sees each mention in its own surroundings and may miss the third of four. `with_echoes` gives a name that was
found once the same placeholder wherever else it stands in the document, so that a document says it nowhere or everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ahocorasick_rs

from pipelines.pii.findings import Finding

ENTITY_KINDS = ("person", "address", "location", "organisation", "birth_date", "username", "other_entity")
"""Kinds that only a model finds, and whose placeholders its labels may be mapped to."""

_MIN_LATIN_CHARS = 4
_MIN_HAN_CHARS = 2
"""A shorter name is not looked for elsewhere: it is a word, or a part of one, too often."""
_HAN = ("\u3400", "\u9fff")


def as_findings(rows: Iterable[Mapping[str, Any]] | None) -> list[Finding]:
    """A row of ENTITIES' `entities` as findings."""
    return [Finding(row["kind"], row["start"], row["end"]) for row in rows or ()]


def joined(strict: Sequence[Finding], entities: Iterable[Finding]) -> list[Finding]:
    """Both, in text order, never overlapping: of an entity is left what no detector claims, if a letter or digit is in it."""
    found = list(strict)
    for entity in entities:
        start = entity.start
        for other in (*(each for each in strict if each.start < entity.end and each.end > start), None):
            end = entity.end if other is None else max(start, other.start)
            if end > start:
                found.append(Finding(entity.kind, start, end))
            start = start if other is None else max(start, other.end)
    return sorted(found, key=lambda finding: finding.start)


def with_echoes(text: str, findings: Sequence[Finding], elsewhere: str | None = None) -> list[Finding]:
    """The findings of a text and every other place where the same words stand; sorted, disjoint.

    Given `elsewhere`, such as the title, only the places in that text instead.
    """
    kinds: dict[str, str] = {}
    for finding in sorted(findings, key=lambda finding: finding.start):
        surface = text[finding.start : finding.end]
        if _is_telling(surface):
            kinds.setdefault(surface, finding.kind)
    found = [] if elsewhere is not None else sorted(findings, key=lambda finding: finding.start)
    searched = text if elsewhere is None else elsewhere
    if not kinds:
        return found
    surfaces = sorted(kinds)
    automaton = ahocorasick_rs.AhoCorasick(surfaces, matchkind=ahocorasick_rs.MatchKind.LeftmostLongest)
    taken = iter((*found, None))
    before = next(taken)
    echoes = []
    for idx, start, end in automaton.find_matches_as_indexes(searched):
        while before is not None and before.end <= start:
            before = next(taken)
        if (before is None or before.start >= end) and _stands_alone(searched, start, end):
            echoes.append(Finding(kinds[surfaces[idx]], start, end))
    return sorted(found + echoes, key=lambda finding: finding.start)


def _is_telling(surface: str) -> bool:
    if any(map(_is_han, surface)):
        return len(surface) >= _MIN_HAN_CHARS
    return len(surface) >= _MIN_LATIN_CHARS


def _stands_alone(text: str, start: int, end: int) -> bool:
    """No part of a longer word; Chinese has no spaces, so there any place will do."""
    before, first, last, after = text[start - 1 : start], text[start], text[end - 1], text[end : end + 1]
    is_cut_before = before.isalnum() and not _is_han(before) and not _is_han(first)
    is_cut_after = after.isalnum() and not _is_han(after) and not _is_han(last)
    return not is_cut_before and not is_cut_after


def _is_han(char: str) -> bool:
    return _HAN[0] <= char <= _HAN[1]
