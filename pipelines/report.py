"""The funnel and the data card: what came in, what was kept, what was dropped and why.

Follows the questions of Datasheets for Datasets (arXiv:1803.09010): composition, collection,
processing. All figures are counted from the stored signals and outcomes, none is entered by hand.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import pyarrow.compute as pc

from pipelines.bias.report import bias_section
from pipelines.corpus import read_aligned
from pipelines.crawl.report import crawl_section
from pipelines.markdown import plain, table
from pipelines.perplexity.quantiles import perplexity_facts, perplexity_section
from pipelines.store import Manifest, Store

_NUM_TOP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """Documents in, kept and dropped by reason; tokens out. The numbers add up."""

    num_in: int
    num_kept: int
    dropped: Mapping[str, int]
    num_tokens: int
    num_train_tokens: int
    num_validation_tokens: int
    num_text_bytes: int

    def rows(self) -> list[tuple[str, int]]:
        """The funnel as lines: label and number of documents."""
        reasons = sorted(self.dropped.items(), key=lambda item: (-item[1], item[0]))
        return [
            ("pages in", self.num_in),
            *((f"dropped: {name}", count) for name, count in reasons),
            ("kept", self.num_kept),
        ]


def funnel(done: Mapping[str, Manifest]) -> Funnel:
    """The funnel of a finished build, from the counts in its manifests."""
    outcomes = done["dedup"].counts()
    tokens = done["tokenize"].counts()
    return Funnel(
        num_in=done["extract"].num_rows,
        num_kept=outcomes.get("keep", 0),
        dropped={name.removeprefix("drop:"): n for name, n in outcomes.items() if name.startswith("drop:")},
        num_tokens=tokens.get("tokens", 0),
        num_train_tokens=tokens.get("tokens:train", 0),
        num_validation_tokens=tokens.get("tokens:validation", 0),
        num_text_bytes=tokens.get("bytes", 0),
    )


@dataclass(slots=True)
class _Composition:
    """Running counts over the corpus, bounded by the number of hosts."""

    kept_languages: Counter[str] = field(default_factory=Counter)
    kept_hosts: Counter[str] = field(default_factory=Counter)
    kept_bytes_by_host: Counter[str] = field(default_factory=Counter)
    kept_licenses: Counter[str] = field(default_factory=Counter)
    rights: Counter[str] = field(default_factory=Counter)
    kept_rights: Counter[str] = field(default_factory=Counter)
    pii_found: Counter[str] = field(default_factory=Counter)
    identity_mentions: Counter[str] = field(default_factory=Counter)
    first_fetched: datetime | None = None
    last_fetched: datetime | None = None


def composition(store: Store, done: Mapping[str, Manifest]) -> dict[str, Any]:
    """What the corpus is made of: languages, hosts, licences, rights, personal data found, period of collection."""
    total = _Composition()
    columns = (
        "doc_id",
        "url",
        "fetched_at",
        "language",
        "license",
        "rights",
        "num_bytes",
        "pii_counts",
        "identity_counts",
    )
    for _unit, batch in read_aligned(store, (done["signals"], columns), (done["dedup"], ("doc_id", "decision"))):
        for row in batch.to_pylist():
            _add(total, row)
    return {
        "languages": _top(total.kept_languages),
        "hosts": _top(total.kept_hosts),
        "num_hosts": len(total.kept_hosts),
        "bytes_by_host": _top(total.kept_bytes_by_host),
        "licenses": _top(total.kept_licenses),
        "rights": {"all": _top(total.rights), "kept": _top(total.kept_rights)},
        "personal_data_found": _top(total.pii_found),
        "identity_mentions": _top(total.identity_mentions),
        "first_fetched": total.first_fetched.isoformat() if total.first_fetched else None,
        "last_fetched": total.last_fetched.isoformat() if total.last_fetched else None,
    }


def _add(total: _Composition, row: Mapping[str, Any]) -> None:
    total.rights[row["rights"]] += 1
    if row["decision"] != "keep":
        return
    host = urlsplit(row["url"] or "").netloc or "(no URL)"
    total.kept_languages[row["language"] or "unknown"] += 1
    total.kept_hosts[host] += 1
    total.kept_bytes_by_host[host] += row["num_bytes"]
    total.kept_licenses[row["license"] or "none stated"] += 1
    total.kept_rights[row["rights"]] += 1
    for item in row["pii_counts"]:
        total.pii_found[item["kind"]] += item["count"]
    for item in row["identity_counts"]:
        total.identity_mentions[item["group"]] += item["count"]
    fetched_at = row["fetched_at"]
    if fetched_at is not None:
        total.first_fetched = min(total.first_fetched or fetched_at, fetched_at)
        total.last_fetched = max(total.last_fetched or fetched_at, fetched_at)


def _top(counter: Counter[str]) -> dict[str, int]:
    """The most frequent entries, ties in alphabetical order; the rest summed up."""
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    top = dict(ranked[:_NUM_TOP])
    rest = sum(count for _, count in ranked[_NUM_TOP:])
    return top | ({"(others)": rest} if rest else {})


def data_card(name: str, facts: Mapping[str, Any]) -> str:
    """The data card as Markdown. `facts` is what `card_facts` returns."""
    lines = [f"# Data card: {name}", "", "Every figure is counted from stored signals and decisions.", ""]
    lines += _section("Identity", [(label, facts["identity"][label]) for label in facts["identity"]])
    lines += _section("Collection", [(label, facts["collection"][label]) for label in facts["collection"]])
    lines += _table("Funnel", ("step", "documents"), facts["funnel"])
    for title, label, counts in (
        ("Languages (kept)", "language", facts["composition"]["languages"]),
        ("Hosts (kept)", "host", facts["composition"]["hosts"]),
        ("Licences (kept)", "licence", facts["composition"]["licenses"]),
        ("Training rights (all pages)", "verdict", facts["composition"]["rights"]["all"]),
        ("Training rights (kept)", "verdict", facts["composition"]["rights"]["kept"]),
        ("Personal data in kept pages, before redaction", "kind", facts["composition"]["personal_data_found"]),
        ("Mentions of identity groups (kept)", "group", facts["composition"]["identity_mentions"]),
    ):
        lines += _table(title, (label, "count"), list(counts.items()))
    if facts["contamination"]:
        lines += _contamination_section(facts["contamination"])
    if facts.get("perplexity") is not None:
        lines += perplexity_section(facts["perplexity"])
    if facts.get("bias"):
        lines += bias_section(facts["bias"])
    for crawl in facts.get("crawls", ()):
        lines += crawl_section(crawl["source"], crawl)
    lines += ["## Processing", "", "```json", facts["config_json"], "```", ""]
    return "\n".join(lines)


def card_facts(
    store: Store,
    done: Mapping[str, Manifest],
    *,
    collection: Mapping[str, Any],
    config_json: str,
    vocab_size: int,
    crawls: Sequence[Mapping[str, Any]] = (),
    bias: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything a data card states, as plain values. `crawls` are crawl reports, each with its `source`; `bias` is
    what `bias_facts` returns, or None where nothing was audited."""
    counted = funnel(done)
    made_of = composition(store, done)
    return {
        "identity": {
            "dataset digest": done["tokenize"].digest,
            "tokens": counted.num_tokens,
            "tokens for training": counted.num_train_tokens,
            "tokens for validation": counted.num_validation_tokens,
            "tokens for the last measurement": counted.num_tokens
            - counted.num_train_tokens
            - counted.num_validation_tokens,
            "text bytes": counted.num_text_bytes,
            "vocabulary": vocab_size,
        },
        "collection": {
            **collection,
            "first page fetched (UTC)": made_of["first_fetched"] or "unknown",
            "last page fetched (UTC)": made_of["last_fetched"] or "unknown",
            "hosts kept": made_of["num_hosts"],
        },
        "funnel": counted.rows(),
        "composition": made_of,
        "contamination": contamination(store, done),
        "perplexity": perplexity_facts(store, done) if "perplexity" in done else None,
        "crawls": [dict(each) for each in crawls],
        "bias": None if bias is None else dict(bias),
        "config_json": config_json,
    }


def contamination(store: Store, done: Mapping[str, Manifest]) -> dict[str, Any] | None:
    """What was looked for of evaluation suites, and what was found; None where there are no suites.

    `suites` has for each: items, those long enough to be found, documents that hold one. `items` are those that stand in
    most documents.
    """
    if "contamination" not in done:
        return None
    looked_for, found = done["suites"].counts(), done["contamination"].counts()
    items: Counter[str] = Counter()
    for _unit, batch in read_aligned(store, (done["contamination"], ("doc_id", "contaminated_by"))):
        for held in batch.filter(pc.greater(pc.list_value_length(batch["contaminated_by"]), 0)).to_pylist():
            items.update(f"{each['suite']}: {each['item']}" for each in held["contaminated_by"])
    return {
        "documents": found.get("documents", 0),
        "contaminated": found.get("contaminated", 0),
        "dropped": done["dedup"].counts().get("drop:contaminated", 0),
        "suites": {
            name: {
                "items": count,
                "findable": looked_for.get(f"findable:{name}", 0),
                "documents": found.get(f"suite:{name}", 0),
            }
            for name, count in sorted(
                (key.removeprefix("items:"), n) for key, n in looked_for.items() if key.startswith("items:")
            )
        },
        "items": _top(items),
    }


def _contamination_section(facts: Mapping[str, Any]) -> list[str]:
    rows = [(name, each["items"], each["findable"], each["documents"]) for name, each in facts["suites"].items()]
    lines = [
        "## Decontamination",
        "",
        f"- documents searched: {facts['documents']:,}; that hold an item of a suite: {facts['contaminated']:,}",
        f"- dropped for it: {facts['dropped']:,} (the others failed an earlier rule, or the recipe allows it)",
        "",
        *table(("suite", "items", "long enough to be found", "documents that hold one"), rows),
    ]
    return lines + (["", *table(("item", "documents"), list(facts["items"].items()))] if facts["items"] else [])


def _section(title: str, items: Sequence[tuple[str, Any]]) -> list[str]:
    return [f"## {title}", "", *(f"- {plain(label)}: {value}" for label, value in items), ""]


def _table(title: str, head: tuple[str, str], rows: Sequence[tuple[str, int]]) -> list[str]:
    return [f"## {title}", "", *table(head, rows or [("(none)", 0)])]
