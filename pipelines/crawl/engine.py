"""The crawl loop: who may be asked now, and what follows from the answer.

One task a request. A host waits in a heap until its pause is over; results wait for a commit that first
brings their WARC records to disk and then records them, their outcome and their links in one
transaction. Everything here runs in one thread, save writing to disk and reading sitemaps.
"""

import asyncio
import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines.crawl.archive import Archive, Entry
from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.entries import Archived, Asked, JudgedUrl, Site, Target, Visit, Withdrawal
from pipelines.crawl.fetch import Failure, Fetcher, Response
from pipelines.crawl.frontier import Frontier
from pipelines.crawl.host import Host
from pipelines.crawl.outcome import JUDGED_BY_SITE, QUIET, Outcome
from pipelines.crawl.retry import BUSY_STATUSES, may_pass, pause_seconds, retry_after_seconds
from pipelines.crawl.revisit import conditional_headers, header_directives, says_more, site_directives
from pipelines.crawl.rsl_documents import RslDocuments
from pipelines.crawl.screen import Screen
from pipelines.crawl.site import MAX_VALID_SECONDS, Judgement, Rules, ask_site
from pipelines.crawl.tally import Counts, Tally
from pipelines.crawl.visit import Context, Found, classify, follow_redirect, read_links, sitemap_links, to_visit
from pipelines.crawl.warc_writer import WithdrawalRecord, reservation_record
from pipelines.rights.verdict import judge
from pipelines.takedown.documents import Takedown

_LOG = logging.getLogger(__name__)

_NUM_TARGETS_AHEAD = 64
"""URLs of a host leased at once."""
_LEASE_SECONDS = 900.0
"""Longer than any request may take, its attempts counted."""
_COMMIT_PAUSE_SECONDS = 0.05
"""Results of this long share a commit, while other requests are under way."""
_MAX_PENDING_NUM_BYTES = 64 << 20
"""Bodies that wait for a commit; beyond it no request is begun."""
_MAX_HOSTS = 1000
"""Hosts in memory; the others wait in the ledger."""
_MIN_ROOM = 100
"""Fewer are not worth a look into the ledger."""
_RESTING_SECONDS = 5.0
"""Hosts that rest for longer make room for others."""
_NUM_JUDGED_AT_ONCE = 1000
_MAX_SITEMAP_NUM_BYTES = 50 << 20
"""The sitemap protocol's limit."""
_MAX_FEED_NUM_BYTES = 2 << 20
_NUM_LARGE_AT_ONCE = 2
"""Sitemaps and feeds in memory at once."""


def run(
    config: CrawlConfig,
    takedown: Takedown,
    frontier: Frontier,
    warc_folder: Path,
    connect_to: Mapping[str, tuple[str, int]],
    on_progress: Callable[[Counts], None],
) -> Counts:
    """Fetch until nothing is left that the config allows.

    Raises OSError and sqlite3 errors, when the disk fails; what the ledger holds by then stays true.
    """

    async def main() -> Counts:
        # A thread of its own: name look-ups that hang must not hold up the disk.
        with ThreadPoolExecutor(max_workers=1) as disk:
            async with Fetcher(config, connect_to) as fetcher:
                archive = Archive(config, frontier, warc_folder, disk)
                screen = Screen(config, takedown)
                return await _Engine(config, screen, frontier, archive, fetcher, on_progress).run()

    return asyncio.run(main())


class _Engine:
    def __init__(
        self,
        config: CrawlConfig,
        screen: Screen,
        frontier: Frontier,
        archive: Archive,
        fetcher: Fetcher,
        on_progress: Callable[[Counts], None],
    ) -> None:
        self._config = config
        self._frontier = frontier
        self._archive = archive
        self._fetcher = fetcher
        self._on_progress = on_progress
        self._screen = screen
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._order = itertools.count()

        self._hosts: dict[int, Host] = {}
        self._barren: set[int] = set()
        """Hosts of which nothing can be begun now, though something may wait."""
        self._held_back: list[Host] = []
        """Hosts that wait because the last page that the config allows may be under way."""
        self._is_hungry = True
        """Whether the ledger may have hosts that are not in memory."""
        self._last_waiting_id = 0
        """Up to where hosts with a URL that waits were taken; then they are taken from the first again."""
        self._last_due_id: int | None = 0
        """Up to where hosts whose files must be read again were taken; None: to the end."""
        self._ready: list[tuple[float, int, Host]] = []
        self._retries: list[tuple[float, int, Host, Target]] = []
        self._num_attempts: dict[int, int] = {}
        self._rsl = RslDocuments(fetcher, config)
        self._large = asyncio.Semaphore(_NUM_LARGE_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

        self._pending: list[Entry] = []
        self._pending_num_bytes = 0
        self._asked: dict[int, Asked] = {}
        self._commit_task: asyncio.Task[None] | None = None

        self._num_pages = frontier.num_pages()
        self._num_new = 0
        """Requests under way that may bring one more."""
        self._tally = Tally()

    async def run(self) -> Counts:
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
            await self._archive.close()
        finally:
            await self._stop()
        counts = self._tally.counts(is_last=True)
        self._on_progress(counts)
        return counts

    # -- who is next

    def _start_due(self) -> None:
        now = self._loop.time()
        while self._retries and self._retries[0][0] <= now:
            _, _, host, target = heapq.heappop(self._retries)
            host.num_open -= 1
            host.queue.appendleft(target)
            self._schedule(host)
        while self._ready and self._ready[0][0] <= now and self._has_room():
            _, _, host = heapq.heappop(self._ready)
            if host.is_evicted:
                continue
            host.is_scheduled = False
            if host.ready_at > now:  # it asked for a pause after it was scheduled
                self._schedule(host)
            elif host.num_in_flight < self._config.concurrency_per_host and not host.is_busy:
                self._start(host, now)
        if self._is_hungry and self._has_room():
            self._fill(now)

    def _start(self, host: Host, now: float) -> None:
        knows_site = self._knows_site(host)
        if host.retry_at is not None and host.retry_at > time.time():
            self._refuse_host(host)
        elif not knows_site or (host.is_changed and not host.refusal):
            # What is under way would be judged by the old rules: it ends first. Its end comes back here.
            if not host.num_in_flight and not host.num_open:
                self._spawn_alone(host, self._judge_again(host) if knows_site else self._ask_site(host))
        elif host.refusal:
            self._refuse_host(host)
        elif host.ready_at > now:  # the pause was not known before
            self._schedule(host)
        else:
            self._start_next(host, now)

    def _start_next(self, host: Host, now: float) -> None:
        is_full = self._num_pages + self._num_new >= self._config.max_pages
        chosen = self._next_target(host, only_known=is_full or not host.has_budget(self._config))
        if chosen is not None:
            host.ready_at = now + host.pause_seconds(self._config)
            self._num_new += chosen[0].is_new_page
            self._spawn(host, self._visit(host, *chosen), num_new=chosen[0].is_new_page)
            self._schedule(host)
        elif is_full and self._num_pages < self._config.max_pages:
            self._held_back.append(host)
        else:
            self._barren.add(host.id)

    def _next_target(self, host: Host, *, only_known: bool) -> tuple[Target, Judgement] | None:
        """The host's next URL that its files and the config allow. A commit looks again where there is none."""
        now = time.time()
        while (target := self._take_target(host, now, only_known=only_known)) is not None:
            judged = self._judge(host, target)
            if judged.refusal is None:
                return target, judged
            self._refuse(host, target, judged)
        return None

    def _take_target(self, host: Host, now: float, *, only_known: bool) -> Target | None:
        """The next URL that is leased, or can be. With `only_known`, one of which a page is in the files."""
        for _ in range(2):
            for _ in range(len(host.queue)):
                target = host.queue.popleft()
                if target.leased_until <= now:
                    continue
                if target.archived is not None or not only_known:
                    return target
                host.queue.append(target)
            # A slow host's lease must not end before its turn comes.
            pause = host.pause_seconds(self._config)
            num_ahead = min(_NUM_TARGETS_AHEAD, max(1, int(_LEASE_SECONDS / 2 / pause)) if pause else 1 << 30)
            leased = self._frontier.lease(host.id, num_ahead, now, now + _LEASE_SECONDS, only_known=only_known)
            if not leased:
                break
            host.queue.extend(leased)
        return None

    def _judge(self, host: Host, target: Target) -> Judgement:
        if host.rules is None:
            raise RuntimeError("a host is asked before its robots.txt is known")
        judged = host.rules.judge(target.url)
        if target.kind != "page":
            # A sitemap and a feed are read for their links only.
            if self._screen.is_taken_down(target.url):
                return replace(judged, refusal=Outcome.TAKEN_DOWN)
            return replace(judged, refusal=None) if judged.refusal is Outcome.RESERVED else judged
        # What waits may have been found under another config.
        refusal = self._screen.judge(target.url, target.depth, target.num_redirects)
        return replace(judged, refusal=refusal) if refusal is not None else judged

    def _has_room(self) -> bool:
        return (
            len(self._tasks) < self._config.concurrency * self._config.concurrency_per_host
            and self._pending_num_bytes < _MAX_PENDING_NUM_BYTES
        )

    def _is_exhausted(self) -> bool:
        return not (self._ready or self._retries or self._is_hungry)

    async def _wait(self) -> None:
        """Sleep until a task ends or a host's time comes."""
        due = [heap[0][0] for heap in (self._retries, self._ready) if heap] if self._has_room() else []
        try:
            async with asyncio.timeout_at(min(due) if due else None):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _schedule(self, host: Host) -> None:
        if not host.is_scheduled:
            host.is_scheduled = True
            heapq.heappush(self._ready, (host.ready_at, next(self._order), host))

    def _spawn_alone(self, host: Host, work: Coroutine[object, object, None]) -> None:
        host.is_busy = True

        def on_done(_task: asyncio.Task[None]) -> None:
            host.is_busy = False

        self._spawn(host, work).add_done_callback(on_done)

    def _spawn(self, host: Host, work: Coroutine[object, object, None], *, num_new: int = 0) -> asyncio.Task[None]:
        """Run a task of a host; `num_new` is 1 where it may bring a page that is not in the files."""
        host.num_in_flight += 1
        task = self._loop.create_task(work)
        self._tasks.add(task)

        def on_done(task: asyncio.Task[None]) -> None:
            host.num_in_flight -= 1
            self._num_new -= num_new
            host.ready_at = max(host.ready_at, self._loop.time() + host.pause_seconds(self._config))
            self._tasks.discard(task)
            self._note_error(task)
            self._schedule(host)
            self._wake.set()

        task.add_done_callback(on_done)
        return task

    def _note_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()

    # -- hosts

    def _fill(self, now: float) -> None:
        """Take hosts from the ledger: those whose files must be read again, then those with a URL that waits."""
        if self._ready and self._ready[0][0] <= now:
            return  # there is enough to do
        room = self._make_room(now)
        if room < _MIN_ROOM and self._ready:
            return
        self._is_hungry = False
        chosen: list[int] = []
        if self._last_due_id is not None:
            chosen = self._frontier.due_origins(time.time(), self._last_due_id, room)
            self._last_due_id = chosen[-1] if len(chosen) == room else None
        is_wrapped = self._last_waiting_id == 0
        while len(chosen) < room:
            wanted = room - len(chosen)
            ids = self._frontier.waiting_origins(self._last_waiting_id, wanted)
            self._last_waiting_id = ids[-1] if len(ids) == wanted else 0
            chosen += [id_ for id_ in ids if id_ not in self._barren]
            if self._last_waiting_id == 0:
                if is_wrapped:
                    break
                is_wrapped = True
        for id_ in chosen:
            host = self._host(id_)
            if not (host.is_busy or host.num_in_flight or host.num_open):
                self._schedule(host)

    def _make_room(self, now: float) -> int:
        """How many hosts more may be held, once those that rest were given back to the ledger."""
        num_active = sum(not host.is_idle for host in self._hosts.values())
        if num_active >= _MAX_HOSTS - _MIN_ROOM:
            for host in list(self._hosts.values()):
                is_resting = host.ready_at > now + _RESTING_SECONDS
                if is_resting and not (host.num_in_flight or host.num_open or host.is_busy):
                    self._frontier.release([target.id for target in host.queue])
                    host.is_evicted = True
                    num_active -= 1
                    del self._hosts[host.id]
        return _MAX_HOSTS - num_active

    def _host(self, id_: int) -> Host:
        host = self._hosts.get(id_)
        if host is None:
            if len(self._hosts) >= _MAX_HOSTS:
                self._hosts = {key: each for key, each in self._hosts.items() if not each.is_idle}
            origin = self._frontier.origin(id_)
            host = Host(origin.id, origin.origin, self._loop.time(), origin.num_pages, origin.num_page_bytes)
            host.is_changed = origin.is_changed
            if self._screen.is_taken_down(origin.origin):
                host.refusal, host.expires_at, host.is_changed = (Outcome.TAKEN_DOWN, None), math.inf, False
            elif origin.site is not None:
                self._take(host, origin.site)
            self._hosts[id_] = host
            # After a restart the pause goes on where it was; a clock that was set back must not stretch it.
            asked = self._asked.get(id_)
            now = time.time()
            since = now - max(asked.at if asked else 0.0, origin.last_request_at or 0.0)
            pause = host.pause_seconds(self._config)
            asked_for = min(max(asked.ready_at if asked else 0.0, origin.ready_at or 0.0) - now, MAX_VALID_SECONDS)
            if asked_for > self._config.max_delay_seconds:
                self._let_rest(host, asked_for)
            host.ready_at += max(min(max(0.0, pause - since), pause), min(asked_for, self._config.max_delay_seconds))
        return host

    def _take(self, host: Host, site: Site) -> None:
        """Let a host be governed by its files as read."""
        # A clock that was set back must not keep a robots.txt for longer.
        host.expires_at = min(site.expires_at, time.time() + MAX_VALID_SECONDS)
        host.rules = host.refusal = host.retry_at = None
        host.crawl_delay_seconds = 0.0
        host.digest = site.digest or host.digest
        if site.failure:
            host.refusal = (site.failure, site.error)
            return
        host.rules = Rules(site, host.origin, self._config)
        crawl_delay = host.rules.crawl_delay_seconds
        if crawl_delay > self._config.max_delay_seconds:
            asked = f"robots.txt asks for {crawl_delay:g} s between requests, more than max_delay_seconds"
            host.refusal = (Outcome.CRAWL_DELAY_TOO_LONG, asked)
        else:
            host.crawl_delay_seconds = crawl_delay

    def _knows_site(self, host: Host) -> bool:
        return host.expires_at > time.time()

    async def _ask_site(self, host: Host) -> None:
        answer = await ask_site(self._fetcher, host.origin, self._config)
        site = answer.site
        seconds = sum(response.seconds for response in answer.responses)
        self._note_request(host, seconds, None if site.failure else site.robots_status)
        host.is_changed |= not site.failure and host.digest is not None and host.digest != site.digest
        self._take(host, site)
        for response in answer.responses:
            self._pend(Entry(host, record=reservation_record(response)))
        found = sitemap_links(answer.sitemaps, host.origin, self._screen) if self._config.sitemaps else ()
        self._pend(Entry(host, site=site, found=found))

    async def _judge_again(self, host: Host) -> None:
        """Judge a host's pages by what its files say now: take out what they forbid, ask again for what they free."""
        self._frontier.release([target.id for target in host.queue])
        host.queue.clear()
        last_id = 0
        while rows := self._frontier.judged_urls(host.id, last_id, _NUM_JUDGED_AT_ONCE):
            last_id = rows[-1].id
            freed = [row for row in rows if self._is_freed(host, row)]
            self._frontier.queue([row.id for row in freed])
            await asyncio.sleep(0)
            while host.num_open > _NUM_JUDGED_AT_ONCE:
                await asyncio.sleep(_COMMIT_PAUSE_SECONDS)
        while host.num_open:  # what is withdrawn must not be leased before the ledger knows
            await asyncio.sleep(_COMMIT_PAUSE_SECONDS)
        host.is_changed = False
        self._pend(Entry(host, settles=True))

    def _is_freed(self, host: Host, row: JudgedUrl) -> bool:
        """Whether a URL is to be asked for (again); a page that is forbidden now is withdrawn here."""
        if host.rules is None:
            return False
        judged = host.rules.judge(row.url)
        is_told_otherwise = row.archived is not None and site_directives(row.archived.directives) != judged.directives
        if judged.refusal is None:
            if row.archived is not None and is_told_otherwise and judge(judged.directives)[0] == "disallow":
                # Fetched although reserved: the page itself is the same, only what is said of it is new.
                self._withdraw(host, row.id, row.url, Outcome.RESERVED, judged, row.archived)
                return False
            return not row.is_queued and (row.outcome in JUDGED_BY_SITE or is_told_otherwise)
        if row.archived is not None:
            self._withdraw(host, row.id, row.url, judged.refusal, judged, row.archived)
        return False

    def _refuse_host(self, host: Host) -> None:
        """Give every waiting URL of the host the outcome of the host itself."""
        if host.refusal is None:
            return
        outcome, error = host.refusal
        is_lasting = outcome in {Outcome.ADDRESS_REFUSED, Outcome.CRAWL_DELAY_TOO_LONG, Outcome.TAKEN_DOWN}
        retry_at = None if is_lasting else host.retry_at or host.expires_at
        num_refused = self._frontier.refuse_origin(host.id, outcome, error, time.time(), retry_at)
        if num_refused:
            _LOG.info("%s: %s for %d URLs: %s", host.origin, outcome, num_refused, error)
            self._tally.errors[outcome] += num_refused
        host.queue.clear()
        self._barren.add(host.id)

    def _let_rest(self, host: Host, seconds: float) -> None:
        """Ask a host for nothing more in this run: it wants to rest for longer than we wait."""
        host.refusal = (Outcome.HTTP_ERROR, f"the host asked for {seconds:.0f} s of rest")
        host.retry_at = time.time() + seconds
        kept = [entry for entry in self._retries if entry[2] is not host]
        host.num_open -= len(self._retries) - len(kept)
        self._retries = kept
        heapq.heapify(self._retries)
        self._schedule(host)

    # -- one URL

    def _refuse(self, host: Host, target: Target, judged: Judgement) -> None:
        """A target that the site's files or the config forbid; a page of it that its site forbids is withdrawn."""
        outcome = judged.refusal
        if outcome is None:
            return
        if target.archived is not None and outcome in JUDGED_BY_SITE:
            self._withdraw(host, target.id, target.url, outcome, judged, target.archived)
            return
        visit = Visit(
            target=target,
            outcome=outcome,
            decided_at=time.time(),
            robots_rule=judged.rule,
            error="; ".join(judged.directives)[:500] if outcome is Outcome.RESERVED else None,
            archived=target.archived,
        )
        self._pend(Entry(host, visit=visit))

    def _withdraw(
        self, host: Host, url_id: int, url: str, outcome: Outcome, judged: Judgement, archived: Archived
    ) -> None:
        now = datetime.fromtimestamp(time.time(), UTC)
        record = WithdrawalRecord(
            url=url, outcome=outcome, at=now, robots_rule=judged.rule, directives=judged.directives
        )
        withdrawal = Withdrawal(
            url_id=url_id,
            outcome=outcome,
            decided_at=now.timestamp(),
            robots_rule=judged.rule,
            directives=judged.directives,
        )
        self._tally.num_withdrawn += 1
        self._uncount(host, archived)
        self._pend(Entry(host, record=record, withdrawal=withdrawal))

    async def _visit(self, host: Host, target: Target, judged: Judgement) -> None:
        if target.kind == "page":
            await self._visit_page(host, target, judged)
            return
        async with self._large:
            await self._visit_page(host, target, judged)

    async def _visit_page(self, host: Host, target: Target, judged: Judgement) -> None:
        self._tally.num_fetched += target.kind == "page"
        headers = conditional_headers(target.archived, judged.directives)
        limit = {"sitemap": _MAX_SITEMAP_NUM_BYTES, "feed": _MAX_FEED_NUM_BYTES}.get(
            target.kind, self._config.max_page_bytes
        )
        answer = await self._fetcher.fetch(
            target.url, max_num_bytes=limit, text_only=target.kind == "page", headers=headers
        )
        outcome = classify(answer, target, is_conditional=headers is not None)
        status = None if isinstance(answer, Failure) else answer.status
        num_bytes = 0 if isinstance(answer, Failure) else len(answer.body or b"")
        self._note_request(host, answer.seconds, status, num_bytes=num_bytes)
        self._tally.num_bytes += num_bytes
        if headers is not None and self._is_to_be_fetched_whole(host, target, answer):
            return
        if headers is None and self._is_withdrawn_by(host, target, judged, answer):
            return
        asked_seconds = self._asked_seconds(host, answer)
        if may_pass(outcome, status) and self._try_again(host, target, status, asked_seconds):
            return
        found = await self._find(target, answer, outcome)
        context = Context(
            rule=judged.rule,
            directives=judged.directives,
            rsl_directives=await self._rsl_directives(host, target.url, found),
            found=found,
            asked_seconds=asked_seconds,
        )
        visit, record = to_visit(target, answer, outcome, context, self._config, self._screen)
        self._count(host, visit)
        self._pend(Entry(host, record=record, visit=visit))

    def _asked_seconds(self, host: Host, answer: Response | Failure) -> float | None:
        """Retry-After. It holds for the host whatever it came with, but for long only with an answer that speaks for it."""
        if isinstance(answer, Failure):
            return None
        seconds = retry_after_seconds(answer.header("retry-after"), datetime.fromtimestamp(time.time(), UTC))
        if seconds:
            most = MAX_VALID_SECONDS if answer.status in BUSY_STATUSES else self._config.max_delay_seconds
            rest = min(seconds, most)
            host.ready_at = max(host.ready_at, self._loop.time() + min(rest, self._config.max_delay_seconds))
            asked = self._asked.setdefault(host.id, Asked(time.time()))
            asked.ready_at = max(asked.ready_at, time.time() + rest)
            if rest > self._config.max_delay_seconds:
                self._let_rest(host, rest)
            self._pend(Entry(host))  # so that a killed process leaves word of it
        return seconds

    def _is_to_be_fetched_whole(self, host: Host, target: Target, answer: Response | Failure) -> bool:
        """Whether an answer 304 says something new of training, so that the page must be asked for without conditions."""
        if isinstance(answer, Failure) or answer.status != 304 or target.archived is None:
            return False
        if not says_more(answer, target.archived):
            return False
        unconditional = replace(target, archived=replace(target.archived, etag=None, last_modified=None))
        self._again(host, unconditional, host.pause_seconds(self._config))
        return True

    def _is_withdrawn_by(self, host: Host, target: Target, judged: Judgement, answer: Response | Failure) -> bool:
        """Whether a server that does not give the page again says with its 304 that it is reserved."""
        if isinstance(answer, Failure) or answer.status != 304 or target.archived is None:
            return False
        told = replace(judged, directives=(*judged.directives, *header_directives(answer)))
        if judge(told.directives)[0] != "disallow":
            return False
        self._withdraw(host, target.id, target.url, Outcome.RESERVED, told, target.archived)
        return True

    async def _find(self, target: Target, answer: Response | Failure, outcome: Outcome) -> Found:
        if isinstance(answer, Failure) or answer.status == 304:
            return Found()
        if outcome is Outcome.REDIRECTED:
            return follow_redirect(answer, target, self._screen)
        if outcome is Outcome.READ_FOR_LINKS:
            # Up to a second of work: off the loop.
            return await asyncio.to_thread(
                read_links, answer, target, self._config, self._screen, lambda _url, _depth: False
            )
        if outcome is not Outcome.FETCHED:
            return Found()
        return read_links(answer, target, self._config, self._screen, self._frontier.knows)

    async def _rsl_directives(self, host: Host, page_url: str, found: Found) -> tuple[str, ...]:
        if not found.rsl:
            return ()
        lines, responses = await self._rsl.directives(host, page_url, found.rsl)
        for response in responses:
            self._note_request(host, response.seconds, response.status)
            self._pend(Entry(host, record=reservation_record(response)))
        return lines

    def _note_request(self, host: Host, seconds: float, status: int | None, *, num_bytes: int = 0) -> None:
        """Add a request to the host's sums; `status` is None where there was no answer."""
        asked = self._asked.setdefault(host.id, Asked(time.time()))
        asked.at = time.time()
        asked.num_requests += 1
        asked.num_failed += status is None or status == 429 or status >= 500
        asked.num_bytes += num_bytes
        asked.seconds += seconds
        host.note_latency(seconds, is_good=status is not None and status < 400)

    def _count(self, host: Host, visit: Visit) -> None:
        before, after = visit.target.archived, visit.archived
        if before is not None:
            self._tally.num_changed += visit.outcome is Outcome.FETCHED and visit.is_changed
            self._tally.num_unchanged += visit.outcome is Outcome.FETCHED and not visit.is_changed
            self._uncount(host, before)
        if after is not None:
            self._num_pages += 1
            host.num_pages += 1
            host.num_page_bytes += after.num_bytes

    def _uncount(self, host: Host, archived: Archived) -> None:
        self._num_pages -= 1
        host.num_pages -= 1
        host.num_page_bytes -= archived.num_bytes

    def _try_again(self, host: Host, target: Target, status: int | None, asked_seconds: float | None) -> bool:
        """Put a URL off for another attempt in this run, where there is one left and it need not wait too long."""
        num_attempts = self._num_attempts.get(target.id, 0) + 1
        pause = (
            asked_seconds
            if asked_seconds is not None
            else pause_seconds(num_attempts, host.pause_seconds(self._config))
        )
        if num_attempts >= self._config.max_attempts or pause > self._config.max_delay_seconds:
            if status in BUSY_STATUSES:
                host.ready_at = max(host.ready_at, self._loop.time() + min(pause, self._config.max_delay_seconds))
            return False
        self._num_attempts[target.id] = num_attempts
        if status in BUSY_STATUSES:
            host.ready_at = max(host.ready_at, self._loop.time() + pause)
        self._again(host, target, pause)
        return True

    def _again(self, host: Host, target: Target, pause: float) -> None:
        host.num_open += 1
        heapq.heappush(self._retries, (self._loop.time() + pause, next(self._order), host, target))

    # -- commits

    def _pend(self, entry: Entry) -> None:
        entry.host.num_open += 1
        self._pending.append(entry)
        self._pending_num_bytes += entry.num_bytes
        visit = entry.visit
        if visit is not None:
            self._num_attempts.pop(visit.target.id, None)
            if visit.outcome not in QUIET:
                self._tally.errors[visit.outcome] += 1
        self._wake.set()

    async def _commit_soon(self) -> None:
        if self._tasks:
            await asyncio.sleep(_COMMIT_PAUSE_SECONDS)
        pending, self._pending = self._pending, []
        self._pending_num_bytes = 0
        asked, self._asked = self._asked, {}
        queued = await self._archive.commit(pending, asked)
        self._barren -= queued
        for entry in pending:
            entry.host.num_open -= 1
            self._barren.discard(entry.host.id)
            self._schedule(entry.host)
        for host_id in queued:
            if len(self._hosts) < _MAX_HOSTS or host_id in self._hosts:
                self._schedule(self._host(host_id))
        self._release()
        self._is_hungry = True
        self._on_progress(self._tally.counts())

    def _release(self) -> None:
        """Let hosts go on that waited for the last page to come, unless it came."""
        held_back, self._held_back = self._held_back, []
        if self._num_pages < self._config.max_pages:
            for host in held_back:
                self._schedule(host)

    def _on_commit_done(self, task: asyncio.Task[None]) -> None:
        self._note_error(task)
        self._commit_task = None
        self._wake.set()

    async def _stop(self) -> None:
        """After an error or a cancellation: end what is under way, and leave the rest to the next run."""
        tasks = [*self._tasks, *([self._commit_task] if self._commit_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._archive.abandon()
