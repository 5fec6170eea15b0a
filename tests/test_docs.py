"""The README's commands are run, its recipe is validated, and the maps name what is there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.recipe import parse_recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("console") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return folder, os.environ | {"PATH": path, "CORPUSMILL_WORKSPACE": str(folder / "workspace")}


@pytest.mark.timeout(900)
@pytest.mark.skipif(not (ROOT / ".venv" / ".ready").exists(), reason="needs the environment that make builds")
def test_the_commands_of_the_readme_run(environment):
    """In order, in one folder, as a reader would; `make test` only as far as a dry run, since this is it."""
    folder, env = environment
    for command in commands():
        is_make = command.startswith("make ")
        line = command.replace("make test", "make -n test")
        done = subprocess.run(
            line, shell=True, cwd=ROOT if is_make else folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
        assert done.stdout.strip(), command
    run = subprocess.run(["corpusmill", "plan"], cwd=folder, env=env, capture_output=True, text=True, check=True)
    computed = dict(re.findall(r"(\w+) +compute (\d+)", run.stdout))
    assert len(computed) >= 12
    del computed[
        "evaluate"
    ]  # the README takes a page down after it, and extraction is measured by what is a copy of what
    assert set(computed.values()) == {"0"}


def test_the_readme_names_its_two_commands_first():
    assert commands()[:2] == ["make run", "make test"]


def test_the_recipes_of_the_readme_are_valid(tmp_path):
    recipes = [parse_recipe(text, tmp_path) for text in blocks("yaml")]
    assert [[source.kind for source in recipe.sources] for recipe in recipes] == [
        ["crawl", "warc", "text"],
        ["warc"],
        ["text"],
        ["warc"],
        ["text", "canaries"],
        ["text"],
    ]


def test_every_recipe_in_the_repository_is_valid():
    paths = [*ROOT.glob("infra/recipes/*.yaml"), *ROOT.glob("flows/recipes/*.yaml")]
    assert len(paths) >= 2
    for path in paths:
        assert (
            parse_recipe(path.read_text(encoding="utf-8"), path.parent).name == yaml.safe_load(path.read_text())["name"]
        )


def test_every_command_is_in_the_readme():
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "from flows.cli import app; print(*(c.name or c.callback.__name__ for c in app.registered_commands))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert [name for name in shown if name not in README] == []


def test_the_code_map_names_every_module():
    names = [
        path.stem if path.suffix else path.name
        for package in ("pipelines", "llm", "flows")
        for path in (ROOT / package).iterdir()
        if path.name not in ("__init__.py", "__pycache__")
    ]
    assert [name for name in names if f"`{name}.py`" not in ARCHITECTURE and f"`{name}/`" not in ARCHITECTURE] == []


def test_every_direct_dependency_is_in_the_table():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    missing = [name for item in named if (name := item.split("==")[0]) not in README]
    assert missing == []


def test_every_direct_dependency_is_locked():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    }
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert [item for item in named if item.split("==")[0].lower().replace("_", "-") not in locked] == []


def test_make_builds_nothing_twice():
    if not (ROOT / ".venv" / ".ready").exists() or shutil.which("make") is None:
        pytest.skip("needs the environment that make builds")
    shown = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pip install" not in shown
