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

from flows.tracker.comparison import find_side, open_known_client, read_suites
from flows.tracker.execution import NOTE, run_link
from flows.tracker.gates import GateResult, RegistrySection, check_champion, judged
from pipelines.errors import InputError, TerminalError
from pipelines.markdown import table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
TAKEDOWN = "corpusmill.takedown"
GATES = "corpusmill.gates"
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
    table_of_gates = "\n".join(_gate_rows(told["gates"]))
    note = f"{judged(told)}\n\n{table_of_gates}"
    client.set_tag(evaluation_run_id, GATES, "passed" if passed else "failed")
    client.set_tag(evaluation_run_id, NOTE, note)
    with TemporaryDirectory() as scratch:
        markdown, values = Path(scratch, "gates.md"), Path(scratch, "gates.json")
        markdown.write_text(f"# Gates\n\n{table_of_gates}", encoding="utf-8")
        values.write_text(json.dumps(told["gates"], indent=1), encoding="utf-8")
        for path in (markdown, values):
            client.log_artifact(evaluation_run_id, str(path))
    known = client.search_model_versions(f"name = '{section.name}' AND run_id = '{evaluation_run_id}'")
    if not passed:
        for each in known:  # of a recipe that was less strict
            client.update_model_version(section.name, each.version, _description(client, each, note))
        return told
    _ensure(client, section.name)
    version = known[0] if known else _create(client, section, evaluation_run_id, folder, files)
    client.update_model_version(section.name, version.version, _description(client, version, note))
    if not known:
        client.set_registered_model_alias(section.name, CHALLENGER, version.version)
    return told | {"version": str(version.version)}


def promote(
    workspace_path: Path | None, name: str, version: str | None, *, by: str, reason: str | None, force: bool
) -> dict[str, Any]:
    """Make a version, by default the challenger, the champion.

    Raises TerminalError where a gate is not passed and nobody forces it, InputError where there is no such version.
    """
    client = open_known_client(workspace_path)
    wanted = _version(client, name, version) if version else _alias(client, name, CHALLENGER)
    if wanted is None:
        raise InputError(_not_there(client, name, version))
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
            raise TerminalError(
                f"got version {wanted.version} of {name} that does not pass ({failed}), wanted one that does: "
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
    judged_anew = client.get_run(wanted.tags[_EVALUATION]).data.tags.get(GATES, "")
    gates = [
        GateResult(
            gate="no page that it was trained on is taken down", is_passed=not takedowns, got=takedowns or "none is"
        ),
        GateResult(gate="the gates of its recipe", is_passed=judged_anew == "passed", got=judged_anew or "not judged"),
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


def _description(client: "MlflowClient", version: "ModelVersion", note: str) -> str:
    """What MLflow shows of a version: why it may be used, and the way to what it was judged by."""
    experiment_id = client.get_run(version.run_id).info.experiment_id
    evaluation = run_link(experiment_id, version.run_id)
    ways = [f"[the model's page]({evaluation}/artifacts/page/index.html)", f"[evaluation]({evaluation})"]
    for part in ("training", "corpus"):
        run_id = version.tags.get(f"corpusmill.{part}_run_id")
        ways += [f"[{part}]({run_link(experiment_id, run_id)})"] if run_id else []
    return f"{note}\n{_beside_champion(client, version)}\n\nSee {', '.join(ways)}."


def _beside_champion(client: "MlflowClient", version: "ModelVersion") -> str:
    """How a version does on the suites of the champion of its time; empty where there is none."""
    from llm.evaluation.compare import compare, verdict_lines

    champion = _alias(client, version.name, CHAMPION)
    if champion is None or champion.version == version.version:
        return ""
    try:
        suites = [read_suites(client, find_side(client, each.tags[_EVALUATION])) for each in (version, champion)]
    except InputError as error:
        return f"\nIt is not compared with the champion, version {champion.version}: {error}"
    found = " ".join(verdict_lines(compare(*suites)))
    return f"\nBeside the champion, version {champion.version} (this one is the first): {found}"


def _not_there(client: "MlflowClient", name: str, version: str | None) -> str:
    """Why a version is not found: the model is not known, or it is, with others."""
    models = {each.name: each for each in client.search_registered_models()}
    if name not in models:
        known = ", ".join(sorted(models)) or "none"
        return f"got model {name!r}, wanted a registered one ({known}): run a recipe with registry.name first, or correct it."
    versions = sorted(int(each.version) for each in client.search_model_versions(f"name = '{name}'"))
    listed = ", ".join(map(str, versions))
    if version is not None:
        return f"got version {version!r} of {name!r}, wanted one of {listed}: pass it with --version."
    return (
        f"got no challenger of {name!r} among versions {listed}, wanted one that passed its gates since the last promotion: "
        "run a recipe that makes it, or pass --version."
    )


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
