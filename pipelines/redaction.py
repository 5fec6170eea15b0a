"""The one place that knows what a secret looks like: nothing that a run leaves may hold one.

Logs, error messages, artifacts, reports and what a tracker is told go through `Redactor`; a recipe is refused where `secret_in`
finds something. A secret is known by its shape (the user name and password of a URL, the parameters of a signed one, an Authorization
header, the prefixes of well-known tokens) or by its value, where the environment holds it. No stage imports this: what is
hidden from a log shapes no output, so it must enter no key.
"""

import logging
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"

_USERINFO = re.compile(
    r"\b([a-z][a-z0-9+.-]{0,30}://)"
    r"(?:[^\s/?#'\"<>]{0,400}"  # user:password, also with an @ in it
    r"|[^\s/?#'\"<>@:]{0,100}:(?!\d{1,5}[/?#])[^\s'\"<>@]{0,400})@",  # a slash in it, as people paste them; host:8080/@name is none
    re.IGNORECASE,
)
_SIGNED = (
    r"x-(?:amz|goog|oss)-(?:signature|credential|security-token)|ossaccesskeyid|awsaccesskeyid|googleaccessid|signature|sig"
    r"|(?:access|id|refresh|auth|session|security)[_-]?token|token|jwt|(?:api|access|secret|private|subscription)[_-]?key|key"
    r"|(?:client[_-]?)?secret|password|passwd|pwd|auth|authorization|credentials?"
)
"""Names of query parameters whose values let their holder in."""
_PARAMETER = re.compile(rf"((?:[?&;]|\\u0026|%3F|%26)(?:{_SIGNED})(?:=|%3D))[^&\s'\"<>#]+", re.IGNORECASE)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization['\"]?\s*[:=,]\s*(?:b(?=['\"]))?['\"]?)(?:(?:basic|bearer|digest|token)\s+)?[^\s'\",;}]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer\s+)[\w.~+/-]{16,}=*", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"\b([a-z0-9_]*(?:password|passwd|secret|auth_string|api_?key|access_key)[a-z0-9_]*['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&}]{3,}",
    re.IGNORECASE,
)
_ASSIGNED_TOKEN = re.compile(r"\b([A-Z0-9_]*TOKEN=['\"]?)[^\s'\",;&}]{3,}")
_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|AUTH_STRING|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIAL|(?:^|_)(?:PASS|PWD)$",
    re.IGNORECASE,
)
"""Of an environment variable that holds one."""
_URL_USERINFO = re.compile(r"[a-z][a-z0-9+.-]*://([^\s/?#]*|[^\s/?#@:]*:(?!\d{1,5}[/?#])[^\s@]*)@", re.IGNORECASE)
_MIN_KNOWN_CHARS = 6
_STRONG_PARAMETER = re.compile(
    r"[?&](x-(?:amz|goog|oss)-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig"
    r"|(?:access|auth|session|security)[_-]?token|token|api[_-]?key|(?:client[_-]?)?secret|password|passwd|pwd)=[^&\s#]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Redactor:
    """Hides secrets in texts: by their shape, and by their value where it is known."""

    known: tuple[str, ...] = ()
    """Values that are hidden wherever they stand, the longest first."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Redactor":
        """One that knows the secrets of an environment: variables named like one, and the passwords of URLs."""
        found = {secret for name, value in environment.items() for secret in _secrets_of(name, value)}
        return cls(tuple(sorted(filter(_can_be_told_apart, found), key=lambda value: (-len(value), value))))

    def text(self, text: str) -> str:
        """The text with `***` in place of every secret."""
        for value in self.known:
            if value in text:
                text = text.replace(value, HIDDEN)
        text = _TOKEN.sub(HIDDEN, text)
        text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
        for pattern in (_PARAMETER, _HEADER, _BEARER, _ASSIGNED, _ASSIGNED_TOKEN):
            text = pattern.sub(rf"\1{HIDDEN}", text)
        return text

    def value(self, value: Any) -> Any:
        """Likewise every text in mappings and lists, keys included; other values as they are."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(name): self.value(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def error(self, error: BaseException) -> BaseException:
        """The error with its texts changed, and those of what caused it; another one where its words are out of reach."""
        for each in _chain(error):
            each.args = tuple(self.text(arg) if isinstance(arg, str) else arg for arg in each.args)
            for name in ("reason", "filename", "strerror"):
                if isinstance(said := getattr(each, name, None), str) and self.text(said) != said:
                    setattr(each, name, self.text(said))
        told = [line for each in _chain(error) for line in traceback.format_exception_only(each)]
        if all(self.text(line) == line for line in told):
            return error
        safe = RuntimeError(f"{type(error).__name__}: {self.text(str(error))}")
        return safe.with_traceback(error.__traceback__)


def secret_in(text: str) -> str | None:
    """What kind of secret a text has the shape of, in words; None where it looks like none."""
    if _USERINFO.search(text):
        return "a URL with a user name"
    if match := _STRONG_PARAMETER.search(text) if "://" in text else None:
        return f"a URL with {match[1]}"
    if _TOKEN.search(text):
        return "a token or a private key"
    return "an Authorization header" if _HEADER.search(text) and "authorization" in text.lower() else None


class Redacting(logging.Filter):
    """Hides secrets in log records, in the words and in the traceback. On a handler, it sees every record of it."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; keep it."""
        try:
            said = record.getMessage()
        except (TypeError, ValueError):  # a format that does not fit its arguments: the handler tells
            said = f"{record.msg} {record.args}"
        record.msg, record.args = self._redactor.text(said), ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = self._redactor.text("".join(traceback.format_exception(*record.exc_info)).strip())
        return True


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
            yield each


def _secrets_of(name: str, value: str) -> Iterator[str]:
    if "://" in value:
        for userinfo in _URL_USERINFO.findall(value):
            password = userinfo.partition(":")[2] or userinfo
            yield from (userinfo, password, unquote(password))
    elif _SECRET_NAME.search(name) and not value.startswith("/"):  # a path to a file of secrets is none
        yield value
        user, _, password = value.partition(":")
        if user and password and "AUTH" in name.upper():
            yield password


def _can_be_told_apart(value: str) -> bool:
    """Whether to hide it wherever it stands leaves other texts readable: `postgres` and `true` are words."""
    return len(value) >= _MIN_KNOWN_CHARS and not re.fullmatch(r"[a-z]+|\d+|[A-Z]?[a-z]+", value)
