"""Phase unwrapping: undo that noise carried levels around the circle of 256.

Noise on the ciphertext is noise on the image mod 256: a pixel of level 3 comes out as 254 where the noise is -5. Which
pixels went around is a question with two answers for each level near 0 or 255. The answer that makes the image
smoothest is found exactly, by a minimum cut: V. Kolmogorov and R. Zabih, "What Energy Functions Can Be Minimized via
Graph Cuts?", IEEE TPAMI 26 (2004) 147-159. Phase unwrapping by such cuts: J. M. Bioucas-Dias and G. Valadao, IEEE TIP
16 (2007) 698-709.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.special import ndtr

LEVELS = 256
REACH = 4.5
"""Deviations of the noise beyond which no level is taken to have gone around."""
SCALE, LIMIT = 20.0, 90.0
"""The cost of a step between neighbours is its height over SCALE, or LIMIT over SCALE for higher ones: edges are few,
and how high one is says little. Chosen on validation images (tumour, ACDC) at deviations 2 and 8."""
EXTREME_SHARE = 0.05
"""Share of an image that is taken to be exactly black, or exactly white."""
NEIGHBOURS = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.7), (1, -1, 0.7))
"""Steps down and right to one half of the eight neighbours, and the weight of each."""
PRECISION = 100
"""Flows are whole numbers: costs are rounded to one part in this."""

Levels: TypeAlias = npt.NDArray[np.float32]


def unwrap(image: npt.NDArray[np.uint8], sigma: float) -> Levels:
    """Add or take away 256 where the noise carried a level past 0 or 255.

    Args:
        image: uint8 (H, W), an image with noise added mod 256.
        sigma: Deviation of the noise in levels, 0 or more.

    Returns:
        float32 (H, W): `image`, but for levels below 0 and above 255 where it went around.

    Raises:
        ValueError: The image is not uint8 (H, W), or sigma is negative.
    """
    if image.dtype != np.uint8 or image.ndim != 2:
        raise ValueError(f"expected uint8 (H, W), got {image.dtype} {image.shape}")
    if not sigma >= 0:
        raise ValueError(f"sigma must be 0 or more, got {sigma}")
    levels = image.astype(np.float64)
    margin = REACH * sigma
    low, high = levels < min(margin, LEVELS / 2), levels > LEVELS - 1 - min(margin, LEVELS / 2)
    unsure = low | high
    if not unsure.any():
        return levels.astype(np.float32)
    dark, bright = np.where(high, levels - LEVELS, levels), np.where(low, levels + LEVELS, levels)
    is_bright = _smoothest(dark, bright, unsure, sigma)
    levels[unsure] = np.where(is_bright, bright[unsure], dark[unsure])
    return levels.astype(np.float32)


def _smoothest(
    dark: npt.NDArray[np.float64], bright: npt.NDArray[np.float64], unsure: npt.NDArray[np.bool_], sigma: float
) -> npt.NDArray[np.bool_]:
    """Which of the unsure pixels are bright, in C order: the choice of least cost.

    With x = 1 for bright, the cost of two neighbours is E00 + (E10 - E00) x_i + (E11 - E10) x_j + c (1 - x_i) x_j with
    c = E01 + E10 - E00 - E11, which is never negative here: two levels on the same side are nearer to one another.
    """
    count = int(unsure.sum())
    number = np.full(dark.shape, -1)
    number[unsure] = np.arange(count)
    extra = (_surprise(bright, sigma) - _surprise(dark, sigma))[unsure]
    first, second, capacity = [], [], []
    for down, right, weight in NEIGHBOURS:
        here, there = _pairs(dark.shape, down, right)
        i, j = number[here].ravel(), number[there].ravel()
        cost = {
            (a, b): weight * np.minimum(np.abs(one[here] - other[there]), LIMIT).ravel() / SCALE
            for a, one in enumerate((dark, bright))
            for b, other in enumerate((dark, bright))
        }
        # A pixel that is sure has one level: `dark` and `bright` agree there, and so do the costs.
        extra += np.bincount(i[i >= 0], (cost[1, 0] - cost[0, 0])[i >= 0], count)
        extra += np.bincount(j[j >= 0], (cost[1, 1] - cost[1, 0])[j >= 0], count)
        both = (i >= 0) & (j >= 0)
        first.append(i[both])
        second.append(j[both])
        capacity.append(np.maximum(cost[0, 1] + cost[1, 0] - cost[0, 0] - cost[1, 1], 0.0)[both])
    source, sink = count, count + 1
    costly = extra > 0
    first += [np.full(int(costly.sum()), source), np.flatnonzero(~costly)]
    second += [np.flatnonzero(costly), np.full(int((~costly).sum()), sink)]
    capacity += [extra[costly], -extra[~costly]]
    whole = np.rint(np.concatenate(capacity) * PRECISION).astype(np.int32)
    graph = csr_matrix((whole, (np.concatenate(first), np.concatenate(second))), shape=(count + 2, count + 2))
    left = graph - maximum_flow(graph, source, sink).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    answer: npt.NDArray[np.bool_] = np.ones(count + 2, dtype=bool)
    answer[reached] = False
    return answer[:count]


def _surprise(levels: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """Minus the log-likelihood of a noisy level, over images that are anywhere in 0..255, or black, or white."""
    inside = (ndtr(levels / sigma) - ndtr((levels - (LEVELS - 1)) / sigma)) / LEVELS
    extremes = sum(np.exp(-(((levels - at) / sigma) ** 2) / 2) for at in (0, LEVELS - 1))
    density = inside + EXTREME_SHARE / (sigma * np.sqrt(2 * np.pi)) * extremes
    result: npt.NDArray[np.float64] = -np.log(density + 1e-12)
    return result


def _pairs(shape: tuple[int, ...], down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where each pixel and its neighbour `down` and `right` lie, for all that have one."""
    height, width = shape
    here = (slice(0, max(0, height - down)), slice(max(0, -right), max(0, width - max(0, right))))
    there = (slice(down, height), slice(max(0, right), max(0, width + min(0, right))))
    return here, there
