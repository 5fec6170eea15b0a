"""Memory of the head and the loss on 16 x 1,024 tokens with GPT-2's vocabulary: in chunks, and with whole logits.

The model is narrow, so that the logits are nearly all of it and seconds suffice. Each way runs in a process of its own;
its peak is the kernel's high-water mark of resident memory, less what the process had before the step (Linux only).
"""

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from bench_memory import peak_bytes, reset_peak
from peer_gpt2 import PlainGPT

from llm.config import ModelConfig
from llm.model import GPT

sys.path.insert(0, str(Path(__file__).parents[1] / "llm"))
from largest_tensor import LargestTensor

NUM_SEQUENCES = 16
MODEL = ModelConfig(vocab_size=50_304, block_size=1024, n_layer=1, n_head=1, n_embd=32)


def measure() -> dict[str, Any]:
    """Peaks in bytes, and the largest tensor made as a part of all the logits."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, Any] = {}
    for name in ("chunks", "whole"):
        near, far = context.Pipe()
        process = context.Process(target=_step, args=(far, name))
        process.start()
        far.close()
        found[name] = near.recv()
        process.join()
    return found


def _step(connection: Connection, name: str) -> None:
    torch.set_num_threads(1)
    model = GPT(MODEL) if name == "chunks" else PlainGPT(MODEL)
    tokens = torch.randint(0, MODEL.vocab_size, (NUM_SEQUENCES, MODEL.block_size + 1))
    reset_peak(os.getpid())
    before = peak_bytes(os.getpid())
    with LargestTensor() as largest:
        model(tokens[:, :-1], tokens[:, 1:]).backward()
    num_logits = NUM_SEQUENCES * MODEL.block_size * MODEL.vocab_size
    connection.send(
        {"peak_bytes": peak_bytes(os.getpid()) - before, "largest_part_of_logits": largest.num_elements / num_logits}
    )
