"""How much a written text has of a reference: exact match and F1 (SQuAD, arXiv:1606.05250), chrF (Popovic 2015), ROUGE-L (Lin 2004).

A unit of text is a word, or one character of a writing without spaces, so that all of it holds for Chinese, too. Own code:
the tests compare chrF and ROUGE-L with sacrebleu's and rouge-score's.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_CHRF_ORDER = 6
_CHRF_BETA = 2
_WIDE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_UNITS = re.compile(rf"[{_WIDE}]|[^\W{_WIDE}]+")
_ARTICLES = frozenset(("a", "an", "the"))
_SENTENCE = re.compile(r"[^.!?。！？\n]*(?:[.!?。！？]+[\"'”’」』)）]*|\n|$)")


def units(text: str) -> list[str]:
    """Words in lower case, and each Chinese or Japanese character by itself; marks are left out."""
    return _UNITS.findall(unicodedata.normalize("NFKC", text).lower())


def answer_units(text: str) -> list[str]:
    """Those of an answer: without English articles, as SQuAD has it."""
    return [unit for unit in units(text) if unit not in _ARTICLES]


def exact_match(written: str, references: Sequence[str]) -> float:
    """1 where the written answer is one of the references, marks, case and articles aside."""
    return float(any(answer_units(written) == answer_units(reference) for reference in references))


def token_f1(written: str, references: Sequence[str]) -> float:
    """The best F1 of units over the references."""
    return max((_f1(answer_units(written), answer_units(reference)) for reference in references), default=0.0)


def _f1(written: list[str], reference: list[str]) -> float:
    if not written or not reference:
        return float(written == reference)
    shared = (Counter(written) & Counter(reference)).total()
    return 2 * shared / (len(written) + len(reference))


def rouge_l(written: str, references: Sequence[str]) -> float:
    """The best F1 of the longest common subsequence of units over the references."""
    return max((_rouge_l(units(written), units(reference)) for reference in references), default=0.0)


def _rouge_l(written: list[str], reference: list[str]) -> float:
    if not written or not reference:
        return 0.0
    longest = [0] * (len(reference) + 1)
    for unit in written:
        before = 0
        for idx, other in enumerate(reference, 1):
            before, longest[idx] = longest[idx], before + 1 if unit == other else max(longest[idx], longest[idx - 1])
    return 2 * longest[-1] / (len(written) + len(reference))


@dataclass(frozen=True, slots=True)
class ChrfCounts:
    """N-grams of characters, of 1 to 6: written, in the reference, and in both."""

    written: tuple[int, ...]
    reference: tuple[int, ...]
    shared: tuple[int, ...]

    def __add__(self, other: "ChrfCounts") -> "ChrfCounts":
        added = (
            tuple(a + b for a, b in zip(ours, theirs, strict=True))
            for ours, theirs in (
                (self.written, other.written),
                (self.reference, other.reference),
                (self.shared, other.shared),
            )
        )
        return ChrfCounts(*added)

    @property
    def score(self) -> float:
        """chrF2 of 0 to 100: F-beta of the mean precision and the mean recall, over the orders that both texts have."""
        pairs = [
            (shared / written, shared / reference)
            for written, reference, shared in zip(self.written, self.reference, self.shared, strict=True)
            if written and reference
        ]
        if not pairs:
            return 0.0
        precision, recall = (sum(each) / len(pairs) for each in zip(*pairs, strict=True))
        squared = _CHRF_BETA**2
        return 100 * (1 + squared) * precision * recall / (squared * precision + recall) if precision + recall else 0.0


def chrf_counts(written: str, references: Sequence[str]) -> ChrfCounts:
    """Against the reference that is nearest; spaces do not count."""
    return max((_chrf_counts(written, reference) for reference in references), key=lambda counts: counts.score)


def _chrf_counts(written: str, reference: str) -> ChrfCounts:
    sides = ["".join(text.split()) for text in (written, reference)]
    rows = []
    for order in range(1, _CHRF_ORDER + 1):
        ours, theirs = (Counter(side[at : at + order] for at in range(len(side) - order + 1)) for side in sides)
        # As sacrebleu has it, what is written does not count where the reference is too short to have any of that order.
        rows.append((ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()))
    return ChrfCounts(*zip(*rows, strict=True))


def sentences(text: str) -> list[str]:
    """A text's sentences, by English and Chinese full stops and line ends."""
    return [found.strip() for found in _SENTENCE.findall(text) if found.strip()]


def leading_sentences(text: str, num_sentences: int = 3) -> str:
    """The first of a text: Lead-3, the summary that is hard to beat (Nallapati et al. 2017)."""
    return " ".join(sentences(text)[:num_sentences])
