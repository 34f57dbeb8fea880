"""Entropy and correlation of noise: exact figures against sums and draws of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from skimage import data
from skimage.measure import shannon_entropy

from encdl.metrics.entropy import (
    block_pixels_for,
    correlation_critical,
    entropy_interval,
    local_entropy_bits,
    local_entropy_interval,
    noise_entropy,
)
from encdl.metrics.statistics import adjacent_correlation, entropy_bits
from tests.mni import mni_slice

# Entropy in bits and the correlation of neighbours that noise exceeds once in 20 times, by side; as published.
NOISE = [
    (28, 7.744, 0.070),
    (64, 7.9546, 0.031),
    (128, 7.9888, 0.0153),
    (224, 7.9964, 0.0088),
    (256, 7.9972, 0.0077),
    (512, 7.9993, 0.0038),
]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def within_binomial(passed: torch.Tensor, share: float = 0.95) -> bool:
    """Whether so many passes are to be expected, but once in a thousand times."""
    return float(stats.binomtest(int(passed.sum()), passed.numel(), share).pvalue) > 1e-3


@pytest.mark.parametrize(("side", "bits", "correlation"), NOISE)
def test_published_figures(side: int, bits: float, correlation: float) -> None:
    """To one unit of the last digit: entropy in print is the first term of a series, this the exact sum."""
    digits = len(str(bits).partition(".")[2])
    assert noise_entropy(side * side)[0] == pytest.approx(bits, abs=10.0**-digits)
    digits = len(f"{correlation}".partition(".")[2])
    assert correlation_critical(side * side) == pytest.approx(correlation, abs=0.51 * 10.0**-digits)


def test_entropy_of_two_bytes_by_hand() -> None:
    """Equal once in 256 times, which gives 0 bits, and else 1 bit."""
    mean, deviation = noise_entropy(2)
    assert mean == pytest.approx(255 / 256)
    assert deviation == pytest.approx(math.sqrt(255) / 256)


def test_entropy_of_three_bytes_by_hand() -> None:
    same, two = 1 / 256**2, 3 * 255 / 256**2
    values = np.array([0.0, -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3)), math.log2(3)])
    shares = np.array([same, two, 1 - same - two])
    mean = float((values * shares).sum())
    assert noise_entropy(3) == pytest.approx((mean, math.sqrt(((values - mean) ** 2 * shares).sum())))


@pytest.mark.parametrize("pixels", [64, 1936])
def test_entropy_of_noise_against_draws(pixels: int) -> None:
    drawn = entropy_bits(noise(4000, 1, 1, pixels, seed=pixels)).numpy()
    mean, deviation = noise_entropy(pixels)
    assert abs(drawn.mean() - mean) < 4 * deviation / math.sqrt(len(drawn))
    assert drawn.std() == pytest.approx(deviation, rel=4 / math.sqrt(2 * len(drawn)))


def test_noise_falls_into_the_intervals_as_often_as_they_say() -> None:
    """Wu's published interval for 30 blocks of 1936 pixels is shown too narrow: a quarter of noise falls into it."""
    low, high = entropy_interval(32 * 32)
    whole = entropy_bits(noise(2000, 1, 32, 32, seed=1))
    assert within_binomial((whole >= low) & (whole <= high))
    assert within_binomial(whole >= low, 0.975)
    blocks = entropy_bits(noise(30 * 600, 1, 44, 44, seed=2)).view(600, 30).mean(1)
    low, high = local_entropy_interval()
    assert within_binomial((blocks >= low) & (blocks <= high))
    published = (blocks > 7.901901305) & (blocks < 7.903037329)
    assert 0.2 < published.double().mean() < 0.32
    assert local_entropy_interval(alpha=0.5)[0] > low


def test_noise_exceeds_the_critical_correlation_once_in_twenty() -> None:
    found = adjacent_correlation(noise(2000, 1, 24, 24, seed=3), "horizontal")
    assert within_binomial(found.abs() <= correlation_critical(24 * 23))
    assert correlation_critical(24 * 23) == pytest.approx(1.959964 / math.sqrt(24 * 23))


def test_local_entropy_by_hand() -> None:
    """Four blocks: constant, two levels, and 16 levels twice: all are drawn, whatever the order."""
    blocks = torch.zeros(4, 4, 4, dtype=torch.uint8)
    blocks[1, :2] = 9
    blocks[2:] = torch.arange(16, dtype=torch.uint8).view(4, 4)
    image = torch.cat([torch.cat([blocks[0], blocks[1]], 1), torch.cat([blocks[2], blocks[3]], 1)])[None, None]
    assert local_entropy_bits(image, 4, 16).item() == pytest.approx((0 + 1 + 4 + 4) / 4)


def test_local_entropy_agrees_with_skimage() -> None:
    """Where the blocks fill the image, which are drawn does not matter."""
    for image in (data.camera()[:176, :220], noise(1, 1, 176, 220)[0, 0].numpy()):
        cut = [
            shannon_entropy(image[top : top + 44, left : left + 44], base=2)
            for top in range(0, 176, 44)
            for left in range(0, 220, 44)
        ]
        found = local_entropy_bits(torch.from_numpy(image.copy())[None, None], 20)
        assert found.item() == pytest.approx(np.mean(cut), rel=1e-12)


def test_local_entropy_draws_from_all_channels_and_repeats() -> None:
    image = torch.cat([noise(1, 1, 44, 44), torch.zeros(1, 2, 44, 44, dtype=torch.uint8)], 1)
    assert local_entropy_bits(image, 3).item() == pytest.approx(entropy_bits(image[:, :1]).item() / 3)
    first, second = (local_entropy_bits(mni_slice(), 5, 1936, torch.Generator().manual_seed(seed)) for seed in (4, 4))
    assert torch.equal(first, second)


def test_natural_images_lie_outside() -> None:
    low, _ = local_entropy_interval(10)
    for image in (mni_slice(), torch.from_numpy(data.camera().copy())[None, None]):
        assert local_entropy_bits(image, 10).item() < low - 1
        assert entropy_bits(image).item() < entropy_interval(image.numel())[0]


@pytest.mark.parametrize(("shape", "side"), [((1, 512, 512), 44), ((1, 64, 64), 10), ((3, 64, 64), 16), ((1, 6, 5), 1)])
def test_the_largest_block_that_fits_so_often(shape: tuple[int, int, int], side: int) -> None:
    assert block_pixels_for(shape) == side * side
    assert local_entropy_bits(noise(2, *shape), 30, side * side).shape == (2,)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        local_entropy_bits(noise(1, 1, 64, 64), 4, 15)
    with pytest.raises(ValueError, match="at most 1 of them"):
        local_entropy_bits(noise(1, 1, 64, 64))
    with pytest.raises(TypeError, match="uint8"):
        local_entropy_bits(noise(1, 1, 64, 64).float(), 1, 16)
    with pytest.raises(ValueError, match="hold no 30"):
        block_pixels_for((1, 5, 5))
    with pytest.raises(ValueError, match="2 or more"):
        noise_entropy(1)
    with pytest.raises(ValueError, match="1 or more"):
        correlation_critical(0)
    for alpha in (0.0, 1.0):
        with pytest.raises(ValueError, match="alpha"):
            entropy_interval(100, alpha)
