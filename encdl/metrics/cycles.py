"""Tail and cycle lengths of deterministic maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def tail_and_cycle(successor: NDArray[np.int64], start: int) -> tuple[int, int]:
    """Follow a map on 0..n-1 from `start` until it repeats.

    Args:
        successor: int64 (n,), the map's value at each state.
        start: 0..n-1.

    Returns:
        Steps before the cycle is entered, and the cycle's length, at least 1.

    Raises:
        ValueError: The start, or a value of the map, is no state.
    """
    if not 0 <= start < len(successor) or successor.min() < 0 or successor.max() >= len(successor):
        raise ValueError(f"expected states from 0 to {len(successor) - 1}")
    seen: dict[int, int] = {}
    state = start
    while state not in seen:
        seen[state] = len(seen)
        state = int(successor[state])
    return seen[state], len(seen) - seen[state]


def growth(bits: NDArray[np.float64], steps: NDArray[np.float64]) -> tuple[float, float]:
    """Fit log2(steps) = intercept + slope * bits by least squares; (slope, intercept).

    A random map on n-bit states goes sqrt(pi * 2^n / 2) steps on average before it repeats: slope 1/2 (B. Harris,
    Probability distributions related to random mappings, Ann. Math. Statist. 31, 1960).
    """
    slope, intercept = np.polyfit(bits, np.log2(steps), 1)
    return float(slope), float(intercept)
