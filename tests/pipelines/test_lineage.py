"""From pages to their tokens and back: against the shards, read as any program reads them."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import Page, config, run, source, write_file

from llm.data import TokenData
from pipelines.errors import InputError
from pipelines.explain import stories
from pipelines.lineage import (
    Known,
    lineage,
    members,
    over,
    pages,
    places,
    representatives,
    stream,
    stream_starts,
    token_counts,
    write_lineage,
)
from pipelines.schemas import LINEAGE, TOKENS
from pipelines.store import Place, Store

FIRST = [Page(text=number, url=number) for number in range(12)]
SECOND = [
    FIRST[2],  # the same page in two files
    FIRST[2],  # and twice in one
    Page(text=4, url=20, day=3, variant=1),  # a near-duplicate
    Page(text=6, url=21, day=3),  # a copy
    Page(text=10, url=8, day=5, variant=1),  # a newer version, itself a near-duplicate of another page
    Page(text=30, url=30, fate="gone"),
    Page(text=31, url=31, fate="opt_out"),
    *(Page(text=number, url=number) for number in range(40, 52)),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lineage")
    sources = [source(write_file(folder / f"{number}.warc.gz", part)) for number, part in enumerate([FIRST, SECOND])]
    store = Store(folder / "store")
    wanted = config()
    done = {name: result.manifest for name, result in run(store, sources, wanted).items()}
    known = Known(
        policy=wanted.policy,
        source_files={item.unit: item.path for item in sources},
        seen={"m": {"no such document": (1, 2, 3)}},
    )
    return store, done, wanted, pa.Table.from_batches(lineage(store, done, known), LINEAGE).to_pylist()


def tokens_of(store, digest):
    with pa.memory_map(str(store.shard_path(digest))) as file:
        return pa.ipc.open_stream(file).read_all().to_pylist()


def digests_of(done):
    return sorted({entry.shard.digest for entry in done["tokenize"].entries})


def test_a_row_for_each_page_that_came_in(built):
    store, done, _wanted, rows = built
    assert len(rows) == done["extract"].num_rows == len(FIRST) + len(SECOND)
    assert [row["doc_id"] for row in rows] == [
        doc_id
        for entry in done["extract"].entries
        for batch in store.read(entry.shard, ("doc_id",))
        for doc_id in batch.column("doc_id").to_pylist()
    ]
    assert all(row["source_file"].endswith(".warc.gz") and row["record_offset"] is not None for row in rows)
    assert all((row["decision"] == "keep") == (row["token_row"] is not None) for row in rows)
    assert all(row["trainings"] == [] for row in rows)


def test_places_are_those_of_the_stream_that_training_reads(built):
    store, done, _wanted, rows = built
    digests = digests_of(done)
    shards = {digest: tokens_of(store, digest) for digest in digests}
    flat = {digest: [token for row in shards[digest] for token in row["tokens"]] for digest in digests}
    for split in ("train", "validation"):
        data = TokenData.open([store.shard_path(digest) for digest in digests], split, digest="d")
        tokens = [token for document in data.documents() for token in document.tokens.tolist()]
        kept = [row for row in rows if row["decision"] == "keep" and row["split"] == split]
        assert kept, "the check can fail"
        assert sum(row["num_tokens"] for row in kept) == data.num_tokens
        for row in kept:
            stored = shards[row["token_shard"]][row["token_row"]]
            assert stored["doc_id"] == row["doc_id"]
            assert tokens[row["stream_start"] : row["stream_end"]] == stored["tokens"]
            assert flat[row["token_shard"]][row["token_start"] : row["token_end"]] == stored["tokens"]


def test_every_offset_leads_to_one_document(built):
    store, done, _wanted, rows = built
    starts = stream_starts(store, done["tokenize"])
    stretches = stream(store, digests_of(done), "train", token_counts(done["tokenize"], "train"))
    assert stretches == stream(store, digests_of(done), "train", {}), "counted and read agree"
    assert [stretch.start for stretch in stretches] == [starts[stretch.digest]["train"] for stretch in stretches]
    of_offset = {
        offset: row["doc_id"]
        for row in rows
        if row["decision"] == "keep" and row["split"] == "train"
        for offset in range(row["stream_start"], row["stream_end"])
    }
    assert sorted(of_offset) == list(range(stretches[-1].end))
    for stretch in stretches:
        table = places(store, stretch.digest, starts[stretch.digest])
        train = table.filter(np.array(table["split"].to_pylist()) == "train")
        for offset in range(stretch.start, stretch.end, 7):
            assert over(train, offset, offset + 1)["doc_id"].to_pylist() == [of_offset[offset]]


def test_clusters_end_at_what_stands_for_them(built):
    store, done, _wanted, rows = built
    named: dict[str, list[dict]] = {}
    for row in rows:
        named.setdefault(row["url"].rpartition("/")[2], []).append(row)
    assert [row["reason"] for row in named["2"]].count(None) == 1
    assert {(row["cluster"], row["cluster_size"]) for row in named["2"]} == {(named["2"][0]["doc_id"], 3)}
    assert named["20"][0]["cluster"] == named["4"][0]["doc_id"]
    assert named["20"][0]["similarity"] > 0.8
    assert named["21"][0]["cluster"] == named["6"][0]["doc_id"]
    old, new = sorted(named["8"], key=lambda row: row["fetched_at"])
    assert (old["reason"], new["reason"]) == ("superseded", "duplicate_near")
    assert old["duplicate_of"] == new["doc_id"]
    assert old["cluster"] == new["cluster"] == named["10"][0]["doc_id"], "through the newer version"
    assert named["10"][0]["cluster_size"] == 3
    sizes = {row["cluster"]: row["cluster_size"] for row in rows}
    assert all(sum(row["cluster"] == cluster for row in rows) == size for cluster, size in sizes.items())
    assert all(row["cluster"] == row["doc_id"] for row in rows if row["decision"] == "keep")
    heads = representatives(store, done["dedup"])
    found = members(store, done, old["cluster"], heads)
    assert found[0]["doc_id"] == old["cluster"]
    assert {row["doc_id"] for row in found} == {old["doc_id"], new["doc_id"], old["cluster"]}


def test_rules_are_those_that_explain_tells(built):
    store, done, wanted, rows = built
    for row in rows:
        told = next(
            story
            for story in stories(store, done, wanted.policy, row["doc_id"])
            if (story["unit"], story["outcome"]["decision"]) == (row["unit"], row["decision"])
        )
        if row["problem"] is not None:
            assert row["rules"] == []
            continue
        for ours, theirs in zip(row["rules"], told["rules"], strict=True):
            assert (ours["rule"], ours["passed"]) == (theirs["rule"], theirs["passed"])
            if ours["value"] is not None and not isinstance(theirs["value"], str):
                assert math.isclose(ours["value"], theirs["value"] or 0.0)
        assert row["language"] == told["signals"]["language"]
        place = told["tokens"]
        assert (place is None) == (row["decision"] == "drop")
        if place is not None:
            assert (place["offset"], place["stream_start"]) == (row["token_start"], row["stream_start"])


def test_of_a_page_in_two_files_the_row_that_stays_is_found(built):
    store, done, _wanted, rows = built
    kept = next(row for row in rows if row["decision"] == "keep" and (row["url"] or "").endswith("/2"))
    found = pages(store, done, [kept["doc_id"], "no such document"])
    assert found.keys() == {kept["doc_id"]}
    assert (found[kept["doc_id"]]["unit"], found[kept["doc_id"]]["decision"]) == (kept["unit"], "keep")


def test_the_table_is_a_file_for_anyone(built, tmp_path):
    store, done, wanted, rows = built
    known = Known(policy=wanted.policy, source_files={}, seen={"m": {rows[0]["doc_id"]: (1, 4, 3)}})
    path = tmp_path / "new" / "lineage.parquet"
    assert write_lineage(path, lineage(store, done, known)) == len(rows)
    assert list(path.parent.iterdir()) == [path]
    table = pq.read_table(path)
    assert table.column_names == LINEAGE.names
    first = table.to_pylist()[0]
    assert first["trainings"] == [{"model": "m", "first_step": 1, "last_step": 4, "num_visits": 3}]
    assert first["source_file"] is None


def test_a_shard_that_is_gone_is_told(built):
    store, *_ = built
    (stretch,) = stream(store, ["0" * 64], "train", {"0" * 64: 9})
    assert (stretch.start, stretch.end, stretch.is_there) == (0, 9, False)
    with pytest.raises(InputError, match="which is gone and whose tokens nobody counted, wanted"):
        stream(store, ["0" * 64], "train", {})
    with pytest.raises(InputError, match="which is gone, wanted it stored: a take-down or"):
        places(store, "0" * 64)


def test_a_bucket_is_asked_like_a_folder(built, bucket, tmp_path):
    store, done, _wanted, _rows = built
    there = Store(Place(root=tmp_path / "copies", bucket=bucket.url))
    first = done["tokenize"].entries[0].shard
    assert there.write(TOKENS, store.read(first), compression=None) == first
    again = Store(Place(root=tmp_path / "others", bucket=bucket.url))
    assert places(again, first.digest) == places(store, first.digest)
    (stretch, gone) = stream(again, [first.digest, "f" * 64], "train", {"f" * 64: 5})
    assert (stretch.is_there, gone.is_there) == (True, False)
    assert gone.start == stretch.end == done["tokenize"].entries[0].counts["tokens:train"]
