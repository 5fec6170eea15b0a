"""Records as lines: one JSON document each, with whose they are; the context travels with the work of a pool."""

import io
import json
import logging
import os
from pathlib import Path

import pyarrow as pa
import pytest
from talking_stage import ROW, TALKING_STAGE, TalkConfig

from pipelines.executor import open_executor
from pipelines.log_lines import OURS, JsonLines, LogContext, LogStyle, here, log_to_stderr, style_of, telling
from pipelines.materialize import materialize
from pipelines.redaction import Redacting, Redactor
from pipelines.store import Place, Store
from pipelines.work import Unit


@pytest.fixture
def lines():
    """A logger, and a call that gives what it wrote so far as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    handler.addFilter(Redacting(Redactor()))
    logger = logging.Logger("of.a.test")  # noqa: LOG001 - of this test alone
    logger.addHandler(handler)
    return logger, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_line_with_its_context(lines):
    logger, told = lines
    logger.warning("nobody's: %d\nand a second line", 1)
    with telling(LogContext(flow_run_id="f", recipe="r"), stage="extract"):
        with telling(shard="a.warc.gz"):
            logger.info("two %s", "words", extra={"fields": {"num_rows": 3}})
        logger.error("no shard")
    first, second, third = told()
    assert first["message"] == "nobody's: 1\nand a second line"
    assert (first["flow_run_id"], first["recipe"], first["stage"], first["shard"]) == (None, None, None, None)
    assert (second["flow_run_id"], second["recipe"], second["stage"], second["shard"]) == (
        "f",
        "r",
        "extract",
        "a.warc.gz",
    )
    assert (second["level"], second["logger"], second["num_rows"], second["pid"]) == (
        "info",
        "of.a.test",
        3,
        os.getpid(),
    )
    assert second["time"].endswith("Z")
    assert third["shard"] is None
    assert here() == LogContext()


def test_an_exception_is_in_its_line_without_its_secret(lines):
    logger, told = lines
    try:
        raise ValueError("at https://me:hunter2@host.test/")  # noqa: TRY301
    except ValueError:
        logger.exception("it failed")
    (line,) = told()
    assert "Traceback" in line["exception"]
    assert "***@host.test" in line["exception"]
    assert "hunter2" not in json.dumps(line)


def test_what_is_no_json_is_told_as_text(lines):
    logger, told = lines
    logger.info("x", extra={"fields": {"path": Path("/a"), "surrogate": "\ud800"}})
    assert told()[0]["path"] == "/a"


@pytest.mark.parametrize(
    ("environment", "style"),
    [
        ({}, LogStyle(format="text", level="WARNING")),
        ({"CORPUSMILL_LOG_FORMAT": "json"}, LogStyle(format="json", level="INFO")),
        ({"CORPUSMILL_LOG_FORMAT": "JSON", "CORPUSMILL_LOG_LEVEL": "error"}, LogStyle(format="json", level="ERROR")),
        ({"CORPUSMILL_LOG_FORMAT": "text", "CORPUSMILL_LOG_LEVEL": "loud"}, LogStyle(format="text", level="WARNING")),
    ],
)
def test_the_style_is_what_the_environment_asks_for(environment, style):
    assert style_of(environment) == style


@pytest.mark.parametrize("num_workers", [0, 1])
def test_lines_of_a_pool_say_whose_work_they_are_of(tmp_path, capfd, monkeypatch, num_workers):
    """Also where the work is done in this process."""
    monkeypatch.setenv("CORPUSMILL_LOG_FORMAT", "json")
    store = Store(Place(root=tmp_path / "store"))
    batch = pa.RecordBatch.from_pydict({"doc_id": ["a", "b"]}, schema=ROW)
    shard = store.write(ROW, [batch])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log_to_stderr(style_of(os.environ), Redactor())
        with open_executor(num_workers) as executor, telling(LogContext(flow_run_id="f", recipe="r")):
            units = [Unit(shard.digest, (shard,))]
            materialize(store, TALKING_STAGE, TalkConfig(), units, executor, lambda _progress: None)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in OURS:
            logging.getLogger(name).setLevel(logging.NOTSET)
    told = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    line = next(each for each in told if each["logger"] == "pipelines.talk")
    assert line["message"] == "asked https://***@host.test/ for 2 rows"
    assert (line["flow_run_id"], line["recipe"], line["stage"]) == ("f", "r", "talk")
    assert line["shard"] == shard.digest[:16]
    assert (line["pid"] == os.getpid()) == (num_workers == 0)
    assert all(
        {"time", "level", "message", "flow_run_id", "stage", "shard", "recipe", "host"} <= each.keys() for each in told
    )
