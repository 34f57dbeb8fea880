"""BM3D: its parts by definition, and its gain beside scikit-image's denoisers and the published figures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data
from skimage.restoration import denoise_nl_means

from encdl.metrics.classical_repair import bm3d as module
from encdl.metrics.classical_repair.bm3d import bm3d
from encdl.metrics.classical_repair.tuning import psnr_db
from tests.metrics.classical_repair.images import brain, noisy


def levels(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("sigma", "gain"), [(15.0, 7.3), (25.0, 9.3)])
def test_a_photograph_gains_as_published(sigma: float, gain: float) -> None:
    """Dabov et al. give 31.9 and 29.5 dB for another photograph of a cameraman, from 24.6 and 20.2."""
    image = cv2.resize(data.camera(), (256, 256), interpolation=cv2.INTER_AREA)
    damaged = noisy(image, sigma)
    found = psnr_db(image, levels(bm3d(damaged, sigma)))
    assert found > 20 * np.log10(255 / sigma) + gain
    means = denoise_nl_means(damaged / 255, 5, 9, h=0.8 * sigma / 255, sigma=sigma / 255, fast_mode=True)
    assert found > psnr_db(image, levels(means * 255)) + 0.5


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_a_brain_gains(sigma: float) -> None:
    image = brain(side=128)
    damaged = noisy(image, sigma)
    assert psnr_db(image, levels(bm3d(damaged, sigma))) > psnr_db(image, levels(damaged)) + 2.5


def test_the_second_stage_is_better_than_the_first() -> None:
    image = brain(side=96)
    damaged = noisy(image, 15.0).astype(np.float32)
    basic = module._estimate(damaged, damaged, module.HARD, 15.0, 8, 3)
    assert psnr_db(image, levels(bm3d(damaged, 15.0))) > psnr_db(image, levels(basic)) + 0.1


@pytest.mark.parametrize("size", [(2, 9), (12, 12), (50, 41)], ids=str)
@pytest.mark.parametrize("block", [4, 6, 8])
def test_equal_blocks(size: tuple[int, int], block: int) -> None:
    """More equal blocks than a group holds: every pixel is covered all the same."""
    assert np.allclose(bm3d(np.full(size, 9.0), 2.0, block), 9.0, atol=0.1)


def test_a_constant_image_comes_back() -> None:
    found = bm3d(noisy(np.full((48, 48), 128, np.uint8), 10.0), 10.0)
    assert np.abs(found - 128).mean() < 1.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 9), (8, 8), (9, 40), (17, 5)], ids=str)
@pytest.mark.parametrize("block", [4, 8])
def test_any_size(shape: tuple[int, int], block: int) -> None:
    image = np.random.default_rng(0).uniform(0, 255, shape)
    found = bm3d(image, 5.0, block)
    assert (found.shape, found.dtype) == (shape, np.float32)
    assert np.isfinite(found).all()


def test_little_noise_changes_little() -> None:
    image = brain(side=48)
    assert np.abs(bm3d(image, 0.01) - image).max() < 0.1


def test_distances_by_definition() -> None:
    guide = np.random.default_rng(0).uniform(0, 255, (20, 17)).astype(np.float32)
    at_rows, at_columns, steps = np.array([0, 5, 12]), np.array([3, 9]), np.arange(-6, 7)
    found = module._distances(guide, 8, at_rows, at_columns, steps, steps).reshape(3, 2, 13, 13)
    for index, distance in np.ndenumerate(found):
        y, x = at_rows[index[0]], at_columns[index[1]]
        there = (y + steps[index[2]], x + steps[index[3]])
        if 0 <= there[0] <= 12 and 0 <= there[1] <= 9:
            blocks = [guide[a : a + 8, b : b + 8] for a, b in ((y, x), there)]
            assert distance == pytest.approx(((blocks[0] - blocks[1]) ** 2).sum(), rel=1e-4, abs=0.5)
        else:
            assert np.isinf(distance)


def test_memory_is_bounded_without_changing_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noisy(brain(side=40), 8.0)
    whole = bm3d(image, 8.0)
    monkeypatch.setattr(module, "DISTANCES_AT_ONCE", 2**14)
    assert np.allclose(bm3d(image, 8.0), whole, atol=1e-3)


@pytest.mark.parametrize("size", [1, 2, 4, 32])
def test_transforms_are_orthonormal(size: int) -> None:
    haar = module._haar(size)
    assert np.allclose(haar @ haar.T, np.eye(size), atol=1e-5)
    block = module._block_transform(4)
    assert np.allclose(block @ block.T, np.eye(16), atol=1e-5)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"takes an image \(H, W\)"):
        bm3d(np.zeros((1, 2, 2)), 1.0)
    with pytest.raises(ValueError, match="sigma must be above 0"):
        bm3d(np.zeros((2, 2)), 0.0)
    with pytest.raises(ValueError, match="step from 1 to 8"):
        bm3d(np.zeros((2, 2)), 1.0, step=9)
