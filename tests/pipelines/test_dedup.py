"""Dedup against a naive reference, and its promises: order does not matter, later documents change nothing, no leak."""

import datetime as dt
import functools
import hashlib
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.blocklists import BlockList, BlockListKind
from pipelines.corpus import likeness_configs
from pipelines.dedup import BANDS_STAGE, DEDUP, INDEX_STAGE, NEAR_STAGE, WITHDRAWING_REASONS, DedupConfig
from pipelines.dedup.bands import _sorted_within, text_refs
from pipelines.dedup.lines import LinesConfig, list_lines
from pipelines.dedup.outcomes import resolve
from pipelines.errors import ConfigError, SchemaError
from pipelines.policy import ComplianceRules, PolicyConfig, rules_for
from pipelines.schemas import DECISION, DOCUMENT, OUTCOME, SIGNALS
from pipelines.signals.minhash import minhash, text_digest
from pipelines.signals.shingles import compare, shingle_sets
from pipelines.stage import Aids, Resource
from pipelines.store import Shard, Store

INPUT = pa.schema(
    [
        *(
            SIGNALS.field(name)
            for name in ("doc_id", "url", "fetched_at", "num_chars", "text_digest", "exact_digest", "minhash")
        ),
        *(DECISION.field(name) for name in ("decision", "reason")),
    ]
)
TEXT = pa.schema([DOCUMENT.field("text")])
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Doc:
    doc_id: str
    text: str
    url: str | None = None
    fetched_at: int | None = None  # days
    decision: str | None = "keep"
    reason: str | None = None

    @property
    def num_chars(self) -> int:
        return len(self.text)

    @property
    def text_digest(self) -> bytes:
        return text_digest(self.text)

    @property
    def exact_digest(self) -> bytes:
        return hashlib.blake2b(self.text.encode(), digest_size=16).digest()

    @property
    def minhash(self) -> list[int] | None:
        signature = minhash(self.text)
        return None if signature is None else signature.tolist()


doc = Doc


def batch_of(docs: list[Doc]) -> pa.RecordBatch:
    rows = [
        {name: getattr(d, name) for name in INPUT.names}
        | {"fetched_at": None if d.fetched_at is None else EPOCH + dt.timedelta(days=d.fetched_at)}
        for d in docs
    ]
    return pa.RecordBatch.from_pylist(rows, schema=INPUT)


def outcomes(docs: list[Doc], batch_size: int = 3, **config) -> list[dict]:
    batches = [batch_of(docs[start : start + batch_size]) for start in range(0, len(docs), batch_size)]
    with tempfile.TemporaryDirectory() as folder:
        wanted = DedupConfig(**config)
        lined = [with_lines(batch, docs[number * batch_size :], wanted) for number, batch in enumerate(batches)]
        out = list(resolve(iter(lined), resolved_config(Store(Path(folder)), docs, batches, wanted)))
    assert [b.num_rows for b in out] == [b.num_rows for b in batches]
    assert all(b.schema == OUTCOME for b in out)
    rows = [row for b in out for row in b.to_pylist()]
    assert [row["doc_id"] for row in rows] == [d.doc_id for d in docs]
    return rows


def with_lines(batch: pa.RecordBatch, docs: list[Doc], config: DedupConfig) -> pa.RecordBatch:
    urls, texts = [d.url for d in docs[: batch.num_rows]], [d.text for d in docs[: batch.num_rows]]
    pages = pa.record_batch(
        [batch.column("doc_id"), pa.array(urls, pa.string()), pa.array(texts)], ["doc_id", "url", "text"]
    )
    (lines,) = list_lines([pages], LinesConfig(min_line_bytes=config.min_line_bytes))
    return pa.RecordBatch.from_arrays(
        [*batch.columns, *lines.columns[1:]], [*batch.schema.names, *lines.schema.names[1:]]
    )


def resolved_config(store: Store, docs: list[Doc], batches: list[pa.RecordBatch], config: DedupConfig):
    """What the last stage is given, after the stages before it."""
    _, _, of_outcomes = likeness_configs(config)
    return of_outcomes(resource(store, near_shard(store, docs, batches, config)))


def near_shard(
    store: Store, docs: list[Doc], batches: list[pa.RecordBatch], config: DedupConfig, *last: Shard
) -> Shard:
    """What `near` leaves; the first half of the documents is one shard. `last` is what it left before."""
    of_bands, of_near, _ = likeness_configs(config)
    half = len(batches) // 2
    texts = [
        store.write(TEXT, [pa.record_batch([pa.array([d.text for d in part], pa.large_string())], schema=TEXT)])
        for part in (docs[: sum(b.num_rows for b in batches[:half])], docs[sum(b.num_rows for b in batches[:half]) :])
    ]
    segments = [
        batch
        for part in (batches[:half], batches[half:])
        for batch in BANDS_STAGE.transform([b.select(["text_digest", "minhash"]) for b in part], of_bands)
    ]
    index = store.write(BANDS_STAGE.output, INDEX_STAGE.transform(segments, None), compression=None)
    aids = Aids(read=lambda shard, columns: store.read(shard, columns or None), aside=tuple(texts), last=last)
    return store.write(NEAR_STAGE.output, NEAR_STAGE.transform(batches, of_near((resource(store, index),)), aids))


def test_what_is_remembered_of_a_pair_is_of_the_very_texts(tmp_path):
    """Two texts that differ in punctuation alone are one when normalised, and not equally like a third."""
    store, config = Store(tmp_path), DedupConfig()
    text = CHINESE[:100] + "。" + CHINESE[100:200]
    first, other = doc("b", text, fetched_at=2), doc("c", text + "，完了。", fetched_at=3)
    earlier = doc("a", text.replace("。", "！……"), fetched_at=1)
    assert earlier.text_digest == first.text_digest
    before = near_shard(store, [first, other], [batch_of([first, other])], config)
    docs = [earlier, first, other]
    fresh = near_shard(store, docs, [batch_of(docs)], config)
    assert fresh.num_rows == before.num_rows == 1
    assert near_shard(store, docs, [batch_of(docs)], config, before) == fresh != before
    assert near_shard(store, docs, [batch_of(docs)], config, fresh) == fresh


def resource(store: Store, shard) -> Resource:
    return Resource(shard.digest, str(store.shard_path(shard.digest)))


def verdicts(docs: list[Doc], **config) -> dict[str, tuple]:
    rows = outcomes(docs, **config)
    return {row["doc_id"]: (row["decision"], row["reason"], row["duplicate_of"]) for row in rows}


KEEP = ("keep", None, None)
WORDS = [f"w{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(2000)]
ENGLISH = " ".join(WORDS[:300])
ENGLISH_NEAR = " ".join([*WORDS[:297], "entirely", "other", "end"])
CHINESE = "".join(chr(0x4E00 + i) for i in range(400))
CHINESE_NEAR = CHINESE[:395] + "的了是不在"


@pytest.mark.parametrize(("text", "near"), [(ENGLISH, ENGLISH_NEAR), (CHINESE, CHINESE_NEAR)])
def test_first_seen_stays_and_the_rest_names_it(text, near):
    docs = [
        doc("d", near, fetched_at=4),
        doc("c", text.upper() + "!", fetched_at=3),
        doc("b", text, fetched_at=2),
        doc("a", "又一篇 another page altogether, about nothing of the kind", fetched_at=5),
    ]
    rows = {row["doc_id"]: row for row in outcomes(docs)}
    assert verdicts(docs) == {
        "a": KEEP,
        "b": KEEP,
        "c": ("drop", "duplicate_exact", "b"),
        "d": ("drop", "duplicate_near", "b"),
    }
    assert rows["c"]["similarity"] == 1
    assert 0.9 < rows["d"]["similarity"] < 1
    assert rows["b"]["similarity"] is None


def test_a_page_without_a_fetch_time_was_seen_first_and_ties_go_by_doc_id():
    docs = [doc("b", ENGLISH), doc("a", ENGLISH), doc("0", ENGLISH, fetched_at=1)]
    assert verdicts(docs) == {
        "a": KEEP,
        "b": ("drop", "duplicate_exact", "a"),
        "0": ("drop", "duplicate_exact", "a"),
    }


def test_one_document_in_two_sources_stays_once():
    rows = outcomes([doc("a", ENGLISH), doc("a", ENGLISH), doc("b", CHINESE)])
    assert [row["decision"] for row in rows] == ["keep", "drop", "keep"]
    assert rows[1]["duplicate_of"] == "a"


def test_what_the_policy_dropped_suppresses_nothing():
    docs = [doc("a", ENGLISH, decision="drop", reason="gopher_short", fetched_at=1), doc("b", ENGLISH, fetched_at=2)]
    assert verdicts(docs) == {"a": ("drop", "gopher_short", None), "b": KEEP}


@pytest.mark.parametrize("decision", [None, "maybe"])
def test_a_missing_decision_never_means_keep(decision):
    with pytest.raises(SchemaError, match="wanted keep or drop"):
        outcomes([doc("a", ENGLISH), doc("b", CHINESE, decision=decision)])


def test_short_texts_are_neither_collapsed_nor_ignored():
    docs = [doc("a", "好"), doc("b", "Hello"), doc("c", "hello!"), doc("d", "!!!"), doc("e", "???"), doc("f", "!!!")]
    assert {name: verdict[1] for name, verdict in verdicts(docs).items()} == {
        "a": None,
        "b": None,
        "c": "duplicate_exact",
        "d": None,
        "e": None,
        "f": "duplicate_exact",
    }


U = "https://example.org/page"


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        # (fetched_at, text) of a, b, c -> reasons, and what each names
        ([(1, "x"), (2, "y"), (3, "z")], {"a": ("superseded", "c"), "b": ("superseded", "c"), "c": (None, None)}),
        ([(3, "x"), (2, "y"), (1, "z")], {"a": (None, None), "b": ("superseded", "a"), "c": ("superseded", "a")}),
        ([(1, "x"), (2, "x"), (3, "y")], {"a": ("superseded", "c"), "b": ("superseded", "c"), "c": (None, None)}),
        ([(1, "y"), (2, "x"), (3, "x")], {"a": ("superseded", "c"), "b": (None, None), "c": ("duplicate_exact", "b")}),
        ([(1, "x"), (2, "y"), (3, "x")], {"a": ("superseded", "c"), "b": ("superseded", "c"), "c": (None, None)}),
        ([(1, "x"), (1, "y"), (None, "z")], {"a": (None, None), "b": (None, None), "c": ("superseded", "b")}),
    ],
)
def test_a_newer_version_supersedes(versions, expected):
    texts = {
        "x": "the first text of the page",
        "y": "又是另外一个版本的文字",
        "z": "a third one that differs once more",
    }
    docs = [doc(name, texts[text], url=U, fetched_at=day) for name, (day, text) in zip("abc", versions, strict=True)]
    assert {name: verdict[1:] for name, verdict in verdicts(docs).items()} == expected
    assert all(v[1] != "superseded" for v in verdicts(docs, superseded=False).values())


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
@pytest.mark.parametrize("reason", WITHDRAWING_REASONS)
def test_a_page_that_is_withdrawn_does_not_live_on_in_an_older_version(reason, text):
    docs = [doc("a", ENGLISH, url=U, fetched_at=1), doc("b", text, url=U, fetched_at=2, decision="drop", reason=reason)]
    for config in ({}, {"superseded": False}, {"superseded": False, "exact": False, "near": False}):
        assert verdicts(docs, **config)["a"] == ("drop", "withdrawn", "b")
        assert verdicts(docs[::-1], **config)["a"] == ("drop", "withdrawn", "b")
    assert verdicts(docs, withdrawn=False)["a"] == ("drop", "superseded", "b")
    assert verdicts(docs, withdrawn=False, superseded=False)["a"] == KEEP


def test_every_rule_of_compliance_withdraws():
    strict = ComplianceRules(
        unknown_rights="drop",
        allowed_licenses=("CC0-1.0",),
        allowed_license_classes=("open",),
        max_keywords_per_1000_words={"x": 1},
    )
    block_lists = (BlockList(name="x", kind=BlockListKind.DOMAINS, file=Resource("0", "x")),)
    policy = PolicyConfig(compliance=strict, block_lists=block_lists)
    rules = {rule.name for rule in rules_for("en", policy) if rule.group == "compliance"}
    of_a_fetch = {"robots_disallowed", "reserved", "http_404", "http_410", "http_451"}
    assert set(WITHDRAWING_REASONS) == rules | of_a_fetch


@pytest.mark.parametrize("reason", ["gopher_short_doc", "not_text"])
def test_a_page_that_the_policy_drops_supersedes_only(reason):
    docs = [
        doc("a", ENGLISH, url=U, fetched_at=1),
        doc("b", CHINESE, url=U, fetched_at=2, decision="drop", reason=reason),
    ]
    assert verdicts(docs)["a"] == ("drop", "superseded", "b")
    assert verdicts(docs, superseded=False)["a"] == KEEP


@pytest.mark.parametrize(
    ("history", "superseded", "expected"),
    [
        # (fetched_at, keep or reason) of a, b, c, d -> reasons of those that the policy kept
        ([(1, "keep"), (2, "reserved"), (3, "keep")], True, {"a": "superseded", "c": None}),
        ([(1, "keep"), (2, "reserved"), (3, "keep")], False, {"a": None, "c": None}),
        ([(1, "keep"), (3, "reserved"), (2, "keep")], False, {"a": "withdrawn", "c": "withdrawn"}),
        ([(1, "keep"), (2, "http_404"), (3, "http_503")], True, {"a": "withdrawn"}),
        ([(1, "keep"), (2, "http_404"), (3, "gopher_short_doc")], False, {"a": "withdrawn"}),
        ([(1, "keep"), (2, "rights_disallow"), (3, "empty")], True, {"a": "withdrawn"}),
        ([(2, "keep"), (2, "robots_disallowed")], False, {"a": "withdrawn"}),
        ([(2, "robots_disallowed"), (2, "keep")], False, {"b": "withdrawn"}),
        ([(None, "keep"), (1, "robots_disallowed")], False, {"a": "withdrawn"}),
        ([(1, "keep"), (None, "robots_disallowed")], False, {"a": None}),
        ([(1, "reserved"), (2, "keep")], False, {"b": None}),
        ([(1, "keep"), (2, "reserved"), (3, "keep"), (4, "http_410")], True, {"a": "withdrawn", "c": "withdrawn"}),
    ],
)
def test_what_was_withdrawn_comes_back_only_when_it_is_kept_again(history, superseded, expected):
    texts = [ENGLISH, "", CHINESE, ""]
    docs = [
        doc(name, text, url=U, fetched_at=day, **({} if fate == "keep" else {"decision": "drop", "reason": fate}))
        for name, text, (day, fate) in zip("abcd", texts, history, strict=False)
    ]
    for order in (docs, docs[::-1]):
        found = verdicts(order, superseded=superseded)
        assert {name: found[name][1] for name in expected} == expected


def test_a_withdrawal_reaches_no_other_url_and_no_page_without_one():
    docs = [
        doc("a", ENGLISH, url=U, fetched_at=1),
        doc("b", CHINESE, fetched_at=1),
        doc("c", "", url=U + "/", fetched_at=2, decision="drop", reason="reserved"),
        doc("d", "", fetched_at=2, decision="drop", reason="http_404"),
    ]
    assert {name: verdict[1] for name, verdict in verdicts(docs).items()} == {
        "a": None,
        "b": None,
        "c": "reserved",
        "d": "http_404",
    }


@pytest.mark.parametrize("reason", ["http_503", "http_429", "warc_truncated", "bad_encoding"])
def test_a_fetch_that_failed_supersedes_nothing(reason):
    docs = [
        doc("a", ENGLISH, url=U, fetched_at=1),
        doc("b", CHINESE, url=U, fetched_at=2, decision="drop", reason=reason),
    ]
    assert verdicts(docs)["a"] == KEEP


def differing(text: str, start: int, count: int) -> str:
    words = text.split()
    return " ".join([*words[:start], *(f"{word}x" for word in words[start : start + count]), *words[start + count :]])


A = " ".join(WORDS[:200])


def test_likeness_is_not_chained():
    """B is like A, C is like B but not like A: C stays."""
    b = differing(A, 184, 16)
    docs = [doc("a", A), doc("b", b), doc("c", differing(b, 0, 16))]
    assert verdicts(docs) == {"a": KEEP, "b": ("drop", "duplicate_near", "a"), "c": KEEP}


def test_of_equally_similar_documents_the_earliest_is_named():
    texts = {"b": A, "a": differing(differing(A, 0, 16), 184, 16), "c": differing(A, 0, 16)}
    docs = [doc(name, texts[name], fetched_at=day) for day, name in enumerate("bac")]
    for order in (docs, docs[::-1]):
        assert verdicts(order) == {"b": KEEP, "a": KEEP, "c": ("drop", "duplicate_near", "b")}


def test_where_near_duplicates_stay_a_held_out_document_like_a_training_one_goes_to_train():
    """C is more like A than like B, and A and B, unlike each other, lie in different splits before it comes."""
    c = differing(A, 0, 17)
    docs = [doc("a", A), doc("b", differing(c, 180, 20)), doc("c", c)]
    options = {"near": False, "validation_ratio": 0.5, "test_ratio": 0}
    seeds = [
        seed
        for seed in range(20)
        if [row["split"] for row in outcomes(docs[:2], split_seed=seed, **options)] == ["train", "validation"]
    ]
    assert seeds
    for seed in seeds:
        assert [row["split"] for row in outcomes(docs, split_seed=seed, **options)] == ["train"] * 3


def test_one_template_filled_in_differently_is_no_duplicate():
    """A true 0.73, of which the digits are a tenth: what signatures, which fold them, take for 0.94."""
    rows = [
        " ".join(f"{WORDS[i]} {WORDS[i + 1]} {WORDS[i + 2]} port {n + i} end" for i in range(0, 600, 12))
        for n in (0, 1)
    ]
    assert verdicts([doc("a", rows[0]), doc("b", rows[1])]) == {"a": KEEP, "b": KEEP}
    assert sum(x == y for x, y in zip(minhash(rows[0]), minhash(rows[1]), strict=True)) == 112


def test_traditional_and_simplified_chinese_are_one_text():
    simplified = "我们说过这个发现对国际贸易关系的影响还没有结论，学者们认为应当继续观察。" * 3
    traditional = "我們說過這個發現對國際貿易關係的影響還沒有結論，學者們認為應當繼續觀察。" * 3
    start = "".join(chr(0x4E00 + 7 * i) for i in range(150))
    assert verdicts([doc("a", simplified), doc("b", traditional)])["b"] == ("drop", "duplicate_exact", "a")
    assert verdicts([doc("a", simplified + start), doc("b", traditional + start + "完")])["b"] == (
        "drop",
        "duplicate_near",
        "a",
    )


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"min_similarity": 0.0}, "min_similarity 0.0"),
        ({"min_similarity": 1.1}, "min_similarity 1.1"),
        ({"num_bands": 23}, "at most 112"),
        ({"validation_ratio": 0.5, "test_ratio": 0.5}, "sum below 1"),
        ({"test_ratio": -0.1}, "test_ratio -0.1"),
        ({"num_bands": 0}, "at least one of each"),
        ({"rows_per_band": -1}, "at least one of each"),
        ({"validation_ratio": 1.0}, "validation_ratio 1.0"),
        ({"validation_ratio": -0.1}, "validation_ratio -0.1"),
    ],
)
def test_impossible_configs(config, match):
    with pytest.raises(ConfigError, match=match):
        DedupConfig(**config)


def test_an_empty_corpus():
    assert outcomes([]) == []
    assert outcomes([], batch_size=1) == []
    assert all(row["decision"] == "drop" for row in outcomes([doc("a", ENGLISH, decision="drop", reason="r")]))


def test_the_declaration_reads_what_the_transform_needs():
    assert {name for schema in NEAR_STAGE.inputs for name in schema.names} == set(INPUT.names)
    assert {name for schema in DEDUP.inputs for name in schema.names} == set(INPUT.names) - {"minhash"}


LICENCE = "This page is published under a licence that allows nothing at all, says its host."
CHINESE_LICENCE = "本站所有文章均由编辑部整理，未经书面许可，任何单位和个人不得转载、摘编或以其他方式使用。"


def lined(name: str, day: int, *lines: str, host: str = "a.example") -> Doc:
    own = f"{' '.join(WORDS[20 * day : 20 * day + 19])} and nothing else at all."
    return doc(name, "\n".join([own, *lines]), url=f"https://{host}/{name}", fetched_at=day)


def cut(docs: list[Doc], **config) -> dict[str, list[tuple[int, str]]]:
    rows = outcomes(docs, **config)
    assert all(row["decision"] == "keep" or not row["cut_lines"] for row in rows)
    return {row["doc_id"]: [(each["line"], each["first_shown_by"]) for each in row["cut_lines"]] for row in rows}


@pytest.mark.parametrize("line", [LICENCE, CHINESE_LICENCE])
def test_the_first_documents_of_a_host_keep_a_line_and_later_ones_lose_it(line):
    docs = [lined(name, day, line) for day, name in enumerate("abcd")]
    docs += [lined("e", 5, line, "short", line), lined("f", 6, line, host="b.example"), lined("g", 7, "short", "short")]
    expected = {"a": [], "b": [], "c": [(1, "a")], "d": [(1, "a")], "e": [(1, "a"), (3, "a")], "f": [], "g": []}
    for order in (docs, docs[::-1]):
        assert cut(order, max_line_repeats=2) == expected
    assert not any(cut(docs, max_line_repeats=None).values())
    assert not any(cut(docs).values()), "ten may show it"


def test_what_is_dropped_shows_nothing():
    docs = [
        Doc(**{**vars(lined("a", 0, LICENCE)), "decision": "drop", "reason": "rule"}),
        lined("b", 1, LICENCE),
        lined("c", 2, LICENCE),
    ]
    assert cut(docs, max_line_repeats=1) == {"a": [], "b": [], "c": [(1, "b")]}


def test_a_document_of_nothing_but_repeated_lines_goes():
    lines = [f"{LICENCE} {number}" for number in "abcdefghij"]
    docs = [
        lined("a", 0, *lines),
        doc("b", "\n".join(["Yes.", *lines, "No."]), url="https://a.example/b", fetched_at=1),
    ]
    assert {name: verdict[1] for name, verdict in verdicts(docs, max_line_repeats=1, near=False).items()} == {
        "a": None,
        "b": "repeated_lines",
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=4), st.integers(0, 1), st.integers(0, 3)), max_size=10),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_lines_are_cut_as_the_naive_reference_cuts_them(drawn, max_repeats, rng):
    hosts = ("a.example", "b.example")
    docs = [
        doc(f"{number:02}", "\n".join([" ".join(WORDS[40 * number : 40 * number + 39]), *(f"{LICENCE} {line}" for line in lines)]),
            url=f"https://{hosts[host]}/{number}", fetched_at=day)
        for number, (lines, host, day) in enumerate(drawn)
    ]  # fmt: skip
    shown: dict[tuple[str, str], list[str]] = {}
    expected = {}
    for d in sorted(docs, key=lambda d: (d.fetched_at, d.doc_id)):
        expected[d.doc_id] = []
        for number, line in enumerate(d.text.split("\n")):
            by = shown.setdefault((d.url[:17], line), [])
            if d.doc_id not in by:
                by.append(d.doc_id)
            if by.index(d.doc_id) >= max_repeats:
                expected[d.doc_id].append((number, by[0]))
    wanted = {"max_line_repeats": max_repeats, "near": False, "min_kept_line_ratio": 0.0}
    assert cut(rng.sample(docs, len(docs)), **wanted) == expected


# --- against a naive reference -------------------------------------------------------------------


@functools.cache
def text_of(family: int, variant: int) -> str:
    """Variants of a family share 60 to 100 % of their shingles."""
    rng = random.Random(1000 * family + variant)
    count = rng.randrange(12) if variant else 0
    return differing(" ".join(WORDS[100 * family : 100 * family + 60]), rng.randrange(60 - count), count)


documents = st.builds(
    lambda text, url, day, decision: Doc(
        doc_id="",
        text=text_of(*text),
        url=url,
        fetched_at=day,
        decision="keep" if decision == "keep" else "drop",
        reason=None if decision == "keep" else decision,
    ),
    st.tuples(st.integers(0, 2), st.integers(0, 6)),
    st.sampled_from([None, None, "https://a/", "https://b/"]),
    st.sampled_from([None, 1, 2, 3, 4]),
    st.sampled_from(["keep", "keep", "keep", "rule", "reserved", "http_404", "http_503"]),
)
corpora = st.lists(documents, max_size=14).map(
    lambda docs: [Doc(**{**vars(d), "doc_id": hashlib.sha256(bytes([i])).hexdigest()[:8]}) for i, d in enumerate(docs)]
)
switches = st.fixed_dictionaries({name: st.booleans() for name in ("exact", "near", "superseded", "withdrawn")})


def likeness(a: Doc, b: Doc) -> float:
    return np.float32(compare(shingle_sets(a.text), shingle_sets(b.text)).jaccard)


def are_like(a: Doc, b: Doc) -> bool:
    agreement = np.array(a.minhash) == np.array(b.minhash)
    return bool(agreement[:110].reshape(22, 5).all(axis=1).any() and likeness(a, b) >= np.float32(0.8))


def naive(docs: list[Doc], *, exact: bool, near: bool, superseded: bool, withdrawn: bool) -> dict[str, tuple]:
    day = {d.doc_id: d.fetched_at or 0 for d in docs}
    ranked = sorted((d for d in docs if d.decision == "keep"), key=lambda d: (day[d.doc_id], d.doc_id))
    result = {d.doc_id: ("drop", d.reason, None) for d in docs if d.decision == "drop"}
    staying: list[Doc] = []
    everything = sorted(docs, key=lambda d: (day[d.doc_id], d.doc_id))
    for d in ranked:
        versions = [v for v in everything if d.url and v.url == d.url and v.reason != "http_503"]
        gone = [v for v in versions if v.reason in ("reserved", "http_404")]
        last_kept = max((day[v.doc_id] for v in versions if v.decision == "keep"), default=-1)
        if withdrawn and gone and day[gone[-1].doc_id] >= last_kept:
            result[d.doc_id] = ("drop", "withdrawn", gone[-1].doc_id)
            continue
        is_dropped = bool(versions) and versions[-1].decision == "drop"
        later = [v for v in versions if day[v.doc_id] > day[d.doc_id]]
        if superseded and later and (is_dropped or any(v.text_digest != d.text_digest for v in later)):
            result[d.doc_id] = ("drop", "superseded", versions[-1].doc_id)
            continue
        same = [s for s in staying if s.text_digest == d.text_digest]
        like = [s for s in staying if are_like(s, d)]
        best = max(like, key=lambda s: likeness(s, d), default=None)
        if exact and same:
            result[d.doc_id] = ("drop", "duplicate_exact", same[0].doc_id)
        elif near and best:
            result[d.doc_id] = ("drop", "duplicate_near", best.doc_id)
        else:
            result[d.doc_id] = KEEP
            staying.append(d)
    return result


@settings(max_examples=150, deadline=None)
@given(corpora, switches)
def test_it_does_what_the_naive_reference_does(docs, config):
    assert verdicts(docs, **config) == naive(docs, **config)


@settings(max_examples=60, deadline=None)
@given(corpora, switches, st.randoms(use_true_random=False), st.integers(1, 5))
def test_neither_order_nor_batches_matter(docs, config, rng, batch_size):
    shuffled = rng.sample(docs, len(docs))
    by_id = {row["doc_id"]: row for row in outcomes(docs, **config)}
    assert {row["doc_id"]: row for row in outcomes(shuffled, batch_size=batch_size, **config)} == by_id


@settings(max_examples=60, deadline=None)
@given(corpora, corpora, switches)
def test_later_documents_change_no_earlier_verdict(docs, later, config):
    """Unless they are newer versions of a page, which these are not."""
    later = [Doc(**{**vars(d), "doc_id": "x" + d.doc_id, "fetched_at": 9, "url": None}) for d in later]
    before, after = verdicts(docs, **config), verdicts([*later, *docs], **config)
    assert {name: after[name] for name in before} == before


@settings(max_examples=100, deadline=None)
@given(corpora, switches, st.integers(0, 14))
def test_nothing_older_than_a_withdrawal_stays_until_the_page_is_kept_again(docs, config, length):
    """Whatever came before or between: of each URL, what was last said counts."""
    config = {**config, "withdrawn": True}
    for known in (docs[:length], docs):
        found = verdicts(known, **config)
        for d in known:
            said = [v for v in known if v.url and v.url == d.url and v.reason in (None, "reserved", "http_404")]
            last = max((v.fetched_at or 0 for v in said), default=0)
            if any(v.reason is not None and (v.fetched_at or 0) == last for v in said):
                assert found[d.doc_id][0] == "drop"


@settings(max_examples=100, deadline=None)
@given(corpora, switches, st.sampled_from([0.1, 0.5, 0.9]))
def test_no_validation_document_is_like_a_training_one(docs, config, ratio):
    split = {
        row["doc_id"]: row["split"]
        for row in outcomes(docs, validation_ratio=ratio, **config)
        if row["decision"] == "keep"
    }
    kept = [d for d in docs if d.doc_id in split]
    for a in kept:
        for b in kept:
            if split[a.doc_id] != split[b.doc_id]:
                assert a.text_digest != b.text_digest
                assert not are_like(a, b)


@settings(max_examples=40, deadline=None)
@given(corpora, corpora, switches)
def test_growth_moves_nobody_and_puts_nothing_held_out_beside_its_like(docs, later, config):
    """By brute force, every kept pair of every two splits, before and after the corpus has grown."""
    later = [Doc(**{**vars(d), "doc_id": "x" + d.doc_id, "fetched_at": 9, "url": None}) for d in later]
    others = [doc(f"o{number}", many_texts(500 + number, 0), fetched_at=0) for number in range(40)]  # no split is empty
    ratios = {"validation_ratio": 0.2, "test_ratio": 0.2}
    before = {row["doc_id"]: row for row in outcomes([*docs, *others], **ratios, **config)}
    after = {row["doc_id"]: row for row in outcomes([*later, *docs, *others], **ratios, **config)}
    assert {row["split"] for row in before.values()} == {"train", "validation", "test"}
    if config["near"]:
        stay = [name for name, row in before.items() if row["decision"] == "keep"]
        assert [after[name]["split"] for name in stay] == [before[name]["split"] for name in stay]
    kept = [d for d in [*later, *docs] if after[d.doc_id]["decision"] == "keep"]
    for a in kept:
        for b in kept:
            if after[a.doc_id]["split"] != after[b.doc_id]["split"]:
                assert likeness(a, b) < np.float32(0.8)


def test_the_switches_do_not_change_the_split_of_what_stays():
    docs = many_documents(200)
    on = {row["doc_id"]: row["split"] for row in outcomes(docs, 50, validation_ratio=0.3)}
    off = {row["doc_id"]: row["split"] for row in outcomes(docs, 50, validation_ratio=0.3, exact=False, near=False)}
    assert on == off


def many_documents(count: int) -> list[Doc]:
    rng = random.Random(0)
    drawn = [(rng.randrange(10, 10 + count), rng.randrange(3)) for _ in range(count)]
    return [Doc(f"{i:04d}", many_texts(family, variant), None, i) for i, (family, variant) in enumerate(drawn)]


@functools.cache
def many_texts(family: int, variant: int) -> str:
    rng = random.Random(family)
    return differing(" ".join(rng.sample(WORDS, 60)), 5 * variant, 2 * variant)


def test_a_document_never_moves_between_splits_as_the_corpus_grows():
    docs = many_documents(400)
    final = [row["split"] for row in outcomes(docs, 50, validation_ratio=0.2)]
    assert 0.1 < final.count("validation") / 400 < 0.3
    for size in (50, 100, 200):
        assert [row["split"] for row in outcomes(docs[:size], 50, validation_ratio=0.2)] == final[:size]
    other = [row["split"] for row in outcomes(docs, 50, validation_ratio=0.2, split_seed=1)]
    assert other != final


def test_both_splits_have_a_document_where_there_are_two():
    pair = [doc("a", ENGLISH), doc("b", CHINESE)]

    def splits(docs, **config):
        return sorted(row["split"] for row in outcomes(docs, **{"test_ratio": 0, **config}))

    for ratio in (1e-9, 1 - 1e-9):
        assert splits(pair, validation_ratio=ratio) == ["train", "validation"]
        assert splits(pair, validation_ratio=0, test_ratio=ratio) == ["test", "train"]
    assert splits(pair, validation_ratio=0.0) == ["train", "train"]
    assert splits(pair[:1], validation_ratio=1e-9) == ["train"]
    assert splits(pair[:1], validation_ratio=1 - 1e-9) == ["train"]
    assert splits([*pair, doc("c", A)], validation_ratio=1e-9, test_ratio=1e-9) == ["test", "train", "validation"]
    twins = [doc("a", ENGLISH), doc("b", ENGLISH)]
    assert splits(twins, exact=False, near=False, validation_ratio=1e-9) == ["train"] * 2


TEXT_REFS = st.integers(0, 2**64 - 1) | st.integers(2**63, 2**63 + 9) | st.sampled_from([0, 1, 2**64 - 1])


@given(st.lists(st.tuples(st.integers(0, 5), TEXT_REFS), max_size=40))
def test_texts_of_a_band_are_sorted_also_where_they_begin_alike(entries):
    entries.sort(key=lambda entry: entry[0])
    keys, texts = (np.array([entry[place] for entry in entries], np.uint64) for place in (0, 1))
    assert list(zip(keys.tolist(), _sorted_within(keys, texts).tolist(), strict=True)) == sorted(entries)


def test_the_reference_of_a_text_is_the_beginning_of_its_digest():
    digests = [bytes([number] * 8 + [255] * 8) for number in range(5)]
    column = pa.array([None, *digests], pa.binary(16))
    assert text_refs(column.slice(2)).tobytes() == b"".join(digest[:8] for digest in digests[1:])
    assert len(text_refs(pa.array([], pa.binary(16)))) == 0
    with pytest.raises(ValueError, match="got 1 texts without a digest"):
        text_refs(column)
