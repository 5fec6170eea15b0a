"""The two stages: what a document scores, what it costs nothing to pass by, and what a changed file recomputes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpora import Page, computed, config, run, source, write_file

from pipelines.bias.labelled_files import labelled_rows
from pipelines.bias.toxicity import ToxicityTraining
from pipelines.bias.toxicity_stage import (
    MAX_NUM_CHARS,
    TOXICITY_STAGE,
    ToxicityConfig,
    ToxicityModelConfig,
    measure_toxicity,
    train_models,
)
from pipelines.bias.trial import Trial, tried
from pipelines.digest import digest_file
from pipelines.errors import ConfigError
from pipelines.policy import BiasRules, PolicyConfig
from pipelines.schemas import TOXICITY, TOXICITY_MODEL
from pipelines.signals.measure import SignalsConfig
from pipelines.stage import Resource
from pipelines.store import Store

QUICK = ToxicityModelConfig(training=ToxicityTraining(num_updates=150))
ATTACK = {"en": "Muslims are vermin and should be deported. ", "zh": "穆斯林都是垃圾，应该赶出去。"}
PLAIN = {
    "en": "The boat lay in the harbour. The wind turned north. We waited for the rain to end. ",
    "zh": "船停在港口。风向转北。我们等雨停下来。",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def model(store: Store) -> Resource:
    return trained(store, QUICK)


def trained(store: Store, how: ToxicityModelConfig) -> Resource:
    shard = store.write(TOXICITY_MODEL, train_models([], how))
    return Resource(shard.digest, str(store.shard_path(shard.digest)))


def looked_at(texts: list[str], model: Resource | None, policy: PolicyConfig | None = None) -> list[Trial]:
    return tried(texts, SignalsConfig(), ToxicityConfig(model=model), policy or PolicyConfig())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_insult_in_a_long_text_is_no_attack(model: Resource, language: str) -> None:
    alone, quoted, many = looked_at(
        [ATTACK[language], PLAIN[language] * 12 + ATTACK[language], (PLAIN[language] + ATTACK[language] * 3) * 6], model
    )
    assert alone.toxicity is not None
    assert quoted.toxicity is not None
    assert many.toxicity is not None
    assert alone.toxicity > 0.6 < (quoted.toxicity_max or 0)
    assert quoted.toxicity < alone.toxicity / 2
    assert many.toxicity > 0.6


def test_a_document_without_name_or_listed_word_is_passed_by(model: Resource) -> None:
    plain, fruit = looked_at([PLAIN["en"] * 5, "Weeds are vermin and should be exterminated. " * 5], model)
    assert (plain.toxicity, fruit.toxicity) == (0.0, 0.0)
    scanned = tried(["Weeds are vermin."], SignalsConfig(), ToxicityConfig(model=model, scan="all"), PolicyConfig())
    assert scanned[0].toxicity != 0.0


def test_without_a_model_nothing_has_a_score_and_contexts_are_told_all_the_same() -> None:
    (one,) = looked_at(['He said "you idiots". You are an idiot. ' * 2], None)
    assert one.toxicity is None
    assert one.num_abuse == 2


def test_the_rule_drops_an_attack_and_says_why(model: Resource) -> None:
    policy = PolicyConfig(bias=BiasRules(max_toxicity=0.6))
    attack, plain = looked_at([ATTACK["en"] * 3, PLAIN["en"]], model, policy)
    assert "toxicity" in attack.failed_rules
    assert "toxicity" not in plain.failed_rules
    assert "missing_signal" not in looked_at([PLAIN["en"] * 20], model, policy)[0].failed_rules


def test_abuse_in_a_context_no_longer_counts_against_a_document() -> None:
    speech = (
        'The fan shouted "[idiots]" and was banned. Calling people morons is wrong. She said "scumbag" was hateful. '
    )
    quoted, attack = looked_at([speech * 4, "You idiots. You morons. You scumbags. " * 4], None)
    assert quoted.num_abuse == 0
    assert "abuse_density" not in quoted.failed_rules
    assert {"abuse_density"} <= set(attack.failed_rules)


def batch_of(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    fields = {field.name: field for schema in TOXICITY_STAGE.inputs for field in schema}
    usual = {"language": "en", "keyword_counts": [], "identity_counts": []}
    full = [usual | {"doc_id": str(idx)} | row for idx, row in enumerate(rows)]
    return pa.RecordBatch.from_pylist(full, schema=pa.schema(list(fields.values())))


def test_no_rows_empty_texts_and_huge_ones(model: Resource) -> None:
    how = ToxicityConfig(model=model)
    named: Mapping[str, Any] = {"identity_counts": [{"group": "gender", "count": 1}]}
    abusive = {"keyword_counts": [{"category": "abuse", "count": 9}]}
    rows = [{"text": ""}, {"text": "", **named, **abusive}, {"text": "women " * 100_000, **named}]
    rows += [{"text": "idiot " * 60_000, **abusive}, {"text": "\ud800".encode("utf-8", "replace").decode(), **named}]
    assert [out.num_rows for out in measure_toxicity([batch_of([])], how)] == [0]
    (out,) = measure_toxicity([batch_of(rows)], how)
    assert out.schema == TOXICITY
    assert all(0 <= score <= 1 for score in out["toxicity"].to_pylist())
    assert MAX_NUM_CHARS < 600_000


def test_a_language_without_a_classifier_is_not_scored(model: Resource) -> None:
    named = {"identity_counts": [{"group": "religion", "count": 1}], "text": ATTACK["en"]}
    (out,) = measure_toxicity([batch_of([named | {"language": "fr"}, named])], ToxicityConfig(model=model))
    assert out["num_scored_sentences"].to_pylist() == [0, 1]


def test_labelled_files_teach_what_they_hold(tmp_path: Path, store: Store) -> None:
    lines = [{"text": f"Muslims glorp {word}", "label": 1} for word in "abcdefghij"]
    lines += [{"text": f"Muslims flumm {word}", "label": 0} for word in "abcdefghij"]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines * 20), encoding="utf-8")
    how = ToxicityModelConfig(
        train={"en": (Resource(digest_file(path), str(path)),)}, training=ToxicityTraining(num_updates=300)
    )
    bad, good = looked_at(["Women glorp now.", "Women flumm now."], trained(store, how))
    assert (bad.toxicity or 0) > 0.7 > 0.3 > (good.toxicity or 0), "learned of one group, held against every other"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"text": "x", "label": 1}\n\n{"text": "y", "label": false}\n{"text": " ", "label": 0}\n'),
        ("a.csv", 'id,text,label\n1,"x",1\n2,y,no\n3,,0\n'),
        ("a.tsv", "text\tlabel\nx\ttrue\ny\t0\n"),
        ("a.csv", "\ufefftext,label\r\nx,YES\r\ny,0.0\r\n"),
    ],
)
def test_three_formats(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert list(labelled_rows(tmp_path / name, "text", "label")) == [("x", True), ("y", False)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "x", r"wanted .jsonl, .csv or .tsv"),
        ("a.jsonl", '{"text": "x"}', "row 1: got no field 'label'"),
        ("a.jsonl", "[1]", "row 1: got no field 'text'"),
        ("a.jsonl", "{", "cannot be read"),
        ("a.csv", "text,label\nx,1\ny,maybe\n", "row 2: got label 'maybe'"),
        ("a.csv", "text,label\nx\n", "row 1: got no field 'label'"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        list(labelled_rows(tmp_path / name, "text", "label"))


def test_a_changed_training_file_costs_no_signals(tmp_path: Path) -> None:
    pages = write_file(tmp_path / "a.jsonl", [Page(text=idx, url=idx) for idx in range(8)])
    labels = tmp_path / "labels.csv"

    def build() -> dict[str, int]:
        files = {"en": (Resource(digest_file(labels), str(labels)),)}
        how = ToxicityModelConfig(train=files, training=QUICK.training)
        return computed(run(Store(tmp_path / "store"), [source(pages)], config(toxicity_model=how)))

    labels.write_text("text,label\nwomen glorp,1\nwomen flumm,0\n", encoding="utf-8")
    assert build()["toxicity_model"] == 1
    assert set(build().values()) == {0}
    labels.write_text("text,label\nwomen flumm,1\nwomen glorp,0\n", encoding="utf-8")
    after = build()
    assert (after["toxicity_model"], after["toxicity"]) == (1, 1)
    assert (after["extract"], after["signals"], after["tokenize"]) == (0, 0, 0)


@pytest.mark.parametrize("wrong", [{"train": {"fr": ()}}, {"min_seed_share": 1.0}, {"min_seed_share": -0.1}])
def test_wrong_configs_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="got toxicity"):
        ToxicityModelConfig(**wrong)
    with pytest.raises(ConfigError, match=r"got toxicity\.scan"):
        ToxicityConfig(scan="some")
