"""The few calls to Prefect's API that `up` makes itself: over HTTP, since importing Prefect takes seconds and memory."""

import base64
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

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
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}{path}", data=data, headers={"Content-Type": "application/json"}
        )
        if self.auth is not None:
            request.add_header("Authorization", f"Basic {base64.b64encode(self.auth.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as error:
            told = error.read(500).decode("utf-8", "replace")
            raise TransientError(
                f"got {error.code} ({told}) from Prefect at {path}, wanted an answer: see its log."
            ) from error
        except (OSError, ValueError) as error:
            raise TransientError(f"got no answer from Prefect at {path} ({error}), wanted one: see its log.") from error
        return json.loads(text) if text else None


def answers(url: str, seconds: float) -> bool:
    """Whether a server says 200."""
    try:
        with urllib.request.urlopen(url, timeout=seconds):  # noqa: S310 - our own server
            return True
    except (OSError, ValueError):
        return False


def refuses_strangers(url: str) -> bool:
    """Whether a server says 401 to who has no password."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS):  # noqa: S310 - our own server
            return False
    except urllib.error.HTTPError as error:
        return error.code == _UNAUTHORIZED
    except (OSError, ValueError):
        return False
