"""The sample: order does not matter, growth rarely does. The tokenizer: the same bytes each time, published ids."""

import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.encoding import Encoder
from pipelines.errors import ConfigError, EmptyCorpusError, SchemaError
from pipelines.sample import SampleConfig, sample_documents
from pipelines.schemas import DOCUMENT, OUTCOME, SAMPLE, SIGNALS, TOKENIZER, select
from pipelines.stage import Aids
from pipelines.store import Shard
from pipelines.tokenizer import TokenizerConfig, given_tokenizer, gpt2_tokenizer, train_tokenizer

INPUT = pa.schema(
    [
        *select(SIGNALS, "doc_id", "fetched_at", "num_bytes", "exact_digest", "language", "pii"),
        *select(OUTCOME, "decision", "split", "cut_lines"),
    ]
)
TEXT = select(DOCUMENT, "text")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
ENGLISH = "The quick brown fox jumps over the lazy dog, while the other foxes watch the dogs. "
CHINESE = "敏捷的棕色狐狸跳过懒狗，其他的狐狸看着那些狗。"


def row(doc_id, text, fetched_at=None, decision="keep", split="train"):
    time = None if fetched_at is None else EPOCH + dt.timedelta(days=fetched_at)
    known = {
        "doc_id": doc_id,
        "fetched_at": time,
        "num_bytes": len(text.encode()),
        "exact_digest": hashlib.md5(text.encode()).digest() if text else None,
    }
    known |= {"language": None, "pii": [], "cut_lines": []}
    return known | {"text": text, "decision": decision, "split": split}


def sample(rows, batch_size=2, **config):
    return [(r["doc_id"], r["text"]) for batch in sampled(rows, batch_size, **config) for r in batch.to_pylist()]


def sampled(rows, batch_size=2, last=(), looked_up=None, **config):
    """The batches of a sample. `last` are those of the one before; `looked_up` is told each text that is read."""
    batches = (
        pa.RecordBatch.from_pylist(rows[start : start + batch_size], schema=INPUT)
        for start in range(0, len(rows), batch_size)
    )
    units = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]

    def read(shard, columns):
        if shard.digest == "last":
            yield from last
            return
        assert columns == ("text",)
        for start in range(0, shard.num_rows, 3):
            part = units[int(shard.digest)][start : start + 3]
            if looked_up is not None:
                looked_up.extend(row["text"] for row in part)
            yield pa.RecordBatch.from_pylist(part, schema=TEXT)

    aside = tuple(Shard(str(number), 0, len(unit)) for number, unit in enumerate(units))
    aids = Aids(read=read, aside=aside, last=(Shard("last", 0, 0),) if last else ())
    out = list(sample_documents(batches, SampleConfig(**config), aids))
    assert all(batch.schema == SAMPLE for batch in out)
    return out


def test_what_was_sampled_before_is_not_read_again_unless_it_was_made_of_something_else():
    mail = "write to zhang.san@shanshui-mail.cn today\n" + "x" * 60
    rows = [row(name, f"{name} {mail}", 1) for name in "abcdefgh"]
    before = sampled(rows, redact=("email",))
    looked_up: list[str] = []
    assert sampled(rows, last=before, looked_up=looked_up, redact=("email",)) == before
    assert not set(looked_up) & {each["text"] for each in rows[:4]}, "only the shard of the one that the budget cuts"
    changes = [{"cut_lines": [{"line": 1, "first_shown_by": "z"}]}, {"text": "other", "exact_digest": bytes(16)}]
    for change in changes:
        changed = [rows[0] | change, *rows[1:]]
        assert sampled(changed, last=before, redact=("email",)) == sampled(changed, redact=("email",)) != before
    assert sampled(rows, last=before) == sampled(rows) != before, "other kinds"


def test_only_kept_training_text_is_sampled_first_seen_first():
    rows = [
        row("c", "x" * 8, 3),
        row("b", "y" * 4, 3),
        row("a", "z" * 4),
        row("d", "no", decision="drop"),
        row("e", "no", split="validation"),
        row("f", "", 1),
    ]
    assert sample(rows) == [("a", "zzzz"), ("b", "yyyy"), ("c", "xxxxxxxx")]


@pytest.mark.parametrize(
    ("lengths", "max_sample_bytes", "expected"),
    [
        ([4, 4], 100, [4, 4]),
        ([4, 5], 100, [4, 4]),  # 9 bytes fill 8
        ([4, 3], 100, [4]),
        ([100], 100, [64]),
        ([100, 100, 100], 50, [50]),
        ([10, 10, 10, 10], 25, [10, 10, 5]),
        ([1] * 1000, 3, [1, 1, 1]),
    ],
)
def test_the_budget_is_the_largest_power_of_two_that_the_text_fills(lengths, max_sample_bytes, expected):
    rows = [row(f"{i:04}", "x" * length) for i, length in enumerate(lengths)]
    assert [len(text) for _, text in sample(rows, max_sample_bytes=max_sample_bytes)] == expected


def test_of_much_text_an_eighth_is_enough():
    rows = [row(f"{i:04}", "x" * (1 << 20)) for i in range(40)]
    assert [sum(len(text) for _, text in sample(rows[:count])) >> 20 for count in (1, 2, 3, 31, 32, 40)] == [
        1,
        2,
        2,
        2,
        4,
        4,
    ]


def test_a_cut_leaves_whole_characters():
    assert sample([row("a", "好" * 7)]) == [("a", "好" * 5)]  # 21 bytes fill 16


def test_personal_data_is_redacted_before_the_cut():
    rows = [row("a", "写信给 zhang.san@shanshui-mail.cn 即可。" * 3)]
    (_, text), *_ = sample(rows, redact=("email",))
    assert "zhang" not in text
    assert "zhang" in sample(rows)[0][1]


@pytest.mark.parametrize("decision", [None, "maybe"])
def test_a_missing_decision_never_means_keep(decision):
    with pytest.raises(SchemaError, match="wanted keep or drop"):
        sample([row("a", "text", decision=decision)])


corpora = st.lists(
    st.builds(row, st.uuids().map(str), st.text("ab好", max_size=12), st.sampled_from([None, 1, 2, 3])),
    max_size=20,
    unique_by=lambda r: r["doc_id"],
)


@given(corpora, st.randoms(use_true_random=False), st.integers(1, 5), st.sampled_from([1, 7, 16, 50, 1000]))
def test_neither_order_nor_batches_matter(rows, rng, batch_size, max_sample_bytes):
    expected = sample(rows, max_sample_bytes=max_sample_bytes)
    shuffled = rng.sample(rows, len(rows))
    assert sample(shuffled, batch_size, max_sample_bytes=max_sample_bytes) == expected
    ranked = sorted(rows, key=lambda r: (r["fetched_at"] or EPOCH, r["doc_id"]))
    everything = "".join(r["text"] for r in ranked)
    budget = min(1 << max(0, len(everything.encode()).bit_length() - 1), max_sample_bytes)
    assert "".join(text for _, text in expected) == everything.encode()[:budget].decode(errors="ignore")


@given(corpora, corpora)
def test_newer_documents_change_nothing_until_the_text_has_doubled(rows, newer):
    total = sum(len(r["text"].encode()) for r in rows)
    grown = rows
    for addition in (row("x" + r["doc_id"], r["text"], 9) for r in newer):
        total_now = sum(len(r["text"].encode()) for r in [*grown, addition])
        if total_now.bit_length() == total.bit_length():
            grown = [*grown, addition]
    assert sample(grown) == sample(rows)


def train(texts, **config):
    batch = pa.RecordBatch.from_pylist([{"doc_id": str(i), "text": text} for i, text in enumerate(texts)], SAMPLE)
    (out,) = train_tokenizer(iter([batch]), TokenizerConfig(**config))
    assert out.schema == TOKENIZER
    return out.column("tokenizer_json")[0].as_py()


TEXTS = [ENGLISH * 3, CHINESE * 3, "def f(x):\n    return x + 1\n" * 4, "naïve café №42 😀😀"]
TRAIN_IN_A_CHILD = """
import hashlib, sys
sys.path[:0] = {path!r}
from test_tokenizer import TEXTS, train
print(hashlib.sha256(train(TEXTS * 20, vocab_size=500).encode()).hexdigest())
"""


@pytest.mark.parametrize("threads", ["1", "3"])
def test_training_gives_the_same_bytes_for_any_number_of_threads(threads):
    here = Path(__file__).parent
    environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
    code = TRAIN_IN_A_CHILD.format(path=[str(here), str(here.parents[1])])
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == hashlib.sha256(train(TEXTS * 20, vocab_size=500).encode()).hexdigest()


def test_a_trained_tokenizer_knows_words_every_byte_and_the_end_of_text():
    encoder = Encoder.load(train(TEXTS, vocab_size=350))
    assert encoder.vocab_size == 350
    assert len(encoder.encode_batch([" the"])[0]) == 1
    assert len(encoder.encode_batch(["狐狸"])[0]) == 1
    assert max(len(ids) for ids in encoder.encode_batch([chr(c) for c in range(256)])) <= 2
    assert encoder.decode([encoder.eot_token]) == "<|endoftext|>"


def test_a_small_sample_gives_fewer_tokens_than_asked_for():
    assert Encoder.load(train(["abab"], vocab_size=65_536)).vocab_size == 258  # bytes, end of text, "ab"


def test_long_unbroken_text_trains_in_no_time():
    """One word of 100,000 characters takes the trainer half a minute when it is not cut."""
    text = "".join(chr(0x4E00 + i * i % 997) for i in range(100_000))
    assert Encoder.load(train([text], vocab_size=1000)).vocab_size == 1000


def test_nothing_to_train_on():
    with pytest.raises(EmptyCorpusError, match="loosen the policy"):
        train([])
    with pytest.raises(EmptyCorpusError):
        train([""])


@pytest.mark.parametrize(
    ("config", "kind", "match"),
    [
        ({"vocab_size": 256}, TokenizerConfig, "vocab_size 256"),
        ({"vocab_size": 65_537}, TokenizerConfig, "vocab_size 65537"),
        ({"min_frequency": 0}, TokenizerConfig, "min_frequency 0"),
        ({"max_sample_bytes": 0}, SampleConfig, "max_sample_bytes 0"),
    ],
)
def test_impossible_configs(config, kind, match):
    with pytest.raises(ConfigError, match=match):
        kind(**config)


def edited(**changes):
    spec = json.loads(train(TEXTS, vocab_size=300))
    for name, value in changes.items():
        spec[name] = value
    return json.dumps(spec)


def test_a_given_tokenizer_is_taken_as_it_is(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(edited(), encoding="utf-8")
    assert given_tokenizer(path) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "cannot be read"),
        ("[]", "cannot be read|without a model"),
        ("{}", "without a model"),
        (edited(model={"type": "BPE", "vocab": {"a": 0}, "merges": 3}), "cannot be read"),
        (edited(model={"type": "BPE", "vocab": {"<|endoftext|>": 0, "a": 1}, "merges": []}), "all 256 bytes"),
        (edited(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}), "byte-level BPE"),
        (edited(added_tokens=[]), "to end a document"),
        (
            edited(added_tokens=[{**json.loads(edited())["added_tokens"][0], "id": 70_000}]),
            "at most 65536",
        ),
    ],
)
def test_a_given_tokenizer_that_does_not_do(tmp_path, content, match):
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=match):
        given_tokenizer(path)


def test_a_given_tokenizer_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="check the path"):
        given_tokenizer(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match=r"vocab\.bpe"):
        gpt2_tokenizer(tmp_path)


@pytest.mark.real_data
def test_gpt2_has_its_published_ids():
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    folder = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "gpt2-bpe"
    encoder = Encoder.load(gpt2_tokenizer(folder))
    assert (encoder.vocab_size, encoder.eot_token) == (50_257, 50_256)
    known = {
        "Hello world": [15496, 995],
        " the": [262],
        "Hello, I'm a language model,": [15496, 11, 314, 1101, 257, 3303, 2746, 11],
        "你好": [19526, 254, 25001, 121],
        "<|endoftext|>": [27, 91, 437, 1659, 5239, 91, 29],
    }
    assert {text: ids.tolist() for text, ids in zip(known, encoder.encode_batch(list(known)), strict=True)} == known
    published = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    assert json.loads(gpt2_tokenizer(folder))["model"]["vocab"] == published
