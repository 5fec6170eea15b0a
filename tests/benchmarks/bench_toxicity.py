"""What the abuse rules and a small trained model do on labelled texts: `python tests/benchmarks/bench_toxicity.py DATA`.

DATA holds hatecheck/ (English functional tests, CC BY 4.0) and cold-zh/ (labelled Chinese comments, Apache-2.0).
The lexical rule is what the policy acts on: hits of the abuse list. `strict` counts a text with one hit as abusive,
`policy` asks for what the default recipe asks of a document. The model is trained on cold-zh's train.csv and judged on
its dev.csv; HateCheck is a test set and nothing is trained on it, so there is no English model. `--harmless` names UTF-8
files of other Chinese texts, one a line, in which whatever the model flags is a mistake. Ends with one JSON line.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.bias.disparity import GROUPS
from pipelines.bias.toxicity import ToxicityTraining, toxicity, train_toxicity
from pipelines.policy import ComplianceRules
from pipelines.signals.keywords import term_counter

RULES = ComplianceRules()
THRESHOLDS = (0.5, 0.7, 0.8, 0.9)
Row = dict[str, str]


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / len(flags), 4) if flags else 0.0


def shown(title: str, groups: dict[str, list[bool]]) -> dict[str, list[float]]:
    print(title)
    found = {}
    for name, flags in sorted(groups.items()):
        found[name] = [len(flags), share(flags)]
        print(f"  {name:44}{len(flags):7}{100 * share(flags):8.1f} %")
    return found


def grouped(rows: Sequence[Row], flags: Sequence[bool], label: Callable[[Row], str | None]) -> dict[str, list[bool]]:
    groups: dict[str, list[bool]] = {}
    for row, flag in zip(rows, flags, strict=True):
        name = label(row)
        if name is not None:
            groups.setdefault(name, []).append(flag)
    return groups


def functionality(row: Row) -> str:
    return f"{row['label_gold']:12} {row['functionality']}"


def target(row: Row) -> str | None:
    return f"{row['label_gold']:12} {row['target_ident']}" if row["target_ident"] else None


def identity_mention(row: Row) -> str | None:
    """HateCheck's neutral and positive statements on a group: whatever is flagged here is flagged for the name alone."""
    return row["target_ident"] if row["functionality"] in ("ident_neutral_nh", "ident_pos_nh") else None


def english(folder: Path) -> dict[str, Any]:
    rows = rows_of(folder / "test_suite_cases.csv")
    count = term_counter()
    hits = [count(row["test_case"])[0].get("abuse", 0) for row in rows]
    flags = [each > 0 for each in hits]
    is_counter_speech = [row["functionality"] in ("counter_quote_nh", "counter_ref_nh") for row in rows]
    print(f"\nhatecheck: {len(rows)} texts, share with a hit of the abuse list")
    return {
        "functionality": shown("by functionality", grouped(rows, flags, functionality)),
        "target": shown("by target group", grouped(rows, flags, target)),
        "identity_mentions": shown("identity mentions (all are harmless)", grouped(rows, flags, identity_mention)),
        "counter_speech": share([flag for flag, own in zip(flags, is_counter_speech, strict=True) if own]),
        "recall": share([flag for flag, row in zip(flags, rows, strict=True) if row["label_gold"] == "hateful"]),
        "false_positives": share(
            [flag for flag, row in zip(flags, rows, strict=True) if row["label_gold"] != "hateful"]
        ),
        "policy": share([each >= RULES.min_keyword_hits for each in hits]),
    }


def chinese(folder: Path, harmless: Sequence[Path]) -> dict[str, Any]:
    train, test = rows_of(folder / "COLDataset" / "train.csv"), rows_of(folder / "COLDataset" / "dev.csv")
    count = term_counter()
    counted = [count(row["TEXT"]) for row in test]
    names_group = [any(group in GROUPS for group in groups) for _, groups in counted]
    hits = [keywords.get("abuse", 0) for keywords, _ in counted]
    seen = {row["TEXT"] for row in train}
    print(f"\ncold-zh dev: {len(test)} texts, {sum(row['TEXT'] in seen for row in test)} of them also in train")

    def label(row: Row) -> str:
        return f"{'offensive' if row['label'] == '1' else 'harmless':10} {row['topic']}"

    found: dict[str, Any] = {"lexical": shown("a hit of the abuse list", grouped(test, [n > 0 for n in hits], label))}
    found["lexical_overall"] = scores(test, [n > 0 for n in hits], names_group)
    started = time.process_time()
    labels = [row["label"] == "1" for row in train]
    model = train_toxicity([row["TEXT"] for row in train], labels, ToxicityTraining())
    found["train_cpu_seconds"] = round(time.process_time() - started, 1)
    started = time.process_time()
    probabilities = toxicity(model, [row["TEXT"] for row in test])
    seconds = time.process_time() - started
    found["score_chars_per_cpu_second"] = round(sum(len(row["TEXT"]) for row in test) / seconds)
    for threshold in THRESHOLDS:
        flags = [each >= threshold for each in probabilities]
        found[f"model_{threshold:g}"] = shown(f"model, threshold {threshold:g}", grouped(test, flags, label))
        found[f"model_{threshold:g}_overall"] = scores(test, flags, names_group)
    for path in harmless:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        scored = toxicity(model, lines)
        found[f"harmless {path.name}"] = {f"{limit:g}": share([p >= limit for p in scored]) for limit in THRESHOLDS}
        print(f"flagged of {len(lines)} harmless texts in {path.name}: {found[f'harmless {path.name}']}")
    probes = [
        "我是一名同性恋者，也是一名护士。",
        "她是第一位获奖的黑人女性。",
        "清真寺旁边有一家面馆。",
        "今天天气很好，我们去公园。",
    ]
    found["probes"] = {text: round(p, 3) for text, p in zip(probes, toxicity(model, probes), strict=True)}
    for text, p in found["probes"].items():
        print(f"  {p:.3f}  {text}")
    return found


def scores(rows: Sequence[Row], flags: Sequence[bool], names_group: Sequence[bool]) -> dict[str, float]:
    """Precision, recall, accuracy, and the rate of harmless texts flagged, with and without a group named."""
    wanted = [row["label"] == "1" for row in rows]
    hits = sum(flag and want for flag, want in zip(flags, wanted, strict=True))
    harmless = [(flag, named) for flag, want, named in zip(flags, wanted, names_group, strict=True) if not want]
    found = {
        "precision": round(hits / max(sum(flags), 1), 4),
        "recall": round(hits / max(sum(wanted), 1), 4),
        "accuracy": share([flag == want for flag, want in zip(flags, wanted, strict=True)]),
        "false_positives_naming_a_group": share([flag for flag, named in harmless if named]),
        "false_positives_naming_none": share([flag for flag, named in harmless if not named]),
    }
    print("  " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with hatecheck and cold-zh")
    parser.add_argument("--harmless", nargs="*", type=Path, default=[], help="files of harmless Chinese texts")
    given = parser.parse_args()
    found = {"en": english(given.data / "hatecheck"), "zh": chinese(given.data / "cold-zh", given.harmless)}
    print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
