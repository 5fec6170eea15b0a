"""The trainer beside others: `python tests/benchmarks/bench_train.py [PART...] [--data FOLDER]`.

- speed: 5.3 million parameters in fp32 on the CPU, on one thread and on two: tokens a CPU second of our loop, of transformers'
  GPT-2 and of a plain loop in nanoGPT's manner, and the part of the measured peak of matrix products that ours reaches.
- variants: ours compiled, and in the precision that the product chooses for this CPU, on one thread.
- memory: 16 x 1,024 tokens with a vocabulary of 50,304, in chunks and with whole logits.
- loss: ours and transformers' GPT-2 from the same weights on the same batches, English and Chinese, three seeds.
- muon: the loss that AdamW, at the best of some rates, ends with, and what Muon ends with in 65 % of the steps.
- gpu: 124 million parameters in bf16 on a GPU: MFU, and tokens a second beside the plain loop.

Trainers take turns in processes of their own; ratios are of neighbouring turns. FOLDER is that of the test data (default:
CORPUSMILL_TEST_DATA); without it loss and muon are left out, as gpu is without one. Ends with a table and one JSON line; exits 1
where a bar is missed.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import training_memory
import training_quality
import training_speed
from training_quality import SHAPES
from training_speed import AUTO, COMPILED, OURS, PLAIN, PRODUCTS, TRANSFORMERS, Setting, utilisation
from training_texts import LANGUAGES, token_data

from llm.config import gpt2_124m
from llm.devices import peak_flops

PARTS = ("speed", "variants", "memory", "loss", "muon", "gpu")
BAR_SPEED = 1.15
BAR_OF_PEAK = 0.60
BAR_LARGEST_TENSOR = 0.05
BAR_MUON_STEPS = 0.65
BAR_GPU_SPEED = 1.5
BAR_GPU_MFU = 0.45


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    found: str
    bar: str
    holds: bool | None
    """None: nothing was asked, or nothing could be measured."""
    values: Any


def speed(options: argparse.Namespace) -> Iterator[Row]:
    """On the CPU, in fp32."""
    for num_threads in options.threads:
        setting = Setting(model=SHAPES["5m"], micro_batch_size=8, num_threads=num_threads)
        names = [OURS, TRANSFORMERS, PLAIN, PRODUCTS]
        seconds = training_speed.measure(setting, names, num_rounds=options.rounds)
        rates = training_speed.rates(setting, seconds)
        where = f"{num_threads} thread{'s' * (num_threads > 1)}"
        yield Row(
            what=f"tokens a CPU second, {where}",
            found=", ".join(f"{name} {rates[name]['median']:.0f}" for name in names[:3]),
            bar="",
            holds=None,
            values=rates,
        )
        for peer in (TRANSFORMERS, PLAIN):
            ratio = training_speed.ratios(seconds, peer)
            yield Row(
                what=f"speed beside {peer}, {where}",
                found=f"{ratio['median']:.3f} times ({ratio['least']:.3f} to {ratio['most']:.3f})",
                bar=f">= {BAR_SPEED}",
                holds=ratio["median"] >= BAR_SPEED,
                values=ratio,
            )
        of_peak = utilisation(rates[OURS]["median"], setting.model.flops_per_token, rates[PRODUCTS]["median"])
        yield Row(
            what=f"part of the measured peak, {where}",
            found=f"{of_peak:.1%} of {rates[PRODUCTS]['median'] / 1e9:.1f} GFLOP a CPU second",
            bar=f">= {BAR_OF_PEAK:.0%}" if num_threads == 1 else "",
            holds=of_peak >= BAR_OF_PEAK if num_threads == 1 else None,
            values={"of_peak": of_peak, "formula": "tokens_per_second * (6 N + 12 L d T) / peak"},
        )


def variants(options: argparse.Namespace) -> Iterator[Row]:
    """Of ours, beside ours as it is by default in fp32."""
    setting = Setting(model=SHAPES["5m"], micro_batch_size=8)
    seconds = training_speed.measure(setting, [OURS, COMPILED, AUTO], num_rounds=options.rounds)
    for name in (COMPILED, AUTO):
        ratio = {way: 1 / value for way, value in training_speed.ratios(seconds, name).items()}
        yield Row(what=f"speed of {name}", found=f"{ratio['median']:.3f} times", bar="", holds=None, values=ratio)


def memory(_: argparse.Namespace) -> Iterator[Row]:
    """Of the head and the loss."""
    found = training_memory.measure()
    ours, whole = found["chunks"], found["whole"]
    yield Row(
        what="peak memory, 16 x 1,024 tokens of 50,304",
        found=f"{ours['peak_bytes'] / 2**20:.0f} MiB, whole logits {whole['peak_bytes'] / 2**20:.0f} MiB",
        bar="",
        holds=None,
        values=found,
    )
    part = ours["largest_part_of_logits"]
    yield Row(
        what="largest tensor, of all logits",
        found=f"{part:.2%}",
        bar=f"< {BAR_LARGEST_TENSOR:.0%}",
        holds=part < BAR_LARGEST_TENSOR,
        values=part,
    )


def loss(options: argparse.Namespace) -> Iterator[Row]:
    """Beside transformers, over seeds."""
    for language, data in _texts(options):
        found = training_quality.compare_losses(SHAPES[options.shape], data, steps=options.loss_steps, seeds=3)
        yield Row(
            what=f"loss less transformers', {language}",
            found=f"{found['mean_difference']:+.5f} a seed, at most {found['largest_difference']:.5f}; over seeds {found['seed_deviation']:.5f}",
            bar="< deviation over seeds",
            holds=found["largest_difference"] < found["seed_deviation"],
            values=found,
        )


def muon(options: argparse.Namespace) -> Iterator[Row]:
    """Beside AdamW at its best rate."""
    for language, data in _texts(options):
        found = training_quality.compare_optimizers(
            SHAPES[options.shape], data, steps=options.steps, rates=sorted(options.rates)
        )
        by_part = found["muon_by_part_of_steps"]
        yield Row(
            what=f"Muon's loss in 65 % of AdamW's steps, {language}",
            found=", ".join(
                [
                    f"{by_part[BAR_MUON_STEPS]:.4f}",
                    f"AdamW {found['adamw']:.4f} at {found['adamw_rate']:g}",
                    *(f"in {part:.0%} {one:.4f}" for part, one in by_part.items() if part != BAR_MUON_STEPS),
                    *(f"modern in {part:.0%} {one:.4f}" for part, one in found["modern_muon_by_part_of_steps"].items()),
                ]
            ),
            bar="<= AdamW's",
            holds=by_part[BAR_MUON_STEPS] <= found["adamw"],
            values=found,
        )


def gpu(options: argparse.Namespace) -> Iterator[Row]:
    """On a GPU, in bf16, compiled."""
    if not torch.cuda.is_available():
        yield Row(what="124 M parameters on a GPU", found="no GPU here: unmeasured", bar="", holds=None, values=None)
        return
    setting = Setting(
        model=gpt2_124m(),
        micro_batch_size=options.gpu_micro_batch_size,
        device="cuda",
        updates_a_turn=20,
        precision="bf16",
    )
    peak = peak_flops(torch.device("cuda"), precision="bf16")
    yield from beside_plain_loop(setting, num_rounds=options.rounds, peak=peak, where=torch.cuda.get_device_name())


def beside_plain_loop(setting: Setting, *, num_rounds: int, peak: float | None, where: str) -> Iterator[Row]:
    """Our loop and the plain one on a device whose peak, in operations a second, may be known."""
    seconds = training_speed.measure(setting, [OURS, PLAIN], num_rounds=num_rounds)
    rates, ratio = training_speed.rates(setting, seconds), training_speed.ratios(seconds, PLAIN)
    yield Row(
        what=f"tokens a second, {where}",
        found=", ".join(f"{name} {rate['median']:.0f}" for name, rate in rates.items()),
        bar="",
        holds=None,
        values=rates,
    )
    yield Row(
        what=f"speed beside {PLAIN}, {where}",
        found=f"{ratio['median']:.3f} times ({ratio['least']:.3f} to {ratio['most']:.3f})",
        bar=f">= {BAR_GPU_SPEED}",
        holds=ratio["median"] >= BAR_GPU_SPEED,
        values=ratio,
    )
    mfu = None if peak is None else utilisation(rates[OURS]["median"], setting.model.flops_per_token, peak)
    yield Row(
        what=f"MFU, {where}",
        found="unknown" if mfu is None else f"{mfu:.1%}",
        bar=f">= {BAR_GPU_MFU:.0%}",
        holds=None if mfu is None else mfu >= BAR_GPU_MFU,
        values={"mfu": mfu, "formula": "tokens_per_second * (6 N + 12 L d T) / peak"},
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--data", type=Path, default=os.environ.get("CORPUSMILL_TEST_DATA") or None)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shape", choices=SHAPES, default="nano", help="of the models of loss and muon")
    parser.add_argument("--loss-steps", type=int, default=120)
    parser.add_argument("--steps", type=int, default=300, help="of AdamW, beside Muon")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 4e-3, 8e-3], help="AdamW's, to choose from")
    parser.add_argument("--gpu-micro-batch-size", type=int, default=32)
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"got the parts {sorted(unknown)}, wanted some of {', '.join(PARTS)}")
    torch.set_num_threads(1)
    measure = {"speed": speed, "variants": variants, "memory": memory, "loss": loss, "muon": muon, "gpu": gpu}
    rows = []
    load = [os.getloadavg()[0]]
    for part in options.parts or PARTS:
        for row in measure[part](options):
            rows.append(row)
            load.append(os.getloadavg()[0])
            print(f"{row.what}: {row.found}", file=sys.stderr, flush=True)
    print(f"{'what':46} {'bar':24} {'holds':6} found")
    for row in rows:
        holds = {None: "-", True: "yes", False: "NO"}[row.holds]
        print(f"{row.what:46} {row.bar:24} {holds:6} {row.found}")
    print(
        f"Load of the machine: {min(load):.1f} to {max(load):.1f} on {os.cpu_count()} cores, torch {torch.__version__}."
    )
    print(json.dumps({"rows": [asdict(row) for row in rows], "load": load, "torch": torch.__version__}))
    return 1 if any(row.holds is False for row in rows) else 0


def _texts(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    if options.data is None:
        print(
            "got no folder of texts: loss and muon are unmeasured; set --data or CORPUSMILL_TEST_DATA", file=sys.stderr
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        vocab_size = SHAPES[options.shape].vocab_size
        for language in LANGUAGES:
            yield language, token_data(options.data, language, vocab_size=vocab_size, folder=Path(folder))


if __name__ == "__main__":
    raise SystemExit(main())
