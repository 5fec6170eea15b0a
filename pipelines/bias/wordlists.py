"""Lists of words that measures of association rest on, and the units that a distance in a text is counted in."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from pipelines.bias.disparity import GROUPS
from pipelines.signals.keywords import builtin_lexicons, normalise

LANGUAGES = ("en", "zh")
_LEXICONS = Path(__file__).parent / "lexicons"
_LATIN = "0-9a-z\u00c0-\u024f"
_HAN = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"[{_LATIN}]+(?:['’-][{_LATIN}]+)*|[{_HAN}]")
_IS_HAN = re.compile(rf"[{_HAN}]")

Ints = npt.NDArray[np.int64]


@cache
def word_sets(name: str, language: str) -> Mapping[str, tuple[str, ...]]:
    """The sets of a file `lexicons/NAME_LANGUAGE.txt`: set to its words, in order."""
    sets: dict[str, tuple[str, ...]] = {}
    for line in (_LEXICONS / f"{name}_{language}.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            label, _, words = line.partition(":")
            sets[label.strip()] = tuple(normalise(word.strip()) for word in words.split(","))
    return sets


@cache
def group_terms(language: str) -> Mapping[str, tuple[str, ...]]:
    """The words by which SIGNALS counts mentions of each group, of one language: those with Han characters are Chinese."""
    found: dict[str, tuple[str, ...]] = {}
    for resource in builtin_lexicons():
        path = Path(resource.path)
        if path.parent.name == "identity" and path.stem in GROUPS:
            lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
            terms = sorted({normalise(line) for line in lines if line})
            found[path.stem] = tuple(term for term in terms if (_IS_HAN.search(term) is not None) == (language == "zh"))
    return {group: found.get(group, ()) for group in GROUPS}


class TermFinder:
    """Finds listed words in normalised text; of overlapping ones the first, then the longest."""

    def __init__(self, terms: Sequence[str]) -> None:
        self.terms = tuple(dict.fromkeys(terms))
        self._automaton = AhoCorasick(
            self.terms, matchkind=MatchKind.LeftmostLongest, implementation=Implementation.ContiguousNFA
        )

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """(term number, start, end) of each; a Latin word counts only as a word of its own."""
        found = self._automaton.find_matches_as_indexes(text)
        return [match for match in found if _stands_alone(text, match[1], match[2])]


def units(text: str) -> tuple[list[str], Ints]:
    """Latin words and single Han characters of a normalised text, and where each starts: the units of a window."""
    found = [(match[0], match.start()) for match in _UNIT.finditer(text)]
    return [unit for unit, _ in found], np.array([start for _, start in found], dtype=np.int64)


def is_han(term: str) -> bool:
    """Whether a term is counted in characters."""
    return _IS_HAN.search(term) is not None


def _stands_alone(text: str, start: int, end: int) -> bool:
    before = start > 0 and _is_latin(text[start]) and _is_latin(text[start - 1])
    after = end < len(text) and _is_latin(text[end - 1]) and _is_latin(text[end])
    return not (before or after)


def _is_latin(char: str) -> bool:
    return char.isalnum() and char < "\u2e80"
