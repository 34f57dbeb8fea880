"""The sequences behind the key planes: NIST's tests, and how long they go without repeating."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encdl.keys.chaotic_maps import HALF, UnitMap
from encdl.keys.sequences import MAPS, ChaoticSequence, byte_sequence
from encdl.metrics import randomness
from encdl.metrics.cycles import growth, tail_and_cycle

CHUNK: Final = 100
"""Sequences that are tested at a time, so that they fit into memory."""


def randomness_of(sequence: str, sequences: int, bits: int, seed: int) -> dict[str, dict[str, Any]]:
    """NIST SP 800-22 over many sequences of one map, each from a seed of its own.

    Args:
        sequence: A name in `encdl.keys.sequences.MAPS`.
        sequences: How many.
        bits: Length of each, a multiple of 8.
        seed: Of the seeds.

    A test that fails is carried out once more on as many other sequences, as SP 800-22 asks for (section 4.2): of some
    300 figures of an audit one is below 1 in 10,000 by chance now and then. A defect fails again.

    Returns:
        By test, what `encdl.metrics.randomness.judged` says; of one that was repeated the second time's figures, with
        the first time's as `first`.
    """
    found = _judged(sequence, range(sequences), bits, seed)
    failed = [name for name, figures in found.items() if not figures["passed"]]
    if failed:
        again = _judged(sequence, range(sequences, 2 * sequences), bits, seed)
        found |= {name: again[name] | {"first": found[name]} for name in failed}
    return found


def _judged(sequence: str, numbers: range, bits: int, seed: int) -> dict[str, dict[str, Any]]:
    found: dict[str, list[randomness.Values]] = {}
    for start in range(0, len(numbers), CHUNK):
        part = numbers[start : start + CHUNK]
        seeds = [hashlib.sha256(f"encdl audit sequence {seed} {number}".encode()).digest() for number in part]
        stream = np.unpackbits(byte_sequence(sequence, seeds, bits // 8), axis=1, bitorder="little")
        for name, ps in randomness.all_tests(stream).items():
            found.setdefault(name, []).append(ps)
    return {name: randomness.judged(np.concatenate(ps)) for name, ps in found.items()}


def cycles_of(sequence: str, widths: Sequence[int] = (8, 10, 12, 14, 16, 18), starts: int = 64) -> dict[str, Any]:
    """How long a chaotic map goes before it repeats: measured in few bits, and what the sequence rests on instead.

    The bare map is cut to the top n bits after every step, for each n, and followed from many starts; the growth with
    n is extrapolated to its 64 bits. That is too few for a sequence by itself. The sequence couples two such words and
    adds a counter with an odd step to them, modulo 2^64: whatever the map does, a lane's state cannot repeat before
    the counter does.

    Args:
        sequence: A chaotic map of `encdl.keys.sequences.MAPS`.
        widths: Bits n of the state.
        starts: Start values at each width.

    Returns:
        `log2_steps_measured` by n, `slope` (1/2 for a random map), `log2_steps_at_64_bits` (extrapolated), and
        `log2_state_period_at_least`, by construction.
    """
    chaotic = MAPS[sequence]
    assert isinstance(chaotic, ChaoticSequence)
    draws = np.random.default_rng(0)
    means = []
    for width in widths:
        table = _cut_map(chaotic.unit_map, width, draws)
        followed = [sum(tail_and_cycle(table, int(draws.integers(len(table))))) for _ in range(starts)]
        means.append(float(np.mean(followed)))
    slope, intercept = growth(np.array(widths, dtype=np.float64), np.array(means))
    return {
        "log2_steps_measured": {str(width): math.log2(mean) for width, mean in zip(widths, means, strict=True)},
        "slope": slope,
        "log2_steps_at_64_bits": intercept + 64 * slope,
        "log2_state_period_at_least": 64,
    }


def _cut_map(unit_map: UnitMap, width: int, draws: np.random.Generator) -> NDArray[np.int64]:
    """The map's value at every state of `width` bits, cut to as many: int64 (2^width,)."""
    unused = np.uint64(64 - width)
    states = (np.arange(1 << width, dtype=np.uint64) << unused)[None]
    drawn = draws.integers(0, 2**64, unit_map.parameters, dtype=np.uint64)
    parameters = np.broadcast_to(drawn[:, None, None], (unit_map.parameters, *states.shape)).copy()
    values = np.empty_like(states)
    unit_map.prepare(parameters, np.empty_like(states), np.empty_like(states))(states, values)
    if unit_map.centred:
        values ^= HALF
    found: NDArray[np.int64] = (values[0] >> unused).astype(np.int64)
    return found
