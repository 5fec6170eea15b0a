"""The model card: a front matter that hubs read, and headings under which nothing is claimed that was not measured."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from model_inputs import corpus, evaluation, figure, full_facts, suite

from flows.model.card import front_matter, hub_card, model_card, write_card, write_hub_card
from flows.model.facts import model_facts

HEADINGS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
    "Compute",
]
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "![a](http://a.test/x.png)",
    "x | y | z",
    "line\n# heading\n---\nlicense: mine",
    "`code` [link](javascript:x)",
    "\u202egnp.exe \x00",
    "键: [值]",
)


def headings(card: str) -> list[str]:
    return [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]


def test_the_front_matter_is_what_hubs_read(tmp_path: Path) -> None:
    facts = full_facts(tmp_path / "t", "harbour")
    card = ModelCard(hub_card(facts, license_id="apache-2.0"))  # raises where the model-index does not fit
    assert (card.data.license, card.data.language, card.data.datasets) == ("apache-2.0", ["en", "zh"], ["harbour"])
    assert card.data.pipeline_tag == "text-generation"
    found = {(each.dataset_name, each.metric_name): each.metric_value for each in card.data.eval_results}
    assert found == {
        ("Held-out documents of harbour", "bits_per_byte"): 1.25,
        ("Held-out documents of harbour", "perplexity"): 11.0,
        ("Held-out documents of harbour", "loss"): 2.4,
        ("sentiment_zh", "acc"): 0.7,
        ("sentiment_en", "acc"): 0.52,
        ("bias_occupation", "gap"): 0.1,
    }
    assert set(card.data.metrics) == {"accuracy", "bits_per_byte", "gap", "loss", "perplexity"}
    (interval,) = [each.metric_args for each in card.data.eval_results if each.dataset_name == "sentiment_zh"]
    assert (interval["low"], interval["high"], interval["num_items"]) == (0.6, 0.8, 40)


def test_a_person_reads_no_front_matter(tmp_path: Path) -> None:
    facts = full_facts(tmp_path / "t", "harbour")
    card = write_card(tmp_path / "model_card.md", facts).read_text("utf-8")
    assert card.startswith("# Model card: harbour\n")
    assert write_hub_card(tmp_path / "README.md", facts).read_text("utf-8").endswith(f"---\n\n{card}")


def test_the_headings_of_mitchell(tmp_path: Path) -> None:
    card = model_card(full_facts(tmp_path, "harbour"), data_card="data_card.md")
    assert headings(card) == HEADINGS
    for wanted in (
        "Held-out text: **1.25 (1.054 to 1.446) bits per byte**",
        "| sentiment_zh | zh | acc (more) | 0.7 (0.6 to 0.8) | random 0.5 | better than random | 40 |",
        "| GPT-2 | 1.25 (1.2 to 1.3) | yes |",
        "[data_card.md](data_card.md)",
        "taken down since: harbour",
        "email",
        "Primary users**: to be filled in by the provider",
    ):
        assert wanted in card, wanted
    bias = card.split("### Bias")[1].split("###")[0]
    assert "bias_occupation" in bias
    assert "bias_occupation" not in card.split("## Quantitative analyses")[1].split("## ")[0]


def test_what_was_not_measured_is_not_claimed() -> None:
    card = model_card(model_facts("港口"))
    assert headings(card) == HEADINGS
    for wanted in (
        "Not evaluated yet.",
        "Not measured for this model.",
        "Its data card was not at hand.",
        "was not looked up",
        "licence of the weights: to be filled in by the provider",
    ):
        assert wanted in card, wanted
    front = yaml.safe_load(hub_card(model_facts("港口")).split("---\n")[1])
    assert front["license"] == "unknown"
    assert "model-index" not in front
    assert "language" not in front
    searched = replace(model_facts("x", takedowns=[]))
    assert "No document that this model saw has been taken down since." in model_card(searched)


def test_a_figure_that_is_not_finite_is_left_out() -> None:
    facts = model_facts(
        "x", evaluation=evaluation() | {"perplexity": math.inf}, suites=[suite("s", {"acc": figure(math.nan)})]
    )
    (result,) = front_matter(facts)["model-index"][0]["results"]
    assert [metric["type"] for metric in result["metrics"]] == ["bits_per_byte", "loss"]


@pytest.mark.parametrize("text", HOSTILE)
def test_strangers_text_is_text(tmp_path: Path, text: str) -> None:
    card = hub_card(full_facts(tmp_path, text), data_card=text)
    assert headings(card) == HEADINGS
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "unknown"
    outside = body.split("```sh")[0]  # in a fence nothing is markup
    assert "<img" not in outside
    assert "![a]" not in outside
    assert not re.search(r"(?<!\\)\]\(javascript", outside)
    assert "\n# heading" not in outside
    assert "\u202e" not in body
    ModelCard(card)


def test_a_command_cannot_end_its_fence() -> None:
    card = model_card(model_facts("x", command="run\n```\n# mine"))
    assert "````sh\nrun\n```\n# mine\n````" in card


def test_contamination_is_stated() -> None:
    counted = corpus() | {"contamination": {"documents": 50, "contaminated": 4, "dropped": 3}}
    assert "4 of 50 training documents held an item of a suite, 3 were dropped for it" in model_card(
        model_facts("x", corpus=counted)
    )
