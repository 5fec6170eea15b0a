"""`corpusmill keywords coverage`: libraries or a recipe, one JSON document, exit codes of the contract."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from conftest import Outcome
from flow_inputs import write_recipe

from pipelines.signals.keyword_library import read_schema

Main = Callable[..., Outcome]
HEADER = "category\tterm\tmatch\tsource\tadded_on\n"


def library(path: Path, rows: list[tuple[str, str]], added_on: str | None = None) -> Path:
    day = added_on or datetime.now(UTC).date().isoformat()
    text = "".join(f"{category}\t{term}\tauto\tours\t{day}\n" for category, term in rows)
    path.write_text(HEADER + text, encoding="utf-8")
    return path


def full_rows() -> list[tuple[str, str]]:
    schema = read_schema()
    rows = [
        (each.category, f"{each.category} 词{number}") for each in schema.categories for number in range(each.min_terms)
    ]
    return [*rows, *(("A.4.1", f"词{number}") for number in range(schema.min_total - len(rows)))]


def test_a_covered_schema_ends_well(main: Main, tmp_path: Path) -> None:
    rows = full_rows()
    parts = [library(tmp_path / "a.tsv", rows[:4000]), library(tmp_path / "b.tsv", rows[4000:])]
    ended = main("keywords", "coverage", *parts, "--json")
    assert ended.code == 0
    assert (ended.json["num_terms"], ended.json["is_met"], ended.json["is_fresh"]) == (10_000, True, True)
    assert ended.json["schema"] == "gb45654"
    assert len(ended.json["categories"]) == 31
    assert set(ended.json["digests"]) == {"a.tsv", "b.tsv"}
    shown = main("keywords", "coverage", *parts)
    assert "schema gb45654: covered" in shown.out
    assert "煽动颠覆国家政权" in shown.out


def test_what_lacks_is_told_and_is_a_failure(main: Main, tmp_path: Path) -> None:
    path = library(tmp_path / "a.tsv", [("A.1.6", "成人"), ("A.1.6", "成 人"), ("other", "x")])
    ended = main("keywords", "coverage", path, "--json")
    assert ended.code == 1
    found = ended.json
    (row,) = [each for each in found["categories"] if each["category"] == "A.1.6"]
    assert (row["num_terms"], row["num_missing"]) == (1, 199)
    assert (found["num_elsewhere"], found["repeated"]["count"], found["innocent"]["count"]) == (1, 1, 1)
    shown = main("keywords", "coverage", path)
    assert shown.code == 1
    assert "not covered" in shown.out
    assert "成人礼" in shown.out


def test_an_old_library_is_a_failure(main: Main, tmp_path: Path) -> None:
    path = library(tmp_path / "a.tsv", full_rows(), added_on="2020-01-31")
    assert main("keywords", "coverage", path).code == 1
    assert main("keywords", "coverage", path, "--max-age-days", 100_000).code == 0


def test_the_lists_of_a_recipe(main: Main, tmp_path: Path) -> None:
    library(tmp_path / "a.tsv", full_rows())
    source = {"kind": "warc", "paths": ["a.warc.gz"]}
    recipe = write_recipe(tmp_path / "r.yaml", source, compliance={"lexicons": ["a.tsv"]})
    assert main("keywords", "coverage", recipe, "--json").json["files"] == {"a.tsv": 10_000}
    assert not (tmp_path / "workspace").exists()


def test_an_own_schema(main: Main, tmp_path: Path) -> None:
    schema = tmp_path / "mine.txt"
    schema.write_text("# min_total: 1\ncategory\tmin_terms\tname_zh\tname_en\nown\t1\t自己的\town\n", encoding="utf-8")
    path = library(tmp_path / "a.tsv", [("own", "x")])
    ended = main("keywords", "coverage", path, "--schema", schema, "--json")
    assert (ended.code, ended.json["schema"], ended.json["is_met"]) == (0, "mine.txt", True)


def test_what_is_wrong_is_one_line_and_code_2(main: Main, tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_text(HEADER + "A.1.1\tx\tfuzzy\t\t\n", encoding="utf-8")
    good = library(tmp_path / "a.tsv", [("A.1.1", "x")])
    bare = write_recipe(tmp_path / "r.yaml", {"kind": "warc", "paths": ["a.warc.gz"]})
    missing = write_recipe(tmp_path / "m.yaml", {"kind": "warc", "paths": ["a"]}, compliance={"lexicons": ["no.txt"]})
    url = write_recipe(
        tmp_path / "u.yaml", {"kind": "warc", "paths": ["a"]}, compliance={"lexicons": ["https://a.example/x.tsv"]}
    )
    for arguments, says in (
        ([tmp_path / "bad.tsv"], "'fuzzy' in line 2"),
        ([tmp_path / "none.tsv"], "none.tsv that cannot be read"),
        ([good, bare], "one recipe or keyword libraries"),
        ([bare], "compliance.lexicons: got none"),
        ([missing], "no.txt"),
        ([url], "not fetched yet"),
        ([good, "--schema", good], "got schema a.tsv without a first line of columns"),
    ):
        ended = main("keywords", "coverage", *arguments)
        assert ended.code == 2, arguments
        assert says in ended.err
        assert ended.err.count("\n") == 1
        assert "Traceback" not in ended.err
    assert main("keywords", "coverage").code == 2
    assert json.loads(main("keywords", "coverage", good, "--json").out)
