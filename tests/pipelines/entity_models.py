"""A named-entity model of a few kilobytes, made anew: it looks each token's label up in a table of the vocabulary."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

LABELS = ("O", "B-PER", "I-PER", "B-ADDR", "I-ADDR", "B-LOC")
WORDS = {
    "Jane": "B-PER", "Doe": "I-PER", "Doe's": "I-PER", "Mary": "B-PER", "Ann": "I-PER", "Lee": "I-PER", "Baker": "B-ADDR", "Street": "I-ADDR", "221b": "B-ADDR",
    "Paris": "B-LOC", "张": "B-PER", "伟": "I-PER", "欧": "B-PER", "阳": "I-PER", "娜": "I-PER", "北": "B-LOC", "##s": "I-PER",
}  # fmt: skip
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def write_model(
    folder: Path,
    *,
    labels: tuple[str, ...] = LABELS,
    words: Mapping[str, str] = WORDS,
    num_positions: int = 16,
    sure: float = 9.0,
    splits_at_spaces: bool = False,
) -> Path:
    """A folder with model.onnx, config.json and tokenizer.json; windows are `num_positions` tokens long."""
    folder.mkdir(parents=True, exist_ok=True)
    if splits_at_spaces:
        words = {**words, **{f"▁{word}": label for word, label in words.items()}}
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *words, ".", ",", "。", "，"))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    if splits_at_spaces:  # as XLM-RoBERTa does: a Chinese sentence is one word
        pieces = [(token, -1.0 - number / 100) for token, number in vocabulary.items()]
        tokenizer = Tokenizer(models.Unigram([*pieces, ("▁", -9.0)], unk_id=1))
        vocabulary["▁"] = len(vocabulary)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.zeros((len(vocabulary), len(labels)), np.float32)
    for token, number in vocabulary.items():
        table[number, labels.index(words.get(token, "O"))] = sure
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["logits"])],
        "lookup",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", len(labels)])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    config = {"id2label": dict(enumerate(labels)), "max_position_embeddings": num_positions, "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
