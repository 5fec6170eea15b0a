"""Fingerprint of the code that a stage runs: a changed helper can never serve a stale result.

The digest covers the syntax trees of a module and of every first-party module that it imports,
directly or not, without comments, docstrings and positions. Editing a comment changes nothing;
editing a helper three imports away changes the key.

To parse a hundred modules takes a third of a second. So what was read of a source is kept (kept.py) by the digest of
its bytes, and only sources that nobody has read before are parsed.
"""

import ast
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ConfigError
from pipelines.kept import keep, kept, key_of

FIRST_PARTY = ("pipelines", "llm")


def code_fingerprint(modules: Iterable[str]) -> str:
    """Digest of the named modules and their first-party import closure: 64 hex characters.

    The minor version of Python enters, since syntax trees differ between minors.
    """
    sha256 = hashlib.sha256(f"python{sys.version_info.major}.{sys.version_info.minor}".encode())
    for name in sorted(import_closure(modules)):
        sha256.update(f"\n{name}={_read(name).digest}".encode())
    _keep_readings()
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


@dataclass(frozen=True, slots=True)
class _Reading:
    """What matters of a source."""

    digest: str
    """Of its syntax tree without docstrings."""
    imports: tuple[str, ...]
    """Names that are imported from modules by absolute names, and these modules."""
    has_relative_import: bool


@dataclass(slots=True)
class _Readings:
    """Those that are kept, by the digests of the sources, and whether more were made since."""

    by_source: dict[str, _Reading]
    has_more: bool = False


@functools.cache
def _readings() -> _Readings:
    content = kept(_readings_name())
    rows = json.loads(content) if content is not None else {}
    return _Readings({source: _Reading(row[0], tuple(row[1]), row[2]) for source, row in rows.items()})


@functools.cache
def _readings_name() -> str:
    return f"syntax-{key_of((Path(__file__),), ())}.json"


def _keep_readings() -> None:
    readings = _readings()
    if readings.has_more:
        rows = {
            source: [one.digest, one.imports, one.has_relative_import] for source, one in readings.by_source.items()
        }
        keep(_readings_name(), json.dumps(rows).encode())
        readings.has_more = False


@functools.cache
def _read(name: str) -> _Reading:
    """What a module's source says."""
    source = _source_path(name).read_bytes()
    readings, key = _readings(), hashlib.sha256(source).hexdigest()
    if key not in readings.by_source:
        readings.by_source[key] = _parsed(source)
        readings.has_more = True
    return readings.by_source[key]


def _parsed(source: bytes) -> _Reading:
    tree = ast.parse(source)
    imports: set[str] = set()
    has_relative_import = False
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A bare string is a docstring, of a module, function or field: it has no effect.
            node.body = [item for item in body if not _is_bare_string(item)]  # type: ignore[attr-defined]
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imports.add(node.module)
            imports.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level > 0:
            has_relative_import = True
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return _Reading(digest, tuple(sorted(imports)), has_relative_import)


def _is_bare_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _first_party_imports(name: str) -> frozenset[str]:
    reading = _read(name)
    if reading.has_relative_import:
        raise ConfigError(f"got a relative import in {name}, wanted an absolute one: its closure must be readable.")
    first_party = (module for module in reading.imports if module.split(".")[0] in FIRST_PARTY)
    return frozenset(filter(_is_module, first_party))


def _is_module(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None
