"""The random damage of training: kinds, strengths, and one draw a picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encdl.errors import UsageError
from encdl.tasks.damages import RandomDamage

NONE = {"salt_pepper": 0.0, "gaussian": 0.0, "scatter": 0.0, "crop": 0.0, "erasure": 0.0}


def noise(count: int = 40, channels: int = 1, height: int = 24, width: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def hurt(damage: RandomDamage, ciphertext: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    return damage(ciphertext, torch.Generator().manual_seed(seed))


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


def test_every_picture_has_its_own_draw_and_every_kind_occurs() -> None:
    ciphertext = noise(200)
    damaged, lost = hurt(RandomDamage(), ciphertext)
    changed = (damaged != ciphertext).flatten(1).float().mean(1)
    known = lost.flatten(1).float().mean(1)
    assert 0 < int((changed == 0).sum()) < 60  # intact, or too weak to show
    # Crop and erasure, two kinds of five: what is lost is known, 0, and below the largest share.
    assert 40 < int((known > 0).sum()) < 120
    assert float(known.max()) < 0.45
    assert int(damaged[lost].max()) == 0
    # Noise touches most pixels by little, salt-and-pepper and scatter few by much.
    difference = (damaged.int() - ciphertext.int()).abs().flatten(1)
    assert int(((changed > 0.5) & (difference.amax(1) < 80)).sum()) > 20
    assert int(((changed > 0) & (changed < 0.15) & (known == 0)).sum()) > 30


def test_known_losses_are_the_only_change_where_there_are_any() -> None:
    ciphertext = noise(200)
    damaged, lost = hurt(RandomDamage(), ciphertext)
    with_losses = lost.flatten(1).any(1)
    unannounced = (damaged != ciphertext) & ~lost
    assert not bool(unannounced[with_losses].any())


@pytest.mark.parametrize("damage", [RandomDamage(intact=1.0), RandomDamage(**NONE)], ids=str)
def test_no_damage(damage: RandomDamage) -> None:
    ciphertext = noise()
    damaged, lost = hurt(damage, ciphertext)
    assert torch.equal(damaged, ciphertext)
    assert not bool(lost.any())


@pytest.mark.parametrize("kind", ["salt_pepper", "scatter", "crop", "erasure"])
def test_an_impossible_share_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match="fraction"):
        hurt(RandomDamage(**{**NONE, kind: -0.5}, intact=0.0), noise(100))
