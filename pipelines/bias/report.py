"""What the bias section of a data card states, counted from a finished build; and whether the recipe's bound holds."""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipelines.bias.associations import contrasts, count_associations, pmi
from pipelines.bias.counterfactual import by_group, counterfactuals
from pipelines.bias.disparity import (
    ALL_LANGUAGES,
    ANY_GROUP,
    ANY_RULE,
    DECISION_COLUMNS,
    OUTCOME_COLUMNS,
    SIGNAL_COLUMNS,
    AuditConfig,
    Disparity,
    Tally,
    add_batch,
    audit,
    empty_tally,
    representation,
)
from pipelines.bias.rates import Ratio
from pipelines.bias.vectors import VectorsConfig, train_vectors, weat
from pipelines.bias.wordlists import word_sets
from pipelines.corpus import CorpusConfig, read_aligned
from pipelines.digest import canonical
from pipelines.errors import TerminalError
from pipelines.markdown import table
from pipelines.policy import without_perplexity
from pipelines.store import Manifest, Store

BIAS_REPORT_VERSION = 1
"""Raised where the facts below are counted otherwise: a report of an older count is made again."""

_MAX_SAMPLE_NUM_BYTES = 4_000_000
"""UTF-8 bytes of kept text in each language that associations are counted in: some seconds of CPU time."""
_MAX_DOCUMENT_NUM_CHARS = 200_000
_LANGUAGES = ("en", "zh")
_NUM_CARD_ROWS = 40
_NUM_PMI_ROWS = 10
_SHARES = 1 << 32


class DisparityError(TerminalError):
    """A filter removes a group beyond the bound, and the recipe says that this fails the build."""


def bias_facts(store: Store, done: Mapping[str, Manifest], config: CorpusConfig, bounds: AuditConfig) -> dict[str, Any]:
    """The audit of every filter, swaps of groups, mentions and associations of a build, as plain values."""
    total, kept_num_bytes = _count(store, done, bounds)
    found = audit(total, bounds)
    swaps = counterfactuals(config.signals, without_perplexity(config.policy))
    return {
        "bounds": canonical(bounds),
        "disparity": {
            "documents": int(total.seen[:, 0].sum()),
            "pairs": len(found),
            "findings": dict(Counter(each.finding for each in found if each.finding)),
            "rows": [_row(each) for each in found if each.ratio is not None],
        },
        "counterfactual": {"texts": len(swaps), "rows": by_group(swaps)},
        "representation": representation(total),
        "associations": [_associated(store, done, language, kept_num_bytes[language]) for language in _LANGUAGES],
    }


def broken_bounds(facts: Mapping[str, Any]) -> list[str]:
    """A line for each pair of rule and group beyond the recipe's bound, and for each swap that changed a decision."""
    lines = [
        f"{row['rule']} removes documents that mention {row['group']} ({row['language']}) at "
        f"{_ratio_text(row['matched_ratio'] or row['ratio'])} times the rate of the rest"
        for row in facts["disparity"]["rows"]
        if row["finding"] == "disparity"
    ]
    lines += [
        f"{', '.join(row['rules'])} judges {row['decisions_changed']} texts otherwise for naming {row['group']} "
        f"({row['language']})"
        for row in facts["counterfactual"]["rows"]
        if row["decisions_changed"]
    ]
    return lines


def bias_section(facts: Mapping[str, Any]) -> list[str]:
    """The section as lines of Markdown. `facts` is what `bias_facts` returns."""
    audited, bounds = facts["disparity"], facts["bounds"]
    findings = audited["findings"]
    lines = [
        "## Disparity of filters",
        "",
        f"- documents with text: {audited['documents']:,}; pairs of rule, group and language: {audited['pairs']:,}",
        f"- beyond the bound of {bounds['max_disparity_ratio']:g}: {findings.get('disparity', 0):,} proven",
        f"- beyond it, but chance could explain it: {findings.get('unproven', 0):,}",
        f"- beyond it on fewer than {bounds['min_group_documents']:,} documents: {findings.get('few', 0):,}",
        "- ratio: removal among documents that mention a group over removal among the rest, with its interval",
        "- matched: the same within language, length and site (Mantel-Haenszel); q: its false discovery rate",
        "- kept: share kept of the group over share kept of the rest",
        "",
        *_disparity_table(_shown(audited["rows"])),
        "### Texts with the group's name swapped",
        "",
        *table(
            ("language", "group", "texts", "dropped", "judged otherwise", "decision changed", "rules", "abuse gap"),
            [
                (
                    row["language"],
                    row["group"],
                    row["texts"],
                    row["dropped"],
                    row["changed"],
                    row["decisions_changed"],
                    ", ".join(row["rules"]),
                    f"{row['max_abuse_gap']:g}",
                )
                for row in facts["counterfactual"]["rows"]
            ],
        ),
        "### Mentions per million words",
        "",
        *table(
            ("language", "group", "mentions", "all", "kept", "kept / all"),
            [
                (
                    row["language"],
                    row["group"],
                    row["mentions"],
                    row["per_million_words"],
                    row["per_million_words_kept"],
                    "" if row["ratio"] is None else row["ratio"],
                )
                for row in facts["representation"]
                if row["mentions"] or row["language"] in bounds["languages"]
            ],
        ),
    ]
    for each in facts["associations"]:
        lines += _association_lines(each)
    return lines


def _count(store: Store, done: Mapping[str, Manifest], bounds: AuditConfig) -> tuple[Tally, Counter[str]]:
    """Removals by rule and group, and bytes of kept text by language."""
    total = empty_tally(bounds)
    kept_num_bytes: Counter[str] = Counter()
    parts = (
        (done["signals"], (*SIGNAL_COLUMNS, "num_bytes")),
        (done["policy"], DECISION_COLUMNS),
        (done["dedup"], OUTCOME_COLUMNS),
    )
    for _unit, batch in read_aligned(store, *parts):
        add_batch(total, batch, bounds)
        rows = zip(*(batch[name].to_pylist() for name in ("language", "num_bytes", "decision")), strict=True)
        for language, num_bytes, decision in rows:
            if decision == "keep" and language in _LANGUAGES:
                kept_num_bytes[language] += num_bytes
    return total, kept_num_bytes


def _associated(store: Store, done: Mapping[str, Manifest], language: str, num_bytes: int) -> dict[str, Any]:
    """Associations in a sample of the kept text in one language."""
    texts = _sample(store, done, language, num_bytes)
    counted = count_associations(texts, language)
    config = VectorsConfig()
    ranked: dict[str, list[dict[str, Any]]] = {}
    for row in pmi(counted):
        ranked.setdefault(row["people"], []).append(row)
    return {
        "language": language,
        "documents": len(texts),
        "words": counted.num_units,
        "pmi": [row for rows in ranked.values() for row in rows[:_NUM_PMI_ROWS]],
        "contrasts": contrasts(counted),
        "weat": weat(train_vectors(texts, language, config), word_sets("targets", language), config),
    }


def _sample(store: Store, done: Mapping[str, Manifest], language: str, num_bytes: int) -> list[str]:
    """Kept texts in a language, about _MAX_SAMPLE_NUM_BYTES of them, chosen by their names: the same in any order."""
    limit = _SHARES * min(1.0, _MAX_SAMPLE_NUM_BYTES / max(num_bytes, 1))
    parts = (
        (done["extract"], ("doc_id", "text")),
        (done["signals"], ("doc_id", "language")),
        (done["dedup"], ("doc_id", "decision")),
    )
    texts: dict[str, str] = {}
    for _unit, batch in read_aligned(store, *parts):
        rows = zip(*(batch[name].to_pylist() for name in ("doc_id", "language", "decision")), strict=True)
        for idx, (doc_id, spoken, decision) in enumerate(rows):
            if decision == "keep" and spoken == language and zlib.crc32(doc_id.encode()) < limit:
                texts[doc_id] = batch["text"][idx].as_py()[:_MAX_DOCUMENT_NUM_CHARS]
    return [texts[doc_id] for doc_id in sorted(texts)]


def _row(found: Disparity) -> dict[str, Any]:
    row = asdict(found)
    for name in ("ratio", "matched_ratio"):
        ratio: Ratio | None = getattr(found, name)
        row[name] = None if ratio is None else [round(each, 3) for each in (ratio.value, ratio.low, ratio.high)]
    for name in ("retention_ratio", "matched_retention_ratio"):
        value = getattr(found, name)
        row[name] = None if value is None else round(value, 3)
    return row | {name: float(f"{getattr(found, name):.3g}") for name in ("p", "q", "matched_p", "matched_q")}


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What is beyond the bound first, then the overall removal of each group; the rest is in the JSON beside the card."""
    beyond = [row for row in rows if row["finding"] in ("disparity", "unproven", "on_mentions")]
    overall = [
        row
        for row in rows
        if row["rule"] == ANY_RULE and row["language"] == ALL_LANGUAGES and row["finding"] in ("", "few")
    ]
    return [*beyond[: _NUM_CARD_ROWS - len(overall)], *overall]


def _disparity_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = (
        "rule",
        "group",
        "language",
        "removed of group",
        "removed of rest",
        "ratio",
        "matched",
        "kept",
        "q",
        "flagged",
    )
    return table(
        head,
        [
            (
                row["rule"],
                "any" if row["group"] == ANY_GROUP else row["group"],
                row["language"],
                _share(row["num_removed"], row["num_documents"]),
                _share(row["num_rest_removed"], row["num_rest"]),
                _ratio_text(row["ratio"]),
                _ratio_text(row["matched_ratio"]),
                "" if row["retention_ratio"] is None else f"{row['retention_ratio']:g}",
                f"{row['q'] if row['matched_ratio'] is None else row['matched_q']:.2g}",
                {"disparity": "yes", "unproven": "chance?", "few": "few", "on_mentions": "by design"}.get(
                    row["finding"], ""
                ),
            )
            for row in rows
        ],
    )


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({100 * count / total:.1f} %)" if total else "none"


def _ratio_text(ratio: Sequence[float] | None) -> str:
    return "" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def _association_lines(facts: Mapping[str, Any]) -> list[str]:
    scored = [row for row in facts["weat"] if row["effect_size"] is not None]
    leaning = [row for row in facts["contrasts"] if row["toward_one"] or row["toward_other"]]
    if not facts["pmi"] and not scored and not leaning:
        return []
    lines = [
        f"### Associations in kept text: {facts['language']}",
        "",
        f"Counted in {facts['documents']:,} documents, {facts['words']:,} words or characters, within 10 words (20 characters).",
        "",
    ]
    above = [row for row in facts["pmi"] if row["pmi_bits"] > 0]
    strongest = sorted(above, key=lambda row: (-row["pmi_bits"], row["people"], row["attribute"]))
    lines += table(
        ("people", "word beside them", "together", "bits above chance"),
        [(row["people"], row["attribute"], row["together"], f"{row['pmi_bits']:+.2f}") for row in strongest[:20]],
    )
    if leaning:
        lines += table(
            ("people", "words (z of log-odds)"),
            [
                (
                    f"{row[side]} rather than {row[other]}",
                    ", ".join(f"{word} {z:+.1f}" for word, z in row[f"toward_{side}"]),
                )
                for row in leaning
                for side, other in (("one", "other"), ("other", "one"))
                if row[f"toward_{side}"]
            ],
        )
    if scored:
        lines += table(
            ("contrast (WEAT)", "effect size d", "p"),
            [(row["contrast"], f"{row['effect_size']:+.2f}", f"{row['p']:g}") for row in scored],
        )
    return lines
