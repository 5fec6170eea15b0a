"""Lanes lose no token and mix no documents; a budget takes whole documents from everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data import TokenData
from llm.evaluation.ladder.documents import ended_stream, lanes, training_documents

EOT = 0
DOCUMENTS = st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=7)


def all_tokens(data):
    return [document.tokens for document in data.documents()]


def arrays(documents):
    return [np.array(tokens, dtype=np.uint16) for tokens in documents]


@given(documents=DOCUMENTS, num_lanes=st.integers(1, 4), length=st.integers(1, 5))
def test_each_token_is_a_target_once_after_the_one_before_it(documents, num_lanes, length) -> None:
    found = {idx: [] for idx in range(len(documents))}
    for segment in lanes(arrays(documents), eot_token=EOT, num_lanes=num_lanes, length=length):
        for lane, document in enumerate(segment.documents.tolist()):
            size = int(segment.lengths[lane])
            pairs = list(zip(segment.inputs[lane, :size].tolist(), segment.targets[lane, :size].tolist(), strict=True))
            if size:
                assert bool(segment.begins[lane]) == (not found[document]), (
                    "a state is forgotten where a document begins"
                )
            found[document] += pairs
        assert segment.is_token.sum() == segment.lengths.sum()
        assert segment.targets.shape[1] == segment.lengths.max() <= length
    for idx, tokens in enumerate(documents):
        assert found[idx] == list(zip([EOT, *tokens], tokens, strict=False))


@given(documents=DOCUMENTS)
def test_a_stream_ends_every_document_and_says_which_tokens_are_its_own(documents) -> None:
    stream, owners, is_token = ended_stream(arrays(documents), EOT)
    for idx, tokens in enumerate(documents):
        assert stream[(owners == idx) & is_token].tolist() == tokens
        assert stream[owners == idx][-1] == EOT
    assert is_token.sum() == sum(map(len, documents))


@pytest.mark.parametrize("budget", [1, 3, 40, 100, 239, 10_000])
def test_a_budget_takes_whole_documents_from_all_over(write_shard, budget) -> None:
    rows = [("train", [*range(1, 1 + idx % 7), EOT], 5) for idx in range(60)]
    data = TokenData.open([write_shard(rows)], "train", digest="d")
    taken = training_documents(data, budget)
    num_tokens = sum(tokens.size for tokens in taken)
    assert num_tokens <= budget
    assert num_tokens == data.num_tokens if budget >= data.num_tokens else num_tokens > budget - 14
    assert all(tokens[-1] == EOT for tokens in taken)
    sizes = np.cumsum([document.tokens.size for document in data.documents()])
    taken_sizes = np.cumsum([tokens.size for tokens in taken])
    if 40 <= budget < data.num_tokens:
        # What is taken grows with what has gone by, as evenly as whole documents can.
        names = {tokens.__array_interface__["data"][0]: idx for idx, tokens in enumerate(all_tokens(data))}
        places = [names[tokens.__array_interface__["data"][0]] for tokens in taken]
        assert places == sorted(places)
        assert sizes[places] * budget / data.num_tokens == pytest.approx(taken_sizes, abs=14)


def test_a_document_beyond_the_budget_is_cut_where_there_is_no_other(write_shard) -> None:
    data = TokenData.open([write_shard([("train", [*[5] * 20, EOT], 20)])], "train", digest="d")
    assert [tokens.tolist() for tokens in training_documents(data, 7)] == [[5] * 7]
