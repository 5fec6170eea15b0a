"""Published sets on bias as a recipe names them: local files, found and digested, read and measured.

BiasSets           what a recipe says under evaluation.bias_sets
DeclaredBiasSet    one of them with its files digested: a value that an evaluation's key is of
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.evaluation.bias_files import BBQ_SUFFIX, read_bbq, read_crows_pairs, read_winobias, winobias_files
from pipelines.digest import EXECUTION_ONLY, digest_file, digest_value
from pipelines.errors import ConfigError, InputError, IntegrityError

if TYPE_CHECKING:
    from llm.evaluation.bias import Pair, Question
    from llm.evaluation.likelihood import Speaker
    from llm.evaluation.suite import SuiteResult


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasSets:
    """Where the sets lie, relative to the recipe; null: not measured. See flows.evaluation.bias_files for the formats."""

    crows_pairs: str | None = None
    """A CSV file."""
    winobias: str | None = None
    """A folder of eight text files."""
    bbq: str | None = None
    """A JSON Lines file, or a folder of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredBiasSet:
    """A set with its files digested."""

    name: str
    digest: str
    path: Path = field(metadata=EXECUTION_ONLY)


def declared_bias_sets(section: BiasSets, base: Path) -> tuple[DeclaredBiasSet, ...]:
    """Find and digest the files below `base`. Raises ConfigError that names the field of one that is missing."""
    found = []
    for name in (item.name for item in fields(section)):
        given = getattr(section, name)
        if given is not None:
            path = base / given
            found.append(DeclaredBiasSet(name=name, digest=_digest(name, path), path=path))
    return tuple(found)


def check_bias_set(declared: DeclaredBiasSet) -> None:
    """Raise ConfigError that names field, file and line where a set cannot be read."""
    try:
        _read(declared)
    except InputError as error:
        raise ConfigError(f"evaluation.bias_sets.{declared.name}: {error}") from error


def measure_bias_set(
    speaker: "Speaker", declared: DeclaredBiasSet, progress: Callable[[int, int], None]
) -> "SuiteResult":
    """What a model prefers or answers on a set. Raises IntegrityError for files that changed since they were declared."""
    from llm.evaluation.bias import pair_preference, question_bias

    if _digest(declared.name, declared.path) != declared.digest:
        raise IntegrityError(
            f"got {declared.path}, which changed since the set {declared.name} was declared, wanted it untouched: run again."
        )
    items = _read(declared)
    how = {"dataset_digest": declared.digest, "progress": progress}
    if declared.name == "bbq":
        return question_bias(speaker.model, items, speaker.encode, speaker.eot_token, **how)  # type: ignore[arg-type]
    return pair_preference(speaker.model, items, speaker.encode, speaker.eot_token, name=declared.name, **how)  # type: ignore[arg-type]


def _read(declared: DeclaredBiasSet) -> "Sequence[Pair | Question]":
    if declared.name == "crows_pairs":
        return read_crows_pairs(declared.path).items
    if declared.name == "winobias":
        return read_winobias(declared.path).items
    if not declared.path.is_dir():
        return read_bbq(declared.path).items
    # Files of a category each count their questions from 0.
    return [
        replace(item, id=f"{path.stem}/{item.id}")
        for path in _files("bbq", declared.path)
        for item in read_bbq(path).items
    ]


def _digest(name: str, path: Path) -> str:
    return digest_value({file.name: digest_file(file) for file in _files(name, path)})


def _files(name: str, path: Path) -> list[Path]:
    """The files of a set. Raises ConfigError for one that is missing."""
    if name == "winobias":
        files = winobias_files(path)
    elif name == "bbq" and path.is_dir():
        files = sorted(path.glob(f"*{BBQ_SUFFIX}"))
    else:
        files = [path]
    missing = [file for file in files if not file.is_file()] if files else [path / f"*{BBQ_SUFFIX}"]
    if missing:
        raise ConfigError(f"evaluation.bias_sets.{name}: got {missing[0]}, wanted a file: check the path.")
    return files
