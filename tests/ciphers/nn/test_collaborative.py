"""Similar blocks filtered together, steered by what the network found."""

import pytest
import torch
from torch import Tensor

from encdl.ciphers.nn import collaborative, compiled_collaborative
from encdl.ciphers.nn.collaborative import SIDE, STEP, deviations, filtered

SHAPES = [(64, 64), (28, 28), (7, 50), (6, 6), (1, 1), (5, 9), (3, 1), (130, 61)]


def stripes(height: int, width: int) -> Tensor:
    """What repeats, and what no two blocks have alike."""
    rows, columns = torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32)
    return (128 + 60 * (rows[:, None] / 2).sin() + 40 * (columns / 40).cos())[None, None]


def noise(image: Tensor, sigma: float) -> Tensor:
    return sigma * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))


def none(image: Tensor) -> Tensor:
    return torch.zeros_like(image, dtype=torch.bool)


def error(found: Tensor, image: Tensor) -> float:
    return float((found - image).square().mean())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.skipif(not compiled_collaborative.available(), reason="EncDL was built here without a C compiler")
def test_compiled_code_gives_the_same(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    guide = torch.rand(2, 1, *shape, generator=generator) * 200  # no two distances are equal
    levels = guide + noise(guide, 8.0)
    quick = filtered(levels, guide, none(guide))
    monkeypatch.setattr(compiled_collaborative, "available", lambda: False)
    slow = filtered(levels, guide, none(guide))
    # A distance may lie as near to another as rounding, and a group then has the other block.
    assert float((quick - slow).abs().gt(1e-3).float().mean()) < 0.01
    assert (compiled_collaborative.SIDE, compiled_collaborative.STEP, compiled_collaborative.REACH) == (
        SIDE,
        STEP,
        collaborative.REACH,
    )


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_it_comes_nearer_than_its_guide(sigma: float) -> None:
    """As it is used: the guide has lost some of the image and kept some of the noise."""
    image = stripes(96, 90)
    levels = (image + noise(image, sigma)).round()
    guide = torch.nn.functional.avg_pool2d(levels, 3, 1, 1, count_include_pad=False)
    guide = 0.5 * guide + 0.5 * image
    found = filtered(levels.remainder(256), guide, none(image))
    assert error(found, image) < 0.8 * error(guide, image)


def test_levels_wrap_and_hits_and_losses_tell_nothing() -> None:
    image = stripes(48, 48) - 60.0  # from below 0
    levels = (image + noise(image, 4.0)).round()
    there = filtered(levels, image, none(image))
    torch.testing.assert_close(filtered(levels.remainder(256), image, none(image)), there, atol=1e-3, rtol=0)
    lost = none(image)
    lost[..., 10:14, 20:30] = True
    one, other = (levels.masked_fill(lost, each) for each in (0.0, 255.0))
    assert torch.equal(filtered(one, image, lost), filtered(other, image, lost))
    levels[..., 30, 30] += 100.0
    assert abs(float(filtered(levels, image, none(image))[..., 30, 30] - image[..., 30, 30])) < 4.0


@pytest.mark.parametrize("sigma", [1.0, 2.0, 8.0, 16.0])
def test_the_noise_is_told(sigma: float) -> None:
    image = torch.cat([stripes(64, 64), stripes(64, 64) / 2])
    added = noise(image, sigma)
    # A network that removes all of the noise, and one that leaves some.
    assert torch.allclose(deviations(image + added, added), torch.tensor(sigma), rtol=0.1)
    assert torch.allclose(deviations(image + added, 0.8 * added), torch.tensor(sigma * 0.8**0.5), rtol=0.1)


def test_images_of_a_batch_do_not_mix_and_none_is_left_as_it_is() -> None:
    images = torch.cat([stripes(40, 33), 255 - stripes(40, 33)])
    levels = images + torch.cat([noise(images[:1], 3.0), noise(images[1:], 9.0)])
    together = filtered(levels, images, none(images))
    assert torch.equal(together[1:], filtered(levels[1:], images[1:], none(images[1:])))
    assert torch.equal(filtered(images, images, none(images)), images)  # nothing was removed: there is no noise
