"""What happened, brought to disk: first the WARC records, then the ledger.

The ledger hears of a file before anything is written to it, and of a record after it is on disk. So what it
says is true whenever the process ends.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.entries import Asked, Link, OpenFile, Site, Visit, Withdrawal
from pipelines.crawl.frontier import Frontier
from pipelines.crawl.host import Host
from pipelines.crawl.warc_writer import Record, ResponseRecord, WarcWriter, next_name, warcinfo


@dataclass(slots=True)
class Entry:
    """Something that happened, to be written and recorded."""

    host: Host
    record: Record | None = None
    visit: Visit | None = None
    withdrawal: Withdrawal | None = None
    site: Site | None = None
    found: tuple[Link, ...] = ()
    settles: bool = False
    """Whether the host's URLs have been judged again with this."""

    @property
    def url_id(self) -> int | None:
        if self.visit is not None:
            return self.visit.target.id
        return None if self.withdrawal is None else self.withdrawal.url_id

    @property
    def num_bytes(self) -> int:
        return len(self.record.response.body or b"") if isinstance(self.record, ResponseRecord) else 0


class Archive:
    """Writes records on a thread of their own, and records them."""

    def __init__(self, config: CrawlConfig, frontier: Frontier, folder: Path, disk: Executor) -> None:
        """Nothing is opened before there is something to write."""
        self._config = config
        self._frontier = frontier
        self._folder = folder
        self._disk = disk
        self._file: OpenFile | None = None
        self._writer: WarcWriter | None = None

    async def commit(self, pending: Sequence[Entry], asked: Mapping[int, Asked]) -> set[int]:
        """Write, sync, record; in as many steps as there are WARC files to fill.

        `asked` maps an origin's id to the requests since the last commit. Returns the ids of origins that something
        was queued for.
        """
        unwritten = [entry for entry in pending if entry.record is not None]
        queued = self._record([entry for entry in pending if entry.record is None], asked=asked)
        while unwritten:
            records = [entry.record for entry in unwritten if entry.record is not None]
            offsets, file, num_bytes = await self._append(records)
            written, unwritten = unwritten[: len(offsets)], unwritten[len(offsets) :]
            queued |= self._record(written, offsets=offsets, file=file, num_bytes=num_bytes)
            await self._close_if_full()
        settled = [entry.host.id for entry in pending if entry.settles]
        if settled:
            self._frontier.commit((), settled=settled)
        return queued

    def _record(
        self,
        entries: Sequence[Entry],
        *,
        offsets: Sequence[int] = (),
        file: OpenFile | None = None,
        num_bytes: int = 0,
        asked: Mapping[int, Asked] | None = None,
    ) -> set[int]:
        return self._frontier.commit(
            [entry.visit for entry in entries if entry.visit],
            withdrawals=[entry.withdrawal for entry in entries if entry.withdrawal],
            sites=[(entry.host.id, entry.site) for entry in entries if entry.site],
            found=[link for entry in entries for link in entry.found],
            offsets={entry.url_id: at for entry, at in zip(entries, offsets, strict=False) if entry.url_id},
            file=file,
            num_bytes=num_bytes,
            asked=asked,
        )

    async def _append(self, records: Sequence[Record]) -> tuple[list[int], OpenFile, int]:
        """Write records until a file is full: the offsets of those written, the file, and its bytes on disk."""
        if self._writer is None or self._file is None:
            # The ledger first: what it does not know it could not cut back.
            self._file = self._frontier.add_file(next_name(self._folder, self._frontier.file_names()))
            self._writer = WarcWriter(
                self._folder / self._file.name,
                warcinfo(self._config),
                max_num_bytes=self._config.warc_max_bytes,
                max_num_records=self._config.warc_max_records,
            )
        loop = asyncio.get_running_loop()
        offsets = await loop.run_in_executor(self._disk, self._writer.append, records)
        return offsets, self._file, self._writer.num_bytes

    async def _close_if_full(self) -> None:
        """Close the open file where nothing more belongs in it; to be called after its records are in the ledger."""
        if self._writer is not None and self._writer.is_full:
            await self.close()

    async def close(self) -> None:
        """Give the open file its final name."""
        if self._writer is None or self._file is None:
            return
        self._frontier.sync()
        await asyncio.get_running_loop().run_in_executor(self._disk, self._writer.close)
        self._frontier.close_file(self._file)
        self._writer = self._file = None

    def abandon(self) -> None:
        """Let go of the open file after an error; the next crawl mends it."""
        if self._writer is not None:
            self._writer.abandon()
