"""One URL to one response or one failure. Redirects are not followed here, and nothing is retried.

Bodies are decoded here rather than by aiohttp, so that a small body that swells is cut while it is
read, and a body that is not what its Content-Encoding says is told apart from a broken connection.
"""

import re
import ssl
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from pipelines.crawl.address import AllowedAddresses, is_address
from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.outcome import Outcome
from pipelines.crawl.resolver import AddressRefusedError, JudgingResolver

TEXT_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/plain"})
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

_REDIRECT_BODY_MAX_NUM_BYTES = 64 << 10
_SNIFFED_NUM_BYTES = 1024
_NOT_PRINTABLE = re.compile(r"[^ -~]")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_DNS_TTL_SECONDS = 300
_KEEP_ALIVE_SECONDS = 10
_MAX_HEADER_NUM_BYTES = 64 << 10
_MAX_HEAD_NUM_BYTES = 24 << 10
"""Of the headers together: FastWARC reads no more than 32 KiB."""
_MAX_REASON_NUM_CHARS = 100
_BOMB_RATIO = 100
_BOMB_NUM_BYTES = 1 << 20
"""A body that swells to more than so many times its size is a bomb, once it is larger than this."""
_GRACE = 1 / 3
"""Share of the time-out after which an answer must have kept up the minimum rate."""

_FAILURES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Outcome], ...] = (
    (AddressRefusedError, Outcome.ADDRESS_REFUSED),
    (TimeoutError, Outcome.TIMEOUT),
    (aiohttp.ClientConnectorDNSError, Outcome.DNS_ERROR),
    ((aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError, ssl.SSLError), Outcome.TLS_ERROR),
    (aiohttp.ClientConnectorError, Outcome.CONNECT_ERROR),
    ((aiohttp.ClientResponseError, aiohttp.InvalidURL), Outcome.BAD_RESPONSE),
    ((aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError), Outcome.DISCONNECTED),
    ((aiohttp.ClientError, ValueError, OSError), Outcome.BAD_RESPONSE),
)
"""The first kind that fits names the failure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """A whole answer: its body is decoded."""

    url: str
    status: int
    reason: str
    version: str
    """HTTP/1.0 or HTTP/1.1."""
    headers: tuple[tuple[str, str], ...]
    """As sent, in order."""
    body: bytes | None
    """None where it was not downloaded because it is not text."""
    is_cut: bool
    """Whether the body was longer than what is kept."""
    address: str | None
    """The IP address that answered."""
    fetched_at: datetime
    """When the request began, UTC."""
    seconds: float
    """From the request to the end of the body, or to where it was cut."""

    def header(self, name: str) -> str | None:
        """The values of a header (its name in lower case), joined by commas; None where it was not sent."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """No answer, and why."""

    outcome: Outcome
    error: str
    seconds: float
    """From the request to the failure."""


class _BodyError(Exception):
    """What is wrong with an answer."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class _PeerResponse(aiohttp.ClientResponse):
    """aiohttp lets go of the connection of a short answer before anyone can ask whom it came from."""

    peer_address: str | None = None

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        if connection.transport is not None:
            peer = connection.transport.get_extra_info("peername")
            self.peer_address = peer[0] if peer else None
        return await super().start(connection)


class Fetcher:
    """An HTTP client that connects only to judged addresses. Use as an async context manager."""

    def __init__(self, config: CrawlConfig, connect_to: Mapping[str, tuple[str, int]]) -> None:
        """See `crawl` for `connect_to`."""
        self._config = config
        self._resolver = JudgingResolver(AllowedAddresses.parse(config.allow_addresses), connect_to)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._resolver,
                ttl_dns_cache=_DNS_TTL_SECONDS,
                limit=0,  # the engine counts
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
            ),
            timeout=aiohttp.ClientTimeout(total=self._config.timeout_seconds),
            headers={
                "User-Agent": self._config.user_agent_header,
                "Accept": "text/html, application/xhtml+xml, text/plain;q=0.9, */*;q=0.1",
                "Accept-Encoding": "gzip, deflate",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_PeerResponse,
            auto_decompress=False,
            max_line_size=_MAX_HEADER_NUM_BYTES,
            max_field_size=_MAX_HEADER_NUM_BYTES,
            trust_env=False,
        )
        # aiohttp asks a second time, at once, where a server hangs up; the pause and the count are the engine's.
        self._session._retry_connection = False  # noqa: SLF001
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self._session.close()

    async def fetch(
        self, url: str, *, max_num_bytes: int, text_only: bool = True, headers: Mapping[str, str] | None = None
    ) -> Response | Failure:
        """Ask for a canonical URL once. With `text_only` the body of what is not text is not downloaded."""
        target = URL(url, encoded=True)
        began_at = time.monotonic()
        try:
            host, port = target.host or "", target.port or 0
            if is_address(host):
                # aiohttp resolves no host that is an address already.
                self._resolver.judge(host, host, port)
            fetched_at = datetime.fromtimestamp(time.time(), UTC)
            async with self._session.get(target, allow_redirects=False, headers=headers) as answer:
                _check_head(answer)
                body, is_cut = await self._body(answer, began_at, max_num_bytes, text_only=text_only)
                return _response(answer, url, fetched_at, time.monotonic() - began_at, body, is_cut=is_cut)
        except _BodyError as error:
            return Failure(outcome=error.outcome, error=str(error), seconds=time.monotonic() - began_at)
        except (aiohttp.ClientError, AddressRefusedError, OSError, ValueError) as error:
            outcome = next(outcome for kinds, outcome in _FAILURES if isinstance(error, kinds))
            message = str(error)[:500] or type(error).__name__
            return Failure(outcome=outcome, error=message, seconds=time.monotonic() - began_at)

    async def _body(
        self, answer: aiohttp.ClientResponse, began_at: float, max_num_bytes: int, *, text_only: bool
    ) -> tuple[bytes | None, bool]:
        """The decoded body, None where it is not wanted, and whether it was cut."""
        body: bytes | None = None
        is_cut = False
        is_redirect = answer.status in REDIRECT_STATUSES
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if is_redirect or not text_only or not media_type or media_type in TEXT_TYPES:
            limit = min(max_num_bytes, _REDIRECT_BODY_MAX_NUM_BYTES) if is_redirect else max_num_bytes
            body, is_cut = await self._read(answer, began_at, limit)
            if text_only and not media_type and not is_redirect and _is_binary(body):
                body = None
        if body is None or is_cut:
            # The rest is not wanted, so the connection cannot be used again.
            answer.close()
        return body, is_cut

    async def _read(self, answer: aiohttp.ClientResponse, began_at: float, max_num_bytes: int) -> tuple[bytes, bool]:
        """The decoded body, and whether it was cut. Holds at most one chunk more than `max_num_bytes`."""
        inflater = _inflater(answer.headers.get("Content-Encoding", ""))
        due_at = began_at + self._config.timeout_seconds * _GRACE
        chunks: list[bytes] = []
        num_bytes = num_wire_bytes = 0
        async for chunk in answer.content.iter_any():
            num_wire_bytes += len(chunk)
            piece = inflater.feed(chunk, max_num_bytes + 1 - num_bytes) if inflater else chunk
            chunks.append(piece)
            num_bytes += len(piece)
            num_decoded = num_wire_bytes - (inflater.num_left if inflater else 0)
            if num_bytes > max(_BOMB_NUM_BYTES, num_decoded * _BOMB_RATIO):
                raise _BodyError(Outcome.DECOMPRESSION_BOMB, f"{num_decoded} bytes became more than {num_bytes}")
            if num_bytes > max_num_bytes:
                return b"".join(chunks)[:max_num_bytes], True
            now = time.monotonic()
            if now > due_at and num_wire_bytes < (now - began_at) * self._config.min_bytes_per_second:
                raise _BodyError(Outcome.TOO_SLOW, f"{num_wire_bytes} bytes came in {now - began_at:.0f} s")
        if inflater:
            inflater.finish()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks), False


def _check_head(answer: aiohttp.ClientResponse) -> None:
    num_bytes = sum(len(name) + len(value) + 4 for name, value in answer.raw_headers)
    if num_bytes > _MAX_HEAD_NUM_BYTES:
        answer.close()
        raise _BodyError(Outcome.BAD_RESPONSE, f"its headers take {num_bytes} bytes, more than {_MAX_HEAD_NUM_BYTES}")


def _response(
    answer: aiohttp.ClientResponse, url: str, fetched_at: datetime, seconds: float, body: bytes | None, *, is_cut: bool
) -> Response:
    version = answer.version
    return Response(
        url=url,
        status=answer.status,
        reason=_NOT_PRINTABLE.sub("?", answer.reason or "")[:_MAX_REASON_NUM_CHARS],
        version=f"HTTP/{version.major}.{version.minor}" if version else "HTTP/1.1",
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.raw_headers),
        body=body,
        is_cut=is_cut,
        address=answer.peer_address if isinstance(answer, _PeerResponse) else None,
        fetched_at=fetched_at,
        seconds=seconds,
    )


def _is_binary(body: bytes) -> bool:
    return b"\0" in body[:_SNIFFED_NUM_BYTES] and not body.startswith(_UTF16_MARKS)


class _Inflater:
    """zlib with a bound on what comes out."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self.num_left = 0
        """Bytes of the last chunk that were not decoded, because there was no room for what they become."""
        self._engine: zlib._Decompress | None = None

    def feed(self, data: bytes, max_num_bytes: int) -> bytes:
        """Decode up to `max_num_bytes` (at least 1) of a chunk. Raises _BodyError."""
        pieces: list[bytes] = []
        while data and max_num_bytes > 0:
            if self._engine is None:
                self._engine = zlib.decompressobj(self._window(data))
            elif self._engine.eof:
                if self._encoding != "gzip" or not data.startswith(b"\x1f\x8b"):
                    break  # padding behind the last member
                self._engine = zlib.decompressobj(self._window(data))
            try:
                piece = self._engine.decompress(data, max_num_bytes)
            except zlib.error as error:
                raise _BodyError(Outcome.BAD_ENCODING, f"the body is not {self._encoding}: {error}") from error
            pieces.append(piece)
            max_num_bytes -= len(piece)
            data = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
        self.num_left = len(data)
        return b"".join(pieces)

    def finish(self) -> None:
        """Raise _BodyError where the stream ended too early."""
        if self._engine is not None and not self._engine.eof:
            raise _BodyError(Outcome.BAD_ENCODING, f"the {self._encoding} body ends too early")

    def _window(self, data: bytes) -> int:
        if self._encoding == "gzip":
            return zlib.MAX_WBITS | 16
        # "deflate" means zlib (RFC 9110), but some servers send it without the zlib header.
        return zlib.MAX_WBITS if data[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS


def _inflater(encoding: str) -> _Inflater | None:
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return None
    if encoding in {"gzip", "x-gzip"}:
        return _Inflater("gzip")
    if encoding == "deflate":
        return _Inflater("deflate")
    raise _BodyError(Outcome.BAD_ENCODING, f"the body is encoded as {encoding[:100]!r}, which was not asked for")
