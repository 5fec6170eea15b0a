"""What a person who keeps a keyword library must know of it: coverage, age, repeated terms, and terms that mean other things.

GB/T 45654-2025 asks for terms of each risk, and for an update every week: `is_met` and `is_fresh` say whether that holds.
Repeated terms and innocent words are no failure of the library; they are what its keeper should look at.

Must not: judge a text.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from pipelines.signals.keyword_library import EVERY_CATEGORY, LibrarySchema, Match, Term, coverage
from pipelines.signals.keywords import context_phrases, stands_alone

MAX_AGE_DAYS = 7
"""GB/T 45654-2025: updated every week at least."""
_NUM_EXAMPLES = 20


def library_report(
    files: Mapping[str, Sequence[Term]], schema: LibrarySchema, *, today: date, max_age_days: int = MAX_AGE_DAYS
) -> dict[str, Any]:
    """Facts of a library as plain values; `files` are its terms by the name of the file.

    `categories` are those of the schema, with `num_missing` terms and the newest of each. `is_fresh`: a term of one of
    them is at most `max_age_days` old (False where none says when it was added). `repeated` stand twice in a category
    once they are folded. `in_several` stand in several categories and count once in the total. `innocent` would hit
    inside phrases of the context list (or the library's own `allow` rows); there they are pardoned, elsewhere they hit
    such words.
    """
    terms = [term for each in files.values() for term in each]
    covered = coverage(terms, schema)
    known = {item.category for item in schema.categories}
    counted = [term for term in terms if term.category in known and term.match is not Match.ALLOW]
    dates = [term.added_on for term in counted if term.added_on is not None]
    newest = max((each for each in dates if each <= today), default=None)  # a date to come makes nothing fresh
    age_days = None if newest is None else (today - newest).days
    return {
        "files": {name: len(each) for name, each in files.items()},
        "num_terms": covered.num_terms,
        "min_total": covered.min_total,
        "num_elsewhere": covered.num_elsewhere,
        "is_met": covered.is_met,
        "newest": newest.isoformat() if newest else None,
        "age_days": age_days,
        "max_age_days": max_age_days,
        "is_fresh": age_days is not None and age_days <= max_age_days,
        "num_undated": len(counted) - len(dates),
        "num_future": sum(each > today for each in dates),
        "categories": [
            asdict(item) | {"newest": item.newest.isoformat() if item.newest else None} for item in covered.categories
        ],
        "repeated": _repeated(terms),
        "in_several": _in_several(terms),
        "innocent": _innocent(terms),
    }


def name_files(paths: Sequence[Path]) -> dict[str, Path]:
    """A name for each file: its own, or where two share that, the path as it was given."""
    counts = Counter(path.name for path in paths)
    return {path.name if counts[path.name] == 1 else str(path): path for path in paths}


def _repeated(terms: Sequence[Term]) -> dict[str, Any]:
    counts = Counter((term.category, term.term) for term in terms if term.match is not Match.ALLOW)
    rows = [
        {"category": category, "term": term, "times": count}
        for (category, term), count in sorted(counts.items())
        if count > 1
    ]
    return _counted(rows)


def _in_several(terms: Sequence[Term]) -> dict[str, Any]:
    categories: dict[str, set[str]] = {}
    for term in terms:
        if term.match is not Match.ALLOW:
            categories.setdefault(term.term, set()).add(term.category)
    return _counted(
        [{"term": term, "categories": sorted(each)} for term, each in sorted(categories.items()) if len(each) > 1]
    )


def _innocent(terms: Sequence[Term]) -> dict[str, Any]:
    phrases = [(EVERY_CATEGORY, phrase) for phrase in context_phrases()]
    phrases += [(term.category, term.term) for term in terms if term.match is Match.ALLOW]
    phrases = sorted(set(phrases))
    joined = "\n".join(phrase for _, phrase in phrases)
    rows = []
    for category, listed, match in sorted({(term.category, term.term, term.match) for term in terms}):
        if match is Match.ALLOW or listed not in joined:
            continue
        inside = [
            phrase
            for of_category, phrase in phrases
            if of_category in (category, EVERY_CATEGORY) and _hits(listed, phrase, is_part=match is Match.PART)
        ]
        if inside:
            rows.append({"category": category, "term": listed, "inside": list(dict.fromkeys(inside))[:_NUM_EXAMPLES]})
    return _counted(rows)


def _hits(term: str, phrase: str, *, is_part: bool) -> bool:
    start = phrase.find(term)
    while start >= 0:
        if is_part or stands_alone(phrase, start, start + len(term)):
            return True
        start = phrase.find(term, start + 1)
    return False


def _counted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"count": len(rows), "examples": rows[:_NUM_EXAMPLES]}
