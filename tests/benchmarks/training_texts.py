"""Real prose for the training benchmark, as token shards of a tokenizer that was trained on it.

English: Jane Austen's novels and NLTK's film reviews. Chinese: Song ci and other classics. Both lie in the folder of test
data (`CORPUSMILL_TEST_DATA`). A document in twenty is held out, by a hash of its text.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from llm.data import TokenData
from pipelines.bpe import train_bpe
from pipelines.encoding import Encoder
from pipelines.schemas import TOKENS

LANGUAGES = ("en", "zh")
_DOCUMENT_NUM_CHARS = 4000
_HELD_OUT = 20


def texts(data: Path, language: str) -> Iterator[str]:
    """The documents of a language, novels in pieces of about 4,000 characters."""
    if language == "en":
        for path in sorted((data / "en" / "jane-austen").glob("*.txt")):
            yield from _pieces(path.read_text(encoding="utf-8").split("\n\n"))
        with zipfile.ZipFile(data / "en" / "nltk_data" / "packages" / "corpora" / "movie_reviews.zip") as reviews:
            for name in sorted(name for name in reviews.namelist() if name.endswith(".txt")):
                yield reviews.read(name).decode("latin-1")
    else:
        for path in sorted((data / "zh" / "chinese-poetry").glob("*.jsonl")):
            rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            yield from ("\n".join(row.get("paragraphs") or row.get("content") or ()) for row in rows)


def token_data(data: Path, language: str, *, vocab_size: int, folder: Path) -> tuple[TokenData, TokenData]:
    """Training and validation tokens of a language, written below `folder` where they are not there yet."""
    path = folder / f"{language}-{vocab_size}.arrow"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        documents = sorted({text for text in texts(data, language) if text}, key=_digest)
        encoder = Encoder.load(train_bpe(documents, vocab_size, 2))
        rows = [_row(text, encoder) for text in documents]
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, TOKENS) as writer:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=TOKENS))
    train, validation = (TokenData.open([path], split, digest=path.stem) for split in ("train", "validation"))
    return train, validation


def _row(text: str, encoder: Encoder) -> dict[str, object]:
    is_held_out = _digest(text)[-1] % _HELD_OUT == 0
    return {
        "doc_id": _digest(text).hex(),
        "split": "validation" if is_held_out else "train",
        "num_bytes": len(text.encode()),
        "tokens": [*encoder.encode_batch([text])[0].tolist(), encoder.eot_token],
    }


def _pieces(paragraphs: list[str]) -> Iterator[str]:
    piece = ""
    for paragraph in paragraphs:
        piece += paragraph + "\n\n"
        if len(piece) >= _DOCUMENT_NUM_CHARS:
            yield piece
            piece = ""
    yield piece


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
