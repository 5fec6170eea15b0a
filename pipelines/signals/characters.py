"""What each code point is to the rules of the signals: one table of bits (see bits.py), made once a process.

Scripts, marks and letters of spaCy's English tokenizer and its sentencizer are those of spaCy 3.8, punctuation and
terminal punctuation those of datatrove 0.10, so that English text is cut and judged as these do; the rest is Unicode as
the interpreter knows it. The marks that end a line or close a quotation in unspaced scripts are ours.
"""

import functools
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from pipelines.signals import bits as k

Bits = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]

_NUM_CODES = k.LAST_CODE + 1

UNSPACED_RANGES = (
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x0F40, 0x10A0),  # Tibetan, Burmese
    (0x1780, 0x1800),  # Khmer
    (0x3005, 0x3008),  # Han: iteration mark, zero
    (0x3041, 0x30FB),  # Hiragana, Katakana
    (0x30FC, 0x3130),  # prolonged sound mark, Bopomofo
    (0x3400, 0x4DC0),  # Han
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0xFF66, 0xFF9E),  # half-width kana
    (0x20000, 0x323B0),  # Han
)
"""Code points of scripts without spaces between words, end excluded."""

# To spaCy. Letters without case are taken for lower and for upper case both.
_CASED = (
    "41-5A 61-7A C0-D6 D8-F6 F8-1BF 1C4-2AF 386 388-38A 38C 38E-38F 391-3A9 3AC-3AF 3B1-3C9 3CC-3CE 400-401 403-40A "
    "40C-40D 410-451 453-45A 45C-45D 490-491 496-497 4A2-4A3 4AE-4AF 4BA-4BB 4D8-4D9 4E8-4E9 1D00-1D25 1D6B-1D77 "
    "1D79-1D9A 1E00-1EFF 2C60-2C7B 2C7E-2C7F A722-A76F A771-A787 A78B-A78E A790-A7B9 A7FA AB30-AB5A AB60-AB64 "
    "FF21-FF3A FF41-FF5A"
)
_UNCASED = (
    "591-5F4 620-64A 66E-6D5 6E5-6FF 750-77F 8A0-8BD 900-9FF B80-CFF D80-DFF 1100-137F 2E80-2FDF 2FF0-30FF 31C0-31EF "
    "3200-4DBF 4E00-9FFF AC00-D7AF F900-FAFF FB1D-FBB1 FBD3-FD3D FD50-FDC7 FDF0-FDFB FE30-FE4F FE70-FEFC 1EE00-1EEBB "
    "1F200-1F2FF 20000"
)
_LOWER_WITHOUT_CATEGORY = "294"
_SYMBOLS_TOO_YOUNG = (  # category So, but not known to it
    "166D 2B97 2BC9 2BFF 2E50-2E51 32FF FD40-FD4F FDCF FDFE-FDFF 1019C 11FD5-11FDC 11FE1-11FF1 1CF50-1CFC3 1D1E9-1D1EA "
    "1E14F 1ED2E 1F10D-1F10F 1F16C-1F16F 1F1AD 1F6D5-1F6D7 1F6DD-1F6DF 1F6FA-1F6FC 1F7E0-1F7EB 1F7F0 1F8B0-1F8B1 "
    "1F90C-1F90F 1F93F 1F971-1F972 1F977-1F979 1F97B 1F9A3-1F9AF 1F9BA-1F9BF 1F9C3-1F9CF 1FA00-1FA53 1FA70-1FFFF"
)
_PUNCTUATION = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉\u2329\u232a⟦⟧"
_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
_UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa "
    "mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч "
    "кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ كم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ غرام جرام جم كغ ملغ كوب "
    "اكواب US$ C$ A$"
)
_IN_RULES = "+-*^.,:<>=/~–—"  # of affixes and infixes, beside those above

# To datatrove.
_MARKS = (
    "0-8 B-1F 21-2F 3A-40 5B-60 7B-9F AB B4 BB 2013-2014 2019 201C-201E 2026 2236 2501 25BA 3001-3002 3008-300D "
    "3010-3011 FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E"
)
_TERMINALS = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 "
    "17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 2E2E "
    "2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 "
    "FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 "
    "111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 "
    "11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F "
    "1DA88"
)
_TERMINALS_WITHIN_SENTENCES = (  # these spaCy's sentencizer does not know
    "61D-61E 837 839 83D-83E 17D4-17D6 17D9-17DA 1B7D-1B7E 2E53-2E54 10F55-10F59 10F86-10F89 11944 11946 11EF7-11EF8 "
    "11F43-11F44 16E98"
)

# Ours, in texts of unspaced scripts.
_JOINERS = ".,'’_"
_BULLETS = "•-*·●◆■"
_OUR_TERMINALS = ".!?…。！？．｡﹒﹗﹖；‼⁇⁈⁉؟۔।॥։።፧။།"
_CLOSERS = "\"'”’»›)]}」』）】》〉〕｝］"
_OUR_QUOTES = "\"'”’」』"
_WIDE_ENDS = "。！？｡．…"


@functools.cache
def class_table() -> Bits:
    """(LAST_CODE + 1,) bits of each code point. About 40 ms."""
    categories = np.array([unicodedata.category(chr(code)) for code in range(_NUM_CODES)], dtype="U2")
    table = np.zeros(_NUM_CODES, np.uint32)

    def put(bit: int, codes: Iterable[int] | npt.NDArray[np.bool_]) -> None:
        where = codes if isinstance(codes, np.ndarray) else np.array([c for c in codes if c < _NUM_CODES], np.int64)
        table[where] |= np.uint32(bit)

    def has(bit: int) -> npt.NDArray[np.bool_]:
        return (table & np.uint32(bit)) != 0

    def of(*names: str) -> npt.NDArray[np.bool_]:
        return np.isin(categories, names)

    put(k.SPACE, (code for code in range(0x3001) if chr(code).isspace()))
    put(k.BREAK, map(ord, "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))
    put(k.DIGIT, range(0x30, 0x3A))
    put(k.ALPHA, _codes(_CASED))
    put(k.LOWER, has(k.ALPHA) & of("Ll"))
    put(k.UPPER, has(k.ALPHA) & of("Lu"))
    put(k.LOWER, _codes(_LOWER_WITHOUT_CATEGORY))
    put(k.ALPHA | k.LOWER | k.UPPER, _codes(_UNCASED))
    put(k.ICON, of("So"))
    table[list(_codes(_SYMBOLS_TOO_YOUNG))] &= np.uint32(~k.ICON & 0xFFFFFFFF)
    put(k.PREFIX | k.SUFFIX, has(k.ICON))
    put(k.ICON, map(ord, "…"))
    put(k.PREFIX | k.SUFFIX, map(ord, f"{_PUNCTUATION}{_QUOTES}—–"))
    put(k.PREFIX, map(ord, f"§%={_CURRENCY}"))
    put(k.QUOTE, map(ord, _QUOTES))
    put(k.STOPPABLE, has(k.DIGIT) | has(k.LOWER))
    put(k.STOPPABLE, map(ord, f"%²-+|{_PUNCTUATION}{_QUOTES}"))
    put(k.LABEL, [*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B), *range(0xA1, 0x10000), *map(ord, "_-")])
    put(k.PLAIN, ~has(k.PREFIX | k.SUFFIX | k.ICON | k.DIGIT))
    table[[ord(char) for char in _IN_RULES]] &= np.uint32(~k.PLAIN & 0xFFFFFFFF)
    put(k.MARK, (*_codes(_MARKS), *_codes(_TERMINALS)))
    put(k.LETTER, of("Lu", "Ll", "Lt", "Lm", "Lo"))
    put(k.PUNCTUATION, of("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"))
    put(k.TERMINAL, _codes(_TERMINALS))
    put(k.SENTENCE_END, set(_codes(_TERMINALS)).difference(_codes(_TERMINALS_WITHIN_SENTENCES)))
    put(k.BLANK, has(k.SPACE) | of("Cc"))
    put(k.JOINER, map(ord, _JOINERS))
    is_mark = has(k.PUNCTUATION) | of("Sm", "Sc", "Sk", "So")
    put(k.WORD, ~(has(k.BLANK | k.JOINER) | is_mark))
    is_unspaced = np.zeros(_NUM_CODES, np.bool_)
    for start, end in UNSPACED_RANGES:
        is_unspaced[start:end] = True
    put(k.CHARACTER, has(k.WORD) & is_unspaced)
    table[is_unspaced] &= np.uint32(~k.WORD & 0xFFFFFFFF)
    for bit, chars in (
        (k.BULLET, _BULLETS),
        (k.OUR_TERMINAL, _OUR_TERMINALS),
        (k.CLOSER, _CLOSERS),
        (k.OUR_QUOTE, _OUR_QUOTES),
        (k.WIDE_END, _WIDE_ENDS),
    ):
        put(bit, map(ord, chars))
    return table


def currencies_and_units() -> tuple[str, ...]:
    """What is cut off behind a digit."""
    return (*_UNITS.split(), *_CURRENCY)


def _codes(ranges: str) -> Iterator[int]:
    for piece in ranges.split():
        first, _, last = piece.partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)
