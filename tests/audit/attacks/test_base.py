from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from encdl.audit.attacks.base import (
    Attack,
    Scene,
    auroc,
    auroc_interval,
    guessing,
    image_psnr,
    mean_interval,
    reconstruction,
    share_interval,
)
from encdl.audit.attacks.targets import Aes, FixedXor, Target
from encdl.metrics.quality import psnr_db


def some_images(count: int = 6, side: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, 1, side, side), generator=generator, dtype=torch.uint8)


def scene(test: torch.Tensor) -> Scene:
    labels = torch.zeros(len(test), dtype=torch.int64)
    return Scene(test, test, labels, labels)


class Blind(Attack):
    name = "blind"
    about = "Knows nothing."

    def run(self, target: Target, scene: Scene):
        raise NotImplementedError


def test_a_reconstruction_is_broken_only_by_images_own_estimates() -> None:
    truth = some_images(40)
    seen = scene(truth)
    near = (truth.float() + 3).clamp(0, 255)
    found = reconstruction(Blind(), FixedXor(), seen, near, "none")
    assert found.broken
    assert found.more["leaks"]
    assert found.score > 30 > found.baseline
    swapped = reconstruction(Blind(), FixedXor(), seen, near.roll(20, 0), "none")
    assert not swapped.broken
    flat = reconstruction(Blind(), FixedXor(), seen, seen.mean_image.expand_as(truth), "none")
    assert not flat.broken
    assert flat.score == pytest.approx(flat.baseline)
    assert flat.more["advantage_db"] == pytest.approx(0)


def test_perfect_and_infinite_figures_are_json() -> None:
    truth = some_images(2)
    found = reconstruction(Blind(), FixedXor(), scene(truth), truth, "none")
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["score"] == 100
    assert content["interval"] == [100, 100]


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (1, 3), (50, 100), (399, 400), (7, 7)])
def test_shares_agree_with_scipy(hits: int, trials: int) -> None:
    expected = stats.binomtest(hits, trials).proportion_ci(0.999, method="wilson")
    assert share_interval(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_means_agree_with_scipy() -> None:
    values = torch.rand((5, 20), generator=torch.Generator().manual_seed(0))
    error = stats.sem(values.double().flatten().numpy())
    mean, low, high = mean_interval(values)
    assert (low, high) == pytest.approx(stats.norm.interval(0.999, loc=mean, scale=error), rel=1e-6)
    assert mean == pytest.approx(values.double().mean().item())


def test_an_area_counts_pairs() -> None:
    scores = torch.tensor([3.0, 2.0, 2.0, 0.0])
    assert auroc(scores, torch.tensor([2.0, 1.0])) == pytest.approx((2 + 1.5 + 1.5 + 0) / 8)
    assert auroc(scores + 9, scores) == 1
    assert auroc(scores, scores) == 0.5


@pytest.mark.parametrize("area", [0.0, 0.01, 0.3, 0.5, 0.984375, 1.0])
@pytest.mark.parametrize("counts", [(64, 64), (5, 200)], ids=str)
def test_areas_have_intervals_of_some_width(area: float, counts: tuple[int, int]) -> None:
    """The old one had none where each member lay above the same 63 of 64 others."""
    low, high = auroc_interval(area, *counts)
    assert 0 <= low <= area <= high <= 1
    assert high - low > 0.01
    assert auroc_interval(1 - area, *counts) == pytest.approx((1 - high, 1 - low), abs=0.03)


def test_an_interval_shrinks_with_counts() -> None:
    widths = []
    for count in (10, 100, 1000):
        low, high = auroc_interval(0.9, count, count)
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    assert auroc_interval(1.0, 10**4, 10**4)[0] > 0.99


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_intervals_of_areas_hold_the_truth(shift: float) -> None:
    """Of normal scores so far apart: 2,000 times, at most a few outside at 99.9 %."""
    draws = torch.Generator().manual_seed(3)
    true = float(stats.norm.cdf(shift / math.sqrt(2)))
    missed = 0
    for _ in range(2000):
        area = auroc(torch.randn(40, generator=draws) + shift, torch.randn(40, generator=draws))
        low, high = auroc_interval(area, 40, 40)
        missed += not low <= true <= high
    assert missed <= 8


def test_psnr_of_estimates() -> None:
    """As the metric for whole levels, and capped where nothing is wrong; fractions of a level count too."""
    truth = some_images(3)
    estimates = truth.clone()
    estimates[1, 0, 0, 0] ^= 1
    estimates[2] = 255 - estimates[2]
    assert image_psnr(estimates, truth).tolist() == pytest.approx([100.0, *psnr_db(estimates, truth)[1:].tolist()])
    assert image_psnr(truth.float() + 0.5, truth)[0].item() == pytest.approx(20 * math.log10(255 / 0.5))


def test_guesses_are_broken_only_beyond_chance() -> None:
    assert not guessing(Blind(), Aes(), 55, 100, 0.5, "none").broken
    assert guessing(Blind(), Aes(), 90, 100, 0.5, "none").broken


def test_mean_interval_of_one_value_knows_nothing() -> None:
    assert mean_interval(torch.tensor([2.0])) == (2.0, -float("inf"), float("inf"))
    assert mean_interval(torch.tensor([1.0, 1.0])) == (1.0, 1.0, 1.0)


def test_a_scene_needs_two_test_images() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        scene(some_images(1))


def test_ciphertexts_are_kept_by_target_number_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = scene(some_images(4))
    found = seen.ciphertexts(Aes(), seen.test, 3)
    assert torch.equal(found, Aes().encrypt(seen.test, 3))
    assert replace(seen, seed=1).ciphertexts(Aes(), seen.test, 3) is found
    assert seen.ciphertexts(Aes(owner=1), seen.test, 3) is not found
    assert not torch.equal(seen.ciphertexts(Aes(), seen.test, 4), found)
    assert len(seen.ciphertexts(Aes(), seen.test[:2], 3)) == 2
    assert torch.equal(seen.ciphertexts(Aes(), seen.test[1:], 4), found[1:])
    monkeypatch.setattr("encdl.audit.attacks.base.MOST_KEPT", 1000)
    seen.ciphertexts(Aes(owner=2), seen.test)
    assert len(seen.kept) == 1


def test_budgets() -> None:
    quick = scene(some_images(2))
    assert quick.budget(60, 1200) == 60
    assert replace(quick, patience=4).budget(60, 1200) == 240
    assert replace(quick, quick=False, patience=4).budget(60, 1200) == 1200
