"""Kept machine code: what was written is read, what is torn is not, and no worker imports numba for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import machine_code
from pipelines.signals.loops import SIGNATURES, kernels

OBJECTS = [b"\x7fELF one", b"", b"two" * 1000]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found = [tmp_path / "file" / "below", tmp_path / "cache" / "corpusmill"]
    (tmp_path / "file").write_bytes(b"no folder")
    monkeypatch.setattr(machine_code, "_folders", lambda: iter(found))
    return found


def test_what_was_kept_is_read_from_the_first_folder_that_takes_it(folders: list[Path]) -> None:
    assert machine_code._kept("kernels.o") is None
    machine_code._keep("kernels.o", OBJECTS)
    assert machine_code._kept("kernels.o") == OBJECTS
    assert [path.name for path in folders[1].iterdir()] == ["kernels.o"]


@pytest.mark.parametrize("size", [0, 16, 32, 40, 3000])
def test_a_file_that_is_cut_off_or_changed_is_not_used(folders: list[Path], size: int) -> None:
    machine_code._keep("kernels.o", OBJECTS)
    path = folders[1] / "kernels.o"
    path.write_bytes(path.read_bytes()[:size])
    assert machine_code._kept("kernels.o") is None


def test_without_a_folder_nothing_is_kept_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "_folders", lambda: iter(()))
    machine_code._keep("kernels.o", OBJECTS)
    assert machine_code._kept("kernels.o") is None


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
