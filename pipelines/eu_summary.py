"""The public summary of training content that Article 53(1)(d) of the EU AI Act asks for, as far as it can be counted.

Follows the Commission's template, C(2025) 8311: section numbers are its own. What is stated is counted from
the stored corpus and the crawls' ledgers; what only the provider knows says so and is never guessed.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pipelines.corpus import read_aligned
from pipelines.crawl.address import is_address
from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.outcome import Outcome
from pipelines.markdown import plain, table
from pipelines.public_suffixes import registrable_domain
from pipelines.store import Manifest, Store

BY_PROVIDER = "to be filled in by the provider"
TEMPLATE = "Template for the public summary of training content, Article 53(1)(d) of Regulation (EU) 2024/1689"

_TOP_SHARE = 0.10
_TOP_SHARE_SME = 0.05
_MAX_DOMAINS_SME = 1_000
_NUM_SUFFIXES = 10
_SMALL_NUM_TOKENS, _LARGE_NUM_TOKENS = 1_000_000_000, 10_000_000_000_000
_MAX_REMEMBERED_HOSTS = 50_000

_RIGHTS_REASONS = ("robots_disallowed", "reserved", "withdrawn", "license_not_allowed")
"""Reasons of a drop that rest on rights, beside those that are called rights_something."""

RESERVATIONS_READ = (
    "robots.txt (RFC 9309), with Content-Signal and Content-Usage lines and the groups of known AI training crawlers",
    "TDMRep: tdmrep.json, the tdm-reservation header and meta tag",
    "RSL 1.0 documents",
    "ai.txt",
    "X-Robots-Tag and robots meta tags: noai, noindex, none",
    "Content-Usage (IETF AIPREF) and Content-Signal headers",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrawledSource:
    """A crawl of the recipe."""

    name: str
    config: CrawlConfig
    report: Mapping[str, Any]
    """What `crawl_report` returns."""
    is_served_locally: bool
    """Whether the operator's own files stood in for the hosts, so that no site was asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSource:
    """A source of the recipe that is not a crawl."""

    name: str
    kind: str
    """warc or text, or another kind of the recipe."""
    places: tuple[str, ...]
    """Files, globs, folders or the dataset, as the recipe names them."""


@dataclass(slots=True)
class _Kept:
    """Running counts over the corpus, bounded by the number of domains."""

    languages: Counter[str] = field(default_factory=Counter)
    num_documents: Counter[str] = field(default_factory=Counter)  # by source
    num_bytes: Counter[str] = field(default_factory=Counter)  # by source
    domain_bytes: Counter[str] = field(default_factory=Counter)
    domain_documents: Counter[str] = field(default_factory=Counter)
    suffix_bytes: Counter[str] = field(default_factory=Counter)
    dropped_by_evidence: Counter[str] = field(default_factory=Counter)
    last_fetched: datetime | None = None
    crawled: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)  # by source, all pages


def eu_summary(
    store: Store,
    done: Mapping[str, Manifest],
    *,
    name: str,
    crawled: Sequence[CrawledSource],
    listed: Sequence[ListedSource],
    source_of_unit: Mapping[str, str],
    obeys_reservations: bool,
    is_sme: bool = False,
) -> dict[str, Any]:
    """The summary of a finished build, as plain values.

    `source_of_unit` names the source of each unit of the build; `obeys_reservations` is whether the recipe drops pages
    that are reserved. `is_sme` lists the top 5 % of domains or 1,000, whichever is fewer, in place of 10 %.
    """
    kept = _count(store, done, source_of_unit, {source.name for source in crawled})
    tokens = done["tokenize"].counts()
    domains = _top_domains(kept, is_sme=is_sme)
    return {
        "template": TEMPLATE,
        "recipe": name,
        "dataset_digest": done["tokenize"].digest,
        "general_information": {
            "provider": BY_PROVIDER,
            "authorised_representative": BY_PROVIDER,
            "model_name_and_version": BY_PROVIDER,
            "model_dependencies": BY_PROVIDER,
            "date_of_placing_on_the_market": BY_PROVIDER,
            "modalities": ["text"],
            "text_size": {
                "band": _band(tokens.get("tokens", 0)),
                "num_tokens": tokens.get("tokens", 0),
                "num_bytes": tokens.get("bytes", 0),
            },
            "types_of_content": BY_PROVIDER,
            "latest_data_acquisition": _month(kept.last_fetched) or "unknown",
            "languages": dict(kept.languages.most_common()),
        },
        "data_sources": {
            "public_datasets_and_other_third_party": [
                {
                    "name": source.name,
                    "kind": source.kind,
                    "places": list(source.places),
                    "documents": kept.num_documents[source.name],
                    "bytes": kept.num_bytes[source.name],
                    "public_or_licensed": BY_PROVIDER,
                    "link": BY_PROVIDER,
                }
                for source in listed
            ],
            "crawled": {
                "crawlers": [_crawler(source, kept) for source in crawled],
                "kinds_of_site": BY_PROVIDER,
                "top_level_domains": dict(_ranked(kept.suffix_bytes)[:_NUM_SUFFIXES]),
                "domains": domains,
            },
            "user_data": BY_PROVIDER,
            "synthetic_data": BY_PROVIDER,
            "other": BY_PROVIDER,
            "documents_of_unknown_source": kept.num_documents[""],
        },
        "data_processing": {
            "rights_reservations": {
                "read": list(RESERVATIONS_READ),
                "obeyed": obeys_reservations,
                "urls_taken_out": _taken_out_by_crawls(crawled),
                "pages_dropped": {
                    reason.removeprefix("drop:"): count
                    for reason, count in done["dedup"].counts().items()
                    if reason.startswith("drop:rights_") or reason.removeprefix("drop:") in _RIGHTS_REASONS
                },
                "pages_dropped_by_directive": dict(_ranked(kept.dropped_by_evidence)),
                "copyright_policy": BY_PROVIDER,
            },
            "removal_of_illegal_content": BY_PROVIDER,
            "other": BY_PROVIDER,
        },
    }


def _count(store: Store, done: Mapping[str, Manifest], source_of_unit: Mapping[str, str], crawled: set[str]) -> _Kept:
    kept = _Kept()
    split_host = _host_splitter()
    columns = ("doc_id", "url", "fetched_at", "language", "num_bytes", "rights", "rights_evidence")
    for unit, batch in read_aligned(store, (done["signals"], columns), (done["dedup"], ("doc_id", "decision"))):
        source = source_of_unit.get(unit, "")
        is_crawled = source in crawled
        for row in batch.to_pylist():
            fetched_at = row["fetched_at"]
            if is_crawled and fetched_at is not None:
                first, last = kept.crawled.get(source, (fetched_at, fetched_at))
                kept.crawled[source] = (min(first, fetched_at), max(last, fetched_at))
            if row["decision"] != "keep":
                if row["rights"] == "disallow":
                    kept.dropped_by_evidence.update({_source_of(line) for line in row["rights_evidence"]})
                continue
            kept.languages[row["language"] or "unknown"] += 1
            kept.num_documents[source] += 1
            kept.num_bytes[source] += row["num_bytes"]
            if fetched_at is not None:
                kept.last_fetched = max(kept.last_fetched or fetched_at, fetched_at)
            if is_crawled:
                domain, suffix = split_host(row["url"] or "")
                kept.domain_bytes[domain] += row["num_bytes"]
                kept.domain_documents[domain] += 1
                kept.suffix_bytes[suffix] += row["num_bytes"]
    return kept


def _host_splitter() -> Callable[[str], tuple[str, str]]:
    """URL to its registrable domain and its last label; an address or a bare name is its own domain."""
    known: dict[str, tuple[str, str]] = {}

    def split(url: str) -> tuple[str, str]:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        found = known.get(host)
        if found is None:
            is_name = bool(host) and not is_address(host) and "." in host
            domain = registrable_domain(host, below_platforms=False)
            found = (domain or "(no URL)", f".{domain.rpartition('.')[2]}" if is_name else "(none)")
            if len(known) >= _MAX_REMEMBERED_HOSTS:
                known.clear()
            known[host] = found
        return found

    return split


def _source_of(directive: str) -> str:
    return directive.partition(":")[0].strip()


def _top_domains(kept: _Kept, *, is_sme: bool) -> dict[str, Any]:
    num_domains = len(kept.domain_bytes)
    share = _TOP_SHARE_SME if is_sme else _TOP_SHARE
    num_listed = max(1, math.ceil(share * num_domains))
    if is_sme:
        num_listed = min(num_listed, _MAX_DOMAINS_SME)
    listed = _ranked(kept.domain_bytes)[:num_listed]
    return {
        "rule": f"top {share:.0%} of registrable domains by bytes of kept text"
        + (f", at most {_MAX_DOMAINS_SME:,} (small or medium-sized enterprise)" if is_sme else ""),
        "num_domains": num_domains,
        "bytes_listed": sum(count for _, count in listed),
        "bytes_in_all": kept.domain_bytes.total(),
        "listed": [
            {"domain": domain, "bytes": count, "documents": kept.domain_documents[domain]} for domain, count in listed
        ],
    }


def _crawler(source: CrawledSource, kept: _Kept) -> dict[str, Any]:
    config, report = source.config, source.report
    first, last = kept.crawled.get(source.name, (None, None))
    asked = [datetime.fromisoformat(at) for at in report["period"].values() if at is not None]
    times = [each for each in (first, last, *asked) if each is not None]
    return {
        "source": source.name,
        "identifier": config.user_agent,
        "user_agent_header": config.user_agent_header,
        "contact": config.contact or BY_PROVIDER,
        "purpose": "collection of text to train a language model",
        "asked_no_site": source.is_served_locally,
        "behaviour": _behaviour(config),
        "period": f"{_month(min(times))} to {_month(max(times))}" if times else "not crawled yet",
        "hosts_asked": report["totals"]["hosts"],
        "requests": report["totals"]["requests"],
        "bytes_received": report["totals"]["bytes"],
        "pages": report["totals"]["pages"],
        "documents_kept": kept.num_documents[source.name],
        "bytes_kept": kept.num_bytes[source.name],
    }


def _behaviour(config: CrawlConfig) -> list[str]:
    reserved = "fetched and marked" if config.fetch_reserved else "not fetched"
    return [
        f"robots.txt is obeyed as {config.user_agent!r} (RFC 9309); one that answers 5xx, 429 or not at all means no",
        "robots.txt and the other files on rights are read again at least every 24 hours while the crawl runs",
        f"pages that a file of their site reserves from training are {reserved}",
        f"Crawl-delay is kept up to {config.max_delay_seconds:g} seconds; a host that asks for more is left out",
        "Retry-After is kept",
        "no captcha, paywall or log-in is passed: no cookies are kept, no scripts run, no forms sent, no credentials used",
        f"at least {config.delay_seconds:g} seconds pass between requests to a host",
        f"requests at once to a host: {config.concurrency_per_host}",
    ]


_TAKEN_OUT = {
    "robots_disallowed": "forbidden by robots.txt",
    "robots_unreachable": "robots.txt out of reach, which means no",
    "reserved": "reserved by a file of the site",
    "withdrawn": "of these, withdrawn after they were fetched",
}


def _taken_out_by_crawls(crawled: Sequence[CrawledSource]) -> dict[str, int]:
    total = dict.fromkeys(_TAKEN_OUT, 0)
    for source in crawled:
        for outcome in (Outcome.ROBOTS_DISALLOWED, Outcome.ROBOTS_UNREACHABLE, Outcome.RESERVED):
            total[outcome] += source.report["outcomes"].get(outcome, 0)
        total["withdrawn"] += source.report["rights"]["urls_withdrawn"]
    return total


def _band(num_tokens: int) -> str:
    if num_tokens < _SMALL_NUM_TOKENS:
        return "less than 1 billion tokens"
    return "1 billion to 10 trillion tokens" if num_tokens <= _LARGE_NUM_TOKENS else "more than 10 trillion tokens"


def _month(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%m/%Y}"


def _ranked(counter: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def eu_summary_markdown(facts: Mapping[str, Any]) -> str:
    """The summary as Markdown, in the template's order."""
    general, sources, processing = (facts[part] for part in ("general_information", "data_sources", "data_processing"))
    size = general["text_size"]
    lines = [
        f"# Public summary of training content: {plain(facts['recipe'])}",
        "",
        f"{facts['template']}. Numbers are counted from the corpus `{facts['dataset_digest'][:16]}` and the crawls' ledgers.",
        "",
        "## 1. General information",
        "",
        *_items(general, "provider", "authorised_representative", "model_name_and_version", "model_dependencies"),
        *_items(general, "date_of_placing_on_the_market"),
        f"- modalities: {', '.join(general['modalities'])}",
        f"- size of the text: {size['band']} ({size['num_tokens']:,} tokens, {size['num_bytes']:,} bytes)",
        *_items(general, "types_of_content", "latest_data_acquisition"),
        "",
        *table(("language", "documents"), general["languages"].items()),
        "## 2. Data sources",
        "",
        "### 2.1 Public datasets, 2.2 licensed and other third-party data",
        "",
        *table(
            ("source", "kind", "places", "documents", "bytes", "public or licensed", "link"),
            (
                (
                    each["name"],
                    each["kind"],
                    ", ".join(each["places"]),
                    each["documents"],
                    each["bytes"],
                    each["public_or_licensed"],
                    each["link"],
                )
                for each in sources["public_datasets_and_other_third_party"]
            ),
        ),
        "### 2.3 Data crawled by the provider",
        "",
    ]
    crawled = sources["crawled"]
    for each in crawled["crawlers"]:
        lines += _crawler_lines(each)
    domains = crawled["domains"]
    lines += [
        f"- kinds of site: {crawled['kinds_of_site']}",
        f"- domains listed: {domains['rule']}",
        f"- that is {len(domains['listed']):,} of {domains['num_domains']:,} domains",
        f"- and {domains['bytes_listed']:,} of {domains['bytes_in_all']:,} bytes",
        "",
        *table(
            ("domain", "bytes", "documents"),
            ((each["domain"], each["bytes"], each["documents"]) for each in domains["listed"]),
        ),
        *table(("top-level domain", "bytes"), crawled["top_level_domains"].items()),
        "### 2.4 to 2.6 Other data",
        "",
        *_items(sources, "user_data", "synthetic_data", "other"),
    ]
    if sources["documents_of_unknown_source"]:
        lines += [f"- documents whose file is no source of the recipe now: {sources['documents_of_unknown_source']:,}"]
    rights = processing["rights_reservations"]
    lines += [
        "",
        "## 3. Data processing",
        "",
        "### 3.1 Reservations of rights",
        "",
        "Read before, while and after pages are fetched:",
        "",
        *(f"- {each}" for each in rights["read"]),
        "",
        f"- reserved pages are dropped from the corpus: {'yes' if rights['obeyed'] else 'no, the recipe turns it off'}",
        f"- policy on copyright: {rights['copyright_policy']}",
        "",
        *table(
            ("taken out by the crawl", "URLs"),
            ((label, rights["urls_taken_out"][key]) for key, label in _TAKEN_OUT.items()),
        ),
        *table(("dropped from the corpus by rule", "pages"), rights["pages_dropped"].items()),
        *table(("because of", "pages"), rights["pages_dropped_by_directive"].items()),
        "### 3.2 Removal of illegal content",
        "",
        processing["removal_of_illegal_content"],
        "",
        "### 3.3 Other",
        "",
        processing["other"],
        "",
    ]
    return "\n".join(lines)


def _items(facts: Mapping[str, Any], *names: str) -> list[str]:
    return [f"- {name.replace('_', ' ')}: {plain(facts[name])}" for name in names]


def _crawler_lines(facts: Mapping[str, Any]) -> list[str]:
    where = ["- no site was asked: files of the operator stood in for the hosts"] if facts["asked_no_site"] else []
    return [
        f"#### Crawler {plain(facts['identifier'])}, source {plain(facts['source'])}",
        "",
        f"- user agent: {plain(facts['user_agent_header'])}",
        *_items(facts, "contact", "purpose", "period"),
        *where,
        *(f"- behaviour: {plain(each)}" for each in facts["behaviour"]),
        f"- asked: {facts['hosts_asked']:,} hosts, {facts['requests']:,} requests, {facts['bytes_received']:,} bytes",
        f"- kept: {facts['documents_kept']:,} documents of {facts['pages']:,} pages, {facts['bytes_kept']:,} bytes of text",
        "",
    ]
