"""The few calls to Prefect's API that `up` makes itself: over HTTP, since importing Prefect takes seconds and memory."""

import urllib.error
from dataclasses import dataclass, field
from typing import Any

from flows.watching.asking import ask, csrf_token
from pipelines.errors import TransientError

_ANSWER_SECONDS = 20.0
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefectApi:
    """A Prefect server, and who asks it."""

    url: str
    auth: str | None = field(default=None, repr=False)
    """USER:PASSWORD."""

    def get(self, path: str) -> Any:
        """What the server tells. Raises TransientError where it does not."""
        return self._ask(path, None)

    def post(self, path: str, body: Any) -> Any:
        """What the server answers to a body. Raises TransientError where it refuses, or does not answer."""
        return self._ask(path, body)

    def _ask(self, path: str, body: Any) -> Any:
        try:
            token = {} if body is None else csrf_token(self.url, self.auth, seconds=_ANSWER_SECONDS)
            return ask(f"{self.url}{path}", self.auth, body, headers=token, seconds=_ANSWER_SECONDS)
        except urllib.error.HTTPError as error:
            told = error.read(500).decode("utf-8", "replace")
            raise TransientError(
                f"got {error.code} ({told}) from Prefect at {path}, wanted an answer: see its log."
            ) from error
        except (OSError, ValueError) as error:
            raise TransientError(f"got no answer from Prefect at {path} ({error}), wanted one: see its log.") from error


def answers(url: str, seconds: float) -> bool:
    """Whether a server says 200."""
    try:
        ask(url, None, seconds=seconds)
    except OSError:
        return False
    except ValueError:  # an answer, and no JSON
        return True
    return True


def refuses_strangers(url: str) -> bool:
    """Whether a server says 401 to who has no password."""
    try:
        ask(url, None, seconds=_ANSWER_SECONDS)
    except urllib.error.HTTPError as error:
        return error.code == _UNAUTHORIZED
    except (OSError, ValueError):
        return False
    return False
