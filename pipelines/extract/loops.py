"""The compiled loops over the source and the text of a page: kernels.py, as machine code."""

import functools
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pipelines.machine_code import Function, load

SIGNATURES = {
    "survey": "u1* i8 i8*",
    "scan": "u1* i8 u8* i8* i8* i8* i8 i8* i8* i8* u8* u8* i4* i8* i8 i8 u8* i4* i8 i8",
    "apply_edits": "u1* i8 i8* i8 u1* u1* i8 i8 u1*",
    "measure_lines": "u1* i8 u1* i8* i8* i8 i8*",
}
"""See machine_code.Signatures."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """The loaded functions: see kernels.py. A pointer is given as an address, or as bytes that are only read."""

    survey: Function
    scan: Function
    apply_edits: Function
    measure_lines: Function


@functools.cache
def kernels() -> Kernels:
    """Loaded once a process."""
    folder = Path(__file__).parent
    return Kernels(**load(_source, (folder / "kernels.py", folder / "tags.py"), SIGNATURES))


def _source() -> ModuleType:
    from pipelines.extract import kernels as source

    return source
