"""lm-evaluation-harness on our models: an adapter in this process, and its own loader on an exported folder, side by side.

    python -m flows.evaluation.harness FOLDER [--recipe RECIPE]

FOLDER is what `corpusmill export-model` wrote. Each suite is written out as a task of the harness (YAML and rows, prompts
included), measured by the harness through its loader for Hugging Face folders, through our adapter, and by llm.evaluation;
a JSON document with the three sets of scores and their largest difference goes to standard output. Nothing is downloaded.

The only importer of lm_eval, which the extra `harness` installs.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, TemplateLM
from lm_eval.tasks import TaskManager

from flows.evaluation.prompts import CHOICE_KINDS
from flows.evaluation.suites import DeclaredSuite, LoadedSuite, load_suite, measure_suite, shipped_suites, speaker_of
from flows.recipe import load_recipe
from llm.evaluation.greedy import write_until
from llm.evaluation.likelihood import Speaker, encoded_pair, text_likelihoods, token_likelihoods
from llm.evaluation.tasks import WRITING_METRICS, ChoiceItem, LastWordItem, TextItem, writing_scores
from llm.weights import read_model
from pipelines.encoding import Encoder
from pipelines.errors import ConfigError

_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_SCORED_BY_US = '''"""How the harness scores rows whose figures it has no metric for."""

from flows.evaluation.harness import text_scores, written_scores
'''


class HarnessModel(TemplateLM):
    """A model of ours as the harness asks one."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__()
        self.speaker = speaker

    @property
    def eot_token_id(self) -> int:
        return self.speaker.eot_token

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:  # noqa: ARG002, FBT001
        return self.speaker.encode(string)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encoded_pair(context, continuation, self.speaker.encode, self.speaker.eot_token)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        found = token_likelihoods(self.speaker, [(context, continuation) for _, context, continuation in requests])
        return [(each.log_likelihood, each.is_greedy) for each in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002, FBT001, FBT002
        return [each.log_likelihood for each in text_likelihoods(self.speaker, [each.args[0] for each in requests])]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002, FBT001, FBT002
        found: dict[int, str] = {}
        groups: dict[str, list[int]] = {}
        for idx, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(idx)
        for options, places in groups.items():
            how = json.loads(options)
            if how.get("do_sample") or how.get("temperature"):
                raise ConfigError(f"got generation options {options}, wanted the likeliest token: set do_sample false.")
            prompts = [requests[idx].args[0] for idx in places]
            until = [how["until"]] if isinstance(how["until"], str) else how["until"]
            written = write_until(self.speaker, prompts, until=until, max_tokens=how["max_gen_toks"])
            found |= {idx: each.text for idx, each in zip(places, written, strict=True)}
        return [found[idx] for idx in range(len(requests))]


def write_tasks(suites: Sequence[LoadedSuite], folder: Path) -> list[str]:
    """Write each suite as a task of the harness, and give their names. Prompts are in the rows: the harness adds nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scored_by_us.py").write_text(_SCORED_BY_US, encoding="utf-8")
    for each in suites:
        rows = folder / f"{each.suite.name}.jsonl"
        rows.write_text(
            "".join(json.dumps(_row(item, each), ensure_ascii=False) + "\n" for item in each.items), encoding="utf-8"
        )
        task = {
            "task": each.suite.name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(rows)}, "cache_dir": str(folder / "cache")},
            "test_split": "test",
            "num_fewshot": 0,
            "metadata": {"version": float(each.suite.version)},
            **_asked(each),
        }
        text = yaml.safe_dump(task, allow_unicode=True, sort_keys=False)
        # The harness reads a tag where safe_dump writes a text.
        text = text.replace("'!function ", "!function ").replace("_scores'", "_scores")
        (folder / f"{each.suite.name}.yaml").write_text(text, encoding="utf-8")
    return [each.suite.name for each in suites]


def _row(item: Any, loaded: LoadedSuite) -> dict[str, Any]:
    if isinstance(item, ChoiceItem):
        has_contexts = len(set(item.contexts)) > 1
        return {
            "prompt": item.gold if has_contexts else item.contexts[0],
            "choices": list(item.contexts if has_contexts else item.options),
            "target": item.continuations[0].removeprefix(loaded.delimiter) if has_contexts else item.gold,
        }
    if isinstance(item, LastWordItem):
        return {"prompt": item.context, "target": item.target}
    if isinstance(item, TextItem):
        return {"prompt": "", "target": item.text, "num_words": item.num_words, "num_bytes": item.num_bytes}
    return {
        "prompt": item.prompt,
        "target": item.references[0],
        "references": list(item.references),
        "measure": loaded.writing.measure if loaded.writing is not None else None,
    }


def _asked(loaded: LoadedSuite) -> dict[str, Any]:
    """Keys of a task that tell the harness what to ask and how to score it."""
    if loaded.kind in CHOICE_KINDS:
        metrics = [_metric(name) for name in ("acc", "acc_norm", "acc_bytes")]
        return {
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": "choices",
            "doc_to_target": "target",
            "target_delimiter": loaded.delimiter,
            "metric_list": metrics,
        }
    if loaded.kind == "last_word":
        return {
            "output_type": "loglikelihood",
            "doc_to_text": "prompt",
            "doc_to_target": "target",
            "target_delimiter": "",
            "metric_list": [_metric("perplexity", "perplexity", higher_is_better=False), _metric("acc")],
        }
    if loaded.kind == "perplexity":
        return {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "target",
            "process_results": "!function scored_by_us.text_scores",
            "metric_list": [
                _metric("word_perplexity", "weighted_perplexity", higher_is_better=False),
                _metric("byte_perplexity", "weighted_perplexity", higher_is_better=False),
                _metric("bits_per_byte", "bits_per_byte", higher_is_better=False),
            ],
        }
    if loaded.writing is None:
        raise ConfigError(
            f"got suite {loaded.suite.name} of kind {loaded.kind}, wanted one that the harness has a task for: leave it out."
        )
    return {
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "target",
        "generation_kwargs": {
            "until": list(loaded.writing.until),
            "max_gen_toks": loaded.writing.max_tokens,
            "do_sample": False,
        },
        "process_results": "!function scored_by_us.written_scores",
        "metric_list": [
            _metric(name, "chrf" if name == "chrf" else "mean") for name in WRITING_METRICS[loaded.writing.measure]
        ],
    }


def _metric(name: str, aggregation: str = "mean", *, higher_is_better: bool = True) -> dict[str, Any]:
    return {"metric": name, "aggregation": aggregation, "higher_is_better": higher_is_better}


def text_scores(doc: Mapping[str, Any], results: Sequence[float]) -> dict[str, Any]:
    """Of a whole text, by the words and bytes of the text as it was published."""
    (log_likelihood,) = results
    return {
        "word_perplexity": (log_likelihood, doc["num_words"]),
        "byte_perplexity": (log_likelihood, doc["num_bytes"]),
        "bits_per_byte": (log_likelihood, doc["num_bytes"]),
    }


def written_scores(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Of what was written: our scores an item, or the pair that the harness computes a corpus's chrF of."""
    (written,) = results
    if doc["measure"] == "translation":
        return {"chrf": (doc["references"][0], written)}
    return dict(writing_scores(doc["measure"], written, doc["references"]))


def harness_scores(model: LM, names: Sequence[str], folder: Path) -> dict[str, dict[str, float]]:
    """What the harness finds for tasks that `write_tasks` wrote: by suite, by metric."""
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(
        model=model, tasks=list(names), task_manager=manager, bootstrap_iters=0, log_samples=False, verbosity=None
    )
    return {
        name: {
            key.partition(",")[0]: float(value)
            for key, value in found["results"][name].items()
            if isinstance(value, int | float) and "stderr" not in key and key != "sample_len"
        }
        for name in names
    }


def folder_model(folder: Path) -> LM:
    """The harness's own loader on a Hugging Face folder, in fp32 on the CPU."""
    from lm_eval.models.huggingface import HFLM

    # Without its cache of logits, which (0.4.13) takes the first ones for the last where two windows of a repetitive text
    # hold the same tokens and score different numbers of them.
    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=16, logits_cache=False)


def compare(folder: Path, suites: Iterable[DeclaredSuite]) -> dict[str, Any]:
    """The scores of three: the harness on the folder, the harness on our adapter, and llm.evaluation."""
    speaker = speaker_of(read_model(folder), Encoder.load((folder / "tokenizer.json").read_text(encoding="utf-8")))
    read = [load_suite(each) for each in suites]
    left_out = {each.suite.name: reason for each in read if (reason := _left_out(speaker, each)) is not None}
    loaded = [each for each in read if each.suite.name not in left_out]
    with tempfile.TemporaryDirectory() as place:
        names = write_tasks(loaded, Path(place))
        theirs = harness_scores(folder_model(folder), names, Path(place))
        adapted = harness_scores(HarnessModel(speaker), names, Path(place))
    ours = {
        each.suite.name: {name: figure.value for name, figure in measure_suite(speaker, each).figures.items()}
        for each in loaded
    }
    return {
        "folder": theirs,
        "adapter": adapted,
        "ours": ours,
        "left_out": left_out,
        "largest_difference": {
            "folder_adapter": _largest_difference(theirs, adapted),
            "folder_ours": _largest_difference(theirs, {name: _as_theirs(scores) for name, scores in ours.items()}),
        },
    }


def _left_out(speaker: Speaker, loaded: LoadedSuite) -> str | None:
    """Why the harness's loader cannot measure a suite: it has no way to read an answer longer than the context."""
    if loaded.skipped is not None:
        return loaded.skipped
    block_size = speaker.model.config.block_size
    if loaded.writing is not None and loaded.writing.max_tokens >= block_size:
        return "an answer may be longer than the model's context"
    if loaded.kind != "last_word" and loaded.kind not in CHOICE_KINDS:
        return None
    pairs = (
        pair
        for item in loaded.items
        for pair in (
            zip(item.contexts, item.continuations, strict=True)
            if isinstance(item, ChoiceItem)
            else [(item.context, item.target)]
        )
    )
    longest = max(len(encoded_pair(*pair, speaker.encode, speaker.eot_token)[1]) for pair in pairs)
    return f"an answer has {longest} tokens, the model's context {block_size}" if longest > block_size else None


def _as_theirs(scores: Mapping[str, float]) -> dict[str, float]:
    """Their `chrf` is of the corpus; ours is the mean of the items."""
    return {**scores, **({"chrf": scores["chrf_corpus"]} if "chrf_corpus" in scores else {})}


def _largest_difference(ours: Mapping[str, Mapping[str, float]], theirs: Mapping[str, Mapping[str, float]]) -> float:
    """Over the metrics that both have; of perplexities between their logarithms; relative where a score is above 1."""
    gaps = [
        _gap(metric, value, theirs[name][metric])
        for name, scores in ours.items()
        for metric, value in scores.items()
        if metric in theirs[name]
    ]
    return max(gaps, default=math.nan)


def _gap(metric: str, ours: float, theirs: float) -> float:
    if metric.endswith("perplexity"):
        ours, theirs = math.log(ours), math.log(theirs)
    return abs(ours - theirs) / max(1.0, abs(ours))


def main(arguments: Sequence[str] | None = None, *, write: Callable[[str], Any] = sys.stdout.write) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m flows.evaluation.harness", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", type=Path, help="its suites are measured, too")
    given = parser.parse_args(arguments)
    declared = load_recipe(given.recipe).measured_suites() if given.recipe is not None else ()
    write(json.dumps(compare(given.folder, [*shipped_suites(), *declared]), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in _OFFLINE.items()):
        # Read by the libraries when they are imported, which they are by now.
        os.execve(  # noqa: S606 - ourselves again
            sys.executable,
            [sys.executable, "-m", "flows.evaluation.harness", *sys.argv[1:]],
            {**os.environ, **_OFFLINE},
        )
    main()
