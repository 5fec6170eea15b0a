"""Libraries of listed words: both formats, errors with their lines, the schema of 31 risks and its coverage."""

from datetime import date
from pathlib import Path

import pytest

from pipelines.digest import digest_file
from pipelines.errors import ConfigError
from pipelines.signals.keyword_library import Match, Term, coverage, read_schema, read_terms
from pipelines.signals.keywords import Hit, keyword_counter, keyword_finder, term_counter
from pipelines.stage import Resource

HEADER = "category\tterm\tmatch\tsource\tadded_on\n"


def resource(path: Path, content: str) -> Resource:
    path.write_text(content, encoding="utf-8")
    return Resource(digest_file(path), str(path))


def test_a_library_is_read_from_tabs_and_from_csv(tmp_path):
    rows = [
        ("A.1.6", "Some  Word", "auto", "ours, 2025", "2026-01-31"),
        ("A.2.5", "違禁·詞", "part", "", ""),
        ("A.2.5", "违禁词典", "allow", "x", ""),
    ]
    tabs = "\ufeff# comment\n" + HEADER + "\n" + "".join("\t".join(row) + "\n" for row in rows)
    commas = HEADER.replace("\t", ",") + "".join(",".join(f'"{field}"' for field in row) + "\r\n" for row in rows)
    expected = (
        Term(category="A.1.6", term="some word", source="ours, 2025", added_on=date(2026, 1, 31)),
        Term(category="A.2.5", term="违禁词", match=Match.PART),
        Term(category="A.2.5", term="违禁词典", match=Match.ALLOW, source="x"),
    )
    for content in (tabs, commas):
        path = tmp_path / "library.txt"
        path.write_text(content, encoding="utf-8")
        assert read_terms(path) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "a\tx\tauto\t\t\nb\ty\tauto\n", r"in line 3, wanted 5 columns"),
        (HEADER + "\n# c\na b\tx\tauto\t\t\n", r"'a b' in line 4, wanted a category"),
        (HEADER + "a\t \tauto\t\t\n", r"in line 2, wanted a term"),
        (HEADER + "a\t\u200b\tauto\t\t\n", r"in line 2, wanted a term"),
        (HEADER + f"a\t{'长' * 201}\tauto\t\t\n", r"in line 2, wanted a term"),
        (HEADER + "a\tx\tfuzzy\t\t\n", r"'fuzzy' in line 2, wanted match auto, part, allow"),
        (HEADER + "*\tx\tauto\t\t\n", r"'\*' in line 2"),
        (HEADER + "a\tx\tauto\t\t20260131\n", r"'20260131' in line 2, wanted added_on"),
        (HEADER + "a\tx\tauto\t\t2026-02-30\n", r"in line 2, wanted added_on"),
        (HEADER.replace("\t", ",") + 'a,"x,auto,,\n', r"in line 2"),
        ("category\tterm\nx\ty\n", r"without a category"),
        ("x\ty\n", r"without a category"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        read_terms(path)
    assert str(caught.value).startswith("got word list bad.txt ")
    assert "\n" not in str(caught.value)


def test_match_modes_and_contexts(tmp_path):
    content = HEADER + "c\tban\tauto\t\t\nc\ttox\tpart\t\t\nc\t性\tauto\t\t\nc\t成人\tauto\t\t\nd\t习\tauto\t\t\n"
    content += "c\tban the bomb\tallow\t\t\nd\t学习\tallow\t\t\n"
    count = keyword_counter((resource(tmp_path / "l.tsv", content),))
    assert count("A ban, a band, intoxicated, detoxes.") == {"c": 3}
    assert count("Ban the bomb! ban") == {"c": 1}
    # Allowed everywhere: the built-in contexts. Defect: a list of allowed words that knows no category lets too much by.
    assert count("习惯、性别、成人高考") == {}
    assert count("性 成人 习") == {"c": 2, "d": 1}
    assert count("成人高考替考，成人") == {"c": 1}
    assert count("学习。性") == {"c": 1}
    assert count("練習、學習、習") == {"d": 2}


def test_hits_point_into_the_text_as_it_was(tmp_path):
    extra = (
        resource(tmp_path / "l.tsv", HEADER + "c\t违禁词\tauto\t\t\nc\tbad word\tauto\t\t\nd\tbad word\tauto\t\t\n"),
    )
    text = "…… ﬁne，違\u200b·禁 詞！ＢＡＤ word"
    hits = keyword_finder(extra)(text)
    assert [(hit.category, text[hit.start : hit.end]) for hit in hits] == [
        ("c", "違\u200b·禁 詞"),
        ("c", "ＢＡＤ word"),
        ("d", "ＢＡＤ word"),
    ]
    assert keyword_finder(())("") == []
    assert isinstance(hits[0], Hit)


def test_long_texts_are_searched_in_windows(tmp_path, monkeypatch):
    extra = (resource(tmp_path / "l.tsv", HEADER + "c\t违禁词\tauto\t\t\nc\t违禁\tauto\t\t\nc\tban\tauto\t\t\n"),)
    text = "好违禁词 ban违禁女人band违禁词词" * 9
    whole = term_counter(extra)(text)
    assert whole[0] == {"c": 36}
    for size in (1, 2, 3, 7, 50):
        monkeypatch.setattr("pipelines.signals.keywords._WINDOW_NUM_CHARS", size)
        assert term_counter(extra)(text) == whole


def test_the_31_risks_and_what_they_ask_for():
    schema = read_schema()
    groups = [item.category.rpartition(".")[0] for item in schema.categories]
    assert {group: groups.count(group) for group in groups} == {"A.1": 8, "A.2": 9, "A.3": 5, "A.4": 7, "A.5": 2}
    assert {item.min_terms for item in schema.categories if item.category.startswith("A.1.")} == {200}
    assert {item.min_terms for item in schema.categories if item.category.startswith("A.2.")} == {100}
    assert (schema.min_total, all(item.name_zh and item.name_en for item in schema.categories)) == (10_000, True)


def test_coverage_counts_distinct_terms_and_promises_nothing():
    schema = read_schema()
    terms = [
        Term(category=item.category, term=f"{item.category}-{n}")
        for item in schema.categories
        for n in range(item.min_terms)
    ]
    few = coverage(terms, schema)
    assert (few.num_terms, few.is_met) == (8 * 200 + 9 * 100, False)  # each category, but not 10,000
    more = [Term(category="A.5.1", term=f"more {n}", added_on=date(2026, 1, 1 + n % 9)) for n in range(7_500)]
    full = coverage([*terms, *more, *more], schema)
    assert (full.num_terms, full.is_met) == (10_000, True)
    assert next(item for item in full.categories if item.category == "A.5.1").newest == date(2026, 1, 9)
    lacking = coverage([*terms[1:], *more, Term(category="A.1.1", term="x", match=Match.ALLOW)], schema)
    assert (lacking.categories[0].num_missing, lacking.is_met) == (1, False)
    assert coverage([Term(category="mine", term="x")], schema).num_elsewhere == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x\n", "without a first line"),
        ("category\tmin_terms\tname_zh\tname_en\na\tmany\tx\ty\n", "in line 2"),
        ("category\tmin_terms\tname_zh\tname_en\na\t1\tx\ty\na\t1\tx\ty\n", "twice"),
    ],
)
def test_a_schema_of_ones_own_is_checked(tmp_path, content, message):
    path = tmp_path / "schema.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_schema(path)


def test_the_demo_library_is_one():
    folder = Path(read_terms.__code__.co_filename).parent / "lexicons" / "schemas"
    assert {term.category for term in read_terms(folder / "demo.txt")} == {"demo"}
