"""One remote object as a stream of bytes from any offset on: over HTTP with ranges, or from S3 through Arrow.

The bytes of one stream are of one version of the object. A stream that was asked to go on with a version, and cannot
(the server knows no ranges, the object changed), begins at 0 with another one. HTTP goes to judged addresses only, each
redirect included (pipelines.crawl.address), and never through a proxy, which would connect elsewhere. The S3 endpoint
is what the recipe names, or AWS; its client reads the usual credentials.
"""

import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from pipelines.crawl.address import AllowedAddresses
from pipelines.crawl.retry import RETRIED_STATUSES, retry_after_seconds
from pipelines.errors import InputError

_CHUNK_BYTES = 1 << 20
_S3_RANGE_BYTES = 4 << 20  # each range is a request
_MAX_REDIRECTS = 5
_TIMEOUT_SECONDS = 30.0
_PACE_SECONDS = 60.0
_MIN_PACE_BYTES = 60 << 10
_USER_AGENT = "corpusmill"
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")
_S3_REFUSAL = re.compile(r"ACCESS_DENIED|NO_SUCH|NOT_FOUND|INVALID_|SIGNATURE|HTTP status (?:3|40[0-79]|41|42[0-8])")
_SAFE = "/%:@!$&'()*+,;=~-._?"


class PassingError(Exception):
    """Asking again may work, after `pause_seconds` where the server says so."""

    def __init__(self, reason: str, pause_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds


class ChangedError(Exception):
    """The object is no longer the version that was asked for, and must be read from its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAccess:
    """How remote objects are reached."""

    allow_addresses: tuple[str, ...] = ()
    """Addresses that are not public and may be reached all the same: "host:port", an address or a CIDR block."""
    anonymous: bool = False
    """S3 without credentials."""
    endpoint_url: str | None = None
    """An S3 store other than AWS: `http(s)://host[:port]`, asked path-style. It is not judged: a person named it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What tells one state of an object from another."""

    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None
    """Bytes of the whole object; None where the server does not say."""

    @property
    def validator(self) -> str | None:
        """What a range may be asked under (If-Range: RFC 9110, 13.1.5); None where the object cannot be gone on with."""
        if self.size is None:
            return None
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStream:
    """An open object."""

    version: Version
    offset: int
    """Of the first byte that comes: what was asked for, or 0."""
    chunks: Iterator[bytes]
    """At most 4 MiB each, to the end of the object. Raises PassingError where the end does not come."""
    has_sure_end: bool = True
    """Whether an end that comes too early would be noticed: not where it is the connection's (RFC 9112, 6.3)."""


@contextmanager
def open_stream(
    url: str, access: RemoteAccess, *, offset: int = 0, version: Version = Version()
) -> Iterator[RemoteStream]:
    """Open an object, and where `offset` is given, go on with that `version` of it if it still is.

    Raises InputError for what cannot be had (403, 404, an address that is not public), PassingError and ChangedError.
    """
    opened = _s3_stream if urlsplit(url).scheme == "s3" else _http_stream
    with opened(url, access, offset, version) as stream:
        yield stream


@contextmanager
def _http_stream(url: str, access: RemoteAccess, offset: int, version: Version) -> Iterator[RemoteStream]:
    headers = {"User-Agent": _USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    if offset and version.validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version.validator}
    with ExitStack() as stack:
        with _passing_errors():
            response = _ask(url, headers, AllowedAddresses.parse(access.allow_addresses), stack)
        yield _answered(url, response, offset, version)


def _ask(url: str, headers: dict[str, str], allowed: AllowedAddresses, stack: ExitStack) -> http.client.HTTPResponse:
    """The answer at the end of the redirects; `stack` closes its connection."""
    target = url
    for _ in range(_MAX_REDIRECTS + 1):
        parts = urlsplit(target)
        connection = stack.enter_context(_connected(target, url, allowed))
        path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        location = response.getheader("Location")
        if response.status not in (301, 302, 303, 307, 308) or not location:
            return response
        connection.close()
        target = _redirected(url, target, location)
    raise InputError(f"got more than {_MAX_REDIRECTS} redirects from {url}, wanted a file: correct the URL.")


def _redirected(url: str, target: str, location: str) -> str:
    try:
        moved = urljoin(target, location)
        scheme, host = urlsplit(moved).scheme, urlsplit(moved).hostname
    except ValueError:
        scheme, host, moved = "", None, location
    if not host or scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:")):
        raise InputError(f"got a redirect of {url} to {moved[:200]!r}, wanted one to https: correct the URL.")
    return moved


@contextmanager
def _connected(target: str, url: str, allowed: AllowedAddresses) -> Iterator[http.client.HTTPConnection]:
    """A connection to a judged address of the target's host; there is no second look-up after the judgement."""
    try:
        parts = urlsplit(target)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise InputError(f"got {target[:200]!r} for {url}, wanted a URL: correct it.") from None
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, place in found:
        refusal = allowed.refusal(str(place[0]), host, port)
        if refusal:
            raise InputError(f"got {target} for {url}, wanted a public address: {refusal}.")
    raw = _first_connection(found)
    with raw:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            try:
                raw = context.wrap_socket(raw, server_hostname=host)
            except ssl.SSLCertVerificationError as error:
                raise InputError(
                    f"got a certificate that is not valid from {target} ({error.verify_message}), wanted a valid one: correct the URL."
                ) from error
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, context=context)
        else:
            connection = http.client.HTTPConnection(host, port)
        with raw:
            connection.sock = _PacedSocket(raw)
            yield connection
            connection.close()


def _first_connection(found: list[Any]) -> socket.socket:
    last: OSError | None = None
    for family, kind, protocol, _, place in found:
        raw = socket.socket(family, kind, protocol)
        raw.settimeout(_TIMEOUT_SECONDS)
        try:
            raw.connect(place)
        except OSError as error:
            raw.close()
            last = error
        else:
            return raw
    raise last or OSError("no address")


class _PacedSocket:
    """What http.client wants of a socket; reading from it fails where bytes come too slowly, in a header too."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.sendall = raw.sendall

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The bytes that come."""
        return io.BufferedReader(_PacedReader(self._raw))

    def close(self) -> None:
        """Not yet: http.client closes a connection before it reads the body that ends with it."""


class _PacedReader(io.RawIOBase):
    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._since, self._num_bytes = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        num_bytes = self._raw.recv_into(buffer)
        self._num_bytes += num_bytes
        now = time.monotonic()
        if now - self._since > _PACE_SECONDS:
            if self._num_bytes < _MIN_PACE_BYTES:
                raise TimeoutError(f"{self._num_bytes} bytes in {now - self._since:.0f} s")
            self._since, self._num_bytes = now, 0
        return num_bytes


def _answered(url: str, response: http.client.HTTPResponse, offset: int, version: Version) -> RemoteStream:
    status = response.status
    size = response.length  # None for a chunked body, and for one that ends with the connection
    found = Version(etag=response.getheader("ETag"), last_modified=response.getheader("Last-Modified"), size=size)
    if status == 200:
        is_sure = size is not None or response.chunked
        return RemoteStream(version=found, offset=0, chunks=_http_chunks(response), has_sure_end=is_sure)
    if status == 206 and offset:
        span = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range") or "")
        is_same = found.etag == version.etag if version.etag else found.last_modified == version.last_modified
        if span is None or (int(span[1]), int(span[2])) != (offset, version.size) or not is_same:
            raise ChangedError
        return RemoteStream(version=version, offset=offset, chunks=_http_chunks(response))
    if offset and status in (412, 416):
        raise ChangedError
    if status in RETRIED_STATUSES or status >= 500:
        pause_seconds = retry_after_seconds(response.getheader("Retry-After"), datetime.now(UTC))
        raise PassingError(f"HTTP status {status}", pause_seconds)
    raise InputError(f"got HTTP status {status} for {url}, wanted the file: correct the URL, or ask for access to it.")


def _http_chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    num_left = response.length
    with _passing_errors():
        while chunk := response.read1(_CHUNK_BYTES):
            yield chunk
            if num_left is not None:
                num_left -= len(chunk)
        if num_left:
            raise PassingError(f"the connection ended {num_left} bytes early")


@contextmanager
def _passing_errors() -> Iterator[None]:
    """Turn what a network does into PassingError."""
    try:
        yield
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise PassingError(" ".join(str(error).split())[:200] or type(error).__name__) from error


@contextmanager
def _s3_stream(url: str, access: RemoteAccess, offset: int, version: Version) -> Iterator[RemoteStream]:
    """A range cannot be asked under a condition through Arrow, so the version is compared before and after."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket) or not key:
        raise InputError(f"got {url!r}, wanted s3://bucket/key: correct it.")
    with _s3_errors(url):
        filesystem = _s3_filesystem(bucket, access)
        file = filesystem.open_input_file(f"{bucket}/{key}")
    with file:
        found = _s3_version(file)
        start = offset if found == version else 0
        yield RemoteStream(version=found, offset=start, chunks=_s3_chunks(file, start, url))
    with _s3_errors(url), filesystem.open_input_file(f"{bucket}/{key}") as file:
        if _s3_version(file) != found:
            raise ChangedError


def _s3_filesystem(bucket: str, access: RemoteAccess) -> Any:
    from pyarrow import fs  # loads the AWS SDK, which few recipes need

    if access.endpoint_url is None:
        return fs.S3FileSystem(
            anonymous=access.anonymous,
            region=fs.resolve_s3_region(bucket),
            connect_timeout=_TIMEOUT_SECONDS,
            request_timeout=_TIMEOUT_SECONDS,
        )
    endpoint = urlsplit(access.endpoint_url)
    return fs.S3FileSystem(
        anonymous=access.anonymous,
        region="us-east-1",  # goes into signatures; stores of one region take any
        scheme=endpoint.scheme,
        endpoint_override=endpoint.netloc,
        connect_timeout=_TIMEOUT_SECONDS,
        request_timeout=_TIMEOUT_SECONDS,
    )


def _s3_version(file: Any) -> Version:
    fields = {name: value.decode(errors="replace") for name, value in (file.metadata() or {}).items()}
    return Version(etag=fields.get("ETag"), last_modified=fields.get("Last-Modified"), size=file.size())


def _s3_chunks(file: Any, start: int, url: str) -> Iterator[bytes]:
    with _s3_errors(url):
        num_left = file.size() - start
        file.seek(start)
        while num_left:
            chunk = file.read(min(num_left, _S3_RANGE_BYTES))
            if not chunk:
                raise PassingError(f"the object ended {num_left} bytes early")
            num_left -= len(chunk)
            yield chunk


@contextmanager
def _s3_errors(url: str) -> Iterator[None]:
    """Arrow raises OSError for everything, and only its text says for what."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        if isinstance(error, FileNotFoundError | ValueError) or _S3_REFUSAL.search(reason):
            raise InputError(
                f"got no {url} ({reason}), wanted an object that may be read: correct the URL or the credentials."
            ) from error
        raise PassingError(reason) from error
