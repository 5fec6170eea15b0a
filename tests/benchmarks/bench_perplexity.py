"""Training and asking language models: `python tests/benchmarks/bench_perplexity.py [TEXT...] [--order N] [--min-count N]`.

Megabytes and documents per CPU second and peak memory, each text file by itself: it is cut into documents of about 5 kB,
nine tenths are learnt, and all are judged. Without files, English and Chinese texts are generated from a seed; they
repeat themselves more than real text does. Ends with one JSON line.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines import schemas
from pipelines.bpe import train_bpe
from pipelines.encoding import Encoder
from pipelines.ngram import NgramConfig, train
from pipelines.perplexity.language_models import LanguageModelsConfig, stream_of, train_language_models
from pipelines.perplexity.scores import PERPLEXITY_STAGE, ScoresConfig, score_documents
from pipelines.stage import Resource
from pipelines.store import Store

DOCUMENT_NUM_BYTES = 5000
GENERATED_NUM_BYTES = 4 << 20
SEED = 7


def generated(language: str) -> str:
    """Words, or characters, that follow one another with some preference."""
    rng = random.Random(SEED)
    syllables = [a + b for a in "bdfghklmnprst" for b in "aeiou"]
    words = (
        [a + b for a in syllables for b in syllables] if language == "en" else [chr(0x4E00 + n) for n in range(3000)]
    )
    lines, num_bytes = [], 0
    while num_bytes < GENERATED_NUM_BYTES:
        place, line = rng.randrange(len(words)), []
        for _ in range(rng.randint(10, 40)):
            line.append(words[place])
            place = (7 * place + int(rng.paretovariate(0.6))) % len(words)
        lines.append((" " if language == "en" else "").join(line) + ("." if language == "en" else "。"))
        num_bytes += len(lines[-1].encode()) + 1
    return "\n".join(lines)


def documents_of(text: str) -> list[str]:
    documents, lines, num_bytes = [], [], 0
    for line in text.split("\n"):
        lines.append(line)
        num_bytes += len(line.encode()) + 1
        if num_bytes >= DOCUMENT_NUM_BYTES:
            documents.append("\n".join(lines))
            lines, num_bytes = [], 0
    return documents


def timed(call: Callable[[], Any], rounds: int = 1) -> tuple[Any, float]:
    """What a call returns, and the least CPU time of some rounds, since other work on the machine only ever adds."""
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        found = call()
        seconds.append(time.process_time() - started)
    return found, min(seconds)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bench(texts: list[str], config: LanguageModelsConfig) -> dict[str, float]:
    learnt = texts[: len(texts) * 9 // 10]
    num_megabytes = sum(len(text.encode()) for text in learnt) / 1e6
    pieces, pieces_seconds = timed(lambda: train_bpe(_first(learnt, 4 << 20), config.vocab_size, 2))
    encoder = Encoder.load(pieces)
    (stream, _), encode_seconds = timed(lambda: stream_of(encoder, learnt), rounds=3)
    before = peak_megabytes()
    shape = NgramConfig(order=config.order, min_count=config.min_count)
    model, train_seconds = timed(lambda: train(stream, encoder.vocab_size, encoder.eot_token, shape))
    peak = peak_megabytes() - before
    rows = [{"doc_id": f"d{idx}", "language": "x", "fold": None, "text": text} for idx, text in enumerate(learnt)]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        reference = pa.RecordBatch.from_pylist(rows, schema=schemas.REFERENCE)
        shard = store.write(schemas.LANGUAGE_MODEL, train_language_models([reference], config), compression=None)
        path = str(store.shard_path(shard.digest))
        scores = ScoresConfig(models=Resource(shard.digest, path))
        batches = [judged(texts[start : start + 256]) for start in range(0, len(texts), 256)]
        _, score_seconds = timed(lambda: list(score_documents(batches, scores)), rounds=3)
    return {
        "documents": len(texts),
        "learnt_mb": num_megabytes,
        "tokens": stream.size,
        "ngrams": model.num_ngrams,
        "pieces_seconds": pieces_seconds,
        "encode_mb_per_cpu_second": num_megabytes / encode_seconds,
        "train_mb_per_cpu_second": num_megabytes / train_seconds,
        "train_peak_bytes_per_token": peak * 1e6 / stream.size,
        "model_mb": shard.num_bytes / 1e6,
        "score_mb_per_cpu_second": sum(len(text.encode()) for text in texts) / 1e6 / score_seconds,
        "score_documents_per_cpu_second": len(texts) / score_seconds,
    }


def judged(texts: list[str]) -> pa.RecordBatch:
    fields = {field.name: field for schema in PERPLEXITY_STAGE.inputs for field in schema}
    rows = [{"doc_id": "d", "text": text, "language": "x", "text_digest": b"0" * 16, "minhash": None} for text in texts]
    return pa.RecordBatch.from_pylist(rows, schema=pa.schema(list(fields.values())))


def _first(texts: list[str], num_bytes: int) -> list[str]:
    found = []
    for text in texts:
        if num_bytes <= 0:
            break
        found.append(text)
        num_bytes -= len(text.encode())
    return found


def main() -> None:
    usual = LanguageModelsConfig()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", type=Path, help="UTF-8 text files")
    parser.add_argument("--order", type=int, default=usual.order)
    parser.add_argument("--min-count", type=int, default=usual.min_count)
    parser.add_argument("--vocab-size", type=int, default=usual.vocab_size)
    given = parser.parse_args()
    config = LanguageModelsConfig(
        order=given.order, min_count=given.min_count, vocab_size=given.vocab_size, min_bytes=1
    )
    sources = {path.name: path.read_text(encoding="utf-8") for path in given.texts}
    results = {}
    for name, text in (sources or {language: generated(language) for language in ("en", "zh")}).items():
        results[name] = {key: float(f"{value:.4g}") for key, value in bench(documents_of(text), config).items()}
        print(name)
        for key, value in results[name].items():
            print(f"  {key:32}{value:14g}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
