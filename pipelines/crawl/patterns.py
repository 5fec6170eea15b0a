"""A recipe's regular expressions over URLs, with a bound on what each costs: strangers choose the URLs.

A pattern like `(a+)+$` takes for ever over a URL that was made for it, and Python's own `re` cannot be stopped. So
these are matched by `regex`, which reads the same language and gives up in time. A URL for which that happens counts as excluded.
"""

import logging
import time
from collections.abc import Iterable

import regex

from pipelines.errors import ConfigError

_SECONDS = 0.05
_SPENT_SECONDS = 1.0
"""Once a pattern has lost so much time, it gets less of it for each URL."""
_LITTLE_SECONDS = 0.002
_MAX_PATTERN_CHARS = 1000

_LOG = logging.getLogger(__name__)


def check_patterns(name: str, patterns: Iterable[str]) -> None:
    """Raise ConfigError for what is no regular expression, or a very long one."""
    for pattern in patterns:
        if len(pattern) > _MAX_PATTERN_CHARS:
            raise ConfigError(
                f"{name}: got a pattern of {len(pattern):,} characters, wanted at most {_MAX_PATTERN_CHARS:,}: cut it in two."
            )
        try:
            regex.compile(pattern)
        except (regex.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"{name}: got {pattern!r}, wanted a regular expression ({error}): correct it.") from error


class Patterns:
    """Some regular expressions, any of which may match."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_Pattern(pattern) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def find(self, url: str, *, if_given_up: bool) -> bool:
        """Whether one of them is found in a URL; `if_given_up` where one that was not found took too long."""
        is_given_up = False
        for pattern in self._patterns:
            found = pattern.find(url)
            if found:
                return True
            is_given_up = is_given_up or found is None
        return if_given_up and is_given_up


class _Pattern:
    def __init__(self, pattern: str) -> None:
        self._compiled = regex.compile(pattern)
        self._spent_seconds = 0.0

    def find(self, url: str) -> bool | None:
        """None: it took too long."""
        limit = _SECONDS if self._spent_seconds < _SPENT_SECONDS else _LITTLE_SECONDS
        started = time.monotonic()
        try:
            return self._compiled.search(url, timeout=limit) is not None
        except TimeoutError:
            if not self._spent_seconds:
                _LOG.warning(
                    "got a URL on which the pattern %r takes over %g s, wanted one that is quick: URLs like it are excluded; "
                    "write it without a repeat in a repeat.",
                    self._compiled.pattern,
                    limit,
                )
            self._spent_seconds += time.monotonic() - started
            return None
