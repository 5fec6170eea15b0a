"""The shape of a fastText model file, checked without the library: on a damaged file that hangs, crashes, or answers.

The layout is that of fastText's own writer, versions 11 and 12: header, arguments, dictionary, input and output matrix,
each dense or product-quantised (arXiv:1612.03651). Little-endian throughout.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import ConfigError

_MAGIC = 793712314
_VERSIONS = (11, 12)
_SUPERVISED = 3
_LOSSES = (1, 2, 3, 4)
_MAX_COUNT = 10**15
"""Of a word: from here on, the library never ends to build its tree of labels."""
_NUM_CENTROIDS = 256
_FLOAT_NUM_BYTES = 4
_MAX_NUM_ENTRIES = 1 << 30
_MAX_NGRAM = 100
"""Characters, or words, of the longest n-grams: many times what anybody trains with, and few enough to end."""


def labels_of(path: Path) -> tuple[str, ...]:
    """The labels of a supervised model, once its file is seen to be whole.

    Raises ConfigError for a file that cannot be read, is no fastText model, has another task, or is cut off or padded.
    """
    try:
        with _mapped(path) as data:
            return _Reader(data).labels()
    except OSError as error:
        raise ConfigError(
            f"got {path}, which cannot be read ({error.strerror}), wanted a fastText model: name one."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"got {path}, which is no whole supervised fastText model ({error}), wanted a .bin or .ftz file: fetch it again."
        ) from error


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


class _Reader:
    """A position in a model file. Every method raises ValueError where the file is not as it should be."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def labels(self) -> tuple[str, ...]:
        magic, version = self.take("<ii")
        if magic != _MAGIC or version not in _VERSIONS:
            raise ValueError("it does not begin like one")
        # dimension, window, epochs, least count, negatives, word n-grams, loss, task, buckets, character n-grams from, to
        dim, *_, word_ngrams, loss, model, bucket, minn, maxn, _, _ = self.take("<12id")
        if model != _SUPERVISED:
            raise ValueError("it holds word vectors and no labels")
        if loss not in _LOSSES:
            raise ValueError(f"there is no loss {loss}")
        size, num_words, num_labels, _num_tokens, num_pruned = self.take("<iiiqq")
        if not (dim > 0 and bucket >= 0 and 0 < num_labels <= size == num_words + num_labels < _MAX_NUM_ENTRIES):
            raise ValueError("its counts do not go together")
        has_ngrams = maxn > 0 or word_ngrams > 1
        if not (0 <= minn <= maxn < _MAX_NGRAM and word_ngrams < _MAX_NGRAM and (bucket > 0 or not has_ngrams)):
            raise ValueError("its n-grams cannot be")
        labels = self.entries(size, num_labels)
        self.skip(8 * max(num_pruned, 0))
        is_quantised = self.flag()
        # A pruned dictionary has as many n-grams as are left of it, another one a row for each bucket.
        num_rows = num_words + (num_pruned if num_pruned >= 0 else bucket)
        self.matrix(num_rows, dim, quantised=is_quantised)
        output_quantised = self.flag()
        self.matrix(num_labels, dim, quantised=is_quantised and output_quantised)
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes too many")
        return labels

    def entries(self, size: int, num_labels: int) -> tuple[str, ...]:
        labels = []
        for _ in range(size):
            end = self.data.find(b"\0", self.at)
            if end < 0:
                raise ValueError("it is cut off")
            word = self.data[self.at : end]
            self.at = end + 1
            count, kind = self.take("<qb")
            if not 0 <= count < _MAX_COUNT or kind not in (0, 1):
                raise ValueError("a word cannot be")
            if kind == 1:
                labels.append(word.decode())
        if len(labels) != num_labels:
            raise ValueError("its labels do not add up")
        return tuple(labels)

    def matrix(self, num_rows: int, num_columns: int, *, quantised: bool) -> None:
        if not quantised:
            self.shape(num_rows, num_columns)
            self.skip(num_rows * num_columns * _FLOAT_NUM_BYTES)
            return
        has_norms = self.flag()
        self.shape(num_rows, num_columns)
        (num_codes,) = self.take("<i")
        self.skip(num_codes)
        num_parts = self.quantiser(num_columns)
        if num_codes != num_rows * num_parts:
            raise ValueError("its codes do not go with its rows")
        if has_norms:
            self.skip(num_rows)
            self.quantiser(1)

    def shape(self, num_rows: int, num_columns: int) -> None:
        if self.take("<qq") != (num_rows, num_columns):
            raise ValueError("a matrix is not as large as its dictionary")

    def quantiser(self, num_columns: int) -> int:
        """The number of parts that a row is cut into."""
        dim, num_parts, part, last_part = self.take("<4i")
        if dim != num_columns or part < 1 or num_parts < 1 or (num_parts - 1) * part + last_part != dim:
            raise ValueError("a quantiser does not go with its matrix")
        self.skip(dim * _NUM_CENTROIDS * _FLOAT_NUM_BYTES)
        return num_parts

    def flag(self) -> bool:
        (value,) = self.take("<?")
        return bool(value)

    def take(self, layout: str) -> tuple[int, ...]:
        start = self.at
        self.skip(struct.calcsize(layout))
        return struct.unpack_from(layout, self.data, start)

    def skip(self, num_bytes: int) -> None:
        if num_bytes < 0 or self.at + num_bytes > len(self.data):
            raise ValueError("it is cut off")
        self.at += num_bytes
