"""`corpusmill compare RUN RUN`: two models on the same items, and what differs in their data, configs and code.

Everything is read from MLflow, so that runs of other machines can be compared. The comparison is a run itself, one for a
pair of evaluations.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from flows.settings import read_settings
from flows.tracker.execution import NOTE
from flows.workspace import Workspace
from pipelines.digest import digest_value
from pipelines.errors import InputError
from pipelines.markdown import plain, table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from llm.evaluation.suite import SuiteResult

_KIND = "corpusmill.kind"
_CODE = "corpusmill.code"
_SAME = "corpusmill.comparison"
_CORPUS_FIGURES = ("documents/in", "documents/kept", "tokens")
_TRAINING_FIGURES = ("final/final_val_loss", "final/final_train_loss")
_ORDER = ("better", "worse", "incomparable", "noise")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two: an evaluation, and the training and the corpus that it rests on."""

    evaluation: "Run"
    training: "Run | None"
    corpus: "Run | None"
    """None, like the training, where nobody has it any more."""

    @property
    def name(self) -> str:
        """The folder of the model, or of its evaluation the id."""
        folder = None if self.training is None else self.training.data.tags.get("corpusmill.model_folder")
        return str(folder or self.evaluation.info.run_id)


def compare_runs(workspace_path: Path | None, first: str, second: str) -> dict[str, Any]:
    """Compare two models, by the id of a run of theirs or the beginning of a model folder's name, and log it.

    Raises InputError where one is not found or was never evaluated.
    """
    from llm.evaluation.compare import compare, verdict_lines

    client = open_known_client(workspace_path)
    sides = [find_side(client, asked) for asked in (first, second)]
    suites = compare(*(read_suites(client, side) for side in sides))
    found = {
        "first": _told(sides[0]),
        "second": _told(sides[1]),
        "verdict": list(verdict_lines(suites)),
        "suites": [asdict(each) for each in suites],
        "differs": _differing(*sides),
    }
    return found | {"run_id": _log(client, sides, found)}


def open_known_client(workspace_path: Path | None) -> "MlflowClient":
    """The tracker of a workspace that has one. Raises InputError where nothing was recorded yet, and makes no database."""
    from flows.tracker.tracking import open_client

    settings = read_settings(workspace_path)
    place = Workspace.of(settings)
    if settings.mlflow_tracking_uri is None and not place.mlflow_database.is_file():
        raise InputError(
            f"got {place.root}, where no run is recorded, wanted a workspace with runs: run `corpusmill run` first, or pass "
            "--workspace."
        )
    return open_client(settings, place)


def find_side(client: "MlflowClient", asked: str) -> Side:
    """The evaluation that is meant. Raises InputError where there is none."""
    run = _asked_run(client, asked)
    tags = run.data.tags
    evaluation = run if tags.get(_KIND) == "evaluation" else None
    if evaluation is None and (run_id := tags.get("corpusmill.evaluation_run_id")):
        evaluation = _run(client, run_id)
    if evaluation is None and tags.get(_KIND) == "training":
        evaluation = _newest(client, f"tags.`corpusmill.training_run_id` = '{run.info.run_id}'", kind="evaluation")
    if evaluation is None:
        raise InputError(
            f"got {asked}, a run of kind {tags.get(_KIND) or 'unknown'} without an evaluation, wanted an evaluated model: "
            "run `corpusmill evaluate` with its recipe."
        )
    named = evaluation.data.tags
    return Side(
        evaluation=evaluation,
        training=_run(client, named.get("corpusmill.training_run_id", "")),
        corpus=_run(client, named.get("corpusmill.corpus_run_id", "")),
    )


def read_suites(client: "MlflowClient", side: Side) -> "list[SuiteResult]":
    """The suites of an evaluation, with their items, from its artifacts. Raises InputError where it has none."""
    from llm.evaluation.compare import from_json

    run_id = side.evaluation.info.run_id
    with TemporaryDirectory(prefix="corpusmill-compare-") as folder:
        paths = [item.path for item in client.list_artifacts(run_id, "suites")]
        texts = [Path(client.download_artifacts(run_id, path, folder)).read_bytes() for path in sorted(paths)]
    if not texts:
        raise InputError(
            f"got evaluation {run_id} without suites, from an older version, wanted one of this version: "
            "run `corpusmill evaluate` with its recipe again."
        )
    return [from_json(each) for text in texts for each in json.loads(text)]


def _asked_run(client: "MlflowClient", asked: str) -> "Run":
    run = _run(client, asked)
    if run is None and asked and asked.replace("-", "").replace("_", "").isalnum():
        run = _newest(client, f"tags.`corpusmill.model_folder` LIKE '{asked}%'", kind="training")
    if run is None:
        raise InputError(
            f"got {asked!r}, wanted the id of an MLflow run or the beginning of a folder below models/: "
            "see `models/` in the workspace, or MLflow."
        )
    return run


def _run(client: "MlflowClient", run_id: str) -> "Run | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id) if run_id else None
    except MlflowException:
        return None


def _newest(client: "MlflowClient", condition: str, *, kind: str) -> "Run | None":
    experiments = [each.experiment_id for each in client.search_experiments()]
    where = f"{condition} AND tags.`{_KIND}` = '{kind}' AND attributes.status = 'FINISHED'"
    found = client.search_runs(experiments, where, max_results=1, order_by=["attributes.start_time DESC"])
    return found[0] if found else None


# What differs


def _differing(first: Side, second: Side) -> dict[str, dict[str, list[Any]]]:
    """By data, config and code: what has another value on the two sides, as [first, second]."""
    return {
        "data": _changes(*(_data(side) for side in (first, second))),
        "config": _changes(*(_config(side) for side in (first, second))),
        "code": _changes(*({"code": side.evaluation.data.tags.get(_CODE)} for side in (first, second))),
    }


def _changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = sorted({*first, *second})
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}


def _data(side: Side) -> dict[str, Any]:
    if side.corpus is None:
        return {}
    figures = {name: side.corpus.data.metrics.get(name) for name in _CORPUS_FIGURES}
    dropped = {name: value for name, value in side.corpus.data.metrics.items() if name.startswith("dropped/")}
    return {
        "dataset_digest": side.corpus.data.tags.get("corpusmill.dataset_digest"),
        **{f"recipe.{name}": value for name, value in side.corpus.data.params.items() if not _is_later(name)},
        **figures,
        **dropped,
    }


def _is_later(name: str) -> bool:
    """Whether a parameter of a recipe says something of training or evaluation, not of the corpus."""
    return name.split(".", maxsplit=1)[0] in ("model", "training", "evaluation", "registry", "name")


def _config(side: Side) -> dict[str, Any]:
    trained = {} if side.training is None else {**side.training.data.params}
    return {**trained, **side.evaluation.data.params}


def _told(side: Side) -> dict[str, Any]:
    figures = {} if side.training is None else side.training.data.metrics
    return {
        "model": side.name,
        "recipe": side.evaluation.data.tags.get("corpusmill.recipe"),
        "evaluation_run_id": side.evaluation.info.run_id,
        "training_run_id": None if side.training is None else side.training.info.run_id,
        "corpus_run_id": None if side.corpus is None else side.corpus.info.run_id,
        "parameters_digest": None
        if side.training is None
        else side.training.data.tags.get("corpusmill.parameters_digest"),
        **{name: figures[name] for name in _TRAINING_FIGURES if name in figures},
    }


# For people, and for MLflow


def comparison_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal and for Markdown: the verdict, a row a suite with those that differ first, what differs."""
    yield f"{found['first']['model']} (first) beside {found['second']['model']} (second)"
    yield ""
    yield from found["verdict"]
    yield ""
    yield from _aligned(
        table(
            ("suite", "verdict", "metric", "first", "second", "difference on shared items", "items"),
            [_row(each) for each in sorted(found["suites"], key=lambda each: _ORDER.index(each["verdict"]))],
        )
    )
    for what, changes in found["differs"].items():
        if not changes:
            yield f"Same {what}."
            continue
        yield f"Other {what}:"
        yield from (f"- {plain(name)}: {plain(one)} | {plain(other)}" for name, (one, other) in changes.items())
    if "run_id" in found:
        yield f"In MLflow: run {found['run_id']}."


def _aligned(rows: Sequence[str]) -> Iterator[str]:
    """A table's lines with their columns below each other, for those who read the Markdown as it is."""
    cells = [row.removeprefix("| ").removesuffix(" |").split(" | ") for row in rows if row.startswith("| ")]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = (" | ".join(map(str.ljust, row, widths)) for row in cells)
    yield from (f"| {next(padded)} |" if row.startswith("| ") else row for row in rows)


def _row(each: Mapping[str, Any]) -> tuple[Any, ...]:
    gap = each["difference"]
    return (
        each["name"],
        each["verdict"],
        each["metric"],
        _interval(each["ours"]),
        _interval(each["theirs"]),
        _interval(gap, sign="+"),
        0 if gap is None else gap["num_items"],
    )


def _interval(figure: Mapping[str, Any] | None, *, sign: str = "") -> str:
    if figure is None:
        return ""
    value = f"{figure['value']:{sign}.4f}"
    return value if figure["low"] is None else f"{value} ({figure['low']:{sign}.4f} to {figure['high']:{sign}.4f})"


def _log(client: "MlflowClient", sides: Sequence[Side], found: Mapping[str, Any]) -> str:
    from flows.tracker.tracking import Tracker

    ids = [side.evaluation.info.run_id for side in sides]
    tags = {
        "corpusmill.recipe": str(found["first"]["recipe"]),
        "corpusmill.first_evaluation_run_id": ids[0],
        "corpusmill.second_evaluation_run_id": ids[1],
        _SAME: digest_value(ids),
    }
    tracker = Tracker(client, sides[0].evaluation.info.experiment_id, {})
    tracked = tracker.open_run("comparison", tags, same=_SAME)
    differences = {each["name"]: each["difference"]["value"] for each in found["suites"] if each["difference"]}
    tracked.log_metrics({f"difference/{name}": value for name, value in differences.items()})
    text = "\n".join(comparison_lines(found))
    with TemporaryDirectory() as folder:
        markdown, values = Path(folder, "comparison.md"), Path(folder, "comparison.json")
        markdown.write_text(f"# Comparison\n\n{text}\n", encoding="utf-8")
        values.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
        tracked.log_files(markdown, values)
    tracked.set_tags({NOTE: text})
    tracked.end("FINISHED")
    return tracked.run_id
