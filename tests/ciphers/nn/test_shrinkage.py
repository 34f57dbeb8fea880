"""Estimates of what noise hid: transform-domain shrinkage."""

import pytest
import torch
from torch import Tensor

from encdl.ciphers.nn import compiled_shrinkage
from encdl.ciphers.nn.shrinkage import ESTIMATES, REACH, SIGMAS, Shrinkage

NONE, BLACK, WHITE = (slice(first, first + len(SIGMAS)) for first in range(0, ESTIMATES, len(SIGMAS)))


def smooth(low: float, high: float, size: int = 48) -> Tensor:
    rows = torch.linspace(0, 3.0, size)
    return low + (high - low) * (0.5 + 0.5 * (rows[:, None].sin() * rows.cos()))[None, None]


def noisy(image: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return (image + sigma * noise).round()


def errors(found: Tensor, image: Tensor) -> Tensor:
    return (found - image).square().mean((0, 2, 3))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 1, 9), (1, 1, 7, 5), (3, 1, 33, 20)], ids=str)
def test_a_flat_image_stays_as_it_is(shape: tuple[int, ...]) -> None:
    found = Shrinkage()(torch.full(shape, 100.0))
    torch.testing.assert_close(found, torch.full((shape[0], ESTIMATES, *shape[2:]), 100.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("sigma", "best"), [(each, at) for at, each in enumerate(SIGMAS)])
def test_noise_goes(sigma: float, best: int) -> None:
    """The estimate for the noise at hand leaves a third of its power or less of a smooth image's."""
    image = smooth(60, 180)
    error = errors(Shrinkage()(noisy(image, sigma))[:, NONE], image)
    assert float(error[best]) < sigma**2 / 3


@pytest.mark.parametrize(("low", "high", "which"), [(-1.0, 60.0, BLACK), (190.0, 258.0, WHITE)], ids=["black", "white"])
def test_what_wrapped_is_put_back_by_one_supposition(low: float, high: float, which: slice) -> None:
    image = smooth(low, high)
    wrapped = noisy(image, 4.0).remainder(256)
    assert bool((wrapped - image).abs().max() > 200)
    found = Shrinkage()(wrapped)
    assert float(errors(found[:, which], image).min()) < 8
    assert float(errors(found[:, NONE], image).min()) > 100


def test_nothing_beyond_the_reach_matters() -> None:
    image = noisy(smooth(60, 180), 4.0)
    other = image.clone()
    other[..., 0] = 255 - other[..., 0]
    differs = (Shrinkage()(image) != Shrinkage()(other)).any(2).any(1).flatten().nonzero().flatten()
    assert 3 < int(differs.max()) <= REACH


def test_images_of_a_batch_do_not_mix() -> None:
    images = torch.cat([noisy(smooth(0, 200), 4.0), noisy(smooth(100, 250), 9.0)]).clamp(0, 255)
    for index, found in enumerate(Shrinkage()(images)):
        torch.testing.assert_close(Shrinkage()(images[index : index + 1])[0], found, atol=1e-3, rtol=0)


def test_the_basis_is_no_weight() -> None:
    assert not Shrinkage().state_dict()


@pytest.mark.skipif(not compiled_shrinkage.available(), reason="EncDL was built here without a C compiler")
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 3, 1), (1, 1, 7, 5), (5, 1, 90, 77)], ids=str)
def test_compiled_code_says_the_same(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    """But where rounding carries a coefficient over the threshold."""
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3)).float()
    compiled = Shrinkage()(images)
    monkeypatch.setattr(compiled_shrinkage, "available", lambda: False)
    differences = (compiled - Shrinkage()(images)).abs()
    assert float(differences.max()) < 1
    assert float((differences > 1e-3).float().mean()) < 1e-3
