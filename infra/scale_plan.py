"""The arithmetic of scale-plan.md: one Common Crawl month through the pipeline, from what was measured here.

    python infra/scale_plan.py            prints the document
    python infra/scale_plan.py --write    writes it beside this file
    python infra/scale_plan.py --check    exits 1 where the document there is another

Every number of the document is an input below, with where it comes from, or worked out of them here. After a benchmark that
gives another rate, change the rate and write the document anew.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).with_name("scale-plan.md")
_GB, _TB = 10**9, 10**12
_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """One monthly crawl. What is not published is an assumption, and says so."""

    num_pages: float = 2.4e9
    """Assumed: between the 2.7 billion of May 2024 and the smaller ones since."""
    num_files: int = 100_000
    """WARC files: CC-MAIN-2026-17 lists 500,000 files below `segments`, of five kinds."""
    num_segments: int = 100
    """As many as in every crawl since 2016 whose listing we saw."""
    warc_bytes_per_file: float = 0.9e9
    """Assumed: files are cut at about a gigabyte; monthly archives are told to be 75 to 100 TB."""
    page_bytes: float = 377 * 2**40 / 2.7e9
    """Uncompressed, headers included: May 2024 had 377 TiB for 2.7 billion pages."""
    text_bytes_per_page: float = 5000.0
    """Assumed: extracted text of an average page."""
    url_bytes_per_page: float = 75.0
    """Assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a stage took on our pages, one worker: `make bench-build`."""

    name: str
    cpu_seconds: float
    out_bytes: float
    """Of its shards, compressed."""
    by: str
    """What its cost grows with: `page` (HTML bytes), `text` (bytes of text) or `row`."""
    where: str = "workers"
    """`workers`, or `driver` for what sees every row at once or is too small to give away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`make bench-build` on the English pages of Debian's documentation, tokenizer given, and `make bench-dedup`."""

    date: str
    machine: str
    num_pages: int
    page_bytes: float
    """HTML of all pages."""
    text_bytes: float
    """Text of the pages that are kept, as it is encoded."""
    stages: tuple[Stage, ...]
    dedup_seconds_per_million: float = 87.0
    """CPU seconds of near and dedup for a million documents: `make bench-dedup`."""
    dedup_bytes_per_million: float = 1.4e9
    """Memory of the same, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """US dollars, on demand, one region, before tax and discount: list prices as we know them; check them before you buy."""

    core_hour: float = 0.0425
    """A virtual core of a compute-optimised machine (c5.2xlarge: 0.34 an hour for eight, the provider's own example)."""
    spot_share: float = 0.4
    """Assumed: what interruptible machines cost of that."""
    memory_machine_hour: float = 8.0
    """Assumed: a machine with 1 TB of memory and 128 cores."""
    gb_month: float = 0.023
    per_1000_put: float = 0.005
    """Put, copy, list."""
    per_1000_get: float = 0.0004
    gb_out: float = 0.09
    """To the internet. Within the region where the crawl lies, nothing."""


MEASURED = Measured(
    date="2026-11-26",
    machine="two shared cores",
    num_pages=1,
    page_bytes=1.0,
    text_bytes=1.0,
    stages=(),
)
_GLOBAL = ("near", "dedup")
_ALL_OF_THEM = "a row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A stage of the month."""

    name: str
    where: str
    core_hours: float
    out_bytes: float
    num_shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The month, worked out."""

    month: Month
    measured: Measured
    prices: Prices

    def share(self, stage: Stage) -> float:
        """How many times the cost of our pages that of the month is."""
        month, ours = self.month, self.measured
        by = {
            "page": month.num_pages * month.page_bytes / ours.page_bytes,
            "text": month.num_pages * month.text_bytes_per_page / ours.text_bytes,
            "row": month.num_pages / ours.num_pages,
        }
        return by[stage.by]

    @property
    def lines(self) -> list[Line]:
        found = []
        for stage in self.measured.stages:
            seconds = stage.cpu_seconds * self.share(stage)
            if stage.name in _GLOBAL:
                part = {"near": 0.8, "dedup": 0.2}[stage.name]
                seconds = part * self.measured.dedup_seconds_per_million * self.month.num_pages / 1e6
            share = self.share(stage) if stage.by != "page" else self.share(_by_text(stage))
            found.append(
                Line(
                    name=stage.name,
                    where=stage.where,
                    core_hours=seconds / _HOUR,
                    out_bytes=stage.out_bytes * share,
                    num_shards=self.month.num_files if stage.where == "workers" or stage.name in _ALIGNED else 1,
                )
            )
        return found
