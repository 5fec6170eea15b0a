"""What an origin's own files say: robots.txt (RFC 9309), and those that speak of rights.

Out of reach never means yes. A robots.txt that answers 5xx, 429 or nothing forbids its origin until it is
asked again, and so does another file forbid what it might have reserved; what is not there restricts nothing.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.entries import Site
from pipelines.crawl.fetch import REDIRECT_STATUSES, Failure, Fetcher, Response
from pipelines.crawl.links import resolve_redirect
from pipelines.crawl.outcome import Outcome
from pipelines.crawl.retry import pause_seconds, retry_after_seconds
from pipelines.crawl.robots import MAX_NUM_BYTES, NO_RULE, Robots
from pipelines.crawl.screen import origin_of
from pipelines.digest import digest_value
from pipelines.rights.robots_txt import decode
from pipelines.rights.site import SiteFile, SiteRights, site_file_urls
from pipelines.rights.verdict import judge

_MAX_REDIRECTS = 5
MAX_VALID_SECONDS = 24 * 3600.0
"""RFC 9309, 2.4: a robots.txt is not used for longer."""
_FAILURE_VALID_SECONDS = 3600.0
_MAX_FILE_NUM_BYTES = 256 << 10
_FINAL_FAILURES = frozenset({Outcome.DNS_ERROR, Outcome.ADDRESS_REFUSED})


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an origin's files say of one URL."""

    refusal: Outcome | None
    """Why it is not fetched; None where it is."""
    rule: str
    """The rule of robots.txt that allows or forbids it."""
    directives: tuple[str, ...]
    """What the files say of training."""


class Rules:
    """An origin's files, ready to judge its URLs."""

    def __init__(self, site: Site, origin: str, config: CrawlConfig) -> None:
        """Parse them. `site` is one that could be read."""
        self._fetch_reserved = config.fetch_reserved
        self._robots = None if site.robots_text is None else Robots(site.robots_text, config.user_agent)
        self._rule = NO_RULE if site.robots_text is not None else f"robots.txt answered {site.robots_status}"
        self._rights: SiteRights | None = None
        files = [SiteFile(url=url, text=text, problem=problem) for url, text, problem in site.files]
        if site.robots_text or any(file.text is not None or file.problem for file in files):
            self._rights = SiteRights(origin, site.robots_text, config.user_agent, config.ai_agents, files)

    @property
    def crawl_delay_seconds(self) -> float:
        """What robots.txt asks for between requests."""
        return self._robots.crawl_delay or 0.0 if self._robots else 0.0

    def judge(self, url: str) -> Judgement:
        """Whether a URL may be fetched, by which rule, and what is said of training on it."""
        is_allowed, rule = self._robots.judge(url) if self._robots else (True, self._rule)
        directives = self._rights.directives(url) if self._rights else ()
        refusal: Outcome | None = None
        if not is_allowed:
            refusal = Outcome.ROBOTS_DISALLOWED
        elif directives and not self._fetch_reserved and judge(directives)[0] == "disallow":
            refusal = Outcome.RESERVED
        return Judgement(refusal, rule, directives)


@dataclass(frozen=True, slots=True)
class SiteAnswer:
    """An origin's files as read, and the answers worth archiving."""

    site: Site
    sitemaps: tuple[str, ...]
    """URLs that robots.txt names."""
    responses: tuple[Response, ...]


async def ask_site(fetcher: Fetcher, origin: str, config: CrawlConfig) -> SiteAnswer:
    """Ask an origin for its robots.txt, and where that can be read, for its other files, one after the other."""
    for num_attempts in range(1, config.max_attempts + 1):
        url = f"{origin}/robots.txt"
        answer = await _follow(fetcher, url, MAX_NUM_BYTES)
        failure = _failure(answer)
        asked = _asked_seconds(answer)
        pause = pause_seconds(num_attempts, config.delay_seconds) if asked is None else asked
        is_last = num_attempts == config.max_attempts or pause > config.max_delay_seconds
        if failure is not Outcome.ROBOTS_UNREACHABLE or is_last:
            break
        await asyncio.sleep(pause)
    if failure is not None:
        return SiteAnswer(_out_of_reach(failure, answer), (), ())
    text = None
    responses: list[Response] = []
    if isinstance(answer, Response) and answer.status < 300:
        text = decode(answer.body or b"", is_cut=answer.is_cut)
        responses.append(answer)
    robots = None if text is None else Robots(text, config.user_agent)
    pause = max(config.delay_seconds, robots.crawl_delay or 0.0 if robots else 0.0)
    # A host that wants a longer pause than we make is not crawled at all.
    urls = site_file_urls(origin, text, config.user_agent) if pause <= config.max_delay_seconds else ()
    files: list[SiteFile] = []
    for url in urls:
        if robots is not None and origin_of(url) == origin and not robots.judge(url)[0]:
            continue
        await asyncio.sleep(pause)
        file, response = await ask_file(fetcher, url)
        files.append(file)
        responses += [response] if response else []
    has_problem = any(file.problem for file in files)
    site = Site(
        robots_text=text,
        robots_status=answer.status if isinstance(answer, Response) else None,
        failure=None,
        error=None,
        files=tuple((file.url, file.text, file.problem) for file in files),
        digest=_digest(text, files),
        expires_at=time.time() + (_FAILURE_VALID_SECONDS if has_problem else MAX_VALID_SECONDS),
    )
    return SiteAnswer(site, robots.sitemaps if robots else (), tuple(responses))


async def ask_file(fetcher: Fetcher, url: str) -> tuple[SiteFile, Response | None]:
    """A file that speaks of rights, and the answer where there is such a file."""
    answer = await _follow(fetcher, url, _MAX_FILE_NUM_BYTES)
    text = problem = None
    if isinstance(answer, Failure):
        problem = f"{answer.outcome}: {answer.error}"
    elif answer.is_cut:
        problem = f"is longer than {_MAX_FILE_NUM_BYTES} bytes"
    elif 200 <= answer.status < 300:
        text = (answer.body or b"").decode("utf-8-sig", "replace")
    elif not 400 <= answer.status < 500 or answer.status == 429:
        problem = f"answered {answer.status}"
    archived = answer if text is not None and isinstance(answer, Response) else None
    return SiteFile(url=url, text=text, problem=problem), archived


async def may_ask(fetcher: Fetcher, url: str, config: CrawlConfig) -> bool:
    """Whether the robots.txt of a URL's origin, asked for now, lets us fetch it."""
    answer = await _follow(fetcher, f"{origin_of(url)}/robots.txt", MAX_NUM_BYTES)
    if _failure(answer) is not None or isinstance(answer, Failure):
        return False
    is_there = answer.status < 300
    return not is_there or Robots(decode(answer.body or b"", is_cut=answer.is_cut), config.user_agent).judge(url)[0]


async def _follow(fetcher: Fetcher, url: str, max_num_bytes: int) -> Response | Failure:
    """The answer at the end of up to five redirects, wherever they lead (RFC 9309, 2.3.1.2)."""
    seconds = 0.0
    for _ in range(_MAX_REDIRECTS + 1):
        answer = await fetcher.fetch(url, max_num_bytes=max_num_bytes, text_only=False)
        if isinstance(answer, Failure) or answer.status not in REDIRECT_STATUSES:
            return answer
        seconds += answer.seconds
        target = resolve_redirect(answer.header("location") or "", url)
        if target is None:
            return Failure(outcome=Outcome.REDIRECT_LOOP, error=f"{url} redirects to no URL", seconds=seconds)
        url = target
    return Failure(outcome=Outcome.REDIRECT_LOOP, error=f"{url} redirects too often", seconds=seconds)


def _failure(answer: Response | Failure) -> Outcome | None:
    """Why an origin may not be crawled, by what its robots.txt answered; None where it may."""
    if isinstance(answer, Failure):
        return answer.outcome if answer.outcome in _FINAL_FAILURES else Outcome.ROBOTS_UNREACHABLE
    is_there = 200 <= answer.status < 300
    is_absent = 400 <= answer.status < 500 and answer.status != 429
    return None if is_there or is_absent else Outcome.ROBOTS_UNREACHABLE


def _asked_seconds(answer: Response | Failure) -> float | None:
    """Retry-After."""
    if isinstance(answer, Failure):
        return None
    return retry_after_seconds(answer.header("retry-after"), datetime.fromtimestamp(time.time(), UTC))


def _out_of_reach(failure: Outcome, answer: Response | Failure) -> Site:
    if isinstance(answer, Failure):
        status, error = None, f"robots.txt: {answer.outcome}: {answer.error}"
    else:
        status, error = answer.status, f"robots.txt answered {answer.status}"
    wait_seconds = min(max(_FAILURE_VALID_SECONDS, _asked_seconds(answer) or 0.0), MAX_VALID_SECONDS)
    return Site(
        robots_text=None,
        robots_status=status,
        failure=failure,
        error=error,
        files=(),
        digest="",
        expires_at=time.time() + wait_seconds,
    )


def _digest(robots_text: str | None, files: Sequence[SiteFile]) -> str:
    return digest_value([robots_text, [[file.url, file.text, file.problem] for file in files]])
