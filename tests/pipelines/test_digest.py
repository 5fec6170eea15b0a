"""Digests are equal where the meaning is, and refuse what has no identity."""

import enum
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from pipelines.digest import EXECUTION_ONLY, canonical_json, digest_value, document_id
from pipelines.errors import ConfigError


@dataclass(frozen=True)
class One:
    size: int = 1
    path: str = field(default="/a", metadata=EXECUTION_ONLY)


@dataclass(frozen=True)
class Two:
    size: int = 1


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, {2, 3, 1}),
        (One(path="/a"), One(path="/b")),
        (Colour.RED, "red"),
    ],
)
def test_equal_meaning_equal_digest(left, right):
    assert digest_value(left) == digest_value(right)


@pytest.mark.parametrize(
    ("left", "right"), [(One(), Two()), (1, 1.5), ("1", 1), (None, ""), (True, 1), ([1, 2], [2, 1])]
)
def test_other_meaning_other_digest(left, right):
    assert digest_value(left) != digest_value(right)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), print, object(), {1: 2}, b"bytes"])
def test_no_identity_is_refused(value):
    with pytest.raises(ConfigError):
        digest_value(value)


def test_digests_do_not_depend_on_the_process():
    code = "from pipelines.digest import digest_value; print(digest_value({'b': {'x', 'y', 'z'}, 'a': [1, 2.5, None]}))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(runs) == 1


def test_chinese_is_kept_as_text():
    assert canonical_json({"词": "茶"}) == '{"词":"茶"}'


def test_a_document_is_named_by_url_and_content():
    names = {
        document_id("http://a/", b"x"),
        document_id("http://a/", b"y"),
        document_id("http://b/", b"x"),
        document_id(None, b"x"),
    }
    assert len(names) == 4
    assert document_id("http://a/", b"x") == document_id("http://a/", b"x")
    assert all(len(name) == 32 for name in names)
