"""The files of an evaluated model for a reviewer: its page, its card, its figures, in `reports/RECIPE/model/`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.jobs import TrainingJob
from flows.model.card import write_card, write_hub_card
from flows.model.facts import Rung, event_doc_ids, model_facts
from flows.model.figures import write_figures
from flows.model.page import write_page
from flows.workspace import Workspace
from llm.evaluation.statistics import Figure
from llm.journal import JOURNAL

if TYPE_CHECKING:
    from llm.evaluation.suite import SuiteResult

CARD, DATA_CARD = "README.md", "data_card.md"
"""As they lie beside the weights of a registered model: the first is where hubs look for a model's card."""
_READABLE_CARD = "model_card.md"
_RUNGS = {
    "uniform": "uniform",
    "unigram": "unigram",
    "kneser_ney": "Kneser-Ney",
    "hmm": "HMM",
    "lstm": "LSTM",
    "gpt2": "this model (GPT-2)",
}
"""The ladder's names, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """Where they are."""

    page: Path
    card: Path
    """For people; CARD beside it is the same for hubs."""
    figures: tuple[Path, ...]


def write_model_files(
    place: Workspace,
    recipe: str,
    job: TrainingJob,
    evaluation: Mapping[str, Any],
    suites: "Sequence[SuiteResult]",
    *,
    urls_of: Callable[[Sequence[str]], Mapping[str, str]],
    takedowns: Sequence[str],
    code_version: str,
) -> ModelFiles:
    """Write all of them anew. Raises StorageError for the disk."""
    folder = place.report_folder(recipe) / "model"
    named = event_doc_ids(job.folder / JOURNAL)
    facts = model_facts(
        recipe,
        job=job,
        evaluation=evaluation,
        suites=suites,
        ladder=[_rung(each) for each in evaluation["ladder"]],
        corpus=read_card(place.report_folder(recipe) / "data_card.json"),
        urls=urls_of(named) if named else {},
        takedowns=takedowns,
        code_version=code_version,
    )
    write_hub_card(folder / CARD, facts, data_card=DATA_CARD)
    return ModelFiles(
        page=write_page(folder, facts),
        card=write_card(folder / _READABLE_CARD, facts, data_card=DATA_CARD),
        figures=tuple(write_figures(folder / "figures", facts)),
    )


def _rung(each: Mapping[str, Any]) -> Rung:
    return Rung(
        name=_RUNGS.get(each["name"], each["name"]),
        bits_per_byte=Figure(**each["bits_per_byte"]),
        beats_below=each["beats_below"],
    )


def read_card(path: Path) -> dict[str, Any] | None:
    """The values of a data card; None where it is gone or damaged."""
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    values = body.get("values", body) if isinstance(body, dict) else None
    return values if isinstance(values, dict) else None
