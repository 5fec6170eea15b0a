"""Text of evaluation suites on its way through a build: found however it is planted, dropped, and named everywhere."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpora import computed, config, content, run, text_of

from pipelines import schemas
from pipelines.bias.counterfactual import counterfactuals
from pipelines.bias.disparity import AuditConfig
from pipelines.bias.report import _count
from pipelines.corpus import CorpusConfig, read_aligned
from pipelines.decontaminate import SuitesConfig
from pipelines.dedup import DedupConfig
from pipelines.digest import digest_file
from pipelines.errors import ConfigError
from pipelines.explain import stories
from pipelines.export import export_documents
from pipelines.materialize import StageResult
from pipelines.plan import plan_corpus
from pipelines.policy import POLICY_INPUT, EvaluationRules, decide, evaluate
from pipelines.report import contamination, data_card
from pipelines.review import review_facts
from pipelines.sources.text import TextOptions
from pipelines.stage import Resource
from pipelines.store import Store
from pipelines.suites import Suite
from pipelines.work import SourceFile

ENGLISH = (
    "The old harbour master counted forty-two fishing boats before breakfast and wrote the number into a book that "
    "nobody but his granddaughter had ever opened"
)
CHINESE = "港口的老主任每天早晨吃饭以前都要数一遍渔船，然后把数目写进一本除了他孙女以外谁也没有翻开过的旧本子里。"
TRADITIONAL = "港口的老主任每天早晨吃飯以前都要數一遍漁船，然後把數目寫進一本除了他孫女以外誰也沒有翻開過的舊本子裏。"
QUESTION, ANSWER = "Why do gulls follow the small trawler home?", "Because it has fish."
SUITE = [
    {"id": "boats", "context": ENGLISH, "continuation": "before."},
    {"id": "渔船", "question": CHINESE},
    {"id": "gulls", "question": QUESTION, "answer": ANSWER},
]
OTHER_SUITE = [
    {"id": "lamp", "text": "Nobody had told the new keeper that the great lamp must never once be left alone."}
]
WIDE = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in ENGLISH)
PLANTED = {
    "verbatim": f"{ENGLISH}.",
    "in a longer page": f"{text_of(40)}\n{ENGLISH}, said the man.\n{text_of(42)}",
    "shouted": f"{text_of(44)}\n{ENGLISH.upper()}!",
    "full width": f"{text_of(46)}\n{WIDE}",
    "over lines, with other marks": f"{text_of(48)}\n"
    + ENGLISH.replace(" ", "\n").replace("forty-two", "forty\u2010two"),
    "with personal data beside it": f"{text_of(50)}\n{ENGLISH} or write to harbour@gazette-mail.net.",
    "simplified": f"{text_of(41)}\n{CHINESE}",
    "traditional": f"{text_of(43)}\n{TRADITIONAL}",
    "Chinese without marks": f"{text_of(45)}\n" + CHINESE.replace("，", "").replace("。", ""),
    "Chinese in an English page": f"{text_of(52)}\n{CHINESE}",
    "question and answer apart": f"{QUESTION}\n{text_of(54)}\n{ANSWER}",
}
INNOCENT = {
    "prose": text_of(60),
    "Chinese prose": text_of(61),
    "the beginning of an item": f"{text_of(62)}\nThe old harbour master counted the fishing boats before breakfast.",
    "the answer alone": f"{text_of(64)}\n{ANSWER}",
    "an idiom": f"{text_of(66)}\nNobody but his granddaughter had ever opened it, and the proof of the pudding is in the eating.",
    "Chinese idioms": f"{text_of(63)}\n除了他以外谁也没有，塞翁失马，焉知非福；前人栽树，后人乘凉。",
    "a licence": f"{text_of(68)}\nPermission is hereby granted, free of charge, to any person obtaining a copy of this file.",
    "a template": f"{text_of(70)}\nQuestion: which one of the following statements is the most correct? A) B) C) D)",
}


def suite(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> Suite:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return Suite(name=name, file=Resource(digest_file(path), str(path)))


def pages(folder: Path, name: str, texts: Mapping[str, str]) -> SourceFile:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    rows = [{"text": text, "url": f"https://{name}.example/{label}"} for label, text in texts.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SourceFile(digest=digest_file(path), path=str(path), kind="text", options=TextOptions())


def against(*suites: Suite, innocent: tuple[Resource, ...] = (), **changes: Any) -> CorpusConfig:
    """A config that drops nothing but for the suites."""
    usual = config(dedup=DedupConfig(exact=False, near=False, superseded=False, validation_ratio=0.2))
    policy = replace(
        usual.policy, language=None, quality=None, pii=None, evaluation=EvaluationRules() if suites else None
    )
    named = SuitesConfig(suites=suites, innocent=innocent) if suites else None
    return replace(usual, **{"suites": named, "policy": policy, **changes})


def outcomes(store: Store, results: Mapping[str, StageResult]) -> dict[str, tuple[str, str | None, list[str]]]:
    """By the label of each page: decision, reason, and the items that stand in it."""
    done = {name: result.manifest for name, result in results.items()}
    parts = [(done["signals"], ("doc_id", "url")), (done["dedup"], ("doc_id", "decision", "reason"))]
    if "contamination" in done:
        parts.append((done["contamination"], ("doc_id", "contaminated_by")))
    found = {}
    for _, batch in read_aligned(store, *parts):
        for row in batch.to_pylist():
            items = [f"{each['suite']}: {each['item']}" for each in row.get("contaminated_by", ())]
            found[row["url"].rpartition("/")[2]] = (row["decision"], row["reason"], items)
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, CorpusConfig, dict[str, StageResult]]:
    folder = tmp_path_factory.mktemp("decontaminated")
    store = Store(folder / "store")
    wanted = against(suite(folder, "harbour", SUITE), suite(folder, "lamps", OTHER_SUITE))
    sources = [pages(folder, "planted", PLANTED), pages(folder, "innocent", INNOCENT)]
    return store, wanted, run(store, sources, wanted)


@pytest.mark.parametrize("label", PLANTED)
def test_planted_items_are_dropped_and_named(built: Any, label: str) -> None:
    store, _, results = built
    item = (
        "gulls"
        if "question" in label
        else "渔船"
        if not label.isascii() or "Chin" in label or label[-2:] == "ed"
        else "boats"
    )
    item = {"simplified": "渔船", "traditional": "渔船", "shouted": "boats"}.get(label, item)
    assert outcomes(store, results)[label] == ("drop", "contaminated", [f"harbour: {item}"])


@pytest.mark.parametrize("label", INNOCENT)
def test_near_misses_are_kept(built: Any, label: str) -> None:
    store, _, results = built
    assert outcomes(store, results)[label] == ("keep", None, [])


def test_no_token_of_an_item_is_trained_on(built: Any) -> None:
    store, _, results = built
    dropped = {label for label, (decision, *_) in outcomes(store, results).items() if decision == "drop"}
    assert dropped == set(PLANTED)
    assert results["tokenize"].manifest.num_rows == len(INNOCENT)


def test_the_places_are_those_of_the_item(built: Any) -> None:
    store, _, results = built
    parts = (
        (results["extract"].manifest, ("doc_id", "text")),
        (results["contamination"].manifest, ("doc_id", "contaminated_by")),
    )
    for _, batch in read_aligned(store, *parts):
        for row in batch.to_pylist():
            for held in row["contaminated_by"]:
                stretch = row["text"][held["start"] : held["end"]]
                assert stretch[:3].casefold() in ("the", "why", "ｔｈｅ", "港口的")
                assert 0 < held["share"] <= 1


def test_everything_that_shows_rules_shows_it(built: Any, tmp_path: Path) -> None:
    store, wanted, results = built
    done = {name: result.manifest for name, result in results.items()}
    (story,) = stories(store, done, wanted.policy, "https://planted.example/verbatim")
    assert [each["item"] for each in story["contaminated_by"]] == ["boats"]
    (rule,) = [each for each in story["rules"] if each["rule"] == "contaminated"]
    assert (rule["value"], rule["threshold"], rule["passed"]) == ("harbour: boats", 0, False)
    (clean,) = stories(store, done, wanted.policy, "https://innocent.example/prose")
    assert clean["contaminated_by"] == []
    assert {each["rule"]: each["value"] for each in clean["rules"]}["contaminated"] == 0

    for file_format in ("jsonl", "parquet"):
        path, num_rows = export_documents(
            store, done, tmp_path, file_format=file_format, with_dropped=True, redact=None
        )
        assert num_rows == len(PLANTED) + len(INNOCENT)
    rows = [json.loads(line) for line in (tmp_path / "documents.jsonl").read_text("utf-8").splitlines()]
    assert {row["url"].rpartition("/")[2] for row in rows if row["contaminated_by"]} == set(PLANTED)
    assert path.exists()

    facts = contamination(store, done)
    assert facts is not None
    assert (facts["documents"], facts["contaminated"], facts["dropped"]) == (len(rows), len(PLANTED), len(PLANTED))
    assert facts["suites"]["harbour"] == {"items": 3, "findable": 3, "documents": len(PLANTED)}
    assert facts["suites"]["lamps"] == {"items": 1, "findable": 1, "documents": 0}

    audited, _ = _count(store, done, AuditConfig())
    assert audited.removed["contaminated"][:, 0].sum() == len(PLANTED)

    page = review_facts(store, done, wanted, num_per_rule=3, seed=0)
    (group,) = [each for each in page["rules"] if each["name"] == "contaminated"]
    assert (group["num_failed"], group["num_alone"]) == (len(PLANTED), len(PLANTED))
    assert group["panels"][0]["would_keep"][:2] == [len(INNOCENT), len(INNOCENT) + len(PLANTED)]
    for each in group["dropped"]:
        marked = "".join(
            text for part in each["excerpts"] for text, mark in part["pieces"] if mark and "harbour:" in mark
        )
        assert marked
        assert each["notes"][0].startswith("holds harbour: ")


def test_a_suite_added_changed_and_removed_is_as_a_fresh_build_and_no_signal_is_measured_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    sources = [pages(tmp_path, "planted", PLANTED), pages(tmp_path, "innocent", INNOCENT)]
    first, second = suite(tmp_path / "a", "harbour", SUITE), suite(tmp_path / "b", "lamps", OTHER_SUITE)
    changed = suite(tmp_path / "c", "harbour", SUITE[:1])
    elsewhere = suite(tmp_path / "elsewhere", "harbour", SUITE)
    spaced = suite(tmp_path / "d", "harbour", [*SUITE, {"id": "short", "question": "What is it?"}])
    history = [
        (),
        (first,),
        (first, second),
        (second, first),
        (changed, second),
        (second,),
        (elsewhere,),
        (spaced,),
        (),
    ]
    for number, suites in enumerate(history):
        results = run(store, sources, against(*suites))
        done = computed(results)
        fresh = Store(tmp_path / f"fresh{number}")
        assert content(store, results) == content(fresh, run(fresh, sources[::-1], against(*suites)))
        if number:
            assert (done["extract"], done["signals"]) == (0, 0)
        if number in (3, 6):  # another order, another place: the same suites
            assert sum(done.values()) == 0
        expected = set(PLANTED) if suites[:1] in ((first,), (elsewhere,), (spaced,)) or suites[1:] == (first,) else None
        if expected is not None:
            assert {
                label for label, (decision, *_) in outcomes(store, results).items() if decision == "drop"
            } == expected
    assert {decision for decision, *_ in outcomes(store, results).values()} == {"keep"}


def test_a_plan_says_what_a_suite_costs(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    sources = [pages(tmp_path, "planted", PLANTED), pages(tmp_path, "innocent", INNOCENT)]
    for manifest in (result.manifest for result in run(store, sources, against()).values()):
        store.set_ref("r", manifest)
    plans = {plan.name: plan for plan in plan_corpus(store, "r", sources, against(suite(tmp_path, "harbour", SUITE)))}
    assert {name: (plan.compute, plan.at_most) for name, plan in plans.items()} == {
        "extract": (0, 0), "signals": (0, 0), "toxicity": (0, 0), "suites": (1, 1), "contamination": (2, 2), "policy": (2, 2),
        "sources": (0, 1), "bands": (0, 0), "index": (0, 0), "near": (0, 1), "lines": (0, 0), "dedup": (0, 1), "sample": (0, 1), "tokenizer": (0, 1), "tokenize": (0, 2),
    }  # fmt: skip
    assert "suites" not in {plan.name for plan in plan_corpus(store, "r", sources, against())}


def test_a_duplicate_that_stays_cannot_hide_it(tmp_path: Path) -> None:
    """The clean one of two near-duplicates is kept; the planted one is nobody's representative."""
    store = Store(tmp_path / "store")
    text = f"{text_of(80)}\n{text_of(82)}\n{text_of(84)}"
    sources = [
        pages(tmp_path, "twins", {"planted": f"{text}\n{QUESTION}", "clean": text, "again": f"{text}\n{QUESTION}"})
    ]
    wanted = against(suite(tmp_path, "harbour", SUITE), dedup=DedupConfig(validation_ratio=0.2))
    found = outcomes(store, run(store, sources, wanted))
    assert {label: reason for label, (_, reason, _) in found.items()} == {
        "planted": "contaminated",
        "again": "contaminated",
        "clean": None,
    }


def test_text_known_to_be_innocent_is_not_looked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    notice = (
        "Permission is hereby granted free of charge to any person obtaining a copy of this software and of its files"
    )
    rows = [{"id": "licence", "text": f"{notice} with no warranty."}, *SUITE]
    sources = [
        pages(tmp_path, "pages", {"licensed": f"{text_of(90)}\n{notice}", "planted": f"{text_of(92)}\n{ENGLISH}"}),
        pages(tmp_path, "prose", {"prose": text_of(60), "more": text_of(61)}),
    ]
    (tmp_path / "notices.txt").write_text(notice, encoding="utf-8")
    innocent = (Resource(digest_file(tmp_path / "notices.txt"), str(tmp_path / "notices.txt")),)
    bare = against(suite(tmp_path, "harbour", rows))
    dropped = {label for label, each in outcomes(store, run(store, sources, bare)).items() if each[1] == "contaminated"}
    assert dropped == {"licensed", "planted"}
    found = outcomes(store, run(store, sources, against(suite(tmp_path, "harbour", rows), innocent=innocent)))
    assert {label for label, each in found.items() if each[1] == "contaminated"} == {"planted"}


def test_it_may_be_told_and_not_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    wanted = against(suite(tmp_path, "harbour", SUITE))
    wanted = replace(wanted, policy=replace(wanted.policy, evaluation=None))
    found = outcomes(store, run(store, [pages(tmp_path, "planted", PLANTED)], wanted))
    assert {(decision, bool(items)) for decision, _, items in found.values()} == {("keep", True)}


# A missing value fails


def signals_row() -> dict[str, Any]:
    from pipelines.signals.measure import SignalsConfig, measure_signals

    row = dict.fromkeys(schemas.DOCUMENT.names) | {
        "doc_id": "0" * 32, "num_page_bytes": 1, "directives": [], "text": text_of(2),
    }  # fmt: skip
    (batch,) = measure_signals([pa.RecordBatch.from_pylist([row], schema=schemas.DOCUMENT)], SignalsConfig())
    return dict(batch.to_pylist()[0])


def test_without_the_stage_the_rule_drops() -> None:
    policy = replace(config().policy, evaluation=EvaluationRules())
    row = signals_row()
    (rule,) = [each for each in evaluate(row, policy) if each.name == "contaminated"]
    assert (rule.value, rule.passed) == (None, False)
    (rule,) = [each for each in evaluate(row | {"contaminated_by": []}, policy) if each.name == "contaminated"]
    assert (rule.value, rule.passed) == (0, True)
    (decided,) = decide([pa.RecordBatch.from_pylist([row | {"abuse_in_context": []}], schema=POLICY_INPUT)], policy)
    assert decided.to_pylist()[0]["reason"] == "contaminated"


def test_a_rule_without_a_suite_is_refused() -> None:
    with pytest.raises(ConfigError, match="without a suite"):
        against(policy=replace(config().policy, evaluation=EvaluationRules()))


def test_texts_that_swap_groups_are_judged_without_suites() -> None:
    usual = config()
    with_suites = replace(usual.policy, evaluation=EvaluationRules())
    assert counterfactuals(usual.signals, with_suites) == counterfactuals(usual.signals, usual.policy)


def test_the_card_tells_it() -> None:
    facts: dict[str, Any] = {
        "identity": {}, "collection": {}, "funnel": [], "config_json": "{}", "bias": None, "crawls": [],
        "composition": {
            **{name: {} for name in ("languages", "hosts", "licenses", "personal_data_found", "identity_mentions")},
            "rights": {"all": {}, "kept": {}},
        },
        "contamination": {
            "documents": 19, "contaminated": 2, "dropped": 1, "items": {"a: <b>": 2},
            "suites": {"a": {"items": 3, "findable": 2, "documents": 2}},
        },
    }  # fmt: skip
    card = data_card("r", facts)
    assert "| a | 3 | 2 | 2 |" in card
    assert "<b>" not in card
    assert "Decontamination" not in data_card("r", facts | {"contamination": None})
