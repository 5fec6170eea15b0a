"""From a recipe's sources to source files: crawl, fetch or list them, then name each by its digest."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.demo.server import serve_folder, serve_sample
from flows.evaluation.canaries import write_canary_pages
from flows.recipe import CanariesSource, CrawlSource, Recipe, TextSource, WarcSource, text_options
from flows.watching.console import Report
from flows.workspace import Workspace
from pipelines.crawl import WARC_FOLDER_NAME, CrawlProgress, CrawlResult, crawl, status
from pipelines.digest import digest_value
from pipelines.errors import InputError, IntegrityError
from pipelines.inputs import digest_files
from pipelines.sources.files import (
    MAX_LISTING_BYTES,
    TEXT_SUFFIXES,
    WARC_SUFFIXES,
    expand,
    is_listing,
    is_remote,
    listed_urls,
)
from pipelines.sources.hub import fetch_dataset, fetched_files
from pipelines.sources.remote import RemoteFile, fetch_file, held_file, remote_path
from pipelines.sources.remote_streams import RemoteAccess
from pipelines.sources.text import TextOptions
from pipelines.sources.warc import WarcOptions
from pipelines.takedown.ledger import read_ledger, takedown_of
from pipelines.work import SourceFile

OnCrawl = Callable[[str, CrawlProgress], None]
SAMPLE = "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The source files of a recipe, and how each crawl stands."""

    files: tuple[SourceFile, ...]
    crawls: Mapping[str, CrawlResult]
    remote: Mapping[str, tuple[RemoteFile, ...]] = field(default_factory=dict)
    """The remote files of each WARC source that names any, in its order."""

    @property
    def num_fetched(self) -> int:
        """Requests that crawls made in this run."""
        return sum(result.num_fetched for result in self.crawls.values())

    def facts(self, recipe: Recipe) -> dict[str, Any]:
        """How the pages were collected, for the data card."""
        facts: dict[str, Any] = {
            "sources": ", ".join(f"{source.name} ({source.kind})" for source in recipe.sources),
            "source files": len(self.files),
            "source bytes": sum(item.num_bytes for item in self.files),
        }
        for source in recipe.sources:
            if isinstance(source, CrawlSource) and source.name in self.crawls:
                outcomes = self.crawls[source.name].outcomes
                facts[f"crawl {source.name}"] = ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items()))
                facts[f"crawl {source.name}: robots.txt"] = f"obeyed as {source.config.user_agent!r}"
            if source.name in self.remote:
                held = self.remote[source.name]
                hosts = ", ".join(sorted({urlsplit(item.url).netloc for item in held}))
                facts[f"remote {source.name}"] = (
                    f"{len(held)} files, {sum(map(_num_records, held))} records, of {hosts}"
                )
        return facts


def run_crawl(source: CrawlSource, recipe: Recipe, workspace: Workspace, on_crawl: OnCrawl) -> CrawlResult:
    """Crawl one source until its frontier is empty, without what is taken down; a finished crawl returns at once."""
    folder = workspace.crawl_folder(f"{recipe.name}-{source.name}")
    takedown = takedown_of(read_ledger(workspace.takedown_ledger))
    with _served(source, recipe) as connect_to:
        return crawl(
            source.config,
            folder,
            takedown=takedown,
            connect_to=connect_to,
            on_progress=lambda seen: on_crawl(source.name, seen),
        )


def collect(
    recipe: Recipe,
    workspace: Workspace,
    crawls: Mapping[str, CrawlResult],
    *,
    may_fetch: bool = True,
    report: Report | None = None,
) -> Collected:
    """The source files of a recipe, after its crawls. Fetches what is remote and not there yet, if it may.

    Raises InputError for a source in which nothing is found, FetchError where a server or the network fails.
    """
    warc_options = WarcOptions(max_page_bytes=recipe.extract.max_page_bytes)
    listed: list[tuple[Path, str, Any]] = []
    remote: dict[str, tuple[RemoteFile, ...]] = {}
    for source in recipe.sources:
        match source:
            case CrawlSource():
                listed += [(path, "warc", warc_options) for path in crawls[source.name].warc_paths]
            case WarcSource():
                paths, urls = _warc_places(source, recipe, workspace, may_fetch=may_fetch)
                held = _remote_files(source, urls, workspace, report, may_fetch=may_fetch)
                paths += [remote_path(item.url, workspace.remote_folder, item.max_records) for item in held]
                listed += [(path, "warc", warc_options) for path in paths]
                if held:
                    remote[source.name] = held
            case TextSource():
                paths = _text_paths(source, recipe, workspace, report, may_fetch=may_fetch)
                listed += [(path, "text", text_options(source)) for path in paths]
            case CanariesSource():
                path = workspace.canaries_folder / f"{digest_value(source.plan)[:16]}.jsonl"
                write_canary_pages(path, source.plan)
                listed.append((path, "text", TextOptions()))
    return Collected(files=_source_files(listed, remote, workspace), crawls=crawls, remote=remote)


def known_crawls(recipe: Recipe, workspace: Workspace) -> tuple[dict[str, CrawlResult], list[str]]:
    """What crawls have brought so far, without crawling, and the names of sources that are not finished."""
    results: dict[str, CrawlResult] = {}
    unfinished: list[str] = []
    for source in recipe.sources:
        if isinstance(source, CrawlSource):
            folder = workspace.crawl_folder(f"{recipe.name}-{source.name}")
            counts = status(folder)
            paths = tuple(sorted((folder / WARC_FOLDER_NAME).glob("*.warc.gz")))
            has_room = counts["num_pages"] < source.config.max_pages
            has_more = counts["num_due"] > 0 or (counts["num_queued"] > 0 and has_room)
            results[source.name] = CrawlResult(
                warc_paths=paths,
                num_fetched=0,
                num_pages=counts["num_pages"],
                num_unchanged=0,
                num_changed=0,
                num_withdrawn=0,
                outcomes=counts["outcomes"],
                complete=not has_more,
            )
            if has_more or not counts["num_urls"]:
                unfinished.append(source.name)
        elif _is_unfetched(source, recipe, workspace):
            unfinished.append(source.name)
    return results, unfinished


def _warc_places(
    source: WarcSource, recipe: Recipe, workspace: Workspace, *, may_fetch: bool
) -> tuple[list[Path], list[str]]:
    """Local files, sorted, and URLs in the order of the recipe and of its listings, each once.

    Where a listing is not there and may not be fetched, its files are left out.
    """
    named = expand([path for path in source.paths if not is_remote(path)], recipe.base, WARC_SUFFIXES)
    urls: dict[str, None] = {}
    listings = [path for path in named if is_listing(path.name)]
    for url in filter(is_remote, source.paths):
        if not is_listing(url):
            urls[url] = None
        elif may_fetch:
            fetch_file(url, workspace.remote_folder, _access(source), max_bytes=MAX_LISTING_BYTES)
        if is_listing(url) and held_file(url, workspace.remote_folder) is not None:
            listings.append(remote_path(url, workspace.remote_folder))
    for listing in listings:
        urls |= dict.fromkeys(listed_urls(listing, source.base_url, source.max_files))
    return [path for path in named if path not in listings], list(urls)


def _remote_files(
    source: WarcSource, urls: Sequence[str], workspace: Workspace, report: Report | None, *, may_fetch: bool
) -> tuple[RemoteFile, ...]:
    """What is there of remote files, after fetching what lacks, if that may be; one after another."""
    folder = workspace.remote_folder
    found: list[RemoteFile] = []
    for number, url in enumerate(urls):
        held = held_file(url, folder, max_records=source.max_records)
        if held is None and may_fetch:

            def show(num_bytes: int, size: int | None, num_done: int = number) -> None:
                if report is not None:
                    of = f" of {size / 1e6:,.0f}" if size else ""
                    report(f"fetch {source.name}", num_done, len(urls), f"{num_bytes / 1e6:,.0f}{of} MB of the next")

            held = fetch_file(url, folder, _access(source), max_records=source.max_records, on_bytes=show)
            if report is not None:
                report(f"fetch {source.name}", number + 1, len(urls), f"{held.num_records:,} records in the last")
        if held is not None:
            found.append(held)
    return tuple(found)


def _access(source: WarcSource) -> RemoteAccess:
    return RemoteAccess(
        allow_addresses=source.allow_addresses, anonymous=source.anonymous, endpoint_url=source.endpoint_url
    )


def _num_records(item: RemoteFile) -> int:
    return item.num_records or 0


def _text_paths(
    source: TextSource, recipe: Recipe, workspace: Workspace, report: Report | None, *, may_fetch: bool
) -> list[Path]:
    if source.dataset is None:
        return expand(source.paths, recipe.base, TEXT_SUFFIXES)
    folder = _dataset_folder(source, recipe, workspace)
    if not may_fetch:
        return fetched_files(folder) or []
    local = recipe.base / source.dataset

    def show(num_rows: int) -> None:
        if report is not None:
            report(f"fetch {source.name}", num_rows, source.max_rows, "rows")

    return fetch_dataset(
        str(local) if local.exists() else source.dataset,
        folder,
        split=source.split,
        text_field=source.text_field,
        url_field=source.url_field,
        max_rows=source.max_rows,
        on_progress=show,
    )


def _is_unfetched(source: WarcSource | TextSource | CanariesSource, recipe: Recipe, workspace: Workspace) -> bool:
    if isinstance(source, CanariesSource):
        return False
    if isinstance(source, TextSource):
        return source.dataset is not None and fetched_files(_dataset_folder(source, recipe, workspace)) is None
    folder = workspace.remote_folder
    if any(is_remote(path) and is_listing(path) and held_file(path, folder) is None for path in source.paths):
        return True
    try:
        _, urls = _warc_places(source, recipe, workspace, may_fetch=False)
    except InputError:  # who collects the files says what is wrong with them
        return False
    return any(held_file(url, folder, max_records=source.max_records) is None for url in urls)


def _dataset_folder(source: TextSource, recipe: Recipe, workspace: Workspace) -> Path:
    return workspace.dataset_folder(f"{recipe.name}-{source.name}")


def _source_files(
    listed: list[tuple[Path, str, Any]], remote: Mapping[str, tuple[RemoteFile, ...]], workspace: Workspace
) -> tuple[SourceFile, ...]:
    digests = digest_files((path for path, _, _ in listed), workspace.digest_memory)
    for item in (item for held in remote.values() for item in held):
        path = remote_path(item.url, workspace.remote_folder, item.max_records)
        if digests[path] != item.digest:
            raise IntegrityError(
                f"got {path}, which is not what was fetched from {item.url}, wanted it untouched: remove it to fetch it"
                " anew."
            )
    return tuple(
        SourceFile(digest=digests[path], path=str(path), kind=kind, options=options, num_bytes=path.stat().st_size)
        for path, kind, options in listed
    )


@contextmanager
def _served(source: CrawlSource, recipe: Recipe) -> Iterator[dict[str, tuple[str, int]]]:
    """Serve a source's folder on loopback, and tell which hosts lead there; nothing where it is not wanted."""
    if source.serve is None:
        yield {}
        return
    hosts = sorted({urlsplit(seed).netloc for seed in source.config.seeds})
    served = serve_sample() if source.serve == SAMPLE else serve_folder(recipe.base / source.serve)
    with served as server:
        yield dict.fromkeys(hosts, (server.address, server.port))
