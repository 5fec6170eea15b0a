"""The compiled loop over a text: kernels.py, as machine code, and the tables it reads."""

import functools
from pathlib import Path
from types import ModuleType

from pipelines.machine_code import Function, load
from pipelines.pii.classes import (
    DIGIT,
    EVENT,
    HEXADECIMAL,
    IN_RUN,
    IN_WORD,
    LETTER,
    MAX_WORD_NUM_CHARS,
    NUM_ASCII,
    SEPARATOR,
    STARTS_WORD,
    WORDS,
)

SIGNATURES = {"find_places": "u4* i8 u1* u1* u1* i8* i8* i8* i8*"}
"""See machine_code.Signatures."""

_SEPARATORS = " ()./\n-"
"""What may stand between the digits of a number."""
WORD_ROWS = b"".join(word.encode().ljust(MAX_WORD_NUM_CHARS, b"\0") for word in WORDS)
WORD_STARTS = bytes(
    sum(1 << number for number, word in enumerate(WORDS) if chr(code).lower() == word[0]) for code in range(NUM_ASCII)
)
"""Which of the words start with each ASCII character."""
CLASSES = bytes(
    DIGIT * char.isdecimal()
    | LETTER * (char.isalpha() or char == "_")
    | IN_WORD * (char.isalnum() or char == "_")
    | IN_RUN * (char.isalnum() or char in "_-")
    | SEPARATOR * (char in _SEPARATORS)
    | HEXADECIMAL * (char in "0123456789abcdefABCDEF")
    | STARTS_WORD * (WORD_STARTS[ord(char)] > 0)
    | EVENT * (char.isdecimal() or not (char.isalnum() or char in "_-") or WORD_STARTS[ord(char)] > 0)
    for char in map(chr, range(NUM_ASCII))
)
"""The kinds of each ASCII character."""


@functools.cache
def find_places() -> Function:
    """Loaded once a process."""
    folder = Path(__file__).parent
    return load(_source, (folder / "kernels.py", folder / "classes.py"), SIGNATURES)["find_places"]


def _source() -> ModuleType:
    from pipelines.pii import kernels as source

    return source
