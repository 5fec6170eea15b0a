"""Stretches that generations share with documents, against a search by brute force."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data import TokenDocument
from llm.evaluation.nearest import documents_that_hold, nearest_documents
from pipelines.errors import ConfigError

IDS = st.lists(st.integers(0, 2), max_size=25)


def document(name: str, ids: Sequence[int]) -> TokenDocument:
    return TokenDocument(doc_id=name, num_bytes=len(ids), tokens=np.array(ids, np.uint16))


def longest(one: Sequence[int], other: Sequence[int]) -> int:
    return max(
        (
            size
            for start in range(len(one))
            for size in range(1, len(one) - start + 1)
            if any(list(one[start : start + size]) == list(other[at : at + size]) for at in range(len(other)))
        ),
        default=0,
    )


@given(st.lists(IDS, max_size=5), st.lists(IDS, max_size=3), st.integers(1, 6))
def test_the_longest_stretch_of_each_document_is_found(texts, generations, min_tokens: int) -> None:
    documents = [document(f"d{idx}", ids) for idx, ids in enumerate(texts)]
    found = nearest_documents(documents, generations, min_tokens=min_tokens, num_nearest=9)
    for generation, nearest in zip(generations, found, strict=True):
        wanted = {each.doc_id: longest(generation, each.tokens.tolist()) for each in documents}
        assert {each.doc_id: each.num_tokens for each in nearest} == {
            name: size for name, size in wanted.items() if size >= min_tokens
        }
        assert [each.num_tokens for each in nearest] == sorted((each.num_tokens for each in nearest), reverse=True)
        for each in nearest:
            tokens = next(one for one in documents if one.doc_id == each.doc_id).tokens.tolist()
            stretch = generation[each.start : each.start + each.num_tokens]
            assert stretch == tokens[each.document_start : each.document_start + each.num_tokens]


def test_the_nearest_few_have_urls_and_do_not_hang_on_order() -> None:
    whole = list(range(100, 140))
    documents = [document(f"d{size}", [1, *whole[:size], 2]) for size in (8, 20, 40, 9, 30)]
    seen, asked = [], []

    def urls_of(doc_ids: Sequence[str]) -> dict[str, str]:
        asked.extend(doc_ids)
        return {"d40": "https://example.org/方"}

    found = nearest_documents(documents, [whole], num_nearest=2, urls_of=urls_of, progress=seen.append)
    assert [(each.doc_id, each.num_tokens, each.url) for each in found[0]] == [
        ("d40", 40, "https://example.org/方"),
        ("d30", 30, None),
    ]
    assert asked == ["d30", "d40"]
    assert seen == [1, 2, 3, 4, 5]
    assert [each.doc_id for each in nearest_documents(documents[::-1], [whole], num_nearest=2)[0]] == ["d40", "d30"]


def test_who_holds_a_passage_whole() -> None:
    documents = [document("a", [1, 2, 3, 4, 5]), document("b", [3, 4, 5, 6]), document("c", [2, 3])]
    assert documents_that_hold(documents, [[3, 4], [2, 3], [5, 6], [6, 5], []]) == [
        ["a", "b"],
        ["a", "c"],
        ["b"],
        [],
        [],
    ]
    assert documents_that_hold(documents, [[3]], max_documents=2) == [["a", "b"]]


def test_a_long_document_that_repeats_itself_is_read_once_a_stretch() -> None:
    """No time that grows with the square of a text's length: a stretch is compared once, not at each of its tokens."""
    text = np.random.default_rng(0).integers(0, 1000, 50_000).tolist()
    found = nearest_documents([document("same", text)], [text])
    assert [(each.doc_id, each.num_tokens) for each in found[0]] == [("same", 50_000)]


def test_a_generation_that_repeats_itself_is_compared_at_few_places() -> None:
    found = nearest_documents([document("same", [7] * 3000), document("other", [8] * 300)], [[7] * 2000, [8] * 100])
    assert [(each.doc_id, each.num_tokens) for each in found[0]] == [("same", 2000)]
    assert [(each.doc_id, each.num_tokens) for each in found[1]] == [("other", 100)]


def test_stretches_of_no_token_are_refused() -> None:
    with pytest.raises(ConfigError, match="stretches of 0"):
        nearest_documents([], [[1]], min_tokens=0)
