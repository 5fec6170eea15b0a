"""lm-evaluation-harness finds the same on an exported folder, through our adapter, and in our own figures: on every suite.

One run of the command for all, in a process of its own, offline.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_export import export_tiny

from flows.evaluation.suites import shipped_suites

pytest.importorskip("lm_eval")

TOLERANCE = 1e-6
"""Of perplexities between their logarithms; relative where a score is above 1."""
RECIPE = """
name: harness
sources: [{kind: text, paths: [none.jsonl]}]
evaluation:
  suites:
    - {name: lambada, kind: last_word, path: lambada.jsonl, language: en, num_fewshot: 1}
    - {name: last_zh, kind: last_word, path: last_zh.jsonl, language: zh}
    - {name: choices, kind: multiple_choice, path: choices.jsonl, language: en, num_fewshot: 2, seed: 3}
    - {name: choices_zh, kind: multiple_choice, path: choices_zh.jsonl, language: zh}
    - {name: schemas, kind: multiple_choice, path: schemas.jsonl, language: en}
    - {name: wiki, kind: perplexity, path: wiki.txt, language: en}
    - {name: texts, kind: perplexity, path: texts.jsonl}
    - {name: too_long, kind: multiple_choice, path: too_long.jsonl, language: en}
    - {name: absent, kind: perplexity, path: absent.txt, skip: The file is not ours to give.}
"""
CHAPTER = " The mill turned , and the wheel @-@ wright slept .\n" * 12
FILES = {
    "lambada.jsonl": [
        {"text": f"The baker took the bread to the mill, and the miller ate the {word}"}
        for word in ("bread", "cake", "loaf")
    ],
    "last_zh.jsonl": [
        {"context": "面包师把面包送到磨坊，磨坊主吃了", "continuation": word} for word in ("面包", "蛋糕")
    ],
    "choices.jsonl": [
        {
            "question": f"What turns {where}?",
            "choices": ["the mill wheel", "stone", "a cloud in the sky"],
            "answer": idx % 3,
        }
        for idx, where in enumerate(("in the river", "by the road", "at night", "above the valley", "slowly"))
    ],
    "choices_zh.jsonl": [{"question": "什么在河里转动？", "choices": ["水车", "石头", "天上的白云"], "answer": "A"}]
    * 3,
    "schemas.jsonl": [
        {
            "context_options": ["Anna saw Eva because Anna", "Anna saw Eva because the tall Eva"],
            "continuation": "waved.",
            "gold": gold,
        }
        for gold in (0, 1)
    ],
    "texts.jsonl": [{"text": "水车在河边转动，磨坊里磨出了白面。" * 8}, {"text": "It rained."}],
    "too_long.jsonl": [{"query": "The mill", "choices": ["turns", "0 1 2 3 4 5 6 7 8 9 " * 12], "gold": 0}] * 2,
}


def compare(folder: Path) -> dict[str, Any]:
    """What the command finds for a recipe in a folder."""
    exported = export_tiny(folder)
    command = [sys.executable, "-m", "flows.evaluation.harness", str(exported), "--recipe", str(folder / "recipe.yaml")]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
    }
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("harness")
    for name, rows in FILES.items():
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    (folder / "wiki.txt").write_text(f" = Mill = \n \n{CHAPTER} = Ferry = \n {CHAPTER}", encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return compare(folder)


def test_every_suite_that_the_harness_can_ask_is_compared(compared):
    wanted = {each.section.name for each in shipped_suites()} | {
        "lambada",
        "last_zh",
        "choices",
        "choices_zh",
        "schemas",
        "wiki",
        "texts",
    }
    assert set(compared["folder"]) == set(compared["adapter"]) == set(compared["ours"]) == wanted
    assert set(compared["left_out"]) == {"too_long", "absent"}
    assert "the model's context 96" in compared["left_out"]["too_long"]


@pytest.mark.parametrize("other", ["adapter", "ours"])
def test_scores_are_equal_on_every_suite(compared, other):
    for name, scores in compared["folder"].items():
        assert scores, name
        theirs = dict(compared[other][name])
        theirs["chrf"] = theirs.get("chrf_corpus", theirs.get("chrf"))
        for metric, score in scores.items():
            scale = math.log if metric.endswith("perplexity") else float
            assert scale(theirs[metric]) == pytest.approx(scale(score), rel=TOLERANCE, abs=TOLERANCE), (name, metric)
    assert max(compared["largest_difference"].values()) <= TOLERANCE


def test_scores_are_not_all_of_one_kind(compared):
    """A comparison of zeros would be passed by anything."""
    folder = compared["folder"]
    assert any(folder[name]["chrf"] > 0 for name in folder if name.startswith("translation"))
    assert 0 < folder["choices"]["acc"] < 1 or 0 < folder["schemas"]["acc"] < 1
    assert folder["wiki"]["word_perplexity"] > folder["wiki"]["byte_perplexity"] > 1


@pytest.mark.real_data
@pytest.mark.timeout(600)
def test_scores_are_equal_on_published_suites(tmp_path):
    data = Path(os.environ["CORPUSMILL_TEST_DATA"])
    local = "lm-eval/llm-foundry/scripts/eval/local_data"
    named = {
        "lambada": ("last_word", f"{local}/language_understanding/lambada_openai.jsonl", "en", 0),
        "winogrande": ("multiple_choice", f"{local}/language_understanding/winogrande.jsonl", "en", 0),
        "copa": ("multiple_choice", f"{local}/commonsense_reasoning/copa.jsonl", "en", 2),
        "wikitext": ("perplexity", "lm-eval/wikitext-2/word_language_model/data/wikitext-2/valid.txt", "en", 0),
        "xquad_en": ("question_answering", "qa/xquad/xquad.en.json", "en", 1),
        "xquad_zh": ("question_answering", "qa/xquad/xquad.zh.json", "zh", 0),
    }
    suites = [
        {
            "name": name,
            "kind": kind,
            "path": str(data / path),
            "language": language,
            "num_fewshot": num_fewshot,
            "max_items": 10 if kind == "perplexity" else 60,
        }
        for name, (kind, path, language, num_fewshot) in named.items()
    ]
    head = "name: real\nsources: [{kind: text, paths: [none.jsonl]}]\n"
    (tmp_path / "recipe.yaml").write_text(head + "evaluation: " + json.dumps({"suites": suites}))
    found = compare(tmp_path)
    assert set(named) <= set(found["folder"])
    assert max(found["largest_difference"].values()) <= TOLERANCE
