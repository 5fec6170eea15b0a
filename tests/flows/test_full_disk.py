"""A disk that is really full: the command says so in one sentence, and goes on once there is room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import article_records, write_recipe, write_warc

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

DISK_NUM_BYTES = 48 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_NUM_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("num_free_bytes", [0, 100_000, pytest.param(1_200_000, marks=pytest.mark.slow)])
def test_a_build_on_a_full_disk_says_so_and_goes_on_with_room(
    corpusmill: Any, main: Any, pipeline: Any, disk: Path, tmp_path: Path, num_free_bytes: int
) -> None:
    write_warc(tmp_path / "a.warc.gz", article_records()[:20])
    write_warc(tmp_path / "b.warc.gz", article_records()[20:])
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["*.warc.gz"]})
    whole = pipeline(recipe, tmp_path / "w", "build")
    filler = disk / "filler"
    filler.write_bytes(bytes(DISK_NUM_BYTES - 4096 - num_free_bytes))
    done = corpusmill("build", recipe, "--workspace", disk / "w", "--json")
    assert (done.code, done.out) == (1, "")
    last = done.err.rstrip().splitlines()[-1]
    assert "got a full disk" in last
    assert "free some space and run again" in last
    assert "Traceback" not in done.err
    filler.unlink()
    again = pipeline(recipe, disk / "w", "build")
    for name in ("dataset_digest", "documents", "tokens"):
        assert again[name] == whole[name]
    assert main("verify", "--workspace", disk / "w").code == 0
