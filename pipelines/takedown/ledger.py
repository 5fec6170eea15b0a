"""The ledger of take-downs: who asked for what, when and why. Lines of JSON in one file that only grows.

Each line has its own digest and that of the line before, so that a line that was changed, lost or torn is found; nothing
is built until the file is mended, since a take-down that cannot be read must not be forgotten. A quotation is never
written down (see quotes.py).
"""

import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from pipelines.digest import digest_value
from pipelines.errors import ConfigError, IntegrityError
from pipelines.store import storage_errors
from pipelines.takedown.documents import Takedown
from pipelines.takedown.names import digest_name, host_of, url_form
from pipelines.takedown.quotes import Quote, quote_of

Scope = Literal["url", "domain", "doc_id", "text"]

_ID_NUM_CHARS = 12
_FIRST = "0" * 64
_DOC_ID_CHARS = frozenset("0123456789abcdef")
_DOC_ID_NUM_CHARS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One take-down that somebody asked for."""

    id: str
    added_at: str
    """UTC, ISO 8601."""
    by: str
    reason: str
    scope: Scope
    value: str | None
    """The URL, domain or document id; None for a text."""
    quote: Quote | None = None
    lifted_at: str | None = None
    lifted_by: str | None = None
    lifted_because: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether it was not lifted."""
        return self.lifted_at is None

    def takedown(self) -> Takedown:
        """What it takes down."""
        if self.quote is not None:
            return Takedown(quotes=(self.quote,))
        value = self.value or ""
        match self.scope:
            case "url":
                return Takedown(urls=tuple(digest_name("url", form) for form in _url_forms(value)))
            case "domain":
                return Takedown(domains=(digest_name("domain", value),))
            case _:
                return Takedown(doc_ids=(digest_name("doc_id", value),))


def add_request(path: Path, scope: Scope, value: str, *, by: str, reason: str) -> Request:
    """Write a take-down into the ledger, on the disk when this returns. Of a text (`value`) only a `Quote` is written.

    Raises ConfigError for a value that names nothing or a reason that is empty, IntegrityError for a damaged ledger.
    """
    _require("reason", reason)
    _require("by", by)
    quote = quote_of(value) if scope == "text" else None
    entry: dict[str, Any] = {"kind": "add", "scope": scope, "value": None if quote else _checked(scope, value.strip())}
    if quote is not None:
        entry["quote"] = {"num_chars": quote.num_chars, "rolling": quote.rolling, "digest": quote.digest}
    return read_ledger_entry(_append(path, entry | {"by": by.strip(), "reason": reason.strip()}))


def lift_request(path: Path, request_id: str, *, by: str, reason: str) -> Request:
    """Let a take-down end: the next build has again what it took out. Raises ConfigError for one that is not in force."""
    _require("reason", reason)
    _require("by", by)
    found = {request.id: request for request in read_ledger(path)}.get(request_id)
    if found is None or not found.is_active:
        got = "an unknown take-down" if found is None else "a take-down that was lifted already:"
        raise ConfigError(f"got {got} {request_id!r}, wanted one in force: see `corpusmill takedown list`.")
    _append(path, {"kind": "lift", "lifts": request_id, "by": by.strip(), "reason": reason.strip()})
    return next(request for request in read_ledger(path) if request.id == request_id)


def read_ledger(path: Path) -> list[Request]:
    """Every take-down, in the order in which they were added. No file is an empty ledger.

    Raises IntegrityError for a line that is damaged, or does not follow the one before.
    """
    try:
        with storage_errors(path):
            data = path.read_bytes()
    except FileNotFoundError:
        return []
    requests: dict[str, Request] = {}
    for entry in _parsed(data, path):
        if entry["kind"] == "add":
            requests[entry["id"]] = read_ledger_entry(entry)
            continue
        lifted = requests.get(entry["lifts"])
        if lifted is None:
            raise _damaged(path, "lifts what was never added")
        requests[lifted.id] = Request(
            **{name: getattr(lifted, name) for name in ("id", "added_at", "by", "reason", "scope", "value", "quote")},
            lifted_at=entry["added_at"],
            lifted_by=entry["by"],
            lifted_because=entry["reason"],
        )
    return list(requests.values())


def takedown_of(requests: Iterable[Request]) -> Takedown:
    """What all requests that are in force take down together."""
    parts = [request.takedown() for request in requests if request.is_active]
    return Takedown(
        **{name: tuple(each for part in parts for each in getattr(part, name)) for name in Takedown.__slots__}
    )


def read_ledger_entry(entry: dict[str, Any]) -> Request:
    """A line of the ledger that adds one."""
    quote = entry.get("quote")
    return Request(
        id=entry["id"],
        added_at=entry["added_at"],
        by=entry["by"],
        reason=entry["reason"],
        scope=entry["scope"],
        value=entry["value"],
        quote=Quote(quote["num_chars"], quote["rolling"], quote["digest"]) if quote else None,
    )


def requests_naming(requests: Sequence[Request], url_or_doc_id: str) -> list[Request]:
    """The requests that name a URL or a document id; those by text name none."""
    digests = {digest_name("doc_id", url_or_doc_id)}
    digests |= {digest_name("url", form) for form in _url_forms(url_or_doc_id)}
    host = host_of(url_or_doc_id)
    found = []
    for request in requests:
        takedown = request.takedown()
        is_below = host is not None and request.scope == "domain" and f".{host}".endswith(f".{request.value}")
        if is_below or digests & {*takedown.urls, *takedown.doc_ids}:
            found.append(request)
    return found


def _url_forms(url: str) -> set[str]:
    """The spellings that a URL is looked for in: as given, as the crawler writes it, and with the scheme that it lacks."""
    from pipelines.crawl.screen import canonical_url

    forms = {url_form(url)}
    for each in (url, f"https://{url}") if host_of(url) and "//" not in url else (url,):
        canonical = canonical_url(each)
        forms |= {url_form(each), *((url_form(canonical),) if canonical else ())}
    return forms


def _checked(scope: Scope, value: str) -> str:
    if scope not in get_args(Scope):
        raise ConfigError(f"got scope {scope!r}, wanted one of {', '.join(get_args(Scope))}: correct it.")
    if not value or any(ord(char) < 32 for char in value):
        raise ConfigError(f"got {value!r} for {scope}, wanted a name on one line: correct it.")
    if scope == "domain":
        host = host_of(value if "//" in value else f"//{value}")
        if host is None or any(char in host for char in "/ *@"):
            raise ConfigError(f"--domain: got {value!r}, wanted a host such as example.org: correct it.")
        return host
    if scope == "doc_id" and not (len(value) == _DOC_ID_NUM_CHARS and set(value) <= _DOC_ID_CHARS):
        raise ConfigError(
            f"--doc-id: got {value!r}, wanted {_DOC_ID_NUM_CHARS} hex characters: see `corpusmill explain URL`."
        )
    return value


def _require(name: str, value: str) -> None:
    if not value.strip():
        raise ConfigError(f"--{name}: got an empty text, wanted words: the ledger must say it.")


def _append(path: Path, entry: dict[str, Any]) -> dict[str, Any]:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two commands at once: one waits for the other's line
            file.seek(0)
            entries = _parsed(file.read(), path)
            previous = entries[-1]["digest"] if entries else _FIRST
            body = entry | {"added_at": datetime.now(UTC).isoformat(timespec="seconds"), "previous": previous}
            body["id"] = digest_value(body)[:_ID_NUM_CHARS]
            body["digest"] = digest_value(body)
            _write_line(file, json.dumps(body, ensure_ascii=False, sort_keys=True).encode() + b"\n")
            _sync_folder(path.parent)
    return body


def _write_line(file: BinaryIO, line: bytes) -> None:
    """A whole line or none: what a full disk cuts off is taken back."""
    size = file.seek(0, os.SEEK_END)
    try:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parsed(data: bytes, path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    previous = _FIRST
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
            digest = entry["digest"]
            is_good = digest == digest_value({name: value for name, value in entry.items() if name != "digest"})
            is_good = is_good and entry["previous"] == previous and entry["kind"] in ("add", "lift")
        except (ValueError, KeyError, TypeError, AttributeError):
            is_good = False
        if not is_good:
            raise _damaged(path, f"is damaged in line {number}, or lacks lines before it")
        entries.append(entry)
        previous = digest
    if lines[-1]:
        raise _damaged(path, f"ends in the middle of line {len(lines)}")
    return entries


def _damaged(path: Path, how: str) -> IntegrityError:
    return IntegrityError(
        f"got a ledger of take-downs that {how} ({path}), wanted it whole, since nothing may be built against it: "
        "put back a copy of the file; a last line that is cut off was never confirmed and can be deleted."
    )
