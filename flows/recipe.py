"""A recipe: one YAML file that says what a corpus and its model are made from.

The file is validated whole before anything runs. An unknown key is an error that names the nearest
known one; a wrong type or an impossible value names its place, what was got and what is wanted.
"""

import difflib
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import TypeAdapter, ValidationError

from flows.evaluation.bias_suites import BiasSets, DeclaredBiasSet, check_bias_set, declared_bias_sets
from flows.evaluation.canaries import CanaryPlan
from flows.evaluation.suites import DeclaredSuite, SuiteSection, declared_suite, shipped_suites
from flows.model.start import FROM_START, check_shape, check_tokenizer, start_config
from flows.tracker.gates import RegistrySection
from flows.workspace import Workspace
from llm.config import PRESETS, ModelConfig, RunConfig, TrainConfig
from pipelines.bias.disparity import AuditConfig
from pipelines.bias.toxicity_stage import ToxicityModelConfig
from pipelines.blocklists import BlockList, BlockListKind, list_names
from pipelines.corpus import CorpusConfig, PerplexityConfig, given_tokenizer_resource
from pipelines.crawl.address import AllowedAddresses
from pipelines.crawl.config import CrawlConfig
from pipelines.decontaminate import SuitesConfig, check_suite
from pipelines.dedup import DedupConfig
from pipelines.digest import EXECUTION_ONLY, digest_file
from pipelines.entities import EntityConfig, ModelFile, checked_kinds
from pipelines.errors import ConfigError, InputError, IntegrityError
from pipelines.extract import ExtractConfig
from pipelines.perplexity.language_models import LanguageModelsConfig
from pipelines.perplexity.reference import ReferenceConfig
from pipelines.pii import DEFAULT_KINDS, ENTITY_KINDS
from pipelines.pii import KINDS as PII_KINDS
from pipelines.policy import (
    BiasRules,
    ClassifierRule,
    ComplianceRules,
    EvaluationRules,
    LanguageRules,
    PiiRules,
    PolicyConfig,
    QualityRules,
)
from pipelines.redaction import secret_in
from pipelines.refusal import RefusalConfig
from pipelines.sample import SampleConfig
from pipelines.signals.classifiers import Classifier
from pipelines.signals.fasttext_file import labels_of
from pipelines.signals.measure import SignalsConfig
from pipelines.sources.files import REMOTE_SCHEMES, expand, is_remote
from pipelines.sources.remote import held_file, remote_path
from pipelines.sources.text import TextOptions
from pipelines.stage import Resource
from pipelines.store import Store
from pipelines.suites import SUITE_SUFFIXES, Suite, suite_names
from pipelines.takedown.ledger import read_ledger, takedown_of
from pipelines.tokenizer import TokenizerConfig, given_tokenizer, gpt2_tokenizer

_COMPLIANCE_REST = (
    "lexicons",
    "blocked_domains",
    "blocked_urls",
    "allow_addresses",
    "max_list_age_hours",
    "max_source_violation_ratio",
    "min_source_documents",
)
"""Keys of the section compliance that are not the policy's own rules."""
_ENTITY_KEYS = ("entity_model", "entity_kinds", "entity_min_score")
_MAX_LIST_AGE_HOURS = 7 * 24.0
"""GB/T 45654-2025 asks for keyword libraries that are updated every week."""
_SUITE_KEYS = ("suites", "innocent", "decontaminate", "max_suite_items")
"""Keys of the section evaluation that shape the corpus, not what is measured after training."""
_AUDIT_KEYS = (
    "max_disparity_ratio",
    "on_disparity",
    "max_identity_false_positive_rate",
    "min_group_documents",
    "max_false_discovery_rate",
)
_BIAS_REST = (*_AUDIT_KEYS, "toxicity")
"""Keys of the section bias that are not the policy's own rules."""
_QUALITY_REST = ("perplexity", "classifiers")
"""Keys of the section quality that are not the policy's own rules."""
_MAX_VALUES = 100_000
"""Of a recipe, its lists written out."""
_DEFAULT_ARBITER_THRESHOLD = SignalsConfig().arbiter_threshold
DEMO = Path(__file__).parent / "recipes" / "demo.yaml"
"""The embedded recipe that runs when none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlSource:
    """Pages fetched from seeds."""

    kind: Literal["crawl"]
    name: str
    config: CrawlConfig
    serve: str | None = None
    """A folder that is served on loopback in place of the seeds' hosts during the crawl; `sample` is the embedded site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarcSource:
    """Pages from WARC or WET files, here or remote."""

    kind: Literal["warc"]
    name: str
    paths: tuple[str, ...]
    """Files, globs, folders, http, https or s3 URLs, and listings of files (`warc.paths.gz`), here or remote."""
    base_url: str | None = None
    """Where the lines of listings lie; for Common Crawl `https://data.commoncrawl.org/` or `s3://commoncrawl/`."""
    max_files: int | None = None
    """The first files of each listing; null takes all."""
    max_records: int | None = None
    """The first records of each remote file, one gzip member a record; null takes all."""
    allow_addresses: tuple[str, ...] = ()
    """Addresses that are not public and may be reached: "host:port", an address or a CIDR block."""
    anonymous: bool = False
    """S3 without credentials."""
    endpoint_url: str | None = None
    """An S3 store other than AWS."""

    def __post_init__(self) -> None:
        remote = [path for path in self.paths if is_remote(path)]
        for name, url in (*(("paths", path) for path in remote), ("base_url", self.base_url)):
            if url is not None:
                _check_remote(name, url, REMOTE_SCHEMES)
        if self.endpoint_url is not None:
            _check_remote("endpoint_url", self.endpoint_url, ("http", "https"))
        for name in ("max_files", "max_records"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ConfigError(f"{name}: got {count}, wanted at least 1, or null for all: correct it.")
        if self.max_records is not None and not remote and self.base_url is None:
            raise ConfigError("max_records: got a limit for remote files, wanted a URL too: take it out, or name one.")
        AllowedAddresses.parse(self.allow_addresses)


def _check_remote(name: str, url: str, schemes: Sequence[str]) -> None:
    try:
        parts = urlsplit(url)
        is_good = bool(parts.hostname) and parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good or not url.isprintable():
        raise ConfigError(f"{name}: got {_shown(url)}, wanted an {', '.join(schemes)} URL: correct it.")
    if "@" in parts.netloc:
        raise ConfigError(f"{name}: got a URL with a user name, wanted one without: take the credentials out of it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource:
    """Rows of text from files or from a dataset on the Hugging Face hub."""

    kind: Literal["text"]
    name: str
    paths: tuple[str, ...] = ()
    dataset: str | None = None
    split: str = "train"
    max_rows: int | None = None
    """Rows taken of the dataset; null takes all."""
    text_field: str = "text"
    url_field: str | None = "url"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteList:
    """A list that is named by URL."""

    field: str
    """The recipe's key that names it."""
    url: str
    kind: BlockListKind | None
    """None: a word list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanariesSource:
    """Pages with random words that are written for measuring: the evaluation tells how well the model knows these."""

    kind: Literal["canaries"]
    name: str
    plan: CanaryPlan


Source = CrawlSource | WarcSource | TextSource | CanariesSource


@dataclass(frozen=True, slots=True, kw_only=True)
class ToxicitySection:
    """The classifier of abusive sentences, and what it is trained on beside sentences of our own."""

    train: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Language, en or zh, to labelled files: JSONL, CSV or TSV."""
    text_field: str = "text"
    label_field: str = "label"
    """0 or 1, true or false, yes or no: whether the text is abusive."""
    scan: Literal["mentions", "all"] = "mentions"
    """Sentences that name a group or hold a word of the abuse list, or all of them."""

    def config(self, base: Path) -> ToxicityModelConfig:
        """How the classifiers are trained, with the files found and digested."""
        files = {
            language: tuple(_resource(base / path, f"bias.toxicity.train.{language}") for path in paths)
            for language, paths in self.train.items()
        }
        return ToxicityModelConfig(train=files, text_field=self.text_field, label_field=self.label_field)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexitySection:
    """What documents' perplexity is measured with."""

    reference: tuple[str, ...] | None = None
    """Files of text that the models learn from (JSONL with `text`, Parquet, plain text); null: the corpus's own documents."""
    languages: tuple[str, ...] | None = None
    """ISO 639 codes of the languages that get a model; null: those of `language.allowed`, or en and zh."""
    order: int = LanguageModelsConfig().order
    vocab_size: int = LanguageModelsConfig().vocab_size
    min_count: int = LanguageModelsConfig().min_count
    max_bytes: int = ReferenceConfig().max_bytes
    """Of reference text in each language, at most; training takes about 50 bytes of memory for each."""
    min_bytes: int = LanguageModelsConfig().min_bytes
    """Of reference text, below which a language gets no model."""

    def __post_init__(self) -> None:
        if self.reference is not None and not self.reference:
            raise ConfigError("reference: got an empty list, wanted files, or null for the corpus's own documents.")
        self.config(self.languages or ("en",), ())

    def config(self, languages: tuple[str, ...], files: tuple[Resource, ...]) -> PerplexityConfig:
        """What the stages take."""
        return PerplexityConfig(
            reference=ReferenceConfig(languages=languages, max_bytes=self.max_bytes),
            models=LanguageModelsConfig(
                order=self.order, vocab_size=self.vocab_size, min_count=self.min_count, min_bytes=self.min_bytes
            ),
            files=files,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSection:
    """A fastText classifier given as a file."""

    file: str
    label: str
    min_score: float | None = None
    """Probability of the label below which a document is dropped; null only measures."""
    name: str
    languages: tuple[str, ...] | None = None
    """Whose documents it is asked about; null: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSection:
    """Where the tokenizer comes from."""

    kind: Literal["train", "file", "gpt2"] = "train"
    path: str | None = None
    """`file`: a tokenizer.json. `gpt2`: a folder with the published encoder.json and vocab.bpe."""
    vocab_size: int = 8192
    """`train`: entries, the 256 bytes and the end-of-text token included."""
    min_frequency: int = 2
    """`train`: a pair seen less often is not merged."""
    max_sample_bytes: int = 64 << 20
    """`train`: text bytes it is trained on, at most."""

    def __post_init__(self) -> None:
        if self.kind != "train" and self.path is None:
            wanted = "a tokenizer.json" if self.kind == "file" else "a folder with encoder.json and vocab.bpe"
            raise ConfigError(f"tokenizer.path: got nothing for kind {self.kind!r}, wanted {wanted}: add it.")
        if self.kind == "train":
            self.trained()
        SampleConfig(max_sample_bytes=self.max_sample_bytes)

    def trained(self) -> TokenizerConfig:
        """How it is trained."""
        return TokenizerConfig(vocab_size=self.vocab_size, min_frequency=self.min_frequency)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitySection:
    """A named-entity model: keys of the section pii."""

    entity_model: str
    """A folder with model.onnx, config.json and tokenizer.json."""
    entity_kinds: dict[str, str] | None = None
    """Types of its labels (PER) to kinds of placeholders (person); null takes the usual ones for people and addresses."""
    entity_min_score: float = 0.5
    """Mean probability of an entity's words from which it counts."""

    def __post_init__(self) -> None:
        given = tuple(sorted((self.entity_kinds or {}).items()))
        EntityConfig(files=(), kinds=given, min_score=self.entity_min_score)

    def config(self, base: Path) -> EntityConfig:
        """The model with its files found and digested. Raises ConfigError."""
        folder = base / self.entity_model
        kinds = checked_kinds(folder, self.entity_kinds)
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        shown = (path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))
        named = ((path.relative_to(folder).as_posix(), _resource(path, "pii.entity_model")) for path in shown)
        return EntityConfig(
            files=tuple(ModelFile(name, file) for name, file in named), kinds=kinds, min_score=self.entity_min_score
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection:
    """The shape of the model: a preset (`from_start`: that of training.start_from), and what differs from it."""

    preset: str = "nano"
    block_size: int | None = None
    dropout: float | None = None
    n_layer: int | None = None
    n_head: int | None = None
    n_embd: int | None = None

    def __post_init__(self) -> None:
        if self.preset not in (*PRESETS, FROM_START):
            raise ConfigError(f"got preset {self.preset!r}, wanted one of {', '.join(PRESETS)}: correct model.preset.")

    def config(self, vocab_size: int, start: ModelConfig | None = None) -> ModelConfig:
        """The model's config for a vocabulary; `start` is that of the model to start from."""
        sizes = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "preset"}
        given = {name: size for name, size in sizes.items() if size is not None}
        if self.preset != FROM_START:
            return replace(PRESETS[self.preset](vocab_size=vocab_size), **given)
        if start is None:
            raise ConfigError(
                f"got preset {FROM_START}, wanted training.start_from too: name the model's folder there."
            )
        return replace(start, **given)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSection:
    """What is measured after training."""

    prompts: tuple[str, ...] = ("The ", "In the ", "这")
    """Beginnings that the model goes on from; the texts are shown to reviewers."""
    sample_tokens: int = 60
    temperature: float = 0.8
    top_k: int | None = 50
    applications: bool = True
    """Whether the suites that ship are measured: translation, answers, summaries, similarity and sentiment, English and Chinese."""
    ladder: bool = True
    """Whether models of older kinds are trained on the same tokens, for the model to beat: some seconds, or minutes where
    the vocabulary is large."""
    safety: bool = True
    """Whether probes of bias, the toxicity of what it writes, personal data in it, and text that it goes on with word for
    word are measured."""
    bias_sets: BiasSets = field(default_factory=BiasSets, metadata=EXECUTION_ONLY)
    """Published sets on bias that are measured; the plan has their digests."""

    def __post_init__(self) -> None:
        if self.sample_tokens < 0:
            raise ConfigError(f"got sample_tokens {self.sample_tokens}, wanted at least 0: correct it.")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"got temperature {self.temperature}, wanted at least 0: 0 takes the likeliest token.")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"got top_k {self.top_k}, wanted at least 1, or null to draw from all tokens.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """The section with the suites found and digested: what an evaluation's key is of."""

    section: EvaluationSection
    suites: tuple[DeclaredSuite, ...]
    bias_sets: tuple[DeclaredBiasSet, ...] = ()
    toxicity: ToxicityModelConfig | None = None
    """How the scorer of what the model writes is trained; None where that is not measured."""
    canaries: CanaryPlan | None = None
    """What a source planted; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A validated recipe."""

    name: str
    base: Path
    """Folder that relative paths start from: the recipe's own."""
    sources: tuple[Source, ...]
    extract: ExtractConfig
    arbiter_threshold: float | None
    keyword_lexicons: tuple[str, ...]
    blocked_domains: tuple[str, ...]
    """Files or URLs of domains that no document may come from."""
    blocked_urls: tuple[str, ...]
    """Files or URLs of URLs, likewise."""
    list_addresses: tuple[str, ...]
    """Addresses that are not public and that lists may be fetched from."""
    max_list_age_hours: float | None
    """A list named by URL is fetched anew once it is older; None: never."""
    suites: tuple[str, ...]
    """Files, globs or folders of evaluation suites that no document may hold the text of."""
    measured: tuple[SuiteSection, ...]
    """Suites that the model is measured on; their files are among `suites`."""
    innocent: tuple[str, ...]
    """Files, globs or folders of texts that may stand in any document, a suite or not."""
    perplexity: PerplexitySection | None
    """None: perplexity is not measured."""
    classifiers: tuple[ClassifierSection, ...]
    audit: AuditConfig | None
    """What filters may do to groups of people; None: not audited."""
    toxicity: ToxicitySection | None
    """The classifier of abuse; None: none."""
    refusal: RefusalConfig
    """When a source is refused whole."""
    policy: PolicyConfig
    redact: tuple[str, ...] | None
    entity_model: EntitySection | None
    dedup: DedupConfig
    tokenizer: TokenizerSection
    model: ModelSection
    training: TrainConfig
    """Its `start_from` is a digest, which only the folder below can tell."""
    start_from: Path | None
    """Folder of the model to start from; None: fresh weights."""
    run: RunConfig
    evaluation: EvaluationSection
    registry: RegistrySection | None
    """None: models are not registered."""
    raw: Mapping[str, Any] = field(repr=False)
    """The file as it was read, for the record."""

    def corpus_config(self, store: Store) -> CorpusConfig:
        """What shapes the corpus, with word lists and a given tokenizer found and digested, and what is taken down.

        Raises ConfigError or InputError for a file that is missing or is not what it should be, IntegrityError for a
        damaged ledger of take-downs.
        """
        entities = self.entity_model.config(self.base) if self.entity_model is not None else None
        redact = self._redact(entities)
        place = Workspace(store.root.parent)
        remote = place.remote_folder
        lexicons = tuple(self._list_file(path, "lexicons", remote) for path in self.keyword_lexicons)
        return CorpusConfig(
            extract=replace(self.extract, takedown=takedown_of(read_ledger(place.takedown_ledger))),
            signals=SignalsConfig(
                arbiter_threshold=self.arbiter_threshold,
                keyword_lexicons=lexicons,
                classifiers=self._classifiers(),
            ),
            toxicity_model=None if self.toxicity is None else self.toxicity.config(self.base),
            toxicity_scan="mentions" if self.toxicity is None else self.toxicity.scan,
            suites=self._suites(),
            perplexity=self._perplexity(),
            policy=replace(self.policy, block_lists=self._block_lists(remote)),
            refusal=self.refusal,
            dedup=self.dedup,
            sample=SampleConfig(max_sample_bytes=self.tokenizer.max_sample_bytes, redact=redact),
            tokenizer=self._tokenizer(store),
            redact=redact,
            entities=entities,
        )

    def _perplexity(self) -> PerplexityConfig | None:
        section = self.perplexity
        if section is None:
            return None
        files = tuple(_resource(self.base / path, "quality.perplexity.reference") for path in section.reference or ())
        usual = ReferenceConfig().languages if self.policy.language is None else self.policy.language.allowed
        return section.config(section.languages or usual, files)

    def _classifiers(self) -> tuple[Classifier, ...]:
        return tuple(
            Classifier(
                name=each.name, file=_fasttext_model(self.base, each), label=each.label, languages=each.languages
            )
            for each in self.classifiers
        )

    def _redact(self, entities: EntityConfig | None) -> tuple[str, ...] | None:
        """The kinds to redact; where none are listed, all that the model finds are among them."""
        lists_them = isinstance(section := self.raw.get("pii"), Mapping) and "redact" in section
        if entities is None or self.redact is None or lists_them:
            return self.redact
        return tuple(sorted({*self.redact, *(kind for _, kind in entities.kinds)}))

    def check_files(self) -> None:
        """Raise ConfigError for a named file that is missing, or a suite that cannot be read, before anything is done."""
        for name, paths in self._lists():
            for path in paths:
                if not is_remote(path):
                    _resource(self.base / path, f"compliance.{name}")
        self.measured_suites()
        for declared in declared_bias_sets(self.evaluation.bias_sets, self.base):
            check_bias_set(declared)
        suites = self._suites()
        for suite in suites.suites if suites is not None else ():
            try:
                check_suite(suite)
            except InputError as error:
                raise ConfigError(f"evaluation.suites: {error}") from error

        if self.start_from is not None:
            model = self.model_config(self.tokenizer.vocab_size)
            self.training.sequences_per_step(model.block_size, num_processes=self.run.num_processes)
            check_tokenizer(self._given_tokenizer(), self.start_from)

    def evaluation_plan(self) -> EvaluationPlan:
        """All that is measured after training. Raises ConfigError for a suite or a set whose file is missing."""
        section = self.evaluation
        shipped = shipped_suites() if section.applications else ()
        toxicity = ToxicityModelConfig() if self.toxicity is None else self.toxicity.config(self.base)
        return EvaluationPlan(
            section=section,
            suites=(*shipped, *self.measured_suites()),
            bias_sets=declared_bias_sets(section.bias_sets, self.base),
            toxicity=toxicity if section.safety else None,
            canaries=next((source.plan for source in self.sources if isinstance(source, CanariesSource)), None),
        )

    def measured_suites(self) -> tuple[DeclaredSuite, ...]:
        """The suites that the model is measured on, with their files found and digested. Raises ConfigError."""
        found = []
        for section in self.measured:
            try:
                found.append(declared_suite(section, self.base))
            except ConfigError as error:
                raise ConfigError(f"evaluation.suites ({section.name}): {error}") from error
        return tuple(found)

    def model_config(self, vocab_size: int) -> ModelConfig:
        """The model's config for a vocabulary. Raises ConfigError where the model to start from is not there or another."""
        if self.start_from is None:
            return self.model.config(vocab_size)
        start = start_config(self.start_from)
        config = self.model.config(vocab_size, start)
        check_shape(config, start)
        return config

    def _suites(self) -> SuitesConfig | None:
        if not self.suites:
            return None
        paths = _expanded(self.suites, self.base, "evaluation.suites")
        names = suite_names(paths, self.base)
        return SuitesConfig(
            suites=tuple(
                Suite(name=name, file=_resource(path, "evaluation.suites"))
                for name, path in zip(names, paths, strict=True)
            ),
            innocent=tuple(
                _resource(path, "evaluation.innocent")
                for path in _expanded(self.innocent, self.base, "evaluation.innocent")
            ),
        )

    def remote_lists(self) -> list[RemoteList]:
        """The lists that are named by URL, each once a key."""
        kinds = {"blocked_domains": BlockListKind.DOMAINS, "blocked_urls": BlockListKind.URLS}
        return [
            RemoteList(field=f"compliance.{name}", url=path, kind=kinds.get(name))
            for name, paths in self._lists()
            for path in dict.fromkeys(paths)
            if is_remote(path)
        ]

    def _lists(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("lexicons", self.keyword_lexicons),
            ("blocked_domains", self.blocked_domains),
            ("blocked_urls", self.blocked_urls),
        )

    def lexicon_files(self, remote: Path) -> list[tuple[str, Path]]:
        """The word lists, by their names in the recipe; `remote` is the workspace's folder of fetched files."""
        return [(path, Path(self._list_file(path, "lexicons", remote).path)) for path in self.keyword_lexicons]

    def _list_file(self, path: str, name: str, remote: Path) -> Resource:
        """A list's file, in the workspace where it was named by URL."""
        if not is_remote(path):
            return _resource(self.base / path, f"compliance.{name}")
        held = held_file(path, remote)
        if held is None:
            raise ConfigError(
                f"compliance.{name}: got {path}, which is not fetched yet, wanted it in the workspace: "
                "run `corpusmill build` first, or name a file."
            )
        file = _resource(remote_path(path, remote), f"compliance.{name}")
        if file.digest != held.digest:
            raise IntegrityError(
                f"got {file.path}, which is not what was fetched from {path}, wanted it untouched: remove it to fetch it anew."
            )
        return file

    def _block_lists(self, remote: Path) -> tuple[BlockList, ...]:
        given = [(path, BlockListKind.DOMAINS) for path in self.blocked_domains]
        given += [(path, BlockListKind.URLS) for path in self.blocked_urls]
        names = list_names(path for path, _ in given)
        return tuple(
            BlockList(name=name, kind=kind, file=self._list_file(path, f"blocked_{kind}", remote))
            for name, (path, kind) in zip(names, given, strict=True)
        )

    def _tokenizer(self, store: Store) -> TokenizerConfig | Resource:
        section = self.tokenizer
        if section.kind == "train" or section.path is None:
            return section.trained()
        return given_tokenizer_resource(store, self._given_tokenizer())

    def _given_tokenizer(self) -> str:
        path = self.base / (self.tokenizer.path or "")
        return given_tokenizer(path) if self.tokenizer.kind == "file" else gpt2_tokenizer(path)


def load_recipe(path: Path | None) -> Recipe:
    """Read and validate a recipe; None is the embedded demo.

    Raises ConfigError, one sentence with the file, the field and the reason.
    """
    path = path or DEMO
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: got no readable recipe ({error}), wanted a YAML file: check the path.") from error
    try:
        return parse_recipe(text, path.absolute().parent)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error


def parse_recipe(text: str, base: Path) -> Recipe:
    """Validate a recipe's text; `base` is where its relative paths start."""
    try:
        data = yaml.safe_load(text)
        num_values = _num_values(data, {})
    except RecursionError as error:
        raise ConfigError("got values within values without end, wanted a mapping of sections: correct it.") from error
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}, column {place.column + 1}" if place is not None else ""
        raise ConfigError(f"got text that is not YAML{where}, wanted a mapping of sections: correct it.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"got {type(data).__name__}, wanted a mapping with name and sources: see the README.")
    if num_values > _MAX_VALUES:
        raise ConfigError(f"got {num_values:,} values, wanted at most {_MAX_VALUES:,}: put lists into files.")
    _refuse_secrets(data, "")
    known = (
        "name",
        "sources",
        "extract",
        "language",
        "quality",
        "compliance",
        "bias",
        "pii",
        "dedup",
        "tokenizer",
        "model",
        "training",
        "evaluation",
        "registry",
    )
    _refuse_unknown(data, known, "")
    name = _name(data.get("name"))
    compliance = _mapping(data, "compliance")
    language = _mapping(data, "language")
    pii = _mapping(data, "pii")
    training, start = _split(_mapping(data, "training") or {}, ("start_from",))
    run_names = [item.name for item in fields(RunConfig)]
    language_rules, arbiter = _split(language, ("arbiter_threshold",))
    compliance_rules, compliance_rest = _split(compliance, _COMPLIANCE_REST)
    pii_rules, pii_rest = _split(pii, ("redact", *_ENTITY_KEYS))
    evaluation, suites = _split(_mapping(data, "evaluation") or {}, _SUITE_KEYS)
    measured = _measured(suites)
    suite_paths = _suite_paths(suites, measured)
    if isinstance(sets := (evaluation or {}).get("bias_sets"), dict):
        _refuse_unknown(sets, [item.name for item in fields(BiasSets)], "evaluation.bias_sets")
    bias_rules, bias_rest = _split(_mapping(data, "bias"), _BIAS_REST)
    audit = {name: value for name, value in bias_rest.items() if name in _AUDIT_KEYS}
    quality_rules, quality_rest = _split(_mapping(data, "quality"), _QUALITY_REST)
    classifiers = _classifiers(quality_rest.get("classifiers", []))
    policy = PolicyConfig(
        language=_part(language_rules, "language", LanguageRules, also=("arbiter_threshold",)),
        quality=_part(quality_rules, "quality", QualityRules, also=_QUALITY_REST),
        classifiers=tuple(
            ClassifierRule(name=each.name, min_score=each.min_score, languages=each.languages)
            for each in classifiers
            if each.min_score is not None
        ),
        compliance=_part(compliance_rules, "compliance", ComplianceRules, also=_COMPLIANCE_REST),
        evaluation=_evaluation_rules(suites) if suite_paths else None,
        bias=_part(bias_rules, "bias", BiasRules, also=_BIAS_REST),
        pii=_part(pii_rules, "pii", PiiRules, also=("redact", *_ENTITY_KEYS)),
    )
    recipe = Recipe(
        name=name,
        base=base,
        sources=_sources(data.get("sources")),
        extract=_part(_mapping(data, "extract") or {}, "extract", ExtractConfig),
        arbiter_threshold=_value(
            arbiter.get("arbiter_threshold", _DEFAULT_ARBITER_THRESHOLD), "language.arbiter_threshold", float | None
        ),
        keyword_lexicons=_files(compliance_rest, "lexicons"),
        blocked_domains=_files(compliance_rest, "blocked_domains"),
        blocked_urls=_files(compliance_rest, "blocked_urls"),
        suites=suite_paths,
        measured=measured,
        innocent=_patterns(suites, "innocent"),
        list_addresses=_list_addresses(compliance_rest),
        max_list_age_hours=_max_list_age_hours(compliance_rest),
        perplexity=_perplexity(quality_rest, policy.quality),
        classifiers=classifiers,
        audit=None if bias_rules is None else _part(audit, "bias", AuditConfig),
        toxicity=_toxicity(bias_rules, bias_rest),
        refusal=_refusal(compliance_rest, complies=compliance is not None),
        policy=policy,
        redact=_redacted_kinds(pii, pii_rest),
        entity_model=_entity_model(pii_rules, pii_rest),
        dedup=_dedup(_mapping(data, "dedup"), complies=compliance is not None),
        tokenizer=_part(_mapping(data, "tokenizer") or {}, "tokenizer", TokenizerSection),
        model=_part(_mapping(data, "model") or {}, "model", ModelSection),
        training=_training(training or {}, run_names),
        start_from=_start_from(start, base),
        run=_part(_split(training, run_names)[1], "training", RunConfig),
        evaluation=_part(evaluation, "evaluation", EvaluationSection, also=_SUITE_KEYS),
        registry=_part(_mapping(data, "registry"), "registry", RegistrySection) if "registry" in data else None,
        raw=data,
    )
    _check_sizes(recipe)
    return recipe


def _check_sizes(recipe: Recipe) -> None:
    """Refuse sizes that do not go together now, and not when the corpus is built and training begins."""
    _check_start(recipe)
    if recipe.model.preset == FROM_START:
        return  # the sizes are in a folder, which may be gone by the time that a command only looks
    where = "model"
    try:
        model = recipe.model.config(recipe.tokenizer.vocab_size)
        where = "training"
        recipe.training.sequences_per_step(model.block_size, num_processes=recipe.run.num_processes)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_start(recipe: Recipe) -> None:
    if recipe.start_from is None:
        if recipe.model.preset == FROM_START:
            recipe.model.config(recipe.tokenizer.vocab_size)  # says what is missing
        return
    if recipe.tokenizer.kind == "train":
        raise ConfigError(
            "tokenizer.kind: got train with training.start_from, wanted the tokenizer of that model: set kind to file and "
            f"path to the tokenizer.json of {recipe.start_from}."
        )


def _start_from(section: Mapping[str, Any], base: Path) -> Path | None:
    path: str | None = _value(section.get("start_from"), "training.start_from", str | None)
    return None if path is None else base / path


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name or not all(char.isalnum() or char in "-_" for char in name):
        raise ConfigError(f"name: got {name!r}, wanted letters, digits, '-' and '_': name the recipe.")
    return name


def _mapping(data: Mapping[str, Any], section: str) -> dict[str, Any] | None:
    """A section's keys; None where it is `off` (which YAML reads as false)."""
    value = data.get(section, {})
    if value is False or value == "off":
        return None
    if value is None or value is True or value == "on":
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{section}: got {value!r}, wanted a mapping or off: correct it.")
    return value


def _split(section: Mapping[str, Any] | None, names: Sequence[str]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """A section without the named keys, and those keys."""
    if section is None:
        return None, {}
    rest = {name: value for name, value in section.items() if name not in names}
    return rest, {name: value for name, value in section.items() if name in names}


def _part(data: Mapping[str, Any] | None, where: str, kind: type[Any], *, also: Sequence[str] = ()) -> Any:
    """A section as the config that it stands for; None stays None."""
    if data is None:
        return None
    known = (item.name for item in fields(kind) if item.metadata.get("in_recipe", True))
    _refuse_unknown(data, [*known, *also], where)
    return _value(dict(data), where, kind)


def _value(value: Any, where: str, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"])]) if first["loc"] else where
        reason = first["msg"].removeprefix("Input should be ")
        raise ConfigError(
            f"{place}: got {_shown(first['input'])}, wanted {reason[0].lower()}{reason[1:]}: correct it."
        ) from error
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _num_values(value: Any, known: dict[int, int]) -> int:
    """How many values a text of YAML stands for, its aliases written out; a few lines can stand for more than a memory holds.

    Raises RecursionError for one that holds itself.
    """
    if not isinstance(value, Mapping | list):
        return 1
    if id(value) not in known:
        below = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_num_values(item, known) for item in below)
    return known[id(value)]


def _refuse_secrets(value: Any, where: str) -> None:
    """A recipe is kept, shown and sent around: what lets its holder in is refused before anything else is looked at."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _refuse_secrets(str(name), where)
            _refuse_secrets(item, f"{where}.{name}" if where else str(name))
    elif isinstance(value, list):
        for idx, item in enumerate(value):
            _refuse_secrets(item, f"{where}.{idx}")
    elif isinstance(value, str) and (kind := secret_in(value)) is not None:
        raise ConfigError(
            f"{where}: got {kind}, wanted no secret in a recipe: take the credentials out of it; {_elsewhere(value)}."
        )


def _elsewhere(text: str) -> str:
    """Where what a recipe may not hold belongs."""
    if text.startswith(("s3:", "http")) and ("amz-" in text.lower() or text.startswith("s3:")):
        return "name the object by s3:// and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if "hf_" in text:
        return "set HF_TOKEN in the environment"
    return "fetch what needs a login first and name the file, or set the environment of the run (in Prefect: a Secret block)"


def _refuse_unknown(data: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in data:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
            place = f"{where}.{name}" if where else str(name)
            raise ConfigError(f"{place}: got an unknown key, wanted a known one: {hint}")


def _sources(items: Any) -> tuple[Source, ...]:
    if not isinstance(items, list) or not items:
        raise ConfigError(f"sources: got {_shown(items)}, wanted a list of at least one source: see the README.")
    sources = tuple(_source(item, idx) for idx, item in enumerate(items))
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"sources: got two sources named {name!r}, wanted one name each: set `name` on one.")
    if sum(isinstance(source, CanariesSource) for source in sources) > 1:
        raise ConfigError("sources: got two sources of kind canaries, wanted one: name all counts in one plan.")
    return sources


def _source(item: Any, idx: int) -> Source:
    where = f"sources.{idx}"
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: got {_shown(item)}, wanted a mapping with kind: correct it.")
    kind = item.get("kind")
    rest = {name: value for name, value in item.items() if name not in ("kind", "name", "serve")}
    name = _name(item.get("name", f"{kind}{idx}"))
    if kind == "crawl":
        config = _part(rest, where, CrawlConfig, also=("name", "serve"))
        return CrawlSource(
            kind="crawl", name=name, config=config, serve=_value(item.get("serve"), f"{where}.serve", str | None)
        )
    if kind == "canaries":
        return CanariesSource(kind="canaries", name=name, plan=_part(rest, where, CanaryPlan))
    if kind not in ("warc", "text"):
        raise ConfigError(f"{where}.kind: got {kind!r}, wanted crawl, warc, text or canaries: correct it.")
    if isinstance(rest.get("paths"), str):
        rest["paths"] = [rest["paths"]]
    source = _part({"kind": kind, "name": name, **rest}, where, WarcSource if kind == "warc" else TextSource)
    if not source.paths and not getattr(source, "dataset", None):
        raise ConfigError(
            f"{where}.paths: got none, wanted files, globs or folders{' or a dataset' if kind == 'text' else ''}: add them."
        )
    return source  # type: ignore[no-any-return]


def _dedup(section: dict[str, Any] | None, *, complies: bool) -> DedupConfig:
    """Without duplicates' rules, an opt-out still takes out what was fetched before it; only `compliance: off` ends that."""
    if section is None:
        return DedupConfig(exact=False, near=False, superseded=False, withdrawn=complies, max_line_repeats=None)
    config: DedupConfig = _part({"withdrawn": complies, **section}, "dedup", DedupConfig)
    return config


def _toxicity(rules: Mapping[str, Any] | None, rest: Mapping[str, Any]) -> ToxicitySection | None:
    """The classifier, which is off unless it is asked for: a rule on its score asks in vain without one."""
    if rules is None:
        return None
    given = _mapping({"toxicity": rest.get("toxicity", False)}, "toxicity")
    section: ToxicitySection | None = _part(given, "bias.toxicity", ToxicitySection)
    if section is None and rules.get("max_toxicity") is not None:
        raise ConfigError(
            f"bias.max_toxicity: got {rules['max_toxicity']!r} without a classifier, wanted bias.toxicity too: "
            "set `toxicity: on`, or name labelled files there."
        )
    if section is not None:
        for language in section.train:
            if language not in ("en", "zh"):
                raise ConfigError(f"bias.toxicity.train: got language {language!r}, wanted en or zh: correct it.")
    return section


def _perplexity(rest: Mapping[str, Any], rules: QualityRules | None) -> PerplexitySection | None:
    """`perplexity: on`, `off` (the default) or a mapping."""
    given = _mapping({"perplexity": rest.get("perplexity", False)}, "perplexity")
    section: PerplexitySection | None = _part(given, "quality.perplexity", PerplexitySection)
    asked = rules.perplexity_thresholds() if rules is not None else ()
    if asked and section is None:
        raise ConfigError(
            f"quality.{asked[0]}: got a threshold, but perplexity is not measured, wanted quality.perplexity too: "
            "set `perplexity: on`, or take the threshold out."
        )
    return section


def _classifiers(given: Any) -> tuple[ClassifierSection, ...]:
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise ConfigError(f"quality.classifiers: got {_shown(given)}, wanted a list of mappings: see the README.")
    found: list[ClassifierSection] = []
    for idx, item in enumerate(given):
        where = f"quality.classifiers.{idx}"
        section: ClassifierSection = _part(item, where, ClassifierSection)
        if any(each.name == section.name for each in found):
            raise ConfigError(f"{where}.name: got {section.name!r} twice, wanted one name each: rename one.")
        found.append(section)
    return tuple(found)


@functools.lru_cache(maxsize=8)
def _labels(file: Resource) -> tuple[str, ...]:
    """Of a model's file, read once in a run: the dictionary of a large one takes a second."""
    return labels_of(Path(file.path))


def _fasttext_model(base: Path, section: ClassifierSection) -> Resource:
    where = f"quality.classifiers ({section.name})"
    file = _resource(base / section.file, where)
    try:
        labels = _labels(file)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if section.label not in labels:
        near = difflib.get_close_matches(section.label, labels, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(labels[:8])}."
        raise ConfigError(
            f"{where}: got label {section.label!r}, wanted one of the {len(labels)} of {file.path}: {hint}"
        )
    return file


def _files(compliance: Mapping[str, Any], name: str) -> tuple[str, ...]:
    paths: tuple[str, ...] = _value(compliance.get(name, []), f"compliance.{name}", tuple[str, ...])
    for path in paths:
        if is_remote(path):
            _check_remote(f"compliance.{name}", path, ("http", "https"))
    return paths


def _list_addresses(compliance: Mapping[str, Any]) -> tuple[str, ...]:
    where = "compliance.allow_addresses"
    addresses: tuple[str, ...] = _value(compliance.get("allow_addresses", []), where, tuple[str, ...])
    try:
        AllowedAddresses.parse(addresses)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return addresses


def _max_list_age_hours(compliance: Mapping[str, Any]) -> float | None:
    where = "compliance.max_list_age_hours"
    hours: float | None = _value(compliance.get("max_list_age_hours", _MAX_LIST_AGE_HOURS), where, float | None)
    if hours is not None and not 0 < hours < math.inf:
        raise ConfigError(f"{where}: got {hours:g}, wanted above 0, or null to fetch a list once: correct it.")
    return hours


def _measured(section: Mapping[str, Any]) -> tuple[SuiteSection, ...]:
    """The suites that are declared as mappings: those are measured, the others only searched for in documents."""
    given = section.get("suites", [])
    found: list[SuiteSection] = []
    for idx, item in enumerate(given if isinstance(given, list) else []):
        if not isinstance(item, dict):
            continue
        suite: SuiteSection = _part(item, f"evaluation.suites.{idx}", SuiteSection)
        if any(each.name == suite.name for each in found):
            raise ConfigError(
                f"evaluation.suites.{idx}.name: got {suite.name!r} twice, wanted one name each: rename one."
            )
        for name, path in (("path", suite.path), ("examples", suite.examples)):
            if path is not None and is_remote(path):
                raise ConfigError(
                    f"evaluation.suites.{idx}.{name}: got {_shown(path)}, wanted a local file: fetch it first."
                )
        found.append(suite)
    return tuple(found)


def _suite_paths(section: Mapping[str, Any], measured: Sequence[SuiteSection]) -> tuple[str, ...]:
    """Patterns of the suites' files, measured or not; none where documents are not to be searched."""
    given = section.get("suites", [])
    plain = [item for item in given if not isinstance(item, dict)] if isinstance(given, list) else given
    files = (path for suite in measured for path in suite.searched_files)
    paths = tuple(dict.fromkeys([*_patterns({"suites": plain}, "suites"), *files]))
    is_on = _value(section.get("decontaminate", True), "evaluation.decontaminate", bool)
    if not paths and section.get("decontaminate"):
        raise ConfigError("evaluation.suites: got none, wanted files to decontaminate by: add them.")
    if not paths and section.get("innocent"):
        raise ConfigError("evaluation.innocent: got texts without evaluation.suites, wanted both: add the suites.")
    return paths if is_on else ()


def _patterns(section: Mapping[str, Any], name: str) -> tuple[str, ...]:
    given = section.get(name, [])
    paths: tuple[str, ...] = _value([given] if isinstance(given, str) else given, f"evaluation.{name}", tuple[str, ...])
    for path in paths:
        if is_remote(path):
            raise ConfigError(f"evaluation.{name}: got {_shown(path)}, wanted a file, glob or folder: fetch it first.")
    return paths


def _evaluation_rules(section: Mapping[str, Any]) -> EvaluationRules | None:
    """None: what is found is told, and nothing is dropped for it."""
    usual = EvaluationRules().max_suite_items
    most: int | None = _value(section.get("max_suite_items", usual), "evaluation.max_suite_items", int | None)
    return None if most is None else EvaluationRules(max_suite_items=most)


def _expanded(paths: Sequence[str], base: Path, where: str) -> list[Path]:
    try:
        return expand(paths, base, SUITE_SUFFIXES)
    except InputError as error:
        raise ConfigError(f"{where}: {error}") from error


def _refusal(compliance: Mapping[str, Any], *, complies: bool) -> RefusalConfig:
    if not complies:
        return RefusalConfig(max_violation_ratio=None)
    usual = RefusalConfig()
    return RefusalConfig(
        max_violation_ratio=_value(
            compliance.get("max_source_violation_ratio", usual.max_violation_ratio),
            "compliance.max_source_violation_ratio",
            float | None,
        ),
        min_documents=_value(
            compliance.get("min_source_documents", usual.min_documents), "compliance.min_source_documents", int
        ),
    )


def _training(section: Mapping[str, Any], run_names: Sequence[str]) -> TrainConfig:
    data = _split(section, run_names)[0] or {}
    if not {"max_steps", "num_epochs", "num_tokens"} & set(data):
        data = {"num_epochs": 1.0, **data}
    config: TrainConfig = _part(data, "training", TrainConfig, also=run_names)
    return config


def _entity_model(rules: Mapping[str, Any] | None, rest: Mapping[str, Any]) -> EntitySection | None:
    given = {name: rest[name] for name in _ENTITY_KEYS if rest.get(name) is not None}
    if "entity_model" in given:
        section: EntitySection = _part(given, "pii", EntitySection)
        return section
    if given:
        raise ConfigError(f"pii.{next(iter(given))}: got it without pii.entity_model, wanted a model: name its folder.")
    named = [kind for kind in (*rest.get("redact", ()), *(rules or {}).get("drop", ())) if kind in ENTITY_KINDS]
    if named:
        raise ConfigError(
            f"pii: got kind {named[0]!r}, which only a model finds, wanted pii.entity_model too: name its folder."
        )
    return None


def _redacted_kinds(pii: dict[str, Any] | None, given: Mapping[str, Any]) -> tuple[str, ...] | None:
    if pii is None:
        return None
    kinds: tuple[str, ...] = _value(given.get("redact", sorted(DEFAULT_KINDS)), "pii.redact", tuple[str, ...])
    for kind in kinds:
        if kind not in (*PII_KINDS, *ENTITY_KINDS):
            wanted = ", ".join((*sorted(PII_KINDS), *ENTITY_KINDS))
            raise ConfigError(f"pii.redact: got {kind!r}, wanted some of {wanted}: correct it.")
    return tuple(sorted(kinds))


def text_options(source: TextSource) -> TextOptions:
    """How the rows of a text source are read."""
    return TextOptions(text_field=source.text_field, url_field=source.url_field)


def _resource(path: Path, where: str) -> Resource:
    if not path.is_file():
        raise ConfigError(f"{where}: got {path}, wanted a file: check the path.")
    return Resource(digest_file(path), str(path))
