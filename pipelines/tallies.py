"""What is counted about stage outputs, once, when they are made."""

import pyarrow as pa
import pyarrow.compute as pc


def tally_problems(batch: pa.RecordBatch) -> dict[str, int]:
    """DOCUMENT -> documents, and those without text by problem."""
    return {"documents": batch.num_rows} | _value_counts(batch.column("problem"), "problem:")


def tally_decisions(batch: pa.RecordBatch) -> dict[str, int]:
    """DECISION or OUTCOME -> kept, dropped, and dropped by reason."""
    return _value_counts(batch.column("decision"), "") | _value_counts(batch.column("reason"), "drop:")


def tally_pairs(batch: pa.RecordBatch) -> dict[str, int]:
    """NEAR -> pairs of texts that were compared, and those of which one is a near-duplicate of the other."""
    return {"compared": batch.num_rows, "near": pc.sum(batch.column("leads")).as_py() or 0}


def tally_languages(batch: pa.RecordBatch) -> dict[str, int]:
    """SIGNALS -> documents by language, and how often each identifier decided."""
    return _value_counts(batch.column("language"), "language:") | _value_counts(
        batch.column("language_source"), "identifier:"
    )


def tally_tokens(batch: pa.RecordBatch) -> dict[str, int]:
    """TOKENS -> documents, tokens and text bytes, in all and by split."""
    counts: dict[str, int] = {}
    lengths = pc.list_value_length(batch.column("tokens"))
    for split in pc.unique(batch.column("split")).to_pylist():
        chosen = pc.equal(batch.column("split"), split)
        counts[f"documents:{split}"] = pc.sum(chosen).as_py() or 0
        counts[f"tokens:{split}"] = pc.sum(lengths.filter(chosen)).as_py() or 0
        counts[f"bytes:{split}"] = pc.sum(batch.column("num_bytes").filter(chosen)).as_py() or 0
    for name in ("documents", "tokens", "bytes"):
        counts[name] = sum(count for key, count in counts.items() if key.startswith(f"{name}:"))
    return counts


def _value_counts(column: pa.Array, prefix: str) -> dict[str, int]:
    counted = pc.value_counts(column.drop_null())
    return {f"{prefix}{item['values']}": item["counts"] for item in counted.to_pylist()}
