"""Traditional Chinese characters and the simplified ones they fold to, for whoever compares texts."""

import functools
from pathlib import Path

VARIANTS = Path(__file__).parent / "lexicons" / "variants" / "simplified.txt"


@functools.cache
def simplified_characters() -> dict[int, str]:
    """Code point to the character it folds to, traditional to simplified; the final sigma is the other one."""
    pairs = {ord("ς"): "σ"}
    for line in VARIANTS.read_text(encoding="utf-8").splitlines():
        for group in () if line.startswith("#") else line.split():
            pairs |= {ord(char): group[0] for char in group[1:]}
    return pairs
