"""What a workspace can be asked by a monitor: each measure's name, type, meaning and labels, in one table.

Names follow the conventions of Prometheus: base units in the name, `_total` for what only grows. Labels have few values: recipes,
sources, stages, flows, and names of outcomes that are fixed in the code; no URL, path, host or document is one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MAX_SERIES = 300
"""Of one measure; what would be one more is left out. A recipe's name makes some ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One metric."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


_TABLE = (
    # of a crawl
    Measure(
        name="corpusmill_crawl_requests_total",
        kind="counter",
        help="Requests for pages, attempts counted; robots.txt is not.",
        labels=("recipe", "source"),
    ),
    Measure(
        name="corpusmill_crawl_pages_total",
        kind="counter",
        help="Pages written to WARC files.",
        labels=("recipe", "source"),
    ),
    Measure(
        name="corpusmill_crawl_received_bytes_total",
        kind="counter",
        help="Decoded bytes of bodies received.",
        labels=("recipe", "source"),
    ),
    Measure(
        name="corpusmill_crawl_errors_total",
        kind="counter",
        help="URLs that failed, by outcome.",
        labels=("recipe", "source", "kind"),
    ),
    Measure(
        name="corpusmill_crawl_queued_urls",
        kind="gauge",
        help="URLs that wait to be fetched, when the crawl last said so.",
        labels=("recipe", "source"),
    ),
    Measure(
        name="corpusmill_crawl_pages_per_second",
        kind="gauge",
        help="Pages over the seconds of the newest crawl; 0 where none is going on.",
        labels=("recipe", "source"),
    ),
    # of the stages
    Measure(
        name="corpusmill_stage_documents_total",
        kind="counter",
        help="Rows that computed shards have read; what was reused is not counted.",
        labels=("recipe", "stage"),
    ),
    Measure(
        name="corpusmill_stage_documents_per_second",
        kind="gauge",
        help="Rows a second of the stage that is going on; 0 where it is not.",
        labels=("recipe", "stage"),
    ),
    Measure(
        name="corpusmill_stage_shards_total",
        kind="counter",
        help="Shards of finished stages: computed, or reused from the store.",
        labels=("recipe", "stage", "result"),
    ),
    Measure(
        name="corpusmill_stage_seconds_total",
        kind="counter",
        help="Wall time of finished stages.",
        labels=("recipe", "stage"),
    ),
    # of the corpus
    Measure(
        name="corpusmill_corpus_documents",
        kind="gauge",
        help="Documents of the newest build: all that came in, and what was kept.",
        labels=("recipe", "outcome"),
    ),
    Measure(
        name="corpusmill_corpus_dropped_documents",
        kind="gauge",
        help="Documents that the newest build dropped, by reason.",
        labels=("recipe", "reason"),
    ),
    Measure(
        name="corpusmill_corpus_kept_ratio",
        kind="gauge",
        help="Share of the documents that the newest build kept.",
        labels=("recipe",),
    ),
    Measure(
        name="corpusmill_corpus_kept_ratio_before",
        kind="gauge",
        help="The same of the build before it that counted otherwise.",
        labels=("recipe",),
    ),
    Measure(name="corpusmill_corpus_tokens", kind="gauge", help="Tokens of the newest build.", labels=("recipe",)),
    Measure(
        name="corpusmill_build_tokens_per_second",
        kind="gauge",
        help="Tokens of the newest build that made any, over the seconds of all its stages.",
        labels=("recipe",),
    ),
    # of training
    Measure(
        name="corpusmill_training_steps_total", kind="counter", help="Updates of the optimiser.", labels=("recipe",)
    ),
    Measure(
        name="corpusmill_training_tokens_total",
        kind="counter",
        help="Tokens trained on, repeats counted.",
        labels=("recipe",),
    ),
    Measure(
        name="corpusmill_training_events_total",
        kind="counter",
        help="What happened to trainings: steps skipped, rolled back, resumed, checkpoints written.",
        labels=("recipe", "kind"),
    ),
    Measure(
        name="corpusmill_training_loss_nats",
        kind="gauge",
        help="Mean loss of the newest update, nats a token.",
        labels=("recipe",),
    ),
    Measure(
        name="corpusmill_training_validation_loss_nats",
        kind="gauge",
        help="Newest loss on validation text, nats a token.",
        labels=("recipe",),
    ),
    Measure(
        name="corpusmill_training_tokens_per_second",
        kind="gauge",
        help="Of the newest update, over all processes; 0 where nothing is trained.",
        labels=("recipe",),
    ),
    # of flows
    Measure(
        name="corpusmill_runs_total",
        kind="counter",
        help="Runs that ended: finished, failed, stopped or killed.",
        labels=("flow", "recipe", "outcome"),
    ),
    Measure(
        name="corpusmill_errors_total",
        kind="counter",
        help="Runs that failed, by kind of error.",
        labels=("flow", "recipe", "kind"),
    ),
)
MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _TABLE}
RATES = (
    "corpusmill_crawl_pages_per_second",
    "corpusmill_stage_documents_per_second",
    "corpusmill_training_tokens_per_second",
)
"""They are 0 once the run is over."""
