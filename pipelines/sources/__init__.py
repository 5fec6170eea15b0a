"""Where pages come from: files of WARC records or of text rows, read as PAGE batches.

`READERS` names the reader of each kind of file; each takes a path and its own options.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import pyarrow as pa

from pipelines.sources.text import read_rows
from pipelines.sources.warc import read_pages

Reader = Callable[..., Iterator[pa.RecordBatch]]

READERS: Mapping[str, Reader] = MappingProxyType({"warc": read_pages, "text": read_rows})

__all__ = ["READERS", "Reader", "read_pages", "read_rows"]
