"""Models in MLflow's registry: registered behind gates as challengers, promoted to champions, marked by take-downs.

A version is the exported folder, an artifact of the evaluation that it was judged by. Its tags say which training, corpus
and code it comes from. Nothing is deleted: a model that a take-down touches is marked and cannot be promoted.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from flows.comparison import find_side, read_suites
from flows.gates import GateResult, RegistrySection, check_champion
from flows.settings import read_settings
from flows.workspace import Workspace
from pipelines.errors import ConfigError, InputError
from pipelines.markdown import table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
TAKEDOWN = "corpusmill.takedown"
_EVALUATION = "corpusmill.evaluation_run_id"
_TRAINING_KEY = "corpusmill.training_key"
_SUITES = "corpusmill.not_worse_than_champion"
_FOLDER = "model"


def register(
    client: "MlflowClient",
    section: RegistrySection,
    evaluation_run_id: str,
    folder: Path,
    gates: Sequence[GateResult],
    files: Sequence[Path] = (),
) -> dict[str, Any]:
    """Register an exported folder as a challenger where every gate is passed; the gates are noted either way.

    `files` go into the version beside it. A model that is registered already stays the version that it is.
    """
    passed = all(gate.is_passed for gate in gates)
    told = {"name": section.name, "passed": passed, "gates": [asdict(gate) for gate in gates], "version": None}
    client.set_tag(evaluation_run_id, "corpusmill.gates", "passed" if passed else "failed")
    with TemporaryDirectory() as scratch:
        markdown, values = Path(scratch, "gates.md"), Path(scratch, "gates.json")
        markdown.write_text("\n".join(["# Gates", "", *_gate_rows(told["gates"])]), encoding="utf-8")
        values.write_text(json.dumps(told["gates"], indent=1), encoding="utf-8")
        for path in (markdown, values):
            client.log_artifact(evaluation_run_id, str(path))
    if not passed:
        return told
    _ensure(client, section.name)
    known = client.search_model_versions(f"name = '{section.name}' AND run_id = '{evaluation_run_id}'")
    version = known[0] if known else _create(client, section, evaluation_run_id, folder, files)
    if not known:
        client.set_registered_model_alias(section.name, CHALLENGER, version.version)
    return told | {"version": str(version.version)}


def promote(
    workspace_path: Path | None, name: str, version: str | None, *, by: str, reason: str | None, force: bool
) -> dict[str, Any]:
    """Make a version, by default the challenger, the champion.

    Raises ConfigError where a gate is not passed and nobody forces it, InputError where there is no such version.
    """
    from flows.tracking import open_client

    settings = read_settings(workspace_path)
    client = open_client(settings, Workspace.of(settings))
    wanted = _version(client, name, version) if version else _alias(client, name, CHALLENGER)
    if wanted is None:
        raise InputError(
            f"got no version {version or CHALLENGER!r} of {name!r}, wanted one that is registered: see MLflow."
        )
    champion = _alias(client, name, CHAMPION)
    gates = _promotion_gates(client, wanted, champion)
    told = {
        "name": name,
        "version": str(wanted.version),
        "champion_before": None if champion is None else str(champion.version),
        "gates": [asdict(gate) for gate in gates],
        "forced": False,
    }
    if not all(gate.is_passed for gate in gates):
        failed = "; ".join(f"{gate.gate}: {gate.got}" for gate in gates if not gate.is_passed)
        if not force or not reason:
            raise ConfigError(
                f"got version {wanted.version} that does not pass ({failed}), wanted one that does: "
                "train another, or pass --force with --reason, which are kept."
            )
        told["forced"] = True
    tags = {"promoted_by": by, "promotion_reason": reason or "", "promotion_forced": str(told["forced"]).lower()}
    for tag, value in tags.items():
        client.set_model_version_tag(name, wanted.version, f"corpusmill.{tag}", value)
    client.set_registered_model_alias(name, CHAMPION, wanted.version)
    challenger = _alias(client, name, CHALLENGER)
    if challenger is not None and challenger.version == wanted.version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return told


def tag_versions(client: "MlflowClient", request_ids: Sequence[str], training_keys: Sequence[str]) -> list[str]:
    """Mark every version of the trainings with take-downs of what they saw; gives `NAME/VERSION` of each."""
    found = []
    for key in training_keys:
        for each in client.search_model_versions(f"tags.`{_TRAINING_KEY}` = '{key}'"):
            known = [value for value in each.tags.get(TAKEDOWN, "").split(",") if value]
            marked = ",".join(dict.fromkeys([*known, *request_ids]))
            client.set_model_version_tag(each.name, each.version, TAKEDOWN, marked)
            found.append(f"{each.name}/{each.version}")
    return sorted(found)


def promotion_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    before = f", before it version {found['champion_before']}" if found["champion_before"] else ""
    yield f"{found['name']} version {found['version']} is the champion{before}"
    yield from _gate_rows(found["gates"])
    if found["forced"]:
        yield "It was forced: the reason is kept with the version."


def _gate_rows(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    return table(("gate", "passed", "got"), [(each["gate"], each["is_passed"], each["got"]) for each in gates])


def _promotion_gates(
    client: "MlflowClient", wanted: "ModelVersion", champion: "ModelVersion | None"
) -> list[GateResult]:
    from llm.evaluation.compare import compare

    takedowns = wanted.tags.get(TAKEDOWN, "")
    gates = [
        GateResult(
            gate="no page that it was trained on is taken down", is_passed=not takedowns, got=takedowns or "none is"
        )
    ]
    if champion is None or champion.version == wanted.version:
        return gates
    suites = [read_suites(client, find_side(client, each.tags[_EVALUATION])) for each in (wanted, champion)]
    names = tuple(name for name in wanted.tags.get(_SUITES, "").split(",") if name)
    section = RegistrySection(name=wanted.name, not_worse_than_champion=names)
    return [*gates, *check_champion(section, compare(*suites))]


def _create(
    client: "MlflowClient", section: RegistrySection, run_id: str, folder: Path, files: Sequence[Path]
) -> "ModelVersion":
    run = client.get_run(run_id)
    client.log_artifacts(run_id, str(folder), _FOLDER)
    for path in files:
        client.log_artifact(run_id, str(path), _FOLDER)
    kept = (_TRAINING_KEY, "corpusmill.dataset_digest", "corpusmill.training_run_id", "corpusmill.corpus_run_id")
    named = {tag: run.data.tags[tag] for tag in (*kept, "corpusmill.code", "corpusmill.recipe") if tag in run.data.tags}
    tags = named | {_EVALUATION: run_id, _SUITES: ",".join(section.not_worse_than_champion)}
    source = f"{run.info.artifact_uri}/{_FOLDER}"
    return client.create_model_version(section.name, source, run_id, tags)


def _ensure(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)


def _version(client: "MlflowClient", name: str, version: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, version)
    except MlflowException:
        return None


def _alias(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException:
        return None
