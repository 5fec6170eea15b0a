"""Words: spaCy's tokens where words have spaces between them, characters where they have not."""

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.signals.bits import HAS_GAP, HAS_LETTER, IS_MARK
from pipelines.signals.characters import UNSPACED_RANGES, class_table
from pipelines.signals.contractions import special_cases
from pipelines.signals.words import MAX_NUM_CHARS, Scratch, hash_words, split_words


def words_of(text: str, *, unspaced: bool | None = None) -> list[str]:
    words = split_words(text, unspaced=unspaced)
    return [text[start:end] for start, end in zip(words.starts.tolist(), words.ends.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world.", "Hello , world ."),
        ("Don't stop... believing!", "Do n't stop ... believing !"),
        ('She said "yes."', 'She said " yes . "'),
        ("It's the dog's bone, isn't it?", "It 's the dog 's bone , is n't it ?"),
        ("I'll've gone; you'd've known.", "I 'll 've gone ; you 'd 've known ."),
        ("We cannot, we're gonna.", "We can not , we 're gon na ."),
        ("dont cant wont its well Ill", "do nt ca nt wo nt its well Ill"),
        ("I’m sure they’re John’s.", "I ’m sure they ’re John ’s ."),
        ("rock'n'roll o'clock ma'am y'all", "rock'n'roll o'clock ma'am y' all"),
        ("U.S. and U.S.A., N.Y.", "U.S. and U.S.A. , N.Y."),
        ("e.g. this, i.e. that, etc.", "e.g. this , i.e. that , etc ."),
        ("Mr. Smith vs. Dr. No.", "Mr. Smith vs. Dr. No ."),
        ("at 5p.m. or 10am.", "at 5 p.m. or 10 am ."),
        ("a.m. (p.m.)", "a.m. ( p.m. )"),
        ("Ph.D. student, Jr.", "Ph.D. student , Jr."),
        ("He is 6ft, 80kg, 5km² away.", "He is 6 ft , 80 kg , 5 km² away ."),
        ("$5.00 US$30 €7, 10% off", "$ 5.00 US$ 30 € 7 , 10 % off"),
        ("3.14 1,000 1-2 2+2 5*3 10^6 10^-6", "3.14 1,000 1 - 2 2 + 2 5 * 3 10 ^ 6 10 ^ -6"),
        ("x-ray well-known -- dash---dash a—b c–d", "x - ray well - known -- dash --- dash a — b c – d"),
        ("and/or either/or w/o him/her", "and/or either / or w/o him / her"),
        ("foo=bar a<b key:value x>y", "foo = bar a < b key : value x > y"),
        ("foo.bar foo.Bar end.Start Foo.Bar", "foo.bar foo . Bar end . Start Foo . Bar"),
        ("a,b 1,2 Paris,France", "a , b 1,2 Paris , France"),
        ("http://example.com/a?b=c#d.", "http://example.com/a?b=c#d ."),
        ("(see www.example.org/path)", "( see www.example.org/path )"),
        ("user@example.com, mailto:me@x.org", "user@example.com , mailto:me@x.org"),
        ("ftp://host.example.net:8080/x ex.co", "ftp://host.example.net:8080/x ex.co"),
        ("192.168.1.1/a 8.8.8.8/a 8.8.8.8:53", "192.168.1.1 / a 8.8.8.8/a 8.8.8.8:53"),
        ("file.txt main.py README.md", "file.txt main.py README.md"),
        ("C++ C# F# .NET", "C++ C # F # .NET"),
        ("don't\" 'quoted' `code`", "do n't \" ' quoted ' ` code `"),
        ("(a) [b] {c} <d>", "( a ) [ b ] { c } < d >"),
        ("f(x, y): return g(z)[0];", "f(x , y ): return g(z)[0 ] ;"),
        ("int main(void) { return 0; }", "int main(void ) { return 0 ; }"),
        ("--option=value -x +1 +x 5+", "--option = value -x +1 + x 5 +"),
        ("#hashtag @name &amp;", "# hashtag @name & amp ;"),
        (":) :-( ;) <3 ^_^ (o: 8) XD", ":) :-( ;) <3 ^_^ (o: 8) XD"),
        ("see section 8). foo:)", "see section 8) . foo :)"),
        ("foobar", "foobar"),
        ("¿Qué? ¡Sí! «bon» „gut“", "¿ Qué ? ¡ Sí ! « bon » „ gut “"),
        ("20°C. 5 °F. 30°", "20 ° C . 5 ° F . 30 °"),
        ("😀hi ok👍 ©2024 a™b", "😀 hi ok 👍 © 2024 a ™ b"),
        ("½ cup x² H₂O", "½ cup x² H₂O"),
        ("snake_case __init__ _x_", "snake_case _ _ init _ _ _ x _"),
        ("C:\\path\\to /usr/bin/env ~/x", "C:\\path\\to /usr / bin / env ~/x"),
        ("a...b wait..go …so…on", "a ... b wait .. go … so … on"),
        ("'tis 'em 'cause ’cause", "' tis 'em 'cause ’cause"),
        ("A. B.C. AB. aB. 1.", "A. B.C. AB . aB. 1 ."),
        ('(U.S.) "U.S." U.S..', '( U.S. ) " U.S. " U.S ..'),
        ("he's he’s He'sn't", "he 's he ’s He'sn't"),
        ("what's whats who'd've", "what 's what s who 'd 've"),
        ("2024-01-02T03:04:05Z", "2024 - 01 - 02T03:04:05Z"),
        ("1st 2nd 3.5GB 16MB/s", "1st 2nd 3.5 GB 16MB / s"),
        ("TCP/IP I/O 24/7", "TCP / IP I / O 24/7"),
        ("naïve café Ünïcode слово,слово", "naïve café Ünïcode слово , слово"),
        ("中文，词。 abc中文def", "中文，词 。 abc中文def"),
        ("x=3 x=y x==y a!=b a->b", "x=3 x = y x==y a!=b a->b"),
        ('"Hello," he said; "go!"', '" Hello , " he said ; " go ! "'),
        ("don't-care re-do's", "don't - care re - do 's"),
        ("'S 's ‘s", "'S 's ‘s"),
        ('<br/> </div> <a href="x">', '< br/ > < /div > < a href="x " >'),
        ('\\n \\t \\")', '\\n \\t \\")'),
        ("50-year-old 5-x x-5", "50 - year - old 5 - x x-5"),
        ("1990s '90s 90's", "1990s ' 90s 90 's"),
        ("§5 %d =a —b", "§ 5 % d = a — b"),
        ("O'Brien D'Artagnan l'eau", "O'Brien D'Artagnan l'eau"),
        ("a.b. x.y.z a.B.", "a.b . x.y.z a. B."),
        ("end.) end.” end?!", "end . ) end . ” end ? !"),
        ("No.5 p.12 vs.x", "No.5 p.12 vs.x"),
        ("*bold* _it_ **b**", "* bold * _ it _ * * b * *"),
        ("a|b a\\b a/b/c", "a|b a\\b a / b / c"),
        ("... . .. ,, ;;", "... . .. , , ; ;"),
        ("é.É Z.z", "é . É Z.z"),
    ],
)
def test_words_are_spacys(text: str, expected: str) -> None:
    """The tokens that `spacy.blank("en")` of spaCy 3.8.18 gives, but for white space."""
    assert words_of(text, unspaced=False) == expected.split(" ")


def test_special_cases_are_all_there() -> None:
    """spaCy 3.8.18 has 1,347, with three of white space and the no-break space; each is cut as it says."""
    cases = special_cases()
    assert len(cases) == 1343
    for case, lengths in cases.items():
        assert sum(lengths) == len(case)
        bounds = [0, *itertools.accumulate(lengths)]
        assert words_of(case, unspaced=False) == [case[start:end] for start, end in itertools.pairwise(bounds)], case


def slow_words(text: str) -> list[tuple[str, bool]]:
    """Each word of an unspaced text, and whether white space stands right before it: one character after the other."""
    kinds = [_kind(char) for char in text]
    for idx, char in enumerate(text):
        if char in ".,'’_":
            between = 0 < idx < len(text) - 1 and _kind(text[idx - 1]) == _kind(text[idx + 1]) == "word"
            kinds[idx] = "word" if between else "mark"
    words: list[tuple[str, bool]] = []
    for idx, char in enumerate(text):
        if kinds[idx] == "space":
            continue
        if idx and kinds[idx] == kinds[idx - 1] and kinds[idx] != "character":
            words[-1] = (words[-1][0] + char, words[-1][1])
        else:
            words.append((char, idx > 0 and kinds[idx - 1] == "space"))
    return words


def _kind(char: str) -> str:
    category = unicodedata.category(char)
    if char.isspace() or category == "Cc":
        return "space"
    if char in ".,'’_":
        return "joiner"
    if category[0] in "PS":
        return "mark"
    if any(start <= ord(char) < end for start, end in UNSPACED_RANGES):
        return "character"
    return "word"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t", []),
        ("3.14, 1,000 foo_bar (x).", ["3.14", ",", "1,000", "foo_bar", "(", "x", ")."]),
        ("----- a", ["-----", "a"]),
        ("naïve हिन्दी слово", ["naïve", "हिन्दी", "слово"]),
        ("学而时习之，不亦说乎？", list("学而时习之，不亦说乎？")),
        ("2024年，用Python 3.11写", ["2024", "年", "，", "用", "Python", "3.11", "写"]),
        ("カタカナ 今日は", list("カタカナ今日は")),
        ("𠀀𠀁。", ["𠀀", "𠀁", "。"]),
        ("a\x00b", ["a", "b"]),
    ],
)
def test_words_of_unspaced_texts(text: str, expected: list[str]) -> None:
    assert words_of(text, unspaced=True) == expected


TEXTS = st.lists(
    st.sampled_from(
        ["a", "b", "ab", "7", " ", " ", "\n", "\n\n", ",", ".", "'", "-", "。", "”", "的", "是", "は", "é", "्"]
    ),
    max_size=80,
).map("".join)
ANY = TEXTS | st.text(st.characters(max_codepoint=0x20000), max_size=60)


@given(ANY)
def test_unspaced_words_are_those_of_the_slow_reading(text: str) -> None:
    slow = slow_words(text)
    words = split_words(text, unspaced=True)
    assert words_of(text, unspaced=True) == [word for word, _ in slow]
    assert ((words.flags & HAS_GAP) != 0).tolist() == [gap for _, gap in slow]
    assert ((words.flags & HAS_LETTER) != 0).tolist() == [any(char.isalpha() for char in word) for word, _ in slow]
    assert ((words.flags & IS_MARK) != 0).tolist() == [
        all(_kind(char) in {"mark", "joiner"} for char in word) for word, _ in slow
    ]


@given(ANY, st.booleans())
def test_words_hold_what_is_no_white_space_in_order_and_equal_ones_have_equal_hashes(text: str, unspaced: bool) -> None:
    found = words_of(text, unspaced=unspaced)
    is_blank = (lambda char: _kind(char) == "space") if unspaced else str.isspace
    assert "".join(found) == "".join(char for char in text if not is_blank(char))
    words = split_words(text, unspaced=unspaced)
    assert words.hashes.tolist() == hash_words(found).tolist()
    assert len(set(words.hashes.tolist())) == len(set(found))
    if not unspaced:
        assert ((words.flags & HAS_LETTER) != 0).tolist() == [any(char.isalpha() for char in word) for word in found]


@given(ANY, ANY)
def test_what_was_split_before_does_not_show(first: str, second: str) -> None:
    scratch = Scratch()
    split_words(first, scratch=scratch)
    again, alone = split_words(second, scratch=scratch), split_words(second)
    for name in ("starts", "ends", "hashes", "flags", "classes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(alone, name))


def test_hashes_are_the_same_in_every_text_and_process() -> None:
    the, cat = hash_words(["the", "cat"]).tolist()
    assert split_words("a cat, the\ncat").hashes.tolist()[1:] == [cat, *hash_words([","]).tolist(), the, cat]
    assert (the, cat) == (2025631513231637021, 3780761063330445048)


@pytest.mark.parametrize(
    ("text", "language", "unspaced"),
    [
        ("hello 世界", None, True),
        ("hello my 世", None, False),
        ("hello my 世", "zh", True),
        ("hello my 世", "en", False),
        ("don't 世", None, False),
        ("", None, False),
        ("12。", None, False),
    ],
)
def test_unspaced(text: str, language: str | None, *, unspaced: bool) -> None:
    assert split_words(text, language).unspaced is unspaced


def test_too_long_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="cut it first"):
        split_words("a" * (MAX_NUM_CHARS + 1))


@pytest.mark.parametrize("unit", ["(", "a.", "'s", "http://a.b@", "8)", "1.", "x-", "'" * 7 + "a", ":-("])
def test_hostile_texts_take_time_in_proportion(unit: str) -> None:
    """A megabyte without white space: affixes come off one at a time, from both ends."""
    text = unit * (60_000 // len(unit))
    words = split_words(text)
    assert int((words.ends - words.starts).sum()) == len(text)


def test_the_table_of_characters_is_unicodes() -> None:
    table = class_table()
    for code in (*range(0x3000), *range(0x4E00, 0x4E10), 0x1F600, 0x20000):
        char = chr(code)
        assert bool(table[code] & 1) is char.isspace()
        assert bool(table[code] & 2) is (len(f"a{char}b".splitlines()) > 1)
