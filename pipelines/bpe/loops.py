"""The compiled loop that learns merges: kernels.py, as machine code."""

import functools
from pathlib import Path
from types import ModuleType

from pipelines.machine_code import Function, load

SIGNATURES = {
    "learn_merges": ("u4* i8* i8* i8* i8 i8 i8 i8 u8* u8* u8* i8 i8* u8* i8* i8* i8 i4* i4* i8 i8* u8* u8* i8 i8*"),
}
"""See machine_code.Signatures."""


@functools.cache
def learn_merges() -> Function:
    """Loaded once a process: see kernels.learn_merges."""
    return load(_source, (Path(__file__).parent / "kernels.py",), SIGNATURES)["learn_merges"]


def _source() -> ModuleType:
    from pipelines.bpe import kernels as source

    return source
