"""Key planes that repeat, against attacks that need one ciphertext and no key."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdl.audit.attacks import constant_background
from encdl.audit.attacks.constant_background import CoprimeSolving, TileEstimation
from encdl.audit.attacks.targets import cipher_target
from encdl.keys.planes import coprime_sides
from tests.audit.attacks.support import agile, cipher, wide_scene


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def test_votes_find_planes_of_co_prime_periods() -> None:
    """Noise over a tenth of the pixels does not matter: the majority votes."""
    generator = torch.Generator().manual_seed(0)
    sides = coprime_sides(8, 16)
    assert len(set(sides)) == 8
    tiles = [torch.randint(0, 2, (side, side), generator=generator, dtype=torch.uint8) for side in sides]
    planes = torch.stack([tile.repeat(30, 30)[:200, :200] for tile in tiles])[None, None]
    wrong = torch.rand(planes.shape, generator=generator) < 0.1
    voted, agreement = constant_background._vote(planes ^ wrong, sides)
    assert (voted == planes).float().mean() > 0.999
    assert agreement == pytest.approx(0.9, abs=0.02)
    assert constant_background._vote(noise(*planes.shape), sides)[1] < 0.65


def test_pixels_that_do_not_count_have_no_vote() -> None:
    tile = noise(1, 1, 1, 7, 7)
    bits = tile.repeat(1, 1, 1, 12, 12)
    bits[..., ::2] = 1
    counted = torch.ones(1, 1, 84, 84)
    counted[..., ::2] = 0
    voted, agreement = constant_background._vote(bits, [7], counted)
    assert torch.equal(voted, tile.repeat(1, 1, 1, 12, 12))
    assert agreement == 1


@pytest.mark.parametrize("name", ["agile", "keystream", "coupled"])
@pytest.mark.parametrize("mode", ["periodic", "coprime"])
def test_repeated_planes_are_solved(mode: str, name: str) -> None:
    finding = CoprimeSolving().run(cipher_target(cipher(name), mode), wide_scene(4))
    assert finding.broken
    assert finding.score == 100  # bit for bit
    assert finding.more["agreement_of_votes"] > 0.6


def test_a_narrow_margin_is_enough() -> None:
    """Half of what the network of `agile` sees: votes for the planes that the first ones miss come in turns."""
    images = wide_scene(4).large
    assert images is not None
    narrow = replace(wide_scene(4), large=images[..., 40:-40, 40:-40].contiguous())
    finding = CoprimeSolving().run(agile("periodic"), narrow)
    assert finding.broken
    assert finding.score > 40


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["confusion", "diffusion", "synthetic_nonce"])
def test_planes_that_do_not_repeat_stand(mode: str) -> None:
    for attack in (CoprimeSolving(), TileEstimation()):
        finding = attack.run(agile(mode), wide_scene())
        assert not finding.broken
        assert not finding.more["leaks"]


def test_a_tile_shows_the_image() -> None:
    finding = TileEstimation().run(agile("periodic"), wide_scene())
    assert finding.broken
    assert finding.more["advantage_interval"][0] > 0
