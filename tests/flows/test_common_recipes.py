"""The recipes for the common cases: each is complete, and runs once its files lie beside it."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Outcome
from flow_inputs import SMALL, article_records, article_site, serve, write_warc
from tiny_export import export_tiny

from flows.demo.site import load_pages
from flows.recipe import load_recipe
from flows.workspace import Workspace

pytestmark = pytest.mark.timeout(600)

RECIPES = Path(__file__).parents[2] / "infra" / "recipes"
NAMES = ("my-sites", "common-crawl", "chinese", "from-gpt2")
KEYWORDS = "category\tterm\tmatch\tsource\tadded_on\nA.1.3\t不会出现的词\tauto\tours\t2026-11-20\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the four recipes, and with each file that one of them names."""
    pages = [page for page in load_pages() if page.kind == "article" and not page.plant]
    for language, name in (("zh", "articles"), ("en", "texts")):
        rows = [{"text": page.body, "url": page.url} for page in pages if page.language == language]
        (tmp_path / name).mkdir()
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / name / "1.jsonl").write_text(lines, encoding="utf-8")
    write_warc(tmp_path / "crawls" / "some.warc.gz", article_records()[:20])
    write_warc(tmp_path / "remote.warc.gz", article_records()[20:])
    (tmp_path / "month.paths").write_text("crawl-data/remote.warc.gz\n")
    (tmp_path / "keywords.tsv").write_text(KEYWORDS, encoding="utf-8")
    shutil.copytree(export_tiny(tmp_path / "scratch"), tmp_path / "gpt2")
    for name in NAMES:
        shutil.copy(RECIPES / f"{name}.yaml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_valid_and_names_itself(name: str, folder: Path) -> None:
    recipe = load_recipe(folder / f"{name}.yaml")
    assert recipe.name == name
    if name != "from-gpt2":  # the tiny model's context does not divide the real one's step
        recipe.check_files()
    config = recipe.corpus_config(Workspace(folder / "w").open_store())
    assert (config.perplexity is not None, len(config.signals.keyword_lexicons)) == (name == "chinese",) * 2


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_before_the_command_what_to_put_beside_it(name: str, folder: Path) -> None:
    head = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\nname: ")[0]
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    named = {path.partition("/")[0] for source in recipe["sources"] for path in source.get("paths", [])}
    named |= set(recipe.get("compliance", {}).get("lexicons", []))
    assert [each for each in named if each not in head and each != "crawls"] == []
    assert f"{name}.yaml" in head, "the commands"
    assert all((folder / each).exists() for each in named)


@pytest.fixture
def sites() -> Iterator[Callable[[bytes], dict[str, Any]]]:
    """What a source needs beside its own keys, to read from a server on loopback instead of the web."""
    with ExitStack() as stack:

        def at(warc: bytes) -> dict[str, Any]:
            site = stack.enter_context(
                serve({"/crawl-data/remote.warc.gz": ("application/octet-stream", warc), **article_site(200)})
            )
            return {"url": site.url(), "allow_addresses": [f"127.0.0.1:{site.port}"]}

        yield at


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_to_its_model(
    name: str,
    folder: Path,
    corpusmill: Callable[..., Outcome],
    sites: Callable[[bytes], dict[str, Any]],
) -> None:
    """With the web's part on loopback, and a model that takes seconds in the place of the recipe's; all else is as it stands."""
    path = folder / f"{name}.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    loopback = sites((folder / "remote.warc.gz").read_bytes())
    source, allowed = recipe["sources"][0], {"allow_addresses": loopback["allow_addresses"]}
    if name == "my-sites":
        source |= allowed | {"seeds": [loopback["url"]], "delay_seconds": 0, "delay_factor": 0}
    if name == "common-crawl":
        source |= allowed | {"base_url": loopback["url"]}
    recipe["training"] |= SMALL["training"]
    recipe["training"].pop("num_epochs", None)
    if name == "from-gpt2":
        recipe["training"]["tokens_per_step"] = 4 * 96  # the tiny model's context
    else:
        recipe["model"] = {"preset": "nano"} | SMALL["model"]
        recipe["tokenizer"] = SMALL["tokenizer"]
    recipe["dedup"] = recipe.get("dedup", {}) | SMALL["dedup"]
    recipe["evaluation"] = SMALL["evaluation"]
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")

    summary = corpusmill("run", path, "--workspace", folder / "w", "--json", timeout=500).summary
    assert summary["documents"]["kept"] >= 5, summary["documents"]
    assert summary["training"]["steps"] == SMALL["training"]["max_steps"]
    languages = {"chinese": {"zh"}, "from-gpt2": {"en"}}.get(name, {"en", "zh"})
    corpusmill("export", path, "--workspace", folder / "w", "--out", folder / "export", "--format", "jsonl")
    rows = [json.loads(line) for file in (folder / "export").glob("*.jsonl") for line in file.open(encoding="utf-8")]
    assert {row["language"] for row in rows} == languages
    again = corpusmill("plan", path, "--workspace", folder / "w", "--json").summary
    assert sum(stage["compute"] for stage in again["stages"]) == 0
