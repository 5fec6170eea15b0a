"""Paths, globs and directories."""

import pytest

from pipelines.errors import InputError
from pipelines.sources.files import TEXT_SUFFIXES, WARC_SUFFIXES, expand


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.warc.gz",
        "a.warc",
        "deep/er/c.warc.zst",
        "notes.txt",
        ".hidden/d.warc",
        "deep/e.WARC.GZ",
        "f.jsonl",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a.warc"], ["a.warc"]),
        (["notes.txt"], ["notes.txt"]),  # a file is taken at its word
        (["*.warc*"], ["a.warc", "b.warc.gz"]),
        (["**/*.warc*"], ["a.warc", "b.warc.gz", "deep/er/c.warc.zst"]),
        (["."], ["a.warc", "b.warc.gz", "deep/e.WARC.GZ", "deep/er/c.warc.zst"]),
        (["deep"], ["deep/e.WARC.GZ", "deep/er/c.warc.zst"]),
        (["b.warc.gz", "*.gz", "a.warc"], ["a.warc", "b.warc.gz"]),
        (["dee*"], ["deep/e.WARC.GZ", "deep/er/c.warc.zst"]),
    ],
)
def test_patterns(folder, patterns, expected):
    assert [str(path.relative_to(folder)) for path in expand(patterns, folder, WARC_SUFFIXES)] == expected


def test_absolute_paths_and_globs(folder):
    assert expand([str(folder / "a.warc")], folder / "deep", WARC_SUFFIXES) == [folder / "a.warc"]
    assert expand([str(folder / "*.jsonl")], folder / "deep", TEXT_SUFFIXES) == [folder / "f.jsonl"]


@pytest.mark.parametrize("pattern", ["none.warc", "*.zip", "empty", "empty/*.warc", "[bad"])
def test_a_pattern_without_files_is_named(folder, pattern):
    with pytest.raises(InputError) as raised:
        expand(["a.warc", pattern], folder, WARC_SUFFIXES)
    assert repr(pattern) in str(raised.value)


def test_a_name_with_glob_characters_is_a_file(folder):
    odd = folder / "what[1].warc"
    odd.touch()
    assert expand(["what[1].warc"], folder, WARC_SUFFIXES) == [odd]
