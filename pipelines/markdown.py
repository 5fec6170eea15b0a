"""Text of strangers in Markdown: host names, rules of robots.txt and error messages show as what they are.

Nothing in a cell may end it, become HTML, a link or an image that a viewer would load.
"""

import re
from collections.abc import Iterable, Sequence

_MAX_NUM_CHARS = 160
_ACTIVE = re.compile(r"[\\`*\[\]|~]")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def plain(value: object) -> str:
    """A value as one line of text that Markdown leaves alone; whole numbers with separators, long text cut."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else ("yes" if value else "no")
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    if len(text) > _MAX_NUM_CHARS:
        text = f"{text[: _MAX_NUM_CHARS - 3]}..."
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return _ACTIVE.sub(r"\\\g<0>", shown.translate(_ENTITIES))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table as lines; columns after the first are aligned to the right where they hold numbers only."""
    body = [list(row) for row in rows]
    if not body:
        return ["(none)", ""]
    rules = [
        "---:" if idx and all(isinstance(row[idx], int | float) for row in body) else "---" for idx in range(len(head))
    ]
    return [_line(head), "|" + "|".join(rules) + "|", *(_line([plain(value) for value in row]) for row in body), ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
