"""The compiled loop over texts that may be near-duplicates: kernels.py, as machine code."""

import functools
from pathlib import Path
from types import ModuleType

from pipelines.machine_code import Function, load

SIGNATURES = {
    "walk": "i8 i8* i8* i8* i8* i8* i8 i8* u4* i8 i8 f4* i8* f4* i8 i8 i8* i8* f4* i8* i8* i8",
}
"""See machine_code.Signatures."""


@functools.cache
def walk() -> Function:
    """Loaded once a process: see kernels.walk."""
    return load(_source, (Path(__file__).parent / "kernels.py",), SIGNATURES)["walk"]


def _source() -> ModuleType:
    from pipelines.dedup import kernels as source

    return source
