"""The crawl loop: who may be asked now, and what follows from the answer.

One task a request. A host waits in a heap until its delay is over; results wait for a commit that
first brings their WARC records to disk and then records them, their outcome and their links in one
transaction. Everything here runs in one thread, save writing to disk.
"""

import asyncio
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.fetch import REDIRECT_STATUSES, Failure, Fetcher, Response
from pipelines.crawl.frontier import Frontier, Link, OpenFile, Target, Visit
from pipelines.crawl.links import NONE, Links, extract_links, resolve_redirect
from pipelines.crawl.outcome import Outcome
from pipelines.crawl.retry import BUSY_STATUSES, later_seconds, may_pass, pause_seconds, retry_after_seconds
from pipelines.crawl.robots import NO_RULE, Robots
from pipelines.crawl.robots_fetch import fetch_robots
from pipelines.crawl.screen import Screen, origin_of
from pipelines.crawl.warc_writer import WarcWriter, next_name, warcinfo

_LOG = logging.getLogger(__name__)

_NUM_TARGETS_AHEAD = 64
"""URLs of a host read from the ledger at once."""
_COMMIT_PAUSE_SECONDS = 0.05
"""Results of this long share a commit, while other requests are under way."""
_MAX_PENDING_NUM_BYTES = 64 << 20
"""Bodies that wait for a commit; beyond it no request is begun."""
_MAX_IDLE_HOSTS = 1000
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What one run has done so far."""

    num_fetched: int
    num_errors: int
    is_last: bool = False


@dataclass(slots=True, eq=False)
class _Host:
    """Scheme, name and port, while there is something to do."""

    id: int
    origin: str
    ready_at: float
    """Loop time before which it is not asked."""
    num_pages: int
    robots: Robots | None = None
    rule: str | None = None
    """Set where robots.txt restricts nothing: what to say instead of a rule."""
    robots_expires_at: float = 0.0
    delay_seconds: float = 0.0
    refusal: tuple[Outcome, str | None] | None = None
    """Why nothing of the host may be fetched now."""
    queue: deque[Target] = field(default_factory=deque)
    held: set[int] = field(default_factory=set)
    """Targets in the queue, under way, waiting for another attempt or for a commit."""
    num_in_flight: int = 0
    is_scheduled: bool = False
    is_asking_robots: bool = False


def run(
    config: CrawlConfig,
    frontier: Frontier,
    warc_folder: Path,
    connect_to: Mapping[str, tuple[str, int]],
    on_progress: Callable[[Counts], None],
) -> int:
    """Fetch until nothing is left that the config allows. Returns the number of requests for pages.

    Raises OSError and sqlite3 errors, when the disk fails; what the ledger holds by then stays true.
    """

    async def main() -> int:
        # A thread of its own: name look-ups that hang must not hold up the disk.
        with ThreadPoolExecutor(max_workers=1) as disk:
            async with Fetcher(config, connect_to) as fetcher:
                return await _Engine(config, frontier, warc_folder, fetcher, disk, on_progress).run()

    return asyncio.run(main())


class _Engine:
    def __init__(
        self,
        config: CrawlConfig,
        frontier: Frontier,
        warc_folder: Path,
        fetcher: Fetcher,
        disk: Executor,
        on_progress: Callable[[Counts], None],
    ) -> None:
        self._config = config
        self._frontier = frontier
        self._warc_folder = warc_folder
        self._fetcher = fetcher
        self._disk = disk
        self._on_progress = on_progress
        self._screen = Screen(config)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._order = itertools.count()

        self._hosts: dict[int, _Host] = {}
        self._ready: list[tuple[float, int, _Host]] = []
        self._retries: list[tuple[float, int, _Host, Target]] = []
        self._num_attempts: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

        self._pending: list[tuple[_Host, Visit, Response | None]] = []
        self._pending_num_bytes = 0
        self._requested_at: dict[int, float] = {}
        self._commit_task: asyncio.Task[None] | None = None
        self._file: OpenFile | None = None
        self._writer: WarcWriter | None = None

        self._num_pages = frontier.num_pages()
        self._num_fetched = 0
        self._num_errors = 0

    async def run(self) -> int:
        for origin in self._frontier.waiting_origins(count_pages=False):
            self._schedule(self._host(origin.id))
        try:
            while True:
                if self._error:
                    raise self._error
                self._start_due()
                if self._pending and self._commit_task is None:
                    self._commit_task = self._loop.create_task(self._commit_soon())
                    self._commit_task.add_done_callback(self._on_commit_done)
                if not self._tasks and not self._commit_task and self._is_exhausted():
                    break
                await self._wait()
            await self._close_file()
        finally:
            await self._stop()
        self._on_progress(Counts(num_fetched=self._num_fetched, num_errors=self._num_errors, is_last=True))
        return self._num_fetched

    # -- who is next

    def _start_due(self) -> None:
        now = self._loop.time()
        while self._retries and self._retries[0][0] <= now:
            _, _, host, target = heapq.heappop(self._retries)
            host.queue.appendleft(target)
            self._schedule(host)
        while self._ready and self._ready[0][0] <= now and self._has_room():
            _, _, host = heapq.heappop(self._ready)
            host.is_scheduled = False
            if host.ready_at > now:  # it asked for a pause after it was scheduled
                self._schedule(host)
            elif host.num_in_flight < self._config.concurrency_per_host and not host.is_asking_robots:
                self._start(host, now)

    def _start(self, host: _Host, now: float) -> None:
        if not self._know_robots(host):
            host.is_asking_robots = True
            self._spawn(host, self._ask_robots(host))
            return
        if host.refusal:
            self._refuse(host, *host.refusal)
            return
        if host.ready_at > now:  # the pause was not known before
            self._schedule(host)
            return
        target, rule = self._next_target(host)
        if target is None:
            self._drop_if_idle(host)
            return
        host.ready_at = now + host.delay_seconds
        self._spawn(host, self._visit(host, target, rule))
        self._schedule(host)

    def _next_target(self, host: _Host) -> tuple[Target | None, str]:
        """The host's next URL that its robots.txt allows, with the rule. A commit looks again where there is none."""
        limit = self._config.max_pages_per_host
        if limit is not None and host.num_pages + host.num_in_flight >= limit:
            return None, ""
        if not host.queue:
            targets = self._frontier.next_targets(host.id, _NUM_TARGETS_AHEAD, host.held)
            host.queue.extend(targets)
            host.held.update(target.id for target in targets)
        while host.queue:
            target = host.queue.popleft()
            is_allowed, rule = host.robots.judge(target.url) if host.robots else (True, host.rule or NO_RULE)
            if is_allowed:
                return target, rule
            self._finish(
                host,
                Visit(target=target, outcome=Outcome.ROBOTS_DISALLOWED, decided_at=time.time(), robots_rule=rule),
            )
        return None, ""

    def _has_room(self) -> bool:
        return (
            len(self._tasks) < self._config.concurrency * self._config.concurrency_per_host
            and self._pending_num_bytes < _MAX_PENDING_NUM_BYTES
            and self._num_pages + len(self._tasks) < self._config.max_pages
        )

    def _is_exhausted(self) -> bool:
        return (not self._ready and not self._retries) or self._num_pages >= self._config.max_pages

    async def _wait(self) -> None:
        """Sleep until a task ends or a host's time comes."""
        due = [heap[0][0] for heap in (self._retries, self._ready) if heap] if self._has_room() else []
        try:
            async with asyncio.timeout_at(min(due) if due else None):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _schedule(self, host: _Host) -> None:
        if not host.is_scheduled:
            host.is_scheduled = True
            heapq.heappush(self._ready, (host.ready_at, next(self._order), host))

    def _spawn(self, host: _Host, work: Coroutine[object, object, None]) -> None:
        host.num_in_flight += 1
        task = self._loop.create_task(work)
        self._tasks.add(task)

        def on_done(task: asyncio.Task[None]) -> None:
            host.num_in_flight -= 1
            host.ready_at = max(host.ready_at, self._loop.time() + host.delay_seconds)
            self._tasks.discard(task)
            self._note_error(task)
            self._schedule(host)
            self._wake.set()

        task.add_done_callback(on_done)

    def _note_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()

    # -- hosts

    def _host(self, id_: int) -> _Host:
        host = self._hosts.get(id_)
        if host is None:
            origin = self._frontier.origin(id_, count_pages=self._config.max_pages_per_host is not None)
            host = _Host(origin.id, origin.origin, self._loop.time(), origin.num_pages)
            self._hosts[id_] = host
        return host

    def _drop_if_idle(self, host: _Host) -> None:
        if len(self._hosts) > _MAX_IDLE_HOSTS and not host.held and not host.num_in_flight:
            del self._hosts[host.id]

    def _know_robots(self, host: _Host) -> bool:
        """Whether a robots.txt that is still valid is at hand, in memory or in the ledger."""
        now = time.time()
        if host.robots_expires_at > now:
            return True
        origin = self._frontier.origin(host.id, count_pages=False)
        if origin.robots_expires_at is None or origin.robots_expires_at <= now:
            return False
        host.robots_expires_at = origin.robots_expires_at
        host.robots = host.rule = host.refusal = None
        host.delay_seconds = self._config.delay_seconds
        if origin.robots_failure:
            host.refusal = (origin.robots_failure, origin.robots_error)
        elif origin.robots_text is None:
            host.rule = f"robots.txt answered {origin.robots_status}"
        else:
            host.robots = Robots(origin.robots_text, self._config.user_agent)
            self._slow_down(host, host.robots.crawl_delay or 0.0)
        # After a restart the pause goes on where it was; a clock that was set back must not stretch it.
        since = now - max(self._requested_at.get(host.id, 0.0), origin.last_request_at or 0.0)
        rest = min(max(0.0, host.delay_seconds - since), host.delay_seconds)
        host.ready_at = max(host.ready_at, self._loop.time() + rest)
        return True

    def _slow_down(self, host: _Host, crawl_delay: float) -> None:
        host.delay_seconds = max(self._config.delay_seconds, crawl_delay)
        if crawl_delay > self._config.max_delay_seconds:
            asked = f"robots.txt asks for {crawl_delay:g} s between requests, more than max_delay_seconds"
            host.refusal = (Outcome.CRAWL_DELAY_TOO_LONG, asked)
            host.delay_seconds = self._config.delay_seconds

    async def _ask_robots(self, host: _Host) -> None:
        for num_attempts in range(1, self._config.max_attempts + 1):
            answer = await fetch_robots(self._fetcher, host.origin)
            if answer.failure is not Outcome.ROBOTS_UNREACHABLE or num_attempts == self._config.max_attempts:
                break
            await asyncio.sleep(pause_seconds(num_attempts, self._config.delay_seconds))
        self._requested_at[host.id] = time.time()
        self._frontier.put_robots(host.id, answer.text, answer.status, answer.failure, answer.error, answer.expires_at)
        host.is_asking_robots = False
        host.delay_seconds = self._config.delay_seconds

    def _refuse(self, host: _Host, outcome: Outcome, error: str | None) -> None:
        """Give every waiting URL of the host the outcome of the host itself."""
        now = time.time()
        retry_at = (
            None if outcome in {Outcome.ADDRESS_REFUSED, Outcome.CRAWL_DELAY_TOO_LONG} else host.robots_expires_at
        )
        num_refused = self._frontier.refuse_origin(host.id, outcome, error, now, retry_at)
        _LOG.info("%s: %s for %d URLs: %s", host.origin, outcome, num_refused, error)
        self._num_errors += num_refused
        host.held.difference_update(target.id for target in host.queue)
        host.queue.clear()

    # -- one URL

    async def _visit(self, host: _Host, target: Target, rule: str) -> None:
        self._num_fetched += 1
        self._requested_at[host.id] = time.time()
        answer = await self._fetcher.fetch(target.url, max_num_bytes=self._config.max_page_bytes)
        outcome = answer.outcome if isinstance(answer, Failure) else _classify(answer)
        status = None if isinstance(answer, Failure) else answer.status
        asked_seconds = None
        if isinstance(answer, Response):
            asked_seconds = retry_after_seconds(answer.header("retry-after"), datetime.now(UTC))
        if may_pass(outcome, status) and self._try_again(host, target, status, asked_seconds):
            return
        visit = self._to_visit(target, rule, answer, outcome, asked_seconds)
        self._num_pages += outcome is Outcome.FETCHED
        host.num_pages += outcome is Outcome.FETCHED
        archived = answer if isinstance(answer, Response) and answer.body is not None else None
        self._finish(host, visit, archived)

    def _try_again(self, host: _Host, target: Target, status: int | None, asked_seconds: float | None) -> bool:
        """Put a URL off for another attempt in this run, where there is one left and it need not wait too long."""
        num_attempts = self._num_attempts.get(target.id, 0) + 1
        pause = asked_seconds if asked_seconds is not None else pause_seconds(num_attempts, host.delay_seconds)
        if num_attempts >= self._config.max_attempts or pause > self._config.max_delay_seconds:
            if status in BUSY_STATUSES:
                host.ready_at = max(host.ready_at, self._loop.time() + min(pause, self._config.max_delay_seconds))
            return False
        self._num_attempts[target.id] = num_attempts
        again_at = self._loop.time() + pause
        if status in BUSY_STATUSES:
            host.ready_at = max(host.ready_at, again_at)
        heapq.heappush(self._retries, (again_at, next(self._order), host, target))
        return True

    def _to_visit(
        self, target: Target, rule: str, answer: Response | Failure, outcome: Outcome, asked_seconds: float | None
    ) -> Visit:
        links: tuple[Link, ...] = ()
        num_dropped = 0
        error: str | None = None
        status: int | None = None
        decided_at = time.time()
        if isinstance(answer, Failure):
            error = answer.error
        else:
            status = answer.status
            decided_at = answer.fetched_at.timestamp()
            if outcome is Outcome.FETCHED:
                found = _links(answer, self._config.user_agent)
                links = tuple(self._link(url, target.depth + 1, 0) for url in found.urls)
                num_dropped = found.num_dropped
            elif outcome is Outcome.REDIRECTED:
                where = resolve_redirect(answer.header("location") or "", target.url)
                if where is None:
                    error = "redirects to what is no http or https URL"
                else:
                    links = (self._link(where, target.depth, target.num_redirects + 1),)
            elif answer.body is None:
                error = f"the body was not downloaded: its type is {answer.header('content-type')!r}"
        later = later_seconds(outcome, status, asked_seconds, is_seed=target.url in self._screen.seeds)
        return Visit(
            target=target,
            outcome=outcome,
            decided_at=decided_at,
            status=status,
            robots_rule=rule,
            error=error,
            retry_at=None if later is None else time.time() + later,
            links=links,
            num_links_dropped=num_dropped,
        )

    def _link(self, url: str, depth: int, num_redirects: int) -> Link:
        return Link(url, origin_of(url), depth, num_redirects, self._screen.judge(url, depth, num_redirects))

    def _finish(self, host: _Host, visit: Visit, archived: Response | None = None) -> None:
        self._num_attempts.pop(visit.target.id, None)
        if visit.outcome not in {Outcome.FETCHED, Outcome.REDIRECTED, Outcome.ROBOTS_DISALLOWED, Outcome.NOT_TEXT}:
            self._num_errors += 1
        self._pending.append((host, visit, archived))
        self._pending_num_bytes += len(archived.body or b"") if archived else 0
        self._wake.set()

    # -- commits

    async def _commit_soon(self) -> None:
        if self._tasks:
            await asyncio.sleep(_COMMIT_PAUSE_SECONDS)
        pending, self._pending = self._pending, []
        self._pending_num_bytes = 0
        queued = await self._commit(pending)
        for host, visit, _ in pending:
            host.held.discard(visit.target.id)
        for host_id in queued | {host.id for host, _, _ in pending}:
            self._schedule(self._host(host_id))
        self._on_progress(Counts(num_fetched=self._num_fetched, num_errors=self._num_errors))

    def _on_commit_done(self, task: asyncio.Task[None]) -> None:
        self._note_error(task)
        self._commit_task = None
        self._wake.set()

    async def _commit(self, pending: Sequence[tuple[_Host, Visit, Response | None]]) -> set[int]:
        """Write, sync, record; in as many steps as there are WARC files to fill."""
        requested_at, self._requested_at = self._requested_at, {}
        visits = [visit for _, visit, response in pending if response is None]
        queued = self._frontier.commit(visits, {}, None, 0, requested_at)
        archived = [(visit, response) for _, visit, response in pending if response is not None]
        while archived:
            writer, file = await self._open_file()
            offsets = await self._loop.run_in_executor(
                self._disk, writer.append, [response for _, response in archived]
            )
            written, archived = archived[: len(offsets)], archived[len(offsets) :]
            at = {visit.target.id: offset for (visit, _), offset in zip(written, offsets, strict=True)}
            queued |= self._frontier.commit([visit for visit, _ in written], at, file, writer.num_bytes, {})
            if writer.is_full:
                await self._close_file()
        return queued

    async def _open_file(self) -> tuple[WarcWriter, OpenFile]:
        if self._writer is None or self._file is None:
            # The ledger hears of the file first: what it does not know it could not cut back.
            self._file = self._frontier.add_file(next_name(self._warc_folder, self._frontier.file_names()))
            self._writer = WarcWriter(
                self._warc_folder / self._file.name,
                warcinfo(self._config),
                max_num_bytes=self._config.warc_max_bytes,
                max_num_records=self._config.warc_max_records,
            )
        return self._writer, self._file

    async def _close_file(self) -> None:
        if self._writer is None or self._file is None:
            return
        self._frontier.sync()
        await self._loop.run_in_executor(self._disk, self._writer.close)
        self._frontier.close_file(self._file)
        self._writer = self._file = None

    async def _stop(self) -> None:
        """After an error or a cancellation: end what is under way, and leave the rest to the next run."""
        tasks = [*self._tasks, *([self._commit_task] if self._commit_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._writer is not None:
            self._writer.abandon()


def _classify(answer: Response) -> Outcome:
    if answer.status in REDIRECT_STATUSES and answer.header("location") is not None:
        where = resolve_redirect(answer.header("location") or "", answer.url)
        return Outcome.REDIRECT_LOOP if where == answer.url else Outcome.REDIRECTED
    if not 200 <= answer.status < 300:
        return Outcome.HTTP_ERROR
    return Outcome.NOT_TEXT if answer.body is None else Outcome.FETCHED


def _links(answer: Response, product_token: str) -> Links:
    body = answer.body or b""
    content_type = answer.header("content-type")
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type not in _HTML_TYPES and (media_type or not body.lstrip().startswith(b"<")):
        return NONE
    return extract_links(body, answer.url, content_type, answer.header("x-robots-tag") or "", product_token)
