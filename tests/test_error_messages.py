"""Every error that is raised on purpose says what was got, what was wanted and what to do: each raise in the code is read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import errors

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipelines", "llm", "flows")
HOLE = "\0"
"""An expression in an f-string."""
WHOLE = re.compile(r"got\b.*\b(wanted|needs?)\b.*[:;,(] ?\S.*[.`!?)]$|got\b.*\bwanted\b.*: \0$", re.DOTALL)
WRAPPED = re.compile(rf"^(?:[\w .:,()\[\]{HOLE}-]*: )?{HOLE}(?:: mend the row, or take it out\.)?$")
"""`{where}: {error}`: the message of another error, which has its own form, with where it came from."""
ROOTS = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.CorpusmillError)
}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def error_classes() -> set[str]:
    """Names of the project's errors: those of errors.py, and every class that is derived from one."""
    known = set(ROOTS)
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for _path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    while more := {name for name, above in bases.items() if name not in known and above & known}:
        known |= more
    return known


def template(node: ast.expr) -> str | None:
    """The text that an expression makes, with a hole for each part that only a run knows; None where it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = template(node.left), template(node.right)
        return None if left is None or right is None else left + right
    if isinstance(node, ast.IfExp):
        return template(node.body)
    return HOLE


def raise_sites() -> Iterator[tuple[str, str]]:
    """Where an error of ours is made with a message of its own, and the message."""
    known = error_classes()
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute) and node.args:
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name in known and (text := template(node.args[0])) is not None:
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {name}", text


SITES = list(raise_sites())


def test_the_walk_finds_the_sites():
    assert len(SITES) > 300
    assert len({site.split()[1] for site, _ in SITES}) >= 10


def is_well_formed(site: str, text: str) -> bool:
    if site.endswith("StoppedError"):  # who asked for it knows what was wanted
        return re.search(r"got a request .*: run .*", text) is not None
    return bool(WHOLE.search(text) or WRAPPED.match(text))


def test_every_message_says_got_wanted_and_do():
    wrong = [f"{site}: {text.replace(HOLE, '{}')}" for site, text in SITES if not is_well_formed(site, text)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text", ["no such file", "got 3", "got 3, wanted 4", "wanted 4: correct it.", "got an error: try again."]
)
def test_what_does_not_help_is_told_apart(text):
    assert not is_well_formed("somewhere ConfigError", text)
