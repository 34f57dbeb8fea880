"""The random damage of training: kinds, strengths, and one draw an image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encdl.training.tasks.random_damage import KINDS, NOMINAL, RandomDamage
from encdl.utils.errors import UsageError

NEVER = dict.fromkeys(KINDS, 0.0)


def noise(count: int = 40, channels: int = 1, height: int = 24, width: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def hurt(damage: RandomDamage, ciphertext: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    return damage(ciphertext, torch.Generator().manual_seed(seed))


def only(kind: str, **settings: float) -> RandomDamage:
    return RandomDamage(**{**NEVER, kind: 1.0, "intact": 0.0, **settings})


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 2, 5, 7), (2, 1, 1, 9), (1, 3, 16, 16)], ids=str)
def test_shapes_and_dtypes(shape: tuple[int, int, int, int]) -> None:
    ciphertext = noise(*shape)
    before = ciphertext.clone()
    for seed in range(20):
        damaged, lost = hurt(RandomDamage(), ciphertext, seed)
        assert (damaged.shape, damaged.dtype) == (ciphertext.shape, torch.uint8)
        assert (lost.shape, lost.dtype) == (ciphertext.shape, torch.bool)
        assert torch.equal(ciphertext, before)


def test_one_seed_one_damage() -> None:
    ciphertext = noise()
    (first, lost), (second, lost_again) = (hurt(RandomDamage(), ciphertext) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(lost, lost_again)
    assert not torch.equal(first, hurt(RandomDamage(), ciphertext, 1)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_by_itself(kind: str) -> None:
    """What it does to the pixels, and that its strengths lie around the nominal ones."""
    ciphertext = noise(400, 1, 48, 40)
    damage = only(kind)
    damaged, lost = hurt(damage, ciphertext)
    hit = (damaged != ciphertext) & ~lost
    weak, strong = (damage.weakest * NOMINAL[kind][0], damage.strongest * NOMINAL[kind][-1])
    if kind in ("erasure", "run", "block"):
        assert not bool(hit.any())
        assert int(damaged[lost].max()) == 0
        share = lost.flatten(1).float().mean(1)
        assert 0.7 * weak < float(share.min()) < float(share.max()) < 1.3 * strong
    elif kind == "gaussian":
        assert not bool(lost.any())
        middle = (ciphertext > 64) & (ciphertext < 192)  # nothing is clipped there
        error = (damaged.float() - ciphertext.float()).square()
        sigma = ((error * middle).flatten(1).sum(1) / middle.flatten(1).sum(1)).sqrt()
        assert 0.8 * weak < float(sigma.min()) < float(sigma.max()) < 1.2 * strong
    else:
        assert not bool(lost.any())
        assert 0 < float(hit.float().mean()) < strong
        extreme = (damaged[hit] == 0) | (damaged[hit] == 255)
        assert bool(extreme.all()) == (kind == "salt_pepper")


def test_a_run_is_scattered_and_a_block_is_not() -> None:
    ciphertext = noise(20, 1, 32, 32)
    for kind, together in (("run", False), ("erasure", False), ("block", True)):
        lost = hurt(only(kind), ciphertext)[1].float()
        beside = torch.minimum(lost[..., 1:], lost[..., :-1]).mean() / lost.mean()
        assert (float(beside) > 0.7) == together, kind


def test_every_image_has_its_own_draw_and_kinds_come_as_often_as_said() -> None:
    ciphertext = noise(2000, 1, 12, 12)
    damage = RandomDamage(**{**NEVER, "gaussian": 3.0, "erasure": 1.0}, intact=0.2)
    damaged, lost = hurt(damage, ciphertext)
    losing = lost.flatten(1).any(1)
    noisy = ((damaged != ciphertext) & ~lost).flatten(1).any(1)
    assert not bool((losing & noisy).any())
    assert losing.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert noisy.float().mean().item() == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("damage", [RandomDamage(intact=1.0), RandomDamage(**NEVER)], ids=str)
def test_no_damage(damage: RandomDamage) -> None:
    ciphertext = noise()
    damaged, lost = hurt(damage, ciphertext)
    assert torch.equal(damaged, ciphertext)
    assert not bool(lost.any())


@pytest.mark.parametrize(
    "wrong", [{"intact": 1.5}, {"gaussian": -1.0}, {"weakest": 0.0}, {"strongest": 5.0}, {"weakest": 2.0}], ids=str
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="damage"):
        RandomDamage(**wrong)
