"""Quality measures of Gopher, C4 and FineWeb: values, from which the policy decides.

W is the number of words of words.py, marks included; lines are stripped of white space, and blank ones are none.

Gopher (Rae et al., arXiv:2112.11446, appendix A1):

    num_words               words that are no marks
    mean_word_length        characters of these / their number
    hash_to_word_ratio      "#" / W
    ellipsis_to_word_ratio  "..." and "…" / W; the Chinese "……" is one, and "。。。" too
    bullet_line_ratio       lines that start with a bullet / lines
    ellipsis_line_ratio     lines that end with an ellipsis / lines
    alpha_word_ratio        words with at least one letter / words, where a word is what stands between white space: marks
                            in code and URLs are no words of their own. Characters and marks count in unspaced text
    num_stop_words          distinct words of the language's STOP_WORDS that occur, case-sensitive; 0 without a list

C4 (Raffel et al., arXiv:1910.10683, section 2.2) as a measure of the document; the text is not rewritten. A line
survives if it ends a sentence (a terminal mark behind closing quotes and brackets taken off, or a quotation mark; a
trailing "..." or lone "…" does not, the Chinese "……" does), has 3 words between white space or 5 characters of an
unspaced script, and no run of over 1,000 characters without white space. "[12]", "[edit]", "[citation needed]" are
taken out first. Of what survives:

    has_lorem_ipsum         a line holds "lorem ipsum"
    has_curly_bracket       a line without "javascript" holds "{"
    num_sentences           sentences of the lines without "javascript" and boilerplate: one for each line, and one
                            for each end of a sentence within it
    policy_line_ratio       boilerplate lines / lines, of all lines: terms, cookies, copyright footers, "read more"

FineWeb (Penedo et al., arXiv:2406.17557, section 3.6), with T the characters that are no line feeds:

    line_punctuation_ratio  lines that end in a terminal mark, closing quotes and brackets taken off / lines
    short_line_ratio        lines of at most 30 characters / lines; of at most 10 where the text is unspaced
    dup_char_ratio          characters of lines seen before / T
    newline_to_word_ratio   line feeds / W
"""

import functools
import re
from collections.abc import Sequence

import numpy as np
from ahocorasick_rs import AhoCorasick

from pipelines.signals.words import UNSPACED_RANGES, Hashes, Words, hash_words

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

_BULLETS = frozenset("•-*·●◆■")
_ELLIPSES = ("...", "…", "。。。")
_TERMINALS = frozenset(".!?…。！？．｡﹒﹗﹖；‼⁇⁈⁉؟۔।॥։።፧။།។")
_CLOSERS = "\"'”’»›)]}」』）】》〉〕｝］"
_QUOTES = frozenset("\"'”’」』")
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_MAX_WORD_NUM_CHARS = 1000
_MIN_LINE_WORDS = 3
_MIN_LINE_CHARACTERS = 5

_UNSPACED = "".join(f"{chr(start)}-{chr(end - 1)}" for start, end in UNSPACED_RANGES)
_LONG_WORD = re.compile(rf"[^\s{_UNSPACED}]{{{_MAX_WORD_NUM_CHARS + 1}}}")
_ENOUGH_CHARACTERS = re.compile(rf"(?:[{_UNSPACED}][^{_UNSPACED}]*+){{{_MIN_LINE_CHARACTERS}}}")
_SENTENCE_END = re.compile(rf"[.!?]++[{re.escape(_CLOSERS)}]*+[ \t\u00a0]++(?=[^\sa-z])")
_FULL_WIDTH_ENDS = "。！？｡．…"
_FULL_WIDTH_SENTENCE_END = re.compile(
    rf"[{_FULL_WIDTH_ENDS}]++(?:(?<=[。！？｡．])|(?<=……))[{re.escape(_CLOSERS)}]*+(?=\S)"
)

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
_LINK_NUM_CHARS = len("continue reading") + 4
"""In prose "read more about" is no link; at the end of a line, but for an arrow or dots, it is."""


def measure_quality(text: str, words: Words, language: str | None) -> dict[str, int | float | bool | None]:
    """The quality fields of SIGNALS for a text, its words and its language; None where there is no denominator."""
    lines = [line for raw in text.split("\n") if (line := raw.strip())]
    cores = [line.rstrip(_CLOSERS) for line in lines]
    return _gopher(text, words, lines, language) | _c4(lines, cores) | _fineweb(text, words, lines, cores)


def _ratio(count: int, total: int) -> float | None:
    return count / total if total else None


def _gopher(
    text: str, words: Words, lines: Sequence[str], language: str | None
) -> dict[str, int | float | bool | None]:
    num_marks = int(np.count_nonzero(words.is_mark))
    num_chars = int(words.lengths.sum()) - int(words.lengths[words.is_mark].sum() if num_marks else 0)
    num_words = words.num_words - num_marks
    num_ellipses = text.count("...") + text.count("…") - text.count("……") + text.count("。。。")
    return {
        "num_words": num_words,
        "mean_word_length": _ratio(num_chars, num_words),
        "hash_to_word_ratio": _ratio(text.count("#"), words.num_words),
        "ellipsis_to_word_ratio": _ratio(num_ellipses, words.num_words),
        "bullet_line_ratio": _ratio(sum([line[0] in _BULLETS for line in lines]), len(lines)),
        "ellipsis_line_ratio": _ratio(
            sum([line.endswith(_ELLIPSES) for line in lines]) if num_ellipses else 0, len(lines)
        ),
        "alpha_word_ratio": _alpha_word_ratio(words),
        "num_stop_words": _num_stop_words(words, language),
    }


def _alpha_word_ratio(words: Words) -> float | None:
    if not words.num_words:
        return None
    has_letter = words.has_letter
    if not words.unspaced:
        starts = words.gaps.copy()
        starts[0] = True
        has_letter = np.bitwise_or.reduceat(has_letter, np.flatnonzero(starts))
    return float(np.count_nonzero(has_letter) / has_letter.size)


def _num_stop_words(words: Words, language: str | None) -> int:
    if language not in STOP_WORDS:
        return 0
    return int(np.count_nonzero((_stop_word_hashes(language)[:, None] == words.hashes[None, :]).any(axis=1)))


@functools.cache
def _stop_word_hashes(language: str) -> Hashes:
    return hash_words(STOP_WORDS[language])


def _c4(lines: Sequence[str], cores: Sequence[str]) -> dict[str, int | float | bool | None]:
    in_lower_case = "\n".join(lines).lower()
    boilerplate = _boilerplate_lines(lines, in_lower_case)
    surviving = [
        line
        for line, core in zip(lines, cores, strict=True)
        if (_survives(line, core) if "[" not in line else _survives_without_citations(line))
    ]
    has_lorem_ipsum = "lorem ipsum" in in_lower_case and any("lorem ipsum" in line.lower() for line in surviving)
    if "javascript" in in_lower_case:
        surviving = [line for line in surviving if "javascript" not in line.lower()]
    kept = [line for line in surviving if line not in boilerplate] if boilerplate else surviving
    kept_text = "\n".join(kept)
    num_sentences = len(kept) + len(_SENTENCE_END.findall(kept_text))
    if not kept_text.isascii() and any(mark in kept_text for mark in _FULL_WIDTH_ENDS):
        num_sentences += len(_FULL_WIDTH_SENTENCE_END.findall(kept_text))
    return {
        "num_sentences": num_sentences,
        "has_lorem_ipsum": has_lorem_ipsum,
        "has_curly_bracket": any("{" in line for line in surviving),
        "policy_line_ratio": _ratio(sum(line in boilerplate for line in lines) if boilerplate else 0, len(lines)),
    }


def _survives_without_citations(line: str) -> bool:
    line = _CITATION.sub("", line).strip()
    return bool(line) and _survives(line, line.rstrip(_CLOSERS))


def _survives(line: str, core: str) -> bool:
    """`core` is the line without closing quotes and brackets."""
    if line[-1] not in _QUOTES and (core[-1:] not in _TERMINALS or not _ends_sentence(core)):
        return False
    if len(line) > _MAX_WORD_NUM_CHARS and _has_long_word(line):
        return False
    return len(line.split(None, _MIN_LINE_WORDS)) >= _MIN_LINE_WORDS or (
        not line.isascii() and _ENOUGH_CHARACTERS.search(line) is not None
    )


def _ends_sentence(core: str) -> bool:
    if core[-1:] == "…":
        return core.endswith("……")
    return not core.endswith(_ELLIPSES)


def _has_long_word(line: str) -> bool:
    return any(len(word) > _MAX_WORD_NUM_CHARS and _LONG_WORD.search(word) for word in line.split())


def _boilerplate_lines(lines: Sequence[str], in_lower_case: str) -> set[str]:
    phrases = set(_phrase_finder().find_matches_as_strings(in_lower_case))
    lower_lines = in_lower_case.split("\n") if phrases else []
    found: set[str] = set()
    for phrase in phrases:
        size = _LINK_NUM_CHARS if phrase in _READ_MORE else None
        found.update(
            line for line, lower in zip(lines, lower_lines, strict=True) if phrase in (lower[-size:] if size else lower)
        )
    return found


@functools.cache
def _phrase_finder() -> AhoCorasick:
    return AhoCorasick((*_PHRASES, *_READ_MORE))


def _fineweb(
    text: str, words: Words, lines: Sequence[str], cores: Sequence[str]
) -> dict[str, int | float | bool | None]:
    short = SHORT_UNSPACED_LINE_NUM_CHARS if words.unspaced else SHORT_LINE_NUM_CHARS
    num_newlines = text.count("\n")
    sizes, distinct = [len(line) for line in lines], set(lines)
    num_dup_chars = sum(sizes) - sum(map(len, distinct)) if len(distinct) < len(lines) else 0
    return {
        "line_punctuation_ratio": _ratio(sum([core[-1:] in _TERMINALS for core in cores]), len(lines)),
        "short_line_ratio": _ratio(sum([size <= short for size in sizes]), len(lines)),
        "dup_char_ratio": _ratio(num_dup_chars, len(text) - num_newlines),
        "newline_to_word_ratio": _ratio(num_newlines, words.num_words),
    }
