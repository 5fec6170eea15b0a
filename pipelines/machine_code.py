"""Functions as machine code: compiled by numba once a machine, loaded by llvmlite ever after.

numba's own cache would do, but to read from it a process must import numba and set it up, a second of CPU time; a
worker that lives for three seconds cannot pay that. So its optimised code is taken from it, compiled into object files
and kept; llvmlite, numba's library below it, loads them in a tenth of a second and no numba is imported.

Object files are kept (kept.py) by the digest of the sources, of the versions of numba, llvmlite and Python, and of the
processor's name and features. Where no folder can be written each process compiles for itself: about ten seconds.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.kept import keep, kept, key_of

Function = Callable[..., int]

Signatures = Mapping[str, str]
"""Arguments of each function that is compiled: numbers by their bytes, u without sign, f with a point, `*` a pointer to such. All return i8."""

_OPTIMISATION = 3


def load(source: Callable[[], ModuleType], files: Sequence[Path], signatures: Signatures) -> dict[str, Function]:
    """The functions of a module as machine code; compiled where no cache has them.

    `source` imports the module, which is done only to compile it; `files` are its source and what it is made of beside.
    A pointer is given as an address, or as bytes that are only read.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=_OPTIMISATION, jit=True, codemodel="jitdefault"
    )
    name = f"{files[0].stem}-{_key(files, signatures, cpu, features)}.o"
    content = kept(name)
    if content is None:
        content = _joined(_compiled(machine, source(), signatures))
        keep(name, content)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    for code in _split(content):
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return {field: _function(engine, field, arguments) for field, arguments in signatures.items()}


def _function(engine: Any, name: str, signature: str) -> Function:
    arguments = [ctypes.c_int64 if kind == "i8" else ctypes.c_void_p for kind in signature.split()]
    # as numba calls it: where the result goes, where an exception would go, the arguments; the status is always 0
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *arguments)
    native, c_int64, byref = prototype(engine.get_function_address(_symbol(name))), ctypes.c_int64, ctypes.byref

    def call(*values: object, _engine: Any = engine) -> int:  # the code lives as long as its engine
        result = c_int64()
        native(byref(result), None, *values)
        return result.value

    return call


def _symbol(name: str) -> str:
    return f"corpusmill_{name}"


def _key(files: Sequence[Path], signatures: Signatures, cpu: str, features: str) -> str:
    libraries = ("numba", "llvmlite", "numpy")
    return key_of((*files, Path(__file__)), libraries, repr(sorted(signatures.items())), cpu, features)


def _compiled(machine: Any, source: ModuleType, signatures: Signatures) -> list[bytes]:
    """An object file for each function, by numba."""
    import llvmlite.binding as llvm
    from numba import njit, types

    kinds = {
        "u1": types.uint8,
        "u4": types.uint32,
        "u8": types.uint64,
        "i4": types.int32,
        "i8": types.int64,
        "f4": types.float32,
    }
    objects = []
    for name, arguments in signatures.items():
        given = [types.CPointer(kinds[kind[:2]]) if kind.endswith("*") else kinds[kind] for kind in arguments.split()]
        compiler = njit(types.int64(*given), no_cpython_wrapper=True, no_cfunc_wrapper=True)
        function = compiler(getattr(source, name))
        (result,) = function.overloads.values()
        code = str(result.library.get_llvm_str())
        module = llvm.parse_assembly(code.replace(result.fndesc.llvm_func_name, _symbol(name)))
        foreign = [one.name for one in module.functions if one.is_declaration and not one.name.startswith("llvm.")]
        if foreign:
            raise RuntimeError(
                f"got {name} that calls {foreign[0]}, wanted a loop on its own: allocate and raise nothing."
            )
        objects.append(machine.emit_object(module))
    return objects


def _split(content: bytes) -> list[bytes]:
    objects, start = [], 0
    while start < len(content):
        size = int.from_bytes(content[start : start + 8], "little")
        objects.append(content[start + 8 : start + 8 + size])
        start += 8 + size
    return objects


def _joined(objects: Sequence[bytes]) -> bytes:
    return b"".join(len(code).to_bytes(8, "little") + code for code in objects)
