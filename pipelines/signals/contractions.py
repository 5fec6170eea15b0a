"""Character sequences that spaCy's English tokenizer takes as they are: contractions, abbreviations, faces.

Facts about spaCy 3.8 (https://spacy.io/usage/linguistic-features#special-cases), written down as what they are made of:
1,343 sequences, most of them a pronoun, question word or verb and its short endings, with and without an apostrophe.
"""

from collections.abc import Iterator, Mapping

Lengths = tuple[int, ...]

_PRONOUN = ("'ll", "'ll've", "'d", "'d've")
_QUESTION = (*_PRONOUN, "'s", "'re", "'ve")
_NEGATED = ("n't", "n't've")
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "i": (*_PRONOUN, "'m", "'ma", "'ve"),
    **dict.fromkeys(("you", "we", "they"), (*_PRONOUN, "'ve", "'re")),
    **dict.fromkeys(("he", "she", "it"), (*_PRONOUN, "'s")),
    **dict.fromkeys(("who", "what", "when", "where", "why", "how", "there"), _QUESTION),
    **dict.fromkeys(("that", "this"), (*_PRONOUN, "'s")),
    **dict.fromkeys(("these", "those"), (*_PRONOUN, "'re", "'ve")),
    **dict.fromkeys(("ca", "do", "does", "did", "had", "may", "need", "ought", "sha", "wo"), _NEGATED),
    **dict.fromkeys(("could", "might", "must", "should", "would"), (*_NEGATED, "'ve")),
    **dict.fromkeys(("ai", "are", "is", "was", "were", "have", "has", "dare"), ("n't",)),
    "not": ("'ve",),
}
_PARTS_OF = {"'ll've": (3, 3), "'d've": (2, 3), "n't've": (3, 3), "'ma": (2, 1)}  # the rest is one
_WORDS_THEMSELVES = frozenset(["ill", "its", "hell", "shell", "shed", "were", "well", "whore"])
_SPLIT = (
    ("y'", "all"), ("y", "all"), ("how", "'d", "'y"), ("can", "not"), ("gon", "na"), ("got", "ta"), ("let", "'s"),
    ("c'm", "on"),
)  # fmt: skip
_SPLIT_IN_LOWER_CASE = frozenset(("y'all", "yall"))
_WHOLE_IN_BOTH_CASES = (
    "doin goin nothin nuthin ol somethin doin' goin' nothin' nuthin' ol' somethin' lovin lovin' havin havin' ma'am "
    "o'clock"
)
_WHOLE = (
    "em 'em ll 'll nuff 'nuff 'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout 'd ' '' "
    "Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. "
    "Kan. Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. "
    "Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. "
    "i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. "
    'C++ \\") <space> \\t \\n — ä. ö. ü.'
)
_FACES = (
    r":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( "
    r":-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 "
    r":() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< "
    r"._. ;_; -_- -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 "
    r"(^_^) (-_-) (._.) (>_<) (*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>"
)


def special_cases() -> dict[str, Lengths]:
    """Each sequence and the characters of each of its tokens, in the order of the alphabet."""
    cases = dict(_contractions())
    for word in _WHOLE_IN_BOTH_CASES.split():
        cases |= {word: (len(word),), word[0].upper() + word[1:]: (len(word),)}
    cases |= {word: (len(word),) for word in (*_WHOLE.split(), *_FACES.split(), *(f"{a}." for a in _ALPHABET))}
    for hour in range(1, 13):
        cases |= {f"{hour}{half}": (len(str(hour)), len(half)) for half in ("a.m.", "am", "p.m.", "pm")}
    cases |= {f"°{unit}.": (1, 1, 1) for unit in "cfkCFK"}
    typeset = {case.replace("'", "’"): lengths for case, lengths in cases.items()}
    return dict(sorted((cases | typeset).items()))


_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def _contractions() -> Iterator[tuple[str, Lengths]]:
    for word, endings in _ENDINGS.items():
        for ending in endings:
            parts = _PARTS_OF.get(ending, (len(ending),))
            bare = tuple(part - ending[at : at + part].count("'") for at, part in _places(parts))
            if ending.startswith("n't"):
                bare = (2, *bare[1:])
            for stem in (word, word.title()):
                yield stem + ending, (len(word), *parts)
                short = stem + ending.replace("'", "")
                if short.lower() not in _WORDS_THEMSELVES:
                    yield short, (len(word), *bare)
    for split in _SPLIT:
        whole, lengths = "".join(split), tuple(map(len, split))
        yield whole, lengths
        if whole not in _SPLIT_IN_LOWER_CASE:
            yield whole[0].upper() + whole[1:], lengths


def _places(parts: Lengths) -> Iterator[tuple[int, int]]:
    at = 0
    for part in parts:
        yield at, part
        at += part
