"""Statistics of ciphertexts beside those of uniform noise: one row for each way of encrypting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from encdl.audit.attacks.base import share_interval
from encdl.audit.attacks.targets import Aes, FixedXor, Target
from encdl.metrics.differential import npcr_critical, npcr_pct, uaci_critical, uaci_pct
from encdl.metrics.entropy import (
    block_pixels_for,
    correlation_critical,
    entropy_interval,
    local_entropy_bits,
    local_entropy_interval,
)
from encdl.metrics.glcm import glcm_features
from encdl.metrics.quality import mean_psnr_db, mean_ssim
from encdl.metrics.statistics import CHI_SQUARE_CRITICAL, DIRECTIONS, adjacent_correlation, chi_square, entropy_bits

BATCH: Final = 50
"""Images that are encrypted and measured at a time."""

PLACES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where the one pixel lies that is changed, by one level, for NPCR and UACI: from the first to the last."""

OWN_ROWS: Final = {
    "network": "default",
    "confusion": "confusion",
    "diffusion": "diffusion",
    "synthetic_nonce": "synthetic_nonce",
    "fresh_nonce": "default",
}
"""Rows of the audited cipher and the mode of each. In `network`, `confusion` and `diffusion` image and changed
image share a nonce, as only someone who forces it encrypts them; in the other two they are encrypted as users do."""

RENUMBERED: Final = ("fresh_nonce", "aes_256_ctr_fresh", "uniform_noise")
"""Rows whose changed image gets a nonce of its own."""

NOISE_PASSES: Final = 0.95
"""Share of uniform noise that each test passes: all are at the significance .05."""

LOCAL_BLOCKS: Final = 30
"""Wu's number of blocks, of his 1936 pixels or, in small images, of the largest square that fits so often."""


@dataclass(frozen=True)
class Noise(Target):
    """No cipher: uniform noise, another for each number. What a perfect ciphertext looks like."""

    mode: str = "default"
    name = "uniform_noise"

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """See `Target.encrypt`; the images decide nothing."""
        generators = (torch.Generator().manual_seed(first + index) for index in range(len(images)))
        noise = [torch.randint(0, 256, images.shape[1:], generator=one, dtype=torch.uint8) for one in generators]
        return torch.stack(noise).to(images.device)

    def under(self, owner: int) -> Noise:
        """The same: there is no key."""
        return self


def rows(own: Mapping[str, Target], thesis: Target | None) -> dict[str, Target]:
    """The ciphertexts that statistics are taken of, by the name of the row.

    Args:
        own: The audited cipher by mode; rows whose mode is missing are left out.
        thesis: The cipher of the thesis, or None to leave it out.
    """
    targets = {row: own[mode] for row, mode in OWN_ROWS.items() if mode in own}
    targets |= {"aes_256_ctr": Aes(), "fixed_xor": FixedXor(), "uniform_noise": Noise()}
    return targets if thesis is None else targets | {"thesis": thesis}


def statistics(row: str, target: Target, images: Tensor, seed: int) -> dict[str, Any]:
    """The figures of one row.

    Args:
        row: Its name; decides which nonce a changed image gets.
        target: What encrypts.
        images: uint8 (N, C, H, W).
        seed: Of the places of local entropy's blocks.

    Returns:
        Means over images, and shares in percent of images that pass: `entropy_bits`, `local_entropy_bits`,
        `chi2_pass_pct`, `adjacent_correlation` (mean absolute value over three directions), `npcr_pct`,
        `npcr_pass_pct`, `uaci_pct`, `uaci_pass_pct` (of images and places), `npcr_images_pass_pct`,
        `uaci_images_pass_pct` (of images, by the mean over places), `psnr_db`, `ssim`, `glcm`, and more of the
        same kind. `intervals` holds the 99.9 % confidence interval of each share of passes.
    """
    generator = torch.Generator().manual_seed(seed)
    ciphertexts, pairs = [], []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        ciphertext = target.encrypt(batch, start)
        ciphertexts.append(ciphertext)
        pairs.append(_differences(row, target, batch, ciphertext, start))
    ciphertext = torch.cat(ciphertexts)
    npcr, uaci = (torch.cat([pair[which] for pair in pairs]) for which in (0, 1))
    figures = _histogram_figures(ciphertext, generator) | _neighbour_figures(ciphertext)
    pixels = images[0].numel()
    low, high = uaci_critical(pixels)
    passes = figures.pop("passes") | figures.pop("neighbour_passes")
    passes |= {
        "npcr_pass_pct": npcr >= npcr_critical(pixels),
        "uaci_pass_pct": (uaci >= low) & (uaci <= high),
        "npcr_images_pass_pct": npcr.mean(1) >= npcr_critical(pixels),
        "uaci_images_pass_pct": (uaci.mean(1) >= low) & (uaci.mean(1) <= high),
    }
    figures |= {"npcr_pct": float(npcr.mean()), "uaci_pct": float(uaci.mean())}
    figures |= {"npcr_critical_pct": npcr_critical(pixels), "uaci_critical_pct": [low, high]}
    figures |= {"psnr_db": float(mean_psnr_db(ciphertext, images)), "ssim": float(mean_ssim(ciphertext, images))}
    figures |= {name: 100.0 * float(passed.double().mean()) for name, passed in passes.items()}
    figures["intervals"] = {
        name: [100.0 * end for end in share_interval(int(passed.sum()), passed.numel())]
        for name, passed in passes.items()
    }
    return figures


def _differences(row: str, target: Target, batch: Tensor, ciphertext: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """NPCR and UACI in percent, each (B, places), for one changed pixel."""
    npcr, uaci = [], []
    pixels = batch[0].numel()
    for turn, place in enumerate(PLACES, 1):
        changed = batch.clone()
        changed.flatten(1)[:, round(place * (pixels - 1))] ^= 1
        other = target.encrypt(changed, start + (turn * 1_000_000 if row in RENUMBERED else 0))
        npcr.append(npcr_pct(ciphertext, other))
        uaci.append(uaci_pct(ciphertext, other))
    return torch.stack(npcr, 1), torch.stack(uaci, 1)


def _histogram_figures(ciphertext: Tensor, generator: torch.Generator) -> dict[str, Any]:
    channels, height, width = ciphertext.shape[1:]
    block = block_pixels_for((channels, height, width), LOCAL_BLOCKS)
    entropy = entropy_bits(ciphertext)
    local = local_entropy_bits(ciphertext, LOCAL_BLOCKS, block, generator)
    chi2 = chi_square(ciphertext)
    (low, high), (local_low, local_high) = (
        entropy_interval(ciphertext[0].numel()),
        local_entropy_interval(LOCAL_BLOCKS, block),
    )
    return {
        "entropy_bits": float(entropy.mean()),
        "local_entropy_bits": float(local.mean()),
        "local_entropy_block_pixels": block,
        "chi2": float(chi2.mean()),
        "passes": {
            "entropy_pass_pct": (entropy >= low) & (entropy <= high),
            "local_entropy_pass_pct": (local >= local_low) & (local <= local_high),
            "chi2_pass_pct": chi2 < CHI_SQUARE_CRITICAL,
        },
    }


def _neighbour_figures(ciphertext: Tensor) -> dict[str, Any]:
    channels, height, width = ciphertext.shape[1:]
    found = {name: adjacent_correlation(ciphertext, name) for name in DIRECTIONS}
    counts = {name: channels * (height - rows) * (width - columns) for name, (rows, columns) in DIRECTIONS.items()}
    return {
        "adjacent_correlation": float(torch.stack([each.abs() for each in found.values()]).mean()),
        "adjacent_correlation_by_direction": {name: float(each.abs().mean()) for name, each in found.items()},
        "glcm": {name: float(value.mean()) for name, value in glcm_features(ciphertext).items()},
        "neighbour_passes": {
            "correlation_pass_pct": torch.stack(
                [each.abs() <= correlation_critical(counts[name]) for name, each in found.items()]
            )
        },
    }
