"""Main text of an article page: the element that holds its body, less boilerplate, less the lines that are none.

The body is taken from the element that the markup names as such (microdata, the class names of publishing systems,
`article`, `main`), provided that it agrees with the page as a whole: it must hold most of the page's prose. The elements
are numbered by marks in the parsed tree, so that one extraction of the page gives the text of them all. Where nothing
agrees, or the lines kept are few, the page is doubtful and takes the careful path.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.extract.blocks import Ints, Lines, article_lines, lines_of
from pipelines.extract.naming import BODY_ATTRIBUTE
from pipelines.extract.scan import BODY, BODY_END, NUMBER_END, Scan
from pipelines.extract.tags import KIND_BLANK, KIND_CODE, KIND_HEADING

_SURE, _LIKELY = 0.7, 0.9
"""Share of the page's prose that a body must hold to make looking on needless."""
_MAX_BODIES = 40
_MIN_BODY_WEIGHT = 100
_MIN_SURE_PROSE = 1000
"""Weight of prose with which a body that the markup names needs no comparison with the page."""
_MIN_AGREEMENT = 0.7
"""Share of the page's prose that a body must hold to be believed."""
_MIN_PROSE_SHARE = 0.6
"""Share of a page's text that must be prose for a page that does not call itself an article."""
_LEADING, _MANY = 0.5, 3
"""Share of the page's prose that suffices for an element that leads at least this many of its kind by far."""
_HEADING_COST, _LINE_COST = 10, 20
"""Weight of prose that a heading, and another line that is no prose, must be made up for by."""
_TEASER_WEIGHT = 60
_MAX_DOMINANCE = 0.7
_MIN_LEAD = 3.0
"""Times the second that the longest of several elements must be to be the body alone."""
_MIN_KEPT = 0.5
_CSS_SPACE = re.compile(r"[ \t\n\r\f]+")


@dataclass(frozen=True, slots=True)
class Bodies:
    """Elements of a page that may hold its body, numbered by marks in the tree."""

    groups: tuple[tuple[float, range], ...]
    """The numbers of the elements that one sign names, after the share that they must hold; the surest first."""

    @property
    def num_bodies(self) -> int:
        return self.groups[-1][1].stop if self.groups else 0


def mark_bodies(tree: Any, scan: Scan, *, are_named: bool) -> Bodies:
    """Number the elements that may hold the body, at most 40 for each sign; `are_named`: some are by their class or id."""
    signs: tuple[tuple[bool, float, str, Callable[[Any], bool]], ...] = (
        (scan.has_items, _SURE, '[itemprop~="articleBody"]', _holds_body),
        (are_named, _SURE, f"[{BODY_ATTRIBUTE}]", lambda element: element.hasattr(BODY_ATTRIBUTE)),
        (scan.has_article, _LIKELY, "article", lambda element: element.tag == "article"),
        (scan.has_main or scan.is_tangled, _LIKELY, "main,[role=main]", _is_main),
    )
    signs = tuple(sign for sign in signs if sign[0])
    document = tree.document
    # one walk over the tree for all signs; the list, taken as it is, would walk again for each element
    found = document.query_selector_all(",".join(sign[2] for sign in signs)).values() if signs else []
    groups, number = [], 0
    for _, agreement, _, is_meant in signs:
        first = number
        for element in list(filter(is_meant, found))[:_MAX_BODIES]:
            element.prepend(document.create_text_node(f"{BODY}{number}{NUMBER_END}"))
            element.append(document.create_text_node(f"{BODY_END}{number}{NUMBER_END}"))
            number += 1
        if number > first:
            groups.append((agreement, range(first, number)))
    return Bodies(tuple(groups))


def _holds_body(element: Any) -> bool:
    return "articleBody" in _CSS_SPACE.split(element.getattr("itemprop") or "")


def _is_main(element: Any) -> bool:
    return element.tag == "main" or element.getattr("role") == "main"


def article_main_text(
    marked: str, bodies: Bodies, careful: Callable[[], str], *, titles: Sequence[str]
) -> tuple[str, str]:
    """The text of an article and the path that gave it; two empty strings where the page turns out to be none.

    `marked` is the text of the page with marks, `careful` gives the text by the careful path, `titles` are what the
    work is called: empty where the page does not call itself an article.
    """
    lines = lines_of(marked, bodies.num_bodies)
    prose_weights = lines.prose_weights
    if not titles and prose_weights.sum() < _MIN_PROSE_SHARE * lines.weights[~lines.is_linked].sum():
        return "", ""
    # what is cut short, as teasers of other articles are, says little of where the body is
    full_weights, prose_weights = prose_weights, np.maximum(prose_weights - _TEASER_WEIGHT, prose_weights // 4)
    wanted = int(prose_weights.sum())
    best, best_prose = np.zeros(0, dtype=np.int64), 0
    for agreement, numbers in bodies.groups:
        body, leads = _lines_of_bodies(lines, numbers)
        prose = int(prose_weights[body].sum())
        if prose > best_prose:
            best, best_prose = body, prose
        if titles and agreement == _SURE and prose >= _MIN_SURE_PROSE:
            wanted = prose
            break
        if best_prose >= (_LEADING if leads else agreement) * wanted:
            break
    if not best.size:
        best = _densest(lines, prose_weights)
        best_prose = int(prose_weights[best].sum())
    kept = article_lines(lines, best, full_weights, titles)
    kept_prose = int(full_weights[kept].sum())
    if (
        best_prose < _MIN_AGREEMENT * wanted
        or kept_prose < _MIN_KEPT * wanted
        or lines.num_bytes(kept) < _MIN_KEPT * lines.num_bytes(best)
    ):
        text = careful()
        if int(lines_of(text).prose_weights.sum()) >= _MIN_KEPT * kept_prose:
            return text, "careful"
    return lines.joined(kept), "article"


def _lines_of_bodies(lines: Lines, numbers: range) -> tuple[Ints, bool]:
    """The lines of the element that dominates, or of all where a body is in several parts; whether it leads many."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        start, end = lines.bodies[number]
        if end > start and (not spans or start >= spans[-1][1]):  # one inside another comes after it
            spans.append((start, end))
    weights = [int(lines.weights[start:end].sum()) for start, end in spans]
    if not spans or max(weights) < _MIN_BODY_WEIGHT:
        return np.zeros(0, dtype=np.int64), False
    longest, second = (*sorted(weights, reverse=True), 0)[:2]
    leads = longest >= _MIN_LEAD * second
    if leads or longest >= _MAX_DOMINANCE * sum(weights):
        spans = [spans[weights.index(longest)]]
    return np.concatenate([np.arange(start, end) for start, end in spans]), leads and len(weights) >= _MANY


def _densest(lines: Lines, prose_weights: Ints) -> Ints:
    """The run of lines with the most prose for what else is in it: the maximum subsequence of their scores.

    Pasternack and Roth, Extracting Article Text from the Web with Maximum Subsequence Segmentation (WWW 2009), with
    scores that are weights in place of learnt ones.
    """
    costs = np.where(lines.kinds == KIND_HEADING, _HEADING_COST, _LINE_COST + lines.weights // 3)
    costs[lines.kinds == KIND_BLANK] = 0
    scores = np.where(lines.kinds == KIND_CODE, lines.weights, np.where(prose_weights > 0, prose_weights, -costs))
    totals = np.concatenate(([0], np.cumsum(scores)))
    gains = totals[1:] - np.minimum.accumulate(totals)[:-1]
    if not gains.size or gains.max() <= 0:
        return np.arange(lines.num_lines)
    end = int(gains.argmax()) + 1
    start = int(totals[:end].argmin())
    return np.arange(start, end)
