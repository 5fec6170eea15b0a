"""Waiting for a workspace that another run writes, and for how long."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from flows.workspace import Workspace, writing
from pipelines.errors import InUseError
from pipelines.store import Store

_POLL_SECONDS = 2.0


@contextmanager
def writing_in_turn(
    place: Workspace, wait_seconds: float, on_wait: Callable[[str], None] = lambda _sentence: None
) -> Iterator[Store]:
    """Like `writing`, but a workspace in use is waited for. `on_wait` is told once, and again when somebody else has it.

    Raises InUseError after so many seconds in vain.
    """
    deadline = time.monotonic() + wait_seconds
    told = ""
    with ExitStack() as stack:
        while True:
            try:
                store = stack.enter_context(writing(place))
                break
            except InUseError as error:
                if time.monotonic() >= deadline:
                    raise
                if str(error) != told:
                    told = str(error)
                    on_wait(told)
                time.sleep(_POLL_SECONDS)
        yield store
