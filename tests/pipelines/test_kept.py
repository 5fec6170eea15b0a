"""Kept files: what was written is read, what is torn is not, and nothing made of other sources is."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import fingerprint, kept

CONTENT = b"\x7fELF one" + b"two" * 1000
LOADERS = {"kept", "machine_code", "signals.loops", "extract.loops"}
"""Modules that only bring what others made: they decide no value."""
MADE = {
    "extract.normalize": "_classes",
    "pii.domains": "top_level_domains",
    "public_suffixes": "_rules",
    "signals.arbiter": "_arbiter",
    "signals.folding": "_arrays",
    "signals.language": "_script_table",
    "signals.lid": "_model",
    "signals.minhash": "_tables",
    "signals.words": "_rules",
}
"""Who keeps arrays, and what asks for them."""
ASKED = {"public_suffixes": {"below_platforms": False}}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found = [tmp_path / "file" / "below", tmp_path / "cache" / "corpusmill"]
    (tmp_path / "file").write_bytes(b"no folder")
    monkeypatch.setattr(kept, "_folders", lambda: iter(found))
    return found


def test_what_was_kept_is_read_from_the_first_folder_that_takes_it(folders: list[Path]) -> None:
    assert kept.kept("a.o") is None
    kept.keep("a.o", CONTENT)
    assert kept.kept("a.o") == CONTENT
    assert [path.name for path in folders[1].iterdir()] == ["a.o"]


@pytest.mark.parametrize("size", [0, 16, 32, 40, 3000])
def test_a_file_that_is_cut_off_or_changed_is_not_used(folders: list[Path], size: int) -> None:
    kept.keep("a.o", CONTENT)
    path = folders[1] / "a.o"
    path.write_bytes(path.read_bytes()[:size])
    assert kept.kept("a.o") is None


def test_without_a_folder_nothing_is_kept_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_folders", lambda: iter(()))
    kept.keep("a.o", CONTENT)
    assert kept.kept("a.o") is None


def test_arrays_are_made_once_and_are_the_same(folders: list[Path]) -> None:
    arrays: dict[str, Any] = {
        "none": np.zeros(0, np.float32),
        "bytes": np.arange(100, dtype=np.uint8),
        "wide": np.arange(12, dtype=np.int64).reshape(3, 4),
        "flags": np.array([True, False]),
    }
    num_made = 0

    def make() -> dict[str, Any]:
        nonlocal num_made
        num_made += 1
        return arrays

    for _ in range(3):
        found = kept.kept_arrays("toy", make, modules=("pipelines.kept",))
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert (found[name] == array).all()
            assert found[name].ctypes.data % array.itemsize == 0
    assert num_made == 1
    kept.kept_arrays("toy", make, modules=("pipelines.kept", "pipelines.errors"))
    assert num_made == 2


def test_the_key_is_of_the_sources_the_libraries_and_the_rest(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"one")
    other.write_bytes(b"other")
    keys = {
        kept.key_of((one,), ("numpy",)),
        kept.key_of((other,), ("numpy",)),
        kept.key_of((one, other), ("numpy",)),
        kept.key_of((one,), ("numpy", "pyarrow")),
        kept.key_of((one,), ("numpy",), "more"),
    }
    assert len(keys) == 5


@pytest.mark.parametrize("module", MADE)
def test_kept_arrays_name_every_module_they_rest_on(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a helper could change and a table stay."""
    asked: list[str] = []

    def note(name: str, make: Any, *, modules: Any, files: Any = (), libraries: Any = ()) -> Any:
        asked.extend(modules)
        return kept.kept_arrays(name, make, modules=modules, files=files, libraries=libraries)

    maker = importlib.import_module(f"pipelines.{module}")
    monkeypatch.setattr(maker, "kept_arrays", note)
    getattr(maker, MADE[module]).__wrapped__(**ASKED.get(module, {}))
    packages = {f"pipelines.{name}" for name in ("", "signals", "extract", "pii")} | {"pipelines"}
    needed = fingerprint.import_closure([f"pipelines.{module}"]) - packages - {f"pipelines.{one}" for one in LOADERS}
    needed -= {f"pipelines.{package}.kernels" for package in ("signals", "extract")}
    assert needed <= set(asked)


def test_every_module_that_keeps_arrays_is_looked_at() -> None:
    folder = Path(kept.__file__).parent
    using = {
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in folder.rglob("*.py")
        if "import Array, kept_arrays" in path.read_text() or "import kept_arrays" in path.read_text()
    }
    assert using == MADE.keys()
