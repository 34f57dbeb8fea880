"""Co-occurrence of grey levels, against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.feature import graycomatrix, graycoprops

from encdl.metrics.glcm import OFFSETS, co_occurrence, glcm_features
from tests.mni import mni_slice

ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pictures() -> dict[str, torch.Tensor]:
    return {
        "brain": mni_slice(),
        "camera": torch.from_numpy(data.camera().copy())[None, None],
        "noise": noise(1, 1, 90, 70),
        "constant": torch.full((1, 1, 6, 9), 200, dtype=torch.uint8),
        "smallest": noise(1, 1, 2, 2),
    }


def by_skimage(image: torch.Tensor, levels: int) -> np.ndarray:
    coarse = (image[0, 0].numpy().astype(int) * levels // 256).astype(np.uint8)
    return graycomatrix(coarse, [1], ANGLES, levels=levels, symmetric=True, normed=True)


@pytest.mark.parametrize("levels", [2, 8, 256])
@pytest.mark.parametrize("name", pictures())
def test_matrices_agree_with_skimage(name: str, levels: int) -> None:
    image = pictures()[name]
    found, expected = co_occurrence(image, levels)[0].numpy(), by_skimage(image, levels)[:, :, 0]
    assert len(found) == len(OFFSETS)
    # skimage's angles turn the other way: the two diagonals change places.
    for own, other in zip((0, 1, 2, 3), (0, 3, 2, 1), strict=True):
        direct, mirrored = (np.abs(found[own] - expected[:, :, place]).max() for place in (own, other))
        assert min(direct, mirrored) < 1e-12


@pytest.mark.parametrize("name", pictures())
def test_features_agree_with_skimage(name: str) -> None:
    image = pictures()[name]
    matrix, found = by_skimage(image, 8), glcm_features(image)
    for feature, theirs in {
        "contrast": "contrast",
        "asm": "ASM",
        "correlation": "correlation",
        "entropy_bits": "entropy",
    }.items():
        expected = graycoprops(matrix, theirs).mean() / (math.log(2) if theirs == "entropy" else 1)
        assert found[feature].item() == pytest.approx(expected, abs=1e-9), feature
    near = 1 / (1 + np.abs(np.subtract.outer(np.arange(8), np.arange(8))))  # skimage squares the difference
    expected = np.einsum("ijda,ij->a", matrix, near).mean()
    assert found["homogeneity"].item() == pytest.approx(expected, abs=1e-9)


def test_by_hand() -> None:
    """Two columns, black and white: all neighbours to the side differ, those below are alike."""
    image = torch.tensor([[[[0, 255], [0, 255]]]], dtype=torch.uint8)
    shares = co_occurrence(image, 2)[0]
    apart, alike = [[0.0, 0.5], [0.5, 0.0]], [[0.5, 0.0], [0.0, 0.5]]
    assert shares.tolist() == [apart, apart, alike, apart]
    found = {name: value.item() for name, value in glcm_features(image, 2).items()}
    assert found["contrast"] == pytest.approx(3 / 4)
    assert found["homogeneity"] == pytest.approx((3 / 2 + 1) / 4)
    assert found["asm"] == pytest.approx(0.5)
    assert found["entropy_bits"] == pytest.approx(1.0)
    assert found["correlation"] == pytest.approx((-3 + 1) / 4)


def test_figures_of_uniform_noise() -> None:
    found = glcm_features(noise(1, 1, 1024, 1024))
    levels = np.arange(8)
    apart = (levels[:, None] - levels) ** 2
    expected = {
        "contrast": float(apart.mean()),
        "homogeneity": float((1 / (1 + np.sqrt(apart))).mean()),
        "asm": 1 / 64,
        "entropy_bits": 6.0,
        "correlation": 0.0,
    }
    assert expected["contrast"] == 10.5
    assert expected["homogeneity"] == pytest.approx(0.389, abs=5e-4)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=0.005, abs=0.005), name


def test_channels_are_pooled_and_images_are_not() -> None:
    a, b = noise(1, 1, 9, 11), noise(1, 1, 9, 11, seed=1)
    pooled = co_occurrence(torch.cat([a, b], 1))
    assert torch.allclose(pooled, (co_occurrence(a) + co_occurrence(b)) / 2)
    assert torch.equal(co_occurrence(torch.cat([a, b])), torch.cat([co_occurrence(a), co_occurrence(b)]))


def test_wrong_input_is_refused() -> None:
    for levels in (1, 257):
        with pytest.raises(ValueError, match="2 to 256 levels"):
            co_occurrence(noise(1, 1, 4, 4), levels)
    for shape in ((1, 1, 1, 9), (1, 1, 9, 1)):
        with pytest.raises(ValueError, match="2 x 2"):
            glcm_features(noise(*shape))
    with pytest.raises(TypeError, match="uint8"):
        glcm_features(noise(1, 1, 4, 4).float())
