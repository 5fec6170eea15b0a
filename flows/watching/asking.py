"""Quick questions to servers that may be slow, dead or locked: an answer within seconds, or a sentence that says why there is none.

For `corpusmill status` and `up`, which must not import Prefect or MLflow (seconds) to ask them a handful of things.
"""

import base64
import json
import sqlite3
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from flows.settings import LOCAL_HOSTS, certificate_files, redactor
from pipelines.errors import TerminalError

_SIGN_OF_LIFE_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_LOOK_BACK = timedelta(days=7)
_NUM_RUNS = 50
_CHAMPION = "champion"
_MAX_ANSWER_BYTES = 8 << 20
_NO_CSRF_PROTECTION = (404, 422)
"""What a Prefect server without it says to who asks for a token: 422, and 404 those that do not know of it."""

T = TypeVar("T")


def ask_prefect(api_url: str, authorization: str | None, now: datetime) -> dict[str, Any]:
    """What a Prefect server knows: `deployments`, runs that are `scheduled` or `running`, and those that `ended` of late.

    `authorization` is user:password. Raises TerminalError where it does not answer in time, or not as Prefect does.
    """
    name = f"the Prefect server at {redactor().text(api_url)}"
    _within(_SIGN_OF_LIFE_SECONDS, name, lambda: ask(f"{api_url}/health", authorization))
    since = (now - _LOOK_BACK).isoformat()

    def runs(types: list[str], sort: str, **more: Any) -> dict[str, Any]:
        return {"flow_runs": {"state": {"type": {"any_": types}}, **more}, "sort": sort, "limit": _NUM_RUNS}

    ended = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]
    questions: dict[str, tuple[str, dict[str, Any]]] = {
        "deployments": ("deployments", {"limit": 200}),
        "scheduled": ("flow_runs", runs(["SCHEDULED"], "EXPECTED_START_TIME_ASC")),
        "running": ("flow_runs", runs(["RUNNING", "PENDING", "CANCELLING"], "START_TIME_DESC")),
        "ended": ("flow_runs", runs(ended, "END_TIME_DESC", end_time={"after_": since})),
    }

    def ask_all() -> dict[str, Any]:
        token = csrf_token(api_url, authorization)
        return {
            each: ask(f"{api_url}/{kind}/filter", authorization, body, headers=token)
            for each, (kind, body) in questions.items()
        }

    return _within(_ANSWER_SECONDS, name, ask_all)


def ask_champions(tracking_uri: str, authorization: str | None) -> list[dict[str, str]]:
    """The champion of each registered model: name and version. Raises TerminalError where the tracker does not answer."""
    if tracking_uri.startswith("sqlite:///"):
        path = Path(tracking_uri.removeprefix("sqlite:///"))
        return _within(_SIGN_OF_LIFE_SECONDS, f"MLflow's database {path}", lambda: _champions_in(path))
    if not tracking_uri.startswith("http"):
        return []  # another database, which only MLflow knows how to reach
    name = f"the MLflow server at {redactor().text(tracking_uri)}"
    url = f"{tracking_uri.rstrip('/')}/api/2.0/mlflow/registered-models/search?max_results=100"
    found = _within(_SIGN_OF_LIFE_SECONDS, name, lambda: ask(url, authorization))
    return [
        {"name": model["name"], "version": str(alias["version"])}
        for model in found.get("registered_models", [])
        for alias in model.get("aliases", [])
        if alias["alias"] == _CHAMPION
    ]


def _champions_in(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_SIGN_OF_LIFE_SECONDS)
    try:
        query = "SELECT name, version FROM registered_model_aliases WHERE alias = ? ORDER BY name"
        return [{"name": name, "version": str(version)} for name, version in db.execute(query, (_CHAMPION,))]
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # of a database that MLflow is just making
            return []
        raise
    finally:
        db.close()


def csrf_token(api_url: str, authorization: str | None, *, seconds: float = _ANSWER_SECONDS) -> dict[str, str]:
    """The headers without which a Prefect server that protects itself against pages of strangers takes no POST.

    Empty where the server does not ask for them. Raises as `ask` does.
    """
    client = str(uuid.uuid4())
    try:
        found = ask(f"{api_url}/csrf-token?client={client}", authorization, seconds=seconds)
    except urllib.error.HTTPError as error:
        if error.code in _NO_CSRF_PROTECTION:
            return {}
        raise
    token = found.get("token") if isinstance(found, dict) else None
    if not token:
        raise ValueError("an answer that Prefect does not give")
    return {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}


def ask(
    url: str,
    authorization: str | None,
    body: Any = None,
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    seconds: float = _ANSWER_SECONDS,
) -> Any:
    """What a server answers, as JSON has it; None for an empty answer. A `body` makes it a POST, with more `headers`.

    `authorization` is user:password; a user name in the address goes first. No proxy stands before this machine's own
    servers. Raises OSError (HTTPError is one) or ValueError.
    """
    parts = urllib.parse.urlsplit(url)
    sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
    if parts.username is not None:  # a user name in the address, as proxies and people put it there
        authorization = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if authorization is not None:
        sent["Authorization"] = f"Basic {base64.b64encode(authorization.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, sent)  # noqa: S310 - the user's own setting
    handlers: list[urllib.request.BaseHandler] = []
    if (parts.hostname or "") in LOCAL_HOSTS:
        handlers.append(urllib.request.ProxyHandler({}))
    if parts.scheme == "https":
        context = ssl.create_default_context()
        for path in certificate_files():
            context.load_verify_locations(path)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    with opener.open(request, timeout=seconds) as answer:
        text = answer.read(_MAX_ANSWER_BYTES)
    return json.loads(text) if text else None


def _within(seconds: float, name: str, call: Callable[[], T]) -> T:
    """What a call gives, if it does so in time. Whatever it waits for, nobody waits longer for it."""
    found: list[T] = []
    problems: list[str] = []

    def run() -> None:
        try:
            found.append(call())
        except urllib.error.HTTPError as error:
            problems.append(f"{error.code} {error.reason}")
        except (OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
            problems.append(redactor().text(" ".join(str(error).split())[:200]) or type(error).__name__)

    thread = threading.Thread(target=run, name="question", daemon=True)
    thread.start()
    thread.join(seconds)
    if found:
        return found[0]
    problem = problems[0] if problems else f"nothing within {seconds:g} s"
    refused = problem.startswith(("401", "403"))
    do = (
        "set PREFECT_API_AUTH_STRING, or MLflow's user name and password"
        if refused
        else "start it, or correct its address"
    )
    raise TerminalError(f"got {problem} from {name}, wanted an answer: {do}.")


def parsed_time(text: str | None) -> datetime | None:
    """A time as Prefect writes it."""
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None
