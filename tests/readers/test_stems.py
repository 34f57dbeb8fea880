"""Stems: what the keyed one computes, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from encdl.errors import UsageError
from encdl.readers import KeyedStem, KeylessStem, PlainStem
from encdl.readers.stems import PRODUCTS, harmonics_of


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_harmonics_are_cosines_and_sines_of_multiples() -> None:
    levels = noise(2, 3, 5, 7)
    points = harmonics_of(levels, 4).view(2, 3, 4, 2, 5, 7)
    angle = levels.double() * (2 * math.pi / 256)
    for multiple in range(1, 5):
        assert torch.allclose(points[:, :, multiple - 1, 0].double(), (multiple * angle).cos(), atol=1e-5)
        assert torch.allclose(points[:, :, multiple - 1, 1].double(), (multiple * angle).sin(), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_convolution_starts_on_the_unmasked_angle(channels: int) -> None:
    """Its result depends on ciphertext minus mask alone, although no feature holds that difference."""
    torch.manual_seed(0)
    stem = KeyedStem(channels, harmonics=3, free=0).eval()
    image, mask, other = (noise(2, channels, 9, 8, seed=seed) for seed in range(3))
    shown = stem(image + mask, mask)
    assert torch.allclose(shown, stem(image + other, other), atol=1e-5)
    assert not torch.allclose(shown, stem(image + mask, other), atol=1e-2)


def test_the_first_convolution_starts_close_to_one_of_the_levels() -> None:
    torch.manual_seed(0)
    stem = KeyedStem(1, width=1, harmonics=8, free=0)
    with torch.no_grad():  # leave the sines, and one pixel of the kernel
        stem.convolution.weight.view(8, PRODUCTS, 9)[:, :2] = 0
        stem.convolution.weight.view(8, PRODUCTS, 9)[..., 1:] = 0
    image, mask = torch.arange(16, 240, dtype=torch.uint8).view(1, 1, 1, -1), noise(1, 1, 1, 224)
    line = F.conv2d(stem.features(image + mask, mask), stem.convolution.weight[..., :1, :1])
    assert torch.corrcoef(torch.stack([image.float().flatten(), line.detach().flatten()]))[0, 1].abs() > 0.999


def test_no_feature_shows_the_picture() -> None:
    """Each gated product alone is noise: under a uniform mask no channel correlates with the picture."""
    torch.manual_seed(0)
    stem = KeyedStem(1, harmonics=2, free=4)
    image = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    image[..., 32:96, 32:96] = 90
    mask = noise(1, 1, 128, 128)
    features = stem.features(image + mask, mask).detach()[0]
    assert torch.isfinite(features).all()
    identity = features[: PRODUCTS * 2].flatten(1)
    inside = (image[0, 0] > 0).float().flatten()
    levels = torch.corrcoef(torch.cat([identity, inside[None]]))[-1, :-1]
    # cos c cos m = (cos(c - m) + cos(c + m)) / 2: half signal, half noise, and less than the picture itself.
    assert levels.abs().max() < 0.9


@pytest.mark.parametrize("stem", [PlainStem(2), KeylessStem(2), KeyedStem(2)], ids=lambda s: type(s).__name__)
def test_shapes(stem: PlainStem | KeylessStem | KeyedStem) -> None:
    picture = noise(2, 2, 6, 11)
    shown = stem(picture, picture if stem.keyed else None)
    assert shown.shape == (2, stem.width, 6, 11)
    again = type(stem)(stem.channels, **stem.settings())
    again.load_state_dict(stem.state_dict())
    with pytest.raises(UsageError, match=r"made for pictures \(B, 2, H, W\)"):
        stem(noise(2, 1, 6, 11))


def test_masks_go_to_keyed_stems_only() -> None:
    picture = noise(1, 1, 4, 4)
    with pytest.raises(UsageError, match="PlainStem takes no mask"):
        PlainStem(1)(picture, picture)
    for mask in (None, picture[:, :, 1:]):
        with pytest.raises(UsageError, match="needs the mask of each pixel"):
            KeyedStem(1)(picture, mask)


def test_settings_out_of_range() -> None:
    with pytest.raises(UsageError, match="harmonics must be from 1 to 16, not 0"):
        KeyedStem(1, harmonics=0)
    with pytest.raises(UsageError, match="harmonics must be from 1 to 16, not 99"):
        KeylessStem(1, harmonics=99)
    with pytest.raises(UsageError, match="-1 free gates"):
        KeyedStem(1, free=-1)
    with pytest.raises(UsageError, match="not 0 and width 16"):
        PlainStem(0)
