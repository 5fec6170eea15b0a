"""Files of evaluation suites: every form that suites come in, and that nothing is taken for an empty suite."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.decontaminate import SuitesConfig, check_suite, index_suites
from pipelines.digest import digest_file
from pipelines.errors import ConfigError, InputError
from pipelines.stage import Resource
from pipelines.suites import Item, Suite, read_items, suite_names


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def items_of(path: Path) -> dict[str, tuple[str, ...]]:
    return {item.item_id: item.passages for item in read_items(path)}


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_rows(tmp_path: Path, packing: str) -> None:
    rows = [
        {"id": "q7", "query": "Who counts the boats?", "choices": ["the gull", "the master"], "gold": 1},
        {"context_options": ["Anna so Anna", "Anna so Maria"], "continuation": "slept.", "gold": 0},
        {"context": "He looked at the", "continuation": "sea"},
        {"question": "海鸥为什么跟着渔船？", "answer": "因为有鱼。"},
    ]
    path = written(tmp_path, f"tiny.v2.jsonl{packing}", "\n".join(json.dumps(row) for row in rows) + "\n\n")
    first, second, third, fourth = read_items(path)
    assert (first.suite, first.item_id) == ("tiny", "q7")
    assert first.passages[0] == "Who counts the boats? the master"
    assert set(first.passages) >= {"the gull", "Who counts the boats?"}
    assert (second.item_id, second.passages[0]) == ("2", "Anna so Anna slept.")
    assert third.passages[0] == "He looked at the sea"
    assert fourth.passages[0] == "海鸥为什么跟着渔船？ 因为有鱼。"


def test_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "lines.txt", "one\n\ntwo\n")
    assert items_of(path) == {"1": ("one\n",), "3": ("two\n",)}
    assert next(read_items(path, "own")).suite == "own"


def test_a_table_with_a_header(tmp_path: Path) -> None:
    """C-Eval, CMMLU and MMLU are such files."""
    text = 'id,question,A,B\n0,"港口里\n有几条船？",三条,四条\n,"one, or two?",no,yes\n'
    assert items_of(written(tmp_path, "val.csv", text)) == {
        "0": ("三条", "四条", "港口里\n有几条船？"),
        "3": ("no", "yes", "one, or two?"),
    }
    assert items_of(written(tmp_path, "val.tsv", "q\tid\na b\tx\n")) == {"x": ("a b",)}


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "wiki.parquet"
    rows = [{"id": None, "text": "one"}, {"id": "q2", "text": "海鸥"}, {"id": None, "text": "three"}]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    assert items_of(path) == {"1": ("one",), "q2": ("海鸥",), "3": ("three",)}
    with pytest.raises(InputError, match=r"broken\.parquet that cannot be read .*wanted Parquet: mend"):
        list(read_items(written(tmp_path, "broken.parquet", "PAR1")))


def test_a_document(tmp_path: Path) -> None:
    """SQuAD's form: paragraphs, in them questions with an id."""
    paragraph = {"context": "The harbour ...", "qas": [{"id": "q1", "question": "Who?", "answers": [{"text": "he"}]}]}
    path = written(
        tmp_path, "squad.json", json.dumps({"version": "1", "data": [{"title": "T", "paragraphs": [paragraph]}]})
    )
    assert items_of(path) == {
        "data.0": ("T",),
        "data.0.paragraphs.0": ("The harbour ...",),
        "q1": ("he", "Who?"),
        "1": ("1",),
    }
    assert items_of(written(tmp_path, "list.json", '[{"text": "a"}, {"text": "b"}]')) == {"0": ("a",), "1": ("b",)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.jsonl", b"{"),
        ("bad.jsonl", b"\xff\xfe\x00"),
        ("bad.jsonl", b"[" * 100_000),
        ("bad.json", b'{"a": 1}\n{"a": 2}'),
        ("bad.csv", b'id,q\n1,"never closed\n2,b\n'),
        ("bad.jsonl.gz", b"\x1f\x8b\x08 no gzip"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"got evaluation suite .*bad\."):
        list(read_items(tmp_path / name))


def test_a_name_without_end_is_cut(tmp_path: Path) -> None:
    (item,) = read_items(written(tmp_path, "a.jsonl", json.dumps({"id": "x" * 100_000, "q": "y"})))
    assert item.item_id == "x" * 200


def test_the_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 2"):
        list(read_items(written(tmp_path, "a.jsonl", '{"q": "x"}\n{"q": \n')))


@pytest.mark.parametrize("text", ["", "\n", '{"gold": 1}\n', '{"question": "Too short a text?"}\n'])
def test_a_suite_with_nothing_to_look_for_is_an_error(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, "empty.jsonl", text)
    suite = Suite(name="empty", file=Resource(digest_file(path), str(path)))
    for use in (lambda: check_suite(suite), lambda: list(index_suites([], SuitesConfig(suites=(suite,))))):
        with pytest.raises(InputError, match=r"empty\.jsonl without a text of 8 words or 12 Chinese characters"):
            use()


def test_a_suite_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "one two three four five six seven eight nine ten\n")
    with pytest.raises(InputError, match="changed during the run"):
        check_suite(Suite(name="a", file=Resource("0" * 64, str(path))))


def test_names(tmp_path: Path) -> None:
    base = tmp_path / "recipes"
    paths = [base / "own.jsonl", base / "arc" / "test.v1.jsonl.gz", base / ".." / "mmlu" / "test.csv"]
    assert suite_names(paths, base) == ["own", "arc/test", "mmlu/test"]
    with pytest.raises(ConfigError, match="two suites named 'arc/test'"):
        suite_names([base / "arc/test.csv", base / "old/arc/test.jsonl"], base)


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    files = [written(tmp_path, f"{name}.txt", "one two three four five six seven eight nine ten\n") for name in "ab"]
    suites = [Suite(name=path.stem, file=Resource(digest_file(path), str(path))) for path in files]
    assert SuitesConfig(suites=tuple(suites)) == SuitesConfig(suites=tuple(suites[::-1]))
    assert Item(suite="a", item_id="1", passages=()) == Item(suite="a", item_id="1", passages=())
