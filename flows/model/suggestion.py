"""`corpusmill train --suggest`: what a recipe's training would be better set to, as a table and as lines to paste."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.inspection import open_training

_ROWS: dict[str, Callable[[Any], str]] = {
    "num_tokens": "{:,}".format,
    "num_epochs": "{:.3g}".format,
    "max_steps": "{:,}".format,
    "tokens_per_step": "{:,}".format,
    "micro_batch_size": "{:,}".format,
    "learning_rate": "{:.2g}".format,
    "warmup_steps": "{:,}".format,
    "num_flops": "{:.3g}".format,
}
_COLUMNS = {"as_configured": "this recipe", "same_budget": "same budget", "compute_optimal": "compute-optimal"}
_SETTINGS = ("max_steps", "tokens_per_step", "micro_batch_size", "learning_rate", "warmup_steps")


def suggest(recipe_path: Path | None, workspace_path: Path | None) -> dict[str, Any]:
    """Suggestions for a recipe's model on its newest build. Raises ConfigError where nothing is built."""
    from llm.suggest import suggest as suggest_for

    job, recipe, _ = open_training(recipe_path, workspace_path)
    num_tokens = sum(job.dataset.num_train_tokens.values())
    num_windows = max(0, num_tokens - 1) // job.model.block_size
    return asdict(suggest_for(job.model, job.training, num_windows=num_windows, num_processes=recipe.run.num_processes))


def suggestion_lines(found: dict[str, Any]) -> Iterator[str]:
    """For a terminal: the three plans side by side, what to know, and the section of a recipe."""
    yield (
        f"Model: {found['num_parameters']:,} parameters, {found['num_body_parameters']:,} without embeddings. "
        f"Corpus: {found['tokens_per_epoch']:,} training tokens."
    )
    yield "  ".join([f"{'':18}", *(f"{title:>16}" for title in _COLUMNS.values())])
    for name, written in _ROWS.items():
        yield "  ".join([f"{name:18}", *(f"{written(found[plan][name]):>16}" for plan in _COLUMNS)])
    yield from found["notes"]
    yield "To train the compute-optimal plan, set in the recipe, in place of num_epochs or num_tokens:"
    yield "training:"
    for name in _SETTINGS:
        yield f"  {name}: {found['compute_optimal'][name]}"
