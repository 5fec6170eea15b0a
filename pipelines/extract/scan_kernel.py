"""The compiled loop of scan.py. Imported where it is first called: numba takes 0.4 s.

Must not: allocate by what a page says beyond its size, or recurse.
"""

from typing import Any

import numpy as np
from numba import njit

NUM_FIELDS = 10
_NUM_EDITS, _NUM_NAMES, _ELEMENTS, _WORK, _BLOCK_DEPTH, _LIST_DEPTH, _ARTICLE, _ITEMS, _LICENSE, _SCRIPTS = range(
    NUM_FIELDS
)


def _packed(name: str) -> int:
    """A short name as one number: its first seven bytes, and its length."""
    raw = name.encode()
    return int.from_bytes(raw[:7].ljust(7, b"\0"), "little") | min(len(raw), 255) << 56


_FORMATTING = ("a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u")
_NESTED = ("div", "article", "ul", "ol", "menu", "dir")
_RAW = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
_BARRIERS = (
    *("applet", "object", "marquee", "template", "td", "th", "caption", "select", "noscript", "svg", "math"),
    *("plaintext", *_RAW),
)
"""Elements in which an end tag may not end what was opened outside them."""
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_CONTAINERS = (
    *("html", "body", "div", "section", "main", "article", "aside", "nav", "header", "footer", "form", "ul", "ol"),
    *("table", "tbody", "tr", "td", "center", "dl", "fieldset", "figure", "blockquote"),
)
"""Elements whose id is worth knowing; that of a heading or a term is where a link leads to."""
_NUM_FORMATTING, _NUM_BLOCKS, _NUM_STACKS = len(_FORMATTING), 2, len(_FORMATTING) + len(_NESTED)
_STACK, _IS_BARRIER, _IS_RAW, _IS_HEADING, _IS_CONTAINER = 31, 32, 64, 128, 256
"""What is known of a name: a number of its stack less than 31, and flags."""
_TABLE_SIZE = 256


def _slot(name: int) -> int:
    return (name * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 56


def _known() -> tuple[Any, Any]:
    names, facts = np.zeros(_TABLE_SIZE, dtype=np.uint64), np.full(_TABLE_SIZE, _STACK, dtype=np.int64)
    flags = (
        *((_BARRIERS, _IS_BARRIER), (_RAW, _IS_RAW), (_HEADINGS, _IS_HEADING)),
        (_CONTAINERS, _IS_CONTAINER),
    )
    for text in sorted({*_FORMATTING, *_NESTED, *_BARRIERS, *_HEADINGS, *_CONTAINERS}):
        slot = _slot(_packed(text))
        while names[slot]:
            slot = (slot + 1) % _TABLE_SIZE
        names[slot] = _packed(text)
        stacks = [*_FORMATTING, *_NESTED]
        facts[slot] = stacks.index(text) if text in stacks else _STACK
        facts[slot] += sum(flag for group, flag in flags if text in group)
    return names, facts


_NAMES, _FACTS = _known()
_A, _P, _PRE, _PLAINTEXT = (np.uint64(_packed(name)) for name in ("a", "p", "pre", "plaintext"))
_CLASS, _ID, _HREF, _REL, _TYPE, _ITEMPROP, _ITEMTYPE = (
    np.uint64(_packed(name)) for name in ("class", "id", "href", "rel", "type", "itemprop", "itemtype")
)
_ARTICLE_TAG = np.uint64(_packed("article"))
_LINK, _LINK_END, _HEADING, _PARAGRAPH, _CODE, _CODE_END = 1, 2, 3, 4, 5, 6
_MAX_IDENTICAL = 3
"""Formatting elements with the same attributes that the standard opens anew (the Noah's Ark clause)."""
_MAX_BOUND = 1 << 60

_kernel = njit(nogil=True, cache=True)


@_kernel
def _is_space(byte: int) -> bool:
    return byte == 32 or byte == 10 or byte == 9 or byte == 13 or byte == 12


@_kernel
def _lower(byte: int) -> int:
    return byte | 32 if 65 <= byte <= 90 else byte


@_kernel
def _is_letter(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122


@_kernel
def _facts(name: Any) -> int:
    slot = np.int64(name * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(56))
    while _NAMES[slot] != 0 and _NAMES[slot] != name:
        slot = (slot + 1) & (_TABLE_SIZE - 1)
    return _FACTS[slot]


@_kernel
def _hash(source: Any, start: int, end: int) -> Any:
    """FNV-1a of a stretch, never 0."""
    value = np.uint64(0xCBF29CE484222325)
    for at in range(start, end):
        value = (value ^ np.uint64(source[at])) * np.uint64(0x100000001B3)
    return value | np.uint64(1)


@_kernel
def _name_at(source: Any, at: int) -> tuple[Any, int]:
    """The packed name that starts here, in lower case, and where it ends."""
    value = np.uint64(0)
    end = at
    while end < source.size:
        byte = source[end]
        if _is_space(byte) or byte == 47 or byte == 62 or (byte == 61 and end > at):
            break
        if end - at < 7:
            value |= np.uint64(_lower(byte)) << np.uint64(8 * (end - at))
        end += 1
    return value | np.uint64(min(end - at, 255)) << np.uint64(56), end


@_kernel
def _holds(source: Any, start: int, end: int, word: Any) -> bool:
    """Whether a stretch holds a word of small letters, whatever its case."""
    for at in range(start, end - word.size + 1):
        same = True
        for offset in range(word.size):
            if _lower(source[at + offset]) != word[offset]:
                same = False
                break
        if same:
            return True
    return False


@_kernel
def _ends_raw(source: Any, at: int, name_start: int, name_end: int) -> bool:
    """Whether the end tag of a raw element stands here."""
    size = name_end - name_start
    if at + 2 + size > source.size or source[at + 1] != 47:
        return False
    for offset in range(size):
        if _lower(source[at + 2 + offset]) != _lower(source[name_start + offset]):
            return False
    after = at + 2 + size
    return after == source.size or _is_space(source[after]) or source[after] == 47 or source[after] == 62


@_kernel
def _insert(table: Any, value: Any) -> int:
    """Slot of a value in an open-addressing table with room, 0 being free."""
    mask = table.size - 1
    slot = np.int64(value >> np.uint64(20)) & mask
    while table[slot] != 0 and table[slot] != value:
        slot = (slot + 1) & mask
    return slot


@_kernel
def _is_icon(source: Any, start: int, end: int) -> bool:
    """A text that is one arrow, dash, shape or private character, each of three bytes."""
    while start < end and _is_space(source[start]):
        start += 1
    while end > start and _is_space(source[end - 1]):
        end -= 1
    if end - start != 3 or source[start] < 0xE2 or source[start] > 0xEF:
        return False
    code = (source[start] & 15) << 12 | (source[start + 1] & 63) << 6 | (source[start + 2] & 63)
    return 0x2010 <= code < 0x2070 or 0x2190 <= code < 0x2460 or 0x2500 <= code < 0x2600 or 0xE000 <= code < 0xF900


_WORD_LICENSE = np.frombuffer(b"icens", dtype=np.uint8)
_WORD_LD = np.frombuffer(b"ld+json", dtype=np.uint8)
_WORD_RSL = np.frombuffer(b"rsl+xml", dtype=np.uint8)


SPACE, SPACED_LINK, FIRST_NAME = 32, 33, 64
"""What an edit inserts: a mark, these, or the attributes of a name, by its number from FIRST_NAME."""


@_kernel
def scan(source: Any, num_tags: int, edits: Any, names: Any, found: Any, max_name_bytes: int) -> None:
    """Fill `edits` with (where, where to go on, what), `names` with (start, end, 0 class or 1 id), and `found`."""
    size, at, num_edits = source.size, 0, 0
    edited = 0  # where the last edit goes on
    # stacks of what is open, a linked list each
    tops = np.full(_NUM_STACKS, -1, dtype=np.int64)
    below = np.empty(num_tags + 1, dtype=np.int64)
    positions = np.empty(num_tags + 1, dtype=np.int64)
    sources = np.empty(num_tags + 1, dtype=np.uint64)
    num_nodes = 0
    capacity = 16
    while capacity < 2 * (num_tags + 1):
        capacity *= 2
    identical = np.zeros(capacity, dtype=np.uint64)
    num_identical = np.zeros(capacity, dtype=np.int32)
    seen = np.zeros(4 * names.shape[0], dtype=np.uint64)
    numbers = np.zeros(4 * names.shape[0], dtype=np.int32)
    num_names, num_open, bound, work, barrier = 0, 0, 0, 0, 0
    blocks, lists = 0, 0
    in_link = False
    raw_start, raw_end, comment_end = -1, -1, -1  # the name of the raw element that is open; where a comment ends
    while at < size:
        start = at
        while at < size and source[at] != 60:
            at += 1
        if at >= size:
            break
        if at - start >= 3 and raw_start < 0 and _is_icon(source, start, at):
            edits[num_edits, 0], edits[num_edits, 1], edits[num_edits, 2] = start, at, SPACE
            num_edits += 1
            edited = at
        following = source[at + 1] if at + 1 < size else 0
        is_end = following == 47 and at + 2 < size and _is_letter(source[at + 2])
        in_comment = at < comment_end
        if raw_start >= 0 and is_end and _ends_raw(source, at, raw_start, raw_end):
            raw_start = -1
        inside = raw_start >= 0 or in_comment  # where tags are text, though a parser may differ on it
        if not is_end and not _is_letter(following):
            end = at + 1
            if inside:
                pass
            elif following == 33 and at + 3 < size and source[at + 2] == 45 and source[at + 3] == 45:
                comment_end = _comment_end(source, at + 4)
            elif following == 33 or following == 63 or following == 47:
                while end < size and source[end] != 62:
                    end += 1
            at = end
            continue
        name_start = at + 2 if is_end else at + 1
        name, name_end = _name_at(source, name_start)
        facts = _facts(name)
        end = name_end
        num_attributes, has_href = 0, False
        class_name, id_name = -1, -1
        while not inside and end < size:
            while end < size and (_is_space(source[end]) or source[end] == 47):
                end += 1
            if end >= size or source[end] == 62:
                break
            attribute, after = _name_at(source, end)
            end = max(after, end + 1)
            num_attributes += 1
            while end < size and _is_space(source[end]):
                end += 1
            value_start = value_end = end
            if end < size and source[end] == 61:
                end += 1
                while end < size and _is_space(source[end]):
                    end += 1
                quote = source[end] if end < size else 0
                if quote == 34 or quote == 39:
                    end += 1
                    value_start = end
                    while end < size and source[end] != quote:
                        end += 1
                    value_end = end
                    end += 1
                else:
                    value_start = end
                    while end < size and not _is_space(source[end]) and source[end] != 62:
                        end += 1
                    value_end = end
            if is_end:
                continue
            if attribute == _CLASS or (attribute == _ID and facts & _IS_CONTAINER):
                kind = 0 if attribute == _CLASS else 1
                is_first = class_name < 0 if kind == 0 else id_name < 0
                if is_first and 0 < value_end - value_start <= max_name_bytes:
                    digest = _hash(source, value_start, value_end) ^ np.uint64(kind << 1)
                    slot = _insert(seen, digest)
                    if seen[slot] == 0 and num_names < names.shape[0]:
                        seen[slot] = digest
                        numbers[slot] = num_names
                        names[num_names, 0], names[num_names, 1], names[num_names, 2] = value_start, value_end, kind
                        num_names += 1
                    if seen[slot] != 0 and kind == 0:
                        class_name = numbers[slot]
                    elif seen[slot] != 0:
                        id_name = numbers[slot]
            elif attribute == _HREF:
                has_href = True
            elif attribute == _ITEMPROP or attribute == _ITEMTYPE:
                found[_ITEMS] = 1
            elif attribute == _REL:
                if _holds(source, value_start, value_end, _WORD_LICENSE):
                    found[_LICENSE] = 1
            elif attribute == _TYPE and (
                _holds(source, value_start, value_end, _WORD_LD) or _holds(source, value_start, value_end, _WORD_RSL)
            ):
                found[_SCRIPTS] = 1
        is_closed = not inside and end < size  # else the page ends within the tag, which is then none
        if not inside:
            end = min(end + 1, size)
        work += num_attributes * num_attributes
        stack = facts & _STACK
        if facts & _IS_BARRIER:
            barrier = at
        if stack >= _NUM_FORMATTING:
            bound = min(bound + 1 + num_open, _MAX_BOUND)
        elif not is_end:
            bound += 1
        if stack != _STACK and not is_end:
            digest = np.uint64(0)
            pushes = True
            if stack < _NUM_FORMATTING:
                digest = _hash(source, at, end)
                slot = _insert(identical, digest)
                identical[slot] = digest
                pushes = num_identical[slot] < _MAX_IDENTICAL
                num_identical[slot] += pushes
                num_open += pushes
            elif stack < _NUM_FORMATTING + _NUM_BLOCKS:
                blocks += 1
                found[_BLOCK_DEPTH] = max(found[_BLOCK_DEPTH], blocks)
            else:
                lists += 1
                found[_LIST_DEPTH] = max(found[_LIST_DEPTH], lists)
            if pushes:
                below[num_nodes], positions[num_nodes], sources[num_nodes] = tops[stack], at, digest
                tops[stack] = num_nodes
                num_nodes += 1
        elif stack != _STACK and is_end and not in_comment and tops[stack] >= 0 and positions[tops[stack]] > barrier:
            node = tops[stack]
            if stack < _NUM_FORMATTING:
                num_identical[_insert(identical, sources[node])] -= 1
                num_open -= 1
            elif stack < _NUM_FORMATTING + _NUM_BLOCKS:
                blocks -= 1
            else:
                lists -= 1
            tops[stack] = below[node]
        if inside:
            at = end
            continue
        if is_end and ((name == _A and in_link) or name == _PRE):
            # before the white space that ends the text, so that no second space is left where the mark was
            stay = at
            while name == _A and stay > edited and _is_space(source[stay - 1]):
                stay -= 1
            edits[num_edits, 0], edits[num_edits, 1] = stay, stay
            edits[num_edits, 2] = _LINK_END if name == _A else _CODE_END
            num_edits += 1
            edited = stay
            in_link = in_link and name != _A
        at = end
        if is_end or not is_closed:
            continue
        for number in (class_name, id_name):
            if number >= 0:
                edits[num_edits, 0], edits[num_edits, 1], edits[num_edits, 2] = end - 1, end - 1, FIRST_NAME + number
                num_edits += 1
                edited = end - 1
        mark = 0
        if name == _A and has_href:
            mark, in_link = _LINK, True
        elif name == _P:
            mark = _PARAGRAPH
        elif name == _PRE:
            mark = _CODE
        elif facts & _IS_HEADING:
            mark = _HEADING
        elif name == _ARTICLE_TAG:
            found[_ARTICLE] = 1
        if mark:
            if mark == _CODE:  # the line feed that a parser leaves out after it
                at += int(at + 1 < size and source[at] == 13 and source[at + 1] == 10)
                at += int(at < size and source[at] == 10)
            elif at < size and _is_space(source[at]):
                if mark == _LINK:
                    mark = SPACED_LINK
                while at < size and _is_space(source[at]):
                    at += 1
            edits[num_edits, 0], edits[num_edits, 1], edits[num_edits, 2] = end, at, mark
            num_edits += 1
            edited = at
        if facts & _IS_RAW:
            raw_start, raw_end = name_start, name_end
        elif name == _PLAINTEXT:
            raw_start, raw_end = size, size
    found[_NUM_EDITS], found[_NUM_NAMES], found[_ELEMENTS], found[_WORK] = num_edits, num_names, bound, work


@_kernel
def apply_edits(source: Any, edits: Any, kinds: Any, attributes: Any, out: Any) -> int:
    """Fill `out` with the edited source; returns its bytes. `kinds` are the flags of each name, `attributes` a row a flag."""
    at, length = 0, 0
    for idx in range(edits.shape[0]):
        for copied in range(at, edits[idx, 0]):
            out[length + copied - at] = source[copied]
        length += edits[idx, 0] - at
        at = edits[idx, 1]
        code = edits[idx, 2]
        if code < FIRST_NAME:
            if code >= SPACE:
                out[length] = 32
                length += 1
            if code != SPACE:
                out[length] = _LINK if code == SPACED_LINK else code
                length += 1
            continue
        for flag in range(attributes.shape[0]):
            if kinds[code - FIRST_NAME] >> flag & 1:
                for offset in range(attributes.shape[1]):
                    out[length + offset] = attributes[flag, offset]
                length += attributes.shape[1]
    for copied in range(at, source.size):
        out[length + copied - at] = source[copied]
    return length + source.size - at


@_kernel
def _comment_end(source: Any, at: int) -> int:
    """Where the comment ends whose content starts here."""
    size = source.size
    if at < size and source[at] == 62:
        return at + 1
    if at + 1 < size and source[at] == 45 and source[at + 1] == 62:
        return at + 2
    while at + 2 < size:
        if source[at] == 45 and source[at + 1] == 45:
            if source[at + 2] == 62:
                return at + 3
            if source[at + 2] == 33 and at + 3 < size and source[at + 3] == 62:
                return at + 4
        at += 1
    return size
