"""The arithmetic of scale-plan.md: one Common Crawl month through the pipeline, from what was measured here.

    python infra/scale_plan.py            prints the document
    python infra/scale_plan.py --write    writes it beside this file
    python infra/scale_plan.py --check    exits 1 where the document there is another

Every number of the document is an input below, with where it comes from, or worked out of inputs here. After a benchmark
that gives another rate, change the rate and write the document anew.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).with_name("scale-plan.md")
HOUR_SECONDS = 3600
GB, TB, TIB = 10**9, 10**12, 2**40

# What a month is

NUM_PAGES = 2.4e9
NUM_FILES = 100_000
NUM_SEGMENTS = 100
WARC_BYTES = 90 * TB
PAGE_BYTES = 377 * TIB / 2.7e9
TEXT_BYTES = 5000
URL_BYTES = 75
KEPT_SHARE = 0.15
TOKEN_BYTES = 4.5

# What was measured


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage took on our pages, one worker."""

    name: str
    cpu_seconds: float
    out_bytes: float
    """Of its shards, as they are stored."""
    cost_by: str
    """What its cost grows with: `page` (bytes of HTML), `text` (bytes of text), `row`, or `none`."""
    size_by: str
    where: str
    """`workers`, or `driver`: the process that the flow runs in."""


MEASURED_ON = "2026-11-26, two shared cores that others loaded, Python 3.11"
OUR_PAGES = 1868
OUR_PAGE_BYTES = 72_822_938
OUR_TEXT_BYTES = 19_511_162
STAGES = (
    Stage("extract", 4.37, 6_614_072, "page", "text", "workers"),
    Stage("signals", 3.54, 1_304_120, "text", "row", "workers"),
    Stage("toxicity", 0.09, 45_400, "text", "row", "workers"),
    Stage("policy", 0.07, 138_720, "row", "row", "driver"),
    Stage("sources", 0.03, 138_720, "row", "row", "driver"),
    Stage("bands", 0.02, 660_544, "row", "row", "driver"),
    Stage("index", 0.01, 657_912, "row", "row", "driver"),
    Stage("near", 0.03, 344, "row", "row", "driver"),
    Stage("lines", 0.10, 1_100_000, "text", "text", "workers"),
    Stage("dedup", 0.04, 100_000, "row", "row", "driver"),
    Stage("tokenize", 0.21, 2_034_584, "text", "text", "workers"),
)
"""The seconds have two digits after the point: what takes less than 0.1 s is known roughly, and rather too high, since
opening files is in it."""
DEDUP_SECONDS_PER_MILLION = 87.0
DEDUP_BYTES_PER_MILLION = 1.4 * GB
HASH_BYTES_PER_SECOND = 1.27 * GB
RECORD_BYTES = 1_300

# What is assumed of machines and prices

CORES = (64, 256, 1024)
NETWORK_BYTES_PER_SECOND = 1.25 * GB
DRIVER_MEMORY_BYTES = 512 * GB
CORE_HOUR_DOLLARS = 0.0425
SPOT_SHARE = 0.4
GB_MONTH_DOLLARS = 0.023
PUT_DOLLARS = 0.005 / 1000
GET_DOLLARS = 0.0004 / 1000
OUT_GB_DOLLARS = 0.09


def scale(by: str) -> float:
    """How many times our pages a month is, by what a cost grows with."""
    return {
        "page": NUM_PAGES * PAGE_BYTES / OUR_PAGE_BYTES,
        "text": NUM_PAGES * TEXT_BYTES / OUR_TEXT_BYTES,
        "row": NUM_PAGES / OUR_PAGES,
        "none": 1.0,
    }[by]


def core_hours(stage: Stage) -> float:
    """Of the month. Near and dedup are taken from their own benchmark: a thousand pages say nothing of them."""
    if stage.name in ("near", "dedup"):
        return DEDUP_SECONDS_PER_MILLION * NUM_PAGES / 1e6 / HOUR_SECONDS / 2
    return stage.cpu_seconds * scale(stage.cost_by) / HOUR_SECONDS


def out_bytes(stage: Stage) -> float:
    return stage.out_bytes * scale(stage.size_by)


def num_shards(stage: Stage) -> int:
    """Objects that a stage leaves, one for each source file unless it sees all at once."""
    return {"index": -(-NUM_FILES // 64), "near": 1, "sample": 1, "tokenizer": 1}.get(stage.name, NUM_FILES)


def hours_of(where: str) -> float:
    return sum(core_hours(stage) for stage in STAGES if stage.where == where)


def stored_bytes() -> float:
    return sum(map(out_bytes, STAGES))


def num_puts() -> float:
    """A shard and its record each; a source file is lent once."""
    return sum(2 * num_shards(stage) for stage in STAGES) + NUM_FILES


def num_gets() -> float:
    """Each stage reads its inputs (two on average), and looks for its record."""
    return sum(3 * num_shards(stage) for stage in STAGES) + 2 * NUM_FILES


def passes_seconds() -> float:
    """Of the source bytes through the driver: fetched, hashed, lent."""
    return WARC_BYTES * (2 / NETWORK_BYTES_PER_SECOND + 1 / HASH_BYTES_PER_SECOND)


def memory_limit() -> float:
    return DRIVER_MEMORY_BYTES / DEDUP_BYTES_PER_MILLION * 1e6


def compute_dollars() -> float:
    return (hours_of("workers") + hours_of("driver")) * CORE_HOUR_DOLLARS


def request_dollars() -> float:
    return num_puts() * PUT_DOLLARS + num_gets() * GET_DOLLARS


def table(head: tuple[str, ...], rows: list[tuple[str, ...]], numbers: tuple[int, ...] = ()) -> str:
    """A Markdown table; the columns in the places `numbers` are set to the right."""
    lines = [head, tuple("---:" if place in numbers else "---" for place in range(len(head))), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def facts() -> str:
    rows = [
        (
            "pages",
            f"{NUM_PAGES / 1e9:g} billion",
            "assumed: May 2024 had 2.7 billion, later months told of are smaller",
        ),
        ("WARC files", f"{NUM_FILES:,}", "CC-MAIN-2026-17 lists 500,000 files of five kinds, of which WARC is one"),
        ("segments", f"{NUM_SEGMENTS}", "as in each listing that we saw"),
        ("bytes, compressed", f"{WARC_BYTES / TB:g} TB", "assumed: 0.9 GB a file"),
        ("bytes a page", f"{PAGE_BYTES / 1000:.0f} kB", "May 2024: 377 TiB for 2.7 billion pages, headers included"),
        ("text a page", f"{TEXT_BYTES / 1000:g} kB", "assumed"),
        ("URL", f"{URL_BYTES} bytes", "assumed"),
        ("kept", f"{KEPT_SHARE:.0%}", "assumed; it differs with the rules more than anything else here"),
        ("bytes of text a token", f"{TOKEN_BYTES:g}", "assumed"),
    ]
    return table(("what", "value", "from"), rows, (1,))


def rates() -> str:
    rows = []
    for stage in STAGES:
        unit = {
            "page": f"{OUR_PAGE_BYTES / 1e6 / stage.cpu_seconds:,.1f} MB of HTML" if stage.cpu_seconds else "",
            "text": f"{OUR_TEXT_BYTES / 1e6 / max(stage.cpu_seconds, 0.01):,.1f} MB of text",
            "row": f"{OUR_PAGES / max(stage.cpu_seconds, 0.01):,.0f} rows",
            "none": "once",
        }[stage.cost_by]
        rows.append((stage.name, f"{stage.cpu_seconds:.2f}", unit, f"{stage.out_bytes / 1e6:.2f}"))
    return table(("stage", "CPU s", "a CPU second", "MB written"), rows, (1, 2, 3))


def work() -> str:
    rows = [
        (
            stage.name,
            stage.where,
            f"{core_hours(stage):,.1f}",
            f"{num_shards(stage):,}",
            f"{out_bytes(stage) / TB:,.3f}",
        )
        for stage in STAGES
    ]
    rows.append(
        (
            "all",
            "",
            f"{hours_of('workers') + hours_of('driver'):,.1f}",
            f"{sum(map(num_shards, STAGES)):,}",
            f"{stored_bytes() / TB:,.3f}",
        )
    )
    return table(("stage", "where", "core hours", "shards", "TB written"), rows, (2, 3, 4))


def clock() -> str:
    """Hours by the clock of a whole month and of one segment, were nothing to break."""
    rows = []
    for cores in CORES:
        alone = hours_of("workers") / cores
        driver = hours_of("driver") + passes_seconds() / HOUR_SECONDS
        rows.append(
            (
                f"{cores:,}",
                f"{alone:,.0f}",
                f"{driver:,.0f}",
                f"{alone + driver:,.0f}",
                f"{alone / NUM_SEGMENTS:,.1f}",
                f"{driver / NUM_SEGMENTS:,.1f}",
                f"{(alone + driver) / NUM_SEGMENTS:,.1f}",
            )
        )
    head = ("worker cores", "month: workers", "driver", "together", "segment: workers", "driver", "together")
    return table(head, rows, tuple(range(7)))


def breaks() -> str:
    rows = [
        (
            "1",
            "memory of `near` and `dedup`: 1.4 GB a million documents, in one process",
            f"{memory_limit() / 1e6:.0f} million on {DRIVER_MEMORY_BYTES / GB:.0f} GB; the month takes {NUM_PAGES / 1e6 * DEDUP_BYTES_PER_MILLION / TB:.1f} TB",
            "both stages by range of the hash: bands are hashes already, so each worker resolves a range of buckets; verdicts are joined by document id in a second pass",
        ),
        (
            "2",
            "every source byte goes through the driver: fetched, hashed (the digest is the key), lent to the workers",
            f"{passes_seconds() / HOUR_SECONDS:.0f} hours at {NETWORK_BYTES_PER_SECOND * 8 / 1e9:.0f} Gb/s",
            "workers fetch by URL and version and tell the digest: a stage `fetch` whose output is the file's digest, so that extract is keyed as now",
        ),
        (
            "3",
            "stages that are cheap on one machine run in the driver (policy, bands, index, sources, near, dedup)",
            f"{hours_of('driver'):.0f} hours of one core",
            "the map stages among them to the workers above some thousand shards: a line in `run_node`; the global ones with 1",
        ),
        (
            "4",
            "look-ups and manifests: a record of 1.3 kB and a line of each manifest for every shard",
            f"{NUM_FILES * len(STAGES) * RECORD_BYTES / GB:.0f} GB of records, {num_gets() / 1e6:.1f} million GETs",
            "files grouped into units of ten; nothing else",
        ),
        ("5", "Prefect: one task a stage, whatever the number of shards", f"{len(STAGES)} task runs", "nothing"),
    ]
    return table(("", "what", "where it breaks, or what it takes", "what must change"), rows)


def money() -> str:
    days = 30
    stored = stored_bytes() / GB * GB_MONTH_DOLLARS * days / 30
    tokens = KEPT_SHARE * NUM_PAGES * TEXT_BYTES / TOKEN_BYTES
    rows = [
        (
            "worker and driver cores, on demand",
            f"{hours_of('workers') + hours_of('driver'):,.0f} core hours at {CORE_HOUR_DOLLARS}",
            f"{compute_dollars():,.0f}",
        ),
        ("the same, interruptible", f"{SPOT_SHARE:g} of that, assumed", f"{compute_dollars() * SPOT_SHARE:,.0f}"),
        ("shards kept for a month", f"{stored_bytes() / TB:,.1f} TB at {GB_MONTH_DOLLARS} a GB", f"{stored:,.0f}"),
        ("lent files, for hours", "gone after each batch", "0"),
        (
            "requests",
            f"{num_puts() / 1e6:.1f} million PUT, {num_gets() / 1e6:.1f} million GET",
            f"{request_dollars():,.0f}",
        ),
        ("bytes in", f"{WARC_BYTES / TB:g} TB within the region of the crawl", "0"),
        (
            "tokens out to the internet",
            f"{2 * tokens / TB:,.2f} TB at {OUT_GB_DOLLARS} a GB",
            f"{2 * tokens / GB * OUT_GB_DOLLARS:,.0f}",
        ),
    ]
    return table(("what", "how many", "US dollars"), rows, (2,))


def document() -> str:
    """The whole of scale-plan.md."""
    segment_pages = NUM_PAGES / NUM_SEGMENTS
    tokens = KEPT_SHARE * NUM_PAGES * TEXT_BYTES / TOKEN_BYTES
    per_page = hours_of("workers") * HOUR_SECONDS / NUM_PAGES
    balance = hours_of("workers") / (hours_of("driver") + passes_seconds() / HOUR_SECONDS)
    return f"""# One Common Crawl month: a plan with arithmetic

`infra/scale_plan.py` writes this page from measured rates and from assumptions that it names; a test compares the two. Change a rate there and run
`python infra/scale_plan.py --write`.

## In short
- The work is {hours_of("workers"):,.0f} core hours on workers ({1 / per_page:,.0f} pages a second and core), which any number of machines can share, and {hours_of("driver"):,.0f} hours in the one process
  that drives them. It costs {compute_dollars():,.0f} dollars on demand, some {compute_dollars() * SPOT_SHARE:,.0f} on machines that may be taken away: a lost worker costs the shards that it had not finished.
- {WARC_BYTES / TB:g} TB come in, {stored_bytes() / TB:,.1f} TB are written (every stage's output is kept), and {tokens / 1e9:,.0f} billion tokens ({2 * tokens / TB:,.2f} TB) come out.
- **As one run it does not work today.** The first thing that breaks is the memory of near-duplicates and dedup: {memory_limit() / 1e6:.0f} million documents on a machine of {DRIVER_MEMORY_BYTES / GB:.0f} GB, of {NUM_PAGES / 1e6:,.0f} million.
- **What works today is a segment a run**: a hundredth of the month, {segment_pages / 1e6:.0f} million pages, {KEPT_SHARE * segment_pages * TEXT_BYTES / TOKEN_BYTES / 1e9:.1f} billion tokens, within every limit below. Duplicates between segments are then not found. For the
  models that this project trains (GPT-2 up to 1.5 billion parameters), one to ten segments are enough.

## What a month is
{facts()}

Common Crawl's own posts give the figures of May 2024; the listing of CC-MAIN-2026-17 is the one on its mirror. The rest is assumed, and marked so.

## What we measured
{OUR_PAGES:,} English pages of Debian's documentation, {OUR_PAGE_BYTES / 1e6:.1f} MB of HTML and {OUR_TEXT_BYTES / 1e6:.1f} MB of text, one worker, default rules, a given tokenizer: `make bench-build`, {MEASURED_ON}. Near-duplicates and dedup of a million
documents: {DEDUP_SECONDS_PER_MILLION:.0f} CPU seconds and {DEDUP_BYTES_PER_MILLION / GB:g} GB at most, `make bench-dedup`. SHA-256: {HASH_BYTES_PER_SECOND / GB:g} GB/s.

{rates()}

Pages of the web are larger than these and hold less text for their size, so costs are carried over by what they grow with: extraction by bytes of HTML, signals, toxicity
and tokenize by bytes of text, the rest by rows. A core of a cloud machine is half of a core with two threads: with both busy, expect the rates of `cpu_growth` in `make bench-ray`.

## The work
{work()}

Near and dedup are taken from their own benchmark, half each. By the clock, in hours, were nothing to break:

{clock()}

The driver's hours are its stages and three passes over the source files (in, hashed, out again). More than some {balance:,.0f} worker cores for one driver are wasted: then the driver
takes longer than they do. Several segments at once, each with a driver and a workspace of its own, have no such bound.

## Object storage
{num_puts() / 1e6:.1f} million PUT and {num_gets() / 1e6:.1f} million GET requests: a shard and a record for each of {NUM_FILES:,} files and stage, two inputs read and a record looked up, a source file lent and
fetched. Over ten hours that is {num_gets() / 36000:,.0f} GETs a second; a bucket takes thousands for each prefix, and names are digests, so they spread.

## Money
{money()}

List prices as known to us, in one region and before discounts: check them before you buy.

## Where it breaks, in this order
{breaks()}

## How to run a segment today
1. A recipe with `kind: warc` and `paths` of the segment's part of `warc.paths.gz`, one workspace for each segment, `CORPUSMILL_STORE=s3://BUCKET/cc/SEGMENT`.
2. A Ray cluster in the region of the crawl, this version installed on every node, `CORPUSMILL_RAY_CACHE` on a local disk of 20 GiB (CORPUSMILL_STORE_CACHE_GIB)
   and 2 GB for each core. The flow runs on a node of it with {segment_pages / 1e6 * DEDUP_BYTES_PER_MILLION / GB:.0f} GB of memory for near and dedup, beside what else is there.
3. `corpusmill build RECIPE --task-runner ray`, by a deployment, with retries: what was finished is kept, whatever ended.
4. Every stage's shards stay, {stored_bytes() / NUM_SEGMENTS / GB:,.0f} GB a segment, so that a changed threshold costs a thirtieth of the build. Who will not change anything exports the kept
   documents and removes the prefix.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = document()
    if options.write:
        DOCUMENT.write_text(text, encoding="utf-8")
    elif options.check:
        if DOCUMENT.read_text(encoding="utf-8") != text:
            sys.exit(f"got another {DOCUMENT.name} than the rates give, wanted the same: run scale_plan.py --write.")
    else:
        print(text)


if __name__ == "__main__":
    main()
