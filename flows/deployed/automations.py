"""The automations of a recipe's deployments: what follows a refresh, a training, a dead process, an alert.

A run whose process is gone is told by its heartbeats: three are missing (Prefect does nothing about that by itself), so
it is set to Crashed. A run that no process takes up is told likewise. A crashed run is scheduled again a minute later, so that a
worker of its pool takes it up where it stopped; a run does not let that happen for ever (`MAX_CRASHES`).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from uuid import UUID

from flows.deployed.events import ALERT, CHANGED_ENOUGH, RESOURCE, TRAINED, AlertKind, resource_id
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

HEARTBEAT_SECONDS = 30
"""The least that Prefect allows; `infra/prefect.yaml` asks for it."""
_SILENCE = timedelta(seconds=3 * HEARTBEAT_SECONDS)
_START_PATIENCE = timedelta(minutes=10)
"""For a process to begin a run that a worker took: importing everything takes seconds, a container's image minutes."""
_ENDS = frozenset(f"prefect.flow-run.{name}" for name in ("Completed", "Superseded", "Failed", "Cancelled", "Crashed"))
_LIVES = frozenset(f"prefect.flow-run.{name}" for name in ("AwaitingRetry", "Scheduled", "Pending", "Running"))
_SETTLING = timedelta(seconds=60)
"""Between a crash and the next try. A worker reports a process that was killed twice, half a minute apart on a busy
machine: the second time would be the end of a run that goes on again, and begin a third."""
MAX_CRASHES = 5
"""Of a run, after which it counts as one that crashes whatever it runs on, and is left for a person to look at."""
BROKEN_OFF = "A stop of its worker broke it off."
"""The message of a state by which a run ends, or is scheduled again, because somebody stopped what it ran on."""
_TAG = "corpusmill"
_TAKING_UP = "a crashed run is taken up again"
NO_BLOCK = "none"
"""As the name of a block: alerts stay on the server from now on."""


def num_crashes(states: Iterable[tuple[str, str | None]]) -> int:
    """Of a run's states, as type and message from the oldest to the newest, how many are crashes that count.

    One that a person's stop made does not: a long training would be given up after five evenings. The stopped process
    may have said itself that it crashed, and then the state that follows tells why.
    """
    ordered = list(states)
    return sum(
        state == "CRASHED" and BROKEN_OFF not in {message for _, message in ordered[idx : idx + 2]}
        for idx, (state, _) in enumerate(ordered)
    )


def automations_of(
    client: Any, recipe: str, workspace: Path, deployments: Mapping[str, UUID], *, alert_block: str | None
) -> "list[AutomationCore]":
    """Every automation of a recipe whose flows (`train`, ...) are deployed under these ids. Raises ConfigError for a block.

    Alerts are everybody's on the server: without an `alert_block` they leave by what they left by before.
    """
    return [
        *_follow_ups(recipe, workspace, deployments),
        *_of_dead_runs(recipe, list(deployments.values())),
        *_alerts(client, alert_block),
    ]


def is_taking_up(name: str) -> bool:
    """Whether an automation of that name takes crashed runs up again."""
    return name.endswith(f": {_TAKING_UP}")


def apply_automations(client: Any, wanted: "Sequence[AutomationCore]") -> list[str]:
    """Create them, or bring those of the same name up to date. Gives their names.

    One that an operator switched off stays off.
    """
    for each in wanted:
        known = client.read_automations_by_name(each.name)
        if known:
            whole = each.model_dump(mode="json", exclude={"owner_resource"}) | {"enabled": known[0].enabled}
            # An update leaves out what was not set, and the server then misses it.
            client.update_automation(known[0].id, type(each).model_validate(whole))
        else:
            client.create_automation(each)
    return [each.name for each in wanted]


def _follow_ups(recipe: str, workspace: Path, deployments: Mapping[str, UUID]) -> "list[AutomationCore]":
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

    match = {"prefect.resource.id": resource_id(recipe, workspace)}

    def after(event: str, flow: str, name: str, description: str) -> AutomationCore:
        return AutomationCore(
            name=f"corpusmill {recipe}: {name}",
            description=description,
            tags=[_TAG],
            trigger=EventTrigger(match=match, expect={event}),
            actions=[RunDeployment(deployment_id=deployments[flow])],
        )

    return [
        after(
            CHANGED_ENOUGH,
            "train",
            "train after a corpus that changed enough",
            "How much is enough is `train_share` of the refresh; each decision is its artifact `train-decision`.",
        ),
        after(TRAINED, "evaluate", "evaluate after training", "Each training that ends with a model is measured."),
    ]


def _of_dead_runs(recipe: str, deployments: Sequence[UUID]) -> "list[AutomationCore]":
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    trigger: dict[str, Any] = {
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {
            "prefect.resource.role": "deployment",
            "prefect.resource.id": [f"prefect.deployment.{each}" for each in deployments],
        },
        "for_each": {"prefect.resource.id"},
    }

    def missing(after: str, expect: frozenset[str], within: timedelta) -> EventTrigger:
        return EventTrigger(
            **trigger, posture=Posture.Proactive, threshold=1, within=within, after={after}, expect=set(expect)
        )

    def crash(message: str) -> ChangeFlowRunState:
        return ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)

    return [
        AutomationCore(
            name=f"corpusmill {recipe}: a run that went silent has crashed",
            description="Its process, its worker or its machine is gone: three heartbeats are missing.",
            tags=[_TAG],
            trigger=missing(
                "prefect.flow-run.heartbeat",
                _ENDS | {"prefect.flow-run.heartbeat", "prefect.flow-run.AwaitingRetry"},
                _SILENCE,
            ),
            actions=[crash("Its heartbeats stopped: the process, the worker or the machine is gone.")],
        ),
        AutomationCore(
            name=f"corpusmill {recipe}: a run that no process began has crashed",
            description="A worker took it and went: it would hold its deployment's only place for ever.",
            tags=[_TAG],
            trigger=missing("prefect.flow-run.Pending", _ENDS | {"prefect.flow-run.Running"}, _START_PATIENCE),
            actions=[crash("A worker took it, and no process began it: the worker is gone.")],
        ),
        AutomationCore(
            name=f"corpusmill {recipe}: {_TAKING_UP}",
            description="By any worker of its pool, where it stopped: what was finished is kept, a training goes on.",
            tags=[_TAG],
            trigger=missing("prefect.flow-run.Crashed", _LIVES, _SETTLING),
            actions=[
                ChangeFlowRunState(
                    state=StateType.SCHEDULED, name="AwaitingRetry", message="It crashed, and goes on where it stopped."
                )
            ],
        ),
    ]


def blocks_of(client: Any, automations: "Sequence[AutomationCore]") -> list[str]:
    """The blocks, TYPE/NAME, that alerts leave by."""
    from prefect.exceptions import ObjectNotFound

    found = set()
    for each in {getattr(action, "block_document_id", None) for one in automations for action in one.actions} - {None}:
        try:
            block = client.read_block_document(each)
        except ObjectNotFound:  # deleted since; the automation says so when it acts
            continue
        found.add(f"{block.block_type.slug}/{block.name}")
    return sorted(found)


def _alerts(client: Any, block: str | None) -> "list[AutomationCore]":
    from prefect.events.actions import DoNothing
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

    named = None if block is None else [_leave_by(client, block)]

    def actions(name: str) -> list[Any]:
        if named is not None:
            return named
        known = client.read_automations_by_name(name)
        return list(known[0].actions) if known else [DoNothing()]

    ours = {"prefect.resource.id": f"{RESOURCE}.*"}
    tagged = {"prefect.resource.id": f"prefect.tag.{_TAG}"}
    failed = {f"prefect.flow-run.{name}" for name in ("Failed", "Crashed", "TimedOut")}
    runs = EventTrigger(match={"prefect.resource.id": "prefect.flow-run.*"}, match_related=tagged, expect=failed)
    triggers = {"failure": runs} | {
        kind: EventTrigger(match=ours, expect={f"{ALERT}.{kind}"}) for kind in get_args(AlertKind)
    }
    return [
        AutomationCore(
            name=f"corpusmill: alert on {kind}",
            description="It leaves by the block of `corpusmill deploy --alert-block`; without one it stays in the events.",
            tags=[_TAG],
            trigger=trigger,
            actions=actions(f"corpusmill: alert on {kind}"),
        )
        for kind, trigger in triggers.items()
    ]


def _leave_by(client: Any, block: str) -> Any:
    """The action of an alert: a notification or webhook block, named TYPE/NAME, which holds the secret; or none."""
    from prefect.events.actions import CallWebhook, DoNothing, SendNotification
    from prefect.exceptions import ObjectNotFound

    if block == NO_BLOCK:
        return DoNothing()
    kind, _, name = block.partition("/")
    if not kind or not name:
        raise ConfigError(
            f"--alert-block: got {block!r}, wanted TYPE/NAME, such as slack-webhook/ops, or none: correct it."
        )
    try:
        found = client.read_block_document_by_name(name=name, block_type_slug=kind)
    except ObjectNotFound:
        raise ConfigError(
            f"--alert-block: got {block!r}, which the server does not have, wanted a block on it: make one in its UI or "
            "see `prefect block ls`."
        ) from None
    text = "{{ event.event }}: {{ event.payload.message or event.resource.name }}"
    if kind == "webhook":
        body = '{"event": {{ event.event | tojson }}, "recipe": {{ event.resource.name | tojson }}}'
        return CallWebhook(block_document_id=found.id, payload=body)
    return SendNotification(block_document_id=found.id, subject="corpusmill", body=text)
