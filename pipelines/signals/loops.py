"""The compiled loops over the characters of a text: kernels.py, as machine code."""

import functools
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pipelines.machine_code import Function, load

SIGNATURES = {
    "split_spaced": "u4* i8 u4* u4* u8* i8 i8* u8* i8 u8* i8 u8* i8 u8* u4* u8* i8* i8* u8* u1* i8*",
    "split_unspaced": "u4* i8 u4* u4* u8* i8* i8* u8* u1*",
    "is_unspaced": "u4* i8 u4*",
    "count_words": "i8* i8* u8* u1* i8 u8* i8 i8 i8*",
    "n_gram_chars": "i8* i8* u8* u1* i8 i8 i8 u8* i4* i4* i4* u8* i8*",
    "count_lines": "u4* u4* u8* u8* i8 i8 i8 i8 u8* u8* u8* i8*",
    "sentences_spaced": "u4* u4* i8 i8* i8* u1* i8 u1* i8 i8 i8*",
    "sentences_unspaced": "u4* u4* i8 u1* i8 i8*",
    "fold_and_sign": "u4* i8 u4* u4* i8 u1* i8 u8* u4* u4* u4* u4* i8",
    "shingle_hashes": "u4* i8 u4* u8* u8*",
    "fold_text": "u4* i8 u4* u4* u4* i8",
    "without_dots": "u4* i8 u1* i8",
    "language_scores": "u1* i8 u8* i8 i4* u8* i8 i4* i8 i8 i8 i8 i8 i8 u1* u1* f4* f4* f4* i4* f4* f4* f4*",
    "count_scripts": "u4* i8 u1* i8 i8* i8",
    "scripts_of_lines": "u4* i8 u1* i8 i8* i8 u1* i8* i8* i8*",
}
"""See machine_code.Signatures."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """The loaded functions: see kernels.py. A pointer is given as an address, or as bytes that are only read."""

    split_spaced: Function
    split_unspaced: Function
    is_unspaced: Function
    count_words: Function
    n_gram_chars: Function
    count_lines: Function
    sentences_spaced: Function
    sentences_unspaced: Function
    fold_and_sign: Function
    shingle_hashes: Function
    fold_text: Function
    without_dots: Function
    language_scores: Function
    count_scripts: Function
    scripts_of_lines: Function


@functools.cache
def kernels() -> Kernels:
    """Loaded once a process."""
    folder = Path(__file__).parent
    return Kernels(**load(_source, (folder / "kernels.py", folder / "bits.py"), SIGNATURES))


def _source() -> ModuleType:
    from pipelines.signals import kernels as source

    return source
