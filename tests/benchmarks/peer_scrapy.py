"""Scrapy on the pages of `crawl_site.py`, run by `bench_crawl.py --peer-python` in an environment of its own:

    python3 -m venv peer && peer/bin/pip install scrapy==2.19.0 warcio

A CrawlSpider that follows every link of the hosts it starts from, obeys robots.txt and writes each page as a gzip member
of a WARC file with warcio, as an item pipeline would. Settings are those of Scrapy's page on broad crawls: no cookies,
no delay, little logging. The telnet console and remote control are off. Prints one JSON line.
"""

import argparse
import json
from collections.abc import AsyncIterator, Iterable
from importlib.metadata import version
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from scrapy.crawler import CrawlerProcess
from scrapy.http import Request, Response
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

NOT_STORED = {"content-encoding", "transfer-encoding", "content-length"}


class SiteSpider(CrawlSpider):
    name = "site"
    rules = (Rule(LinkExtractor(), callback="parse_page", follow=True),)

    async def start(self) -> AsyncIterator[Request]:
        # Scrapy's own start() sets dont_filter, which fetches a front page twice where a page links to it.
        for url in self.start_urls:
            yield Request(url)

    def parse_start_url(self, response: Response, **_: Any) -> Iterable[dict[str, Response]]:
        return self.parse_page(response)

    def parse_page(self, response: Response) -> Iterable[dict[str, Response]]:
        yield {"response": response}


class WarcPipeline:
    """Writes the responses that a spider yields."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def from_crawler(cls, crawler: Any) -> "WarcPipeline":
        return cls(crawler.settings["WARC_PATH"])

    def open_spider(self) -> None:
        self.file = open(self.path, "wb")  # noqa: SIM115, PTH123
        self.writer = WARCWriter(self.file, gzip=True, warc_version="WARC/1.1")

    def close_spider(self) -> None:
        self.file.close()

    def process_item(self, item: dict[str, Any]) -> dict[str, Any]:
        response = item["response"]
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, values in response.headers.items()
            for value in values
            if name.decode("latin-1").lower() not in NOT_STORED
        ]
        headers.append(("Content-Length", str(len(response.body))))
        record = self.writer.create_warc_record(
            response.url,
            "response",
            payload=BytesIO(response.body),
            length=len(response.body),
            warc_headers_dict={"WARC-IP-Address": str(response.ip_address)},
            http_headers=StatusAndHeaders(f"{response.status} OK", headers, protocol="HTTP/1.1"),
        )
        self.writer.write_record(record)
        return item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warc", help="the file to write; none is written where it is left out")
    parser.add_argument("--jobdir", help="where the queue is kept, so that a crawl that is interrupted can go on")
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--concurrency-per-host", type=int, default=8)
    parser.add_argument("seeds", nargs="+")
    options = parser.parse_args()
    settings: dict[str, Any] = {
        "USER_AGENT": "corpusmill-benchmark",
        "ROBOTSTXT_OBEY": True,
        "CONCURRENT_REQUESTS": options.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": options.concurrency_per_host,
        "DOWNLOAD_DELAY": 0,
        "AUTOTHROTTLE_ENABLED": False,
        "COOKIES_ENABLED": False,
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
    }
    if options.warc:
        settings |= {"ITEM_PIPELINES": {WarcPipeline: 300}, "WARC_PATH": options.warc}
    if options.jobdir:
        settings["JOBDIR"] = options.jobdir
    process = CrawlerProcess(settings)
    crawler = process.create_crawler(SiteSpider)
    hosts = sorted({urlsplit(seed).hostname for seed in options.seeds})
    process.crawl(crawler, start_urls=options.seeds, allowed_domains=hosts)
    process.start()
    stats = crawler.stats.get_stats()
    print(json.dumps({"version": version("scrapy"), "pages": stats.get("item_scraped_count", 0)}))


if __name__ == "__main__":
    main()
