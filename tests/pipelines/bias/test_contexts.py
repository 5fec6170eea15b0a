"""What stands around a listed word: abuse, or talk of abuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bias.contexts import CONTEXTS, QUOTE, context_of, without_quotations
from pipelines.signals.keywords import normalise


def told(text: str) -> str | None:
    """The context of the part in square brackets."""
    before, _, rest = text.partition("[")
    hit, _, after = rest.partition("]")
    assert hit
    return context_of(normalise(before), normalise(after))


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ("condemned", 'He was fined for shouting "[idiots]" at the fans.'),
        ("condemned", 'Saying "you are a [moron]" to a colleague is not acceptable here.'),
        ("condemned", "Calling disabled people [retards] is wrong."),
        ("condemned", "It is never okay to call a child [idiot]."),
        ("condemned", "You should never use the insult that he threw at her, [scumbag]."),
        ("condemned", "他骂同事是“[白痴]”，这是歧视。"),
        ("condemned", "不应该把病人叫作[白痴]。"),
        ("condemned", "“你们都是[人渣]”这种说法是错误的。"),
        ("condemned", "判决书写道，房东用「[蠢貨]」来称呼租客。"),
        ("reported", 'The captain shouted "[idiots]!" and left the field.'),
        ("reported", "On Sunday a stranger called my neighbour an [idiot]."),
        ("reported", "小说里的地主骂长工是[畜生]。"),
        ("mentioned", "The word [idiot] comes from the Greek."),
        ("mentioned", "“[白痴]”一词出自佛经。"),
        ("mentioned", "网上常见的脏话有“[脑残]”。"),
        ("self", "I am such an [idiot], I left the oven on."),
        ("self", "We are proud [faggots] and this is our choir."),
        ("self", "我真是个[白痴]，又忘带钥匙了。"),
        ("negated", "Our neighbours are not [idiots]."),
        ("negated", "No refugee is an [imbecile]."),
        ("negated", "他们不是[畜生]，他们是人。"),
        ("learned", "Under the statute of 1913 patients were classified as feeble-minded or as [imbeciles]."),
        ("learned", "心理学的历史上，智商低于二十五的患者被归为[白痴]。"),
    ],
)
def test_talk_of_abuse_is_told_from_abuse(context: str, text: str) -> None:
    assert told(text) == context


@pytest.mark.parametrize(
    "text",
    [
        "You are an [idiot].",
        "These people are [idiots], all of them.",
        "Refugees are [scumbags] and should be sent back.",
        "They are not only lazy, they are [idiots].",
        "We are sick of you [idiots].",
        "I call you an [idiot] because you are one.",
        "Shut up, [moron]. I never said that.",
        "Are they not all [morons]?! Of course they are.",
        "你就是个[白痴]。",
        "这些人都是[畜生]。",
        "他们不是[畜生]吗",
        "你不是人，你是[畜生]。",
        "[去死吧]你们。",
        "一群[脑残]，滚回去。",
        "不仅是[蠢货]，还很坏。",
    ],
)
def test_abuse_stays_abuse(text: str) -> None:
    assert told(text) is None


def test_the_next_sentence_may_condemn_but_not_the_next_paragraph() -> None:
    assert told('They wrote "all of you are [idiots]" on the wall. That is racist.') == "condemned"
    assert told("They are [idiots].\nShe was shocked when people said such things.") is None


def test_only_what_somebody_is_said_to_say_is_taken_out() -> None:
    assert without_quotations('he said "go home" to us') == f"he said  {QUOTE}  to us"
    assert without_quotations("“滚回去”这种说法是错误的") == f" {QUOTE} 这种说法是错误的"
    assert without_quotations('the so-called "refugees" are liars') == 'the so-called "refugees" are liars'


@given(st.text(max_size=700), st.text(max_size=700))
def test_anything_may_stand_around_a_hit(before: str, after: str) -> None:
    assert context_of(before, after) in (None, *CONTEXTS)


def test_hostile_surroundings_take_no_time() -> None:
    for piece in ('"', "call ", "not a ", "不是", "“", "i am so ", "is not the "):
        context_of(piece * 100_000, piece * 100_000)
        without_quotations(normalise(piece * 2000))
