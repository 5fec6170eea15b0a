"""Kept machine code: its key is of all that shapes it, and no worker imports numba for it."""

import subprocess
import sys
from pathlib import Path

from pipelines import machine_code
from pipelines.signals.loops import SIGNATURES, kernels


def test_object_files_are_joined_and_split() -> None:
    objects = [b"\x7fELF one", b"", b"two" * 1000]
    assert machine_code._split(machine_code._joined(objects)) == objects


def test_the_key_is_of_the_sources_and_of_the_processor() -> None:
    files = (Path(machine_code.__file__),)
    keys = [
        machine_code._key(files, {"f": "i8"}, *host)
        for host in (("a", "+avx2"), ("b", "+avx2"), ("a", ""), ("a", "+avx2"))
    ]
    assert len(set(keys)) == 3
    assert keys[0] == keys[3] != machine_code._key(files, {"f": "i8 i8"}, "a", "+avx2")


def test_every_function_is_loaded_and_the_worker_imports_no_numba() -> None:
    assert set(kernels().__slots__) == set(SIGNATURES)  # now they are kept, if they can be
    code = (
        "import sys; from pipelines.signals.words import split_words; "
        "assert split_words('It is.').num_words == 3; print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
