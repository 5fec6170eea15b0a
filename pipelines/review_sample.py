"""Sampling kept documents for people to judge, and what their judgement says of the whole.

GB/T 45654-2025 asks for at least 4,000 items, drawn at random and looked at by people, of which at least 96 % pass.
Here two reviewers fill in the same CSV apart from each other. An item passes where both let it pass. The interval is
Wilson's (Journal of the American Statistical Association 22, 1927), the agreement Cohen's kappa (Educational and
Psychological Measurement 20, 1960), and the corpus is accepted where the interval's lower end reaches the wanted rate.

Must not: look at a store or a clock. Which documents are drawn depends on the seed and their ids alone.
"""

import csv
import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ConfigError, InputError

NUM_SAMPLED = 4_000
MIN_PASS_RATE = 0.96
COLUMNS = ("doc_id", "url", "beginning", "verdict", "category", "note")
"""The last three are the reviewer's: pass or fail, a category of the schema where it fails, and a remark."""
PASS, FAIL = "pass", "fail"

_VERDICTS = {
    **dict.fromkeys(("pass", "p", "ok", "yes", "y", "1", "合格", "通过"), PASS),
    **dict.fromkeys(("fail", "f", "no", "n", "0", "不合格", "不通过"), FAIL),
}
_BEGINNING_NUM_CHARS = 2_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_Z = 1.959963984540054  # two-sided 95 % of the normal distribution
_MAX_FIELD_CHARS = 1 << 20
_MAX_NUM_ITEMS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewItem:
    """A document to be judged."""

    doc_id: str
    url: str | None
    text: str
    """As it will be trained on; the sheet shows its beginning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What one reviewer says of one document."""

    passed: bool
    category: str
    """Of the schema, '' where none was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewScore:
    """What two reviewers found."""

    num_items: int
    num_passed: int
    """Passed by both."""
    num_disagreed: int
    pass_rate: float
    """num_passed / num_items; a document on which the two differ does not pass."""
    lower: float
    upper: float
    """Wilson's 95 % interval of the pass rate."""
    kappa: float | None
    """Cohen's kappa of the two reviewers, -1 to 1; None where chance alone makes them agree (all alike)."""
    min_pass_rate: float
    is_accepted: bool
    """Whether `lower` is at least `min_pass_rate`."""
    is_large_enough: bool
    """Whether there were at least NUM_SAMPLED items."""
    failed: dict[str, int]
    """Documents that failed, by the category named first; '' where neither named one."""
    disagreed: tuple[str, ...]
    """Ids of the documents on which the two differ, for them to talk about."""


def draw(doc_ids: Iterable[str], num_items: int = NUM_SAMPLED, seed: int = 0) -> list[str]:
    """`num_items` distinct ids, or all where there are fewer: those with the smallest hashes, in that order.

    A function of the seed and the set of ids; a simple random sample as far as the hash (BLAKE2b, RFC 7693) is random.
    A larger `num_items` adds to the sample. Memory holds the sample, not the ids. Raises ConfigError for fewer than 1.
    """
    if num_items < 1:
        raise ConfigError(f"got {num_items} items to sample, wanted at least 1: the standard asks for {NUM_SAMPLED}.")
    key = str(seed).encode()[:64]
    kept: list[tuple[int, str]] = []  # a heap of the negated hashes: the largest hash on top
    held: set[str] = set()
    for doc_id in doc_ids:
        place = -int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=16, key=key).digest(), "big")
        if doc_id in held or (len(kept) == num_items and place <= kept[0][0]):
            continue
        held.add(doc_id)
        if len(kept) < num_items:
            heapq.heappush(kept, (place, doc_id))
        else:
            held.discard(heapq.heapreplace(kept, (place, doc_id))[1])
    return [doc_id for _, doc_id in sorted(kept, reverse=True)]


def write_sheet(path: Path, items: Iterable[ReviewItem]) -> None:
    """A CSV for one reviewer, one row an item, its last three columns empty. UTF-8 with a mark, as spreadsheets expect.

    A field that a spreadsheet would take for a formula gets an apostrophe in front: the pages are strangers'.
    """
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for item in items:
            shown = "".join(char for char in item.text[:_BEGINNING_NUM_CHARS] if char == "\n" or char.isprintable())
            writer.writerow([item.doc_id, _harmless(item.url or ""), _harmless(shown), "", "", ""])


def read_sheet(path: Path) -> dict[str, Judgement]:
    """A filled sheet. Raises InputError, with the number of the line, for what is not filled in or not a sheet."""
    csv.field_size_limit(_MAX_FIELD_CHARS)
    judgements: dict[str, Judgement] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := set(COLUMNS[:1] + COLUMNS[3:5]) - set(reader.fieldnames or ()):
                raise InputError(
                    f"got {path.name} without column {min(missing)}, wanted a sheet of review-sample: name that."
                )
            for row in reader:
                verdict = _VERDICTS.get((row["verdict"] or "").strip().lower())
                where = f"{path.name}, line {reader.line_num}"
                if verdict is None:
                    raise InputError(f"{where}: got verdict {row['verdict']!r:.40}, wanted pass or fail: fill it in.")
                if row["doc_id"] in judgements:
                    raise InputError(
                        f"{where}: got document {row['doc_id']!r:.40} twice, wanted each once: take one out."
                    )
                if len(judgements) >= _MAX_NUM_ITEMS:
                    raise InputError(f"{where}: got more than {_MAX_NUM_ITEMS} rows, wanted fewer: draw fewer.")
                judgements[row["doc_id"]] = Judgement(passed=verdict == PASS, category=(row["category"] or "").strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"got {path} that cannot be read ({error}), wanted a CSV in UTF-8: save it so.") from error
    return judgements


def score(
    first: dict[str, Judgement], second: dict[str, Judgement], min_pass_rate: float = MIN_PASS_RATE
) -> ReviewScore:
    """What two reviewers of the same documents found. Raises InputError where the documents differ or there are none."""
    if first.keys() != second.keys() or not first:
        odd = sorted(first.keys() ^ second.keys())
        raise InputError(
            f"got sheets of {len(first)} and {len(second)} documents, {len(odd)} of them in one sheet only"
            f"{f' ({odd[0]!r:.40})' if odd else ''}, wanted the same documents in both: complete them."
        )
    if not 0 < min_pass_rate <= 1:
        raise ConfigError(f"got min_pass_rate {min_pass_rate}, wanted above 0 and at most 1: the standard's is 0.96.")
    doc_ids = sorted(first)
    both = [(first[doc_id].passed, second[doc_id].passed) for doc_id in doc_ids]
    num_passed = sum(one and other for one, other in both)
    lower, upper = wilson_interval(num_passed, len(both))
    failed = Counter(
        first[doc_id].category or second[doc_id].category
        for doc_id, (one, other) in zip(doc_ids, both, strict=True)
        if not (one and other)
    )
    disagreed = tuple(doc_id for doc_id, (one, other) in zip(doc_ids, both, strict=True) if one != other)
    return ReviewScore(
        num_items=len(both),
        num_passed=num_passed,
        num_disagreed=len(disagreed),
        pass_rate=num_passed / len(both),
        lower=lower,
        upper=upper,
        kappa=cohens_kappa(both),
        min_pass_rate=min_pass_rate,
        is_accepted=lower >= min_pass_rate,
        is_large_enough=len(both) >= NUM_SAMPLED,
        failed=dict(sorted(failed.items())),
        disagreed=disagreed,
    )


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share, without continuity correction; (0, 1) for no trials."""
    if not num_trials:
        return 0.0, 1.0
    share, z2 = num_successes / num_trials, _Z * _Z
    middle = (share + z2 / (2 * num_trials)) / (1 + z2 / num_trials)
    half = _Z * math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials**2)) / (1 + z2 / num_trials)
    lower = 0.0 if num_successes == 0 else max(middle - half, 0.0)
    return lower, 1.0 if num_successes == num_trials else min(middle + half, 1.0)


def cohens_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Agreement of two raters beyond chance, -1 to 1; None for no pairs, and where chance alone gives full agreement."""
    num_pairs = len(pairs)
    if not num_pairs:
        return None
    first, second = sum(one for one, _ in pairs), sum(other for _, other in pairs)
    # In whole numbers, so that equal tables give equal figures.
    expected = first * second + (num_pairs - first) * (num_pairs - second)
    observed = sum(one == other for one, other in pairs) * num_pairs
    most = num_pairs * num_pairs
    return None if expected == most else (observed - expected) / (most - expected)


def _harmless(field: str) -> str:
    return f"'{field}" if field.startswith(_FORMULA) else field
