"""Suites' files are read as they are published; what is missing or malformed is named by file and line."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.evaluation.suite_files import KINDS, read_cases
from flows.evaluation.suites import SHIPPED
from pipelines.errors import InputError


def write(folder: Path, name: str, *rows: object) -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def values(path: Path, kind: str, **options):
    return [dict(case.values) for case in read_cases(path, kind, **options)]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "水车？", "choices": ["转", "停"], "answer": "停"},
        {"question": "水车？", "choices": {"text": ["转", "停"], "label": ["A", "B"]}, "answerKey": "B"},
        {"question": "水车？", "choices": {"text": ["转", "停"], "label": ["1", "2"]}, "answerKey": "2"},
        {
            "question": {"stem": "水车？", "choices": [{"text": "转", "label": "A"}, {"text": "停", "label": "B"}]},
            "answerKey": "B",
        },
        {"goal": "水车？", "sol1": "转", "sol2": "停", "label": 1},
        {"question": "水车？", "A": "转", "B": "停", "answer": "B"},
        {"ctx": "水车？", "endings": ["转", "停"], "label": "1"},
    ],
)
def test_questions_with_options_are_read_in_each_published_form(tmp_path, row):
    (found,) = values(write(tmp_path, "a.jsonl", row), "multiple_choice")
    assert found == {"query": "水车？", "choices": ["转", "停"], "gold": 1, "is_question": True}


def test_a_query_is_asked_as_it_stands_and_options_may_be_contexts(tmp_path):
    path = write(
        tmp_path,
        "a.jsonl",
        {"query": "The mill", "choices": ["turns", "sings"], "gold": 0},
        {"context_options": ["Anna", "Eva"], "continuation": "slept.", "gold": 1},
    )
    assert values(path, "multiple_choice") == [
        {"query": "The mill", "choices": ["turns", "sings"], "gold": 0, "is_question": False},
        {"contexts": ["Anna", "Eva"], "continuation": "slept.", "gold": 1},
    ]


def test_a_passage_is_parted_at_its_last_space(tmp_path):
    path = write(tmp_path, "a.jsonl", {"text": "It was late"}, {"context": "天", "continuation": "黑"})
    assert values(path, "last_word") == [{"context": "It was", "target": "late"}, {"context": "天", "target": "黑"}]
    path = tmp_path / "a.txt"
    path.write_text("It was late\n\nThe end\n")
    assert [case.id for case in read_cases(path, "last_word")] == ["1", "3"]


def test_squad_is_read_with_its_ids_and_without_questions_that_have_no_answer(tmp_path):
    questions = [
        {
            "id": "q1",
            "question": "何时？",
            "answers": [{"text": "1820年", "answer_start": 3}, {"text": "1820年", "answer_start": 3}],
        },
        {"id": "q2", "question": "谁？", "answers": [], "is_impossible": True},
    ]
    document = {"data": [{"paragraphs": [{"context": "建于1820年。", "qas": questions}]}]}
    (found,) = read_cases(write(tmp_path, "a.json", document), "question_answering")
    assert (found.id, found.values["answers"], found.values["context"]) == ("q1", ["1820年"], "建于1820年。")


def test_tables_translations_and_parquet_are_rows(tmp_path):
    tsv = tmp_path / "a.tsv"
    tsv.write_text('sentence\tlabel\nHe said "no\t0\nVery good\t1\n', encoding="utf-8")
    assert [case["gold"] for case in values(tsv, "sentiment")] == [0, 1]
    table = tmp_path / "a.csv"
    table.write_text('en,zh\n"The cat, asleep",猫睡了\n', encoding="utf-8")
    assert values(table, "translation", languages=("zh", "en")) == [{"source": "猫睡了", "target": "The cat, asleep"}]
    nested = write(tmp_path, "n.jsonl", {"translation": {"en": "cat", "zh": "猫"}})
    assert values(nested, "translation", languages=("en", "zh")) == [{"source": "cat", "target": "猫"}]
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["The mill.", "水车。"]}), parquet)
    assert [case["num_bytes"] for case in values(parquet, "perplexity")] == [9, 9]
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress('{"text": "长文。", "summary": "文"}'.encode()))
    assert values(packed, "summarisation") == [{"text": "长文。", "summary": "文"}]


def test_wikitext_is_read_by_pages_and_other_text_whole(tmp_path):
    path = tmp_path / "wiki.txt"
    path.write_text(" \n = Mill = \n It turns , slowly . \n = Ferry = \n It rows .\n", encoding="utf-8")
    first, second = values(path, "perplexity")
    assert "It turns, slowly." in first["text"]
    assert first["num_words"] > len(first["text"].split())
    assert second["num_bytes"] == len(" = Ferry = \n It rows .\n")
    path.write_text("It turns , slowly .", encoding="utf-8")
    assert values(path, "perplexity")[0]["text"] == "It turns , slowly ."


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("multiple_choice", {"query": "x", "choices": ["a"], "gold": 0}, "at least two texts"),
        (
            "multiple_choice",
            {"query": "x", "choices": ["a", "b"], "gold": 2},
            "got gold 2, wanted the place of one of 2",
        ),
        ("multiple_choice", {"query": "x", "choices": ["a", "b"]}, "got gold None"),
        ("multiple_choice", {"choices": ["a", "b"], "gold": 0}, "wanted a text under query or question"),
        ("last_word", {"text": "天黑"}, "without a space before its last word"),
        ("perplexity", {"txt": "x"}, "wanted a text under page or text"),
        ("question_answering", {"question": "x", "answers": []}, "got answers .., wanted at least one"),
        ("translation", {"source": "x"}, "wanted a text under target"),
        ("summarisation", ["x"], "wanted a mapping"),
        ("sentiment", {"text": "x", "label": "great"}, "got label 'great', wanted one of"),
        ("similarity", {"sentence1": "x", "label": 1}, "wanted a text under sentence2"),
    ],
)
def test_a_row_that_is_not_what_its_kind_wants_is_named(tmp_path, kind, row, reason):
    good = {
        "multiple_choice": {"query": "x", "choices": ["a", "b"], "gold": 0},
        "last_word": {"text": "a b"},
        "perplexity": {"text": "a"},
        "question_answering": {"question": "a", "answer": "b"},
        "translation": {"source": "a", "target": "b"},
        "summarisation": {"text": "a", "summary": "b"},
        "sentiment": {"text": "a", "label": 1},
        "similarity": {"sentence1": "a", "sentence2": "b", "label": 0},
    }
    path = write(tmp_path, "a.jsonl", good[kind], row)
    assert len(read_cases(write(tmp_path, "good.jsonl", good[kind]), kind)) == 1
    with pytest.raises(InputError, match=rf"a\.jsonl, line 2: .*{reason}"):
        read_cases(path, kind)
    assert set(good) == set(KINDS)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"a\.jsonl, line 2: got no JSON"),
        ("a.json", '[\n{"text":\n]', r"a\.json, line 3: got no JSON"),
        ("a.json", '{"rows": []}', "got no list of rows"),
        ("a.jsonl", "", "got a file without rows"),
        ("a.jsonl", b"\xff\xfe", "cannot be read"),
        ("a.jsonl.gz", b"\x1f\x8bnot", "cannot be read"),
        ("a.parquet", "x", "got no Parquet"),
        ("a.docx", "x", "unknown kind of file"),
        ("a.csv", 'text\n"open', "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=reason):
        read_cases(path, "perplexity")


def test_plain_text_is_no_question(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="got plain text, wanted rows for kind sentiment"):
        read_cases(tmp_path / "a.txt", "sentiment")


def test_cases_with_one_name_are_told_apart(tmp_path):
    path = write(tmp_path, "a.jsonl", {"id": 7, "text": "a"}, {"id": 7, "text": "b"})
    assert [case.id for case in read_cases(path, "perplexity")] == ["7/0", "7/1"]


def test_shipped_files_hold_twenty_different_cases_each():
    for path in sorted(SHIPPED.glob("*.jsonl")):
        kind = next(kind for kind in KINDS if path.name.startswith(kind))
        cases = read_cases(path, kind, languages=("en", "zh") if kind == "translation" else None)
        assert len(cases) == (3 if "_examples" in path.name else 20), path.name
        assert len({json.dumps(case.values, sort_keys=True) for case in cases}) == len(cases)
        if kind in ("sentiment", "similarity") and "_examples" not in path.name:
            assert sum(case.values["gold"] for case in cases) == 10
        if kind == "question_answering":
            assert all(
                any(answer.lower() in case.values["context"].lower() for answer in case.values["answers"])
                for case in cases
            )


DATA = {
    "lm-eval/llm-foundry/scripts/eval/local_data/language_understanding/lambada_openai.jsonl": ("last_word", 5_153),
    "lm-eval/llm-foundry/scripts/eval/local_data/language_understanding/winogrande.jsonl": ("multiple_choice", 1_267),
    "lm-eval/llm-foundry/scripts/eval/local_data/language_understanding/winograd_wsc.jsonl": ("multiple_choice", 273),
    "lm-eval/llm-foundry/scripts/eval/local_data/commonsense_reasoning/piqa.jsonl": ("multiple_choice", 1_838),
    "lm-eval/llm-foundry/scripts/eval/local_data/commonsense_reasoning/copa.jsonl": ("multiple_choice", 100),
    "lm-eval/llm-foundry/scripts/eval/local_data/commonsense_reasoning/openbook_qa.jsonl": ("multiple_choice", 500),
    "lm-eval/llm-foundry/scripts/eval/local_data/world_knowledge/arc_easy.jsonl": ("multiple_choice", 2_376),
    "lm-eval/wikitext-2/word_language_model/data/wikitext-2/valid.txt": ("perplexity", 60),
    "lm-eval/tinyshakespeare/distributed/minGPT-ddp/mingpt/data/input.txt": ("perplexity", 1),
    "qa/xquad/xquad.en.json": ("question_answering", 1_190),
    "qa/xquad/xquad.zh.json": ("question_answering", 1_190),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", DATA)
def test_published_files_are_read_whole(name):
    kind, num_cases = DATA[name]
    assert len(read_cases(Path(os.environ["CORPUSMILL_TEST_DATA"]) / name, kind)) == num_cases
