"""The commands that use a trained model: export-model and generate."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.inspection import open_training
from flows.jobs import TrainingJob, finished_trainings, held_out
from flows.model.check import check_export
from flows.model.generation import Writer
from flows.settings import read_settings
from flows.workspace import Workspace
from pipelines.encoding import Encoder
from pipelines.errors import ConfigError
from pipelines.store import Store

if TYPE_CHECKING:
    from llm.model import GPT
    from llm.sample import Sampling
    from llm.weights import Which


def export_trained_model(
    recipe_path: Path | None, workspace_path: Path | None, out: Path, *, which: "Which"
) -> dict[str, Any]:
    """Write the recipe's trained model as a folder for others, compared with the checkpoint first."""
    job, _recipe, store = open_training(recipe_path, workspace_path)
    return export_checked(job, store, out, which=which)


def export_checked(job: TrainingJob, store: Store, out: Path, *, which: "Which") -> dict[str, Any]:
    """Likewise, of a training. Raises ConfigError where that is not finished, IntegrityError where the folder differs."""
    from llm.export import export_model

    training = job.finished()
    if training is None:
        raise ConfigError("got a recipe whose model is not trained, wanted one: run `corpusmill train` first.")
    checkpoint = job.folder / training["checkpoint" if which == "last" else "best_checkpoint"]
    tokenizer = (job.folder / "tokenizer.json").read_text(encoding="utf-8")
    encoder = Encoder.load(tokenizer)
    documents = held_out(job.dataset.verified_paths(store), job.dataset.digest).documents()
    checked: dict[str, Any] = {}

    def check(folder: Path, model: "GPT") -> None:
        checked.update(check_export(folder, model, encoder, documents))

    path = export_model(checkpoint, tokenizer, out, encoder.decode([encoder.eot_token]), check=check)
    return {"path": str(path), "checkpoint": checkpoint.name, "checked": checked}


def export_lines(found: dict[str, Any]) -> list[str]:
    """For a terminal."""
    checked = found["checked"]
    equal = f"logits differ by at most {checked['max_logit_difference']:.1e} on {checked['num_windows']} windows"
    loaded = f"  {found['checkpoint']}, compared as {checked['loaded_by']} loads it: {equal}"
    return [f"model in {found['path']}", f"{loaded}, ids of {checked['num_texts']} texts are equal"]


def generate(
    prompt: str,
    recipe_path: Path | None,
    workspace_path: Path | None,
    sampling: "Sampling",
    *,
    model: Path | None,
    which: "Which",
    stop: Sequence[str],
    on_text: Callable[[str], None],
) -> dict[str, Any]:
    """Let a model go on from a prompt: that of a folder, that of a recipe, or the newest of the workspace."""
    folder = chosen_folder(recipe_path, workspace_path, model)
    writer = Writer.load(folder, which)
    on_text(prompt)
    written = writer.go_on(prompt, sampling, stop=stop, on_text=on_text)
    return {
        "text": prompt + written.text,
        "prompt": prompt,
        "model": folder.name,
        "num_tokens": written.num_tokens,
        "tokens_per_second": round(written.tokens_per_second, 1),
        "finish_reason": written.finish_reason,
    }


def chosen_folder(recipe_path: Path | None, workspace_path: Path | None, model: Path | None) -> Path:
    """The folder of the model that is meant: that one, a recipe's, or the newest of the workspace."""
    if model is not None and recipe_path is not None:
        raise ConfigError("--model, --recipe: got both, wanted one: leave the other out.")
    return model if model is not None else _trained_folder(recipe_path, workspace_path)


def _trained_folder(recipe_path: Path | None, workspace_path: Path | None) -> Path:
    if recipe_path is not None:
        job, _recipe, _store = open_training(recipe_path, workspace_path)
        if job.finished() is not None:
            return job.folder
        raise ConfigError("got a recipe whose model is not trained, wanted one: run `corpusmill train` first.")
    place = Workspace.of(read_settings(workspace_path))
    trainings = finished_trainings(place)
    if not trainings:
        raise ConfigError(f"got no trained model in {place.root}, wanted one: run `corpusmill train` first.")
    return place.root / "models" / str(trainings[-1]["folder"])
