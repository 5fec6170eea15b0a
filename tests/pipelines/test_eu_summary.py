"""The EU AI Act's summary: what is counted, what is left to the provider, which domains are listed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpora import Page, config, run, source, text_of, write_file

from pipelines import eu_summary as module
from pipelines.crawl import CrawlConfig
from pipelines.crawl.report import crawl_report
from pipelines.eu_summary import BY_PROVIDER, CrawledSource, ListedSource, eu_summary, eu_summary_markdown
from pipelines.store import Store

NUM_DOMAINS = 24
Summary = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """A build of two sources: rows that stand for a crawl of many domains, and a WARC file with opt-outs."""
    folder = tmp_path_factory.mktemp("eu")
    rows = [
        {
            "text": "\n".join(text_of(2 * (idx + 40 * part)) for part in range(3 if idx in (5, 7) else 1)),
            "url": f"https://www.site{idx}.co.uk/{idx}" if idx != 9 else "http://10.0.0.1/x",
            "fetched_at": f"2024-{1 + idx % 5:02d}-03T00:00:00Z",
        }
        for idx in range(NUM_DOMAINS)
    ]
    crawled = folder / "crawled.jsonl"
    crawled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pages = [Page(text=401 + 2 * idx, url=idx, fate="opt_out" if idx < 2 else "ok") for idx in range(5)]
    sources = [source(crawled), source(write_file(folder / "listed.warc.gz", pages))]
    store = Store(folder / "store")
    done = {name: result.manifest for name, result in run(store, sources, config()).items()}
    crawl = CrawledSource(
        name="web",
        config=CrawlConfig(seeds=("https://site1.co.uk/",), user_agent="ourbot", contact="bots@example.com"),
        report=crawl_report(folder / "no-ledger"),
        is_served_locally=False,
    )

    def call(**changes: Any) -> dict[str, Any]:
        given: dict[str, Any] = {
            "name": "r",
            "crawled": [crawl],
            "listed": [ListedSource(name="dump|<b>", kind="warc", places=("listed.warc.gz",))],
            "source_of_unit": {sources[0].unit: "web", sources[1].unit: "dump|<b>"},
            "obeys_reservations": True,
        }
        return eu_summary(store, done, **(given | changes))

    return call


def test_a_tenth_of_the_domains_is_listed_the_largest_first(summary: Summary) -> None:
    domains = summary()["data_sources"]["crawled"]["domains"]
    assert domains["num_domains"] == NUM_DOMAINS
    assert {each["domain"] for each in domains["listed"][:2]} == {"site5.co.uk", "site7.co.uk"}
    assert len(domains["listed"]) == 3, "2.4, rounded up"
    sizes = [each["bytes"] for each in domains["listed"]]
    assert sizes == sorted(sizes, reverse=True)
    assert domains["bytes_listed"] == sum(sizes) < domains["bytes_in_all"]


def test_a_small_enterprise_lists_fewer(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed() -> int:
        return len(summary(is_sme=True)["data_sources"]["crawled"]["domains"]["listed"])

    assert listed() == 2, "1.2, rounded up"
    monkeypatch.setattr(module, "_MAX_DOMAINS_SME", 1)
    assert listed() == 1


def test_numbers_come_from_the_corpus(summary: Summary) -> None:
    found = summary()
    general, sources = found["general_information"], found["data_sources"]
    assert general["text_size"]["band"] == "less than 1 billion tokens"
    assert general["text_size"]["num_tokens"] > 1000
    assert general["latest_data_acquisition"] == "05/2024"
    assert general["languages"] == {"en": NUM_DOMAINS, "zh": 3}
    (crawler,) = sources["crawled"]["crawlers"]
    assert crawler["user_agent_header"] == "ourbot (+bots@example.com)"
    assert crawler["period"] == "01/2024 to 05/2024"
    assert crawler["documents_kept"] == NUM_DOMAINS
    assert sources["crawled"]["top_level_domains"].keys() == {".uk", "(none)"}
    (listed,) = sources["public_datasets_and_other_third_party"]
    assert (listed["documents"], listed["places"]) == (3, ["listed.warc.gz"])
    rights = found["data_processing"]["rights_reservations"]
    assert rights["pages_dropped"] == {"rights_disallow": 2}
    assert rights["pages_dropped_by_directive"] == {"x-robots-tag": 2}
    assert summary(source_of_unit={})["data_sources"]["documents_of_unknown_source"] == NUM_DOMAINS + 3


def test_what_only_the_provider_knows_is_never_made_up(summary: Summary) -> None:
    found = summary()
    for part, names in {
        "general_information": ("provider", "model_name_and_version", "date_of_placing_on_the_market"),
        "data_sources": ("user_data", "synthetic_data", "other"),
        "data_processing": ("removal_of_illegal_content", "other"),
    }.items():
        assert {found[part][name] for name in names} == {BY_PROVIDER}
    assert found["data_sources"]["crawled"]["kinds_of_site"] == BY_PROVIDER
    nobody = CrawledSource(
        name="web",
        config=CrawlConfig(seeds=("https://site1.co.uk/",)),
        report=crawl_report(Path("/nonexistent")),
        is_served_locally=True,
    )
    empty = summary(crawled=[nobody], source_of_unit={})["data_sources"]["crawled"]
    assert empty["crawlers"][0]["contact"] == BY_PROVIDER
    assert empty["crawlers"][0]["period"] == "not crawled yet"
    assert empty["domains"]["listed"] == []


def test_the_markdown_has_every_section_and_no_markup_of_others(summary: Summary) -> None:
    text = eu_summary_markdown(summary())
    for part in (
        "## 1. ",
        "### 2.1 ",
        "### 2.3 ",
        "### 2.4 ",
        "### 3.1 ",
        "### 3.2 ",
        "### 3.3 ",
        "ourbot",
        "site5.co.uk",
    ):
        assert part in text
    assert "RFC 9309" in text
    assert "dump\\|&lt;b&gt;" in text
    assert "<" not in text
    assert "no site was asked" not in text
