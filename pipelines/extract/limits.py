"""Bounds on a page of HTML, counted in its source before a parser sees it, in time linear in the page.

Two things make a small page enormous. A parser compares each attribute of a tag with those before it: one tag with
100,000 attributes (1 MB) takes resiliparse 18 seconds. And it opens each formatting element that was left open (`<b>`,
`<a>`, `<font>` ...) anew in every block that follows, as the HTML Living Standard asks (section 13.2.4.3): 33 kB of 2,000
distinct `<b>` and 2,000 `<p>` become four million elements in a gigabyte.
"""

import re

_ATTRIBUTE = (
    r"[ \t\n\f\r/]*+[^ \t\n\f\r/>][^ \t\n\f\r/>=]*+"
    r"(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+(?:\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z)|[^ \t\n\f\r>\"'][^ \t\n\f\r>]*+)?+)?+"
)
_TAG = re.compile(rf"<(/?)([A-Za-z][^ \t\n\f\r/>]*+)((?:{_ATTRIBUTE})*+)|<!--(?:-?>|(?:[^-]|-(?!-!?>))*+)")
_ATTRIBUTE_TOKEN = re.compile(_ATTRIBUTE)
_WHOLE_TAG = re.compile(
    r"<[A-Za-z](?:[^>=]++|=[ \t\n\f\r]*+(?:\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z))?+)*+|<!--(?:-?>|(?:[^-]|-(?!-!?>))*+)"
)
_MIN_COUNTED_CHARS = 2048
"""A shorter tag is not counted: 1,024 attributes compared with one another take half a millisecond."""
_SEPARATORS = b" \n\t\r\f/\"'"
"""One of these stands before each attribute of a tag."""
_MAX_ATTRIBUTE_WORK = 1 << 30
"""Sum, over the tags, of the squares of their numbers of attributes: a single tag may have 32,768 (about 2 s)."""

_FORMATTING = frozenset(
    ("a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u")
)
_FORMATTING_TAG = re.compile(
    # No IGNORECASE: this looks at every tag of nearly every page, and classes take half the time.
    r"<(?:[aAbBiIsSuU]|[bB][iI][gG]|[cC][oO][dD][eE]|[eE][mM]|[fF][oO][nN][tT]|[nN][oO][bB][rR]|[sS][mM][aA][lL][lL]"
    r"|[sS][tT][rR][iI][kK][eE]|[sS][tT][rR][oO][nN][gG]|[tT][tT])[ \t\n\f\r/>]"
)
_BARRIERS = frozenset(
    [
        "applet",
        "object",
        "marquee",
        "template",
        "td",
        "th",
        "caption",
        "select",
        "script",
        "style",
        "title",
        "textarea",
        "xmp",
        "iframe",
        "noembed",
        "noframes",
        "noscript",
        "svg",
        "math",
        "plaintext",
    ]
)
"""Elements in which an end tag may not end what was opened outside them."""
_MAX_IDENTICAL = 3
"""Formatting elements with the same attributes that the standard opens anew."""


def has_too_many_attributes(html: str) -> bool:
    """Whether comparing each tag's attributes with one another would take more than about two seconds."""
    source = html.encode("utf-8", "replace")
    num_separators = len(source) - len(source.translate(None, _SEPARATORS))
    if num_separators * num_separators <= _MAX_ATTRIBUTE_WORK:
        return False
    work = 0
    for tag in _WHOLE_TAG.finditer(html):
        start, end = tag.span()
        if end - start >= _MIN_COUNTED_CHARS and html[start + 1] != "!":
            num_attributes = sum(1 for _ in _ATTRIBUTE_TOKEN.finditer(html, start + 2, end))
            work += num_attributes * num_attributes
            if work > _MAX_ATTRIBUTE_WORK:
                return True
    return False


def num_elements_bound(html: str, enough: int) -> int:
    """An upper bound of the elements that a parser makes of a page; counting ends above `enough`.

    A start tag always counts. An end tag counts only where it surely ends something: not in a comment, a quoted value
    or an element whose content is text.
    """
    num_tags = html.count("<")
    if num_tags * num_tags // 4 <= enough:  # the most that two factors with this sum can give
        return num_tags
    num_formatting = len(_FORMATTING_TAG.findall(html))
    if num_tags + num_formatting * (num_tags - num_formatting) <= enough:
        return num_tags
    open_tags: dict[str, list[tuple[str, int]]] = {}
    num_identical: dict[str, int] = {}
    barrier = num_open = bound = 0
    for tag in _TAG.finditer(html):
        if tag[2] is None:  # a comment: start tags in it still count
            for inner in _FORMATTING_TAG.finditer(html, tag.start() + 4, tag.end()):
                num_open += 1
                open_tags.setdefault("", []).append((inner[0], tag.start()))
            continue
        name = tag[2].lower()
        if name not in _FORMATTING:
            if name in _BARRIERS:
                barrier = tag.start()
            bound += 1 + num_open
        elif not tag[1]:
            bound += 1
            source = tag[0]
            if num_identical.get(source, 0) < _MAX_IDENTICAL:
                num_identical[source] = num_identical.get(source, 0) + 1
                open_tags.setdefault(name, []).append((source, tag.start()))
                num_open += 1
        elif (same := open_tags.get(name)) and same[-1][1] > barrier:
            source, _ = same.pop()
            num_identical[source] -= 1
            num_open -= 1
        if bound > enough:
            break
    return max(num_tags, bound)
