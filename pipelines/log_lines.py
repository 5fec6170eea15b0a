"""Log records as lines, and the context that they carry: flow run, recipe, stage and shard.

The context is a value in a context variable. The pool sends it with each piece of work, so that a worker's lines say whose they are;
nothing here knows an orchestrator.
"""

import json
import logging
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipelines.redaction import Redacting, Redactor

LogFormat = Literal["text", "json"]
OURS = ("flows", "pipelines", "llm")
"""Loggers of our own; `level` is theirs."""
_ON_WORKER = "PREFECT__FLOW_RUN_ID"
"""Set for the process of a flow run by whoever starts it."""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogContext:
    """Whose a record is; None where it is nobody's."""

    flow_run_id: str | None = None
    recipe: str | None = None
    stage: str | None = None
    shard: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStyle:
    """How a process logs."""

    format: LogFormat = "text"
    level: str = "WARNING"


def style_of(environment: Mapping[str, str]) -> LogStyle:
    """As CORPUSMILL_LOG_FORMAT (text, json) and CORPUSMILL_LOG_LEVEL ask; what is none of their values counts as none.

    Lines of JSON tell more by default: programs read them. So does a run of Prefect's on a worker: its log is all that is seen.
    """
    is_json = environment.get("CORPUSMILL_LOG_FORMAT", "").lower() == "json"
    level = environment.get("CORPUSMILL_LOG_LEVEL", "").upper()
    usual = "INFO" if is_json or _ON_WORKER in environment else "WARNING"
    return LogStyle(format="json" if is_json else "text", level=level if level in LEVELS else usual)


_here: ContextVar[LogContext] = ContextVar("log_context", default=LogContext())  # noqa: B039 - it is frozen


def here() -> LogContext:
    """The context of this call."""
    return _here.get()


@contextmanager
def telling(context: LogContext | None = None, **fields: str | None) -> Iterator[None]:
    """Records of the block carry this context, or the one around with these fields changed."""
    token = _here.set(replace(context or here(), **fields))
    try:
        yield
    finally:
        _here.reset(token)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, context, host and process, what `fields` adds."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **asdict(here()),
            "host": socket.gethostname(),
            "pid": record.process,
        }
        flow_run_id = getattr(record, "flow_run_id", None)  # Prefect's own records bring theirs
        if line["flow_run_id"] is None and isinstance(flow_run_id, str) and flow_run_id != "<unknown>":
            line["flow_run_id"] = flow_run_id
        line |= getattr(record, "fields", {})
        if record.exc_info or record.exc_text:
            line["exception"] = record.exc_text or self.formatException(record.exc_info or (None, None, None))
        return json.dumps(line, ensure_ascii=False, default=str)


def formatter(style: LogStyle) -> logging.Formatter:
    """As lines of text are the message alone, as people have seen them."""
    return JsonLines() if style.format == "json" else logging.Formatter("%(message)s")


def log_to_stderr(style: LogStyle, redactor: Redactor) -> logging.Handler:
    """Send this process's records to stderr, in place of what sent them there before. Gives the handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(style))
    handler.addFilter(Redacting(redactor))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(style.level)
    return handler
