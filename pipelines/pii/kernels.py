"""The loop over the characters of a text that finds what is worth a look, to be compiled: see pipelines/machine_code.py.

Only loops.py imports this module, and only where nothing is kept yet, since numba takes half a second to import.
Integers alone, no exceptions, no memory of its own. Arguments are pointers without bounds: who calls gives them room
enough, and no array twice. Indices are in code points.
"""

# mypy: ignore-errors
# Types are those of loops.SIGNATURES and what follows from them; a type checker has no words for pointers.

import numba
import numpy as np

from pipelines.pii.classes import (
    DIGIT,
    EVENT,
    FOUND_CLUSTERS,
    FOUND_DIGITS,
    FOUND_FLAGS,
    FOUND_IBANS,
    FOUND_RUNS,
    HAN,
    HEXADECIMAL,
    IN_RUN,
    IN_WORD,
    IPV4,
    IPV6,
    LETTER,
    MAX_WORD_NUM_CHARS,
    MIDDLE_DOT,
    MIN_CLUSTER_DIGITS,
    MIN_RUN_NUM_CHARS,
    NUM_ASCII,
    SEPARATOR,
    STARTS_WORD,
    WIDE,
    WORD_SHIFT,
)

_I64 = np.int64

_helper = numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_helper
def _class_of(classes, code):
    return _I64(classes[code]) if code < NUM_ASCII else EVENT


@_helper
def _is_word(codes, size, at, words, number):
    """Whether a word stands here, whatever its case."""
    for offset in range(MAX_WORD_NUM_CHARS):
        wanted = _I64(words[number * MAX_WORD_NUM_CHARS + offset])
        if wanted == 0:
            return True
        if at + offset >= size:
            return False
        code = _I64(codes[at + offset])
        if (code | 32 if 65 <= code <= 90 else code) != wanted:
            return False
    return True


@_helper
def _kind_beyond(code):
    """HAN or WIDE, as classes.py says, of a character that is not ASCII; else 0."""
    if 0x3400 <= code < 0xA000:
        return HAN
    if code == 0xA0 or code == 0x2007 or code == 0x2009 or code == 0x202F or code == 0x3000:
        return WIDE
    return WIDE if 0x2010 <= code <= 0x2013 or 0xFF08 <= code <= 0xFF5A else 0


@_helper
def _are_separators(codes, classes, start, end):
    for at in range(start, end):
        code = _I64(codes[at])
        if code != MIDDLE_DOT and not _class_of(classes, code) & SEPARATOR:
            return False
    return True


@_helper
def _has_colon_near(codes, classes, at):
    """Whether a colon stands before the one here, at most four hexadecimal digits between."""
    for before in range(at - 1, max(at - 6, -1), -1):
        code = _I64(codes[before])
        if code == 58:
            return True
        if not _class_of(classes, code) & HEXADECIMAL:
            return False
    return False


@_helper
def _is_iban_start(codes, classes, at):
    """Whether two letters and two digits, of which the last stands here, begin a word."""
    if at < 3 or not _class_of(classes, _I64(codes[at - 1])) & DIGIT:
        return False
    both = _class_of(classes, _I64(codes[at - 3])) & _class_of(classes, _I64(codes[at - 2]))
    return both & LETTER and (at == 3 or not _class_of(classes, _I64(codes[at - 4])) & IN_WORD)


def find_places(codes, size, classes, word_starts, words, clusters, runs, ibans, found):
    """Fill `clusters` and `runs` with (start, end), `ibans` with starts, and `found`: see `runs.Scan`.

    `classes` and `word_starts` are of ASCII: bits of a character, and which of the `words` start with it.
    """
    num_clusters, num_runs, num_ibans, num_digits, flags = 0, 0, 0, 0, 0
    cluster, last_digit, cluster_digits = 0, 0, 0
    run = 0  # where the unbroken run began that may be open
    dot, num_dots, digits_at_dot = -9, 0, 0  # the last dot, its place in a row of short numbers between dots
    for at in range(size):
        code = _I64(codes[at])
        kind = _class_of(classes, code)
        if kind & EVENT == 0:
            continue
        if kind & DIGIT:
            if cluster_digits and (at - last_digit > 4 or not _are_separators(codes, classes, last_digit + 1, at)):
                if cluster_digits >= MIN_CLUSTER_DIGITS:
                    clusters[2 * num_clusters], clusters[2 * num_clusters + 1] = cluster, last_digit + 1
                    num_clusters += 1
                cluster_digits = 0
            if cluster_digits == 0:
                cluster = at
            if num_dots >= 3 and at == dot + 1:
                flags |= IPV4
            if _is_iban_start(codes, classes, at):
                ibans[num_ibans] = at - 3
                num_ibans += 1
            num_digits += 1
            cluster_digits += 1
            last_digit = at
            continue
        if not kind & IN_RUN:
            if at - run >= MIN_RUN_NUM_CHARS:
                runs[2 * num_runs], runs[2 * num_runs + 1] = run, at
                num_runs += 1
            run = at + 1
        if code == 46:
            is_number = 2 <= at - dot <= 4 and num_digits - digits_at_dot == at - dot - 1
            num_dots = num_dots + 1 if is_number else 1
            dot, digits_at_dot = at, num_digits
        elif code == 58:
            if _has_colon_near(codes, classes, at):
                flags |= IPV6
        elif code >= NUM_ASCII:
            flags |= _kind_beyond(code)
        if kind & STARTS_WORD:
            starts, number = _I64(word_starts[code]), 0
            while starts:
                if starts & 1 and _is_word(codes, size, at, words, number):
                    flags |= 1 << (WORD_SHIFT + number)
                starts >>= 1
                number += 1
    if cluster_digits >= MIN_CLUSTER_DIGITS:
        clusters[2 * num_clusters], clusters[2 * num_clusters + 1] = cluster, last_digit + 1
        num_clusters += 1
    if size - run >= MIN_RUN_NUM_CHARS:
        runs[2 * num_runs], runs[2 * num_runs + 1] = run, size
        num_runs += 1
    found[FOUND_CLUSTERS], found[FOUND_RUNS], found[FOUND_IBANS] = num_clusters, num_runs, num_ibans
    found[FOUND_DIGITS], found[FOUND_FLAGS] = num_digits, flags
    return 0
