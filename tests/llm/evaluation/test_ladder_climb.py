"""The whole ladder: known answers, the same protocol for every rung, and a flag for one that does not beat those below."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from llm.config import ModelConfig
from llm.data import TokenData
from llm.evaluate import document_losses, evaluate
from llm.evaluation.ladder.climb import LadderConfig, climb
from llm.evaluation.ladder.hmm import HMMConfig
from llm.evaluation.ladder.lstm import LSTMConfig
from llm.evaluation.ladder.rungs import Ladder, Scored
from llm.model import GPT
from pipelines.errors import ConfigError, EmptyCorpusError, SchemaError

EOT = 0
QUICK = LadderConfig(
    hmm=HMMConfig(num_states=4, num_iterations=5),
    lstm=LSTMConfig(n_embd=8, max_epochs=1, num_lanes=4, segment_num_tokens=16),
)
ENGLISH = (
    "The boat left the harbour before the fog had lifted, and nobody on the quay saw it go.",
    "In the morning the fog lay on the harbour, and the boats stayed at the quay until noon.",
    "Nobody had seen the boat since the morning; the harbour was quiet, and so was the sea.",
    "Before noon the sea was quiet, the fog had lifted, and the boats left one after the other.",
)
CHINESE = (
    "清晨的港口起了大雾，渔船停在岸边，谁也没有出海。",
    "雾散了以后，渔船一只接一只离开港口，海面很平静。",
    "中午以前，没有人看见那只渔船，港口里很安静。",
    "傍晚渔船回到港口，岸边的人看见了，都很高兴。",
)


def byte_rows(texts, times=6):
    """Bytes as tokens, moved up by one for the end-of-text token; the last text is held out."""
    rows = [("train", [*(1 + byte for byte in text.encode()), EOT], len(text.encode())) for text in texts[:-1] * times]
    held_out = texts[-2:]
    return [*rows, *(("test", [*(1 + byte for byte in text.encode()), EOT], len(text.encode())) for text in held_out)]


def opened(write_shard, rows, **kwargs) -> tuple[TokenData, TokenData]:
    path = write_shard(rows, **kwargs)
    return TokenData.open([path], "train", digest="d"), TokenData.open([path], "test", digest="d")


def scored(losses) -> Scored:
    return Scored(losses=np.array(losses, dtype=np.float64), num_parameters=1, num_training_tokens=1)


def test_a_uniform_model_of_bytes_takes_eight_bits_a_byte(write_shard) -> None:
    """Texts that end with byte 0, which is their end-of-text token: 256 ids, each a byte of the text."""
    rows = [
        (split, list(text.encode() + b"\0"), len(text.encode()) + 1)
        for split in ("train", "test")
        for text in (*ENGLISH, *CHINESE)
    ]
    found = climb(*opened(write_shard, rows), vocab_size=256, eot_token=0, config=QUICK)
    figure = found["uniform"].bits_per_byte
    assert (figure.value, figure.low, figure.high) == (8.0, 8.0, 8.0)
    assert found["unigram"].bits_per_byte.value < 7


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_every_rung_is_scored_on_the_same_documents_in_order(write_shard, texts) -> None:
    heard = []
    train_data, held_out = opened(write_shard, byte_rows(texts))
    found = climb(
        train_data, held_out, vocab_size=257, eot_token=EOT, config=QUICK, on_progress=lambda *each: heard.append(each)
    )
    assert [rung.name for rung in found.rungs] == ["uniform", "unigram", "kneser_ney", "hmm", "lstm"]
    num_bytes = sum(document.num_bytes for document in found.documents)
    for rung in found.rungs:
        assert rung.scored.losses.shape == (2,)
        assert rung.bits_per_byte.value == pytest.approx(rung.scored.losses.sum() / math.log(2) / num_bytes)
        assert rung.scored.cpu_seconds >= 0
    assert found["kneser_ney"].scored.losses[0] < 0.3 * found["kneser_ney"].scored.losses[1], "the first was trained on"
    assert found["uniform"].beats_below is None
    assert found["unigram"].beats_all_below
    shares = {name: [share for each, share in heard if each == name] for name in dict(heard)}
    assert list(shares) == [rung.name for rung in found.rungs]
    assert all(each[0] == 0 and each[-1] == 1 and each == sorted(each) for each in shares.values())


def test_it_is_the_same_each_time_and_leaves_the_threads_alone(write_shard) -> None:
    data = opened(write_shard, byte_rows(CHINESE))
    threads = torch.get_num_threads()
    first, second = (climb(*data, vocab_size=257, eot_token=EOT, config=QUICK) for _ in range(2))
    for one, other in zip(first.rungs, second.rungs, strict=True):
        assert np.array_equal(one.scored.losses, other.scored.losses), one.name
    assert torch.get_num_threads() == threads


def test_the_unigrams_are_those_of_evaluate(write_shard) -> None:
    model = GPT(ModelConfig(vocab_size=257, block_size=16, n_layer=1, n_head=1, n_embd=8), seed=0).eval()
    train_data, held_out = opened(write_shard, byte_rows(ENGLISH))
    measured, _ = evaluate(model, train_data, held_out, eot_token=EOT)
    losses = document_losses(model, list(held_out.documents()), eot_token=EOT)
    gpt2 = Scored(losses=losses, num_parameters=sum(each.numel() for each in model.parameters()), num_training_tokens=0)
    found = climb(train_data, held_out, vocab_size=257, eot_token=EOT, config=QUICK, model=gpt2)
    assert found["unigram"].bits_per_byte.value == pytest.approx(measured.unigram_bits_per_byte, rel=1e-14)
    assert found["gpt2"].bits_per_byte.value == pytest.approx(measured.bits_per_byte, rel=1e-14)
    assert found.protocol == measured.protocol
    assert any("gpt2 than of kneser_ney, the best rung below" in each for each in found.warnings), "it was not trained"


@pytest.fixture
def many(write_shard) -> tuple[TokenData, TokenData]:
    """Forty held-out documents."""
    rng = np.random.default_rng(0)
    rows = [
        (split, [*(1 + (rng.integers(20) + np.arange(rng.integers(4, 20))) % 20), EOT], 30)
        for split in ("train", "test")
        for _ in range(40)
    ]
    return opened(write_shard, [(split, [int(each) for each in tokens], size) for split, tokens, size in rows])


def climbed(many, model=None) -> Ladder:
    return climb(*many, vocab_size=25, eot_token=EOT, config=QUICK, model=model)


def test_a_model_is_held_against_the_rung_below_and_the_best_below(many) -> None:
    plain = climbed(many)
    best, lstm = plain["kneser_ney"].scored.losses, plain["lstm"].scored.losses
    assert best.sum() < lstm.sum(), "as little as it was trained"
    assert [plain[name].beats_below for name in ("unigram", "kneser_ney", "hmm")] == [True, True, False]

    above = climbed(many, scored(0.9 * best))
    assert above["gpt2"].beats_below
    assert above["gpt2"].beats_all_below
    assert above["gpt2"].best_below == "kneser_ney"
    assert above["gpt2"].against_best.value == pytest.approx(-0.1 * best.sum() / math.log(2) / (40 * 30))
    assert not any("gpt2" in each for each in above.warnings)

    between = climbed(many, scored((best + lstm) / 2))
    assert between["gpt2"].beats_below
    assert not between["gpt2"].beats_all_below
    (sentence,) = [each for each in between.warnings if "gpt2" in each]
    assert "more of gpt2 than of kneser_ney, the best rung below" in sentence

    rng = np.random.default_rng(1)
    noisy = climbed(many, scored(lstm + rng.permutation(np.repeat([-3.0, 2.9], 20))))
    assert noisy["gpt2"].against_below.value < 0
    assert not noisy["gpt2"].beats_below, "better, but within noise"
    assert sum("gpt2" in each for each in noisy.warnings) == 2


def test_it_is_a_suite_with_the_rungs_as_baselines(many) -> None:
    ladder = climbed(many, scored(np.full(40, 11.0)))
    found = ladder.suite_result()
    assert found.figure.value == pytest.approx(11 / math.log(2) / 30)
    assert set(found.figures) == {"bits_per_byte", *(f"baseline/{each.name}" for each in ladder.rungs[:-1])}
    weights = [item["weight"] for item in found.items]
    assert found.scores.sum() / sum(weights) == pytest.approx(found.figure.value)
    assert [item["id"] for item in found.items] == [document.doc_id for document in many[1].documents()]
    assert found.items[3]["bits/hmm"] == pytest.approx(ladder["hmm"].scored.losses[3] / math.log(2))
    assert len(found.suite.dataset_digest) == 64


def test_one_document_has_no_interval_and_tells_nothing(write_shard) -> None:
    rows = [*byte_rows(ENGLISH)[:-2], ("test", [5, 6, EOT], 2)]
    found = climb(*opened(write_shard, rows), vocab_size=257, eot_token=EOT, config=QUICK)
    assert all((rung.bits_per_byte.low, rung.bits_per_byte.high) == (None, None) for rung in found.rungs)
    assert all(rung.beats_below is None for rung in found.rungs)
    assert "on one document" in found.warnings[0]


def test_what_cannot_be_scored_is_refused(write_shard, many) -> None:
    no_text = opened(write_shard, [("train", [1, EOT], 1), ("test", [EOT], 0)], name="1.arrow")
    with pytest.raises(EmptyCorpusError, match="got no text in 1 held-out documents"):
        climb(*no_text, vocab_size=5, eot_token=EOT)
    for split in ("train", "test"):
        rows = [(each, [9 if each == split else 1, EOT], 1) for each in ("train", "test")]
        with pytest.raises(SchemaError, match="got token id 9"):
            climb(*opened(write_shard, rows, name=f"{split}.arrow"), vocab_size=5, eot_token=EOT)
    for losses in ([1.0], [math.nan] * 40):
        with pytest.raises(SchemaError, match="wanted a finite one for each of 40 held-out documents"):
            climbed(many, scored(losses))
    with pytest.raises(ConfigError, match="got the name 'hmm' of another rung"):
        climb(*many, vocab_size=25, eot_token=EOT, config=QUICK, model=scored([1.0] * 40), model_name="hmm")
    with pytest.raises(ConfigError, match="got num_threads 0"):
        LadderConfig(num_threads=0)


@pytest.mark.real_data
@pytest.mark.parametrize("language", ["en", "zh"])
def test_on_real_prose_context_is_worth_what_it_should_be(write_shard, language) -> None:
    """Bytes of novels and of lyrics: n-grams far below unigrams, states and a small network between."""
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    folder = Path(os.environ["CORPUSMILL_TEST_DATA"])
    if language == "en":
        novel = (folder / "en/jane-austen/persuasion.txt").read_text(encoding="utf-8")
        texts = [novel[start : start + 1000] for start in range(0, 100_000, 1000)]
    else:
        lines = (folder / "zh/chinese-poetry/songci.jsonl").read_text(encoding="utf-8").splitlines()[:500]
        texts = ["\n".join(json.loads(line)["paragraphs"]) for line in lines]
    rows = [
        ("test" if idx % 10 == 0 else "train", [*(1 + byte for byte in text.encode()), EOT], len(text.encode()))
        for idx, text in enumerate(texts)
    ]
    config = LadderConfig(
        hmm=HMMConfig(num_states=16, num_iterations=15), lstm=LSTMConfig(n_embd=48, max_epochs=1, num_lanes=4)
    )
    found = climb(*opened(write_shard, rows), vocab_size=257, eot_token=EOT, config=config)
    bits = {rung.name: rung.bits_per_byte.value for rung in found.rungs}
    assert bits["kneser_ney"] < 0.75 * bits["unigram"]
    assert bits["kneser_ney"] < bits["hmm"] < bits["unigram"] < 0.8 * bits["uniform"]
    assert bits["lstm"] < bits["unigram"]
    assert found["unigram"].beats_below
    assert found["kneser_ney"].beats_below
    assert found["hmm"].beats_below is False
