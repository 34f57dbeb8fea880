"""Attacks on what a functional key gives away: each rebuilds test images from W x, and knows the training images.

The mean image is what an attacker has who sees nothing; a thumbnail of as many numbers is what a plain small copy of
the image would give away. An attack that does worse than the mean image says nothing against the attacker.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.audit.functional.training import Budget, fit_decoder, rebuilt_by
from encdl.keys.functional_map import FunctionalMap
from encdl.metrics.quality import mean_psnr_db, mean_ssim
from encdl.readers.backbones import Backbone
from encdl.readers.functional import FunctionalStem
from encdl.readers.functional_decoder import FeatureDecoder
from encdl.readers.stems import placed

Seen = Callable[[Tensor], Tensor]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of ridge regression, relative to the mean variance of a number; the validation images choose."""
BOX_STEPS = 300
SSIM_AT_ONCE = 16


class ProjectedDecoder(nn.Module):
    """A U-Net behind a learnt transpose of W.

    Args:
        stem: Whose numbers are read.
        unet: Makes a segmenter of a number of input planes and of outputs.
        planes: Planes that the numbers are projected onto.
    """

    def __init__(self, stem: FunctionalStem, unet: Callable[[int, int], Backbone], planes: int = 16) -> None:
        super().__init__()
        inputs = stem.scale.num_features
        self.size, self.region = stem.size, stem.region
        self.norm = nn.BatchNorm2d(inputs, affine=False)
        self.back = nn.ConvTranspose2d(inputs, planes, stem.map.kernel, stem.map.stride)
        self.where = nn.Parameter(torch.zeros(planes, *stem.size)) if stem.region else None
        self.unet = unet(planes, stem.channels)

    def forward(self, numbers: Tensor) -> Tensor:
        """As `FeatureDecoder.forward`."""
        back = placed(self.back(self.norm(numbers)), self.region, self.size)
        image: Tensor = self.unet(back if self.where is None else back + self.where)
        return image


def ridge(seen: Seen, train: Tensor, val: Tensor, test: Tensor) -> Tensor:
    """The best linear guess: float32 levels like `test`, uint8 (B, C, H, W)."""
    features, held, asked = (_flat(seen, part) for part in (train, val, test))
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    features, held, asked = ((part - mean) / deviation for part in (features, held, asked))
    levels = train.flatten(1).double()
    middle = levels.mean(0)
    # In the smaller of the two spaces, of numbers or of images.
    own = features.T @ features if features.shape[1] <= len(features) else features @ features.T
    values, vectors = torch.linalg.eigh(own)
    best, found = float("inf"), torch.zeros_like(asked)
    for strength in STRENGTHS:
        inverse = (vectors / (values.clamp(min=0) + strength * len(features))) @ vectors.T
        if features.shape[1] <= len(features):
            solution = inverse @ (features.T @ (levels - middle))
        else:
            solution = features.T @ (inverse @ (levels - middle))
        guess = (held @ solution + middle).clamp(0, 255)
        error = float(F.mse_loss(guess, val.flatten(1).double()))
        if error < best:
            best, found = error, (asked @ solution + middle).clamp(0, 255)
    return found.float().view(test.shape)


def network(
    kind: str,
    stem: FunctionalStem,
    unet: Callable[[int, int], Backbone],
    parts: tuple[Tensor, Tensor, Tensor],
    budget: Budget,
    seed: int,
) -> Tensor:
    """Reconstructions by a network trained on the training images, "unet" or "residual"; as `ridge`."""
    train, val, test = parts
    torch.manual_seed(seed)
    if kind == "unet":
        decoder: nn.Module = ProjectedDecoder(stem, unet)
    else:
        inputs = stem.scale.num_features
        shape = stem.channels, stem.size, stem.map.kernel, stem.map.stride
        decoder = FeatureDecoder(inputs, *shape, planes=8, width=128, blocks=6, region=stem.region)
    decoder.to(train.device)
    fit_decoder(decoder, stem.seen, train, val, budget, seed)
    return rebuilt_by(decoder, stem.seen, test)


def box_least_squares(stem: FunctionalStem, test: Tensor, start: Tensor) -> Tensor:
    """Levels in 0..255 with the very W x that was seen, nearest to a first guess: projected gradient descent.

    The attack of arXiv:2509.21497, which solves W x = y in the box of levels, from a guess that knows the training
    images instead of none. Only for form "layer", where W x is known as a whole number.

    Args:
        stem: Whose numbers are seen.
        test: uint8 (B, C, H, W), of which W x is given.
        start: float32, a guess such as that of `ridge`.
    """
    weights = stem.map.integers().detach()
    norm = float(torch.linalg.matrix_norm(weights.flatten(1), 2)) * -(-stem.map.kernel // stem.map.stride)
    wanted = stem.map(stem.noisy(test)).detach()
    guess, ahead, momentum = start.clone(), start.clone(), 1.0
    for _ in range(BOX_STEPS):  # accelerated: Beck and Teboulle, SIAM J. Imaging Sciences 2009
        ahead.requires_grad_(True)
        half = 0.5 * (stem.map(ahead) - wanted).square().sum()
        (slope,) = torch.autograd.grad(half, ahead)
        ahead = ahead.detach()
        following = (ahead - slope / norm**2).clamp(0, 255)
        larger = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = following + (momentum - 1) / larger * (following - guess)
        guess, momentum = following, larger
    return guess


def thumbnail(numbers: int, images: Tensor) -> Tensor:
    """A copy of as many numbers at the most, by averaging, and enlarged again: float32 like `images`, uint8."""
    channels, height, width = images.shape[1:]
    share = (numbers / (channels * height * width)) ** 0.5
    rows, columns = max(1, int(height * share)), max(1, int(width * share))
    small = F.interpolate(images.float(), (rows, columns), mode="area").round()
    return F.interpolate(small, (height, width), mode="bicubic", align_corners=False).clamp(0, 255)


def algebra(function: FunctionalMap, device: str | torch.device = "cpu") -> dict[str, int]:
    """The exact leakage of W: its rank, and how many pixels follow from W x alone, whatever the others are.

    A pixel follows if its unit vector lies in the span of W's rows: if its leverage is 1.
    """
    rows = torch.from_numpy(matrix(function)).to(device)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = values > values.max() * 1e-10
    spanning = (vectors[:, kept] / values[kept].sqrt()).T @ rows  # orthonormal
    leverage = spanning.square().sum(0)
    return {"rank": int(kept.sum()), "determined_pixels": int((leverage > 1 - 1e-6).sum())}


def matrix(function: FunctionalMap) -> npt.NDArray[np.float64]:
    """W as float64 (numbers, pixels)."""
    outputs, channels, kernel, _ = function.weights.shape
    (rows, columns), (height, width), stride = function.grid, function.size, function.stride
    (above, below), (before, behind) = function.region or ((0, height), (0, width))
    far = max(rows, columns) * stride + kernel
    found = np.zeros((outputs, rows, columns, channels, height, width))
    for row, column in np.ndindex(rows, columns):
        whole = np.zeros((outputs, channels, far, far))
        top, left = row * stride, column * stride
        whole[:, :, top : top + kernel, left : left + kernel] = function.weights
        found[:, row, column, :, above:below, before:behind] = whole[:, :, : below - above, : behind - before]
    return found.reshape(function.numbers, -1)


def likeness(rebuilt: Tensor, images: Tensor) -> tuple[float, float]:
    """PSNR in dB and SSIM, means over images: of float32 levels against uint8."""
    levels = rebuilt.round().clamp(0, 255).to(torch.uint8)
    # A few at a time: the similarity's windows in float64 take thousands of bytes a pixel.
    pairs = zip(torch.split(levels, SSIM_AT_ONCE), torch.split(images, SSIM_AT_ONCE), strict=True)
    ssim = sum(float(mean_ssim(one, other)) * len(one) for one, other in pairs) / len(images)
    return float(mean_psnr_db(levels, images)), ssim


@torch.no_grad()
def _flat(seen: Seen, images: Tensor) -> Tensor:
    return torch.cat([seen(part).flatten(1).double() for part in torch.split(images, 512)])
