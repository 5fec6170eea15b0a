"""From a recipe's sources to source files: crawl, fetch or list them, then name each by its digest."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.demo.server import serve_folder, serve_sample
from flows.recipe import CrawlSource, Recipe, TextSource, WarcSource, text_options
from flows.workspace import Workspace
from pipelines.crawl import WARC_FOLDER_NAME, CrawlProgress, CrawlResult, crawl, status
from pipelines.inputs import digest_files
from pipelines.sources.files import TEXT_SUFFIXES, WARC_SUFFIXES, expand
from pipelines.sources.hub import fetch_dataset, fetched_files
from pipelines.sources.warc import WarcOptions
from pipelines.work import SourceFile

OnCrawl = Callable[[str, CrawlProgress], None]
SAMPLE = "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The source files of a recipe, and how each crawl stands."""

    files: tuple[SourceFile, ...]
    crawls: Mapping[str, CrawlResult]

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
        return facts


def run_crawl(source: CrawlSource, recipe: Recipe, workspace: Workspace, on_crawl: OnCrawl) -> CrawlResult:
    """Crawl one source until its frontier is empty; a finished crawl returns at once."""
    folder = workspace.crawl_folder(f"{recipe.name}-{source.name}")
    with _served(source, recipe) as connect_to:
        return crawl(source.config, folder, connect_to=connect_to, on_progress=lambda seen: on_crawl(source.name, seen))


def collect(
    recipe: Recipe, workspace: Workspace, crawls: Mapping[str, CrawlResult], *, may_fetch: bool = True
) -> Collected:
    """The source files of a recipe, after its crawls. Fetches datasets that are not there yet, if it may."""
    warc_options = WarcOptions(max_page_bytes=recipe.extract.max_page_bytes)
    listed: list[tuple[Path, str, Any]] = []
    for source in recipe.sources:
        match source:
            case CrawlSource():
                listed += [(path, "warc", warc_options) for path in crawls[source.name].warc_paths]
            case WarcSource():
                listed += [(path, "warc", warc_options) for path in expand(source.paths, recipe.base, WARC_SUFFIXES)]
            case TextSource():
                paths = _text_paths(source, recipe, workspace, may_fetch=may_fetch)
                listed += [(path, "text", text_options(source)) for path in paths]
    return Collected(files=_source_files(listed, workspace), crawls=crawls)


def known_crawls(recipe: Recipe, workspace: Workspace) -> tuple[dict[str, CrawlResult], list[str]]:
    """What crawls have brought so far, without crawling, and the names of sources that are not finished."""
    results: dict[str, CrawlResult] = {}
    unfinished: list[str] = []
    for source in recipe.sources:
        if isinstance(source, CrawlSource):
            folder = workspace.crawl_folder(f"{recipe.name}-{source.name}")
            counts = status(folder)
            paths = tuple(sorted((folder / WARC_FOLDER_NAME).glob("*.warc.gz")))
            has_more = counts["num_queued"] > 0 and counts["num_pages"] < source.config.max_pages
            results[source.name] = CrawlResult(
                warc_paths=paths,
                num_fetched=0,
                num_pages=counts["num_pages"],
                outcomes=counts["outcomes"],
                complete=not has_more,
            )
            if has_more or not counts["num_urls"]:
                unfinished.append(source.name)
        elif isinstance(source, TextSource) and _is_unfetched(source, recipe, workspace):
            unfinished.append(source.name)
    return results, unfinished


def _text_paths(source: TextSource, recipe: Recipe, workspace: Workspace, *, may_fetch: bool) -> list[Path]:
    if source.dataset is None:
        return expand(source.paths, recipe.base, TEXT_SUFFIXES)
    folder = _dataset_folder(source, recipe, workspace)
    if not may_fetch:
        return fetched_files(folder) or []
    local = recipe.base / source.dataset
    return fetch_dataset(
        str(local) if local.exists() else source.dataset,
        folder,
        split=source.split,
        text_field=source.text_field,
        url_field=source.url_field,
        max_rows=source.max_rows,
    )


def _is_unfetched(source: TextSource, recipe: Recipe, workspace: Workspace) -> bool:
    return source.dataset is not None and fetched_files(_dataset_folder(source, recipe, workspace)) is None


def _dataset_folder(source: TextSource, recipe: Recipe, workspace: Workspace) -> Path:
    return workspace.dataset_folder(f"{recipe.name}-{source.name}")


def _source_files(listed: list[tuple[Path, str, Any]], workspace: Workspace) -> tuple[SourceFile, ...]:
    digests = digest_files((path for path, _, _ in listed), workspace.digest_memory)
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
