"""Memory and speed of a crawl's ledger with a million URLs that wait: `python tests/benchmarks/bench_frontier.py`.

Three processes, one after the other on one ledger: `fill` adds the URLs as pages do, `take` leases some of each host's as
the engine does, and `crawl` is a whole crawl of them, each host at a port where nobody answers, so that every URL goes
through the engine and gets an outcome. Peak memory is the kernel's account of each process. With `--num-hosts 200000` a
host has five URLs. Ends with one JSON line; exits 1 where a process is over the bar, or a URL is lost.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.crawl import CrawlConfig, crawl
from pipelines.crawl.entries import Link
from pipelines.crawl.frontier import Frontier

BAR_PEAK_MIB = 300
NUM_LINKS_AT_ONCE = 5000
"""About what the pages of one commit link to."""
NUM_HOSTS_AT_ONCE = 1000
NUM_TARGETS = 64
LEASE_SECONDS = 900.0


def host(index: int) -> str:
    return f"host{index}.example"


def fill(folder: Path, num_urls: int, num_hosts: int) -> dict[str, Any]:
    """URL i is of host i modulo the number of hosts, so that each batch touches many hosts."""
    with Frontier(folder) as frontier:
        for first in range(0, num_urls, NUM_LINKS_AT_ONCE):
            links = []
            for index in range(first, min(first + NUM_LINKS_AT_ONCE, num_urls)):
                origin = f"http://{host(index % num_hosts)}"
                path = f"/news/2026/{index % 12 + 1:02d}/story-{index}-of-some-length.html"
                links.append(Link(origin + path, origin, index % 7, 0, None))
            frontier.commit((), found=links)
        num_queued = frontier.num_queued()
    return {"urls": num_queued, "ledger_bytes": (folder / "frontier.sqlite").stat().st_size}


def take(folder: Path) -> dict[str, Any]:
    """Lease from every host, as a new process does after the last one died."""
    num_taken = 0
    last_id = 0
    now = time.time()
    with Frontier(folder) as frontier:
        frontier.requeue(now, None)
        while ids := frontier.waiting_origins(last_id, NUM_HOSTS_AT_ONCE):
            last_id = ids[-1]
            for id_ in ids:
                frontier.origin(id_)
                num_taken += len(frontier.lease(id_, NUM_TARGETS, now, now + LEASE_SECONDS))
    return {"urls": num_taken}


class _ClosedPort(Mapping[str, tuple[str, int]]):
    """Sends every host to one port, without a table of hosts that would count as the crawl's memory."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)

    def __getitem__(self, key: str) -> tuple[str, int]:
        return self._address

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def crawl_all(folder: Path) -> dict[str, Any]:
    """The crawl itself: the URLs of each host, none of which answers."""
    config = CrawlConfig(
        seeds=(f"http://{host(0)}/",),
        scope="regex",
        include=(r"\.example/",),
        delay_seconds=0,
        delay_factor=0,
        concurrency=50,
        max_attempts=1,
        max_pages=1 << 40,
    )
    with socket.socket() as unanswered:
        unanswered.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's meanwhile
        result = crawl(config, folder, connect_to=_ClosedPort(unanswered.getsockname()[1]))
    return {"urls": sum(result.outcomes.values()), "outcomes": result.outcomes}


def measured(phase: str, folder: Path, num_urls: int, num_hosts: int) -> dict[str, Any]:
    """One phase in a process of its own, with the kernel's account of it."""
    began_at = time.monotonic()
    size = ["--num-urls", str(num_urls), "--num-hosts", str(num_hosts)]
    command = [sys.executable, __file__, "--phase", phase, "--folder", str(folder), *size]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not lines:
        raise SystemExit(f"got exit status {process.returncode} from phase {phase}, wanted 0: run it by hand.")
    return json.loads(lines[-1]) | {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_seconds": round(time.monotonic() - began_at, 2),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-urls", type=int, default=1_000_000)
    parser.add_argument("--num-hosts", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="a file for the result")
    parser.add_argument("--phases", nargs="+", default=["fill", "take", "crawl"], choices=("fill", "take", "crawl"))
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase is not None:
        phases = {
            "fill": lambda: fill(options.folder, options.num_urls, options.num_hosts),
            "take": lambda: take(options.folder),
            "crawl": lambda: crawl_all(options.folder),
        }
        print(json.dumps(phases[options.phase]()))
        return
    found: dict[str, Any] = {"num_urls": options.num_urls, "num_hosts": options.num_hosts, "bar_peak_mib": BAR_PEAK_MIB}
    with tempfile.TemporaryDirectory() as folder:
        for phase in options.phases:
            found[phase] = measured(phase, Path(folder), options.num_urls, options.num_hosts)
            print(
                f"{phase:8}{found[phase]['urls']:>10} URLs {found[phase]['peak_mib']:8.1f} MiB"
                f" {found[phase]['cpu_seconds']:8.1f} CPU s {found[phase]['wall_seconds']:8.1f} s",
                flush=True,
            )
    print(json.dumps(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    peak = max(found[phase]["peak_mib"] for phase in options.phases)
    if peak > BAR_PEAK_MIB:
        sys.exit(f"got a process of {peak} MiB, wanted at most {BAR_PEAK_MIB}.")
    wanted = {
        "fill": options.num_urls,
        "take": min(options.num_urls, options.num_hosts * NUM_TARGETS),
        "crawl": options.num_urls + 1,  # the seed
    }
    for phase in options.phases:
        if found[phase]["urls"] != wanted[phase]:
            sys.exit(f"got {found[phase]['urls']} URLs in phase {phase}, wanted {wanted[phase]}.")


if __name__ == "__main__":
    main()
