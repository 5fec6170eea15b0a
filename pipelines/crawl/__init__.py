"""The crawl source: seed URLs to WARC files and a ledger that says what became of every URL.

    config    what to crawl, and how politely
    crawler   the entry: crawl, lookup, status
    frontier  what is next, what happened;  ledger  its SQLite file;  entries  what goes in and out
    engine    the asyncio loop: who may be asked now, and what follows from the answer
    fetch     one URL to one response or one failure;  resolver, address  who may be connected to
    robots    RFC 9309;  links  HTML to URLs;  screen  which of them are ours
    warc_writer, recovery  WARC/1.1 files, and what a killed process left of them

Crawls of one folder go on from its ledger. Nothing here is keyed: a crawl is a source, and what
it wrote enters the pipeline by content.
"""

from pipelines.crawl.config import CrawlConfig
from pipelines.crawl.crawler import WARC_FOLDER_NAME, CrawlProgress, CrawlResult, crawl, lookup, status
from pipelines.crawl.ledger import LedgerRow
from pipelines.crawl.outcome import Outcome

__all__ = [
    "WARC_FOLDER_NAME",
    "CrawlConfig",
    "CrawlProgress",
    "CrawlResult",
    "LedgerRow",
    "Outcome",
    "crawl",
    "lookup",
    "status",
]
