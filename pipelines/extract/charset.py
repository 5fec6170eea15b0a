"""Bytes of a page to text: which charset, and how well it fits.

Order of the WHATWG encoding sniffing algorithm (https://html.spec.whatwg.org/#determining-the-character-encoding): byte
order mark, HTTP header, `meta` in the first bytes, detection. What a page declares is checked against its bytes, for
servers declare Latin-1 or GBK for UTF-8 pages by default.
"""

import codecs
import re
from typing import NamedTuple

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_PARAMETER = re.compile(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_META = re.compile(rb"<meta\b[^<>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_META_BYTES = 4096
_SNIFFED_BYTES = 64
_HIGH_BYTES = bytes(range(128, 256))
_NOT_SINGLE_BYTE = frozenset(
    ("gb18030", "big5hkscs", "cp932", "euc_jp", "iso2022_jp", "cp949", "utf-16-le", "utf-16-be")
)
_CODECS = {"gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949"}
"""What pages hold goes beyond the charsets that they name: Python's widest superset of each is used."""
_MIN_UTF8_EVIDENCE = 12
"""Bytes outside ASCII that are valid UTF-8 and outweigh a declared multi-byte charset: 6 characters of GBK are valid
UTF-8 by chance in fewer than 1 of 10,000 cases."""
_MAX_REPLACED_RATIO = 0.001
"""Characters that may fail to decode (a cut-off tail, one bad quotation mark) before the declaration is doubted."""

_EACH_OTHERS_BYTES = {"gb18030": "big5hkscs", "big5hkscs": "gb18030"}
_COMMON_CHINESE = "的一是不了在人有我他这這个個们們中来來上大为為和国國，。"

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Decoded(NamedTuple):
    """Text with the charset that gave it."""

    text: str
    charset: str
    num_replaced: int
    """Characters that did not decode."""


def decode(payload: bytes, content_type: str | None, *, is_html: bool) -> Decoded:
    """Text of a page, its charset, and how many characters did not decode. Never raises."""
    for mark, charset in _BYTE_ORDER_MARKS:
        if payload.startswith(mark):
            return _decode(payload[len(mark) :], charset)
    declared = _declared(payload, content_type, is_html=is_html) or _utf16(payload)
    if declared in (None, "utf-8") or (declared is not None and _is_utf8_instead(payload, declared)):
        try:
            return Decoded(payload.decode(), "utf-8", 0)
        except UnicodeDecodeError:
            pass
    if declared is not None:
        as_declared = _less_odd(payload, _decode(payload, declared))
        if as_declared.num_replaced <= max(1, len(as_declared.text) * _MAX_REPLACED_RATIO):
            return as_declared
    detected = _codec(detect_encoding(payload) or "") or "utf-8"
    found = _decode(payload, detected)
    if declared is not None and as_declared.num_replaced <= found.num_replaced:
        return as_declared
    return found


def _less_odd(payload: bytes, decoded: Decoded) -> Decoded:
    """`decoded`, or the other of GB18030 and Big5, which decode each other's bytes into rare characters."""
    if decoded.charset not in _EACH_OTHERS_BYTES:
        return decoded
    other = _decode(payload, _EACH_OTHERS_BYTES[decoded.charset])
    num_common, num_common_of_other = (sum(map(text.count, _COMMON_CHINESE)) for text in (decoded.text, other.text))
    return other if num_common_of_other > max(4, 4 * num_common) else decoded


def _decode(payload: bytes, charset: str) -> Decoded:
    text = payload.decode(charset, "replace")
    return Decoded(text, charset, 0 if text.isascii() else text.count(REPLACEMENT))


def _declared(payload: bytes, content_type: str | None, *, is_html: bool) -> str | None:
    header = _PARAMETER.search(content_type or "")
    codec = _codec(header[1]) if header else None
    if codec is None and is_html and (meta := _META.search(payload, 0, _META_BYTES)):
        codec = _codec(meta[1].decode("ascii"))
        if codec in ("utf-16-le", "utf-16-be"):  # a meta that can be read as ASCII is not UTF-16
            codec = "utf-8"
    return codec


def _codec(label: str) -> str | None:
    """Python's codec for a charset label, or None where there is none."""
    name = map_encoding_to_html5(label, fallback_utf8=False)
    if name is None:
        return None
    name = _CODECS.get(name.lower(), name.lower())
    try:
        codecs.lookup(name)
    except LookupError:
        return None
    return name


def _utf16(payload: bytes) -> str | None:
    """UTF-16 without a byte order mark: markup and spaces leave every second byte null."""
    head = payload[:_SNIFFED_BYTES]
    if len(head) < 16 or head.count(0) * 5 < len(head):
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > 8 * even:
        return "utf-16-le"
    return "utf-16-be" if even > 8 * odd else None


def looks_like_utf16(payload: bytes) -> bool:
    """Whether a page has the byte order mark of UTF-16, or the nulls of its markup."""
    return payload.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _utf16(payload) is not None


def _is_utf8_instead(payload: bytes, declared: str) -> bool:
    """Whether bytes declared as something else are UTF-8: too many valid sequences for chance."""
    num_high = len(payload) - len(payload.translate(None, _HIGH_BYTES))
    if num_high < (_MIN_UTF8_EVIDENCE if declared in _NOT_SINGLE_BYTE else 2):
        return False
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
