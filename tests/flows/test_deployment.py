"""`corpusmill deploy` on a real server: everything is there, once, and Prefect's form refuses what flows do not take."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flow_inputs import write_recipe
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deployed import deployment
from pipelines.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def client(prefect_url: str) -> Iterator[SyncPrefectClient]:
    with pytest.MonkeyPatch.context() as patch, temporary_settings(updates={PREFECT_API_URL: prefect_url}):
        patch.setenv("PREFECT_API_URL", prefect_url)
        with get_client(sync_client=True) as client:
            yield client


@pytest.fixture(scope="module")
def deploy(client: SyncPrefectClient, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    folder = tmp_path_factory.mktemp("deployed")
    recipe = write_recipe(folder / "small.yaml", {"kind": "warc", "paths": ["a.warc.gz"]}, name="deployed")
    return lambda **options: deployment.deploy(recipe, folder / "w", **options)


@pytest.fixture(scope="module")
def deployed(deploy: Callable[..., dict[str, Any]], client: SyncPrefectClient) -> SyncPrefectClient:
    """A client of the server, with everything deployed."""
    deploy()
    return client


def everything(client: SyncPrefectClient) -> dict[str, Any]:
    """What an operator sees, without what changes with the time."""
    moving = {"updated", "created", "status", "last_polled", "updated_by", "created_by"}
    deployments = [
        each.model_dump(exclude={*moving, "schedules", "concurrency_limit"})
        for each in client.read_deployments()
        if each.name == "deployed"
    ]
    schedules = [
        (each.schedule.cron, each.schedule.timezone, each.active, each.slug)
        for one in client.read_deployments()
        if one.name == "deployed"
        for each in one.schedules
    ]
    automations = [each.model_dump(exclude={"created", "updated"}) for each in client.read_automations()]
    return {"deployments": deployments, "schedules": sorted(schedules), "automations": automations}


def test_deploying_twice_is_deploying_once(deploy: Any, client: SyncPrefectClient) -> None:
    told = deploy(cron="30 4 * * 1-5", timezone="Europe/Berlin")
    before = everything(client)
    assert deploy(cron="30 4 * * 1-5", timezone="Europe/Berlin") == told
    assert everything(client) == before
    names = {each["name"]: each for each in told["deployments"]}
    assert set(names) == {f"{flow}/deployed" for flow in ("refresh", "train", "evaluate", "takedown", "maintenance")}
    assert names["train/deployed"]["pool"] == "gpu"
    assert names["refresh/deployed"]["schedules"] == ["30 4 * * 1-5 Europe/Berlin"]
    assert names["maintenance/deployed"]["schedules"] == ["0 12 * * 0 Europe/Berlin"]
    assert {each["name"]: each["type"] for each in told["pools"]} == {"cpu": "process", "gpu": "process"}
    assert {each["name"] for each in before["automations"]} >= set(told["automations"])
    assert len(before["schedules"]) == 2


def test_an_operators_changes_to_pools_and_automations_stay(deploy: Any, client: SyncPrefectClient) -> None:
    from prefect.client.schemas.actions import WorkPoolUpdate

    name = deploy()["automations"][0]
    (known,) = client.read_automations_by_name(name)
    client.pause_automation(known.id)
    client.update_work_pool("cpu", WorkPoolUpdate(concurrency_limit=3))
    deploy()
    assert not client.read_automations_by_name(name)[0].enabled
    assert client.read_work_pool("cpu").concurrency_limit == 3


def test_a_deployment_has_a_queue_that_lets_one_run_go_on(deployed: SyncPrefectClient) -> None:
    for flow, pool in (("refresh", "cpu"), ("train", "gpu"), ("takedown", "cpu")):
        known = deployed.read_deployment_by_name(f"{flow}/deployed")
        queue = deployed.read_work_queue_by_name(f"{flow}-deployed", work_pool_name=pool)
        assert (known.work_pool_name, known.work_queue_name) == (pool, queue.name)
        assert queue.concurrency_limit == 1
        assert known.concurrency_limit is None, "a lease, for whose loss Prefect ends a run"


def test_paused_schedules_make_no_runs(deploy: Any, client: SyncPrefectClient) -> None:
    deploy(paused=True)
    assert client.read_deployment_by_name("refresh/deployed").paused
    deploy()
    assert not client.read_deployment_by_name("refresh/deployed").paused


def test_the_form_has_choices_bounds_and_words(deployed: SyncPrefectClient) -> None:
    for name in ("refresh", "train", "evaluate", "takedown", "maintenance"):
        fields = deployed.read_deployment_by_name(f"{name}/deployed").parameter_openapi_schema["properties"]
        assert all(field["title"] and field["description"] for field in fields.values()), name
    fields = deployed.read_deployment_by_name("refresh/deployed").parameter_openapi_schema["properties"]
    assert (fields["train_share"]["minimum"], fields["train_share"]["maximum"], fields["train_share"]["default"]) == (
        0,
        1,
        0.05,
    )
    fields = deployed.read_deployment_by_name("takedown/deployed").parameter_openapi_schema["properties"]
    assert fields["scope"]["enum"] == ["url", "domain", "doc_id"], "never a quotation: Prefect would keep it"


@pytest.mark.parametrize(
    ("flow", "parameters", "sentence"),
    [
        ("refresh", {"train_share": 1.5}, "1.5 is greater than the maximum of 1"),
        ("refresh", {"workers": "many"}, "'many' is not valid under any of the given schemas"),
        ("refresh", {"wait_minutes": -1}, "-1 is less than the minimum of 0"),
        ("takedown", {"scope": "text", "value": "v", "reason": "r", "by": "b"}, "'text' is not one of"),
        ("takedown", {"scope": "url", "value": "v", "by": "b"}, "'reason' is a required property"),
        ("train", {"stop_seconds": 60}, "60 is greater than the maximum of 25"),
    ],
)
def test_the_server_refuses_wrong_values_with_a_sentence(
    deployed: SyncPrefectClient, flow: str, parameters: dict[str, Any], sentence: str
) -> None:
    known = deployed.read_deployment_by_name(f"{flow}/deployed")
    with pytest.raises(PrefectHTTPStatusError) as caught:
        deployed.create_flow_run_from_deployment(known.id, parameters=parameters)
    assert sentence in caught.value.response.json()["detail"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cron": "often"}, r"--cron: got 'often', wanted five fields .*: correct it\."),
        (
            {"timezone": "Mars/Base"},
            r"--timezone: got 'Mars/Base', wanted a name of the IANA database .*: correct it\.",
        ),
        ({"alert_block": "ops"}, r"--alert-block: got 'ops', wanted TYPE/NAME, .*: correct it\."),
        ({"alert_block": "webhook/gone"}, r"--alert-block: got 'webhook/gone', which the server does not have, .*"),
        ({"file": Path("gone.yaml")}, r"got no deployments from gone\.yaml .*: install corpusmill from a checkout .*"),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_a_sentence(deploy: Any, options: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        deploy(**options)


def test_alerts_leave_by_the_block_that_is_named(deploy: Any, client: SyncPrefectClient) -> None:
    from prefect.blocks.webhook import Webhook

    Webhook(url="http://127.0.0.1:9/secret").save("ops", overwrite=True)
    told = deploy(alert_block="webhook/ops")
    assert "secret" not in str(told)
    (alert,) = client.read_automations_by_name("corpusmill: alert on failure")
    assert alert.actions[0].type == "call-webhook"


def test_a_deployment_that_names_no_block_leaves_alerts_as_they_are(
    deploy: Any, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another recipe, of a restart of `up`, of Compose's service `deployments`."""
    from prefect.blocks.webhook import Webhook

    def action() -> str:
        (alert,) = client.read_automations_by_name("corpusmill: alert on failure")
        return str(alert.actions[0].type)

    Webhook(url="http://127.0.0.1:9/secret").save("kept", overwrite=True)
    assert deploy(alert_block="webhook/kept")["alerts_leave_by"] == "webhook/kept"
    before = client.read_automations_by_name("corpusmill: alert on damage")[0].actions
    told = deploy()
    assert (told["alerts_leave_by"], action()) == ("webhook/kept", "call-webhook")
    assert client.read_automations_by_name("corpusmill: alert on damage")[0].actions == before
    assert "  alerts leave by webhook/kept" in deployment.deployment_lines(told)
    told = deploy(alert_block="none")
    assert (told["alerts_leave_by"], action()) == (None, "do-nothing")
    monkeypatch.setenv("CORPUSMILL_ALERT_BLOCK", "webhook/kept")
    assert (deploy()["alerts_leave_by"], action()) == ("webhook/kept", "call-webhook")
    assert (deploy(alert_block="none")["alerts_leave_by"], action()) == (None, "do-nothing")


def test_the_file_that_is_checked_in_names_flows_that_are_there() -> None:
    from prefect.flows import load_flow_from_entrypoint

    body = yaml.safe_load(deployment.PREFECT_FILE.read_text(encoding="utf-8"))
    for each in body["deployments"]:
        flow = load_flow_from_entrypoint(each["entrypoint"], use_placeholder_flow=False)
        assert not flow.retries, "Prefect's flow retries lose the deployment's concurrency slot"
        assert each["parameters"].keys() <= flow.parameters.properties.keys()


def test_without_a_server_that_stays_up_nothing_is_deployed(main: Callable[..., Any]) -> None:
    done = main("deploy")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(
        "corpusmill: PREFECT_API_URL: got none, wanted the address of a Prefect server that stays up"
    )
    assert done.err.count("\n") == 1
