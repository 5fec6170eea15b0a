"""The n-gram rung against a plain implementation of Chen and Goodman's definitions, to the last digits."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.evaluation.ladder.kneser_ney import (
    KneserNeyConfig,
    kneser_ney_losses,
    num_kneser_ney_parameters,
    train_kneser_ney,
)
from pipelines.errors import ConfigError

EOT = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 5), max_size=12), min_size=1, max_size=8)


def ended(documents):
    return [np.array([*tokens, EOT], dtype=np.uint16) for tokens in documents]


def trained(documents, order, vocab_size=8):
    return train_kneser_ney(ended(documents), vocab_size=vocab_size, eot_token=EOT, config=KneserNeyConfig(order=order))


def plain(documents, vocab_size, order):
    """P(token | context): dictionaries and recursion. Orders below the highest count left neighbours, but where an
    n-gram begins a document and so has none."""
    counts, neighbours = defaultdict(Counter), defaultdict(set)
    for tokens in documents:
        read = (EOT, *tokens, EOT)
        for end in range(2, len(read) + 1):
            for n in range(1, min(order, end) + 1):
                gram = read[end - n : end]
                counts[n][gram] += 1
                if n < end:
                    neighbours[gram].add(read[end - n - 1])

    def count(gram):
        n = len(gram)
        return counts[n][gram] if n == order or (n > 1 and gram[0] == EOT) else len(neighbours[gram])

    discounts = {}
    for n in range(1, order + 1):
        of = Counter(count(gram) for gram in counts[n])
        discounts[n] = (0.5, 1.0, 1.5)
        if all(of[times] for times in (1, 2, 3, 4)):
            y = of[1] / (of[1] + 2 * of[2])
            three = tuple(times - (times + 1) * y * of[times + 1] / of[times] for times in (1, 2, 3))
            if all(0 < each <= times for times, each in enumerate(three, start=1)):
                discounts[n] = three

    def probability(token, context):
        n = len(context) + 1
        lower = probability(token, context[1:]) if context else 1 / vocab_size
        after = {gram[-1]: count(gram) for gram in counts[n] if gram[:-1] == context}
        total = sum(after.values())
        if not total:
            return lower
        taken = {each: discounts[n][min(times, 3) - 1] for each, times in after.items() if times}
        own = (after[token] - taken[token]) / total if token in taken else 0.0
        return own + sum(taken.values()) / total * lower

    return probability


def plain_losses(documents, held_out, vocab_size, order):
    probability, nats = plain(documents, vocab_size, order), []
    for tokens in held_out:
        read = (EOT, *tokens, EOT)
        nats.append(
            -sum(
                math.log(probability(read[end], read[max(0, end - order + 1) : end] if order > 1 else ()))
                for end in range(1, len(read))
            )
        )
    return nats


@given(documents=DOCUMENTS, held_out=DOCUMENTS, order=st.integers(1, 5))
@settings(max_examples=100)
def test_it_equals_the_definitions(documents, held_out, order) -> None:
    found = kneser_ney_losses(trained(documents, order), ended(held_out))
    assert found == pytest.approx(plain_losses(documents, held_out, 8, order), rel=1e-12)


def test_it_equals_them_where_all_discounts_are_estimated() -> None:
    rng = np.random.default_rng(5)
    documents = [(1 + rng.zipf(1.5, rng.integers(1, 30)) % 40).tolist() for _ in range(60)]
    held_out = [[*documents[0], 44], [45, 45, *documents[1]], []]
    found = kneser_ney_losses(trained(documents, 3, vocab_size=50), ended(held_out))
    assert found == pytest.approx(plain_losses(documents, held_out, 50, 3), rel=1e-12)
    assert found == pytest.approx(plain_losses(documents, held_out, 50, 3), abs=1e-12 * found.max())


@given(documents=DOCUMENTS, order=st.integers(1, 5), context=st.lists(st.integers(0, 7), max_size=6))
def test_the_whole_vocabulary_sums_to_one_after_any_context(documents, order, context) -> None:
    model = trained(documents, order)
    for each in (context, [EOT], [EOT, *documents[0]], [7, 7, 7]):
        probabilities = model.probabilities(each)
        assert abs(probabilities.sum() - 1) < 1e-9
        assert probabilities.min() > 0


def test_it_sums_to_one_where_the_discounts_are_estimated() -> None:
    rng = np.random.default_rng(7)
    tokens = (1 + rng.zipf(1.3, 20_000) % 400).tolist()
    model = trained([tokens], 5, vocab_size=402)
    for at in range(0, 5000, 97):
        assert abs(model.probabilities(tokens[at : at + 6]).sum() - 1) < 1e-9


def test_a_document_is_scored_alone_also_where_the_one_before_has_no_end() -> None:
    documents = [[1, 2, 3, 1, 2], [3, 1, 2]]
    model = trained(documents, 3)
    cut = [np.array([1, 2, 3], np.uint16), np.array([1, 2, EOT], np.uint16), np.zeros(0, np.uint16)]
    alone = [kneser_ney_losses(model, [each])[0] for each in cut]
    assert kneser_ney_losses(model, cut) == pytest.approx(alone, rel=1e-15)
    assert alone[2] == 0
    assert num_kneser_ney_parameters(trained(documents, 1)) == 8


@pytest.mark.parametrize("wrong", [{"order": 0}, {"order": 9}, {"max_tokens": 0}])
def test_a_shape_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=f"got kneser_ney.{next(iter(wrong))}"):
        KneserNeyConfig(**wrong)
