"""Text to token ids and back: the one module that encodes.

gigatoken (80 to 150 MB/s a core, `tokenizers` 2) encodes with byte-level BPE of GPT-2's shape, the one our tests
compare id by id. Any other tokenizer.json is left to `tokenizers`.

Must not: read or write files, or turn a special token written in a page into that token.
"""

import functools
import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tokenizers
from gigatoken.gigatoken_rs import load_hf_json

from pipelines.errors import ConfigError

TokenIds = npt.NDArray[np.uint32]

END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>")
"""Names of the token that ends a document; the first that the tokenizer has is used."""

_GPT2_SPLITTING = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


class Encoder:
    """A tokenizer.json that is ready to encode. Make one with `Encoder.load`."""

    def __init__(self, spec: dict[str, Any]) -> None:
        added = spec["added_tokens"] or []
        special = {token["content"]: token["id"] for token in added if token["special"]}
        found = [name for name in END_OF_TEXT if name in special]
        if not found:
            raise ConfigError(
                f"got a tokenizer with special tokens {sorted(special)}, wanted one of {', '.join(END_OF_TEXT)} "
                "to end a document: add it to added_tokens."
            )
        self.eot_token: int = special[found[0]]
        """Id of the token that ends a document."""
        self.vocab_size: int = max(chain(spec["model"]["vocab"].values(), (token["id"] for token in added))) + 1
        """One more than the largest id."""
        self._spec = spec
        # A backend that knows no special token finds none in a page.
        self._plain = {**spec, "added_tokens": [token for token in added if not token["special"]]}
        self._gigatoken = _load_gigatoken(self._plain)
        if self.eot_token in self.encode_batch([found[0]])[0]:
            raise ConfigError(
                f"got a tokenizer that reads the text {found[0]} as its end-of-text token, wanted one that splits "
                "it: use byte-level BPE with GPT-2's pre-tokenizer."
            )

    @classmethod
    @functools.lru_cache(maxsize=1)  # the shards of a stage share one tokenizer, and loading takes as long as a shard
    def load(cls, tokenizer_json: str) -> Self:
        """Read a tokenizer.json. Raises ConfigError where it is none, or has no end-of-text token."""
        try:
            spec = json.loads(tokenizer_json)
            tokenizers_accepts = {"added_tokens", "model", "pre_tokenizer", "normalizer"} <= spec.keys()
            if not tokenizers_accepts or not spec["model"]["vocab"]:
                raise ConfigError(
                    "got JSON without a model and its vocabulary, wanted a tokenizer.json: write it anew."
                )
            return cls(spec)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ConfigError(
                f"got a tokenizer that cannot be read ({error}), wanted a tokenizer.json: replace it."
            ) from error

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text: uint32, on the calling thread, without an end-of-text token."""
        if self._gigatoken is None:
            encodings = (self._tokenizers.encode(text, add_special_tokens=False) for text in texts)
            return [np.array(encoding.ids, np.uint32) for encoding in encodings]
        # One by one it is as fast as in a batch, whose result would be of a library that takes 0.2 s to import.
        return [self._gigatoken.encode(text) for text in texts]

    def decode(self, token_ids: Sequence[int] | npt.NDArray[np.integer]) -> str:
        """Text of token ids, special tokens by name; ids that end within a character give U+FFFD."""
        return self._decoder.decode([int(token_id) for token_id in token_ids], skip_special_tokens=False)

    @functools.cached_property
    def _tokenizers(self) -> Any:
        return _load(self._plain)

    @functools.cached_property
    def _decoder(self) -> Any:
        return _load(self._spec)


def _load_gigatoken(spec: dict[str, Any]) -> Any | None:
    """None for what gigatoken cannot load, and for a shape whose ids our tests do not compare."""
    if not _has_gpt2_shape(spec):
        return None
    try:
        return load_hf_json(json.dumps(spec))
    except RuntimeError:
        return None


def _has_gpt2_shape(spec: dict[str, Any]) -> bool:
    splitting = spec["pre_tokenizer"] or {}
    return (
        spec["model"]["type"] == "BPE"
        and not spec["model"].get("dropout")
        and not spec["model"].get("byte_fallback")
        and not spec["model"].get("ignore_merges")
        and spec["normalizer"] is None
        and all(splitting.get(name) == value for name, value in _GPT2_SPLITTING.items())
        and not spec["added_tokens"]
    )


def _load(spec: dict[str, Any]) -> Any:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise ConfigError(
            f"got a tokenizer that cannot be read ({error}), wanted a tokenizer.json: replace it."
        ) from error
