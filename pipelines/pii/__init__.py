"""Personal data and secrets in text: where they stand, and the text with placeholders in their place.

Only kinds that can be checked are looked for: a check digit, a numbering plan, a registry, or a strict form beside a
word that names it. Names and street addresses need a language model (published span F1 of such models is under 0.5): one
that is given as a folder finds them in a stage of its own (`pipelines.entities`), and `find_all` joins them to the rest.

Python's `\\b` does not fire between a Chinese character and a letter or digit, so every detector here uses explicit
ASCII boundaries. Full-width digits, letters and signs count as their ASCII twins.

A placeholder names the kind alone: `<EMAIL>`, never `<EMAIL_1>`. So the same value gives the same placeholder in every
document, order and shard, and nothing in the text tells which of two redacted values were equal.

Must not: write what was found anywhere. A finding is a kind and two offsets.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipelines.errors import ConfigError
from pipelines.pii.addresses import find_emails, find_ips, find_macs
from pipelines.pii.documents import find_passports, find_plates, find_travel_permits
from pipelines.pii.entities import ENTITY_KINDS, as_findings, joined, with_echoes
from pipelines.pii.findings import Finding
from pipelines.pii.numbers import (
    find_cards,
    find_chinese_ids,
    find_ibans,
    find_imeis,
    find_organisation_codes,
    find_social_security_numbers,
)
from pipelines.pii.phones import find_phones
from pipelines.pii.runs import Scan, scan
from pipelines.pii.secrets import find_api_keys, find_private_keys
from pipelines.pii.wallets import find_wallets

__all__ = (
    "DEFAULT_KINDS",
    "ENTITY_KINDS",
    "KINDS",
    "Finding",
    "find",
    "find_all",
    "find_in_title",
    "redact",
    "redacted",
)

Spans = list[tuple[int, int]]

# Sorted, disjoint spans of a kind. In order of precedence: where two kinds could claim the same characters, the earlier
# one has them.
_DETECTORS: dict[str, Callable[[Scan], Spans]] = {
    "private_key": lambda at: find_private_keys(at.text),
    "api_key": find_api_keys,
    "email": lambda at: find_emails(at.text),
    "ip": find_ips,
    "mac": lambda at: find_macs(at.text),
    "crypto": lambda at: find_wallets(at.text, at.runs),
    "iban": lambda at: find_ibans(at.text, at.ibans),
    "cn_id": lambda at: find_chinese_ids(at.text, at.digits),
    "uscc": lambda at: find_organisation_codes(at.text, at.digits),
    "imei": lambda at: find_imeis(at.text, at.digits),
    "passport": find_passports,
    "travel_permit": find_travel_permits,
    "card": lambda at: find_cards(at.text, at.digits),
    "ssn": lambda at: find_social_security_numbers(at.text, at.digits),
    "plate": find_plates,
    "phone": lambda at: find_phones(at.text, at.digits, at.language),
}

KINDS = tuple(_DETECTORS)
"""Every kind that can be looked for, in order of precedence."""

DEFAULT_KINDS = tuple(kind for kind in KINDS if kind not in {"uscc", "mac", "imei"})
"""Without those of organisations (uscc: unified social credit code) and devices (mac, imei)."""

_MAX_ROUNDS = 16

_WIDE_FORMS = "＠．－＿＋（）" + "".join(
    map(chr, (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B)))
)
_ASCII_TWINS = (
    {char: chr(ord(char) - 0xFEE0) for char in _WIDE_FORMS}
    | dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000", " ")  # no-break, figure, thin, narrow, ideographic
    | dict.fromkeys("\u2010\u2011\u2012\u2013", "-")  # hyphen, non-breaking hyphen, figure dash, en dash
)
_WIDE = re.compile("[" + re.escape("".join(_ASCII_TWINS)) + "]")


def find(text: str, language: str | None = None, kinds: frozenset[str] | None = None) -> list[Finding]:
    """Personal data of the given kinds (DEFAULT_KINDS where none are given), in text order, never overlapping.

    `language` (ISO 639) only says in which countries' notation a telephone number without a country code may be
    written; without it, the script around the number does. What is found is redacted before the next kind is looked
    for, until nothing more is found (16 times at most); so `find(redact(text, find(text)))` is empty.

    Time is linear in the text. Raises ConfigError for an unknown kind.
    """
    if kinds is not None and not kinds <= set(KINDS):
        raise ConfigError(
            f"got PII kinds {', '.join(sorted(kinds - set(KINDS)))}, wanted some of {', '.join(KINDS)}: correct them."
        )
    narrow, places = text, scan(text, language)
    if places.has_wide:
        for char in sorted(set(_WIDE.findall(text))):
            narrow = narrow.replace(char, _ASCII_TWINS[char])
        places = scan(narrow, language)
    wanted = [kind for kind in KINDS if kind in (DEFAULT_KINDS if kinds is None else kinds)]
    findings: list[Finding] = []
    for _ in range(_MAX_ROUNDS):
        num_before = len(findings)
        for kind in wanted:
            if spans := _DETECTORS[kind](places):
                findings = sorted(findings + _in_text(kind, spans, findings), key=_start)
                places = scan(redact(narrow, findings), language)
        if len(findings) == num_before:
            break
    return findings


def find_all(
    text: str, language: str | None, kinds: frozenset[str] | None, entities: Iterable[Mapping[str, Any]] | None
) -> list[Finding]:
    """What `find` finds, and what a model found in the same text (a row of ENTITIES, or None), of the given kinds.

    Where both claim the same characters, the detectors have them. None as kinds are DEFAULT_KINDS and all of the model's.
    """
    strict = find(text, language, None if kinds is None else kinds - set(ENTITY_KINDS))
    return joined(strict, (each for each in as_findings(entities) if kinds is None or each.kind in kinds))


def find_in_title(
    title: str, language: str | None, text: str, entities: Iterable[Mapping[str, Any]] | None
) -> list[Finding]:
    """Personal data in a document's title or address: what `find` finds, and the names that a model found in its text."""
    return joined(find(title, language), with_echoes(text, as_findings(entities), title))


def redact(text: str, findings: Sequence[Finding]) -> str:
    """`text` with each finding replaced by the placeholder of its kind, such as `<EMAIL>`.

    The same kind always gives the same placeholder, whatever the document, its order or its shard.
    """
    pieces: list[str] = []
    end = 0
    for finding in sorted(findings, key=_start):
        pieces += (text[end : finding.start], placeholder(finding.kind))
        end = finding.end
    return "".join((*pieces, text[end:]))


def _in_text(kind: str, spans: Spans, findings: list[Finding]) -> list[Finding]:
    """Spans of the redacted text as findings in the text itself; both inputs sorted."""
    shifted: list[Finding] = []
    shift = 0
    earlier = iter((*findings, None))
    before = next(earlier)
    for start, end in spans:
        while before is not None and before.start - shift < start:
            shift += before.end - before.start - len(placeholder(before.kind))
            before = next(earlier)
        shifted.append(Finding(kind, start + shift, end + shift))
    return shifted


def placeholder(kind: str) -> str:
    """What stands in the place of a finding."""
    return f"<{kind.upper()}>"


def _start(finding: Finding) -> int:
    return finding.start
