"""Transfer and content codings of an HTTP body, undone (RFC 9112 section 7.1, RFC 9110 section 8.4.1).

Archives are not exact: Common Crawl decodes the body and renames the header, others decode it and keep the header. So
the bytes decide: a body that is not coded as its header says is taken as it is where it reads as text.
"""

import io
import re
import zlib

from fastwarc.stream_io import BrotliReader, ZstdReader

_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]{0,1024})?\r?\n")
_MAX_CODINGS = 4
_MAX_GZIP_MEMBERS = 64
_SNIFFED_BYTES = 512
_BINARY = bytes(set(range(32)) - set(b"\t\n\f\r\x1b"))
_GZIP_MAGIC = b"\x1f\x8b"


class BadEncodingError(Exception):
    """The body is not what its coding headers say, nor plain text."""


class TooLargeError(Exception):
    """The decoded body is larger than the limit."""


def decode_body(body: bytes, transfer_encoding: str, content_encoding: str, max_num_bytes: int) -> bytes:
    """The body without its codings. Raises BadEncodingError or TooLargeError; decodes at most `max_num_bytes` + 1."""
    if "chunked" in transfer_encoding.lower():
        body = _dechunk(body)
    codings = [coding.strip().lower() for coding in content_encoding.split(",")]
    for coding in reversed(codings[:_MAX_CODINGS]):
        body = _decode(body, coding, max_num_bytes)
    if len(body) > max_num_bytes:
        raise TooLargeError
    return body


def _decode(body: bytes, coding: str, max_num_bytes: int) -> bytes:
    if coding in ("", "identity") or not body:
        return body
    try:
        if coding in ("gzip", "x-gzip"):
            decoded = _inflate(body, 31, max_num_bytes)
        elif coding == "deflate":  # zlib by the RFC, raw in the wild
            try:
                decoded = _inflate(body, 15, max_num_bytes)
            except zlib.error:
                decoded = _inflate(body, -15, max_num_bytes)
        elif coding == "br":
            decoded = BrotliReader(io.BytesIO(body)).read(max_num_bytes + 1)
        elif coding == "zstd":
            decoded = ZstdReader(io.BytesIO(body)).read(max_num_bytes + 1)
        else:
            raise BadEncodingError  # noqa: TRY301  one way out for every body that does not decode
    except (zlib.error, OSError, EOFError, BadEncodingError):
        if body[:_SNIFFED_BYTES].translate(None, _BINARY) == body[:_SNIFFED_BYTES]:
            return body
        raise BadEncodingError from None
    if len(decoded) > max_num_bytes:
        raise TooLargeError
    return decoded


def _inflate(body: bytes, window_bits: int, max_num_bytes: int) -> bytes:
    decoded = b""
    for _ in range(_MAX_GZIP_MEMBERS):
        decompressor = zlib.decompressobj(window_bits)
        decoded += decompressor.decompress(body, max_num_bytes + 1 - len(decoded))
        if len(decoded) > max_num_bytes:
            return decoded
        if not decompressor.eof:
            raise EOFError
        body = decompressor.unused_data
        if not body.startswith(_GZIP_MAGIC):  # what follows the last member is padding
            return decoded
    raise BadEncodingError


def _dechunk(body: bytes) -> bytes:
    """The chunks' data; the body as it is where it does not begin with a chunk."""
    chunks: list[bytes] = []
    position = 0
    while header := _CHUNK_SIZE.match(body, position):
        size = int(header[1], 16)
        position = header.end() + size
        if size == 0:
            return b"".join(chunks)
        if position > len(body):
            raise BadEncodingError
        chunks.append(body[header.end() : position])
        position += 2 if body.startswith(b"\r\n", position) else body.startswith(b"\n", position)
    if chunks:
        raise BadEncodingError
    return body
