"""Calibration, loss by position and the quality of written texts: known answers, and the pass that measures them."""

import numpy as np
import pytest
from byte_speaker import EOT, byte_speaker
from hypothesis import given
from hypothesis import strategies as st

from llm.data import TokenData
from llm.evaluation.calibration import expected_calibration_error
from llm.evaluation.held_out import held_out_extras
from llm.evaluation.positions import loss_by_position, position_bins
from llm.evaluation.quality import WrittenText, distinct, generation_quality, repetition
from pipelines.errors import EmptyCorpusError


def test_a_model_that_is_as_often_right_as_it_is_sure_has_no_error():
    generator = np.random.default_rng(0)
    confidences = [generator.uniform(0, 1, 4_000) for _ in range(5)]
    hits = [generator.uniform(0, 1, each.size) < each for each in confidences]
    found = expected_calibration_error(confidences, hits)
    assert found.error.value < 0.02
    assert found.error.low <= found.error.value <= found.error.high + 0.01
    sure = expected_calibration_error([np.full(10, 0.9)], [np.zeros(10)])
    assert sure.error.value == pytest.approx(0.9)
    assert sure.error.low is None
    assert [each.num_tokens for each in sure.bins].count(0) == 14


def test_bins_hold_their_upper_border_and_each_prediction_once():
    found = expected_calibration_error([[0.0, 0.2, 0.2000001, 1.0]], [[0, 0, 0, 1]], num_bins=5)
    assert [each.num_tokens for each in found.bins] == [2, 1, 0, 0, 1]


@given(st.integers(1, 2_000))
def test_position_bins_cover_every_number_of_tokens_seen_once(block_size):
    covered = [seen for first, last in position_bins(block_size) for seen in range(first, last + 1)]
    assert covered == list(range(1, block_size + 1))


def test_loss_by_position_is_a_mean_over_the_tokens_of_a_bin():
    bins = loss_by_position([[4.0, 2.0, 1.0], [6.0]], [[1, 2, 3], [1]], 4)
    assert [(each.first, each.last, each.num_tokens, each.loss.value) for each in bins] == [
        (1, 1, 2, 5.0),
        (2, 3, 2, 1.5),
    ]


def test_repetition_and_distinct_count_words_and_chinese_characters():
    assert repetition("the mill the mill the mill", 2) == pytest.approx(3 / 5)
    assert repetition("水车水车", 1) == 0.5
    assert repetition("水", 2) == 0.0
    assert distinct(["a b", "a c"], 1) == 0.75
    assert distinct([], 1) == 0.0


def test_a_text_that_leaves_its_language_is_counted():
    texts = [
        WrittenText(id=str(idx), text=text, language="zh", num_tokens=4, ended=idx == 0)
        for idx, text in enumerate(["水车转动", "the mill"])
    ]
    found = generation_quality(texts, lambda text: "zh" if "水" in text else "en")
    assert (found.language_kept.value, found.ended.value, found.num_tokens.value) == (0.5, 0.5, 4.0)


def rows():
    texts = [
        "The mill turns beside the river, and the river turns the mill again and again.",
        "水车在河边转动，磨坊里磨出了白面。" * 3,
    ]
    return [("validation", [*text.encode(), EOT], len(text.encode())) for text in texts * 3]


def test_one_pass_over_held_out_documents_gives_three_suites(write_shard):
    held_out = TokenData.open([write_shard(rows())], "validation", digest="corpus")
    speaker = byte_speaker()
    found = {
        each.suite.name: each
        for each in held_out_extras(
            speaker, held_out, lambda text: "zh" if "水" in text else "en", num_texts=3, text_num_tokens=8
        )
    }
    calibration, positions, quality = (found[name] for name in ("calibration", "positions", "generation_quality"))
    assert calibration.scores.sum() / calibration.weights.sum() == pytest.approx(calibration.figure.value)
    num_tokens = sum(len(tokens) for _, tokens, _ in rows())
    assert calibration.weights.sum() == positions.weights.sum() == num_tokens
    assert positions.scores.sum() / positions.weights.sum() == pytest.approx(positions.figure.value)
    assert [row["first"] for row in positions.items] == [1, 2, 4, 8, 16, 32]
    assert len(quality.items) == quality.figures["repetition_4"].num_items == 3
    assert all(row["beginning"] and len(row["text"]) <= 8 for row in quality.items)
    assert len({each.suite.dataset_digest for each in found.values()}) == 1


def test_a_cap_takes_whole_documents_from_the_front(write_shard):
    held_out = TokenData.open([write_shard(rows())], "validation", digest="corpus")
    found = held_out_extras(byte_speaker(), held_out, lambda _: None, max_tokens=100)
    assert found[0].weights.sum() == len(rows()[0][1])
    assert found[2].skipped is not None


def test_a_split_without_documents_is_refused(write_shard):
    path = write_shard(rows())
    held_out = TokenData.open([path], "validation", digest="corpus")
    object.__setattr__(held_out, "split", "test")
    with pytest.raises(EmptyCorpusError, match="no document"):
        held_out_extras(byte_speaker(), held_out, lambda _: None)
