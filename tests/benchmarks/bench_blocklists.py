"""Loading and asking block lists: `python tests/benchmarks/bench_blocklists.py [--entries N]`.

Domains are drawn from a seed into a file, 5 million of them unless told otherwise. Ends with one JSON line.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from pipelines.blocklists import BlockList, BlockListKind, blocked_by, load_block_lists
from pipelines.digest import digest_file
from pipelines.stage import Resource

SEED = 5
NUM_URLS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=5_000_000)
    num_entries: int = parser.parse_args().entries
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "domains.txt"
        with path.open("w", encoding="utf-8") as file:
            for _ in range(num_entries):
                file.write(f"{rng.randrange(1 << 50):x}{rng.choice(('.com', '.cn', '.co.uk', '.net'))}\n")
        block_list = BlockList(name="bench", kind=BlockListKind.DOMAINS, file=Resource(digest_file(path), str(path)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        index = load_block_lists((block_list,))
        loading = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        with path.open(encoding="utf-8") as file:
            listed = [line.strip() for line, _ in zip(file, range(NUM_URLS // 2), strict=False)]
    urls = [f"https://{prefix}{domain}/a/b?c=1" for prefix in ("www.", "ok") for domain in listed]
    started = time.process_time()
    num_blocked = sum(map(bool, blocked_by(index, urls)))
    asking = time.process_time() - started
    result = {
        "entries": len(index.domains),
        "load_cpu_seconds": round(loading, 2),
        "peak_mib": round(peak / 1024),
        "kept_mib": round((index.domains.nbytes + index.domain_lists.nbytes) / (1 << 20)),
        "urls_per_cpu_second": round(len(urls) / asking),
        "blocked": num_blocked,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
