"""Refused sources: the ratio at and beyond its limit, what is counted, and that only the set of rows matters."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.policy import CONTENT_RULES
from pipelines.refusal import SOURCE_REFUSED, SOURCES, RefusalConfig, before_paths, refuse_sources, site_finder
from pipelines.schemas import DECISION

INPUT = pa.unify_schemas([SOURCES.inputs[0], SOURCES.inputs[1]])


def row(doc_id: str, site: str, *failed: str, problem: str | None = None) -> dict[str, Any]:
    return {
        "doc_id": doc_id,
        "url": f"https://{site}/{doc_id}" if site else None,
        "problem": problem,
        "decision": "drop" if failed else "keep",
        "reason": failed[0] if failed else None,
        "value": 3.5 if failed else None,
        "threshold": 1.0 if failed else None,
        "failed_rules": list(failed),
        "blocked_by": None,
    }


def refuse(rows: list[dict[str, Any]], size: int = 1000, **config: Any) -> list[dict[str, Any]]:
    batches = [
        pa.RecordBatch.from_pylist(rows[start : start + size], schema=INPUT) for start in range(0, len(rows), size)
    ]
    out = list(refuse_sources(batches, RefusalConfig(**config)))
    assert [batch.num_rows for batch in out] == [batch.num_rows for batch in batches]
    assert all(batch.schema == DECISION for batch in out)
    return [decided for batch in out for decided in batch.to_pylist()]


def site(name: str, num_bad: int, num_good: int, rule: str = "abuse_density") -> list[dict[str, Any]]:
    bad = [row(f"{name}-bad{idx}", name, rule) for idx in range(num_bad)]
    return [*bad, *(row(f"{name}-ok{idx}", name) for idx in range(num_good))]


def test_a_source_above_the_ratio_goes_whole() -> None:
    decided = {item["doc_id"]: item for item in refuse(site("bad.example", 2, 18) + site("fine.cn", 1, 19))}
    good = decided["bad.example-ok0"]
    assert (good["decision"], good["reason"], good["value"]) == ("drop", SOURCE_REFUSED, 0.1)
    assert (good["threshold"], good["failed_rules"]) == (0.05, [SOURCE_REFUSED])
    bad = decided["bad.example-bad0"]
    assert (bad["reason"], bad["value"], bad["failed_rules"]) == (
        "abuse_density",
        3.5,
        ["abuse_density", SOURCE_REFUSED],
    )
    assert decided["fine.cn-ok0"]["decision"] == "keep"  # 5 % is not above 5 %
    assert decided["fine.cn-bad0"]["failed_rules"] == ["abuse_density"]


@pytest.mark.parametrize("rule", CONTENT_RULES)
def test_each_content_rule_counts(rule: str) -> None:
    assert all(item["decision"] == "drop" for item in refuse(site("a.example", 2, 18, rule)))


@pytest.mark.parametrize("rule", ["rights_disallow", "license_not_allowed", "gopher_short_doc", "language_not_allowed"])
def test_other_rules_do_not_count(rule: str) -> None:
    assert sum(item["decision"] == "keep" for item in refuse(site("a.example", 15, 15, rule))) == 15


def test_small_sources_and_pages_without_text_are_left_alone() -> None:
    assert sum(item["decision"] == "keep" for item in refuse(site("a.example", 9, 10))) == 10
    assert sum(item["decision"] == "keep" for item in refuse(site("a.example", 9, 10), min_documents=19)) == 0
    rows = [*site("a.example", 2, 18), row("x", "a.example", "http_404", problem="http_404")]
    assert refuse(rows)[-1]["failed_rules"] == ["http_404"]  # nothing to refuse, and no part of the share
    rows = site("a.example", 1, 18) + [row(str(n), "a.example", "no_text", problem="no_text") for n in range(50)]
    assert sum(item["decision"] == "keep" for item in refuse(rows)) == 18


def test_off_passes_everything_through() -> None:
    rows = site("a.example", 20, 1)
    names = DECISION.names
    assert refuse(rows, max_violation_ratio=None) == [{name: item[name] for name in names} for item in rows]
    assert refuse([]) == []


def test_sites() -> None:
    find = site_finder()
    urls = {
        "https://a.b.example.co.uk/x": "example.co.uk",
        "http://www.news.com.cn:8080/": "news.com.cn",
        "https://one.github.io/": "one.github.io",
        "https://two.github.io/": "two.github.io",
        "http://192.0.2.7/a": "192.0.2.7",
        "http://localhost/": "localhost",
        "http://[::1": "",
        "not a url": "",
    }
    assert {url: find(url) for url in urls} == urls
    assert find(None) == ""


ROWS = st.lists(
    st.tuples(st.sampled_from(["a.example", "b.a.example", "中文.cn", ""]), st.booleans(), st.booleans()), max_size=40
)


URLS = st.lists(
    st.none()
    | st.text(max_size=30)
    | st.builds(
        "{}://{}{}".format,
        st.sampled_from(["http", "HTTPS", "ftp", "9x"]),
        st.text("aZ.ü:@[]1\n山", max_size=12),
        st.text("/?#a\n", max_size=5),
    ),
    max_size=8,
)


@given(URLS)
def test_a_url_has_the_site_of_what_stands_before_its_path(urls: list[str | None]) -> None:
    site_of = site_finder()
    places = before_paths(pa.array(urls, pa.string())).to_pylist()
    assert [site_of(place) for place in places] == [site_of(url) for url in urls]


@settings(max_examples=20)
@given(ROWS, st.integers(1, 7), st.randoms())
def test_only_the_set_of_rows_matters(items: list[tuple[str, bool, bool]], size: int, random: Any) -> None:
    rows = [
        row(str(idx), name, *(["abuse_density"] if bad else []), problem="no_text" if empty else None)
        for idx, (name, bad, empty) in enumerate(items)
    ]
    config = {"max_violation_ratio": 0.3, "min_documents": 3}
    whole = {item["doc_id"]: item for item in refuse(rows, **config)}
    random.shuffle(rows)
    assert {item["doc_id"]: item for item in refuse(rows, size, **config)} == whole
    for before in rows:
        after = whole[before["doc_id"]]
        site_names = {idx: name.removeprefix("b.") for idx, (name, _, _) in enumerate(items)}
        mine = site_names[int(before["doc_id"])]
        judged = [r for r in rows if site_names[int(r["doc_id"])] == mine and r["problem"] is None]
        bad = sum("abuse_density" in r["failed_rules"] for r in judged)
        refused = len(judged) >= 3 and bad / len(judged) > 0.3 and before["problem"] is None
        assert after["failed_rules"] == [*before["failed_rules"], *([SOURCE_REFUSED] if refused else [])]
        assert (after["decision"] == "keep") == (not after["failed_rules"])


@pytest.mark.parametrize("bad", [{"max_violation_ratio": 1.5}, {"max_violation_ratio": -0.1}, {"min_documents": 0}])
def test_impossible_configs_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^got compliance\.m"):
        RefusalConfig(**bad)
