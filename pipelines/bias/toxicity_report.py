"""What the data card says of abuse: what the classifiers were trained on and score, where listed words stand, and how often
a harmless mention of a group is taken for abuse."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.bias.probes import beyond
from pipelines.bias.toxicity_stage import ABUSE, TOXIC_FROM
from pipelines.corpus import read_aligned
from pipelines.markdown import table
from pipelines.store import Manifest, Store

_EDGES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Scores at which one row of the distribution ends and the next begins."""


def toxicity_facts(store: Store, done: Mapping[str, Manifest]) -> dict[str, Any]:
    """Hits of the abuse list by context, and documents by score, in all with text and in kept ones; as plain values."""
    contexts: Counter[str] = Counter()
    num_hits = 0
    counts = np.zeros((2, len(_EDGES) + 1), dtype=np.int64)
    has_model = "toxicity_model" in done
    parts = (
        (done["signals"], ("doc_id", "problem", "keyword_counts")),
        (done["toxicity"], ("doc_id", "abuse_in_context", "toxicity")),
        (done["dedup"], ("doc_id", "decision")),
    )
    for _unit, batch in read_aligned(store, *parts):
        for keywords, found in zip(
            batch["keyword_counts"].to_pylist(), batch["abuse_in_context"].to_pylist(), strict=True
        ):
            num_hits += sum(each["count"] for each in keywords if each["category"] == ABUSE)
            contexts.update({each["context"]: each["count"] for each in found})
        if has_model:
            has_text = batch["problem"].is_null().to_numpy(zero_copy_only=False)
            kept = np.array([each == "keep" for each in batch["decision"].to_pylist()], dtype=bool)
            scored = np.searchsorted(_EDGES, batch["toxicity"].to_numpy(zero_copy_only=False), side="right")
            for row, chosen in enumerate((has_text, has_text & kept)):
                counts[row] += np.bincount(scored[chosen], minlength=len(_EDGES) + 1)
    return {
        "abuse_hits": num_hits,
        "abuse_in_context": dict(sorted(contexts.items())),
        "models": _models(store, done["toxicity_model"]) if has_model else [],
        "edges": list(_EDGES),
        "documents": counts[0].tolist() if has_model else [],
        "documents_kept": counts[1].tolist() if has_model else [],
    }


def toxicity_lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts as lines of Markdown."""
    contexts = facts["abuse_in_context"]
    shown = ", ".join(f"{name} {count:,}" for name, count in contexts.items()) or "none"
    lines = [
        "### Abuse",
        "",
        f"- hits of the abuse list: {facts['abuse_hits']:,}; of these in a context that makes them no abuse: {shown}",
    ]
    lines += [
        f"- classifier ({model['language']}): trained on our own sentences and {model['num_given']:,} of the recipe's "
        f"({model['num_given_abusive']:,} abusive)"
        for model in facts["models"]
    ]
    lines.append("")
    if facts["documents"]:
        edges = [0.0, *facts["edges"], 1.0]
        lines += table(
            ("score of the most toxic tenth of the sentences", "documents with text", "kept"),
            [
                (f"{low:g} to {high:g}", count, kept)
                for low, high, count, kept in zip(
                    edges[:-1], edges[1:], facts["documents"], facts["documents_kept"], strict=True
                )
            ],
        )
    return lines


def false_positive_lines(rows: Sequence[Mapping[str, Any]], most: float | None) -> list[str]:
    """How often each group's harmless statements are dropped, as lines of Markdown."""
    bound = "no bound" if most is None else f"bound {100 * most:g} %"
    over = {(row["language"], row["group"]) for row in beyond(rows, most)}
    return [
        f"### Harmless statements that name a group ({bound})",
        "",
        f"Each is a document by itself, judged by the rules on content. Listed word: in no harmless context. Toxic: {TOXIC_FROM:g} or more.",
        "",
        *table(
            ("language", "group", "statements", "dropped", "95 % interval", "rules", "listed word", "toxic", "beyond"),
            [
                (
                    row["language"],
                    row["group"],
                    row["texts"],
                    f"{row['dropped']:,} ({100 * row['rate']:.1f} %)",
                    f"{100 * row['interval'][0]:.1f} to {100 * row['interval'][1]:.1f} %",
                    ", ".join(row["rules"]),
                    row["with_listed_word"],
                    "" if row["called_toxic"] is None else row["called_toxic"],
                    "yes" if (row["language"], row["group"]) in over else "",
                )
                for row in rows
            ],
        ),
    ]


def _models(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    columns = ("language", "num_given", "num_given_abusive")
    return [
        row for entry in manifest.entries for batch in store.read(entry.shard, columns) for row in batch.to_pylist()
    ]
