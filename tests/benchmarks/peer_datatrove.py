"""datatrove's FineWeb recipe on WARC files, run by `bench_build.py --peer-python` in an environment of its own:

    python3 -m venv peer && peer/bin/pip install "datatrove[io,processing]" spacy orjson lxml_html_clean

The steps are those of its examples/fineweb.py, from WARC to MinHash signatures and tokens, one process after the other.
Left out are the URL filter, which needs block lists, and what dedup does with the signatures; what is kept is passed on
in plain JSON lines, where the example packs and uploads it. No tokenizer is trained: a given one is used, and a given
lid.176 model. Prints one JSON line.
"""

import json
import resource
import sys
import time
from importlib.metadata import version

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.lid import FT176LID


def cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(warcs: str, scratch: str, lid_model: str, tokenizer: str) -> None:
    FT176LID.MODEL_URL = lid_model
    kept = f"{scratch}/kept"
    jobs = {
        "filter": [
            WarcReader(warcs, glob_pattern="*.warc.gz"),
            Trafilatura(favour_precision=True, timeout=5),
            LanguageFilter(),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
            JsonlWriter(kept, compression=None),
        ],
        "signatures": [JsonlReader(kept), MinhashDedupSignature(f"{scratch}/signatures", config=MinhashConfig())],
        "tokens": [JsonlReader(kept), DocumentTokenizer(f"{scratch}/tokens", tokenizer, shuffle_documents=False)],
    }
    found = []
    for name, steps in jobs.items():
        cpu_started, started = cpu_seconds(), time.monotonic()
        stats = LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=f"{scratch}/logs/{name}").run()
        documents = {step.name: step["total"].total for step in stats.stats if "total" in step.stats}
        found.append(
            {
                "job": name,
                "cpu_seconds": round(cpu_seconds() - cpu_started, 2),
                "wall_seconds": round(time.monotonic() - started, 2),
                "documents": documents,
            }
        )
    cpu, num_pages = sum(job["cpu_seconds"] for job in found), next(iter(found[0]["documents"].values()))
    result = {
        "version": version("datatrove"),
        "pages": num_pages,
        "kept": next(iter(found[1]["documents"].values())),
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(sum(job["wall_seconds"] for job in found), 2),
        "pages_per_cpu_second": round(num_pages / cpu, 1),
        "jobs": found,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
