"""Tests of randomness on many bit sequences at once, after NIST SP 800-22, revision 1a (2010).

Left out: linear complexity, Maurer's universal test, overlapping templates and random excursions, which need sequences
of 10^6 bits or are slow; docs/keys.md has them for the maps, made with other software.

Every test takes bits, uint8 of 0 and 1, (sequences, length), and gives one p-value a sequence, float64. Where the
publication has several p-values a sequence (serial, cumulative sums), each is a test of its own here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc, gammaincc
from scipy.stats import binom, norm

Bits = NDArray[np.uint8]
Values = NDArray[np.float64]

SIGNIFICANCE: Final = 0.01
JUDGED_BOUND: Final = 1e-4
LEAST_BITS: Final = 128
"""Below this the approximations of all tests are poor."""

LONGEST_RUNS: Final = (
    (8, 1, (0.21484375, 0.3671875, 0.23046875, 0.1875)),
    (128, 4, (0.1174035788, 0.2429559593, 0.2493634832, 0.1751770603, 0.1027010713, 0.1123988471)),
)
"""For short and for long sequences: bits of a block, the longest run that blocks of the first kind have at most, and
the share of each kind, of which the last has longer runs. Exact, where the publication rounds to four digits."""


def frequency(bits: Bits) -> Values:
    """Section 2.1: are there as many ones as zeros."""
    _check(bits)
    excess = np.abs(2.0 * bits.sum(1, dtype=np.int64) - bits.shape[1])
    return _values(erfc(excess / math.sqrt(2.0 * bits.shape[1])))


def block_frequency(bits: Bits, block: int = 128) -> Values:
    """Section 2.2: are there in every block of `block` bits."""
    _check(bits, least=block)
    blocks = _blocks(bits, block)
    shares = blocks.mean(2, dtype=np.float64)
    chi2 = 4.0 * block * ((shares - 0.5) ** 2).sum(1)
    return _values(gammaincc(blocks.shape[1] / 2.0, chi2 / 2.0))


def runs(bits: Bits) -> Values:
    """Section 2.3: does the sequence turn from 0 to 1 and back as often as it should; 0 where `frequency` fails."""
    _check(bits)
    length = bits.shape[1]
    share = bits.mean(1, dtype=np.float64)
    turns = 1.0 + (bits[:, 1:] != bits[:, :-1]).sum(1)
    spread = 2.0 * share * (1.0 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = erfc(np.abs(turns - length * spread) / (math.sqrt(2.0 * length) * spread))
    return _values(np.where(np.abs(share - 0.5) >= 2.0 / math.sqrt(length), 0.0, found))


def longest_run(bits: Bits) -> Values:
    """Section 2.4: the longest run of ones in blocks of 8 bits, or of 128 from 6272 bits on."""
    _check(bits)
    block, low, shares = LONGEST_RUNS[bits.shape[1] >= 6272]
    blocks = _blocks(bits, block)
    current = np.zeros(blocks.shape[:2], dtype=np.int16)
    longest = current.copy()
    for place in range(block):
        current = (current + 1) * blocks[:, :, place]
        np.maximum(longest, current, out=longest)
    kinds = np.clip(longest, low, low + len(shares) - 1) - low
    counts = np.stack([(kinds == kind).sum(1) for kind in range(len(shares))], axis=1)
    expected = blocks.shape[1] * np.array(shares)
    chi2 = ((counts - expected) ** 2 / expected).sum(1)
    return _values(gammaincc((len(shares) - 1) / 2.0, chi2 / 2.0))


def matrix_rank(bits: Bits, side: int = 32) -> Values:
    """Section 2.5: the ranks of square matrices over the field of two elements."""
    _check(bits, least=38 * side * side)
    matrices = _blocks(bits, side * side)
    packed = matrices.reshape(len(bits), -1, side, side) @ (1 << np.arange(side, dtype=np.int64))
    ranks = _ranks(packed.reshape(-1, side), side).reshape(packed.shape[:2])
    full, one_less = _rank_share(side, side), _rank_share(side, side - 1)
    shares = np.array([full, one_less, 1.0 - full - one_less])
    counts = np.stack([ranks == side, ranks == side - 1, ranks < side - 1], axis=2).sum(1)
    expected = ranks.shape[1] * shares
    return _values(np.exp(-((counts - expected) ** 2 / expected).sum(1) / 2.0))


def spectral(bits: Bits) -> Values:
    """Section 2.6: peaks of the discrete Fourier transform, which periods would make."""
    _check(bits)
    length = bits.shape[1]
    heights = np.abs(np.fft.rfft(2.0 * bits - 1.0, axis=1)[:, : length // 2])
    low = (heights < math.sqrt(math.log(1.0 / 0.05) * length)).sum(1)
    distance = (low - 0.95 * length / 2.0) / math.sqrt(length * 0.95 * 0.05 / 4.0)
    return _values(erfc(np.abs(distance) / math.sqrt(2.0)))


def template(bits: Bits, pattern: str = "000000001", blocks: int = 8) -> Values:
    """Section 2.7: how often a pattern that cannot overlap itself occurs in each of `blocks` blocks."""
    _check(bits, least=blocks * 100)
    size, width = bits.shape[1] // blocks, len(pattern)
    parts = _blocks(bits, size)[:, :blocks]
    found = np.ones((*parts.shape[:2], size - width + 1), dtype=bool)
    for place, bit in enumerate(pattern):
        found &= parts[:, :, place : size - width + 1 + place] == int(bit)
    mean = (size - width + 1) / 2.0**width
    variance = size * (2.0**-width - (2 * width - 1) * 4.0**-width)
    chi2 = ((found.sum(2) - mean) ** 2 / variance).sum(1)
    return _values(gammaincc(blocks / 2.0, chi2 / 2.0))


def serial(bits: Bits, width: int = 5) -> tuple[Values, Values]:
    """Section 2.11: are all patterns of `width` bits equally frequent; the first and the second p-value."""
    _check(bits, least=1 << width + 2)
    psi = [_psi_square(bits, width - less) for less in range(3)]
    first, second = psi[0] - psi[1], psi[0] - 2.0 * psi[1] + psi[2]
    return (
        _values(gammaincc(2.0 ** (width - 2), np.maximum(first, 0.0) / 2.0)),
        _values(gammaincc(2.0 ** (width - 3), np.maximum(second, 0.0) / 2.0)),
    )


def approximate_entropy(bits: Bits, width: int = 5) -> Values:
    """Section 2.12: how frequent patterns of `width` bits are beside those of one bit more."""
    _check(bits, least=1 << width + 2)
    phi = []
    for size in (width, width + 1):
        shares = _pattern_counts(bits, size) / bits.shape[1]
        phi.append((shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1))
    chi2 = 2.0 * bits.shape[1] * (math.log(2.0) - (phi[0] - phi[1]))
    return _values(gammaincc(2.0 ** (width - 1), np.maximum(chi2, 0.0) / 2.0))


def cumulative_sums(bits: Bits) -> tuple[Values, Values]:
    """Section 2.13: how far the random walk of the bits goes from its start, forward and backward."""
    _check(bits)
    steps = 2 * bits.astype(np.int32) - 1
    return tuple(_walk(np.abs(np.cumsum(way, axis=1)).max(1), bits.shape[1]) for way in (steps, steps[:, ::-1]))  # type: ignore[return-value]


def all_tests(bits: Bits) -> dict[str, Values]:
    """Every test by name, each with its usual setting; those that need longer sequences are left out."""
    found: dict[str, Values] = {}
    single: dict[str, tuple[int, Callable[[Bits], Values]]] = {
        "frequency": (LEAST_BITS, frequency),
        "block_frequency": (12_800, block_frequency),
        "runs": (LEAST_BITS, runs),
        "longest_run": (LEAST_BITS, longest_run),
        "matrix_rank": (38_912, matrix_rank),
        "spectral": (1000, spectral),
        "template": (8192, template),
        "approximate_entropy": (1 << 10, approximate_entropy),
    }
    for name, (least, test) in single.items():
        if bits.shape[1] >= least:
            found[name] = test(bits)
    found["cumulative_sums_forward"], found["cumulative_sums_backward"] = cumulative_sums(bits)
    if bits.shape[1] >= 1 << 10:
        found["serial_first"], found["serial_second"] = serial(bits)
    return found


def judged(ps: Values) -> dict[str, Any]:
    """Whether p-values are those of random sequences: sections 4.2.1 and 4.2.2, with the exact binomial tail.

    NIST bounds the share of passes by three standard deviations of a normal approximation. Of truly random sequences,
    1.8 % miss that bound in sets of 100, so that of twelve tests one often does. What decides here is the probability
    of so few passes among random sequences, against the same .0001 that NIST takes for the uniformity.

    Args:
        ps: One p-value a sequence.

    Returns:
        `pass_proportion`, the share of p >= .01; `bound`, NIST's for it; `pass_p`, the probability of a share as low or
        lower; `uniformity`, the p-value of ten equal bins; `passed`, whether both probabilities reach .0001.
    """
    count = len(ps)
    expected = 1.0 - SIGNIFICANCE
    passes = int((ps >= SIGNIFICANCE).sum())
    pass_p = float(binom.cdf(passes, count, expected))
    bins = np.bincount(np.minimum((ps * 10).astype(int), 9), minlength=10)
    uniformity = float(gammaincc(4.5, ((bins - count / 10) ** 2 / (count / 10)).sum() / 2.0))
    return {
        "pass_proportion": passes / count,
        "bound": expected - 3.0 * math.sqrt(expected * SIGNIFICANCE / count),
        "pass_p": pass_p,
        "uniformity": uniformity,
        "passed": pass_p >= JUDGED_BOUND and uniformity >= JUDGED_BOUND,
    }


def _check(bits: Bits, least: int = 1) -> None:
    if bits.dtype != np.uint8 or bits.ndim != 2:
        raise TypeError(f"expected uint8 bits (sequences, length), got {bits.dtype} {bits.shape}")
    if not len(bits) or bits.shape[1] < max(least, 2):
        raise ValueError(f"expected 1 or more sequences of at least {max(least, 2)} bits, got {bits.shape}")
    if bits.max() > 1:
        raise ValueError(f"expected bits of 0 and 1, got a {bits.max()}")


def _values(found: Any) -> Values:
    return np.clip(np.asarray(found, dtype=np.float64), 0.0, 1.0)


def _blocks(bits: Bits, size: int) -> Bits:
    """Whole blocks: (sequences, blocks, size)."""
    count = bits.shape[1] // size
    return bits[:, : count * size].reshape(len(bits), count, size)


def _pattern_counts(bits: Bits, width: int) -> Values:
    """How often each pattern of `width` bits occurs, the sequence taken as a ring: (sequences, 2^width)."""
    if width < 1:
        return np.full((len(bits), 1), float(bits.shape[1]))
    ring = np.concatenate([bits, bits[:, : width - 1]], axis=1).astype(np.int64)
    length = bits.shape[1]
    patterns = np.zeros_like(bits, dtype=np.int64)
    for place in range(width):
        patterns = 2 * patterns + ring[:, place : place + length]
    return np.stack([np.bincount(row, minlength=1 << width) for row in patterns]).astype(np.float64)


def _psi_square(bits: Bits, width: int) -> Values:
    if width < 1:
        return np.zeros(len(bits))
    length = bits.shape[1]
    found: Values = 2.0**width / length * (_pattern_counts(bits, width) ** 2).sum(1) - length
    return found


def _walk(furthest: NDArray[np.int64], length: int) -> Values:
    """The p-value of a walk of `length` steps that gets as far as `furthest` from its start."""
    root = math.sqrt(length)
    found = np.ones(len(furthest))
    for index, far in enumerate(furthest.tolist()):
        k = np.arange((-length // far + 1) // 4, (length // far - 1) // 4 + 1)
        found[index] -= (norm.cdf((4 * k + 1) * far / root) - norm.cdf((4 * k - 1) * far / root)).sum()
        k = np.arange((-length // far - 3) // 4, (length // far - 1) // 4 + 1)
        found[index] += (norm.cdf((4 * k + 3) * far / root) - norm.cdf((4 * k + 1) * far / root)).sum()
    return _values(found)


def _ranks(rows: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Ranks over the field of two elements of many matrices, each row packed into an integer: (N, side) -> (N,)."""
    rows = rows.copy()
    ranks = np.zeros(len(rows), dtype=np.int64)
    every = np.arange(len(rows))
    for column in range(side):
        bit = (rows >> column) & 1
        waiting = np.arange(side) >= ranks[:, None]  # rows that no earlier column has used
        pivot = (bit & waiting).argmax(1)
        has = np.asarray((bit & waiting).any(1))
        chosen, target = rows[every, pivot], np.minimum(ranks, side - 1)
        displaced = rows[every, target]
        rows[every[has], pivot[has]] = displaced[has]
        rows[every[has], target[has]] = chosen[has]
        clear = ((rows >> column) & 1).astype(bool) & has[:, None]
        clear[every, target] = False
        rows ^= np.where(clear, chosen[:, None], 0)
        ranks += has
    return ranks


def _rank_share(side: int, rank: int) -> float:
    """The share of random side x side matrices of that rank over the field of two elements."""
    product = 1.0
    for i in range(rank):
        product *= (1.0 - 2.0 ** (i - side)) ** 2 / (1.0 - 2.0 ** (i - rank))
    return 2.0 ** (rank * (2 * side - rank) - side * side) * product
