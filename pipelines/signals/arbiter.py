"""The second opinion on a text's language: langdetect, a port of Shuyo's language-detection.

Its 55 profiles take a quarter of a second to read, and as long again to give back. What it makes of them, the
probability of each n-gram in each language, is kept as arrays (kept.py), from which the rows that a text asks for are
read.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
from langdetect.lang_detect_exception import LangDetectException

from pipelines.kept import Array, kept_arrays

_NUM_TRIALS = 1  # as accurate as 3, or langdetect's own default of 7, at half the cost
_SEED = 0


@functools.cache
def arbiter_codes() -> frozenset[str]:
    """ISO 639 codes of the languages that it knows."""
    return frozenset(_without_region(path.name) for path in _profiles())


def arbiter_opinion(sample: str) -> dict[str, float]:
    """The probability of each language of which it is above 0.1; empty where it has no opinion."""
    detector = _arbiter().create()
    detector.n_trial = _NUM_TRIALS
    detector.append(sample)
    opinion: dict[str, float] = {}
    try:
        for guess in detector.get_probabilities():
            code = _without_region(guess.lang)
            opinion[code] = opinion.get(code, 0.0) + guess.prob
    except LangDetectException:  # none of its n-grams occurs
        return {}
    return opinion


@dataclass(frozen=True, slots=True)
class _Probabilities:
    """langdetect's map of n-grams to their probability in each language, as far as it is asked."""

    rows: dict[str, int]
    starts: Array
    languages: Array
    values: Array
    """Those that are not 0: of a row from its start to that of the next, each with the number of its language."""
    num_languages: int

    def __contains__(self, n_gram: str) -> bool:
        return n_gram in self.rows

    def __getitem__(self, n_gram: str) -> list[float]:
        row = self.rows[n_gram]
        start, end = int(self.starts[row]), int(self.starts[row + 1])
        found = [0.0] * self.num_languages
        for language, value in zip(self.languages[start:end].tolist(), self.values[start:end].tolist(), strict=True):
            found[language] = value
        return found


@functools.cache
def _arbiter() -> Any:
    """langdetect's factory of detectors.

    Its module-level one reads the profiles in the order of the folder, which differs between file systems and with it
    the rounding of every sum; it also keeps the seed in a class attribute that any other code may change.
    """
    arrays = kept_arrays("arbiter", _made, modules=("pipelines.signals.arbiter",), libraries=("langdetect",))
    n_grams = arrays["n_grams"].tobytes().decode().split("\n")
    factory = DetectorFactory()
    factory.langlist = arrays["names"].tobytes().decode().split("\n")
    factory.word_lang_prob_map = _Probabilities(
        rows=dict(zip(n_grams, range(len(n_grams)), strict=True)),  # of 300,000: half the time of a comprehension
        starts=arrays["starts"],
        languages=arrays["languages"],
        values=arrays["values"],
        num_languages=len(factory.langlist),
    )
    factory.set_seed(_SEED)
    return factory


def _made() -> Mapping[str, Array]:
    factory = DetectorFactory()
    factory.load_json_profile([path.read_text(encoding="utf-8") for path in _profiles()])
    table = np.array(list(factory.word_lang_prob_map.values()))
    rows, languages = np.nonzero(table)
    return {
        "names": _as_bytes(factory.langlist),
        "n_grams": _as_bytes(factory.word_lang_prob_map),
        "starts": np.searchsorted(rows, np.arange(len(table) + 1)),
        "languages": languages.astype(np.uint8),
        "values": table[rows, languages],
    }


def _as_bytes(texts: Any) -> Array:
    return np.frombuffer("\n".join(texts).encode(), np.uint8)


def _profiles() -> list[Path]:
    """In the order of their names, which are those of their languages."""
    return sorted(path for path in Path(PROFILES_DIRECTORY).iterdir() if not path.name.startswith("."))


def _without_region(name: str) -> str:
    return name.partition("-")[0]  # zh-cn, zh-tw
