"""Inpainting leaves intact pixels alone and continues the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from encdl.metrics.classical_repair import inpainting
from encdl.metrics.classical_repair.impulses import fill_median
from encdl.metrics.classical_repair.inpainting import biharmonic, telea
from encdl.metrics.classical_repair.tuning import psnr_db
from encdl.utils.errors import UsageError
from tests.metrics.classical_repair.images import brain, scattered

Inpaint = Callable[[np.ndarray, np.ndarray], np.ndarray]
BOTH = pytest.mark.parametrize("inpaint", [telea, biharmonic])


@BOTH
def test_intact_pixels_stay(inpaint: Inpaint) -> None:
    image = brain()
    missing = scattered(image)
    found = inpaint(np.where(missing, 0, image).astype(np.uint8), missing)
    assert found.dtype == np.uint8
    assert np.array_equal(found[~missing], image[~missing])
    assert psnr_db(image, found) > 25


@BOTH
def test_what_a_missing_pixel_held_counts_for_nothing(inpaint: Inpaint) -> None:
    image = brain()
    missing = scattered(image)
    black, white = (np.where(missing, level, image).astype(np.uint8) for level in (0, 255))
    assert np.array_equal(inpaint(black, missing), inpaint(white, missing))


@BOTH
def test_a_constant_image_stays_constant(inpaint: Inpaint) -> None:
    image = np.full((24, 31), 130, np.uint8)
    missing = scattered(image)
    found = inpaint(np.where(missing, 0, image).astype(np.uint8), missing)
    assert np.abs(found.astype(int) - 130).max() <= (3 if inpaint is telea else 0)


def test_a_ramp_is_biharmonic() -> None:
    image = np.tile(np.arange(0, 200, 5, dtype=np.uint8), (40, 1))
    missing = np.zeros(image.shape, bool)
    missing[15:20, 15:20] = True
    found = biharmonic(np.where(missing, 0, image).astype(np.uint8), missing)
    assert np.abs(found.astype(int) - image).max() <= 1


def test_biharmonic_beats_the_others_on_scattered_losses() -> None:
    image = brain()
    missing = scattered(image)
    damaged = np.where(missing, 0, image).astype(np.uint8)
    best = psnr_db(image, biharmonic(damaged, missing))
    assert best > psnr_db(image, telea(damaged, missing, 2)) + 1
    assert best > psnr_db(image, fill_median(damaged, missing)) + 1


@BOTH
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2)], ids=str)
def test_small_images_and_nothing_known(inpaint: Inpaint, shape: tuple[int, int]) -> None:
    image = np.full(shape, 9, np.uint8)
    for missing in (np.zeros(shape, bool), np.ones(shape, bool)):
        assert np.array_equal(inpaint(image, missing), image)
    if image.size > 1:
        one = np.zeros(shape, bool)
        one[0, 0] = True
        assert abs(int(inpaint(image, one)[0, 0]) - 9) <= 1


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inpainting, "find_spec", lambda _: None)
    image = brain(side=20)
    with pytest.raises(UsageError, match="pip install scikit-image"):
        biharmonic(image, scattered(image))
