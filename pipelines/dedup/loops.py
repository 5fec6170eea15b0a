"""The compiled loops of deduplication: kernels.py, as machine code."""

import functools
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pipelines.machine_code import Function, load

SIGNATURES = {
    "walk": "i8 i8* i8* i8* i8* i8* i8 i8* u4* i8 i8 f4* i8* f4* i8 i8 i8* i8* f4* i8* i8* i8",
    "hash_lines": "u1* i8* i8 u8* i8 i8* i4* u8* i4*",
}
"""See machine_code.Signatures."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """The loaded functions: see kernels.py."""

    walk: Function
    hash_lines: Function


@functools.cache
def kernels() -> Kernels:
    """Loaded once a process."""
    return Kernels(**load(_source, (Path(__file__).parent / "kernels.py",), SIGNATURES))


def _source() -> ModuleType:
    from pipelines.dedup import kernels as source

    return source
