"""Real pages for the benchmarks: what `infra/fetch_debian_docs.sh` unpacked, and WARC files made of them."""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

ENGLISH = (
    "python3.11-doc/**/*.html",
    "postgresql-doc-15/**/*.html",
    "debian-handbook/**/en-US/**/*.html",
    "debian-reference-en/**/*.html",
    "debian-faq/**/*.en.html",
    "developers-reference/*.html",
)
_RECORD_HEADERS = {"WARC-Identified-Payload-Type": "text/html"}
"""As Common Crawl writes them. Without the second one datatrove asks libmagic, which takes three pages in four for XML."""


def english_pages(folder: Path, num_pages: int) -> list[tuple[str, bytes]]:
    """At most `num_pages` (URL, bytes) of the English sites, in an order that mixes them and is always the same."""
    paths = {path for pattern in ENGLISH for path in folder.glob(pattern) if path.is_file()}
    names = sorted((path.relative_to(folder).as_posix() for path in paths), key=_digest)[:num_pages]
    if not names:
        raise SystemExit(
            f"got no English page in {folder}, wanted those of Debian's documentation: run infra/fetch_debian_docs.sh {folder}."
        )
    return [(f"https://docs.example/{name}", (folder / name).read_bytes()) for name in names]


def all_pages(folders: Sequence[Path], num_pages: int) -> list[tuple[str, bytes]]:
    """At most `num_pages` (URL, bytes) of all sites and languages, mixed in an order that is always the same."""
    named = {path.relative_to(folder).as_posix(): path for folder in folders for path in folder.rglob("*.html")}
    names = sorted((name for name, path in named.items() if path.is_file()), key=_digest)[:num_pages]
    return [(f"https://docs.example/{name}", named[name].read_bytes()) for name in names]


def write_warc(path: Path, pages: Iterable[tuple[str, bytes]], fetched_at: str = "2024-01-02T03:04:05Z") -> None:
    """One WARC file, a gzip member for each page, all fetched at one time."""
    headers = [("Content-Type", "text/html")]  # as a server that leaves the charset to the page
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for url, body in pages:
            http = StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1")
            named = {
                "WARC-Date": fetched_at,
                "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>",
            }  # the same file each time
            record = writer.create_warc_record(
                url, "response", BytesIO(body), http_headers=http, warc_headers_dict=_RECORD_HEADERS | named
            )
            writer.write_record(record)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode()).digest()
