"""Sampling for review: a function of seed and ids, sheets that come back, known figures of Wilson and Cohen."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError, InputError
from pipelines.review_sample import (
    COLUMNS,
    Judgement,
    ReviewItem,
    cohens_kappa,
    draw,
    read_sheet,
    score,
    wilson_interval,
    write_sheet,
)

IDS = st.sets(st.text("0123456789abcdef", min_size=1, max_size=6), max_size=60)


@given(IDS, st.integers(1, 70), st.integers(0, 3), st.randoms())
def test_a_sample_is_a_function_of_seed_and_set(doc_ids, num_items, seed, random):
    ordered = sorted(doc_ids)
    drawn = draw(ordered, num_items, seed)
    shuffled = [*ordered, *ordered[:5]]
    random.shuffle(shuffled)
    assert draw(shuffled, num_items, seed) == drawn
    assert len(drawn) == len(set(drawn)) == min(num_items, len(doc_ids))
    assert set(drawn) <= doc_ids
    assert draw(ordered, num_items + 1, seed)[: len(drawn)] == drawn


def test_samples_are_spread_and_seeds_differ():
    doc_ids = [f"{idx:06}" for idx in range(10_000)]
    drawn = draw(doc_ids, 1000, 7)
    assert 400 < sum(int(doc_id) < 5000 for doc_id in drawn) < 600
    assert len(set(drawn) & set(draw(doc_ids, 1000, 8))) < 200
    with pytest.raises(ConfigError, match=r"^got 0 items"):
        draw(doc_ids, 0)


@pytest.mark.parametrize(
    ("passed", "trials", "expected"),
    [
        # Newcombe 1998 (Statistics in Medicine 17), table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (0.8389, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_interval(passed, trials, expected):
    assert wilson_interval(passed, trials) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("table", "kappa"),  # yes/yes, yes/no, no/yes, no/no
    [((20, 5, 10, 15), 0.4), ((45, 15, 25, 15), 0.1304348), ((10, 0, 0, 10), 1.0), ((0, 5, 5, 0), -1.0)],
)
def test_cohens_kappa(table, kappa):
    pairs = [
        pair
        for pair, num in zip([(True, True), (True, False), (False, True), (False, False)], table, strict=True)
        for _ in range(num)
    ]
    assert cohens_kappa(pairs) == pytest.approx(kappa)
    assert cohens_kappa([(True, True)] * 3) is None
    assert cohens_kappa([]) is None


def fill(path: Path, verdicts: list[str], category: str = "A.1.7") -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row, verdict in zip(rows, verdicts, strict=True):
            writer.writerow(row | {"verdict": verdict, "category": "" if verdict in ("pass", "合格") else category})


ITEMS = [
    ReviewItem(doc_id="a", url="https://a.example/", text='An ordinary page,\nwith "quotes" and\x00 a zero.'),
    ReviewItem(doc_id="b", url=None, text='=HYPERLINK("http://evil")'),
    ReviewItem(doc_id="c", url="https://例子.cn/", text="一个普通的网页，" * 1000),
]


def test_sheets_come_back(tmp_path):
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    for path in (first, second):
        write_sheet(path, ITEMS)
    with first.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["doc_id"] for row in rows] == ["a", "b", "c"]
    assert rows[1]["beginning"].startswith("'=")
    assert len(rows[2]["beginning"]) == 2000
    with pytest.raises(InputError, match=r"1\.csv, line .*wanted pass or fail"):
        read_sheet(first)
    fill(first, ["pass", "FAIL", "合格"])
    fill(second, ["pass", "不合格", "fail"], category="A.2.1")
    found = score(read_sheet(first), read_sheet(second), 0.05)
    assert (found.num_items, found.num_passed, found.num_disagreed, found.disagreed) == (3, 1, 1, ("c",))
    assert found.failed == {"A.1.7": 1, "A.2.1": 1}
    assert found.is_accepted
    assert not found.is_large_enough
    assert found.kappa == pytest.approx(0.4)


def judged(num_items: int, num_failed: int) -> dict[str, Judgement]:
    return {str(idx): Judgement(passed=idx >= num_failed, category="") for idx in range(num_items)}


@pytest.mark.parametrize(("num_failed", "is_accepted"), [(0, True), (135, True), (136, False), (160, False)])
def test_the_verdict_is_on_the_lower_bound(num_failed, is_accepted):
    found = score(judged(4000, num_failed), judged(4000, num_failed))
    assert found.is_accepted is is_accepted
    assert found.is_large_enough
    assert found.num_passed == 4000 - num_failed


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a,b\n1,2\n",
        "doc_id,verdict,category\nx,maybe,\n",
        "doc_id,verdict,category\nx,pass,\nx,pass,\n",
        'doc_id,verdict,category\nx,"pass\n',
        "doc_id,verdict,category\nx\n",
    ],
)
def test_what_is_no_sheet_is_refused(tmp_path, content):
    path = tmp_path / "bad.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.csv") as caught:
        read_sheet(path)
    assert "\n" not in str(caught.value)


def test_sheets_of_different_documents_are_refused():
    with pytest.raises(InputError, match=r"1 of them in one sheet only \('9'\)"):
        score(judged(10, 0), judged(9, 0))
    with pytest.raises(InputError, match="got sheets of 0"):
        score({}, {})
    with pytest.raises(ConfigError):
        score(judged(3, 0), judged(3, 0), 0)
