"""The operator's guide: its commands run, and what it names is there: options, files, alerts, messages."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from flows.cli import app
from flows.deployed.events import AlertKind

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
GUIDES = {"en": INFRA / "operators-guide.md", "zh": INFRA / "operators-guide.zh-CN.md"}
GUIDE = GUIDES["en"].read_text(encoding="utf-8")
MADE_BY_COMMANDS = ("infra/secrets", "infra/.env")
ALERTS = {"en": "\n## Alerts\n", "zh": "\n## 告警\n"}
FAILURES = {"en": "## When something fails", "zh": "## 出错时"}
PREFECT = "http://127.0.0.1:4200"
OURS = ("CORPUSMILL_", "PREFECT_", "MLFLOW_")


def fences(text: str) -> list[tuple[str, str]]:
    """Kind and content of each code block."""
    return re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)


def spans(text: str) -> list[str]:
    """What stands between backticks outside code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def commands(text: str, name: str) -> list[list[str]]:
    """The words after a command's name, wherever the text has it at a line's or a span's beginning."""
    lines = [line for _, block in fences(text) for line in block.splitlines()] + spans(text)
    words = [shlex.split(line, comments=True) for line in lines if line.startswith(f"{name} ")]
    return [each[1:] for each in words]


def options_of(words: list[str]) -> tuple[Any, list[str]]:
    """The click command that words call, and the options among them."""
    command: Any = typer.main.get_command(app)
    while words and (inner := getattr(command, "commands", {}).get(words[0])) is not None:
        command, words = inner, words[1:]
    return command, [word.partition("=")[0] for word in words if word.startswith("--")]


@pytest.mark.parametrize("language", GUIDES)
def test_every_command_and_option_exists(language: str) -> None:
    found = commands(GUIDES[language].read_text(encoding="utf-8"), "corpusmill")
    assert len(found) > 40
    for words in found:
        command, options = options_of(words)
        assert not hasattr(command, "commands"), f"corpusmill {shlex.join(words)}: no such command"
        known = {name for parameter in command.params for name in parameter.opts}
        assert [each for each in options if each not in known] == [], f"corpusmill {shlex.join(words)}"


@pytest.mark.parametrize("language", GUIDES)
def test_every_option_in_a_sentence_exists(language: str) -> None:
    text = GUIDES[language].read_text(encoding="utf-8")
    named = {word for span in spans(text) if span.startswith("--") for word in span.split() if word.startswith("--")}
    todo, known = [typer.main.get_command(app)], {"--profile"}
    while todo:
        command: Any = todo.pop()
        todo += getattr(command, "commands", {}).values()
        known |= {name for parameter in command.params for name in parameter.opts}
    assert named - known == set()


@pytest.mark.parametrize("language", GUIDES)
def test_every_path_exists(language: str) -> None:
    guide = GUIDES[language]
    text = guide.read_text(encoding="utf-8")
    linked = [path for path in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in path]
    named = set(re.findall(r"(?:infra|tests|flows|llm|pipelines)/[\w./-]*[\w/]", text))
    assert len(linked) > 10
    assert [path for path in linked if not (guide.parent / path).exists()] == []
    assert [path for path in named if not path.startswith(MADE_BY_COMMANDS) and not (ROOT / path).exists()] == []


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {words[0] for words in commands(GUIDE, "make")} - targets == set()


@pytest.mark.parametrize("language", GUIDES)
def test_every_alert_is_explained_and_every_one_that_is_explained_exists(language: str) -> None:
    rules = {
        name
        for path in INFRA.glob("prometheus/*.y*ml")
        for name in re.findall(r"- alert: (\w+)", path.read_text(encoding="utf-8"))
    }
    section = GUIDES[language].read_text(encoding="utf-8").partition(ALERTS[language])[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in spans(row.split(" | ")[0])} == {*get_args(AlertKind), "failure", *rules}


def said_by_the_code() -> Iterator[str]:
    """Every text of the packages, with `...` where a value stands in it."""
    for package in ("flows", "llm", "pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(each.value) if isinstance(each, ast.Constant) else "..." for each in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


@pytest.mark.parametrize("language", GUIDES)
def test_every_message_is_one_that_the_code_says(language: str) -> None:
    text = GUIDES[language].read_text(encoding="utf-8").partition(FAILURES[language])[2]
    messages = [spans(line)[0] for line in text.splitlines() if line.startswith("| `")]
    assert len(messages) > 15
    said = list(said_by_the_code())
    patterns = {each: ".*".join(re.escape(part) for part in each.split("...")) for each in messages}
    missing = [
        each for each, pattern in patterns.items() if not any(re.search(pattern, text, re.DOTALL) for text in said)
    ]
    assert missing == []


@pytest.mark.parametrize("language", GUIDES)
def test_every_parameter_of_a_deployment_exists(language: str) -> None:
    source = (ROOT / "flows" / "deployed" / "operations.py").read_text(encoding="utf-8")
    line = next(line for line in GUIDES[language].read_text(encoding="utf-8").splitlines() if "`train_share`" in line)
    named = [name for name in spans(line) if "_" in name]
    assert len(named) == 6
    assert [name for name in named if f"    {name}: " not in source] == []


@contextmanager
def services(line: str, env: dict[str, str], folder: Path) -> Iterator[str]:
    """`corpusmill up` as the guide has it, for as long as the block lasts; the address of its Prefect server."""
    with (folder / "up.err").open("w") as err:
        process = subprocess.Popen(
            [*shlex.split(line), "--json"], stdout=subprocess.PIPE, stderr=err, env=env, cwd=folder, text=True
        )
    try:
        assert process.stdout is not None
        facts = process.stdout.readline()
        assert facts, (folder / "up.err").read_text()
        yield json.loads(facts)["prefect"]
    finally:
        process.terminate()
        try:
            process.wait(120)
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_its_commands_run_in_order_as_an_operator_would(tmp_path: Path) -> None:
    """The demo in one workspace, from installation to a restored copy; from the schedule on, with `corpusmill up` beside it."""
    work = tmp_path / "work"
    work.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}
    before, after = GUIDE.split("\n## Schedule\n")
    up = next(line for kind, block in fences(after) for line in block.splitlines() if line.startswith("corpusmill up"))

    def follow(text: str, prefect: str) -> None:
        for line in (line for kind, block in fences(text) if kind == "console" for line in block.splitlines()):
            command = line.replace("/data/", f"{tmp_path}/").replace(PREFECT, prefect)
            if command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                env[name] = value
                continue
            done = subprocess.run(
                ["bash", "-euc", command], cwd=work, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}"

    follow(before, PREFECT)
    with services(up, env, work) as prefect:
        follow(after, prefect)
    restored = subprocess.run(
        ["corpusmill", "takedown", "list", "--json", "--workspace", tmp_path / "restored"],
        capture_output=True,
        text=True,
        env=env,
        check=True,
    )
    assert "legal desk" in restored.stdout
