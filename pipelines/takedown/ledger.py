"""The ledger of take-downs: who asked for what, when and why. A chain of lines (see chain.py) that only grows.

Nothing is built against a damaged one, since a take-down that cannot be read must not be forgotten. A quotation is
never written down (see quotes.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pipelines.errors import ConfigError, IntegrityError
from pipelines.takedown.chain import append_line, read_lines
from pipelines.takedown.documents import Takedown
from pipelines.takedown.names import digest_name, host_of, url_form
from pipelines.takedown.quotes import Quote, quote_of

Scope = Literal["url", "domain", "doc_id", "text"]

_ID_NUM_CHARS = 12
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
    return _request(append_line(path, entry | {"by": by.strip(), "reason": reason.strip()}))


def lift_request(path: Path, request_id: str, *, by: str, reason: str) -> Request:
    """Let a take-down end: the next build has again what it took out. Raises ConfigError for one that is not in force."""
    _require("reason", reason)
    _require("by", by)
    found = {request.id: request for request in read_ledger(path)}.get(request_id)
    if found is None or not found.is_active:
        got = "an unknown take-down" if found is None else "a take-down that was lifted already:"
        raise ConfigError(f"got {got} {request_id!r}, wanted one in force: see `corpusmill takedown list`.")
    append_line(path, {"kind": "lift", "lifts": request_id, "by": by.strip(), "reason": reason.strip()})
    return next(request for request in read_ledger(path) if request.id == request_id)


def read_ledger(path: Path) -> list[Request]:
    """Every take-down, in the order in which they were added. No file is an empty ledger.

    Raises IntegrityError for a line that is damaged, or does not follow the one before.
    """
    requests: dict[str, Request] = {}
    for entry in read_lines(path):
        try:
            if entry["kind"] == "add":
                request = _request(entry)
            else:
                lifted = {"lifted_at": entry["added_at"], "lifted_by": entry["by"], "lifted_because": entry["reason"]}
                request = replace(requests[entry["lifts"]], **lifted)
        except (KeyError, TypeError) as error:
            raise IntegrityError(
                f"got a line in {path} that is no take-down ({error}), wanted one of this version: put back a copy."
            ) from error
        requests[request.id] = request
    return list(requests.values())


def takedown_of(requests: Iterable[Request]) -> Takedown:
    """What all requests that are in force take down together."""
    parts = [request.takedown() for request in requests if request.is_active]
    return Takedown(
        **{name: tuple(each for part in parts for each in getattr(part, name)) for name in Takedown.__slots__}
    )


def _request(entry: dict[str, Any]) -> Request:
    """The take-down that a line adds; the line's digest names it."""
    quote = entry.get("quote")
    return Request(
        id=entry["digest"][:_ID_NUM_CHARS],
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
