"""Which text the language models learn from."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perplexity_inputs import batch, document, prose

from pipelines import schemas
from pipelines.errors import ConfigError
from pipelines.perplexity.reference import ReferenceConfig, folds_of, reference_from_documents, reference_from_files


def chosen(rows, **config):
    parts = list(reference_from_documents([batch(rows)] if rows else [], ReferenceConfig(**config)))
    assert all(part.schema == schemas.REFERENCE for part in parts)
    return [row for part in parts for row in part.to_pylist()]


def ids(rows, **config):
    return [row["doc_id"] for row in chosen(rows, **config)]


@pytest.mark.parametrize(
    "change",
    [
        {"problem": "not_html"},
        {"language": None},
        {"language": "de"},
        {"language_score": 0.6},
        {"language_score": None},
        {"is_mixed_language": True},
        {"num_words": 49},
        {"rights": "disallow"},
        {"num_blocked_ai_agents": 1},
        {"text_digest": None},
    ],
)
def test_what_does_not_qualify(change):
    good = document("good", prose(1))
    assert ids([good, document("other", prose(2), **change)]) == ["good"]


def test_languages_stand_together_and_the_oldest_come_first():
    rows = [
        document("b", prose(1), fetched_at=7),
        document("z", prose(2, language="zh"), language="zh", fetched_at=1),
        document("a", prose(3), fetched_at=9),
        document("c", prose(4), fetched_at=None),
    ]
    found = chosen(rows)
    # 4 texts of unlike length fill a power of two, so the last may be missing
    assert [row["language"] for row in found] == sorted(row["language"] for row in found)
    assert [row["doc_id"] for row in found if row["language"] == "en"][:2] == ["c", "b"]
    assert {row["fold"] for row in found} <= {0, 1}


def test_an_equal_text_is_learnt_once_from_where_it_was_seen_first():
    same = document("later", prose(1), fetched_at=9)
    assert ids([same, {**same, "doc_id": "first", "fetched_at": 2}]) == ["first"]


def test_a_growing_corpus_changes_the_reference_only_when_it_has_doubled():
    rows = [document(f"{idx:03}", f"{idx:0128}", fetched_at=idx) for idx in range(40)]
    found = [tuple(ids(rows[:count])) for count in range(1, 41)]
    assert [len(set(found[:count])) for count in (1, 2, 4, 8, 16, 32)] == [1, 2, 3, 4, 5, 6]
    assert len(ids(rows, max_bytes=512)) == 4


@pytest.mark.parametrize(
    "later",
    [{"rights": "disallow"}, {"problem": "reserved"}, {"problem": "http_410"}, {"num_blocked_ai_agents": 2}],
)
def test_a_page_that_was_later_withdrawn_is_not_learnt_from(later):
    page = document("old", prose(1), fetched_at=3)
    withdrawal = {**document("new", prose(2), **later), "url": page["url"], "fetched_at": 5}
    other = document("other", prose(3), fetched_at=1)
    assert ids([page, withdrawal, other]) == ["other"]
    assert ids([page, {**withdrawal, "fetched_at": 2}, other]) == ["other", "old"]
    assert ids(
        [page, {**withdrawal, "problem": "http_503", "rights": "unknown", "num_blocked_ai_agents": 0}, other]
    ) == [
        "other",
        "old",
    ]


@given(
    numbers=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=25),
    max_bytes=st.sampled_from((200, 700, 4000)),
    data=st.data(),
)
def test_neither_the_order_of_rows_nor_how_they_are_cut_makes_a_difference(numbers, max_bytes, data):
    rows = [
        document(f"d{idx:02}", prose(text, 1 + text) + " " * 90 * gap, fetched_at=at, text_digest=bytes([text]) * 16)
        for idx, (text, at, gap) in enumerate(numbers)
    ]
    config = ReferenceConfig(max_bytes=max_bytes)
    whole = pa.Table.from_batches(reference_from_documents([batch(rows)], config), schemas.REFERENCE)
    shuffled = data.draw(st.permutations(rows))
    size = data.draw(st.integers(1, 5))
    cut = [batch(shuffled[start : start + size]) for start in range(0, len(rows), size)]
    assert pa.Table.from_batches(reference_from_documents(cut, config), schemas.REFERENCE) == whole


def test_folds_are_even_and_shared_by_like_texts():
    rows = [document(f"d{idx}", prose(idx, 4)) for idx in range(400)]
    folds = folds_of(batch(rows)).to_pylist()
    assert 140 < sum(folds) < 260
    copies = [{**row, "doc_id": "copy", "text": row["text"] + " Thanks."} for row in rows]
    assert folds_of(batch(copies)).to_pylist() == folds
    short = [{**row, "minhash": None} for row in rows]
    assert set(folds_of(batch(short)).to_pylist()) == {0, 1}
    assert folds_of(batch([{**rows[0], "minhash": None, "text_digest": None}])).to_pylist() == [None]


def test_given_files_are_learnt_from_whatever_their_order():
    texts = [
        "The ship came into the harbour in the evening.",
        "山水之间有一座古老的村庄，村里的人都很和善。",
        "12345",
        "",
    ]
    texts += [f"It was the {word} house of the old town by the river." for word in ("first", "second", "last")]
    pages = [
        {"url": None, "status": 200, "headers": [], "payload": text.encode(), "problem": None} for text in texts
    ] + [{"url": None, "status": 200, "headers": [], "payload": b"A torn row of the old file.", "problem": "bad_row"}]
    parts = [pa.RecordBatch.from_pylist([page], schema=schemas.PAGE) for page in pages]
    found = pa.Table.from_batches(reference_from_files(parts, ReferenceConfig()), schemas.REFERENCE)
    assert found.column("language").to_pylist() == ["en"] * 4 + ["zh"]
    assert found.column("fold").null_count == 5
    again = pa.Table.from_batches(reference_from_files([*parts[::-1], parts[0]], ReferenceConfig()), schemas.REFERENCE)
    assert again == found
    few = pa.Table.from_batches(reference_from_files(parts, ReferenceConfig(max_bytes=60)), schemas.REFERENCE)
    assert few.num_rows == 3
    assert few.column("doc_id").to_pylist()[0] == found.column("doc_id").to_pylist()[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"languages": ()}, "got no language for perplexity"),
        ({"max_bytes": 0}, "got max_bytes 0, wanted at least 1"),
        ({"min_words": 0}, "got min_words 0, wanted at least 1"),
    ],
)
def test_what_cannot_be_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        ReferenceConfig(**config)
