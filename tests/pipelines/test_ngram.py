"""The n-gram model against numbers worked out by hand, a slow implementation of the same definitions, and its own laws."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import ngram
from pipelines.errors import ConfigError
from pipelines.ngram import COSTS_PER_BIT, NgramConfig, NgramModel, train
from pipelines.schemas import NGRAM_MODEL
from pipelines.store import Store

END = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 5), max_size=12), max_size=8)


def stream(documents):
    return np.array([token for document in documents for token in (*document, END)], dtype=np.uint32)


def slow_model(documents, vocab_size, order, min_count):
    """P(token | context) by the definitions alone: counts in dicts, sets of left neighbours, recursion."""
    grams = [Counter() for _ in range(order + 1)]
    befores = [defaultdict(set) for _ in range(order + 1)]
    for document in documents:
        tokens = (END, *document, END)
        for end in range(1, len(tokens)):
            for n in range(1, min(order, end + 1) + 1):
                gram = tokens[end - n + 1 : end + 1]
                grams[n][gram] += 1
                if end - n >= 0:
                    befores[n][gram].add(tokens[end - n])
    adjusted = [
        {
            gram: count if n == order or (n > 1 and gram[0] == END) else len(befores[n][gram])
            for gram, count in grams[n].items()
        }
        for n in range(order + 1)
    ]

    def discounts(n):
        ones, twos, threes, fours = (sum(count == wanted for count in adjusted[n].values()) for wanted in (1, 2, 3, 4))
        if ones and twos and threes and fours:
            y = ones / (ones + 2 * twos)
            found = (1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes)
            if all(0 < each <= most for each, most in zip(found, (1, 2, 3), strict=True)):
                return found
        return (0.5, 1.0, 1.5)

    def probability(token, context):
        n = len(context) + 1
        shorter = 1 / vocab_size if n == 1 else probability(token, context[1:])
        followers = {gram: count for gram, count in adjusted[n].items() if gram[:-1] == context}
        if not followers:
            return shorter
        total, taken = sum(followers.values()), discounts(n)
        kept = {gram: count for gram, count in followers.items() if n <= 2 or grams[n][gram] >= min_count}
        given_up = total - sum(count - taken[min(count, 3) - 1] for count in kept.values())
        own = kept[(*context, token)] - taken[min(kept[(*context, token)], 3) - 1] if (*context, token) in kept else 0
        return own / total + given_up / total * shorter

    return lambda token, before: probability(token, tuple(before[-(order - 1) :]) if order > 1 else ())


def contexts_of(document):
    """What stands before each token of a document, from the boundary on."""
    tokens = [END, *document, END]
    return [(tokens[:end], tokens[end]) for end in range(1, len(tokens))]


def test_a_corpus_worked_out_by_hand():
    # "a b a b": the bigrams are $a, ab twice, ba, b$; before a stand $ and b, before b only a, before $ only b. Of four
    # counts of counts some are zero, so the discounts are 0.5, 1 and 1.5.
    model = train(stream([[1, 2, 1, 2]]), 3, END, NgramConfig(order=2))
    a = (2 - 1) / 4 + 0.5 / 3
    b = end = (1 - 0.5) / 4 + 0.5 / 3
    assert model.probabilities([]) == pytest.approx([end, a, b], rel=1e-5)
    assert model.probabilities([1]) == pytest.approx([0.5 * end, 0.5 * a, 0.5 + 0.5 * b], rel=1e-5)
    assert model.probabilities([2]) == pytest.approx([0.25 + 0.5 * end, 0.25 + 0.5 * a, 0.5 * b], rel=1e-5)
    bits = model.costs(np.array([1, 1], np.uint32)) / COSTS_PER_BIT
    assert bits == pytest.approx([-math.log2(0.5 + 0.5 * a), -math.log2(0.5 * a)], rel=1e-5)


@given(documents=DOCUMENTS, order=st.integers(1, 4), min_count=st.integers(1, 3), text=st.lists(st.integers(1, 6)))
@settings(max_examples=150)
def test_a_slow_implementation_agrees(documents, order, min_count, text):
    model = train(stream(documents), 8, END, NgramConfig(order=order, min_count=min_count))
    expected = slow_model(documents, 8, order, min_count)
    found = model.costs(stream([text])) / COSTS_PER_BIT
    wanted = [-math.log2(expected(token, before)) for before, token in contexts_of(text)]
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("min_count", [1, 2])
def test_a_slow_implementation_agrees_where_the_discounts_are_estimated(min_count):
    rng = np.random.default_rng(5)
    documents = [(1 + rng.zipf(1.5, rng.integers(1, 30)) % 40).tolist() for _ in range(60)]
    model = train(stream(documents), 50, END, NgramConfig(order=3, min_count=min_count))
    expected = slow_model(documents, 50, 3, min_count)
    text = [*documents[0], 44, *documents[1][:8], 45, 45]
    wanted = [-math.log2(expected(token, before)) for before, token in contexts_of(text)]
    assert model.costs(stream([text])) / COSTS_PER_BIT == pytest.approx(wanted, abs=1e-4)


@given(documents=DOCUMENTS, order=st.integers(1, 5), min_count=st.integers(1, 3), context=st.lists(st.integers(0, 7)))
@settings(max_examples=150)
def test_the_probabilities_of_the_whole_vocabulary_sum_to_one(documents, order, min_count, context):
    model = train(stream(documents), 9, END, NgramConfig(order=order, min_count=min_count))
    seen = [before for document in documents[:3] for before, _ in contexts_of(document)]
    for each in (context, [END], [], [8, 8], *seen):
        probabilities = model.probabilities(each)
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert probabilities.min() > 0, "also what training never met"


def test_they_sum_to_one_where_the_discounts_are_estimated():
    rng = np.random.default_rng(7)
    tokens = np.append(rng.zipf(1.3, 20_000) % 400, END).astype(np.uint32)
    for min_count in (1, 2):
        model = train(tokens, 401, END, NgramConfig(order=5, min_count=min_count))
        for at in range(0, 5000, 97):
            assert model.probabilities(tokens[at : at + 6].tolist()).sum() == pytest.approx(1, abs=1e-5)


@given(documents=DOCUMENTS, context=st.lists(st.integers(1, 5), max_size=6), order=st.integers(1, 4))
def test_costs_and_probabilities_are_the_same_distribution(documents, context, order):
    model = train(stream(documents), 6, END, NgramConfig(order=order))
    costs = model.costs(stream([context]))
    for (before, token), cost in zip(contexts_of(context), costs, strict=True):
        assert -math.log2(model.probabilities(before)[token]) * COSTS_PER_BIT == pytest.approx(cost, abs=1e-3)


def equal(first: NgramModel, second: NgramModel) -> bool:
    pairs = zip(first.levels, second.levels, strict=True)
    names = ("keys", "costs", "backoffs")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for (a, b), name in itertools.product(pairs, names))


@given(documents=DOCUMENTS, data=st.data())
def test_the_order_of_documents_makes_no_difference(documents, data):
    shuffled = data.draw(st.permutations(documents))
    config = NgramConfig(order=4, min_count=2)
    assert equal(train(stream(documents), 6, END, config), train(stream(shuffled), 6, END, config))


@given(documents=DOCUMENTS, chunk=st.integers(1, 9))
def test_where_a_stream_is_cut_makes_no_difference(documents, chunk):
    model = train(stream(documents[:4]), 6, END, NgramConfig(order=4))
    whole = model.costs(stream(documents))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram, "_CHUNK_NUM_TOKENS", chunk)
        assert np.array_equal(model.costs(stream(documents)), whole)
    apart = [model.costs(stream([document])) for document in documents]
    assert np.array_equal(np.concatenate([np.zeros(0, np.int64), *apart]), whole)


@given(documents=DOCUMENTS)
def test_keys_that_leave_no_room_for_places_are_sorted_all_the_same(documents):
    config = NgramConfig(order=4, min_count=1)
    packed = train(stream(documents), 6, END, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram, "_KEY_BITS", 0)
        apart = train(stream(documents), 6, END, config)
        assert equal(packed, apart)
        assert np.array_equal(packed.costs(stream(documents)), apart.costs(stream(documents)))


def test_costs_are_logarithms():
    probabilities = np.concatenate(
        [np.random.default_rng(3).random(10_000), [1.0, 0.5, 2.0**-40, 1e-30, 0.7071067811865476]]
    )
    probabilities = probabilities[probabilities > 0]
    found = ngram._costs_of(probabilities)
    assert np.abs(found + np.log2(probabilities) * COSTS_PER_BIT).max() <= 0.5 + 1e-6
    assert found[probabilities == 1] == 0


def test_a_model_of_nothing_knows_nothing():
    model = train(np.zeros(0, np.uint32), 16, END, NgramConfig(order=3))
    assert model.probabilities([3]) == pytest.approx(np.full(16, 1 / 16))
    assert model.costs(np.zeros(0, np.uint32)).size == 0
    assert model.costs(np.array([5, 6, 0], np.uint32)).tolist() == [4 * COSTS_PER_BIT] * 3


def test_a_model_is_stored_and_read_as_it_was(tmp_path):
    model = train(stream([[1, 2, 3, 1, 2, 3], [3, 2, 1], [1, 2]]), 4, END, NgramConfig(order=4))
    store = Store(tmp_path)
    batch = pa.RecordBatch.from_arrays([model.to_columns()[name] for name in NGRAM_MODEL.names], schema=NGRAM_MODEL)
    shard = store.write(NGRAM_MODEL, [batch], compression=None)
    with pa.memory_map(str(store.shard_path(shard.digest))) as source:
        read = NgramModel.from_row(pa.ipc.open_stream(source).read_next_batch(), 0)
    assert equal(read, model)
    assert (read.vocab_size, read.boundary) == (4, END)
    text = stream([[1, 2, 3, 3]])
    assert np.array_equal(read.costs(text), model.costs(text)), "the file is closed, and the views of it hold"
    assert read.num_ngrams == sum(level.costs.size for level in model.levels)


def test_rare_long_n_grams_can_be_left_out():
    rng = np.random.default_rng(1)
    tokens = np.append(rng.integers(1, 30, 5000), END).astype(np.uint32)
    whole = train(tokens, 30, END, NgramConfig(order=4))
    pruned = train(tokens, 30, END, NgramConfig(order=4, min_count=2))
    assert [level.costs.size for level in pruned.levels[:2]] == [level.costs.size for level in whole.levels[:2]]
    assert pruned.levels[3].costs.size < whole.levels[3].costs.size / 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NgramConfig(order=0), "got order 0, wanted 1 to 8"),
        (lambda: NgramConfig(min_count=0), "got min_count 0, wanted at least 1"),
        (lambda: train(np.array([4], np.uint32), 4, 0, NgramConfig()), "got token 4, wanted ids below 4"),
        (lambda: train(np.array([1], np.uint32), 4, 4, NgramConfig()), "got a vocabulary of 4 with boundary 4"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@given(documents=DOCUMENTS, order=st.integers(1, 4), min_count=st.integers(1, 3), text=st.lists(st.integers(1, 6)))
def test_exact_costs_are_those_that_are_rounded(documents, order, min_count, text):
    config = NgramConfig(order=order, min_count=min_count)
    rounded, exact = (train(stream(documents), 8, END, config, exact=exact) for exact in (False, True))
    assert exact.costs(stream([text])) == pytest.approx(rounded.costs(stream([text])), abs=0.5 * order + 1e-6)
    assert rounded.costs(stream([text])).dtype == np.int64
    assert abs(exact.probabilities([END, *text]).sum() - 1) < 1e-12
