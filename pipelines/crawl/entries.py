"""What the frontier gives out and takes in."""

from dataclasses import dataclass
from typing import Literal

from pipelines.crawl.outcome import Outcome

Kind = Literal["page", "sitemap", "feed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Archived:
    """The page of a URL that is in the WARC files."""

    payload_digest: str
    record_id: str | None
    fetched_at: float
    """Seconds since 1970."""
    etag: str | None
    last_modified: str | None
    num_bytes: int
    directives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that is next."""

    id: int
    url: str
    kind: Kind
    depth: int
    num_redirects: int
    leased_until: float
    """Seconds since 1970."""
    revisit_seconds: float | None
    archived: Archived | None
    """None where no page of it is in the files."""

    @property
    def is_new_page(self) -> bool:
        """Whether it may bring a page more."""
        return self.kind == "page" and self.archived is None


@dataclass(frozen=True, slots=True)
class Link:
    """A URL that a visit found."""

    url: str
    origin: str
    depth: int
    num_redirects: int
    refusal: Outcome | None
    """Why it is not fetched; None where it is."""
    kind: Kind = "page"
    modified_at: float | None = None
    """When a sitemap says it changed, in seconds since 1970: a page fetched before that is due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """What became of a target."""

    target: Target
    outcome: Outcome
    decided_at: float
    """Seconds since 1970; where there was an answer, when it was asked for."""
    status: int | None = None
    robots_rule: str | None = None
    error: str | None = None
    retry_at: float | None = None
    """Seconds since 1970; a call after that tries again."""
    due_at: float | None = None
    revisit_seconds: float | None = None
    is_changed: bool = False
    """Whether it brought other bytes than the page in the files."""
    is_revisit: bool = False
    """Whether its record only refers to the one of the page in the files."""
    canonical: str | None = None
    archived: Archived | None = None
    """The page that counts in the files from now on: this answer's, or the one from before."""
    links: tuple[Link, ...] = ()
    """Those that the ledger may not know yet."""
    num_links: int = 0
    num_links_dropped: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawal:
    """A page in the files that may not be used any more."""

    url_id: int
    outcome: Outcome
    decided_at: float
    robots_rule: str
    directives: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What is known of an origin's own files. `robots_text` is None where there is no robots.txt, which restricts nothing."""

    robots_text: str | None
    robots_status: int | None
    failure: Outcome | None
    """Set where the origin may not be crawled now."""
    error: str | None
    files: tuple[tuple[str, str | None, str | None], ...]
    """URL, text and problem of each other file that speaks of rights: see pipelines.rights.site.SiteFile."""
    digest: str
    """Of what they say."""
    expires_at: float
    """Seconds since 1970."""


@dataclass(slots=True)
class Asked:
    """Requests to one origin since the last commit."""

    at: float
    """Of the last one, in seconds since 1970."""
    num_requests: int = 0
    num_failed: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    ready_at: float = 0.0
    """Before which the origin asked not to be asked, in seconds since 1970; 0: it did not."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A WARC file that no crawl has closed."""

    id: int
    name: str
    num_bytes: int
    """The bytes that the ledger vouches for."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port, and what is known of its files."""

    id: int
    origin: str
    site: Site | None
    """None where it was never asked, or must be asked again."""
    is_changed: bool
    """Whether its files said something else than before, and its URLs were not judged again yet."""
    last_request_at: float | None
    ready_at: float | None
    """Before which it asked not to be asked, in seconds since 1970."""
    num_pages: int
    num_page_bytes: int


@dataclass(frozen=True, slots=True)
class JudgedUrl:
    """A URL that an origin's files decide about: a page in the files, or one that they forbade."""

    id: int
    url: str
    outcome: Outcome
    is_queued: bool
    archived: Archived | None
