"""What stands around a word of the abuse list: is somebody abused, or is abuse spoken of?

Counter-speech, news, law, health and self-reference hold the words that abuse holds; lists and classifiers remove them
with it (HateCheck's functions 14, 15, 20 and 21, Röttger et al. 2021, arXiv:2012.15606; Dodge et al. 2021,
arXiv:2104.08758). A rule here wants a sign that the word is not the writer's own charge (quotation marks, a verb of
saying and a word of blame, a denial), and that nobody is addressed with it. English and Chinese side by side; words in
lexicons/cues_*.txt, patterns below, all our own.

Works on normalised text (`signals.keywords.normalise`): lower case, simplified characters, half-width punctuation.

Must not: drop a hit. A hit in a context is counted apart, under the context's name.
"""

import re
from functools import cache

from pipelines.bias.wordlists import LANGUAGES, is_han, word_sets

QUOTE = "\ue001"
"""Stands for what somebody is said to have said, in a text that is given to the classifier."""

CONTEXTS = ("mentioned", "condemned", "reported", "self", "negated", "learned")
"""mentioned: spoken of as a word. condemned: called wrong. reported: said by somebody else. self: of the writer.
negated: denied. learned: in a sentence on medicine, law, language or the past."""

CUES = ("says", "condemns", "denies", "others")
"""Sets of words that are signs for the classifier too."""

_MAX_SENTENCE_CHARS = 200
_NEAR_CHARS = 24
"""Before a hit: where a word that addresses somebody makes it an attack."""
_MIN_NUM_LEARNED = 2

_ADDRESSING = re.compile(r"\b(?:you|your|you're|youre|yourself|ya|u|ur)\b|你|您")
_SELF_SUBJECT = re.compile(r"\b(?:i|i'm|im|me|my|myself|we|us|our|ourselves)\b|我|俺|咱")
_SENTENCE_END = re.compile(r"[.!?;。\n]+")
_QUOTATIONS = re.compile(r"\"[^\"\n]{1,300}\"|“[^“”\n]{1,300}”|「[^「」\n]{1,300}」|『[^『』\n]{1,300}』")
_CLOSING = {"“": "”", "「": "」", "『": "』", "‘": "’"}
_WORD_BEFORE = re.compile(
    r"\b(?:words?|terms?|slurs?|insults?|epithets?|expressions?|labels?|nicknames?)(?: (?:like|such as|as|is|was))? [\"'“‘]?$"
    r"|(?:词|词语|字眼|脏话|称呼|绰号|外号|标签)(?:是|如|像|比如|例如|有)?[\"“‘「]?$"
)
_WORD_AFTER = re.compile(
    r"^[\"'”’]? (?:is|was|as) (?:an? )?(?:\w+ )?(?:word|term|slur|insult|epithet|expression)\b"
    r"|^[\"”’」]?(?:这个|这种|这样的|这类|一|二|两个|等)(?:词|字|字眼|称呼|说法|标签|话|词语|脏话)"
)
_SELF_BEFORE = re.compile(
    r"\b(?:i am|i'm|im|i was|we are|we're|i feel like|i felt like|i look like|as|call myself|call ourselves|called myself)"
    r"(?: (?:an?|the|such|so|just|really|also|proud|fellow|total|complete|big|little|old|being))* $"
    r"|(?:我|我们|俺|咱)(?:真|就|也|都|曾经|以前|当时|只|可|太|简直)*(?:是|像|当|成了)(?:个|一个|了|一群|什么)*$"
)
_SELF_AFTER = re.compile(r"^(?:s|es)? (?:like me|like us|myself|and (?:i'm |i am )?proud)\b|^像我")
_NEGATED = re.compile(
    r"(?:\b(?:is|are|was|were|am|be|being|been)(?: not|n't)|\bi'm not|\b(?:he|she|it)'s not|\b(?:they|we|you)'re not|\bno|\bnot all|\bnever)"
    r"(?: (?:an?|all|any|some|the|such|really|being))?(?: [\w'-]+){0,3} $"
    r"|(?:不是|并非|绝非|算不上|不算|从来不是)[^,。!?不]{0,4}$"
)
_NOT_NEGATED = re.compile(
    r"\bnot (?:only|just|even|merely)\b|^(?:is|are|was|were|isn't|aren't|do|don't)\b|\bwhy (?:not|are|is)\b|不仅|不只|不但|何止|不是[^,。]{0,8}[吗嘛么]|就是"
)
_CALLED = re.compile(
    r"\b(?:call(?:s|ed|ing)?|label(?:s|l?ed|l?ing)?|brand(?:s|ed|ing)?|describ(?:es|ed|ing)|refer(?:s|red|ring) to|"
    r"insult(?:s|ed|ing)|shout(?:s|ed|ing)?|yell(?:s|ed|ing)?|treated)(?: (?!of\b)[\w'’-]+){0,5} $"
    r"|(?:称|骂|叫|喊|称呼|辱骂|当成|当作|看成|视为)[^,。!?你]{0,10}$"
)
_CALLED_BY_SELF = re.compile(
    r"\b(?:i|we|i'd|i'll|let's|let us)(?: [\w'’]+){0,3} (?:call|label|brand|describe|shout|yell)|(?:我|俺|咱)[^,。!?]{0,4}[称骂叫喊]"
)


def context_of(before: str, after: str) -> str | None:
    """The context of a hit between two stretches of normalised text, one of CONTEXTS; None where it attacks, or may.

    Looks at the sentence of the hit and at the next one, 200 characters of each at most.
    """
    head, tail, following = _sentence(before, after)
    around = f"{head} {QUOTE} {tail} {following}"
    near = head[-_NEAR_CHARS:]
    is_addressed = _ADDRESSING.search(near) is not None
    is_blamed = _cue("condemns").search(around) is not None
    is_quoted = _in_quotation(before, after)
    if is_quoted and is_blamed:
        return "condemned"
    if (_WORD_BEFORE.search(head) or _WORD_AFTER.search(tail)) and not _ADDRESSING.search(tail):
        return "mentioned"
    if is_quoted and _cue("says").search(around):
        return "reported"
    if is_blamed and not is_addressed and _cue("says").search(head):
        return "condemned"
    if _SELF_AFTER.search(tail) or (_SELF_BEFORE.search(head) and _SELF_SUBJECT.search(head) and not is_addressed):
        return "self"
    if _NEGATED.search(head) and not _NOT_NEGATED.search(head + tail[:12]):
        return "negated"
    if _CALLED.search(head) and not _ADDRESSING.search(head[-40:]) and not _CALLED_BY_SELF.search(head):
        return "reported"
    if len({match[0] for match in _cue("learned").finditer(around)}) >= _MIN_NUM_LEARNED:
        return None if _ADDRESSING.search(around) else "learned"
    return None


def without_quotations(text: str) -> str:
    """A text with QUOTE for what it quotes, where it says so or blames it; else as it is."""
    if not _QUOTATIONS.search(text):
        return text
    rest = _QUOTATIONS.sub(f" {QUOTE} ", text)
    return rest if _cue("says").search(rest) or _cue("condemns").search(rest) else text


@cache
def _cue(name: str) -> re.Pattern[str]:
    words = [word for language in LANGUAGES for word in word_sets("cues", language)[name]]
    latin = "|".join(re.escape(word) for word in words if not is_han(word))
    return re.compile(rf"(?<![\w-])(?:{latin})\b|{'|'.join(word for word in words if is_han(word))}")


def _sentence(before: str, after: str) -> tuple[str, str, str]:
    """Of the hit's own sentence the part before it and the part after it, and the next sentence."""
    first = max(0, len(before) - _MAX_SENTENCE_CHARS)
    ends = [match.end() for match in _SENTENCE_END.finditer(before, first)]
    head = before[ends[-1] if ends else first :].lstrip()
    end = _SENTENCE_END.search(after, 0, _MAX_SENTENCE_CHARS)
    if end is None or "\n" in end[0]:
        return head, after[: end.start() if end else _MAX_SENTENCE_CHARS], ""
    last = _SENTENCE_END.search(after, end.end(), end.end() + _MAX_SENTENCE_CHARS)
    return head, after[: end.start()], after[end.end() : last.start() if last else end.end() + _MAX_SENTENCE_CHARS]


def _in_quotation(before: str, after: str) -> bool:
    line, rest = before[-300:].rpartition("\n")[2], after[:300].partition("\n")[0]
    if line.count('"') % 2 and '"' in rest:
        return True
    return any(line.rfind(opening) > line.rfind(closing) and closing in rest for opening, closing in _CLOSING.items())
