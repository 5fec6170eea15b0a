"""Does a filter remove what mentions a group of people more often than what does not? Every rule, every group.

Word lists removed 42 % of the English documents in African American dialect and 6 % of those in White-aligned English
from C4 (Dodge et al. 2021, arXiv:2104.08758), and nobody had counted. Here each rule's rate of removal among documents
that mention a group is held against its rate among the rest: crude, and within strata of language, length and site,
so that long texts or one loud site do not pose as identity.

Counts only: one pass, memory set by the config and the number of rules, nothing kept of a document. Counts of parts
add up to the counts of the whole in any order.

Must not: judge a document. Reads what signals, policy and dedup stored.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.bias.rates import (
    Counts,
    Ratio,
    adjusted,
    mantel_haenszel_p,
    mantel_haenszel_ratio,
    num_informative,
    risk_ratio,
    two_proportion_p,
)
from pipelines.errors import ConfigError

GROUPS = ("gender", "ethnicity", "religion", "orientation", "disability", "age", "nationality")
"""Groups whose mentions SIGNALS counts, by the name of their word list."""
ANY_GROUP = "any group"
ALL_LANGUAGES = "all"
ANY_RULE = "any rule"
"""The outcome: dropped by whatever rule, duplicates included."""

SIGNAL_COLUMNS = ("doc_id", "url", "problem", "language", "num_words", "identity_counts")
"""What is read of SIGNALS."""
DECISION_COLUMNS = ("doc_id", "failed_rules")
"""What is read of DECISION."""
OUTCOME_COLUMNS = ("doc_id", "decision", "reason")
"""What is read of OUTCOME. `reason` comes last: where the policy kept, it is the reason of dedup."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditConfig:
    """What is compared with what, and from where on a difference is a finding."""

    max_disparity_ratio: float = 1.25
    """Removal among documents that mention a group over removal among the rest. Its inverse bounds the ratio of what is
    retained from below: 0.8, the four-fifths rule of employee selection (29 CFR 1607.4 D)."""
    on_disparity: str = "warn"
    """warn: a finding is reported. fail: it fails the build, after the report is written."""
    max_identity_false_positive_rate: float | None = 0.05
    """Share of harmless statements on any one group that the rules on content may drop, in either language (probes.py).
    None: reported, not bound."""
    min_group_documents: int = 100
    """Documents that mention the group, below which nothing is concluded (ours)."""
    max_false_discovery_rate: float = 0.05
    """Share of findings that may be chance, over all pairs (Benjamini and Hochberg 1995)."""
    confidence: float = 0.95
    """Of the intervals."""
    languages: tuple[str, ...] = ("en", "zh")
    """ISO 639 codes with a stratum and an audit of their own: those in which the word lists name groups."""
    length_edges_words: tuple[int, ...] = (50, 100, 200, 400, 800, 1600, 3200, 10_000)
    """Words at which one stratum of length ends and the next begins. Narrow, since a longer text mentions more (ours)."""
    rules_on_mentions: tuple[str, ...] = ("identity_abuse_density", "toxicity")
    """Rules that remove next to nothing without a mention: held against the rest they say nothing, so they are reported
    and not bound; swaps of the group's name and harmless statements judge them."""
    num_site_buckets: int = 64
    """Hosts are spread over this many strata by their hash: memory must not grow with the number of sites (ours)."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_disparity_ratio < float("inf"):
            raise ConfigError(f"got max_disparity_ratio {self.max_disparity_ratio!r}, wanted 1 or more: raise it.")
        if self.on_disparity not in ("warn", "fail"):
            raise ConfigError(f"got on_disparity {self.on_disparity!r}, wanted warn or fail: correct it.")
        for name, low, high in (("max_false_discovery_rate", 0, 1), ("confidence", 0, 1)):
            if not low < getattr(self, name) < high:
                raise ConfigError(f"got {name} {getattr(self, name)!r}, wanted between {low} and {high}: correct it.")
        most = self.max_identity_false_positive_rate
        if most is not None and not 0 <= most <= 1:
            raise ConfigError(
                f"got max_identity_false_positive_rate {most!r}, wanted 0 to 1, or null for no bound: correct it."
            )
        if self.min_group_documents < 1 or not 1 <= self.num_site_buckets <= 4096:
            raise ConfigError(
                f"got min_group_documents {self.min_group_documents} and num_site_buckets {self.num_site_buckets}, "
                "wanted at least 1, and 1 to 4096: correct them."
            )
        if list(self.length_edges_words) != sorted(set(self.length_edges_words)):
            raise ConfigError(f"got length_edges_words {self.length_edges_words}, wanted growing numbers: sort them.")


@dataclass(slots=True)
class Tally:
    """Documents by stratum and group: arrays (num_strata, 1 + num_groups + 1); the first column counts all documents,
    the last those that mention any group."""

    seen: Counts
    """Documents with text."""
    past_policy: Counts
    """Of these, what no rule of the policy dropped: what dedup judges."""
    removed: dict[str, Counts] = field(default_factory=dict)
    """By rule."""
    is_dedup: set[str] = field(default_factory=set)
    """Rules that judge only what is past the policy."""
    mentions: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """By language: words, then mentions of each group; row 0 in all documents with text, row 1 in kept ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disparity:
    """What one rule does to documents that mention one group, in one language or in all."""

    rule: str
    group: str
    language: str
    num_documents: int
    """That mention the group."""
    num_removed: int
    num_rest: int
    """That do not mention it."""
    num_rest_removed: int
    ratio: Ratio | None
    """Removal, group over rest; None where the rule removed nothing or a side is empty."""
    retention_ratio: float | None
    """Share kept of the group over share kept of the rest."""
    p: float
    """Two-proportion z test, two-sided."""
    q: float
    """False discovery rate at which p counts, over all pairs."""
    matched_ratio: Ratio | None
    """Removal within strata of language, length and site (Mantel-Haenszel); None where no stratum has both."""
    matched_retention_ratio: float | None
    matched_p: float
    """Cochran-Mantel-Haenszel test."""
    matched_q: float
    num_matched: int
    """Documents of the group with a counterpart in their stratum."""
    finding: str
    """`disparity`: beyond the bound, on enough documents, and not by chance. `unproven`: the same, but chance could do
    it. `few`: beyond the bound on too few documents. `on_mentions`: of a rule that needs a mention to remove anything.
    Empty: within the bound."""

    @property
    def is_flagged(self) -> bool:
        """Whether the recipe's bound is broken."""
        return self.finding == "disparity"


def count_removals(batches: Iterable[pa.RecordBatch], config: AuditConfig) -> Tally:
    """Count documents, mentions and removals. Each batch has SIGNAL_COLUMNS, DECISION_COLUMNS and OUTCOME_COLUMNS.

    Documents without text have no mentions that could be counted, and are left out.
    """
    total = empty_tally(config)
    for batch in batches:
        add_batch(total, batch, config)
    return total


def empty_tally(config: AuditConfig) -> Tally:
    """Counts of nothing."""
    shape = (_num_strata(config), len(GROUPS) + 2)
    return Tally(seen=np.zeros(shape, dtype=np.int64), past_policy=np.zeros(shape, dtype=np.int64))


def add_batch(total: Tally, batch: pa.RecordBatch, config: AuditConfig) -> None:
    """Add the documents of one batch."""
    batch = batch.filter(pc.is_null(batch["problem"]))
    if not batch.num_rows:
        return
    mentions = _mentions(batch["identity_counts"])
    columns = np.ones((batch.num_rows, len(GROUPS) + 2), dtype=np.int64)
    columns[:, 1:-1] = mentions > 0
    columns[:, -1] = columns[:, 1:-1].any(axis=1)
    languages = [code if code in config.languages else "other" for code in batch["language"].to_pylist()]
    strata = _strata(batch, languages, config)
    np.add.at(total.seen, strata, columns)

    rows = pc.list_parent_indices(batch["failed_rules"]).to_numpy(zero_copy_only=False)
    names = pc.dictionary_encode(pc.list_flatten(batch["failed_rules"]))
    codes = names.indices.to_numpy(zero_copy_only=False)
    for code, name in enumerate(names.dictionary.to_pylist()):
        _remove(total, name, strata, columns, np.unique(rows[codes == code]))
    passed = pc.equal(pc.list_value_length(batch["failed_rules"]), 0).to_numpy(zero_copy_only=False)
    np.add.at(total.past_policy, strata[passed], columns[passed])

    kept = pc.equal(batch["decision"], "keep").to_numpy(zero_copy_only=False)
    _remove(total, ANY_RULE, strata, columns, np.flatnonzero(~kept))
    reasons = np.array(batch["reason"].to_pylist(), dtype=object)
    for name in sorted(set(reasons[passed & ~kept])):
        total.is_dedup.add(name)
        _remove(total, name, strata, columns, np.flatnonzero(passed & ~kept & (reasons == name)))
    _add_mentions(total, languages, batch["num_words"].to_numpy(zero_copy_only=False), mentions, kept)


def merge(total: Tally, other: Tally) -> None:
    """Add the counts of another part of the corpus."""
    total.seen += other.seen
    total.past_policy += other.past_policy
    total.is_dedup |= other.is_dedup
    for name, counts in other.removed.items():
        total.removed[name] = total.removed.get(name, 0) + counts
    for name, counts in other.mentions.items():
        total.mentions[name] = total.mentions.get(name, 0) + counts


def audit(total: Tally, config: AuditConfig, *, rules: Sequence[str] = ()) -> list[Disparity]:
    """Every rule against every group, in all languages together and in each of the config's: findings come first.

    `rules` names rules to report although they removed nothing.
    """
    drafts = list(_pairs(total, config, sorted({*total.removed, *rules})))
    crude = adjusted([draft["p"] for draft in drafts])
    matched = adjusted([draft["matched_p"] for draft in drafts])
    found = []
    for draft, q, matched_q in zip(drafts, crude, matched, strict=True):
        finding = _finding(draft, q, matched_q, config)
        found.append(Disparity(**draft, q=q, matched_q=matched_q, finding=finding))
    return sorted(found, key=_order)


def representation(total: Tally) -> list[dict[str, Any]]:
    """Mentions of each group per million words, in everything with text and in what was kept, by language."""
    rows = []
    for language in sorted(total.mentions):
        (words, *mentions), (kept_words, *kept_mentions) = total.mentions[language].tolist()
        for group, num_all, num_kept in zip(GROUPS, mentions, kept_mentions, strict=True):
            everywhere, kept = num_all / max(words, 1) * 1e6, num_kept / max(kept_words, 1) * 1e6
            rows.append(
                {
                    "language": language,
                    "group": group,
                    "mentions": num_all,
                    "mentions_kept": num_kept,
                    "per_million_words": round(everywhere, 1),
                    "per_million_words_kept": round(kept, 1),
                    "ratio": round(kept / everywhere, 3) if everywhere and kept_words else None,
                }
            )
    return rows


def _num_strata(config: AuditConfig) -> int:
    return (len(config.languages) + 1) * (len(config.length_edges_words) + 1) * config.num_site_buckets


def _strata(batch: pa.RecordBatch, languages: Sequence[str], config: AuditConfig) -> npt.NDArray[np.int64]:
    """The stratum of each row: language, then length, then site."""
    numbers = {code: idx for idx, code in enumerate((*config.languages, "other"))}
    tongue = np.array([numbers[language] for language in languages], dtype=np.int64)
    words = batch["num_words"].to_numpy(zero_copy_only=False)
    length = np.searchsorted(np.array(config.length_edges_words), words, side="right")
    site = np.array([_site(url) % config.num_site_buckets for url in batch["url"].to_pylist()], dtype=np.int64)
    return (tongue * (len(config.length_edges_words) + 1) + length) * config.num_site_buckets + site


def _site(url: str | None) -> int:
    """A number for the host, the same in every run."""
    try:
        host = urlsplit(url or "").hostname or ""
    except ValueError:
        host = ""
    return zlib.crc32(host.encode("utf-8", "surrogatepass"))


def _mentions(counts: pa.ListArray) -> npt.NDArray[np.int64]:
    """Mentions of each group, (num_rows, num_groups); groups of other lists are not ours to audit."""
    rows = pc.list_parent_indices(counts).to_numpy(zero_copy_only=False)
    flat = pc.list_flatten(counts)
    group = pc.index_in(pc.struct_field(flat, [0]), value_set=pa.array(GROUPS))
    known = pc.is_valid(group).to_numpy(zero_copy_only=False)
    found = np.zeros((len(counts), len(GROUPS)), dtype=np.int64)
    columns = pc.fill_null(group, 0).to_numpy(zero_copy_only=False)
    np.add.at(found, (rows[known], columns[known]), pc.struct_field(flat, [1]).to_numpy(zero_copy_only=False)[known])
    return found


def _remove(
    total: Tally, name: str, strata: npt.NDArray[np.int64], columns: Counts, rows: npt.NDArray[np.int64]
) -> None:
    counts = total.removed.setdefault(name, np.zeros_like(total.seen))
    np.add.at(counts, strata[rows], columns[rows])


def _add_mentions(
    total: Tally, languages: Sequence[str], words: Counts, mentions: Counts, kept: npt.NDArray[np.bool_]
) -> None:
    both = np.column_stack((words, mentions))
    spoken = np.array(languages)
    for language in sorted(set(languages)):
        of_language = spoken == language
        counts = np.stack((both[of_language].sum(axis=0), both[of_language & kept].sum(axis=0)))
        total.mentions[language] = total.mentions.get(language, 0) + counts


def _pairs(total: Tally, config: AuditConfig, rules: Sequence[str]) -> Iterator[dict[str, Any]]:
    per_language = total.seen.shape[0] // (len(config.languages) + 1)
    nothing = np.zeros_like(total.seen)
    scopes = [(ALL_LANGUAGES, slice(None))]
    scopes += [(code, slice(idx * per_language, (idx + 1) * per_language)) for idx, code in enumerate(config.languages)]
    for language, part in scopes:
        for rule in rules:
            judged = (total.past_policy if rule in total.is_dedup else total.seen)[part]
            removed = total.removed.get(rule, nothing)[part]
            for idx, group in enumerate((*GROUPS, ANY_GROUP)):
                yield _compared(rule, group, language, judged, removed, idx + 1, config)


def _compared(
    rule: str, group: str, language: str, judged: Counts, removed: Counts, column: int, config: AuditConfig
) -> dict[str, Any]:
    ours, theirs = judged[:, column], judged[:, 0] - judged[:, column]
    ours_out, theirs_out = removed[:, column], removed[:, 0] - removed[:, column]
    n, m, a, b = (int(each.sum()) for each in (ours, theirs, ours_out, theirs_out))
    strata = (ours_out, ours, theirs_out, theirs)
    retained = mantel_haenszel_ratio(ours - ours_out, ours, theirs - theirs_out, theirs)
    return {
        "rule": rule,
        "group": group,
        "language": language,
        "num_documents": n,
        "num_removed": a,
        "num_rest": m,
        "num_rest_removed": b,
        "ratio": risk_ratio(a, n, b, m, config.confidence),
        "retention_ratio": (1 - a / n) / (1 - b / m) if n and m and b < m else None,
        "p": two_proportion_p(a, n, b, m),
        "matched_ratio": mantel_haenszel_ratio(*strata, config.confidence),
        "matched_retention_ratio": None if retained is None else retained.value,
        "matched_p": mantel_haenszel_p(*strata),
        "num_matched": num_informative(ours, theirs),
    }


def _finding(draft: Mapping[str, Any], q: float, matched_q: float, config: AuditConfig) -> str:
    """Like is compared with like where that is possible for most of the group; else all with all."""
    is_matched = 2 * draft["num_matched"] >= draft["num_documents"] and draft["matched_ratio"] is not None
    prefix = "matched_" if is_matched else ""
    ratio, retention = draft[f"{prefix}ratio"], draft[f"{prefix}retention_ratio"]
    beyond = (ratio is not None and ratio.value > config.max_disparity_ratio) or (
        retention is not None and retention < 1 / config.max_disparity_ratio
    )
    if not beyond:
        return ""
    if draft["rule"] in config.rules_on_mentions:
        return "on_mentions"
    if draft["num_documents"] < config.min_group_documents:
        return "few"
    return "disparity" if (matched_q if is_matched else q) <= config.max_false_discovery_rate else "unproven"


_RANK = {"disparity": 0, "unproven": 1, "few": 2, "on_mentions": 3, "": 4}


def _order(found: Disparity) -> tuple[Any, ...]:
    ratio = found.matched_ratio or found.ratio
    return (
        _RANK[found.finding],
        -round(ratio.value, 6) if ratio else 0.0,
        found.rule,
        found.group,
        found.language,
    )
