"""Train, validation and test: by a hash of the page's name, so that a corpus grows without moving a document.

A page is named by its URL, so that its next version lies where the one before lay; without one by its `doc_id`.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from pipelines.dedup.versions import Indices

TRAIN, VALIDATION, TEST = "train", "validation", "test"

Splits = npt.NDArray[np.str_]


def hashed_splits(
    names: Iterable[str], representatives: Indices, validation_ratio: float, test_ratio: float, seed: int
) -> Splits:
    """(names,) the split of each.

    If the hash leaves one without a representative although it is wanted, it gets the one whose hash comes nearest,
    until the corpus has grown past the need: with ratios of 0.05 that is a matter of the first hundred documents.
    """
    place = np.frombuffer(b"".join(_digests(names, seed)), "<u8")
    limits = [math.ldexp(ratio, 64) for ratio in (validation_ratio, validation_ratio + test_ratio)]
    split = np.where(place < np.uint64(limits[0]), VALIDATION, np.where(place < np.uint64(limits[1]), TEST, TRAIN))
    in_order = representatives[np.argsort(place[representatives], kind="stable")]
    for name, ratio in ((VALIDATION, validation_ratio), (TEST, test_ratio)):
        in_train = in_order[split[in_order] == TRAIN]
        if ratio and len(in_train) > 1 and not (split[in_order] == name).any():
            split[in_train[0]] = name
    if len(in_order) and not (split[in_order] == TRAIN).any():
        split[in_order[-1]] = TRAIN
    return split


def _digests(names: Iterable[str], seed: int) -> Iterator[bytes]:
    """Eight bytes of each name."""
    keyed = hashlib.blake2b(digest_size=8, key=str(seed).encode())
    for name in names:
        blake2b = keyed.copy()
        blake2b.update(name.encode("utf-8", "surrogatepass"))
        yield blake2b.digest()


def without_leaks(split: Splits, later: Indices, earlier: Indices) -> Splits:
    """Move held-out texts to train until none is like a text in another split.

    Where near-duplicates stay, a text may be like two that are not like each other and lie in different splits.
    """
    split = split.copy()
    while (apart := split[later] != split[earlier]).any():
        split[later[apart]] = split[earlier[apart]] = TRAIN
    return split
