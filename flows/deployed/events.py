"""What the flows say to Prefect's event stream, where automations take it up; alerts go to the log and a file as well.

| event | when |
|---|---|
| corpusmill.corpus.changed-enough, .changed-little | after a refresh: whether to train again, and why |
| corpusmill.training.finished | a training ended with a model |
| corpusmill.alert.* | somebody should look: see `AlertKind` |

Each names the recipe in a workspace as its resource, so that automations of two recipes keep apart.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from flows.settings import redactor
from flows.workspace import Workspace
from pipelines.digest import digest_value
from pipelines.store import storage_errors

_logger = logging.getLogger(__name__)

CHANGED_ENOUGH = "corpusmill.corpus.changed-enough"
CHANGED_LITTLE = "corpusmill.corpus.changed-little"
TRAINED = "corpusmill.training.finished"
ALERT = "corpusmill.alert"
RESOURCE = "corpusmill.recipe"

AlertKind = Literal["funnel-moved", "crawl-slow", "disk-low", "damage"]

_NUM_KEPT_ALERTS = 1000
_ID_NUM_CHARS = 8


def resource_id(recipe: str, workspace: Path) -> str:
    """What a recipe in a workspace is called in events."""
    return f"{RESOURCE}.{digest_value(str(workspace))[:_ID_NUM_CHARS]}.{recipe}"


def tell(event: str, recipe: str, place: Workspace, facts: Mapping[str, Any]) -> None:
    """Emit an event. A server that is down costs the event, never the run."""
    from prefect.events import emit_event

    resource = {
        "prefect.resource.id": resource_id(recipe, place.root),
        "prefect.resource.name": recipe,
        "corpusmill.workspace": str(place.root),
    }
    try:
        payload = redactor().value(json.loads(json.dumps(dict(facts), default=str)))
        emit_event(event=event, resource=resource, payload=payload)
    except Exception as error:  # noqa: BLE001 - whatever a server does, the work goes on
        _logger.warning("got %s from Prefect for the event %s; the work goes on.", error, event)


def alert(kind: AlertKind, sentence: str, recipe: str, place: Workspace, facts: Mapping[str, Any]) -> None:
    """Say that somebody should look: in the log, in the workspace's `alerts.jsonl`, and as an event."""
    sentence = redactor().text(sentence)
    _logger.warning("alert, %s: %s", kind, sentence)
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "kind": kind, "recipe": recipe, "message": sentence}
    path = alerts_path(place)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = path.read_text(encoding="utf-8").splitlines()[-_NUM_KEPT_ALERTS + 1 :] if path.exists() else []
        temporary = path.with_name(f".{path.name}")
        temporary.write_text("\n".join([*kept, json.dumps(line, ensure_ascii=False)]) + "\n", encoding="utf-8")
        temporary.replace(path)
    tell(f"{ALERT}.{kind}", recipe, place, {**facts, "message": sentence})


def read_alerts(place: Workspace) -> list[dict[str, Any]]:
    """The newest alerts of a workspace, the newest last: `at` (UTC), `kind`, `recipe`, `message`."""
    found = []
    try:
        lines = alerts_path(place).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            found.append(dict(json.loads(line)))
        except ValueError:
            continue  # torn by a kill: for people only
    return found


def alerts_path(place: Workspace) -> Path:
    """Where the alerts of a workspace are kept, the newest thousand."""
    return place.root / "alerts.jsonl"
