"""Medians and the detector of hits: against SciPy, and on damage whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import median_filter

from encdl.metrics.classical_repair.impulses import decision_median, fill_median, judged_hit, median
from encdl.metrics.classical_repair.tuning import psnr_db
from tests.metrics.classical_repair.images import brain, hit, scattered

DETECTOR = {"threshold": 2.5, "floor": 10.0, "nearest": 3}


@pytest.mark.parametrize("shape", [(40, 30), (3, 3), (1, 7), (7, 1), (1, 1), (2, 2)], ids=str)
def test_the_median_is_scipys(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(median(image), median_filter(image, 3, mode="nearest"))


def test_the_detector_finds_what_was_hit_and_spares_the_rest() -> None:
    image = brain(side=160)
    damaged, _ = hit(image, 0.02)
    judged = judged_hit(damaged, **DETECTOR)
    far = np.abs(damaged.astype(int) - image) > 100
    assert judged[far].mean() > 0.9
    assert judged[damaged == image].mean() < 0.02


def test_a_lone_outlier_is_repaired_and_nothing_else() -> None:
    image = np.tile(np.arange(40, 80, dtype=np.uint8), (30, 1))
    damaged = image.copy()
    damaged[10, 20] = 240
    repaired = decision_median(damaged, **DETECTOR)
    assert abs(int(repaired[10, 20]) - int(image[10, 20])) <= 1
    assert (repaired != damaged).sum() == 1


def test_two_outliers_side_by_side() -> None:
    damaged = np.full((20, 20), 90, np.uint8)
    damaged[9, 9:11] = (250, 248)
    assert np.array_equal(decision_median(damaged, **DETECTOR), np.full((20, 20), 90))


def test_deciding_is_better_than_a_median_everywhere() -> None:
    image = brain(side=160)
    damaged, _ = hit(image, 0.01)
    decided = psnr_db(image, decision_median(damaged, **DETECTOR))
    assert decided > psnr_db(image, median(damaged))
    assert decided > psnr_db(image, damaged) + 3


def test_lost_pixels_take_the_median_of_the_known_ones() -> None:
    image = np.array([[10, 20, 30], [40, 0, 60], [70, 80, 90]], np.uint8)
    missing = np.zeros((3, 3), bool)
    missing[1, 1] = True
    assert fill_median(image, missing)[1, 1] == 50
    missing[0, 0] = True
    filled = fill_median(image, missing)
    assert filled[1, 1] == 60
    assert np.array_equal(filled[~missing], image[~missing])


def test_a_whole_block_is_filled_from_its_border() -> None:
    image = np.full((30, 30), 77, np.uint8)
    missing = np.zeros((30, 30), bool)
    missing[:20, 5:25] = True
    assert (fill_median(np.where(missing, 0, image).astype(np.uint8), missing) == 77).all()


def test_nothing_known_and_nothing_missing() -> None:
    image = brain(side=20)
    assert np.array_equal(fill_median(image, np.ones_like(image, dtype=bool)), image)
    assert np.array_equal(fill_median(image, np.zeros_like(image, dtype=bool)), image)


def test_a_scattered_quarter() -> None:
    image = brain()
    missing = scattered(image)
    filled = fill_median(np.where(missing, 0, image).astype(np.uint8), missing)
    assert np.array_equal(filled[~missing], image[~missing])
    assert psnr_db(image, filled) > 24
