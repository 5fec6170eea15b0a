"""The evaluation of a finished training: what it is measured by, kept under a key, its items beside it.

`evaluations/KEY.json` has the figures, `evaluations/KEY/suites.json` every suite with its items, for comparisons.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.evaluation.safety import CorpusFacts, measure_safety
from flows.jobs import JobResult, TrainingJob, held_out
from flows.recipe import EvaluationPlan, EvaluationSection
from flows.results import write_result
from pipelines.corpus import tokenizer_json
from pipelines.errors import ConfigError, IntegrityError
from pipelines.store import Store, storage_errors

if TYPE_CHECKING:
    from llm.data import TokenData
    from llm.evaluation.ladder.climb import OnProgress
    from llm.evaluation.ladder.rungs import Ladder, Scored
    from llm.evaluation.suite import SuiteResult
    from llm.model import GPT

_SUITES = "suites.json"
_SMALL_NUM_PARAMETERS = 20_000_000


OnPart = Callable[[str, int, int], None]
"""Gets what is measured next, how many parts are done, and of how many."""


def evaluate_job(
    job: TrainingJob,
    plan: EvaluationPlan,
    store: Store,
    facts: CorpusFacts,
    on_part: OnPart = lambda _part, _done, _total: None,
) -> JobResult:
    """Measure a finished training and let it write; a finished evaluation is read back.

    `facts` tells of documents what they are. Raises ConfigError where the training is not finished.
    """
    training = job.finished()
    if training is None:
        raise ConfigError(
            "got a recipe whose model is not trained, wanted a finished training: run `corpusmill train` first."
        )
    done = job.evaluated(plan)
    if done is not None:
        return JobResult(values=done, is_reused=True, seconds=0.0)
    from llm.data import TokenData
    from llm.evaluate import evaluate, load_model
    from llm.evaluation.compare import to_json
    from llm.evaluation.documents import by_group, kept

    started = time.monotonic()
    paths = job.dataset.verified_paths(store)
    model = load_model(job.folder / training["checkpoint"])
    train_data = TokenData.open(paths, "train", digest=job.dataset.digest)
    held = held_out(paths, job.dataset.digest)
    flags: tuple[str, ...] = ()
    rungs: list[dict[str, Any]] = []
    with _rungs_beside(job, paths, held.split) if plan.section.ladder else nullcontext() as wait_for_rungs:
        with _one_thread_if_small(model):
            measured, documents = evaluate(model, train_data, held, eot_token=job.dataset.eot_token)
            suites = [kept(by_group(documents, facts.groups_of([item["id"] for item in documents.items])))]
            suites += _measured(model, job, plan, train_data, held, facts, on_part)
            samples = _samples(model, job, plan.section)
        found = None if wait_for_rungs is None else wait_for_rungs(partial(_on_rung, on_part))
    if found is not None:
        ladder = _ladder(found, job, training, documents, held)
        suites.append(ladder.suite_result())
        flags = ladder.warnings
        rungs = [
            {
                "name": rung.name,
                "bits_per_byte": asdict(rung.bits_per_byte),
                "beats_below": rung.beats_below,
                "beats_all_below": rung.beats_all_below,
                "num_parameters": rung.scored.num_parameters,
                "cpu_seconds": rung.scored.cpu_seconds,
            }
            for rung in ladder.rungs
        ]
    key, path, details = job.evaluation_key(plan), job.evaluation_path(job.evaluation_key(plan)), suites_path(job, plan)
    _write_suites(details, suites)
    values = asdict(measured) | {
        "samples": samples,
        "suites": [{**to_json(each), "items": len(each.items)} for each in suites],
        "ladder": rungs,
        "flags": list(flags),
    }
    write_result(path, key, values, [details])
    return JobResult(values=values, is_reused=False, seconds=time.monotonic() - started)


def _measured(
    model: "GPT",
    job: TrainingJob,
    plan: EvaluationPlan,
    train_data: "TokenData",
    held: "TokenData",
    facts: CorpusFacts,
    on_part: OnPart,
) -> "list[SuiteResult]":
    from flows.evaluation.contaminated_items import mark_contaminated
    from flows.evaluation.suites import measure_held_out_extras, measure_suites, search_items, speaker_of
    from pipelines.encoding import Encoder

    encoder = Encoder.load(tokenizer_json(job.dataset.tokenizer))
    speaker = speaker_of(model, encoder)
    found = measure_held_out_extras(model, encoder, held)
    found += mark_contaminated(
        measure_suites(model, encoder, plan.suites, progress=on_part),
        {each.section.name: search_items(each) for each in plan.suites},
        train_data.documents,
        speaker.decode,
        partial(on_part, "contamination"),
    )
    return found + measure_safety(speaker, train_data, held, plan, facts, on_part)


def _rungs_beside(
    job: TrainingJob, paths: Sequence[Path], split: str
) -> "AbstractContextManager[Callable[[OnProgress], dict[str, Scored]]]":
    """The rungs below the model, on the tokens that it was trained on: beside its own measurements, on another core."""
    from llm.evaluation.ladder.beside import RungsJob, rungs_beside

    return rungs_beside(
        RungsJob(
            shards=tuple(map(str, paths)),
            dataset_digest=job.dataset.digest,
            split=split,
            vocab_size=job.model.vocab_size,
            eot_token=job.dataset.eot_token,
        )
    )


def _on_rung(on_part: OnPart, rung: str, share: float) -> None:
    on_part(f"ladder: {rung}", int(100 * share), 100)


def _ladder(
    found: "Mapping[str, Scored]",
    job: TrainingJob,
    training: Mapping[str, Any],
    documents: "SuiteResult",
    held: "TokenData",
) -> "Ladder":
    """How the model stands to the rungs below it."""
    from llm.evaluation.ladder.climb import ladder
    from llm.evaluation.ladder.rungs import Scored

    bits = {item["id"]: item["score"] for item in documents.items}
    losses = np.array([bits[document.doc_id] for document in held.documents()]) * math.log(2)
    model = Scored(losses=losses, num_parameters=job.model.num_parameters, num_training_tokens=training["num_tokens"])
    return ladder(found, held, model=model, noise_floor=documents.suite.noise_floor)


@contextmanager
def _one_thread_if_small(model: "GPT") -> Iterator[None]:
    """Threads that wait for each other cost a small model ten times what they save."""
    import torch

    before = torch.get_num_threads()
    if model.config.num_parameters < _SMALL_NUM_PARAMETERS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_suites(job: TrainingJob, plan: EvaluationPlan) -> "list[SuiteResult]":
    """Every suite of a finished evaluation, with its items. Raises IntegrityError where the file is gone or changed."""
    from llm.evaluation.compare import from_json

    path = suites_path(job, plan)
    try:
        return [from_json(each) for each in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"got {type(error).__name__} for {path}, wanted the suites of an evaluation: run `corpusmill evaluate` again."
        ) from error


def suites_path(job: TrainingJob, plan: EvaluationPlan) -> Path:
    """Where the suites of an evaluation are kept."""
    return job.evaluation_path(job.evaluation_key(plan)).with_suffix("") / _SUITES


def _write_suites(path: Path, suites: "Sequence[SuiteResult]") -> None:
    from llm.evaluation.compare import to_json

    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([to_json(each) for each in suites], ensure_ascii=False), encoding="utf-8")


def _samples(model: "GPT", job: TrainingJob, section: EvaluationSection) -> list[dict[str, str]]:
    from flows.model.generation import Writer
    from llm.sample import Sampling
    from pipelines.encoding import Encoder

    writer = Writer(model, Encoder.load(tokenizer_json(job.dataset.tokenizer)))
    usual = Sampling(max_tokens=section.sample_tokens, temperature=section.temperature, top_k=section.top_k)
    return [
        {"prompt": prompt, "text": prompt + writer.go_on(prompt, replace(usual, seed=idx)).text}
        for idx, prompt in enumerate(section.prompts)
    ]
