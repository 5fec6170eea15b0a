"""How often a text uses listed words, by category: abuse, spam and adult terms, and words that name groups of people.

The built-in lists are small and our own; real deployments bring theirs (GB/T 45654-2025 asks for 10,000 terms), in the
formats of keyword_library.py. Identity words and the words of counter-speech are in no list of abuse: naming a group
is not an insult (Dodge et al. 2021, arXiv:2104.08758, on what word lists remove). A hit inside an allowed phrase
(习惯, 成人高考, `lexicons/context`) does not count.

Must not: judge. Hits are counted here; thresholds are the policy's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahocorasick_rs import AhoCorasick, Implementation

from pipelines.digest import digest_file
from pipelines.signals.folding import fold, fold_to_text
from pipelines.signals.keyword_library import EVERY_CATEGORY, Match, Term, read_plain_terms, read_terms
from pipelines.stage import Resource

Counter = Callable[[str], dict[str, int]]

_LEXICONS = Path(__file__).parent / "lexicons"
_IDENTITY_LEXICONS = _LEXICONS / "identity"
_CONTEXT_LEXICONS = _LEXICONS / "context"
_WINDOW_NUM_CHARS = 1 << 18
"""Characters searched at a time, so that a page made of nothing but listed words is no danger to memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One listed term in a text."""

    category: str
    term: str
    """As listed, folded."""
    start: int
    """Index of its first character in the text, as it was before folding."""
    end: int
    """One more than the index of its last."""


def keyword_counter(extra: tuple[Resource, ...] = ()) -> Counter:
    """A function from text to hits by category (`abuse`, `spam`, `adult`, and those of `extra`); no zeros.

    A category of `extra` adds to a built-in one of the same name. Raises ConfigError, with the line, where a file
    cannot be read or is in neither format.
    """
    return _counter(_compiled((_keyword_terms(extra),)))


def identity_counter() -> Counter:
    """A function from text to mentions by group of people: gender, ethnicity, religion, and so on; no zeros."""
    return _counter(_compiled((_identity_terms(),)))


def term_counter(extra: tuple[Resource, ...] = ()) -> Callable[[str], tuple[dict[str, int], dict[str, int]]]:
    """A function from text to what `keyword_counter` and `identity_counter` find: both in one search."""
    lists = _compiled((_keyword_terms(extra), _identity_terms()))

    def count(text: str) -> tuple[dict[str, int], dict[str, int]]:
        keywords, identities = _counted(lists, fold_to_text(text))
        return keywords, identities

    return count


def keyword_finder(extra: tuple[Resource, ...] = ()) -> Callable[[str], list[Hit]]:
    """A function from text to the hits that `keyword_counter` counts, in order of their place, for a person to see."""
    lists = _compiled((_keyword_terms(extra),))

    def find(text: str) -> list[Hit]:
        folded = fold(text)
        hits = []
        for _, idx, start, stop, categories in _hits(lists, folded.text):
            first, end = folded.span(start, stop)
            hits += [Hit(category=name, term=lists.terms[idx], start=first, end=end) for name in categories]
        return hits

    return find


def builtin_lexicons() -> tuple[Resource, ...]:
    """The packaged lists, to put into a config: a changed word must change the stage's key."""
    return tuple(Resource(digest_file(path), str(path)) for path in sorted(_LEXICONS.rglob("*.txt")))


def normalise(text: str) -> str:
    """One form for the spellings of a word: see `fold`."""
    return fold_to_text(text)


def context_phrases() -> list[str]:
    """The packaged phrases, folded, inside which no hit counts."""
    return [
        term.term
        for path in sorted(_CONTEXT_LEXICONS.glob("*.txt"))
        for term in read_plain_terms(path, EVERY_CATEGORY, Match.ALLOW)
    ]


def _keyword_terms(extra: tuple[Resource, ...]) -> list[Term]:
    terms = [term for path in sorted(_LEXICONS.glob("*.txt")) for term in read_plain_terms(path, path.stem)]
    for path in sorted(_CONTEXT_LEXICONS.glob("*.txt")):
        terms += read_plain_terms(path, EVERY_CATEGORY, Match.ALLOW)
    for resource in extra:
        terms += read_terms(Path(resource.path))
    return terms


def _identity_terms() -> list[Term]:
    return [term for path in sorted(_IDENTITY_LEXICONS.glob("*.txt")) for term in read_plain_terms(path, path.stem)]


@dataclass(frozen=True, slots=True)
class _Lists:
    """Listed terms, ready to be searched for. A layer is a set of lists whose hits do not compete with another's."""

    automaton: Any
    terms: list[str]
    categories: list[list[tuple[str, ...]]]  # by layer and term: the categories that list it
    pardons: list[list[tuple[str, ...]]]  # by layer and term: the categories whose hits it pardons
    is_part: list[list[bool]]  # by layer and term: whether it counts inside a word
    max_num_chars: int


def _compiled(layers: Iterable[Iterable[Term]]) -> _Lists:
    listed = [list(layer) for layer in layers]
    terms = sorted({term.term for layer in listed for term in layer})
    categories, pardons, is_part = [], [], []
    for layer in listed:
        listing: dict[str, set[str]] = {}
        pardoning: dict[str, set[str]] = {}
        parts = set()
        for term in layer:
            (pardoning if term.match is Match.ALLOW else listing).setdefault(term.term, set()).add(term.category)
            if term.match is Match.PART:
                parts.add(term.term)
        categories.append([tuple(sorted(listing.get(term, ()))) for term in terms])
        pardons.append([tuple(sorted(pardoning.get(term, ()))) for term in terms])
        is_part.append([term in parts for term in terms])
    automaton = AhoCorasick(terms, implementation=Implementation.DFA)  # 41 MiB for 10,000 terms, twice as fast
    return _Lists(automaton, terms, categories, pardons, is_part, max(map(len, terms), default=1))


def _counter(lists: _Lists) -> Counter:
    return lambda text: _counted(lists, fold_to_text(text))[0]


def _counted(lists: _Lists, text: str) -> list[dict[str, int]]:
    counts: list[dict[str, int]] = [{} for _ in lists.categories]
    for layer, _, _, _, categories in _hits(lists, text):
        for category in categories:
            counts[layer][category] = counts[layer].get(category, 0) + 1
    return [dict(sorted(of_layer.items())) for of_layer in counts]


def _hits(lists: _Lists, text: str) -> Iterator[tuple[int, int, int, int, Sequence[str]]]:
    """(layer, term, start, end, categories) of each hit in a folded text: of overlapping terms of a layer the first,
    then the longest. What a phrase around it pardons in all its categories is no hit, and hides no other.
    """
    layers = range(len(lists.categories))
    ends = [0 for _ in layers]
    pardoned: list[dict[str, int]] = [{} for _ in layers]  # by category: how far a phrase that has begun reaches
    for idx, start, stop in _matches(lists, text):
        for layer in layers:
            for category in lists.pardons[layer][idx]:
                pardoned[layer][category] = max(stop, pardoned[layer].get(category, 0))
            categories: Sequence[str] = lists.categories[layer][idx]
            if start < ends[layer] or not categories:
                continue
            if not (lists.is_part[layer][idx] or stands_alone(text, start, stop)):
                continue
            if pardoned[layer]:
                categories = _not_pardoned(categories, pardoned[layer], stop)
            if categories:
                ends[layer] = stop
                yield layer, idx, start, stop, categories


def _not_pardoned(categories: Sequence[str], reach: Mapping[str, int], stop: int) -> Sequence[str]:
    everywhere = reach.get(EVERY_CATEGORY, 0)
    return [category for category in categories if max(everywhere, reach.get(category, 0)) < stop]


def _matches(lists: _Lists, text: str) -> Iterator[tuple[int, int, int]]:
    """(term, start, end) of every occurrence of every term, by start, the longest first."""
    for begin in range(0, len(text), _WINDOW_NUM_CHARS):
        window = (
            text[begin : begin + _WINDOW_NUM_CHARS + lists.max_num_chars] if len(text) > _WINDOW_NUM_CHARS else text
        )
        matches = lists.automaton.find_matches_as_indexes(window, overlapping=True)
        for idx, start, stop in sorted(matches, key=lambda match: (match[1], -match[2])):
            if start < _WINDOW_NUM_CHARS:  # the rest is found again in the next window
                yield idx, begin + start, begin + stop


def stands_alone(text: str, start: int, end: int) -> bool:
    """A Latin term is a word of its own; a Chinese one may stand anywhere."""
    return not (
        (start > 0 and _is_latin(text[start]) and _is_latin(text[start - 1]))
        or (end < len(text) and _is_latin(text[end - 1]) and _is_latin(text[end]))
    )


def _is_latin(char: str) -> bool:
    return char.isalnum() and char < "\u2e80"
