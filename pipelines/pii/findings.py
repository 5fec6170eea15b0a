"""What a finding is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece of personal data: text[start:end], in code points."""

    kind: str
    start: int
    end: int
