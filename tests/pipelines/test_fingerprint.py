"""A changed helper changes the fingerprint; a changed comment does not."""

import importlib
import sys

import pytest

from pipelines import fingerprint, kept
from pipelines.errors import ConfigError

STAGE = "from pipelines_toy.helper import double\n\ndef run(x):\n    return double(x)\n"
HELPER = '"""Doc."""\nLIMIT = 2\n\ndef double(x):\n    """Doc."""\n    return LIMIT * x  # why\n'


@pytest.fixture
def toy(tmp_path, monkeypatch):
    package = tmp_path / "pipelines_toy"
    monkeypatch.setattr(kept, "_folders", lambda: iter([tmp_path / "kept"]))
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fingerprint, "FIRST_PARTY", ("pipelines_toy",))

    def measure(stage=STAGE, helper=HELPER):
        (package / "stage.py").write_text(stage)
        (package / "helper.py").write_text(helper)
        importlib.invalidate_caches()
        for cached in (fingerprint._read, fingerprint._readings, fingerprint._first_party_imports):
            cached.cache_clear()
        return fingerprint.code_fingerprint(["pipelines_toy.stage"])

    yield measure
    for name in [name for name in sys.modules if name.startswith("pipelines_toy")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "helper",
    [
        HELPER.replace("# why", "# because"),
        HELPER.replace('"""Doc."""', '"""Another text."""'),
        HELPER.replace("\n\n", "\n\n\n\n"),
    ],
)
def test_words_and_space_change_nothing(toy, helper):
    assert toy(helper=helper) == toy()


@pytest.mark.parametrize(
    "helper", [HELPER.replace("LIMIT = 2", "LIMIT = 3"), HELPER.replace("LIMIT * x", "x * LIMIT"), HELPER + "\nX = 1\n"]
)
def test_a_changed_helper_changes_it(toy, helper):
    assert toy(helper=helper) != toy()


def test_the_closure_follows_imports_inside_functions(toy):
    toy(stage="def run(x):\n    from pipelines_toy.helper import double\n    return double(x)\n")
    assert fingerprint.import_closure(["pipelines_toy.stage"]) >= {"pipelines_toy.stage", "pipelines_toy.helper"}


def test_a_relative_import_is_refused(toy):
    with pytest.raises(ConfigError, match="relative import"):
        toy(stage="from .helper import double\n")


def test_a_source_is_parsed_once_and_its_reading_kept(toy, monkeypatch):
    before = toy()
    monkeypatch.setattr(fingerprint, "_parsed", lambda source: pytest.fail(f"read again: {source!r}"))
    assert toy() == before
    with pytest.raises(pytest.fail.Exception, match="read again"):
        toy(helper=HELPER + "# another source")


def test_what_was_kept_is_what_is_read(toy, tmp_path):
    before = toy()
    for file in (tmp_path / "kept").iterdir():
        file.write_bytes(b"torn")
    assert toy() == before
