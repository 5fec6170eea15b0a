"""The compiled loop that learns merges. Pointers as in signals/kernels.py: nothing is allocated here."""

# mypy: ignore-errors
# Types are those of loops.SIGNATURES and what follows from them; a type checker has no words for pointers.

import numba
import numpy as np

_I64, _U64 = np.int64, np.uint64
_BASE = np.uint64(0x9E3779B97F4A7C15)
_ONE, _ZERO = np.uint64(1), np.uint64(0)
_S29, _S32 = np.uint64(29), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)

_helper = numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_helper
def _slot_of(pairs, mask, pair):
    """Where a pair is, or would be put: a pair is stored plus 1, so that 0 is an empty slot."""
    key = pair + _ONE
    mixed = pair * _BASE
    slot = _I64((mixed ^ (mixed >> _S29)) & _U64(mask))
    while pairs[slot] != _ZERO and pairs[slot] != key:
        slot = (slot + 1) & mask
    return slot


@_helper
def _is_before(counts, pairs, a, b):
    """The order of the queue: the more frequent pair first, of equals the one with the smaller tokens."""
    return counts[a] > counts[b] or (counts[a] == counts[b] and pairs[a] < pairs[b])


@_helper
def _push(heap_counts, heap_pairs, size, count, pair):
    at = size
    while at > 0:
        up = (at - 1) >> 1
        if heap_counts[up] > count or (heap_counts[up] == count and heap_pairs[up] <= pair):
            break
        heap_counts[at], heap_pairs[at] = heap_counts[up], heap_pairs[up]
        at = up
    heap_counts[at], heap_pairs[at] = count, pair
    return size + 1


@_helper
def _pop(heap_counts, heap_pairs, size):
    """Take the first entry out; what is left is one less."""
    size -= 1
    count, pair = heap_counts[size], heap_pairs[size]
    at = 0
    while True:
        down = 2 * at + 1
        if down >= size:
            break
        if down + 1 < size and _is_before(heap_counts, heap_pairs, down + 1, down):
            down += 1
        if count > heap_counts[down] or (count == heap_counts[down] and pair <= heap_pairs[down]):
            break
        heap_counts[at], heap_pairs[at] = heap_counts[down], heap_pairs[down]
        at = down
    heap_counts[at], heap_pairs[at] = count, pair
    return size


@_helper
def _add(pairs, counts, heads, mask, nexts, words, num_nodes, pair, change, word):
    """Change a pair's count; where it grew, note the word. Returns the number of notes."""
    slot = _slot_of(pairs, mask, pair)
    if pairs[slot] == _ZERO:
        pairs[slot], counts[slot], heads[slot] = pair + _ONE, 0, -1
    counts[slot] += change
    if change > 0 and (heads[slot] < 0 or words[heads[slot]] != word):
        nexts[num_nodes], words[num_nodes] = heads[slot], word
        heads[slot] = num_nodes
        num_nodes += 1
    return num_nodes


def learn_merges(
    symbols, starts, sizes, frequencies, num_words,
    num_tokens, max_tokens, min_frequency, token_hashes, token_powers, known, known_mask, known_ids,
    pairs, counts, heads, mask, nexts, words, room, heap_counts, heap_pairs, touched, queue_room, merges
):  # fmt: skip
    """Merge the most frequent pair of neighbours until there are `max_tokens` tokens, or none is as frequent as asked.

    Word i is `symbols[starts[i]:starts[i] + sizes[i]]`, tokens by number, and is seen `frequencies[i]` times. `token_hashes`
    and `token_powers` (max_tokens) are a polynomial hash of each token's bytes and the base to the power of their
    number; `known` with `known_ids` a hash table of them, since two pairs may make one token. `pairs`, `counts` and `heads`
    (mask + 1) are a hash table of pairs, `nexts` and `words` (room) lists of the words that each is in, `heap_*` (queue_room)
    the queue, `touched` (queue_room) scratch. Each merge is written to `merges`: left, right, result.

    Returns the number of merges, or where something is too small: -1 for the lists or the queue, -2 for the table of pairs.
    """
    num_nodes = _I64(0)
    num_pairs = _I64(0)
    for word in range(num_words):
        first = _I64(starts[word])
        for at in range(first, first + _I64(sizes[word]) - 1):
            pair = _U64(symbols[at]) << _S32 | _U64(symbols[at + 1])
            slot = _slot_of(pairs, mask, pair)
            if pairs[slot] == _ZERO:
                num_pairs += 1
                if 2 * num_pairs > mask:
                    return -2
            if num_nodes == room:
                return -1
            num_nodes = _add(pairs, counts, heads, mask, nexts, words, num_nodes, pair, _I64(frequencies[word]), word)
    size = _I64(0)
    for slot in range(mask + 1):
        if pairs[slot] != _ZERO and counts[slot] > 0:
            if size == queue_room:
                return -1
            size = _push(heap_counts, heap_pairs, size, counts[slot], pairs[slot] - _ONE)
    num_merges = _I64(0)
    while num_tokens < max_tokens and size > 0:
        count, pair = heap_counts[0], heap_pairs[0]
        size = _pop(heap_counts, heap_pairs, size)
        slot = _slot_of(pairs, mask, pair)
        if counts[slot] != count:  # room for it was just made
            size = _push(heap_counts, heap_pairs, size, counts[slot], pair)
            continue
        if count < 1 or count < min_frequency:
            break
        left, right = _I64(pair >> _S32), _I64(pair & _LOW)
        hashed = token_hashes[left] * token_powers[right] + token_hashes[right]
        place = _I64((hashed ^ (hashed >> _S29)) & _U64(known_mask))
        while known[place] != _ZERO and known[place] != hashed:
            place = (place + 1) & known_mask
        if known[place] == hashed:
            token = _I64(known_ids[place])
        else:
            token = num_tokens
            known[place], known_ids[place] = hashed, token
            token_hashes[token], token_powers[token] = hashed, token_powers[left] * token_powers[right]
            num_tokens += 1
        merges[3 * num_merges], merges[3 * num_merges + 1], merges[3 * num_merges + 2] = left, right, token
        num_merges += 1
        num_touched = _I64(0)
        node = heads[slot]
        heads[slot] = -1
        while node >= 0:
            word = _I64(words[node])
            node = nexts[node]
            first, frequency = _I64(starts[word]), _I64(frequencies[word])
            last = first + _I64(sizes[word])
            if room - num_nodes < 2 * (last - first):
                return -1
            if 2 * (num_pairs + 2 * (last - first)) > mask:
                return -2
            read, write = first, first
            while read < last:
                if read + 1 < last and _I64(symbols[read]) == left and _I64(symbols[read + 1]) == right:
                    if write > first:
                        before = _U64(symbols[write - 1])
                        num_nodes = _add(
                            pairs, counts, heads, mask, nexts, words, num_nodes, before << _S32 | _U64(left), -frequency, word
                        )  # fmt: skip
                        made = before << _S32 | _U64(token)
                        num_pairs += _I64(pairs[_slot_of(pairs, mask, made)] == _ZERO)
                        num_nodes = _add(pairs, counts, heads, mask, nexts, words, num_nodes, made, frequency, word)
                        if num_touched == queue_room:
                            return -1
                        touched[num_touched] = made
                        num_touched += 1
                    if read + 2 < last:
                        after = _U64(symbols[read + 2])
                        num_nodes = _add(
                            pairs, counts, heads, mask, nexts, words, num_nodes, _U64(right) << _S32 | after, -frequency, word
                        )  # fmt: skip
                        made = _U64(token) << _S32 | after
                        num_pairs += _I64(pairs[_slot_of(pairs, mask, made)] == _ZERO)
                        num_nodes = _add(pairs, counts, heads, mask, nexts, words, num_nodes, made, frequency, word)
                        if num_touched == queue_room:
                            return -1
                        touched[num_touched] = made
                        num_touched += 1
                    symbols[write] = token
                    read += 2
                else:
                    symbols[write] = symbols[read]
                    read += 1
                write += 1
            sizes[word] = write - first
        for idx in range(num_touched):
            slot = _slot_of(pairs, mask, touched[idx])
            # pushed once: its count is marked as negative until the round is over
            if counts[slot] > 0:
                if size == queue_room:
                    return -1
                size = _push(heap_counts, heap_pairs, size, counts[slot], touched[idx])
                counts[slot] = -counts[slot]
        for idx in range(num_touched):
            slot = _slot_of(pairs, mask, touched[idx])
            if counts[slot] < 0:
                counts[slot] = -counts[slot]
    return num_merges
