"""Documents and their signals, as the perplexity stages read them."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import schemas
from pipelines.perplexity.language_models import LANGUAGE_MODELS_STAGE, LanguageModelsConfig, train_language_models
from pipelines.perplexity.reference import REFERENCE_STAGE
from pipelines.perplexity.scores import PERPLEXITY_STAGE, ScoresConfig, score_documents
from pipelines.stage import Resource
from pipelines.store import Store

READ = pa.schema(
    list(
        {
            field.name: field for stage in (REFERENCE_STAGE, PERPLEXITY_STAGE) for s in stage.inputs for field in s
        }.values()
    )
)
_SYLLABLES = [first + second for first in "bdfglmnprst" for second in "aeiou"]
_HAN = "山水天地人日月星风云花草木石江河湖海春夏秋冬东南西北高低远近大小多少来去见闻知行言语书画"


def prose(seed: int, num_sentences: int = 12, language: str = "en") -> str:
    """Sentences whose words follow one another by a grammar of our own, so that a model has something to learn."""
    rng = random.Random(seed)
    words = [a + b for a in _SYLLABLES[:30] for b in _SYLLABLES[7:27]] if language == "en" else list(_HAN)
    sentences = []
    for _ in range(num_sentences):
        place = rng.randrange(len(words))
        sentence = []
        for _ in range(rng.randrange(6, 14)):
            sentence.append(words[place])
            place = (3 * place + rng.randrange(3)) % len(words)
        sentences.append(" ".join(sentence) + "." if language == "en" else "".join(sentence) + "。")
    return ("\n" if language == "en" else "").join(sentences)


def document(doc_id: str, text: str, **changes: Any) -> dict[str, Any]:
    """A row of DOCUMENT + SIGNALS that qualifies for the reference."""
    rng = np.random.default_rng(int.from_bytes(text.encode()[:400], "big") % (1 << 63))
    row = {
        "doc_id": doc_id,
        "text": text,
        "url": f"https://site.example/{doc_id}",
        "fetched_at": 0,
        "problem": None,
        "language": "en",
        "language_score": 0.99,
        "is_mixed_language": False,
        "num_words": 100,
        "rights": "unknown",
        "num_blocked_ai_agents": 0,
        "text_digest": rng.bytes(16),
        "minhash": rng.integers(0, 1 << 32, schemas.MINHASH_NUM_PERMUTATIONS, dtype=np.uint32).tolist(),
    }
    return row | changes


def batch(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=READ)


def reference(rows: Sequence[tuple[str, int | None, str]]) -> pa.RecordBatch:
    """REFERENCE rows of (language, fold, text)."""
    return pa.RecordBatch.from_pylist(
        [{"doc_id": f"r{idx}", "language": a, "fold": b, "text": c} for idx, (a, b, c) in enumerate(rows)],
        schema=schemas.REFERENCE,
    )


def models(store: Store, rows: Sequence[tuple[str, int | None, str]], **changes: Any) -> ScoresConfig:
    """Models of the reference, in a store."""
    config = LanguageModelsConfig(**{"vocab_size": 400, "min_bytes": 1, **changes})
    trained = train_language_models([reference(rows)], config)
    shard = store.write(schemas.LANGUAGE_MODEL, trained, compression=LANGUAGE_MODELS_STAGE.compression)
    return ScoresConfig(models=Resource(shard.digest, str(store.shard_path(shard.digest))))


def scored(rows: Sequence[dict[str, Any]], config: ScoresConfig) -> list[dict[str, Any]]:
    return [row for part in score_documents([batch(rows)], config) for row in part.to_pylist()]
