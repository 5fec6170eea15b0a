"""Sources that are refused whole, because too much of what they hold is not compliant.

GB/T 45654-2025 asks for it: a source of which more than 5 % is illegal or unhealthy content is not trained on. A source
is a site, the registrable domain of the public suffix list, where the hosts of a platform count each for themselves.

Memory holds the decisions and a number for each document's site: about 100 bytes a document.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import ConfigError
from pipelines.hosts import BEFORE_PATH, host_finder
from pipelines.policy import CONTENT_RULES
from pipelines.public_suffixes import registrable_domain
from pipelines.schemas import DECISION, SIGNALS, select
from pipelines.stage import Kind, Stage
from pipelines.tallies import tally_decisions

SOURCE_REFUSED = "source_refused"
"""Name of the rule."""

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_MAX_REMEMBERED_HOSTS = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusalConfig:
    """When a source is refused whole."""

    max_violation_ratio: float | None = 0.05
    """Share of a source's documents with text that may fail a content rule, 0 to 1; above it the source goes (GB/T
    45654-2025). None: off."""
    min_documents: int = 20
    """A source with fewer documents with text is judged page by page only (ours): below 20, one page is above 5 %."""
    violations: tuple[str, ...] = CONTENT_RULES
    """Names of the policy's rules that find content not compliant."""

    def __post_init__(self) -> None:
        ratio = self.max_violation_ratio
        if ratio is not None and not 0 <= ratio <= 1:
            raise ConfigError(
                f"got compliance.max_source_violation_ratio {ratio!r}, wanted a share from 0 to 1, or null for off."
            )
        if self.min_documents < 1:
            raise ConfigError(
                f"got compliance.min_source_documents {self.min_documents}, wanted 1 or more: correct it."
            )


def refuse_sources(batches: Iterable[pa.RecordBatch], config: RefusalConfig) -> Iterator[pa.RecordBatch]:
    """SIGNALS + DECISION -> DECISION, one row for each row, in order and in the same batches.

    Every document with text of a source above the ratio fails `source_refused`, after the rules that it failed itself;
    where it failed none, that is its reason, the source's ratio its value. The other rows pass through. Documents
    without a URL are together one source. The verdicts depend on the set of rows alone.
    """
    decisions: list[pa.RecordBatch] = []
    sites: list[Ints] = []
    violates: list[Flags] = []
    has_text: list[Flags] = []
    site_of, number_of = site_finder(), dict[str, int]()
    for batch in batches:
        decisions.append(batch.select(DECISION.names))
        if config.max_violation_ratio is None:
            continue
        places = before_paths(batch["url"]).dictionary_encode(null_encoding="encode")
        names = (site_of(place) for place in places.dictionary.to_pylist())
        numbers = np.array([number_of.setdefault(name, len(number_of)) for name in names], np.int64)
        sites.append(numbers[places.indices.to_numpy()])
        violates.append(_violates(batch["failed_rules"], config.violations))
        has_text.append(batch["problem"].is_null().to_numpy(zero_copy_only=False))
    if config.max_violation_ratio is None:
        yield from decisions
        return
    ratios = violation_ratios(
        np.concatenate([np.empty(0, np.int64), *sites]),
        np.concatenate([np.empty(0, np.bool_), *violates]),
        np.concatenate([np.empty(0, np.bool_), *has_text]),
        config.min_documents,
    )
    for decision, site, judged in zip(decisions, sites, has_text, strict=True):
        ratio = ratios[site]
        yield _refused(decision, judged & (ratio > config.max_violation_ratio), ratio, config.max_violation_ratio)


def violation_ratios(sites: Ints, violates: Flags, has_text: Flags, min_documents: int) -> npt.NDArray[np.float64]:
    """(sites,) the share of each site's documents with text that violates; 0 for a site with too few of them.

    `sites` numbers the site of each document from 0.
    """
    num_sites = int(sites.max(initial=-1)) + 1
    num_documents = np.bincount(sites[has_text], minlength=num_sites)
    num_violations = np.bincount(sites[has_text & violates], minlength=num_sites)
    ratios: npt.NDArray[np.float64] = num_violations / np.maximum(num_documents, 1)
    return np.where(num_documents < min_documents, 0.0, ratios)


def site_finder() -> Callable[[str | None], str]:
    """A function from a URL to its site: the registrable domain, below a platform's suffix too (`a.github.io`).

    An address or a bare name is its own site; '' stands for no URL.
    """
    host_of, known = host_finder(), dict[str, str]()

    def site(url: str | None) -> str:
        host = host_of(url)
        found = known.get(host)
        if found is None:
            if len(known) >= _MAX_REMEMBERED_HOSTS:
                known.clear()
            found = known[host] = registrable_domain(host, below_platforms=True)
        return found

    return site


def before_paths(urls: pa.Array) -> pa.Array:
    """(urls,) what stands before the path of each URL; the whole where there is no telling."""
    return pc.replace_substring_regex(urls, pattern=rf"(?s)^({BEFORE_PATH.pattern}).*$", replacement=r"\1")


def _violates(failed_rules: pa.ListArray, names: tuple[str, ...]) -> Flags:
    """Whether each row failed one of the named rules."""
    rows = pc.list_parent_indices(failed_rules).to_numpy(zero_copy_only=False)
    chosen = pc.is_in(pc.list_flatten(failed_rules), value_set=pa.array(names, pa.string()))
    flags: Flags = np.bincount(rows[chosen.to_numpy(zero_copy_only=False)], minlength=len(failed_rules)) > 0
    return flags


def _refused(batch: pa.RecordBatch, refused: Flags, ratio: npt.NDArray[np.float64], limit: float) -> pa.RecordBatch:
    if not refused.any():
        return batch
    is_new = refused & pc.equal(batch["decision"], "keep").to_numpy(zero_copy_only=False)
    added = pa.array(is_new)
    num_failed = pc.list_value_length(batch["failed_rules"]).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(num_failed + refused))).astype(np.int32)
    names = np.full(offsets[-1], SOURCE_REFUSED, dtype=object)
    is_last = np.zeros(offsets[-1], np.bool_)
    is_last[offsets[1:][refused] - 1] = True
    names[~is_last] = pc.list_flatten(batch["failed_rules"]).to_numpy(zero_copy_only=False)
    columns = {
        "doc_id": batch["doc_id"],
        "decision": pc.if_else(added, "drop", batch["decision"]),
        "reason": pc.if_else(added, SOURCE_REFUSED, batch["reason"]),
        "value": pc.if_else(added, pa.array(ratio), batch["value"]),
        "threshold": pc.if_else(added, limit, batch["threshold"]),
        "failed_rules": pa.ListArray.from_arrays(pa.array(offsets), pa.array(names, pa.string())),
        "blocked_by": batch["blocked_by"],
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in DECISION.names], schema=DECISION)


SOURCES = Stage(
    name="sources",
    version=1,
    kind=Kind.GLOBAL_ALIGNED,
    inputs=(select(SIGNALS, "doc_id", "url", "problem"), DECISION),
    output=DECISION,
    transform=refuse_sources,
    libraries=("llvmlite", "numba", "numpy", "tldextract"),
    tally=tally_decisions,
    compression="lz4",
)
