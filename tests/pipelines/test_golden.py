"""Golden rows: what every stage makes of a few pages of the sample site, in plain text.

A change that alters them shows here what it does to the output. If that is meant, raise the stage's
version and write them anew: `make golden`.
"""

import json
import os
from pathlib import Path

import pytest
from test_stages import CONFIG, NODES, built  # noqa: F401 - the fixture

GOLDEN = Path(__file__).parent.parent / "golden"
COLUMNS = {
    "extract": None,
    "signals": None,
    "contamination": None,
    "toxicity": ("doc_id", "abuse_in_context", "num_scored_sentences"),  # scores hang on a processor's last bits
    "policy": None,
    "near": None,
    "dedup": None,
    "tokenize": ("doc_id", "split", "num_bytes"),
}


def plain(value):
    """Values as JSON, floats to six digits, bytes as hex, long lists by their length and ends."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list) and len(value) > 20:
        return {"length": len(value), "first": value[:4], "last": value[-4:]}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value if isinstance(value, int | str | None) else str(value)


@pytest.mark.parametrize("name", COLUMNS)
def test_the_rows_are_as_they_were(built, name):  # noqa: F811
    store, found = built
    manifest = found[name][3]
    batches = [batch for entry in manifest.entries for batch in store.read(entry.shard, COLUMNS[name])]
    rows = [plain(row) for batch in batches for row in batch.to_pylist()]
    text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    path = GOLDEN / f"{name}.jsonl"
    if os.environ.get("CORPUSMILL_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), (
        "output changed: if it is meant, raise the version and `make golden`"
    )
