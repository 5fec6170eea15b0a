"""Where in a text the evidence for a rule stands, for a person who reviews the rule.

The spans explain, they do not measure: a signal is a figure over the whole text, and these are the places it comes from,
found again by its published definition in the first MAX_NUM_CHARS characters. What no place can show (too few words, a
low language score) has no spans.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pipelines.signals.keywords import Hit
from pipelines.signals.quality import has_policy_line
from pipelines.signals.words import split_words

MAX_NUM_CHARS = 1 << 17
MAX_NUM_SPANS = 100

_LINE = re.compile(r"[^\n]+")
_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")
_TERMINALS = tuple(".!?。！？．｡")
_UNSPACED_BULLETS = tuple("•-*·●◆■")
_UNSPACED_ELLIPSES = ("...", "…", "。。。")
_UNSPACED_TERMINALS = tuple(".!?…。！？．｡；")
_CLOSERS = "\"'”’»›)]}」』）】》〉〕｝］"
_PATTERNS = {
    "hash_to_word_ratio": re.compile("#"),
    "ellipsis_to_word_ratio": re.compile(r"\.\.\.|…|。。。"),
    "has_curly_bracket": re.compile(r"\{"),
    "has_lorem_ipsum": re.compile(r"lorem ipsum", re.IGNORECASE),
}
_N_GRAM = re.compile(r"(top|dup)_(\d+)_gram_char_ratio")
_SHORT_NUM_CHARS = 30
_MAX_NUM_LINES = 4000


@dataclass(frozen=True, slots=True)
class Span:
    """text[start:end], in code points, and what it is."""

    start: int
    end: int
    label: str


def locate(signal: str, text: str, keywords: Callable[[str], Sequence[Hit]]) -> list[Span]:
    """Spans of a text that a rule on this signal rests on: at most MAX_NUM_SPANS, in order, never overlapping.

    `keywords` is what `keyword_finder` returns. Personal data has no spans here: who shows a text masks it anyway.
    """
    text = text[:MAX_NUM_CHARS]
    return apart(_spans(signal, text, keywords))


def apart(spans: Iterable[Span]) -> list[Span]:
    """The first MAX_NUM_SPANS of spans by their start, without those that overlap one before them."""

    def kept() -> Iterator[Span]:
        end = 0
        for span in spans:
            if span.start >= end and span.end > span.start:
                end = span.end
                yield span

    return list(islice(kept(), MAX_NUM_SPANS))


def _spans(signal: str, text: str, keywords: Callable[[str], Sequence[Hit]]) -> Iterable[Span]:
    if signal.endswith("_per_1000_words"):
        return _listed(signal.removesuffix("_per_1000_words"), keywords(text))
    if signal in _PATTERNS:
        return (Span(*match.span(), "mark") for match in _PATTERNS[signal].finditer(text))
    n_gram = _N_GRAM.fullmatch(signal)
    if n_gram:
        return (_top_n_gram if n_gram[1] == "top" else _repeated_n_grams)(text, int(n_gram[2]))
    if signal in ("dup_line_ratio", "dup_line_char_ratio", "dup_char_ratio"):
        return _repeated(_LINE.finditer(text))
    if signal in ("dup_paragraph_ratio", "dup_paragraph_char_ratio"):
        return _repeated(re.finditer(r"[^\n]+(?:\n[^\n]+)*", text))
    if signal == "policy_line_ratio" and not has_policy_line(text):
        return ()
    if signal not in _LINE_TESTS:
        return ()
    return _lines(text, (_UNSPACED_LINE_TESTS if split_words(text).unspaced else _LINE_TESTS)[signal])


def _listed(category: str, hits: Iterable[Hit]) -> Iterator[Span]:
    wanted = "abuse" if category == "identity_abuse" else category
    return (Span(hit.start, hit.end, hit.category) for hit in hits if hit.category == wanted)


def _repeated(parts: Iterable[re.Match[str]]) -> Iterator[Span]:
    seen: set[str] = set()
    for part in parts:
        content = part[0].strip()
        if content in seen:
            yield Span(part.start(), part.end(), "seen before")
        elif content:
            seen.add(content)


def _lines(text: str, is_evidence: Callable[[str], bool]) -> Iterator[Span]:
    for line in islice(_LINE.finditer(text), _MAX_NUM_LINES):
        content = line[0].strip()
        if content and is_evidence(content):
            yield Span(line.start(), line.end(), "line")


_LINE_TESTS: dict[str, Callable[[str], bool]] = {
    "bullet_line_ratio": lambda line: line.startswith(_BULLETS),
    "ellipsis_line_ratio": lambda line: line.endswith(_ELLIPSES),
    "line_punctuation_ratio": lambda line: not line.endswith(_TERMINALS),
    "short_line_ratio": lambda line: len(line) <= _SHORT_NUM_CHARS,
    "newline_to_word_ratio": lambda line: len(line) <= _SHORT_NUM_CHARS,
    "policy_line_ratio": has_policy_line,
}
_UNSPACED_LINE_TESTS: dict[str, Callable[[str], bool]] = _LINE_TESTS | {
    "bullet_line_ratio": lambda line: line.startswith(_UNSPACED_BULLETS),
    "ellipsis_line_ratio": lambda line: line.endswith(_UNSPACED_ELLIPSES),
    "line_punctuation_ratio": lambda line: not line.rstrip(_CLOSERS).endswith(_UNSPACED_TERMINALS),
}


def _places(text: str) -> list[tuple[int, int]]:
    words = split_words(text)
    return list(zip(words.starts.tolist(), words.ends.tolist(), strict=True))


def _top_n_gram(text: str, n: int) -> Iterator[Span]:
    """Every place of the commonest n words in a row; of equally common ones, the first in the text."""
    places = _places(text)
    words = [text[start:end] for start, end in places]
    grams = list(zip(*(words[idx:] for idx in range(n)), strict=False))
    if not grams:
        return
    top, count = Counter(grams).most_common(1)[0]
    if count > 1:
        for idx, gram in enumerate(grams):
            if gram == top:
                yield Span(places[idx][0], places[idx + n - 1][1], f"{count} times")


def _repeated_n_grams(text: str, n: int) -> Iterator[Span]:
    """The n words in a row that stood before, by a scan from the left that goes on behind each."""
    places = _places(text)
    words = [text[start:end] for start, end in places]
    seen: set[tuple[str, ...]] = set()
    idx = 0
    while idx + n <= len(words):
        gram = tuple(words[idx : idx + n])
        if gram in seen:
            yield Span(places[idx][0], places[idx + n - 1][1], "seen before")
            idx += n
        else:
            seen.add(gram)
            idx += 1
