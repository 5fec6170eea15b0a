"""What backup.sh and restore.sh do inside a worker, with the workspace of CORPUSMILL_WORKSPACE.

workspace_copy.py archive [MINUTES]   standard output is a .tar.gz of all that flows/deployed/backup.py copies; a run that
                                      writes the workspace is waited for so long
workspace_copy.py references   standard output names the large files, `DIGEST  NAME` a line, as sha256sum does
workspace_copy.py unpack       standard input is such an archive; it is laid over the workspace
workspace_copy.py check        standard input names large files; exit 1 and their names if some are missing or damaged
"""

import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.digest import digest_file

_LARGE = ("crawl/**/*.warc.gz", "crawl/**/*.cdxj", "models/**/*.safetensors", "store/objects/**/*", "remote/**/*")


def archive(workspace: Path, minutes: str = "0") -> None:
    """Write the archive while nobody else writes the workspace."""
    from flows.deployed.backup import back_up
    from flows.deployed.waiting import writing_in_turn
    from flows.settings import read_settings
    from flows.workspace import Workspace
    from pipelines.errors import CorpusmillError

    place = Workspace.of(read_settings(workspace))

    def on_wait(sentence: str) -> None:
        _say(f"waiting up to {minutes} minutes: {sentence}")

    try:
        with tempfile.TemporaryDirectory() as folder, writing_in_turn(place, float(minutes) * 60, on_wait):
            made = back_up(place, Path(folder), 1)
            with Path(made["path"]).open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
    except CorpusmillError as error:
        raise SystemExit(str(error)) from error
    if place.bucket is not None:
        _say(f"not in this copy: {place.bucket}, with shards and records. Copy it by the object store's own means.")


def references(workspace: Path) -> None:
    """Name the large files."""
    for name in sorted(_large(workspace)):
        print(f"{digest_file(workspace / name)}  {name}")


def unpack(workspace: Path) -> None:
    """Lay an archive over the workspace; names that lead out of it are refused."""
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|gz") as packed:
        packed.extractall(workspace, filter="data")


def check(workspace: Path) -> None:
    """Compare the large files with what a backup says of them."""
    wrong = []
    for line in sys.stdin:
        digest, name = line.rstrip("\n").split("  ", 1)
        path = workspace / name
        if not path.is_file():
            wrong.append(f"missing: {name}")
        elif digest_file(path) != digest:
            wrong.append(f"damaged: {name}")
    if wrong:
        raise SystemExit(
            "\n".join([*wrong, f"got {len(wrong)} large files that are not as they were: bring them back."])
        )


def _large(workspace: Path) -> Iterator[str]:
    for pattern in _LARGE:
        for path in workspace.glob(pattern):
            if path.is_file() and not path.name.startswith("."):
                yield str(path.relative_to(workspace))


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    {"archive": archive, "references": references, "unpack": unpack, "check": check}[sys.argv[1]](
        Path(os.environ["CORPUSMILL_WORKSPACE"]), *sys.argv[2:]
    )
