"""The last step of restoring a noisy image: similar blocks filtered together, steered by the network's image.

It is the second stage of BM3D (K. Dabov et al., IEEE TIP 16 (2007) 2080-2095) with the decryption network's image in
the place of its first stage: that says which blocks are alike, and how much of each coefficient of their common
spectrum is image. Convolutions see no blocks far from one another together; what this finds and what the network found
err in different places, so that both together are nearer than either. Nothing is learnt here, and nobody has to tell
how strong the noise is.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.ciphers.nn import compiled_collaborative
from encdl.ciphers.nn.compiled_collaborative import REACH, SIDE, STEP
from encdl.ciphers.nn.shrinkage import cosines

GROUP = 16
"""Blocks of a group, at the most."""
SHARE = 0.7
"""Of what is found here in the result; the rest is the network's."""
KAISER_BETA = 2.0
OUTLIER = 5.0
"""Deviations from which a level was hit rather than noisy: the network's stands for it."""
FINE, FINEST = 8, 9
"""Block for telling noise, and the sum of row and column frequency from which a coefficient is mostly noise."""
MEDIAN = 0.6745
"""Of the absolute value of a standard normal variable."""


@torch.no_grad()
def filtered(levels: Tensor, guide: Tensor, lost: Tensor) -> Tensor:
    """The network's images, together with what similar blocks of the noisy ones tell.

    Args:
        levels: (N, 1, H, W) float32, the noisy images, which may have wrapped at 256.
        guide: (N, 1, H, W) float32 0..255, the network's images of them.
        lost: (N, 1, H, W) bool, where `levels` tell nothing.

    Returns:
        (N, 1, H, W) float32; about 0..255, not rounded.
    """
    difference = (torch.remainder(levels - guide + 128.0, 256.0) - 128.0).masked_fill(lost, 0.0)
    sigmas = deviations(guide + difference, difference).view(-1, 1, 1, 1)
    difference = difference.masked_fill(difference.abs() > OUTLIER * sigmas, 0.0)
    noisy = guide + difference
    found = [
        _collaborated(one, image, float(sigma)) if sigma > 0 else image
        for one, image, sigma in zip(noisy, guide, sigmas.flatten(), strict=True)
    ]
    return torch.lerp(guide, torch.stack(found), SHARE)


def deviations(noisy: Tensor, removed: Tensor) -> Tensor:
    """The noise's standard deviation in each image: between what the network removed and all that is fine.

    The finest coefficients of the noisy image hold the noise and some of the image; those of what was removed hold part
    of the noise. The geometric mean of both, each by its median (D. L. Donoho and I. M. Johnstone, Biometrika 81 (1994)
    425-455), was within a quarter of the deviations 1 to 16 on the real data sets.

    Args:
        noisy: (N, 1, H, W) float32, not wrapped.
        removed: (N, 1, H, W) float32, less what the network left.

    Returns:
        (N,) float32, in levels.
    """
    step = max(2, min(noisy.shape[-2:]) // 64)  # about as many blocks whatever the size
    across, down = (max(0, FINE - size) for size in (noisy.shape[-1], noisy.shape[-2]))
    both = F.pad(torch.cat([noisy, removed]), (0, across, 0, down), mode="replicate")
    fine = F.conv2d(both, _finest().to(noisy.device), stride=step).abs().flatten(1)
    bounds = fine.median(1).values.view(2, -1) / MEDIAN
    return bounds.prod(0).sqrt()


def _collaborated(noisy: Tensor, guide: Tensor, sigma: float) -> Tensor:
    """One image of one channel, (1, H, W)."""
    height, width = noisy.shape[-2:]
    # To where the last reference block ends with the image.
    down, across = (max(SIDE, size) - size + (SIDE - max(SIDE, size)) % STEP for size in (height, width))
    framed = F.pad(torch.stack([noisy, guide]), (0, across, 0, down), mode="replicate").squeeze(1)
    places = [min(size - SIDE, REACH) + 1 for size in framed.shape[1:]]
    many = 1 << int(math.log2(min(GROUP, places[0] * places[1])))  # as many as a corner has
    compiled = noisy.device.type == "cpu" and compiled_collaborative.available()
    sums = compiled_collaborative.sums if compiled else _sums
    estimates, weights = sums(framed[0], framed[1], sigma, many, _basis(SIDE), _window())
    return (estimates / weights)[None, :height, :width]


def _sums(
    noisy: Tensor, guide: Tensor, sigma: float, many: int, basis: Tensor, window: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted estimates of all groups, added up, and their weights, each (H, W)."""
    height, width = noisy.shape
    device = noisy.device
    places = torch.arange((height - SIDE + 1) * (width - SIDE + 1), device=device).view(-1, width - SIDE + 1)
    references = places[::STEP, ::STEP].flatten()
    members = _alike(guide, references, many, places.shape[1])
    within, across = torch.kron(basis, basis).to(device), _haar(many).to(device)
    spectra, clean = (across @ (F.unfold(each[None, None], SIDE)[0].T @ within.T)[members] for each in (noisy, guide))
    gain = clean.square() / (clean.square() + sigma**2)
    weight = 1.0 / (gain.square().sum((1, 2), keepdim=True) + 1e-3)
    estimates = across.T @ (spectra * gain * weight)
    summed = torch.zeros(places.numel(), SIDE * SIDE, dtype=torch.float32, device=device)
    summed.index_add_(0, members.flatten(), estimates.flatten(0, 1))
    weights = torch.zeros(places.numel(), 1, dtype=torch.float32, device=device)
    weights.index_add_(0, members.flatten(), weight.expand(-1, many, 1).flatten(0, 1))
    flat = window.to(device).flatten()
    sums, totals = (F.fold((each * flat).T[None], (height, width), SIDE)[0, 0] for each in (summed @ within, weights))
    return sums, totals


def _alike(guide: Tensor, references: Tensor, many: int, columns: int) -> Tensor:
    """Numbers of the blocks of each reference's group, itself first, the nearest next: (references, many)."""
    height, width = guide.shape
    down, right = (min(REACH, size - SIDE) for size in guide.shape)
    # Beyond the border lies nothing that any block is like.
    framed = F.pad(guide, (right, right, down, down), value=1e6)
    distances, offsets = [], []
    for y in range(-down, down + 1):
        moved = framed[down + y : down + y + height].unfold(1, width, 1).transpose(0, 1)
        differences = F.avg_pool2d((moved - guide).square()[:, None], SIDE, STEP)
        distances.append(differences.flatten(1))
        offsets += [y * columns + x for x in range(-right, right + 1)]
    found = torch.cat(distances)
    found[offsets.index(0)] = -1.0
    nearest = found.T.topk(many, 1, largest=False).indices
    return references[:, None] + torch.tensor(offsets, device=guide.device)[nearest]


@cache
def _basis(side: int) -> Tensor:
    """As `cosines`, in float32."""
    return cosines(side).float()


@cache
def _finest() -> Tensor:
    """The finest elements of the basis of a block, (elements, 1, FINE, FINE)."""
    rows = _basis(FINE)
    both = torch.einsum("uy,vx->uvyx", rows, rows)
    at = torch.arange(FINE)
    return both[at[:, None] + at >= FINEST].unsqueeze(1)


@cache
def _haar(size: int) -> Tensor:
    """The orthonormal Haar basis, (size, size)."""
    one = torch.ones(1, 1, dtype=torch.float64)
    rows, signs = one, torch.cat([one, -one], dim=1)
    while len(rows) < size:
        differences = torch.kron(torch.eye(len(rows), dtype=torch.float64), signs)
        rows = torch.cat([torch.kron(rows, signs.abs()), differences]) / math.sqrt(2)
    return rows.float()


@cache
def _window() -> Tensor:
    """What a block's pixels weigh, (SIDE, SIDE): less at its border."""
    line = torch.kaiser_window(SIDE, periodic=False, beta=KAISER_BETA, dtype=torch.float32)
    return torch.outer(line, line)
