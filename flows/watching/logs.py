"""Where this process's log records go: stderr, and what is told within a flow run to Prefect as well. No secret in either.

The command sets stderr up before anything else is imported. A flow that a Prefect worker runs finds Prefect's own console
handler there, so each flow sets up again what it finds: to do so twice changes nothing.
"""

import logging
import sys
from typing import Any

from flows.settings import log_style, redactor
from pipelines.log_lines import OURS, LogStyle, formatter, log_to_stderr
from pipelines.redaction import Redacting

_PREFECTS = (
    "prefect",
    "prefect.flow_runs",
    "prefect.task_runs",
    "prefect.workers",
    "prefect.extra",
    "prefect._internal",
)
_RUNS = ("prefect.flow_runs", "prefect.task_runs")


def log_from_command() -> None:
    """Send records of the command to stderr: warnings as plain lines, or what is told as lines of JSON."""
    style = log_style()
    handler = log_to_stderr(style, redactor())
    if style.format == "text":
        # What Prefect says of a failed run is in its own logs; the command says it in a sentence.
        handler.addFilter(lambda record: not record.name.startswith(_RUNS))


def log_from_flow() -> None:
    """Let Prefect's logs have no secret, and our own records within a flow run. Needs Prefect imported."""
    from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler

    style, hiding = log_style(), Redacting(redactor())
    root = logging.getLogger()
    if style.format == "json" and any(isinstance(each, PrefectConsoleHandler) for each in root.handlers):
        log_to_stderr(style, redactor())
    for logger in (root, *map(logging.getLogger, _PREFECTS)):
        for handler in logger.handlers:
            _prepare(handler, style, hiding)
    for name in OURS:
        ours = logging.getLogger(name)
        if not any(isinstance(handler, APILogHandler) for handler in ours.handlers):
            ours.addHandler(APILogHandler())
        for handler in ours.handlers:  # of which one may come from PREFECT_LOGGING_EXTRA_LOGGERS
            if isinstance(handler, APILogHandler) and _is_in_a_run not in handler.filters:
                handler.addFilter(_is_in_a_run)
            _prepare(handler, style, hiding)
        if ours.level == logging.NOTSET:  # not the command's process
            ours.setLevel(style.level)


def say_failure(message: str) -> None:
    """Why the command failed, on stderr: a sentence, or the line of JSON that has it."""
    told = redactor().text(message)
    if log_style().format == "json":
        logging.getLogger("flows.cli").error("%s", told)
    else:
        sys.stderr.write(f"corpusmill: {told}\n")


def _prepare(handler: logging.Handler, style: LogStyle, hiding: Redacting) -> None:
    if not any(isinstance(each, Redacting) for each in handler.filters):
        handler.addFilter(hiding)
    if style.format == "json":
        handler.setFormatter(formatter(style))


def _is_in_a_run(_record: logging.LogRecord) -> bool:
    """Prefect takes no record of what it does not know, and warns of each."""
    from prefect.context import FlowRunContext, TaskRunContext

    contexts: tuple[Any, ...] = (FlowRunContext, TaskRunContext)
    return any(context.get() is not None for context in contexts)
