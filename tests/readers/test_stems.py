"""Stems: what the keyed one computes, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from encdl.readers import KeyedStem, KeylessStem, PlainStem, PositionalStem
from encdl.readers.keyless_stems import harmonics_of
from encdl.utils.errors import UsageError


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
@pytest.mark.parametrize("training", [True, False])
def test_the_keyed_stem_reads_ciphertext_as_the_plain_one_reads_the_image(channels: int, training: bool) -> None:
    """With the same weights: any image, any mask, the border and every pair of levels included."""
    torch.manual_seed(0)
    plain, keyed = PlainStem(channels, 8).train(training), KeyedStem(channels, 8).train(training)
    keyed.load_state_dict(plain.state_dict())
    image, mask = noise(2, channels, 256, 256), noise(2, channels, 256, 256, seed=1)
    image[0, 0] = torch.arange(256, dtype=torch.uint8)
    mask[0, 0] = torch.arange(256, dtype=torch.uint8)[:, None]
    assert torch.allclose(keyed(image + mask, mask), plain(image), atol=1e-5)
    assert not torch.allclose(keyed(image + mask, mask.flip(2)), plain(image), atol=0.1)


def test_the_keyed_stem_keeps_its_precision_under_autocast() -> None:
    torch.manual_seed(0)
    stem, image, mask = KeyedStem(1, 4).eval(), noise(1, 1, 32, 32), noise(1, 1, 32, 32, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        shown = stem(image + mask, mask)
    assert torch.allclose(shown.float(), stem(image + mask, mask), atol=1e-5)


def test_no_term_of_the_keyed_stem_is_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each term alone is noise or half noise: no input channel of the convolution holds the levels."""
    taken: list[torch.Tensor] = []
    original = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda terms, *rest, **more: taken.append(terms) or original(terms, *rest, **more))
    image = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    image[..., 32:96, 32:96] = 90
    mask = noise(1, 1, 128, 128)
    KeyedStem(1)(image + mask, mask)
    [terms] = taken
    levels = torch.corrcoef(torch.cat([terms[0].flatten(1), image[0].float().flatten()[None]]))[-1, :-1]
    assert levels[:2].abs().max() < 0.05
    assert levels[2] < 0.7  # the carry is a half-tone of the image: docs say so


def test_a_fixed_mask_shows_in_the_mean_of_its_place() -> None:
    """The weakness of the fixed key: the positional stem turns most of a common mask back without the key."""
    mask = noise(1, 1, 16, 16, seed=5)
    torch.manual_seed(0)
    stem = PositionalStem(1, (16, 16), width=4, harmonics=1)
    for batch in range(60):
        dark = noise(8, 1, 16, 16, seed=batch) // 4
        stem(dark + mask, None)
    cosine, sine = stem.mean
    found = torch.atan2(sine, cosine) / (2 * math.pi) * 256
    off = (found - mask[0, 0].float() - 32 + 128) % 256 - 128  # the mean image is 31.5
    assert off.abs().max() < 16
    with pytest.raises(UsageError, match=r"made for \(16, 16\) pixels"):
        stem(noise(1, 1, 8, 8))


@pytest.mark.parametrize(
    "stem",
    [PlainStem(2), KeyedStem(2), KeylessStem(2), PositionalStem(2, (6, 11))],
    ids=lambda stem: type(stem).__name__,
)
def test_shapes(stem: Any) -> None:
    image = noise(2, 2, 6, 11)
    shown = stem(image, image if stem.keyed else None)
    assert shown.shape == (2, stem.width, 6, 11)
    again = type(stem)(stem.channels, **stem.settings())
    again.load_state_dict(stem.state_dict())
    with pytest.raises(UsageError, match=r"made for images \(B, 2, H, W\)"):
        stem(noise(2, 1, 6, 11))


def test_masks_go_to_keyed_stems_only() -> None:
    image = noise(1, 1, 4, 4)
    with pytest.raises(UsageError, match="PlainStem takes no mask"):
        PlainStem(1)(image, image)
    for mask in (None, image[:, :, 1:]):
        with pytest.raises(UsageError, match="needs the mask of each pixel"):
            KeyedStem(1)(image, mask)


def test_settings_out_of_range() -> None:
    with pytest.raises(UsageError, match="harmonics must be from 1 to 16, not 0"):
        KeylessStem(1, harmonics=0)
    with pytest.raises(UsageError, match="harmonics must be from 1 to 16, not 99"):
        KeylessStem(1, harmonics=99)
    with pytest.raises(UsageError, match="not 0 and width 16"):
        PlainStem(0)
