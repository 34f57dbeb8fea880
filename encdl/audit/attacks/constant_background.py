"""Attacks on one ciphertext over the constant background that every medical image has: key planes that repeat show."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.audit.attacks.algebra import corrected, leading, leading_bytes, pack, solvable
from encdl.audit.attacks.base import ATTACKS, Attack, Finding, Scene, mean_interval, reconstruction
from encdl.audit.attacks.references import RepeatedKeyXor
from encdl.audit.attacks.targets import PERIOD, CipherTarget, Target
from encdl.audit.attacks.tile import TileGuess, tile_attack
from encdl.ciphers.base import Cipher
from encdl.ciphers.nn.plane_tensors import unpack
from encdl.keys.planes import MAX_PLANES as PLANES
from encdl.keys.planes import coprime_sides

ROUNDS: Final = 3
"""How often the leading phases vote anew, each pixel with a weight of its own."""

AGREEING: Final = 0.7
"""A pixel is taken to be black where so many of its bits agree with the last vote."""

ROUGH: Final = 50.0
"""Mean difference of neighbours in levels from which an estimate is noise; that of uniform noise is 85."""

ALL_MODES = ("default", "confusion", "diffusion", "synthetic_nonce", "coprime", "periodic", "reused_nonce")


@ATTACKS.register("tile_estimation")
class TileEstimation(Attack):
    """The most common value at each place of a repeated tile is the mask there (`encdl.audit.attacks.tile`)."""

    about = (
        "Ciphertext only, one image at a time: finds the period of a repeated mask, takes the most common "
        "value at each place of the tile for the mask over black background, and takes it off."
    )
    seeded: ClassVar[bool] = False
    modes: ClassVar[tuple[str, ...]] = ALL_MODES

    def references(self) -> tuple[Target, ...]:
        """An XOR with a repeated key, which falls to it completely."""
        return (RepeatedKeyXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: absolute correlation of estimate and image; baseline: of the estimates with other images."""
        images = scene.test if scene.large is None else scene.large
        ciphertexts = scene.ciphertexts(target, images)
        estimates = torch.stack([_best_estimate(one) for one in ciphertexts])
        own, others = (_correlation(estimates.roll(shift, 0), images) for shift in (0, len(images) // 2))
        score, low, high = mean_interval(own)
        advantage, least, most = mean_interval(own - others)
        return self.finding(
            target,
            score,
            float(others.mean()),
            "correlation",
            least > 0,
            f"one ciphertext of {tuple(images.shape[2:])} pixels, all periods, no training",
            interval=(low, high),
            advantage=advantage,
            advantage_interval=(least, most),
            leaks=least > 0,
        )


@ATTACKS.register("coprime_solving")
class CoprimeSolving(Attack):
    """Solves for the bits of key planes of which each repeats a tile of its own.

    Where the image is black, the ciphertext is the mask, and masks lead to key bytes (`encdl.audit.attacks.algebra`):
    at first in the leading phases, where all is black as far as the network sees. Each bit votes for its place in its
    plane's tile; over the image itself the votes are noise. The planes voted for then take the part of what the network
    sees, so that every black pixel votes rightly. For a cipher of another kind the ciphertext itself is taken for the
    key byte.
    """

    about = (
        "Ciphertext only, one image at a time: takes every pixel for black background, solves for the bits "
        "of its key planes, and lets them vote for their place in planes that repeat, by one period or by co-prime "
        "ones."
    )
    seeded: ClassVar[bool] = False
    modes: ClassVar[tuple[str, ...]] = ("default", "confusion", "diffusion", "synthetic_nonce", "coprime", "periodic")

    def references(self) -> tuple[Target, ...]:
        """An XOR with a repeated key: a period that divides that of the votes."""
        return (RepeatedKeyXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of the images that the voted planes open."""
        images = scene.test if scene.large is None else scene.large
        ciphertexts = scene.ciphertexts(target, images)
        cipher = target.cipher if isinstance(target, CipherTarget) and solvable(target.cipher) else None
        solve = _xored if cipher is None else partial(_through, cipher)
        solved = [solve(ciphertexts, sides) for sides in (coprime_sides(PLANES, PERIOD), [PERIOD] * PLANES)]
        # The attacker keeps the expansion whose votes agree.
        estimates, agreement = max(solved, key=lambda found: found[1])
        return reconstruction(
            self,
            target,
            scene,
            estimates,
            f"one ciphertext of {tuple(images.shape[2:])} pixels, period {PERIOD} known, no training",
            truth=images,
            agreement_of_votes=agreement,
        )


def _best_estimate(ciphertext: Tensor) -> Tensor:
    """What the tile attack finds in all pixels, or in every second one of every second row, where that repeats more.

    Networks that work on 2 x 2 phases may repeat in one phase alone.
    """
    whole, phase = tile_attack(ciphertext), tile_attack(ciphertext[:, ::2, ::2].contiguous())
    if whole.confidence >= phase.confidence:
        return _smoothest(ciphertext, whole)
    height, width = ciphertext.shape[1:]
    found = _smoothest(ciphertext[:, ::2, ::2], phase)
    return found.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]


def _smoothest(ciphertext: Tensor, guess: TileGuess) -> Tensor:
    """The tile taken off by subtraction or by XOR, and black where what is left is as rough as noise.

    That is near the border, where the mask of a network repeats not, though its planes do.
    """
    height, width = ciphertext.shape[1:]
    tile = guess.tile.repeat(1, -(-height // guess.period), -(-width // guess.period))[:, :height, :width]
    estimates = [guess.estimate, ciphertext ^ tile]
    roughness = [_roughness(each) for each in estimates]
    best = min(range(2), key=lambda index: float(roughness[index].clamp(max=ROUGH).mean()))
    return estimates[best].masked_fill(roughness[best] >= ROUGH, 0)


def _roughness(estimate: Tensor) -> Tensor:
    """Mean absolute difference of neighbours in the square of 11 pixels around each one: float32 (C, H, W)."""
    levels = estimate.float()
    rough = torch.zeros_like(levels)
    rough[:, :, 1:] += levels.diff(dim=2).abs() / 2
    rough[:, 1:] += levels.diff(dim=1).abs() / 2
    return F.avg_pool2d(rough, 11, 1, 5, count_include_pad=False)


def _xored(ciphertexts: Tensor, sides: list[int]) -> tuple[Tensor, float]:
    """Images opened by the voted planes as a keystream, and how far the votes agree: 0.5 for noise to 1."""
    voted, agreement = _vote(unpack(ciphertexts, PLANES), sides)
    return ciphertexts ^ pack(voted), agreement


def _through(cipher: Cipher, ciphertexts: Tensor, sides: list[int]) -> tuple[Tensor, float]:
    """The same through a solvable cipher."""
    first = leading(cipher, ciphertexts)
    begun = unpack(leading_bytes(cipher, ciphertexts, ciphertexts), PLANES)
    voted, agreement = _vote(begun, sides, first)
    for _ in range(ROUNDS):
        # Votes agree with the majority where all is black far and wide: those places count the more next time.
        agreeing = _around(begun.eq(voted).float().mean(2), first)
        above_noise = agreeing - agreeing.amin((1, 2, 3), keepdim=True)
        voted, _ = _vote(begun, sides, first * above_noise.square())
    for turn in range(2):
        # Black pixels' own bits, whatever lies around them; the leading phases at first as before.
        found = unpack(corrected(cipher, ciphertexts, ciphertexts, pack(voted)), PLANES)
        if turn == 0:
            found = torch.where(first.unsqueeze(2), begun, found)
        agreeing = found.eq(voted).float().mean(2)
        if turn == 0:  # nobody may have voted yet in the other phases: the neighbours stand for them
            agreeing = _around(agreeing, first, 3)
        voted, _ = _vote(found, sides, agreeing >= AGREEING)
    return cipher.decrypt(ciphertexts, pack(voted)), agreement


def _around(values: Tensor, known: Tensor, side: int = 9) -> Tensor:
    """The mean of the known values in the square around each pixel: (B, C, H, W), `known` (1, 1, H, W)."""
    weight = known.float()
    total, count = (F.avg_pool2d(each, side, 1, side // 2) for each in (values * weight, weight))
    return total / count.clamp(min=1e-6)


def _vote(bits: Tensor, sides: list[int], counted: Tensor | None = None) -> tuple[Tensor, float]:
    """The majority at each place of each plane's tile, repeated over the image, and how far the votes agree.

    Args:
        bits: uint8 (B, C, P, H, W).
        sides: Of the tile of each plane.
        counted: How much each pixel's votes count, of a shape that fits (B, C, H, W); None for all alike.

    Returns:
        uint8 (B, C, P, H, W), and the mean over planes and images of the majorities: 0.5 for noise to 1.
    """
    batch, channels, _, height, width = bits.shape
    votes = (bits.float() * 2 - 1).flatten(0, 1)
    weight = votes.new_ones(1) if counted is None else counted.float()
    weight = weight.expand(batch, channels, height, width).flatten(2).flatten(0, 1)
    rows, columns = (torch.arange(size, device=bits.device) for size in (height, width))
    voted, agreement = [], []
    for plane, side in enumerate(sides):
        place = ((rows % side).unsqueeze(1) * side + columns % side).flatten()
        total = torch.zeros(len(votes), side * side, device=bits.device)
        cast = total.clone()
        total.index_add_(1, place, votes[:, plane].flatten(1) * weight)
        cast.index_add_(1, place, weight)
        agreement.append((total.abs().sum(1) / cast.sum(1).clamp(min=1e-6)).mean())
        voted.append((total > 0)[:, place].view(batch, channels, height, width))
    return torch.stack(voted, 2).to(torch.uint8), 0.5 + float(torch.stack(agreement).mean()) / 2


def _correlation(estimates: Tensor, images: Tensor) -> Tensor:
    """Absolute Pearson correlation of each pair; 0 where one is constant: float64 (B,)."""
    a, b = (each.flatten(1).double() for each in (estimates, images))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    scale = (a.square().sum(1) * b.square().sum(1)).sqrt()
    found: Tensor = ((a * b).sum(1).abs() / scale.clamp(min=1e-12)).clamp(max=1.0)
    return found
