"""Where the time of a step goes, without making the host wait for a device: laps are events that are read later."""

import time
from dataclasses import dataclass, field

import torch


@dataclass(slots=True)
class Clock:
    """Laps of one step: call `lap` with the name of what has just ended. The first call has nothing to name."""

    device: torch.device
    _laps: list[tuple[str, "float | torch.cuda.Event"]] = field(default_factory=list)

    def lap(self, name: str) -> None:
        """What was done since the last lap is `name`."""
        if self.device.type == "cuda":
            event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._laps.append((name, event))
        else:
            self._laps.append((name, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Sums by name. On a GPU only once it has come that far."""
        sums: dict[str, float] = {}
        for (_, before), (name, after) in zip(self._laps, self._laps[1:], strict=False):
            sums[name] = sums.get(name, 0.0) + _between(before, after)
        return sums


def _between(before: "float | torch.cuda.Event", after: "float | torch.cuda.Event") -> float:
    if isinstance(before, float) and isinstance(after, float):
        return after - before
    milliseconds: float = before.elapsed_time(after)  # type: ignore[union-attr, arg-type]
    return milliseconds / 1000
