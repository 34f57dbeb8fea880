"""Key planes that repeat, against attacks that need one ciphertext and no key."""

from __future__ import annotations

import pytest
import torch

from encdl.attacks import background
from encdl.attacks.background import CoprimeSolving, TileEstimation
from encdl.keys.planes import coprime_sides
from tests.attacks.support import agile, wide_scene


def test_votes_find_planes_of_co_prime_periods() -> None:
    """Noise over a tenth of the pixels does not matter: the majority votes."""
    generator = torch.Generator().manual_seed(0)
    sides = coprime_sides(8, 16)
    assert len(set(sides)) == 8
    tiles = [torch.randint(0, 2, (side, side), generator=generator, dtype=torch.uint8) for side in sides]
    planes = torch.stack([tile.repeat(30, 30)[:200, :200] for tile in tiles])[None]
    wrong = torch.rand(planes.shape, generator=generator) < 0.1
    voted, agreement = background._vote(planes ^ wrong, sides)
    assert (voted == planes).float().mean() > 0.999
    assert agreement == pytest.approx(0.9, abs=0.02)
    noise = torch.randint(0, 2, planes.shape, generator=generator, dtype=torch.uint8)
    assert background._vote(noise, sides)[1] < 0.65


def test_bits_and_bytes() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(background._bytes(background._bits(levels, 8)), levels)
    assert not background._bits(levels, 12)[:, 8:].any()


@pytest.mark.parametrize("mode", ["periodic", "coprime"])
def test_repeated_planes_of_agile_are_solved(mode: str) -> None:
    finding = CoprimeSolving().run(agile(mode), wide_scene(4))
    assert finding.broken
    assert finding.score == 100  # bit for bit
    assert finding.more["agreement_of_votes"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["confusion", "diffusion", "synthetic_nonce"])
def test_planes_that_do_not_repeat_stand(mode: str) -> None:
    for attack in (CoprimeSolving(), TileEstimation()):
        finding = attack.run(agile(mode), wide_scene())
        assert not finding.broken
        assert not finding.more["leaks"]


def test_a_tile_shows_the_picture() -> None:
    finding = TileEstimation().run(agile("periodic"), wide_scene())
    assert finding.broken
    assert finding.more["advantage_interval"][0] > 0
