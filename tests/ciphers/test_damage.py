from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.ciphers.damage import DAMAGES, Damage, GaussianNoise, LostRun, SaltPepper, Scatter
from encdl.utils.errors import UsageError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(99))


EVERY: list[Damage] = [*DAMAGES.values(), Scatter(0.3)]


@pytest.mark.parametrize("damage", EVERY, ids=repr)
def test_contract(damage: Damage) -> None:
    x = noise(4, 3, 33, 20)
    before = x.clone()
    damaged, lost = damage(x, generator())
    assert torch.equal(x, before)
    assert (damaged.dtype, lost.dtype) == (torch.uint8, torch.bool)
    assert damaged.shape == lost.shape == x.shape
    assert not torch.equal(damaged, x)
    again, lost_again = damage(x, generator())
    assert torch.equal(damaged, again)
    assert torch.equal(lost, lost_again)
    assert bool(lost.any()) == isinstance(damage, LostRun)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
def test_any_shape(batch: int, channels: int, height: int, width: int) -> None:
    for damage in EVERY:
        damaged, lost = damage(noise(batch, channels, height, width), generator())
        assert damaged.shape == lost.shape == (batch, channels, height, width)


def test_random_damage_differs_by_seed_and_by_image() -> None:
    x = noise(1, 1, 32, 32).repeat(2, 1, 1, 1)
    for damage in (SaltPepper(0.2), GaussianNoise(5.0), Scatter(0.2), LostRun(0.2)):
        damaged, _ = damage(x, generator(1))
        assert not torch.equal(damaged[0], damaged[1])
        assert not torch.equal(damaged, damage(x, generator(2))[0])


def test_without_a_generator_the_global_one_serves() -> None:
    x = noise(1, 1, 16, 16)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, _ = SaltPepper(0.3)(x)
        torch.manual_seed(3)
        second, _ = SaltPepper(0.3)(x)
    assert torch.equal(first, second)


def test_salt_and_pepper_are_equally_many() -> None:
    x = torch.full((1, 1, 300, 300), 100, dtype=torch.uint8)
    damaged, _ = SaltPepper(0.1)(x, generator())
    assert (damaged == 0).double().mean().item() == pytest.approx(0.05, abs=0.003)
    assert (damaged == 255).double().mean().item() == pytest.approx(0.05, abs=0.003)
    assert (damaged == 100).double().mean().item() == pytest.approx(0.9, abs=0.005)


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_gaussian_noise_has_its_deviation(sigma: float) -> None:
    x = torch.full((1, 1, 200, 200), 128, dtype=torch.uint8)
    difference = GaussianNoise(sigma)(x, generator())[0].double() - 128
    assert difference.mean().item() == pytest.approx(0.0, abs=0.1)
    assert difference.std().item() == pytest.approx(sigma, rel=0.03)


def test_gaussian_noise_clips_and_does_not_wrap() -> None:
    damaged, _ = GaussianNoise(8.0)(torch.full((1, 1, 64, 64), 255, dtype=torch.uint8), generator())
    assert int(damaged.min()) > 200
    damaged, _ = GaussianNoise(8.0)(torch.zeros(1, 1, 64, 64, dtype=torch.uint8), generator())
    assert int(damaged.max()) < 55


def test_a_lost_run_is_one_run_in_file_order() -> None:
    x = noise(64, 3, 7, 10)
    damaged, lost = LostRun(0.25)(x, generator())
    assert torch.equal(damaged, x.masked_fill(lost, 0))
    starts = set()
    for image in lost.flatten(1):
        places = image.nonzero().flatten().tolist()
        assert len(places) == round(210 / 4)
        assert places == list(range(places[0], places[-1] + 1))
        starts.add(places[0])
    assert len(starts) > 30
    assert max(starts) > 130


def test_scatter_hits_its_fraction() -> None:
    x = noise(1, 1, 256, 256)
    damaged, _ = Scatter(0.25)(x, generator())
    assert (damaged != x).double().mean().item() == pytest.approx(0.25 * 255 / 256, abs=0.008)


def test_nothing_and_everything() -> None:
    x = noise(1, 1, 8, 8)
    for damage in (SaltPepper(0.0), GaussianNoise(0.0), Scatter(0.0), LostRun(0.0)):
        assert torch.equal(damage(x, generator())[0], x)
    assert set(SaltPepper(1.0)(x, generator())[0].unique().tolist()) <= {0, 255}
    assert bool(LostRun(1.0)(x, generator())[1].all())


@pytest.mark.parametrize("make", [SaltPepper, Scatter, LostRun])
@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_fractions_are_checked(make: type[SaltPepper], fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        make(fraction)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(UsageError, match="0 or more"):
        GaussianNoise(-1.0)
    with pytest.raises(UsageError, match="0 or more"):
        GaussianNoise(float("inf"))
    with pytest.raises(TypeError, match="uint8"):
        SaltPepper(0.1)(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
        SaltPepper(0.1)(torch.zeros(2, 2, dtype=torch.uint8))
