"""Encoding: both backends give the same ids, and a page cannot write a special token. TOKENS: one row a kept document."""

import json
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.digest import digest_value
from pipelines.encoding import Encoder
from pipelines.errors import ConfigError, SchemaError
from pipelines.pii import DEFAULT_KINDS, find
from pipelines.schemas import DOCUMENT, OUTCOME, SAMPLE, SIGNALS, TOKENIZER, TOKENS, select
from pipelines.stage import Resource
from pipelines.tokenize import TokenizeConfig, tokenize_documents
from pipelines.tokenizer import TokenizerConfig, tokenizer_row, train_tokenizer

INPUT = pa.schema(
    [
        *select(DOCUMENT, "doc_id", "text"),
        *select(SIGNALS, "language", "pii"),
        *select(OUTCOME, "decision", "split", "cut_lines"),
    ]
)
TEXTS = [
    "The quick brown fox jumps over the lazy dog; the other foxes don't. " * 5,
    "敏捷的棕色狐狸跳过懒狗，其他的狐狸看着那些狗。" * 5,
    "for (int i = 0; i < 10; ++i) {\n\tsum += a[i];\n}\n\n" * 5,
    "end of text endoftext <| |> <|endoftext|>" * 3,
]


@pytest.fixture(scope="module")
def tokenizer_json() -> str:
    batch = pa.RecordBatch.from_pylist([{"doc_id": str(i), "text": text} for i, text in enumerate(TEXTS)], SAMPLE)
    (out,) = train_tokenizer(iter([batch]), TokenizerConfig(vocab_size=600))
    return out.column("tokenizer_json")[0].as_py()


@pytest.fixture(scope="module")
def fast(tokenizer_json) -> Encoder:
    encoder = Encoder.load(tokenizer_json)
    assert encoder._gigatoken is not None
    return encoder


@pytest.fixture(scope="module")
def slow(tokenizer_json) -> Encoder:
    """The same tokenizer in a shape that is left to `tokenizers`: GPT-2's splitting as one of a sequence."""
    spec = json.loads(tokenizer_json)
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [spec["pre_tokenizer"]]}
    encoder = Encoder.load(json.dumps(spec))
    assert encoder._gigatoken is None
    return encoder


PIECES = [
    "<|endoftext|>",
    "<|",
    "|>",
    "endoftext",
    "'s",
    "'LL",
    "fox",
    "42",
    "٣",
    "é",
    "é",
    "狐狸",
    "。",
    "😀",
    "👩\u200d👩\u200d👧",
    "हिन्दी",
    "한국어",
    "{",
    "++i",
    "_",
    "🇨🇳",
]
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u3000", "\u00a0", "\u200b", "\u2028", "\x00", "\ufeff", " the"]
pieces = st.sampled_from(PIECES + SPACES)
unicode_texts = st.one_of(st.text(), st.lists(pieces, max_size=30).map("".join), st.sampled_from(TEXTS))


@given(st.lists(unicode_texts, max_size=5))
def test_both_backends_give_the_same_ids_and_every_byte_comes_back(fast, slow, texts):
    ids = [array.tolist() for array in fast.encode_batch(texts)]
    assert ids == [array.tolist() for array in slow.encode_batch(texts)]
    assert [fast.decode(document) for document in ids] == texts
    assert all(fast.eot_token not in document for document in ids)


@pytest.mark.parametrize("backend", ["fast", "slow"])
@pytest.mark.parametrize("text", ["<|endoftext|>", "a <|endoftext|><|endoftext|> b", "狐狸<|endoftext|>"])
def test_a_special_token_in_a_page_is_plain_text(request, backend, text):
    encoder = request.getfixturevalue(backend)
    (ids,) = encoder.encode_batch([text])
    assert encoder.eot_token not in ids
    assert encoder.decode(ids) == text
    assert encoder.decode([encoder.eot_token]) == "<|endoftext|>"


def test_other_special_tokens_are_plain_text_too(tokenizer_json):
    spec = json.loads(tokenizer_json)
    user = len(spec["model"]["vocab"])
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": user, "content": "<|user|>"})
    encoder = Encoder.load(json.dumps(spec))
    assert encoder.vocab_size == user + 1
    assert user not in encoder.encode_batch(["<|user|>"])[0]
    assert encoder.decode([user]) == "<|user|>"


def test_a_tokenizer_that_cannot_keep_its_end_token_apart(tokenizer_json):
    spec = json.loads(tokenizer_json)
    spec["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    spec["model"]["ignore_merges"] = True
    with pytest.raises(ConfigError, match="as its end-of-text token"):
        Encoder.load(json.dumps(spec))


def row(doc_id, text, decision="keep", split="train"):
    spans = [{"kind": each.kind, "start": each.start, "end": each.end} for each in find(text)]
    known = {"doc_id": doc_id, "text": text, "language": None, "pii": spans, "cut_lines": []}
    return known | {"decision": decision, "split": split}


@pytest.fixture(scope="module")
def resource(tmp_path_factory, tokenizer_json) -> Resource:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "shard.arrow", tokenizer_json)


def write_tokenizer(path, tokenizer_json: str) -> Resource:
    with pa.ipc.new_stream(path, TOKENIZER) as stream:
        stream.write_batch(tokenizer_row(tokenizer_json))
    return Resource(digest_value(tokenizer_json), str(path))


def tokenize(batches: list[list[dict]], config: TokenizeConfig) -> Iterator[pa.RecordBatch]:
    return tokenize_documents((pa.RecordBatch.from_pylist(rows, schema=INPUT) for rows in batches), config)


def test_one_row_for_each_kept_document_in_order(resource, fast):
    batches = [
        [row("a", "the fox 狐狸"), row("b", "dropped", decision="drop"), row("c", "", split="validation")],
        [row("d", "dropped", decision="drop")],
        [],
        [row("e", "<|endoftext|>")],
    ]
    out = list(tokenize(batches, TokenizeConfig(tokenizer=resource)))
    assert all(batch.schema == TOKENS for batch in out)
    assert [batch.num_rows for batch in out] == [2, 1]
    rows = [r for batch in out for r in batch.to_pylist()]
    assert [(r["doc_id"], r["split"], r["num_bytes"]) for r in rows] == [
        ("a", "train", 14),
        ("c", "validation", 0),
        ("e", "train", 13),
    ]
    assert [fast.decode(r["tokens"][:-1]) for r in rows] == ["the fox 狐狸", "", "<|endoftext|>"]
    assert [r["tokens"].count(fast.eot_token) for r in rows] == [1, 1, 1]
    assert {r["tokens"][-1] for r in rows} == {fast.eot_token}


def test_personal_data_is_redacted_before_it_is_encoded(resource, fast):
    text = "邮箱zhang.san@shanshui-mail.cn，or mail bob@gazette-mail.net."
    (on,) = tokenize([[row("a", text)]], TokenizeConfig(tokenizer=resource, redact=("email",)))
    (measured,) = tokenize([[row("a", text)]], TokenizeConfig(tokenizer=resource, redact=DEFAULT_KINDS))
    assert measured.column("tokens").equals(on.column("tokens"))
    (off,) = tokenize([[row("a", text)]], TokenizeConfig(tokenizer=resource))
    decoded = fast.decode(on.column("tokens")[0].as_py())
    assert "zhang" not in decoded
    assert "bob" not in decoded
    assert on.column("num_bytes")[0].as_py() == len(decoded.removesuffix("<|endoftext|>").encode())
    assert fast.decode(off.column("tokens")[0].as_py()) == text + "<|endoftext|>"


@pytest.mark.parametrize("decision", [None, "maybe"])
def test_a_missing_decision_never_means_keep(resource, decision):
    with pytest.raises(SchemaError, match="wanted keep or drop"):
        list(tokenize([[row("a", "text"), row("b", "text", decision=decision)]], TokenizeConfig(tokenizer=resource)))


def test_the_largest_16_bit_id_is_written_and_a_larger_vocabulary_refused(tmp_path, tokenizer_json):
    spec = json.loads(tokenizer_json)
    for eot_token, fits in ((65_535, True), (65_536, False)):
        spec["added_tokens"][0]["id"] = eot_token
        spec["model"]["vocab"].pop("<|endoftext|>", None)
        config = TokenizeConfig(tokenizer=write_tokenizer(tmp_path / f"{eot_token}.arrow", json.dumps(spec)))
        if fits:
            (batch,) = tokenize([[row("a", "fox")]], config)
            assert batch.column("tokens")[0].as_py()[-1] == 65_535
        else:
            with pytest.raises(ConfigError, match="at most 65536"):
                list(tokenize([[row("a", "fox")]], config))


def test_where_the_tokenizer_lies_does_not_matter_to_the_key(resource):
    moved = Resource(resource.digest, "/elsewhere")
    assert digest_value(TokenizeConfig(tokenizer=moved)) == digest_value(TokenizeConfig(tokenizer=resource))
