"""Pages per CPU second of a crawl, beside Scrapy: `python tests/benchmarks/bench_crawl.py --peer-python PYTHON`.

Both crawl the 50 hosts of `crawl_site.py` in full, with politeness off and robots.txt obeyed, and write WARC, one gzip
member a record. Each crawl is a process of its own; CPU time (user and system) and peak memory are the kernel's account
of that process from its start to its end, imports included. Runs alternate, and the figure is the median over pairs.
The web server is another process, whose time counts for neither. Every run's WARC is read back: it must hold each page
once. Ends with one JSON line; exits 1 below the bar.

PYTHON is the interpreter of an environment with Scrapy: `python -m venv peer && peer/bin/pip install scrapy==2.19.0
warcio`, then `--peer-python peer/bin/python`. Without it only the own crawl is measured, and there is no bar.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BAR_RATIO = 4.0
HERE = Path(__file__).parent
HOW_TO_PEER = (
    "got no --peer-python, so there is nothing to compare with: "
    "run `python -m venv peer && peer/bin/pip install scrapy==2.19.0 warcio` and give peer/bin/python."
)
KINDS = ("own", "scrapy", "scrapy-without-warc", "scrapy-with-jobdir")


def crawl_own(folder: Path, seeds: list[str], concurrency: int, concurrency_per_host: int) -> None:
    """The measured process."""
    from pipelines.crawl import CrawlConfig, crawl

    config = CrawlConfig(
        seeds=tuple(seeds),
        delay_seconds=0,
        delay_factor=0,
        concurrency=concurrency,
        concurrency_per_host=concurrency_per_host,
        allow_addresses=("127.0.0.0/8",),
    )
    result = crawl(config, folder)
    print(json.dumps({"version": "own", "pages": result.num_pages}))


@contextmanager
def site(num_hosts: int, num_pages: int, encoding: str) -> Iterator[list[str]]:
    """A running server; gives the front page of each host."""
    arguments = ["--num-hosts", str(num_hosts), "--num-pages", str(num_pages), "--encoding", encoding]
    server = subprocess.Popen(
        [sys.executable, str(HERE / "crawl_site.py"), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = json.loads(server.stdout.readline())["port"]
        yield [f"http://127.0.0.{host + 1}:{port}/" for host in range(num_hosts)]
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def measured(command: list[str]) -> dict[str, Any]:
    """Run a command to its end; its last line, and the kernel's account of it."""
    began_at = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not lines:
        raise SystemExit(
            f"got exit status {process.returncode} from {' '.join(command)[:300]}, wanted 0: run it by hand."
        )
    return json.loads(lines[-1]) | {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "user_seconds": round(usage.ru_utime, 3),
        "system_seconds": round(usage.ru_stime, 3),
        "wall_seconds": round(time.monotonic() - began_at, 3),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
    }


def run_once(kind: str, seeds: list[str], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    per_host = str(options.concurrency_per_host if kind == "own" else options.peer_concurrency_per_host)
    limits = ["--concurrency", str(options.concurrency), "--concurrency-per-host", per_host]
    warc = folder / "peer.warc.gz"
    if kind == "own":
        command = [sys.executable, __file__, "--own-folder", str(folder), *limits, "--seeds", *seeds]
    else:
        command = [str(options.peer_python), str(HERE / "peer_scrapy.py"), *limits]
        command += [] if kind == "scrapy-without-warc" else ["--warc", str(warc)]
        command += ["--jobdir", str(folder / "job")] if kind == "scrapy-with-jobdir" else []
        command += seeds
    result = measured(command)
    result["pages_per_cpu_second"] = round(result["pages"] / result["cpu_seconds"], 1)
    num_wanted = options.num_hosts * options.num_pages
    if kind == "scrapy-without-warc":
        num_archived = result["pages"]
    else:
        num_archived, num_distinct = archived_pages(folder)
        result["warc_bytes"] = sum(path.stat().st_size for path in folder.rglob("*.warc.gz"))
        if num_archived != num_distinct:
            raise SystemExit(f"got {num_archived} pages of {num_distinct} URLs from {kind}, wanted each once.")
    if num_archived != num_wanted or result["pages"] != num_wanted:
        raise SystemExit(
            f"got {num_archived} pages in WARC and {result['pages']} said from {kind}, wanted {num_wanted}."
        )
    return result


def archived_pages(folder: Path) -> tuple[int, int]:
    """Pages in the WARC files of a folder, and how many URLs they have."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    urls: list[str] = []
    for path in sorted(folder.rglob("*.warc.gz")):
        with path.open("rb") as file:
            urls += [
                record.headers["WARC-Target-URI"]
                for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True)
                if record.http_headers.status_code == 200
                and not record.headers["WARC-Target-URI"].endswith("/robots.txt")
            ]
    return len(urls), len(set(urls))


def bench(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    kinds = ["own"] if options.peer_python is None else ["own", "scrapy"]
    extra = list(KINDS[2:]) if options.peer_python is not None and options.peer_variants else []
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in [*kinds, *extra]}
    with site(options.num_hosts, options.num_pages, options.encoding) as seeds:
        for repeat in range(options.repeats):
            order = kinds if repeat % 2 == 0 else kinds[::-1]
            for kind in [*order, *(extra if repeat == 0 else [])]:
                with tempfile.TemporaryDirectory() as folder:
                    result = run_once(kind, seeds, Path(folder), options)
                runs[kind].append(result)
                print(
                    f"{kind:20}{result['pages_per_cpu_second']:8.1f} pages/CPU s {result['cpu_seconds']:8.2f} CPU s"
                    f" ({result['system_seconds']:.2f} system) {result['wall_seconds']:8.2f} s {result['peak_mib']:7.1f} MiB",
                    flush=True,
                )
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="the interpreter of an environment with scrapy and warcio")
    parser.add_argument("--peer-variants", action="store_true", help="also Scrapy without WARC, and with JOBDIR, once")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs")
    parser.add_argument("--num-hosts", type=int, default=50)
    parser.add_argument("--num-pages", type=int, default=100, help="of each host")
    parser.add_argument("--encoding", choices=("identity", "gzip"), default="gzip", help="how the server sends pages")
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--concurrency-per-host", type=int, default=2)
    parser.add_argument("--peer-concurrency-per-host", type=int, default=8, help="8 is Scrapy's own default")
    parser.add_argument("--json", type=Path, help="a file for the result")
    parser.add_argument("--own-folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seeds", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own_folder is not None:
        crawl_own(options.own_folder, options.seeds, options.concurrency, options.concurrency_per_host)
        return
    runs = bench(options)
    found: dict[str, Any] = {
        "num_pages": options.num_hosts * options.num_pages,
        "encoding": options.encoding,
        "runs": runs,
    }
    rate = "pages_per_cpu_second"
    found["median"] = {kind: statistics.median(run[rate] for run in each) for kind, each in runs.items()}
    if options.peer_python is None:
        print(HOW_TO_PEER)
    else:
        pairs = zip(runs["own"], runs["scrapy"], strict=True)
        found["ratio"] = round(statistics.median(own[rate] / peer[rate] for own, peer in pairs), 2)
        found["bar_ratio"] = BAR_RATIO
        print(f"ratio {found['ratio']}, bar {BAR_RATIO}")
    print(json.dumps(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if found.get("ratio", BAR_RATIO) < BAR_RATIO:
        sys.exit(f"got {found['ratio']} times the pages per CPU second of Scrapy, wanted {BAR_RATIO}.")


if __name__ == "__main__":
    main()
