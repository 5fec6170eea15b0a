"""Lists named by URL: fetched once, checked, never silently old, empty or something else than was named."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import CountedSite, article_records, serve, write_recipe, write_warc

from flows.lists import fetch_lists, held_lists, lists_to_fetch
from flows.recipe import Recipe, parse_recipe
from flows.workspace import Workspace
from pipelines.digest import digest_bytes
from pipelines.errors import ConfigError, FetchError, InputError, IntegrityError

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

DOMAINS = b"# bad ones\nbad.example\nworse.example\n"
TERMS = "# category: own\nlighthouse\n灯塔\n".encode()


@pytest.fixture
def site() -> Iterator[CountedSite]:
    answers = {"/domains.txt": ("text/plain", DOMAINS), "/terms.txt": ("text/plain", TERMS)}
    with serve(answers) as served:
        yield served


def recipe_of(site: CountedSite, folder: Path, **compliance: object) -> Recipe:
    section = {
        "blocked_domains": [site.url("/domains.txt")],
        "lexicons": [site.url("/terms.txt")],
        "allow_addresses": [f"127.0.0.1:{site.port}"],
        **compliance,
    }
    text = f"name: r\nsources: [{{kind: warc, paths: [a.warc.gz]}}]\ncompliance: {json.dumps(section)}\n"
    return parse_recipe(text, folder)


def fetch(recipe: Recipe, place: Workspace) -> None:
    fetch_lists(recipe, place, lists_to_fetch(recipe, place))


def test_a_list_is_fetched_once_and_its_bytes_are_its_identity(site: CountedSite, tmp_path: Path) -> None:
    place, recipe = Workspace(tmp_path / "w"), recipe_of(site, tmp_path)
    store = place.open_store()
    with pytest.raises(ConfigError, match=r"compliance.lexicons: got http://127.*not fetched yet.*corpusmill build"):
        recipe.corpus_config(store)
    fetch(recipe, place)
    config = recipe.corpus_config(store)
    assert config.policy.block_lists[0].file.digest == digest_bytes(DOMAINS)
    assert config.signals.keyword_lexicons[0].digest == digest_bytes(TERMS)
    assert config.policy.block_lists[0].name.endswith("/domains")
    fetch(recipe, place)
    assert sorted(site.requests) == ["/domains.txt", "/terms.txt"]
    for held in held_lists(recipe, place):
        assert held.field in ("compliance.lexicons", "compliance.blocked_domains")
        assert held.file.digest in (digest_bytes(DOMAINS), digest_bytes(TERMS))


def test_a_list_that_grew_old_is_fetched_anew(site: CountedSite, tmp_path: Path) -> None:
    place, recipe = Workspace(tmp_path / "w"), recipe_of(site, tmp_path)
    fetch(recipe, place)
    later = datetime.now(UTC) + timedelta(hours=167)
    assert lists_to_fetch(recipe, place, later) == []
    later += timedelta(hours=2)
    assert len(lists_to_fetch(recipe, place, later)) == 2
    assert lists_to_fetch(recipe_of(site, tmp_path, max_list_age_hours=None), place, later) == []
    site.answers = {"/domains.txt": ("text/plain", b"new.example\n"), "/terms.txt": ("text/plain", TERMS)}
    before = recipe.corpus_config(place.open_store())
    fetch_lists(recipe, place, lists_to_fetch(recipe, place, later))
    after = recipe.corpus_config(place.open_store())
    assert after.policy.block_lists[0].file.digest == digest_bytes(b"new.example\n")
    assert after.signals == before.signals


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "without an entry"),
        (b"# nothing but words\n", "without an entry"),
        (b"<!doctype html><html><body>Sign in to go on</body></html>\n", "in line 1, wanted one domain"),
        (b"\x00\xff", "in line 1"),
    ],
)
def test_what_is_no_list_stops_the_run_and_the_old_one_stays(
    site: CountedSite, tmp_path: Path, body: bytes, message: str
) -> None:
    place, recipe = Workspace(tmp_path / "w"), recipe_of(site, tmp_path)
    fetch(recipe, place)
    site.answers = {**site.answers, "/domains.txt": ("text/html", body)}
    wanted = lists_to_fetch(recipe, place, datetime.now(UTC) + timedelta(days=8))
    for _ in range(2):  # and what was wrong is not taken for the list the next time
        with pytest.raises(InputError, match=message) as caught:
            fetch_lists(recipe, place, wanted)
        assert "compliance.blocked_domains" in str(caught.value)
        assert recipe.corpus_config(place.open_store()).policy.block_lists[0].file.digest == digest_bytes(DOMAINS)


def test_a_word_list_without_a_category_is_refused(site: CountedSite, tmp_path: Path) -> None:
    site.answers = {**site.answers, "/terms.txt": ("text/plain", b"just words\n")}
    with pytest.raises(InputError, match=r"compliance.lexicons: from http.*without a category"):
        fetch(recipe_of(site, tmp_path), Workspace(tmp_path / "w"))


def test_a_list_that_is_not_there_stops_the_run(site: CountedSite, tmp_path: Path) -> None:
    with pytest.raises((InputError, FetchError), match=r"none\.txt"):
        fetch(recipe_of(site, tmp_path, blocked_domains=[site.url("/none.txt")]), Workspace(tmp_path / "w"))


def test_only_named_private_addresses_are_reached(site: CountedSite, tmp_path: Path) -> None:
    with pytest.raises((InputError, FetchError)):
        fetch(recipe_of(site, tmp_path, allow_addresses=[]), Workspace(tmp_path / "w"))
    assert site.requests == []


def test_a_list_that_was_edited_in_the_workspace_is_not_used(site: CountedSite, tmp_path: Path) -> None:
    place, recipe = Workspace(tmp_path / "w"), recipe_of(site, tmp_path)
    fetch(recipe, place)
    path = Path(recipe.corpus_config(place.open_store()).policy.block_lists[0].file.path)
    path.write_bytes(DOMAINS.replace(b"bad", b"dab"))
    with pytest.raises(IntegrityError, match="not what was fetched from"):
        recipe.corpus_config(place.open_store())


@pytest.mark.parametrize(
    ("compliance", "message"),
    [
        ({"blocked_urls": ["ftp://a.example/x"]}, "compliance.blocked_urls: got 'ftp://a.example/x'"),
        (
            {"blocked_urls": ["https://me:hunter2@a.example/x"]},
            "got a URL with a user name, wanted no secret in a recipe: take the credentials out",
        ),
        ({"allow_addresses": ["nowhere"]}, "compliance.allow_addresses"),
        ({"max_list_age_hours": 0}, "compliance.max_list_age_hours: got 0, wanted above 0"),
    ],
)
def test_what_is_wrong_is_named(site: CountedSite, tmp_path: Path, compliance: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        recipe_of(site, tmp_path, **compliance)
    assert "hunter2" not in str(caught.value)


def test_through_a_whole_build(site: CountedSite, tmp_path: Path, pipeline: Any) -> None:
    write_warc(tmp_path / "a.warc.gz", article_records()[:20])
    listed = b"https://harbour.test/articles/bees.html\n"
    site.answers = {"/urls.txt": ("text/plain", listed)}
    lists = {"blocked_urls": [site.url("/urls.txt")], "allow_addresses": [f"127.0.0.1:{site.port}"]}
    recipe = write_recipe(
        tmp_path / "r.yaml",
        {"kind": "warc", "paths": ["a.warc.gz"]},
        compliance={**lists, "max_source_violation_ratio": None},
    )
    summary = pipeline(recipe, tmp_path / "w", "build")
    assert summary["documents"]["dropped"]["block_listed"] == 1
    card = (tmp_path / "w" / "reports" / "small" / "data_card.md").read_text("utf-8")
    assert digest_bytes(listed) in card
    again = pipeline(recipe, tmp_path / "w", "build")
    assert {stage["computed"] for stage in again["stages"]} == {0}
    assert site.requests == ["/urls.txt"]
