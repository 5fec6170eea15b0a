"""What an image installs beside torch: wanted.py FOLDER_OF_TORCH_WHEELS EXTRA... prints one requirement a line.

The dependencies of pyproject.toml and of its named extras, and what came along with torch where the lock has a version of
its own for it. The lock is the constraint on all below them, so nothing that only tests need is in an image.
"""

import re
import sys
import tomllib
from pathlib import Path


def wanted(project: dict, lock: str, torch_wheels: list[str], extras: list[str]) -> list[str]:
    """The requirements, sorted; `torch_wheels` are names of wheel files. Raises KeyError for an unknown extra."""
    pinned = {normalised(line.split("==")[0]): line for line in lock.splitlines() if "==" in line}
    direct = [*project["dependencies"]]
    for extra in extras:
        direct += project["optional-dependencies"][extra]
    beside_torch = {normalised(wheel.split("-")[0]) for wheel in torch_wheels} & pinned.keys()
    names = {normalised(re.split(r"[=<>!~\[; ]", line)[0]) for line in direct} | beside_torch
    return sorted(pinned[name] for name in names - {"torch"})


def normalised(name: str) -> str:
    """A distribution's name as every tool compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    found = wanted(
        tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"],
        Path("requirements.lock").read_text(encoding="utf-8"),
        [path.name for path in Path(sys.argv[1]).glob("*.whl")],
        sys.argv[2:],
    )
    print("\n".join(found))
