"""Quality measures of Gopher, C4 and FineWeb: values, from which the policy decides.

W is the number of words of words.py, marks included. In texts of scripts with spaces between words every measure is
that of datatrove 0.10, the published thresholds' own code, so that they decide here as there: spaCy's words, its ends of
sentences, lines as they stand. Texts of unspaced scripts have definitions of their own ("unspaced" below); there lines
are stripped of white space, and blank ones are none.

Gopher (Rae et al., arXiv:2112.11446, appendix A1); its lines are those of `str.splitlines`, blank ones too:

    num_words               words that are no marks
    mean_word_length        characters of these / their number
    hash_to_word_ratio      "#" / W
    ellipsis_to_word_ratio  "..." and "…" / W; unspaced: "……" is one, and "。。。" too
    bullet_line_ratio       lines that start with "•" or "-" / lines; unspaced: with any of •-*·●◆■
    ellipsis_line_ratio     lines that end with "..." or "…" / lines; unspaced: "。。。" too
    alpha_word_ratio        words with at least one letter / W
    num_stop_words          distinct words of the language's STOP_WORDS that occur, case-sensitive; 0 without a list

C4 (Raffel et al., arXiv:1910.10683, section 2.2) as a measure of the document; the text is not rewritten. A line
survives if it ends in one of . ? ! " ' but not in "...", has 3 words between white space, and none of over 1,000
characters. "[12]", "[edit]", "[citation needed]" are taken out first. Unspaced: a terminal mark behind closing quotes
and brackets taken off, or a quotation mark; a trailing "..." or lone "…" is no end, "……" is; 5 characters of an
unspaced script do for 3 words, and end a run of 1,000. Of what survives:

    has_lorem_ipsum         a line holds "lorem ipsum"
    has_curly_bracket       a line without "javascript" holds "{"
    num_sentences           sentences of the lines without "javascript" and policy phrases: spaCy ends one at each
                            terminal mark that is a word, and the marks behind it. Unspaced: one for each line, and one
                            for each end of a sentence within it, policy lines as in policy_line_ratio
    policy_line_ratio       boilerplate lines / lines that are not blank: terms, cookies, copyright footers, "read more"

FineWeb (Penedo et al., arXiv:2406.17557, section 3.6), lines that are not blank, T the characters but line feeds:

    line_punctuation_ratio  lines that end in one of datatrove's 159 terminal marks / lines. A closing quote or bracket
                            is none, so that He said "yes." counts as unfinished; unspaced: these are taken off first
    short_line_ratio        lines of at most 30 characters / lines; unspaced: of at most 10, if most words are characters
    dup_char_ratio          characters of lines seen before / T
    newline_to_word_ratio   line feeds / W
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ahocorasick_rs import AhoCorasick

from pipelines.signals.bits import JAVASCRIPT, LOREM_IPSUM, POLICY, REFUSED
from pipelines.signals.loops import kernels
from pipelines.signals.words import Table, Words, hash_words, split_words, table_of

_CHINESE_STOP_WORDS = tuple("的一是不在了和有我这這为為与與之也而于於就都被从從到他對对")
STOP_WORDS = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "zh": _CHINESE_STOP_WORDS,
    "wuu": _CHINESE_STOP_WORDS,
    "yue": (*_CHINESE_STOP_WORDS, *"嘅係喺咗佢唔嚟啲"),
}
"""Function words by language: Gopher's eight, and Chinese characters in both scripts, old style and Cantonese."""

SHORT_LINE_NUM_CHARS = 30
SHORT_UNSPACED_LINE_NUM_CHARS = 10
"""A Han character says about as much as three letters."""

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_MAX_WORD_NUM_CHARS = 1000
_MIN_LINE_WORDS = 3
_SENTENCE_ENDS = (".", "?", "!", '"', "'")

_BOILERPLATE = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
"""The policy phrases of C4's reference implementation, in lower case."""
_CHINESE_BOILERPLATE = (
    "隐私政策",
    "隱私政策",
    "隱私權政策",
    "隐私条款",
    "隱私條款",
    "使用条款",
    "使用條款",
    "服务条款",
    "服務條款",
    "服务协议",
    "用户协议",
    "cookie政策",
    "cookie 政策",
    "使用cookie",
    "使用 cookie",
    "版权所有",
    "版權所有",
    "icp备",
    "备案号",
    "阅读全文",
    "閱讀全文",
    "展开全文",
    "展開全文",
    "查看更多",
    "加载更多",
    "點擊載入",
    "点击加载",
)
"""Their Chinese counterparts in both scripts, registration footers and "read more" links."""
_PHRASES = (*_BOILERPLATE, *_CHINESE_BOILERPLATE)
_READ_MORE = ("read more", "continue reading")
_POLICY_PHRASES = (*_PHRASES, *_READ_MORE)
_NUM_POLICY_PHRASES = len(_POLICY_PHRASES)
_LINK_NUM_CHARS = len("continue reading") + 4
"""In prose "read more about" is no link; at the end of a line, but for an arrow or dots, it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCounts:
    """What `count_lines` found; lines are those that the measure in question takes: see the module's docstring."""

    gopher_lines: int
    bullets: int
    ellipses: int
    plain_lines: int
    """Lines that are not blank."""
    ended: int
    short: int
    plain_duplicate_chars: int
    line_feeds: int
    lines: int
    """Lines between line feeds that are not empty: Gopher's repetition."""
    duplicate_lines: int
    duplicate_line_chars: int
    paragraphs: int
    duplicate_paragraphs: int
    duplicate_paragraph_chars: int


def measure_quality(
    text: str, words: Words, language: str | None, lines: LineCounts | None = None
) -> dict[str, int | float | bool | None]:
    """The quality fields of SIGNALS for a text, its words and its language; None where there is no denominator.

    `lines` is what `count_lines` found, where that was asked before.
    """
    lines = lines or count_lines(words)
    return _gopher(text, words, lines, language) | _c4(text, words, lines.plain_lines) | _fineweb(words, lines)


def count_lines(words: Words) -> LineCounts:
    """Lines and paragraphs of a text, counted for all measures at once."""
    room = 1 << (2 * words.codes.count(b"\n") + 4).bit_length()
    tables, at_tables = words.scratch.array("line tables", 3 * room, np.uint64)
    tables[: 3 * room] = 0
    found, at_found = words.scratch.array("line counts", _NUM_LINE_COUNTS, np.int64)
    short = SHORT_UNSPACED_LINE_NUM_CHARS if words.unspaced else SHORT_LINE_NUM_CHARS
    kernels().count_lines(
        *(words.codes, words.at_classes, words.at_sums, words.at_powers),
        *(words.num_chars, short, int(words.unspaced), room - 1),
        *(at_tables, at_tables + 8 * room, at_tables + 16 * room, at_found),
    )
    return LineCounts(**dict(zip(LineCounts.__slots__, found[:_NUM_LINE_COUNTS].tolist(), strict=True)))


_NUM_LINE_COUNTS = 14


def _ratio(count: int, total: int) -> float | None:
    return count / total if total else None


def _gopher(text: str, words: Words, lines: LineCounts, language: str | None) -> dict[str, int | float | bool | None]:
    stop_words = _stop_words(language)
    found, at_found = words.scratch.array("word counts", 5, np.int64)
    kernels().count_words(
        *(words.at_starts, words.at_ends, words.at_hashes, words.at_flags, words.num_words),
        *(stop_words.at, stop_words.array.size, 0, at_found),
    )
    num_marks, num_chars, num_units, num_with_letter, num_stop_words = found[:5].tolist()
    num_words = words.num_words - num_marks
    num_ellipses = text.count("...") + text.count("…")
    if words.unspaced:
        num_ellipses += text.count("。。。") - text.count("……")
    return {
        "num_words": num_words,
        "mean_word_length": _ratio(num_chars, num_words),
        "hash_to_word_ratio": _ratio(text.count("#"), words.num_words),
        "ellipsis_to_word_ratio": _ratio(num_ellipses, words.num_words),
        "bullet_line_ratio": _ratio(lines.bullets, lines.gopher_lines),
        "ellipsis_line_ratio": _ratio(lines.ellipses, lines.gopher_lines),
        "alpha_word_ratio": _ratio(num_with_letter, num_units),
        "num_stop_words": num_stop_words,
    }


@functools.cache
def _stop_words(language: str | None) -> Table:
    return table_of(hash_words(STOP_WORDS.get(language or "", ())))


def _c4(text: str, words: Words, num_lines: int) -> dict[str, int | float | bool | None]:
    phrases = _phrase_finder().find_matches_as_indexes(text.lower(), overlapping=True)
    has_phrases, is_boilerplate = bool(phrases), any(number < _NUM_POLICY_PHRASES for number, _, _ in phrases)
    states, cut = np.zeros(0, np.uint8), list[str]()
    if has_phrases or ("[" in text and _CITATION.search(text)):
        lines = text.split("\n") if words.unspaced else text.splitlines()
        cut = _without_citations(lines, unspaced=words.unspaced)
        if has_phrases:
            states = _line_states(lines, unspaced=words.unspaced)
        else:
            states = np.array([0 if line else REFUSED for line in lines], np.uint8)
    counts = _sentences(words, states, is_cut=False)
    if cut:
        again = split_words("\n".join(cut), scratch=words.scratch.spare(), unspaced=words.unspaced)
        more = _sentences(again, _line_states(cut, unspaced=words.unspaced), is_cut=True)
        counts = [one + other for one, other in zip(counts, more, strict=True)]
    num_sentences, num_lorem_ipsum, num_curly_brackets = counts
    return {
        "num_sentences": num_sentences,
        "has_lorem_ipsum": num_lorem_ipsum > 0,
        "has_curly_bracket": num_curly_brackets > 0,
        "policy_line_ratio": _ratio(len(_policy_lines(text)) if is_boilerplate else 0, num_lines),
    }


def _sentences(words: Words, states: npt.NDArray[np.uint8], *, is_cut: bool) -> list[int]:
    found, at_found = words.scratch.array("sentences", 3, np.int64)
    text, lines = (words.codes, words.at_classes, words.num_chars), (states.ctypes.data, states.size)
    if words.unspaced:
        kernels().sentences_unspaced(*text, *lines, at_found)
    else:
        of_words = (words.at_starts, words.at_ends, words.at_flags, words.num_words)
        kernels().sentences_spaced(*text, *of_words, *lines, int(is_cut), at_found)
    counts: list[int] = found[:3].tolist()
    return counts


def _without_citations(lines: list[str], *, unspaced: bool) -> list[str]:
    """The lines that had "[12]" and the like, without it; they become empty in `lines`.

    Of spaced text only those that are not refused as it is; they are stripped before, and not again, as C4 does.
    """
    found = []
    for idx, line in enumerate(lines):
        if "[" not in line or not _CITATION.search(line):
            continue
        lines[idx] = ""
        cut = _CITATION.sub("", line if unspaced else line.strip())
        if unspaced or (cut.endswith(_SENTENCE_ENDS) and _has_enough_words(line)):
            found.append(cut)
    return found


def _has_enough_words(line: str) -> bool:
    parts = line.split()
    return len(parts) >= _MIN_LINE_WORDS and max(map(len, parts)) <= _MAX_WORD_NUM_CHARS


def _line_states(lines: Sequence[str], *, unspaced: bool) -> npt.NDArray[np.uint8]:
    """What a search finds in each line, for the compiled loops; those left empty are not to be counted."""
    states = np.full(len(lines), REFUSED, np.uint8)
    for idx, line in enumerate(lines):
        if line:
            lower = line.lower()
            is_policy = _is_policy(lower.strip()) if unspaced else any(phrase in lower for phrase in _BOILERPLATE)
            has_script = "javascript" in lower
            states[idx] = ("lorem ipsum" in lower) * LOREM_IPSUM | has_script * JAVASCRIPT | is_policy * POLICY
    return states


def _policy_lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if _is_policy(line.strip().lower())]


def has_policy_line(text: str) -> bool:
    """Whether `policy_line_ratio` counts a line of a text."""
    return bool(_policy_lines(text))


def _is_policy(line: str) -> bool:
    """Is it boilerplate? `line` is stripped and in lower case."""
    return any(phrase in line for phrase in _PHRASES) or any(phrase in line[-_LINK_NUM_CHARS:] for phrase in _READ_MORE)


@functools.cache
def _phrase_finder() -> AhoCorasick:
    return AhoCorasick((*_POLICY_PHRASES, "lorem ipsum", "javascript"))


def _fineweb(words: Words, lines: LineCounts) -> dict[str, int | float | bool | None]:
    return {
        "line_punctuation_ratio": _ratio(lines.ended, lines.plain_lines),
        "short_line_ratio": _ratio(lines.short, lines.plain_lines),
        "dup_char_ratio": _ratio(lines.plain_duplicate_chars, words.num_chars - lines.line_feeds),
        "newline_to_word_ratio": _ratio(lines.line_feeds, words.num_words),
    }
