from __future__ import annotations

import gzip
from typing import Any

import nibabel
import numpy as np
import pytest

from encdl.files.label_masks import COLOURS, faint, largest_slices, nifti_bytes, overlay, surface_mm2


def example() -> np.ndarray[Any, Any]:
    """Class 2 around class 1, apart from both class 8, at the border."""
    mask = np.zeros((20, 31), np.uint8)
    mask[2:14, 3:15] = 2
    mask[6:10, 7:11] = 1
    mask[17:, 28:] = 8
    return mask


def cipher(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_nifti() -> None:
    mask = example()
    data = nifti_bytes(mask)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
    assert image.shape == (31, 20, 1)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0].T, mask)
    # In NIfTI's world +x is the patient's left-to-right and +y back to front: ITK's directions, turned.
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert nifti_bytes(mask.copy()) == data


def test_the_overlay_tints_and_outlines_classes() -> None:
    mask = example()
    drawn, plain = (overlay(each, faint(cipher(1, 20, 31)), least=1) for each in (mask, np.zeros_like(mask)))
    np.testing.assert_array_equal(drawn[mask == 0], plain[mask == 0])
    for rim, colour in [((2, 8), 1), ((13, 14), 1), ((6, 7), 0), ((9, 10), 0), ((17, 29), 0), ((5, 8), 1)]:
        np.testing.assert_array_equal(drawn[rim], COLOURS[colour])
    for inner, colour in [((8, 8), 0), ((19, 30), 0)]:
        expected = 0.55 * plain[inner] + 0.45 * COLOURS[colour]
        np.testing.assert_allclose(drawn[inner], expected, atol=1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_background_is_the_ciphertext(channels: int) -> None:
    noise = cipher(channels, 9, 5)
    drawn = overlay(np.zeros((9, 5), np.uint8), faint(noise), least=1)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (9, 5, 3))
    np.testing.assert_allclose(drawn[..., 0], 255 - 0.3 * noise.mean(0), atol=0.51)
    assert (drawn == drawn[..., :1]).all()


@pytest.mark.parametrize(("shape", "times"), [((35, 50), 8), ((256, 300), 1), ((20, 1000), 2), ((3, 4000), 1)])
def test_small_images_are_enlarged_above_a_legend(shape: tuple[int, int], times: int) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[:, : shape[1] // 2] = 2
    names = ("background", "left", "right, a long name", "third")
    drawn, grey = overlay(mask, np.full(shape, 60), names), overlay(mask, np.full(shape, 60))
    height, width = times * shape[0], times * shape[1]
    assert grey.shape == (height, width, 3)
    assert drawn.shape[1] == width
    assert 20 <= drawn.shape[0] - height <= 60
    np.testing.assert_array_equal(drawn[:height], grey)
    assert (grey[:, -1] == 60).all()
    for colour in COLOURS[:3]:
        assert (drawn[height:] == colour).all(axis=2).sum() >= 100


def test_one_pixel() -> None:
    one = np.full((1, 1), 255, np.uint8)
    assert overlay(one, faint(cipher(1, 1, 1)), least=1).shape == (1, 1, 3)
    assert nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti_bytes(one))).shape == (1, 1, 1)


def test_measures_of_a_ball() -> None:
    """In voxels of 1 x 2 x 2 mm; the slice through the middle is the largest."""
    z, y, x = np.mgrid[:41, :21, :21]
    ball = (z - 20) ** 2 + (2 * (y - 10)) ** 2 + (2 * (x - 10)) ** 2 <= 18**2
    assert surface_mm2(ball, (1.0, 2.0, 2.0)) == pytest.approx(4 * np.pi * 18**2, rel=0.13)
    assert largest_slices(3 * ball.astype(np.uint8)) == {3: 20}
    box = np.ones((2, 3, 4), bool)  # closed at the rim, its edges cut
    assert 0.75 * 52 < surface_mm2(box, (1.0, 1.0, 1.0)) < 52
