"""Personal data in text: where it stands, and the text with placeholders in its place.

Only kinds that can be checked are looked for: e-mail addresses, public IP addresses, Chinese
resident identity numbers, payment cards, telephone numbers. Names and street addresses need a
language model and are left alone (published span F1 of such models is under 0.5).

Python's `\\b` does not fire between a Chinese character and a letter or digit, so every detector
here uses explicit ASCII boundaries. Full-width digits, letters and signs count as their ASCII twins.

Must not: write what was found anywhere. A finding is a kind and two offsets.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.errors import ConfigError
from pipelines.pii.addresses import find_emails, find_ips
from pipelines.pii.numbers import find_cards, find_chinese_ids
from pipelines.pii.phones import find_phones

Spans = list[tuple[int, int]]

KINDS = ("email", "ip", "cn_id", "card", "phone")
"""In order of precedence: where two kinds could claim the same characters, the earlier one has them."""

_FULL_WIDTH = "０１２３４５６７８９＠．－＿＋（）" + "".join(map(chr, (*range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))))
_HALF_WIDTH = {char: chr(ord(char) - 0xFEE0) for char in _FULL_WIDTH} | {
    "\N{NO-BREAK SPACE}": " ",
    "\N{HYPHEN}": "-",
    "\N{NON-BREAKING HYPHEN}": "-",
}
_WIDE = re.compile("[" + re.escape("".join(_HALF_WIDTH)) + "]")
_MANY_DIGITS = re.compile(r"[0-9](?:[ ()./-]{0,3}[0-9]){6}")
_WITHOUT_MANY_DIGITS = ("email", "ip")
"""The kinds a text may hold that has nowhere seven digits together."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece of personal data: text[start:end], in code points."""

    kind: str
    """One of KINDS."""
    start: int
    end: int


def find(text: str, language: str | None = None, kinds: frozenset[str] | None = None) -> list[Finding]:
    """Personal data of the given kinds (all of KINDS by default), in text order, never overlapping.

    `language` (ISO 639) only says in which countries' notation a telephone number without a country
    code may be written. What is found is redacted before the next kind is looked for, until nothing
    more is found; so `find(redact(text, find(text)))` is empty. Raises ConfigError for an unknown kind.
    """
    if kinds is not None and not kinds <= set(KINDS):
        raise ConfigError(f"got PII kinds {sorted(kinds - set(KINDS))}, wanted some of {', '.join(KINDS)}.")
    narrow = text if text.isascii() else _WIDE.sub(lambda match: _HALF_WIDTH[match[0]], text)
    possible = KINDS if _MANY_DIGITS.search(narrow) else _WITHOUT_MANY_DIGITS
    rest = narrow
    findings: list[Finding] = []
    while True:
        num_before = len(findings)
        for kind in possible:
            if (kinds is None or kind in kinds) and (spans := _spans(kind, rest, language)):
                findings = sorted(findings + _in_text(kind, spans, findings), key=_start)
                rest = redact(narrow, findings)
        if len(findings) == num_before:
            return findings


def redact(text: str, findings: Sequence[Finding]) -> str:
    """`text` with each finding replaced by the placeholder of its kind, such as `<EMAIL>`.

    The same kind always gives the same placeholder, whatever the document, its order or its shard.
    """
    pieces: list[str] = []
    end = 0
    for finding in sorted(findings, key=_start):
        pieces += (text[end : finding.start], _placeholder(finding.kind))
        end = finding.end
    return "".join((*pieces, text[end:]))


def _spans(kind: str, text: str, language: str | None) -> Spans:
    if kind == "phone":
        return find_phones(text, language)
    detectors: dict[str, Callable[[str], Spans]] = {
        "email": find_emails,
        "ip": find_ips,
        "cn_id": find_chinese_ids,
        "card": find_cards,
    }
    return detectors[kind](text)


def _in_text(kind: str, spans: Spans, findings: list[Finding]) -> list[Finding]:
    """Spans of the redacted text as findings in the text itself; both inputs sorted."""
    shifted: list[Finding] = []
    shift = 0
    earlier = iter((*findings, None))
    before = next(earlier)
    for start, end in spans:
        while before is not None and before.start - shift < start:
            shift += before.end - before.start - len(_placeholder(before.kind))
            before = next(earlier)
        shifted.append(Finding(kind, start + shift, end + shift))
    return shifted


def _placeholder(kind: str) -> str:
    return f"<{kind.upper()}>"


def _start(finding: Finding) -> int:
    return finding.start
