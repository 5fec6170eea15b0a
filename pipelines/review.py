"""What a person needs to judge the rules of a finished build: samples of what each drops and keeps, and what it measures.

For each rule: how many documents fail it and how many fail nothing else, a sample of those that fail it beside a sample
of those that are kept, and, where it compares a number, the distribution of that number with the threshold in it and how
many documents the policy would keep at other thresholds. All from stored signals, in one pass; a second pass reads the
text of the sampled documents only. Memory is that of a batch, the samples and the counts, whatever the corpus.

A sample is drawn by the hash of seed, rule and document id: the same for any order of files, and uniform, so a share
counted in it holds for all. Personal data is masked before anything else is done with a text, whatever the recipe says.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import pii
from pipelines.corpus import CorpusConfig, contamination_part, read_aligned
from pipelines.evidence import MAX_NUM_CHARS, Span, apart, locate
from pipelines.policy import (
    POLICY_ROW,
    Comparison,
    PolicyConfig,
    Rule,
    evaluate,
    is_single_precision,
    measured,
    rules_for,
)
from pipelines.schemas import PERPLEXITY, SIGNALS, TOXICITY
from pipelines.signals.keywords import Hit, keyword_finder
from pipelines.store import Manifest, Store

MAX_NUM_DOCUMENTS = 800
"""Shown in all: a rule gets fewer where there are many rules."""
MAX_NUM_GROUPS = 200
"""Rules and other reasons shown; the rarest reasons are left out."""
MAX_NUM_LANGUAGES = 8
EXCERPT_NUM_CHARS = 420
MAX_NUM_EXCERPTS = 3
_PII_SIGNALS = frozenset({"num_pii_findings", "num_pii_dropped_kinds"})
_SUITE_SIGNAL = "num_suite_items"
_MARGIN_NUM_CHARS = 120
_BEGINNING_NUM_CHARS = 600
_MAX_WORD_NUM_CHARS = 30
_TITLE_NUM_CHARS = 160
_PII_NUM_CHARS = 4096
"""Read beyond what is shown, so that no personal data is cut before it is found."""
_NUM_STEPS = 40

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

_SIGNAL_COLUMNS = tuple(name for name in SIGNALS.names if name not in ("text_digest", "exact_digest", "minhash", "pii"))
_DECISION_COLUMNS = ("doc_id", "failed_rules")
_OUTCOME_COLUMNS = ("doc_id", "decision", "reason", "duplicate_of", "similarity")
_DOCUMENT_COLUMNS = ("doc_id", "title", "text")


@dataclass(slots=True)
class _Sample:
    """The documents with the smallest keys so far."""

    size: int
    chosen: list[tuple[int, str, int]] = field(default_factory=list)
    """(key, unit, row), sorted."""

    def add(self, keys: Keys, unit: str, rows: Ints) -> None:
        if keys.size > self.size:
            nearest = np.argpartition(keys, self.size - 1)[: self.size]
            keys, rows = keys[nearest], rows[nearest]
        new = [(key, unit, row) for key, row in zip(keys.tolist(), rows.tolist(), strict=True)]
        self.chosen = sorted((*self.chosen, *new))[: self.size]


@dataclass(slots=True)
class _Panel:
    """A rule with one threshold: the distribution of what it measures, in bins between the grid's thresholds."""

    rule: Rule
    grid: Floats
    kept: Ints
    dropped: Ints
    alone: Ints
    """Documents that fail no other rule: whether the policy keeps them is this rule's word alone."""
    languages: Counter[str] = field(default_factory=Counter)
    num_missing: int = 0


@dataclass(slots=True)
class _Group:
    """A rule in all its thresholds, or another reason for which documents are dropped."""

    name: str
    rule: Rule | None
    dropped: _Sample
    kept: _Sample
    num_failed: int = 0
    num_alone: int = 0
    panels: dict[str, _Panel] = field(default_factory=dict)


def review_facts(
    store: Store, done: Mapping[str, Manifest], config: CorpusConfig, *, num_per_rule: int, seed: int
) -> dict[str, Any]:
    """Everything the review page shows, as plain values: a function of the build, the number and the seed.

    `rules` are in the policy's order, then the other reasons by their number of documents. Of each: `dropped` and
    `kept` documents with `excerpts`, lists of (text, mark) in which `mark` is None for plain text, `pii` for a
    placeholder, else what the evidence is; `panels` with `grid`, `kept` and `dropped` (one bin more than the grid: below
    the first threshold, between two, above the last) and `would_keep` (one for each threshold of the grid).
    """
    groups, counts = _counted(store, done, config.policy, num_per_rule, seed)
    _add_originals(store, done, [group for group in groups if group.rule is None])
    rows = _rows(store, done, groups)
    find_keywords = keyword_finder(config.signals.keyword_lexicons)
    return {
        "seed": seed,
        "num_per_rule": num_per_rule,
        "dataset_digest": done["dedup"].digest,
        "documents": {
            "in": sum(counts.values()),
            "kept": counts["keep"],
            "dropped": sum(counts.values()) - counts["keep"],
        },
        "rules": [_group_facts(group, rows, config.policy, find_keywords) for group in groups],
    }


# Counting


def _counted(
    store: Store, done: Mapping[str, Manifest], config: PolicyConfig, num_per_rule: int, seed: int
) -> tuple[list[_Group], Counter[str]]:
    num_shown = _num_shown(config, num_per_rule)
    rules: dict[str, _Group] = {}
    reasons: dict[str, _Group] = {}
    counts: Counter[str] = Counter()
    known: dict[str | None, tuple[Rule, ...]] = {}
    parts = (
        (done["signals"], _SIGNAL_COLUMNS),
        (done["toxicity"], TOXICITY.names),
        (done["policy"], _DECISION_COLUMNS),
        (done["dedup"], _OUTCOME_COLUMNS),
        *contamination_part(done),
        *(((done["perplexity"], PERPLEXITY.names),) if "perplexity" in done else ()),
    )
    unit_before, offset = "", 0
    for unit, batch in read_aligned(store, *parts):
        offset = offset if unit == unit_before else 0
        unit_before = unit
        bases = _bases(batch["doc_id"].to_pylist())
        is_kept = np.array([each == "keep" for each in batch["decision"].to_pylist()], dtype=bool)
        reason_names = np.array([each or "" for each in batch["reason"].to_pylist()], dtype=object)
        counts.update("keep" if kept else "drop" for kept in is_kept.tolist())
        for language, idxs in _rows_by_language(batch).items():
            if language not in known:
                known[language] = rules_for(language, config)
            part = _Part(unit, offset, idxs, bases[idxs], is_kept[idxs], language or "unknown", seed)
            _add_rules(rules, part, batch.take(pa.array(idxs)), known[language], config, num_shown)
        own = {rule.name for each in known.values() for rule in each}
        for name in sorted(set(reason_names[~is_kept].tolist()) - own):
            group = reasons.setdefault(name, _Group(name, None, _Sample(num_shown), _Sample(0)))
            idxs = np.flatnonzero(reason_names == name)
            group.num_failed += idxs.size
            group.dropped.add(_keys(bases[idxs], seed, name), unit, idxs + offset)
        offset += batch.num_rows
    names = dict.fromkeys(rule.name for each in (rules_for("en", config), *known.values()) for rule in each)
    ordered = [rules[name] for name in names if name in rules]
    others = sorted(reasons.values(), key=lambda group: (-group.num_failed, group.name))
    return (ordered + [each for each in others if each.name not in rules])[:MAX_NUM_GROUPS], counts


def _num_shown(config: PolicyConfig, num_per_rule: int) -> int:
    num_rules = max(len(rules_for("en", config)), len(rules_for("zh", config))) + 10
    return max(1, min(num_per_rule, MAX_NUM_DOCUMENTS // (2 * num_rules)))


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a batch in one language."""

    unit: str
    offset: int
    """Rows of the unit before this batch."""
    idxs: Ints
    bases: Keys
    is_kept: Flags
    language: str
    seed: int


def _rows_by_language(batch: pa.RecordBatch) -> dict[str | None, Ints]:
    """Rows without a problem: the others are dropped for it, and no rule is asked."""
    rows: dict[str | None, list[int]] = {}
    for idx, (language, problem) in enumerate(
        zip(batch["language"].to_pylist(), batch["problem"].to_pylist(), strict=True)
    ):
        if problem is None:
            rows.setdefault(language, []).append(idx)
    return {language: np.array(idxs, dtype=np.int64) for language, idxs in rows.items()}


def _add_rules(
    groups: dict[str, _Group],
    part: _Part,
    batch: pa.RecordBatch,
    rules: tuple[Rule, ...],
    config: PolicyConfig,
    num_shown: int,
) -> None:
    values, failed = _measured(batch, rules, config)
    num_failed = failed.sum(axis=0)
    for idx, rule in enumerate(rules):
        group = groups.setdefault(rule.name, _Group(rule.name, rule, _Sample(num_shown), _Sample(num_shown)))
        no_other = num_failed - failed[idx] == 0
        group.num_failed += int(failed[idx].sum())
        group.num_alone += int((failed[idx] & no_other).sum())
        keys = _keys(part.bases, part.seed, rule.name)
        for sample, chosen in ((group.dropped, failed[idx]), (group.kept, part.is_kept)):
            sample.add(keys[chosen], part.unit, part.idxs[chosen] + part.offset)
        if isinstance(rule.threshold, tuple) or rule.signal.startswith("has_"):
            continue
        label = f"{rule.threshold:.12g}"
        if label not in group.panels:
            group.panels[label] = _panel(rule)
        _add_values(group.panels[label], part, values[idx], no_other)


def _measured(batch: pa.RecordBatch, rules: tuple[Rule, ...], config: PolicyConfig) -> tuple[Floats, Flags]:
    """What each rule measured and whether it failed, both (rules, rows), by the policy's own code."""
    return measured(batch, rules, config)


def _panel(rule: Rule) -> _Panel:
    grid = threshold_grid(rule)
    kept, dropped, alone = (np.zeros(grid.size + 1, dtype=np.int64) for _ in range(3))
    return _Panel(rule, grid, kept, dropped, alone)


def _add_values(panel: _Panel, part: _Part, values: Floats, no_other: Flags) -> None:
    is_there = ~np.isnan(values)
    panel.num_missing += int((~is_there).sum())
    panel.languages[part.language] += values.size
    # A value on a threshold passes it: a bin ends with its upper threshold, or begins with its lower one.
    side = "left" if panel.rule.comparison is Comparison.AT_MOST else "right"
    bins = np.searchsorted(panel.grid, values, side=side)  # type: ignore[call-overload]
    for counts, chosen in ((panel.kept, part.is_kept), (panel.dropped, ~part.is_kept), (panel.alone, no_other)):
        np.add(counts, np.bincount(bins[chosen & is_there], minlength=counts.size), out=counts)


def threshold_grid(rule: Rule) -> Floats:
    """Thresholds a person may try, in order, the rule's own among them, each as exact as the stored signal."""
    threshold = rule.threshold
    if isinstance(threshold, tuple):
        raise TypeError(f"got rule {rule.name} on a set of values, wanted one with a number: it has no grid.")
    in_single = is_single_precision(rule.signal)
    if rule.signal.startswith("num_") and (threshold > 20 or rule.signal == "num_words"):
        last = math.ceil(math.log10(max(threshold, 10))) + 1
        values = np.unique(np.round(np.logspace(0, last, 8 * last + 1)))
    elif rule.signal.startswith("num_"):
        values = np.arange(0, max(3 * threshold, 12) + 1)
    else:
        is_share = rule.signal.endswith(("_ratio", "_score", "toxicity")) and threshold <= 1
        is_high = rule.comparison is Comparison.AT_LEAST or threshold > 0.25 or threshold == 0
        top = (1.0 if is_high else 4 * threshold) if is_share else (3 * abs(threshold) or 1.0)
        step = _round_step(top / _NUM_STEPS)
        low = 0 if threshold >= 0 else -math.ceil(top / step)
        values = np.round(np.arange(low, math.ceil(round(top / step, 6)) + 1) * step, 12)
    values = np.union1d(values, [threshold])
    return np.unique(values.astype(np.float32)).astype(np.float64) if in_single else values.astype(np.float64)


def _round_step(step: float) -> float:
    size = 10.0 ** math.floor(math.log10(step))
    return next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= step * (1 - 1e-9))


def _bases(doc_ids: Sequence[str]) -> Keys:
    return np.array([int(doc_id[:16], 16) for doc_id in doc_ids], dtype=np.uint64)


def _keys(bases: Keys, seed: int, rule: str) -> Keys:
    """Pseudo-random keys of documents for a rule: document ids are digests, mixed once more with seed and rule."""
    salt = np.uint64(int.from_bytes(hashlib.blake2b(f"{seed}\0{rule}".encode(), digest_size=8).digest(), "big"))
    mixed = (bases ^ salt) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(32))


# The documents shown


def _add_originals(store: Store, done: Mapping[str, Manifest], groups: Sequence[_Group]) -> None:
    """Beside the duplicates shown, what they are duplicates of; each once, in their order."""
    places = {(unit, row) for group in groups for _, unit, row in group.dropped.chosen}
    original_of: dict[tuple[str, int], str] = {}
    for unit, offset, batch in _dedup_rows(store, _only(done["dedup"], {unit: None for unit, _ in places})):
        for row, original in enumerate(batch["duplicate_of"].to_pylist(), offset):
            if original is not None and (unit, row) in places:
                original_of[unit, row] = original
    wanted = pa.array(sorted(set(original_of.values())), pa.string())
    place_of: dict[str, tuple[str, int]] = {}
    for unit, offset, batch in _dedup_rows(store, done["dedup"]) if len(wanted) else ():
        for row in pc.indices_nonzero(pc.is_in(batch["doc_id"], wanted)).to_pylist():
            if batch["decision"][row].as_py() == "keep":
                place_of[batch["doc_id"][row].as_py()] = (unit, row + offset)
    for group in groups:
        originals = [original_of.get((unit, row), "") for _, unit, row in group.dropped.chosen]
        group.kept.chosen = [(0, *place_of[doc_id]) for doc_id in dict.fromkeys(originals) if doc_id in place_of]


def _dedup_rows(store: Store, manifest: Manifest) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """(unit, rows of the unit before it, batch) of outcomes."""
    for entry in manifest.entries:
        offset = 0
        for batch in store.read(entry.shard, ("doc_id", "decision", "duplicate_of")):
            yield entry.unit, offset, batch
            offset += batch.num_rows


def _rows(
    store: Store, done: Mapping[str, Manifest], groups: Sequence[_Group]
) -> dict[tuple[str, int], dict[str, Any]]:
    """What is shown of the sampled documents, by unit and row; only their units are read, and their texts cut."""
    wanted: dict[str, set[int]] = {}
    for group in groups:
        for _, unit, row in (*group.dropped.chosen, *group.kept.chosen):
            wanted.setdefault(unit, set()).add(row)
    parts = (
        (done["extract"], _DOCUMENT_COLUMNS),
        (done["signals"], _SIGNAL_COLUMNS),
        (done["toxicity"], TOXICITY.names),
        (done["policy"], _DECISION_COLUMNS),
        (done["dedup"], _OUTCOME_COLUMNS),
        *contamination_part(done),
        *(((done["perplexity"], PERPLEXITY.names),) if "perplexity" in done else ()),
    )
    found: dict[tuple[str, int], dict[str, Any]] = {}
    unit_before, offset = "", 0
    if "entities" in done:
        parts = (*parts, (done["entities"], ("doc_id", "entities")))
    for unit, batch in read_aligned(store, *((_only(manifest, wanted), columns) for manifest, columns in parts)):
        offset = offset if unit == unit_before else 0
        unit_before = unit
        idxs = [idx for idx in range(batch.num_rows) if idx + offset in wanted[unit]]
        for idx, row in zip(idxs, batch.take(pa.array(idxs, pa.int64())).to_pylist(), strict=True):
            row["text"] = row["text"][: MAX_NUM_CHARS + _PII_NUM_CHARS]
            found[unit, idx + offset] = row
        offset += batch.num_rows
    return found


def _only(manifest: Manifest, units: Mapping[str, Any]) -> Manifest:
    return replace(manifest, entries=tuple(entry for entry in manifest.entries if entry.unit in units))


def _group_facts(
    group: _Group,
    rows: Mapping[tuple[str, int], dict[str, Any]],
    config: PolicyConfig,
    find_keywords: Callable[[str], Sequence[Hit]],
) -> dict[str, Any]:
    rule = group.rule
    sides = {
        side: [_document_facts(rows[unit, row], rule, config, find_keywords) for _, unit, row in sample.chosen]
        for side, sample in (("dropped", group.dropped), ("kept", group.kept))
    }
    return {
        "name": group.name,
        "group": rule.group if rule else "other",
        "signal": rule.signal if rule else None,
        "comparison": rule.comparison.value if rule else None,
        "accepted": list(rule.threshold) if rule and isinstance(rule.threshold, tuple) else None,
        "num_failed": group.num_failed,
        "num_alone": group.num_alone,
        "panels": [_panel_facts(panel) for panel in sorted(group.panels.values(), key=_panel_order)],
        **sides,
    }


def _panel_order(panel: _Panel) -> tuple[int, float]:
    return -sum(panel.languages.values()), float(panel.rule.threshold)  # type: ignore[arg-type]


def _panel_facts(panel: _Panel) -> dict[str, Any]:
    below = np.cumsum(panel.alone)[:-1]
    is_ceiling = panel.rule.comparison is Comparison.AT_MOST
    languages = sorted(panel.languages.items(), key=lambda item: (-item[1], item[0]))
    threshold = float(panel.rule.threshold)  # type: ignore[arg-type]
    return {
        "threshold": threshold,
        "threshold_idx": int(np.abs(panel.grid - threshold).argmin()),
        "languages": [name for name, _ in languages[:MAX_NUM_LANGUAGES]],
        "num_more_languages": max(0, len(languages) - MAX_NUM_LANGUAGES),
        "num_missing": panel.num_missing,
        "grid": [float(f"{value:.6g}") for value in panel.grid],
        "kept": panel.kept.tolist(),
        "dropped": panel.dropped.tolist(),
        "would_keep": (below if is_ceiling else int(panel.alone.sum()) - below).tolist(),
        "num_failing_others": int((panel.kept + panel.dropped).sum() - panel.alone.sum()),
    }


def _document_facts(
    row: Mapping[str, Any],
    rule: Rule | None,
    config: PolicyConfig,
    find_keywords: Callable[[str], Sequence[Hit]],
) -> dict[str, Any]:
    language = row["language"]
    checked = evaluate({name: row.get(name) for name in POLICY_ROW.names}, config)
    spans = _spans(rule, row, find_keywords)
    own = next((each for each in checked if rule and each.name == rule.name), None)
    return {
        "doc_id": row["doc_id"],
        "url": _masked_line(row["url"], row),
        "title": _masked_line(row["title"], row),
        "language": language,
        "script": row["script"],
        "num_chars": row["num_chars"],
        "decision": row["decision"],
        "reason": row["reason"],
        "failed_rules": row["failed_rules"],
        "value": own.value if own else None,
        "threshold": own.threshold if own else None,
        "notes": [_masked_line(note, row) for note in _notes(row, rule)],
        "num_spans": len(spans),
        "excerpts": _excerpts(row, spans, shows_pii=rule is not None and rule.signal in _PII_SIGNALS),
        "rules": [
            {"rule": each.name, "value": each.value, "threshold": each.threshold, "passed": each.passed}
            for each in checked
        ],
    }


def _spans(rule: Rule | None, row: Mapping[str, Any], find_keywords: Callable[[str], Sequence[Hit]]) -> Sequence[Span]:
    """Where the evidence for a rule stands in the text."""
    if rule is None:
        return ()
    if rule.signal == _SUITE_SIGNAL:  # an index of the suites need not be at hand: the stage has kept the places
        held = sorted(row.get("contaminated_by") or (), key=lambda each: (each["start"], -each["end"]))
        return apart(Span(each["start"], each["end"], f"{each['suite']}: {each['item']}") for each in held)
    return locate(rule.signal, row["text"], find_keywords)


def _notes(row: Mapping[str, Any], rule: Rule | None) -> Iterator[str]:
    """Evidence that stands in no text."""
    signal = rule.signal if rule else ""
    if signal in ("rights", "num_blocked_ai_agents", "license") or (rule is None and row["rights_evidence"]):
        yield from row["rights_evidence"][:20] or ("no directive seen",)
    if signal == "license":
        yield f"licence: {row['license'] or 'none stated'}"
    if signal in ("language", "language_score"):
        yield f"{row['language']} ({row['script']}), score {_short(row['language_score'])}, by {row['language_source']}"
    if signal in PERPLEXITY.names:
        yield (
            f"perplexity {_short(row['perplexity'])}, {_short(row['bits_per_byte'])} bits a byte, "
            f"to the model of {row['perplexity_model'] or 'no language'}"
        )
    if row["duplicate_of"] is not None:
        yield f"{row['reason']} of {row['duplicate_of']}, similarity {_short(row['similarity'])}"
    if signal == "toxicity":
        yield f"most toxic sentence {_short(row['toxicity_max'])}, {row['num_scored_sentences']} sentences scored"
    for name, label in (
        ("keyword_counts", "category"),
        ("abuse_in_context", "context"),
        ("identity_counts", "group"),
        ("pii_counts", "kind"),
    ):
        counted = sorted((each[label], each["count"]) for each in row[name] or ())
        if counted and (signal.endswith("_per_1000_words") or signal in _PII_SIGNALS):
            yield f"{name}: " + ", ".join(f"{kind} {count}" for kind, count in counted[:20])
    if rule is None or signal == _SUITE_SIGNAL:
        for each in list(row.get("contaminated_by") or ())[:20]:
            yield f"holds {each['suite']}: {each['item']} ({each['num_ngrams']} n-grams, {each['share']:.0%} of the item's)"


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _masked_line(line: str | None, row: Mapping[str, Any]) -> str | None:
    if line is None:
        return None
    line = line[:_PII_NUM_CHARS]
    masked = pii.redact(line, pii.find_in_title(line, row["language"], row["text"], row.get("entities")))
    return masked if len(masked) <= _TITLE_NUM_CHARS else f"{masked[:_TITLE_NUM_CHARS]}…"


def _excerpts(row: Mapping[str, Any], spans: Sequence[Span], *, shows_pii: bool) -> list[dict[str, Any]]:
    """Stretches around the evidence, or the beginning. Personal data is a placeholder, also where it is cut."""
    text = row["text"]
    found = pii.find_all(text, row["language"], None, row.get("entities"))
    hidden = [Span(each.start, each.end, each.kind) for each in found]
    marks = sorted(
        (*((each, "pii") for each in hidden), *((each, each.label) for each in _without(spans, hidden))),
        key=lambda item: (item[0].start, item[0].end),
    )
    text = text[:MAX_NUM_CHARS]
    centres = hidden if shows_pii else spans
    return [
        {
            "pieces": _pieces(text, start, end, marks),
            "is_start": start == 0,
            "is_end": end >= len(text),
        }
        for start, end in _windows(text, centres)
    ]


def _windows(text: str, centres: Sequence[Span]) -> list[tuple[int, int]]:
    if not centres:
        return _between_words(text, [(0, min(len(text), _BEGINNING_NUM_CHARS))] if text else [])
    windows: list[tuple[int, int]] = []
    for span in centres:
        start = max(0, span.start - _MARGIN_NUM_CHARS)
        end = min(len(text), span.end + _MARGIN_NUM_CHARS, start + EXCERPT_NUM_CHARS)
        first, last = windows[-1] if windows else (0, 0)
        if start >= len(text) or (windows and span.end <= last):
            continue
        if windows and start <= last and end - first <= EXCERPT_NUM_CHARS:
            windows[-1] = (first, end)
        elif span.start < last:  # it is shown in one piece, at the end of the excerpt that it begins in
            windows[-1] = (first, min(span.end, first + 2 * EXCERPT_NUM_CHARS))
        elif len(windows) < MAX_NUM_EXCERPTS:
            windows.append((max(start, last), end))
    return _between_words(text, windows)


def _between_words(text: str, windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Windows that neither begin nor end inside a Latin word, unless it is a very long one; still apart."""
    moved: list[tuple[int, int]] = []
    for start, end in windows:
        at_start = start - _num_letters(
            text[max(0, start - _MAX_WORD_NUM_CHARS) : start][::-1], text[start : start + 1]
        )
        at_end = end + _num_letters(text[end : end + _MAX_WORD_NUM_CHARS], text[end - 1 : end])
        moved.append((max(at_start, moved[-1][1] if moved else 0), at_end))
    return moved


def _num_letters(beyond: str, edge: str) -> int:
    """How many characters of the word that `edge` belongs to stand beyond it; 0 where it ends here, or nowhere near."""
    if not (edge.isascii() and edge.isalnum()):
        return 0
    count = next((idx for idx, char in enumerate(beyond) if not (char.isascii() and char.isalnum())), len(beyond))
    return count if count < _MAX_WORD_NUM_CHARS else 0


def _pieces(text: str, start: int, end: int, marks: Sequence[tuple[Span, str]]) -> list[tuple[str, str | None]]:
    pieces: list[tuple[str, str | None]] = []
    at = start
    for span, mark in marks:
        if span.end <= start or span.start >= end:
            continue
        if span.start > at:
            pieces.append((text[at : span.start], None))
        if mark == "pii":
            pieces.append((f"<{span.label.upper()}>", "pii"))
        else:
            pieces.append((text[max(at, span.start) : min(span.end, end)], mark))
        at = max(at, span.end)
    if at < end:
        pieces.append((text[at:end], None))
    return [(piece, mark) for piece, mark in pieces if piece]


def _without(spans: Sequence[Span], hidden: Sequence[Span]) -> Iterator[Span]:
    """The evidence, cut where personal data stands in it."""
    for span in spans:
        start = span.start
        for other in hidden:
            if other.end > start and other.start < span.end:
                if other.start > start:
                    yield Span(start, other.start, span.label)
                start = max(start, other.end)
        if start < span.end:
            yield Span(start, span.end, span.label)
