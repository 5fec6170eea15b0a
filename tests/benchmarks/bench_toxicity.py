"""Abuse on labelled texts, by functionality and target group: `python tests/benchmarks/bench_toxicity.py DATA`.

DATA holds hatecheck/ (English functional tests, CC BY 4.0) and cold-zh/ (labelled Chinese comments, Apache-2.0). Every text
goes through the stages as a document of its own:

  listed   a word of the abuse list stands in it
  attack   the same, in no context that makes it harmless (bias/contexts.py)
  model    the classifier's score reaches --threshold; trained on our own sentences alone
  policy   a rule on content of the default recipe drops it; `+ model` with bias.max_toxicity at --threshold
  trained  Chinese: the classifier trained on cold-zh's train.csv as well, judged on its dev.csv (test.csv where it is there,
           by its fine-grained labels too). HateCheck is a test set: nothing is trained on it.

Ends with the time that the stage takes for a document of 5 kB, and one JSON line.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from pipelines.bias.probes import identity_false_positives
from pipelines.bias.toxicity_stage import (
    TOXICITY_STAGE,
    ToxicityConfig,
    ToxicityModelConfig,
    measure_toxicity,
    train_models,
)
from pipelines.bias.trial import Trial, tried
from pipelines.digest import digest_file
from pipelines.policy import CONTENT_RULES, BiasRules, PolicyConfig
from pipelines.schemas import TOXICITY_MODEL
from pipelines.signals.keywords import identity_counter, keyword_counter
from pipelines.signals.measure import SignalsConfig
from pipelines.stage import Resource
from pipelines.store import Store

POLICY = PolicyConfig()
Row = dict[str, str]
Flags = Mapping[str, Sequence[bool]]
FINE = {"0": "harmless, neither", "1": "attack on one", "2": "attack on a group", "3": "harmless, against bias"}


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def classifier(store: Store, files: Mapping[str, Sequence[Path]]) -> tuple[Resource, float]:
    """The shard of classifiers, as a build makes it, and the CPU seconds it took."""
    train = {
        language: tuple(Resource(digest_file(path), str(path)) for path in paths) for language, paths in files.items()
    }
    started = time.process_time()
    batches = list(train_models([], ToxicityModelConfig(train=train, text_field="TEXT")))
    seconds = time.process_time() - started
    shard = store.write(TOXICITY_MODEL, batches)
    return Resource(shard.digest, str(store.shard_path(shard.digest))), round(seconds, 1)


def flagged(texts: Sequence[str], model: Resource, threshold: float) -> dict[str, list[bool]]:
    """What each way of judging says of each text."""
    strict = replace(POLICY, bias=BiasRules(max_toxicity=threshold))
    trials = tried(texts, SignalsConfig(), ToxicityConfig(model=model), strict)
    count = keyword_counter()
    return {
        "listed": [count(text).get("abuse", 0) > 0 for text in texts],
        "attack": [trial.num_abuse > 0 for trial in trials],
        "model": [(trial.toxicity or 0) >= threshold for trial in trials],
        "policy": [bool(content_rules(trial) - {"toxicity"}) for trial in trials],
        "+ model": [bool(content_rules(trial)) for trial in trials],
    }


def content_rules(trial: Trial) -> set[str]:
    return set(trial.failed_rules) & set(CONTENT_RULES)


def share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / len(flags), 4) if flags else 0.0


def shown(title: str, rows: Sequence[Row], flags: Flags, label: Callable[[Row], str | None]) -> dict[str, Any]:
    """Print and return the share flagged in each group of rows, by way of judging."""
    print(f"\n{title}\n  {'':44}{'texts':>7}" + "".join(f"{name:>10}" for name in flags))
    places: dict[str, list[int]] = {}
    for idx, row in enumerate(rows):
        if (name := label(row)) is not None:
            places.setdefault(name, []).append(idx)
    found = {}
    for name, idxs in sorted(places.items()):
        found[name] = {"texts": len(idxs)} | {way: share([each[idx] for idx in idxs]) for way, each in flags.items()}
        shares = "".join(f"{100 * found[name][way]:9.1f}%" for way in flags)
        print(f"  {name:44}{len(idxs):7}{shares}")
    return found


def judged(rows: Sequence[Row], flags: Flags, is_abuse: Callable[[Row], bool]) -> dict[str, dict[str, float]]:
    """Precision, recall and the rate of harmless texts flagged, by way of judging."""
    wanted = [is_abuse(row) for row in rows]
    found = {}
    for way, each in flags.items():
        hits = sum(flag and want for flag, want in zip(each, wanted, strict=True))
        found[way] = {
            "precision": round(hits / max(sum(each), 1), 4),
            "recall": round(hits / max(sum(wanted), 1), 4),
            "false_positives": round((sum(each) - hits) / max(len(rows) - sum(wanted), 1), 4),
        }
        print(f"  {way:10}" + ", ".join(f"{name} {value:.3f}" for name, value in found[way].items()))
    return found


def english(folder: Path, model: Resource, threshold: float) -> dict[str, Any]:
    rows = rows_of(folder / "test_suite_cases.csv")
    flags = flagged([row["test_case"] for row in rows], model, threshold)
    print(f"\nhatecheck: {len(rows)} texts")
    return {
        "overall": judged(rows, flags, lambda row: row["label_gold"] == "hateful"),
        "functionality": shown(
            "by functionality", rows, flags, lambda row: f"{row['label_gold']:12} {row['functionality']}"
        ),
        "target": shown(
            "by target group",
            rows,
            flags,
            lambda row: f"{row['label_gold']:12} {row['target_ident']}" if row["target_ident"] else None,
        ),
        "identity_mentions": shown(
            "harmless statements on a group (ident_neutral_nh, ident_pos_nh)",
            rows,
            flags,
            lambda row: row["target_ident"] if row["functionality"].startswith("ident_") else None,
        ),
    }


def chinese(folder: Path, own: Resource, trained: Resource, threshold: float) -> dict[str, Any]:
    test = folder / "test.csv"
    rows = rows_of(test if test.is_file() else folder / "dev.csv")
    texts = [row["TEXT"] for row in rows]
    flags = flagged(texts, own, threshold)
    more = flagged(texts, trained, threshold)
    flags |= {"trained": more["model"], "+ trained": more["+ model"]}
    print(f"\ncold-zh {'test' if test.is_file() else 'dev'}: {len(rows)} texts")
    count = identity_counter()

    def label(row: Row) -> str:
        return f"{'abusive' if row['label'] == '1' else 'harmless':12} "

    found = {
        "overall": judged(rows, flags, lambda row: row["label"] == "1"),
        "topic": shown("by topic", rows, flags, lambda row: label(row) + row["topic"]),
        "target": shown(
            "by group named (the first)",
            rows,
            flags,
            lambda row: label(row) + next(iter(count(row["TEXT"])), "no listed name"),
        ),
    }
    if "fine-grained-label" in rows[0]:
        found["kind"] = shown("by kind", rows, flags, lambda row: FINE.get(row["fine-grained-label"]))
    return found


def probes(model: Resource, threshold: float) -> list[dict[str, Any]]:
    policy = replace(POLICY, bias=BiasRules(max_toxicity=threshold))
    rows = identity_false_positives(SignalsConfig(), ToxicityConfig(model=model), policy)
    for row in rows:
        print(
            f"  {row['language']} {row['group']:14}{row['texts']:5} dropped {100 * row['rate']:5.1f} % "
            f"({100 * row['interval'][0]:.1f} to {100 * row['interval'][1]:.1f}) {', '.join(row['rules'])}"
        )
    return rows


def cost(model: Resource) -> dict[str, float]:
    """Microseconds of CPU time for a document of 5 kB in the stage: the least of five rounds over 256 documents."""
    plain = "The boat lay in the harbour and the wind turned to the north before the rain came. " * 60
    named = plain[:4200] + "A woman met two Muslims there. " * 10
    abusive = plain[:4600] + "He called her an idiot. You are an idiot. " * 5
    chinese_named = "船停在港口，风向转北，雨还没有来。" * 90 + "一位女性在那里遇见了两个穆斯林。" * 5
    cases = {
        "no name, no listed word": (plain, "en", 0, 0),
        "names groups in ten sentences": (named, "en", 0, 3),
        "names groups, Chinese": (chinese_named, "zh", 0, 3),
        "ten listed words": (abusive, "en", 10, 3),
    }
    found = {}
    for name, (text, language, abuse, groups) in cases.items():
        batch = documents([text[:5000]] * 256, language, abuse, groups)
        for way, config in (("off", ToxicityConfig()), ("on", ToxicityConfig(model=model))):
            list(measure_toxicity([batch.slice(0, 2)], config))
            seconds = []
            for _ in range(5):
                started = time.process_time()
                list(measure_toxicity([batch], config))
                seconds.append(time.process_time() - started)
            found[f"{name}, model {way}"] = round(1e6 * min(seconds) / batch.num_rows, 1)
            print(f"  {name + ', model ' + way:44}{found[f'{name}, model {way}']:9.1f} µs")
    return found


def documents(texts: Sequence[str], language: str, abuse: int, groups: int) -> pa.RecordBatch:
    fields = {field.name: field for schema in TOXICITY_STAGE.inputs for field in schema}
    row = {
        "language": language,
        "keyword_counts": [{"category": "abuse", "count": abuse}] if abuse else [],
        "identity_counts": [{"group": "gender", "count": groups}] if groups else [],
    }
    rows = [row | {"doc_id": str(idx), "text": text} for idx, text in enumerate(texts)]
    return pa.RecordBatch.from_pylist(rows, schema=pa.schema(list(fields.values())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with hatecheck and cold-zh")
    parser.add_argument("--threshold", type=float, default=0.8, help="score from which the model flags a text")
    given = parser.parse_args()
    cold = given.data / "cold-zh" / "COLDataset"
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        own, own_seconds = classifier(store, {})
        trained, trained_seconds = classifier(store, {"zh": [cold / "train.csv"]})
        found: dict[str, Any] = {
            "train_cpu_seconds": {"own": own_seconds, "with cold-zh": trained_seconds},
            "en": english(given.data / "hatecheck", own, given.threshold),
            "zh": chinese(cold, own, trained, given.threshold),
        }
        print(
            "\nprobes: statements of our own on each group, rules of the default recipe and the model of our own sentences"
        )
        found["probes"] = probes(own, given.threshold)
        print("\nprobes, trained on cold-zh as well")
        found["probes_trained"] = probes(trained, given.threshold)
        print("\nthe stage, CPU time a document of 5 kB")
        found["cost_us"] = cost(own)
    print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
