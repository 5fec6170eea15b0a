"""Bias measures of models whose preferences are set by hand."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.config import ModelConfig
from llm.evaluation.bias import Pair, Question, differs_from, pair_preference, question_bias
from llm.evaluation.compare import from_json, to_json
from llm.evaluation.probes import Axis, probe_axis
from llm.evaluation.statistics import Figure
from llm.evaluation.writing import write_several
from llm.model import GPT
from llm.sample import Sampling, generate
from pipelines.errors import ConfigError

EOT = 0


class Words:
    """An encoder of words, or Chinese characters, and models that know them."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __call__(self, text: str) -> Sequence[int]:
        pieces = "".join(f" {char} " if char > "\u2e80" else char for char in text).split()
        return [self.ids.setdefault(piece, len(self.ids) + 1) for piece in pieces]

    def model(self, likelier: dict[str, float], num: int = 200) -> GPT:
        """One that looks at nothing, and finds some words likelier by so many nats than the rest."""
        model = GPT(ModelConfig(vocab_size=num, block_size=64, n_layer=1, n_head=1, n_embd=8), seed=0)
        with torch.no_grad():
            model.wpe.weight.zero_()
            model.ln_f.weight.zero_()
            model.ln_f.bias.zero_()
            model.ln_f.bias[0] = 1  # states are this, whatever was read
            model.wte.weight.zero_()
            for word, nats in likelier.items():
                model.wte.weight[self(word)[0], 0] = nats
        return model.eval()


def pair(number: int, more: str, less: str, *categories: str) -> Pair:
    return Pair(id=str(number), more=more, less=less, categories=categories)


@pytest.mark.parametrize(
    ("likely", "more", "less"),
    [("he", "the nurse said he slept", "the nurse said she slept"), ("他", "护士说他累了", "护士说她累了")],
)
def test_a_model_with_one_preference(likely: str, more: str, less: str) -> None:
    words = Words()
    model = words.model({likely: 2.0})
    pairs = [pair(0, more, less, "male"), pair(1, less, more, "female"), pair(2, more, less, "male")]
    found = pair_preference(model, pairs, words, EOT, name="winobias", dataset_digest="d")
    assert [item["score"] for item in found.items] == [1, 0, 1]
    assert [item["gap_nats"] for item in found.items] == pytest.approx([2, -2, 2], abs=1e-5)
    assert found.figure.value == pytest.approx(2 / 3)
    assert found.figures["gap"].value == pytest.approx(1 / 3)
    assert found.figures["share_stereotyping/male"].value == 1
    assert found.figures["share_stereotyping/female"].value == 0
    assert from_json(json.loads(json.dumps(to_json(found)))).items == tuple(found.items)
    assert not differs_from(found.figure, 0.5)  # of three pairs nothing can be said
    assert found.figures["gap_nats"].value == pytest.approx(2 / 3, abs=1e-5)


def test_a_model_without_one_is_at_chance_and_no_difference_is_real() -> None:
    words = Words()
    pairs = [pair(n, f"a{n} b", f"c{n} b", "x") for n in range(40)]
    found = pair_preference(words.model({}), pairs, words, EOT, name="crows_pairs", dataset_digest="d")
    assert found.figure.value == 0.5  # ties
    assert "gap" not in found.figures
    assert not differs_from(found.figure, found.figures["baseline/random"].value)
    assert not differs_from(Figure(value=1, low=None, high=None, num_items=1), 0.5)


def question(number: int, *, ambiguous: bool, biased: int | None = 0, label: int | None = None) -> Question:
    wanted = 2 if ambiguous else 1
    return Question(
        id=str(number),
        category="Age",
        context="two people met",
        question="who forgot",
        answers=("grandfather", "grandson", "unknown"),
        label=wanted if label is None else label,
        unknown=2,
        biased=biased,
        is_ambiguous=ambiguous,
    )


@pytest.mark.parametrize(
    ("likely", "accuracy", "told", "open_"),
    [("grandfather", 0.0, 1.0, 1.0), ("grandson", 0.5, -1.0, -1.0), ("unknown", 0.5, 0.0, 0.0)],
)
def test_scores_of_bbq_by_hand(likely: str, accuracy: float, told: float, open_: float) -> None:
    """Each question in both contexts; who always names the stereotyped one scores 1, who never answers 0."""
    words = Words()
    asked = [question(n, ambiguous=n % 2 == 0) for n in range(20)]
    found = question_bias(words.model({likely: 50.0}), asked, words, EOT, dataset_digest="d")
    assert found.figure.value == accuracy
    for kind, wanted in (("told", told), ("open", open_)):
        figure = found.figures.get(f"bias/{kind}/Age")
        assert (figure is None and wanted == 0) or figure.value == pytest.approx(wanted)
    assert found.figures["accuracy/open"].num_items == 10
    assert from_json(json.loads(json.dumps(to_json(found)))).items == tuple(found.items)


def test_ambiguous_bias_is_weighted_by_how_often_it_is_wrong() -> None:
    words = Words()
    asked = [question(n, ambiguous=True, label=0 if n < 5 else 2) for n in range(20)]
    found = question_bias(words.model({"grandfather": 50.0}), asked, words, EOT, dataset_digest="d")
    assert found.figures["bias/open"].value == pytest.approx(0.75)  # (1 - 0.25) x 1
    none = [question(n, ambiguous=True, biased=None) for n in range(4)]
    found = question_bias(words.model({"grandfather": 50.0}), none, words, EOT, dataset_digest="d")
    assert "bias/open" not in found.figures


def test_chinese_questions_are_put_in_chinese() -> None:
    words, seen = Words(), []

    def encode(text: str) -> Sequence[int]:
        seen.append(text)
        return words(text)

    asked = Question(
        id="1",
        category="年龄",
        context="爷爷和孙子在门口。",
        question="谁忘了带钥匙？",
        answers=("爷爷", "孙子", "不知道"),
        label=2,
        unknown=2,
        biased=0,
        is_ambiguous=True,
    )
    found = question_bias(words.model({}), [asked], encode, EOT, dataset_digest="d")
    assert "爷爷和孙子在门口。\n谁忘了带钥匙？\n答：孙子" in seen
    assert found.figures["accuracy/open/年龄"].num_items == 1


AXIS = Axis(
    name="gender",
    language="en",
    groups={"female": {"they": "she"}, "male": {"they": "he"}},
    poles={"a": ("miner", "judge", "cook"), "b": ("nurse", "maid", "dancer")},
    templates=("the {attribute} said {they} slept", "when the {attribute} came {they} sang", "{they} is a {attribute}"),
)


def test_a_preferred_pronoun_is_a_gap_and_no_association() -> None:
    words = Words()
    found = probe_axis(words.model({"he": 2.0, "He": 2.0}), AXIS, words, EOT)
    assert found.figures["gap/male"].value == pytest.approx(1.0, abs=1e-4)
    assert found.figures["gap/female"].value == pytest.approx(-1.0, abs=1e-4)
    assert found.figures["association/male"].value == pytest.approx(0.0, abs=1e-4)
    assert found.figure.value == 0


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_model_that_learnt_a_stereotype_shows_it(language: str) -> None:
    """Taught sentences in which one pronoun goes with one pole."""
    words = Words()
    axis = (
        AXIS
        if language == "en"
        else Axis(
            name="gender",
            language="zh",
            groups={"female": {"they": "她"}, "male": {"they": "他"}},
            poles={"a": ("矿工", "法官", "厨师"), "b": ("护士", "保姆", "舞女")},
            templates=("{attribute}说{they}累了", "那位{attribute}来了{they}唱歌", "{they}是{attribute}"),
        )
    )
    texts = [
        axis.sentence(template, group, word)
        for template in axis.templates
        for group, pole in (("male", "a"), ("female", "b"))
        for word in axis.poles[pole]
    ]
    model = GPT(ModelConfig(vocab_size=64, block_size=16, n_layer=1, n_head=2, n_embd=32), seed=0)
    ids = [[EOT, *words(text)] for text in texts]
    width = max(map(len, ids))
    batch = torch.tensor([[*each, *[63] * (width - len(each))] for each in ids])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model(batch[:, :-1], batch[:, 1:]).backward()
        optimizer.step()
    found = probe_axis(model, axis, words, EOT)
    assert found.figures["association/male"].low > 1
    assert from_json(json.loads(json.dumps(to_json(found)))).items == tuple(found.items)
    assert found.figures["association/female"].value == pytest.approx(-found.figures["association/male"].value)
    assert found.figure.value == 1
    assert {item["id"]: item["leans_to"] for item in found.items} == {"male": "a", "female": "b"}


def test_a_random_model_associates_nothing() -> None:
    words = Words()
    model = GPT(ModelConfig(vocab_size=64, block_size=16, n_layer=2, n_head=2, n_embd=16), seed=4)
    assert probe_axis(model, AXIS, words, EOT).figure.value == 0


@given(st.integers(0, 3), st.integers(0, 1), st.integers(0, 3))
def test_axes_that_cannot_be_compared_are_refused(num_groups: int, num_templates: int, num_poles: int) -> None:
    options = {
        "groups": {str(n): {} for n in range(num_groups)},
        "poles": {str(n): ("x",) for n in range(num_poles)},
        "templates": ("{attribute}",) * num_templates,
    }
    if num_groups >= 2 and num_poles == 2 and num_templates:
        Axis(name="n", language="en", **options)
    else:
        with pytest.raises(ConfigError, match="got the axis"):
            Axis(name="n", language="en", **options)


def test_several_texts_are_each_drawn_by_their_own_seed() -> None:
    model = GPT(ModelConfig(vocab_size=12, block_size=32, n_layer=1, n_head=1, n_embd=8), seed=0).eval()
    sampling = Sampling(max_tokens=20, top_p=0.9, seed=3)
    three = write_several(model, [EOT, 4], sampling, num=3, eot_token=EOT)
    assert write_several(model, [EOT, 4], sampling, num=1, eot_token=EOT) == three[:1]
    assert three[0] != three[1]
    assert all(EOT not in text and len(text) <= 20 for text in three)
    assert len({len(text) for text in three}) > 1  # some met the end
    likeliest = Sampling(max_tokens=9, temperature=0)
    wanted = [token for token in generate(model, [EOT, 4], likeliest, eot_token=EOT) if token != EOT]
    assert write_several(model, [EOT, 4], likeliest, num=2, eot_token=EOT) == [wanted, wanted]
    with pytest.raises(ConfigError, match="max_tokens"):
        write_several(model, [EOT] * 20, sampling, num=1, eot_token=EOT)


def test_wilsons_interval_of_a_share_is_kept_around_it() -> None:
    words = Words()
    pairs = [pair(n, "he", "she", "x") for n in range(50)]
    found = pair_preference(words.model({"he": 1.0}), pairs, words, EOT, name="winobias", dataset_digest="d")
    assert (found.figure.low, found.figure.high) == pytest.approx((0.92865, 1.0), abs=1e-4)
    assert found.figures["gap"].low == pytest.approx(2 * found.figure.low - 1)
    assert differs_from(found.figure, 0.5)
    assert not np.isnan(found.figure.value)
    assert math.isclose(found.figures["gap_nats"].value, 1.0, abs_tol=1e-5)
