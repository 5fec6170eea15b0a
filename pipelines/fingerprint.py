"""Fingerprint of the code that a stage runs: a changed helper can never serve a stale result.

The digest covers the syntax trees of a module and of every first-party module that it imports,
directly or not, without comments, docstrings and positions. Editing a comment changes nothing;
editing a helper three imports away changes the key.
"""

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from pipelines.errors import ConfigError

FIRST_PARTY = ("pipelines", "llm")


def code_fingerprint(modules: Iterable[str]) -> str:
    """Digest of the named modules and their first-party import closure: 64 hex characters.

    The minor version of Python enters, since syntax trees differ between minors.
    """
    sha256 = hashlib.sha256(f"python{sys.version_info.major}.{sys.version_info.minor}".encode())
    for name in sorted(import_closure(modules)):
        sha256.update(f"\n{name}={_module_digest(name)}".encode())
    return sha256.hexdigest()


def import_closure(modules: Iterable[str]) -> frozenset[str]:
    """Names of the given modules and of all first-party modules they import, directly or not."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_first_party_imports(name))
    return frozenset(seen)


def _source_path(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ConfigError(f"got module {name!r} in a stage's imports, wanted one with a source file: check the import.")
    return Path(spec.origin)


@functools.cache
def _tree(name: str) -> ast.Module:
    """A module's syntax tree without docstrings."""
    tree = ast.parse(_source_path(name).read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A bare string is a docstring, of a module, function or field: it has no effect.
            node.body = [item for item in body if not _is_bare_string(item)]  # type: ignore[attr-defined]
    return tree


@functools.cache
def _module_digest(name: str) -> str:
    return hashlib.sha256(ast.dump(_tree(name)).encode()).hexdigest()


def _is_bare_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _first_party_imports(name: str) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level > 0:
            raise ConfigError(f"got a relative import in {name}, wanted an absolute one: its closure must be readable.")
    return frozenset(module for module in found if module.split(".")[0] in FIRST_PARTY and _is_module(module))


def _is_module(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None
