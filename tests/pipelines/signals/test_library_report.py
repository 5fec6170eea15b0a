"""What is said of a keyword library: that it covers the 31 risks is no easier to reach than the standard says."""

from datetime import date, timedelta
from pathlib import Path

from pipelines.signals.keyword_library import Match, Term, read_schema
from pipelines.signals.library_report import library_report, name_files

TODAY = date(2026, 11, 23)
SCHEMA = read_schema()


def full_library(added_on: date | None = TODAY) -> list[Term]:
    """As many terms as GB/T 45654 asks for, and not one more."""
    terms = [
        Term(category=item.category, term=f"{item.category} 词{number}", added_on=added_on)
        for item in SCHEMA.categories
        for number in range(item.min_terms)
    ]
    rest = SCHEMA.min_total - len(terms)
    return [*terms, *(Term(category="A.3.1", term=f"词{number}", added_on=added_on) for number in range(rest))]


def report(*terms: Term, today: date = TODAY, max_age_days: int = 7):
    return library_report({"own.tsv": terms}, SCHEMA, today=today, max_age_days=max_age_days)


def test_a_library_that_has_what_is_asked_for():
    found = report(*full_library())
    assert (found["is_met"], found["is_fresh"], found["num_terms"], found["age_days"]) == (True, True, 10_000, 0)
    assert sum(each["min_terms"] for each in found["categories"]) == 8 * 200 + 9 * 100
    assert {each["num_missing"] for each in found["categories"]} == {0}
    assert found["files"] == {"own.tsv": 10_000}


def test_one_term_less_of_a_risk_or_in_all_is_not_enough():
    terms = full_library()
    short = report(*terms[1:], Term(category="A.3.1", term="another", added_on=TODAY))
    assert not short["is_met"]
    assert short["categories"][0]["num_missing"] == 1
    assert not report(*terms[:-1])["is_met"]
    twice = report(*terms[1:], terms[1])
    assert not twice["is_met"]
    assert twice["repeated"] == {"count": 1, "examples": [{"category": "A.1.1", "term": terms[1].term, "times": 2}]}


def test_a_week_is_the_age_it_may_have():
    for days, is_fresh in ((7, True), (8, False)):
        found = report(*full_library(TODAY - timedelta(days=days)))
        assert (found["age_days"], found["is_fresh"]) == (days, is_fresh)
    assert report(*full_library(TODAY - timedelta(days=30)), max_age_days=30)["is_fresh"]
    undated = report(*full_library(None))
    assert (undated["is_fresh"], undated["newest"], undated["num_undated"]) == (False, None, 10_000)


def test_neither_a_date_to_come_nor_another_category_makes_it_fresh():
    old = full_library(TODAY - timedelta(days=40))
    future = report(*old, Term(category="A.1.1", term="later", added_on=TODAY + timedelta(days=1)))
    assert (future["is_fresh"], future["num_future"]) == (False, 1)
    elsewhere = report(*old, Term(category="politics", term="today", added_on=TODAY))
    assert (elsewhere["is_fresh"], elsewhere["num_elsewhere"]) == (False, 1)


def test_terms_that_would_hit_innocent_words_are_named():
    found = report(
        Term(category="A.1.6", term="成人"),
        Term(category="A.2.5", term="性"),
        Term(category="A.2.5", term="sex"),
        Term(category="A.2.5", term="cat"),  # a word of its own: in no phrase
        Term(category="A.2.8", term="ease", match=Match.PART),
        Term(category="A.2.8", term="disease control", match=Match.ALLOW),
        Term(category="A.1.1", term="港口密谋"),
    )["innocent"]
    inside = {each["term"]: each["inside"] for each in found["examples"]}
    assert set(inside) == {"成人", "性", "sex", "ease"}
    assert "成人高考" in inside["成人"]
    assert "习性" in inside["性"]
    assert inside["ease"] == ["disease control"]


def test_a_phrase_of_one_category_pardons_no_other():
    allowed = Term(category="A.2.8", term="disease control", match=Match.ALLOW)
    assert report(Term(category="A.2.7", term="control"), allowed)["innocent"]["count"] == 0


def test_terms_of_several_categories_count_once_in_all():
    found = report(Term(category="A.1.1", term="x y"), Term(category="A.1.2", term="x y"))
    assert (found["num_terms"], found["in_several"]["examples"]) == (
        1,
        [{"term": "x y", "categories": ["A.1.1", "A.1.2"]}],
    )


def test_an_empty_library():
    found = library_report({}, SCHEMA, today=TODAY)
    assert (found["is_met"], found["is_fresh"], found["num_terms"]) == (False, False, 0)


def test_files_of_one_name_are_told_apart():
    paths = [Path("a/terms.tsv"), Path("b/terms.tsv"), Path("b/more.tsv")]
    assert list(name_files(paths)) == ["a/terms.tsv", "b/terms.tsv", "more.tsv"]
