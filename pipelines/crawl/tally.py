"""What one run of a crawl has done so far."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What one run has done so far."""

    num_fetched: int
    num_bytes: int
    """Of bodies, decoded."""
    errors: Mapping[str, int]
    """URLs that failed, by outcome."""
    num_unchanged: int
    num_changed: int
    num_withdrawn: int
    is_last: bool = False


@dataclass(slots=True)
class Tally:
    """Running counts: see `Counts`."""

    num_fetched: int = 0
    num_bytes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    num_unchanged: int = 0
    num_changed: int = 0
    num_withdrawn: int = 0

    def counts(self, *, is_last: bool = False) -> Counts:
        """What stands now."""
        return Counts(
            num_fetched=self.num_fetched,
            num_bytes=self.num_bytes,
            errors=dict(self.errors),
            num_unchanged=self.num_unchanged,
            num_changed=self.num_changed,
            num_withdrawn=self.num_withdrawn,
            is_last=is_last,
        )
