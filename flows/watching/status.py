"""`corpusmill status`: what runs, what is due, what failed and what to do about it, on one screen.

It looks and takes no lock: beside a run it reads what that writes (run_state.py) and the crawl ledgers, and asks the servers that
are configured, for seconds at most. It works with no server, with a dead one, and where there is no workspace yet.
"""

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.deployed.events import read_alerts
from flows.settings import prefect_authorization, read_settings, redactor, tracker_authorization
from flows.watching.asking import ask_champions, ask_prefect, parsed_time
from flows.watching.run_state import State, is_alive, read_state
from flows.watching.takedowns_waiting import waiting
from flows.workspace import Workspace
from pipelines.crawl.report import crawl_report
from pipelines.errors import CorpusmillError, TerminalError

Facts = dict[str, Any]

_LATE = timedelta(minutes=5)
"""From when a scheduled run that did not begin is overdue."""
_ALERT_AGE = timedelta(days=2)
_SIZE_SECONDS = 1.5
_MAX_SHOWN = 8
_FAILED = ("failed", "killed")
_OWNER = re.compile(r"process (\d+) on (\S+) since ([-\d]+ [:\d]+) UTC")


def status(workspace_path: Path | None) -> Facts:
    """Everything that a person asks first. `ok` is False where something failed or is overdue."""
    settings = read_settings(workspace_path)
    place, now = Workspace.of(settings), datetime.now(UTC)
    state = read_state(place)
    services = _services(place)
    secrets = _secrets(services.get("credentials"))
    api_url = settings.prefect_api_url or services.get("prefect_api")
    prefect = _prefect(api_url, prefect_authorization(secrets), place, now)
    crawls = _crawls(place)
    takedowns, damage = _takedowns(place)
    tracker = settings.mlflow_tracking_uri or services.get("mlflow") or place.mlflow_uri
    champions, champion_problem = _champions(tracker, tracker_authorization(secrets))
    failed = [*_failed_runs(state), *prefect["failed"], *damage]
    failed += [
        {"what": f"crawl {each['crawl']}", "message": each["problem"], "do": None, "at": None}
        for each in crawls
        if "problem" in each
    ]
    found: Facts = {
        "workspace": str(place.root),
        "is_begun": place.root.is_dir(),
        "at": now.isoformat(timespec="seconds"),
        "ok": not failed and not prefect["overdue"],
        "running": _running(state, place, prefect["running"]),
        "failed": failed,
        "overdue": prefect["overdue"],
        "due": {"schedules": prefect["due"], "crawls": [each for each in crawls if "problem" not in each]},
        "prefect": {name: prefect[name] for name in ("url", "answers", "problem")},
        "runs": _last_runs(state),
        "alerts": _alerts(place, now),
        "takedowns_waiting": takedowns,
        "champions": champions,
        "champion_problem": champion_problem,
        "disk": _disk(place),
    }
    hidden: Facts = redactor().value(found)
    return hidden


# what runs


def _running(state: State, place: Workspace, others: Sequence[Facts]) -> list[Facts]:
    found: list[Facts] = []
    process, progress = state.get("process"), state.get("progress")
    if is_alive(state) and state["running"]:
        flow = state["running"][0]
        within = state["running"][-1]
        found.append(
            {
                "what": f"{flow['flow']} {flow['recipe']}",
                "flow": within["flow"],
                "recipe": flow["recipe"],
                "flow_run_id": flow["flow_run_id"],
                "since": _iso(flow["started_at"]),
                "host": process["host"],
                "pid": process["pid"],
                "stage": progress and progress["stage"],
                "done": progress and progress["done"],
                "of": progress and progress["of"],
                "note": progress and progress["note"],
            }
        )
    elif (owner := _lock_owner(place.root / "lock")) is not None:
        found.append({"what": "a command that holds the workspace", **owner})
    known = {each.get("flow_run_id") for each in found}
    return found + [each for each in others if each["flow_run_id"] not in known]


def _lock_owner(path: Path) -> Facts | None:
    """Who holds a workspace's lock, as far as this host's kernel tells; None where nobody does. Asks without locking."""
    try:
        inode = path.stat().st_ino
        said = _OWNER.search(path.read_text(encoding="utf-8", errors="replace"))
        locks = Path("/proc/locks").read_text(encoding="utf-8")
    except OSError:
        return None
    held = any(
        "FLOCK" in line and "WRITE" in line and f":{inode} " in line and "->" not in line for line in locks.splitlines()
    )
    if not held:
        return None
    if said is None:
        return {"host": socket.gethostname(), "pid": None, "since": None}
    return {"host": said[2], "pid": int(said[1]), "since": said[3].replace(" ", "T") + "+00:00"}


# what failed


def _failed_runs(state: State) -> Iterator[Facts]:
    """The last runs that failed, unless the part that failed has since ended well; a part's failure is told once."""
    runs = {(each["flow"], each["recipe"]): each for each in state["runs"].values()}
    if state["running"] and not is_alive(state):
        for each in state["running"]:
            runs[each["flow"], each["recipe"]] = {
                **each,
                "outcome": "killed",
                "message": "its process is gone",
                "ended_at": state["updated_at"],
            }
    shown: set[tuple[str, str]] = set()
    for key, each in sorted(runs.items(), key=lambda item: item[1]["started_at"]):
        if each["outcome"] not in _FAILED or key in shown:
            continue
        part = runs.get((each.get("failed_in") or each["flow"], each["recipe"]))
        if part is not None and part["outcome"] == "finished" and part["started_at"] > each["started_at"]:
            continue
        within = [
            other
            for other, one in runs.items()
            if one["outcome"] in _FAILED
            and each["started_at"] <= one["started_at"] <= each["ended_at"]
            and one["recipe"] == each["recipe"]
        ]
        shown |= set(within)
        yield {
            "what": f"{each['flow']} {each['recipe']}",
            "message": each["message"],
            "do": each["again"],
            "at": _iso(each["ended_at"]),
        }


def _last_runs(state: State) -> list[Facts]:
    ended = sorted(state["runs"].values(), key=lambda each: -each["ended_at"])
    return [
        {
            "flow": each["flow"],
            "recipe": each["recipe"],
            "outcome": each["outcome"],
            "ended_at": _iso(each["ended_at"]),
            "seconds": round(max(0.0, each["ended_at"] - each["started_at"]), 1),
            "succeeded_at": _iso(each["succeeded_at"]),
            "message": each["message"],
        }
        for each in ended
    ]


def _alerts(place: Workspace, now: datetime) -> list[Facts]:
    """What deployed runs raised of late, the newest first: somebody should look, though nothing failed."""
    since = (now - _ALERT_AGE).isoformat(timespec="seconds")
    return [each for each in reversed(read_alerts(place)) if str(each.get("at", "")) >= since]


# what is due


def _prefect(url: str | None, authorization: str | None, place: Workspace, now: datetime) -> Facts:
    """What the Prefect server says of this workspace; nothing where there is none."""
    found: Facts = {"url": url, "answers": None, "problem": None, "running": [], "failed": [], "due": [], "overdue": []}
    if url is None:
        return found
    try:
        told = ask_prefect(url.rstrip("/"), authorization, now)
    except TerminalError as error:
        return found | {"answers": False, "problem": str(error)}
    names = {each["id"]: each["name"] for each in told["deployments"]}
    ours = {
        kind: [run for run in told[kind] if (run.get("parameters") or {}).get("workspace") in (None, str(place.root))]
        for kind in ("scheduled", "running", "ended")
    }
    paused = {each["id"] for each in told["deployments"] if each.get("paused")}
    due = [
        {
            "what": names.get(run["deployment_id"]) or run["name"],
            "at": run.get("expected_start_time"),
            "flow_run_id": run["id"],
        }
        for run in ours["scheduled"]
        if run["deployment_id"] not in paused
    ]
    late = [each for each in due if (at := parsed_time(each["at"])) is not None and now - at > _LATE]
    running = [
        {
            "what": f"{run['name']} ({str(run['state_name'] or '').lower()} in Prefect)",
            "flow_run_id": run["id"],
            "since": run.get("start_time"),
        }
        for run in ours["running"]
        if run.get("parent_task_run_id") is None
    ]
    return found | {
        "answers": True,
        "running": running,
        "due": [each for each in due if each not in late],
        "overdue": [
            {**each, "do": "start a worker for its pool: `prefect worker start --pool NAME`, or `corpusmill up`"}
            for each in late
        ],
        "failed": list(_failed_in_prefect(ours["ended"], names, url)),
    }


def _failed_in_prefect(ended: Iterable[Facts], names: Mapping[str, str], api_url: str) -> Iterator[Facts]:
    """Deployments whose newest run did not end well."""
    seen: set[str] = set()
    for run in ended:
        deployment = run.get("deployment_id")
        if deployment is None or deployment in seen:
            continue
        seen.add(deployment)
        if run["state_type"] in ("FAILED", "CRASHED"):
            said = (run.get("state") or {}).get("message") or ""
            yield {
                "what": f"deployment {names.get(deployment, run['name'])}",
                "message": f"{str(run['state_name']).lower()}: {' '.join(said.split())[:300]}".removesuffix(": "),
                "do": f"prefect flow-run retry {run['id']}   (its log: {api_url.removesuffix('/api')}/runs/flow-run/{run['id']})",
                "at": run.get("end_time"),
            }


def _crawls(place: Workspace) -> list[Facts]:
    """How the crawls stand whose ledgers lie in the workspace."""
    found = []
    for folder in sorted((place.root / "crawl").glob("*")):
        try:
            facts = crawl_report(folder, num_top=1)
        except CorpusmillError as error:
            found.append({"crawl": folder.name, "problem": str(error)})
            continue
        if facts["is_begun"]:
            found.append(
                {
                    "crawl": folder.name,
                    "pages": facts["totals"]["pages"],
                    "queued": facts["totals"]["queued"],
                    "due": facts["now"]["due"],
                    "retries_due": facts["now"]["retries_due"],
                    "next_due_at": facts["revisits"]["next_due_at"],
                }
            )
    return found


def _takedowns(place: Workspace) -> tuple[list[Facts], list[Facts]]:
    try:
        return waiting(place), []
    except CorpusmillError as error:
        return [], [{"what": "take-downs", "message": str(error), "do": "corpusmill verify", "at": None}]


def _champions(tracking_uri: str, authorization: str | None) -> tuple[list[dict[str, str]], str | None]:
    try:
        return ask_champions(tracking_uri, authorization), None
    except TerminalError as error:
        return [], str(error)


# the services of `corpusmill up`


def _services(place: Workspace) -> Mapping[str, str]:
    """Where `corpusmill up` says that its services answer; whether they do is found by asking."""
    try:
        told = json.loads((place.root / "up.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in told.items() if isinstance(value, str)} if isinstance(told, dict) else {}


def _secrets(path: str | None) -> Mapping[str, str]:
    """The variables in the file of secrets that `corpusmill up` made: a NAME=value a line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines() if path else []
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


# the disk


def _disk(place: Workspace) -> Facts:
    folder = next(path for path in (place.root, *place.root.parents) if path.exists())
    num_bytes, is_whole = _size(place.root)
    return {
        "free_bytes": shutil.disk_usage(folder).free,
        "workspace_bytes": num_bytes,
        "workspace_is_counted_whole": is_whole,
    }


def _size(root: Path) -> tuple[int, bool]:
    """Bytes that a folder takes on disk, and whether all of it was counted: a large one is not waited for."""
    deadline = time.monotonic() + _SIZE_SECONDS
    total, folders = 0, [str(root)]
    while folders:
        if time.monotonic() > deadline:
            return total, False
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
            except OSError:
                continue  # a run has just removed it
    return total, True


def _iso(seconds: float | None) -> str | None:
    return None if not seconds else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


# for people


def status_lines(found: Facts) -> list[str]:
    """One screen."""
    if not found["is_begun"]:
        lines = [f"there is no workspace at {found['workspace']} yet: run `corpusmill run` to begin"]
        return lines + _due_lines(found) if found["prefect"]["url"] else lines
    lines = [f"workspace {found['workspace']}"]
    lines += _section("running", [_running_line(each) for each in found["running"]] or ["nothing"])
    failed = [line for each in found["failed"][:_MAX_SHOWN] for line in _failure_lines(each)]
    lines += _section("failed", failed or ["nothing"], len(found["failed"]) - _MAX_SHOWN)
    late = [f"{each['what']}, since {each['at']}: {each['do']}" for each in found["overdue"][:_MAX_SHOWN]]
    lines += _section("overdue", late, len(found["overdue"]) - _MAX_SHOWN)
    alerts = [
        f"{each['recipe']}, {each['kind']} ({each['at']}): {each['message']}" for each in found["alerts"][:_MAX_SHOWN]
    ]
    lines += _section("alerts", alerts, len(found["alerts"]) - _MAX_SHOWN)
    lines += _due_lines(found)
    last = [
        f"{each['flow']:<13}{each['recipe']:<20} {each['outcome']:<9} {each['ended_at']}  {each['seconds']:,.0f} s"
        for each in found["runs"][:_MAX_SHOWN]
    ]
    lines += _section("last runs", last or ["none"], len(found["runs"]) - _MAX_SHOWN)
    lines += _section("take-downs", _takedown_lines(found["takedowns_waiting"]))
    champions = [f"{each['name']} version {each['version']}" for each in found["champions"]]
    lines += _section("champion", champions or [found["champion_problem"] or "none"])
    disk = found["disk"]
    at_least = "" if disk["workspace_is_counted_whole"] else "at least "
    lines += _section("disk", [f"workspace {at_least}{_gib(disk['workspace_bytes'])}, {_gib(disk['free_bytes'])} free"])
    return lines


def _section(name: str, lines: Sequence[str], num_more: int = 0) -> list[str]:
    told = [*lines, *([f"and {num_more:,} more: --json has all"] if num_more > 0 else [])]
    return [f"{name if number == 0 else '':<11} {line}" for number, line in enumerate(told)]


def _running_line(each: Mapping[str, Any]) -> str:
    parts = [each["what"]]
    if each.get("stage"):
        of = f"/{each['of']:,}" if each["of"] is not None else ""
        parts.append(f"{each['stage']} {each['done']:,}{of} {each['note']}".rstrip())
    where = f"process {each['pid']} on {each['host']}" if each.get("host") else ""
    since = f"since {each['since']}" if each.get("since") else ""
    return ", ".join(part for part in (*parts, since, where) if part)


def _failure_lines(each: Mapping[str, Any]) -> list[str]:
    at = f" ({each['at']})" if each["at"] else ""
    return [f"{each['what']}{at}: {each['message']}", *([f"  next: {each['do']}"] if each["do"] else [])]


def _due_lines(found: Facts) -> list[str]:
    prefect, due = found["prefect"], found["due"]
    lines = [f"{each['what']} at {each['at']}" for each in due["schedules"][:_MAX_SHOWN]]
    if prefect["url"] is None:
        lines.append(
            "no schedule: no Prefect server is named by PREFECT_API_URL, and no `corpusmill up` is running here"
        )
    elif prefect["problem"]:
        lines.append(prefect["problem"])
    elif not lines:
        lines.append("no scheduled run")
    for each in due["crawls"]:
        wait = f"{each['queued']:,} URLs wait, {each['due']:,} due for another visit, {each['retries_due']:,} for another try"
        lines.append(
            f"crawl {each['crawl']}: {wait}" + (f"; the first {each['next_due_at']}" if each["next_due_at"] else "")
        )
    return _section("due", lines)


def _takedown_lines(takedowns: Sequence[Mapping[str, Any]]) -> list[str]:
    if not takedowns:
        return ["none waits"]
    recipes = sorted({each["recipe"] or "" for each in takedowns} - {""})
    num = len({each["id"] for each in takedowns})
    oldest = min(each["added_at"] for each in takedowns)
    return [
        f"{num:,} wait{'s' if num == 1 else ''} since {oldest}: run `corpusmill build` for {', '.join(recipes) or 'each recipe'}"
    ]


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):,.1f} GiB" if num_bytes >= 1 << 30 else f"{num_bytes / (1 << 20):,.0f} MiB"
