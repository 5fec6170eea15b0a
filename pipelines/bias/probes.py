"""How often does a recipe take a mention of a group for abuse? Harmless statements, with names of groups, judged by its rules.

After the identity functions of HateCheck (Röttger et al. 2021, arXiv:2012.15606) and the template set of Dixon et al.
2018. The statements are our own (lexicons/probes_*.txt), in English and Chinese, and no classifier is trained on them.
Each is a document by itself: the shortest text, in which one word weighs most. Every other name gets the even ones, so that
a report takes a second less, and each group gets all.

Must not: look at rules that judge a text's length, language or form. Every statement fails some of those.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.bias.toxicity_stage import TOXIC_FROM, ToxicityConfig
from pipelines.bias.trial import LANGUAGES, NEUTRAL, Trial, filled, names, tried
from pipelines.policy import CONTENT_RULES, PolicyConfig
from pipelines.review_sample import wilson_interval
from pipelines.signals.measure import SignalsConfig

_LEXICONS = Path(__file__).parent / "lexicons"


def identity_false_positives(
    signals: SignalsConfig, toxicity: ToxicityConfig, policy: PolicyConfig
) -> list[dict[str, Any]]:
    """For each language and group, of the statements: how many a rule on content drops, with Wilson's 95 % interval and the
    rules; how many hold a word of the abuse list in no harmless context; how many the classifier calls toxic."""
    cases = [
        (language, name.group, kind, filled(text, name.one, name.several))
        for language in LANGUAGES
        for number, name in enumerate(names(language))
        for kind, text in _statements(language)[number % 2 :: 2]
    ]
    texts, languages = [text for *_, text in cases], [language for language, *_ in cases]
    trials = tried(texts, signals, toxicity, policy, languages=languages)
    rows = []
    for language, group in dict.fromkeys((language, group) for language, group, *_ in cases):
        own = [
            (kind, trial)
            for (spoken, named, kind, _), trial in zip(cases, trials, strict=True)
            if (spoken, named) == (language, group)
        ]
        rows.append({"language": language, "group": group} | _counted(own))
    return rows


def _counted(own: Sequence[tuple[str, Trial]]) -> dict[str, Any]:
    dropped = [(kind, rules) for kind, trial in own if (rules := _on_content(trial))]
    low, high = wilson_interval(len(dropped), len(own))
    return {
        "texts": len(own),
        "dropped": len(dropped),
        "rate": round(len(dropped) / len(own), 4),
        "interval": [round(low, 4), round(high, 4)],
        "rules": sorted({rule for _, rules in dropped for rule in rules}),
        "kinds": sorted({kind for kind, _ in dropped}),
        "with_listed_word": sum(trial.num_abuse > 0 for _, trial in own),
        "called_toxic": None
        if own[0][1].toxicity_max is None
        else sum((trial.toxicity_max or 0) >= TOXIC_FROM for _, trial in own),
    }


def beyond(rows: Sequence[Mapping[str, Any]], most: float | None) -> list[Mapping[str, Any]]:
    """The rows of a group whose rate is above the recipe's bound; those that name none are there to compare with."""
    return [row for row in rows if most is not None and row["rate"] > most and row["group"] != NEUTRAL]


def _on_content(trial: Trial) -> tuple[str, ...]:
    return tuple(rule for rule in trial.failed_rules if rule in CONTENT_RULES)


@cache
def _statements(language: str) -> tuple[tuple[str, str], ...]:
    lines = (_LEXICONS / f"probes_{language}.txt").read_text(encoding="utf-8").splitlines()
    parts = [line.partition(":") for line in lines if line and not line.startswith("#")]
    return tuple((kind.strip(), text.strip()) for kind, _, text in parts)
