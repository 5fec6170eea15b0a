"""The evaluation of a finished training: what it is measured by, kept under a key, its items beside it.

`evaluations/KEY.json` has the figures, `evaluations/KEY.suites.json` every suite with its items, for comparisons.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.jobs import JobResult, TrainingJob, held_out
from flows.recipe import EvaluationSection
from flows.results import write_result
from pipelines.corpus import tokenizer_json
from pipelines.errors import ConfigError, IntegrityError
from pipelines.store import Store, storage_errors

if TYPE_CHECKING:
    from llm.evaluation.suite import SuiteResult
    from llm.model import GPT

Groups = Mapping[str, Mapping[str, str]]
"""By doc_id what a document is: `{"language": "zh", "domain": "example.org"}`."""

_SUITES = ".suites.json"


def evaluate_job(
    job: TrainingJob, section: EvaluationSection, store: Store, groups_of: Callable[[Sequence[str]], Groups]
) -> JobResult:
    """Measure a finished training and let it write; a finished evaluation is read back.

    `groups_of` tells of held-out documents what they are. Raises ConfigError where the training is not finished.
    """
    training = job.finished()
    if training is None:
        raise ConfigError(
            "got a recipe whose model is not trained, wanted a finished training: run `corpusmill train` first."
        )
    done = job.evaluated(section)
    if done is not None:
        return JobResult(values=done, is_reused=True, seconds=0.0)
    from llm.data import TokenData
    from llm.evaluate import evaluate, load_model
    from llm.evaluation.compare import to_json
    from llm.evaluation.documents import by_group, kept

    started = time.monotonic()
    paths = job.dataset.verified_paths(store)
    model = load_model(job.folder / training["checkpoint"])
    measured, documents = evaluate(
        model,
        TokenData.open(paths, "train", digest=job.dataset.digest),
        held_out(paths, job.dataset.digest),
        eot_token=job.dataset.eot_token,
    )
    groups = groups_of([item["id"] for item in documents.items])
    suites = [kept(by_group(documents, groups))]
    key = job.evaluation_key(section)
    path = job.evaluation_path(key)
    details = suites_path(job, section)
    _write_suites(details, suites)
    values = asdict(measured) | {
        "samples": _samples(model, job, section),
        "suites": [{**to_json(each), "items": len(each.items)} for each in suites],
    }
    write_result(path, key, values, [details])
    return JobResult(values=values, is_reused=False, seconds=time.monotonic() - started)


def read_suites(job: TrainingJob, section: EvaluationSection) -> "list[SuiteResult]":
    """Every suite of a finished evaluation, with its items. Raises IntegrityError where the file is gone or changed."""
    from llm.evaluation.compare import from_json

    path = suites_path(job, section)
    try:
        return [from_json(each) for each in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"got {type(error).__name__} for {path}, wanted the suites of an evaluation: run `corpusmill evaluate` again."
        ) from error


def suites_path(job: TrainingJob, section: EvaluationSection) -> Path:
    """Where the suites of an evaluation are kept."""
    return job.evaluation_path(job.evaluation_key(section)).with_suffix(_SUITES)


def _write_suites(path: Path, suites: "Sequence[SuiteResult]") -> None:
    from llm.evaluation.compare import to_json

    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([to_json(each) for each in suites], ensure_ascii=False), encoding="utf-8")


def _samples(model: "GPT", job: TrainingJob, section: EvaluationSection) -> list[dict[str, str]]:
    from flows.generation import Writer
    from llm.sample import Sampling
    from pipelines.encoding import Encoder

    writer = Writer(model, Encoder.load(tokenizer_json(job.dataset.tokenizer)))
    usual = Sampling(max_tokens=section.sample_tokens, temperature=section.temperature, top_k=section.top_k)
    return [
        {"prompt": prompt, "text": prompt + writer.go_on(prompt, replace(usual, seed=idx)).text}
        for idx, prompt in enumerate(section.prompts)
    ]
