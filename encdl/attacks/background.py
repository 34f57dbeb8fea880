"""Attacks on one ciphertext over the constant background that every medical image has: key planes that repeat show."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from encdl.attacks.base import Attack, Finding, Scene, mean_interval, reconstruction
from encdl.attacks.references import RepeatedKeyXor
from encdl.attacks.targets import CipherTarget, Target
from encdl.attacks.tile import tile_attack
from encdl.ciphers.agile import AgileCipher
from encdl.keys.planes import coprime_sides
from encdl.nn.integer import wrap
from encdl.nn.phases import from_phases, to_phases

ROUNDS, AGREEING = 2, 0.7
"""How often planes are voted for anew, and by which pixels: those of whose bits so many agree with the last vote."""

ALL_MODES = (
    "default",
    "confusion",
    "diffusion",
    "synthetic_nonce",
    "coprime",
    "periodic",
    "reused_nonce",
)


class TileEstimation(Attack):
    """The most common value at each place of a repeated tile is the mask there (`encdl.attacks.tile`)."""

    name = "tile_estimation"
    about = (
        "Ciphertext only, one picture at a time: finds the period of a repeated mask, takes the most common "
        "value at each place of the tile for the mask over black background, and takes it off."
    )
    modes: ClassVar[tuple[str, ...]] = ALL_MODES

    def references(self) -> tuple[Target, ...]:
        """An XOR with a repeated key, which falls to it completely."""
        return (RepeatedKeyXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: absolute correlation of estimate and picture; baseline: of the estimates with other pictures."""
        pictures = scene.test if scene.large is None else scene.large
        ciphertexts = target.encrypt(pictures)
        estimates = torch.stack([_best_estimate(one) for one in ciphertexts])
        own, others = (_correlation(estimates.roll(shift, 0), pictures) for shift in (0, len(pictures) // 2))
        score, low, high = mean_interval(own)
        advantage, least, most = mean_interval(own - others)
        return self.finding(
            target,
            score,
            float(others.mean()),
            "correlation",
            least > 0,
            f"one ciphertext of {tuple(pictures.shape[2:])} pixels, all periods, no training",
            interval=(low, high),
            advantage=advantage,
            advantage_interval=(least, most),
            leaks=least > 0,
        )


class CoprimeSolving(Attack):
    """Solves for the bits of key planes of which each repeats a tile of its own.

    Where the picture is black, the ciphertext of `agile` is its mask, and the mask gives the key byte of a pixel:
    b_i = c_i - E_i(c0, bits of m0) with m0 = c0 in phases 1 to 3, and b_0 = c0 - F(planes of these phases). Each bit
    votes for its place in its plane's tile; over the picture itself the votes are noise. For a cipher of another
    kind the ciphertext itself is taken for the key byte.
    """

    name = "coprime_solving"
    about = (
        "Ciphertext only, one picture at a time: takes every pixel for black background, solves for the bits "
        "of its key planes, and lets them vote for their place in planes that repeat with co-prime periods."
    )
    modes: ClassVar[tuple[str, ...]] = (
        "default",
        "confusion",
        "diffusion",
        "synthetic_nonce",
        "coprime",
        "periodic",
    )
    period: ClassVar[int] = 16

    def references(self) -> tuple[Target, ...]:
        """An XOR with a repeated key: a period that divides that of the votes."""
        return (RepeatedKeyXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of the pictures that the voted planes open."""
        cipher = (
            target.cipher
            if isinstance(target, CipherTarget) and isinstance(target.cipher, AgileCipher)
            else None
        )
        planes = cipher.planes if cipher else 8
        pictures = scene.test if scene.large is None else scene.large
        ciphertexts = target.encrypt(pictures)
        best: tuple[float, Tensor] | None = None
        for sides in (coprime_sides(planes, self.period), [self.period] * planes):
            estimates, agreement = _solve(cipher, ciphertexts, sides)
            if best is None or agreement > best[0]:  # the attacker keeps the expansion whose votes agree
                best = agreement, estimates
        assert best is not None
        return reconstruction(
            self,
            target,
            scene,
            best[1],
            f"one ciphertext of {tuple(pictures.shape[2:])} pixels, period {self.period} known, no training",
            truth=pictures,
            agreement_of_votes=best[0],
        )


def _best_estimate(ciphertext: Tensor) -> Tensor:
    """What the tile attack finds in all pixels, or in every second one of every second row, where that repeats more.

    Networks that work on 2 x 2 phases may repeat in one phase alone.
    """
    whole, phase = tile_attack(ciphertext), tile_attack(ciphertext[:, ::2, ::2].contiguous())
    if whole.confidence >= phase.confidence:
        return whole.estimate
    height, width = ciphertext.shape[1:]
    return phase.estimate.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]


def _solve(cipher: AgileCipher | None, ciphertexts: Tensor, sides: list[int]) -> tuple[Tensor, float]:
    """Pictures opened by the voted planes, and how far the votes agree: 0.5 for noise to 1."""
    height, width = ciphertexts.shape[2:]
    flat = ciphertexts.view(-1, 1, height, width)
    if cipher is None:
        voted, agreement = _vote(_bits(flat, len(sides)), sides)
        return (flat ^ _bytes(voted)).view_as(ciphertexts), agreement
    voted, agreement = _vote_through(cipher, flat.float(), sides)
    return cipher.decrypt(flat, voted.unsqueeze(1)).view_as(ciphertexts), agreement


@torch.no_grad()
def _vote_through(cipher: AgileCipher, levels: Tensor, sides: list[int]) -> tuple[Tensor, float]:
    """The planes behind ciphertexts (N, 1, H, W) of `agile`, if the picture were black, and the votes' agreement.

    Phases 1 to 3 vote first; their planes give F, and so phase 0 its votes. Then only pixels vote that the planes so
    far find black, which leaves the picture itself out.
    """
    height, width = levels.shape[2:]
    c = to_phases(levels)
    others = wrap(c[:, 1:] - cipher.coupling(c[:, :1], c[:, :1]))
    black = torch.ones_like(levels)
    black[..., ::2, ::2] = 0
    key_bytes = from_phases(torch.cat([torch.zeros_like(c[:, :1]), others], 1), height, width)
    voted, agreement = _vote(
        _bits(key_bytes, len(sides)), sides, black
    )  # agreement of all pixels: not yet chosen ones
    for _ in range(ROUNDS):
        signs = to_phases(voted.float()) * 2 - 1  # plane p at channels 4p..4p+3
        field = cipher.key_field(torch.cat([signs[:, phase::4] for phase in (1, 2, 3)], 1))
        first = wrap(c[:, :1] - field)
        key_bytes = from_phases(torch.cat([first, others], 1), height, width)
        agreeing = to_phases(_bits(key_bytes, len(sides)).eq(voted).float().mean(1, keepdim=True))
        # Of phase 0 nobody has voted yet where all periods are even: its neighbours tell whether it is black.
        agreeing[:, :1] = agreeing[:, 1:].mean(1, keepdim=True)
        black = (from_phases(agreeing, height, width) >= AGREEING).float()
        if not black.any():
            break
        voted, _ = _vote(_bits(key_bytes, len(sides)), sides, black)
    return voted, agreement


def _vote(bits: Tensor, sides: list[int], counted: Tensor | None = None) -> tuple[Tensor, float]:
    """The majority at each place of each plane's tile, repeated over the picture: uint8 (N, P, H, W)."""
    count, _, height, width = bits.shape
    votes = bits.float() * 2 - 1
    weight = torch.ones_like(votes[:, :1]) if counted is None else counted.float()
    rows, columns = (torch.arange(size, device=bits.device) for size in (height, width))
    voted, agreement = [], []
    for plane, side in enumerate(sides):
        place = ((rows % side).unsqueeze(1) * side + columns % side).flatten()
        total = torch.zeros(count, side * side, device=bits.device)
        cast = total.clone()
        total.index_add_(1, place, (votes[:, plane] * weight[:, 0]).flatten(1))
        cast.index_add_(1, place, weight[:, 0].flatten(1))
        agreement.append((total.abs().sum(1) / cast.sum(1)).mean())
        voted.append((total > 0)[:, place].view(count, height, width))
    return torch.stack(voted, 1).to(torch.uint8), 0.5 + float(torch.stack(agreement).mean()) / 2


def _bits(levels: Tensor, planes: int) -> Tensor:
    """Bit p of each byte as plane p; planes beyond the eighth, of which a byte says nothing, are 0."""
    shifts = torch.arange(planes, device=levels.device).view(1, -1, 1, 1)
    found = (levels.int() >> shifts.clamp(max=31)) & 1
    return found.to(torch.uint8)


def _bytes(planes: Tensor) -> Tensor:
    powers = (1 << torch.arange(planes.shape[1], device=planes.device)).view(1, -1, 1, 1)
    return (planes.int() * powers).sum(1, keepdim=True).to(torch.uint8)


def _correlation(estimates: Tensor, pictures: Tensor) -> Tensor:
    """Absolute Pearson correlation of each pair; 0 where one is constant: float64 (B,)."""
    a, b = (each.flatten(1).double() for each in (estimates, pictures))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    scale = (a.square().sum(1) * b.square().sum(1)).sqrt()
    found: Tensor = ((a * b).sum(1).abs() / scale.clamp(min=1e-12)).clamp(max=1.0)
    return found
