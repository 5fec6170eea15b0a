"""Loops over the source and the text of a page, to be compiled: see pipelines/machine_code.py.

Only loops.py imports this module, and only where nothing is kept yet, since numba takes half a second to import.
Integers alone, no exceptions, no memory of its own. Arguments are pointers without bounds: who calls these functions
gives them room enough, and no array twice. Text is UTF-8, indices are in bytes.
"""

# mypy: ignore-errors
# Types are those of loops.SIGNATURES and what follows from them; a type checker has no words for pointers.

import numba
import numpy as np

from pipelines.extract.tags import (
    BLOCK,
    FIRST_NAME,
    FIRST_SPAN,
    FOUND_ARTICLE,
    FOUND_BLOCK_DEPTH,
    FOUND_ELEMENTS,
    FOUND_ITEMS,
    FOUND_LICENSE,
    FOUND_LIST_DEPTH,
    FOUND_MAIN,
    FOUND_NUM_EDITS,
    FOUND_NUM_NAMES,
    FOUND_SCRIPTS,
    FOUND_TANGLED,
    FOUND_UNREAD,
    FOUND_WORK,
    IS_BARRIER,
    IS_CONTAINER,
    IS_HEADING,
    IS_META,
    IS_POINT,
    IS_RAW,
    IS_READ,
    KIND_BLANK,
    KIND_CODE,
    KIND_HEADING,
    KIND_ITEM,
    KIND_OTHER,
    KIND_PARAGRAPH,
    KIND_ROW,
    MARK_BODY,
    MARK_BODY_END,
    MARK_CODE,
    MARK_CODE_END,
    MARK_HEADING,
    MARK_LINK,
    MARK_LINK_END,
    MARK_NUMBER_END,
    MARK_PARAGRAPH,
    MAX_BOUND,
    MAX_CLOSERS,
    MAX_CUTS,
    MAX_DIGITS,
    MAX_IDENTICAL,
    NAME_A,
    NAME_ARTICLE_TAG,
    NAME_CLASS,
    NAME_FRAMESET,
    NAME_H1,
    NAME_HREF,
    NAME_ID,
    NAME_ITEMPROP,
    NAME_ITEMTYPE,
    NAME_MAIN,
    NAME_MATH,
    NAME_META,
    NAME_NAME,
    NAME_P,
    NAME_PLAINTEXT,
    NAME_PRE,
    NAME_PROPERTY,
    NAME_REL,
    NAME_ROLE,
    NAME_SCRIPT,
    NAME_SPAN,
    NAME_STYLE,
    NAME_SVG,
    NAME_TYPE,
    NOTHING,
    NUM_BLOCKS,
    NUM_FORMATTING,
    NUM_LINE_FIELDS,
    READ,
    SLOT_FACTOR,
    SLOT_SHIFT,
    SPACE,
    SPACED_LINK,
    STACK,
    STRIDE,
    TABLE_SIZE,
    WORD_LD,
    WORD_LICENSE,
    WORD_RSL,
)

_U64, _I64, _U8 = np.uint64, np.int64, np.uint8

_helper = numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_helper
def _is_space(byte):
    return byte == 32 or byte == 10 or byte == 9 or byte == 13 or byte == 12


@_helper
def _next(source, size, at, wanted):
    """Where the next such byte stands, or the end."""
    while at + STRIDE <= size:
        is_near = False
        for offset in range(STRIDE):  # one comparison of vectors
            is_near |= source[at + offset] == wanted
        if is_near:
            break
        at += STRIDE
    while at < size and source[at] != wanted:
        at += 1
    return at


@_helper
def _is_control(byte):
    return (byte < 32) & (byte != 10) & (byte != 9) & (byte != 13) & (byte != 12)


@_helper
def _starts_tex(source, at):
    is_tex = (source[at + 1] == 116) & (source[at + 2] == 101) & (source[at + 3] == 120)
    return is_tex & ((source[at] == 45) | (source[at] == 47))


@_helper
def _lower(byte):
    return byte | 32 if 65 <= byte <= 90 else byte


@_helper
def _is_letter(byte):
    return 97 <= (byte | 32) <= 122


@_helper
def _facts(known, facts, name):
    slot = _I64(name * _U64(SLOT_FACTOR) >> _U64(SLOT_SHIFT))
    while known[slot] != _U64(0) and known[slot] != name:
        slot = (slot + 1) & (TABLE_SIZE - 1)
    return facts[slot]


@_helper
def _hash(source, start, end):
    """FNV-1a of a stretch, never 0."""
    value = _U64(0xCBF29CE484222325)
    for at in range(start, end):
        value = (value ^ _U64(source[at])) * _U64(0x100000001B3)
    return value | _U64(1)


@_helper
def _name_at(source, size, at):
    """The packed name that starts here, in lower case, and where it ends."""
    value = _U64(0)
    end = at
    while end < size:
        byte = source[end]
        if _is_space(byte) or byte == 47 or byte == 62 or (byte == 61 and end > at):
            break
        if end - at < 7:
            value |= _U64(_lower(byte)) << _U64(8 * (end - at))
        end += 1
    return value | _U64(min(end - at, 255)) << _U64(56), end


@_helper
def _holds(source, start, end, word, num_bytes):
    """Whether a stretch holds a word of small letters, given as a number, whatever its case."""
    for at in range(start, end - num_bytes + 1):
        value = _U64(0)
        for offset in range(num_bytes):
            value |= _U64(_lower(source[at + offset])) << _U64(8 * offset)
        if value == _U64(word):
            return True
    return False


@_helper
def _may_be_meta(source, start, end, known, facts):
    """Whether the value of an attribute may be one of the names of `meta` elements that are read."""
    while start < end and _is_space(source[start]):
        start += 1
    while end > start and _is_space(source[end - 1]):
        end -= 1
    value = _U64(0)
    for at in range(start, end):
        if source[at] >= 128 or source[at] == 38:  # what these stand for is for others to find out
            return True
        if at - start < 7:
            value |= _U64(_lower(source[at])) << _U64(8 * (at - start))
    return _facts(known, facts, value | _U64(min(end - start, 255)) << _U64(56)) & IS_META != 0


@_helper
def _ends_raw(source, source_size, at, name_start, name_end):
    """Whether the end tag of a raw element stands here."""
    size = name_end - name_start
    if at + 2 + size > source_size or source[at + 1] != 47:
        return False
    for offset in range(size):
        if _lower(source[at + 2 + offset]) != _lower(source[name_start + offset]):
            return False
    after = at + 2 + size
    return after == source_size or _is_space(source[after]) or source[after] == 47 or source[after] == 62


@_helper
def _insert(table, last, value):
    """Slot of a value in an open-addressing table with room, 0 being free; `last` is its size, a power of two, less 1."""
    slot = _I64(value >> _U64(20)) & last
    while table[slot] != _U64(0) and table[slot] != value:
        slot = (slot + 1) & last
    return slot


@_helper
def _is_icon(source, start, end):
    """A text that is one arrow, dash, shape or private character, each of three bytes."""
    while start < end and _is_space(source[start]):
        start += 1
    while end > start and _is_space(source[end - 1]):
        end -= 1
    if end - start != 3 or source[start] < 0xE2 or source[start] > 0xEF:
        return False
    code = (source[start] & 15) << 12 | (source[start + 1] & 63) << 6 | (source[start + 2] & 63)
    return 0x2010 <= code < 0x2070 or 0x2190 <= code < 0x2460 or 0x2500 <= code < 0x2600 or 0xE000 <= code < 0xF900


@_helper
def _comment_end(source, size, at):
    """Where the comment ends whose content starts here."""
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


def survey(source, size, counts):
    """Fill `counts` with how many `<`, control characters that are no white space, and `tex` behind `-` or `/` are there."""
    tags, controls, formulas = 0, 0, 0
    at = 0
    while at < size:
        of_block, controls_of_block, formulas_of_block = _U8(0), _U8(0), _U8(0)
        if at + BLOCK + 3 <= size:  # a loop of known length, on bytes, becomes one of vectors
            for offset in range(BLOCK):
                byte = source[at + offset]
                of_block = _U8(of_block + _U8(byte == 60))
                controls_of_block = _U8(controls_of_block + _U8(_is_control(byte)))
                formulas_of_block = _U8(formulas_of_block + _U8(_starts_tex(source, at + offset)))
            at += BLOCK
        else:
            byte = source[at]
            of_block, controls_of_block = _U8(byte == 60), _U8(_is_control(byte))
            formulas_of_block = _U8(at + 3 < size and _starts_tex(source, at))
            at += 1
        tags += of_block
        controls += controls_of_block
        formulas += formulas_of_block
    counts[0], counts[1], counts[2] = tags, controls, formulas
    return 0


def scan(
    source, size, known, facts_of, edits, names, max_names, found, tops, nodes, sources, identical, num_identical,
    spans, identical_last, keeps_classes, seen, numbers, seen_last, max_name_bytes,
):  # fmt: skip
    """Fill `edits` with (where, where to go on, what), `names` with (start, end, 0 class or 1 id), and `found`.

    `known` and `facts_of` are the table of tags.py; `tops` (a stack each, -1), `nodes` (two for each tag), `sources` (one
    for each tag), `spans` (one for each tag), the tables `identical` and `seen` (0) and what stands beside their slots are
    room to work in.
    """
    at, num_edits, num_nodes = 0, 0, 0
    edited = 0  # where the last edit goes on
    num_names, num_open, bound, work, barrier = 0, 0, 0, 0, 0
    blocks, lists = 0, 0
    in_link = False
    num_spans, foreign = 0, 0  # edits of open spans that have held only text; open elements of SVG and MathML
    num_math, tangled = 0, False  # of these, MathML; whether a parser may be in another state than this loop
    raw_start, raw_end, comment_end = -1, -1, -1  # the name of the raw element that is open; where a comment ends
    cut_start, escaped, in_h1 = -1, False, False  # content of a raw element that nobody reads; `<!--` in it
    while at < size:
        start = at
        at = _next(source, size, at, 60)
        if at >= size:
            break
        if at - start >= 3 and raw_start < 0 and start >= comment_end and _is_icon(source, start, at):
            edits[3 * num_edits], edits[3 * num_edits + 1], edits[3 * num_edits + 2] = start, at, SPACE
            num_edits += 1
            edited = at
        following = source[at + 1] if at + 1 < size else 0
        is_end = following == 47 and at + 2 < size and _is_letter(source[at + 2])
        in_comment = at < comment_end
        if raw_start >= 0 and is_end and _ends_raw(source, size, at, raw_start, raw_end):
            raw_start = -1
            if cut_start >= 0 and at > cut_start:
                edits[3 * num_edits], edits[3 * num_edits + 1], edits[3 * num_edits + 2] = cut_start, at, NOTHING
                num_edits += 1
                edited = at
        inside = raw_start >= 0 or in_comment  # where tags are text, though a parser may differ on it
        if not is_end and not _is_letter(following):
            end = at + 1
            is_comment = following == 33 and at + 3 < size and source[at + 2] == 45 and source[at + 3] == 45
            if inside:
                escaped = escaped or is_comment
            elif is_comment:
                comment_end = _comment_end(source, size, at + 4)
                stop = comment_end - 3
                is_plain = stop > at + 4 and source[stop] == 45 and source[stop + 1] == 45 and source[stop + 2] == 62
                if is_plain and not tangled:
                    edits[3 * num_edits], edits[3 * num_edits + 1], edits[3 * num_edits + 2] = at + 4, stop, NOTHING
                    num_edits += 1
                    edited = stop
            elif following == 33 or following == 63 or following == 47:
                tangled = tangled or (
                    foreign > 0 and following == 33 and at + 2 < size and source[at + 2] == 91
                )  # CDATA
                while end < size and source[end] != 62:
                    end += 1
            at = end
            continue
        name_start = at + 2 if is_end else at + 1
        name, name_end = _name_at(source, size, name_start)
        facts = _facts(known, facts_of, name)
        end = name_end
        num_attributes, has_href = 0, False
        class_name, id_name, has_class = -1, -1, False
        first_edit, num_cuts, has_linked, is_read = num_edits, 0, False, False
        run_start, run_end, is_told = -1, -1, False
        # the attributes of formatting elements tell a parser which of them are the same
        cuts = not tangled and (facts & STACK >= NUM_FORMATTING or name == _U64(NAME_A))
        cuts = cuts and end < size and source[end] != 61  # which would be of the tag's name
        while not inside and end < size:
            while end < size and (_is_space(source[end]) or source[end] == 47):
                end += 1
            if end >= size or source[end] == 62:
                break
            attribute_start = end
            attribute, after = _name_at(source, size, end)
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
                    value_end = end = _next(source, size, end, quote)
                    end += 1
                else:
                    value_start = end
                    while end < size and not _is_space(source[end]) and source[end] != 62:
                        end += 1
                    value_end = end
            if is_end:
                continue
            if attribute == _U64(NAME_CLASS):
                is_cut = not keeps_classes
            else:
                is_cut = cuts and _facts(known, facts_of, attribute) & IS_READ == 0
            if is_cut:
                if run_start < 0:
                    run_start = attribute_start
                run_end = end
            elif run_start >= 0:
                if num_cuts < MAX_CUTS:
                    edits[3 * num_edits], edits[3 * num_edits + 1] = run_start, run_end
                    edits[3 * num_edits + 2] = NOTHING
                    num_edits += 1
                    num_cuts += 1
                run_start = -1
            if name == _U64(NAME_META) and (
                attribute == _U64(NAME_NAME) or attribute == _U64(NAME_PROPERTY) or attribute == _U64(NAME_ITEMPROP)
            ):
                is_told = is_told or _may_be_meta(source, value_start, value_end, known, facts_of)
            if attribute == _U64(NAME_CLASS) or (attribute == _U64(NAME_ID) and facts & IS_CONTAINER):
                kind = 0 if attribute == _U64(NAME_CLASS) else 1
                is_first = class_name < 0 if kind == 0 else id_name < 0
                has_class = has_class or kind == 0
                if is_first and 0 < value_end - value_start <= max_name_bytes:
                    digest = _hash(source, value_start, value_end) ^ _U64(kind << 1)
                    slot = _insert(seen, seen_last, digest)
                    if seen[slot] == 0 and num_names < max_names:
                        seen[slot] = digest
                        numbers[slot] = num_names
                        names[3 * num_names], names[3 * num_names + 1], names[3 * num_names + 2] = (
                            value_start,
                            value_end,
                            kind,
                        )
                        num_names += 1
                    if seen[slot] != 0 and kind == 0:
                        class_name = numbers[slot]
                    elif seen[slot] != 0:
                        id_name = numbers[slot]
            elif attribute == _U64(NAME_ROLE):  # whatever it is: the tree is asked then
                found[FOUND_MAIN] = 1
            elif attribute == _U64(NAME_HREF):
                has_href = True
            elif attribute == _U64(NAME_ITEMPROP) or attribute == _U64(NAME_ITEMTYPE):
                found[FOUND_ITEMS] = 1
                has_linked = is_read = True
            elif attribute == _U64(NAME_REL):
                has_linked = is_read = True
                if _holds(source, value_start, value_end, WORD_LICENSE, 5):
                    found[FOUND_LICENSE] = 1
            elif attribute == _U64(NAME_TYPE):
                if _holds(source, value_start, value_end, WORD_LD, 7) or _holds(
                    source, value_start, value_end, WORD_RSL, 7
                ):
                    found[FOUND_SCRIPTS] = 1
                    is_read = True
                is_read = is_read or _holds(source, value_start, value_end, 38, 1)  # `&`, of what may stand for a `+`
        is_closed = not inside and end < size  # else the page ends within the tag, which is then none
        if not inside:
            end = min(end + 1, size)
        work += num_attributes * num_attributes
        stack = facts & STACK
        if facts & IS_BARRIER:
            barrier = at
        if stack >= NUM_FORMATTING:
            bound = min(bound + 1 + num_open, MAX_BOUND)
        elif not is_end:
            bound += 1
        if stack != STACK and not is_end:
            digest = _U64(0)
            pushes = True
            if stack < NUM_FORMATTING:
                digest = _hash(source, at, end)
                slot = _insert(identical, identical_last, digest)
                identical[slot] = digest
                pushes = num_identical[slot] < MAX_IDENTICAL
                num_identical[slot] += pushes
                num_open += pushes
            elif stack < NUM_FORMATTING + NUM_BLOCKS:
                blocks += 1
                found[FOUND_BLOCK_DEPTH] = max(found[FOUND_BLOCK_DEPTH], blocks)
            else:
                lists += 1
                found[FOUND_LIST_DEPTH] = max(found[FOUND_LIST_DEPTH], lists)
            if pushes:
                nodes[2 * num_nodes], nodes[2 * num_nodes + 1], sources[num_nodes] = tops[stack], at, digest
                tops[stack] = num_nodes
                num_nodes += 1
        elif stack != STACK and is_end and not in_comment and tops[stack] >= 0 and nodes[2 * tops[stack] + 1] > barrier:
            node = tops[stack]
            if stack < NUM_FORMATTING:
                num_identical[_insert(identical, identical_last, sources[node])] -= 1
                num_open -= 1
            elif stack < NUM_FORMATTING + NUM_BLOCKS:
                blocks -= 1
            else:
                lists -= 1
            tops[stack] = nodes[2 * node]
        if inside:
            if raw_start >= 0 and (foreign > 0 or (escaped and name == _U64(NAME_SCRIPT) and not is_end)):
                tangled, cut_start = True, -1
            at = name_start  # not behind the name, which may have run over the end tag
            continue
        if not is_closed:
            num_edits, run_start = first_edit, -1
        if name == _U64(NAME_SPAN) and is_closed and foreign == 0 and not keeps_classes:
            if not is_end and num_attributes == int(has_class):
                num_edits = first_edit
                spans[num_spans] = num_edits
                num_spans += 1
                edits[3 * num_edits], edits[3 * num_edits + 1] = at, end
                edits[3 * num_edits + 2] = FIRST_SPAN + class_name
                num_edits += 1
                at = edited = end
                continue
            if is_end and num_spans:
                num_spans -= 1
                edits[3 * num_edits], edits[3 * num_edits + 1] = at, end
                edits[3 * num_edits + 2] = edits[3 * spans[num_spans] + 2]
                num_edits += 1
                at = edited = end
                continue
        while num_spans:  # a span with a tag in it stays
            num_spans -= 1
            span = 3 * spans[num_spans]
            class_of_span = edits[span + 2] - FIRST_SPAN
            edits[span] = edits[span + 1] = edits[span + 1] - 1
            edits[span + 2] = FIRST_NAME + class_of_span if class_of_span >= 0 else NOTHING
        if name == _U64(NAME_SVG) or name == _U64(NAME_MATH):
            is_math = int(name == _U64(NAME_MATH))
            if not is_end:
                foreign += 1
                num_math += is_math
            elif foreign:
                tangled = tangled or (num_math == 0 if is_math else num_math == foreign)
                foreign -= 1
                num_math = min(max(num_math - is_math, 0), foreign)
        elif foreign and facts & IS_POINT:
            tangled = True
        if is_end and ((name == _U64(NAME_A) and in_link) or name == _U64(NAME_PRE)):
            # before the white space that ends the text, so that no second space is left where the mark was
            stay = at
            while name == _U64(NAME_A) and stay > edited and _is_space(source[stay - 1]):
                stay -= 1
            edits[3 * num_edits], edits[3 * num_edits + 1] = stay, stay
            edits[3 * num_edits + 2] = MARK_LINK_END if name == _U64(NAME_A) else MARK_CODE_END
            num_edits += 1
            edited = stay
            in_link = in_link and name != _U64(NAME_A)
        at = end
        if name == _U64(NAME_H1):
            in_h1 = not is_end
        elif name == _U64(NAME_FRAMESET):
            tangled = True
        if is_end or not is_closed:
            continue
        if run_start >= 0 and num_cuts < MAX_CUTS:
            while source[run_start - 1] == 47:  # at the end of a tag it would close it
                run_start -= 1
            edits[3 * num_edits], edits[3 * num_edits + 1], edits[3 * num_edits + 2] = run_start, run_end, NOTHING
            num_edits += 1
        if has_href and has_linked:
            num_edits = first_edit
        if class_name >= 0:
            edits[3 * num_edits], edits[3 * num_edits + 1] = end - 1, end - 1
            edits[3 * num_edits + 2] = FIRST_NAME + class_name
            num_edits += 1
            edited = end - 1
        if id_name >= 0:
            edits[3 * num_edits], edits[3 * num_edits + 1] = end - 1, end - 1
            edits[3 * num_edits + 2] = FIRST_NAME + id_name
            num_edits += 1
            edited = end - 1
        if is_told:
            edits[3 * num_edits], edits[3 * num_edits + 1], edits[3 * num_edits + 2] = end - 1, end - 1, READ
            num_edits += 1
            edited = end - 1
        elif name == _U64(NAME_META):
            found[FOUND_UNREAD] += 1
        mark = 0
        if name == _U64(NAME_A) and has_href:
            mark, in_link = MARK_LINK, True
        elif name == _U64(NAME_P):
            mark = MARK_PARAGRAPH
        elif name == _U64(NAME_PRE):
            mark = MARK_CODE
        elif facts & IS_HEADING:
            mark = MARK_HEADING
        elif name == _U64(NAME_ARTICLE_TAG):
            found[FOUND_ARTICLE] = 1
        elif name == _U64(NAME_MAIN):
            found[FOUND_MAIN] = 1
        if mark:
            if mark == MARK_CODE:  # the line feed that a parser leaves out after it
                at += int(at + 1 < size and source[at] == 13 and source[at + 1] == 10)
                at += int(at < size and source[at] == 10)
            elif at < size and _is_space(source[at]):
                if mark == MARK_LINK:
                    mark = SPACED_LINK
                while at < size and _is_space(source[at]):
                    at += 1
            edits[3 * num_edits], edits[3 * num_edits + 1], edits[3 * num_edits + 2] = end, at, mark
            num_edits += 1
            edited = at
        if facts & IS_RAW:
            raw_start, raw_end = name_start, name_end
            is_script = name == _U64(NAME_SCRIPT)
            is_unread = (is_script and not is_read) or name == _U64(NAME_STYLE)
            cut_start = end if is_unread and not (foreign or tangled or in_h1) else -1
            escaped = False
        elif name == _U64(NAME_PLAINTEXT):
            raw_start, raw_end = size, size
    found[FOUND_TANGLED] = tangled
    found[FOUND_NUM_EDITS], found[FOUND_NUM_NAMES], found[FOUND_ELEMENTS], found[FOUND_WORK] = (
        num_edits,
        num_names,
        bound,
        work,
    )
    return 0


def apply_edits(source, size, edits, num_edits, kinds, attributes, num_attributes, attribute_size, out):
    """Fill `out` with the edited source; returns its bytes.

    `kinds` are the flags of each name, `attributes` a row a flag and one for what is read.
    """
    at, length = 0, 0
    for idx in range(num_edits):
        start, end, code = edits[3 * idx], edits[3 * idx + 1], edits[3 * idx + 2]
        if code >= FIRST_SPAN - 1:
            code += FIRST_NAME - FIRST_SPAN
            if code < FIRST_NAME or kinds[code - FIRST_NAME] == 0:
                code = NOTHING
            elif source[start + 1] == 47:  # the end tag of a span that stays
                start, code = end, NOTHING
            else:
                start = end = end - 1
        for copied in range(at, start):
            out[length + copied - at] = source[copied]
        length += start - at
        at = end
        if code == NOTHING:
            continue
        if code < FIRST_NAME and code != READ:
            if code >= SPACE:
                out[length] = 32
                length += 1
            if code != SPACE:
                out[length] = MARK_LINK if code == SPACED_LINK else code
                length += 1
            continue
        flags = 1 << num_attributes - 1 if code == READ else _I64(kinds[code - FIRST_NAME])
        for flag in range(num_attributes):
            if flags >> flag & 1:
                for offset in range(attribute_size):
                    out[length + offset] = attributes[flag * attribute_size + offset]
                length += attribute_size
    for copied in range(at, size):
        out[length + copied - at] = source[copied]
    return length + size - at


@_helper
def _is_end(code):
    """Full stop, exclamation and question mark, ellipsis, colon, semicolon, and their Chinese counterparts."""
    return code in (0x2E, 0x21, 0x3F, 0x3A, 0x3B) or code in (0x2026, 0x3002, 0xFF01, 0xFF1F, 0xFF1A, 0xFF1B)


@_helper
def _is_closer(code):
    """Closing quotes and brackets."""
    return code in (0x22, 0x27, 0x29, 0x5D) or code in (0x201D, 0x2019, 0xBB, 0xFF09, 0x300D, 0x300F)


@_helper
def _code_at(text, at):
    """The code point that starts here, and its bytes."""
    byte = _I64(text[at])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return (byte & 31) << 6 | (_I64(text[at + 1]) & 63), 2
    if byte < 0xF0:
        return (byte & 15) << 12 | (_I64(text[at + 1]) & 63) << 6 | (_I64(text[at + 2]) & 63), 3
    code = (byte & 7) << 18 | (_I64(text[at + 1]) & 63) << 12
    return code | (_I64(text[at + 2]) & 63) << 6 | (_I64(text[at + 3]) & 63), 4


@_helper
def _is_wide(code):
    return (
        0x3040 <= code < 0x3100
        or 0x3400 <= code < 0xA000
        or 0xAC00 <= code < 0xD7B0
        or 0xF900 <= code < 0xFB00
        or 0x20000 <= code < 0x323B0
    )


@_helper
def _ends_sentence(text, start, end):
    """A mark that ends a sentence, behind at most three closing quotes and brackets."""
    for _ in range(MAX_CLOSERS + 1):
        at = end - 1
        while at > start and text[at] & 0xC0 == 0x80:
            at -= 1
        if at < start:
            return False
        code, _size = _code_at(text, at)
        if _is_end(code):
            return True
        if not _is_closer(code):
            return False
        end = at
        if end <= start:
            return False
    return False


@_helper
def _bullet_chars(text, start, end):
    """Characters of the bullet, or of the number and its full stop, with the space after it; 0 where there is none."""
    if end - start > 3 and text[start] == 0xE2 and text[start + 1] == 0x80 and text[start + 2] == 0xA2:
        return 2 if text[start + 3] == 32 else 0
    at = start
    while at < end and at - start < MAX_DIGITS and 48 <= text[at] <= 57:
        at += 1
    return at - start + 2 if at > start and at + 1 < end and text[at] == 46 and text[at + 1] == 32 else 0


def measure_lines(source, size, clean, fields, bodies, num_bodies, sizes):
    """Fill `clean`, `fields` (start, end, kind, weight, characters, linked, ends a sentence) and `bodies` (start, end).

    `sizes` takes the numbers of lines and of clean bytes.
    """
    at, length, row = 0, 0, 0
    in_link, in_code = False, False
    while at <= size:
        start = length
        first, last = -1, -1  # bytes of the stripped line
        num_chars, chars_to_first, chars_to_last, num_linked, num_wide = 0, 0, 0, 0, 0
        is_heading, is_paragraph, has_marks, has_tab, code_ends = False, False, False, False, False
        is_code = in_code
        while at < size and source[at] != 10:
            byte = source[at]
            if byte <= 16 and byte != 9:
                has_marks = True
                at += 1
                if byte == MARK_LINK:
                    in_link = True
                elif byte == MARK_LINK_END:
                    in_link = False
                elif byte == MARK_HEADING:
                    is_heading = True
                elif byte == MARK_PARAGRAPH:
                    is_paragraph = True
                elif byte == MARK_CODE:
                    is_code = in_code = True
                elif byte == MARK_CODE_END:
                    code_ends = True
                elif byte == MARK_BODY or byte == MARK_BODY_END:
                    number = 0
                    while at < size and 48 <= source[at] <= 57:
                        number = number * 10 + source[at] - 48
                        at += 1
                    at += int(at < size and source[at] == MARK_NUMBER_END)
                    if number < num_bodies:
                        if byte == MARK_BODY:
                            bodies[2 * number] = row
                        else:
                            bodies[2 * number + 1] = row + int(first >= 0)
                continue
            code, num_bytes = _code_at(source, at)
            for offset in range(num_bytes):
                clean[length + offset] = source[at + offset]
            at += num_bytes
            is_space = code == 32 or code == 9 or code == 0xA0 or code == 0x3000
            if not is_space:
                if first < 0:
                    first, chars_to_first = length, num_chars
                last = length + num_bytes
                chars_to_last = num_chars + 1
                num_wide += int(_is_wide(code))
            elif code == 9 and first >= 0:
                has_tab = True
            num_chars += 1
            num_linked += int(in_link)
            length += num_bytes
        at += 1
        length = max(last, start)  # no white space at the end
        if first < 0 and has_marks:  # nothing but marks
            in_code = in_code and not code_ends
            continue
        stripped = chars_to_last - chars_to_first
        bullet = _bullet_chars(clean, first, last) if first >= 0 else 0
        kind = KIND_OTHER
        if first < 0:
            kind = KIND_CODE if is_code else KIND_BLANK
        elif is_code:
            kind = KIND_CODE
        elif is_heading:
            kind = KIND_HEADING
        elif bullet:
            kind = KIND_ITEM
        elif has_tab:
            kind = KIND_ROW
        elif is_paragraph:
            kind = KIND_PARAGRAPH
        fields[NUM_LINE_FIELDS * row + 0], fields[NUM_LINE_FIELDS * row + 1], fields[NUM_LINE_FIELDS * row + 2] = (
            start,
            length,
            kind,
        )
        fields[NUM_LINE_FIELDS * row + 3], fields[NUM_LINE_FIELDS * row + 4] = (
            stripped + 2 * num_wide,
            stripped - bullet,
        )
        fields[NUM_LINE_FIELDS * row + 5] = min(num_linked, stripped - bullet)
        fields[NUM_LINE_FIELDS * row + 6] = int(first >= 0 and _ends_sentence(clean, first, last))
        row += 1
        in_code = in_code and not code_ends
        if at <= size:
            clean[length] = 10
            length += 1
    sizes[0], sizes[1] = row, length
    return 0
