"""The labelled sentences of our own that every classifier is trained on: `lexicons/seeds_*.txt`.

Attacks, and in the same words what is none: counter-speech, negation, identity, health, news, law, other matters. So
that a word alone decides little, and a recipe without labelled files has a classifier all the same.
"""

import re
from functools import cache
from pathlib import Path

from pipelines.bias.masking import GROUP

_LEXICONS = Path(__file__).parent / "lexicons"
_SLOT = re.compile(r"\[(\w+)\]")
_NUM_VARIANTS = 10
"""Of a line with a slot: the words of its set take turns from line to line."""


@cache
def seeds(language: str) -> tuple[tuple[str, bool], ...]:
    """(sentence, whether it attacks) in the order of the file, with GROUP for the names of groups."""
    sets: dict[str, list[str]] = {}
    turns: dict[str, int] = {}
    found: list[tuple[str, bool]] = []
    for line in (_LEXICONS / f"seeds_{language}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("@"):
            name, _, words = line[1:].partition(":")
            sets[name] = [word.strip() for word in words.split("|")]
        elif line.startswith(("+ ", "- ")):
            text = line[2:].replace("{g}", GROUP)
            num = _NUM_VARIANTS if _SLOT.search(text) else 1
            found += [(_filled(text, sets, turns), line[0] == "+") for _ in range(num)]
    return tuple(found)


def _filled(text: str, sets: dict[str, list[str]], turns: dict[str, int]) -> str:
    def word(match: re.Match[str]) -> str:
        name = match[1]
        turns[name] = turns.get(name, -1) + 1
        return sets[name][turns[name] % len(sets[name])]

    return _SLOT.sub(word, text)
