"""The linear probe: finds what lies open, and nothing where there is nothing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from encdl.audit.attacks.leakage_probe import LinearProbe
from encdl.metrics.quality import psnr_db
from encdl.utils.errors import UsageError
from tests.mni import mni_slice


def some_images(*indices: int) -> torch.Tensor:
    return torch.cat([mni_slice(index, 64, 48) for index in indices])


def score(features: torch.Tensor, image: torch.Tensor, learnt: int) -> float:
    probe = LinearProbe()
    probe.learn(features[:learnt], image[:learnt])
    probe.judge(features[learnt:], image[learnt:])
    return probe.psnr_db


def test_what_lies_open_is_found() -> None:
    image = some_images(70, 80, 90, 100)
    assert score(image.float() * -3 + 7, image, 2) > 60
    # The same at a stride: sixteen features hold the sixteen pixels beneath them.
    assert score(F.pixel_unshuffle(image.float(), 4), image, 2) > 60


def test_noise_shows_the_mean() -> None:
    image = some_images(70, 80, 90, 100)
    noise = torch.randn(4, 8, 64, 48, generator=torch.Generator().manual_seed(0))
    mean = image[:2].float().mean().round().to(torch.uint8).expand_as(image[2:])
    expected = -10 * torch.log10((mean.float() - image[2:].float()).div(255).square().mean())
    assert score(noise, image, 2) == pytest.approx(float(expected), abs=0.1)


def test_one_vector_an_image_shows_the_mean_image() -> None:
    image = some_images(79, 80, 81, 82)
    mean = image[:3].float().mean(0, keepdim=True).round().to(torch.uint8)
    found = score(torch.zeros(4, 1, 1, 1), image, 3)
    assert found == pytest.approx(float(psnr_db(mean, image[3:])), abs=0.05)


def test_sides_that_the_stride_does_not_divide() -> None:
    image = some_images(70, 80, 90, 100)[..., :61, :45]
    smooth = F.adaptive_avg_pool2d(image.float(), (16, 12))
    assert 15 < score(smooth, image, 2) < 40


def test_batches_add_up() -> None:
    image = some_images(70, 80, 90, 100)
    features = F.avg_pool2d(image.float(), 2)
    one, two = LinearProbe(), LinearProbe()
    one.learn(features[:2], image[:2])
    one.judge(features[2:], image[2:])
    for index in range(2):
        two.learn(features[index : index + 1], image[index : index + 1])
    for index in (2, 3):
        two.judge(features[index : index + 1], image[index : index + 1])
    assert one.psnr_db == pytest.approx(two.psnr_db, rel=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    image = some_images(80)
    with pytest.raises(UsageError, match="learns before it is judged"):
        LinearProbe().judge(image.float(), image)
    for features in (torch.zeros(2, 1, 8, 8), torch.zeros(1, 1, 65, 8), torch.zeros(1, 1, 8)):
        with pytest.raises(UsageError, match="are not of images"):
            LinearProbe().learn(features, image)
