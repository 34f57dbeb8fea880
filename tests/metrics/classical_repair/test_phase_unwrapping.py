"""Unwrapping undoes what noise did to levels near 0 and 255, and leaves the rest."""

from __future__ import annotations

import numpy as np
import pytest

from encdl.metrics.classical_repair.phase_unwrapping import unwrap
from tests.metrics.classical_repair.images import brain, noisy, wrapped


def ramp(height: int = 60, width: int = 96) -> np.ndarray:
    return np.tile(np.linspace(0, 255, width), (height, 1))


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_a_ramp_comes_back(sigma: float) -> None:
    levels = np.rint(noisy(ramp(), sigma))
    assert (levels < 0).any()
    assert (levels > 255).any()
    assert np.array_equal(unwrap(wrapped(levels), sigma), levels)


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_a_black_and_a_white_image_come_back(level: int, sigma: float) -> None:
    levels = np.rint(noisy(np.full((40, 40), level, np.uint8), sigma))
    assert np.array_equal(unwrap(wrapped(levels), sigma), levels)


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_a_brain_on_black_comes_back(sigma: float) -> None:
    levels = np.rint(noisy(brain(side=128), sigma))
    assert (levels < 0).mean() > 0.05
    assert (unwrap(wrapped(levels), sigma) != levels).mean() < 1e-3


def test_a_white_disc_that_fades_into_black() -> None:
    down, right = np.mgrid[:64, :64] - 32
    disc = np.clip(600 - 30 * np.hypot(down, right), 0, 255).astype(np.uint8)
    levels = np.rint(noisy(disc, 8.0))
    assert (unwrap(wrapped(levels), 8.0) != levels).sum() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("sigma", [0.0, 2.0, 300.0])
def test_results_are_the_image_mod_256(shape: tuple[int, int], sigma: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = unwrap(image, sigma)
    assert (found.dtype, found.shape) == (np.float32, shape)
    assert np.array_equal(found % 256, image)
    if sigma == 0:
        assert np.array_equal(found, image)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W\)"):
        unwrap(np.zeros((2, 2)), 1.0)
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W\)"):
        unwrap(np.zeros((1, 2, 2), np.uint8), 1.0)
    with pytest.raises(ValueError, match="sigma must be 0 or more"):
        unwrap(np.zeros((2, 2), np.uint8), -1.0)
