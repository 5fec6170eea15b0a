"""A document's text as it is trained on: without the lines that its host repeats, personal data replaced."""

from collections.abc import Mapping
from typing import Any

from pipelines.pii import DEFAULT_KINDS, ENTITY_KINDS, Finding, find_all, placeholder
from pipelines.pii.entities import as_findings

READ_OF_SIGNALS = ("language", "pii")
READ_OF_OUTCOME = ("cut_lines",)


def trained_text(text: str, kinds: frozenset[str] | None, row: Mapping[str, Any]) -> str:
    """The text with what is to be replaced, and cut, out of it.

    `kinds` of personal data; None replaces none. `row` holds `language` and `pii` of its SIGNALS, `cut_lines` of its
    OUTCOME, and `entities` where a model was asked. What was measured is taken if the kinds are those that were looked
    for; others are looked for again.
    """
    edits = [(each.start, each.end, placeholder(each.kind)) for each in _findings(text, kinds, row)]
    numbers = {cut["line"] for cut in row["cut_lines"]}
    cuts = _line_spans(text, numbers) if numbers else []
    for start, end in cuts:
        # what lies in a line that goes, goes with it; a line that a finding reaches out of stays
        if all(end <= a or b <= start or (start <= a and b <= end) for a, b, _ in edits):
            edits = [(a, b, new) for a, b, new in edits if b <= start or end <= a]
            edits.append((start, end, ""))
    if not edits:
        return text
    pieces: list[str] = []
    at = 0
    for start, end, new in sorted(edits):
        pieces += (text[at:start], new)
        at = end
    whole = "".join((*pieces, text[at:]))
    return whole.removesuffix("\n") if text.count("\n") in numbers else whole  # what ended the line before the last


def _findings(text: str, kinds: frozenset[str] | None, row: Mapping[str, Any]) -> list[Finding]:
    if kinds is None:
        return []
    if kinds - set(ENTITY_KINDS) == set(DEFAULT_KINDS):
        return [each for each in as_findings(row["pii"]) if each.kind in kinds]
    return find_all(text, row["language"], kinds, row.get("entities"))


def _line_spans(text: str, numbers: set[int]) -> list[tuple[int, int]]:
    """Where the lines of these numbers stand, each with the line feed that ends it."""
    spans = []
    start = 0
    for number, line in enumerate(text.split("\n")):
        end = min(start + len(line) + 1, len(text))
        if number in numbers:
            spans.append((start, end))
        start = end
    return spans
