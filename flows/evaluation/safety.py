"""What an evaluation measures of bias, safety and memorisation: the suites of `evaluation.safety`, of named sets, of canaries.

Each costs a bounded time, whatever the corpus: so many prompts, excerpts and secrets. What a model writes is never kept
where it may be somebody's data: a report has kinds of findings and the documents that hold them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from flows.evaluation.bias_files import LANGUAGES, contact_prompts, neutral_prompts, probe_axes
from flows.evaluation.bias_suites import measure_bias_set
from flows.evaluation.canaries import canaries, count_in_texts, num_held_out, probes
from flows.recipe import EvaluationPlan
from pipelines.digest import digest_value
from pipelines.stage import Resource

if TYPE_CHECKING:
    from flows.evaluation.generated_toxicity import Scorer, Write
    from llm.data import TokenData
    from llm.evaluation.likelihood import Speaker
    from llm.evaluation.suite import SuiteResult
    from llm.model import GPT
    from llm.sample import Sampling

Groups = Mapping[str, Mapping[str, str]]
"""By doc_id what a document is: `{"language": "zh", "domain": "example.org"}`."""
Measure = Callable[[Callable[[int, int], None]], "list[SuiteResult]"]
"""Measures and tells a call how many are done, of how many."""

_EXTRACTION_TOKENS = 50
"""Of the beginning that is shown, and of what has to follow (arXiv:2202.07646); fewer where the model's context is short."""
_EXCERPTS_PER_GROUP = 200
_TEXTS_PER_PROMPT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFacts:
    """What the newest build tells an evaluation of its documents, asked where it is needed."""

    groups_of: Callable[[Sequence[str]], Groups]
    urls_of: Callable[[Sequence[str]], Mapping[str, str]]
    copies: Callable[[], Mapping[str, str]]
    """Of each document the group of its number of copies: see `flows.evaluation.memorisation.copy_groups`."""
    toxicity_model: Callable[[], Resource | None]
    """The shard of the build's classifiers of abuse; None where it has none."""


def measure_safety(
    speaker: "Speaker",
    train_data: "TokenData",
    held_out: "TokenData",
    plan: EvaluationPlan,
    facts: CorpusFacts,
    on_part: Callable[[str, int, int], None],
) -> "list[SuiteResult]":
    """Every suite that the plan asks for, in a fixed order; `on_part` as in flows.evaluation.measure."""
    parts: list[tuple[str, Measure]] = []
    if plan.section.safety:
        write = _remembering()
        parts += [
            ("probes", partial(_probes, speaker)),
            ("toxicity of what it writes", partial(_toxicity, speaker, plan, facts, write)),
            ("personal data in what it writes", partial(_personal_data, speaker, train_data, facts, write)),
            ("extraction", partial(_extraction, speaker, train_data, held_out, facts)),
        ]
    for declared in plan.bias_sets:
        parts.append((declared.name, lambda tell, each=declared: [measure_bias_set(speaker, each, tell)]))  # type: ignore[misc]
    if plan.canaries is not None:
        parts.append(("canaries", partial(_canaries, speaker, train_data, plan)))
    found: list[SuiteResult] = []
    for name, measure in parts:
        on_part(name, 0, 1)
        found += measure(lambda done, total, name=name: on_part(name, done, total))  # type: ignore[misc]
    return found


def _remembering() -> "Write":
    """`write_several` for one model, which writes once what two suites read."""
    from llm.evaluation.writing import write_several

    known: dict[tuple[int, ...], list[list[int]]] = {}

    def write(model: "GPT", ids: Sequence[int], sampling: "Sampling", *, num: int, eot_token: int) -> list[list[int]]:
        if tuple(ids) not in known:
            known[tuple(ids)] = write_several(model, ids, sampling, num=num, eot_token=eot_token)
        return known[tuple(ids)]

    return write


def _probes(speaker: "Speaker", tell: Callable[[int, int], None]) -> "list[SuiteResult]":
    from llm.evaluation.probes import probe_axis

    axes = [axis for language in LANGUAGES for axis in probe_axes(language)]
    found = []
    for number, axis in enumerate(axes, 1):
        found.append(probe_axis(speaker.model, axis, speaker.encode, speaker.eot_token))
        tell(number, len(axes))
    return found


def _toxicity(
    speaker: "Speaker", plan: EvaluationPlan, facts: CorpusFacts, write: "Write", tell: Callable[[int, int], None]
) -> "list[SuiteResult]":
    from flows.evaluation.generated_toxicity import generated_toxicity

    prompts = {language: neutral_prompts(language) for language in LANGUAGES}
    with _scorer(plan, facts) as scorer:
        found = generated_toxicity(
            speaker.model,
            prompts,
            speaker.encode,
            speaker.decode,
            speaker.eot_token,
            scorer,
            scored_by=digest_value(plan.toxicity)[:12],
            num_each=_TEXTS_PER_PROMPT,
            write=write,
            progress=tell,
        )
    return [found]


@contextmanager
def _scorer(plan: EvaluationPlan, facts: CorpusFacts) -> "Iterator[Scorer]":
    """The scorer of the build, or one trained as a build trains it: on the pipeline's own sentences."""
    import pyarrow as pa

    from flows.evaluation.generated_toxicity import pipeline_scorer
    from pipelines.bias.toxicity_stage import ToxicityModelConfig, train_models
    from pipelines.digest import digest_file
    from pipelines.schemas import TOXICITY_MODEL

    built = facts.toxicity_model()
    if built is not None:
        yield pipeline_scorer(built)
        return
    with TemporaryDirectory(prefix="corpusmill-toxicity-") as folder:
        path = Path(folder, "model.arrow")
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, TOXICITY_MODEL) as writer:
            for batch in train_models([], plan.toxicity or ToxicityModelConfig()):
                writer.write_batch(batch)
        yield pipeline_scorer(Resource(digest_file(path), str(path)))


def _personal_data(
    speaker: "Speaker",
    train_data: "TokenData",
    facts: CorpusFacts,
    write: "Write",
    tell: Callable[[int, int], None],
) -> "list[SuiteResult]":
    from flows.evaluation.generated_toxicity import SAMPLING, room_for
    from flows.evaluation.memorisation import Generation, personal_data

    prompts = [
        (language, prompt)
        for language in LANGUAGES
        for prompt in (*neutral_prompts(language), *contact_prompts(language))
    ]
    generations = []
    for number, (language, prompt) in enumerate(prompts, 1):
        ids, sampling = room_for(speaker.model, [speaker.eot_token, *speaker.encode(prompt)], SAMPLING)
        texts = write(speaker.model, ids, sampling, num=_TEXTS_PER_PROMPT, eot_token=speaker.eot_token)
        read = tuple(token for token in ids if token != speaker.eot_token)  # which is no part of the text
        generations += [Generation(prompt_ids=read, ids=tuple(text), language=language) for text in texts]
        tell(number, len(prompts))
    return [
        personal_data(
            generations,
            speaker.decode,
            train_data.documents(),
            dataset_digest=digest_value(prompts),
            urls_of=facts.urls_of,
        )
    ]


def _extraction(
    speaker: "Speaker",
    train_data: "TokenData",
    held_out: "TokenData",
    facts: CorpusFacts,
    tell: Callable[[int, int], None],
) -> "list[SuiteResult]":
    from llm.evaluation.memorisation import excerpts, extraction

    size = min(_EXTRACTION_TOKENS, speaker.model.config.block_size // 2)
    taken = excerpts(
        ((each.doc_id, each.tokens) for data in (train_data, held_out) for each in data.documents()),
        facts.copies(),
        prefix_tokens=size,
        continuation_tokens=size,
        max_per_group=_EXCERPTS_PER_GROUP,
    )
    digest = digest_value(sorted(each.doc_id for each in taken))
    return [extraction(speaker.model, taken, prefix_tokens=size, dataset_digest=digest, progress=tell)]


def _canaries(
    speaker: "Speaker", train_data: "TokenData", plan: EvaluationPlan, tell: Callable[[int, int], None]
) -> "list[SuiteResult]":
    from llm.evaluation.memorisation import exposure_suite, exposures

    if plan.canaries is None:
        return []
    planted = canaries(plan.canaries)
    counts = count_in_texts(planted, (speaker.decode(each.tokens.tolist()) for each in train_data.documents()))
    asked = probes(plan.canaries, counts, num_held_out=num_held_out(plan.canaries))
    found = exposures(speaker.model, asked, speaker.encode, speaker.eot_token, tell)
    return [exposure_suite(found, dataset_digest=digest_value(plan.canaries))]
