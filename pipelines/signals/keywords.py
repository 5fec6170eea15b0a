"""How often a text uses listed words, by category: abuse, spam and adult terms, and words that name groups of people.

A list is a text file: one term a line, `#` starts a comment. The built-in lists are small and our
own; real deployments bring theirs (GB/T 45654-2025 asks for 10,000 terms). Identity words and the
words of counter-speech are in no list of abuse: naming a group is not an insult (Dodge et al.
2021, arXiv:2104.08758, on what word lists remove).

Must not: judge. Hits are counted here; thresholds are the policy's.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from ahocorasick_rs import AhoCorasick, Implementation

from pipelines.digest import digest_file
from pipelines.errors import ConfigError
from pipelines.stage import Resource

Counter = Callable[[str], dict[str, int]]

_LEXICONS = Path(__file__).parent / "lexicons"
_IDENTITY_LEXICONS = _LEXICONS / "identity"

_HEADER = re.compile(r"#\s*category:\s*([\w-]+)\s*")
_ZERO_WIDTH = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]"
)
_HAN = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_DOT = r"[ \t\u3000.,·・•*_~+|/\\^-]"
_BETWEEN_HAN = re.compile(rf"{_DOT}(?<=[{_HAN}].){_DOT}{{0,2}}(?=[{_HAN}])")  # led by what is quick to search for
_SPACES = re.compile(r"\s+")


def keyword_counter(extra: tuple[Resource, ...] = ()) -> Counter:
    """A function from text to hits by category (`abuse`, `spam`, `adult`, and those of `extra`); no zeros.

    A file of `extra` names its category in its first line, `# category: NAME`, and adds to a
    built-in category of that name. Raises ConfigError where the line is missing or a file cannot be read.
    """
    count = _keyword_counter(extra)
    return lambda text: count(normalise(text))


def identity_counter() -> Counter:
    """A function from text to mentions by group of people: gender, ethnicity, religion, and so on; no zeros."""
    count = _identity_counter()
    return lambda text: count(normalise(text))


def term_counter(extra: tuple[Resource, ...] = ()) -> Callable[[str], tuple[dict[str, int], dict[str, int]]]:
    """A function from text to what `keyword_counter` and `identity_counter` find: both in one normalised text."""
    count_keywords, count_identities = _keyword_counter(extra), _identity_counter()

    def count(text: str) -> tuple[dict[str, int], dict[str, int]]:
        text = normalise(text)
        return count_keywords(text), count_identities(text)

    return count


def builtin_lexicons() -> tuple[Resource, ...]:
    """The packaged lists, to put into a config: a changed word must change the stage's key."""
    return tuple(Resource(digest_file(path), str(path)) for path in sorted(_LEXICONS.rglob("*.txt")))


def normalise(text: str) -> str:
    """One form for the spellings of a word: NFKC, lower case, no invisible characters, no dots between Chinese ones."""
    text = unicodedata.normalize("NFKC", text).lower()
    if text.isascii():
        return text
    return _BETWEEN_HAN.sub("", _ZERO_WIDTH.sub("", text))


def _category(path: Path) -> str:
    header = _HEADER.fullmatch(_read(path).partition("\n")[0])
    if header is None:
        raise ConfigError(f"got word list {path.name} without a category, wanted '# category: NAME' as its first line.")
    return header[1]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"got word list {path} that cannot be read ({error}): give a UTF-8 text file.") from error


def _terms(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in _read(path).splitlines())
    return [_SPACES.sub(" ", normalise(line)) for line in lines if line]


def _keyword_counter(extra: tuple[Resource, ...]) -> Counter:
    lexicons = [(path.stem, path) for path in sorted(_LEXICONS.glob("*.txt"))]
    return _counter([*lexicons, *((_category(Path(resource.path)), Path(resource.path)) for resource in extra)])


def _identity_counter() -> Counter:
    return _counter((path.stem, path) for path in sorted(_IDENTITY_LEXICONS.glob("*.txt")))


def _counter(lexicons: Iterable[tuple[str, Path]]) -> Counter:
    """Counts the terms of the lists in a normalised text."""
    categories_of: dict[str, set[str]] = {}
    for category, path in lexicons:
        for term in _terms(path):
            categories_of.setdefault(term, set()).add(category)
    terms = sorted(categories_of)
    categories = [sorted(categories_of[term]) for term in terms]
    automaton = AhoCorasick(terms, implementation=Implementation.DFA)  # 41 MiB for 10,000 terms, twice as fast

    def count(text: str) -> dict[str, int]:
        hits: dict[str, int] = {}
        end = 0
        matches = automaton.find_matches_as_indexes(text, overlapping=True)
        for idx, start, stop in sorted(matches, key=lambda match: (match[1], -match[2])):
            if start >= end and _stands_alone(text, start, stop):  # of overlapping terms the first, then the longest
                end = stop
                for category in categories[idx]:
                    hits[category] = hits.get(category, 0) + 1
        return dict(sorted(hits.items()))

    return count


def _stands_alone(text: str, start: int, end: int) -> bool:
    """A Latin term is a word of its own; a Chinese one may stand anywhere."""
    return not (
        (start > 0 and _is_latin(text[start]) and _is_latin(text[start - 1]))
        or (end < len(text) and _is_latin(text[end - 1]) and _is_latin(text[end]))
    )


def _is_latin(char: str) -> bool:
    return char.isalnum() and char < "\u2e80"
