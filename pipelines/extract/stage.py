"""The extract stage: PAGE -> DOCUMENT."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.digest import canonical, document_id
from pipelines.errors import ConfigError
from pipelines.extract.charset import decode, looks_like_utf16
from pipelines.extract.html import Extracted, extract_html
from pipelines.extract.limits import TooDeepError, TooManyAttributesError, TooManyTagsError
from pipelines.extract.normalize import normalize
from pipelines.extract.rights import RightsFound, combined, header_rights
from pipelines.schemas import DOCUMENT, PAGE
from pipelines.stage import NOT_OF_RECIPE, Derived, Read, RowBudget, Stage
from pipelines.takedown.documents import Takedown, derive, take_down
from pipelines.tallies import tally_problems

_HTML_TYPES = frozenset(("text/html", "application/xhtml+xml"))
_PLAIN_TYPES = frozenset(("text/plain", "text/markdown"))
_UNKNOWN_TYPES = frozenset(("", "application/octet-stream", "application/xml", "text/xml", "unknown/unknown"))
_SNIFFED_BYTES = 2048
_BINARY = bytes(set(range(1, 32)) - set(b"\t\n\f\r\x1b"))
_MAX_BINARY_RATIO = 0.1
_MAGIC = re.compile(
    rb"%PDF-|\x89PNG\r\n|GIF8[79]a|\xff\xd8\xff|RIFF....WEBP|PK\x03\x04|\x1f\x8b\x08|BZh[1-9]|7z\xbc\xaf|Rar!\x1a|OggS"
    rb"|ID3[\x02-\x04]|\x7fELF|MZ\x90\x00|\xd0\xcf\x11\xe0|wOF[F2]|....ftyp|\x28\xb5\x2f\xfd|\x00\x00\x01\x00\x01|\{\\rtf",
    re.DOTALL,
)
_MARKUP = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta|div|p|h1|table|article|span|a)\b", re.IGNORECASE)
_MAX_REPLACED_RATIO = 0.05
"""Characters that did not decode, above which a page is called undecodable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig:
    """What becomes of a page."""

    main_content: bool = True
    """Whether navigation, footers, advertisements and the like are left out of HTML."""
    comments: bool = True
    """Whether comment sections, and with them forum threads, count as main content."""
    min_main_chars: int = 200
    """Main text shorter than this, in characters, gives way to the whole text where that is longer."""
    min_text_chars: int = 1
    """Text shorter than this, in characters, is the problem `empty`."""
    max_page_bytes: int = 8 << 20
    """Bytes of a page; a larger one is the problem `too_large`."""
    max_nesting: int = 256
    """Block elements inside one another; a deeper page is the problem `too_deep`. Browsers stop at 512."""
    max_tags: int = 1 << 19
    """Tags of a page; one with more is the problem `too_many_tags`. A million elements take about 700 MB."""
    max_page_seconds: float = 60.0
    """CPU seconds for a page; one that takes longer, in two processes, is the problem `page_timeout`. A kill-switch: the
    bounds above are what keeps pages quick, and no page known to us comes near it."""
    max_page_memory_bytes: int = 2 << 30
    """Private memory for a page; one that takes more, or crashes the extractor, in two processes, is `page_crashed`."""
    takedown: Takedown = field(default=Takedown(), metadata=NOT_OF_RECIPE)
    """What is taken down, in digests: from the workspace's ledger, whatever the recipe."""

    def __post_init__(self) -> None:
        for name, lowest in (
            ("min_main_chars", 0),
            ("min_text_chars", 1),
            ("max_page_bytes", 1),
            ("max_nesting", 16),
            ("max_tags", 1),
            ("max_page_seconds", 1),
            ("max_page_memory_bytes", 256 << 20),
        ):
            value = getattr(self, name)
            if value < lowest:
                raise ConfigError(f"got {name} {value} in extract, wanted at least {lowest}: raise it.")


def extract_documents(batches: Iterable[pa.RecordBatch], config: ExtractConfig) -> Iterator[pa.RecordBatch]:
    """PAGE -> DOCUMENT, one row for each row, in order.

    `problem` is what the reader found (of a page that was withdrawn: `robots_disallowed`, `reserved`), or `http_STATUS`,
    `too_large`, `not_text`, `undecodable`, `too_deep`, `too_many_tags`,
    `too_many_attributes`, `empty`; `page_crashed` and `page_timeout` are set on pages that broke their budget (`Stage.budget`);
    the text is empty exactly where a problem stands. A page that is taken down has the problem `taken_down` and keeps nothing.
    """
    for batch in batches:
        rows = [_document(page, config) for page in batch.to_pylist()]
        yield take_down(pa.RecordBatch.from_pylist(rows, schema=DOCUMENT), config.takedown)


def page_budget(config: ExtractConfig) -> RowBudget:
    """What a page may cost the process that extracts it."""
    return RowBudget(seconds=config.max_page_seconds, memory_bytes=config.max_page_memory_bytes)


def derive_documents(read: Read, old_config: Mapping[str, Any], config: ExtractConfig) -> Derived | None:
    """DOCUMENT -> DOCUMENT where the two configs differ in what is taken down and in nothing else: no page is read again."""
    wanted = canonical(config)
    if {**old_config, "takedown": None} != {**wanted, "takedown": None}:
        return None
    try:
        old = Takedown.parse(old_config["takedown"])
    except (KeyError, TypeError):  # of a version that knew of none
        return None
    return derive(read, old, config.takedown)


EXTRACT = Stage(
    name="extract",
    version=6,
    inputs=(PAGE,),
    output=DOCUMENT,
    transform=extract_documents,
    libraries=(
        *("ahocorasick_rs", "fastwarc", "llvmlite", "lxml", "numba", "numpy"),
        *("resiliparse", "trafilatura"),
    ),
    package_data=("pipelines/signals/lexicons/variants",),
    tally=tally_problems,
    budget=page_budget,
    derive=derive_documents,
)


def _document(page: dict[str, Any], config: ExtractConfig) -> dict[str, Any]:
    """One row of DOCUMENT."""
    headers: list[tuple[str, str]] = [header.partition(": ")[::2] for header in page["headers"]]
    row = {
        "doc_id": document_id(page["url"], page["payload"]),
        "url": page["url"],
        "fetched_at": page["fetched_at"],
        "record_offset": page["record_offset"],
        "num_page_bytes": len(page["payload"]),
        "content_type": page["content_type"],
        "charset": None,
        "declared_language": next((value for name, value in headers if name == "content-language"), None),
        "title": None,
        "author": None,
        "published_at": None,
        "site_name": None,
        "extractor": None,
        "license_url": None,
        "directives": [],
        "problem": _refusal(page, config),
        "text": "",
    }
    found = _read(row, page, config) if row["problem"] is None else RightsFound()
    row["directives"], row["license_url"] = combined(header_rights(headers, page["url"]), found)
    return row


def _read(row: dict[str, Any], page: dict[str, Any], config: ExtractConfig) -> RightsFound:
    """Fill in what the page's bytes say; returns what they say of its rights."""
    is_html = _is_html(page["content_type"], page["payload"])
    decoded = decode(page["payload"], page["content_type"], is_html=is_html)
    row["charset"] = decoded.charset
    if decoded.num_replaced > _MAX_REPLACED_RATIO * len(decoded.text):
        row["problem"] = "undecodable"
        return RightsFound()
    source = decoded.text.replace("\x00", "")
    rights = RightsFound()
    if not is_html:
        row["text"], row["extractor"] = normalize(source), "plain"
    else:
        try:
            found = _extracted(source, page["url"], config)
        except TooDeepError:
            row["problem"] = "too_deep"
            return RightsFound()
        except TooManyTagsError:
            row["problem"] = "too_many_tags"
            return RightsFound()
        except TooManyAttributesError:
            row["problem"] = "too_many_attributes"
            return RightsFound()
        for name in ("text", "title", "author", "published_at", "site_name", "extractor"):
            row[name] = getattr(found, name)
        row["declared_language"] = found.language or row["declared_language"]
        rights = found.rights
    if len(row["text"].strip()) < config.min_text_chars:
        row["problem"], row["text"], row["extractor"] = "empty", "", None
    return rights


def _extracted(source: str, url: str | None, config: ExtractConfig) -> Extracted:
    return extract_html(
        source,
        url,
        main_content=config.main_content,
        comments=config.comments,
        min_main_chars=config.min_main_chars,
        max_nesting=config.max_nesting,
        max_tags=config.max_tags,
    )


def _refusal(page: dict[str, Any], config: ExtractConfig) -> str | None:
    """Why a page is not read, or None."""
    if page["problem"] is not None:
        return str(page["problem"])
    if not 200 <= page["status"] < 300:
        return f"http_{page['status']}"
    if len(page["payload"]) > config.max_page_bytes:
        return "too_large"
    if not page["payload"]:
        return "empty"
    return None if _is_text(page["content_type"], page["payload"]) else "not_text"


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def _is_text(content_type: str | None, payload: bytes) -> bool:
    """Whether both the header and the first bytes allow for HTML or plain text."""
    media_type = _media_type(content_type)
    head = payload[:_SNIFFED_BYTES]
    if media_type in ("application/xml", "text/xml") and not _MARKUP.search(head):
        return False
    if media_type not in _HTML_TYPES | _PLAIN_TYPES | _UNKNOWN_TYPES or _MAGIC.match(head):
        return False
    if looks_like_utf16(head):
        return True
    num_binary = len(head) - len(head.translate(None, _BINARY))  # nulls do not count: text can have them strewn in
    return num_binary <= _MAX_BINARY_RATIO * len(head)


def _is_html(content_type: str | None, payload: bytes) -> bool:
    media_type = _media_type(content_type)
    if media_type in _HTML_TYPES:
        return True
    return media_type in _UNKNOWN_TYPES and _MARKUP.search(payload, 0, _SNIFFED_BYTES) is not None
