"""The jigsaw attack on block scrambling: every block laid where it fits its neighbours and what pictures look like.

T. Chuman, H. Kiya, "A jigsaw puzzle solver-based attack on image encryption using vision transformer for
privacy-preserving DNNs", Information 14, 2023, attack the same schemes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from encdl.attacks.base import Attack, Finding, Scene, reconstruction
from encdl.attacks.references import BlockScrambling, block_side, from_blocks, to_blocks, turn_block
from encdl.attacks.targets import Target

ROUNDS = 6
"""How often blocks are laid anew, each time beside the neighbours, and after the likeness, of the time before."""

COMPONENTS = 4
"""Principal components that a likeness has: where in the body a picture lies, hardly more."""

NOISE, EDGE_NOISE, EDGE_WEIGHT = 20.0, 20.0, 0.1
"""Deviations in levels that fits and edges are measured in, and the weight of edges beside the fit."""


class JigsawAttack(Attack):
    """One ciphertext as a puzzle: blocks in eight turns, positive and negative, anywhere."""

    name = "jigsaw"
    about = (
        "Ciphertext only, one picture at a time: cuts the ciphertext into blocks and lays them, turned, "
        "mirrored and negated as need be, where edges go on and where pictures of the kind look like that."
    )
    modes: ClassVar[tuple[str, ...]] = (
        "default",
        "confusion",
        "diffusion",
        "synthetic_nonce",
        "coprime",
        "periodic",
    )

    def references(self) -> tuple[Target, ...]:
        """Block scrambling under a fresh key for each picture."""
        return (BlockScrambling(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of the laid pictures."""
        side = scene.test.shape[2]
        likeness = Likeness(scene.train)
        ciphertexts = to_blocks(target.encrypt(scene.test), block_side(scene.test)).float()
        laid = torch.stack([_laid(blocks, likeness, side) for blocks in ciphertexts])
        budget = f"one ciphertext, prior from {len(scene.train)} pictures, {ROUNDS} rounds of assignment"
        return reconstruction(self, target, scene, likeness(from_blocks(laid, side)), budget)


class Likeness:
    """What pictures of the kind look like: a mean and a few principal components.

    Args:
        pictures: uint8 (N, C, S, S).
    """

    def __init__(self, pictures: Tensor) -> None:
        flat = pictures.float().flatten(1)
        self.shape, self.mean, self.variance = pictures.shape[1:], flat.mean(0), flat.var(0)
        off = flat - self.mean
        power, directions = torch.linalg.eigh(off.T @ off / len(flat))  # ascending
        power, self.components = power[-COMPONENTS:], directions[:, -COMPONENTS:]
        self.gain = power / (power + NOISE**2 * 10)
        self.rest = (off - off @ self.components @ self.components.T).var(0)

    def __call__(self, pictures: Tensor) -> Tensor:
        """The likely pictures behind badly laid ones: float32 (B, C, S, S), levels."""
        weights = (pictures.flatten(1) - self.mean) @ self.components * self.gain
        likely: Tensor = (self.mean + weights @ self.components.T).view(-1, *self.shape)
        return likely


def _laid(blocks: Tensor, likeness: Likeness, side: int) -> Tensor:
    """Blocks (n, C, b, b) in the order of their places, each turned as it lies there."""
    block = blocks.shape[-1]
    turned = torch.stack([turn_block(each, turn) for each in (blocks, 255 - blocks) for turn in range(8)], 1)

    def fit(picture: Tensor, variance: Tensor) -> Tensor:
        mean, spread = (
            to_blocks(each.view(1, *likeness.shape), block)[0] for each in (picture, variance + NOISE**2)
        )
        return ((turned.unsqueeze(2) - mean) ** 2 / spread).flatten(3).mean(3)  # (n, 16, places)

    laid = _assigned(fit(likeness.mean, likeness.variance), turned)
    for _ in range(ROUNDS):
        likely = likeness(from_blocks(laid[None], side))
        laid = _assigned(
            fit(likely, likeness.rest) + EDGE_WEIGHT * _edges(turned, laid, side // block), turned
        )
    return laid


def _assigned(cost: Tensor, turned: Tensor) -> Tensor:
    best, way = cost.min(1)
    rows, places = linear_sum_assignment(best.cpu().numpy())
    order = torch.as_tensor(np.argsort(places), device=cost.device)
    block = torch.as_tensor(rows, device=cost.device)[order]
    return turned[block, way[block, torch.arange(len(block), device=cost.device)]]


def _edges(turned: Tensor, laid: Tensor, columns: int) -> Tensor:
    """How badly each turned block goes on from the neighbours that lie around each place: (n, 16, places)."""
    count = len(laid)
    place = torch.arange(count, device=laid.device)
    row, column = place // columns, place % columns
    sides = (  # own edge, the neighbour's edge, where the neighbour lies, whether there is one
        (turned[..., 0, :], laid[..., -1, :], place - columns, row > 0),
        (turned[..., -1, :], laid[..., 0, :], place + columns, row < count // columns - 1),
        (turned[..., :, 0], laid[..., :, -1], place - 1, column > 0),
        (turned[..., :, -1], laid[..., :, 0], place + 1, column < columns - 1),
    )
    total = torch.zeros((*turned.shape[:2], count), device=laid.device)
    for own, other, where, there in sides:
        beside = other[where.clamp(0, count - 1)]
        gap = (own.unsqueeze(2) - beside).square().flatten(3).mean(3) / EDGE_NOISE**2
        total += gap.clamp(max=9.0) * there
    return total
