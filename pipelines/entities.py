"""The stage entities: DOCUMENT -> ENTITIES, where a recipe names a model (`pii.entity_model`).

It stands right after extract and reads nothing but the text, so a model runs once over a document, whatever thresholds,
lists and kinds change later; signals counts what it found, sample, tokenize and the export redact it. The price is that it
reads documents that the policy will drop, too: else a changed threshold would ask it again, and no rule could count names.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from pipelines.errors import ConfigError
from pipelines.pii.entities import ENTITY_KINDS
from pipelines.pii.entity_model import EntityModel, entity_type, expect_runtime, labels_of
from pipelines.schemas import DOCUMENT, ENTITIES, select
from pipelines.stage import Resource, Stage

DEFAULT_ENTITY_KINDS = {"PER": "person", "PERSON": "person", "NAME": "person", "ADDRESS": "address"}
"""What the usual labels are redacted as. A place or an organisation is nobody: their labels are left alone unless mapped."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model's folder."""

    name: str
    """Its path within the folder."""
    file: Resource


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityConfig:
    """A model and what its labels mean."""

    files: tuple[ModelFile, ...]
    """Every file of its folder, by name."""
    kinds: tuple[tuple[str, str], ...]
    """Type of entity, as the model's labels name it, and kind of finding (pipelines.pii.ENTITY_KINDS); sorted."""
    min_score: float = 0.5
    """Mean probability of an entity's words below which it is left alone. Half: a missed name costs more than a word."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"pii.entity_min_score: got {self.min_score}, wanted a probability, 0 to 1: correct it.")
        for label, kind in self.kinds:
            if kind not in ENTITY_KINDS:
                raise ConfigError(
                    f"pii.entity_kinds: got {kind!r} for {label!r}, wanted one of {', '.join(ENTITY_KINDS)}: correct it."
                )

    @property
    def folder(self) -> Path:
        """Where the model lies."""
        first = self.files[0]
        return Path(first.file.path).parents[first.name.count("/")]


def checked_kinds(folder: Path, given: dict[str, str] | None) -> tuple[tuple[str, str], ...]:
    """The mapping of a model's types of entities, checked against its labels; None takes the usual ones it has.

    Raises ConfigError for a folder without a model, a type that it does not know, or none that it does.
    """
    expect_runtime()
    types = {kind for _, kind in map(entity_type, labels_of(folder)) if kind}
    wanted = {label: kind for label, kind in DEFAULT_ENTITY_KINDS.items() if label in types} if given is None else given
    unknown = sorted(set(wanted) - types)
    if unknown or not wanted:
        got = ", ".join(unknown) if unknown else "no label that is known to be personal"
        raise ConfigError(
            f"pii.entity_kinds: got {got}, wanted some of the model's types ({', '.join(sorted(types))}): correct it."
        )
    return tuple(sorted(wanted.items()))


def find_entities(batches: Iterable[pa.RecordBatch], config: EntityConfig) -> Iterator[pa.RecordBatch]:
    """DOCUMENT -> ENTITIES, one row for each row, in order: what the model takes for personal, sorted, disjoint."""
    model = _model(config)
    for batch in batches:
        rows = [
            [{"kind": found.kind, "start": found.start, "end": found.end} for found in model.find(text)]
            for text in batch.column("text").to_pylist()
        ]
        yield pa.RecordBatch.from_arrays(
            [batch.column("doc_id"), pa.array(rows, ENTITIES.field("entities").type)], schema=ENTITIES
        )


@functools.lru_cache(maxsize=1)
def _model(config: EntityConfig) -> EntityModel:
    """Loading takes a second or more, so it is kept from shard to shard."""
    return EntityModel(config.folder, dict(config.kinds), config.min_score)


ENTITIES_STAGE = Stage(
    name="entities",
    version=1,
    inputs=(select(DOCUMENT, "doc_id", "text"),),
    output=ENTITIES,
    transform=find_entities,
    is_row_wise=True,
    libraries=("ahocorasick_rs", "numpy", "onnxruntime", "tokenizers"),
)


def with_entities(stage: Stage) -> Stage:
    """A stage that also reads what the model found, as its last input."""
    return replace(stage, inputs=(*stage.inputs, ENTITIES))
