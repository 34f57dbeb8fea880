from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skimage.measure import shannon_entropy

from encdl.metrics.statistics import (
    CHI_SQUARE_CRITICAL,
    adjacent_correlation,
    chi_square,
    entropy_bits,
    histogram,
    lag_correlation,
    mean_adjacent_correlation,
)
from tests.mni import mni_slice


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def images() -> torch.Tensor:
    return torch.cat([mni_slice(), noise(1, 1, 197, 233), mni_slice(60)])


def test_histogram_counts_each_image_apart() -> None:
    x = torch.tensor([[[[0, 0, 255]]], [[[7, 7, 7]]]], dtype=torch.uint8)
    counts = histogram(x)
    assert counts.shape == (2, 256)
    assert counts[0, 0] == 2
    assert counts[0, 255] == 1
    assert counts[1, 7] == 3
    assert counts.sum() == 6


def test_entropy_by_hand() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert entropy_bits(torch.cat([x, x // 128, x * 0])).tolist() == [8.0, 1.0, 0.0]


def test_entropy_agrees_with_skimage() -> None:
    expected = [shannon_entropy(image.numpy(), base=2) for image in images()]
    np.testing.assert_allclose(entropy_bits(images()).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("side", "expected"), [(28, 7.744), (64, 7.9546), (128, 7.9888), (224, 7.9964), (256, 7.9972)])
def test_entropy_of_uniform_noise(side: int, expected: float) -> None:
    assert entropy_bits(noise(16, 1, side, side)).mean().item() == pytest.approx(expected, abs=0.15 / side)


def test_chi_square_agrees_with_scipy() -> None:
    expected = [stats.chisquare(np.bincount(image.numpy().ravel(), minlength=256)).statistic for image in images()]
    np.testing.assert_allclose(chi_square(images()).numpy(), expected, rtol=1e-12)


def test_chi_square_by_hand() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert chi_square(x).item() == 0.0
    assert chi_square(x * 0).item() == 255 + 255.0**2  # 255 empty cells of 1 expected, one cell 255 above


def test_chi_square_critical_value() -> None:
    assert pytest.approx(stats.chi2.ppf(0.95, 255), abs=1e-3) == CHI_SQUARE_CRITICAL


@pytest.mark.parametrize(
    ("direction", "rows", "columns"), [("horizontal", 0, 1), ("vertical", 1, 0), ("diagonal", 1, 1)]
)
def test_adjacent_correlation_agrees_with_scipy(direction: str, rows: int, columns: int) -> None:
    expected = []
    for image in images().numpy()[:, 0]:
        here = image[: image.shape[0] - rows, : image.shape[1] - columns].ravel().astype(float)
        expected.append(stats.pearsonr(here, image[rows:, columns:].ravel().astype(float)).statistic)
    np.testing.assert_allclose(adjacent_correlation(images(), direction).numpy(), expected, atol=1e-12)


def test_natural_image_correlates_and_noise_does_not() -> None:
    brain, uniform, _ = mean_adjacent_correlation(images()).tolist()
    assert brain > 0.9
    assert uniform < 3 / math.sqrt(197 * 233)


def test_checkerboard_is_anticorrelated() -> None:
    x = ((torch.arange(8).view(8, 1) + torch.arange(8)) % 2 * 255).to(torch.uint8).view(1, 1, 8, 8)
    assert adjacent_correlation(x, "horizontal").item() == pytest.approx(-1.0)
    assert adjacent_correlation(x, "diagonal").item() == pytest.approx(1.0)
    assert mean_adjacent_correlation(x).item() == pytest.approx(1.0)


def test_correlation_sees_the_lag_of_a_tile() -> None:
    tile = noise(1, 1, 13, 13).repeat(1, 1, 8, 8)
    assert lag_correlation(tile, 0, 13).item() == pytest.approx(1.0)
    assert abs(lag_correlation(tile, 0, 12).item()) < 0.2


def test_undefined_correlations_have_a_defined_answer() -> None:
    constant = torch.full((1, 3, 5, 5), 77, dtype=torch.uint8)
    pixel = torch.zeros(2, 1, 1, 1, dtype=torch.uint8)
    pair = torch.tensor([[[[5, 9]]]], dtype=torch.uint8)
    for direction in ("horizontal", "vertical", "diagonal"):
        assert adjacent_correlation(constant, direction).tolist() == [1.0]
        assert adjacent_correlation(pixel, direction).tolist() == [0.0, 0.0]
        assert adjacent_correlation(pair, direction).tolist() == [0.0]
    assert entropy_bits(pixel).tolist() == [0.0, 0.0]
    assert chi_square(pixel).tolist() == [255.0, 255.0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_ranges_and_batch_invariance(seed: int, channels: int, height: int, width: int) -> None:
    x = noise(3, channels, height, width, seed=seed)
    for measure, top in ((entropy_bits, 8.0), (chi_square, math.inf), (mean_adjacent_correlation, 1.0)):
        together = measure(x)
        assert together.shape == (3,)
        assert bool(((together >= 0) & (together <= top)).all())
        assert torch.equal(together, torch.cat([measure(image[None]) for image in x]))


def test_wrong_input_is_refused() -> None:
    with pytest.raises(TypeError, match="uint8"):
        entropy_bits(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
        entropy_bits(torch.zeros(2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
        chi_square(torch.zeros(1, 1, 0, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="use one of horizontal"):
        adjacent_correlation(noise(1, 1, 4, 4), "sideways")
    with pytest.raises(ValueError, match="0 or more"):
        lag_correlation(noise(1, 1, 4, 4), -1, 0)
