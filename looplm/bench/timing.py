"""Time several ways of doing the same thing against each other."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

Run = Callable[[], object]
Clock = Callable[[Run, int], float]
"""Seconds of one call, from calling so many times."""


@dataclass(frozen=True)
class Spread:
    """A median, and the smallest and largest of its rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of the rounds' values."""
        return cls(statistics.median(values), min(values), max(values))

    @property
    def decided(self) -> bool:
        """For a ratio: whether all rounds stand on the same side of 1. Only then may it be claimed."""
        return self.low > 1 or self.high < 1


def rounds(contenders: Mapping[str, Run], count: int, calls: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of a call in each round; in a round the contenders take turns, so that a slow minute strikes all alike."""
    for run in contenders.values():
        clock(run, max(1, calls // 10))  # warm
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(count):
        for name, run in contenders.items():
            seconds[name].append(clock(run, calls))
    return seconds


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> Spread:
    """How many times faster `fast` is than `slow`: the median of the rounds' own ratios."""
    return Spread.of([s / f for s, f in zip(seconds[slow], seconds[fast], strict=True)])


def timed(
    contenders: Mapping[str, Run], pairs: list[tuple[str, str]], count: int, clock: Clock, calls: int = 1
) -> dict[str, Any]:
    """Seconds of a call of each contender, and of each pair how many times faster the second is, as a report holds them."""
    seconds = rounds(contenders, count, calls, clock)
    claims = {f"{slow} / {fast}": ratio(seconds, slow, fast) for slow, fast in pairs if {slow, fast} <= set(contenders)}
    return {
        "seconds": {name: asdict(Spread.of(values)) for name, values in seconds.items()},
        "ratios": {name: asdict(spread) | {"decided": spread.decided} for name, spread in claims.items()},
    }


def cpu_clock(run: Run, calls: int) -> float:
    """Time of this process alone, so that neighbours on the machine count less."""
    start = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - start) / calls


def cuda_clock(run: Run, calls: int) -> float:
    """Time between two events on the GPU, launches included."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / calls
