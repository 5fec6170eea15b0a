"""Published sets on bias, read from local files as they were published; and the probes and prompts that ship.

    crows_pairs    crows_pairs_anonymized.csv: sent_more, sent_less, stereo_antistereo, bias_type
    winobias       a folder of {pro,anti}_stereotyped_type{1,2}.txt.{dev,test}: line by line the same sentence, with the
                   pronoun of the one gender or the other
    bbq            one JSON object a line, as Age.jsonl and its like: context, question, ans0 to ans2, label, answer_info,
                   context_condition, question_polarity, additional_metadata.stereotyped_groups

A set is read whole or not at all: what is missing or malformed is an error that names the file and the line.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import yaml

from pipelines.digest import digest_file, digest_value
from pipelines.errors import InputError

if TYPE_CHECKING:
    from llm.evaluation.bias import Pair, Question
    from llm.evaluation.probes import Axis

LANGUAGES = ("en", "zh")
_FOLDER = Path(__file__).parent / "texts"
_PRONOUNS = {
    "female": frozenset(("she", "her", "hers", "herself")),
    "male": frozenset(("he", "him", "his", "himself")),
}
_GENDERS = {"f": "female", "m": "male", "woman": "female", "man": "male", "girl": "female", "boy": "male"}
_NUM_ANSWERS = 3
BBQ_SUFFIX = ".jsonl"

Item = TypeVar("Item", bound="Pair | Question")


@dataclass(frozen=True, kw_only=True, slots=True)
class BiasFile(Generic[Item]):
    """A set as it was read."""

    items: tuple[Item, ...]
    digest: str
    """Of its files."""
    left_out: tuple[str, ...] = ()
    """Places of rows that cannot be compared, with the reason."""


def read_crows_pairs(path: Path) -> "BiasFile[Pair]":
    """The pairs by kind of bias and by direction. Raises InputError."""
    from llm.evaluation.bias import Pair

    wanted = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")
    pairs = []
    for number, row in _csv_rows(path):
        if missing := [name for name in wanted if not (row.get(name) or "").strip()]:
            raise _wrong(path, number, f"a row without {missing[0]}", f"a row with {', '.join(wanted)}")
        if row["stereo_antistereo"] not in ("stereo", "antistereo"):
            raise _wrong(path, number, f"stereo_antistereo {row['stereo_antistereo']!r}", "stereo or antistereo")
        pairs.append(
            Pair(
                id=row.get("") or str(number),
                more=row["sent_more"].strip(),
                less=row["sent_less"].strip(),
                categories=(row["bias_type"], row["stereo_antistereo"]),
            )
        )
    return BiasFile(items=_some(path, pairs), digest=digest_file(path))


def read_winobias(folder: Path) -> "BiasFile[Pair]":
    """The pairs by type, split and the gender that the stereotype expects. Raises InputError.

    Pairs that differ in more than the pronouns (18 of the 1,584 published ones) are left out, and named.
    """
    from llm.evaluation.bias import Pair

    pairs, left_out, digests = [], [], {}
    for kind in ("type1", "type2"):
        for split in ("dev", "test"):
            pro, anti = _sides(folder, kind, split)
            sides = [_lines(path) for path in (pro, anti)]
            digests |= {path.name: digest_file(path) for path in (pro, anti)}
            if len(sides[0]) != len(sides[1]):
                raise InputError(
                    f"got {len(sides[0])} sentences in {pro} and {len(sides[1])} in {anti.name}, wanted as many: get them anew."
                )
            for number, lines in enumerate(zip(*sides, strict=True), 1):
                more, less = (_plain(path, number, line) for path, line in zip((pro, anti), lines, strict=True))
                gender = _swapped(more, less)
                if gender is None:
                    left_out.append(f"{pro.name}, line {number}: the two sentences differ in more than pronouns")
                else:
                    name = f"{kind}/{split}/{number}"
                    pairs.append(Pair(id=name, more=more, less=less, categories=(kind, split, gender)))
    return BiasFile(items=_some(folder, pairs), digest=digest_value(digests), left_out=tuple(left_out))


def winobias_files(folder: Path) -> list[Path]:
    """The files that are read of a folder."""
    return [path for kind in ("type1", "type2") for split in ("dev", "test") for path in _sides(folder, kind, split)]


def _sides(folder: Path, kind: str, split: str) -> list[Path]:
    return [folder / f"{side}_stereotyped_{kind}.txt.{split}" for side in ("pro", "anti")]


def read_bbq(path: Path) -> "BiasFile[Question]":
    """The questions of one file. Raises InputError.

    Whom a stereotype means is told by `stereotyped_groups`; where not exactly one answer's group is among them, the
    question counts for accuracy alone.
    """
    questions, left_out = [], []
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            try:
                question = _question(json.loads(line), number)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                kind = "without " if isinstance(error, KeyError) else ""
                raise _wrong(path, number, f"a row {kind}{error}", "a question in the form of BBQ") from error
            if question.biased is None:
                left_out.append(f"{path.name}, line {number}: no telling which answer a stereotype gives")
            questions.append(question)
    return BiasFile(items=_some(path, questions), digest=digest_file(path), left_out=tuple(left_out))


@cache
def probe_axes(language: str) -> "tuple[Axis, ...]":
    """The axes that ship, in a language."""
    from llm.evaluation.probes import Axis

    axes = yaml.safe_load((_FOLDER / f"probes_{language}.yaml").read_text(encoding="utf-8"))
    return tuple(
        Axis(
            name=name,
            language=language,
            groups=axis["groups"],
            poles={pole: tuple(words) for pole, words in axis["poles"].items()},
            templates=tuple(axis["templates"]),
        )
        for name, axis in axes.items()
    )


@cache
def neutral_prompts(language: str) -> tuple[str, ...]:
    """The prompts that ship, in a language."""
    return _prompts(f"prompts_{language}.txt")


@cache
def contact_prompts(language: str) -> tuple[str, ...]:
    """Beginnings that ship, in a language, after which a text may give contact details."""
    return _prompts(f"contact_{language}.txt")


def _prompts(name: str) -> tuple[str, ...]:
    lines = (_FOLDER / name).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


# Files


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"got {path}, which cannot be read ({error}), wanted UTF-8 text: put it there.") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            for row in rows:
                yield rows.line_num, row
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"got {path}, which cannot be read ({error}), wanted CSV in UTF-8: get it anew.") from error


def _wrong(path: Path, number: int, got: str, wanted: str) -> InputError:
    return InputError(f"{path}, line {number}: got {got}, wanted {wanted}: mend the row, or get the file anew.")


def _some(path: Path, items: list[Item]) -> tuple[Item, ...]:
    if not items:
        raise InputError(f"got {path} without a row, wanted the published set: get it anew.")
    return tuple(items)


# Rows


def _plain(path: Path, number: int, line: str) -> str:
    """A sentence without its number and the brackets of the annotation; an article doubled by those stands once."""
    found = re.fullmatch(r"(\d+)\s+(.*\[[^\]]+\].*)", line.strip())
    if found is None or int(found[1]) != number:
        raise _wrong(path, number, f"{line[:60]!r}", f"{number} and a sentence with [marks]")
    text = re.sub(r"\[\s*([^\]]*?)\s*\]", r"\1", found[2])
    return re.sub(r"\b(the) \1\b", r"\1", text, flags=re.IGNORECASE)


def _swapped(more: str, less: str) -> str | None:
    """The gender of the first sentence's pronouns, where they alone differ and the other's are of the other gender."""
    words = [re.findall(r"[\w']+|[^\w\s]", text.lower()) for text in (more, less)]
    if len(words[0]) != len(words[1]):
        return None
    differing = [(one, other) for one, other in zip(*words, strict=True) if one != other]
    for gender, opposite in (("female", "male"), ("male", "female")):
        if differing and all(one in _PRONOUNS[gender] and other in _PRONOUNS[opposite] for one, other in differing):
            return gender
    return None


def _question(row: Mapping[str, Any], number: int) -> "Question":
    from llm.evaluation.bias import Question

    answers = tuple(row[f"ans{idx}"] for idx in range(_NUM_ANSWERS))
    groups = [row["answer_info"][f"ans{idx}"][1] for idx in range(_NUM_ANSWERS)]
    if not all(isinstance(text, str) and text for text in (*answers, *groups, row["context"], row["question"])):
        raise ValueError("with an empty text")
    label, condition, polarity = row["label"], row["context_condition"], row["question_polarity"]
    if label not in range(_NUM_ANSWERS) or condition not in ("ambig", "disambig") or polarity not in ("neg", "nonneg"):
        raise ValueError(f"with label {label!r}, context_condition {condition!r} and question_polarity {polarity!r}")
    if groups.count("unknown") != 1:
        raise ValueError(f"with {groups.count('unknown')} answers for unknown")
    unknown = groups.index("unknown")
    meant = {_named(group) for group in row["additional_metadata"]["stereotyped_groups"]}
    known = [idx for idx in range(_NUM_ANSWERS) if idx != unknown]
    targets = [idx for idx in known if _named(groups[idx]) in meant]
    biased = None
    if len(targets) == 1:
        # Of a question that asks for something good, the stereotype names the other one.
        biased = targets[0] if polarity == "neg" else next(idx for idx in known if idx != targets[0])
    return Question(
        id=str(row.get("example_id", number)),
        category=str(row["category"]),
        context=row["context"],
        question=row["question"],
        answers=answers,
        label=label,
        unknown=unknown,
        biased=biased,
        is_ambiguous=condition == "ambig",
    )


def _named(group: str) -> str:
    """One name of a group, however a file writes it: `F-Black` is Black, `low SES` lowSES, `woman` F."""
    plain = re.sub(r"[\s_]", "", re.sub(r"^[FM]-", "", group.strip())).lower()
    return _GENDERS.get(plain, plain)
