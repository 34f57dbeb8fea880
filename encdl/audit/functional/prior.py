"""Attacks that know nothing of a reader but W: a generative prior of the images, and linear programming.

The prior is a denoiser trained on the training images (T. Karras, M. Aittala, T. Aila, S. Laine, arXiv:2206.00364);
images are drawn from it that have exactly this W x, by projection at every step (Y. Wang, J. Yu, J. Zhang,
arXiv:2212.00490). One training serves every W of a data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor, nn

from encdl.audit.functional.resident import Resident, augmented
from encdl.audit.functional.training import Budget
from encdl.readers.backbones import Backbone

SPREAD = 0.5
"""Standard deviation of levels that run from -1 to 1, roughly."""
NOISES = (0.02, 2.0)
"""Standard deviations of the noise, from the last step to the first."""
STEPS, DRAWS = 24, 4
"""Steps of a drawing, and drawings that are averaged: their mean has less error than each."""

SOLVING_S = 20.0
"""Of one linear programme, at the most."""


class Denoiser(nn.Module):
    """A network that takes Gaussian noise of a known standard deviation off images of levels -1 to 1.

    Args:
        channels: C of the images.
        unet: Makes a U-Net of a number of input planes and of outputs.
    """

    def __init__(self, channels: int, unet: Callable[[int, int], Backbone]) -> None:
        super().__init__()
        self.unet = unet(channels + 1, channels)

    def forward(self, noisy: Tensor, deviation: Tensor) -> Tensor:
        """Images from (B, C, H, W) and a deviation for each, (B, 1, 1, 1)."""
        whole = (deviation**2 + SPREAD**2).sqrt()
        told = (deviation.log() / 4).expand_as(noisy[:, :1])
        guess: Tensor = self.unet(torch.cat([noisy / whole, told], dim=1)).float()
        return noisy * (SPREAD / whole) ** 2 + guess * (deviation * SPREAD / whole)


def train_prior(channels: int, unet: Callable[[int, int], Backbone], images: Tensor, budget: Budget) -> Denoiser:
    """A denoiser of uint8 images (N, C, H, W), on their device; the same for the same arguments."""
    torch.manual_seed(0)
    device, generator = images.device, torch.Generator().manual_seed(0)
    network = Denoiser(channels, unet).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), budget.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, budget.learning_rate, total_steps=budget.steps)
    batches = Resident(images, torch.zeros(len(images), device=device), None).batches(budget.batch, generator)
    low, high = map(math.log, NOISES)
    for _, (drawn, targets) in zip(range(budget.steps), batches, strict=False):
        levels = augmented(drawn, targets, generator, budget.strength / 2, budget.flip)[0] / 127.5 - 1
        deviation = (torch.rand(len(levels), 1, 1, 1, generator=generator) * (high - low) + low).exp().to(device)
        noise = torch.randn(levels.shape, generator=generator).to(device)
        error = (network(levels + noise * deviation, deviation) - levels).square()
        loss = (error * (deviation**-2 + SPREAD**-2)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def draw(network: Denoiser, rows: npt.NDArray[np.float64], test: Tensor) -> Tensor:
    """What the prior makes of W x: the mean of several drawings, float32 levels like `test`.

    Args:
        network: Of `train_prior`.
        rows: W, (numbers, pixels).
        test: Levels (B, C, H, W), with the key server's noise, of which W x alone is used.
    """
    device, shape = test.device, test.shape
    weights = torch.from_numpy(rows).to(device)
    gram = weights @ weights.T
    gram += torch.eye(len(gram), device=device, dtype=gram.dtype) * gram.diagonal().mean() * 1e-9
    factor = torch.linalg.cholesky(gram)
    seen = (test.flatten(1).double() / 127.5 - 1) @ weights.T
    deviations = np.geomspace(NOISES[1], NOISES[0], STEPS).tolist()
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(shape, device=device)
    for _ in range(DRAWS):
        state = torch.randn(shape, generator=generator).to(device) * deviations[0]
        guess = state
        for number, deviation in enumerate(deviations):
            guess = network(state, torch.full((len(test), 1, 1, 1), deviation, device=device))
            flat = guess.flatten(1).double()
            lacking = torch.cholesky_solve((seen - flat @ weights.T).T, factor).T
            guess = (flat + lacking @ weights).float().view(shape).clamp(-1, 1)
            if number + 1 < STEPS:
                fresh = torch.randn(shape, generator=generator).to(device)
                state = guess + fresh * deviations[number + 1]
        total += guess
    return (total / DRAWS + 1) * 127.5


def averaging(channels: int, size: tuple[int, int], block: int) -> npt.NDArray[np.float64]:
    """The map of a thumbnail: the mean of each block of pixels, (numbers, pixels)."""
    means: npt.NDArray[Any] = np.eye(channels)
    for side in size:
        along = np.kron(np.eye(side // block), np.full((1, block), 1 / block))
        means = np.kron(means, np.pad(along, ((0, 0), (0, side % block))))
    return means


def least_variation(rows: npt.NDArray[np.float64], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The image (C, H, W) in the box 0..255 with exactly this W x whose neighbouring pixels differ least.

    A linear programme, as arXiv:2509.21497 solves W x = y, with the total variation for want of any other knowledge.
    """
    pixels = image.size
    index = np.arange(pixels).reshape(image.shape)
    pairs = [(index[:, 1:].ravel(), index[:, :-1].ravel()), (index[:, :, 1:].ravel(), index[:, :, :-1].ravel())]
    plus, minus = (np.concatenate(each) for each in zip(*pairs, strict=True))
    count = len(plus)
    edges = np.arange(count)
    ones = np.ones(count)
    slope = sparse.csr_matrix(
        (np.concatenate([ones, -ones]), (np.tile(edges, 2), np.concatenate([plus, minus]))), (count, pixels)
    )
    # Slope = rise - fall, both of them positive, and their sum is least.
    constraints = sparse.bmat(
        [[sparse.csr_matrix(rows), None, None], [slope, -sparse.identity(count), sparse.identity(count)]], format="csr"
    )
    wanted = np.concatenate([rows @ image.ravel(), np.zeros(count)])
    cost = np.concatenate([np.zeros(pixels), np.ones(2 * count)])
    bounds = [(0, 255)] * pixels + [(0, None)] * (2 * count)
    found = linprog(
        cost, A_eq=constraints, b_eq=wanted, bounds=bounds, method="highs-ipm", options={"time_limit": SOLVING_S}
    )
    if found.x is None:
        return np.full(image.shape, 127.5)
    solved: npt.NDArray[np.float64] = found.x[:pixels].reshape(image.shape)
    return solved
