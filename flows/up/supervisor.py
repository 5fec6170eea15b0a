"""Keeps services running: starts them, starts those again that died, and stops them in order, in bounded time."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from flows.up.api import answers
from flows.up.logs import follow, tail
from flows.up.services import Service
from pipelines.errors import TerminalError

_FIRST_DELAY_SECONDS = 0.5
_MAX_DELAY_SECONDS = 30.0
_STEADY_SECONDS = 60.0
"""A service that lived so long begins with the first delay again."""
_ANSWER_SECONDS = 2.0
_POLL_SECONDS = 0.1
_NUM_TAIL_LINES = 3
_LOG_SECONDS = 2.0

Tell = Callable[[str], None]
Stopping = Callable[[], bool]


class StoppedError(Exception):
    """Somebody asked `up` to stop while it was waiting."""


@dataclass(slots=True)
class Running:
    """A service and its process of now."""

    service: Service
    process: "subprocess.Popen[bytes]"
    started_at: float
    num_failures: int = 0
    due_at: float | None = None
    """When it is started again; None while it runs."""


@dataclass(slots=True)
class Supervisor:
    """The services of one `up`."""

    logs: Path
    secrets: Sequence[str] = field(repr=False)
    tell: Tell
    is_stopping: Stopping
    running: dict[str, Running] = field(default_factory=dict)

    def start(self, service: Service) -> None:
        """Start a service, and keep it running from now on."""
        self.running[service.name] = Running(service, self._spawn(service), time.monotonic())

    def check(self) -> None:
        """Start services again that died, with a sentence and growing delays. Call it often."""
        now = time.monotonic()
        for each in self.running.values():
            if each.due_at is None:
                code = each.process.poll()
                if code is not None:
                    self._note_death(each, code, now)
            elif now >= each.due_at:
                _kill_group(each.process)  # what a killed process left in its group may hold its port
                each.process, each.started_at, each.due_at = self._spawn(each.service), now, None
                self.tell(f"{each.service.name} is started again.")

    def wait_until_up(self, service: Service, seconds: float) -> None:
        """Wait until a service answers. Raises TerminalError where it ends or does not, StoppedError on a stop."""
        process = self.running[service.name].process
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            if self.is_stopping():
                raise StoppedError
            if service.health_url is None or answers(service.health_url, _ANSWER_SECONDS):
                return
            time.sleep(_POLL_SECONDS)
        raise TerminalError(self._failure(service.name, process, seconds))

    def run_to_end(self, service: Service, seconds: float) -> None:
        """Run a command to its end. Raises TerminalError where it fails or takes too long, StoppedError on a stop."""
        process = self._spawn(service)
        deadline = time.monotonic() + seconds
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if self.is_stopping():
                    raise StoppedError
                time.sleep(_POLL_SECONDS)
            if process.returncode != 0:
                raise TerminalError(self._failure(service.name, process, seconds))
        finally:
            _kill_group(process)
            process.wait()

    def stop(self, names: Iterable[str], grace_seconds: float) -> None:
        """End services: SIGTERM to each, SIGKILL to what is left of them after a grace. They are not started again."""
        ending = [self.running.pop(name) for name in list(names) if name in self.running]
        for each in ending:
            if each.process.poll() is None:
                with suppress(ProcessLookupError):
                    each.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        for each in ending:
            with suppress(subprocess.TimeoutExpired):
                each.process.wait(max(0.0, deadline - time.monotonic()))
            _kill_group(each.process)
            each.process.wait()

    def _spawn(self, service: Service) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
            service.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(service.environment),
            start_new_session=True,
        )
        if process.stdout is not None:
            follow(process.stdout, self._log(service.name), self.secrets)
        return process

    def _note_death(self, each: Running, code: int, now: float) -> None:
        lived = now - each.started_at
        each.num_failures = 1 if lived > _STEADY_SECONDS else each.num_failures + 1
        delay = min(_FIRST_DELAY_SECONDS * 2 ** (each.num_failures - 1), _MAX_DELAY_SECONDS)
        each.due_at = now + delay
        self.tell(
            f"{each.service.name} {_how(code)} after {lived:.0f} s; it is started again in {delay:.1f} s "
            f"(see {self._log(each.service.name)})."
        )

    def _failure(self, name: str, process: "subprocess.Popen[bytes]", seconds: float) -> str:
        log = self._log(name)
        _let_logs_settle(process, log)
        how = (
            f"that did not answer within {seconds:.0f} s"
            if process.returncode is None
            else f"that {_how(process.returncode)}"
        )
        said = " | ".join(tail(log, _NUM_TAIL_LINES))
        return f"got a {name} {how} ({said}), wanted it up: read {log}, mend what it says, and start again."

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def _let_logs_settle(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """The last words of a process that ended come a moment after it."""
    deadline = time.monotonic() + _LOG_SECONDS
    while process.returncode is not None and not tail(log, 1) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if process.returncode is not None:
        time.sleep(_POLL_SECONDS)


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    stdin = cast("object", process.stdin)
    if stdin is not None and process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
