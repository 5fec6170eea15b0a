"""The RSL documents that pages name: each asked for once a run, on the time of the host whose page named it."""

import asyncio

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.fetch import Fetcher, Response
from pipelines.crawl.host import Host
from pipelines.crawl.outcome import Outcome
from pipelines.crawl.site import ask_file, may_ask
from pipelines.rights.rsl import missing, rsl_directives, unread
from pipelines.rights.site import SiteFile

_MAX_DOCUMENTS = 1000
_MAX_ELSEWHERE = 5
"""Of one host and run: its pages could name any number, to have others asked."""


class RslDocuments:
    """Those that were read in this run."""

    def __init__(self, fetcher: Fetcher, config: CrawlConfig) -> None:
        """Nothing is asked for yet."""
        self._fetcher = fetcher
        self._config = config
        self._files: dict[str, SiteFile] = {}

    async def directives(
        self, host: Host, page_url: str, urls: tuple[str, ...]
    ) -> tuple[tuple[str, ...], list[Response]]:
        """What the documents say of a page of the host, and the answers that are worth archiving."""
        lines: list[str] = []
        responses: list[Response] = []
        for url in urls:
            file = self._files.get(url)
            if file is None:
                file, response = await self._ask(host, url)
                responses += [response] if response is not None else []
                if len(self._files) >= _MAX_DOCUMENTS:
                    self._files.clear()
                self._files[url] = file
            if file.text is not None:
                lines += rsl_directives(file.text, url, page_url)
            else:
                lines.append(unread(url, file.problem) if file.problem else missing(url))
        return tuple(lines), responses

    async def _ask(self, host: Host, url: str) -> tuple[SiteFile, Response | None]:
        is_own = url.startswith(f"{host.origin}/")
        if is_own and host.rules is not None and host.rules.judge(url).refusal is Outcome.ROBOTS_DISALLOWED:
            return SiteFile(url=url, text=None, problem="is forbidden by robots.txt"), None
        if not is_own:
            host.num_rsl_elsewhere += 1
            if host.num_rsl_elsewhere > _MAX_ELSEWHERE:
                return SiteFile(url=url, text=None, problem="is one of too many on other hosts"), None
        async with host.turn:
            pause = host.pause_seconds(self._config)
            await asyncio.sleep(pause)
            if not is_own:
                if not await may_ask(self._fetcher, url, self._config):
                    return SiteFile(url=url, text=None, problem="is forbidden by the robots.txt of its host"), None
                await asyncio.sleep(pause)
            return await ask_file(self._fetcher, url)
