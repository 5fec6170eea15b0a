"""`corpusmill deploy`: the work pools, deployments and automations of a recipe, on a Prefect server.

What is deployed stands in `infra/prefect.yaml`; the recipe, the workspace and the nightly schedule are filled in. All of
it is found by name and brought up to date, so that deploying again changes nothing.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints
from uuid import UUID
from zoneinfo import available_timezones

import yaml

from flows.recipe import load_recipe
from flows.settings import Settings, read_settings
from pipelines.errors import ConfigError, TransientError

PREFECT_FILE = Path(__file__).parents[2] / "infra" / "prefect.yaml"
POOLS = {"cpu": None, "gpu": 1}
"""Work pools that are created where they are missing, with how many runs each takes at a time on all its workers."""
_NIGHTLY = "nightly"


def deploy(
    recipe_path: Path | None,
    workspace_path: Path | None,
    *,
    cron: str | None = None,
    timezone: str | None = None,
    paused: bool = False,
    alert_block: str | None = None,
    file: Path = PREFECT_FILE,
) -> dict[str, Any]:
    """Bring a server's pools, deployments and automations up to date with the file; says what there is now.

    `cron` replaces the nightly schedule, `timezone` that of every schedule; `paused` keeps schedules from making runs.
    `alert_block` names a notification or webhook block, TYPE/NAME, that alerts leave by; `none` keeps them on the server.
    None takes CORPUSMILL_ALERT_BLOCK, and without that leaves it as it is.
    Raises ConfigError for what the server or this machine cannot take, TransientError where the server fails.
    """
    recipe = load_recipe(recipe_path)
    settings = read_settings(workspace_path)
    if settings.prefect_api_url is None:
        raise ConfigError(
            "PREFECT_API_URL: got none, wanted the address of a Prefect server that stays up: run `corpusmill up`, or "
            "start one with `prefect server start` and export PREFECT_API_URL=http://127.0.0.1:4200/api."
        )
    from flows.control_plane import check_answers

    check_answers("PREFECT_API_URL", settings.prefect_api_url)
    wanted = [
        _filled(each, recipe.name, recipe_path, settings, cron=cron, timezone=timezone) for each in _read_file(file)
    ]
    return _apply(wanted, recipe.name, settings, paused=paused, alert_block=alert_block or settings.alert_block)


def _read_file(path: Path) -> list[dict[str, Any]]:
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [dict(each) for each in body["deployments"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"got no deployments from {path} ({type(error).__name__}: {error}), wanted the file that comes with the "
            "source: install corpusmill from a checkout with `pip install -e .`."
        ) from error


def _filled(
    deployment: Mapping[str, Any],
    name: str,
    recipe_path: Path | None,
    settings: Settings,
    *,
    cron: str | None,
    timezone: str | None,
) -> dict[str, Any]:
    """A deployment of the file with the recipe's name, its parameters and its schedules."""
    parameters = dict(deployment.get("parameters") or {}) | {
        "recipe": str(recipe_path.absolute()) if recipe_path else None,
        "workspace": str(settings.workspace),
    }
    schedules = [dict(each) for each in deployment.get("schedules") or ()]
    for schedule in schedules:
        schedule["timezone"] = timezone or schedule.get("timezone", "UTC")
        if cron is not None and schedule.get("slug") == _NIGHTLY:
            schedule["cron"] = cron
        _check_schedule(schedule)
    return {**deployment, "name": name, "parameters": parameters, "schedules": schedules}


def _check_schedule(schedule: Mapping[str, Any]) -> None:
    if schedule["timezone"] not in available_timezones():
        raise ConfigError(
            f"--timezone: got {schedule['timezone']!r}, wanted a name of the IANA database such as Europe/Berlin: correct it."
        )
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    except ValueError:
        raise ConfigError(
            f"--cron: got {schedule['cron']!r}, wanted five fields (minute hour day month weekday) such as '0 3 * * *': "
            "correct it."
        ) from None


def _apply(
    wanted: Sequence[Mapping[str, Any]], recipe: str, settings: Settings, *, paused: bool, alert_block: str | None
) -> dict[str, Any]:
    os.environ["DO_NOT_TRACK"] = "1"
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException

    from flows.deployed.automations import apply_automations, automations_of, blocks_of

    try:
        with get_client(sync_client=True) as client:
            pools = [_ensure_pool(client, name, limit) for name, limit in POOLS.items()]
            ids = {
                each["entrypoint"].rpartition(".")[2]: _apply_deployment(client, each, paused=paused) for each in wanted
            }
            made = automations_of(client, recipe, settings.workspace, ids, alert_block=alert_block)
            automations = apply_automations(client, made)
            blocks = blocks_of(client, made)
    except (HTTPError, PrefectException) as error:
        raise TransientError(
            f"got {type(error).__name__} from {settings.prefect_api_url} ({' '.join(str(error).split())[:300]}), wanted "
            "the deployments taken: see the server's log, and run the same command again."
        ) from error
    return {
        "server": settings.prefect_api_url,
        "recipe": recipe,
        "workspace": str(settings.workspace),
        "paused": paused,
        "pools": pools,
        "deployments": [
            {
                "name": f"{flow}/{recipe}",
                "id": str(ids[flow]),
                "pool": each["work_pool"]["name"],
                "schedules": [f"{one['cron']} {one['timezone']}" for one in each["schedules"]],
            }
            for flow, each in ((each["entrypoint"].rpartition(".")[2], each) for each in wanted)
        ],
        "automations": automations,
        "alerts_leave_by": ", ".join(blocks) or None,
    }


def _ensure_pool(client: Any, name: str, concurrency_limit: int | None) -> dict[str, Any]:
    """A pool that is there stays as it is, of whatever type: an operator may have made it one of Docker or Kubernetes."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = client.create_work_pool(
            WorkPoolCreate(name=name, type="process", base_job_template=template, concurrency_limit=concurrency_limit)
        )
    return {"name": name, "type": pool.type, "concurrency_limit": pool.concurrency_limit}


def _ensure_queue(client: Any, flow: str, wanted: Mapping[str, Any]) -> str:
    """The queue of a deployment, in which one run at a time may go on. One that is there stays as it is."""
    from prefect.exceptions import ObjectNotFound

    name, pool = f"{flow}-{wanted['name']}", wanted["work_pool"]["name"]
    try:
        client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        client.create_work_queue(name, concurrency_limit=1, work_pool_name=pool)
    return name


def _apply_deployment(client: Any, wanted: Mapping[str, Any], *, paused: bool) -> UUID:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    flow = load_flow_from_entrypoint(wanted["entrypoint"], use_placeholder_flow=False)
    created: UUID = client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=wanted["name"],
        entrypoint=wanted["entrypoint"],
        description=wanted["description"],
        tags=wanted["tags"],
        work_pool_name=wanted["work_pool"]["name"],
        work_queue_name=_ensure_queue(client, flow.name, wanted),
        job_variables=wanted["work_pool"].get("job_variables") or {},
        parameters=wanted["parameters"],
        parameter_openapi_schema=_form(flow.fn, parameter_schema(flow).model_dump_for_openapi()),
        enforce_parameter_schema=True,
        paused=paused,
        schedules=[
            DeploymentScheduleCreate(
                slug=each["slug"], schedule=CronSchedule(cron=each["cron"], timezone=each["timezone"])
            )
            for each in wanted["schedules"]
        ],
    )
    return created


def _form(function: Callable[..., Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A flow's schema with the words of its `Field`s, of which Prefect takes the bounds and leaves title and description."""
    for name, hint in get_type_hints(function, include_extras=True).items():
        for field in getattr(hint, "__metadata__", ()):
            words = {"title": field.title, "description": field.description}
            schema["properties"][name] |= {key: word for key, word in words.items() if word}
    return schema


def deployment_lines(found: Mapping[str, Any]) -> list[str]:
    """What there is now, for a person."""
    lines = [f"{found['server']}: recipe {found['recipe']}, workspace {found['workspace']}"]
    lines += [
        f"  {each['name']}: pool {each['pool']}, {', '.join(each['schedules']) or 'on demand'}"
        + (" (paused)" if found["paused"] and each["schedules"] else "")
        for each in found["deployments"]
    ]
    lines += [f"  automation: {name}" for name in found["automations"]]
    lines.append(
        f"  alerts leave by {found['alerts_leave_by']}"
        if found["alerts_leave_by"]
        else "  alerts stay in Prefect's events, the log and `corpusmill status`: --alert-block sends them on"
    )
    return lines
