"""NIST SP 800-22 over bytes from standard input. Runs in an environment of its own: see docs/keys.md.

    python -m tests.keys.stream logistic | judges/bin/python tests/keys/nist.py --sequences 100

Prints, for each test, the share of sequences with p >= 0.01 and the p-value of the p-values' uniformity
(SP 800-22 rev. 1a, section 4.2). A test passes when the share is at least 0.99 - 3 sqrt(0.99 * 0.01 / n) and
the uniformity's p-value at least 0.0001. Where the suite gives the least of several p-values (cumulative sums,
serial, random excursions), it is multiplied by their number and uniformity is not judged; walks of too few cycles
are left out. The 148 non-overlapping templates are counted here, and their p-values put together.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable

import numpy as np
import sp80022suite as suite
from scipy.special import gammaincc

BITS = 10**6
TESTS: dict[str, Callable[[np.ndarray], float]] = {
    "frequency": suite.frequency,
    "block frequency (128)": lambda bits: suite.block_frequency(128, bits),
    "runs": suite.runs,
    "longest run of ones": suite.longest_run_of_ones,
    "matrix rank": suite.rank,
    "spectral": suite.discrete_fourier_transform,
    "overlapping templates (9)": lambda bits: suite.overlapping_template_matchings(9, bits),
    "Maurer's universal": suite.universal,
    "approximate entropy (10)": lambda bits: suite.approximate_entropy(10, bits),
    "linear complexity (500)": lambda bits: suite.linear_complexity(500, bits),
}
LEAST_OF: dict[str, tuple[Callable[[np.ndarray], float], int]] = {
    "cumulative sums": (suite.cumulative_sums, 2),
    "serial (16)": (lambda bits: suite.serial(16, bits), 2),
    "random excursions": (suite.random_excursions, 8),
    "random excursions variant": (suite.random_excursions_variant, 18),
}


def non_overlapping_templates(bits: np.ndarray, length: int = 9, blocks: int = 8) -> np.ndarray:
    """The p-values of all templates of 9 bits that cannot overlap themselves (SP 800-22, section 2.7)."""
    size = len(bits) // blocks
    weights = 1 << np.arange(length)[::-1]
    windows = np.lib.stride_tricks.sliding_window_view(bits.reshape(blocks, size), length, axis=1) @ weights
    counts = np.stack([np.bincount(row, minlength=1 << length) for row in windows], axis=1)
    mean = (size - length + 1) / 2**length
    variance = size * (2.0**-length - (2 * length - 1) * 4.0**-length)
    ps = gammaincc(blocks / 2, ((counts - mean) ** 2 / variance).sum(axis=1) / 2)
    texts = [f"{value:0{length}b}" for value in range(1 << length)]
    return ps[[all(text[k:] != text[:-k] for k in range(1, length)) for text in texts]]


def report(name: str, ps: list[float], uniformity: bool = True) -> None:
    """Print the line of one test."""
    count = len(ps)
    least = 0.99 - 3 * math.sqrt(0.99 * 0.01 / count)
    share = float(np.mean(np.array(ps) >= 0.01))
    histogram = np.histogram(ps, bins=10, range=(0, 1))[0]
    p = float(gammaincc(4.5, np.sum((histogram - count / 10) ** 2) / (count / 10) / 2)) if uniformity else 1.0
    verdict = "pass" if share >= least and p >= 1e-4 else "FAIL"
    text = f"uniformity p {p:.4f}" if uniformity else " " * 19
    print(f"{name:28s} n {count:5d}  share {share:.4f} (>= {least:.4f})  {text}  {verdict}", flush=True)


def main() -> None:
    """Judge standard input."""
    parser = argparse.ArgumentParser(description="NIST SP 800-22 over standard input.")
    parser.add_argument("--sequences", type=int, default=100, help=f"sequences of {BITS} bits")
    count = parser.parse_args().sequences
    values: dict[str, list[float]] = {name: [] for name in (*TESTS, *LEAST_OF, "non-overlapping templates")}
    for _ in range(count):
        packed = np.frombuffer(sys.stdin.buffer.read(BITS // 8), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")
        for name, test in TESTS.items():
            values[name].append(float(test(bits.copy())))
        for name, (least_of, number) in LEAST_OF.items():
            with contextlib.suppress(ValueError):  # too few cycles
                values[name].append(min(1.0, number * least_of(bits.copy())))
        values["non-overlapping templates"].extend(non_overlapping_templates(bits))
    for name, ps in values.items():
        report(name, ps, uniformity=name not in LEAST_OF)


if __name__ == "__main__":
    main()
