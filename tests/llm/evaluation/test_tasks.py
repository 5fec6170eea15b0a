"""Figures of suites: known answers of a uniform model, baselines, weights, and calibration by texts that say nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
from byte_speaker import byte_speaker

from llm.evaluation import tasks
from llm.evaluation.suite import Suite
from llm.evaluation.tasks import ChoiceItem, LastWordItem, TextItem, Writing, WritingItem
from pipelines.errors import EmptyCorpusError

UNIFORM = byte_speaker(seed=None)
RANDOM = byte_speaker()


def suite(metric: str, **changes) -> Suite:
    given = {
        "name": "toy",
        "version": 1,
        "protocol": "toy/1",
        "metric": metric,
        "higher_is_better": True,
        "dataset_digest": "0" * 64,
        "noise_floor": 0.0,
    }
    return Suite(**{**given, **changes})


def choice(gold: int, options=("ab", "abcd"), idx: int = 0, context: str = "Q:", **changes) -> ChoiceItem:
    return ChoiceItem(
        id=str(idx),
        contexts=(context,) * len(options),
        continuations=tuple(f" {option}" for option in options),
        options=tuple(options),
        gold=gold,
        **changes,
    )


def test_a_uniform_model_takes_the_shorter_option_and_normalised_the_longer():
    items = [choice(0), choice(1), choice(0)]
    figures = tasks.multiple_choice(suite("acc"), items, UNIFORM).figures
    # -3 bytes against -5; a byte of the option itself -3/2 against -5/4
    assert figures["acc"].value == pytest.approx(2 / 3)
    assert figures["acc_norm"].value == figures["acc_bytes"].value == pytest.approx(1 / 3)
    assert figures["gold_bits_per_byte"].value == pytest.approx(math.log2(257), rel=1e-6)
    assert figures["baseline/random"].value == 0.5
    assert figures["baseline/majority"].value == pytest.approx(2 / 3)


def test_normalisation_counts_characters_and_bytes_apart():
    figures = tasks.multiple_choice(suite("acc"), [choice(1, ("abcd", "水车"))], UNIFORM).figures
    # 5 bytes against 7: a character 5/4 against 7/2, a byte 5/4 against 7/6
    assert (figures["acc_norm"].value, figures["acc_bytes"].value) == (0.0, 1.0)


def test_calibration_takes_away_what_a_model_would_say_of_nothing():
    item = choice(0, ("positive", "negative"), content_free=("Q:",))
    result = tasks.multiple_choice(suite("acc_calibrated"), [item], RANDOM)
    row = result.items[0]
    assert "acc_calibrated" in result.figures
    # asked about nothing in the same words, no option is likelier than before: the first one is taken
    assert (row["chosen"], row["score"]) == (0, 1.0)
    plain = tasks.multiple_choice(suite("acc"), [choice(0, ("positive", "negative"))], RANDOM)
    assert "acc_calibrated" not in plain.figures


def test_options_may_be_contexts():
    item = ChoiceItem(
        id="1",
        contexts=("Anna", "The old mill"),
        continuations=(" slept.",) * 2,
        options=("Anna", "The old mill"),
        gold=1,
    )
    figures = tasks.multiple_choice(suite("acc"), [item], UNIFORM).figures
    assert (figures["acc"].value, figures["acc_norm"].value) == (0.0, 1.0)


def test_the_last_word_of_a_uniform_model_has_the_known_perplexity():
    items = [LastWordItem(id="1", context="It was", target=" late"), LastWordItem(id="2", context="天", target="黑")]
    result = tasks.last_word(suite("loss", higher_is_better=False), items, UNIFORM)
    assert result.figures["loss"].value == pytest.approx(4 * math.log(257), rel=1e-6)
    assert result.figures["perplexity"].value == pytest.approx(257**4, rel=1e-5)
    assert result.figures["baseline/uniform"].value == pytest.approx(result.figures["loss"].value, rel=1e-6)
    assert result.scores.mean() == pytest.approx(result.figure.value)


def test_texts_weigh_by_their_bytes():
    items = [
        TextItem(id="1", text="The mill turns.", num_words=3, num_bytes=15),
        TextItem(id="2", text="水车", num_words=1, num_bytes=6),
    ]
    result = tasks.perplexity(suite("bits_per_byte"), items, UNIFORM)
    assert result.figure.value == pytest.approx(math.log2(257), rel=1e-6)
    assert result.weights is not None
    assert result.scores.sum() / result.weights.sum() == pytest.approx(result.figure.value)
    assert result.figures["byte_perplexity"].value == pytest.approx(257, rel=1e-5)
    assert result.figures["word_perplexity"].value == pytest.approx(257 ** (21 / 4), rel=1e-4)
    chinese = tasks.perplexity(suite("bits_per_byte", language="zh-Hans"), items[1:], UNIFORM)
    assert "word_perplexity" not in chinese.figures


def test_a_uniform_model_of_the_256_bytes_needs_exactly_eight_bits_a_byte():
    speaker = replace(byte_speaker(seed=None, vocab_size=256), eot_token=0)
    text = "The mill turns. 水车在河边转动。" * 5
    items = [TextItem(id="1", text=text, num_words=20, num_bytes=len(text.encode()))]
    figures = tasks.perplexity(suite("bits_per_byte"), items, speaker).figures
    assert figures["bits_per_byte"].value == pytest.approx(8.0, abs=1e-6)
    assert figures["baseline/uniform"].value == 8.0


def writing_item(idx: int, reference: str, source: str) -> WritingItem:
    return WritingItem(id=str(idx), prompt=f"{source}\nTL;DR:", delimiter=" ", references=(reference,), source=source)


@pytest.mark.parametrize(
    ("measure", "metric", "baselines"),
    [
        ("answer", "f1", {"random", "majority"}),
        ("translation", "chrf", {"random", "copy"}),
        ("summary", "rouge_l", {"random", "lead_1", "lead_3"}),
    ],
)
def test_what_is_written_stands_beside_its_baselines(measure, metric, baselines):
    items = [writing_item(1, "One. Two. Three.", "One. Two. Three. Four."), writing_item(2, "水车", "水车。")]
    result = tasks.writing(suite(metric), items, RANDOM, Writing(measure=measure, max_tokens=6))
    assert {name.removeprefix("baseline/") for name in result.figures if name.startswith("baseline/")} == baselines
    assert result.scores.mean() == pytest.approx(result.figure.value)
    assert result.figures["reference_bits_per_byte"].value > 0
    alone = tasks.writing(suite(metric), items[:1], RANDOM, Writing(measure=measure, max_tokens=6))
    assert "baseline/random" not in alone.figures
    if measure == "summary":
        assert result.figures["baseline/lead_3"].value == 1.0


def test_a_written_reference_is_a_full_score():
    assert tasks.writing_scores("answer", " four\n", ("4", "four")) == {"f1": 1.0, "exact_match": 1.0}
    assert tasks.writing_scores("translation", "水车。", ("水车。",)) == {"chrf": pytest.approx(100)}


def test_a_suite_without_items_is_refused():
    for measure in (tasks.multiple_choice, tasks.last_word, tasks.perplexity):
        with pytest.raises(EmptyCorpusError, match="no item in suite toy"):
            measure(suite("acc"), [], UNIFORM)


def test_figures_and_items_are_the_same_each_time():
    items = [choice(idx % 2, idx=idx, context=f"Q{idx}:") for idx in range(6)]
    first, again = (tasks.multiple_choice(suite("acc"), items, RANDOM) for _ in range(2))
    assert first == again
    assert np.array_equal(first.scores, again.scores)
    assert first.weights is None
