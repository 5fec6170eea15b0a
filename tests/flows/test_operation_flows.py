"""The flows that are deployed, in this process: what they decide, say, keep and refuse. Workers: see test_operations.py."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flow_inputs import OFF, article_records, write_recipe, write_warc
from mlflow import MlflowClient
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.deployed import events, operations
from flows.workspace import Workspace
from pipelines.errors import ConfigError, IntegrityError

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

RECORDS = article_records()
FREE = {"min_free_gib": 0.0, "wait_minutes": 0.0}


@pytest.fixture(autouse=True)
def server(prefect_url: str) -> Iterator[None]:
    with temporary_settings(updates={PREFECT_API_URL: prefect_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The events that leave, with their facts."""
    found: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(events, "tell", lambda event, _recipe, _place, facts: found.append((event, dict(facts))))
    return found


class Site:
    """A recipe whose pages change."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, Workspace(folder / "w")
        source = {"kind": "warc", "paths": ["pages/*.warc.gz"]}
        self.recipe = write_recipe(folder / "recipe.yaml", source, name="nightly", **{**OFF, "dedup": "off"})

    def write(self, name: str, first: int, last: int) -> None:
        write_warc(self.folder / "pages" / f"{name}.warc.gz", RECORDS[first:last])

    def run(self, flow: Callable[..., Any], **parameters: Any) -> Any:
        return flow(recipe=str(self.recipe), workspace=str(self.place.root), **{**FREE, **parameters})


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.write("a", 0, 10)
    return made


def test_a_refresh_says_whether_to_train_and_looks_at_its_funnel_and_the_disk(site: Site, told: list[Any]) -> None:
    first = site.run(operations.refresh, workers=0, min_free_gib=1e6)
    assert (first["train"]["is_to_train"], first["documents"]["in"]) == (True, 10)
    kept = json.loads((site.place.report_folder("nightly") / "train_decision.json").read_text())["values"]
    assert kept == first["train"]
    assert [event for event, _ in told] == [*2 * ["corpusmill.alert.disk-low"], events.CHANGED_ENOUGH]
    site.write("b", len(RECORDS) - 4, len(RECORDS))  # Chinese ones
    site.recipe.write_text(site.recipe.read_text().replace("language: 'off'", "language: {allowed: [zh]}"))
    told.clear()
    second = site.run(operations.refresh, workers=0)
    assert (second["documents"]["in"], second["documents"]["kept"]) == (14, 4)
    assert [event for event, _ in told] == ["corpusmill.alert.funnel-moved", events.CHANGED_ENOUGH]
    alert = events.read_alerts(site.place)[-1]
    assert alert["kind"] == "funnel-moved"
    assert " of the pages, and " in alert["message"]


def test_a_take_down_is_asked_for_once_and_certified(site: Site, told: list[Any]) -> None:
    site.run(operations.refresh, workers=0)
    url = RECORDS[3].split(b"WARC-Target-URI: ")[1].split(b"\r\n")[0].decode()
    asked = {"scope": "url", "value": url, "reason": "asked for", "by": "a person"}
    free = {name: value for name, value in FREE.items() if name != "min_free_gib"}
    where = {"recipe": str(site.recipe), "workspace": str(site.place.root), "workers": 0, **free}
    done = operations.takedown(**asked, **where)
    assert url in Path(done["certificate"]).with_suffix(".md").read_text()
    assert operations.takedown(**asked, **where)["takedown"] == done["takedown"], (
        "a run that is taken up asks no second time"
    )
    assert len(site.place.takedown_ledger.read_text().splitlines()) == 1


def test_maintenance_keeps_copies_and_tells_damage(site: Site, told: list[Any], tmp_path: Path) -> None:
    site.run(operations.refresh, workers=0)
    told.clear()
    copies = tmp_path / "copies"
    done = site.run(operations.maintenance, backup_folder=str(copies))
    assert done["verified"]["damaged"] == []
    assert [str(path) for path in copies.iterdir()] == [done["backup"]["path"]]
    assert told == []
    operations.takedown(
        scope="domain",
        value="a.test",
        reason="r",
        by="b",
        recipe=str(site.recipe),
        workspace=str(site.place.root),
        workers=0,
    )
    (certificate,) = site.place.takedown_folder.glob("*.json")
    certificate.write_text("{}")
    with pytest.raises(IntegrityError):
        site.run(operations.maintenance)


def test_the_next_operation_ends_what_an_earlier_one_left_open(
    site: Site, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tracker died before it heard of the end."""

    def die(*_: Any) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr("flows.tracker.tracking.TrackedRun.end", die)
        site.run(operations.refresh, workers=0)
    client = MlflowClient(tracking_uri=site.place.mlflow_uri)
    (left,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert left.info.status == "RUNNING"
    site.run(operations.refresh, workers=0)
    assert client.get_run(left.info.run_id).info.status == "KILLED"
    found = client.search_runs([left.info.experiment_id])
    assert sorted(run.info.status for run in found) == ["FINISHED", "KILLED"]


def test_a_worker_without_a_workspace_is_told_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its working directory is gone after the run, and everything that was made with it."""
    monkeypatch.delenv("CORPUSMILL_WORKSPACE", raising=False)
    with pytest.raises(ConfigError, match=r"workspace: got none, .* wanted a folder that outlives the run: name one\."):
        operations.refresh(recipe=str(site.recipe))
