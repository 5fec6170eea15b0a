"""Pages and documents made for tests."""

from collections.abc import Sequence
from typing import Any

from pipelines.extract import ExtractConfig, extract_documents
from pipelines.schemas import DOCUMENT
from pipelines.sources.pages import Page, batches

URL = "http://site.example/a/page"


def article(html: str, prose: str) -> str:
    """`html` between two paragraphs of an article."""
    return f"<body><article><p>{prose}</p>{html}<p>{prose}</p></article></body>"


def extract(
    payload: bytes | str,
    content_type: str | None = "text/html",
    *,
    url: str | None = URL,
    status: int = 200,
    headers: Sequence[str] = (),
    problem: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The document of one page."""
    body = payload.encode() if isinstance(payload, str) else payload
    page = Page(url, None, status, content_type, tuple(headers), body, 7, problem)
    (batch,) = extract_documents(batches([page]), ExtractConfig(**options))
    assert batch.schema.equals(DOCUMENT)
    (row,) = batch.to_pylist()
    assert (row["problem"] is None) == bool(row["text"])
    return row


def text_of(html: str, **options: Any) -> str:
    """The text of a page of HTML."""
    return extract("<meta charset=utf-8>" + html, **options)["text"]
