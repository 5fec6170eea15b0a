"""What a device is good for: its peak, whether bf16 pays, and whether work on it runs beside the host's."""

import os
import re
import shutil
from pathlib import Path

import torch

from llm.config import RunConfig
from pipelines.errors import ConfigError

_PEAK_FLOPS = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("H800", 989e12),
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("GH200", 989e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("A40", 150e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
    ("MI300X", 1307e12),
    ("MI250X", 191e12),
)
"""Dense bf16 operations a second with fp32 sums, from the makers' data sheets; the first name that fits counts."""
_OTHER_CHIPS = frozenset({"D", "Laptop", "MIG", "Ti"})
"""Words that make a name one of less, more or a part of what it says otherwise."""


def peak_flops(device: torch.device, *, precision: str) -> float | None:
    """Floating-point operations a second that a device can do at most; None where that is not known.

    The table holds bf16 alone: fp32 on a GPU, and CPUs, whose peak depends on clock and load, are unknown.
    """
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    if _OTHER_CHIPS & set(re.findall(r"\w+", name)):
        return None
    # Whole words: an RTX A4000 is no A40.
    return next((peak for part, peak in _PEAK_FLOPS if re.search(rf"\b{part}\b", name)), None)


def choose_device(run_config: RunConfig, local_rank: int) -> torch.device:
    """The device of a process: a GPU where there is one, unless the config names another. Raises ConfigError."""
    name = run_config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"got {local_rank + 1} processes or more for {torch.cuda.device_count()} GPUs; wanted one GPU for each: "
                f"set training.num_processes to {torch.cuda.device_count()}."
            )
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        raise ConfigError(
            f"got device {name!r}, which torch cannot use here; wanted 'cpu' or 'cuda': leave it out to choose."
        ) from error
    return device


def choose_precision(run_config: RunConfig, device: torch.device) -> str:
    """ "bf16" or "fp32" for the matrix products of a device."""
    if run_config.precision != "auto":
        return run_config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _cpu_is_made_for_bf16() else "fp32"


def num_free_cores() -> int:
    """Cores that this process may use; containers lend only some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_is_made_for_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(name in flags for name in ("avx512_bf16", "amx_bf16"))


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs: on a GPU, Triton builds a part of what it makes with a C compiler."""
    names = [os.environ.get("CC", ""), "gcc", "clang", "cc"]
    return device.type != "cuda" or any(name and shutil.which(name) for name in names)


def keep_compiled() -> None:
    """Let torch.compile keep what it makes in the user's cache folder, where nothing else is named.

    Its own choice is the folder for temporary files: a restart of the machine, or of a container, would compile again.
    """
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(home) if home else Path.home() / ".cache"
    except RuntimeError:  # nobody's home
        return
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "corpusmill" / "inductor"))
