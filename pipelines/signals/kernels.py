"""Loops over the code points of a text, to be compiled: see machine_code.py, which does that and keeps the result.

Only loops.py imports this module, and only where nothing is kept yet, since numba takes half a second to import.
No exceptions, no memory of its own; integers alone, but for `language_scores`, whose sums are in one order and whose
logarithms are those of the C library: the same result on every machine. Arguments are pointers without
bounds: who calls these functions gives them room enough, and no array twice. Indices are in code points.
"""

# mypy: ignore-errors
# Types are those of loops.SIGNATURES and what follows from them; a type checker has no words for pointers.

import math

import numba
import numpy as np

from pipelines.signals.bits import (
    ALPHA,
    BASE,
    BLANK,
    BREAK,
    BULLET,
    CHARACTER,
    CLOSER,
    DIGIT,
    END_OF_HAN,
    ENDS_SENTENCE,
    FOLDED_CHARACTER,
    FOLDED_CODE,
    FOLDED_DIGIT,
    FOLDED_LOOK_ALIKE,
    FOLDED_NONE,
    FOLDED_SEVERAL,
    FOLDED_UNSAFE,
    HAS_GAP,
    HAS_LETTER,
    ICON,
    IS_MARK,
    IS_PUNCTUATION,
    JAVASCRIPT,
    JOINER,
    LABEL,
    LAST_CODE,
    LETTER,
    LOREM_IPSUM,
    LOWER,
    MARK,
    MAX_PATTERN_NUM_TOKENS,
    MAX_SPECIAL_NUM_CHARS,
    NUM_FILTER_CODES,
    NUM_FOLDED_CODES,
    NUM_SPECIAL_PARTS,
    OUR_QUOTE,
    OUR_TERMINAL,
    PLAIN,
    POLICY,
    PREFIX,
    PUNCTUATION,
    QUOTE,
    REFUSED,
    SENTENCE_END,
    SHINGLE_BUFFER,
    SHINGLE_NUM_TOKENS,
    SPACE,
    STOPPABLE,
    SUFFIX,
    TERMINAL,
    UPPER,
    WIDE_END,
    WORD,
)

_U64 = np.uint64
_I64 = np.int64
_B = np.uint64(BASE)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_ONE, _ZERO = np.uint64(1), np.uint64(0)

_helper = numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_helper
def _mixed(value):
    """The finaliser of SplitMix64."""
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)


@_helper
def _class_of(table, code):
    return _I64(table[min(_I64(code), LAST_CODE)])


@_helper
def _hash_of(sums, powers, start, end):
    """Polynomial hash of a stretch: equal for equal stretches, wherever they stand."""
    return _mixed(sums[end] - sums[start] * powers[end - start])


@_helper
def _slot(keys, last, key):
    """Where a key stands in an open-addressing table, or would. `last` is its size, a power of two, less 1; 0 is no key."""
    slot = _I64(key & _U64(last))
    while keys[slot] != key and keys[slot] != _ZERO:
        slot = (slot + 1) & last
    return slot


@_helper
def _has(keys, last, key):
    return keys[_slot(keys, last, key)] == key


# ---------------------------------------------------------------------------------------------------------------------
# Words


@_helper
def _special(codes, sums, powers, start, end, filters, specials, specials_last):
    """Slot of the special case that a stretch is, -1: none. `filters` says by length and first character which last
    ones there are, which spares most searches."""
    length = end - start
    if length > MAX_SPECIAL_NUM_CHARS or length < 1:
        return -1
    lasts = _I64(filters[(length - 1) * NUM_FILTER_CODES + (_I64(codes[start]) & (NUM_FILTER_CODES - 1))])
    if lasts >> (_I64(codes[end - 1]) & 31) & 1 == 0:
        return -1
    key = _hash_of(sums, powers, start, end)
    slot = _slot(specials, specials_last, key)
    return slot if specials[slot] == key else -1


@_helper
def _prefix(codes, classes, start, end):
    """Characters that are cut off at the start of a stretch."""
    code = codes[start]
    if code == 46:  # two full stops or more
        stop = start
        while stop < end and codes[stop] == 46:
            stop += 1
        return stop - start if stop - start > 1 else 0
    if code == 43:  # +, unless a number follows
        return 0 if start + 1 < end and classes[start + 1] & DIGIT else 1
    if classes[start] & PREFIX:
        return 1
    if start + 1 < end and codes[start + 1] == 36 and (code == 65 or code == 67):  # A$, C$
        return 2
    if start + 2 < end and code == 85 and codes[start + 1] == 83 and codes[start + 2] == 36:  # US$
        return 3
    return 0


@_helper
def _suffix(codes, classes, sums, powers, start, end, units, units_last):
    """Characters that are cut off at the end of a stretch: of all rules that hold, the longest match."""
    if end <= start:
        return 0
    code, before = codes[end - 1], end - 2
    if code == 46:
        stop = end
        while stop > start and codes[stop - 1] == 46:
            stop -= 1
        if end - stop > 1:
            return end - stop
        if before >= start and classes[before] & STOPPABLE:
            return 1
        if before > start and classes[before] & UPPER:  # two capitals; a degree in C, F or K
            capital = codes[before]
            if classes[before - 1] & UPPER:
                return 1
            if codes[before - 1] == 176 and (capital == 67 or capital == 70 or capital == 75):
                return 1
        return 0
    if code == 8230:  # an ellipsis, or two
        return 2 if before >= start and codes[before] == 8230 else 1
    stop = end  # a unit or currency behind a digit
    while stop > start and end - stop < 6 and not classes[stop - 1] & DIGIT:
        stop -= 1
    follows = stop > start and stop < end and classes[stop - 1] & DIGIT
    if follows and _has(units, units_last, _hash_of(sums, powers, stop, end)):
        return end - stop
    if before >= start and (code == 115 or code == 83) and (codes[before] == 39 or codes[before] == 8217):
        return 2
    if code == 43:
        return 1 if before >= start and classes[before] & DIGIT else 0
    return 1 if classes[end - 1] & SUFFIX else 0


@_helper
def _infix(codes, classes, at, start, end):
    """Characters that are cut out of a stretch at an index."""
    code, kind = codes[at], classes[at]
    if kind & PLAIN:
        return 0
    if code == 46 and at + 1 < end and codes[at + 1] == 46:
        stop = at
        while stop < end and codes[stop] == 46:
            stop += 1
        return stop - at
    if kind & ICON:
        return 1
    if at == start or at + 1 >= end:
        return 0
    left, right = classes[at - 1], classes[at + 1]
    operator = code == 43 or code == 45 or code == 42 or code == 94  # + - * ^
    if operator and left & DIGIT and (right & DIGIT or codes[at + 1] == 45):
        return 1
    if code == 46:
        return 1 if left & (LOWER | QUOTE) and right & (UPPER | QUOTE) else 0
    if code == 44:
        return 1 if left & ALPHA and right & ALPHA else 0
    if not left & (ALPHA | DIGIT):
        return 0
    if code == 45 or code == 8211 or code == 8212 or code == 126:  # up to three hyphens, two long dashes
        most = 3 if code == 45 else 2 if code == 8212 else 1
        stop = at + 1
        while stop < end and stop - at < most and codes[stop] == code:
            stop += 1
        return stop - at if stop < end and classes[stop] & ALPHA else 0
    if code == 58 or code == 60 or code == 62 or code == 61 or code == 47:  # : < > = /
        return 1 if right & ALPHA else 0
    return 0


@_helper
def _url_ends(codes, classes, at, end):
    """Whether what stands behind a host is a port, a path, or nothing."""
    if at < end and codes[at] == 58:
        stop = at + 1
        while stop < end and stop - at <= 5 and classes[stop] & DIGIT:
            stop += 1
        if stop - at < 3:
            return False
        at = stop
    return at == end or codes[at] == 47 or codes[at] == 63 or codes[at] == 35  # / ? #


@_helper
def _is_address(codes, classes, start, end):
    """Whether a public IP address stands at an index, and a port, a path or nothing behind it."""
    stop, first, second = start, -1, -1
    for place in range(4):
        digits, value = stop, 0
        while stop < end and stop - digits < 3 and classes[stop] & DIGIT:
            value = value * 10 + _I64(codes[stop]) - 48
            stop += 1
        length = stop - digits
        if length == 0 or value > 255 or (length == 3 and value < 100):
            return False
        if (place == 0 or place == 3) and (codes[digits] == 48 or value > (223 if place == 0 else 254)):
            return False
        if place == 0:
            first = value
        elif place == 1:
            second = value
        if place < 3:
            if stop >= end or codes[stop] != 46:
                return False
            stop += 1
    if first == 10 or first == 127 or (first == 169 and second == 254) or (first == 192 and second == 168):
        return False
    if first == 172 and 16 <= second < 32:
        return False
    return _url_ends(codes, classes, stop, end)


@_helper
def _is_host(codes, classes, start, end):
    """Whether a host name with a top-level domain, or an IP address, stands at an index, with its port or path."""
    if start < end and classes[start] & DIGIT and _is_address(codes, classes, start, end):
        return True
    stop, label, num_labels, lower = start, start, 0, True
    while stop < end and (classes[stop] & LABEL or codes[stop] == 46):
        if codes[stop] == 46:
            length = stop - label
            if length == 0 or length > 64:
                return False
            if codes[label] == 45 or codes[label] == 95 or codes[stop - 1] == 45 or codes[stop - 1] == 95:
                return False
            num_labels += 1
            label, lower = stop + 1, True
        elif not classes[stop] & LOWER:
            lower = False
        stop += 1
    return num_labels > 0 and lower and 2 <= stop - label <= 63 and _url_ends(codes, classes, stop, end)


@_helper
def _is_url(codes, classes, start, end):
    """Whether a stretch is an address to spaCy: [scheme://][user@]host[:port][/path]."""
    has_dot = False
    for at in range(start + 1, end - 1):
        if codes[at] == 46:
            has_dot = True
            break
    if not has_dot:
        return False
    if _is_host(codes, classes, start, end):
        return True
    scheme = True
    for at in range(start, end - 1):
        code, host = codes[at], -1
        if code == 58 and scheme and at - start >= 2 and at + 2 < end and codes[at + 1] == 47 and codes[at + 2] == 47:
            host = at + 3
        elif code == 64 and at > start:
            host = at + 1
        if host >= 0 and _is_host(codes, classes, host, end):
            return True
        if not (classes[at] & (WORD | CHARACTER) or code == 43 or code == 45 or code == 46 or code == 95):
            scheme = False
    return False


@_helper
def _cut(
    codes, classes, sums, powers, start, end, filters, specials, specials_last, special_lengths, units, units_last,
    starts, ends, cuts, num,
):  # fmt: skip
    """Cut what stands between white space into tokens, as spaCy does: affixes off, special cases, addresses, infixes."""
    num_cuts, last_end = 0, end
    special = -1
    while start < end:
        special = _special(codes, sums, powers, start, end, filters, specials, specials_last)
        if special >= 0:
            break
        prefix = _prefix(codes, classes, start, end)
        if prefix and start + prefix < end:
            special = _special(codes, sums, powers, start + prefix, end, filters, specials, specials_last)
        suffix = 0
        if special < 0:
            suffix = _suffix(codes, classes, sums, powers, start + prefix, end, units, units_last)
            if suffix and start < end - suffix:
                special = _special(codes, sums, powers, start, end - suffix, filters, specials, specials_last)
                if special >= 0:
                    prefix = 0
        if prefix == 0 and suffix == 0:
            break
        if prefix:
            starts[num], ends[num] = start, start + prefix
            num += 1
            start += prefix
        if suffix:
            end -= suffix
            cuts[num_cuts] = end
            num_cuts += 1
        if special >= 0:
            break
    if special >= 0:
        for part in range(NUM_SPECIAL_PARTS):
            length = special_lengths[special * NUM_SPECIAL_PARTS + part]
            if length:
                starts[num], ends[num] = start, start + length
                num += 1
                start += length
    elif start < end:
        if not _is_url(codes, classes, start, end):
            first, at = start, start
            while at < end:
                infix = _infix(codes, classes, at, first, end)
                if infix == 0 or at == first:
                    at += max(infix, 1)
                    continue
                if at != start:
                    starts[num], ends[num] = start, at
                    num += 1
                starts[num], ends[num] = at, at + infix
                num += 1
                at += infix
                start = at
        if start < end:
            starts[num], ends[num] = start, end
            num += 1
    for idx in range(num_cuts - 1, -1, -1):
        starts[num], ends[num] = cuts[idx], (cuts[idx - 1] if idx else last_end)
        num += 1
    return num


@_helper
def _mended(
    sums, powers, first, num, starts, ends, specials, specials_last, special_lengths, pairs, pairs_last, patterns,
    patterns_last, states,
):  # fmt: skip
    """Put special cases that affix rules have cut through together again; the new number of tokens.

    `pairs` holds the first two tokens of each pattern, `patterns` all of its tokens, `states` is scratch. The longest
    pattern goes first, of equal ones the first; one that overlaps with an earlier one is left, and yet in the way.
    """
    hit = False
    before = _hash_of(sums, powers, starts[first], ends[first])
    for idx in range(first + 1, num):
        key = _hash_of(sums, powers, starts[idx], ends[idx])
        if _has(pairs, pairs_last, _mixed(before * _B + key)):
            hit = True
            break
        before = key
    if not hit:
        return num
    for idx in range(num - first):
        states[idx] = 0
    for size in range(min(MAX_PATTERN_NUM_TOKENS, num - first), 1, -1):
        for idx in range(num - first - size + 1):
            key = _ZERO
            for part in range(first + idx, first + idx + size):
                key = key * _B + _hash_of(sums, powers, starts[part], ends[part])
            if _has(patterns, patterns_last, _mixed(key)):
                free = states[idx] == 0 and states[idx + size - 1] == 0
                for part in range(idx, idx + size):
                    states[part] = max(states[part], 1)
                if free:
                    states[idx] = size
    read, used = first, first
    while read < num:
        size = max(states[read - first], 1)
        start, end = starts[read], ends[read + size - 1]
        if size > 1:
            special = _slot(specials, specials_last, _hash_of(sums, powers, start, end))
            for part in range(NUM_SPECIAL_PARTS):
                length = special_lengths[special * NUM_SPECIAL_PARTS + part]
                if length:  # as many tokens at most as before
                    starts[used], ends[used] = start, start + length
                    start += length
                    used += 1
        else:
            starts[used], ends[used] = start, end
            used += 1
        read += size
    return used


def split_spaced(
    codes, size, table, filters, specials, specials_last, special_lengths, units, units_last, pairs, pairs_last, patterns,
    patterns_last, powers, classes, sums, starts, ends, hashes, flags, cuts,
):  # fmt: skip
    """Tokens of a text in scripts with spaces between words, as spaCy's English tokenizer cuts them; their number.

    Writes `classes`, `sums` (size + 1), `starts`, `ends`, `hashes`, `flags` and, as scratch, `cuts` (size).
    """
    sums[0] = _ZERO
    for at in range(size):
        code = codes[at]
        classes[at] = np.uint32(_class_of(table, code))
        sums[at + 1] = sums[at] * _B + _U64(code) + _ONE
    num = at = 0
    while at < size:
        if classes[at] & SPACE:
            at += 1
            continue
        start, first = at, num
        all_of = _I64(0xFFFFFFFF)
        while at < size and not classes[at] & SPACE:
            all_of &= _I64(classes[at])
            at += 1
        if all_of & DIGIT or (
            all_of & PLAIN and _special(codes, sums, powers, start, at, filters, specials, specials_last) < 0
        ):
            starts[num], ends[num] = start, at
            num += 1
        else:
            num = _cut(
                codes, classes, sums, powers, start, at, filters, specials, specials_last, special_lengths, units,
                units_last, starts, ends, cuts, num,
            )  # fmt: skip
            if num - first > 1:
                num = _mended(
                    sums, powers, first, num, starts, ends, specials, specials_last, special_lengths, pairs,
                    pairs_last, patterns, patterns_last, cuts,
                )  # fmt: skip
        flags[first] = HAS_GAP if start else 0
        for idx in range(first + 1, num):
            flags[idx] = 0
    for idx in range(num):
        start, end = starts[idx], ends[idx]
        all_of, any_of = _I64(0xFFFFFFFF), _I64(0)
        for place in range(start, end):
            all_of &= _I64(classes[place])
            any_of |= _I64(classes[place])
        flag = _I64(flags[idx])
        flag |= IS_MARK if all_of & MARK else 0
        flag |= HAS_LETTER if any_of & LETTER else 0
        flag |= ENDS_SENTENCE if end - start == 1 and all_of & SENTENCE_END else 0
        flag |= IS_PUNCTUATION if all_of & PUNCTUATION else 0
        flags[idx] = flag
        hashes[idx] = _hash_of(sums, powers, start, end)
    return num


def split_unspaced(codes, size, table, classes, sums, starts, ends, hashes, flags):
    """Words of a text in scripts without spaces between words; their number.

    A character is a word; so is a run of other letters and digits, and a run of marks. A joiner between two letters or
    digits belongs to them.
    """
    sums[0] = _ZERO
    for at in range(size):
        classes[at] = np.uint32(_class_of(table, codes[at]))
        sums[at + 1] = sums[at] * _B + _U64(codes[at]) + _ONE
    num, before = 0, 0  # what the last character was: 0 space, 1 word, 2 character, 3 mark
    value, flag = _ZERO, 0
    for at in range(size):
        kind = _I64(classes[at])
        if kind & BLANK:
            now = 0
        elif kind & CHARACTER:
            now = 2
        elif kind & WORD or (kind & JOINER and at > 0 and at + 1 < size and classes[at - 1] & classes[at + 1] & WORD):
            now = 1
        else:
            now = 3
        if now:
            if now != before or now == 2:
                starts[num] = at
                flag = (HAS_GAP if at and not before else 0) | (IS_MARK if now == 3 else 0)
                value = _ZERO
                num += 1
            value = value * _B + _U64(codes[at]) + _ONE
            flag |= HAS_LETTER if kind & LETTER else 0
            ends[num - 1], hashes[num - 1], flags[num - 1] = at + 1, _mixed(value), flag
        before = now
    return num


def is_unspaced(codes, size, table):
    """Whether a text has more characters of unspaced scripts than other words."""
    num_characters, num_words, inside = 0, 0, False
    for at in range(size):
        kind = _class_of(table, codes[at])
        if kind & CHARACTER:
            num_characters += 1
            inside = False
        elif kind & WORD:
            num_words += 0 if inside else 1
            inside = True
        elif not kind & JOINER:
            inside = False
    return _I64(num_characters > num_words)


def count_words(starts, ends, hashes, flags, size, stop_words, num_stop_words, by_gap, found):
    """Writes int64 (marks, characters of other words, units, units with a letter, distinct stop words) to `found`.

    A unit is a word, or with `by_gap` what stands between white space.
    """
    num_marks, num_chars, num_units, num_with_letter, letter = 0, 0, 0, 0, False
    seen = _ZERO
    for idx in range(size):
        flag = _I64(flags[idx])
        if flag & IS_MARK:
            num_marks += 1
        else:
            num_chars += ends[idx] - starts[idx]
            for place in range(num_stop_words):
                if stop_words[place] == hashes[idx]:
                    seen |= _ONE << _U64(place)
        if not by_gap or flag & HAS_GAP or idx == 0:
            num_units += 1
            letter = False
        if flag & HAS_LETTER and not letter:
            num_with_letter += 1
            letter = True
    num_seen = 0
    while seen:
        seen &= seen - _ONE
        num_seen += 1
    found[0], found[1], found[2], found[3], found[4] = num_marks, num_chars, num_units, num_with_letter, num_seen
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# Repetition


def n_gram_chars(starts, ends, hashes, flags, size, joined, last, keys, counts, slots, positions, grams, chars):
    """Writes characters of the top n-grams (n = 2, 3, 4), then of the duplicate ones (5 to 10), to `chars`.

    `joined`: words of a top n-gram count as joined by spaces, else by the white space that the text has. `last` is the
    size of `keys` and `counts` less 1, a power of two and at least twice `size`. All but `chars` is scratch.
    """
    for n in range(9):
        chars[n] = 0
    for slot in range(last + 1):
        counts[slot] = 0
    for idx in range(size):
        positions[idx] = idx
        grams[idx] = hashes[idx]
    num = size
    for n in range(2, min(size, 10) + 1):
        used = 0
        for idx in range(num):  # n-grams of n - 1 words get one more; the last may not fit
            position = _I64(positions[idx])
            if position + n <= size:
                positions[used] = position
                grams[used] = _mixed(grams[idx] * _B + hashes[position + n - 1])
                used += 1
        num = used
        for idx in range(num):
            key = grams[idx]
            slot = _I64(key & _U64(last))
            while counts[slot] and keys[slot] != key:
                slot = (slot + 1) & last
            keys[slot] = key
            counts[slot] += 1
            slots[idx] = slot
        if n <= 4:
            best, first = 1, 0
            for idx in range(num):
                count = _I64(counts[_I64(slots[idx])])
                if count > best:
                    best, first = count, _I64(positions[idx])
            length = ends[first] - starts[first]
            for idx in range(first + 1, first + n):
                length += ends[idx] - starts[idx] + (1 if joined or flags[idx] & HAS_GAP else 0)
            chars[n - 2] = length * best
        kept, free = 0, 0
        for idx in range(num):
            slot, position = _I64(slots[idx]), _I64(positions[idx])
            count = _I64(counts[slot])
            if count == 1:  # what occurs once is part of nothing longer that occurs twice
                counts[slot] = 0
                continue
            if n > 4 and position >= free:
                if count < 0:  # seen before
                    for place in range(position, position + n):
                        chars[n - 2] += ends[place] - starts[place]
                    free = position + n
                else:
                    counts[slot] = -1
            positions[kept], grams[kept], slots[kept] = position, grams[idx], slot
            kept += 1
        for idx in range(kept):
            counts[_I64(slots[idx])] = 0
        num = kept
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# Lines


@_helper
def _seen(keys, last, key):
    """Whether a table has a key; it has it from now on."""
    slot = _slot(keys, last, key)
    if keys[slot] == key:
        return True
    keys[slot] = key
    return False


@_helper
def _first_visible(classes, start, end):
    while start < end and classes[start] & SPACE:
        start += 1
    return start


@_helper
def _behind_visible(classes, start, end):
    while end > start and classes[end - 1] & SPACE:
        end -= 1
    return end


@_helper
def _ends_in_ellipsis(codes, start, end, ours):
    code = codes[end - 1]
    if code == 8230:
        return True
    if end - start < 3 or codes[end - 2] != code or codes[end - 3] != code:
        return False
    return code == 46 or (ours and code == 12290)


@_helper
def _next_line(codes, end, size):
    """Start of the line behind an end of `str.splitlines`."""
    return end + 2 if end + 1 < size and codes[end] == 13 and codes[end + 1] == 10 else end + 1


def count_lines(codes, classes, sums, powers, size, short, ours, last, lines, plain, paragraphs, found):
    """What lines are like, for Gopher's line rules, FineWeb's, and Gopher's repetition: see quality.py, repetition.py.

    Writes int64 to `found`: lines, bullets, with an ellipsis at the end; lines that are not blank, ended, short,
    characters of duplicates; line feeds; lines, duplicates, their characters; paragraphs, duplicates, their characters.
    With `ours` as texts in unspaced scripts are measured, else as datatrove does. `lines`, `plain` and `paragraphs` are
    tables of `last` + 1 zeros, a power of two above twice the number of lines.
    """
    for idx in range(14):
        found[idx] = 0
    head = _first_visible(classes, 0, size)  # the paragraphs are those of the stripped text
    tail = _behind_visible(classes, head, size)
    paragraph, paragraph_end, start, others = -1, -1, 0, 0
    while start <= size:
        end = start
        while end < size and codes[end] != 10:
            others |= _I64(classes[end]) & BREAK
            end += 1
        key = _hash_of(sums, powers, start, end) | _ONE
        left = _first_visible(classes, start, end)
        right = _behind_visible(classes, left, end)
        found[7] += 1 if end < size else 0
        if end > start:
            found[8] += 1
            if _seen(lines, last, key):
                found[9] += 1
                found[10] += end - start
        if right > left:
            found[3] += 1
            if ours:
                core = right
                while core > left and classes[core - 1] & CLOSER:
                    core -= 1
                found[0] += 1
                found[1] += 1 if classes[left] & BULLET else 0
                found[2] += 1 if _ends_in_ellipsis(codes, left, right, 1) else 0
                found[4] += 1 if core > left and classes[core - 1] & OUR_TERMINAL else 0
                found[5] += 1 if right - left <= short else 0
                if _seen(plain, last, _hash_of(sums, powers, left, right) | _ONE):
                    found[6] += right - left
            else:
                found[1] += 1 if codes[left] == 8226 or codes[left] == 45 else 0  # a bullet or a hyphen
                found[2] += 1 if _ends_in_ellipsis(codes, left, right, 0) else 0
                found[4] += 1 if classes[end - 1] & TERMINAL else 0
                found[5] += 1 if end - start <= short else 0
                if _seen(plain, last, key):
                    found[6] += end - start
        left, right = max(start, head), min(end, tail)
        if right > left:
            paragraph = left if paragraph < 0 else paragraph
            paragraph_end = right
        if paragraph >= 0 and (right <= left or end >= tail):
            found[11] += 1
            if _seen(paragraphs, last, _hash_of(sums, powers, paragraph, paragraph_end) | _ONE):
                found[12] += 1
                found[13] += paragraph_end - paragraph
            paragraph = -1
        start = end + 1
    if not ours:
        found[0] = found[7] + (1 if size and codes[size - 1] != 10 else 0)
    if ours or not others:
        return 0
    found[0], found[1], found[2], start = 0, 0, 0, 0  # Gopher's lines end elsewhere too
    while start < size:
        end = start
        while end < size and not classes[end] & BREAK:
            end += 1
        left = _first_visible(classes, start, end)
        right = _behind_visible(classes, left, end)
        found[0] += 1
        if right > left:
            found[1] += 1 if codes[left] == 8226 or codes[left] == 45 else 0  # a bullet or a hyphen
            found[2] += 1 if _ends_in_ellipsis(codes, left, right, 0) else 0
        start = _next_line(codes, end, size)
    return 0


@_helper
def _has_three_words(classes, start, end):
    """Three words between white space, none of over 1,000 characters."""
    num, word = 0, start
    for at in range(start, end + 1):
        if at == end or classes[at] & SPACE:
            num += 1 if at > word else 0
            if at - word > 1000:
                return False
            word = at + 1
    return num >= 3


def sentences_spaced(codes, classes, size, starts, ends, flags, num_words, lines, num_lines, is_cut, found):
    """C4's rules as datatrove applies them: writes int64 (sentences, lines with the placeholder, lines with a curly
    bracket) to `found`.

    `lines` says what a search in Python found in each of the first `num_lines`. With `is_cut` lines were stripped, and
    looked at for their words, before something was cut out of them.
    """
    num_sentences, lorem_ipsum, curly_bracket = 0, 0, 0
    start, number, token = 0, 0, 0
    while start < size:
        end, curly = start, False
        while end < size and not classes[end] & BREAK:
            curly = curly or codes[end] == 123
            end += 1
        left, right = start, end
        if not is_cut:
            left = _first_visible(classes, start, end)
            right = _behind_visible(classes, left, end)
        start = _next_line(codes, end, size)
        state = _I64(lines[number]) if number < num_lines else 0
        number += 1
        first = token
        while token < num_words and starts[token] < end:
            token += 1
        if right == left or state & REFUSED:
            continue
        mark = codes[right - 1]
        if mark != 46 and mark != 63 and mark != 33 and mark != 34 and mark != 39:
            continue
        if right - left >= 3 and mark == 46 and codes[right - 2] == 46 and codes[right - 3] == 46:
            continue
        if not is_cut and not _has_three_words(classes, left, right):
            continue
        lorem_ipsum += 1 if state & LOREM_IPSUM else 0
        if state & JAVASCRIPT:
            continue
        curly_bracket += 1 if curly else 0
        if state & POLICY:
            continue
        num_sentences += 1
        ended = False
        for idx in range(first, token):
            if ended:  # white space but for one space is a token of its own, and no punctuation
                gap = starts[idx] - ends[idx - 1]
                if gap > 1 or (gap == 1 and codes[starts[idx] - 1] != 32):
                    num_sentences += 1
                    ended = False
            if flags[idx] & ENDS_SENTENCE:
                ended = True
            elif ended and not flags[idx] & IS_PUNCTUATION:
                num_sentences += 1
                ended = False
    found[0], found[1], found[2] = num_sentences, lorem_ipsum, curly_bracket
    return 0


@_helper
def _survives(codes, classes, start, end):
    """Whether a stripped line ends a sentence, has enough words or characters, and no endless word."""
    core = end
    while core > start and classes[core - 1] & CLOSER:
        core -= 1
    if not classes[end - 1] & OUR_QUOTE:
        if core == start or not classes[core - 1] & OUR_TERMINAL:
            return False
        if codes[core - 1] == 8230:
            if core - start < 2 or codes[core - 2] != 8230:
                return False
        elif _ends_in_ellipsis(codes, start, core, 1):
            return False
    num_words, num_characters, run, inside = 0, 0, 0, False
    for at in range(start, end):
        kind = classes[at]
        if kind & SPACE:
            inside, run = False, 0
            continue
        num_words += 0 if inside else 1
        inside = True
        if kind & CHARACTER:
            num_characters += 1
            run = 0
        else:
            run += 1
        if run > 1000:
            return False
    return num_words >= 3 or num_characters >= 5


@_helper
def _ends_within(codes, classes, start, end):
    """Ends of sentences before the end of a line."""
    num, at = 0, start
    while at < end:
        code = codes[at]
        if code == 46 or code == 33 or code == 63:
            while at < end and (codes[at] == 46 or codes[at] == 33 or codes[at] == 63):
                at += 1
            while at < end and classes[at] & CLOSER:
                at += 1
            space = at
            while at < end and (codes[at] == 32 or codes[at] == 9 or codes[at] == 160):
                at += 1
            if at > space and at < end and not classes[at] & SPACE and not 97 <= codes[at] <= 122:
                num += 1
        elif classes[at] & WIDE_END:
            while at < end and classes[at] & WIDE_END:
                at += 1
            if codes[at - 1] != 8230 or (at - 1 > start and codes[at - 2] == 8230):
                while at < end and classes[at] & CLOSER:
                    at += 1
                num += 1 if at < end and not classes[at] & SPACE else 0
        else:
            at += 1
    return num


def sentences_unspaced(codes, classes, size, lines, num_lines, found):
    """As `sentences_spaced`, for texts in unspaced scripts: see quality.py. Lines end at line feeds."""
    num_sentences, lorem_ipsum, curly_bracket = 0, 0, 0
    start, number = 0, 0
    while start < size:
        end, curly = start, False
        while end < size and codes[end] != 10:
            curly = curly or codes[end] == 123
            end += 1
        left = _first_visible(classes, start, end)
        right = _behind_visible(classes, left, end)
        start = end + 1
        state = _I64(lines[number]) if number < num_lines else 0
        number += 1
        if right == left or state & REFUSED or not _survives(codes, classes, left, right):
            continue
        lorem_ipsum += 1 if state & LOREM_IPSUM else 0
        if state & JAVASCRIPT:
            continue
        curly_bracket += 1 if curly else 0
        if not state & POLICY:
            num_sentences += 1 + _ends_within(codes, classes, left, right)
    found[0], found[1], found[2] = num_sentences, lorem_ipsum, curly_bracket
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# MinHash


@_helper
def _lower_minima(shingles, size, multipliers, offsets, minima, num_permutations):
    for permutation in range(num_permutations):
        multiplier, offset, least = multipliers[permutation], offsets[permutation], minima[permutation]
        for idx in range(size):
            least = min(least, np.uint32(np.uint32(multiplier * shingles[idx]) + offset))
        minima[permutation] = least


@_helper
def _put(out, at, code):
    """Write a code point as UTF-8; the index behind it."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | code >> 6
        out[at + 1] = 0x80 | code & 63
        return at + 2
    if code < 0x10000:
        out[at] = 0xE0 | code >> 12
        out[at + 1] = 0x80 | code >> 6 & 63
        out[at + 2] = 0x80 | code & 63
        return at + 3
    out[at] = 0xF0 | code >> 18
    out[at + 1] = 0x80 | code >> 12 & 63
    out[at + 2] = 0x80 | code >> 6 & 63
    out[at + 3] = 0x80 | code & 63
    return at + 4


@_helper
def _put_token(value, tokens, num_tokens, shingles, num_shingles, multipliers, offsets, minima, num_permutations):
    """Put a token into the ring of the last five, and their hash into the buffer of shingles; how many wait there."""
    tokens[num_tokens % SHINGLE_NUM_TOKENS] = _mixed(value)
    if num_tokens + 1 < SHINGLE_NUM_TOKENS:
        return num_shingles
    return _put_shingle(
        tokens,
        num_tokens + 1,
        SHINGLE_NUM_TOKENS,
        shingles,
        num_shingles,
        multipliers,
        offsets,
        minima,
        num_permutations,
    )


@_helper
def _put_shingle(tokens, num_tokens, width, shingles, num_shingles, multipliers, offsets, minima, num_permutations):
    rolled = _ZERO
    for idx in range(num_tokens - width, num_tokens):
        rolled = rolled * _B + tokens[idx % SHINGLE_NUM_TOKENS]
    shingles[num_shingles] = np.uint32(_mixed(rolled) >> _S32)
    if num_shingles + 1 < SHINGLE_BUFFER:
        return num_shingles + 1
    _lower_minima(shingles, SHINGLE_BUFFER, multipliers, offsets, minima, num_permutations)
    return 0


def fold_and_sign(
    codes, size, table, several, is_folded, out, room, tokens, shingles, multipliers, offsets, minima, num_permutations
):  # fmt: skip
    """The normalised text in UTF-8, without spaces at its ends, and its MinHash signature: see minhash.py.

    Returns the bytes written to `out` (0: the text has no token, and `minima` mean nothing), or -1 where a character
    may join with its neighbours, or more than `room` bytes, and those of one more character, would be written.
    `is_folded`: the text is normalised already. `tokens` (5) and `shingles` are scratch.
    """
    for permutation in range(num_permutations):
        minima[permutation] = np.uint32(0xFFFFFFFF)
    length, num_tokens, num_shingles = 0, 0, 0
    value, inside, space = _ZERO, False, False
    for at in range(size):
        code = _I64(codes[at])
        if code < NUM_FOLDED_CODES:
            folded = _I64(table[code])
        elif is_folded:
            folded = code | (FOLDED_CHARACTER if code < END_OF_HAN else 0)
        else:
            return -1
        if folded & FOLDED_UNSAFE or length > room:
            return -1
        if folded & FOLDED_NONE:
            continue
        place, num_parts = -1, 1
        if folded & FOLDED_SEVERAL:
            place = folded & FOLDED_CODE
            num_parts = _I64(several[place])
        for part in range(1, num_parts + 1):
            if place >= 0:
                folded = _I64(several[place + part])
            character = folded & FOLDED_CHARACTER
            if inside and (folded == 0 or character):
                num_shingles = _put_token(
                    value, tokens, num_tokens, shingles, num_shingles, multipliers, offsets, minima, num_permutations
                )
                num_tokens += 1
                inside = False
            if folded == 0:
                space = True
                continue
            if space and length:
                out[length] = 32
                length += 1
            space = False
            length = _put(out, length, folded & FOLDED_CODE)
            value = (value if inside else _ZERO) * _B + _ONE
            value += _U64(48) if folded & FOLDED_DIGIT else _U64(folded & FOLDED_CODE)
            inside = True
            if character:
                num_shingles = _put_token(
                    value, tokens, num_tokens, shingles, num_shingles, multipliers, offsets, minima, num_permutations
                )
                num_tokens += 1
                inside = False
    if inside:
        num_shingles = _put_token(
            value, tokens, num_tokens, shingles, num_shingles, multipliers, offsets, minima, num_permutations
        )
        num_tokens += 1
    if 0 < num_tokens < SHINGLE_NUM_TOKENS:
        num_shingles = _put_shingle(
            tokens, num_tokens, num_tokens, shingles, num_shingles, multipliers, offsets, minima, num_permutations
        )
    _lower_minima(shingles, num_shingles, multipliers, offsets, minima, num_permutations)
    return length


def shingle_hashes(codes, size, table, tokens, out):
    """64-bit hashes of the shingles of a normalised text, digits kept, in its order; how many. `tokens` (5) is scratch.

    `table` has 0 for what parts words, and the bit of characters that are words by themselves.
    """
    value, inside, num_tokens, num = _ZERO, False, 0, 0
    for at in range(size + 1):
        code = _I64(codes[at]) if at < size else 32
        if code < NUM_FOLDED_CODES:
            flags = _I64(table[code])
        else:
            flags = code | (FOLDED_CHARACTER if code < END_OF_HAN else 0)
        character = flags & FOLDED_CHARACTER
        if inside and (flags == 0 or character):
            num = _put_whole_shingle(value, tokens, num_tokens, out, num)
            num_tokens += 1
            inside = False
        if flags == 0:
            continue
        value = (value if inside else _ZERO) * _B + _ONE + _U64(code)
        inside = True
        if character:
            num = _put_whole_shingle(value, tokens, num_tokens, out, num)
            num_tokens += 1
            inside = False
    if num_tokens < SHINGLE_NUM_TOKENS:
        rolled = _ZERO
        for idx in range(num_tokens):
            rolled = rolled * _B + tokens[idx]
        out[0] = _mixed(rolled)
        return 1
    return num


@_helper
def _put_whole_shingle(value, tokens, num_tokens, out, num):
    """Put a token into the ring of the last five, and their hash, if they are so many, into `out`; how many stand there."""
    tokens[num_tokens % SHINGLE_NUM_TOKENS] = _mixed(value)
    if num_tokens + 1 < SHINGLE_NUM_TOKENS:
        return num
    rolled = _ZERO
    for idx in range(num_tokens + 1 - SHINGLE_NUM_TOKENS, num_tokens + 1):
        rolled = rolled * _B + tokens[idx % SHINGLE_NUM_TOKENS]
    out[num] = _mixed(rolled)
    return num + 1


def fold_text(codes, size, table, several, out, room):
    """The characters that a text folds to (folding.py), written to `out`: twice their number, and 1 more where a
    look-alike letter is among them.

    Returns -1 where the interpreter must do it: for characters that may join with their neighbours, or are beyond the
    table, or become more than `room`.
    """
    num, kinds = 0, 0
    for at in range(size):
        code = _I64(codes[at])
        if code >= NUM_FOLDED_CODES or num > room:
            return -1
        folded = _I64(table[code])
        if folded & (FOLDED_NONE | FOLDED_UNSAFE | FOLDED_SEVERAL) == 0:
            kinds |= folded
            out[num] = folded & FOLDED_CODE
            num += 1
        elif folded & FOLDED_UNSAFE:
            return -1
        elif folded & FOLDED_SEVERAL:
            place = folded & FOLDED_CODE
            for part in range(place + 1, place + 1 + _I64(several[place])):
                kinds |= _I64(several[part])
                out[num] = _I64(several[part]) & FOLDED_CODE
                num += 1
    return 2 * num + (1 if kinds & FOLDED_LOOK_ALIKE else 0)


def without_dots(codes, size, table, max_dots):
    """Leave out up to `max_dots` dots between two Chinese characters, in place; the number of characters that stay.

    `table` has 1 for a dot and 2 for a Chinese character.
    """
    num, read = 0, 0
    while read < size:
        kind = _I64(table[_I64(codes[read])])
        if kind == 1 and num and _I64(table[_I64(codes[num - 1])]) == 2:
            end = read
            while end < size and _I64(table[_I64(codes[end])]) == 1:
                end += 1
            if end < size and end - read <= max_dots and _I64(table[_I64(codes[end])]) == 2:
                read = end
                continue
            while read < end:
                codes[num] = codes[read]
                num, read = num + 1, read + 1
            continue
        codes[num] = codes[read]
        num, read = num + 1, read + 1
    return num


# ---------------------------------------------------------------------------------------------------------------------
# Scripts


def count_scripts(codes, size, table, last_code, counts, num_scripts):
    """How many characters are of each script; `table` has the script of each code point up to `last_code`."""
    for script in range(num_scripts):
        counts[script] = 0
    for at in range(size):
        counts[_I64(table[min(_I64(codes[at]), last_code)])] += 1
    return 0


def scripts_of_lines(codes, size, table, last_code, weights, num_scripts, mains, counts, letters, of_line):
    """The script that most letters of each line are in, of equals the first, 0: none; the number of lines.

    A character counts as `weights` says. Writes to `mains` a line, to `counts` the characters of each script, to
    `letters` those of the lines that are mostly in it. `of_line` is scratch.
    """
    for script in range(num_scripts):
        counts[script], letters[script], of_line[script] = 0, 0, 0
    number = 0
    for at in range(size + 1):
        if at < size and codes[at] != 10:
            of_line[_I64(table[min(_I64(codes[at]), last_code)])] += 1
            continue
        main, most, total = 0, 0, 0
        for script in range(1, num_scripts):
            found = of_line[script]
            counts[script] += found
            total += found * weights[script]
            if found * weights[script] > most:
                main, most = script, found * weights[script]
        for script in range(num_scripts):
            of_line[script] = 0
        letters[main] += total
        mains[number] = main
        number += 1
    return number


# ---------------------------------------------------------------------------------------------------------------------
# Language


@_helper
def _row_of(keys, last, rows, key):
    """The value of a key that is hashed once more, -1: none."""
    slot = _I64(_mixed(key) & _U64(last))
    while keys[slot] != key:
        if keys[slot] == _ZERO:
            return -1
        slot = (slot + 1) & last
    return _I64(rows[slot])


@_helper
def _add_row(row, codes, norm_codes, centroids, norms, hidden):
    norm = norms[_I64(norm_codes[row])]
    for part in range(8):
        at = (part * 256 + _I64(codes[row * 8 + part])) * 2
        hidden[2 * part] += norm * centroids[at]
        hidden[2 * part + 1] += norm * centroids[at + 1]


@_helper
def _byte_of_word(text, start, end, place):
    """A byte of a word between angle brackets; `place` counts from the first bracket."""
    if place == 0:
        return 60
    return 62 if place > end - start else _I64(text[start + place - 1])


@_helper
def _add_word(
    text, start, end, word_keys, words_last, word_rows, pruned_keys, pruned_last, pruned_rows, num_words, bucket, minn,
    maxn, codes, norm_codes, centroids, norms, hidden,
):  # fmt: skip
    """Add a word that the model knows, and its n-grams that it knows; how many there are."""
    num, key = 0, _ZERO
    for at in range(start, end):
        key = key * _B + _U64(text[at]) + _ONE
    row = _row_of(word_keys, words_last, word_rows, key)
    if row >= 0:
        _add_row(row, codes, norm_codes, centroids, norms, hidden)
        num += 1
    size = end - start + 2
    for first in range(size):
        byte = _byte_of_word(text, start, end, first)
        if byte & 0xC0 == 0x80:
            continue
        value, place, length = 2166136261, first, 1
        while place < size and length <= maxn:
            byte = _byte_of_word(text, start, end, place)
            value = ((value ^ (byte | (0xFFFFFF00 if byte & 0x80 else 0))) * 16777619) & 0xFFFFFFFF
            place += 1
            while place < size and _byte_of_word(text, start, end, place) & 0xC0 == 0x80:
                byte = _byte_of_word(text, start, end, place)
                value = ((value ^ (byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
                place += 1
            if length >= minn and not (length == 1 and (first == 0 or place == size)):
                row = _row_of(pruned_keys, pruned_last, pruned_rows, _U64(value % bucket) + _ONE)
                if row >= 0:
                    _add_row(num_words + row, codes, norm_codes, centroids, norms, hidden)
                    num += 1
            length += 1
    return num


def language_scores(
    text, size, word_keys, words_last, word_rows, pruned_keys, pruned_last, pruned_rows, end_of_line, num_words,
    num_labels, bucket, minn, maxn, codes, norm_codes, centroids, norms, output, tree, hidden, nodes, scores,
):  # fmt: skip
    """The probability of each label, 0 below 1e-5, for one line that ends in a line feed: see lid.py.

    `hidden` (16) and `nodes` (twice the labels) are scratch.
    """
    for idx in range(16):
        hidden[idx] = np.float32(0)
    num, start = 0, 0
    for at in range(size):
        byte = text[at]
        if not (byte == 32 or 9 <= byte <= 13 or byte == 0):
            continue
        if at > start:
            num += _add_word(
                text, start, at, word_keys, words_last, word_rows, pruned_keys, pruned_last, pruned_rows, num_words,
                bucket, minn, maxn, codes, norm_codes, centroids, norms, hidden,
            )  # fmt: skip
        start = at + 1
        if byte == 10:
            break
    _add_row(end_of_line, codes, norm_codes, centroids, norms, hidden)
    share = np.float32(1.0 / (num + 1))
    for idx in range(16):
        hidden[idx] *= share
    root = 2 * num_labels - 2
    nodes[root] = np.float32(0)
    for node in range(root, num_labels - 1, -1):
        product = np.float32(0)
        for idx in range(16):
            product += output[(node - num_labels) * 16 + idx] * hidden[idx]
        right = np.float32(1.0 / np.float64(np.float32(1) + math.exp(-product)))
        left = np.float32(1.0 - np.float64(right))
        nodes[_I64(tree[2 * node])] = nodes[node] + np.float32(math.log(np.float64(left) + 1e-5))
        nodes[_I64(tree[2 * node + 1])] = nodes[node] + np.float32(math.log(np.float64(right) + 1e-5))
    least = math.log(1e-5)
    for label in range(num_labels):  # logarithms are of a little more than the value, so it may exceed 1
        probability = math.exp(np.float64(nodes[label])) if nodes[label] >= least else 0.0
        scores[label] = np.float32(min(probability, 1.0))
    return num + 1
