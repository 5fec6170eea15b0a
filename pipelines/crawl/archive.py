"""The WARC files of a crawl: which one is open, and when the next begins.

The ledger hears of a file before anything is written to it, and of a record after it is on disk.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.entries import OpenFile
from pipelines.crawl.frontier import Frontier
from pipelines.crawl.warc_writer import Record, WarcWriter, next_name, warcinfo


class Archive:
    """Writes records on a thread of their own."""

    def __init__(self, config: CrawlConfig, frontier: Frontier, folder: Path, disk: Executor) -> None:
        """Nothing is opened before there is something to write."""
        self._config = config
        self._frontier = frontier
        self._folder = folder
        self._disk = disk
        self._file: OpenFile | None = None
        self._writer: WarcWriter | None = None

    async def append(self, records: Sequence[Record]) -> tuple[list[int], OpenFile, int]:
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

    async def close_if_full(self) -> None:
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
