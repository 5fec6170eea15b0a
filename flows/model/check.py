"""An exported model against the one that it was written from, before its folder gets its name.

Where transformers is installed and knows the layout, what it loads is compared; otherwise what our own reader loads.
"""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.encoding import Encoder
from pipelines.errors import IntegrityError

if TYPE_CHECKING:
    from torch import Tensor

    from llm.data import TokenDocument
    from llm.model import GPT

MAX_LOGIT_DIFFERENCE = 1e-4
"""In fp32: the rounding of sums that are made in another order."""

_NUM_WINDOWS = 3
"""Of each writing: with Chinese characters, and without."""
_NUM_DOCUMENTS = 2_000
"""Looked through for them."""
_NUM_GENERATED = 24
_HARD_TEXTS = (
    "",
    " ",
    "  two  spaces\n\n\ttab\r\n",
    "don't we'll THEY'RE",
    "3.14159 1,000,000 0x7f ½ ²",
    "水车转动，磨坊里磨出了白面。",
    "漢字とかな、한글",
    "naïve café e\u0301 \u00a0\u200b\ufeff",
    "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🙂",
    "\x00\x07\x1b[0m",
    "if (a<b) { return x[i]->y; }",
    "Ὀδυσσεύς العربية हिन्दी",
    "<|endoftext|> in a page is text",
    "a" * 300,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A model and a tokenizer as a library loads them."""

    by: str
    logits: Callable[[list[int]], "Tensor"]
    """Token ids (T,) to (T, V)."""
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    go_on: Callable[[list[int], int], list[int]]
    """The likeliest tokens after a prompt, so many."""


def check_export(folder: Path, model: "GPT", encoder: Encoder, documents: "Iterable[TokenDocument]") -> dict[str, Any]:
    """Compare logits and a greedy generation on documents, and token ids of hard texts; gives what was found.

    Raises IntegrityError that names what differs.
    """
    loaded = _loaded(folder)
    windows = _windows(model, encoder, documents)
    texts = (*_HARD_TEXTS, *(encoder.decode(ids[1:]) for ids in windows))
    for text in texts:
        _check_ids(loaded, encoder, text)
    difference = max(_logit_difference(loaded, model, ids) for ids in windows)
    if not difference < MAX_LOGIT_DIFFERENCE:
        raise IntegrityError(
            f"got logits from {loaded.by} that differ by {difference:.1e} from the checkpoint's; wanted less than "
            f"{MAX_LOGIT_DIFFERENCE:.0e}: the folder was not written, keep the checkpoint."
        )
    num_generated = max(_check_generation(loaded, model, ids) for ids in windows)
    return {
        "loaded_by": loaded.by,
        "max_logit_difference": difference,
        "num_windows": len(windows),
        "num_texts": len(texts),
        "num_generated": num_generated,
    }


def _windows(model: "GPT", encoder: Encoder, documents: "Iterable[TokenDocument]") -> list[list[int]]:
    """The beginnings of some held-out documents, in Chinese and in other writings; the model's context long at most."""
    chinese: list[list[int]] = []
    others: list[list[int]] = []
    for document in islice(documents, _NUM_DOCUMENTS):
        ids = [encoder.eot_token, *document.tokens[: model.config.block_size - 1].tolist()]
        is_chinese = any("\u4e00" <= char <= "\u9fff" for char in encoder.decode(ids))
        (chinese if is_chinese else others).append(ids)
        if min(len(chinese), len(others)) >= _NUM_WINDOWS:
            break
    return [*chinese[:_NUM_WINDOWS], *others[:_NUM_WINDOWS]] or [[encoder.eot_token]]


def _check_ids(loaded: Loaded, encoder: Encoder, text: str) -> None:
    wanted = encoder.encode_batch([text])[0].tolist()
    got = loaded.encode(text)
    if got != wanted or loaded.decode(got) != encoder.decode(wanted):
        raise IntegrityError(
            f"got token ids {got[:12]} from {loaded.by} for {text[:40]!r}; wanted {wanted[:12]}, as in training: the "
            "folder was not written, keep the checkpoint and its tokenizer.json."
        )


def _logit_difference(loaded: Loaded, model: "GPT", ids: list[int]) -> float:
    got, wanted = loaded.logits(ids), _logits(model, ids)
    if got.shape != wanted.shape:
        raise IntegrityError(
            f"got logits {tuple(got.shape)} from {loaded.by}; wanted {tuple(wanted.shape)}: the folder was not written."
        )
    return float((got - wanted).abs().max())


def _check_generation(loaded: Loaded, model: "GPT", ids: list[int]) -> int:
    """Each token that is chosen must be the likeliest for us, too, but for rounding; gives how many were looked at."""
    size = model.config.block_size
    prompt = ids[: max(1, min(len(ids), size - _NUM_GENERATED))]
    chosen = loaded.go_on(prompt, min(_NUM_GENERATED, size - len(prompt)))
    scores = _logits(model, [*prompt, *chosen])[len(prompt) - 1 : -1]
    for place, (token, row) in enumerate(zip(chosen, scores, strict=True)):
        if row.max() - row[token] > 2 * MAX_LOGIT_DIFFERENCE:
            raise IntegrityError(
                f"got token {token} from {loaded.by} at place {place} of a generation; wanted {int(row.argmax())}: the "
                "folder was not written, keep the checkpoint."
            )
    return len(chosen)


def _logits(model: "GPT", ids: Sequence[int]) -> "Tensor":
    import torch

    with torch.no_grad():
        return model.logits(model.states(torch.tensor([list(ids)])))[0]


def _loaded(folder: Path) -> Loaded:
    from llm.published import GPT2_TYPE, model_type, read_config

    is_known = model_type(read_config(folder)) == GPT2_TYPE
    if is_known and importlib.util.find_spec("transformers") is not None:
        return _by_transformers(folder)
    return _by_ourselves(folder)


def _by_transformers(folder: Path) -> Loaded:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def logits(ids: list[int]) -> "Tensor":
        with torch.no_grad():
            found: Tensor = model(torch.tensor([ids])).logits[0]
        return found

    def go_on(prompt: list[int], num_tokens: int) -> list[int]:
        if num_tokens == 0:
            return []
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": num_tokens, "do_sample": False, "eos_token_id": None}
        new = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :]
        return [int(token) for token in new]

    return Loaded(
        by=f"transformers {transformers.__version__}",
        logits=logits,
        # As we do, read a special token that is written in a text as text; without this transformers reads the token.
        encode=lambda text: tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"],
        decode=tokenizer.decode,
        go_on=go_on,
    )


def _by_ourselves(folder: Path) -> Loaded:
    from llm.published import load_published
    from llm.sample import Sampling, generate

    model = load_published(folder)
    encoder = Encoder.load((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return Loaded(
        by="our own reader",
        logits=lambda ids: _logits(model, ids),
        encode=lambda text: encoder.encode_batch([text])[0].tolist(),
        decode=encoder.decode,
        go_on=lambda ids, num: list(generate(model, ids, Sampling(max_tokens=num, temperature=0))),
    )
