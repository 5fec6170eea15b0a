"""The compiled loop of blocks.py. Imported where it is first called: numba takes 0.4 s."""

from typing import Any

import numpy as np
from numba import njit

from pipelines.extract.blocks import BLANK, CODE, HEADING, ITEM, OTHER, PARAGRAPH, ROW

NUM_FIELDS = 7
_LINK, _LINK_END, _HEADING, _PARAGRAPH, _CODE, _CODE_END, _BODY, _BODY_END, _NUMBER_END = 1, 2, 3, 4, 5, 6, 14, 15, 16
_MAX_CLOSERS = 3
_MAX_DIGITS = 7


def _codes(chars: str) -> Any:
    return np.array(sorted(map(ord, chars)), dtype=np.int64)


_ENDS = _codes(".!?…:;。！？：；")
_CLOSERS = _codes("\"'”’»)]）」』")

_kernel = njit(nogil=True, cache=True)


@_kernel
def _code_at(text: Any, at: int) -> tuple[int, int]:
    """The code point that starts here, and its bytes."""
    byte: Any = np.int64(text[at])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return (byte & 31) << 6 | (np.int64(text[at + 1]) & 63), 2
    if byte < 0xF0:
        return (byte & 15) << 12 | (np.int64(text[at + 1]) & 63) << 6 | (np.int64(text[at + 2]) & 63), 3
    code = (byte & 7) << 18 | (np.int64(text[at + 1]) & 63) << 12
    return code | (np.int64(text[at + 2]) & 63) << 6 | (np.int64(text[at + 3]) & 63), 4


@_kernel
def _is_among(codes: Any, code: int) -> bool:
    for idx in range(codes.size):
        if codes[idx] == code:
            return True
    return False


@_kernel
def _is_wide(code: int) -> bool:
    return (
        0x3040 <= code < 0x3100
        or 0x3400 <= code < 0xA000
        or 0xAC00 <= code < 0xD7B0
        or 0xF900 <= code < 0xFB00
        or 0x20000 <= code < 0x323B0
    )


@_kernel
def _ends_sentence(text: Any, start: int, end: int) -> bool:
    """A mark that ends a sentence, behind at most three closing quotes and brackets."""
    for _ in range(_MAX_CLOSERS + 1):
        at = end - 1
        while at > start and text[at] & 0xC0 == 0x80:
            at -= 1
        if at < start:
            return False
        code, _size = _code_at(text, at)
        if _is_among(_ENDS, code):
            return True
        if not _is_among(_CLOSERS, code):
            return False
        end = at
        if end <= start:
            return False
    return False


@_kernel
def _bullet_chars(text: Any, start: int, end: int) -> int:
    """Characters of the bullet, or of the number and its full stop, with the space after it; 0 where there is none."""
    if end - start > 3 and text[start] == 0xE2 and text[start + 1] == 0x80 and text[start + 2] == 0xA2:
        return 2 if text[start + 3] == 32 else 0
    at = start
    while at < end and at - start < _MAX_DIGITS and 48 <= text[at] <= 57:
        at += 1
    return at - start + 2 if at > start and at + 1 < end and text[at] == 46 and text[at + 1] == 32 else 0


@_kernel
def measure_lines(source: Any, clean: Any, fields: Any, bodies: Any) -> tuple[int, int]:
    """Fill `clean`, `fields` (start, end, kind, weight, characters, linked, ends a sentence) and `bodies` (start, end).

    Returns the numbers of lines and of clean bytes.
    """
    size, at, length, row = source.size, 0, 0, 0
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
                if byte == _LINK:
                    in_link = True
                elif byte == _LINK_END:
                    in_link = False
                elif byte == _HEADING:
                    is_heading = True
                elif byte == _PARAGRAPH:
                    is_paragraph = True
                elif byte == _CODE:
                    is_code = in_code = True
                elif byte == _CODE_END:
                    code_ends = True
                elif byte == _BODY or byte == _BODY_END:
                    number = 0
                    while at < size and 48 <= source[at] <= 57:
                        number = number * 10 + source[at] - 48
                        at += 1
                    at += int(at < size and source[at] == _NUMBER_END)
                    if number < bodies.shape[0]:
                        if byte == _BODY:
                            bodies[number, 0] = row
                        else:
                            bodies[number, 1] = row + int(first >= 0)
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
        kind = OTHER
        if first < 0:
            kind = CODE if is_code else BLANK
        elif is_code:
            kind = CODE
        elif is_heading:
            kind = HEADING
        elif bullet:
            kind = ITEM
        elif has_tab:
            kind = ROW
        elif is_paragraph:
            kind = PARAGRAPH
        fields[row, 0], fields[row, 1], fields[row, 2] = start, length, kind
        fields[row, 3], fields[row, 4] = stripped + 2 * num_wide, stripped - bullet
        fields[row, 5] = min(num_linked, stripped - bullet)
        fields[row, 6] = int(first >= 0 and _ends_sentence(clean, first, last))
        row += 1
        in_code = in_code and not code_ends
        if at <= size:
            clean[length] = 10
            length += 1
    return row, length
