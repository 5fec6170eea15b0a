"""Facts of models that were never trained: journals, suites and ladders for the tests of the page, the images and the card."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.model.facts import ModelFacts, Rung, config_facts, model_facts
from llm.config import TrainConfig, nano
from llm.evaluation.statistics import Figure
from llm.evaluation.suite import Suite, SuiteResult
from llm.journal import JOURNAL, Journal
from llm.reports import Report, StepReport, StepSeconds, TrainEvent


def step(number: int, **changes: Any) -> StepReport:
    """A report whose figures can be told from the step."""
    seconds = StepSeconds(data=0.1, forward=0.2, backward=0.4, optimizer=0.1, log=0.05, checkpoint=0.05, whole=1.0)
    usual: dict[str, Any] = {
        "step": number,
        "num_tokens": number * 1024,
        "loss": 2.0 + 6.0 * math.exp(-number / 40) if number else None,
        "learning_rate": 3e-4 if number else None,
        "grad_norm": 0.5 if number else None,
        "tokens_per_second": 1024.0 if number else None,
        "mfu": 0.4 if number else None,
        "seconds": seconds if number else None,
        "val_loss": 2.5 if number % 10 == 0 else None,
        "batch_digest": None,
    }
    return StepReport(**(usual | changes))


def event(kind: Any, at: int, message: str = "It happened.", doc_ids: Sequence[str] = ()) -> TrainEvent:
    return TrainEvent(kind=kind, step=at, message=message, facts={"doc_ids": list(doc_ids)})


def write_journal(folder: Path, reports: Iterator[Report] | Sequence[Report], how: Any = "finished") -> Path:
    """A training folder with a journal."""
    with Journal(folder) as journal:
        for report in reports:
            journal.write(report)
        if how is not None:
            journal.end(how)
    return folder


def figure(value: float, low: float | None = None, high: float | None = None, num_items: int = 40) -> Figure:
    return Figure(value=value, low=low, high=high, num_items=num_items)


def suite(name: str, figures: Mapping[str, Figure], **changes: Any) -> SuiteResult:
    """A score on a suite whose metric is the first figure."""
    skipped = changes.pop("skipped", None)
    items = changes.pop("items", ())
    usual: dict[str, Any] = {
        "name": name,
        "version": 1,
        "protocol": "options-compared/1",
        "metric": next(iter(figures), "acc"),
        "higher_is_better": True,
        "dataset_digest": "d" * 64,
        "noise_floor": 0.01,
        "language": "en",
    }
    return SuiteResult(suite=Suite(**(usual | changes)), figures=figures, items=items, skipped=skipped)


def corpus(text: str = "sample") -> dict[str, Any]:
    """What a data card states."""
    return {
        "identity": {"dataset digest": "e" * 64, "tokens": 9_000, "tokens for training": 8_000},
        "collection": {"sources": text},
        "funnel": [["pages in", 12], [f"dropped: {text}", 2], ["kept", 10]],
        "composition": {
            "languages": {"en": 6, "zh": 4},
            "hosts": {text: 10},
            "licenses": {text: 10},
            "rights": {"all": {"allow": 10, "disallow": 2}, "kept": {"allow": 7, "unknown": 3}},
            "personal_data_found": {"email": 4},
        },
        "contamination": None,
    }


def evaluation(text: str = "quiet water") -> dict[str, Any]:
    """What `evaluate_job` gives."""
    return {
        "protocol": "document-stride-half/1",
        "split": "test",
        "num_documents": 5,
        "num_bytes": 8_454,
        "loss": 2.4,
        "perplexity": 11.0,
        "bits_per_byte": 1.25,
        "bits_per_byte_standard_error": 0.1,
        "unigram_bits_per_byte": 3.5,
        "gain": 0.9,
        "gain_standard_error": 0.2,
        "samples": [
            {"prompt": "The harbour ", "text": f"The harbour {text}"},
            {"prompt": "山里的", "text": f"山里的渔船{text}"},
        ],
    }


def full_facts(folder: Path, text: str = "plain", *, num_steps: int = 60) -> ModelFacts:
    """Facts with something in every part; `text` is what strangers wrote."""
    reports: list[Report] = [step(number) for number in range(num_steps + 1)]
    reports[20] = step(20, loss=math.nan)
    reports.insert(21, event("step_skipped", 20, text, ["a", "b"]))
    reports.insert(31, event("rolled_back", 25, text, ["b"]))
    reports.insert(41, event("resumed", 39, text))
    if not (folder / JOURNAL).exists():
        write_journal(folder, reports)
    found = model_facts(
        text,
        folder=folder,
        evaluation=evaluation(text),
        suites=[
            suite("sentiment_zh", {"acc": figure(0.7, 0.6, 0.8), "baseline/random": figure(0.5)}, language="zh"),
            suite("sentiment_en", {"acc": figure(0.52, 0.4, 0.6), "baseline/random": figure(0.5), text: figure(1.0)}),
            suite("summarisation_en", {}, skipped=text),
            suite("bias_occupation", {"gap": figure(0.1, 0.0, 0.2)}, higher_is_better=False),
        ],
        ladder=[
            Rung(name="uniform", bits_per_byte=figure(8.0), beats_below=None),
            Rung(name=text, bits_per_byte=figure(8.5, 8.4, 8.6), beats_below=False),
            Rung(name="GPT-2", bits_per_byte=figure(1.25, 1.2, 1.3), beats_below=True),
        ],
        corpus=corpus(text),
        urls={"a": f"http://harbour.test/{text}"},
        takedowns=[text],
        code_version=text,
        command=f"corpusmill run {text}",
        links={text: text, "data card": "data_card.md"},
    )
    configs = config_facts(nano(), TrainConfig(max_steps=num_steps))
    return replace(found, **configs)
