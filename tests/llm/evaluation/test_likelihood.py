"""Likelihoods follow the harness's rules, count each token once, and do not depend on what else is asked."""

import math
from dataclasses import replace

import pytest
import torch
from byte_speaker import EOT, byte_speaker
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.evaluation.greedy import _next_states, _RowCache, first_stop, write_until
from llm.evaluation.likelihood import (
    Span,
    continuation_likelihoods,
    encoded_pair,
    rolling_spans,
    text_likelihoods,
    token_likelihoods,
    token_scores,
)
from llm.sample import Sampling, generate
from pipelines.errors import ConfigError

TEXTS = st.text(alphabet="ab 水车。\n", max_size=30)
PAIRS = [("The mill", " turns"), ("水车", "转动"), ("a" * 90, " b"), ("", "水"), ("It was ", "late"), ("x", "y" * 50)]


def by_hand(speaker, context: list[int], continuation: list[int]) -> float:
    ids = [*context, *continuation][-(speaker.model.config.block_size + 1) :]
    with torch.no_grad():
        logs = speaker.model.logits(speaker.model.states(torch.tensor([ids[:-1]])))[0].log_softmax(-1)
    return sum(float(logs[idx - 1, ids[idx]]) for idx in range(len(ids) - len(continuation), len(ids)))


def test_a_continuation_is_scored_after_as_much_of_its_context_as_fits():
    speaker = byte_speaker()
    found = continuation_likelihoods(speaker, PAIRS)
    for (context, continuation), each in zip(PAIRS[:3], found, strict=False):
        wanted = by_hand(speaker, list(context.encode()), list(continuation.encode()))
        assert each.log_likelihood == pytest.approx(wanted, abs=1e-4)
        assert each.num_tokens == len(continuation.encode())
    assert found[3].log_likelihood == pytest.approx(by_hand(speaker, [EOT], list("水".encode())), abs=1e-4)
    assert found[4].log_likelihood == pytest.approx(by_hand(speaker, list(b"It was"), list(b" late")), abs=1e-4)


@given(st.permutations(PAIRS), st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_neither_order_nor_batch_size_changes_a_likelihood(pairs, batch_size):
    speaker = byte_speaker()
    wanted = dict(zip(PAIRS, continuation_likelihoods(speaker, PAIRS), strict=True))
    found = continuation_likelihoods(replace(speaker, batch_size=batch_size), pairs)
    for pair, each in zip(pairs, found, strict=True):
        assert each.log_likelihood == pytest.approx(wanted[pair].log_likelihood, rel=1e-5, abs=1e-5)
        assert each.is_greedy == wanted[pair].is_greedy


def test_what_the_model_writes_is_greedy_and_another_text_is_not():
    speaker = byte_speaker()
    (written,) = write_until(speaker, ["The mill"], until=["\n"], max_tokens=3)
    chosen = list(generate(speaker.model, list(b"The mill"), Sampling(max_tokens=3, temperature=0)))
    ours, others = token_likelihoods(speaker, [(list(b"The mill"), chosen), (list(b"The mill"), [*chosen[:-1], 0])])
    assert ours.is_greedy
    assert ours.log_likelihood >= others.log_likelihood
    assert others.is_greedy == (chosen[-1] == 0)
    assert written.text == speaker.decode(chosen).partition("\n")[0]


@given(st.lists(st.integers(0, 255), max_size=50), st.integers(1, 12))
def test_windows_count_each_token_once_and_are_as_full_as_they_can_be(ids, block_size):
    spans = list(rolling_spans(ids, EOT, block_size))
    assert [token for span in spans for token in span.ids[len(span.ids) - span.num_scored :]] == ids
    assert all(len(span.ids) == block_size + 1 for span in spans[1:])
    if ids:
        assert spans[0].ids == (EOT, *ids[:block_size])
        end = len(ids)
        assert all(span.num_scored == block_size for span in spans[:-1])
        assert spans[-1].ids == tuple([EOT, *ids][max(0, end - block_size) : end + 1])


def test_windows_are_those_of_the_harness():
    utils = pytest.importorskip("lm_eval.utils")
    for size in (1, 5, 8, 9, 15, 16, 17, 40):
        ids = list(range(size))
        theirs = [
            utils.make_disjoint_window(window)
            for window in utils.get_rolling_token_windows(ids, prefix_token=EOT, max_seq_len=8, context_len=1)
        ]
        assert [(span.ids, span.num_scored) for span in rolling_spans(ids, EOT, 8)] == [
            ((*context, *predicted), len(predicted)) for context, predicted in theirs
        ]


@pytest.mark.parametrize("text", ["The mill turns.", "水车转动。" * 9, ""])
def test_a_uniform_byte_model_needs_exactly_eight_bits_and_a_little_for_the_end_of_text(text):
    (found,) = text_likelihoods(byte_speaker(seed=None), [text])
    assert found.num_tokens == len(text.encode())
    assert found.log_likelihood == pytest.approx(-found.num_tokens * math.log(257), rel=1e-6)


def test_spaces_at_the_end_of_a_context_belong_to_what_follows():
    def encode(text):
        return list(text.encode())

    assert encoded_pair("It was  ", "late", encode, EOT) == (list(b"It was"), list(b"  late"))
    assert encoded_pair("", "late", encode, EOT) == ([EOT], list(b"late"))
    assert encoded_pair("  ", "late", encode, EOT) == ([EOT], list(b"  late"))


def test_a_token_over_the_border_leaves_the_continuation_to_itself():
    def encode(text):
        return [9] if text == "水车" else [ord(char) % 7 for char in text]

    assert encoded_pair("水", "车", encode, EOT) == (encode("水"), encode("车"))


def test_what_cannot_be_scored_is_refused():
    speaker = byte_speaker()
    with pytest.raises(ConfigError, match="empty continuation"):
        continuation_likelihoods(speaker, [("The", "")])
    with pytest.raises(ConfigError, match="token id 300"):
        token_scores(speaker.model, [Span((1, 300), 1)], 4)
    with pytest.raises(ConfigError, match="max_tokens 32"):
        write_until(speaker, ["x"], until=["\n"], max_tokens=32)


@pytest.mark.parametrize("changes", [{}, {"positions": "rotary", "qk_norm": True, "tied_head": False}])
def test_prompts_of_unlike_lengths_are_gone_on_from_as_each_by_itself(changes):
    speaker = byte_speaker(block_size=24, **changes)
    prompts = ["a", "The mill turns", "水车", "x" * 100, "and so on, and", "a"]
    together = write_until(speaker, prompts, until=["\n"], max_tokens=10)
    for prompt, each in zip(prompts, together, strict=True):
        ids = list(prompt.encode())[-14:]
        alone = list(generate(speaker.model, ids, Sampling(max_tokens=10, temperature=0), eot_token=EOT))
        text = speaker.decode(alone)
        assert each.text == text[: first_stop(text, ["\n"])]
        assert each.num_tokens <= len(alone)


@pytest.mark.parametrize("changes", [{}, {"positions": "rotary", "qk_norm": True, "tied_head": False}])
def test_states_after_each_token_of_unlike_prompts_are_those_of_the_whole_text(changes):
    model = byte_speaker(block_size=24, **changes).model
    texts = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7], [5] * 10]
    sizes = torch.tensor([4, 1, 7])  # the prompts; the rest is fed token by token
    ids = torch.zeros((3, 7), dtype=torch.long)
    for row, (text, size) in enumerate(zip(texts, sizes.tolist(), strict=True)):
        ids[row, :size] = torch.tensor(text[:size])
    cache = _RowCache(sizes)
    with torch.no_grad():
        model.states(ids, cache=cache)
        for step in range(2):
            fed = torch.tensor([[text[size + step]] for text, size in zip(texts, sizes.tolist(), strict=True)])
            found = _next_states(model, fed, cache)
            for row, (text, size) in enumerate(zip(texts, sizes.tolist(), strict=True)):
                whole = model.states(torch.tensor([text[: size + step + 1]]))[0, -1]
                assert torch.allclose(found[row], whole, atol=1e-5)


def test_writing_stops_at_the_first_stop_text_or_the_end_of_the_text():
    speaker = byte_speaker()
    whole = write_until(speaker, ["The mill"], until=[], max_tokens=12)[0]
    assert whole.num_tokens <= 12
    if len(whole.text) > 2:
        stop = whole.text[1]
        cut = write_until(speaker, ["The mill"], until=[stop], max_tokens=12)[0]
        assert cut.text == whole.text[: whole.text.index(stop)]
        assert cut.ended
    assert first_stop("abc", ["c", "b"]) == 1
    assert first_stop("abc", ["x"]) is None
