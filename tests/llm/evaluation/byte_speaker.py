"""Models that read bytes: their token ids are known without a tokenizer."""

import torch

from llm.config import ModelConfig
from llm.evaluation.likelihood import Speaker
from llm.model import GPT

EOT = 256


def byte_speaker(*, block_size: int = 32, batch_size: int = 8, seed: int | None = 1, **changes) -> Speaker:
    """A random model; of seed None a uniform one."""
    shape = {"vocab_size": 257, "block_size": block_size, "n_layer": 2, "n_head": 2, "n_embd": 16, **changes}
    model = GPT(ModelConfig(**shape), seed=seed or 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if seed is None:
                parameter.zero_()
            else:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)), alpha=0.2)
    return Speaker(
        model=model,
        encode=lambda text: list(text.encode()),
        decode=lambda ids: bytes(token for token in ids if token < EOT).decode("utf-8", "replace"),
        eot_token=EOT,
        batch_size=batch_size,
    )
