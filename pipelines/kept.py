"""What this machine keeps of things that are slow to make and always come out the same: machine code, tables.

A worker lives for seconds, and to make its tables anew would be half of them. Each file is named after the digest of all
that it is made from, so none is ever stale, and begins with the digest of the rest, so none that was cut off is used.
Files are kept in `__pycache__` beside this module, or where that cannot be written in the user's cache folder;
$NUMBA_CACHE_DIR goes before both. Where no folder can be written each process makes them for itself.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_FOLDER = Path(__file__).parent
_NUM_DIGEST_BYTES = 32
_NUM_KEY_CHARS = 32
_ALIGNMENT = 64


def kept_arrays(
    name: str,
    make: Callable[[], Mapping[str, Array]],
    *,
    modules: Sequence[str],
    files: Sequence[Path] = (),
    libraries: Sequence[str] = (),
) -> Mapping[str, Array]:
    """The arrays that `make` gives, by name, made once a machine; they are only to be read.

    `modules` are all of `pipelines` whose code decides what is in them, `files` the data they are made of, `libraries`
    those that are asked beside numpy. The version of Python, and with it that of its Unicode data, always counts.
    """
    sources = [_FOLDER.joinpath(*module.split(".")[1:]).with_suffix(".py") for module in modules]
    file_name = f"{name}-{key_of((*sources, *files), ('numpy', *libraries))}.arrays"
    content = kept(file_name)
    if content is not None:
        return _unpacked(content)
    arrays = make()
    keep(file_name, _packed(arrays))
    return arrays


def key_of(files: Sequence[Path], libraries: Sequence[str], *more: str) -> str:
    """32 hex characters that name what was made by these sources and libraries, on this Python."""
    digest = hashlib.sha256()
    for file in (*files, Path(__file__)):
        content = file.read_bytes()
        digest.update(f"{len(content)}\n".encode() + content)
    versions = [f"{name} {_version(name)}" for name in libraries]
    digest.update("\n".join((*versions, sys.version, *more)).encode())
    return digest.hexdigest()[:_NUM_KEY_CHARS]


@functools.cache  # every search for it lists the folders of all packages
def _version(library: str) -> str:
    return importlib.metadata.version(library)


def kept(name: str) -> bytes | None:
    """What was kept under a name, None where nothing whole is."""
    for folder in _folders():
        try:
            content = (folder / name).read_bytes()
        except OSError:
            continue
        rest = content[_NUM_DIGEST_BYTES:]
        if hashlib.sha256(rest).digest() == content[:_NUM_DIGEST_BYTES]:
            return rest
    return None


def keep(name: str, content: bytes) -> None:
    """Keep it in the first folder that can be written, if one can."""
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", delete=False) as file:
                file.write(hashlib.sha256(content).digest() + content)
            Path(file.name).replace(folder / name)
        except OSError:  # read-only, or full
            continue
        return


def _folders() -> Iterator[Path]:
    if folder := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(folder)
    yield _FOLDER / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        yield (Path(home) if home else Path.home() / ".cache") / "corpusmill"
    except RuntimeError:  # nobody's home
        return


def _packed(arrays: Mapping[str, Array]) -> bytes:
    """A line of JSON that says what follows, then the arrays' bytes, each from a multiple of 64."""
    head = json.dumps([(name, array.dtype.str, array.shape) for name, array in arrays.items()]).encode() + b"\n"
    return b"".join(map(_padded, (head, *(array.tobytes() for array in arrays.values()))))


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _ALIGNMENT)


def _unpacked(content: bytes) -> dict[str, Array]:
    end = content.index(b"\n") + 1
    arrays, at = dict[str, Array](), end + -end % _ALIGNMENT
    for name, kind, shape in json.loads(content[:end]):
        array = np.frombuffer(content, kind, int(np.prod(shape, dtype=np.int64)), at).reshape(shape)
        arrays[name] = array
        at += array.nbytes + -array.nbytes % _ALIGNMENT
    return arrays
