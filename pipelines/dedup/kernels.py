"""The compiled loops over texts that may be near-duplicates, and over their lines. Pointers as in signals/kernels.py: nothing is allocated here."""

# mypy: ignore-errors
# Types are those of loops.SIGNATURES; a type checker has no words for pointers.

import numpy as np

_I64, _U64, _F32 = np.int64, np.uint64, np.float32
_PRIME, _S32 = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


def walk(
    num_texts, starts, buckets, bucket_starts, counts, members, max_members, signature_of, signatures,
    num_minima, min_equal, min_similarity, known_keys, known_values, num_known, keeps_all, stamps, leaders,
    similarities, pair_keys, pair_known, room
):  # fmt: skip
    """Visit texts in order; give each the most similar earlier leader, the earliest of equals, or make it one.

    A text is its place among those that share a bucket with any other, the earliest first; the i-th lies in
    `buckets[starts[i]:starts[i + 1]]`. Leaders of a bucket are put into `members` from `bucket_starts[bucket]` on, no
    more than `max_members`. The similarity of two is `known_values` under `later << 32 | earlier`,
    or else the share of equal minima, a guess. Two of which fewer than `min_equal` minima are equal are not alike. Each pair
    that was looked at goes into `pair_keys`, with its place among the known, or -1, in `pair_known`. `keeps_all`: every
    text is compared with those after it, though only leaders lead.

    Returns the number of pairs, or -1 where there are more than `room`.
    """
    num_pairs = _I64(0)
    for at in range(num_texts):
        best, best_similarity = _I64(-1), _F32(0.0)
        for entry in range(starts[at], starts[at + 1]):
            bucket = _I64(buckets[entry])
            first = _I64(bucket_starts[bucket])
            for place in range(first, first + _I64(counts[bucket])):
                other = _I64(members[place])
                if _I64(stamps[other]) == at + 1:
                    continue
                stamps[other] = at + 1
                mine, theirs = _I64(signature_of[at]) * num_minima, _I64(signature_of[other]) * num_minima
                equal = _I64(0)
                for idx in range(num_minima):
                    equal += _I64(signatures[mine + idx] == signatures[theirs + idx])
                if equal < min_equal:
                    continue
                if num_pairs == room:
                    return _I64(-1)
                key = at << 32 | other
                low, high = _I64(0), num_known
                while low < high:
                    middle = (low + high) >> 1
                    if _I64(known_keys[middle]) < key:
                        low = middle + 1
                    else:
                        high = middle
                found = low if low < num_known and _I64(known_keys[low]) == key else _I64(-1)
                pair_keys[num_pairs], pair_known[num_pairs] = key, found
                num_pairs += 1
                similarity = _F32(equal / num_minima) if found < 0 else known_values[found]
                if _I64(leaders[other]) == other and (
                    similarity > best_similarity or (similarity == best_similarity and other < best)
                ):
                    best, best_similarity = other, similarity
        if best >= 0 and best_similarity >= min_similarity[0]:
            leaders[at], similarities[at] = best, best_similarity
        else:
            leaders[at], similarities[at] = at, _F32(1.0)
        if keeps_all or _I64(leaders[at]) == at:
            for entry in range(starts[at], starts[at + 1]):
                bucket = _I64(buckets[entry])
                if _I64(counts[bucket]) < max_members:
                    members[_I64(bucket_starts[bucket]) + _I64(counts[bucket])] = at
                    counts[bucket] += 1
    return num_pairs


def hash_lines(text, offsets, num_rows, seeds, min_bytes, counts, numbers, hashes, sizes):
    """The lines of texts in UTF-8, spaces at their ends left out, that have `min_bytes` or more; how many in all.

    Row i is `text[offsets[i]:offsets[i + 1]]`. `seeds` (rows) start the hashes of a row's lines; 0: none is listed. Writes to
    `counts` how many each row has, and of each line its number, its hash, and its characters with the line feed.
    """
    num = _I64(0)
    for row in range(num_rows):
        before = num
        start, end = _I64(offsets[row]), _I64(offsets[row + 1])
        number = _I64(0)
        while seeds[row] != _U64(0) and start <= end:
            stop = start
            num_chars = _I64(1)
            while stop < end and text[stop] != 10:
                num_chars += _I64((text[stop] & 0xC0) != 0x80)
                stop += 1
            first, last = start, stop
            while first < last and (text[first] == 32 or text[first] == 9 or text[first] == 13):
                first += 1
            while last > first and (text[last - 1] == 32 or text[last - 1] == 9 or text[last - 1] == 13):
                last -= 1
            if last - first >= min_bytes:
                hashed = seeds[row]
                for at in range(first, last):
                    hashed = (hashed ^ _U64(text[at])) * _PRIME
                    hashed ^= hashed >> _S32
                numbers[num], hashes[num], sizes[num] = number, hashed, num_chars
                num += 1
            start = stop + 1
            number += 1
        counts[row] = num - before
    return num
