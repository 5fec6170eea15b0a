"""`corpusmill train --prove-resume N`: the proof on a recipe's own corpus and model, in a folder that goes again."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.inspection import open_training
from flows.jobs import worker_job


def prove(
    recipe_path: Path | None, workspace_path: Path | None, num_steps: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Prove a resume over so many steps. Raises ConfigError where the corpus is not built or the steps cannot be split."""
    from llm.proof import prove_resume

    job, recipe, store = open_training(recipe_path, workspace_path)
    paths = job.dataset.verified_paths(store)
    with tempfile.TemporaryDirectory(prefix="corpusmill-proof-") as folder:
        proof = prove_resume(worker_job(job, paths, recipe.run), num_steps, Path(folder), tell=tell)
    return {**asdict(proof), "differences": proof.differences, "holds": not proof.differences}


def proof_lines(found: dict[str, Any]) -> Iterator[str]:
    """For a terminal: a row for each attempt, and the verdict."""
    parts = list(found["attempts"][0]["digests"])
    yield "  ".join([f"{'attempt':38}", *(f"{part:12}" for part in parts)])
    for attempt in found["attempts"]:
        yield "  ".join([f"{attempt['name']:38}", *(f"{attempt['digests'][part][:12]:12}" for part in parts)])
    yield from found["notes"]
    if found["holds"]:
        yield f"Proved over {found['num_steps']} steps on {found['device']}: every digest is that of the uninterrupted training."
    else:
        named = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in found["differences"].items())
        yield f"Not proved over {found['num_steps']} steps on {found['device']}: {named} differ from the uninterrupted training."
