"""Models of languages, and what they say of documents."""

import math
import random

import pyarrow as pa
import pytest
from perplexity_inputs import batch, document, models, prose, reference, scored

from pipelines import schemas
from pipelines.errors import ConfigError
from pipelines.perplexity import scores
from pipelines.perplexity.language_models import LanguageModelsConfig, train_language_models
from pipelines.perplexity.reference import folds_of
from pipelines.perplexity.scores import score_documents
from pipelines.store import Store

ENGLISH = [("en", idx % 2, prose(idx)) for idx in range(80)]
CHINESE = [("zh", idx % 2, prose(idx, language="zh")) for idx in range(80)]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return models(Store(tmp_path_factory.mktemp("models")), ENGLISH + CHINESE)


def shuffled(text: str) -> str:
    words = text.split() if " " in text else list(text)
    random.Random(0).shuffle(words)
    return (" " if " " in text else "").join(words)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_text_in_order_surprises_less_than_its_words_at_random(config, language):
    for seed in range(900, 910):
        text = prose(seed, language=language)
        rows = [document("a", text, language=language), document("b", shuffled(text), language=language)]
        ordered, random_ = scored(rows, config)
        assert ordered["perplexity"] < 0.7 * random_["perplexity"]
        assert ordered["bits_per_byte"] < random_["bits_per_byte"]
        assert ordered["perplexity_model"] == language


def test_no_document_is_judged_by_a_model_that_learnt_it(tmp_path):
    # Fold 0 learns one grammar, fold 1 noise: who is in fold 0 is judged by noise, though its own text was learnt.
    noise = [("en", 1, shuffled(prose(idx))) for idx in range(80)]
    config = models(Store(tmp_path), [("en", 0, text) for _, _, text in ENGLISH] + noise)
    rows = [document(f"d{idx}", text) for idx, (_, _, text) in enumerate(ENGLISH)]
    found = {fold: [] for fold in (0, 1)}
    for row, fold in zip(scored(rows, config), folds_of(batch(rows)).to_pylist(), strict=True):
        found[fold].append(row["perplexity"])
    assert min(found[0]) > 2 * max(found[1])


def test_one_model_of_given_files_judges_all(tmp_path):
    config = models(Store(tmp_path), [("en", None, text) for _, _, text in ENGLISH])
    rows = scored([document(f"d{idx}", prose(500 + idx)) for idx in range(20)], config)
    assert all(row["perplexity"] is not None for row in rows)


def test_a_document_without_a_model_has_no_value(config):
    rows = [
        document("a", prose(1), language="de"),
        document("b", prose(1), language=None),
        document("c", "", text_digest=None, minhash=None, problem="not_html", language=None),
        document("d", ""),
    ]
    assert scored(rows, config) == [
        {"doc_id": name, "perplexity": None, "bits_per_byte": None, "perplexity_model": None} for name in "abcd"
    ]


def test_the_two_figures_are_of_the_same_bits(config):
    text = prose(321)
    (row,) = scored([document("a", text)], config)
    num_bits = row["bits_per_byte"] * len(text.encode())
    num_tokens = num_bits / math.log2(row["perplexity"])
    assert num_tokens == pytest.approx(round(num_tokens), abs=1e-3)
    assert num_tokens > 20


def test_how_a_stream_is_cut_changes_no_value(config, monkeypatch):
    rows = [
        document(f"d{idx}", prose(idx, 1 + idx % 5, language), language=language)
        for idx in range(30)
        for language in ("en", "zh")
    ]
    whole = pa.Table.from_batches(score_documents([batch(rows)], config))
    apart = pa.Table.from_batches(score_documents([batch([row]) for row in rows], config))
    assert apart.combine_chunks() == whole.combine_chunks()
    monkeypatch.setattr(scores, "_CHUNK_NUM_CHARS", 100)
    assert pa.Table.from_batches(score_documents([batch(rows)], config)) == whole


def test_only_the_beginning_of_an_endless_text_is_judged(config, monkeypatch):
    monkeypatch.setattr(scores, "MAX_NUM_CHARS", 200)
    beginning = document("a", prose(1, 40))
    (row,) = scored([beginning], config)
    (cut,) = scored([{**beginning, "text": beginning["text"][:200]}], config)
    assert row == cut


@pytest.mark.parametrize("text", ["\x00" * 50, "\U0001f600" * 400, "ab" * 50_000, "\n" * 30 + "x", "￿﷐"])
def test_strange_texts_have_a_finite_value(config, text):
    (row,) = scored([document("a", text)], config)
    assert 1 <= row["perplexity"] < math.inf
    assert 0 < row["bits_per_byte"] < 100


def test_a_language_with_too_little_text_gets_no_model():
    few = [("en", 0, prose(1)), ("en", 1, prose(2)), *CHINESE]
    least = sum(len(text.encode()) for _, fold, text in CHINESE if fold == 0) // 2
    config = LanguageModelsConfig(vocab_size=400, min_bytes=least)
    trained = pa.Table.from_batches(train_language_models([reference(few)], config), schemas.LANGUAGE_MODEL)
    assert trained.column("language").to_pylist() == ["zh", "zh"]
    assert trained.column("fold").to_pylist() == [0, 1]
    one_fold = [("en", 0, text) for _, _, text in ENGLISH]
    assert not list(train_language_models([reference(one_fold)], config)), "nothing could judge the other fold"
    assert not list(train_language_models([], config))


def test_how_the_reference_is_batched_changes_no_model():
    config = LanguageModelsConfig(vocab_size=300, min_bytes=1)
    rows = ENGLISH[:20] + CHINESE[:20]
    whole = reference(rows)
    cut = [whole.slice(start, 3) for start in range(0, 40, 3)]
    first = pa.Table.from_batches(train_language_models([whole], config))
    assert pa.Table.from_batches(train_language_models(cut, config)) == first


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocab_size": 256}, "got vocab_size 256, wanted 257 to 65536"),
        ({"order": 9}, "got order 9, wanted 1 to 8"),
        ({"min_count": 0}, "got min_count 0"),
        ({"min_bytes": 0}, "got min_bytes 0"),
    ],
)
def test_what_cannot_be_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        LanguageModelsConfig(**config)
