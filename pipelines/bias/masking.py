"""One sign for every name of a group, so that what is said of people is judged and not who they are.

A classifier learns the names of groups from data in which they are mostly attacked (Dixon et al. 2018, "Measuring and
Mitigating Unintended Bias in Text Classification"). Here it never sees one: swapping a listed name for another leaves
its input as it was, by construction.

Must not: be shown or stored as the text.
"""

import re
from functools import cache
from pathlib import Path

from pipelines.bias.wordlists import LANGUAGES, TermFinder, group_terms
from pipelines.signals.keywords import normalise

GROUP = "\ue000"
"""Stands for the name of a group: a character of the private use area, which is in no word."""

_LEXICONS = Path(__file__).parent / "lexicons"
# What stands beside a name and differs from name to name: an Arab, deaf people, people with autism, 一位盲人, 藏族人.
_AROUND = re.compile(
    r"(?:\b(?:an?|some) |一[位个名些群])?"
    rf"(?:\b(?:people|persons?|someone) (?:with|who (?:is|are)|of) (?:an? )?|{GROUP} (?:with|of) (?:an? )?)?"
    rf"{GROUP}"
    rf"(?:[ -]?{GROUP}|[ -](?:people|persons?|folks?|individuals?|users?|descent|faith)\b|"
    r"患者|使用者|教徒|信徒|族人|群体|同胞|人士|[人者们徒族裔籍])*"
)


def mask(text: str) -> str:
    """A normalised text with GROUP in place of each name of a group, and of what differs beside it."""
    finder = _finder()
    parts: list[str] = []
    place = 0
    for _, start, end in finder.find(text):
        parts += (text[place:start], GROUP)
        place = end
    if not parts:
        return text
    return _AROUND.sub(GROUP, "".join((*parts, text[place:])))


def mentions(text: str) -> list[int]:
    """Where names of groups begin in a normalised text, in order."""
    return [start for _, start, _ in _finder().find(text)]


@cache
def names(language: str) -> tuple[str, ...]:
    """Every name that is masked in a language, normalised: those that are counted as mentions, and masks_*.txt."""
    lines = (_LEXICONS / f"masks_{language}.txt").read_text(encoding="utf-8").splitlines()
    masked = {normalise(line) for line in lines if line and not line.startswith("#")}
    return tuple(sorted(masked.union(*group_terms(language).values())))


@cache
def _finder() -> TermFinder:
    return TermFinder([name for language in LANGUAGES for name in names(language)])
