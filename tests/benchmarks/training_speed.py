"""Trainers side by side, each in a process of its own, so that none gains from what another does to the allocator.

They take turns: some updates of ours, as many of each peer, a few matrix products, and again. On a CPU what counts is CPU
time, on a GPU the clock. The first turn is not counted: it compiles, allocates and warms up.
"""

import contextlib
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from peer_gpt2 import Update, plain_update, transformers_update

from llm.config import ModelConfig, RunConfig, TrainConfig
from llm.data import TokenData
from llm.model import GPT
from llm.reports import Report, StepReport
from llm.train import train
from pipelines.schemas import TOKENS

OURS, TRANSFORMERS, PLAIN, PRODUCTS = "ours", "transformers", "plain loop", "matrix products"
COMPILED, AUTO = "ours, compiled", "ours, precision chosen"
_SIDE = 2048
"""Of the square matrices whose product is the peak."""
_RATE = 6e-4


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all trainers share."""

    model: ModelConfig
    micro_batch_size: int
    device: str = "cpu"
    num_threads: int = 1
    updates_a_turn: int = 2
    compiles: bool | None = None
    """Ours; None: as the product chooses."""
    precision: str = "fp32"

    @property
    def num_tokens(self) -> int:
        """Of one turn."""
        return self.micro_batch_size * self.model.block_size * self.updates_a_turn


def throughput(num_tokens: int, seconds: float) -> float:
    """Tokens a second."""
    return num_tokens / seconds


def utilisation(tokens_per_second: float, flops_per_token: int, peak: float) -> float:
    """The part of a peak, in operations a second, that the model's own operations take (MFU)."""
    return tokens_per_second * flops_per_token / peak


def measure(setting: Setting, names: list[str], *, num_rounds: int) -> dict[str, list[float]]:
    """Seconds of each turn, by name, in the order of rounds; the first of each is left out."""
    context = multiprocessing.get_context("spawn")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        connections = {}
        for name in names:
            connections[name], far = context.Pipe()
            process = context.Process(target=serve, args=(far, name, setting), daemon=True)
            process.start()
            far.close()  # a worker that dies is then an end of file here
            stack.callback(process.join)
            stack.callback(connections[name].close)
        for _ in range(num_rounds + 1):
            for name, connection in connections.items():
                connection.send("go")
                seconds[name].append(connection.recv())
    return {name: turns[1:] for name, turns in seconds.items()}


def rates(setting: Setting, seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Tokens a second (operations a second of the products): median and the quartiles' distance as a part of it."""
    found = {}
    for name, turns in seconds.items():
        work = _product_flops() if name == PRODUCTS else setting.num_tokens
        each = [throughput(work, turn) for turn in turns]
        low, middle, high = statistics.quantiles(each, n=4) if len(each) > 1 else each * 3
        found[name] = {"median": middle, "spread": (high - low) / middle}
    return found


def ratios(seconds: dict[str, list[float]], peer: str) -> dict[str, float]:
    """How many times the speed of a peer ours has: the median over rounds of their neighbouring turns, least and most."""
    each = [theirs / ours for ours, theirs in zip(seconds[OURS], seconds[peer], strict=True)]
    return {"median": statistics.median(each), "least": min(each), "most": max(each)}


def serve(connection: Connection, name: str, setting: Setting) -> None:
    """In a worker: a turn for each message, answered with its seconds, until the other end is closed."""
    torch.set_num_threads(setting.num_threads)
    torch.set_float32_matmul_precision("high" if setting.device.startswith("cuda") else "highest")
    with contextlib.suppress(EOFError):
        if name in (OURS, COMPILED, AUTO):
            changes = {OURS: {}, COMPILED: {"compiles": True}, AUTO: {"precision": "auto"}}[name]
            _serve_ours(connection, replace(setting, **changes))
        else:
            turn = _turn(name, setting)
            while True:
                connection.recv()
                began = _now(setting)
                turn()
                connection.send(_now(setting) - began)


def _now(setting: Setting) -> float:
    """Seconds of CPU time of this process, or by the clock once the GPU has come this far."""
    if setting.device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _turn(name: str, setting: Setting) -> Callable[[], None]:
    device = torch.device(setting.device)
    if name == PRODUCTS:
        matrix = torch.randn(_SIDE, _SIDE)
        return lambda: _products(matrix)
    rates = itertools.repeat(_RATE)
    update: Update = (
        transformers_update(GPT(setting.model), device, rates=rates)
        if name == TRANSFORMERS
        else plain_update(setting.model, device, rates=rates)
    )
    batches = _batches(setting)

    def turn() -> None:
        for _ in range(setting.updates_a_turn):
            update(next(batches))

    return turn


def _products(matrix: torch.Tensor) -> None:
    for _ in range(2):
        torch.mm(matrix, matrix)


def _product_flops() -> int:
    return 2 * 2 * _SIDE**3


def _serve_ours(connection: Connection, setting: Setting) -> None:
    """The loop of the product itself. It waits in its report for its turn, so all that it does is counted."""
    began: list[float] = []

    def on_report(report: Report) -> None:
        if isinstance(report, StepReport) and report.step % setting.updates_a_turn == 0:
            if began:
                connection.send(_now(setting) - began.pop())
            connection.recv()
            began.append(_now(setting))

    with tempfile.TemporaryDirectory() as folder:
        data = TokenData.open([_made_shard(Path(folder), setting)], "train", digest="made")
        train(
            data,
            data,
            setting.model,
            TrainConfig(
                max_steps=1_000_000,
                micro_batch_size=setting.micro_batch_size,
                tokens_per_step=setting.micro_batch_size * setting.model.block_size,
                learning_rate=_RATE,
                warmup_steps=0,
                eval_every_steps=None,
                eval_tokens=setting.model.block_size,
                checkpoint_every_steps=None,
            ),
            RunConfig(
                device=setting.device,
                num_threads=setting.num_threads,
                precision=setting.precision,
                compile=setting.compiles,
                report_every_steps=setting.updates_a_turn,
            ),
            Path(folder, "training"),
            on_report=on_report,
        )


def _made_shard(folder: Path, setting: Setting) -> Path:
    """A shard of random tokens: speed does not depend on what they are."""
    config = setting.model
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 64 * setting.micro_batch_size * config.block_size)
    row = {"doc_id": "made", "split": "train", "num_bytes": tokens.size, "tokens": tokens.tolist()}
    path = folder / "made.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, TOKENS) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([row], schema=TOKENS))
    return path


def _batches(setting: Setting) -> Iterator[torch.Tensor]:
    """For the peers: random tokens, cut from an array in memory as nanoGPT does."""
    generator = torch.Generator().manual_seed(0)
    shape = (setting.micro_batch_size, setting.model.block_size + 1)
    while True:
        yield torch.randint(0, setting.model.vocab_size, shape, generator=generator)
