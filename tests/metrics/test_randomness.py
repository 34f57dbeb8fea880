"""NIST's tests: the worked examples of SP 800-22 revision 1a, NIST's own C code, and streams that must fail."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy import stats

from encdl.metrics import randomness

PI_100 = "1100100100001111110110101010001000100001011010001100001000110100110001001100011001100010100010111000"
"""The first 100 binary digits of pi, the standard's longer example."""

LONGEST_128 = (
    "1100110000010101011011000100110011100000000000100100110101010001"
    "0001001111010110100000001101011111001100111001101101100010110010"
)


def bits(text: str) -> randomness.Bits:
    return np.array([[int(each) for each in text]], dtype=np.uint8)


def stream(seed: int, length: int) -> randomness.Bits:
    """Bits that anyone can make again."""
    drawn = hashlib.shake_256(b"nist %d" % seed).digest(length // 8)
    return np.unpackbits(np.frombuffer(drawn, dtype=np.uint8))[None]


def random_bits(sequences: int, length: int, seed: int = 0) -> randomness.Bits:
    return np.random.default_rng(seed).integers(0, 2, (sequences, length), dtype=np.uint8)


@cache
def euler(length: int) -> randomness.Bits:
    """The first binary digits of e, by its series, summed in halves."""

    def summed(first: int, last: int) -> tuple[int, int]:
        if last - first == 1:
            return 1, last
        middle = (first + last) // 2
        (p, q), (r, s) = summed(first, middle), summed(middle, last)
        return p * s + r, q * s

    terms = 200
    while math.lgamma(terms) / math.log(2) < length + 64:
        terms = terms * 5 // 4
    above, below = summed(0, terms)
    return bits(f"{((above + below) << (length - 2)) // below:b}")


@pytest.mark.parametrize(
    ("test", "text", "expected"),
    [
        (randomness.frequency, "1011010101", 0.527089),
        (randomness.frequency, PI_100, 0.109599),
        (lambda b: randomness.block_frequency(b, 3), "0110011010", 0.801252),
        (lambda b: randomness.block_frequency(b, 10), PI_100, 0.706438),
        (randomness.runs, "1001101011", 0.147232),
        (randomness.runs, PI_100, 0.500798),
        (lambda b: randomness.cumulative_sums(b)[0], PI_100, 0.219194),
        (lambda b: randomness.cumulative_sums(b)[1], PI_100, 0.114866),
        (lambda b: randomness.approximate_entropy(b, 2), PI_100, 0.235301),
    ],
)
def test_worked_examples(test: Callable[[randomness.Bits], randomness.Values], text: str, expected: float) -> None:
    assert test(bits(text))[0] == pytest.approx(expected, abs=1.5e-6)


def test_worked_examples_that_the_standard_rounds() -> None:
    """The shares of runs to four digits, the normal distribution to that of a table."""
    assert randomness.longest_run(bits(LONGEST_128))[0] == pytest.approx(0.180609, abs=1e-4)
    assert randomness.cumulative_sums(bits("1011010111"))[0][0] == pytest.approx(0.4116588, abs=1e-4)


@pytest.mark.parametrize(("block", "low", "shares"), randomness.LONGEST_RUNS)
def test_shares_of_longest_runs(block: int, low: int, shares: tuple[float, ...]) -> None:
    def at_most(longest: int) -> int:
        """Of all blocks, how many have no longer run of ones."""
        by_end = [1] + [0] * longest  # by the length of the run that they end in
        for _ in range(block):
            by_end = [sum(by_end), *by_end[:-1]]
        return sum(by_end)

    found = np.cumsum(shares)[:-1] * 2.0**block
    assert found == pytest.approx([at_most(low + kind) for kind in range(len(shares) - 1)], rel=1e-9)
    assert sum(shares) == pytest.approx(1, abs=1e-9)


def test_serial_statistics_of_the_worked_example() -> None:
    """The ten bits are too few for the p-values; the sums that they follow from are the standard's."""
    example = bits("0011011101")
    psi = [randomness._psi_square(example, width)[0] for width in (3, 2, 1)]
    assert psi == pytest.approx([2.8, 1.2, 0.4])
    assert stats.chi2.sf(2 * (psi[0] - psi[1]) / 2, 4) == pytest.approx(0.808792, abs=1e-6)


def test_e_to_a_hundred_thousand_digits() -> None:
    assert randomness.matrix_rank(euler(100_000))[0] == pytest.approx(0.532069, abs=1e-6)


@pytest.mark.slow
def test_e_to_a_million_digits() -> None:
    """Appendix B of the standard, and its examples of length 1,000,000."""
    e = euler(1_000_000)
    assert e.shape == (1, 1_000_000)
    expected = {
        0.953749: randomness.frequency(e),
        0.211072: randomness.block_frequency(e),
        0.561917: randomness.runs(e),
        0.306156: randomness.matrix_rank(e),
        0.847187: randomness.spectral(e),
        0.078790: randomness.template(e),
        0.700073: randomness.approximate_entropy(e, 10),
        0.843764: randomness.serial(e, 2)[0],
        0.561915: randomness.serial(e, 2)[1],
        0.766182: randomness.serial(e, 16)[0],
        0.669887: randomness.cumulative_sums(e)[0],
        0.724266: randomness.cumulative_sums(e)[1],
    }
    for published, found in expected.items():
        assert found[0] == pytest.approx(published, abs=1.5e-6)


# p-values that NIST's C code gives (by the package sp80022suite 0.0.8, see docs/keys.md) for `stream`; of serial and
# cumulative sums the lesser of the two. In the last stream of each length every 97th bit is set.
REFERENCE = [
    (8192, 0, (0.7071768, 0.0459952, 0.2604146, 0.2732446, 0.7456028, 0.3291657, 0.3170795, 0.4648608)),
    (8192, 1, (0.7402998, 0.8862012, 0.0421794, 0.7684164, 0.4905458, 0.1062869, 0.3583326, 0.3412826)),
    (8192, 2, (0.0888537, 0.4974584, 0.0790578, 0.5082862, 0.4653924, 0.1722241, 0.0360192, 0.0542508)),
    (40000, 0, (0.1901958, 0.4580585, 0.6444835, 0.3862290, 0.0276377, 0.1028385, 0.4854423, 0.1344998)),
    (40000, 1, (0.9282872, 0.2904301, 0.0028829, 0.6161609, 0.1833170, 0.1950732, 0.0837463, 0.9653818)),
    (40000, 2, (0.0601081, 0.5298514, 0.1651996, 0.7486560, 0.5206368, 0.0844820, 0.0320185, 0.0332407)),
]
RANKS = (0.1563810, 0.3216612, 0.8839528)


@pytest.mark.parametrize(("length", "seed", "expected"), REFERENCE)
def test_agrees_with_nists_code(length: int, seed: int, expected: tuple[float, ...]) -> None:
    drawn = stream(seed, length).copy()
    if seed == 2:
        drawn[:, ::97] = 1
    found = randomness.all_tests(drawn)
    names = ("frequency", "block_frequency", "runs", "longest_run", "spectral", "approximate_entropy")
    ps = [found[name][0] if name in found else randomness.block_frequency(drawn)[0] for name in names]
    for pair in (("serial_first", "serial_second"), ("cumulative_sums_forward", "cumulative_sums_backward")):
        ps.append(min(found[name][0] for name in pair))
    assert ps == pytest.approx(expected, abs=1e-6)
    if length == 40000:
        assert found["matrix_rank"][0] == pytest.approx(RANKS[seed], abs=1e-6)


def test_ranks_against_elimination_by_hand() -> None:
    def rank(matrix: np.ndarray) -> int:
        rows, found = [int("".join(map(str, row)), 2) for row in matrix.tolist()], 0
        while rows:
            pivot = rows.pop()
            if pivot:
                found += 1
                low = pivot & -pivot
                rows = [row ^ pivot if row & low else row for row in rows]
        return found

    matrices = random_bits(60, 64).reshape(60, 8, 8)
    matrices[:20, 3] = matrices[:20, 1] ^ matrices[:20, 6]
    matrices[20] = 0
    packed = matrices @ (1 << np.arange(8, dtype=np.int64))
    assert randomness._ranks(packed, 8).tolist() == [rank(each) for each in matrices]
    shares = [randomness._rank_share(32, each) for each in range(33)]
    assert sum(shares) == pytest.approx(1)
    assert shares[32] == pytest.approx(0.2888, abs=1e-4)


def test_templates_are_counted_as_by_hand() -> None:
    drawn = stream(5, 8192)
    counts = []
    for start in range(0, 8192, 1024):
        text = "".join(map(str, drawn[0, start : start + 1024].tolist()))
        counts.append(text.count("0001"))  # cannot overlap itself, so that `count` counts all
    mean, variance = 1021 / 16, 1024 * (1 / 16 - 7 / 256)
    expected = stats.chi2.sf(((np.array(counts) - mean) ** 2 / variance).sum(), 8)
    assert randomness.template(drawn, "0001")[0] == pytest.approx(expected)


def test_sequences_are_judged_apart() -> None:
    drawn = random_bits(5, 40_000)
    together = randomness.all_tests(drawn)
    for index, row in enumerate(drawn):
        for name, ps in randomness.all_tests(row[None]).items():
            assert ps[0] == pytest.approx(together[name][index], abs=1e-12), name


def test_short_sequences_skip_what_needs_long_ones() -> None:
    short, long = (set(randomness.all_tests(random_bits(2, length))) for length in (256, 40_000))
    assert "matrix_rank" in long - short
    assert {"frequency", "runs", "longest_run", "cumulative_sums_forward"} <= short
    assert len(long) == 12


def test_random_bits_pass() -> None:
    for name, ps in randomness.all_tests(random_bits(100, 40_000)).items():
        assert randomness.judged(ps)["passed"], name


WEAK = {
    "51 % ones": lambda: (np.random.default_rng(1).random((100, 16_384)) < 0.51).astype(np.uint8),
    "a period of 101": lambda: np.resize(random_bits(1, 101)[0], (16_384,))[None].repeat(100, 0),
    "sticks to the last bit": lambda: (
        np.cumsum(np.random.default_rng(2).random((100, 16_384)) < 0.47, axis=1).astype(np.uint8) & 1
    ),
    "constant": lambda: np.zeros((100, 16_384), dtype=np.uint8),
    "alternating": lambda: np.tile(np.array([0, 1], dtype=np.uint8), (100, 8192)),
}


@pytest.mark.parametrize("make", WEAK.values(), ids=WEAK)
def test_weak_streams_fail(make: Callable[[], randomness.Bits]) -> None:
    verdicts = {name: randomness.judged(ps)["passed"] for name, ps in randomness.all_tests(make()).items()}
    assert not all(verdicts.values()), verdicts


def test_a_bias_is_seen_by_frequency_and_a_period_by_the_spectrum() -> None:
    biased, periodic = (WEAK[name]() for name in ("51 % ones", "a period of 101"))
    assert not randomness.judged(randomness.frequency(biased))["passed"]
    assert randomness.judged(randomness.frequency(random_bits(100, 16_384)))["passed"]
    assert (randomness.spectral(periodic) < 1e-6).all()


def test_judgement() -> None:
    even = (np.arange(1000) + 0.5) / 1000
    judged = randomness.judged(even)
    assert judged["passed"]
    assert judged["pass_proportion"] == 0.99
    assert judged["uniformity"] == pytest.approx(1.0)
    assert judged["bound"] == pytest.approx(0.99 - 3 * math.sqrt(0.99 * 0.01 / 1000))
    assert judged["pass_p"] == pytest.approx(stats.binom.cdf(990, 1000, 0.99))
    lumped = randomness.judged(np.full(1000, 0.55))
    assert not lumped["passed"]  # all pass, and no random sequences are so alike
    assert lumped["pass_proportion"] == 1
    low = np.where(np.arange(1000) < 60, 0.001, even)
    assert not randomness.judged(low)["passed"]


def test_uniformity_agrees_with_scipy() -> None:
    ps = np.random.default_rng(3).random(500) ** 1.2
    counts = np.histogram(ps, bins=10, range=(0, 1))[0]
    assert randomness.judged(ps)["uniformity"] == pytest.approx(stats.chisquare(counts).pvalue)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TypeError, match="uint8"):
        randomness.frequency(np.zeros((1, 200)))
    with pytest.raises(TypeError, match="uint8"):
        randomness.runs(np.zeros(200, dtype=np.uint8))
    with pytest.raises(ValueError, match="0 and 1"):
        randomness.spectral(np.full((1, 200), 2, dtype=np.uint8))
    for empty in (np.zeros((0, 200), dtype=np.uint8), np.zeros((1, 1), dtype=np.uint8)):
        with pytest.raises(ValueError, match="at least"):
            randomness.frequency(empty)
    with pytest.raises(ValueError, match="38912"):
        randomness.matrix_rank(random_bits(1, 1000))
