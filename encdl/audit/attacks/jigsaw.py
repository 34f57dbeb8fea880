"""The jigsaw attack on block scrambling: every block laid where it fits its neighbours and what images look like.

T. Chuman, H. Kiya, "A jigsaw puzzle solver-based attack on image encryption using vision transformer for
privacy-preserving DNNs", Information 14, 2023, attack the same schemes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

import torch
from torch import Tensor

from encdl.audit.attacks.base import ATTACKS, Attack, Finding, Scene, reconstruction, share_interval
from encdl.audit.attacks.references import BLOCKS, BlockScrambling, block_side, from_blocks, to_blocks, turn_block
from encdl.audit.attacks.targets import Target

NOISE, EDGE_NOISE, PRIOR_WEIGHT, MOST = 40.0, 40.0, 0.6, 50.0
"""Deviations in levels that fits and edges are measured in, the weight of fits beside edges, and an edge's largest
cost. Picked on 24 scrambled test images of the embedded data, where they laid most blocks right."""

WIDTH: Final = 500
"""Puzzles of each size that are kept."""

WAYS: Final = 16
"""A block lies in one of eight turns, positive or negative."""

SAME: Final = 1.0
"""Mean difference in levels up to which a laid block is the right one."""


@ATTACKS.register("jigsaw")
class JigsawAttack(Attack):
    """One ciphertext as a puzzle: blocks in eight turns, positive and negative, anywhere."""

    about = (
        "Ciphertext only, one image at a time: cuts the ciphertext into blocks and lays them, turned, "
        "mirrored and negated as need be, where edges go on and where images of the kind look like that."
    )
    seeded: ClassVar[bool] = False
    modes: ClassVar[tuple[str, ...]] = ("default", "confusion", "diffusion", "synthetic_nonce", "coprime", "periodic")

    def references(self) -> tuple[Target, ...]:
        """Block scrambling under a fresh key for each image."""
        return (BlockScrambling(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of the laid images. Broken also if more blocks lie at their place than chance would have."""
        images = scene.test
        side, block = images.shape[2], block_side(images)
        places = _places(to_blocks(scene.train, block).float())
        laid = torch.stack(
            [_laid(blocks, places, WIDTH) for blocks in to_blocks(target.encrypt(images), block).float()]
        )
        off = (laid - to_blocks(images, block).float()).abs().flatten(2).mean(2)
        right = int((off < SAME).sum())
        low, high = share_interval(right, off.numel())
        finding = reconstruction(
            self,
            target,
            scene,
            from_blocks(laid, side),
            f"one ciphertext of {BLOCKS**2} blocks, prior from {len(scene.train)} images, {WIDTH} puzzles kept",
            truth=images,
            blocks_right=right / off.numel(),
            blocks_right_interval=(low, high),
        )
        return replace(finding, broken=True) if low > 1 / BLOCKS**2 else finding


@dataclass(frozen=True)
class _Place:
    """What blocks at one place of an image look like: a normal distribution.

    Attributes:
        mean: (pixels,).
        whiten: (pixels, pixels), maps deviations to independent ones of variance 1.
        log_volume: Half the logarithm of the covariance's determinant.
    """

    mean: Tensor
    whiten: Tensor
    log_volume: Tensor


def _places(blocks: Tensor) -> list[_Place]:
    """From training images' blocks, float32 (N, places, C, b, b)."""
    found = []
    for seen in blocks.flatten(2).unbind(1):
        mean = seen.mean(0)
        off = seen - mean
        covariance = off.T @ off / len(off) + NOISE**2 * torch.eye(off.shape[1], device=off.device)
        power, directions = torch.linalg.eigh(covariance)
        found.append(_Place(mean, directions / power.sqrt(), power.log().sum() / 2))
    return found


def _laid(blocks: Tensor, places: list[_Place], width: int) -> Tensor:
    """Blocks (n, C, b, b) of one ciphertext in the order of their likeliest places, each turned as it lies there.

    Builds puzzles from the middle outwards, place by place, and keeps the `width` likeliest of each size.
    """
    ways = torch.stack([turn_block(each, turn) for each in (blocks, 255 - blocks) for turn in range(8)], 1)
    ways = ways.flatten(0, 1)  # way w of block k at WAYS * k + w
    fit = _fit(ways, places)
    across = _edge(ways[..., :, -1], ways[..., :, 0])
    down = _edge(ways[..., -1, :], ways[..., 0, :])
    beside = ((-1, 0, across), (1, 0, across.T), (0, -1, down), (0, 1, down.T))
    block = torch.arange(len(ways), device=ways.device) // WAYS
    laid = torch.zeros((1, len(places)), dtype=torch.int64, device=ways.device)
    used = torch.zeros((1, len(blocks)), dtype=torch.bool, device=ways.device)
    cost, done = torch.zeros(1, device=ways.device), set[tuple[int, int]]()
    for row, column in _outwards():
        longer = cost.unsqueeze(1) + fit[:, row * BLOCKS + column]
        for right, below, table in beside:
            if (row + below, column + right) in done:
                longer = longer + table[laid[:, (row + below) * BLOCKS + column + right]]
        longer = longer.masked_fill(used[:, block], torch.inf)
        possible = int(longer.isfinite().sum())
        cost, kept = longer.flatten().topk(min(width, possible), largest=False)
        puzzle, way = kept // len(ways), kept % len(ways)
        laid, used = laid[puzzle], used[puzzle]
        laid[:, row * BLOCKS + column] = way
        used[torch.arange(len(way), device=way.device), block[way]] = True
        done.add((row, column))
    return ways[laid[0]]


def _outwards() -> list[tuple[int, int]]:
    """All places, those in the middle first: there images differ most, and edges tell."""
    middle = (BLOCKS - 1) / 2
    grid = [(row, column) for row in range(BLOCKS) for column in range(BLOCKS)]
    return sorted(grid, key=lambda place: (place[0] - middle) ** 2 + (place[1] - middle) ** 2)


def _fit(ways: Tensor, places: list[_Place]) -> Tensor:
    """How unlikely each laid block is at each place, beside how unlikely it is anywhere: (ways, places).

    Without the second part dark blocks, which are likely everywhere, would go first.
    """
    pixels = ways.flatten(1)
    costs = [((pixels - place.mean) @ place.whiten).square().sum(1) / 2 + place.log_volume for place in places]
    cost = torch.stack(costs, 1) * PRIOR_WEIGHT
    return cost + torch.logsumexp(-cost, 1, keepdim=True)


def _edge(own: Tensor, other: Tensor) -> Tensor:
    """How badly edges (ways, C, b) go on in others, beside how well those go on from any: (ways, ways)."""
    gaps = torch.cdist(own.flatten(1), other.flatten(1)).square() / (2 * EDGE_NOISE**2)
    gaps = gaps.clamp(max=MOST)
    return gaps + torch.logsumexp(-gaps, 0, keepdim=True)
