"""Timing of several ways to the same end: in turns, so that whatever else the machine does falls on all alike.

Two clocks run. On a CPU, *own* time is the process's on all its cores, user's and system's: other programs hardly
lengthen it, and waiting for a disk is not in it. *Wall* time is what a user waits for, other programs and all. On an
accelerator both are wall time, until the device has nothing left to do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

WARM_UP = 2
"""Rounds that do not count: libraries choose their kernels in them, and files come into the cache."""
ENOUGH_S = 60.0
"""After so long no further round begins."""

Seconds = dict[str, list[float]]
"""By name of the step, the seconds of each round."""


@dataclass(frozen=True)
class Turns:
    """The times that `take_turns` measured; see the module's text."""

    own: Seconds
    wall: Seconds


def take_turns(steps: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> Turns:
    """Run every step once a round, every other round in the opposite order.

    Args:
        steps: What is timed, by name.
        rounds: How many rounds count, at most; two at the least.
        device: Where they compute.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    turns = Turns({name: [] for name in steps}, {name: [] for name in steps})
    begun = time.perf_counter()
    for turn in range(max(2, rounds) + WARM_UP):
        if turn >= WARM_UP + 2 and time.perf_counter() - begun > ENOUGH_S:
            break
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            _settle(device)
            own, wall = clock(), time.perf_counter()
            steps[name]()
            _settle(device)
            if turn >= WARM_UP:
                turns.own[name].append(clock() - own)
                turns.wall[name].append(time.perf_counter() - wall)
    return turns


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(seconds: Seconds) -> dict[str, float]:
    """The median of each step."""
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def ratios(seconds: Seconds, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """For each pair `A_to_B`, the median over the rounds of A's time by B's, and its `A_to_B_quartiles`.

    Both times of a ratio are of one round, so that it wavers less than the times do on a busy machine.
    """
    found: dict[str, Any] = {}
    for one, other in pairs:
        values = [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        found |= {f"{one}_to_{other}": middle, f"{one}_to_{other}_quartiles": [low, high]}
    return found
