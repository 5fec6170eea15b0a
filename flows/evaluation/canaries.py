"""Canaries: random words planted into a corpus, so that what a model memorises can be counted (Carlini et al. 2019).

A canary is a sentence of a fixed format, `The five words of Amber Gate are ...`, whose words are drawn evenly; how many
others there could have been is known, and no page of the world holds it. Pages around it are what a source of
`kind: canaries` of a recipe brings: a function of its plan alone, so a changed plan is a changed source.

Planting has to survive the build, which drops copies. So each page holds its canary once, within a paragraph of other
sentences in another order with other words, under a host of its own: pages are neither equal nor alike (their Jaccard
similarity is far below 0.8), and the line with the canary is no line that a host repeats. What the build still takes away
(held-out splits, rules) is not guessed: `count_in_texts` counts what the model was in fact given, and that is reported.

A corpus with canaries is for measuring: its model writes them. Names of places, no people: personal data is redacted.
"""

import json
import math
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.digest import digest_value
from pipelines.errors import ConfigError
from pipelines.store import storage_errors

if TYPE_CHECKING:
    from llm.evaluation.memorisation import Probe

LANGUAGES = ("en", "zh")
_FOLDER = Path(__file__).parent / "texts"
_SENTENCES_BEFORE, _SENTENCES_AFTER = 3, 3
_NUM_WORDS = 5
_NUM_HELD_OUT = 299


@dataclass(frozen=True, kw_only=True, slots=True)
class CanaryPlan:
    """Which canaries are planted. An equal plan gives equal bytes."""

    seed: int = 0
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Pages that hold a canary, for each of them."""
    num_each: int = 1
    """Canaries a count and language: with more, the report says how sure it is of a count."""
    languages: tuple[str, ...] = LANGUAGES

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.languages) - set(LANGUAGES)):
            raise ConfigError(f"got canaries in {unknown[0]!r}, wanted en or zh: correct languages.")
        if not self.counts or min(self.counts) < 1 or len(set(self.counts)) < len(self.counts):
            raise ConfigError(f"got canary counts {list(self.counts)}, wanted different numbers from 1: correct them.")
        most = math.prod(map(len, _texts("en")["keys"]))
        if not 1 <= self.num_each * len(self.counts) <= most:
            raise ConfigError(
                f"got {self.num_each} canaries for each of {len(self.counts)} counts, wanted 1 to {most} a language: "
                "lower num_each."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Canary:
    """A planted sentence."""

    name: str
    """Such as `en-64-0`: language, planned count, number."""
    language: str
    num_planned: int
    """Pages that were written with it."""
    key: str
    """What tells it from the others: each has its own, so that none stands in another's way."""
    words: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """As it stands on a page."""
        texts = _texts(self.language)
        return texts["secret"].format(key=self.key, words=texts["separator"].join(self.words))


def canaries(plan: CanaryPlan) -> list[Canary]:
    """The canaries of a plan, in its order."""
    found = []
    for language in plan.languages:
        draw = _drawer(plan.seed, "keys", language)
        first, second = _texts(language)["keys"]
        keys = draw.sample([a + b for a in first for b in second], plan.num_each * len(plan.counts))
        for count in plan.counts:
            for number in range(plan.num_each):
                name = f"{language}-{count}-{number}"
                words = _drawn_words(_drawer(plan.seed, "words", name), language)
                found.append(Canary(name=name, language=language, num_planned=count, key=keys.pop(), words=words))
    return found


def canary_pages(plan: CanaryPlan) -> Iterable[dict[str, str]]:
    """A page for each time that a canary is planted: `url` and `text`."""
    for canary in canaries(plan):
        for page in range(canary.num_planned):
            draw = _drawer(plan.seed, "page", canary.name, page)
            yield {"url": f"https://{canary.name}-{page}.canary.invalid/", "text": _page(canary, draw)}


def write_canary_pages(path: Path, plan: CanaryPlan) -> int:
    """Write the pages as JSON lines, as a text source reads them, whole or not at all; returns how many.

    A file that has them already stays as it is.

    Raises StorageError for the disk.
    """
    rows = [json.dumps(row, ensure_ascii=False) for row in canary_pages(plan)]
    data = ("\n".join(rows) + "\n").encode()
    with storage_errors(path.parent):
        if path.is_file() and path.read_bytes() == data:
            return len(rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return len(rows)


def count_in_texts(
    planted: Sequence[Canary], texts: Iterable[str], progress: Callable[[int], None] = lambda _: None
) -> dict[str, int]:
    """In how many texts each canary stands, by name: what was planted and is in fact trained on.

    `texts` are those of the training split, as they are trained on; `progress` is told how many were read.
    """
    counts = dict.fromkeys((canary.name for canary in planted), 0)
    for number, text in enumerate(texts, 1):
        for canary in planted:
            counts[canary.name] += canary.sentence in text
        progress(number)
    return counts


def num_held_out(plan: CanaryPlan) -> int:
    """As many others of a canary's format as a report on all of a plan needs to find one of them: 299, or more of many."""
    num = plan.num_each * len(plan.counts) * len(plan.languages)
    return max(_NUM_HELD_OUT, 20 * num - 1)


def probes(plan: CanaryPlan, counts: dict[str, int], *, num_held_out: int = 999) -> "list[Probe]":
    """What the exposure of each canary is measured with: `num_held_out` others of its format, drawn as it was drawn.

    `counts` are those of `count_in_texts`.
    """
    from llm.evaluation.memorisation import Probe

    found = []
    for canary in canaries(plan):
        texts = _texts(canary.language)
        context = texts["joint"] + texts["before_words"].format(key=canary.key)
        draw = _drawer(plan.seed, "held out", canary.name)
        held_out: set[tuple[str, ...]] = set()
        while len(held_out) < num_held_out:
            held_out |= {_drawn_words(draw, canary.language)} - {canary.words}
        found.append(
            Probe(
                name=canary.name,
                language=canary.language,
                num_planted=counts[canary.name],
                context=context,
                secret=texts["separator"].join(canary.words),
                held_out=tuple(texts["separator"].join(words) for words in sorted(held_out)),
                log2_space=_NUM_WORDS * math.log2(len(texts["words"])),
            )
        )
    return found


def _page(canary: Canary, draw: random.Random) -> str:
    texts = _texts(canary.language)
    drawn = draw.sample(texts["sentences"], _SENTENCES_BEFORE + _SENTENCES_AFTER)
    filled = [
        sentence.format(**{slot: draw.choice(texts[slot]) for slot in ("time", "person", "place", "thing")})
        for sentence in drawn
    ]
    filled.insert(_SENTENCES_BEFORE, canary.sentence)
    return str(texts["joint"].join(filled))


def _drawn_words(draw: random.Random, language: str) -> tuple[str, ...]:
    return tuple(draw.choice(_texts(language)["words"]) for _ in range(_NUM_WORDS))


def _drawer(*names: str | int) -> random.Random:
    """A source of draws of its own for each name: a canary more in a plan changes the words of no other."""
    return random.Random(digest_value(["canary", *names]))  # noqa: S311 - not for secrecy


@cache
def _texts(language: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((_FOLDER / f"canaries_{language}.yaml").read_text(encoding="utf-8"))
    return found
