from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from encdl.metrics.quality import PSNR_CAP_DB, content_activity, mean_psnr_db, mean_ssim, psnr_db
from tests.mni import mni_slice


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_psnr_by_hand() -> None:
    black = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    other = black.clone()
    other[1] = 255
    other[2, 0, 0, 0] = 1
    assert psnr_db(black, other).tolist() == pytest.approx([math.inf, 0.0, 20 * math.log10(255 * 4)], abs=1e-5)


def test_psnr_agrees_with_skimage() -> None:
    brain = mni_slice()
    damaged = torch.where(noise(*brain.shape) < 20, noise(*brain.shape, seed=1), brain)
    others = torch.cat([damaged, mni_slice(91), noise(*brain.shape)])
    expected = [peak_signal_noise_ratio(brain[0].numpy(), x.numpy(), data_range=255) for x in others]
    np.testing.assert_allclose(psnr_db(brain.expand_as(others), others).numpy(), expected, rtol=1e-6)


def test_one_level_in_a_large_image_is_seen() -> None:
    a = torch.full((1, 1, 1024, 1024), 200, dtype=torch.uint8)
    b = a.clone()
    b[0, 0, 5, 5] = 201
    assert psnr_db(a, b).item() == pytest.approx(20 * math.log10(255 * 1024), rel=1e-6)


def test_mean_psnr_caps_identical_images() -> None:
    a, b = mni_slice(80), mni_slice(90)
    pair = torch.cat([a, a]), torch.cat([a, b])
    assert mean_psnr_db(*pair).item() == pytest.approx((PSNR_CAP_DB + psnr_db(a, b).item()) / 2)


def test_ssim_agrees_with_skimage() -> None:
    """The mean over the whole map: skimage's own mean leaves the margin out, for which both mirror the image."""
    camera = torch.from_numpy(data.camera()[100:300, 150:390].copy())[None, None]
    noisy = (camera.int() + noise(*camera.shape).int() // 8 - 16).clamp(0, 255).to(torch.uint8)
    for image, other in ((camera, noisy), (mni_slice(80), mni_slice(84)), (mni_slice(), noise(1, 1, 197, 233))):
        _, map_of = structural_similarity(
            image[0, 0].numpy(),
            other[0, 0].numpy(),
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        assert mean_ssim(image, other).item() == pytest.approx(map_of.mean(), abs=2e-4)


def test_ssim_of_constant_images_by_hand() -> None:
    """No contrast and no structure is left: the term of luminance alone."""
    a, b = (torch.full((1, 1, 20, 20), level, dtype=torch.uint8) for level in (100, 50))
    c1 = (0.01 * 255) ** 2
    assert mean_ssim(a, b).item() == pytest.approx((2 * 100 * 50 + c1) / (100**2 + 50**2 + c1), rel=1e-9)
    assert mean_ssim(a, a).item() == pytest.approx(1.0)
    assert mean_ssim(torch.cat([a, a]), torch.cat([a, b])).item() == pytest.approx((1 + mean_ssim(a, b).item()) / 2)


def test_ssim_of_small_images() -> None:
    least = noise(1, 1, 6, 6)
    assert mean_ssim(least, least).item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 6 x 6"):
        mean_ssim(noise(1, 1, 5, 6), noise(1, 1, 5, 6))


def test_content_activity_by_hand() -> None:
    a = torch.tensor([[[[0, 10, 250, 64]]]], dtype=torch.uint8)
    assert content_activity(a, a).item() == 0.0
    assert content_activity(a, a + 128).item() == pytest.approx(2.0)
    assert content_activity(a, a + 64).item() == pytest.approx(1.0)
    b = torch.tensor([[[[255, 10, 4, 128]]]], dtype=torch.uint8)  # 1, 0, 10 and 64 steps round the circle
    angles = 2 * np.pi * np.array([1, 0, 10, 64]) / 256
    assert content_activity(a, b).item() == pytest.approx(np.mean(1 - np.cos(angles)))
    assert content_activity(a, b).item() == pytest.approx(content_activity(b, a).item())


def test_unrelated_masks_have_activity_one() -> None:
    x = content_activity(noise(4, 1, 128, 128), noise(4, 1, 128, 128, seed=9))
    assert x.shape == (4,)
    assert x.tolist() == pytest.approx([1.0] * 4, abs=0.03)


def test_wrong_input_is_refused() -> None:
    a = noise(1, 1, 4, 4)
    for measure in (psnr_db, content_activity):
        with pytest.raises(ValueError, match="one shape"):
            measure(a, a[:, :, 1:])
        with pytest.raises(TypeError, match="uint8"):
            measure(a.float(), a)
