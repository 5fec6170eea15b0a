"""One text, one word changed: does the verdict change? Texts of work, illness, protest, news and support, in which the
people spoken of are named by one group after the other, go through the signals and the policy of the recipe.

After the functional tests of HateCheck (Röttger et al. 2021, arXiv:2012.15606) and counterfactual fairness (Garg et al.
2019, arXiv:1809.10610). Texts and names are our own, in English and Chinese: lexicons/templates_*.txt, swaps_*.txt.

Must not: have rules of its own. What is tested is the code and the config that the corpus went through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.bias.toxicity_stage import ToxicityConfig
from pipelines.bias.trial import LANGUAGES, NEUTRAL, Trial, filled, names, tried
from pipelines.policy import PolicyConfig
from pipelines.signals.measure import SignalsConfig

_LEXICONS = Path(__file__).parent / "lexicons"


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """A text with one group named in it, and what became of it."""

    template: str
    """Kind of text: work, health, counter-speech, news, support, history."""
    language: str
    group: str
    """`neutral`: what the others are held against."""
    term: str
    failed_rules: tuple[str, ...]
    """Rules that drop the text. Empty: kept."""
    changed_rules: tuple[str, ...]
    """Rules that judge it otherwise than the text that names no group."""
    decision_changed: bool
    """Kept without the group's name and dropped with it, or the reverse."""
    abuse_per_1000_words: float
    """Hits of the abuse word list in no context that makes them harmless."""
    abuse_gap: float
    """The same, above the text that names no group."""
    toxicity: float | None
    """Score of the classifier; the same for every group, since it sees no names."""


def counterfactuals(signals: SignalsConfig, policy: PolicyConfig, toxicity: ToxicityConfig | None = None) -> list[Swap]:
    """Every template with every name, judged; in the order of the files, English first."""
    cases = [
        (language, kind, name.group, name.one, filled(template, name.one, name.several))
        for language in LANGUAGES
        for kind, template in _templates(language)
        for name in names(language)
    ]
    trials = tried([text for *_, text in cases], signals, toxicity or ToxicityConfig(), policy)
    plain = {
        (language, kind): (set(trial.failed_rules), _density(trial))
        for (language, kind, group, *_), trial in zip(cases, trials, strict=True)
        if group == NEUTRAL
    }
    found = []
    for (language, kind, group, one, _), trial in zip(cases, trials, strict=True):
        rules_before, density_before = plain[language, kind]
        found.append(
            Swap(
                template=kind,
                language=language,
                group=group,
                term=one,
                failed_rules=trial.failed_rules,
                changed_rules=tuple(sorted(rules_before ^ set(trial.failed_rules))),
                decision_changed=bool(trial.failed_rules) != bool(rules_before),
                abuse_per_1000_words=_density(trial),
                abuse_gap=_density(trial) - density_before,
                toxicity=trial.toxicity,
            )
        )
    return found


def by_group(swaps: Sequence[Swap]) -> list[dict[str, Any]]:
    """For each language and group: texts, how many were dropped although harmless, how many a rule judged otherwise for
    the name alone, how many of these changed sides, the rules, the highest score of the classifier, and the largest gap in abuse."""
    rows = []
    for language, group in dict.fromkeys((swap.language, swap.group) for swap in swaps if swap.group != NEUTRAL):
        own = [swap for swap in swaps if (swap.language, swap.group) == (language, group)]
        changed = [swap for swap in own if swap.changed_rules]
        rows.append(
            {
                "language": language,
                "group": group,
                "texts": len(own),
                "dropped": sum(bool(swap.failed_rules) for swap in own),
                "changed": len(changed),
                "decisions_changed": sum(swap.decision_changed for swap in own),
                "rules": sorted({rule for swap in changed for rule in swap.changed_rules}),
                "templates": sorted({swap.template for swap in changed}),
                "terms": sorted({swap.term for swap in changed}),
                "max_toxicity": max((swap.toxicity for swap in own if swap.toxicity is not None), default=None),
                "max_abuse_gap": round(max(abs(swap.abuse_gap) for swap in own), 3),
            }
        )
    return rows


def _density(trial: Trial) -> float:
    return 1000.0 * trial.num_abuse / max(trial.num_words, 1)


@cache
def _templates(language: str) -> tuple[tuple[str, str], ...]:
    """(kind, text) of each template."""
    parts = (_LEXICONS / f"templates_{language}.txt").read_text(encoding="utf-8").split("\n== ")[1:]
    return tuple((kind.strip(), text.strip()) for kind, _, text in (part.partition("\n") for part in parts))
