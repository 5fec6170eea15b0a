"""What given fastText classifiers say of a text: any supervised model, `.bin` or `.ftz` (arXiv:1607.01759), such as
DCLM's (arXiv:2406.11794).

The text is one line to fastText, with spaces for its line breaks, and nothing else is changed: that is how DCLM's was
trained. A model that wants lower case or cut words must be given text like that.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import fasttext

from pipelines.errors import ConfigError, IntegrityError
from pipelines.stage import Resource

MAX_NUM_CHARS = 1 << 20
"""Of a document, from its start; as far as its words are measured."""

_ALL_LABELS = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Classifier:
    """A classifier given as a file."""

    name: str
    """What its score goes by."""
    file: Resource
    """The model, checked by `fasttext_file.labels_of`: the library crashes on a damaged one."""
    label: str
    """The label whose probability is the score, as the file spells it: `__label__hq`."""
    languages: tuple[str, ...] | None = None
    """ISO 639 codes of the languages that it is asked about; None: all."""

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(f"got a classifier named {self.name!r}, wanted letters, digits, '-' and '_': correct it.")


Scorer = Callable[[str, str | None], list[dict[str, Any]]]


def classifier_scorer(classifiers: Sequence[Classifier]) -> Scorer:
    """A function from a text and its language to [{name, score}], in the order of the classifiers.

    The score is the probability of the classifier's label, 0 to 1. No entry where the language is not the classifier's, or
    where none of the text's words is known to it. Raises IntegrityError for a file that has become unreadable.
    """
    models = [(each, _load(each.file)) for each in classifiers]

    def scores(text: str, language: str | None) -> list[dict[str, Any]]:
        line = ""
        found = []
        for classifier, model in models:
            if classifier.languages is not None and language not in classifier.languages:
                continue
            line = line or f"{' '.join(text[:MAX_NUM_CHARS].splitlines())}\n"
            predictions = model.predict(line, _ALL_LABELS, 0.0, "strict") if line.strip() else []
            if predictions:  # none: no word is known
                # fastText names no label of less than 0.00001
                score = next((probability for probability, label in predictions if label == classifier.label), 0.0)
                found.append({"name": classifier.name, "score": min(score, 1.0)})
        return found

    return scores


@functools.lru_cache(maxsize=8)
def _load(file: Resource) -> Any:
    """The bound extension of a model: the Python wrapper copies a text twice."""
    try:
        return fasttext.load_model(file.path).f
    except (ValueError, RuntimeError, MemoryError) as error:
        raise IntegrityError(
            f"got a fastText model that cannot be loaded ({error}: {file.path}), wanted a supervised one: fetch it again."
        ) from error
