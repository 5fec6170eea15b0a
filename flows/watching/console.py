"""What a person sees while stages run: bars on a terminal, plain lines otherwise, all on stderr; on a worker, log records."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from flows.settings import log_style
from flows.watching.run_state import recorder
from llm.reports import StepReport
from pipelines.crawl import CrawlProgress
from pipelines.log_lines import telling

_logger = logging.getLogger(__name__)

_LINE_SECONDS = 10.0
_NUM_ERROR_KINDS = 3

Report = Callable[[str, int, int | None, str], None]
"""Called with a stage's name, how much is done, of how much (None: unknown), and a word on it."""


@contextmanager
def progress() -> Iterator[Report]:
    """A reporter for the length of the block: bars on a terminal, else lines, as log records where these are JSON."""
    kept = recorder()
    with _shown() as shown:

        def report(name: str, num_done: int, total: int | None, note: str) -> None:
            if kept is not None:
                kept.progress(name, num_done, total, note)
            shown(name, num_done, total, note)

        yield report


@contextmanager
def _shown() -> Iterator[Report]:
    if log_style().format == "json":
        yield _seldom(_log)
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield bars
    elif _logger.isEnabledFor(logging.INFO):  # as on a worker, from where it goes to Prefect's log
        yield _seldom(_log)
    else:
        yield _seldom(_print)


@contextmanager
def _bars() -> Iterator[Report]:
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def report(name: str, num_done: int, total: int | None, note: str) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, note=note)
            bars.update(tasks[name], completed=num_done, total=total, note=note)

        yield report


def _seldom(show: Callable[[str, int, int | None, str], None]) -> Report:
    """Shows the first and the last of each stage, and what is new in between, but not more often than people read."""
    last: dict[str, tuple[float, str]] = {}

    def report(name: str, num_done: int, total: int | None, note: str) -> None:
        now = time.monotonic()
        is_end = total is not None and num_done >= total
        shown_at, shown = last.get(name, (0.0, ""))
        line = _line(name, num_done, total, note)
        if line != shown and (is_end or now - shown_at >= _LINE_SECONDS or name not in last):
            show(name, num_done, total, note)
            last[name] = (now, line)

    return report


def _line(name: str, num_done: int, total: int | None, note: str) -> str:
    return f"{name}: {num_done:,}{f'/{total:,}' if total is not None else ''} {note}".rstrip()


def _print(name: str, num_done: int, total: int | None, note: str) -> None:
    sys.stderr.write(f"{_line(name, num_done, total, note)}\n")
    sys.stderr.flush()


def _log(name: str, num_done: int, total: int | None, note: str) -> None:
    with telling(stage=name):
        _logger.info(
            "%s", _line(name, num_done, total, note), extra={"fields": {"num_done": num_done, "num_in_all": total}}
        )


def crawl_note(seen: CrawlProgress) -> str:
    """ "1,234 pages, 5.6/s, 7 hosts, 890 waiting, 12 errors: timeout 9, dns_error 3"."""
    errors = sorted(seen.errors.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{name} {count:,}" for name, count in errors[:_NUM_ERROR_KINDS])
    return (
        f"{seen.num_pages:,} pages, {seen.pages_per_second:,.1f}/s, {seen.num_hosts:,} hosts, "
        f"{seen.num_queued:,} waiting, {sum(seen.errors.values()):,} errors{f': {kinds}' if kinds else ''}"
    )


def training_note(seen: StepReport, val_loss: float | None) -> str:
    """ "loss 3.214, validation 3.301, 1,234 tokens/s, MFU 41 %": what is known of a step."""
    parts = [
        None if seen.loss is None else f"loss {seen.loss:.3f}",
        None if val_loss is None else f"validation {val_loss:.3f}",
        None if seen.tokens_per_second is None else f"{seen.tokens_per_second:,.0f} tokens/s",
        None if seen.mfu is None else f"MFU {seen.mfu:.0%}".replace("%", " %"),
    ]
    return ", ".join(part for part in parts if part is not None)


def rate(count: float, seconds: float, unit: str) -> str:
    """ "1,234 docs, 56/s"."""
    return f"{count:,.0f} {unit}, {count / max(seconds, 1e-9):,.0f}/s"
