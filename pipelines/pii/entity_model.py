"""A named-entity model from a local folder: token classification in ONNX, read by onnxruntime, on one core.

The folder is what exporters of such models write: `model.onnx`, `config.json` with `id2label`, and the fast tokenizer's
`tokenizer.json`. Labels are BIO, BILOU, BIOES or BMES (Ramshaw and Marcus, cmp-lg/9505040; Ratinov and Roth 2009), or bare.

A long text goes through in overlapping windows, one at a time and never padded, so that what is found in a document
depends on nothing but its text.
"""

import importlib.util
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.errors import ConfigError
from pipelines.pii.entities import with_echoes
from pipelines.pii.findings import Finding

FILES = ("model.onnx", "config.json", "tokenizer.json")
"""What the folder must hold."""

_MAX_TOKENS = 512
_OVERLAP_RATIO = 0.25
_SEGMENT_NUM_CHARS = 20_000
"""Characters that are tokenized at once: a bound on memory, far above a window."""
_OFFSET_MODELS = frozenset(("roberta", "xlm-roberta", "camembert", "roformer", "longformer"))
"""Whose positions begin after the padding's, so that two fewer are left."""
_STARTS, _SINGLES, _ENDS, _INSIDES = frozenset("B"), frozenset("US"), frozenset("EL"), frozenset("IM")
_MAX_GAP_NUM_CHARS = 3
_EDGES = " \t\n\r\u3000\xa0.,;:!?\"'()[]<>{}，。；：！？、“”‘’（）《》【】"


@dataclass(frozen=True, slots=True)
class _Unit:
    """A word, or a Han character: what gets one label."""

    start: int
    end: int
    label: int
    score: float


def expect_runtime() -> None:
    """Raises ConfigError where the package that runs models is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise ConfigError(
            "pii.entity_model: got no package onnxruntime, wanted it to run the model: pip install 'corpusmill[entities]'."
        )


def labels_of(folder: Path) -> list[str]:
    """The model's labels by their number. Raises ConfigError for a folder that holds no such model."""
    for name in FILES:
        if not (folder / name).is_file():
            raise ConfigError(
                f"pii.entity_model: got {folder} without {name}, wanted a folder with {', '.join(FILES)}: "
                "export a token classification model to ONNX."
            )
    try:
        by_number = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        return [str(by_number[str(number)]) for number in range(len(by_number))]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"pii.entity_model: got {folder / 'config.json'} without numbered labels in id2label ({error!r}), wanted "
            "those of a token classification model: export it anew."
        ) from error


def entity_type(label: str) -> tuple[str, str]:
    """A label's prefix and its type: "B-PER" and "B_PER" are ("B", "PER"), "PER" is ("I", "PER"), "O" is ("O", "")."""
    if label == "O":
        return "O", ""
    head, rest = label[:1], label[2:]
    if len(label) > 2 and label[1] in "-_" and head in _STARTS | _SINGLES | _ENDS | _INSIDES:
        return head, rest
    return "I", label


class EntityModel:
    """A loaded model. Not safe for two threads at once: the tokenizer keeps its window."""

    def __init__(self, folder: Path, kinds: Mapping[str, str], min_score: float) -> None:
        """`kinds` maps types of entities (PER) to kinds of findings (person); others are left alone."""
        expect_runtime()
        import onnxruntime
        from tokenizers import Tokenizer

        self._labels = [entity_type(label) for label in labels_of(folder)]
        self._kinds = kinds
        self._min_score = min_score
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the pool's workers are the parallelism
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # neither library raises anything narrower
            raise ConfigError(
                f"pii.entity_model: got {folder} that cannot be loaded ({error}), wanted an ONNX model and its fast "
                "tokenizer: export it anew."
            ) from error
        self._inputs = {item.name for item in self._session.get_inputs()}
        num_tokens = _max_tokens(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=num_tokens, stride=int(num_tokens * _OVERLAP_RATIO))

    def find(self, text: str) -> list[Finding]:
        """Entities of the wanted types, sorted, disjoint, in code points."""
        found = [
            Finding(kind, base + start, base + end)
            for base, segment in _segments(text)
            for kind, start, end in self._decode(segment, self._label(segment))
        ]
        return with_echoes(text, found)

    def _label(self, text: str) -> list[_Unit]:
        """The units of a text, each labelled in the window in which it has more company."""
        encoding = self._tokenizer.encode(text)
        windows = [self._window(text, each) for each in (encoding, *encoding.overflowing)]
        windows = [units for units in windows if units]
        taken: list[_Unit] = []
        for at, units in enumerate(windows):
            following = windows[at + 1] if at + 1 < len(windows) else []
            first = taken[-1].end if taken else 0
            last = _cut(units, following)
            taken += [unit for unit in units if first <= unit.start < last]
        return taken

    def _window(self, text: str, encoding: Any) -> list[_Unit]:
        columns = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feed = {name: np.array([columns[name]], np.int64) for name in self._inputs}
        (logits, *_) = self._session.run(None, feed)
        probabilities = _softmax(np.asarray(logits[0], np.float64))
        labels, scores = probabilities.argmax(axis=-1).tolist(), probabilities.max(axis=-1).tolist()
        specials, words = encoding.special_tokens_mask, encoding.word_ids  # each is made anew when it is asked for
        units: list[_Unit] = []
        word_before: int | None = None
        for at, (start, end) in enumerate(encoding.offsets):
            if specials[at] or start == end:
                continue
            word = words[at]
            is_more = bool(units) and word is not None and word == word_before
            if is_more and not _is_new(text, start, units[-1].end):
                units[-1] = _Unit(units[-1].start, max(end, units[-1].end), units[-1].label, units[-1].score)
            else:
                units.append(_Unit(start, end, labels[at], scores[at]))
            word_before = word
        return units

    def _decode(self, text: str, units: Sequence[_Unit]) -> Iterator[tuple[str, int, int]]:
        """Kind, start and end of each entity that is sure enough."""
        members: list[_Unit] = []
        kind_before = ""
        for unit in (*units, None):
            prefix, kind = ("O", "") if unit is None else self._labels[unit.label]
            goes_on = bool(
                members
                and unit is not None
                and kind == kind_before
                and prefix not in _STARTS | _SINGLES | {"O"}
                and _is_gap(text[members[-1].end : unit.start])
            )
            if members and not goes_on:
                yield from self._entity(text, members, kind_before)
                members = []
            if unit is not None and prefix != "O":
                members.append(unit)
            kind_before = kind
            if members and prefix in _SINGLES | _ENDS:
                yield from self._entity(text, members, kind)
                members = []

    def _entity(self, text: str, members: Sequence[_Unit], kind: str) -> Iterator[tuple[str, int, int]]:
        if kind not in self._kinds or sum(unit.score for unit in members) / len(members) < self._min_score:
            return
        start, end = members[0].start, members[-1].end
        surface = text[start:end]
        start += len(surface) - len(surface.lstrip(_EDGES))
        end -= len(surface) - len(surface.rstrip(_EDGES))
        if start < end:
            yield self._kinds[kind], start, end


def _max_tokens(config: Mapping[str, Any]) -> int:
    positions = int(config.get("max_position_embeddings") or _MAX_TOKENS)
    return min(_MAX_TOKENS, positions - 2 * (config.get("model_type") in _OFFSET_MODELS))


def _segments(text: str) -> Iterator[tuple[int, str]]:
    """Pieces of a text that end at a line's end, where there is one, with the place where each begins."""
    start = 0
    while start < len(text):
        end = min(start + _SEGMENT_NUM_CHARS, len(text))
        if end < len(text):
            end = max(text.rfind("\n", start + _SEGMENT_NUM_CHARS // 2, end) + 1, 0) or end
        yield start, text[start:end]
        start = end


def _cut(units: Sequence[_Unit], following: Sequence[_Unit]) -> int:
    """The place from which the following window has a unit's better half of context."""
    if not following or following[0].start >= units[-1].end:
        return units[-1].end
    middle = (following[0].start + units[-1].end) // 2
    at = bisect_left(following, middle, key=lambda unit: unit.start)
    return following[at].start if at < len(following) else units[-1].end


def _is_new(text: str, start: int, end: int) -> bool:
    """Does a token of the same word begin a unit of its own? Tokenizers that split at spaces take a Chinese line for a word."""
    return start > end or (start == end and (_is_han(text[start]) or _is_han(text[end - 1])))


def _is_gap(between: str) -> bool:
    return len(between) <= _MAX_GAP_NUM_CHARS and between.count("\n") <= 1


def _is_han(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff" or "\u3040" <= char <= "\u30ff"


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)
