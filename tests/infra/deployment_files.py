"""The files of infra/ as data: YAML read strictly, Compose's variables filled in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).parents[2] / "infra"
COMPOSE = INFRA / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def read_yaml(text: str) -> list[Any]:
    """The documents of a YAML text. Raises ValueError for a key that stands twice, of which PyYAML takes the last."""
    for root in yaml.compose_all(text, yaml.SafeLoader):
        _refuse_repeats(root)
    return [document for document in yaml.safe_load_all(text) if document is not None]


def _refuse_repeats(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for key, (key_node, value) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                raise ValueError(f"got the key {key!r} twice{key_node.start_mark}")
            _refuse_repeats(value)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _refuse_repeats(each)


def filled(value: Any, variables: Mapping[str, str]) -> Any:
    """A value with `${NAME:-default}` filled in everywhere, as Compose does it."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: variables.get(found[1]) or found[2] or "", value)
    if isinstance(value, list):
        return [filled(each, variables) for each in value]
    if isinstance(value, dict):
        return {key: filled(each, variables) for key, each in value.items()}
    return value


def compose(**variables: str) -> dict[str, Any]:
    """infra/compose.yaml with its variables filled in."""
    (document,) = read_yaml(COMPOSE.read_text(encoding="utf-8"))
    return filled(document, variables)


def manifests() -> list[dict[str, Any]]:
    """Every object of infra/kubernetes, the kustomizations aside."""
    paths = [
        path
        for path in sorted(INFRA.glob("kubernetes/*/*.yaml"))
        if path.name not in ("kustomization.yaml", "recipe.yaml")
    ]
    return [document for path in paths for document in read_yaml(path.read_text(encoding="utf-8"))]


def secret_pairs(environment: Mapping[str, str]) -> dict[str, str]:
    """What an entrypoint is told to read: variable to file."""
    return dict(pair.split("=", 1) for pair in environment.get("CORPUSMILL_SECRETS", "").split())
