from __future__ import annotations

import math

import numpy as np
import pytest

from encdl.metrics.cycles import growth, tail_and_cycle


@pytest.mark.parametrize(
    ("successor", "start", "expected"),
    [
        ([0], 0, (0, 1)),
        ([1, 0], 1, (0, 2)),
        ([1, 2, 3, 1], 0, (1, 3)),
        ([1, 2, 3, 4, 4], 0, (4, 1)),
        ([1, 2, 3, 4, 4], 4, (0, 1)),
        ([1, 2, 0, 0], 3, (1, 3)),
    ],
)
def test_tiny_maps(successor: list[int], start: int, expected: tuple[int, int]) -> None:
    assert tail_and_cycle(np.array(successor), start) == expected


def test_known_generators() -> None:
    """A congruential generator of full period, one that ends in 0, and squaring modulo 23."""
    states = np.arange(1024)
    assert tail_and_cycle((5 * states + 3) % 1024, 17) == (0, 1024)
    assert tail_and_cycle((4 * states) % 1024, 1) == (5, 1)
    squares = np.arange(23) ** 2 % 23
    assert tail_and_cycle(squares, 2) == (0, 10)
    assert tail_and_cycle(squares, 5) == (1, 10)


def test_agrees_with_floyds_walk() -> None:
    random = np.random.default_rng(0)
    for size in (7, 60, 500):
        successor = random.integers(0, size, size)
        slow, fast = int(successor[0]), int(successor[successor[0]])
        while slow != fast:
            slow, fast = int(successor[slow]), int(successor[successor[fast]])
        tail, slow = 0, 0
        while slow != fast:
            slow, fast, tail = int(successor[slow]), int(successor[fast]), tail + 1
        cycle, fast = 1, int(successor[slow])
        while slow != fast:
            fast, cycle = int(successor[fast]), cycle + 1
        assert tail_and_cycle(successor, 0) == (tail, cycle)


def test_random_maps_go_as_far_as_theory_says() -> None:
    random = np.random.default_rng(1)
    steps = [sum(tail_and_cycle(random.integers(0, 1024, 1024), 0)) for _ in range(600)]
    expected = math.sqrt(math.pi * 1024 / 2)
    assert np.mean(steps) == pytest.approx(expected, rel=4 * np.std(steps) / expected / math.sqrt(600))


def test_growth() -> None:
    bits = np.array([4.0, 8.0, 12.0])
    assert growth(bits, 3 * 2 ** (bits / 2)) == pytest.approx((0.5, math.log2(3)))
    assert growth(bits, 2**bits) == pytest.approx((1.0, 0.0), abs=1e-9)


def test_wrong_input_is_refused() -> None:
    for successor, start in (([0, 2], 0), ([0, -1], 0), ([0, 1], 2), ([0, 1], -1)):
        with pytest.raises(ValueError, match="from 0 to 1"):
            tail_and_cycle(np.array(successor), start)
