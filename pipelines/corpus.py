"""The corpus as a graph of stages: one declaration that build, plan and the flows all walk.

source files -> extract -> signals -> policy -> sources -> near -> dedup -> tokenize
                   |          |         ^                   ^        |         ^
                   |          +---------)-> bands -> index -+        |         |
                   +----------+-> toxicity                           |         |
                   +-> contamination ---+                            |         |
                   +-------------------------------------------------+-> sample -> tokenizer

Where the recipe asks for them: entities (of names, read by what counts or redacts), labelled files -> toxicity_model ->
toxicity, suites -> contamination, and reference -> ngrams -> perplexity, which the policy reads too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa

from pipelines import schemas
from pipelines.bias.toxicity_stage import TOXICITY_MODEL_STAGE, TOXICITY_STAGE, ToxicityConfig, ToxicityModelConfig
from pipelines.decontaminate import CONTAMINATION_STAGE, SUITES, ContaminationConfig, SuitesConfig
from pipelines.dedup import (
    BANDS_STAGE,
    DEDUP,
    INDEX_STAGE,
    LINES_STAGE,
    NEAR_STAGE,
    BandsConfig,
    DedupConfig,
    IndexConfig,
    LinesConfig,
    NearConfig,
    OutcomesConfig,
    dedup_reading,
)
from pipelines.entities import ENTITIES_STAGE, EntityConfig, with_entities
from pipelines.errors import ConfigError, EmptyCorpusError
from pipelines.executor import Executor, InlineExecutor
from pipelines.extract import EXTRACT, ExtractConfig
from pipelines.materialize import LastBuild, OnProgress, StageResult, materialize
from pipelines.perplexity.language_models import LANGUAGE_MODELS_STAGE, LanguageModelsConfig
from pipelines.perplexity.reference import GIVEN_REFERENCE_STAGE, REFERENCE_STAGE, ReferenceConfig
from pipelines.perplexity.scores import PERPLEXITY_STAGE, ScoresConfig
from pipelines.policy import PolicyConfig, policy_reading
from pipelines.refusal import SOURCES, RefusalConfig
from pipelines.sample import SAMPLE_STAGE, SampleConfig
from pipelines.signals.measure import SIGNALS_STAGE, SignalsConfig
from pipelines.sources.text import TextOptions
from pipelines.stage import Resource, Stage
from pipelines.store import Manifest, Shard, Store
from pipelines.tokenize import TOKENIZE, TokenizeConfig
from pipelines.tokenizer import TOKENIZER_STAGE, TokenizerConfig
from pipelines.work import SourceFile, Unit, align


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityConfig:
    """What the documents' perplexity is measured with."""

    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    """Which text the models learn from."""
    models: LanguageModelsConfig = field(default_factory=LanguageModelsConfig)
    """What they learn of it."""
    files: tuple[Resource, ...] = ()
    """Rows of text, or plain text, that they learn from in place of the corpus's own documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusConfig:
    """What shapes a corpus, one part for each stage."""

    extract: ExtractConfig
    signals: SignalsConfig
    toxicity_model: ToxicityModelConfig | None = None
    """What the classifiers of abuse are trained on; None: no model."""
    toxicity_scan: str = "mentions"
    """Which sentences the model scores: see ToxicityConfig."""
    suites: SuitesConfig | None = None
    """What a model will be measured on; None: documents are not searched for it."""
    policy: PolicyConfig
    perplexity: PerplexityConfig | None = None
    """None: it is not measured."""
    refusal: RefusalConfig = field(default_factory=RefusalConfig)
    """When a whole source is refused."""
    dedup: DedupConfig
    sample: SampleConfig
    tokenizer: TokenizerConfig | Resource
    """How to train a tokenizer, or the shard that holds a given one."""
    redact: tuple[str, ...] | None
    """Kinds of personal data that are replaced before encoding; None replaces nothing."""
    entities: EntityConfig | None = None
    """A model that finds names; None: only what can be checked is found."""

    def __post_init__(self) -> None:
        if self.policy.evaluation is not None and self.suites is None:
            raise ConfigError("got a rule on evaluation suites without a suite, wanted one: name it, or drop the rule.")
        asked = self.policy.quality.perplexity_thresholds() if self.policy.quality is not None else ()
        if asked and self.perplexity is None:
            raise ConfigError(
                f"got quality.{asked[0]}, but no perplexity is measured, wanted both: add quality.perplexity, or take it out."
            )


Manifests = Mapping[str, Manifest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A stage in its place: where its inputs come from and how its config is found."""

    stage: Stage
    upstream: tuple[str, ...] = ()
    """Names of the stages whose shards it reads, unit by unit; empty for source files, or where the stage has no input."""
    needs: tuple[str, ...] = ()
    """Names of the stages that its config depends on."""
    aside: str | None = None
    """Name of the stage whose rows it may look up beside its inputs: they enter no key, since its inputs name them."""
    configure: Callable[[CorpusConfig, Manifests, Store], Any]
    files: tuple[SourceFile, ...] = ()
    """Where there is nothing upstream: files of its own in place of the corpus's sources."""
    is_cheap: bool = False
    """Whether it costs less than starting a worker: it is run in this process, and `plan` may run it, in a scratch folder,
    to predict what follows exactly."""

    @property
    def name(self) -> str:
        return self.stage.name


def corpus_nodes(config: CorpusConfig) -> tuple[Node, ...]:
    """The stages of a corpus in an order in which each comes after what it needs."""
    extract = Node(stage=EXTRACT, configure=lambda config, _done, _store: config.extract)
    entities = Node(
        stage=ENTITIES_STAGE, upstream=("extract",), configure=lambda config, _done, _store: config.entities
    )
    has_entities = config.entities is not None
    named = ("entities",) if has_entities else ()

    def reading(stage: Stage) -> Stage:
        return with_entities(stage) if has_entities else stage

    signals = Node(
        stage=reading(SIGNALS_STAGE),
        upstream=("extract", *named),
        configure=lambda config, _done, _store: config.signals,
    )
    toxicity_model = Node(stage=TOXICITY_MODEL_STAGE, configure=lambda config, _done, _store: config.toxicity_model)
    has_model = config.toxicity_model is not None
    toxicity = Node(
        stage=TOXICITY_STAGE,
        upstream=("extract", "signals"),
        needs=("toxicity_model",) if has_model else (),
        configure=toxicity_config,
    )
    suites = Node(stage=SUITES, configure=lambda config, _done, _store: config.suites, is_cheap=True)
    contamination = Node(
        stage=CONTAMINATION_STAGE, upstream=("extract",), needs=("suites",), configure=_configure_contamination
    )
    perplexity = _perplexity_nodes(config.perplexity)
    judges_suites = config.policy.evaluation is not None
    optional = (*(("contamination",) if judges_suites else ()), *(("perplexity",) if perplexity else ()))
    policy = Node(
        stage=policy_reading(suites=judges_suites, perplexity=bool(perplexity)),
        upstream=("signals", "toxicity", *optional),
        configure=lambda config, _done, _store: config.policy,
        is_cheap=True,
    )
    sources = Node(
        stage=SOURCES,
        upstream=("signals", "policy"),
        configure=lambda config, _done, _store: config.refusal,
        is_cheap=True,
    )
    bands = Node(
        stage=BANDS_STAGE,
        upstream=("signals",),
        configure=lambda config, _done, _store: likeness_configs(config.dedup)[0],
        is_cheap=True,
    )
    index = Node(
        stage=INDEX_STAGE, upstream=("bands",), configure=lambda _config, _done, _store: IndexConfig(), is_cheap=True
    )
    near = Node(
        stage=NEAR_STAGE,
        upstream=("signals", "sources"),
        needs=("index",),
        aside="extract",
        configure=_configure_near,
        is_cheap=True,
    )
    counts_lines = config.dedup.max_line_repeats is not None
    lines = Node(
        stage=LINES_STAGE,
        upstream=("extract",),
        configure=lambda config, _done, _store: LinesConfig(min_line_bytes=config.dedup.min_line_bytes),
    )
    dedup = Node(
        stage=dedup_reading(lines=counts_lines),
        upstream=("signals", "sources", *(("lines",) if counts_lines else ())),
        needs=("near",),
        configure=_configure_dedup,
        is_cheap=True,
    )
    sample = Node(
        stage=reading(SAMPLE_STAGE),
        upstream=("signals", "dedup", *named),
        aside="extract",
        configure=lambda config, _done, _store: config.sample,
        is_cheap=True,
    )
    tokenizer = Node(
        stage=TOKENIZER_STAGE,
        upstream=("sample",),
        configure=lambda config, _done, _store: config.tokenizer,
        is_cheap=True,
    )
    trains = isinstance(config.tokenizer, TokenizerConfig)
    tokenize = Node(
        stage=reading(TOKENIZE),
        upstream=("extract", "signals", "dedup", *named),
        needs=("tokenizer",) if trains else (),
        configure=_configure_tokenize,
    )
    measures = (
        *((entities,) if has_entities else ()),
        signals,
        *((toxicity_model,) if has_model else ()),
        toxicity,
        *((suites, contamination) if config.suites is not None else ()),
        *perplexity,
    )
    judged = (policy, sources, bands, index, near, *((lines,) if counts_lines else ()), dedup)
    return (extract, *measures, *judged, *((sample, tokenizer) if trains else ()), tokenize)


def _perplexity_nodes(config: PerplexityConfig | None) -> tuple[Node, ...]:
    """The stages that measure perplexity: none where the recipe does not want it."""
    if config is None:
        return ()
    given = tuple(
        SourceFile(digest=file.digest, path=file.path, kind="text", options=TextOptions()) for file in config.files
    )
    return (
        Node(
            stage=GIVEN_REFERENCE_STAGE if given else REFERENCE_STAGE,
            upstream=() if given else ("extract", "signals"),
            files=given,
            configure=lambda _config, _done, _store: config.reference,
            is_cheap=True,
        ),
        Node(
            stage=LANGUAGE_MODELS_STAGE,
            upstream=("reference",),
            configure=lambda _config, _done, _store: config.models,
        ),
        Node(
            stage=PERPLEXITY_STAGE,
            upstream=("extract", "signals"),
            needs=("ngrams",),
            configure=lambda _config, done, store: scores_config(done, store),
        ),
    )


def scores_config(done: Manifests, store: Store) -> ScoresConfig:
    """Which models a build's documents are judged by."""
    return ScoresConfig(models=_resource(done["ngrams"].entries[0].shard, store))


def tokenizer_resource(config: CorpusConfig, done: Manifests, store: Store) -> Resource:
    """The shard that holds the corpus's tokenizer, trained or given."""
    if isinstance(config.tokenizer, Resource):
        return config.tokenizer
    return _resource(done["tokenizer"].entries[0].shard, store)


def toxicity_config(config: CorpusConfig, done: Manifests, store: Store) -> ToxicityConfig:
    """How documents are looked into, with the classifiers that were trained for the corpus."""
    model = None
    if config.toxicity_model is not None:
        model = _resource(done["toxicity_model"].entries[0].shard, store)
    return ToxicityConfig(keyword_lexicons=config.signals.keyword_lexicons, model=model, scan=config.toxicity_scan)


def likeness_configs(
    config: DedupConfig,
) -> tuple[BandsConfig, Callable[[tuple[Resource, ...]], NearConfig], Callable[[Resource], OutcomesConfig]]:
    """The parts of a dedup config: of `bands`; of `near`, given the index; of `dedup`, given what `near` left."""

    def near(index: tuple[Resource, ...]) -> NearConfig:
        return NearConfig(
            index=index,
            superseded=config.superseded,
            withdrawn=config.withdrawn,
            near=config.near,
            min_similarity=config.min_similarity,
        )

    def outcomes(near_pairs: Resource) -> OutcomesConfig:
        names = [item.name for item in fields(OutcomesConfig) if item.name != "near_pairs"]
        return OutcomesConfig(near_pairs=near_pairs, **{name: getattr(config, name) for name in names})

    return BandsConfig(num_bands=config.num_bands, rows_per_band=config.rows_per_band), near, outcomes


def _configure_near(config: CorpusConfig, done: Manifests, store: Store) -> NearConfig:
    _, near, _ = likeness_configs(config.dedup)
    return near(tuple(_resource(entry.shard, store) for entry in done["index"].entries))


def _configure_dedup(config: CorpusConfig, done: Manifests, store: Store) -> OutcomesConfig:
    _, _, outcomes = likeness_configs(config.dedup)
    return outcomes(_resource(done["near"].entries[0].shard, store))


def _resource(shard: Shard, store: Store) -> Resource:
    return Resource(shard.digest, str(store.shard_path(shard.digest)))


def _configure_tokenize(config: CorpusConfig, done: Manifests, store: Store) -> TokenizeConfig:
    return TokenizeConfig(tokenizer=tokenizer_resource(config, done, store), redact=config.redact)


def _configure_contamination(_config: CorpusConfig, done: Manifests, store: Store) -> ContaminationConfig:
    return ContaminationConfig(index=_resource(done["suites"].entries[0].shard, store))


def contamination_part(done: Manifests) -> tuple[tuple[Manifest, Sequence[str]], ...]:
    """For `read_aligned`: which evaluation items stand in each document, where that was asked; else nothing."""
    return ((done["contamination"], ("doc_id", "contaminated_by")),) if "contamination" in done else ()


def measured_parts(done: Manifests, *more_signals: str) -> tuple[tuple[Manifest, Sequence[str]], ...]:
    """For `read_aligned`: the columns of MEASURED, as far as they were measured, and more of SIGNALS."""
    signals = [name for name in schemas.SIGNALS.names if name in schemas.MEASURED.names]
    return (
        (done["signals"], ("doc_id", *signals, *more_signals)),
        (done["toxicity"], schemas.TOXICITY.names),
        *contamination_part(done),
        *(((done["perplexity"], schemas.PERPLEXITY.names),) if "perplexity" in done else ()),
    )


def units_of(node: Node, sources: Sequence[SourceFile], done: Manifests) -> list[Unit]:
    """The input units of a node in an order that depends on content alone."""
    if not node.stage.inputs:
        return []
    if not node.upstream:
        by_unit = {source.unit: source for source in node.files or sources}  # the same bytes twice are one input
        return [Unit(name, (by_unit[name],)) for name in sorted(by_unit)]
    entries = [done[name].by_unit() for name in node.upstream]
    aside = done[node.aside].by_unit() if node.aside is not None else None
    return [
        Unit(
            name,
            tuple(by_unit[name].shard for by_unit in entries),
            (aside[name].shard,) if aside is not None else (),
        )
        for name in entries[0]
    ]


def last_manifests(store: Store, recipe: str, nodes: Sequence[Node]) -> dict[str, Manifest]:
    """The manifests of a recipe's last build, by stage; of a stage that it did not have there is none."""
    found = {node.name: store.ref(recipe, node.name) for node in nodes}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def last_build(node: Node, last: Manifests) -> LastBuild | None:
    """What the recipe's last build left of a node's stage and of those it reads; None where it has none of it."""
    if node.name not in last or not all(name in last for name in node.upstream):
        return None
    return LastBuild(last[node.name], tuple(last[name] for name in node.upstream))


def run_node(
    node: Node,
    config: CorpusConfig,
    sources: Sequence[SourceFile],
    done: Manifests,
    store: Store,
    executor: Executor,
    on_progress: OnProgress,
    last: Manifests | None = None,
) -> StageResult:
    """Run one stage of the corpus, given the manifests of those before it, and of the recipe's `last` build.

    Raises EmptyCorpusError where no document is kept: nothing after dedup could go on.
    """
    for name in node.needs:
        for entry in done[name].entries:
            store.expect(entry.shard)  # a config names it by path, so no reader of the store will check its bytes
    units = units_of(node, sources, done)
    known = last_build(node, last or {})
    stage_config = node.configure(config, done, store)
    runner = InlineExecutor() if node.is_cheap else executor
    result = materialize(store, node.stage, stage_config, units, runner, on_progress, known)
    if node.name == DEDUP.name and not result.manifest.counts().get("keep"):
        raise EmptyCorpusError(_why_empty(result.manifest))
    return result


def build(
    store: Store,
    sources: Sequence[SourceFile],
    config: CorpusConfig,
    executor: Executor,
    on_progress: OnProgress,
    last: Manifests | None = None,
) -> dict[str, StageResult]:
    """Run every stage of the corpus, in order; returns what each did, by name. What the `last` build left saves work."""
    results: dict[str, StageResult] = {}
    for node in corpus_nodes(config):
        done = {name: result.manifest for name, result in results.items()}
        results[node.name] = run_node(node, config, sources, done, store, executor, on_progress, last)
    return results


def given_tokenizer_resource(store: Store, tokenizer_json: str) -> Resource:
    """Put a given tokenizer into the store as the shard that tokenize reads."""
    batch = pa.record_batch([pa.array([tokenizer_json], pa.large_string())], schema=schemas.TOKENIZER)
    return _resource(store.write(schemas.TOKENIZER, [batch]), store)


def tokenizer_json(resource: Resource) -> str:
    """The text of a tokenizer resource."""
    with pa.memory_map(resource.path) as source:
        return str(pa.ipc.open_stream(source).read_all().column("tokenizer_json")[0].as_py())


def read_aligned(store: Store, *parts: tuple[Manifest, Sequence[str]]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Verified rows of several stages side by side: (unit, batch with the named columns of each part).

    Each part is a manifest and the columns wanted of it, `doc_id` among them.
    """
    entries = [manifest.by_unit() for manifest, _ in parts]
    for unit in entries[0]:
        streams = [
            store.read(by_unit[unit].shard, columns) for by_unit, (_, columns) in zip(entries, parts, strict=True)
        ]
        for batch in align(streams):
            yield unit, batch


def _why_empty(manifest: Manifest) -> str:
    counts = manifest.counts()
    num_documents = sum(count for name, count in counts.items() if name in ("keep", "drop"))
    if not num_documents:
        return "got no page from any source, wanted at least one: check the seeds or paths, and the crawl's outcomes."
    reasons = sorted(
        ((count, name.removeprefix("drop:")) for name, count in counts.items() if name.startswith("drop:")),
        reverse=True,
    )
    shown = ", ".join(f"{name} {count}" for count, name in reasons[:4])
    return (
        f"got {num_documents} documents and kept none ({shown}), wanted at least one: "
        "loosen those rules in the recipe, or give it other pages."
    )
